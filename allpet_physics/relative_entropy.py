r"""Kullback-Leibler divergences, as the PAC-Bayes bounds need them: of two coins with its inverses, of two Gaussians.

All are sums of the non-negative function

.. math:: g(x) = x - \ln(1 + x), \tag{PB1}

which is computed without cancellation: divergences of what is nearly equal are small, not rounding.
"""

import numpy as np

from allpet_physics._arrays import as_float_array
from allpet_physics._probability_checks import as_divergence, as_probability, broadcast
from allpet_physics.errors import InputError

#: |x| up to which (PB1) is summed as a series, and its terms: the first one left out is below 1e-17 of the sum.
_SERIES_REACH, _SERIES_TERMS = 0.5, 18
#: Beyond these log-odds a probability or its complement is no float any more.
_LARGEST_LOG_ODDS = 800.0
_EPSILON = np.finfo(np.float64).eps


def binary_kl(q, p) -> np.ndarray:
    r"""Return the relative entropy of two coins, of an observed frequency q to a probability p, in nats.

    .. math:: \mathrm{kl}(q \| p) = q \ln\frac{q}{p} + (1 - q) \ln\frac{1 - q}{1 - p}
              = q\, g\Big(\frac{p - q}{q}\Big) + (1 - q)\, g\Big(\frac{q - p}{1 - q}\Big). \tag{PB2}

    Zero where p = q; infinite where p is 0 or 1 and q is not.

    Parameters
    ----------
    q, p : array_like
        In [0, 1], of shapes that broadcast together.

    Returns
    -------
    ndarray of float64, their common shape

    Raises
    ------
    InputError
        Values outside [0, 1], NaN, shapes that do not fit.
    """
    q, p = broadcast(q=as_probability("q", q), p=as_probability("p", p))
    with np.errstate(divide="ignore"):
        return _binary_kl(q, 1 - q, np.log(p), np.log1p(-p), p - q)[()]


def binary_kl_inverse(q, c, *, side: str = "upper") -> np.ndarray:
    r"""Return the largest (or smallest) probability p whose relative entropy to the frequency q is at most c.

    .. math:: \mathrm{kl}^{-1}(q, c) = \max\{p \in [q, 1] : \mathrm{kl}(q \| p) \le c\}, \tag{PB3}

    and with ``side="lower"`` the minimum over [0, q]. Between them lie all p with kl(q‖p) ≤ c.

    With the log-odds t = ln(p/(1 − p)), kl is convex in t and its slope is p − q, so Newton's iteration

    .. math:: t \leftarrow t - (\mathrm{kl}(q \| p) - c) / (p - q) \tag{PB4}

    falls monotonically from any start above the root. It starts at the least of two bounds of p: kl is the integral of
    (x − q)/(x(1 − x)) from q to p and x(1 − x) is at most p, 1 − q and ¼ there, hence (p − q)² ≤ 2c·min(p, 1 − q, ¼);
    and 1 − p ≥ exp(−(c + H)/(1 − q)) with the entropy H of q. A bisection stands in where rounding spoils a step. The
    complements of q and p are carried along, so nothing is lost near 1.

    Parameters
    ----------
    q : array_like
        In [0, 1].
    c : array_like, broadcastable with `q`
        At least 0, in nats; infinity is allowed.
    side : {"upper", "lower"}

    Returns
    -------
    ndarray of float64, their common shape
        Right to 1e-14. Exactly q where c = 0, 1 (lower: 0) where c = ∞, and 1 − exp(−c) where q = 0 (lower: exp(−c)
        where q = 1).

    Raises
    ------
    InputError
        q outside [0, 1], c negative, NaN, shapes that do not fit, another side.
    """
    q, c = broadcast(q=as_probability("q", q), c=as_divergence("c", c))
    if side == "upper":
        return _largest(q, 1 - q, c)[0][()]
    if side == "lower":
        return _largest(1 - q, q, c)[1][()]
    raise InputError(f'side must be "upper" or "lower", but was {side!r}.')


