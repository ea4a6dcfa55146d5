r"""What every sinogram, and every composite of one, must obey: moments, count balance, PN mask constraints.

The paper's PN term (M9) compares two expressions that are equal by construction, so on data it is identically zero.
It says something only about decoded channels :math:`\hat C_+, \hat S, \hat C_-`, and is meant for those here.
"""

from dataclasses import dataclass

import numpy as np

from allpet_physics._arrays import as_float_array, as_positive_int
from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry


@dataclass(frozen=True, eq=False)
class MomentCheck:
    """How far the moments of a sinogram are from those of any image; see `helgason_ludwig`.

    Attributes
    ----------
    orders : tuple of int
    moments, fitted : ndarray of float64, shape (..., orders, n_angles)
        Moments over the angle, eq. (HL1), in u·mm^(n+2), and the closest consistent ones.
    residual : ndarray of float64, shape (..., orders)
        Normalised residual, eq. (HL3): 0 for a consistent sinogram; NaN for one that is zero everywhere.
    z : ndarray of float64, shape (..., orders, n_angles), or None
        Deviation of each angle in its standard deviations, where variances were given. An angle beyond 4 or 5 is no
        noise.
    reduced_chi_squared : ndarray of float64, shape (..., orders), or None
        Weighted sum of squared deviations over the degrees of freedom, n_angles - n - 1; around 1 for a consistent
        sinogram with that noise.
    """

    orders: tuple[int, ...]
    moments: np.ndarray
    fitted: np.ndarray
    residual: np.ndarray
    z: np.ndarray | None
    reduced_chi_squared: np.ndarray | None


@dataclass(frozen=True, eq=False)
class CountBalance:
    """Counts against their expectation; see `count_balance`.

    Attributes
    ----------
    ratio : ndarray of float64, shape (...)
        Counts over expected counts; NaN where none are expected.
    z : ndarray of float64, shape (...)
        Their difference in standard deviations of a Poisson total.
    angle_z : ndarray of float64, shape (..., n_angles)
        The same for each angle.
    """

    ratio: np.ndarray
    z: np.ndarray
    angle_z: np.ndarray


