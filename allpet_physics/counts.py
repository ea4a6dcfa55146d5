"""Counting statistics: Poisson draws, exact thinning, count budgets."""

import numpy as np

from allpet_physics._arrays import as_float_array
from allpet_physics.errors import InputError

#: Above this mean numpy's Poisson sampler nears the end of 64-bit integers.
_LARGEST_MEAN = 1e18


def poisson_counts(mean, rng: np.random.Generator) -> np.ndarray:
    """Draw independent Poisson counts with the given means.

    Parameters
    ----------
    mean : array_like
        Expected counts, finite and non-negative, any shape.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, int64, of the shape of `mean`

    Raises
    ------
    InputError
        A negative, NaN, infinite or larger than 1e18 mean; an `rng` that is no Generator.
    """
    _check_rng(rng)
    mean = as_float_array("mean", mean, nonnegative=True).reshape(np.shape(mean))
    if mean.size and mean.max() > _LARGEST_MEAN:
        raise InputError(f"mean must be at most {_LARGEST_MEAN:g} counts, but its maximum was {mean.max():g}.")
    return np.asarray(rng.poisson(mean), dtype=np.int64)


def thin(counts, fraction, rng: np.random.Generator) -> np.ndarray:
    r"""Keep each count with a given probability: a scan of a fraction of the time, exactly.

    .. math:: k_i \mid y_i \sim \mathrm{Binomial}(y_i, p). \tag{C1}

    If y is Poisson with mean λ, then k is Poisson with mean pλ and the rest y - k is Poisson with mean (1 - p)λ,
    independent of k; both hold bin by bin, whatever λ is. Of a fraction of the dose it is the scan but for randoms,
    which fall with the square of the activity, and dead time. Data that were scaled, corrected or resampled are not
    counts, and no thinning of them is exact.

    Parameters
    ----------
    counts : array_like
        Non-negative integers (of an integer or a float dtype), any shape.
    fraction : float or array_like
        Probability p in [0, 1] that a count is kept (1/100 for a dose 100 times lower), broadcastable to `counts`.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, of the shape and dtype of `counts`

    Raises
    ------
    InputError
        Counts that are negative or no integers, a fraction outside [0, 1], an `rng` that is no Generator.

    References
    ----------
    Kingman 1993, Poisson Processes, section 5.1 (colouring theorem).
    """
    _check_rng(rng)
    counts = np.asarray(counts)
    if counts.dtype.kind not in "iuf":
        raise InputError(f"counts must be an array of non-negative integers, but its dtype was {counts.dtype}.")
    whole = counts
    if counts.dtype.kind == "f":
        whole = as_float_array("counts", counts, nonnegative=True).reshape(counts.shape)
    if whole.size and whole.min() < 0:
        raise InputError(f"counts must not be negative, but its minimum was {whole.min()}.")
    if counts.dtype.kind == "f" and (whole != np.floor(whole)).any():
        first = float(whole[whole != np.floor(whole)].flat[0])
        raise InputError(f"counts must be integers, but held {first!r}; thin the counts as measured, "
                         "before any scaling, correction or resampling.")
    if whole.size and whole.max() >= 2**63:
        raise InputError(f"counts must be below 2**63, but its maximum was {whole.max():g}.")
    fraction = as_float_array("fraction", fraction).reshape(np.shape(fraction))
    if fraction.size and (fraction.min() < 0 or fraction.max() > 1):
        raise InputError(f"fraction must be from 0 to 1, but was from {fraction.min():g} to {fraction.max():g}.")
    try:
        fraction = np.broadcast_to(fraction, counts.shape)
    except ValueError:
        raise InputError(f"fraction must be broadcastable to the shape of counts, {counts.shape}, "
                         f"but its shape was {fraction.shape}.") from None
    return np.asarray(rng.binomial(whole.astype(np.int64), fraction)).astype(counts.dtype)


def scale_to_counts(mean, total) -> np.ndarray:
    """Scale sinograms so that each holds a given number of expected counts.

    Parameters
    ----------
    mean : array_like, shape (..., n_angles, n_bins)
        Non-negative sinograms in any unit.
    total : float or array_like
        Expected counts of one sinogram, greater than zero; an array gives one for each item of the batch.

    Returns
    -------
    ndarray, shape (..., n_angles, n_bins)
        float64 if `mean` is, float32 otherwise. The sum of each sinogram is taken in float64.

    Raises
    ------
    InputError
        Negative or non-finite values, a sinogram that is zero everywhere, totals that do not fit the batch.
    """
    mean = as_float_array("mean", mean, nonnegative=True)
    if mean.ndim < 2:
        raise InputError(f"mean must have shape (..., n_angles, n_bins), but its shape was {mean.shape}.")
    total = as_float_array("total", total).reshape(np.shape(total)).astype(np.float64)
    if total.size and total.min() <= 0:
        raise InputError(f"total must be greater than zero, but its minimum was {total.min():g}.")
    sums = mean.sum(axis=(-2, -1), dtype=np.float64)
    if sums.size and sums.min() == 0:
        raise InputError("mean must have a positive sum in every sinogram, but "
                         f"{np.count_nonzero(sums == 0)} of {sums.size} were zero everywhere.")
    try:
        total = np.broadcast_to(total, sums.shape)
    except ValueError:
        raise InputError(f"total must be one number or have the batch's shape {sums.shape}, "
                         f"but its shape was {total.shape}.") from None
    factor = (total / sums)[..., np.newaxis, np.newaxis]
    return np.multiply(mean, factor).astype(mean.dtype, copy=False)


def _check_rng(rng) -> None:
    if not isinstance(rng, np.random.Generator):
        raise InputError(f"rng must be a numpy.random.Generator, as np.random.default_rng(seed) makes, "
                         f"but was {type(rng).__name__}.")
