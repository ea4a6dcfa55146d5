"""Simulated scans: from activity and attenuation to counts."""

import numpy as np

from allpet_physics._arrays import as_float_array, as_positive_float
from allpet_physics.background import randoms_shape, scatter_shape
from allpet_physics.counts import poisson_counts
from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.point_spread import GaussianPSF
from allpet_physics.radon import RadonOperator
from allpet_physics.scan_data import Scan, check_operator
from allpet_physics.scan_protocol import ScanProtocol

#: Above steel (0.066), below water in 1/cm (0.096): an attenuation map beyond it has the wrong unit.
_LARGEST_MU = 0.08


def acquire(activity, mu, operator: RadonOperator, protocol: ScanProtocol, rng: np.random.Generator, *,
            normalisation=None, calibration: float | None = None) -> Scan:
    """Scan an activity: blur, project, attenuate, add scatter and randoms, then count.

    Parameters
    ----------
    activity : array_like, shape (..., rows, cols)
        Non-negative activity in any unit u, decay-corrected to the protocol's time zero. Leading axes are slices that
        share one calibration.
    mu : array_like, shape (..., rows, cols), or None
        Attenuation map at 511 keV in 1/mm, broadcastable to `activity`; None is air.
    operator : RadonOperator
        Projector of the whole geometry.
    protocol, rng, normalisation, calibration
        As in `acquire_projections`.

    Raises
    ------
    InputError, GeometryError
        As in `acquire_projections`; an image of another shape; a map that seems to be in 1/cm.
    """
    check_operator(operator)
    _check_protocol(protocol)
    activity = as_float_array("activity", activity, operator.in_shape, nonnegative=True)
    blurred = GaussianPSF(operator.geometry, protocol.psf_fwhm_mm)(activity)
    attenuation = None
    if mu is None:
        lines = operator(blurred)
    else:
        mu = _checked_mu(mu, operator).astype(activity.dtype, copy=False)
        # Projected together: two slices cost the projector little more than one.
        flat = [image.reshape(-1, *operator.in_shape) for image in (blurred, mu)]
        both = operator(np.concatenate(flat))
        lines = both[:len(flat[0])].reshape(activity.shape[:-2] + operator.out_shape)
        attenuation = np.exp(-both[len(flat[0]):]).reshape(mu.shape[:-2] + operator.out_shape)
    return acquire_projections(lines, attenuation, operator.geometry, protocol, rng, normalisation=normalisation,
                               calibration=calibration)


def acquire_projections(line_integrals, attenuation, geometry: ParallelGeometry, protocol: ScanProtocol,
                        rng: np.random.Generator, *, normalisation=None,
                        calibration: float | None = None) -> Scan:
    """Scan projections that are known already, for example the exact ones of an analytic phantom.

    Parameters
    ----------
    line_integrals : array_like, shape (..., n_angles, n_bins)
        Non-negative line integrals of the activity in u·mm, with the scanner's resolution in them. Negative values
        within rounding (1e-6 of the maximum) are taken for zero.
    attenuation : array_like, broadcastable to `line_integrals`, or None
        Factors a in [0, 1], as of `attenuation_factors`; None is 1.
    geometry : ParallelGeometry
    protocol : ScanProtocol
        Its scatter and randoms fractions hold in every slice that has activity, for the expected counts exactly.
    rng : numpy.random.Generator
        For the Poisson draw.
    normalisation : array_like, broadcastable to `line_integrals`, optional
        Factors n around 1 of the scanner, as of `detector_efficiencies`; they apply to scatter and randoms, too.
    calibration : float, optional
        Counts per u·mm and second, as another scan has it. By default it follows from ``protocol.counts``, the
        expected prompts of a slice (their mean, where there are several).

    Raises
    ------
    InputError
        Negative or non-finite input, factors outside their range, shapes that do not fit, no activity at all,
        no Generator.
    """
    _check_geometry(geometry)
    _check_protocol(protocol)
    lines = _without_rounding(as_float_array("line_integrals", line_integrals, geometry.sinogram_shape))
    attenuation = _factors("attenuation", attenuation, lines)
    if attenuation.max() > 1:
        raise InputError(f"attenuation must be factors from 0 to 1, exp(-integral of mu), but its maximum was "
                         f"{attenuation.max():g}.")
    normalisation = _factors("normalisation", normalisation, lines)
    reaching = lines * attenuation
    rate = normalisation * reaching
    counted = rate.sum(axis=(-2, -1), dtype=np.float64)
    if calibration is None:
        if not counted.sum() > 0:
            raise InputError("activity must be positive somewhere within the field of view to be scaled to "
                             f"{protocol.counts:g} counts, but no expected count was; pass a calibration instead.")
        trues_budget = protocol.counts * (1 - protocol.scatter_fraction) * (1 - protocol.randoms_fraction)
        calibration = trues_budget / (counted.mean() * protocol.effective_seconds)
    calibration = as_positive_float("calibration", calibration)
    level = calibration * protocol.effective_seconds
    n_trues = level * counted
    n_scatter = n_trues * protocol.scatter_fraction / (1 - protocol.scatter_fraction)
    n_randoms = (n_trues + n_scatter) * protocol.randoms_fraction / (1 - protocol.randoms_fraction)
    trues = rate * rate.dtype.type(level)
    scatter = randoms = np.zeros_like(trues)
    if protocol.scatter_fraction:
        scatter = _scaled(normalisation * scatter_shape(reaching, geometry), n_scatter)
    if protocol.randoms_fraction:
        singles = randoms_shape(lines * np.sqrt(attenuation), geometry, ring_diameter_mm=protocol.ring_diameter_mm)
        randoms = _scaled(normalisation * singles, n_randoms)
    prompts = poisson_counts(trues + scatter + randoms, rng)
    return Scan(geometry, protocol, prompts, trues, scatter, randoms, attenuation, normalisation, calibration)


