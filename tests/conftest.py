"""What all tests share: how many run at once, and what stands before numba and torch are loaded."""

import os
from pathlib import Path

import pytest

#: Threads that wait for work must not take the processors from the tests beside them.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    # numba writes its cache without a lock: two processes that compile one kernel for two types could mix them up.
    os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / f"numba-{worker}"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """Return the processors that this process may use, at most four: torch takes a gigabyte in each."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(4, usable)
