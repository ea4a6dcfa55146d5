"""From the values that a PET series stores to SUVbw or Bq/ml, one factor per slice."""

import numpy as np

from allpet_physics.errors import InputError, MetadataError
from allpet_physics.io import patient
from allpet_physics.io.decay import (
    acquisition_moments,
    average_rate_time,
    frame_durations,
    half_life,
    injection_moment,
    reference_moment,
)
from allpet_physics.io.dicom_header import (
    PHILIPS_ACTIVITY_FACTOR,
    PHILIPS_SUV_FACTOR,
    private_number,
    same_in_all,
    text,
)
from allpet_physics.io.moments import located, zone_of
from allpet_physics.io.patient import SUVInputs

#: Units that a PET image can be read in.
PET_UNITS = ("SUVbw", "Bq/ml")


def suv_factor(weight_kg: float, dose_bq: float, elapsed_s, half_life_s: float):
    r"""Return the factor from Bq/ml to SUVbw.

    .. math:: \mathrm{SUV_{bw}} = \frac{C \, W}{D \, 2^{-\Delta t / T_{1/2}}}  \tag{1}

    Parameters
    ----------
    weight_kg : float
        Body weight; W is in g.
    dose_bq : float
        Administered activity D.
    elapsed_s : float or ndarray
        Δt from the injection to the time that the activity concentration C is given for, in s.
    half_life_s : float
        Half-life in s.
    """
    return 1000 * weight_kg / dose_bq * 2 ** (np.asarray(elapsed_s, dtype=np.float64) / half_life_s)


def pet_factors(slices, unit: str, given: SUVInputs) -> tuple[np.ndarray, dict, list[str]]:
    """Return what to multiply rescaled values with, one factor per slice, to reach `unit`.

    Parameters
    ----------
    slices : list of pydicom Dataset
        One PET series.
    unit : {"SUVbw", "Bq/ml"}
        The unit wanted.
    given : SUVInputs
        Values that replace the header's.

    Returns
    -------
    factors : ndarray
        Shape (slices,), float64.
    used : dict
        The values that the factors were made from, JSON-serialisable; of the times only `elapsed_s`, from the
        injection to the time that the stored values are decay corrected to (a range where it differs by slice).
    remarks : list of str
        What was assumed; one sentence each.

    Raises
    ------
    MetadataError
        A missing, contradictory or implausible element; the message names it and the way out.
    """
    if unit not in PET_UNITS:
        raise InputError(f"unit must be one of {', '.join(PET_UNITS)}, but was {unit!r}.")
    units = same_in_all("Units (0054,1001)", [text(s, "Units") for s in slices])
    used, remarks = {"Units": units}, []
    if units == "BQML":
        return _from_activity(slices, np.ones(len(slices)), unit, given, used, remarks)
    if units == "CNTS":
        return _from_counts(slices, unit, given, used, remarks)
    if units not in ("GML", "CM2ML"):
        raise MetadataError(f"Units (0054,1001) must be BQML, GML, CM2ML or CNTS, but was {units or 'missing'}; "
                            "export the series again with calibrated values.")
    if unit != "SUVbw":
        raise MetadataError(f'Units (0054,1001) is {units}, already normalised; read the image with unit="SUVbw".')
    kind = same_in_all("SUVType (0054,1006)", [text(s, "SUVType") for s in slices])
    kind = used["SUVType"] = kind or ("BW" if units == "GML" else "BSA")
    if (kind == "BSA") != (units == "CM2ML"):
        raise MetadataError(f"Units (0054,1001) {units} and SUVType (0054,1006) {kind} contradict each other.")
    factor = 1.0
    if kind != "BW":
        weight = patient.weight_kg(slices, given, used, remarks)
        height = patient.height_m(slices, given, used, remarks)
        sex = "O" if kind == "BSA" else patient.sex(slices, given, used)
        if sex == "O" and kind != "BSA":
            remarks.append(f"PatientSex is O; {kind} is the mean of the formulas for men and women.")
        size = patient.body_size(kind, weight, height, sex)
        used["body_size"] = size
        factor = 1000 * weight / (1e4 * size) if kind == "BSA" else weight / size
    remarks.extend(_unused(given, used))
    return np.full(len(slices), factor), used, remarks