def attenuation_factors(mu, operator: RadonOperator) -> np.ndarray:
    r"""Return the fraction of photon pairs that leave the body along each line.

    .. math:: a = e^{-A \mu}, \tag{N2}

    the same wherever on the line a pair starts.

    Parameters
    ----------
    mu : array_like, shape (..., rows, cols)
        Attenuation map at 511 keV in **1/mm** (water: 0.0096).
    operator : RadonOperator

    Returns
    -------
    ndarray, shape (..., n_angles, n_bins)
        Factors in (0, 1].

    Raises
    ------
    InputError
        A map that is negative, not finite, of another shape, or denser than steel, as one in 1/cm would be.
    """
    check_operator(operator)
    return np.exp(-operator(_checked_mu(mu, operator)))


def _checked_mu(mu, operator: RadonOperator) -> np.ndarray:
    mu = as_float_array("mu", mu, operator.in_shape, nonnegative=True)
    if mu.size and mu.max() > _LARGEST_MU:
        raise InputError(f"mu must be in 1/mm (water 0.0096), but its maximum was {mu.max():g}, denser than steel; "
                         "divide a map in 1/cm by 10.")
    return mu


def _without_rounding(lines: np.ndarray) -> np.ndarray:
    """Return line integrals with the small negative values of differences of cumulatives set to zero."""
    if lines.size and lines.min() < 0:
        if lines.min() < -1e-6 * lines.max():
            raise InputError(f"line_integrals must not be negative, but its minimum was {lines.min():g}.")
        return np.maximum(lines, 0)
    return lines


def _scaled(shape: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Scale each sinogram to its total; one that is zero stays zero."""
    sums = shape.sum(axis=(-2, -1), dtype=np.float64)
    factor = np.divide(totals, sums, out=np.zeros(np.shape(sums)), where=sums > 0)
    return shape * factor[..., np.newaxis, np.newaxis].astype(shape.dtype)


def _factors(name: str, value, lines: np.ndarray) -> np.ndarray:
    """Return non-negative bin factors in the working precision, with at least the sinogram's axes."""
    if value is None:
        return np.ones(lines.shape[-2:], lines.dtype)
    factors = as_float_array(name, value, nonnegative=True).astype(lines.dtype, copy=False)
    try:
        shape = np.broadcast_shapes(factors.shape, lines.shape)
    except ValueError:
        shape = None
    if shape != lines.shape:
        raise InputError(f"{name} must be broadcastable to the projections' shape {lines.shape}, "
                         f"but its shape was {factors.shape}.")
    return np.broadcast_to(factors, lines.shape[-2:]) if factors.ndim < 2 else factors


def _check_geometry(geometry) -> None:
    if not isinstance(geometry, ParallelGeometry):
        raise InputError(f"geometry must be a ParallelGeometry, but was {type(geometry).__name__}.")


def _check_protocol(protocol) -> None:
    if not isinstance(protocol, ScanProtocol):
        raise InputError(f"protocol must be a ScanProtocol, but was {type(protocol).__name__}.")
