"""Which patients are for training, validation and testing: whole patients, never slices."""

from collections.abc import Mapping, Sequence

import numpy as np

from allpet_physics.errors import InputError

SPLITS = ("train", "validation", "test")
DEFAULT_FRACTIONS = {"train": 0.7, "validation": 0.1, "test": 0.2}


def split_patients(regions: Sequence, split: Mapping) -> np.ndarray:
    """Return the place in `SPLITS` of each patient.

    Fractions are dealt out in the order of the patients, always to the part that lags most, in the patient's region and
    altogether; so every part has its share of every region, and the first patients keep their part when a cohort grows.
    Patients are drawn independently of one another: their order carries no bias.

    Parameters
    ----------
    regions : sequence
        The region of each patient.
    split : mapping
        Either fractions by name (summing to 1), or lists of patients' numbers by name.

    Returns
    -------
    ndarray of uint8, shape (patients,)

    Raises
    ------
    InputError
        Unknown names; fractions that are negative or do not add up to 1; lists that put a patient on two sides, leave
        one out or name one that does not exist.
    """
    if not isinstance(split, Mapping) or not split or not set(split) <= set(SPLITS):
        raise InputError(f"split must give fractions or patients for {', '.join(SPLITS)}, but was {split!r}.")
    listed = [isinstance(value, (list, tuple)) for value in split.values()]
    if all(listed):
        return _from_lists(len(regions), split)
    try:
        fractions = np.array([float(split.get(name, 0)) for name in SPLITS])
    except (TypeError, ValueError):
        fractions = np.array([np.nan])
    if not (np.isfinite(fractions).all() and (fractions >= 0).all() and abs(fractions.sum() - 1) < 1e-9):
        raise InputError("split must give fractions from 0 to 1 that add up to 1, or lists of patients, but was "
                         f"{dict(split)!r}.")
    out = np.empty(len(regions), np.uint8)
    dealt, everywhere = {}, np.zeros(len(SPLITS))
    for patient, region in enumerate(regions):
        had = dealt.setdefault(region, np.zeros(len(SPLITS)))
        lag = fractions * (had.sum() + 1) - had + fractions * (patient + 1) - everywhere
        # Rounded, so that equal lags are equal whatever the last bits of the fractions.
        out[patient] = int(np.argmax(np.where(fractions > 0, np.round(lag, 9), -np.inf)))
        had[out[patient]] += 1
        everywhere[out[patient]] += 1
    return out


def check_split(patients, splits) -> None:
    """Refuse samples of which one patient's stand on more than one side.

    Parameters
    ----------
    patients, splits : array_like, shape (n,)
        Patient and part of each sample.

    Raises
    ------
    InputError
        The message names such patients.
    """
    pairs = np.unique(np.stack([np.asarray(patients), np.asarray(splits)]), axis=1)
    both = [int(p) for p, n in zip(*np.unique(pairs[0], return_counts=True), strict=True) if n > 1]
    if both:
        raise InputError(f"split must keep all slices of a patient on one side, but patient{'s' * (len(both) > 1)} "
                         f"{', '.join(map(str, both[:6]))}{', ...' * (len(both) > 6)} stood on more than one.")


def _from_lists(n: int, split: Mapping) -> np.ndarray:
    named = []
    for name, patients in split.items():
        for patient in patients:
            if isinstance(patient, (bool, np.bool_)) or not isinstance(patient, (int, np.integer)):
                raise InputError(f"split must list patients by whole numbers from 0 to {n - 1}, but {name} held "
                                 f"{patient!r}.")
            named.append((int(patient), SPLITS.index(name)))
    numbers = [patient for patient, _ in named]
    check_split(numbers, [part for _, part in named])
    twice = sorted({patient for patient in numbers if numbers.count(patient) > 1})
    if twice:
        raise InputError(f"split must list each patient once, but {', '.join(map(str, twice[:6]))} stood there twice.")
    if sorted(set(numbers)) != list(range(n)):
        wrong = sorted(set(range(n)) ^ set(numbers))
        raise InputError(f"split must list every patient from 0 to {n - 1}, but {', '.join(map(str, wrong[:6]))} "
                         "was left out or does not exist.")
    out = np.empty(n, np.uint8)
    for patient, part in named:
        out[patient] = part
    return out
