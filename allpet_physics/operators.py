"""Linear operators and their algebra: ``A(x)``, ``A.T(y)``, ``B @ A``, ``A + B``, ``2 * A``, ``stack([A, B])``."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from allpet_physics._arrays import as_float_array
from allpet_physics.errors import GeometryError, InputError


class LinearOperator(ABC):
    r"""A real linear map between arrays, applied over any leading batch axes.

    A subclass sets `in_shape` and `out_shape` and writes `_apply` and `_adjoint`, which receive validated,
    contiguous float32 or float64 arrays ``(batch, *shape)`` and return the same dtype. They must satisfy

    .. math:: \langle A x, y \rangle = \langle x, A^\mathsf{T} y \rangle. \tag{O1}
    """

    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]

    #: NumPy must not take an operator for an element of an array: ``A * x`` is refused, ``A(x)`` is meant.
    __array_ufunc__ = None

    @abstractmethod
    def _apply(self, x: np.ndarray) -> np.ndarray:
        """Map ``(batch, *in_shape)`` to ``(batch, *out_shape)``."""

    @abstractmethod
    def _adjoint(self, y: np.ndarray) -> np.ndarray:
        """Map ``(batch, *out_shape)`` to ``(batch, *in_shape)`` with the exact transpose."""

    def __call__(self, x) -> np.ndarray:
        """Apply the operator to `x` of shape ``(..., *in_shape)``; the result has shape ``(..., *out_shape)``."""
        return _over_batch(self._apply, "x", x, self.in_shape, self.out_shape)

    def adjoint(self, y) -> np.ndarray:
        """Apply the transpose to `y` of shape ``(..., *out_shape)``; the result has shape ``(..., *in_shape)``."""
        return _over_batch(self._adjoint, "y", y, self.out_shape, self.in_shape)

    @property
    def T(self) -> "LinearOperator":
        """The transpose, itself an operator."""
        return _Transpose(self)

    def __matmul__(self, other) -> "LinearOperator":
        if not isinstance(other, LinearOperator):
            return NotImplemented
        return _Composition(self, other)

    def __add__(self, other) -> "LinearOperator":
        if not isinstance(other, LinearOperator):
            return NotImplemented
        return _Sum(self, other)

    def __mul__(self, factor) -> "LinearOperator":
        if isinstance(factor, LinearOperator) or not np.isscalar(factor):
            return NotImplemented
        return _Scaled(self, factor)

    __rmul__ = __mul__

    def __neg__(self) -> "LinearOperator":
        return _Scaled(self, -1.0)

    def __sub__(self, other) -> "LinearOperator":
        if not isinstance(other, LinearOperator):
            return NotImplemented
        return _Sum(self, _Scaled(other, -1.0))

    def __repr__(self) -> str:
        return f"{type(self).__name__.lstrip('_')}({self.in_shape} -> {self.out_shape})"


def adjoint_error(operator: LinearOperator, rng: np.random.Generator, *, dtype=np.float64,
                  batch: tuple[int, ...] = ()) -> float:
    r"""Return the normalised adjoint error of an operator for one draw of standard normal arrays.

    .. math:: e = \frac{|\langle A x, y\rangle - \langle x, A^\mathsf{T} y\rangle|}{\|A x\|\,\|y\|} \tag{O2}

    The inner products are taken in float64 whatever `dtype` the operator works in.
    """
    x = rng.standard_normal(batch + operator.in_shape).astype(dtype)
    y = rng.standard_normal(batch + operator.out_shape).astype(dtype)
    ax, aty = operator(x).astype(np.float64), operator.T(y).astype(np.float64)
    norm = np.linalg.norm(ax) * np.linalg.norm(y)
    if norm == 0:
        return 0.0 if not aty.any() else np.inf
    return float(abs(np.vdot(ax, y) - np.vdot(x, aty)) / norm)


def assert_adjoint(operator: LinearOperator, rng: np.random.Generator, *, dtype=np.float64,
                   batch: tuple[int, ...] = (), tolerance: float | None = None) -> None:
    """Raise ``AssertionError`` when the error of `adjoint_error` passes 1e-12 (float64) or 1e-5 (float32)."""
    if tolerance is None:
        tolerance = 1e-12 if np.dtype(dtype) == np.float64 else 1e-5
    error = adjoint_error(operator, rng, dtype=dtype, batch=batch)
    if not error <= tolerance:
        raise AssertionError(f"{operator!r} is not adjoint to its transpose: normalised error {error:.3g}, "
                             f"allowed {tolerance:.3g}")


def stack(operators: Sequence[LinearOperator]) -> LinearOperator:
    """Return the operator that concatenates the outputs of several operators along their first axis.

    All must share `in_shape` and the axes of `out_shape` after the first (the angle subsets of one projector do).
    """
    return _Stack(operators)


def _over_batch(function, name, array, shape, result_shape):
    a = as_float_array(name, array, shape)
    batch = a.shape[:a.ndim - len(shape)]
    out = function(a.reshape((-1, *shape)))
    return out.reshape(batch + tuple(result_shape))


class _Transpose(LinearOperator):
    def __init__(self, operator):
        self.operator, self.in_shape, self.out_shape = operator, operator.out_shape, operator.in_shape

    def _apply(self, x):
        return self.operator._adjoint(x)

    def _adjoint(self, y):
        return self.operator._apply(y)

    def __call__(self, y):
        return self.operator.adjoint(y)  # the same checks, with the argument under its own name

    def adjoint(self, x):
        return self.operator(x)

    @property
    def T(self):
        return self.operator


class _Composition(LinearOperator):
    def __init__(self, outer, inner):
        if inner.out_shape != outer.in_shape:
            raise GeometryError(f"the operators of a composition must fit: the inner one gives {inner.out_shape}, "
                                f"the outer one takes {outer.in_shape}.")
        self.outer, self.inner, self.in_shape, self.out_shape = outer, inner, inner.in_shape, outer.out_shape

    def _apply(self, x):
        return self.outer._apply(self.inner._apply(x))

    def _adjoint(self, y):
        return self.inner._adjoint(self.outer._adjoint(y))


class _Sum(LinearOperator):
    def __init__(self, first, second):
        if (first.in_shape, first.out_shape) != (second.in_shape, second.out_shape):
            raise GeometryError(f"the operators of a sum must have equal shapes, but were {first!r} and {second!r}.")
        self.first, self.second, self.in_shape, self.out_shape = first, second, first.in_shape, first.out_shape

    def _apply(self, x):
        return self.first._apply(x) + self.second._apply(x)

    def _adjoint(self, y):
        return self.first._adjoint(y) + self.second._adjoint(y)


class _Scaled(LinearOperator):
    def __init__(self, operator, factor):
        try:
            factor = float(factor)
        except (TypeError, ValueError):
            factor = np.nan
        if not np.isfinite(factor):
            raise InputError("the factor of a scaled operator must be one finite real number.")
        self.operator, self.factor, self.in_shape, self.out_shape = (
            operator, factor, operator.in_shape, operator.out_shape)

    def _apply(self, x):
        return self.operator._apply(x) * x.dtype.type(self.factor)

    def _adjoint(self, y):
        return self.operator._adjoint(y) * y.dtype.type(self.factor)


class _Stack(LinearOperator):
    def __init__(self, operators):
        self.operators = tuple(operators)
        if not self.operators:
            raise InputError("stack needs at least one operator.")
        first = self.operators[0]
        for op in self.operators[1:]:
            if op.in_shape != first.in_shape or op.out_shape[1:] != first.out_shape[1:]:
                raise GeometryError("stacked operators must share in_shape and the axes of out_shape after the first, "
                                    f"but were {first!r} and {op!r}.")
        self.in_shape = first.in_shape
        self.out_shape = (sum(op.out_shape[0] for op in self.operators), *first.out_shape[1:])

    def _apply(self, x):
        return np.concatenate([op._apply(x) for op in self.operators], axis=1)

    def _adjoint(self, y):
        ends = np.cumsum([op.out_shape[0] for op in self.operators])
        parts = np.split(y, ends[:-1], axis=1)
        total = self.operators[0]._adjoint(np.ascontiguousarray(parts[0]))
        for op, part in zip(self.operators[1:], parts[1:], strict=True):
            total += op._adjoint(np.ascontiguousarray(part))
        return total
