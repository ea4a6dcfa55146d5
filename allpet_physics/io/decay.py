"""Times, half-lives and radioactive decay as PET headers state them."""

import re
from datetime import datetime, timedelta

import numpy as np

from allpet_physics.errors import MetadataError
from allpet_physics.io.dicom_header import (
    GE_SCAN_DATETIME,
    number,
    private_text,
    radiopharmaceutical,
    same_in_all,
    text,
)
from allpet_physics.io.moments import check_zones, located, parse_moment, zone_of
from allpet_physics.io.plausible import HALF_LIFE_S, check_within, same_half_life

#: Half-life in seconds, SNOMED (SRT and SCT) codes and element of the positron emitters in clinical use. Half-lives:
#: ENSDF evaluations of the National Nuclear Data Center (https://www.nndc.bnl.gov/ensdf), as PET headers carry them;
#: evaluations differ by up to 0.6 % (67.63 to 67.84 min for Ga-68). Codes: DICOM PS3.16, CID 4020. Used only when a
#: header has no half-life of its own.
HALF_LIVES = {
    "C-11": (1221.8, {"C-105A1", "40565003"}, "carbon"),
    "N-13": (597.9, {"C-107A1", "21576001"}, "nitrogen"),
    "O-15": (122.24, {"C-B1038", "129504001"}, "oxygen"),
    "F-18": (6586.2, {"C-111A1", "77004003"}, "fluor"),
    "Cu-64": (45723.6, {"C-127A2", "3932008"}, "copper"),
    "Ga-68": (4057.74, {"C-131A3", "35337001"}, "gallium"),
    "Rb-82": (75.45, {"C-159A2", "79197006"}, "rubidium"),
    "Zr-89": (282276.0, {"C-168A4", "63360001"}, "zirconium"),
    "I-124": (360806.0, {"C-114A5", "40937006"}, "iodine"),
}
#: After ten half-lives a thousandth of the dose is left and no clinical image is made: the times are wrong.
MAX_HALF_LIVES = 10
#: A dynamic scan may start this long before the injection, in seconds.
MAX_LEAD_S = 600.0
#: Times that differ by less than this, in seconds, are the same: headers round to seconds.
SAME_TIME_S = 2.0


def nuclide_half_life(name: str, code: str = "") -> tuple[str, float] | None:
    """Return the nuclide that a name ("^18^Fluorine", "F-18", "18F-FDG", "Ga68-PSMA") or code means, and its half-life.

    Returns
    -------
    (nuclide, half-life in s), or None when it is not in `HALF_LIVES`.
    """
    for nuclide, (seconds, codes, element) in HALF_LIVES.items():
        symbol, mass = nuclide.split("-")
        written = (rf"\b{symbol}\W*{mass}(?!\d)|\b{element}\w*\W*{mass}(?!\d)"
                   rf"|(?<!\d){mass}\W*(?:{symbol}(?![a-z])|{element})")
        if code in codes or re.search(written, name, re.IGNORECASE):
            return nuclide, seconds
    return None


def moment(slice_, date_keyword: str, time_keyword: str, joint_keyword: str | None = None) -> datetime | None:
    """Return the date and time that a header gives in a DA and a TM element, or in one DT element."""
    date, time = text(slice_, date_keyword), text(slice_, time_keyword)
    candidates, zone = [date + time] if date and time else [], zone_of([slice_])
    if joint_keyword is not None:
        candidates.append(text(slice_, joint_keyword))
    for value in candidates:
        if value:
            try:
                return located(parse_moment(value), zone)
            except ValueError:
                raise MetadataError(f"{date_keyword}/{time_keyword} must be a date and a time, but was {value!r}; "
                                    "pass scan_time.") from None
    return None


def acquisition_moments(slices) -> list[datetime]:
    """Return when the acquisition of each slice began.

    Raises
    ------
    MetadataError
        A slice without AcquisitionDate and AcquisitionTime, or a time zone in some slices only.
    """
    moments = [moment(s, "AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime") for s in slices]
    if None in moments:
        raise MetadataError("AcquisitionDate (0008,0022) and AcquisitionTime (0008,0032) are missing in "
                            f"{moments.count(None)} of {len(moments)} slices, so the decay from injection to scan is "
                            'unknown; pass scan_time, or read the image with unit="Bq/ml".')
    if len({m.tzinfo is None for m in moments}) > 1:
        raise MetadataError("AcquisitionDateTime (0008,002A) must have a time zone in all slices or in none; pass "
                            "scan_time.")
    return moments


