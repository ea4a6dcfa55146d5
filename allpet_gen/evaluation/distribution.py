r"""How far a generator's distribution is from the real one, always beside the distance of real from real.

**The floor.** Every distance of finite samples of one distribution is different from zero, and for the Fréchet distance
far from it: its bias grows with the number of features and falls about as 1/n. So a figure alone says nothing.
`compare` therefore splits the real patients into two halves A and B, at random and many times, and takes n samples of
A, of B and of the generator: A against the generator is the figure, A against B is its floor, and their difference, the
excess, is what the generator is to be blamed for. n is the same on each side of both, because the bias depends on it;
halves are split by patient, because slices of one patient resemble each other and would make the floor too low.

**The intervals.** n is at most half of the real samples and half of the generated ones. The spread of an estimate
between random halves is, to first order, its standard error for the whole sample (delete-d jackknife with d = half;
Shao & Wu 1989, Ann. Statist. 17, 1176), without the ties of a bootstrap, which bias distances. If more is generated
than twice n, intervals are somewhat too wide, never too narrow.
"""

import numpy as np

from allpet_gen.evaluation._checks import as_batch, as_features, as_groups, as_level, interval, same_shape
from allpet_gen.evaluation.frechet import PrincipalAxes, frechet_distance, gaussian_frechet_distance, shrunk_covariance
from allpet_gen.evaluation.kernel_distance import kernel_distance, median_distance
from allpet_gen.evaluation.neighbourhood import neighbourhood_metrics
from allpet_physics._arrays import as_float_array, as_positive_int
from allpet_physics.errors import InputError

__all__ = ["PrincipalAxes", "compare", "compare_features", "frechet_distance", "gaussian_frechet_distance",
           "inception_score", "kernel_distance", "median_distance", "neighbourhood_metrics", "shrunk_covariance",
           "split_by_patient"]

#: A feature that has one value in a larger share of the real samples hardly ever varies.
_USUAL = 0.9


def compare(real, generated, *, real_patients, extractor, seed: int = 0, real_strata=None,
            n_components: int | None = None, whiten: bool = False, shrinkage: bool = False, k: int = 5,
            n_splits: int = 20, n_bootstrap: int = 200, level: float = 0.95) -> dict:
    """Return distances of generated from real sinograms or images, with intervals and real-against-real floors.

    Give real patients that the generator was not trained on, and generate the same mix of tracers and regions as they
    have: a difference in the mix is a difference of distributions. Both sides must be of one kind, counts with noise
    or expectations without; noise is part of a distribution.

    Parameters
    ----------
    real, generated : array_like, shape (n, rows, columns)
        Non-negative.
    real_patients : array_like, shape (n,)
        Patient of each real sample; halves are split by it.
    extractor : callable
        See `allpet_gen.evaluation.features`.
    seed, real_strata, n_components, whiten, shrinkage, k, n_splits, n_bootstrap, level
        See `compare_features`.

    Returns
    -------
    dict
        As `compare_features` returns it, with ``extractor``, the extractor's name.

    Raises
    ------
    InputError
        Batches of different or wrong shape, NaN, Inf, negative values, empty or constant items; what
        `compare_features` refuses.
    """
    if not callable(extractor):
        raise InputError(f"extractor must be a callable that takes a batch, but was {type(extractor).__name__}.")
    real, generated = as_batch("real", real), as_batch("generated", generated)
    same_shape("real", real, "generated", generated)
    figures = compare_features(extractor(real), extractor(generated), real_patients=real_patients, seed=seed,
                               real_strata=real_strata, n_components=n_components, whiten=whiten,
                               shrinkage=shrinkage, k=k, n_splits=n_splits, n_bootstrap=n_bootstrap, level=level)
    name = getattr(extractor, "name", None) or getattr(extractor, "__name__", type(extractor).__name__)
    return {"extractor": str(name)} | figures


