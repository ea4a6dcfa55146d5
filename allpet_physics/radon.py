"""The Radon transform of images: `RadonOperator`, its angle subsets and its two backends."""

from functools import cached_property

import numpy as np

from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.operators import LinearOperator

MODELS = ("strip", "joseph")
BACKENDS = ("numba", "astra")

#: Slices projected together: as many as fill the vector units, few enough that the workspace stays in the cache.
_SLICES_AT_ONCE = 32
#: Below this many, slices go through the kernels of single images.
_SMALLEST_LANES = 6


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
        ``pip install "allpet[astra]"``.
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
    def _tables(self):
        return angle_table(self.geometry, self.angles, edges=self.model == "strip")

    def _apply(self, x):
        out = np.empty((len(x), *self.out_shape), x.dtype)
        for part in _groups(len(x)):
            self._project(x[part], out[part])
        return out

    def _adjoint(self, y):
        out = np.empty((len(y), *self.in_shape), y.dtype)
        for part in _groups(len(y)):
            self._back_project(y[part], out[part])
        return out

    def _project(self, x, out):
        if self.backend == "astra":
            self._astra.forward(x, out)
        elif len(x) < _SMALLEST_LANES:
            from allpet_physics import _kernels

            steep, table = self._tables
            if self.model == "strip":
                _kernels.strip_forward(_kernels.running_sums(x, True), _kernels.running_sums(x, False), steep, table,
                                       self._strip_scale, out)
            else:
                _kernels.joseph_forward(_kernels.padded_lines(x, True), _kernels.padded_lines(x, False), steep, table,
                                        out)
        else:
            from allpet_physics import _batch_kernels

            steep, table = self._tables
            for along_rows in (True, False):
                angles = np.flatnonzero(steep == along_rows)
                if self.model == "strip":
                    lines = _batch_kernels.running_sum_lanes(x, along_rows)
                    _batch_kernels.strip_forward_lanes(lines, angles, table, self._strip_scale, out)
                else:
                    lines = _batch_kernels.padded_line_lanes(x, along_rows)
                    _batch_kernels.joseph_forward_lanes(lines, angles, table, out)

    def _back_project(self, y, out):
        if self.backend == "astra":
            self._astra.back(y, out)
            return
        steep, table = self._tables
        rows, cols = self.in_shape
        by_column = np.empty((len(y), cols, rows), y.dtype)
        if len(y) < _SMALLEST_LANES:
            from allpet_physics import _kernels

            for along_rows, lines, n, part in ((True, rows, cols, out), (False, cols, rows, by_column)):
                if self.model == "strip":
                    _kernels.strip_back(y, steep, along_rows, table, self._strip_scale, lines, n, part)
                else:
                    _kernels.joseph_back(y, steep, along_rows, table, lines, n, part)
        else:
            from allpet_physics import _batch_kernels

            lanes = np.ascontiguousarray(y.transpose(1, 2, 0))
            for along_rows, lines, n, part in ((True, rows, cols, out), (False, cols, rows, by_column)):
                angles = np.flatnonzero(steep == along_rows)
                if self.model == "strip":
                    _batch_kernels.strip_back_lanes(lanes, angles, table, self._strip_scale, lines, n, part)
                else:
                    _batch_kernels.joseph_back_lanes(lanes, angles, table, lines, n, part)
        out += by_column.transpose(0, 2, 1)

    @property
    def _strip_scale(self) -> float:
        """mm² of a pixel over mm of a bin: from areas in pixels to the mean over a bin, eq. (R1)."""
        return self.geometry.pixel_mm**2 / self.geometry.bin_mm


def angle_table(geometry: ParallelGeometry, angles: np.ndarray, *, edges: bool) -> tuple[np.ndarray, np.ndarray]:
    r"""Return what the kernels know of each angle: `steep` (bool) and rows (u00, u_r, u_e, path_mm), float64.

    From :math:`s = x\cos\theta + y\sin\theta` with the pixel grid of eq. (G2), a steep ray crosses row r at column
    coordinate :math:`u = (s - y_r \sin\theta)/(\Delta\cos\theta) + n_c/2`, any other crosses column c at row
    coordinate :math:`u = n_r/2 - (s - x_c\cos\theta)/(\Delta\sin\theta)`; both are linear in the line and in the bin.
    """
    rows, cols = geometry.image_shape
    pixel, width = geometry.pixel_mm, geometry.bin_mm
    s0 = geometry.bin_edges[0] if edges else geometry.bin_centres[0]
    cos, sin = _exact_cos_sin(angles)
    # The tie at 45 degrees goes to rows on any platform, whatever the last bit of cos and sin.
    steep = np.abs(cos) >= np.abs(sin) - 1e-12
    table = np.empty((len(angles), 4))
    with np.errstate(divide="ignore", invalid="ignore"):
        by_row = ((s0 - geometry.y[0] * sin) / (pixel * cos) + cols / 2, sin / cos, width / (pixel * cos),
                  pixel / np.abs(cos))
        by_col = (rows / 2 - (s0 - geometry.x[0] * cos) / (pixel * sin), cos / sin, -width / (pixel * sin),
                  pixel / np.abs(sin))
    for j in range(4):
        table[:, j] = np.where(steep, by_row[j], by_col[j])
    return steep, table


def _exact_cos_sin(angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return cos and sin with exact zeros at multiples of π/2, where rays run along pixel edges."""
    cos, sin = np.cos(angles), np.sin(angles)
    return np.where(np.abs(cos) < 1e-15, 0.0, cos), np.where(np.abs(sin) < 1e-15, 0.0, sin)


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
