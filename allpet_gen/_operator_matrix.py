r"""Linear operators as matrices in torch, so that they run on the device on which a tensor is.

The weights are read from the operator itself: nothing is modelled a second time. A and Aᵀ are both stored by rows, so
that each direction is one product and the transpose is exact.
"""

import warnings
import weakref
from collections.abc import Callable

import numpy as np
import torch

from allpet_physics._memory import physical_memory
from allpet_physics.errors import GeometryError
from allpet_physics.operators import LinearOperator, _Composition, _Scaled, _Stack, _Sum, _Transpose
from allpet_physics.point_spread import GaussianPSF
from allpet_physics.radon import RadonOperator

#: Largest relative difference between a stored matrix and the operator that it was read from.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
#: Weights below this fraction of a pixel's full area are rounding of running sums, not area.
_ROUNDING = 1e-14
#: Values of the projections of unit images that are held at once while a matrix is read off column by column.
_VALUES_AT_ONCE = 2**22

#: Actions by operator, then by device and precision; they go when the operator goes.
_kept: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def matrix_action(operator: LinearOperator, device: torch.device, dtype: torch.dtype,
                  limit: int | None) -> Callable[[torch.Tensor, bool], torch.Tensor]:
    r"""Return ``action(x, transposed)`` of an operator by matrices, built from those of its parts and kept.

    Parameters
    ----------
    operator : LinearOperator
    device, dtype
        Of the tensors that will be given, ``(batch, \*shape)``.
    limit : int, optional
        The most bytes that the matrices of one part may take; by default half of the device's free memory.

    Raises
    ------
    GeometryError
        Matrices beyond `limit`.
    """
    def of(part):
        return matrix_action(part, device, dtype, limit)

    match operator:
        case _Transpose():
            inner = of(operator.operator)
            return lambda x, transposed: inner(x, not transposed)
        case _Composition():
            outer, inner = of(operator.outer), of(operator.inner)
            return lambda x, transposed: inner(outer(x, True), True) if transposed else outer(inner(x, False), False)
        case _Sum():
            first, second = of(operator.first), of(operator.second)
            return lambda x, transposed: first(x, transposed) + second(x, transposed)
        case _Scaled():
            inner, factor = of(operator.operator), operator.factor
            return lambda x, transposed: factor * inner(x, transposed)
        case _Stack():
            parts, sizes = [of(part) for part in operator.operators], [part.out_shape[0] for part in operator.operators]
            return lambda x, transposed: (
                sum(part(y, True) for part, y in zip(parts, x.split(sizes, dim=1), strict=True)) if transposed
                else torch.cat([part(x, False) for part in parts], dim=1))
    kept = _kept.setdefault(operator, {})
    if (device, dtype) not in kept:
        build = _blur if type(operator) is GaussianPSF else _sparse
        with torch.inference_mode(False):  # what is kept must serve training later
            kept[device, dtype] = build(operator, device, dtype, limit)
    return kept[device, dtype]


def _blur(operator, device, dtype, limit):
    """Return the action of a separable blur by one dense, symmetric matrix for each axis."""
    def one_axis(n):
        line = GaussianPSF(operator.geometry.replace(image_shape=(1, n)), operator.fwhm_mm)
        return torch.from_numpy(line(np.eye(n)[:, np.newaxis])[:, 0]).to(device, dtype)

    rows, cols = map(one_axis, operator.in_shape)
    return lambda x, transposed: (rows.T @ x @ cols) if transposed else (rows @ x @ cols.T)


def _sparse(operator, device, dtype, limit):
    """Return the action of an operator by its sparse matrix and that of its transpose."""
    values = np.dtype(str(dtype).removeprefix("torch."))
    ours = type(operator) is RadonOperator and operator.backend == "numba"
    weights = _radon_weights(operator) if ours else _weights(operator)
    _refuse_too_large(operator, device, weights, values.itemsize, limit)
    matrix = (_radon_matrix if ours else _matrix)(operator, values)
    rng = np.random.default_rng(0)
    probe = rng.standard_normal(operator.in_shape).astype(values)
    wanted = operator(probe).ravel()
    error = np.linalg.norm(matrix @ probe.ravel() - wanted)
    assert error <= TOLERANCE[dtype] * np.linalg.norm(wanted), f"the matrix of {operator!r} is off by {error:.3g}"
    forward, back = _to_torch(matrix, device), _to_torch(matrix.T.tocsr(), device)
    shapes = operator.in_shape, operator.out_shape

    def action(x, transposed):
        product = (back if transposed else forward) @ x.flatten(1).T
        return product.T.reshape(len(x), *shapes[0 if transposed else 1])

    return action


