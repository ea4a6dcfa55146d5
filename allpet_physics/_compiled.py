"""numba's ``njit`` with compiled code kept on disk, in a cache that several processes may fill at once."""

import contextlib
import hashlib
from importlib.resources import files

from numba import njit
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.dispatcher import Dispatcher

#: Compiled into the kernels of other modules, whose own source numba alone would look at.
_SHARED = hashlib.sha256(files(__package__).joinpath("_simd.py").read_bytes()).hexdigest()


class _FilesByContent(IndexDataCacheFile):
    """A cache on disk whose files are named by what they hold: source, types, processor and version of numba.

    numba numbers them by the next free number of an index that it read before. Two processes that compile a function
    for other types at the same time then take the same number, and one of the two has the code of the other, which
    computes rubbish without a word. Here a file has the code that its name says, whoever writes it and when; what a
    race can cost is an entry of the index, and a kernel is compiled once more.
    """

    def save(self, key, data):
        """Save a new entry: the code first, so that the index never names what is not there."""
        digest = hashlib.sha256(repr((self._version, self._source_stamp, key)).encode()).hexdigest()
        name = self._data_name_pattern.format(number=int(digest[:15], 16))
        self._save_data(name, data)
        self._save_index(self._load_index() | {key: name})


class _Cache(FunctionCache):
    """The cache of one function; what kernels share belongs to the source of each."""

    def __init__(self, function):
        super().__init__(function)
        stamp = (self._cache_file._source_stamp, _SHARED)
        self._cache_file = _FilesByContent(self._cache_path, self._impl.filename_base, stamp)


def compiled(**options):
    """Return a decorator that is ``numba.njit(cache=True, **options)`` with a cache for several processes.

    Parameters
    ----------
    **options
        Of ``numba.njit``.
    """
    def decorate(function):
        kernel = njit(**options)(function)
        if isinstance(kernel, Dispatcher):  # not where NUMBA_DISABLE_JIT asks for plain Python
            with contextlib.suppress(RuntimeError):  # no folder can be written: compiled anew by each process
                kernel._cache = _Cache(function)
        return kernel

    return decorate