def helgason_ludwig(sinogram, geometry: ParallelGeometry, *, orders=(0, 1, 2, 3), variance=None) -> MomentCheck:
    r"""Test the Helgason-Ludwig consistency conditions: what the moments of line integrals may do over the angle.

    .. math:: M_n(\theta) = \int s^n p(\theta, s)\,ds = \iint (x\cos\theta + y\sin\theta)^n f(x, y)\,dx\,dy,
       \tag{HL1}

    so for an image f of bounded support each is a homogeneous polynomial of degree n in cos θ and sin θ,

    .. math:: M_n(\theta) = \sum_{k=0}^{n} a_k \cos^k\theta\, \sin^{n-k}\theta: \tag{HL2}

    the mass (n = 0) is the same at every angle, the centre of mass (n = 1) runs on a sinusoid, and so on. The a_k are
    fitted; what remains is normalised by the moment of the absolute values,

    .. math:: \rho_n = \sqrt{\overline{(M_n - \hat M_n)^2}} \Big/ \overline{\int |s|^n |p|\,ds}, \tag{HL3}

    averaged over the angles. Both arcs are treated alike: over 2π, :math:`M_n(\theta + \pi) = (-1)^n M_n(\theta)` is
    part of (HL2) and tested with it.

    Parameters
    ----------
    sinogram : array_like, shape (..., n_angles, n_bins)
        *Line integrals*: counts corrected for background, attenuation and normalisation (`Scan.precorrected`).
        Attenuated or scattered counts do not satisfy (HL2), and an object cut off by the bins does not either.
    geometry : ParallelGeometry
    orders : sequence of int
        Non-negative, below the number of angles.
    variance : array_like, broadcastable to `sinogram`, optional
        Variance of each bin, the bins being independent: for precorrected counts, the expected counts over the
        multiplicative factor squared; for Poisson counts without factors, the expected counts. With it, the fit is
        weighted and `z` and `reduced_chi_squared` tell noise from inconsistency.

    Raises
    ------
    InputError
        A sinogram or variance of another shape, negative or zero variance at an angle, orders out of range.

    Notes
    -----
    Bins are strips: sums over them give (HL1) up to the second order of their width, in terms that are themselves
    consistent, so noise-free projections of `RadonOperator` reach about 1e-4 and below.

    References
    ----------
    Helgason 1965, Acta Math. 113:153; Ludwig 1966, Comm. Pure Appl. Math. 19:49; Natterer 1986, The Mathematics of
    Computerized Tomography, theorem II.4.2.
    """
    if not isinstance(geometry, ParallelGeometry):
        raise InputError(f"geometry must be a ParallelGeometry, but was {type(geometry).__name__}.")
    p = as_float_array("sinogram", sinogram, geometry.sinogram_shape).astype(np.float64, copy=False)
    orders = tuple(as_positive_int("orders", n, minimum=0) for n in orders)
    if not orders or max(orders) + 1 >= geometry.n_angles:
        raise InputError(f"orders must be at least one, each below {geometry.n_angles - 1} for {geometry.n_angles} "
                         f"angles, but were {orders}.")
    # Lengths in units of the field's radius keep powers of s near one; the factor is put back at the end.
    unit = geometry.fov_mm / 2
    s = geometry.bin_centres / unit
    if variance is not None:
        variance = as_float_array("variance", variance, nonnegative=True).astype(np.float64, copy=False)
        try:
            variance = np.broadcast_to(variance, np.broadcast_shapes(variance.shape, p.shape))
        except ValueError:
            raise InputError(f"variance must be broadcastable to the sinogram's shape {p.shape}, but its shape was "
                             f"{variance.shape}.") from None
        if variance.shape != p.shape or not (variance.sum(axis=-1) > 0).all():
            raise InputError("variance must fit the sinogram and be positive somewhere at every angle, but its shape "
                             f"was {variance.shape} and its least sum over an angle {variance.sum(axis=-1).min():g}.")
    moments, fitted, residual, z, chi = [], [], [], [], []
    for n in orders:
        moment = geometry.bin_mm * (p @ s**n)
        scale = geometry.bin_mm * (np.abs(p) @ np.abs(s) ** n).mean(axis=-1)
        sigma = None if variance is None else geometry.bin_mm * np.sqrt(variance @ s ** (2 * n))
        fit, leverage = _fit_moment(moment, geometry.angles, n, sigma)
        off = moment - fit
        rms = np.sqrt(np.mean(off**2, axis=-1))
        residual.append(np.divide(rms, scale, out=np.full_like(rms, np.nan), where=scale > 0))
        moments.append(unit**n * moment)
        fitted.append(unit**n * fit)
        if sigma is not None:
            chi.append(np.sum((off / sigma) ** 2, axis=-1) / (geometry.n_angles - n - 1))
            z.append(off / (sigma * np.sqrt(1 - leverage)))
    return MomentCheck(orders, np.stack(moments, axis=-2), np.stack(fitted, axis=-2), np.stack(residual, axis=-1),
                       np.stack(z, axis=-2) if z else None, np.stack(chi, axis=-1) if chi else None)


