r"""PAC-Bayes: how large the expected loss of a randomised model can be, given its loss on a few patients.

A prior P over parameters θ is fixed before the data S, n *independent* units with losses in [0, 1]; a posterior Q may
depend on S. R̂ and R are the mean loss on S and the expected loss, R̂(Q) and R(Q) their means over θ ~ Q (Gibbs risk).
All bounds here follow in the same three steps, from a function φ with :math:`E_S\, e^{\phi(\theta, S)} \le \xi` for
every single θ. A change of measure (Donsker-Varadhan): with :math:`dP_\phi \propto e^\phi dP`,

.. math:: \mathrm{KL}(Q \| P) + \ln E_P e^\phi - E_Q \phi = \mathrm{KL}(Q \| P_\phi) \ge 0
          \quad\text{for all } Q \text{ at once}; \tag{PB8}

the moment: P does not know S, so :math:`E_S E_P e^\phi = E_P E_S e^\phi \le \xi`; and Markov: :math:`E_P e^\phi`
exceeds ξ/δ with probability at most δ. So with probability at least 1 − δ over S, for all Q,

.. math:: E_Q \phi \le \mathrm{KL}(Q \| P) + \ln(\xi / \delta). \tag{PB9}

Equations 13 and 14 of arXiv:2509.09130 state this for certain and without δ; that holds in expectation over S alone.

n counts what is independent: patients, neither their slices nor augmented copies. P, its width, and the constant that
scales losses to [0, 1] must be chosen without S, or paid for over a grid (`best_over_grid`).
"""

import numpy as np

from allpet_physics._probability_checks import as_confidence, as_counts, as_divergence, as_probability, broadcast
from allpet_physics.errors import InputError
from allpet_physics.prior_grid import GridBound, best_over_grid, union_over_grid
from allpet_physics.relative_entropy import binary_kl, binary_kl_inverse, diagonal_gaussian_kl, gaussian_kl
from allpet_physics.risk_certificate import Certificate

__all__ = ["Certificate", "GridBound", "best_over_grid", "binary_kl", "binary_kl_inverse", "catoni_bound",
           "certified_bound", "diagonal_gaussian_kl", "gaussian_kl", "mcallester_bound", "monte_carlo_risk_bound",
           "seeger_maurer_bound", "union_over_grid"]


def seeger_maurer_bound(empirical_risk, kl, n, delta) -> np.ndarray:
    r"""Bound the expected risk by inverting the binary relative entropy, with no rate to choose.

    With φ = n·kl(R̂(θ)‖R(θ)) in (PB9), and since kl is jointly convex (Jensen),

    .. math:: \mathrm{kl}(\hat R(Q) \| R(Q)) \le \frac{\mathrm{KL}(Q \| P) + \ln(\xi(n) / \delta)}{n}, \qquad
              \xi(n) = \begin{cases} n + 1 & n < 8 \\ 2 \sqrt n & n \ge 8 \end{cases} \tag{PB10}

    which `binary_kl_inverse` solves for R(Q). Equation 19 of arXiv:2509.09130 lacks the brackets around its numerator,
    so that KL would not be divided by n.

    The moment: e^φ is convex in the losses, so replacing each loss x by a coin with mean x can only raise its mean, and
    for coins with mean R

    .. math:: E_S\, e^\phi = \sum_{k=0}^{n} \binom nk R^k (1 - R)^{n-k}
              \frac{(k/n)^k (1 - k/n)^{n-k}}{R^k (1 - R)^{n-k}}
              = \sum_{k=0}^{n} \binom nk \Big(\frac kn\Big)^k \Big(1 - \frac kn\Big)^{n-k} \le n + 1 \tag{PB11}

    for every n, because each of the n + 1 terms is the probability of k successes in n trials with mean k. Maurer
    shows that the sum is at most 2√n for n ≥ 8.

    Parameters
    ----------
    empirical_risk : array_like
        R̂(Q) in [0, 1], exact; if it was measured with draws from Q, use `certified_bound`.
    kl : array_like
        KL(Q‖P) in nats, at least 0.
    n : int, or array_like of int
        Number of independent units.
    delta : array_like
        Probability δ in (0, 1) that the bound fails. All four broadcast.

    Returns
    -------
    ndarray of float64, their common shape
        At most 1.

    Raises
    ------
    InputError
        A risk outside [0, 1], a negative divergence, δ outside (0, 1), n that is not a positive integer, NaN.

    References
    ----------
    Seeger 2002, J. Mach. Learn. Res. 3:233; Maurer 2004, arXiv:cs/0411099.
    """
    risk, kl, n, delta = _arguments(empirical_risk, kl, n, delta)
    return binary_kl_inverse(risk, (kl + _log_moment(n) - np.log(delta)) / n)


def mcallester_bound(empirical_risk, kl, n, delta) -> np.ndarray:
    r"""Bound the expected risk in closed form, never below `seeger_maurer_bound`.

    Pinsker's inequality, :math:`\mathrm{kl}(q \| p) \ge 2 (p - q)^2`, turns (PB10) into equation 21 of
    arXiv:2509.09130,

    .. math:: R(Q) \le \hat R(Q) + \sqrt{\frac{\mathrm{KL}(Q \| P) + \ln(\xi(n) / \delta)}{2n}}. \tag{PB12}

    The result may exceed 1. Arguments and errors are those of `seeger_maurer_bound`.

    References
    ----------
    McAllester 1999, COLT, theorem 1, here with Maurer's constant.
    """
    risk, kl, n, delta = _arguments(empirical_risk, kl, n, delta)
    return (risk + np.sqrt((kl + _log_moment(n) - np.log(delta)) / (2 * n)))[()]


