"""Axial slices with square pixels: what a parallel geometry projects of a volume in patient space."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from allpet_physics._arrays import as_positive_int
from allpet_physics.errors import GeometryError, InputError
from allpet_physics.geometry import ParallelGeometry

if TYPE_CHECKING:
    from allpet_physics.io.volume import Volume

#: Pixel sides that differ by less than this part are square: over 500 pixels the error stays below half a pixel.
_SQUARE = 1e-3
#: Slices tilted by more than this many degrees against the patient's axes are worth a warning.
OBLIQUE_DEG = 1.0
#: Rows and columns that leave the right angle by more than this many degrees (shear) are refused.
_SHEAR_DEG = 1.0
#: Bins per pixel of a slice's diagonal, and the number of bins that is never too many, in `geometry_for`. More than
#: a few bins per pixel resolve nothing; such numbers are slips of the keyboard that would fill the memory.
_MOST_BINS_PER_PIXEL, _ALWAYS_ALLOWED = 16, 4096


@dataclass(frozen=True, eq=False)
class AxialSlices:
    """The slices of a volume in the order and orientation in which they are projected.

    Attributes
    ----------
    data : ndarray
        ``[slice, row, col]``: inferior slice first, anterior up, patient left at the right of the picture.
    pixel_mm, slice_mm : float
        Side of a square pixel, distance between slices.
    affine : ndarray
        4 × 4 matrix from (col, row, slice, 1) to RAS mm.
    warnings : tuple of str
        Tilt and resampling, one sentence each.
    """

    data: np.ndarray
    pixel_mm: float
    slice_mm: float
    affine: np.ndarray
    warnings: tuple[str, ...] = ()

    @property
    def image_shape(self) -> tuple[int, int]:
        """(rows, columns) of a slice."""
        return self.data.shape[1:]


def axial_slices(volume: "Volume") -> AxialSlices:
    """Return a volume's axial slices, on square pixels.

    Axes are permuted and flipped, never interpolated, to the nearest patient axes. Slices that are oblique to the
    patient are taken as they are, with a warning. Where the pixels are not square, each slice is brought to pixels of
    the finer side over the same extent by area: a pixel holds the mean of the piecewise constant image over it, and
    belongs to a mask (unit ``"mask"``, or boolean data) when at least half of it does. At an integer ratio of the
    sides both are exact.

    Raises
    ------
    GeometryError
        Rows and columns that are not at right angles.
    """
    axial = volume.reoriented()
    stack = np.ascontiguousarray(np.asarray(axial.data).transpose(2, 1, 0))
    affine, (col_mm, row_mm, slice_mm) = axial.affine, axial.voxel_mm
    notes = []
    slant = np.degrees(np.arcsin(np.clip(abs(affine[:3, 0] @ affine[:3, 1]) / (col_mm * row_mm), 0, 1)))
    if slant > _SHEAR_DEG:
        raise GeometryError(f"the rows and columns of a slice must be at right angles, but are {slant:.2g} degrees off "
                            "(a sheared affine); resample the volume to an unsheared grid first.")
    if axial.obliquity_deg > OBLIQUE_DEG:
        notes.append(f"The slices are oblique: their axes are up to {axial.obliquity_deg:.3g} degrees off the "
                     "patient's. They were projected as they are; resample the volume for transaxial sinograms.")
    pixel = min(row_mm, col_mm)
    if abs(row_mm - col_mm) > _SQUARE * pixel:
        rows, cols = _weights(stack.shape[1], row_mm, pixel), _weights(stack.shape[2], col_mm, pixel)
        notes.append(f"Pixels of {row_mm:.4g} x {col_mm:.4g} mm (row x column distance) were resampled in the slice to "
                     f"squares of {pixel:.4g} mm: {len(rows)} x {len(cols)} pixels.")
        is_mask = volume.unit == "mask" or stack.dtype == bool
        mean = np.einsum("rR,sRC,cC->src", rows, stack.astype(np.float64), cols, optimize=True)
        stack = mean >= 0.5 - 1e-9 if is_mask else mean.astype(np.result_type(stack.dtype, np.float32))
        affine = recentred_affine(affine, (col_mm, row_mm), pixel, axial.data.shape, (len(cols), len(rows)))
    return AxialSlices(stack, float(pixel), float(slice_mm), affine, tuple(notes))


def geometry_for(grid: AxialSlices, *, preset: str | None = None, **changes) -> ParallelGeometry:
    """Return a geometry for a volume's slices: by default, one that sees the whole slice at its own resolution.

    Parameters
    ----------
    grid : AxialSlices
    preset : str, optional
        A named geometry whose angles, bins and arc are taken; the image grid stays that of the slices.
    **changes
        `n_angles`, `n_bins`, `bin_mm`, `arc`; None leaves the default.

    Raises
    ------
    InputError
        A number that a geometry cannot have.
    GeometryError
        More than 16 bins per pixel of the slice's diagonal (and more than 4096).
    """
    changes = {k: v for k, v in changes.items() if v is not None}
    for name in ("n_angles", "n_bins"):
        if name in changes:
            as_positive_int(name, changes[name])  # under its own name, before the other is made from it
    if preset is not None:
        geometry = ParallelGeometry.preset(preset).replace(image_shape=grid.image_shape, pixel_mm=grid.pixel_mm,
                                                           **changes)
    else:
        try:
            with np.errstate(over="ignore"):
                geometry = ParallelGeometry.for_image(grid.image_shape, grid.pixel_mm, **changes)
        except OverflowError:
            raise GeometryError(f"bin_mm must leave a countable number of bins, but was {changes['bin_mm']:g} for "
                                f"pixels of {grid.pixel_mm:g} mm; choose wider bins.") from None
    most = max(int(_MOST_BINS_PER_PIXEL * np.hypot(*grid.image_shape)), _ALWAYS_ALLOWED)
    if geometry.n_bins > most:
        raise GeometryError(f"the geometry must have at most {most} bins for slices of {grid.image_shape[0]} x "
                            f"{grid.image_shape[1]} pixels of {grid.pixel_mm:.4g} mm, but had {geometry.n_bins} of "
                            f"{geometry.bin_mm:.4g} mm; choose a smaller n_bins or a larger bin_mm.")
    return geometry


def slice_indices(spec, slice_voxels: Sequence[int]) -> list[int]:
    """Return axial slice indices, increasing and without repeats.

    Parameters
    ----------
    spec : None, str, slice or sequence of int
        None or ``"all"``; ``"roi"``, the slices that hold a voxel of the region; ``"a:b"`` and ``"a:b:step"`` as in
        Python, b excluded; single indices; lists of these with commas: ``"3,8:12"``. 0 is the most inferior slice.
    slice_voxels : sequence of int
        Voxels of the region in every slice of the volume.
    """
    n = len(slice_voxels)
    if spec is None or (isinstance(spec, str) and spec == "all"):
        return list(range(n))
    if isinstance(spec, str) and spec == "roi":
        return np.flatnonzero(slice_voxels).tolist() or list(range(n))
    if isinstance(spec, slice):
        items = [spec]
    elif isinstance(spec, str):
        items = [_parsed(word.strip()) for word in spec.split(",")]
    else:
        items = list(spec)
    chosen = set()
    for item in items:
        if isinstance(item, slice):
            chosen.update(range(n)[item])
        elif not isinstance(item, (int, np.integer)) or not -n <= item < n:
            raise InputError(f"slices must be indices from 0 (most inferior) to {n - 1}, but "
                             f"{item!r} is not one of them.")
        else:
            chosen.add(int(item) % n)
    if not chosen:
        raise InputError(f"slices must choose at least one of the {n} slices, but {spec!r} chooses none.")
    return sorted(chosen)


def _parsed(word: str) -> int | slice:
    try:
        numbers = [int(part) if part.strip() else None for part in word.split(":")]
        if len(numbers) == 1:
            return operator.index(numbers[0])
        range(1)[slice(*numbers)]  # a step of zero is an error here, not later
        return slice(*numbers)
    except (ValueError, TypeError):
        raise InputError(f'slices must be "all", "roi", or indices such as 3,8:12 (b excluded), but {word!r} is none '
                         "of these.") from None


def _weights(n: int, side: float, pixel: float) -> np.ndarray:
    """Return the part of each new pixel that each old one covers, shape (new, old); both axes share their centre."""
    n_new = max(1, int(np.ceil(n * side / pixel - 1e-4)))  # affines are rounded to float32
    old = (np.arange(n + 1) - n / 2) * side
    new = (np.arange(n_new + 1) - n_new / 2) * pixel
    overlap = np.minimum(new[1:, None], old[None, 1:]) - np.maximum(new[:-1, None], old[None, :-1])
    return np.maximum(overlap, 0) / pixel


def centred_affine(geometry: ParallelGeometry, slice_mm: float, slices: Sequence[int]) -> np.ndarray:
    """Return (col, row, slice) → RAS mm for images with the patient's origin in their middle: LPS order."""
    rows, cols = geometry.image_shape
    middle = (min(slices) + max(slices)) / 2
    scale = np.diag([-geometry.pixel_mm, -geometry.pixel_mm, slice_mm, 1.0])
    scale[:3, 3] = -scale[:3, :3] @ [(cols - 1) / 2, (rows - 1) / 2, middle]
    return scale


def recentred_affine(affine: np.ndarray, sides, pixel: float, old_shape, new_shape) -> np.ndarray:
    """Return the affine of slices with square pixels around the same middle; sides and shapes are (cols, rows)."""
    out = affine.copy()
    for axis in range(2):
        out[:3, axis] *= pixel / sides[axis]
    centre = affine[:3, :2] @ ((np.array(old_shape[:2]) - 1) / 2)
    out[:3, 3] += centre - out[:3, :2] @ ((np.array(new_shape) - 1) / 2)
    return out
