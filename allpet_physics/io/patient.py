"""The patient and the dose: what SUV needs of them, from the header or from the caller."""

from dataclasses import dataclass
from datetime import datetime

from allpet_physics._arrays import as_positive_float
from allpet_physics.errors import InputError, MetadataError
from allpet_physics.io.dicom_header import number, radiopharmaceutical, same_in_all, text
from allpet_physics.io.moments import as_moment
from allpet_physics.io.plausible import HALF_LIFE_S, HEIGHT_M, WEIGHT_KG, check_dose, check_within

#: A total dose below this is in MBq. Clinical doses are 1e7 to 1e9 Bq, that is 10 to 1000 MBq: 1e5 Bq (0.1 MBq) could
#: not be imaged in a patient, 1e5 MBq could not be given to one.
_DOSE_IN_MBQ_BELOW = 1e5
WAY_OUT = 'or read the image with unit="Bq/ml"'


@dataclass(frozen=True)
class SUVInputs:
    """What the caller knows better than the header; None leaves a value to the header.

    Parameters
    ----------
    weight_kg, height_m : float
        Of the patient; 0.3 to 500 kg, 0.2 to 2.8 m.
    sex : {"M", "F", "O"}
        Only needed where stored values are normalised to lean or ideal body weight.
    dose_bq : float
        Administered activity at `injection_time`; 0.05 to 50 MBq per kg of body weight, checked where it is used.
    injection_time, scan_time : datetime or str
        ISO 8601; `scan_time` is the time that the stored values are decay corrected to. A time without zone is local
        time where the scanner stands. One with a zone ("2025-01-31T10:00:00+01:00") is compared with the header's
        by TimezoneOffsetFromUTC (0008,0201), or with the other one given here; without either it is refused.
    half_life_s : float
        Of the radionuclide; 30 s to 10 d.

    Raises
    ------
    InputError
        A value that is not positive or not plausible (`allpet_physics.io.plausible` has the limits and their reasons),
        a sex that is not M, F or O, a time that is not a date and time.
    """

    weight_kg: float | None = None
    dose_bq: float | None = None
    injection_time: datetime | str | None = None
    scan_time: datetime | str | None = None
    half_life_s: float | None = None
    height_m: float | None = None
    sex: str | None = None

    def __post_init__(self):
        for name in ("weight_kg", "dose_bq", "half_life_s", "height_m"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, as_positive_float(name, getattr(self, name)))
        for name, limits, unit in (("weight_kg", WEIGHT_KG, "kg"), ("height_m", HEIGHT_M, "m"),
                                   ("half_life_s", HALF_LIFE_S, "s")):
            if getattr(self, name) is not None:
                check_within(name, getattr(self, name), limits, unit, f"give it in {unit}", given=True)
        for name in ("injection_time", "scan_time"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, as_moment(name, getattr(self, name)))
        if self.sex not in (None, "M", "F", "O"):
            raise InputError(f'sex must be "M", "F" or "O", but was {self.sex!r}.')


def body_size(kind: str, weight_kg: float, height_m: float, sex: str) -> float:
    """Return lean or ideal body mass in kg, or body surface area in m².

    Parameters
    ----------
    kind : {"LBM", "LBMJAMES128", "LBMJANMA", "IBW", "BSA"}
        SUVType (0054,1006). With W in kg, H in cm, BMI = W/(H/100)²:

        - LBM: 1.10 W − 120 (W/H)² (men), 1.07 W − 148 (W/H)² (women); Morgan & Bray 1994.
        - LBMJAMES128: 1.10 W − 128 (W/H)² (men), 1.07 W − 148 (W/H)² (women); James & Waterlow 1976.
        - LBMJANMA: 9270 W/(6680 + 216 BMI) (men), 9270 W/(8780 + 244 BMI) (women); Janmahasatian et al. 2005.
        - IBW: 48.0 + 1.06 (H − 152) (men), 45.5 + 0.91 (H − 152) (women); Sugawara et al. 1999.
        - BSA: 0.007184 W^0.425 H^0.725; Du Bois & Du Bois 1916.
    sex : {"M", "F", "O"}
        "O" takes the mean of the two formulas, as the IBSI SUV manual does.

    Raises
    ------
    MetadataError
        An unknown kind, or a body so far from an adult's that the formula is not positive.
    """
    w, h, bmi = weight_kg, 100 * height_m, weight_kg / height_m**2
    formulas = {
        "LBM": (1.10 * w - 120 * (w / h) ** 2, 1.07 * w - 148 * (w / h) ** 2),
        "LBMJAMES128": (1.10 * w - 128 * (w / h) ** 2, 1.07 * w - 148 * (w / h) ** 2),
        "LBMJANMA": (9270 * w / (6680 + 216 * bmi), 9270 * w / (8780 + 244 * bmi)),
        "IBW": (48.0 + 1.06 * (h - 152), 45.5 + 0.91 * (h - 152)),
        "BSA": (0.007184 * w**0.425 * h**0.725,) * 2,
    }
    if kind not in formulas:
        raise MetadataError(f"SUVType (0054,1006) must be BW, {', '.join(formulas)} or absent, but was {kind!r}.")
    man, woman = formulas[kind]
    size = {"M": man, "F": woman, "O": (man + woman) / 2}[sex]
    if size <= 0:
        raise MetadataError(f"{kind} of a body of {w:g} kg and {h:g} cm is not positive; check weight and height.")
    return size


