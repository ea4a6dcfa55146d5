"""DICOM segmentations, read with highdicom (the extra ``seg``)."""

import copy

import numpy as np
import pydicom

from allpet_physics.errors import GeometryError, InputError
from allpet_physics.io.volume import Volume

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def list_segments(dataset: pydicom.Dataset) -> list[tuple[int, str]]:
    """Return (Segment Number, Segment Label) of every segment, in the file's order."""
    items = dataset.get("SegmentSequence") or []
    return [(int(s.SegmentNumber), str(s.get("SegmentLabel") or "")) for s in items]


def read_segments(dataset: pydicom.Dataset, numbers: list[int], reference: Volume) -> Volume:
    """Return the union of some segments on the segmentation's own grid.

    Slices that the file leaves out, because nothing is marked on them, are zero. When the header does not state the
    distance between slices, that of the reference is tried first, then the slice thickness, then the smallest
    distance between two stored slices.

    Parameters
    ----------
    dataset : pydicom.Dataset
        A segmentation object: BINARY, FRACTIONAL or LABELMAP.
    numbers : list of int
        Segment Numbers, all present.
    reference : Volume
        The image that the segmentation was probably drawn on.

    Returns
    -------
    Volume
        float32 between 0 and 1 (the largest fraction of the segments), axes (slice, row, column), unit ``"mask"``.

    Raises
    ------
    InputError
        highdicom is not installed; pixel data that cannot be decoded.
    GeometryError
        Slices that are no regular stack in the patient.
    """
    try:
        import highdicom
    except ImportError:
        raise InputError("reading a DICOM SEG needs highdicom, which is not installed; "
                         'install it with: pip install ".[seg]" in the source folder of allpet.') from None
    fractional = str(dataset.get("SegmentationType") or "") == "FRACTIONAL"
    failure = None
    for spacing in _spacings_to_try(dataset, reference):
        try:
            segmentation = highdicom.seg.Segmentation.from_dataset(_with_spacing(dataset, spacing), copy=False)
            stack = segmentation.get_volume(segment_numbers=numbers, rescale_fractional=fractional)
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, EOFError) as error:
            failure = failure or error
            continue
        fraction = np.asarray(stack.array, dtype=np.float32).max(axis=-1)
        return Volume(fraction, _LPS_TO_RAS @ stack.affine, "mask")
    if isinstance(failure, RuntimeError):
        raise GeometryError("the DICOM SEG must be a regular stack of parallel slices in the patient, but was not "
                            f"({failure}); convert it to a NIfTI mask with the tool that wrote it.")
    raise InputError(f"the DICOM SEG could not be decoded ({type(failure).__name__}: {failure}); "
                     "the file may be cut short: export it again.")


def _measures(dataset: pydicom.Dataset) -> list[pydicom.Dataset]:
    """Return every Pixel Measures item, shared or per frame."""
    groups = [*(dataset.get("SharedFunctionalGroupsSequence") or []),
              *(dataset.get("PerFrameFunctionalGroupsSequence") or [])]
    return [m for g in groups for m in g.get("PixelMeasuresSequence") or []]


def _spacings_to_try(dataset: pydicom.Dataset, reference: Volume) -> list[float | None]:
    """Return slice distances in mm for a header that lacks them; None leaves the header as it is."""
    measures = _measures(dataset)
    if not measures or any(m.get("SpacingBetweenSlices") for m in measures):
        return [None]
    thickness = float(measures[0].get("SliceThickness") or 0)
    normal = _slice_normal(dataset)
    tries = []
    if normal is not None:
        axes = reference.affine[:3, :3] / reference.voxel_mm
        axis = np.abs(normal @ axes).argmax()
        step = reference.voxel_mm[axis]
        # Slices clearly thicker than the reference's were drawn on another stack.
        if abs(normal @ axes[:, axis]) > 0.999 and thickness < 1.5 * step:
            tries.append(float(step))
    return [*tries, *([thickness] if thickness > 0 else []), None]


def _slice_normal(dataset: pydicom.Dataset) -> np.ndarray | None:
    """Return the unit normal of the slices, RAS, or None when the header does not say."""
    groups = [*(dataset.get("SharedFunctionalGroupsSequence") or []),
              *(dataset.get("PerFrameFunctionalGroupsSequence") or [])]
    for g in groups:
        for plane in g.get("PlaneOrientationSequence") or []:
            cosines = np.array(plane.ImageOrientationPatient, dtype=np.float64)
            return np.cross(cosines[:3], cosines[3:]) * [-1, -1, 1]
    return None


def _with_spacing(dataset: pydicom.Dataset, spacing: float | None) -> pydicom.Dataset:
    """Return a copy of a segmentation whose header states a distance between slices."""
    dataset = copy.deepcopy(dataset)
    if spacing is not None:
        for m in _measures(dataset):
            m.SpacingBetweenSlices = pydicom.valuerep.format_number_as_ds(float(spacing))
    return dataset
