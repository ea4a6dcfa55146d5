"""What several tests of the generator share."""

import numba
import pytest
import torch


@pytest.fixture(scope="module")
def one_thread():
    """Sums and memory of several threads differ from those of one, and small work waits longer than it computes."""
    before = numba.get_num_threads(), torch.get_num_threads()
    numba.set_num_threads(1)  # first: numba changes torch's when it starts its own
    torch.set_num_threads(1)
    yield
    numba.set_num_threads(before[0])
    torch.set_num_threads(before[1])
