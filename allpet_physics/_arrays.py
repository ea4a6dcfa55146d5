"""The checks every public door uses: dtype, shape, finiteness, positive integers."""

import operator

import numpy as np

from allpet_physics.errors import InputError

#: Integers up to this magnitude are exact in float32 (24-bit significand).
_FLOAT32_EXACT_INTEGER = 2**24
#: Integers up to this magnitude are exact in float64 (53-bit significand).
_FLOAT64_EXACT_INTEGER = 2**53


def as_float_array(name: str, array, trailing_shape: tuple[int, ...] | None = None, *, finite: bool = True,
                   nonnegative: bool = False) -> np.ndarray:
    """Return `array` as native-endian, C-contiguous float32 or float64, or say what is wrong with it.

    float64 stays float64, float32 and float16 become float32, integers and booleans become float32 when
    every value is exact there and float64 otherwise. Any layout (strided, read-only, big-endian) is accepted;
    a copy is made only when one is needed.

    Parameters
    ----------
    name : str
        The argument's name, used in messages.
    array : array_like
        Real numbers.
    trailing_shape : tuple of int, optional
        The shape the last axes must have; leading axes are free.
    finite, nonnegative : bool
        Whether NaN/Inf and negative values are rejected.

    Raises
    ------
    InputError
        Wrong dtype, wrong shape, NaN or Inf, negative values, integers that no float holds exactly.
    """
    a = np.asarray(array)
    if trailing_shape is not None:
        check_trailing_shape(name, a.shape, trailing_shape)
    if a.dtype.kind == "f":
        if a.dtype.itemsize > 8:
            raise InputError(f"{name} must be float32 or float64, but was {a.dtype}; convert it with .astype(float).")
        out = _contiguous(a, np.float64 if a.dtype.itemsize == 8 else np.float32)
    elif a.dtype.kind == "b":
        out = _contiguous(a, np.float32)
    elif a.dtype.kind in "iu":
        out = _integers_as_float(name, a)
    else:
        raise InputError(f"{name} must be an array of real numbers, but its dtype was {a.dtype}.")
    if finite and a.dtype.kind == "f" and not _all_finite(out):
        bad = np.flatnonzero(~np.isfinite(out.ravel()))
        where = tuple(int(i) for i in np.unravel_index(bad[0], out.shape))
        raise InputError(f"{name} must be finite, but {bad.size} of its {out.size} values are NaN or Inf, the first at "
                         f"index {where}; replace them (for example with np.nan_to_num) or mask them first.")
    if nonnegative and out.size and out.min() < 0:
        raise InputError(f"{name} must not be negative, but its minimum was {out.min():g}.")
    return out


def check_trailing_shape(name: str, shape: tuple[int, ...], trailing_shape: tuple[int, ...]) -> None:
    """Raise unless the last axes of `shape` are `trailing_shape`."""
    n = len(trailing_shape)
    if len(shape) < n or tuple(shape[len(shape) - n:]) != tuple(trailing_shape):
        wanted = ", ".join(str(i) for i in trailing_shape)
        raise InputError(f"{name} must have shape (..., {wanted}), but its shape was {tuple(shape)}; "
                         "use a geometry made for this array, or resample the array to it.")


def as_positive_int(name: str, value, *, minimum: int = 1) -> int:
    """Return `value` as an int that is at least `minimum`; booleans and fractions are refused."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise InputError(f"{name} must be an integer of at least {minimum}, but was {value!r}.") from None
    if number < minimum:
        raise InputError(f"{name} must be an integer of at least {minimum}, but was {number}.")
    return number


def as_positive_float(name: str, value, *, allow_zero: bool = False) -> float:
    """Return `value` as a finite float above zero (or from zero on)."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if isinstance(value, (bool, np.bool_)) or not np.isfinite(number) or number < 0 or (number == 0 and not allow_zero):
        kind = "of at least zero" if allow_zero else "greater than zero"
        raise InputError(f"{name} must be a finite number {kind}, but was {value!r}.")
    return number


def _contiguous(a: np.ndarray, dtype) -> np.ndarray:
    return np.ascontiguousarray(a, dtype=dtype).reshape(a.shape)  # a scalar stays a scalar


def _all_finite(a: np.ndarray) -> bool:
    """Tell whether every value is finite, without allocating a mask in the common case."""
    if a.size == 0:
        return True
    with np.errstate(all="ignore"):
        total = np.add.reduce(a, axis=None)
    return bool(np.isfinite(total)) or bool(np.isfinite(a).all())


def _integers_as_float(name: str, a: np.ndarray) -> np.ndarray:
    largest = 0 if a.size == 0 else max(abs(int(a.max())), abs(int(a.min())))
    if largest <= _FLOAT32_EXACT_INTEGER:
        return _contiguous(a, np.float32)
    if largest <= _FLOAT64_EXACT_INTEGER:
        return _contiguous(a, np.float64)
    raise InputError(f"{name} holds integers up to {largest}, beyond 2**53, which no float holds exactly; "
                     "convert it to float64 yourself if the rounding is acceptable.")
