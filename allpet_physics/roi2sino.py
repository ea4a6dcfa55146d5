"""From an image and a region of interest to the region's sinogram and attention map, slice by slice."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from allpet_physics._arrays import as_float_array
from allpet_physics.attention import normalise_paths, project_roi
from allpet_physics.axial_grid import axial_slices, geometry_for, slice_indices
from allpet_physics.body_outline import as_mask
from allpet_physics.errors import EmptyROIWarning, GeometryError, InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.radon import RadonOperator
from allpet_physics.roi_threshold import ThresholdedROI, threshold_roi

if TYPE_CHECKING:
    from allpet_physics.io.roi_files import ROI
    from allpet_physics.io.volume import Volume

#: Slices between two steps of the progress bar.
_SLICES_AT_ONCE = 8
#: Part of the region's mass that may miss the bins before a warning.
_CUT_TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class ROISinogram:
    """What `roi2sino` returns; every stack is float32 ``[slice, angle, bin]`` over the slices in `slices`.

    Attributes
    ----------
    sinogram : ndarray
        Projection of the binary region: path length through it in mm, averaged over the bin (strip model).
    attention : ndarray
        The same, normalised (`normalisation`); path lengths again for "exact".
    activity, image : ndarray or None
        Projections of image × region and of the whole image, in the image's unit · mm; see `with_activity`.
    geometry : ParallelGeometry
    slices : tuple of int
        Axial index of each slice of the stacks, the most inferior slice of the volume being 0.
    slice_voxels : tuple of int
        Voxels of the region in each of these slices, on the image's own grid.
    mask : ndarray of bool
        The region on the image's own grid and axis order [i, j, k].
    affine : ndarray
        4 × 4 matrix from (col, row, axial slice) of the projected pixels to RAS mm.
    slice_mm : float
        Distance between neighbouring slices.
    normalisation : str
    warnings : tuple of str
        One sentence each.
    """

    sinogram: np.ndarray
    attention: np.ndarray
    geometry: ParallelGeometry
    slices: tuple[int, ...]
    slice_voxels: tuple[int, ...]
    mask: np.ndarray
    affine: np.ndarray
    slice_mm: float
    normalisation: str
    activity: np.ndarray | None = None
    image: np.ndarray | None = None
    warnings: tuple[str, ...] = ()


def roi2sino(image: "Volume", mask: "np.ndarray | Volume | ROI | ThresholdedROI",
             geometry: ParallelGeometry | None = None, *, normalisation: str = "linear", per: str = "slice",
             scale_mm: float | None = None, model: str = "strip", slices=None, with_activity: bool = False,
             progress: bool | Callable = False) -> ROISinogram:
    r"""Project a region of interest, and on request the activity in it, slice by slice into sinogram space.

    With m the region, A the projector and f the image,

    .. math:: p = A m, \qquad \hat M = p / \max p, \qquad p_f = A(m f). \tag{S1}

    Slices are axial whatever order the file had: inferior first, anterior up, patient left at the right of the
    picture, so s grows towards patient left at θ = 0 and towards anterior at θ = 90°. The origin of s is the middle of
    the image grid. Pixels that are not square are resampled in the slice (`axial_slices`), with a warning.

    Parameters
    ----------
    image : Volume
        The image that the region belongs to.
    mask : ndarray, Volume, ROI or ThresholdedROI
        The region on the image's grid: 0 and 1 in the shape of ``image.data``, a Volume on the same voxels in any
        axis order, what `read_roi` returned, or what `threshold_volume` returned.
    geometry : ParallelGeometry, optional
        Its image grid must be that of the slices. By default `ParallelGeometry.for_image` of a slice.
    normalisation, per, scale_mm, model
        As in `project_roi`.
    slices : slice, sequence of int, str, optional
        Axial indices, all by default; ``"roi"`` for those that hold the region; text as in `slice_indices`.
    with_activity : bool
        Whether `activity` and `image` are projected too.
    progress : bool or callable
        True shows a bar; a callable is called ``progress(items, stage)`` and must yield the items.

    Returns
    -------
    ROISinogram

    Warns
    -----
    EmptyROIWarning
        The region holds no voxel in the chosen slices; `sinogram` and `attention` are zero.

    Raises
    ------
    InputError
        A mask that is not binary, slices outside the volume, NaN in the image `with_activity`.
    GeometryError
        A mask on another grid, a geometry for other slices, sheared slices.
    """
    region = _on_image_grid(image, mask)
    grid, masks = axial_slices(image), axial_slices(image.replace(data=region, unit="mask")).data
    geometry = geometry_for(grid) if geometry is None else _checked(geometry, grid)
    voxels = _voxels_per_slice(image, region)
    chosen = slice_indices(slices, voxels)
    track = _tracker(progress)
    notes = list(grid.warnings)

    sinogram = np.empty((len(chosen), *geometry.sinogram_shape), np.float32)
    parts = [slice(i, i + _SLICES_AT_ONCE) for i in range(0, len(chosen), _SLICES_AT_ONCE)]
    check_normalisation(normalisation, scale_mm, per, model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # said once below, for all slices together
        for part in track(parts, "projecting the region"):
            sinogram[part] = project_roi(masks[chosen[part]], geometry, normalisation="none", model=model)
    notes += _cut_off(masks[chosen], sinogram, geometry)
    activity = whole = None
    if with_activity:
        values = as_float_array("image", grid.data)
        activity, whole = np.empty_like(sinogram), np.empty_like(sinogram)
        operator = RadonOperator(geometry, model=model)
        for part in track(parts, "projecting the activity"):
            activity[part] = operator(values[chosen[part]] * masks[chosen[part]])
            whole[part] = operator(values[chosen[part]])
    counts = tuple(int(voxels[k]) for k in chosen)
    if not any(counts):
        warnings.warn("the region of interest holds no voxel in the chosen slices: its sinogram is zero everywhere.",
                      EmptyROIWarning, stacklevel=2)
    attention = normalise_paths(sinogram, normalisation, scale_mm, per)
    return ROISinogram(sinogram, attention, geometry, tuple(chosen), counts, region, grid.affine, grid.slice_mm,
                       normalisation, activity, whole, tuple(notes))


def check_normalisation(normalisation: str, scale_mm: float | None, per: str, model: str) -> None:
    """Raise InputError for arguments that `project_roi` would refuse, before anything is computed."""
    one_pixel = ParallelGeometry(1, 1, 1.0, (1, 1), 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyROIWarning)
        project_roi(np.zeros((1, 1), bool), one_pixel, normalisation=normalisation, scale_mm=scale_mm, per=per,
                    model=model)


def threshold_volume(image: "Volume", method: str = "relative", *, body: np.ndarray | None = None,
                     **settings) -> ThresholdedROI:
    """Return `threshold_roi` of a volume's axial slices, with its voxel sizes; `roi2sino` takes the result.

    Parameters
    ----------
    image : Volume
    method, **settings
        As in `threshold_roi`; `voxel_mm` is the volume's.
    body : ndarray, optional
        A mask on the image's own grid.
    """
    axial = image.reoriented()
    if body is not None:
        body = image.replace(data=as_mask("body", body, image.data.shape)).axial_slices()
    return threshold_roi(image.axial_slices(), method, body=body, voxel_mm=axial.voxel_mm[::-1], **settings)


def _on_image_grid(image, mask) -> np.ndarray:
    """Return the region as booleans in the image's shape and axis order."""
    from allpet_physics.io.roi_files import ROI
    from allpet_physics.io.volume import Volume, grid_mismatch

    if not isinstance(image, Volume):
        raise InputError(f"image must be a Volume, but was {type(image).__name__}; read it with allpet_physics.io.")
    if isinstance(mask, ThresholdedROI):
        return image.from_axial_slices(mask.mask).data
    if isinstance(mask, ROI):
        mask = Volume(mask.mask, mask.affine, "mask")
    if isinstance(mask, Volume):
        mismatch = grid_mismatch(image, mask)
        if mismatch:
            raise GeometryError(f"mask must be on the image's grid, but was on another: {mismatch}; read it with "
                                "read_roi(..., resample=True).")
        mask = mask.reoriented(image.axis_codes).data
    return as_mask("mask", mask, image.data.shape)


