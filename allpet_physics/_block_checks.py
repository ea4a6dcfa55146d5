"""What makes the parameters of blocks valid: whole numbers, offsets, indices, overlaps."""

import operator

import numpy as np

from allpet_physics._arrays import as_positive_int
from allpet_physics.errors import GeometryError, InputError

_INT32_MAX = 2**31 - 1


def check_image_shape(image_shape) -> tuple[int, int]:
    """Return `image_shape` as two positive ints, or raise."""
    try:
        shape = tuple(image_shape)
    except TypeError:
        shape = ()
    if len(shape) != 2:
        raise GeometryError(f"image_shape must be (rows, columns), but was {image_shape!r}.")
    shape = tuple(as_positive_int("image_shape", n) for n in shape)
    if max(shape) > _INT32_MAX:
        raise GeometryError(f"image_shape must be at most {_INT32_MAX} along each axis, but was {shape}.")
    return shape


def as_indices(index, n: int, noun: str) -> np.ndarray:
    """Return `index` (an int, slice, or array of ints or booleans) into n things as int64 in [0, n)."""
    if isinstance(index, slice):
        return np.arange(*index.indices(n), dtype=np.int64)
    try:
        chosen = np.asarray(operator.index(index))
    except TypeError:
        chosen = np.asarray(index)
    if chosen.dtype == bool:
        if chosen.shape != (n,):
            raise IndexError(f"a boolean index must have shape ({n},), one for each {noun}, but its shape was "
                             f"{chosen.shape}.")
        return np.flatnonzero(chosen).astype(np.int64)
    if chosen.size == 0 and chosen.ndim == 1:
        return np.empty(0, np.int64)
    if chosen.dtype.kind not in "iu" or chosen.ndim > 1:
        raise IndexError(f"an index must be an integer, a slice, or a 1D array of integers or booleans, but was "
                         f"{index!r}.")
    outside = (chosen < -n) | (chosen >= n)
    if outside.any():
        raise IndexError(f"index {int(chosen[outside].flat[0])} is out of range for {n} {noun}s.")
    chosen = chosen.astype(np.int64)
    return np.where(chosen < 0, chosen + n, chosen)


def overlapping_pairs(parameters: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the pairs of blocks (indices, smaller first) that share a pixel within one set, shape (pairs, 2).

    Blocks are sorted by row within their set, and each is compared with its next, second next, ... neighbour, until no
    neighbour starts above its last row.
    """
    counts = np.diff(offsets)
    if not len(counts) or counts.max() < 2:
        return np.empty((0, 2), np.int64)
    owner = np.repeat(np.arange(len(counts)), counts)
    order = np.lexsort((parameters[:, 0], owner))
    row, col, height, width = parameters[order].T.astype(np.int64)
    owner = owner[order]
    here, found, step = np.arange(len(order)), [], 0
    while len(here):
        step += 1
        here = here[here + step < len(order)]
        other = here + step
        near = (owner[other] == owner[here]) & (row[other] < row[here] + height[here])
        here, other = here[near], other[near]
        hit = (col[other] < col[here] + width[here]) & (col[here] < col[other] + width[other])
        found.append(np.stack([order[here[hit]], order[other[hit]]], axis=1))
    return np.sort(np.concatenate(found), axis=1)


def as_offsets(offsets, n_blocks: int) -> np.ndarray:
    """Return the offsets of the sets as int64, or raise; None means one set of all blocks."""
    if offsets is None:
        return np.array([0, n_blocks], np.int64)
    out = np.array(as_whole_numbers("offsets", offsets), np.int64)
    if out.ndim != 1 or not len(out) or out[0] != 0 or out[-1] != n_blocks or (np.diff(out) < 0).any():
        raise InputError(f"offsets must be a 1D array that rises from 0 to the number of blocks ({n_blocks}), but was "
                         f"{np.array2string(out, threshold=8)}.")
    return out


def as_whole_numbers(name: str, values) -> np.ndarray:
    """Return a copy of values as int64, or raise unless every one is a whole number that int32 holds."""
    try:
        a = np.asarray(values)
    except ValueError:
        raise InputError(f"{name} must be an array of whole numbers in rows of one length.") from None
    if a.size == 0:
        return a.astype(np.int64)
    if a.dtype.kind not in "iuf":
        raise InputError(f"{name} must be an array of whole numbers (px), but its dtype was {a.dtype}.")
    if a.dtype.kind == "f":
        fraction = ~(np.floor(a) == a) | ~np.isfinite(a)
        if fraction.any():
            where = tuple(int(i) for i in np.argwhere(fraction)[0])
            raise InputError(f"{name} must be whole numbers of pixels, but {float(a[where])!r} stands at index "
                             f"{where}; round it first.")
    if (np.abs(a.astype(np.float64)) > _INT32_MAX).any():
        raise InputError(f"{name} must be at most {_INT32_MAX} in magnitude, but was {np.abs(a).max()}.")
    return a.astype(np.int64)


def as_pair(name: str, value, meaning: str) -> tuple[int, int]:
    """Return one positive integer twice, or two of them, or raise."""
    values = (value, value) if np.ndim(value) == 0 else tuple(value)
    if len(values) != 2:
        raise InputError(f"{name} must be an integer or {meaning}, but was {value!r}.")
    return tuple(as_positive_int(name, v) for v in values)


def as_range(name: str, value) -> tuple[int, int]:
    """Return the smallest and the largest value of a range of positive integers, or raise."""
    low, high = as_pair(name, value, "(smallest, largest)")
    if low > high:
        raise InputError(f"{name} must be (smallest, largest), but was {value!r}.")
    return low, high


def as_sample_indices(index) -> tuple[np.ndarray, bool]:
    """Return the indices of samples as uint64, and whether they were a sequence, or raise."""
    try:
        if isinstance(index, (bool, np.bool_)):
            raise InputError(f"index must be an integer or a 1D sequence of integers, but was {index!r}.")
        chosen, batched = np.array([operator.index(index)], object), False
    except TypeError:
        chosen, batched = np.asarray(index), True
    if batched and chosen.ndim == 1 and chosen.size == 0:
        return np.empty(0, np.uint64), True
    if chosen.ndim != 1 or (batched and chosen.dtype.kind not in "iu"):
        raise InputError(f"index must be an integer or a 1D sequence of integers, but was {index!r}.")
    low, high = min(chosen), max(chosen)
    if low < 0 or high >= 2**63:
        raise InputError(f"index must be from 0 to 2**63 - 1, but was {low if low < 0 else high}.")
    return chosen.astype(np.uint64), batched
