r"""Means with intervals when what is measured comes in patients: slices of a patient are no independent evidence."""

import numpy as np

from allpet_gen.evaluation._checks import as_groups, as_level, interval
from allpet_physics._arrays import as_float_array, as_positive_int
from allpet_physics.errors import InputError


def bootstrap_by_patient(values, patients, *, n: int = 2000, seed: int = 0, level: float = 0.95) -> dict:
    r"""Return the mean of some values and its percentile interval over resampled patients.

    With the values v of patient p and the number of times :math:`w_p` that he is drawn, with replacement, in a draw of
    as many patients as there are, a draw's mean is

    .. math:: \bar v^* = \sum_p w_p \sum_{i \in p} v_i \Big/ \sum_p w_p n_p; \tag{B1}

    the interval holds the share `level` of n such means, its ends cut off equal tails. Every slice weighs the same, so
    a patient of many slices weighs more; give one value for each patient where that is not wanted.

    Parameters
    ----------
    values : array_like, shape (items,)
        One number for each item (slice); NaN where it is not defined, which leaves the item out.
    patients : array_like, shape (items,)
        Whose item it is, as numbers or names.
    n : int
        Number of draws.
    seed : int
        The same seed and patients give the same draws, for whatever values.
    level : float
        In (0, 1).

    Returns
    -------
    dict
        ``mean``, ``low``, ``high``; ``n_items`` and ``n_patients`` that are in them, ``n_undefined`` items that were
        left out.

    Raises
    ------
    InputError
        Values that are no list of numbers, or infinite; patients of another length; fewer than two patients with a
        value; too few draws for the level.

    Notes
    -----
    Percentile intervals of few patients are too narrow: for normal values, intervals of 95 % hold the true mean in
    84 % of trials with 5 patients, 90 % with 10, 93 % with 20 and 94 % with 50.

    References
    ----------
    Davison & Hinkley 1997, Bootstrap Methods and their Application, sections 3.8 and 5.3.
    """
    values = _as_values("values", values)
    groups = as_patients(patients, len(values))
    level, n = as_level(level), as_positive_int("n", n)
    least = int(np.ceil(2 / (1 - level) - 1e-6))  # one draw beyond either end
    if n < least:
        raise InputError(f"n must be at least {least} draws for a level of {level:g}, but was {n}; 2000 are usual.")
    seed = as_positive_int("seed", seed, minimum=0)
    defined = np.isfinite(values)
    found = np.unique(groups[defined])
    if len(found) < 2:
        raise InputError(f"patients must be at least 2 with a value, since slices of one patient say nothing about the "
                         f"next, but were {len(found)}; evaluate more patients, or report the mean without interval.")
    member = np.searchsorted(found, groups[defined])
    sums, sizes = np.bincount(member, values[defined]), np.bincount(member).astype(np.float64)
    drawn = np.random.default_rng(seed).integers(len(found), size=(n, len(found)))
    weights = np.bincount((drawn + len(found) * np.arange(n)[:, None]).ravel(), minlength=n * len(found))
    weights = weights.reshape(n, -1).astype(np.float64)
    low, high = interval(weights @ sums / (weights @ sizes), level)
    return {"mean": float(sums.sum() / sizes.sum()), "low": low, "high": high, "n_items": int(defined.sum()),
            "n_patients": len(found), "n_undefined": int((~defined).sum())}


def paired_difference(a, b, patients, *, n: int = 2000, seed: int = 0, level: float = 0.95) -> dict:
    """Return the mean of a − b and its percentile interval over resampled patients.

    Both methods are measured on the same items, so what makes an item hard is in both and cancels: this interval is
    the one to compare two methods by, never whether their own intervals overlap.

    Parameters
    ----------
    a, b : array_like, shape (items,)
        The same measure of two methods; an item where one of them is NaN is left out.
    patients, n, seed, level
        As for `bootstrap_by_patient`.

    Returns
    -------
    dict
        As of `bootstrap_by_patient`, for a − b.

    Raises
    ------
    InputError
        Lists of different length; what `bootstrap_by_patient` refuses.
    """
    a, b = _as_values("a", a), _as_values("b", b)
    if a.shape != b.shape:
        raise InputError(f"a and b must hold the same items, but their lengths were {len(a)} and {len(b)}.")
    return bootstrap_by_patient(a - b, patients, n=n, seed=seed, level=level)


def as_patients(patients, n: int) -> np.ndarray:
    """Return the number of each item's patient, 0 and up, or say what is wrong with them."""
    p = np.asarray(patients)
    if p.dtype.kind == "O" and all(isinstance(name, str) for name in p.flat):
        p = p.astype(str)
    if p.dtype.kind not in "iuUSf" or (p.dtype.kind == "f" and not np.isfinite(p).all()):
        raise InputError("patients must be numbers or names, one for each item, but held something else "
                         f"(dtype {p.dtype}).")
    return as_groups("patients", p, n)


def _as_values(name: str, values) -> np.ndarray:
    v = np.asarray(values)
    if v.ndim != 1 or v.size == 0:
        raise InputError(f"{name} must be a list of one number for each item, but its shape was {v.shape}.")
    v = as_float_array(name, v, finite=False).astype(np.float64)
    if np.isinf(v).any():
        raise InputError(f"{name} must be finite, or NaN where not defined, but {np.isinf(v).sum()} of {v.size} were "
                         "infinite; the PSNR is where an estimate equals its truth, so leave such items out.")
    return v
