r"""Errors of each item in one domain, and how consistent a sinogram is; see `allpet_gen.evaluation.paired`."""

import numpy as np

from allpet_physics._arrays import as_float_array
from allpet_physics.consistency import helgason_ludwig
from allpet_physics.errors import InputError
from allpet_physics.metrics import (
    as_data_range,
    expected_poisson_deviance,
    normalised_rmse,
    poisson_deviance,
    psnr,
    rmse,
    ssim,
    total_error,
)

#: Expected counts below this are raised to it in the deviance: one count in a thousand such bins.
_LEAST_COUNTS = 1e-3


def paired_metrics(estimate, truth, *, data_range: float, counts=None, geometry=None, multiplicative=None,
                   additive=None) -> dict[str, np.ndarray]:
    """Return how far each estimate is from its truth, in one domain: sinograms or images.

    Parameters
    ----------
    estimate, truth : array_like, shape (..., rows, columns)
        Sinograms (angles, bins) or images, in one unit. Each truth must vary.
    data_range : float
        Of PSNR and SSIM, in that unit: one number for all items, all methods and all patients that are compared, such
        as the maximum or the 99.9 % quantile of the whole reference set. Never the range of each image, and never of
        the estimate; `allpet_gen.evaluation.paired` says why.
    counts : array_like, of the same shape, optional
        For sinograms: measured counts whose mean the estimate is to be. Take counts that were not used to make the
        estimate, or the deviance is flattered: for low doses, the full counts less the low ones, with the estimate
        scaled to that dose.
    geometry : ParallelGeometry, optional
        For sinograms: tests the Helgason-Ludwig conditions; see `consistency_residuals`.
    multiplicative, additive : array_like, optional
        What the estimate contains besides line integrals; see `consistency_residuals`.

    Returns
    -------
    dict of str to ndarray of float64, shape (...)
        ``psnr`` (dB), ``ssim``, ``rmse``, ``nrmse``, ``total_error`` (signed, relative) and ``absolute_total_error``;
        with counts ``deviance`` (mean of a bin), ``deviance_expected`` (what it is on average if the estimate is
        right: not 1 for few counts) and ``deviance_floored``, the share of bins whose estimate was below 0.001 counts,
        or negative, and was raised to it; with a geometry ``consistency_0`` to ``consistency_3`` by the moment's order.

    Raises
    ------
    InputError
        Arrays of different shape, NaN or Inf, a range that is not one positive number, constant truths, negative
        counts; what `consistency_residuals` refuses.
    """
    data_range = as_data_range(data_range)
    found = {"psnr": psnr(estimate, truth, data_range=data_range), "ssim": ssim(estimate, truth, data_range=data_range),
             "rmse": rmse(estimate, truth), "nrmse": normalised_rmse(estimate, truth),
             "total_error": total_error(estimate, truth)}
    truth = np.asarray(truth)
    flat = np.flatnonzero(truth.max(axis=(-2, -1)) == truth.min(axis=(-2, -1)))
    if flat.size:
        raise InputError(f"truth must vary within each item, but {flat.size} of {truth[..., 0, 0].size} were constant, "
                         f"the first at index {flat[0]}; leave them out, and report how many there were.")
    found["absolute_total_error"] = np.abs(found["total_error"])
    if counts is not None:
        if np.shape(counts) != truth.shape:
            raise InputError(f"counts must have the shape of estimate, {truth.shape}, but their shape was "
                             f"{np.shape(counts)}.")
        found["deviance"] = poisson_deviance(counts, estimate, floor=_LEAST_COUNTS)
        found["deviance_expected"] = expected_poisson_deviance(estimate, floor=_LEAST_COUNTS)
        found["deviance_floored"] = (np.asarray(estimate) < _LEAST_COUNTS).mean(axis=(-2, -1))
    if geometry is not None:
        found |= consistency_residuals(estimate, geometry, multiplicative=multiplicative, additive=additive)
    return found


def consistency_residuals(sinogram, geometry, *, multiplicative=None, additive=None) -> dict[str, np.ndarray]:
    r"""Return the Helgason-Ludwig residuals of the line integrals in a sinogram, eq. (HL3) of orders 0 to 3.

    Only line integrals are consistent, so what else the sinogram holds must be given and is taken out,

    .. math:: \hat p = (\hat y - b) / a. \tag{PE1}

    Noise has a residual of its own: hold an estimate's against that of the truth.

    Parameters
    ----------
    sinogram : array_like, shape (..., n_angles, n_bins)
    geometry : ParallelGeometry
    multiplicative, additive : array_like, broadcastable to `sinogram`, optional
        Factors a, positive, and background b of what was translated, ``scan.multiplicative()`` and ``scan.additive``;
        none for a sinogram that is corrected already.

    Returns
    -------
    dict of str to ndarray of float64, shape (...)
        ``consistency_0`` to ``consistency_3``; NaN for a sinogram that is zero everywhere.

    Raises
    ------
    InputError
        What `helgason_ludwig` refuses; factors that are not positive, or do not fit.
    """
    lines = as_float_array("sinogram", sinogram).astype(np.float64, copy=False)
    if additive is not None:
        lines = lines - _fitting("additive", additive, lines.shape)
    if multiplicative is not None:
        factors = _fitting("multiplicative", multiplicative, lines.shape)
        if factors.size and factors.min() <= 0:
            raise InputError(f"multiplicative must be positive, but its minimum was {factors.min():g}; bins that "
                             "measure nothing have no line integral.")
        lines = lines / factors
    residual = helgason_ludwig(lines, geometry, orders=range(4)).residual
    return {f"consistency_{n}": residual[..., n] for n in range(4)}


def _fitting(name: str, value, shape: tuple[int, ...]) -> np.ndarray:
    value = as_float_array(name, value)
    try:
        return np.broadcast_to(value, shape)
    except ValueError:
        raise InputError(f"{name} must be broadcastable to the sinogram's shape {shape}, but its shape was "
                         f"{value.shape}.") from None
