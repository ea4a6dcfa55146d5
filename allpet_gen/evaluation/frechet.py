r"""The Fréchet distance of two samples of features, each taken as a Gaussian."""

from dataclasses import dataclass

import numpy as np

from allpet_gen.evaluation._checks import as_features
from allpet_physics._arrays import as_float_array, as_positive_int
from allpet_physics.errors import InputError


@dataclass(frozen=True)
class PrincipalAxes:
    """Mean and leading principal axes of reference features; the ruler for every sample that is compared.

    Attributes
    ----------
    mean : ndarray, shape (d,)
    axes : ndarray, shape (d, k)
        Orthonormal columns in the order of their variance.
    variances : ndarray, shape (k,)
        Of the reference along the axes.
    """

    mean: np.ndarray
    axes: np.ndarray
    variances: np.ndarray

    @classmethod
    def fit(cls, reference, n_components: int) -> "PrincipalAxes":
        """Return the axes of some reference features (n, d); never fit them on what is generated.

        Raises
        ------
        InputError
            More components than features, or than samples less one.
        """
        x = as_features("reference", reference)
        k = as_positive_int("n_components", n_components)
        most = min(x.shape[1], len(x) - 1)
        if k > most:
            raise InputError(f"n_components must be at most {most} for {len(x)} reference samples of {x.shape[1]} "
                             f"features, but was {k}.")
        mean = x.mean(0)
        _, singular, axes = np.linalg.svd(x - mean, full_matrices=False)
        return cls(mean, axes[:k].T.copy(), singular[:k] ** 2 / (len(x) - 1))

    def project(self, features) -> np.ndarray:
        """Return features (n, d) along the axes, shape (n, k)."""
        x = as_features("features", features, minimum=1, like=self.mean[None])
        return (x - self.mean) @ self.axes


def gaussian_frechet_distance(first_mean, first_covariance, second_mean, second_covariance) -> float:
    r"""Return the Fréchet (2-Wasserstein) distance of two Gaussians, squared as usual.

    .. math:: d^2 = \|\mu_1 - \mu_2\|^2 + \operatorname{tr}\big(\Sigma_1 + \Sigma_2
              - 2(\Sigma_1^{1/2}\Sigma_2\Sigma_1^{1/2})^{1/2}\big). \tag{D1}

    With :math:`\Sigma_i = L_i L_i^T` the last trace is the sum of the singular values of :math:`L_1^T L_2`. So no root
    of an unsymmetric or an ill-conditioned product is ever taken, no imaginary part can appear, and rank-deficient
    covariances need no addition to their diagonal.

    Parameters
    ----------
    first_mean, second_mean : array_like, shape (d,)
    first_covariance, second_covariance : array_like, shape (d, d)
        Symmetric and positive semi-definite.

    Raises
    ------
    InputError
        Shapes that do not fit, NaN or Inf, a covariance that is not symmetric or has a negative eigenvalue beyond
        rounding.

    References
    ----------
    Dowson & Landau 1982, J. Multivariate Analysis 12, eq. (4); Heusel et al. 2017, arXiv 1706.08500, eq. (6).
    """
    means = [as_float_array(name, m).astype(np.float64) for name, m in
             (("first_mean", first_mean), ("second_mean", second_mean))]
    if means[0].ndim != 1 or means[0].shape != means[1].shape:
        raise InputError(f"second_mean must have the shape of first_mean, (features,), but they were "
                         f"{means[1].shape} and {means[0].shape}.")
    roots, traces = [], []
    for name, covariance in (("first_covariance", first_covariance), ("second_covariance", second_covariance)):
        c = as_float_array(name, covariance).astype(np.float64)
        if c.shape != (means[0].size,) * 2 or not np.allclose(c, c.T, rtol=1e-8, atol=1e-12 * np.abs(c).max(initial=0)):
            raise InputError(f"{name} must be a symmetric matrix of shape {(means[0].size,) * 2}, but its shape was "
                             f"{c.shape}{' and it was not symmetric' if c.shape == c.T.shape else ''}.")
        values, vectors = np.linalg.eigh((c + c.T) / 2)
        if values[0] < -1e-8 * max(values[-1], np.finfo(float).tiny):
            raise InputError(f"{name} must have no negative eigenvalue, but its smallest was {values[0]:g}.")
        values = np.maximum(values, 0)
        roots.append(vectors * np.sqrt(values))
        traces.append(values.sum())
    overlap = np.linalg.svd(roots[0].T @ roots[1], compute_uv=False).sum()
    return float(max(np.sum((means[0] - means[1]) ** 2) + sum(traces) - 2 * overlap, 0.0))


def frechet_distance(reference, generated, *, shrinkage: bool = False) -> float:
    r"""Return the Fréchet distance (D1) of two samples of features.

    The estimate is biased upwards by an amount that grows with d and falls about as 1/n, and the bias differs between
    distributions. So it means nothing without its floor, which is the distance of two disjoint samples of the *same*
    distribution with the *same* n on each side; `allpet_gen.evaluation.distribution.compare` gives both.

    Parameters
    ----------
    reference, generated : array_like, shape (n, d)
    shrinkage : bool
        Whether covariances are shrunk towards a multiple of the identity (`shrunk_covariance`), which allows n ≤ d. It
        lowers the variance and adds a bias of its own: compare only figures that were made alike.

    Raises
    ------
    InputError
        Fewer samples than features on a side, unless `shrinkage` is set; another number of features; NaN or Inf.
    """
    reference = as_features("reference", reference)
    generated = as_features("generated", generated, like=reference)
    d = reference.shape[1]
    for name, x in (("reference", reference), ("generated", generated)):
        if len(x) <= d and not shrinkage:
            raise InputError(f"{name} must have more samples than features, but had fewer samples than features need: "
                             f"{len(x)} samples of {d} features; give more samples, set n_components (PCA of the "
                             "reference), or set shrinkage=True.")
    covariance = shrunk_covariance if shrinkage else (lambda x: np.atleast_2d(np.cov(x, rowvar=False)))
    return gaussian_frechet_distance(reference.mean(0), covariance(reference), generated.mean(0), covariance(generated))


def shrunk_covariance(features) -> np.ndarray:
    r"""Return the covariance shrunk by the share δ that minimises the expected squared error.

    .. math:: \hat\Sigma = (1 - \delta) S + \delta\,\frac{\operatorname{tr} S}{d} I, \qquad
              \delta = \min\!\Big(1, \frac{\frac1{n^2}\sum_k \|x_k x_k^T - S\|_F^2}
                                        {\|S - \frac{\operatorname{tr} S}{d} I\|_F^2}\Big), \tag{D2}

    with centred rows x and S = XᵀX/n.

    Parameters
    ----------
    features : array_like, shape (n, d)

    References
    ----------
    Ledoit & Wolf 2004, J. Multivariate Analysis 88, eqs. (14)–(16).
    """
    x = as_features("features", features)
    n, d = x.shape
    x = x - x.mean(0)
    s = x.T @ x / n
    target = np.trace(s) / d
    spread = np.sum(s**2) - d * target**2
    # Σ‖x xᵀ − S‖² = Σ‖x‖⁴ − n‖S‖², without the d × d matrix of each sample.
    error = (np.sum(np.sum(x**2, axis=1) ** 2) / n - np.sum(s**2)) / n
    delta = 1.0 if spread <= 0 else float(np.clip(error / spread, 0, 1))
    return (1 - delta) * s + delta * target * np.eye(d)
