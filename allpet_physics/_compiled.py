"""numba's ``njit`` with compiled code kept on disk, in a cache that several processes may fill at once."""

import hashlib

from numba import njit
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.dispatcher import Dispatcher


class _FilesByContent(IndexDataCacheFile):
    """A cache on disk whose files are named by what they were compiled from.

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
    """The cache of one function."""

    def __init__(self, function):
        super().__init__(function)
        theirs = self._cache_file
        self._cache_file = _FilesByContent(self._cache_path, self._impl.filename_base, theirs._source_stamp)


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
            kernel._cache = _Cache(function)
        return kernel

    return decorate
