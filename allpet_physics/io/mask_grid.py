"""Bringing a region drawn on one grid onto another: exactly when the voxels coincide, by volume fraction otherwise."""

import numpy as np

from allpet_physics.errors import GeometryError
from allpet_physics.io.volume import GRID_TOLERANCE, Volume, grid_mismatch, resample_to

#: A voxel belongs to a region when at least this part of it does.
HALF = 0.5
#: Sub-samples per axis at most, for a reference much coarser than the region's own grid (125 per voxel).
_MOST_SUBSAMPLES = 5


def refuse_other_grid(what: str, source: Volume, reference: Volume) -> None:
    """Raise GeometryError, saying by how much two grids differ and what to do about it."""
    mismatch = grid_mismatch(reference, source) or "its voxel centres do not fall on those of the image"
    raise GeometryError(f"{what} must be on the image's grid, but was on another: {mismatch}; pass resample=True "
                        "(--resample) to bring it onto the image's grid, or choose the image it was drawn on.")


def on_same_lattice(source: Volume, reference: Volume) -> tuple[np.ndarray, float] | None:
    """Copy values voxel by voxel when the source's voxel centres are also the reference's, or return None.

    The source may cover a part of the reference only, stick out of it, and have its axes permuted or flipped.

    Returns
    -------
    values : ndarray
        On the reference's grid, zero where the source has nothing.
    lost : float
        Sum of the values that lie outside the reference.
    """
    to_reference = np.linalg.inv(reference.affine) @ source.affine
    nearest = np.round(to_reference)
    steps = np.abs(nearest[:3, :3])
    if not (np.array_equal(steps.sum(axis=0), np.ones(3)) and np.array_equal(steps.sum(axis=1), np.ones(3))):
        return None
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in source.data.shape], (1,), indexing="ij")).reshape(4, -1)
    apart = np.linalg.norm((reference.affine @ (to_reference - nearest) @ corners)[:3], axis=0).max()
    if apart > GRID_TOLERANCE * reference.voxel_mm.min():
        return None
    order = steps.argmax(axis=1)  # the source axis that runs along each reference axis
    into, out_of = [], []
    for axis, along in enumerate(order):
        index = nearest[axis, along] * np.arange(source.data.shape[along]) + nearest[axis, 3]
        inside = (index >= 0) & (index < reference.data.shape[axis])
        into.append(index[inside].astype(int))
        out_of.append(np.flatnonzero(inside))
    values = np.zeros(reference.data.shape, dtype=source.data.dtype)
    part = source.data.transpose(order)[np.ix_(*out_of)]
    values[np.ix_(*into)] = part
    return values, float(source.data.sum(dtype=np.float64) - part.sum(dtype=np.float64))


def volume_fraction(source: Volume, reference: Volume) -> np.ndarray:
    r"""Return the part of each reference voxel that a region fills.

    The region's own values (0 to 1) are interpolated linearly, falling to zero half a voxel outside its outermost
    voxels, and averaged over sub-samples of the reference voxel,

    .. math:: f_r = \frac{1}{N} \sum_{s=1}^{N} m(p_r + \delta_s), \tag{F2}

    with as many sub-samples along each axis as source voxels fit into the reference voxel (at most five). Nearest
    neighbour would sample one source voxel of a coarse reference voxel and step like stairs on a fine one.

    Parameters
    ----------
    source : Volume
        Values between 0 and 1.
    reference : Volume
        The target grid.

    Returns
    -------
    ndarray
        float64, shape of the reference.
    """
    fraction = np.zeros(reference.data.shape)
    filled = np.argwhere(source.data > 0)
    if not len(filled):
        return fraction
    padded = np.pad(source.data.astype(np.float64), 1)
    affine = source.affine.copy()
    affine[:3, 3] -= affine[:3, :3].sum(axis=1)
    padded = Volume(padded, affine)

    low, high = filled.min(axis=0) - 1, filled.max(axis=0) + 1
    corners = np.array(np.meshgrid(*zip(low, high, strict=True), (1,), indexing="ij")).reshape(4, -1)
    index = (np.linalg.inv(reference.affine) @ source.affine @ corners)[:3]
    first = np.maximum(np.floor(index.min(axis=1)).astype(int), 0)
    last = np.minimum(np.ceil(index.max(axis=1)).astype(int) + 1, reference.data.shape)
    if (last <= first).any():
        return fraction

    ratio = np.abs((np.linalg.inv(source.affine) @ reference.affine)[:3, :3]).max(axis=0)
    n = np.clip(np.ceil(ratio - 0.01), 1, _MOST_SUBSAMPLES).astype(int)
    offsets = np.array(np.meshgrid(*[(np.arange(m) + 0.5) / m - 0.5 for m in n], indexing="ij")).reshape(3, -1).T
    part = fraction[tuple(slice(f, e) for f, e in zip(first, last, strict=True))]
    for offset in offsets:
        affine = reference.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ (first + offset)
        part += resample_to(padded, Volume(np.broadcast_to(0.0, part.shape), affine), order=1).data
    part /= len(offsets)
    return fraction


def region_on_grid(what: str, source: Volume, reference: Volume, *, resample: bool,
                   whole: bool) -> tuple[np.ndarray, list[str]]:
    """Return a region as a binary mask on the reference's grid.

    Parameters
    ----------
    what : str
        The file, for messages.
    source : Volume
        Part of each voxel that the region fills, 0 to 1; binary regions hold 0 and 1.
    reference : Volume
        The target grid.
    resample : bool
        Whether a region on another grid is interpolated (equation F2) rather than refused.
    whole : bool
        Whether the region's grid must be the whole reference grid (a mask file), or may be a part of its voxels
        (a DICOM SEG stores only the slices that it needs).

    Returns
    -------
    mask : ndarray of bool
        Voxels filled to at least one half.
    warnings : list of str
        How the region was resampled, and what fell outside.

    Raises
    ------
    GeometryError
        Another grid, and `resample` false.
    """
    copied = on_same_lattice(source, reference)
    same = copied is not None and (not whole or grid_mismatch(reference, source) is None)
    if same:
        values, lost = copied
        warnings = []
        lost_ml, total_ml = lost * source.voxel_ml, float(source.data.sum(dtype=np.float64)) * source.voxel_ml
    elif resample:
        values = volume_fraction(source, reference)
        total_ml = float(source.data.sum(dtype=np.float64)) * source.voxel_ml
        lost_ml = max(total_ml - float(values.sum()) * reference.voxel_ml, 0.0)
    else:
        refuse_other_grid(what, source, reference)
    mask = values >= HALF - 1e-9
    if not same:
        warnings = [f"The region was on another grid ({grid_mismatch(reference, source)}) and was resampled: voxels "
                    f"filled to at least one half, {mask.sum() * reference.voxel_ml:.5g} mL of {total_ml:.5g} mL."]
    if lost_ml > (1e-6 if same else 0.1) * total_ml:
        warnings.append(f"About {lost_ml:.3g} mL of the region's {total_ml:.5g} mL lie outside the image and were cut "
                        "off.")
    return mask, warnings
