r"""Precision, recall, density and coverage: where two samples of features lie relative to one another."""

import numpy as np

from allpet_gen.evaluation._checks import as_features, as_groups
from allpet_gen.evaluation.kernel_distance import squared_distances
from allpet_physics._arrays import as_positive_int
from allpet_physics.errors import InputError

#: Distances of this many rows against all columns are in memory at once.
_BLOCK = 512


def neighbourhood_metrics(reference, generated, *, k: int = 5, reference_groups=None) -> dict[str, float]:
    r"""Return precision, recall, density and coverage by balls that reach to the k-th nearest neighbour.

    With B(x) the ball around x whose radius is the distance to its k-th nearest neighbour in its own sample,

    .. math::
       \mathrm{precision} &= \tfrac1m \textstyle\sum_j [\,y_j \in \bigcup_i B(x_i)\,], &
       \mathrm{recall} &= \tfrac1n \textstyle\sum_i [\,x_i \in \bigcup_j B(y_j)\,], \\
       \mathrm{density} &= \tfrac1{km} \textstyle\sum_{ij} [\,y_j \in B(x_i)\,], &
       \mathrm{coverage} &= \tfrac1n \textstyle\sum_i [\,\exists j: y_j \in B(x_i)\,]. \tag{N1}

    For equal distributions density is 1 and coverage 1 − 2⁻ᵏ in expectation (equal n, no ties); precision and recall
    depend on n and d, so look at their floors.

    Parameters
    ----------
    reference, generated : array_like, shape (n, d) and (m, d)
        Compare equal n and m.
    k : int
    reference_groups : array_like, shape (n,), optional
        Patient of each reference sample: neighbours of the same patient then do not shrink a ball.

    Raises
    ------
    InputError
        Shapes that do not fit, NaN or Inf, no k neighbours for some sample.

    References
    ----------
    Kynkäänniemi et al. 2019, arXiv 1904.06991, eqs. (1)–(3); Naeem et al. 2020, arXiv 2002.09797, eqs. (3)–(5).
    """
    x = as_features("reference", reference)
    y = as_features("generated", generated, like=x)
    k = as_positive_int("k", k)
    x_radius = _ball_radii("reference", x, as_groups("reference_groups", reference_groups, len(x)), k)
    y_radius = _ball_radii("generated", y, np.arange(len(y)), k)
    in_x, x_hit, y_hit, recalled = 0, np.zeros(len(x), bool), np.zeros(len(y), bool), np.zeros(len(x), bool)
    for start in range(0, len(x), _BLOCK):
        rows = slice(start, start + _BLOCK)
        distance = squared_distances(x[rows], y)
        inside = distance <= x_radius[rows, None]
        in_x += int(inside.sum())
        x_hit[rows], y_hit = inside.any(1), y_hit | inside.any(0)
        recalled[rows] = (distance <= y_radius[None]).any(1)
    return {"precision": float(y_hit.mean()), "recall": float(recalled.mean()), "density": in_x / (k * len(y)),
            "coverage": float(x_hit.mean())}


def _ball_radii(name: str, x: np.ndarray, groups: np.ndarray, k: int) -> np.ndarray:
    """Return the squared distance to the k-th nearest sample of another group."""
    others = len(x) - np.bincount(groups).max()
    if others < k:
        raise InputError(f"{name} must have more than k = {k} samples to have k neighbours each, but left {others} for "
                         "some; give more samples (patients) or a smaller k.")
    out = np.empty(len(x))
    for start in range(0, len(x), _BLOCK):
        rows = slice(start, start + _BLOCK)
        distance = squared_distances(x[rows], x)
        distance[groups[rows, None] == groups[None]] = np.inf
        out[rows] = np.partition(distance, k - 1, axis=1)[:, k - 1]
    return out