def catoni_bound(empirical_risk, kl, n, delta, *, rate: float) -> np.ndarray:
    r"""Bound the expected risk with a rate C > 0 that was fixed before the data.

    With :math:`\phi = -n \ln(1 - (1 - e^{-C}) R(\theta)) - n C \hat R(\theta)` in (PB9): the chord lies above the
    exponential, :math:`e^{-C x} \le 1 - (1 - e^{-C}) x` for losses x in [0, 1], so ξ = 1; and φ is convex in R, so

    .. math:: R(Q) \le \frac{1 - \exp\big(-C \hat R(Q) - (\mathrm{KL}(Q \| P) + \ln(1 / \delta)) / n\big)}{1 - e^{-C}}.
              \tag{PB13}

    The Gibbs posterior :math:`\propto e^{-n C \hat R} dP` minimises it. The least value over C is
    :math:`\mathrm{kl}^{-1}(\hat R(Q), (\mathrm{KL} + \ln(1/\delta))/n)`, without ξ(n), but that is *no* bound: C must
    not depend on the data. To optimise over C, write down k rates beforehand and give each its share of δ
    (`union_over_grid`, `best_over_grid`).

    Parameters
    ----------
    empirical_risk, kl, n, delta
        As for `seeger_maurer_bound`.
    rate : float, or array_like
        C, positive.

    Returns
    -------
    ndarray of float64, their common shape
        May exceed 1.

    Raises
    ------
    InputError
        As `seeger_maurer_bound`, and a rate that is not positive.

    References
    ----------
    Catoni 2007, IMS Lecture Notes 56, chapter 1.
    """
    risk, kl, n, delta = _arguments(empirical_risk, kl, n, delta)
    c = as_divergence("rate", rate)
    if not ((c > 0) & (c < np.inf)).all():
        raise InputError(f"rate must be positive and finite, but its range was [{c.min():g}, {c.max():g}].")
    risk, kl, n, delta, c = broadcast(empirical_risk=risk, kl=kl, n=n, delta=delta, rate=c)
    return (np.expm1(-c * risk - (kl - np.log(delta)) / n) / np.expm1(-c))[()]


def monte_carlo_risk_bound(empirical_mean, m, delta) -> np.ndarray:
    r"""Bound the empirical Gibbs risk, which equation 25 of arXiv:2509.09130 estimates from m draws of the posterior.

    The m values R̂(θ_j), θ_j ~ Q independent, lie in [0, 1] and have the mean R̂(Q), so by Chernoff each side of

    .. math:: \mathrm{kl}\Big(\frac1m \sum_j \hat R(\theta_j) \Big\| \hat R(Q)\Big) \le \frac{\ln(2 / \delta')}{m}
              \tag{PB14}

    fails with probability at most δ'/2. `binary_kl_inverse` gives the upper bound returned here.

    Parameters
    ----------
    empirical_mean : array_like
        Mean over the draws, in [0, 1].
    m : int, or array_like of int
        Number of draws.
    delta : array_like
        δ' in (0, 1).

    Returns
    -------
    ndarray of float64, their common shape

    Raises
    ------
    InputError
        As `seeger_maurer_bound`.
    """
    mean, m, delta = broadcast(empirical_mean=as_probability("empirical_mean", empirical_mean), m=as_counts("m", m),
                               delta=as_confidence("delta", delta))
    return binary_kl_inverse(mean, np.log(2 / delta) / m)


def certified_bound(empirical_mean, m, kl, n, delta, delta_monte_carlo) -> np.ndarray:
    r"""Bound the expected risk from draws of the posterior: `seeger_maurer_bound` of `monte_carlo_risk_bound`.

    The former grows with the risk, so both hold, and with them the result, with probability at least 1 − δ − δ' over
    the data *and* the draws. Evaluating the mean of Q in place of draws voids it.

    Parameters
    ----------
    empirical_mean, m, delta_monte_carlo
        As for `monte_carlo_risk_bound`.
    kl, n, delta
        As for `seeger_maurer_bound`. δ + δ' must be below 1.

    Returns
    -------
    ndarray of float64, their common shape

    Raises
    ------
    InputError
        As `seeger_maurer_bound`, and δ + δ' of 1 or more.
    """
    both = as_confidence("delta", delta), as_confidence("delta_monte_carlo", delta_monte_carlo)
    if not (sum(broadcast(delta=both[0], delta_monte_carlo=both[1])) < 1).all():
        raise InputError(f"delta + delta_monte_carlo must be below 1, but were {delta!r} and {delta_monte_carlo!r}.")
    return seeger_maurer_bound(monte_carlo_risk_bound(empirical_mean, m, both[1]), kl, n, both[0])


def _arguments(empirical_risk, kl, n, delta) -> tuple[np.ndarray, ...]:
    return broadcast(empirical_risk=as_probability("empirical_risk", empirical_risk), kl=as_divergence("kl", kl),
                     n=as_counts("n", n), delta=as_confidence("delta", delta))


def _log_moment(n: np.ndarray) -> np.ndarray:
    """Return ln ξ(n) of (PB10)."""
    return np.log(np.where(n < 8, n + 1, 2 * np.sqrt(n)))
