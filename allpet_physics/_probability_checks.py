"""The checks of what a bound is made of: probabilities, confidences, divergences, numbers of independent units."""

import numpy as np

from allpet_physics._arrays import as_float_array
from allpet_physics.errors import InputError


def as_probability(name: str, value) -> np.ndarray:
    """Return float64 values in [0, 1], or say which argument is outside."""
    a = as_float_array(name, value).astype(np.float64, copy=False)
    if not ((a >= 0) & (a <= 1)).all():
        raise InputError(f"{name} must be in [0, 1], but ranged over [{a.min():g}, {a.max():g}]; rescale and clip what "
                         "it is made of by constants fixed before the data.")
    return a


def as_confidence(name: str, value) -> np.ndarray:
    """Return float64 values strictly between 0 and 1, or say which argument is not."""
    a = as_float_array(name, value).astype(np.float64, copy=False)
    if not ((a > 0) & (a < 1)).all():
        raise InputError(f"{name} must be between 0 and 1, both excluded, but ranged over [{a.min():g}, {a.max():g}]; "
                         "0.05 stands for 95 % confidence.")
    return a


def as_divergence(name: str, value) -> np.ndarray:
    """Return float64 values that are at least 0 and may be infinite, or say which argument is not."""
    a = as_float_array(name, value, finite=False).astype(np.float64, copy=False)
    if not (a >= 0).all():
        raise InputError(f"{name} must be at least 0 and not NaN, but its minimum was {a.min():g}.")
    return a


def as_counts(name: str, value) -> np.ndarray:
    """Return positive integers as float64, or say that they must be such."""
    a = np.asarray(value)
    if a.dtype.kind not in "iu" or not (a >= 1).all():
        raise InputError(f"{name} must be a positive integer, a number of independent units or draws, but was "
                         f"{value!r}.")
    return a.astype(np.float64)


def as_number(name: str, array: np.ndarray) -> float:
    """Return the one number in a checked array, or say that there must be one."""
    if array.ndim:
        raise InputError(f"{name} must be one number, but had the shape {array.shape}.")
    return float(array)


def broadcast(**arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the arrays in their common shape, or name them and their shapes."""
    try:
        return np.broadcast_arrays(*arrays.values())
    except ValueError:
        shapes = ", ".join(f"{name} {a.shape}" for name, a in arrays.items())
        raise InputError(f"{' and '.join(arrays)} must have shapes that broadcast, but had {shapes}.") from None
