"""The doors to images on disk, whatever their format."""

from pathlib import Path

import numpy as np

from allpet_physics.errors import InputError, MetadataError
from allpet_physics.io import bids
from allpet_physics.io._remarks import told
from allpet_physics.io.dicom import assemble, float_type, load_dicom_series
from allpet_physics.io.dicom_series import load_slices
from allpet_physics.io.nifti import is_nifti, load_nifti
from allpet_physics.io.patient import SUVInputs
from allpet_physics.io.suv import PET_UNITS, pet_factors
from allpet_physics.io.volume import Volume


def read_pet(path, unit: str = "SUVbw", dtype=np.float32, *, series_uid: str | None = None, frame: int | None = None,
             nonfinite: str = "raise", weight_kg: float | None = None, dose_bq: float | None = None,
             injection_time=None, scan_time=None, half_life_s: float | None = None, height_m: float | None = None,
             sex: str | None = None) -> Volume:
    """Return a PET image in SUV (body weight) or Bq/ml.

    DICOM is converted from what its header says: Units BQML, CNTS (Philips), GML and CM2ML; decay correction to START,
    ADMIN or NONE; vendors' private elements. What was used stands in `Volume.tags`; what was assumed (a weight that
    can only be in g, a half-life from a table, ...) stands in `Volume.warnings` and is issued as UserWarning, once
    each. A header that lacks or contradicts something, or states a weight, activity or half-life that is not
    plausible, is refused, never guessed.

    NIfTI has no unit. The rule, in this order:

    1. a JSON sidecar (same name) with Units: values are converted, from Bq/mL to SUV with its weight, dose and times;
    2. a unit recorded by `write_nifti`: it must be the one asked for;
    3. otherwise values are returned as they are, with unit "unknown" and a warning; declare the unit with
       `read_nifti(path, unit=...)`.

    Parameters
    ----------
    path : path-like
        A folder of DICOM files, one file of the series, or a ``.nii``/``.nii.gz`` file.
    unit : {"SUVbw", "Bq/ml"}
        Bq/ml needs neither weight nor dose nor times.
    dtype : float32 or float64
        Of the data.
    series_uid : str, optional
        SeriesInstanceUID or its end, where a folder holds several PET series.
    frame : int, optional
        Which frame of a dynamic or gated image, from 0.
    nonfinite : {"raise", "zero", "keep"}
        What becomes of NaN and Inf in a NIfTI file.
    weight_kg, dose_bq, injection_time, scan_time, half_life_s, height_m, sex
        Replace what the header says or lacks; see `SUVInputs`.

    Returns
    -------
    Volume
        Data [i, j, k], affine in RAS mm.

    Raises
    ------
    InputError, MetadataError, GeometryError
        One sentence with what is missing or wrong and how to go on.
    """
    if unit not in PET_UNITS:
        raise InputError(f"unit must be one of {', '.join(PET_UNITS)}, but was {unit!r}.")
    dtype = float_type(dtype)
    given = SUVInputs(weight_kg, dose_bq, injection_time, scan_time, half_life_s, height_m, sex)
    if is_nifti(path):
        _refuse_series_uid(path, series_uid)
        return told(_nifti_pet(path, unit, dtype, frame, nonfinite, given))
    slices, notes = load_slices(path, series_uid, modality="PT", frame=frame)
    factors, used, remarks = pet_factors(slices, unit, given)
    return told(assemble(slices, factors, unit, used, notes + remarks, dtype))


def read_image(path, unit: str | None = None, *, dtype=np.float32, series_uid: str | None = None,
               frame: int | None = None, nonfinite: str = "raise") -> Volume:
    """Return any image: a DICOM series in its own values (CT in HU), or a NIfTI file.

    Parameters
    ----------
    path : path-like
        A folder of DICOM files, one file of the series, or a ``.nii``/``.nii.gz`` file.
    unit : str, optional
        Declares what the values are, for example ``"HU"``; no value is converted.
    dtype : numpy dtype or None
        None keeps the integers of a NIfTI label map; DICOM is float32 or float64.
    series_uid, frame, nonfinite
        As in `read_pet`.

    Returns
    -------
    Volume
        What was noticed stands in `Volume.warnings` and is issued as UserWarning, once each.
    """
    if is_nifti(path):
        _refuse_series_uid(path, series_uid)
        return told(load_nifti(path, unit, dtype=dtype, frame=frame, nonfinite=nonfinite))
    volume = load_dicom_series(path, series_uid, frame=frame, dtype=np.float32 if dtype is None else dtype)
    return told(volume if unit is None else volume.replace(unit=unit))


def _refuse_series_uid(path, series_uid) -> None:
    if series_uid is not None:
        raise InputError(f"series_uid chooses among DICOM series, but {path} is a NIfTI file; leave it out.")


def _nifti_pet(path, unit: str, dtype, frame, nonfinite: str, given: SUVInputs) -> Volume:
    volume = load_nifti(path, dtype=dtype, frame=frame, nonfinite=nonfinite)
    found = bids.sidecar_factor(bids.read_sidecar(path), unit, given)
    name = Path(path).name
    if found is not None:
        factor, used, remarks = found
        with np.errstate(over="ignore"):
            data = volume.data * dtype.type(factor)
        if nonfinite != "keep" and not np.isfinite(data).all():
            raise MetadataError(f"{name} overflows when multiplied by {factor:g}; check its JSON sidecar.")
        return volume.replace(data=data, unit=unit, tags={**volume.tags, **used, "factor": factor},
                              warnings=(*volume.warnings, *remarks))
    if volume.unit in PET_UNITS and volume.unit != unit:
        raise MetadataError(f"{name} holds {volume.unit}, and a NIfTI file has no weight or dose to convert it to "
                            f'{unit}; read it with unit="{volume.unit}", or convert the DICOM series.')
    if volume.unit == unit:
        return volume
    if any(value is not None for value in vars(given).values()):
        raise MetadataError(f"weight, dose and times cannot be applied to {name}, whose unit is unknown; write the "
                            f'unit into a JSON sidecar ({{"Units": "Bq/mL"}} in {name.split(".nii")[0]}.json).')
    warning = (f"{name} does not say its unit, so its values were taken as they are, not converted to {unit}; declare "
               'the unit with read_nifti(path, unit="SUVbw").')
    return volume.replace(unit="unknown", warnings=(*volume.warnings, warning))
