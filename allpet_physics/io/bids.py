"""The JSON file beside a NIfTI PET image: its unit, and what converts it to SUV (BIDS and dcm2niix names)."""

import json
from pathlib import Path

from allpet_physics.errors import InputError, MetadataError
from allpet_physics.io.decay import MAX_HALF_LIVES, MAX_LEAD_S, nuclide_half_life
from allpet_physics.io.moments import check_zones
from allpet_physics.io.patient import WAY_OUT, SUVInputs
from allpet_physics.io.plausible import HALF_LIFE_S, WEIGHT_KG, check_dose, check_within, same_half_life
from allpet_physics.io.suv import suv_factor

#: What the Units field may say, without case and spaces: the unit it means here and the factor to it.
_UNITS = {"bq/ml": ("Bq/ml", 1.0), "bqml": ("Bq/ml", 1.0), "kbq/ml": ("Bq/ml", 1e3), "mbq/ml": ("Bq/ml", 1e6),
          "suv": ("SUVbw", 1.0), "suvbw": ("SUVbw", 1.0), "g/ml": ("SUVbw", 1.0), "gml": ("SUVbw", 1.0)}
_BECQUEREL = {"bq": 1.0, "kbq": 1e3, "mbq": 1e6, "gbq": 1e9}
_TIME_FIELDS = ("ImageDecayCorrected", "ImageDecayCorrectionTime", "InjectionStart")


def read_sidecar(path) -> dict:
    """Return the fields of the JSON file of the same name as the NIfTI file `path`, or an empty dict.

    Raises
    ------
    MetadataError
        A file that is not a JSON object.
    """
    beside = Path(str(path).removesuffix(".gz").removesuffix(".nii") + ".json")
    if not beside.is_file():
        return {}
    try:
        fields = json.loads(beside.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise MetadataError(f"{beside} is not valid JSON ({error}); repair it or move it away.") from None
    if not isinstance(fields, dict):
        raise MetadataError(f"{beside} must be a JSON object, but was a {type(fields).__name__}.")
    return fields


def sidecar_factor(fields: dict, unit: str, given: SUVInputs) -> tuple[float, dict, list[str]] | None:
    """Return the factor from stored values to `unit`, what it was made from and remarks; None when no unit is stated.

    Raises
    ------
    MetadataError
        A unit that cannot be converted to `unit`, or fields that are missing for it.
    """
    stated = fields.get("Units")
    if not stated:
        return None
    key = str(stated).lower().replace(" ", "")
    if key not in _UNITS:
        raise MetadataError(f"Units in the JSON sidecar must be Bq/mL, kBq/mL or g/mL (SUV), but was {stated!r}; "
                            "read the file with read_nifti and declare its unit.")
    found, factor = _UNITS[key]
    used = {"Units": str(stated)}
    if found == unit:
        return factor, used, []
    if found == "SUVbw":
        raise MetadataError(f'Units in the JSON sidecar is {stated}, already normalised; read it with unit="SUVbw".')
    weight = given.weight_kg or _positive(fields, "PatientWeight") or _positive(fields, "BodyWeight")
    if not weight:
        raise MetadataError(f"the JSON sidecar has no PatientWeight or BodyWeight; pass weight_kg, {WAY_OUT}.")
    check_within("PatientWeight in the JSON sidecar", weight, WEIGHT_KG, "kg", f"pass weight_kg, {WAY_OUT}",
                 given=False)
    if given.dose_bq is None:
        dose = check_dose("InjectedRadioactivity in the JSON sidecar", _dose_bq(fields), weight,
                          f"pass dose_bq or weight_kg, {WAY_OUT}", given=False)
    else:
        dose = check_dose("dose_bq", given.dose_bq, weight, "give it in Bq, or check the body weight", given=True)
    half_life_s, remarks = _half_life(fields, given)
    elapsed_s = _elapsed(fields, given, half_life_s)
    used |= {"PatientWeight": weight, "InjectedRadioactivity_Bq": dose, "RadionuclideHalfLife": half_life_s,
             "elapsed_s": elapsed_s}
    return factor * float(suv_factor(weight, dose, elapsed_s, half_life_s)), used, remarks


def _dose_bq(fields: dict) -> float:
    activity, unit = _positive(fields, "InjectedRadioactivity"), str(fields.get("InjectedRadioactivityUnits", ""))
    if not activity or unit.lower() not in _BECQUEREL:
        raise MetadataError("the JSON sidecar has no InjectedRadioactivity with InjectedRadioactivityUnits of Bq, kBq, "
                            f"MBq or GBq; pass dose_bq, {WAY_OUT}.")
    return activity * _BECQUEREL[unit.lower()]


def _half_life(fields: dict, given: SUVInputs) -> tuple[float, list[str]]:
    """Return the half-life in s, and a remark when it is not the named nuclide's."""
    known = nuclide_half_life(str(fields.get("TracerRadionuclide", "")))
    if given.half_life_s is not None:
        if known is None or same_half_life(given.half_life_s, known[1]):
            return given.half_life_s, []
        return given.half_life_s, [f"half_life_s is {given.half_life_s:g} s, but the JSON sidecar names {known[0]}, "
                                   f"whose half-life is {known[1]:g} s; half_life_s was used."]
    stated, name = _positive(fields, "RadionuclideHalfLife"), "RadionuclideHalfLife in the JSON sidecar"
    if stated is not None:
        check_within(name, stated, HALF_LIFE_S, "s", "pass half_life_s in seconds", given=False)
        if known is not None and not same_half_life(stated, known[1]):
            raise MetadataError(f"{name} must be within 5 % of the {known[1]:g} s of {known[0]}, which it names, but "
                                f"was {stated:g} s; pass half_life_s in seconds.")
        return stated, []
    if known is None:
        raise MetadataError("the JSON sidecar has no TracerRadionuclide that is known and no RadionuclideHalfLife; "
                            f"pass half_life_s, {WAY_OUT}.")
    return known[1], []


def _elapsed(fields: dict, given: SUVInputs, half_life_s: float) -> float:
    """Return the time from injection to decay reference in s (BIDS times count from TimeZero)."""
    if (given.injection_time is None) != (given.scan_time is None):
        raise InputError("injection_time and scan_time must be given together for a NIfTI file.")
    if given.injection_time is not None:
        check_zones(injection_time=given.injection_time, scan_time=given.scan_time)
        return _plausible((given.scan_time - given.injection_time).total_seconds(), half_life_s)
    times = {name: fields.get(name) for name in _TIME_FIELDS}
    if times["ImageDecayCorrected"] is not True or not all(_is_number(times[name]) for name in _TIME_FIELDS[1:]):
        raise MetadataError("SUV from a JSON sidecar needs ImageDecayCorrected true, ImageDecayCorrectionTime and "
                            f"InjectionStart in s, but they were {times}; pass injection_time and scan_time, "
                            f"{WAY_OUT}.")
    elapsed_s = float(times["ImageDecayCorrectionTime"]) - float(times["InjectionStart"])
    return _plausible(elapsed_s, half_life_s)


def _plausible(elapsed_s: float, half_life_s: float) -> float:
    if not -MAX_LEAD_S <= elapsed_s <= MAX_HALF_LIVES * half_life_s:
        raise MetadataError(f"the image is decay corrected to {elapsed_s:g} s after the injection, "
                            f"{elapsed_s / half_life_s:.3g} half-lives, which cannot be right; pass injection_time and "
                            "scan_time.")
    return elapsed_s


def _positive(fields: dict, name: str) -> float | None:
    value = fields.get(name)
    return float(value) if _is_number(value) and value > 0 else None


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