def half_life(slices, override: float | None) -> tuple[float, str | None]:
    """Return the half-life in s and a sentence when it is not simply the header's.

    Raises
    ------
    MetadataError
        No half-life and no nuclide that the table knows; a half-life that no positron emitter in clinical use has, or
        not the named one.
    """
    drug = [radiopharmaceutical(s) for s in slices]
    codes = drug[0].get("RadionuclideCodeSequence") or []
    names = [text(c, "CodeMeaning") for c in codes] + [text(drug[0], "Radiopharmaceutical")]
    code = text(codes[0], "CodeValue") if codes else ""
    named = [f for f in (*map(nuclide_half_life, names), nuclide_half_life("", code)) if f is not None]
    agrees = override is None or not named or any(same_half_life(override, f[1]) for f in named)
    if override is not None:
        return override, None if agrees else (f"half_life_s is {override:g} s, but the header names {named[0][0]}, "
                                              f"whose half-life is {named[0][1]:g} s; half_life_s was used.")
    seconds = same_in_all("RadionuclideHalfLife", [number(d, "RadionuclideHalfLife") for d in drug])
    if seconds:
        element = "RadionuclideHalfLife (0018,1075)"
        check_within(element, seconds, HALF_LIFE_S, "s", "pass half_life_s in seconds", given=False)
        if named and not any(same_half_life(seconds, f[1]) for f in named):
            raise MetadataError(f"{element} must be within 5 % of the {named[0][1]:g} s of {named[0][0]}, which the "
                                f"header names, but was {seconds:g} s; pass half_life_s in seconds.")
        return seconds, None
    if not named:
        raise MetadataError("RadionuclideHalfLife (0018,1075) is missing and the radionuclide "
                            f"({', '.join(filter(None, [*names, code])) or 'not named'}) is not one of "
                            f"{', '.join(HALF_LIVES)}; pass half_life_s in seconds.")
    nuclide, seconds = named[0]
    return seconds, f"RadionuclideHalfLife is missing; {seconds:g} s was taken from the table for {nuclide}."


def injection_moment(slices, reference: datetime, half_life_s: float, override) -> tuple[datetime, str | None]:
    """Return when the tracer was injected, and a sentence when a date had to be inferred.

    RadiopharmaceuticalStartDateTime (0018,1078) wins. RadiopharmaceuticalStartTime (0018,1072) has no date: it is
    the last such time of day before `reference`, hence the day before when the clock passed midnight.

    Parameters
    ----------
    reference : datetime
        The time that the voxel values are decay corrected to.

    Raises
    ------
    MetadataError
        No injection time, or one that does not fit the scan.
    """
    drug = [radiopharmaceutical(s) for s in slices]
    whole = same_in_all("RadiopharmaceuticalStartDateTime", [text(d, "RadiopharmaceuticalStartDateTime") for d in drug])
    clock = same_in_all("RadiopharmaceuticalStartTime", [text(d, "RadiopharmaceuticalStartTime") for d in drug])
    note, zone = None, zone_of(slices)
    if override is not None:
        injected, source = located(override, zone), "injection_time"
    elif whole:
        source = "RadiopharmaceuticalStartDateTime (0018,1078)"
        try:
            injected = located(parse_moment(whole), zone)
        except ValueError:
            raise MetadataError(f"{source} must be a date and time, but was {whole!r}; pass injection_time.") from None
    elif clock:
        source = "RadiopharmaceuticalStartTime (0018,1072)"
        try:
            # A time of day is the header's local time, on the scan's day there.
            there = reference.astimezone(zone) if zone and reference.tzinfo else reference
            injected = located(parse_moment(f"{there:%Y%m%d}{clock}"), zone)
        except ValueError:
            raise MetadataError(f"{source} must be a time of day, but was {clock!r}; pass injection_time.") from None
        if half_life_s * MAX_HALF_LIVES > 48 * 3600:
            raise MetadataError(f"{source} has no date, and with a half-life of {half_life_s / 3600:.3g} h the "
                                "injection may be days before the scan; pass injection_time with its date.")
        check_zones(**{"the reference time": reference, source: injected})
        if injected > reference:
            injected -= timedelta(days=1)
            note = (f"{source} has no date and is a later time of day than the scan's; the day before the scan was "
                    f"taken, {(reference - injected).total_seconds() / 60:.4g} min before the image's reference time.")
    else:
        raise MetadataError("RadiopharmaceuticalStartDateTime (0018,1078) and RadiopharmaceuticalStartTime (0018,1072) "
                            'are missing; pass injection_time, or read the image with unit="Bq/ml".')
    check_zones(**{"the reference time": reference, source: injected})
    elapsed = (reference - injected).total_seconds()
    if not -MAX_LEAD_S <= elapsed <= MAX_HALF_LIVES * half_life_s:
        raise MetadataError(f"{source} puts the injection at {injected}, {elapsed / half_life_s:.3g} half-lives before "
                            f"the image's reference time {reference}, which cannot be right (dates removed or "
                            "shifted?); pass injection_time.")
    if elapsed < 0:
        note = f"The injection is {-elapsed:.0f} s after the image's reference time."
    return injected, note


