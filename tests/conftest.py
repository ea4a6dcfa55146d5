"""What all tests share: how many run at once, and what must not come between those that do."""

import os

import pytest

#: Threads that wait for work must not take the processors from the tests beside them; before numba starts its own.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """Return the processors that this process may use, at most four: torch takes a gigabyte in each."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(4, usable)
