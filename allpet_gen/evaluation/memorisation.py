"""Does a generator hand out its training patients again: copies among what it drew, beside those among real ones.

Copies are looked for by `allpet_gen.evaluation.nearest`, over rotations and the mirror, in bins or in features.
"""

from collections.abc import Callable

import numpy as np

from allpet_gen.evaluation._checks import as_level, interval
from allpet_gen.evaluation.nearest import common_groups, nearest_in_features, nearest_neighbours
from allpet_physics._arrays import as_positive_int
from allpet_physics.errors import InputError


def memorisation(generated, training, held_out, *, training_patients, held_out_patients, arc: float = np.pi,
                 extractor: Callable | None = None, quantile: float = 0.01, n_bootstrap: int = 500,
                 level: float = 0.95, seed: int = 0) -> dict:
    r"""Return the share of copies among generated sinograms, beside that among real ones that cannot be copies.

    A sinogram counts as a copy when its distance to the training set is below the threshold: the given quantile of the
    distances of held-out patients, whom the generator has never seen. The control share of held-out patients is
    cross-fitted, so that no patient is judged by a threshold that was set with his own sinograms: patients are halved,
    and each half is judged by the quantile of the other. A generator that has learned the distribution has the share
    of the control; one that copies has more.

    Authenticity (after Alaa et al. 2022): with t the nearest training sinogram of g, and t' the nearest to t of another
    patient,

    .. math:: \mathrm{authenticity} = \tfrac1n \sum_g [\,d(g, t) > d(t, t')\,]. \tag{M3}

    Give held-out patients and generated sinograms the same mix of tracers and regions: the share of the control is
    theirs.

    Parameters
    ----------
    generated, training, held_out : array_like, shape (n, angles, bins)
        Counts, or expected counts, side by side as they are; see (M1).
    training_patients, held_out_patients : array_like
        Patient of each sinogram; nobody may be in both.
    arc : float
        π or 2π.
    extractor : callable, optional
        Of `allpet_gen.evaluation.features`: neighbours are then nearest by features (M4), not by bins (M1).
    quantile : float
        The share of copies that is allowed by definition, in (0, 0.5].
    n_bootstrap, level, seed
        Of the intervals: held-out patients and generated sinograms are drawn with replacement, and the threshold is
        set anew each time.

    Returns
    -------
    dict
        ``threshold``; ``copies`` and ``authenticity``, each with ``generated``, ``held_out`` and ``excess`` (generated
        − held_out), each with ``value``, ``low``, ``high``; ``median_distance`` of both; ``flagged``, indices of the
        generated sinograms below the threshold, nearest first, with ``flagged_neighbours``, ``flagged_distances``;
        ``n_generated``, ``n_training``, ``n_held_out``, ``n_held_out_patients``, ``quantile``, ``level``, ``seed``.

    Raises
    ------
    InputError
        What `nearest_neighbours` refuses; a patient on both sides; fewer than four
        held-out or two training patients; a quantile or level out of range.

    References
    ----------
    Alaa et al. 2022, arXiv 2102.08921, section 3.4; Meehan et al. 2020, arXiv 2004.05675 (copying is judged by test
    data's distances to the training data).
    """
    if isinstance(quantile, bool) or not isinstance(quantile, (int, float)) or not 0 < quantile <= 0.5:
        raise InputError(f"quantile must be greater than 0 and at most 0.5, but was {quantile!r}.")
    level, n_bootstrap = as_level(level), as_positive_int("n_bootstrap", n_bootstrap)
    patients, training_groups = common_groups(held_out_patients, training_patients, len(held_out), len(training),
                                               names=("held_out_patients", "training_patients"))
    both = np.intersect1d(patients, training_groups)
    if both.size:
        raise InputError(f"held_out_patients must be none of the training patients, but {both.size} were in both.")
    patients = np.unique(patients, return_inverse=True)[1].reshape(-1)
    n_patients = int(patients.max()) + 1
    if n_patients < 4 or len(np.unique(training_groups)) < 2:
        raise InputError("held_out_patients must name at least 4 patients and training_patients at least 2, but named "
                         f"{n_patients} and {len(np.unique(training_groups))}.")
    def nearest(queries, **groups):
        if extractor is None:
            return nearest_neighbours(queries, training, arc=arc, **groups)
        return nearest_in_features(queries, training, extractor, arc=arc, **groups)

    near, control = nearest(generated), nearest(held_out)
    # Only training sinograms that are somebody's neighbour need their own.
    asked, place = np.unique(np.concatenate([near.index, control.index]), return_inverse=True)
    own = nearest(np.asarray(training)[asked], query_groups=training_groups[asked],
                  training_groups=training_groups).distance[place]
    novel, control_novel = near.distance > own[:len(near.index)], control.distance > own[len(near.index):]
    rng = np.random.default_rng(seed)
    rows = []
    by_patient = [np.flatnonzero(patients == i) for i in range(n_patients)]
    for b in range(n_bootstrap + 1):
        # The first is the estimate itself: everybody once.
        drawn = np.arange(n_patients) if b == 0 else rng.integers(n_patients, size=n_patients)
        picked = np.arange(len(near.index)) if b == 0 else rng.integers(len(near.index), size=len(near.index))
        held = np.concatenate([by_patient[i] for i in drawn])
        copied = (near.distance[picked] < np.quantile(control.distance[held], quantile)).mean()
        expected = np.mean([_cross_fitted(control.distance, by_patient, drawn, quantile, rng)
                            for _ in range(20 if b == 0 else 1)])
        rows.append((copied, expected, novel[picked].mean(), control_novel[held].mean()))
    copied, expected, authentic, control_authentic = np.array(rows).T
    threshold = float(np.quantile(control.distance, quantile))
    flagged = np.flatnonzero(near.distance < threshold)
    flagged = flagged[np.argsort(near.distance[flagged])]
    return {"threshold": threshold,
            "copies": _beside(copied, expected, level), "authenticity": _beside(authentic, control_authentic, level),
            "median_distance": {"generated": float(np.median(near.distance)),
                                "held_out": float(np.median(control.distance))},
            "flagged": flagged.tolist(), "flagged_neighbours": near.index[flagged].tolist(),
            "flagged_distances": near.distance[flagged].tolist(), "n_generated": len(near.index),
            "n_training": len(training), "n_held_out": len(held_out), "n_held_out_patients": n_patients,
            "quantile": float(quantile), "level": level, "seed": int(seed)}


def _cross_fitted(distance: np.ndarray, by_patient: list, drawn: np.ndarray, quantile: float, rng) -> float:
    """Return the share below the quantile of the other half of the patients; copies of a patient stay together."""
    different = rng.permutation(np.unique(drawn))
    if len(different) < 2:
        return quantile
    first = np.isin(drawn, different[:len(different) // 2])
    sides = [distance[np.concatenate([by_patient[i] for i in drawn[side]])] for side in (first, ~first)]
    below = [(a < np.quantile(b, quantile)).sum() for a, b in (sides, sides[::-1])]
    return float(sum(below) / sum(map(len, sides)))


def _beside(generated: np.ndarray, held_out: np.ndarray, level: float) -> dict:
    """Return value and interval of both and of their difference; the first of each is the value."""
    out = {}
    for name, values in (("generated", generated), ("held_out", held_out), ("excess", generated - held_out)):
        low, high = interval(values[1:], level)
        out[name] = {"value": float(values[0]), "low": low, "high": high}
    return out
