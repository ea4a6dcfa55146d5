"""DICOM image series as volumes."""

import numpy as np

from allpet_physics.errors import InputError, MetadataError
from allpet_physics.io._remarks import told
from allpet_physics.io.dicom_grid import grid_of
from allpet_physics.io.dicom_header import number, text, uid_digest
from allpet_physics.io.dicom_series import brief, load_slices
from allpet_physics.io.volume import Volume

#: Series-level elements kept with a volume: those that an operator does not type. Free text (SeriesDescription,
#: ImageComments, ReconstructionMethod, ...), UIDs, dates and times of day are left out, as the Basic Application
#: Confidentiality Profile of DICOM PS3.15, Annex E, asks: any of them may name the patient or lead to one.
_KEPT = ("Modality", "Manufacturer", "ManufacturerModelName", "CorrectedImage", "PatientPosition")


def read_dicom_series(path, series_uid: str | None = None, *, modality: str | None = None, frame: int | None = None,
                      dtype=np.float32) -> Volume:
    """Return one DICOM series as a volume of its rescaled values.

    Values are RescaleSlope · stored + RescaleIntercept, slice by slice: Hounsfield units for CT (`unit` "HU"), Bq/ml
    for PET with Units BQML, and "unknown" otherwise; `allpet_physics.io.read_pet` converts PET to SUV.

    Parameters
    ----------
    path : path-like
        A folder (searched with its subfolders), or one file of the series, whose folder is then searched.
    series_uid : str, optional
        SeriesInstanceUID or its end, where the folder holds several series.
    modality : str, optional
        Take only series of this modality, for example ``"CT"``.
    frame : int, optional
        Which frame of a dynamic or gated series, from 0.
    dtype : float32 or float64
        Of the volume's data.

    Returns
    -------
    Volume
        Data [i, j, k]: column, row, slice along the normal of the image plane; affine in RAS mm. What was noticed
        stands in `Volume.warnings` and is issued as UserWarning.

    Raises
    ------
    InputError
        No such path, no images in it, files that cannot be decoded.
    MetadataError
        Several series to choose from, missing or duplicate slices, slices that contradict each other.
    GeometryError
        Slices that do not form a regular grid.
    """
    return told(load_dicom_series(path, series_uid, modality=modality, frame=frame, dtype=dtype))


def load_dicom_series(path, series_uid=None, *, modality=None, frame=None, dtype=np.float32) -> Volume:
    """Return what `read_dicom_series` does, without issuing warnings."""
    slices, notes = load_slices(path, series_uid, modality=modality, frame=frame)
    kind = text(slices[0], "Modality")
    unit = "HU" if kind == "CT" else "Bq/ml" if text(slices[0], "Units") == "BQML" else "unknown"
    return assemble(slices, np.ones(len(slices)), unit, {}, notes, dtype)


def assemble(slices, factors, unit: str, used: dict, notes, dtype) -> Volume:
    """Return ordered slices as a volume: rescaled, multiplied by one factor per slice, on their grid."""
    dtype = float_type(dtype)
    affine = grid_of(slices)
    data = np.empty((int(slices[0].Columns), int(slices[0].Rows), len(slices)), dtype=dtype, order="F")
    slopes = []
    for k, (ds, factor) in enumerate(zip(slices, factors, strict=True)):
        slope, intercept = number(ds, "RescaleSlope"), number(ds, "RescaleIntercept") or 0.0
        if slope is None and text(ds, "Modality") == "PT":
            raise MetadataError("RescaleSlope (0028,1053) is missing in a PET slice, so its values have no scale; "
                                "export the series again.")
        slopes.append(1.0 if slope is None else slope)
        with np.errstate(over="ignore"):  # told below, with its cause
            data[:, :, k] = ((_pixels(ds) * slopes[k] + intercept) * factor).T
        if intercept and text(ds, "Modality") == "PT" and k == 0:
            notes = [*notes, f"RescaleIntercept is {intercept:g}, where PET requires 0; it was applied."]
    if not np.isfinite(data).all():
        raise MetadataError("the rescaled values overflow; check RescaleSlope (0028,1053) and the scale factors.")
    tags = {keyword: value for keyword in _KEPT if (value := text(slices[0], keyword))}
    tags |= {"frame_of_reference_sha256": uid_digest(text(slices[0], "FrameOfReferenceUID")),
             "n_slices": len(slices), "RescaleSlope": [min(slopes), max(slopes)],
             "factor": [float(np.min(factors)), float(np.max(factors))], **used}
    return Volume(data, affine, unit, tags, tuple(notes))


def float_type(dtype) -> np.dtype:
    """Return `dtype` if it is float32 or float64, or raise InputError."""
    try:
        result = None if dtype is None else np.dtype(dtype)  # numpy reads None as float64
    except TypeError:
        result = None
    if result not in (np.float32, np.float64):
        raise InputError(f"dtype must be float32 or float64, but was {dtype!r}.")
    return result


def _pixels(ds) -> np.ndarray:
    name = getattr(ds, "filename", "a slice")
    try:
        pixels = ds.pixel_array
    except Exception as error:  # pydicom and its decoders raise many kinds
        syntax = ds.file_meta.get("TransferSyntaxUID") if hasattr(ds, "file_meta") else None
        if syntax is not None and syntax.is_compressed:
            raise InputError(f"the pixels of {name} are compressed ({syntax.name}), and no decoder for them is "
                             f"installed or they are damaged ({brief(error)}); pip install \"pylibjpeg[all]\", or "
                             "decompress the series with dcmdjpeg or gdcmconv --raw.") from None
        raise InputError(f"the pixels of {name} cannot be read ({brief(error)}); copy the file again from its "
                         "source.") from None
    if pixels.shape != (ds.Rows, ds.Columns):
        raise InputError(f"the pixels of {name} must be one grey-scale image, but their shape was {pixels.shape}.")
    return pixels.astype(np.float64)
