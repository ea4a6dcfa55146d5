"""Write small synthetic DICOM series (PET or CT), so that tests know the truth voxel by voxel.

Import it in a test module of this folder with ``from .dicom_series import write_series, shared_data``.
"""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage, generate_uid

#: Patient and injection of every synthetic PET series: 1 SUVbw is 3600.0 Bq/ml one hour after injection.
WEIGHT_KG, HEIGHT_M, DOSE_BQ, HALF_LIFE_S, ELAPSED_S = 70.0, 1.75, 368.08e6, 6586.2, 3600.0
#: Activity concentration in Bq/ml that is 1 SUVbw at the start of the scan.
BQML_PER_SUV = DOSE_BQ * 2 ** (-ELAPSED_S / HALF_LIFE_S) / (WEIGHT_KG * 1000)


def shared_data(*parts: str) -> Path:
    """Return a path below the read-only data beside the repository; it need not exist."""
    return Path(__file__).resolve().parents[3].joinpath("shared", "data", *parts)


def write_series(folder, values, *, modality="PT", pixel_mm=(4.0, 4.0), slice_mm=4.0, origin_lps=(0.0, 0.0, 0.0),
                 row_lps=(1.0, 0.0, 0.0), column_lps=(0.0, 1.0, 0.0), slope=None, intercept=0.0, header=None,
                 slice_headers=None, radiopharmaceutical=None, series_uid=None, prefix="image", seed=0) -> list[Path]:
    """Write `values` as one DICOM file per slice, in an order that neither file names nor numbers betray.

    Parameters
    ----------
    folder : path-like
        Created if needed; several series may share it under different `prefix`.
    values : array_like
        What a reader must find after rescaling, shape (slice, row, col); slices follow row_lps × column_lps.
    pixel_mm : pair of float
        Distance between rows, distance between columns (the order of PixelSpacing), in mm.
    origin_lps : triple of float
        Centre of the first voxel of the first slice, LPS mm.
    row_lps, column_lps : triple of float
        Direction in which the column index grows, and in which the row index grows (ImageOrientationPatient).
    slope : float or sequence of float, optional
        RescaleSlope, one or one per slice; by default chosen per slice to use the 16 bits (rounding below 2e-5
        of the slice maximum). Integers stored with slope 1 are exact.
    header : dict, optional
        Keyword -> value for every slice; None removes the element. A key may also be ``(group, element, VR)``, a
        raw tag, or ``(group, element, VR, creator)``, an element of that creator's private block.
    slice_headers : sequence of dict, optional
        The same, one per slice.
    radiopharmaceutical : dict, optional
        Changes in the item of RadiopharmaceuticalInformationSequence; None removes an element.

    Returns
    -------
    list of Path
        One file per slice, in the order of `values`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    values = np.asarray(values, dtype=np.float64)
    n = len(values)
    if slope is None:
        slope = np.maximum(np.abs(values).reshape(n, -1).max(axis=1), 1e-6) / 30000
    slopes = [float(f"{s:.10g}") for s in np.broadcast_to(slope, n)]
    normal = np.cross(row_lps, column_lps)
    rng = np.random.default_rng(seed)
    names, numbers = rng.permutation(n), rng.permutation(n)
    series_uid = series_uid or generate_uid()
    study_uid, frame_uid = generate_uid(), generate_uid()
    paths = []
    for k in range(n):
        ds = _common(modality, study_uid, series_uid, frame_uid)
        ds.InstanceNumber = int(numbers[k]) + 1
        ds.ImagePositionPatient = _decimal(np.asarray(origin_lps) + k * slice_mm * normal)
        ds.ImageOrientationPatient = _decimal([*row_lps, *column_lps])
        ds.PixelSpacing = _decimal(pixel_mm)
        ds.SliceThickness = _decimal([slice_mm])[0]
        stored = np.round((values[k] - intercept) / slopes[k])
        if np.abs(stored).max() > 32767:
            raise ValueError("the slope is too small for 16 bits")
        _pixels(ds, stored.astype("<i2"), slopes[k], intercept)
        if modality == "PT":
            _pet(ds, radiopharmaceutical or {})
        for changes in (header or {}, (slice_headers or [{}] * n)[k]):
            _apply(ds, changes)
        path = folder / f"{prefix}_{names[k]:03d}.dcm"
        ds.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _common(modality, study_uid, series_uid, frame_uid) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = PositronEmissionTomographyImageStorage if modality == "PT" else CTImageStorage
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study_uid, series_uid, frame_uid
    ds.Modality, ds.SeriesDescription, ds.Manufacturer = modality, f"synthetic {modality}", "Synthetic"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = "Secret^Name", "SECRET-ID", "19900101"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = "20250101"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = "110000.000000"
    return ds


def _pixels(ds, stored, slope, intercept) -> None:
    ds.Rows, ds.Columns = stored.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleSlope, ds.RescaleIntercept = f"{slope:.10g}", f"{intercept:.10g}"
    ds.PixelData = stored.tobytes()


def _pet(ds, changes) -> None:
    ds.PatientSex, ds.PatientSize, ds.PatientWeight = "O", f"{HEIGHT_M}", f"{WEIGHT_KG}"
    ds.ImageType, ds.SeriesType = ["ORIGINAL", "PRIMARY"], ["STATIC", "IMAGE"]
    ds.Units, ds.DecayCorrection = "BQML", "START"
    ds.CorrectedImage = ["NORM", "DTIM", "ATTN", "SCAT", "DECY", "RAN"]
    ds.ActualFrameDuration, ds.FrameReferenceTime = 300000, "150000.0"
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "C-111A1", "SRT", "^18^Fluorine"
    drug = Dataset()
    drug.Radiopharmaceutical = "FDG"
    drug.RadiopharmaceuticalStartTime = "100000.000000"
    drug.RadiopharmaceuticalStartDateTime = "20250101100000.000000"
    drug.RadionuclideTotalDose, drug.RadionuclideHalfLife = f"{DOSE_BQ}", f"{HALF_LIFE_S}"
    drug.RadionuclideCodeSequence = [code]
    _apply(drug, changes)
    ds.RadiopharmaceuticalInformationSequence = [drug]


def _apply(ds, changes) -> None:
    for key, value in changes.items():
        if isinstance(key, tuple):
            group, element, vr, *creator = key
            if creator:
                ds.private_block(group, creator[0], create=True).add_new(element & 0xFF, vr, value)
            else:
                ds.add_new((group, element), vr, value)
        elif value is None:
            if key in ds:
                del ds[key]
        else:
            setattr(ds, key, value)


def _decimal(numbers) -> list[str]:
    return [f"{float(v):.10g}" for v in numbers]
