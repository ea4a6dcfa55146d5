r"""A PAC-Bayes certificate for the denoising loss of a trained network, over patients that it was not trained on.

The loss of a patient is the mean squared error of what the network predicts, over all elements, slices, tracers, times
and noise that were drawn for him, in units of the variance of what it should predict, and 1 where it is above 1:

.. math:: \ell(W, S_p) = \min(e_p(W), 1) \in [0, 1]. \tag{CE3}

Predicting 0 has a loss near 1, so a bound below it says something.

*Prior.* The network was trained on other patients and stays as it is. Behind it stands a linear map W of its output
channels (`OutputMoments`): :math:`P = N(W_0, \sigma_P^2 I)` around the one that changes nothing, with σ_P from
`PRIOR_SPREADS`, which was written down before any data; each has its share of δ.

*Posterior.* For the error without its cap the Gibbs posterior :math:`Q \propto e^{-\lambda \hat e} dP` is again a
Gaussian. With the means H and B of G and B of (CE2) over the patients, row i of W has

.. math:: \Sigma_i = (\sigma_P^{-2} I + 2\lambda H_i)^{-1}, \qquad
          \mu_i = W_{0, i} + 2\lambda\,\Sigma_i (B_i - H_i W_{0, i}). \tag{CE4}

λ may be chosen after looking: the bounds hold for all posteriors at once. λ = 0 leaves the prior, and with it KL = 0.

*Bound.* m maps are drawn from Q, their losses averaged, and `certified_bound` does the rest. Its n is the number of
patients, which are independent; they need not be alike: where regions are dealt out evenly, the sum of coins of
different means is less spread than one of equal means for any convex function (Hoeffding 1956, Ann. Math. Stat. 27:713,
theorem 3), which is all that the moment (PB11) asks.
"""

import math
from dataclasses import dataclass

import numpy as np

from allpet_gen.output_moments import OutputMoments
from allpet_physics._arrays import as_positive_int
from allpet_physics._probability_checks import as_confidence, as_number
from allpet_physics.pac_bayes import (
    Certificate,
    binary_kl_inverse,
    certified_bound,
    gaussian_kl,
    seeger_maurer_bound,
    union_over_grid,
)

#: σ_P of the priors.
PRIOR_SPREADS = (0.003, 0.01, 0.03, 0.1)
#: δ of the tables.
DELTAS = (0.001, 0.005, 0.01, 0.05)
#: λ/n of the posteriors that are tried.
_RATES = (0.0, *(2.0**k for k in range(-2, 11)))
#: Share of δ that is kept for the draws from the posterior.
_SHARE_OF_DRAWS = 0.1


@dataclass(frozen=True, eq=False)
class Posterior:
    """The Gaussian of eq. (CE4).

    Attributes
    ----------
    mean : ndarray, shape (c, c + 1)
    covariance : ndarray, shape (groups, c + 1, c + 1)
        Of each row of a group.
    kl : float
        From the prior, in nats.
    risk : float
        Mean of the error without its cap.
    prior_spread, rate : float
        σ_P and λ.
    """

    mean: np.ndarray
    covariance: np.ndarray
    kl: float
    risk: float
    prior_spread: float
    rate: float

    def draw(self, m: int, group: np.ndarray, seed: int) -> np.ndarray:
        """Return m maps, shape (m, c, c + 1)."""
        roots = np.linalg.cholesky(self.covariance)[group]
        noise = np.random.default_rng(seed).standard_normal((m, *self.mean.shape))
        return self.mean + np.einsum("rij,mrj->mri", roots, noise)


@dataclass(frozen=True)
class CertifiedLoss:
    """A certificate with what it should be read beside.

    Attributes
    ----------
    certificate : Certificate
    prior_spread, rate : float
        σ_P and λ that were chosen.
    capped : float
        Share of losses, over draws and patients, that were cut off at 1.
    unchanged : float
        Loss of the network as it is.
    of_nothing : float
        Loss of predicting 0.
    test_set_bound : float
        A bound by Chernoff for the network as it is, which needs no posterior because nothing was fitted to these
        patients: kl⁻¹(loss, ln(1/δ)/n).
    """

    certificate: Certificate
    prior_spread: float
    rate: float
    capped: float
    unchanged: float
    of_nothing: float
    test_set_bound: float


