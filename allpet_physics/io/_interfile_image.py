"""Interfile images: STIR's gantry axes to and from a volume in patient space."""

import numpy as np

from allpet_physics._arrays import as_float_array, as_positive_float
from allpet_physics.errors import GeometryError, InputError, MetadataError
from allpet_physics.io._interfile_header import (
    check_data_type,
    checked_frame,
    read_header,
    read_numbers,
    scale_factors,
    with_suffix,
    without_patient,
    write_pair,
)
from allpet_physics.io.volume import GRID_TOLERANCE, Volume

#: STIR's (x, y, z) in LPS by patient position; an unknown one counts as head first, supine.
_LPS_SIGNS = {("head_in", "supine"): (1, 1, -1), ("head_in", "prone"): (-1, -1, -1),
              ("feet_in", "supine"): (-1, 1, 1), ("feet_in", "prone"): (1, -1, 1)}
_UNITS = {u.lower(): u for u in ("SUVbw", "Bq/ml", "HU", "1/cm", "label", "mask")}


def read_interfile_image(path, *, frame: int = 1) -> Volume:
    r"""Read an Interfile image (.hv) as a volume ``[x, y, z]`` with an affine to RAS mm.

    STIR's axes belong to the gantry: x grows to the right and y down as one looks from the bed into the gantry, z from
    the gantry towards the bed. Voxel (i, j, k) has its centre at ``first pixel offset (mm)`` plus index times spacing;
    without that key at (−(n_x // 2)·Δx, −(n_y // 2)·Δy, 0). The patient is taken to lie as the keys ``patient
    orientation`` and ``patient rotation`` say (head_in or feet_in, supine or prone); if they are missing or unknown,
    head first and supine as in STIR, so that the axes grow to patient left, posterior and inferior, and a warning says
    so. The origin of z is the first ring, not a point of the patient.

    Integers without a scale factor keep their type, so labels stay labels; everything else becomes float32, or float64
    if it is stored so.

    Raises
    ------
    InputError
        Not an Interfile header; a data file that is missing or too short; a frame that is not there; NaN.
    MetadataError
        A key that is missing, contradictory or not supported; a patient lying on a side.
    """
    header = read_header(path)
    check_data_type(header, "a PET image", lambda kind: kind in ("image", ""), "read_interfile_sinogram")
    frame = checked_frame(header, frame)
    if header.integer("number of dimensions", 2) != 3:
        raise MetadataError(f"'number of dimensions' in {header.path.name} must be 3 for an image, "
                            f"but was {header.text('number of dimensions', '2')}.")
    labels = [header.text(f"matrix axis label[{i}]", label).lower() for i, label in enumerate("xyz", 1)]
    if labels != ["x", "y", "z"]:
        raise MetadataError(f"'matrix axis label' [1] to [3] in {header.path.name} must be x, y and z, "
                            f"but were {', '.join(labels)}.")
    shape = [header.integer(f"matrix size[{i}]") for i in (1, 2, 3)]
    spacing = np.array([as_positive_float(f"scaling factor (mm/pixel)[{i}]",
                                          header.number(f"scaling factor (mm/pixel)[{i}]")) for i in (1, 2, 3)])
    default = -np.array([shape[0] // 2, shape[1] // 2, 0]) * spacing
    first = np.array([header.number(f"first pixel offset (mm)[{i}]", default[i - 1]) for i in (1, 2, 3)])

    data = read_numbers(header, int(np.prod(shape)), frame=frame).reshape(shape[::-1])
    scales = np.array(scale_factors(header, frame, shape[2]))
    if data.dtype.kind == "f" or (scales != 1).any():
        data = as_float_array(f"the data of {header.path.name}", data)
        data = data * scales.astype(data.dtype)[:, None, None]
    warnings: list[str] = []
    signs = _patient_signs(header, warnings)
    affine = np.eye(4)
    to_ras = np.array([-1, -1, 1]) * signs
    affine[:3, :3], affine[:3, 3] = np.diag(to_ras * spacing), to_ras * first
    unit = header.text("image data type description[1]", header.text("quantification units", "unknown"))
    return Volume(data.transpose(2, 1, 0), affine, _UNITS.get(unit.lower(), "unknown"), without_patient(header),
                  tuple(warnings))


def write_interfile_image(path, volume: Volume, *, overwrite: bool = False) -> None:
    """Write a volume as an Interfile image that STIR can read (.hv and .v), patient head first and supine.

    The axes are permuted and flipped to STIR's x (patient left), y (posterior) and z (inferior); no value is
    interpolated. Booleans are written as bytes, integers of up to 4 bytes as they are, floats as float32 or float64.
    The unit goes into ``image data type description[1]``.

    Raises
    ------
    GeometryError
        A volume that is tilted against the patient axes, which Interfile cannot express.
    InputError
        A data type that Interfile has no number format for, NaN, a suffix other than .hv, files that exist.
    """
    path = with_suffix(path, ".hv")
    volume = volume.reoriented(("L", "P", "I"))
    spacing = volume.voxel_mm
    tilt = np.abs(volume.affine[:3, :3] - np.diag([-1, -1, -1] * spacing)) * np.array(volume.data.shape)
    if tilt.max() > GRID_TOLERANCE * spacing.min():
        raise GeometryError(f"volume must lie along the patient axes for Interfile, but is tilted by "
                            f"{volume.obliquity_deg:.3g} degrees; resample it with resample_to first.")
    first = volume.affine[:3, 3] * [-1, -1, -1]
    data = np.asarray(volume.data)
    if data.size == 0:
        raise InputError(f"volume.data must hold at least one voxel, but its shape was {data.shape}.")
    if data.dtype.kind == "b":
        data = data.astype(np.uint8)
    elif data.dtype.kind not in "iu":
        data = as_float_array("volume.data", data)
    if data.dtype.kind != "f" and data.dtype.itemsize > 4:
        raise InputError(f"volume.data must be float or integers of up to 4 bytes, but was {data.dtype}; convert it "
                         "with .astype(np.int32).")
    number_format = {"f": "float", "i": "signed integer", "u": "unsigned integer"}[data.dtype.kind]
    described = [] if volume.unit == "unknown" else [
        "number of image data types := 1", "index nesting level := {data type}",
        f"image data type description[1] := {volume.unit}"]
    axes = [line for i, label in enumerate("xyz") for line in (
        f"matrix axis label [{i + 1}] := {label}", f"!matrix size [{i + 1}] := {data.shape[i]}",
        f"scaling factor (mm/pixel) [{i + 1}] := {float(spacing[i])!r}")]
    lines = [
        "!INTERFILE  :=", "!imaging modality := PT", "!version of keys := STIR6.0", "name of data file := {data}",
        "!GENERAL DATA :=", "patient orientation := head_in", "patient rotation := supine", "!GENERAL IMAGE DATA :=",
        "!type of data := PET", "imagedata byte order := LITTLEENDIAN", "!PET STUDY (General) :=",
        "!PET data type := Image", "process status := Reconstructed", f"!number format := {number_format}",
        f"!number of bytes per pixel := {data.dtype.itemsize}", "number of dimensions := 3", *axes,
        *[f"first pixel offset (mm) [{i + 1}] := {float(first[i])!r}" for i in range(3)],
        "number of time frames := 1", *described, "!END OF INTERFILE :="]
    write_pair(path, ".v", lines, data.transpose(2, 1, 0), overwrite=overwrite)


def _patient_signs(header, warnings):
    orientation = header.text("patient orientation", "unknown").lower()
    rotation = header.text("patient rotation", "unknown").lower()
    if "unknown" in (orientation, rotation):
        warnings.append("The header does not say how the patient lay; head first and supine is assumed, as STIR does.")
        orientation, rotation = "head_in", "supine"
    if (orientation, rotation) not in _LPS_SIGNS:
        raise MetadataError(f"the patient position in {header.path.name} must be head_in or feet_in, supine or prone, "
                            f"but was {orientation}, {rotation}.")
    return np.array(_LPS_SIGNS[orientation, rotation])