def compare_features(real, generated, *, real_patients, seed: int = 0, real_strata=None,
                     n_components: int | None = None, whiten: bool = False, shrinkage: bool = False, k: int = 5,
                     n_splits: int = 20, n_bootstrap: int = 200, level: float = 0.95) -> dict:
    """Return distances of generated from real features, with intervals and real-against-real floors.

    Features are first divided by their standard deviation over all real samples, since their units differ; distances
    are in such units. One that has the same value in more than nine tenths of them, but not in all, is left out.

    Parameters
    ----------
    real, generated : array_like, shape (n, d) and (m, d)
    real_patients : array_like, shape (n,)
    seed : int
    real_strata : array_like, shape (n,), optional
        Such as the region: patients are halved within each stratum, so that both halves have the same mix. A patient's
        stratum is that of the first sample.
    n_components : int, optional
        Principal axes of the real features to keep. Needed for the Fréchet distance where d reaches n.
    whiten : bool
        Whether each principal axis is divided by the real deviation along it. Features of a network are strongly
        correlated, so that a few axes (brightness, size) drown the others; whitened, all of them count alike.
    shrinkage : bool
        See `frechet_distance`.
    k : int
        See `neighbourhood_metrics`.
    n_splits : int
        Random halvings of the real patients.
    n_bootstrap : int
        For the kernel distances over all samples.
    level : float

    Returns
    -------
    dict
        ``n_real``, ``n_generated``, ``n_patients``, ``n_per_side``, ``n_features`` (after PCA), ``n_splits``,
        ``level``, ``seed``, ``shrinkage``; and for each of ``frechet``, ``kernel_polynomial``, ``kernel_rbf``,
        ``precision``, ``recall``, ``density`` and ``coverage`` a dict of ``generated``, ``floor`` and ``excess``
        (generated − floor of the same split), each with ``value`` (mean over splits), ``low`` and ``high``. The kernel
        distances also have ``all``, the estimate from all samples with its bootstrap interval. Plain numbers all, fit
        for JSON.

    Raises
    ------
    InputError
        Fewer samples on a side than features (unless `n_components` or `shrinkage` is set) or than k needs, fewer than
        four real patients, features that do not fit, NaN or Inf.
    """
    x = as_features("real", real)
    y = as_features("generated", generated, like=x)
    patients = as_groups("real_patients", real_patients, len(x))
    n_splits, level = as_positive_int("n_splits", n_splits, minimum=2), as_level(level)
    if patients.max() < 3:
        raise InputError(f"real_patients must name at least 4 patients to halve them, but named {patients.max() + 1}.")
    strata = None if real_strata is None else as_groups("real_strata", real_strata, len(x))
    rng = np.random.default_rng(seed)
    halves = [split_by_patient(patients, rng, strata=strata) for _ in range(n_splits)]
    n = min(len(y) // 2, *(min(len(a), len(b)) for a, b in halves))
    x, y = _standardised(x, y)
    x, y = _along_axes(x, y, n_components, whiten)
    d = x.shape[1]
    if n <= (1 if shrinkage else d):
        raise InputError(f"real and generated must have more samples than features, but had fewer samples than "
                         f"features need: {n} on each side (halves of {len(x)} real and {len(y)} generated) of {d} "
                         "features; give more samples, set n_components (PCA of the real ones), or set "
                         "shrinkage=True.")
    strata = np.zeros(len(x), int) if strata is None else strata
    bandwidths = {"rbf": median_distance(x), "polynomial": float(np.sqrt(x.var(0).sum()))}
    rows = []
    for a, b in halves:
        a, b = rng.permutation(a)[:n], rng.permutation(b)[:n]
        drawn = rng.choice(len(y), n, replace=False)
        settings = {"reference_groups": patients[a], "reference_strata": strata[a], "k": k, "shrinkage": shrinkage,
                    "bandwidths": bandwidths}
        rows.append((_metrics(x[a], y[drawn], None, None, **settings),
                     _metrics(x[a], x[b], patients[b], strata[b], **settings)))
    out = {"n_real": len(x), "n_generated": len(y), "n_patients": int(patients.max() + 1), "n_per_side": int(n),
           "n_features": d, "n_splits": n_splits, "level": level, "seed": int(seed), "shrinkage": bool(shrinkage),
           "whitened": bool(whiten)}
    for metric in rows[0][0]:
        generated_values, floor = (np.array([row[i][metric] for row in rows]) for i in (0, 1))
        out[metric] = {"generated": _summary(generated_values, level), "floor": _summary(floor, level),
                       "excess": _summary(generated_values - floor, level)}
    for kernel in ("polynomial", "rbf"):
        out[f"kernel_{kernel}"]["all"] = kernel_distance(
            x, y, kernel=kernel, bandwidth=bandwidths[kernel], reference_groups=patients, reference_strata=strata,
            n_bootstrap=n_bootstrap, level=level, seed=seed)
    return out


def split_by_patient(patients, rng: np.random.Generator, *, strata=None) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the samples of two random halves of the patients.

    Parameters
    ----------
    patients : array_like, shape (n,)
    rng : numpy.random.Generator
    strata : array_like, shape (n,), optional
        Patients of each stratum are halved by themselves; a patient's stratum is that of the first sample.

    Returns
    -------
    (ndarray, ndarray)
        No patient is on both sides; numbers of patients differ by at most one.

    Raises
    ------
    InputError
        Fewer than two patients, strata of another length.
    """
    patients = as_groups("patients", patients, len(np.atleast_1d(patients)))
    names, first = np.unique(patients, return_index=True)
    if len(names) < 2:
        raise InputError("patients must name at least two patients to split them, but named one.")
    if not isinstance(rng, np.random.Generator):
        raise InputError(f"rng must be a numpy.random.Generator, but was {type(rng).__name__}.")
    kind = np.zeros(len(names), int) if strata is None else as_groups("strata", strata, len(patients))[first]
    order = rng.permutation(len(names))
    # Strata one after another, dealt to the sides in turn: each stratum, and the whole, is halved to within one.
    dealt = order[np.argsort(kind[order], kind="stable")]
    side = np.empty(len(names), int)
    side[dealt] = (np.arange(len(names)) + rng.integers(2)) % 2
    of_sample = side[patients]
    return np.flatnonzero(of_sample == 0), np.flatnonzero(of_sample == 1)


def inception_score(probabilities, *, n_bootstrap: int = 200, level: float = 0.95, seed: int = 0) -> dict:
    r"""Return the exponential of the mean divergence of class probabilities from their average, with an interval.

    .. math:: \mathrm{IS} = \exp\Big(\tfrac1n \sum_i \sum_c p_{ic} \ln\frac{p_{ic}}{\bar p_c}\Big)
              \in [1, C]. \tag{I1}

    It is high where every sample clearly belongs to a class and all classes occur; it never looks at real data. Compare
    it with the score of real data of the same mix.

    Parameters
    ----------
    probabilities : array_like, shape (n, C)
        Rows sum to 1, such as ``Prediction.joint`` of the classifier.
    n_bootstrap, level, seed
        Of the interval.

    Returns
    -------
    dict
        ``value``, ``low``, ``high``.

    Raises
    ------
    InputError
        Another shape, negative or non-finite values, rows that do not sum to 1.

    References
    ----------
    Salimans et al. 2016, arXiv 1606.03498, section 4. The splits into ten of that code are left out: they change the
    value with n.
    """
    p = as_float_array("probabilities", probabilities, nonnegative=True).astype(np.float64)
    if p.ndim != 2 or len(p) < 2:
        raise InputError(f"probabilities must have shape (n, classes) with n of at least 2, but its shape was "
                         f"{p.shape}.")
    sums = p.sum(1)
    if np.abs(sums - 1).max() > 1e-4:
        raise InputError(f"probabilities must sum to 1 in every row, but sums were from {sums.min():g} to "
                         f"{sums.max():g}; apply a softmax to scores.")
    p /= sums[:, None]
    level, n_bootstrap = as_level(level), as_positive_int("n_bootstrap", n_bootstrap)
    rng = np.random.default_rng(seed)
    weights = np.vstack([np.ones(len(p)), rng.multinomial(len(p), np.full(len(p), 1 / len(p)), size=n_bootstrap)])
    weights = weights / len(p)
    minus_entropy = np.sum(p * np.log(np.where(p > 0, p, 1)), axis=1)
    mean = weights @ p
    scores = np.exp(weights @ minus_entropy - np.sum(mean * np.log(np.where(mean > 0, mean, 1)), axis=1))
    low, high = interval(scores[1:], level)
    return {"value": float(scores[0]), "low": low, "high": high}


def _standardised(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both in units of the deviation of x, without features that hardly ever vary there.

    A rectified feature may be zero for all of x but a few samples. Its deviation is that of those few, and a sample of
    y where it is not zero would be thousands of such units away. A feature that is constant in x keeps its own unit.
    """
    mean, deviation = x.mean(0), x.std(0)
    constant = deviation <= 1e-12 * np.maximum(np.abs(mean), 1e-300)
    kept = constant | ((x == np.median(x, axis=0)).mean(0) <= _USUAL)
    if not kept.any():
        raise InputError(f"real features must vary in more than {1 - _USUAL:.0%} of the samples, but none of "
                         f"{len(kept)} did; take another extractor.")
    deviation = np.where(constant, 1.0, deviation)
    return ((x - mean) / deviation)[:, kept], ((y - mean) / deviation)[:, kept]


def _along_axes(x: np.ndarray, y: np.ndarray, n_components: int | None, whiten: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return both along the principal axes of x, in units of its deviation along each if they are whitened."""
    if n_components is None:
        if whiten:
            raise InputError("whiten must come with n_components, the number of principal axes to keep.")
        return x, y
    axes = PrincipalAxes.fit(x, n_components)
    if whiten and axes.variances[-1] <= 1e-12 * axes.variances[0]:
        usable = int((axes.variances > 1e-12 * axes.variances[0]).sum())
        raise InputError(f"n_components must be at most {usable} to be whitened, since the real features do not vary "
                         f"along more axes, but was {n_components}.")
    unit = np.sqrt(axes.variances) if whiten else 1.0
    return axes.project(x) / unit, axes.project(y) / unit


def _metrics(x, y, y_groups, y_strata, *, reference_groups, reference_strata, k, shrinkage,
             bandwidths) -> dict[str, float]:
    pairs = {"reference_groups": reference_groups, "generated_groups": y_groups, "reference_strata": reference_strata,
             "generated_strata": y_strata, "n_bootstrap": 1}
    return {"frechet": frechet_distance(x, y, shrinkage=shrinkage),
            **{f"kernel_{kernel}": kernel_distance(x, y, kernel=kernel, bandwidth=bandwidths[kernel], **pairs)["value"]
               for kernel in ("polynomial", "rbf")},
            **neighbourhood_metrics(x, y, k=k, reference_groups=reference_groups)}


def _summary(values: np.ndarray, level: float) -> dict[str, float]:
    low, high = interval(values, level)
    return {"value": float(values.mean()), "low": low, "high": high}
