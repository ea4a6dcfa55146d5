"""The Radon transform of images: `RadonOperator`, its angle subsets and its two backends."""

from functools import cached_property

import numpy as np

from allpet_physics._symmetry import plan_passes
from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.operators import LinearOperator

MODELS = ("strip", "joseph")
BACKENDS = ("numba", "astra")

#: Slices projected at once: enough to keep many threads busy, few enough that the workspace stays small.
_SLICES_AT_ONCE = 8


class RadonOperator(LinearOperator):
    r"""The discrete Radon transform of a parallel geometry, with its exact transpose.

    ``A(x)`` maps images ``[..., row, col]`` in unit u to sinograms ``[..., angle, bin]`` in u·mm; ``A.T(y)`` is the
    transpose (not an inverse: see `fbp`, `osem`). With ``model="strip"``

    .. math:: (A x)_{\theta b} = \frac1w \sum_{rc} |\mathrm{pixel}_{rc} \cap \mathrm{strip}_{\theta b}|\,x_{rc},
       \tag{R1}

    the mean over the bin (width w) of the exact line integrals through square pixels; it keeps the total:
    :math:`w \sum_b (Ax)_{\theta b} = \Delta^2 \sum x` at every angle that sees the whole image. With
    ``model="joseph"`` a bin is one line integral through its centre, interpolated linearly (Joseph 1982, IEEE TMI
    1:192).

    Parameters
    ----------
    geometry : ParallelGeometry
    model : {"strip", "joseph"}
    backend : {"numba", "astra"}
        "numba" is ours: multithreaded, batched, float32 and float64, the same bits for any thread count.
        "astra" runs ASTRA's CPU kernels of the same model ("strip", "linear") slice by slice in float32; it needs
        the extra ``astra``.
    angle_indices : sequence of int, optional
        The angles of the geometry that are projected, in this order; all by default. See `subset`.

    Raises
    ------
    InputError
        An unknown model or backend, indices outside the geometry, a missing optional package.
    """

    def __init__(self, geometry: ParallelGeometry, model: str = "strip", backend: str = "numba", *,
                 angle_indices=None):
        if not isinstance(geometry, ParallelGeometry):
            raise InputError(f"geometry must be a ParallelGeometry, but was {type(geometry).__name__}.")
        if model not in MODELS:
            raise InputError(f"model must be one of {', '.join(MODELS)}, but was {model!r}.")
        if backend not in BACKENDS:
            raise InputError(f"backend must be one of {', '.join(BACKENDS)}, but was {backend!r}.")
        self.geometry, self.model, self.backend = geometry, model, backend
        self.angle_indices = _checked_indices(angle_indices, geometry.n_angles)
        self.in_shape = geometry.image_shape
        self.out_shape = (len(self.angle_indices), geometry.n_bins)
        if backend == "astra":
            from allpet_physics._astra_backend import AstraProjector

            self._astra = AstraProjector(geometry, model, self.angles)

    @property
    def angles(self) -> np.ndarray:
        """The projected angles θ in radians."""
        return self.geometry.angles[self.angle_indices]

    def subset(self, angle_indices) -> "RadonOperator":
        """Return the operator of some of this one's angles, by index or slice into ``self.angles``."""
        if not isinstance(angle_indices, slice):
            angle_indices = _checked_indices(angle_indices, self.out_shape[0])
        return RadonOperator(self.geometry, self.model, self.backend,
                             angle_indices=self.angle_indices[angle_indices])

    def subsets(self, n_subsets: int) -> list["RadonOperator"]:
        """Return `n_subsets` operators, the k-th with every `n_subsets`-th angle from the k-th on."""
        return [self.subset(slice(k, None, n_subsets)) for k in range(n_subsets)]

    @cached_property
    def _passes(self):
        return plan_passes(self.geometry, tuple(self.angle_indices.tolist()))

    def _apply(self, x):
        out = np.empty((len(x), *self.out_shape), x.dtype)
        for part in _groups(len(x)):
            if self.backend == "astra":
                self._astra.forward(x[part], out[part])
            else:
                self._project(x[part], out[part])
        return out

    def _adjoint(self, y):
        out = np.zeros((len(y), *self.in_shape), y.dtype)
        for part in _groups(len(y)):
            if self.backend == "astra":
                self._astra.back(y[part], out[part])
            else:
                self._back_project(y[part], out[part])
        return out

    def _project(self, x, out):
        from allpet_physics import _kernels

        for p in self._passes:
            lines = self._lanes(p, len(x), p.image_shape[0], p.image_shape[1] + 3, x.dtype)
            _kernels.spread_images(x, p.to_image, self.model == "strip", lines)
            if self.model == "strip":
                _kernels.strip_forward(lines, p.table, p.angle, p.flipped, self._strip_scale, out)
            else:
                _kernels.joseph_forward(lines, p.table, p.angle, p.flipped, out)

    def _back_project(self, y, out):
        from allpet_physics import _kernels

        half = (self.geometry.n_bins + 1) // 2
        for p in self._passes:
            rows, n = p.image_shape
            bases = len(p.table)
            if self.model == "strip":
                bins = self._lanes(p, len(y), bases, half + 2, y.dtype)
                _kernels.spread_sinograms(y, p.angle, p.flipped, np.full(bases, self._strip_scale), 1, bins)
                lines = self._lanes(p, len(y), rows, n, y.dtype)
                _kernels.strip_back(bins, p.table, lines)
                _kernels.collect_images(lines, p.to_lane, out)
            else:
                bins = self._lanes(p, len(y), bases, half, y.dtype)
                _kernels.spread_sinograms(y, p.angle, p.flipped, p.table[:, 3], 0, bins)
                lines = self._lanes(p, len(y), rows, n + 3, y.dtype)
                _kernels.joseph_back(bins, p.table, lines)
                _kernels.collect_images(lines[:, :, 1:], p.to_lane, out)

    def _lanes(self, p, n_slices, *shape_and_dtype):
        """Return workspace for `n_slices`, eight lanes at a time; the strip model's is float64 in any case."""
        from allpet_physics._simd import LANES

        *shape, dtype = shape_and_dtype
        groups = -(-n_slices * p.lanes_per_slice // LANES)
        return np.empty((groups, *shape, LANES), np.float64 if self.model == "strip" else dtype)

    @property
    def _strip_scale(self) -> float:
        """mm² of a pixel over mm of a bin: from areas in pixels to the mean over a bin, eq. (R1)."""
        return self.geometry.pixel_mm**2 / self.geometry.bin_mm


def _groups(n: int):
    """Yield slices of at most `_SLICES_AT_ONCE` of n items, as equal as can be."""
    parts = -(-n // _SLICES_AT_ONCE)
    for k in range(parts):
        yield slice(k * n // parts, (k + 1) * n // parts)


def _checked_indices(indices, n: int) -> np.ndarray:
    if indices is None:
        return np.arange(n)
    out = np.asarray(indices)
    if out.ndim != 1 or out.size == 0 or out.dtype.kind not in "iu" or out.min() < 0 or out.max() >= n:
        raise InputError(f"angle_indices must be a non-empty list of integers from 0 to {n - 1}, but was {indices!r}.")
    return out.astype(np.intp)