def count_balance(counts, expected) -> CountBalance:
    r"""Compare counts with what was expected of them, in total and angle by angle.

    .. math:: z = \frac{\sum y - \sum \bar y}{\sqrt{\sum \bar y}}, \tag{CB1}

    standard normal (for more than a few counts) if y is Poisson with mean ȳ. A sinogram that was generated, thinned
    or decoded with a wrong scale shows in the ratio; one with a wrong angle shows in that angle's z.

    Parameters
    ----------
    counts : array_like, shape (..., n_angles, n_bins)
        Non-negative counts.
    expected : array_like, broadcastable to `counts`
        Their non-negative means, for example ``scan.expected`` or ``model.expected(image)``.

    Raises
    ------
    InputError
        Negative or non-finite values, shapes that do not fit.
    """
    counts = as_float_array("counts", counts, nonnegative=True).astype(np.float64, copy=False)
    expected = as_float_array("expected", expected, nonnegative=True).astype(np.float64, copy=False)
    if counts.ndim < 2:
        raise InputError(f"counts must have shape (..., n_angles, n_bins), but their shape was {counts.shape}.")
    try:
        expected = np.broadcast_to(expected, counts.shape)
    except ValueError:
        raise InputError(f"expected must be broadcastable to the counts' shape {counts.shape}, but its shape was "
                         f"{expected.shape}.") from None
    measured, mean = counts.sum(axis=-1), expected.sum(axis=-1)
    total, mean_total = measured.sum(axis=-1), mean.sum(axis=-1)
    ratio = np.divide(total, mean_total, out=np.full_like(total, np.nan), where=mean_total > 0)
    return CountBalance(ratio, _poisson_z(total, mean_total), _poisson_z(measured, mean))


def _fit_moment(moment, angles, n, sigma):
    """Return the least-squares fit of eq. (HL2) to moments (..., n_angles), and each angle's leverage."""
    k = np.arange(n + 1)
    basis = np.cos(angles)[:, np.newaxis] ** k * np.sin(angles)[:, np.newaxis] ** (n - k)
    weight = np.ones_like(angles) if sigma is None else 1 / sigma
    q, _ = np.linalg.qr(weight[..., np.newaxis] * basis)
    projected = np.einsum("...ak,...a->...k", q, weight * moment)
    return np.einsum("...ak,...k->...a", q, projected) / weight, np.sum(q**2, axis=-1)


def _poisson_z(counts, mean):
    """Return deviations in standard deviations; infinite for counts where none are expected."""
    out = np.where(counts > 0, np.inf, 0.0)
    return np.divide(counts - mean, np.sqrt(mean), out=out, where=mean > 0)


def pn_residual(channels, mask=None) -> np.ndarray:
    r"""Return how far decoded channels are from being the composite of a sinogram with a mask.

    With a mask the residual is

    .. math:: \|\hat C_+ - \hat M \hat S\|^2 + \|\hat C_- - (1 - \hat M) \hat S\|^2, \tag{PN1}

    without one it is :math:`\|\hat C_+ + \hat C_- - \hat S\|^2`, which needs no mask because the parts of any mask add
    up. Both are divided by :math:`\|\hat S\|^2`: 0 for a perfect composite, about 1 for unrelated channels.

    Parameters
    ----------
    channels : array_like, shape (..., 3, angle, bin)
        [C₊, S, C₋] as `composite` stacks them.
    mask : array_like, shape (..., angle, bin), optional
        The normalised mask M̂ in [0, 1].

    Returns
    -------
    ndarray of float64, shape (...)
        The residual of each composite; NaN where S is zero everywhere.

    Raises
    ------
    InputError
        An array without three channels, a mask that does not fit or is outside [0, 1].
    """
    c = as_float_array("channels", channels).astype(np.float64, copy=False)
    if c.ndim < 3 or c.shape[-3] != 3:
        raise InputError(f"channels must have shape (..., 3, angle, bin), but their shape was {c.shape}.")
    positive, s, negative = np.moveaxis(c, -3, 0)
    if mask is None:
        residual = _sum_of_squares(positive + negative - s)
    else:
        m = as_float_array("mask", mask, c.shape[-2:])
        if m.size and (m.min() < 0 or m.max() > 1):
            raise InputError(f"mask must be normalised to [0, 1], but its range was [{m.min():g}, {m.max():g}]; "
                             "use normalise_mask first.")
        try:
            m = np.broadcast_to(m, s.shape)
        except ValueError:
            raise InputError(f"mask must broadcast to one per composite, {s.shape}, but was {m.shape}.") from None
        residual = _sum_of_squares(positive - m * s) + _sum_of_squares(negative - (1 - m) * s)
    norm = _sum_of_squares(s)
    return np.divide(residual, norm, out=np.full_like(norm, np.nan), where=norm > 0)


def _sum_of_squares(a):
    return np.sum(np.square(a), axis=(-2, -1))
