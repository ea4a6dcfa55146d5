"""The cache of compiled code: found again, and never mixed up by processes that fill it at the same time."""

import json
import os
import subprocess
import sys

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
    found = [kernel for module in (_anatomy_kernels, _block_sampling, _fbp_kernels, _kernels, _mask_kernels,
                                   _prior_kernels)
             for kernel in vars(module).values() if isinstance(kernel, Dispatcher)]
    kept = [kernel for kernel in found if hasattr(kernel._cache, "_cache_file")]
    assert len(kept) >= 30
    assert not [kernel for kernel in kept if type(kernel._cache._cache_file) is IndexDataCacheFile]


def test_without_compilation_a_kernel_is_plain_python():
    code = ("import json; from allpet_physics._compiled import compiled; f = compiled()(lambda x: x + 1); "
            "print(json.dumps([type(f).__name__, f(1)]))")
    out = subprocess.run([sys.executable, "-c", code], env=os.environ | {"NUMBA_DISABLE_JIT": "1"}, text=True,
                         capture_output=True, check=True)
    assert json.loads(out.stdout) == ["function", 2]


def test_numbers_of_all_types_come_from_their_own_code(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    values = [np.float32(3), np.float64(3), np.int64(3)]
    for _ in range(2):
        kernel = _compiled.compiled()(half)
        assert [kernel(value) for value in values] == [1.5] * 3
