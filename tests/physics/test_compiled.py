"""The cache of compiled code: found again, and never mixed up by processes that fill it at the same time."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from numba.core.caching import IndexDataCacheFile
from numba.core.dispatcher import Dispatcher

from allpet_physics import _block_sampling, _compiled, _fbp_kernels, _kernels, _mask_kernels, _prior_kernels
from allpet_physics.simulation import _anatomy_kernels


def half(x):
    return x / 2


def files(tmp_path, kind, n=2, stamp=(1.0, 2)):
    return [kind(str(tmp_path), "half", stamp) for _ in range(n)]


def mixed_up(tmp_path, kind, moment) -> bool:
    """Return whether a type gets another one's code, where two processes saw an empty cache and one waits at a moment.

    The first one waits before it writes the code or the index, and the second one writes both meanwhile.
    """
    first, second, third = files(tmp_path, kind, 3)
    goes_on = getattr(first, moment)
    second._load_index = dict

    def wait(*args):
        if not os.path.exists(tmp_path / "seen"):
            (tmp_path / "seen").touch()
            second.save("float64", "code for float64")
        return goes_on(*args)

    setattr(first, moment, wait)
    first._load_index = dict
    first.save("float32", "code for float32")
    found = {key: third.load(key) for key in ("float32", "float64")}
    assert any(found.values())  # one entry may be lost, not both
    return any(code not in (None, f"code for {key}") for key, code in found.items())


@pytest.mark.parametrize("moment", ["_save_data", "_save_index"])
def test_processes_that_write_at_once_never_mix_up_code(tmp_path, moment):
    assert not mixed_up(tmp_path, _compiled._FilesByContent, moment)


def test_numbered_files_are_mixed_up(tmp_path):
    class Numbered(IndexDataCacheFile):
        """The rule of numba 0.68: the first number that the index does not have, and the index before the code."""

        def save(self, key, data):
            index = self._load_index()
            index[key] = self._data_name(1 + len(index))
            self._save_index(index)
            self._save_data(index[key], data)

    assert mixed_up(tmp_path, Numbered, "_save_data")


def test_code_of_an_earlier_source_is_not_taken_for_that_of_a_new_one(tmp_path):
    old, new = (files(tmp_path, _compiled._FilesByContent, 1, stamp)[0] for stamp in ((1.0, 2), (3.0, 4)))
    old.save("float32", "old")
    assert new.load("float32") is None
    new.save("float32", "new")
    old._load_index = new._load_index  # an old process that is still at work
    old.save("float32", "old")
    assert files(tmp_path, _compiled._FilesByContent, 1, (3.0, 4))[0].load("float32") in (None, "new")


def test_entries_of_several_types_are_found_by_all(tmp_path):
    first, second = files(tmp_path, _compiled._FilesByContent)
    for key in ("float32", "float64"):
        first.save(key, f"code for {key}")
    assert [second.load(key) for key in ("float32", "float64", "int8")] == ["code for float32", "code for float64",
                                                                           None]


def test_a_kernel_is_compiled_once(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    for hits in (0, 1):
        kernel = _compiled.compiled(error_model="numpy")(half)
        assert kernel(3.0) == 1.5
        assert sum(kernel.stats.cache_hits.values()) == hits


def test_every_kernel_that_is_kept_is_kept_so():
    source = Path(_compiled.__file__).parent
    assert not [path for path in source.rglob("*.py") if re.search(r"cache\s*=\s*True", path.read_text())
                and path.name != "_compiled.py"]
    for module in (_anatomy_kernels, _block_sampling, _fbp_kernels, _kernels, _mask_kernels, _prior_kernels):
        asked = Path(module.__file__).read_text().count("@compiled(")
        kept = [kernel for kernel in vars(module).values() if isinstance(kernel, Dispatcher)
                and type(getattr(kernel._cache, "_cache_file", None)) is _compiled._FilesByContent]
        assert len(kept) == asked > 0


def test_kernels_know_another_source_of_what_they_share(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    for shared, hits in (("one", 0), ("one", 1), ("other", 0)):
        monkeypatch.setattr(_compiled, "_SHARED", shared)
        kernel = _compiled.compiled()(half)
        assert kernel(3.0) == 1.5
        assert sum(kernel.stats.cache_hits.values()) == hits


def test_without_a_folder_for_the_cache_kernels_are_compiled_all_the_same(monkeypatch):
    monkeypatch.setattr(_compiled._Cache._impl_class, "_locator_classes", [])
    assert _compiled.compiled()(half)(3.0) == 1.5


def test_without_compilation_a_kernel_is_plain_python():
    code = ("import json; from allpet_physics._compiled import compiled; f = compiled()(lambda x: x + 1); "
            "print(json.dumps([type(f).__name__, f(1)]))")
    out = subprocess.run([sys.executable, "-c", code], env=os.environ | {"NUMBA_DISABLE_JIT": "1"}, text=True,
                         capture_output=True, check=True)
    assert json.loads(out.stdout) == ["function", 2]


def test_numbers_of_all_types_come_from_their_own_code(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    values = [np.float32(3), np.float64(3), np.int64(3)]
    for hits in (0, 3):
        kernel = _compiled.compiled()(half)
        assert [kernel(value) for value in values] == [1.5] * 3
        assert sum(kernel.stats.cache_hits.values()) == hits
    assert len(list(tmp_path.rglob("*.nbc"))) == 3
