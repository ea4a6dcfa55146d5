"""What all tests share: the settings of the threads, which stand before numba and torch start theirs."""

import os

#: Several tests run at once: threads that wait for work must not take the processors from the others.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