def _refuse_too_large(operator, device, weights, itemsize, limit):
    if limit is None:
        limit = (torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else physical_memory()) / 2
    index = 4 if max(weights, *map(np.prod, (operator.in_shape, operator.out_shape))) < 2**31 else 8
    needed = 2 * weights * (itemsize + index)
    if needed > limit:
        raise GeometryError(f"the matrix of {operator!r} and its transpose would need about {needed:,.0f} bytes on "
                            f"{device}, but max_matrix_bytes allows {limit:,.0f}; raise it, use float32, a smaller "
                            'geometry or subsets of angles, or backend="kernels", which copies to the host instead.')


def _radon_weights(operator):
    """Return about how many weights a projector has: the bins that a pixel touches, over pixels and angles."""
    g = operator.geometry
    cos, sin = np.abs(np.cos(operator.angles)), np.abs(np.sin(operator.angles))
    width = (cos + sin) + g.bin_mm / g.pixel_mm if operator.model == "strip" else 2 * np.maximum(cos, sin)
    return int(np.prod(g.image_shape) * width.sum() * g.pixel_mm / g.bin_mm)


def _radon_matrix(operator, dtype):
    """Read a projector's matrix off by back projecting combs of bins, so far apart that no pixel sees two of a comb."""
    from scipy import sparse

    g, n_bins, w = operator.geometry, operator.geometry.n_bins, operator.geometry.bin_mm
    x, y = (a.ravel() for a in np.broadcast_arrays(g.x, g.y[:, np.newaxis]))
    peak = g.pixel_mm**2 / w if operator.model == "strip" else g.pixel_mm
    rows = []
    for i, angle in enumerate(operator.angles):
        cos, sin = np.cos(angle), np.sin(angle)
        if operator.model == "strip":
            reach = (g.pixel_mm * (abs(cos) + abs(sin)) + w) / 2
        else:
            reach = g.pixel_mm * max(abs(cos), abs(sin))
        step = int(2 * reach / w) + 2
        first = np.arange(min(step, n_bins))[:, np.newaxis]
        combs = ((np.arange(n_bins) - first) % step == 0).astype(np.float64)
        weights = operator.subset([i]).T(combs[:, np.newaxis]).reshape(len(combs), -1)
        position = (x * cos + y * sin) / w + (n_bins - 1) / 2
        bins = first + step * np.rint((position - first) / step).astype(np.int64)
        seen = (np.abs(bins - position) * w <= reach * (1 + 1e-9)) & (weights > _ROUNDING * peak)
        pixels = np.broadcast_to(np.arange(x.size), weights.shape)[seen]
        rows.append(sparse.csr_array((weights[seen].astype(dtype), (bins[seen], pixels)), (n_bins, x.size)))
    return sparse.vstack(rows, format="csr")


def _weights(operator):
    """Return about how many weights an operator has, from a few columns."""
    n = int(np.prod(operator.in_shape))
    some = np.unique(np.linspace(0, n - 1, 16).round().astype(int))
    return int(np.ceil(n * np.mean([np.count_nonzero(_columns(operator, [j], np.float32)) for j in some])))


def _matrix(operator, dtype):
    """Read an operator's matrix off column by column."""
    from scipy import sparse

    n, size = int(np.prod(operator.in_shape)), int(np.prod(operator.out_shape))
    step = max(1, _VALUES_AT_ONCE // max(n, size))
    parts = [sparse.csr_array(_columns(operator, range(j, min(j + step, n)), dtype)) for j in range(0, n, step)]
    return sparse.vstack(parts, format="csr").T.tocsr()


def _columns(operator, which, dtype):
    units = np.zeros((len(which), int(np.prod(operator.in_shape))), dtype)
    units[np.arange(len(which)), list(which)] = 1
    return operator(units.reshape(-1, *operator.in_shape)).reshape(len(which), -1)


def _to_torch(matrix, device):
    matrix.sort_indices()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta", category=UserWarning)
        return torch.sparse_csr_tensor(*map(torch.from_numpy, (matrix.indptr, matrix.indices, matrix.data)),
                                       size=matrix.shape, check_invariants=True).to(device)
