"""What all tests share: how many run at once, and what must not come between those that do."""

import functools
import os
from pathlib import Path

import pytest

#: Threads that wait for work must not take the processors from the tests beside them; before numba starts its own.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """Return the processors that this process may use, at most four: torch takes a gigabyte in each."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(4, usable)


def pytest_configure(config):
    """Let one process at a time write to numba's cache, which has no lock: two could mix up a kernel's types."""
    try:
        import fcntl
    except ImportError:  # on Windows, where the chance is taken
        return
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    from numba.core.caching import IndexDataCacheFile

    save, lock = IndexDataCacheFile.save, Path(config.rootpath) / ".pytest_cache" / "numba.lock"
    lock.parent.mkdir(exist_ok=True)

    @functools.wraps(save)
    def save_alone(self, key, data):
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # closing the file lets it go
            save(self, key, data)

    IndexDataCacheFile.save = save_alone
