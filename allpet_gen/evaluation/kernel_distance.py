r"""The unbiased kernel distance (squared maximum mean discrepancy) of two samples of features."""

import numpy as np

from allpet_gen.evaluation._checks import as_features, as_groups, as_level, interval
from allpet_physics._arrays import as_positive_float, as_positive_int
from allpet_physics.errors import InputError

#: Subsets are no larger than this unless asked: three matrices of 8 MB each.
_LARGEST_SUBSET = 1000


def kernel_distance(reference, generated, *, kernel: str = "polynomial", bandwidth: float | None = None,
                    reference_groups=None, generated_groups=None, reference_strata=None, generated_strata=None,
                    subset_size: int | None = None, n_bootstrap: int = 200, level: float = 0.95,
                    seed: int = 0) -> dict:
    r"""Return the unbiased estimate of MMD² and a bootstrap interval.

    .. math:: \widehat{\mathrm{MMD}}{}^2_u = \langle k(x, x')\rangle_{x \ne x'} + \langle k(y, y')\rangle_{y \ne y'}
              - 2 \langle k(x, y)\rangle. \tag{K1}

    It is zero in expectation for equal distributions, whatever n, and may be negative. Slices of one patient are not
    independent draws: pairs within a group are left out of the first two means, which keeps them unbiased. The
    bootstrap draws groups with replacement; copies of one draw never form a pair.

    Parameters
    ----------
    reference, generated : array_like, shape (n, d)
    kernel : {"polynomial", "rbf"}
        (x·y/σ² + 1)³, as the kernel inception distance, or exp(−‖x − y‖²/(2σ²)). The cubic one sees far outliers
        before all else; the RBF one is the steadier of the two where features have heavy tails.
    bandwidth : float, optional
        σ; by default √d for the polynomial kernel, and for the RBF the median distance of reference samples, so that
        all generators are measured by one ruler.
    reference_groups, generated_groups : array_like, shape (n,), optional
        Patient of each sample; by default each is its own.
    reference_strata, generated_strata : array_like, shape (n,), optional
        What the mix of samples was balanced by, such as the region. Without pairs of one patient, pairs of one stratum
        are too few; given the strata, pairs are weighted so that each pair of strata has its full share. Otherwise
        samples of a balanced mix would make (K1) too small.
    subset_size : int, optional
        Memory goes with its square. Each sample is divided into disjoint subsets of at most this size, and (K1) is
        averaged over pairs of them. By default the smaller sample's size, at most 1000.
    n_bootstrap : int
    level : float
    seed : int

    Returns
    -------
    dict
        ``value``, ``low``, ``high`` and ``subset_size``, ``bandwidth``.

    Raises
    ------
    InputError
        Shapes that do not fit, an unknown kernel, NaN or Inf, fewer than two groups in a subset, a subset larger than a
        sample, reference samples that are all equal (no median distance).

    References
    ----------
    Gretton et al. 2012, JMLR 13, eq. (3); Bińkowski et al. 2018, arXiv 1801.01401, section 4.
    """
    x = as_features("reference", reference)
    y = as_features("generated", generated, like=x)
    if kernel not in ("polynomial", "rbf"):
        raise InputError(f'kernel must be "polynomial" or "rbf", but was {kernel!r}.')
    groups = [as_groups("reference_groups", reference_groups, len(x)),
              as_groups("generated_groups", generated_groups, len(y))]
    strata = [np.zeros(len(z), int) if s is None else as_groups(name, s, len(z)) for name, s, z in
              (("reference_strata", reference_strata, x), ("generated_strata", generated_strata, y))]
    smaller = min(len(x), len(y))
    size = min(smaller, _LARGEST_SUBSET) if subset_size is None else as_positive_int("subset_size", subset_size,
                                                                                      minimum=2)
    if size > smaller:
        raise InputError(f"subset_size must be at most {smaller}, the size of the smaller sample, but was {size}.")
    level, n_bootstrap = as_level(level), as_positive_int("n_bootstrap", n_bootstrap)
    if bandwidth is None:
        bandwidth = median_distance(x) if kernel == "rbf" else x.shape[1] ** 0.5
    bandwidth = as_positive_float("bandwidth", bandwidth)
    function = _rbf if kernel == "rbf" else _cubic
    rng = np.random.default_rng(seed)
    weights = [np.vstack([np.ones(g.max() + 1), _multiplicities(g.max() + 1, n_bootstrap, rng)]) for g in groups]
    parts = [np.array_split(rng.permutation(len(z)), -(-len(z) // size)) for z in (x, y)]
    estimates = []
    for chosen in _paired(*parts):
        sides = [(z[i], g[i], s[i], w[:, g[i]]) for z, g, s, w, i in
                 zip((x, y), groups, strata, weights, chosen, strict=True)]
        estimates.append(_estimate(*sides, lambda a, b: function(a, b, bandwidth)))
    values = np.mean(estimates, axis=0)
    if not np.isfinite(values[0]):
        raise InputError("reference_groups and generated_groups must leave at least two groups on each side of every "
                         f"subset of {size}; give more patients or a larger subset_size.")
    low, high = interval(values[1:][np.isfinite(values[1:])], level)
    return {"value": float(values[0]), "low": low, "high": high, "subset_size": int(size), "bandwidth": bandwidth}


def median_distance(features, *, largest: int = _LARGEST_SUBSET) -> float:
    """Return the median Euclidean distance of pairs of samples, from evenly spaced samples if there are many.

    Raises
    ------
    InputError
        A median of zero.
    """
    x = as_features("features", features)
    x = x[np.linspace(0, len(x) - 1, min(len(x), largest)).astype(int)]
    squared = squared_distances(x, x)[np.triu_indices(len(x), 1)]
    median = float(np.sqrt(np.median(squared)))
    if not median > 1e-9 * float(np.abs(x).max()):
        raise InputError("features must differ between samples to have a median distance, but most were equal; give "
                         "a bandwidth.")
    return median


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return ‖x − y‖² of all pairs; centred first, since the difference of large squares would cancel."""
    centre = x.mean(0)
    x, y = x - centre, y - centre
    return np.maximum((x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T, 0)


def _multiplicities(n: int, n_draws: int, rng: np.random.Generator) -> np.ndarray:
    return rng.multinomial(n, np.full(n, 1 / n), size=n_draws).astype(np.float64)


def _paired(first: list, second: list):
    """Pair the subsets of two sides; the side with fewer goes around again."""
    for i in range(max(len(first), len(second))):
        yield first[i % len(first)], second[i % len(second)]


def _estimate(first: tuple, second: tuple, kernel) -> np.ndarray:
    """Return (K1) for each row of weights; NaN where fewer than two groups were drawn."""
    within = [_weighted_mean(kernel(z, z), _pair_weights(g, s), w, w) for z, g, s, w in (first, second)]
    across = kernel(first[0], second[0])
    return sum(within) - 2 * _weighted_mean(across, np.ones_like(across), first[3], second[3])


def _pair_weights(groups: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """Return 0 for pairs within a group; the others weigh as much as all pairs of their two strata should."""
    counted = (groups[:, None] != groups[None]).astype(np.float64)
    member = (strata[:, None] == np.unique(strata)[None]).astype(np.float64)
    pairs = member.T @ counted @ member
    share = np.divide(np.outer(member.sum(0), member.sum(0)), pairs, out=np.zeros_like(pairs), where=pairs > 0)
    return counted * (member @ share @ member.T)


def _weighted_mean(values: np.ndarray, pair_weights: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    total = np.einsum("bj,bj->b", left @ (values * pair_weights), right)
    weight = np.einsum("bj,bj->b", left @ pair_weights, right)
    return np.divide(total, weight, out=np.full(len(left), np.nan), where=weight > 0)


def _cubic(x: np.ndarray, y: np.ndarray, bandwidth: float) -> np.ndarray:
    return (x @ y.T / bandwidth**2 + 1) ** 3


def _rbf(x: np.ndarray, y: np.ndarray, bandwidth: float) -> np.ndarray:
    return np.exp(-squared_distances(x, y) / (2 * bandwidth**2))
