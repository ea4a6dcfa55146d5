"""The checks of the evaluation's doors: batches of counts, tables of features, groups of samples."""

from collections.abc import Callable

import numpy as np

from allpet_physics._arrays import as_float_array
from allpet_physics.errors import InputError


def as_batch(name: str, batch, *, minimum: int = 1) -> np.ndarray:
    """Return non-negative arrays of one shape as float32, shape (n, rows, columns).

    Parameters
    ----------
    name : str
        For messages.
    batch : array_like, shape (n, rows, columns)
        Each item must vary: an empty or a constant sinogram has no shape to measure.
    minimum : int
        The least number of rows and of columns.

    Raises
    ------
    InputError
        Another number of axes, no or too small items, NaN, Inf or negative values, items that are constant.
    """
    a = np.asarray(batch)
    if a.ndim != 3 or a.shape[0] == 0 or min(a.shape[1:]) < minimum:
        raise InputError(f"{name} must have shape (n, rows, columns) with n of at least 1 and at least {minimum} rows "
                         f"and columns, but its shape was {a.shape}; give one two-dimensional array for each sample.")
    a = as_float_array(name, a, nonnegative=True).astype(np.float32, copy=False)
    flat = np.flatnonzero(a.min(axis=(1, 2)) == a.max(axis=(1, 2)))
    if flat.size:
        kind = "empty" if a[flat[0]].max() == 0 else "constant"
        raise InputError(f"{name} must vary within each of its {len(a)} items, but {flat.size} were empty or constant, "
                         f"the first at index {flat[0]} ({kind}); leave them out, and report how many there were.")
    return a


def in_parts(extract: Callable, batch, size: int, *, minimum: int = 1) -> np.ndarray:
    """Return the features of a batch, checked by `as_batch` and worked on `size` items at a time."""
    batch = as_batch("batch", batch, minimum=minimum)
    return np.concatenate([extract(batch[i:i + size]) for i in range(0, len(batch), size)])


def same_shape(first_name: str, first: np.ndarray, second_name: str, second: np.ndarray) -> None:
    """Raise unless the items of two batches have one shape."""
    if first.shape[1:] != second.shape[1:]:
        raise InputError(f"{second_name} must have items of the shape of {first_name}, {first.shape[1:]}, but theirs "
                         f"was {second.shape[1:]}; resample one side, or generate with the geometry of the other.")


def as_features(name: str, features, *, minimum: int = 2, like: np.ndarray | None = None) -> np.ndarray:
    """Return a table of features as float64, shape (n, d).

    Raises
    ------
    InputError
        Another number of axes, fewer than `minimum` samples, NaN or Inf, another d than that of `like`.
    """
    a = np.asarray(features)
    if a.ndim != 2 or a.shape[0] < minimum or a.shape[1] == 0:
        raise InputError(f"{name} must have shape (samples, features) with at least {minimum} samples, but its shape "
                         f"was {a.shape}.")
    if like is not None and a.shape[1] != like.shape[1]:
        raise InputError(f"{name} must have {like.shape[1]} features for each sample, like the reference, but had "
                         f"{a.shape[1]}; use one extractor for both.")
    return as_float_array(name, a).astype(np.float64, copy=False)


def as_groups(name: str, groups, n: int) -> np.ndarray:
    """Return the number of each sample's group, 0 and up; each sample is its own group if `groups` is None."""
    if groups is None:
        return np.arange(n)
    groups = np.asarray(groups)
    if groups.shape != (n,):
        raise InputError(f"{name} must name one group (patient) for each of {n} samples, but its shape was "
                         f"{groups.shape}.")
    return np.unique(groups, return_inverse=True)[1].reshape(n)


def as_level(level) -> float:
    """Return the coverage of an interval, inside (0, 1)."""
    if isinstance(level, bool) or not isinstance(level, (int, float, np.floating)) or not 0 < level < 1:
        raise InputError(f"level must be between 0 and 1, such as 0.95, but was {level!r}.")
    return float(level)


def interval(values, level: float) -> tuple[float, float]:
    """Return the central interval that holds the share `level` of some values."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