def weight_kg(slices, given, used, remarks) -> float:
    """Return the body weight in kg. What was used and what was assumed is added to `used` and `remarks`."""
    weight = given.weight_kg
    if weight is None:
        weight = same_in_all("PatientWeight (0010,1030)", [number(s, "PatientWeight") for s in slices])
        if not weight or weight < 0:
            raise MetadataError(f"PatientWeight (0010,1030) is missing or zero; pass weight_kg, {WAY_OUT}.")
        if weight > 1000:
            remarks.append(f"PatientWeight {weight:g} can only be in g; it was divided by 1000.")
            weight /= 1000
        check_within("PatientWeight (0010,1030)", weight, WEIGHT_KG, "kg", f"pass weight_kg, {WAY_OUT}", given=False)
    used["PatientWeight"] = weight
    return weight


def dose_bq(slices, given, used, remarks, weight_kg: float) -> float:
    """Return the administered activity in Bq, if it is plausible for `weight_kg`.

    What was used and what was assumed is added to `used` and `remarks`.
    """
    dose = given.dose_bq
    if dose is None:
        doses = [number(radiopharmaceutical(s), "RadionuclideTotalDose") for s in slices]
        dose = same_in_all("RadionuclideTotalDose (0018,1074)", doses)
        if not dose or dose < 0:
            raise MetadataError(f"RadionuclideTotalDose (0018,1074) is missing or zero; pass dose_bq, {WAY_OUT}.")
        if dose < _DOSE_IN_MBQ_BELOW:
            remarks.append(f"RadionuclideTotalDose {dose:g} is too small for Bq; it was taken as MBq.")
            dose *= 1e6
        check_dose("RadionuclideTotalDose (0018,1074)", dose, weight_kg, f"pass dose_bq or weight_kg, {WAY_OUT}",
                   given=False)
    else:
        check_dose("dose_bq", dose, weight_kg, "give it in Bq, or check the body weight", given=True)
    used["RadionuclideTotalDose"] = dose
    return dose


def height_m(slices, given, used, remarks) -> float:
    """Return the height in m. What was used and what was assumed is added to `used` and `remarks`."""
    height = given.height_m
    if height is None:
        height = same_in_all("PatientSize (0010,1020)", [number(s, "PatientSize") for s in slices])
        if not height or height < 0:
            raise MetadataError("PatientSize (0010,1020) is missing or zero, and the stored SUV is normalised by it; "
                                "pass height_m.")
        if height > 3:
            remarks.append(f"PatientSize {height:g} can only be in cm; it was divided by 100.")
            height /= 100
        check_within("PatientSize (0010,1020)", height, HEIGHT_M, "m", "pass height_m", given=False)
    used["PatientSize"] = height
    return height


def sex(slices, given, used) -> str:
    """Return M, F or O, and add it to `used`."""
    value = given.sex or same_in_all("PatientSex (0010,0040)", [text(s, "PatientSex") for s in slices])
    if value not in ("M", "F", "O"):
        raise MetadataError("PatientSex (0010,0040) must be M, F or O to undo the lean or ideal body weight of the "
                            f"stored SUV, but was {value or 'missing'}; pass sex.")
    used["PatientSex"] = value
    return value
