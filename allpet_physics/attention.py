"""Transparent medical attention: a region of interest, edited by hand, projected into the sinogram.

The region comes from `threshold_roi` or from a clinician; the gate F·(1 + λ·M̂) belongs to the network. Everything
here is geometry without parameters to train.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from allpet_physics._arrays import as_positive_float, check_trailing_shape
from allpet_physics.body_outline import as_mask, asymmetry_map, body_mask
from allpet_physics.errors import EmptyROIWarning, InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.mask_projection import normalise_mask, project_mask
from allpet_physics.radon import RadonOperator
from allpet_physics.roi_threshold import ROIComponent, ThresholdedROI, threshold_roi

__all__ = ["ROIComponent", "ROIEdit", "ThresholdedROI", "asymmetry_map", "body_mask", "edit_roi", "project_roi",
           "threshold_roi"]

#: Part of the region's mass that may miss the bins before a warning; strip projections lose less to rounding.
_CUT_TOLERANCE = 1e-4


def project_roi(mask, geometry: ParallelGeometry, *, normalisation: str = "linear", scale_mm: float | None = None,
                per: str = "slice", model: str = "strip") -> np.ndarray:
    r"""Project a binary region of interest to an attention sinogram.

    The raw projection p is the path length through the region in mm, averaged over the bin (strip model). It is
    normalised to

    .. math:: \hat M = p / \max p \quad (\text{linear}), \qquad \hat M = \min(1, p / L) \quad (\text{clip}), \tag{T6}

    the counterparts of equations 4 and 5 of arXiv:2509.09130 with a length L, because clipping millimetres to [0, 1]
    would saturate nearly every bin that the region touches.

    Parameters
    ----------
    mask : array_like of bool or {0, 1}, or ThresholdedROI
        Shape (..., row, col).
    geometry : ParallelGeometry
    normalisation : {"linear", "clip", "none", "exact"}
        "none" and "exact" are the same: path lengths in mm.
    scale_mm : float, optional
        L of "clip". The default is the mean of p over the bins that the region touches (for a convex region about its
        mean chord, π·area/perimeter), so that the longer half of the paths counts fully.
    per : {"slice", "stack"}
        Whether the maximum of "linear" and the default L are taken for each slice or for all leading axes together.
        "slice" gives every slice with a lesion, and every sample of a batch, the full range of attention, whatever
        else is in the batch; "stack" keeps path lengths comparable between the slices of one volume.
    model : {"strip", "joseph"}
        See `RadonOperator`.

    Returns
    -------
    ndarray of float32
        Shape (..., angle, bin); zero for slices without a region.

    Warns
    -----
    EmptyROIWarning
        The region holds no voxel.
    UserWarning
        Part of the region lies outside the bins; the message says how much.

    Raises
    ------
    InputError
        A mask that is not binary or not of the geometry's image shape, an unknown normalisation, a scale that is not
        positive or that the normalisation does not use.
    """
    if not isinstance(geometry, ParallelGeometry):
        raise InputError(f"geometry must be a ParallelGeometry, but was {type(geometry).__name__}.")
    mask = as_mask("mask", mask.mask if isinstance(mask, ThresholdedROI) else mask)
    check_trailing_shape("mask", mask.shape, geometry.image_shape)
    if normalisation not in ("linear", "clip", "none", "exact"):
        raise InputError(f"normalisation must be linear, clip, none or exact, but was {normalisation!r}.")
    if per not in ("slice", "stack"):
        raise InputError(f'per must be "slice" or "stack", but was {per!r}.')
    if scale_mm is not None:
        scale_mm = as_positive_float("scale_mm", scale_mm)
        if normalisation != "clip":
            raise InputError(f'scale_mm belongs to normalisation="clip", but normalisation was "{normalisation}".')
    batch, mask = mask.shape[:-2], mask.reshape(-1, *geometry.image_shape)
    filled = mask.any(axis=(1, 2))
    if not filled.any():
        warnings.warn("the region of interest is empty: its attention sinogram is zero everywhere.", EmptyROIWarning,
                      stacklevel=2)
    attention = np.zeros((len(mask), *geometry.sinogram_shape), np.float32)
    if filled.any():
        p = project_mask(mask[filled], geometry) if model == "strip" else RadonOperator(geometry, model)(mask[filled])
        _warn_of_cut(mask[filled], p, geometry)
        attention[filled] = normalise_paths(p, normalisation, scale_mm, per)
    return attention.reshape(*batch, *geometry.sinogram_shape)


def normalise_paths(p, normalisation, scale_mm=None, per="slice"):
    """Return path lengths as `project_roi` normalises them: by `normalise_mask`, with the mean path as default L."""
    if normalisation in ("none", "exact"):
        return p
    if normalisation == "linear" or scale_mm is not None:
        return normalise_mask(p, normalisation, scale_mm=scale_mm, per=per)
    axes = (-2, -1) if per == "slice" else None
    touched = np.maximum(np.count_nonzero(p, axis=axes, keepdims=True), 1)
    mean = p.sum(axis=axes, keepdims=True, dtype=np.float64) / touched
    return np.minimum(p / np.where(mean > 0, mean, 1), 1).astype(p.dtype)


def _warn_of_cut(mask, p, geometry):
    """Warn when part of the region misses the bins: its projections then hold less than its area."""
    if geometry.covers_image:
        return
    x, y = geometry.x[None, :], geometry.y[:, None]
    half = geometry.pixel_mm / 2
    outside = np.hypot(np.abs(x) + half, np.abs(y) + half) > geometry.fov_mm / 2
    if not (mask & outside).any():
        return
    area = np.count_nonzero(mask) * geometry.pixel_mm**2
    seen = p.sum(axis=(0, 2), dtype=np.float64) * geometry.bin_mm / area
    if 1 - seen.min() > _CUT_TOLERANCE:
        warnings.warn(f"{1 - seen.mean():.1%} of the region of interest lies outside the bins ({1 - seen.min():.1%} at "
                      f"the worst angle), which see a disc of {geometry.fov_mm:g} mm; use more bins, or crop the "
                      "region.", UserWarning, stacklevel=3)


@dataclass(frozen=True)
class ROIEdit:
    """One edit of a region: what was done, to how many voxels, in which box (first and last index of each axis)."""

    action: str
    note: str
    n_given: int
    n_changed: int
    n_after: int
    box: tuple[tuple[int, int], ...] | None


def edit_roi(mask, add=None, remove=None, *, replace=None, note: str = "",
             log: Sequence[ROIEdit] = ()) -> tuple[np.ndarray, tuple[ROIEdit, ...]]:
    """Apply a clinician's edits to a region and log every one of them.

    The order is replace, add, remove, so that what is removed is outside whatever was added.

    Parameters
    ----------
    mask : array_like of bool or {0, 1}, or ThresholdedROI
        The region; it is not changed.
    add, remove, replace : array_like of bool or {0, 1}, optional
        Masks on the same grid.
    note : str
        Who and why, kept with each entry of this call.
    log : sequence of ROIEdit
        Entries of earlier edits, which the returned log continues.

    Returns
    -------
    mask : ndarray of bool
        A new array.
    log : tuple of ROIEdit
        One entry per edit; ``dataclasses.asdict`` makes it ready for JSON. `box` surrounds the voxels that changed.

    Warns
    -----
    EmptyROIWarning
        Nothing is left.

    Raises
    ------
    InputError
        A mask that is not binary.
    GeometryError
        An edit on another grid.
    """
    region = as_mask("mask", mask.mask if isinstance(mask, ThresholdedROI) else mask).copy()
    log = list(log)
    for action, edit in (("replace", replace), ("add", add), ("remove", remove)):
        if edit is None:
            continue
        edit = as_mask(action, edit, region.shape)
        after = {"replace": edit, "add": region | edit, "remove": region & ~edit}[action]
        changed = after ^ region
        log.append(ROIEdit(action, note, int(np.count_nonzero(edit)), int(np.count_nonzero(changed)),
                           int(np.count_nonzero(after)), _box(changed)))
        region = after.copy()
    if not region.any():
        warnings.warn("the region of interest is empty after the edits.", EmptyROIWarning, stacklevel=2)
    return region, tuple(log)


def _box(mask):
    if not mask.any():
        return None
    return tuple((int(i.min()), int(i.max())) for i in np.nonzero(mask))