def gaussian_kl(mean_q, covariance_q, mean_p, covariance_p) -> np.ndarray:
    r"""Return the divergence of two normal distributions with full covariances, KL(Q‖P) in nats.

    .. math:: \mathrm{KL}(Q \| P) = \tfrac12 \Big[\ln\frac{\det\Sigma_P}{\det\Sigma_Q} - d + \mathrm{tr}(\Sigma_P^{-1}
              \Sigma_Q) + (\mu_Q - \mu_P)^\top \Sigma_P^{-1} (\mu_Q - \mu_P)\Big] \tag{PB5}

    is equation 22 of arXiv:2509.09130. With Cholesky factors Σ = L Lᵀ, the triangular :math:`M = L_P^{-1} L_Q` and
    :math:`z = L_P^{-1}(\mu_Q - \mu_P)`, it is half of

    .. math:: \sum_i g(M_{ii}^2 - 1) + \sum_{i > j} M_{ij}^2 + \sum_i z_i^2. \tag{PB6}

    Parameters
    ----------
    mean_q, mean_p : array_like, shape (..., d)
    covariance_q, covariance_p : array_like, shape (..., d, d)
        Symmetric and positive definite. The leading axes of all four broadcast.

    Returns
    -------
    ndarray of float64, shape (...)

    Raises
    ------
    InputError
        A covariance that is not symmetric or not positive definite in floats, shapes that do not fit, NaN, Inf.
    """
    mean_q = as_float_array("mean_q", mean_q).astype(np.float64, copy=False)
    if mean_q.ndim == 0 or mean_q.shape[-1] == 0:
        raise InputError(f"mean_q must have shape (..., d) with d of at least 1, but its shape was {mean_q.shape}.")
    d = mean_q.shape[-1]
    mean_p = as_float_array("mean_p", mean_p, (d,)).astype(np.float64, copy=False)
    root_q, root_p = _cholesky("covariance_q", covariance_q, d), _cholesky("covariance_p", covariance_p, d)
    broadcast(mean_q=mean_q, mean_p=mean_p, covariance_q=root_q[..., 0], covariance_p=root_p[..., 0])
    m, z = np.linalg.solve(root_p, root_q), np.linalg.solve(root_p, (mean_q - mean_p)[..., np.newaxis])
    diagonal = np.diagonal(m, axis1=-2, axis2=-1)
    with np.errstate(over="ignore"):  # what is beyond a float is infinite
        spread = _g(np.square(diagonal) - 1, 2 * np.log(diagonal)) + np.square(np.tril(m, -1)).sum(axis=-1)
        return 0.5 * (spread + np.square(z[..., 0])).sum(axis=-1)


def diagonal_gaussian_kl(mean_q, variance_q, mean_p, variance_p) -> np.ndarray:
    r"""Return the divergence of two normal distributions with independent components, KL(Q‖P) in nats.

    .. math:: \mathrm{KL}(Q \| P) = \frac12 \sum_i \Big[g\Big(\frac{v_{Q,i} - v_{P,i}}{v_{P,i}}\Big)
              + \frac{(\mu_{Q,i} - \mu_{P,i})^2}{v_{P,i}}\Big]. \tag{PB7}

    One variance for all components gives equation 23 of arXiv:2509.09130, and the same one on both sides equation 24,
    ‖μ_Q − μ_P‖²/(2σ²).

    Parameters
    ----------
    mean_q, mean_p : array_like, shape (..., d)
        A number stands for all components, but not in both.
    variance_q, variance_p : array_like, shape (..., d), or a number
        *Variances*, not standard deviations, all positive: one per component, or one number for all of them. A grid of
        k isotropic priors is ``variance_p=sigma[:, np.newaxis]**2`` and gives k divergences.

    Returns
    -------
    ndarray of float64, shape (...)
        Infinite where it is beyond what a float holds.

    Raises
    ------
    InputError
        A variance that is not positive (a posterior without spread has an infinite divergence and no certificate), NaN,
        Inf, shapes that do not fit.
    """
    given = {"mean_q": mean_q, "variance_q": variance_q, "mean_p": mean_p, "variance_p": variance_p}
    given = {name: as_float_array(name, value).astype(np.float64, copy=False) for name, value in given.items()}
    for name in ("variance_q", "variance_p"):
        if not (given[name] > 0).all():
            raise InputError(f"{name} must be positive, but its minimum was {given[name].min():g}; a point estimate is "
                             "infinitely far from any Gaussian prior and is not a certificate.")
    if given["mean_q"].ndim == given["mean_p"].ndim == 0:
        raise InputError("mean_q or mean_p must have shape (..., d), which tells how many components there are, but "
                         "both were numbers.")
    mean_q, variance_q, mean_p, variance_p = broadcast(**given)
    with np.errstate(over="ignore"):
        spread = _g((variance_q - variance_p) / variance_p, np.log(variance_q) - np.log(variance_p))
        terms = spread + np.square(mean_q - mean_p) / variance_p
        return 0.5 * terms.sum(axis=-1)


def _g(x: np.ndarray, log_one_plus_x: np.ndarray) -> np.ndarray:
    """Return (PB1) for x > -1, near zero by ln(1 + x) = 2 artanh s with s = x/(2 + x)."""
    near = np.abs(x) <= _SERIES_REACH
    y = np.where(near, x, 0)
    s = y / (2 + y)
    total = np.zeros_like(s)
    for k in range(_SERIES_TERMS, 0, -1):
        total = total * s**2 + 1 / (2 * k + 1)
    return np.where(near, s * (y - 2 * s**2 * total), x - log_one_plus_x)


