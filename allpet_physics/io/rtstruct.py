"""DICOM RT structure sets: which structures there are, and one of them as voxels of an image's grid."""

from collections.abc import Sequence

import numpy as np
import pydicom

from allpet_physics.errors import MetadataError
from allpet_physics.io.contour_fill import fill_contours
from allpet_physics.io.volume import Volume

#: Closed polygons; DICOM PS3.3 C.8.8.6.1 and C.8.8.6.3. Both kinds combine by exclusive or on a plane.
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
#: Patient LPS to RAS.
_TO_RAS = np.array([-1.0, -1.0, 1.0])


def list_structures(dataset: pydicom.Dataset) -> list[tuple[int, str]]:
    """Return (ROI Number, ROI Name) of every structure, in the file's order."""
    items = dataset.get("StructureSetROISequence") or []
    return [(int(s.ROINumber), str(s.get("ROIName") or "")) for s in items]


def frame_of_reference(dataset: pydicom.Dataset, number: int) -> str:
    """Return the UID of the frame of reference that a structure's coordinates are in, or an empty string."""
    for s in dataset.StructureSetROISequence:
        if int(s.ROINumber) == number:
            return str(s.get("ReferencedFrameOfReferenceUID") or dataset.get("FrameOfReferenceUID") or "")
    return ""


def read_structure(dataset: pydicom.Dataset, number: int, reference: Volume) -> tuple[np.ndarray, list[str]]:
    """Return one structure as a binary mask on a grid, by the rule of `contour_fill`.

    Parameters
    ----------
    dataset : pydicom.Dataset
        An RTSTRUCT object.
    number : int
        The structure's ROI Number.
    reference : Volume
        The grid to fill.

    Returns
    -------
    mask : ndarray of bool
        Shape of the reference.
    warnings : list of str
        Contours that were ignored, gaps, parts outside the grid.

    Raises
    ------
    MetadataError
        Contour data that is cut short or not numbers.
    GeometryError
        Contours that are not flat, or not parallel to each other.
    """
    if "ROIContourSequence" not in dataset:
        raise MetadataError("the structure set must hold contours (ROIContourSequence), but does not; it may be cut "
                            "short: export it again.")
    contours, slabs, ignored = [], [], {}
    for roi in dataset.ROIContourSequence or []:
        if int(roi.ReferencedROINumber) != number:
            continue
        for item in roi.get("ContourSequence") or []:
            kind = str(item.get("ContourGeometricType") or "unknown")
            points = _points(item, len(contours) + sum(ignored.values()) + 1)
            if kind not in _CLOSED or len(points) < 3:
                kind = kind if kind not in _CLOSED else f"{kind} with fewer than three points"
                ignored[kind] = ignored.get(kind, 0) + 1
                continue
            slab = float(item.get("ContourSlabThickness") or 0)
            if slab > 0:
                slabs.append(slab)
                points = points + np.asarray(item.get("ContourOffsetVector") or (0, 0, 0), dtype=np.float64)
            contours.append(points * _TO_RAS)
    warnings = [f"{count} contour(s) of type {kind} were ignored: only closed planar contours enclose voxels."
                for kind, count in ignored.items()]
    if "RTROIObservationsSequence" not in dataset:
        warnings.append("The structure set lacks its last part (RTROIObservationsSequence): the file may be cut short.")
    contours, repeated = _without_repeats(contours)
    if repeated:
        warnings.append(f"{repeated} contour(s) repeat another exactly and were counted once.")
    mask, more = fill_contours(contours, reference, slab_mm=float(np.median(slabs)) if slabs else None)
    return mask, warnings + more


def _points(item: pydicom.Dataset, which: int) -> np.ndarray:
    """Return the points of a contour, shape (points, 3), LPS mm."""
    # Contours hold hundreds of thousands of decimals: the raw bytes parse ten times faster than pydicom's objects.
    element = item.get_item("ContourData") if "ContourData" in item else None
    value = None if element is None else element.value
    try:
        if isinstance(value, bytes):
            value = value.strip(b" \0").split(b"\\") if value.strip(b" \0") else []
        flat = np.array([] if value is None else value, dtype=np.float64).ravel()
        if flat.size % 3 or not np.isfinite(flat).all():
            raise ValueError(f"it holds {flat.size} numbers, not triplets of finite coordinates")
        stated = item.get("NumberOfContourPoints")
        if stated is not None and int(stated) * 3 != flat.size:
            raise ValueError(f"it holds {flat.size // 3} points where NumberOfContourPoints states {stated}")
    except (ValueError, TypeError) as error:
        raise MetadataError(f"ContourData of contour {which} must be x\\y\\z triplets in mm, but could not be used "
                            f"({error}); export the structure set again.") from None
    return flat.reshape(-1, 3)


def _without_repeats(contours: Sequence[np.ndarray]) -> tuple[list[np.ndarray], int]:
    """Drop exact copies of a contour, which the exclusive or would cancel against each other."""
    unique = {c.tobytes(): c for c in contours}
    return list(unique.values()), len(contours) - len(unique)
