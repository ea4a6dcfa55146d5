"""The grid of a DICOM image series in patient space."""

import numpy as np

from allpet_physics.errors import GeometryError, MetadataError
from allpet_physics.io.dicom_header import number

#: A slice may be off its place by this part of the slice distance: headers round positions to 0.1 mm.
POSITION_TOLERANCE = 0.1
#: Largest angle between the stack of slices and their normal; above it voxels are not boxes.
MAX_SLANT_DEG = 0.5


def check_alike(slices) -> None:
    """Raise MetadataError unless all slices share shape, orientation and pixel size."""
    first = slices[0]
    for name, of_slice, tolerance in (("Rows and Columns", lambda s: (s.Rows, s.Columns), 0),
                                      ("ImageOrientationPatient (0020,0037)", orientation, 1e-3),
                                      ("PixelSpacing (0028,0030)", pixel_mm, 1e-3)):
        wanted = np.array(of_slice(first))
        for s in slices:
            found = np.array(of_slice(s))
            if np.abs(found - wanted).max() > tolerance:
                raise MetadataError(f"{name} must be the same in all slices, but was {wanted.tolist()} and "
                                    f"{found.tolist()}; the folder may mix two series.")


def grid_of(slices) -> np.ndarray:
    """Return the 4 × 4 matrix from (column, row, slice) to RAS mm of ordered slices.

    Raises
    ------
    MetadataError
        Differing shapes, orientations or pixel sizes, missing slices.
    GeometryError
        Slices that are unevenly spaced or sheared (gantry tilt).
    """
    check_alike(slices)
    first = slices[0]
    along_row, along_column = orientation(first).reshape(2, 3)
    normal = np.cross(along_row, along_column)
    positions = np.array([position(s) for s in slices])
    row_mm, column_mm = pixel_mm(first)
    step = normal * _single_slice_mm(first) if len(slices) == 1 else _slice_step(positions, normal)
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1], lps[:3, 2], lps[:3, 3] = along_row * column_mm, along_column * row_mm, step, positions[0]
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


def _slice_step(positions: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Return the vector from slice to slice, after checking that it is one for all and stands on the slices."""
    heights = positions @ normal
    gaps = np.diff(heights)
    usual = np.sort(gaps)[(len(gaps) - 1) // 2]
    wide = int(np.argmax(gaps))
    if gaps[wide] > 1.5 * usual:
        raise MetadataError(f"slices are missing: from {heights[wide]:.4g} to {heights[wide + 1]:.4g} mm along the "
                            f"slice normal there is a gap of {gaps[wide]:.4g} mm where the slice distance is "
                            f"{usual:.4g} mm ({(gaps > 1.5 * usual).sum()} such gap(s)); copy the missing files, "
                            "or crop the series.")
    n = len(positions)
    step = (positions[-1] - positions[0]) / (n - 1)
    stray = np.linalg.norm(positions - positions[0] - np.arange(n)[:, None] * step, axis=1)
    distance = float(step @ normal)
    if stray.max() > POSITION_TOLERANCE * distance:
        raise GeometryError(f"slices must be evenly spaced, but slice {int(stray.argmax()) + 1} of {n} is "
                            f"{stray.max():.3g} mm off its place; resample the series to an even grid first.")
    slant = float(np.degrees(np.arccos(np.clip(distance / np.linalg.norm(step), -1, 1))))
    if slant > MAX_SLANT_DEG:
        raise GeometryError(f"slices must be stacked along their normal, but the stack leans by {slant:.3g} degrees "
                            "(gantry tilt); resample the series to an upright grid first.")
    return step


def _floats(ds, keyword: str, label: str, n: int) -> np.ndarray:
    try:
        values = np.array([float(v) for v in ds.get(keyword) or ()])
    except (ValueError, TypeError):
        values = np.array([])
    if values.shape != (n,) or not np.isfinite(values).all():
        raise MetadataError(f"{label} is missing or not {n} numbers in {getattr(ds, 'filename', 'a slice')}; "
                            "export the series again.")
    return values


def orientation(ds) -> np.ndarray:
    """Return the unit vectors along which the column index and the row index grow, LPS, 6 numbers."""
    values = _floats(ds, "ImageOrientationPatient", "ImageOrientationPatient (0020,0037)", 6)
    row, column = values[:3], values[3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if np.abs(np.array(lengths) - 1).max() > 0.01 or abs(row @ column) > 0.01:
        raise MetadataError("ImageOrientationPatient (0020,0037) must be two perpendicular unit vectors, but was "
                            f"{values.tolist()}.")
    return np.concatenate([row / lengths[0], column / lengths[1]])


def position(ds) -> np.ndarray:
    """Return the centre of the first pixel in LPS mm."""
    return _floats(ds, "ImagePositionPatient", "ImagePositionPatient (0020,0032)", 3)


def pixel_mm(ds) -> np.ndarray:
    """Return the distances between rows and between columns in mm."""
    sides = _floats(ds, "PixelSpacing", "PixelSpacing (0028,0030)", 2)
    if sides.min() <= 0:
        raise MetadataError(f"PixelSpacing (0028,0030) must be positive, but was {sides.tolist()}.")
    return sides


def _single_slice_mm(ds) -> float:
    thickness = number(ds, "SpacingBetweenSlices") or number(ds, "SliceThickness")
    if not thickness or thickness <= 0:
        raise MetadataError("the series is one slice, and neither SliceThickness (0018,0050) nor SpacingBetweenSlices "
                            "(0018,0088) says how thick it is.")
    return thickness