def reference_moment(slices, half_life_s: float) -> tuple[datetime, str, list[str]]:
    r"""Return the time that a series with DecayCorrection START is corrected to, where it came from, and remarks.

    In this order: DecayCorrectionDateTime (0018,9701); GE's private scan time (0009,100D); SeriesTime unless it is
    later than an acquisition, which betrays post-processing (QIBA); AcquisitionTime + T_ave − FrameReferenceTime when
    all slices agree on it (equation 1); the earliest AcquisitionTime.

    T_ave, the time in a frame of duration T at which the count rate is the frame's average, is

    .. math:: T_{ave} = \frac{1}{\lambda} \ln \frac{\lambda T}{1 - e^{-\lambda T}}  \tag{1}

    References
    ----------
    QIBA SUV vendor-neutral pseudo-code; Vácha et al., Comprehensive manual for SUV computation (IBSI SUV),
    https://oncoray.github.io/suv_computation, CC BY 4.0.
    """
    stated = same_in_all("DecayCorrectionDateTime", [text(s, "DecayCorrectionDateTime") for s in slices])
    private = same_in_all("GE scan date and time", [private_text(s, GE_SCAN_DATETIME) for s in slices])
    for value, source in ((stated, "DecayCorrectionDateTime (0018,9701)"), (private, "GE private (0009,100D)")):
        if value:
            try:
                return located(parse_moment(value), zone_of(slices)), source, []
            except ValueError:
                raise MetadataError(f"{source} must be a date and a time, but was {value!r}; pass scan_time.") from None
    acquired = acquisition_moments(slices)
    earliest = min(acquired)
    series = [m for s in slices if (m := moment(s, "SeriesDate", "SeriesTime")) is not None]
    derived = _reference_from_frames(slices, acquired, half_life_s)
    if series:
        check_zones(**{"SeriesTime (0008,0031)": series[0], "AcquisitionDateTime (0008,002A)": earliest})
    if series and min(series) <= earliest + timedelta(seconds=SAME_TIME_S):
        start, remarks = min(series), []
        if derived is not None:
            effect = 2 ** ((derived - start).total_seconds() / half_life_s) - 1
            if abs(effect) > 0.01:
                remarks = [f"The frame times put the reference time {(derived - start).total_seconds():+.0f} s from "
                           f"SeriesTime, which was taken; with the former every SUV would be {effect:+.1%} different "
                           "(scan_time chooses it)."]
        return start, "SeriesTime (0008,0031)", remarks
    late = "SeriesTime is missing or later than the acquisition, "
    if derived is not None:
        return derived, "AcquisitionTime + T_ave - FrameReferenceTime", [
            late + "so the reference time was derived from the frame times, "
            f"{(derived - earliest).total_seconds():+.0f} s from the earliest AcquisitionTime."]
    return earliest, "earliest AcquisitionTime", [late + "so the earliest AcquisitionTime was taken."]


def average_rate_time(duration_s, half_life_s: float) -> np.ndarray:
    """Return equation (1) of `reference_moment` in s: slightly less than half of `duration_s`."""
    decay = np.log(2) / half_life_s * np.asarray(duration_s, dtype=np.float64)
    return -np.log(-np.expm1(-decay) / decay) * half_life_s / np.log(2)


def frame_durations(slices) -> list[float | None]:
    """Return ActualFrameDuration (0018,1242) of each slice in s."""
    durations = [number(s, "ActualFrameDuration") for s in slices]
    return [None if d is None or d <= 0 else d / 1000 for d in durations]


def _reference_from_frames(slices, acquired, half_life_s: float) -> datetime | None:
    """Return equation (1)'s start, or None where frame times are missing, disagree or lie after the acquisition."""
    durations = frame_durations(slices)
    offsets = [number(s, "FrameReferenceTime") for s in slices]
    if None in durations or None in offsets:
        return None
    origin = min(acquired)
    seconds = [(a - origin).total_seconds() for a in acquired]
    starts = np.array(seconds) + average_rate_time(durations, half_life_s) - np.array(offsets) / 1000
    if np.ptp(starts) > SAME_TIME_S or starts.max() > SAME_TIME_S:
        return None
    return origin + timedelta(seconds=float(np.median(starts)))
