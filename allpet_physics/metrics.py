r"""How far an estimate is from a known truth: RMSE, PSNR, SSIM, total counts, Poisson deviance.

Everything is measured item by item over the last two axes, rows and columns of an image or angles and bins of a
sinogram, in the unit that the arrays have: nothing is rescaled, clipped or masked here.
"""

from functools import cache

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import gammaln, kl_div, xlogy

from allpet_physics._arrays import as_float_array, as_positive_float
from allpet_physics.errors import InputError

#: Of SSIM as its authors define it: standard deviation of the window in pixels, where it is cut, K1 and K2.
_SIGMA, _RADIUS, _K1, _K2 = 1.5, 5, 0.01, 0.03
#: Above this mean the expected deviance is 1 + 1/(6λ) + 1/(6λ²) to 1e-5; a table serves below.
_LARGE_MEAN = 60.0


def rmse(estimate, truth) -> np.ndarray:
    r"""Return the root mean squared error of each item, in its unit.

    .. math:: \mathrm{RMSE} = \sqrt{\langle(\hat x - x)^2\rangle}. \tag{E1}

    Parameters
    ----------
    estimate, truth : array_like, shape (..., rows, columns)

    Returns
    -------
    ndarray of float64, shape (...)

    Raises
    ------
    InputError
        Arrays of different shape or without items, NaN, Inf.
    """
    return _each(_rmse, *_pair(estimate, truth))


def normalised_rmse(estimate, truth) -> np.ndarray:
    r"""Return the RMSE of each item over the root mean square of its truth, which needs no range and no unit.

    .. math:: \mathrm{NRMSE} = \sqrt{\langle(\hat x - x)^2\rangle / \langle x^2\rangle}: \tag{E2}

    0 for the truth, 1 for an estimate that is zero everywhere. NaN where the truth is zero everywhere. Arguments and
    errors are those of `rmse`.
    """
    estimate, truth = _pair(estimate, truth)
    size = _each(lambda x, _: np.sqrt(np.mean(np.square(x))), truth, truth)
    return np.divide(_each(_rmse, estimate, truth), size, out=np.full_like(size, np.nan), where=size > 0)


def psnr(estimate, truth, *, data_range: float) -> np.ndarray:
    r"""Return the peak signal-to-noise ratio of each item in decibels.

    .. math:: \mathrm{PSNR} = 20 \log_{10}(R / \mathrm{RMSE}), \tag{E3}

    infinite where the estimate equals its truth.

    Parameters
    ----------
    estimate, truth : array_like, shape (..., rows, columns)
    data_range : float
        R, one number for all items that are to be compared or averaged, in their unit.

    Returns
    -------
    ndarray of float64, shape (...)

    Raises
    ------
    InputError
        As `rmse`, and a range that is not one positive number.
    """
    data_range, error = as_data_range(data_range), rmse(estimate, truth)
    with np.errstate(divide="ignore"):
        return 20 * (np.log10(data_range) - np.log10(error))


def ssim(estimate, truth, *, data_range: float) -> np.ndarray:
    r"""Return the mean structural similarity of each item, 1 for its truth.

    .. math:: \mathrm{SSIM} = \Big\langle\frac{(2\mu_x\mu_y + C_1)(2\sigma_{xy} + C_2)}
              {(\mu_x^2 + \mu_y^2 + C_1)(\sigma_x^2 + \sigma_y^2 + C_2)}\Big\rangle, \quad
              C_1 = (0.01 R)^2,\ C_2 = (0.03 R)^2, \tag{E4}

    with means and (co)variances under a Gaussian window of 1.5 pixels, 11 × 11, averaged over the windows that lie
    inside. A large range makes C₁ and C₂ swallow what is faint: SSIM of different ranges cannot be compared.

    Parameters
    ----------
    estimate, truth : array_like, shape (..., rows, columns)
        At least 11 rows and columns.
    data_range : float
        R, as for `psnr`.

    Returns
    -------
    ndarray of float64, shape (...)

    Raises
    ------
    InputError
        As `psnr`, and items smaller than the window.

    References
    ----------
    Wang et al. 2004, IEEE Trans. Image Process. 13:600, eq. 13.
    """
    data_range, (estimate, truth) = as_data_range(data_range), _pair(estimate, truth)
    least = 2 * _RADIUS + 1
    if min(estimate.shape[-2:]) < least:
        raise InputError(f"estimate must have at least {least} rows and columns for the window of SSIM, but its shape "
                         f"was {estimate.shape}.")
    return _each(lambda x, y: _ssim(x, y, (_K1 * data_range) ** 2, (_K2 * data_range) ** 2), estimate, truth)


def total_error(estimate, truth) -> np.ndarray:
    r"""Return the signed relative error of each item's total.

    .. math:: \varepsilon = \textstyle\sum\hat x \big/ \sum x - 1; \tag{E5}

    NaN where the total of the truth is not positive, as it may be for counts with background subtracted. Arguments and
    errors are those of `rmse`.
    """
    estimate, truth = _pair(estimate, truth)
    found, total = (x.sum(axis=(-2, -1), dtype=np.float64) for x in (estimate, truth))
    return np.divide(found, total, out=np.full_like(total, np.nan), where=total > 0) - 1


