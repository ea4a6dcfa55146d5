"""Random streams by purpose: one patient's draws do not move when another purpose draws more."""

import zlib

import numpy as np

from allpet_physics.errors import InputError


def random_key(seed) -> tuple[int, ...]:
    """Return a seed, a sequence of seeds or a draw of a Generator as a tuple of non-negative integers."""
    if isinstance(seed, np.random.Generator):
        return (int(seed.integers(2**63)),)
    key = tuple(np.atleast_1d(np.asarray(seed)).tolist())
    if not key or not all(isinstance(k, int) and k >= 0 for k in key):
        raise InputError(f"seed must be a non-negative integer, a sequence of them or a Generator, but was {seed!r}.")
    return key


def random_stream(key, purpose: int, *more) -> np.random.Generator:
    """Return the generator of one purpose; names enter by a checksum, so that their order does not matter."""
    return np.random.default_rng([*key, purpose, *(zlib.crc32(m.encode()) if isinstance(m, str) else m for m in more)])
