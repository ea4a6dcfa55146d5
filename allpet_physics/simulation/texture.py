r"""Smooth random fields: the mottle within organs, and the warps that bend their outlines.

White noise on a lattice of spacing h, interpolated by uniform cubic B-splines, is a Gaussian field of zero mean. The
cubic B-spline has the standard deviation :math:`h/\sqrt3`, so the field is, to a good approximation, white noise
smoothed by a Gaussian of that standard deviation: a correlation length L asks for

.. math:: h = \sqrt3\,L, \qquad \rho(d) \approx e^{-d^2/4L^2}. \tag{T1}

The lattice is fixed in mm: one field looks the same at any pixel size. The basis separates by axis.
"""

import numpy as np

from allpet_physics._arrays import as_positive_float
from allpet_physics.errors import InputError
from allpet_physics.simulation.organs import ORGANS

#: Mean over the cell of the sum of squares of the cubic B-splines: the variance that interpolation leaves, per axis.
_SPLINE_VARIANCE = 151 / 315
#: Correlation lengths in mm of the fields that organs share; an organ takes the nearest in ratio.
_SHARED_LENGTHS_MM = (4.0, 6.0, 8.5, 13.0)
#: Uptake never falls below this part of the organ's mean.
_FLOOR = 0.05


class SmoothNoise:
    """A Gaussian random field of mean 0 and variance 1 over a box, drawn once and evaluated on any axes.

    Parameters
    ----------
    rng : numpy.random.Generator
    lower, upper : (float, float, float)
        Corners of the box in mm, along (slice, row, column) or whatever the axes shall mean.
    length_mm : float or (float, float, float)
        Correlation length L of eq. (T1), one for all axes or one each.
    n_fields : int
        Independent fields drawn together.
    """

    def __init__(self, rng: np.random.Generator, lower, upper, length_mm, n_fields: int = 1):
        lengths = np.broadcast_to(np.asarray(length_mm, float), 3)
        self.spacing = np.sqrt(3.0) * np.array([as_positive_float("length_mm", v) for v in lengths])
        self.lower = np.asarray(lower, float)
        cells = np.ceil((np.asarray(upper, float) - self.lower) / self.spacing - 1e-9).astype(int)
        self.count = np.maximum(cells, 1) + 3
        # A random offset of the lattice keeps its nodes, where the variance is 4 % higher per axis, out of register.
        self.origin = self.lower - self.spacing * (1 + rng.random(3))
        self.count += 1
        self.coefficients = rng.standard_normal((n_fields, *self.count), dtype=np.float32)
        self.coefficients *= np.float32(_SPLINE_VARIANCE**-1.5)

    def on(self, first, second, third) -> np.ndarray:
        """Return the fields at the outer product of three axes in mm.

        Returns
        -------
        ndarray, float32, shape (n_fields, len(first), len(second), len(third))

        Raises
        ------
        InputError
            A position outside the box.
        """
        out = self.coefficients
        for axis, position in enumerate((first, second, third)):
            cell, weights = self._weights(axis, np.asarray(position, float))
            shape = [-1 if k == axis + 1 else 1 for k in range(4)]
            # Four adds and no matrix product: a product's last bits depend on the machine and its threads.
            out = sum(np.take(out, cell + k, axis + 1) * w.reshape(shape) for k, w in enumerate(weights))
        return out

    def _weights(self, axis, position):
        """Return the first of four lattice nodes for each position, and the four B-splines there."""
        t = (position - self.origin[axis]) / self.spacing[axis]
        cell = np.floor(t).astype(int)
        if position.size and (cell.min() < 1 or cell.max() > self.count[axis] - 3):
            raise InputError(f"positions along axis {axis} must lie in the field's box, but ranged from "
                             f"{position.min():g} to {position.max():g} mm; draw a field for a larger box.")
        t = (t - cell).astype(np.float32)
        weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3])
        return cell - 1, weights / np.float32(6)


def organ_texture(labels, pixel_mm: float, slice_mm: float, rng: np.random.Generator) -> np.ndarray:
    """Return a random multiplicative texture of mean 1 for a label map.

    Each organ takes the field whose correlation length is nearest to its own in `ORGANS`, scaled by its standard
    deviation, plus one; values below 0.05 are raised to it.

    Parameters
    ----------
    labels : ndarray of int, shape (slices, rows, cols)
        Numbers of `ORGANS`.
    pixel_mm, slice_mm : float
        Spacing in plane and between slices.
    rng : numpy.random.Generator
        Draws the fields; the draw depends on the field of view and not on the pixel size.

    Returns
    -------
    ndarray, float32, shape of `labels`
        1 in air.
    """
    labels = np.asarray(labels)
    pixel_mm, slice_mm = as_positive_float("pixel_mm", pixel_mm), as_positive_float("slice_mm", slice_mm)
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(labels.shape, (slice_mm, pixel_mm, pixel_mm),
                                                                   strict=True)]
    half = np.array(labels.shape) * (slice_mm, pixel_mm, pixel_mm) / 2
    half = np.ceil(half + 1e-3)  # the same box, hence the same draw, for every pixel size that tiles the field of view
    nearest = np.array([np.argmin(np.abs(np.log(organ.texture_mm / np.array(_SHARED_LENGTHS_MM)))) for organ in ORGANS])
    sd = np.array([organ.texture_sd for organ in ORGANS], np.float32)
    inside = np.nonzero(labels.any(axis=0))
    texture = np.ones(labels.shape, np.float32)
    draws = rng.integers(2**63, size=len(_SHARED_LENGTHS_MM))
    if not len(inside[0]):
        return texture
    rows = slice(inside[0].min(), inside[0].max() + 1)
    cols = slice(inside[1].min(), inside[1].max() + 1)
    part = labels[:, rows, cols]
    for k, length in enumerate(_SHARED_LENGTHS_MM):
        amplitude = np.where(nearest == k, sd, np.float32(0))[part]
        if amplitude.any():
            noise = SmoothNoise(np.random.default_rng(draws[k]), -half, half, length)
            texture[:, rows, cols] += amplitude * noise.on(axes[0], axes[1][rows], axes[2][cols])[0]
    return np.maximum(texture, np.float32(_FLOOR), out=texture)