def poisson_deviance(counts, expected, *, floor: float = 1e-3) -> np.ndarray:
    r"""Return the mean Poisson deviance of each item's bins: how badly expected counts λ explain measured ones.

    .. math:: D = \big\langle 2\,[n \ln(n/\lambda) - (n - \lambda)]\big\rangle. \tag{E6}

    It is about 1 if the counts are Poisson around λ and λ is beyond some ten counts; for few counts it is not, so hold
    it against `expected_poisson_deviance` of the same λ.

    Parameters
    ----------
    counts : array_like, shape (..., rows, columns)
        Non-negative.
    expected : array_like, of the same shape
        Their means.
    floor : float
        Lower means are raised to it, since one count where none is possible has an infinite deviance.

    Returns
    -------
    ndarray of float64, shape (...)

    Raises
    ------
    InputError
        Arrays of different shape or without items, NaN, Inf, negative counts, a floor that is not positive.
    """
    counts, expected = _pair(counts, expected, names=("counts", "expected"))
    if counts.min() < 0:
        raise InputError(f"counts must not be negative, but their minimum was {counts.min():g}; give the measured "
                         "counts, without background subtracted.")
    floor = as_positive_float("floor", floor)
    return _each(lambda n, mean: 2 * kl_div(n, np.maximum(mean, floor)).mean(), counts, expected)


def expected_poisson_deviance(expected, *, floor: float = 1e-3) -> np.ndarray:
    r"""Return what `poisson_deviance` is on average if the expected counts λ are right.

    .. math:: E[D] = \big\langle 2\,(E[n \ln n] - \lambda \ln\lambda)\big\rangle,
              \qquad n \sim \mathrm{Poisson}(\lambda), \tag{E7}

    which vanishes with λ, is largest, 1.16, near one and a half counts, and falls to 1 + 1/(6λ) for many.

    Parameters
    ----------
    expected : array_like, shape (..., rows, columns)
    floor : float
        As for `poisson_deviance`.

    Returns
    -------
    ndarray of float64, shape (...)

    Raises
    ------
    InputError
        An array without items, NaN, Inf, a floor that is not positive.
    """
    expected, _ = _pair(expected, expected, names=("expected", "expected"))
    floor = as_positive_float("floor", floor)
    return _each(lambda mean, _: _deviance_of_mean(np.maximum(mean, floor)).mean(), expected, expected)


def as_data_range(data_range) -> float:
    """Return a range as a float, or say that it must be one positive number."""
    if np.ndim(data_range):
        raise InputError("data_range must be one number for all items, such as the maximum or a high quantile of the "
                         f"whole reference set, but had the shape {np.shape(data_range)}.")
    return as_positive_float("data_range", data_range)


def _pair(first, second, names=("estimate", "truth")) -> tuple[np.ndarray, np.ndarray]:
    first, second = (as_float_array(name, array) for name, array in zip(names, (first, second), strict=True))
    if first.shape != second.shape:
        raise InputError(f"{names[0]} must have the shape of {names[1]}, {second.shape}, but its shape was "
                         f"{first.shape}.")
    if first.ndim < 2 or first.size == 0:
        raise InputError(f"{names[0]} must have shape (..., rows, columns) and hold something, but its shape was "
                         f"{first.shape}.")
    return first, second


def _each(function, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return a number for each item; one item at a time is float64, never the batch."""
    items = (a.reshape(-1, *a.shape[-2:]) for a in (first, second))
    values = [function(x.astype(np.float64), y.astype(np.float64)) for x, y in zip(*items, strict=True)]
    return np.array(values).reshape(first.shape[:-2])


def _rmse(x: np.ndarray, y: np.ndarray) -> float:
    return np.sqrt(np.mean(np.square(x - y)))


def _ssim(x: np.ndarray, y: np.ndarray, c1: float, c2: float) -> float:
    def window(a):
        return gaussian_filter(a, _SIGMA, radius=_RADIUS)[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS]

    mean_x, mean_y = window(x), window(y)
    variances = window(x * x) + window(y * y) - mean_x**2 - mean_y**2
    covariance = window(x * y) - mean_x * mean_y
    return np.mean((2 * mean_x * mean_y + c1) * (2 * covariance + c2)
                   / ((mean_x**2 + mean_y**2 + c1) * (variances + c2)))


def _deviance_of_mean(mean: np.ndarray) -> np.ndarray:
    large = 1 + (1 + 1 / mean) / (6 * mean)
    return np.where(mean > _LARGE_MEAN, large, np.interp(mean**0.25, *_deviance_table()))


@cache
def _deviance_table() -> tuple[np.ndarray, np.ndarray]:
    """Return (E7) over the fourth root of λ, by its sum over all counts that matter."""
    root = np.linspace(0, _LARGE_MEAN**0.25, 2001)
    mean, n = root[1:, None] ** 4, np.arange(1, 200)
    with np.errstate(under="ignore"):
        expectation = np.exp(xlogy(n, mean) - mean - gammaln(n + 1)) @ xlogy(n, n)
    return root, np.append(0, 2 * (expectation - xlogy(mean, mean)[:, 0]))
