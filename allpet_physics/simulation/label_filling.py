"""What a label map leaves out: walls and contents of hollow organs, skull and scalp, muscle, fat and skin."""

import numpy as np

from allpet_physics.simulation.ct import body_of_ct
from allpet_physics.simulation.organs import ORGAN_NUMBER

#: Organs that are split into a wall (or cortex) of this many mm and a content. Thicknesses are assumptions.
HOLLOW = {"kidney": ("kidney_cortex", "kidney_pelvis", 15.0), "stomach": ("stomach_wall", "stomach_content", 5.0),
          "bowel_tube": ("bowel", "bowel_content", 3.5), "brain": ("brain_grey", "brain_white", 8.0)}
#: CT numbers that part gas, fat, muscle and bone among voxels without a label.
_GAS_HU, _FAT_HU, _BONE_HU = -300, -25, 220
#: Without a CT: how far muscle and fat reach beyond the labelled organs, in mm (assumptions).
_MUSCLE_MM, _FAT_MM, _CLOSING_MM = 9.0, 14.0, 45.0
#: Without labels of them: fluid, skull and scalp around the brain, in mm (assumptions).
_HEAD_MM = (("csf", 3.0), ("skull", 7.0), ("scalp", 6.0))
_SKIN_MM = 2.0


def split_hollow(labels: np.ndarray, masks: dict[str, np.ndarray], spacing, hu=None) -> None:
    """Write wall and content of the organs in `HOLLOW` into `labels`, in place.

    Parameters
    ----------
    labels : ndarray of uint8, shape (slices, rows, cols)
    masks : dict
        Where each key of `HOLLOW` is.
    spacing : (float, float, float)
        Slice, row and column spacing in mm.
    hu : ndarray, optional
        A CT, to tell gas from other content.
    """
    from scipy import ndimage

    for name, mask in masks.items():
        wall, content, thickness = HOLLOW[name]
        box = ndimage.find_objects(mask.astype(np.uint8))
        if not box:
            continue
        grown = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in box[0])
        part = mask[grown]
        # Slices at the ends of the scan are cut, not covered by a wall.
        padded = np.pad(part, ((1, 1), (0, 0), (0, 0)), mode="edge")
        depth = ndimage.distance_transform_edt(padded, sampling=spacing)[1:-1] if not padded.all() else part * np.inf
        labels[grown][part] = ORGAN_NUMBER[wall]
        # The wall is one pixel thick at least: the outermost pixels lie one spacing deep.
        labels[grown][part & (depth > max(thickness, 1.01 * max(spacing[1:])))] = ORGAN_NUMBER[content]
        if hu is not None and name != "brain":
            labels[mask & (hu < _GAS_HU)] = ORGAN_NUMBER["bowel_gas"]


def fill_from_ct(labels: np.ndarray, hu: np.ndarray, spacing) -> None:
    """Label what a CT shows of the body beyond the organs: gas, fat, muscle, bone, skin. In place.

    Labels outside the body are kept: they are trusted more than the outline.
    """
    body = body_of_ct(hu) | (labels > 0)
    free = body & (labels == 0)
    for name, low, high in (("airway", -np.inf, _GAS_HU), ("fat", _GAS_HU, _FAT_HU), ("muscle", _FAT_HU, _BONE_HU),
                            ("arm_bone", _BONE_HU, np.inf)):
        labels[free & (hu >= low) & (hu < high)] = ORGAN_NUMBER[name]
    _skin(labels, body, spacing)


def fill_around_labels(labels: np.ndarray, spacing) -> None:
    """Wrap organs without a CT in muscle, fat and skin: each slice closed over 45 mm, then grown. In place."""
    from scipy import ndimage

    margin = [int(np.ceil((_CLOSING_MM + _MUSCLE_MM + _FAT_MM) / s)) + 1 for s in spacing[1:]]
    edge = ((margin[0], margin[0]), (margin[1], margin[1]))
    inner = tuple(slice(m, m + n) for m, n in zip(margin, labels.shape[1:], strict=True))
    body = np.zeros(labels.shape, bool)
    for k, plane in enumerate(labels):
        if not plane.any():
            continue
        organs = np.pad(plane > 0, edge)
        near = ndimage.distance_transform_edt(~organs, sampling=spacing[1:]) < _CLOSING_MM
        within = ndimage.distance_transform_edt(near, sampling=spacing[1:]) - _CLOSING_MM
        # Below zero outside the closed outline: the distance to it.
        outside = ndimage.distance_transform_edt(within < 0, sampling=spacing[1:])[inner]
        free = plane == 0
        plane[free & (outside < _MUSCLE_MM + _FAT_MM)] = ORGAN_NUMBER["fat"]
        plane[free & (outside < _MUSCLE_MM)] = ORGAN_NUMBER["muscle"]
        body[k] = outside < _MUSCLE_MM + _FAT_MM
    _skin(labels, body, spacing)


def fill_head(labels: np.ndarray, spacing) -> None:
    """Put fluid, skull and scalp around a brain that has none of them. In place."""
    from scipy import ndimage

    brain = labels > 0
    padded = np.pad(brain, ((1, 1), (0, 0), (0, 0)), mode="edge")
    distance = ndimage.distance_transform_edt(~padded, sampling=spacing)[1:-1]
    closed = np.stack([ndimage.binary_fill_holes(plane) for plane in distance < 4.0])
    free, depth = ~brain, 0.0
    labels[closed & free] = ORGAN_NUMBER["csf"]
    for name, thickness in _HEAD_MM:
        layer = free & ~closed & (distance >= depth) & (distance < depth + thickness)
        labels[layer] = ORGAN_NUMBER[name]
        depth += thickness


def _skin(labels, body, spacing):
    """Turn the outermost fat and muscle of a body into skin."""
    from scipy import ndimage

    soft = np.isin(labels, [ORGAN_NUMBER["fat"], ORGAN_NUMBER["muscle"]])
    for k, plane in enumerate(body):
        if plane.any():
            rim = np.pad(plane, 1)
            depth = ndimage.distance_transform_edt(rim, sampling=spacing[1:])[1:-1, 1:-1]
            labels[k][soft[k] & plane & (depth <= max(_SKIN_MM, 1.01 * min(spacing[1:])))] = ORGAN_NUMBER["skin"]
