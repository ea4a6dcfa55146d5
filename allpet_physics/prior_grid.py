"""Bounds over a grid of priors or rates: each point has its share of δ, so the best may be chosen after the data."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from allpet_physics._arrays import as_positive_int
from allpet_physics._probability_checks import as_confidence, as_divergence, as_number, as_probability
from allpet_physics.errors import InputError


def union_over_grid(delta: float, n_grid: int, *, weights=None) -> np.ndarray:
    r"""Share δ over a grid of priors (widths σ_P, rates C) that was written down before the data.

    .. math:: \delta_i = w_i\, \delta, \qquad \sum_i w_i \le 1: \tag{PB15}

    each bound fails with probability at most δ_i, so all hold together with probability at least 1 − δ, and the best
    may be chosen after looking.

    Parameters
    ----------
    delta : float
        In (0, 1).
    n_grid : int
        Number of grid points.
    weights : array_like, shape (n_grid,), optional
        w, positive and independent of the data; by default all 1/n_grid.

    Returns
    -------
    ndarray of float64, shape (n_grid,)

    Raises
    ------
    InputError
        δ outside (0, 1), no grid point, weights of another number, not positive, or above 1 in total.
    """
    n_grid, delta = as_positive_int("n_grid", n_grid), as_number("delta", as_confidence("delta", delta))
    if weights is None:
        return np.full(n_grid, delta / n_grid)
    w = as_probability("weights", weights)
    if w.shape != (n_grid,) or not (w > 0).all() or w.sum() > 1 + 1e-6:
        raise InputError(f"weights must be {n_grid} positive numbers with a sum up to 1, but had the shape {w.shape}, "
                         f"the minimum {w.min(initial=1):g} and the sum {w.sum():g}.")
    return delta * w / max(1.0, w.sum())  # the sum may be above 1 by rounding


@dataclass(frozen=True, eq=False)
class GridBound:
    """The best bound over a grid; see `best_over_grid`.

    Attributes
    ----------
    bound : float
    index : int
        Its place in the grid.
    bounds, deltas : ndarray of float64, shape (k,)
        The bound of every grid point and the δ_i it had, eq. (PB15).
    """

    bound: float
    index: int
    bounds: np.ndarray
    deltas: np.ndarray


def best_over_grid(bound: Callable[..., np.ndarray], empirical_risk, kl, n: int, delta: float, *,
                   weights=None) -> GridBound:
    """Return the best bound over a grid of priors, each of which had its share of δ.

    Parameters
    ----------
    bound : callable
        `seeger_maurer_bound`, `mcallester_bound`, or ``functools.partial(catoni_bound, rate=rates)``.
    empirical_risk : array_like, shape (k,), or float
        R̂(Q_i). Measured with draws, each needs a bound of its own: ``monte_carlo_risk_bound(means, m,
        union_over_grid(delta_monte_carlo, k))``.
    kl : array_like, shape (k,)
        KL(Q_i‖P_i), one per grid point.
    n, delta
        One number each, as for `seeger_maurer_bound` and `union_over_grid`.
    weights : array_like, shape (k,), optional
        As for `union_over_grid`.

    Returns
    -------
    GridBound

    Raises
    ------
    InputError
        As `seeger_maurer_bound` and `union_over_grid`, and divergences that are not one per grid point.
    """
    if not callable(bound):
        raise InputError(f"bound must be a function such as seeger_maurer_bound, but was {bound!r}.")
    kl = as_divergence("kl", kl)
    if kl.ndim != 1 or kl.size == 0:
        raise InputError(f"kl must have shape (k,), one divergence per grid point, but its shape was {kl.shape}.")
    deltas = union_over_grid(delta, kl.size, weights=weights)
    bounds = bound(empirical_risk, kl, n, deltas)
    if bounds.shape != kl.shape:
        raise InputError(f"empirical_risk and n must be numbers or have the shape of kl, {kl.shape}, but led to bounds "
                         f"of shape {bounds.shape}.")
    best = int(np.argmin(bounds))
    return GridBound(float(bounds[best]), best, bounds, deltas)