def gibbs_posterior(moments: OutputMoments, prior_spread: float, rate: float) -> Posterior:
    """Return eq. (CE4) for all patients of some moments."""
    mean = moments.mean()
    w0, group, h, b = moments.unchanged, moments.group, mean.gram[0], mean.cross[0]
    wide = w0.shape[1]
    precision = np.eye(wide) / prior_spread**2 + 2 * rate * h
    covariance = np.linalg.inv(precision)
    covariance = (covariance + covariance.swapaxes(1, 2)) / 2
    w = w0 + 2 * rate * np.einsum("rij,rj->ri", covariance[group], b - np.einsum("rij,rj->ri", h[group], w0))
    kl = 0.0 if rate == 0 else gaussian_kl(w, covariance[group], w0, prior_spread**2 * np.eye(wide)).sum()
    risk = mean.errors(w[None])[0, 0] + np.einsum("rij,rij->", h[group], covariance[group])
    return Posterior(w, covariance, float(kl), float(risk), prior_spread, rate)


def certify(moments: OutputMoments, delta: float = 0.05, *, n_draws: int = 50_000, seed: int = 0) -> CertifiedLoss:
    """Bound the expected loss (CE3) of a new patient, with a chance of error of at most `delta`.

    Parameters
    ----------
    moments : OutputMoments
        Of patients that the network was not trained on: `denoising_moments`.
    delta : float
        In (0, 1): of data and draws together.
    n_draws : int
        m maps drawn from the posterior.
    seed : int
        Of the draws.

    Raises
    ------
    InputError
        δ outside (0, 1), a number of draws that is no positive integer.
    """
    delta = as_number("delta", as_confidence("delta", delta))
    m, seed = as_positive_int("n_draws", n_draws), as_positive_int("seed", seed, minimum=0)
    of_draws = _SHARE_OF_DRAWS * delta
    of_data = delta - of_draws
    n = len(moments)
    share = float(union_over_grid(of_data, len(PRIOR_SPREADS))[0])
    tried = [gibbs_posterior(moments, spread, n * rate) for spread in PRIOR_SPREADS for rate in _RATES]
    best = min(tried, key=lambda q: float(seeger_maurer_bound(min(q.risk, 1.0), q.kl, n, share)))
    errors = moments.errors(best.draw(m, moments.group, seed))
    risk = float(errors.clip(max=1).mean())
    bound = float(certified_bound(risk, m, best.kl, n, share, of_draws))
    certificate = Certificate(bound=bound, empirical_risk=risk, kl=best.kl, n=n, delta=of_data, draws=m,
                              delta_monte_carlo=of_draws, unit="patients",
                              posterior_spread=float(np.sqrt(np.linalg.eigvalsh(best.covariance).min())))
    unchanged = float(moments.errors(moments.unchanged[None]).clip(max=1).mean())
    return CertifiedLoss(certificate, best.prior_spread, best.rate, float((errors > 1).mean()), unchanged,
                         float(moments.square.mean()), float(binary_kl_inverse(unchanged, -np.log(delta) / n)))


def certificate_table(moments: OutputMoments, draws: int, *, deltas=DELTAS, n_draws: int = 50_000,
                      seed: int = 0) -> dict:
    """Return the certificates of some moments by δ, beside what they should be read with, as plain values.

    Parameters
    ----------
    moments : OutputMoments
    draws : int
        Times and noises of each sinogram or pair, so that these can be counted.
    deltas : sequence of float
    n_draws, seed
        Of `certify`.

    Returns
    -------
    dict
        ``patients``, ``items`` (sinograms of a generator, pairs of a bridge), ``copies`` (predictions), ``loss``,
        ``loss_of_nothing``, and ``rows``, one for each δ. Their ``not_certificates`` are what the bound would be if
        items, or copies, were counted in place of patients.
    """
    counted = {"items": moments.n_examples // draws, "copies": moments.n_examples}
    rows = []
    for delta in sorted(set(deltas)):
        found = certify(moments, delta, n_draws=n_draws, seed=seed)
        c = found.certificate
        rows.append({"delta": delta, "bound": c.bound, "vacuous": c.vacuous, "claim": str(c), "kl": c.kl,
                     "empirical_risk": c.empirical_risk, "prior_spread": found.prior_spread, "rate": found.rate,
                     "capped": found.capped, "test_set_bound": found.test_set_bound,
                     "not_certificates": {name: miscounted_bound(found, n) for name, n in counted.items()}})
    return {"patients": len(moments), **counted, "loss": found.unchanged, "loss_of_nothing": found.of_nothing,
            "rows": rows}


def printed(bound: float) -> str:
    """Return a bound with four decimals, rounded up: what is printed holds too."""
    return f"{math.ceil(round(bound * 1e4, 6)) / 1e4:.4f}"


def miscounted_bound(found: CertifiedLoss, n: int) -> float:
    """Return what the bound would be if n counted something else, such as slices or augmented copies.

    This is *not* a certificate: what is counted is not independent. It shows how much of a gain is mere counting.
    """
    c = found.certificate
    share = float(union_over_grid(c.delta, len(PRIOR_SPREADS))[0])
    return float(certified_bound(c.empirical_risk, c.draws, c.kl, as_positive_int("n", n), share, c.delta_monte_carlo))