def _checked(geometry, grid) -> ParallelGeometry:
    if not isinstance(geometry, ParallelGeometry):
        raise InputError(f"geometry must be a ParallelGeometry, but was {type(geometry).__name__}.")
    if geometry.image_shape != grid.image_shape or abs(geometry.pixel_mm / grid.pixel_mm - 1) > 1e-3:
        raise GeometryError(f"geometry must be for slices of {grid.image_shape} pixels of {grid.pixel_mm:.5g} mm, but "
                            f"was for {geometry.image_shape} of {geometry.pixel_mm:.5g} mm; use "
                            "geometry.replace(image_shape=..., pixel_mm=...).")
    return geometry


def _voxels_per_slice(image, region) -> np.ndarray:
    return image.replace(data=region).axial_slices().sum(axis=(1, 2))


def _cut_off(masks, sinogram, geometry) -> list[str]:
    """Say which part of the region the bins do not see."""
    area = np.count_nonzero(masks) * geometry.pixel_mm**2
    if geometry.covers_image or area == 0:
        return []
    seen = sinogram.sum(axis=(0, 2), dtype=np.float64) * geometry.bin_mm / area
    if 1 - seen.min() <= _CUT_TOLERANCE:
        return []
    return [f"{1 - seen.mean():.1%} of the region lies outside the bins ({1 - seen.min():.1%} at the worst angle), "
            f"which see a disc of {geometry.fov_mm:g} mm around the middle of the image; use more or wider bins."]


def _tracker(progress):
    if callable(progress):
        return progress
    if not progress:
        return lambda items, stage: items
    from tqdm import tqdm

    return lambda items, stage: tqdm(items, desc=stage, unit="block")