def _from_counts(slices, unit, given, used, remarks):
    """Philips: (7053,1000) leads to SUVbw, (7053,1009) to Bq/ml; zero means that it does not apply.

    The scanner made (7053,1000) from its own weight, dose and times: when the caller replaces one of them, the way
    over Bq/ml is taken where there is one.
    """
    to_suv = [private_number(s, PHILIPS_SUV_FACTOR) or 0.0 for s in slices]
    to_activity = [private_number(s, PHILIPS_ACTIVITY_FACTOR) or 0.0 for s in slices]
    overridden = bool(_unused(given, {}))
    if unit == "SUVbw" and min(to_suv) > 0 and not (overridden and min(to_activity) > 0):
        remarks.extend(_unused(given, used))
        used["PhilipsSUVScaleFactor (7053,1000)"] = _range(to_suv)
        return np.array(to_suv), used, remarks
    if min(to_activity) > 0:
        used["PhilipsActivityConcentrationScaleFactor (7053,1009)"] = _range(to_activity)
        return _from_activity(slices, np.array(to_activity), unit, given, used, remarks)
    way = 'read it with unit="SUVbw"' if min(to_suv) > 0 else "export the series again in Bq/ml"
    raise MetadataError("Units (0054,1001) is CNTS, and no scale factor in (7053,1000) or (7053,1009) leads from "
                        f"counts to {unit}; {way}.")


def _from_activity(slices, to_activity, unit, given, used, remarks):
    correction = same_in_all("DecayCorrection (0054,1102)", [text(s, "DecayCorrection") for s in slices])
    used["DecayCorrection"] = correction
    if unit == "Bq/ml":
        if correction == "NONE":
            remarks.append("DecayCorrection is NONE: each slice is the activity of its own acquisition.")
        return to_activity, used, remarks
    if correction not in ("START", "ADMIN", "NONE"):
        raise MetadataError("DecayCorrection (0054,1102) must be START, ADMIN or NONE, but was "
                            f"{correction or 'missing'}; repair the header, {patient.WAY_OUT}.")
    weight = patient.weight_kg(slices, given, used, remarks)
    dose = patient.dose_bq(slices, given, used, remarks, weight)
    if correction == "ADMIN":
        elapsed, seconds = np.zeros(len(slices)), 1.0
    else:
        seconds, remark = half_life(slices, given.half_life_s)
        remarks.extend([remark] if remark else [])
        elapsed = _elapsed_s(slices, correction, seconds, given, used, remarks)
        used["RadionuclideHalfLife"] = seconds
    corrected = text(slices[0], "CorrectedImage").split("\\")
    if "ATTN" not in corrected:
        remarks.append("CorrectedImage (0028,0051) does not list ATTN: without attenuation correction SUV is not "
                       "quantitative.")
    return to_activity * suv_factor(weight, dose, elapsed, seconds), used, remarks


def _elapsed_s(slices, correction, half_life_s, given, used, remarks) -> np.ndarray:
    """Return Δt of equation (1) for each slice.

    Uncorrected values (NONE) are averages over the frame, hence the activity at AcquisitionTime + T_ave.
    """
    if correction == "START" or given.scan_time is not None:
        if given.scan_time is not None:
            references, source = [located(given.scan_time, zone_of(slices))], "scan_time"
        else:
            reference, source, notes = reference_moment(slices, half_life_s)
            references = [reference]
            remarks.extend(notes)
        delay = np.zeros(len(slices))
    else:
        references, source = acquisition_moments(slices), "AcquisitionTime + T_ave of each slice"
        durations = frame_durations(slices)
        if None in durations:
            raise MetadataError("DecayCorrection is NONE and ActualFrameDuration (0018,1242) is missing, so the time "
                                f"of the values is unknown; pass scan_time, {patient.WAY_OUT}.")
        delay = average_rate_time(durations, half_life_s)
    injected, note = injection_moment(slices, min(references), half_life_s, given.injection_time)
    remarks.extend([note] if note else [])
    elapsed = np.array([(r - injected).total_seconds() for r in references]) + delay
    # Only the difference: a date and a time of day may tell who the patient was.
    used.update(reference_time_from=source, elapsed_s=_range(elapsed))
    return elapsed


def _unused(given, used) -> list[str]:
    """Say which of the caller's values had no part in the factor, because the header's values are SUV already."""
    elements = {"weight_kg": "PatientWeight", "height_m": "PatientSize", "sex": "PatientSex"}
    names = [name for name, value in vars(given).items() if value is not None and elements.get(name) not in used]
    return [f"{', '.join(names)} had no effect: the stored values are normalised already."] if names else []


def _range(values) -> float | list[float]:
    low, high = float(np.min(values)), float(np.max(values))
    return low if low == high else [low, high]