def _binary_kl(q, r, log_p, log_u, difference) -> np.ndarray:
    """Return (PB2) from q, r = 1 - q, the logarithms of p and u = 1 - p, and p - q."""
    return _kl_term(q, log_p, difference) + _kl_term(r, log_u, -difference)


def _kl_term(mass, log_new, change) -> np.ndarray:
    """Return mass·g(change/mass), where mass + change has the given logarithm; its limit where the mass is 0."""
    filled = mass > 0
    near = filled & (np.abs(change) <= _SERIES_REACH * mass)
    far = change + mass * (np.log(np.where(filled, mass, 1)) - np.where(filled, log_new, 0))
    return np.where(near, mass * _g(np.divide(change, mass, out=np.zeros_like(mass), where=near), 0), far)


def _largest(q, r, c) -> tuple[np.ndarray, np.ndarray]:
    """Return p of (PB3) and 1 - p, for q and r = 1 - q."""
    plain = (q > 0) & (r > 0) & (c > 0) & (c < np.inf)
    root = _newton(*(np.where(plain, a, 0.5) for a in (q, r, c)))
    sure = (r == 0) | (c == np.inf)
    p = np.where(plain, root[0], np.where(c == 0, q, np.where(sure, 1, -np.expm1(-c))))
    u = np.where(plain, root[1], np.where(c == 0, r, np.where(sure, 0, np.exp(-c))))
    return p, u


def _newton(q, r, c) -> tuple[np.ndarray, np.ndarray]:
    """Return p and 1 - p by (PB4), for 0 < q < 1 and 0 < c < inf."""
    log_q, log_r = (np.where(a < 0.5, np.log(a), np.log1p(-np.minimum(b, 0.5))) for a, b in ((q, r), (r, q)))
    small = np.minimum(c, 1)
    rise = np.minimum(small + np.sqrt(small * (small + 2 * q)), np.sqrt(2 * small * np.minimum(r, 0.25)))
    inside = (c < 1) & (rise < r)
    with np.errstate(over="ignore"):
        high = np.minimum((c - q * log_q) / r - log_r, _LARGEST_LOG_ODDS)
    high = np.where(inside, np.minimum(high, np.log(q + rise) - np.log(np.where(inside, r - rise, 1))), high)
    high = high + 100 * _EPSILON * (1 + np.abs(high))
    low = np.minimum(log_q - log_r, high)
    t = high
    for _ in range(50):
        log_p, log_u = -np.logaddexp(0, -t), -np.logaddexp(0, t)
        p, u = np.exp(log_p), np.exp(log_u)
        slope = np.where(p < u, p - q, r - u)  # p - q by the pair that has more digits
        excess = _binary_kl(q, r, log_p, log_u, slope) - c
        above = (excess >= 0) & (slope > 0)
        low, high = np.where(above, low, t), np.where(above, t, high)
        with np.errstate(over="ignore"):
            new = t - excess / np.where(slope > 0, slope, 1)
        new = np.where((slope > 0) & (new >= low) & (new <= high), new, (low + high) / 2)
        step, t = np.abs(new - t), new
        if (step <= 4 * _EPSILON * (1 + np.abs(t))).all():
            break
    return np.maximum(np.exp(-np.logaddexp(0, -t)), q), np.minimum(np.exp(-np.logaddexp(0, t)), r)


def _cholesky(name: str, covariance, d: int) -> np.ndarray:
    a = as_float_array(name, covariance, (d, d)).astype(np.float64)
    size = np.sqrt(np.abs(np.diagonal(a, axis1=-2, axis2=-1)))
    if (np.abs(a - a.swapaxes(-1, -2)) > 1e-9 * size[..., :, np.newaxis] * size[..., np.newaxis, :]).any():
        raise InputError(f"{name} must be symmetric, but differed from its transpose by up to "
                         f"{np.abs(a - a.swapaxes(-1, -2)).max():g}; pass (a + a.T) / 2.")
    try:
        root = np.linalg.cholesky(a)
    except np.linalg.LinAlgError:
        root = np.zeros_like(a)
    if (np.diagonal(root, axis1=-2, axis2=-1) <= np.sqrt(d * _EPSILON) * size).any():
        raise InputError(f"{name} must be positive definite, but its least eigenvalue was "
                         f"{np.linalg.eigvalsh(a).min():g}; a direction without variance has no density.")
    return root
