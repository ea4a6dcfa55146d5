"""A simulated scan: from activity and attenuation to counts, and the way back to data that can be reconstructed."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from allpet_physics._arrays import as_float_array, as_positive_float, check_trailing_shape
from allpet_physics.acquisition import AcquisitionModel
from allpet_physics.background import randoms_shape, scatter_shape
from allpet_physics.counts import poisson_counts, thin
from allpet_physics.errors import GeometryError, InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.point_spread import GaussianPSF
from allpet_physics.radon import RadonOperator
from allpet_physics.scan_protocol import ScanProtocol

#: Above steel (0.066), below water in 1/cm (0.096): an attenuation map beyond it has the wrong unit.
_LARGEST_MU = 0.08


@dataclass(frozen=True, eq=False)
class Scan:
    r"""Counts of a scan, the expected parts they were drawn from, and the factors that reconstruction needs.

    .. math:: y \sim \mathrm{Poisson}(\bar y), \quad \bar y = T + S + R, \quad T = c\,D\,d\; n \cdot a \cdot A\,G\,x,
       \tag{N1}

    with calibration c, decay-weighted seconds D, dose d (1, or the fraction kept by `thinned`), normalisation n,
    attenuation factors a, projector A and point spread G. Leading axes are slices of the same scan.

    Attributes
    ----------
    geometry : ParallelGeometry
    protocol : ScanProtocol
    prompts : ndarray of int64, shape (..., n_angles, n_bins)
        All coincidences, y.
    trues, scatter, randoms : ndarray, shape (..., n_angles, n_bins)
        Expected counts T, S and R. A scanner knows estimates of S and R at best; here they are exact.
    attenuation, normalisation : ndarray, broadcastable to the prompts
        Factors a in (0, 1] and n around 1.
    calibration : float
        c, expected trues per u·mm of a line integral and second, without attenuation and at n = 1, for an activity in
        unit u. Hand it to `acquire` to scan again with the same scanner.
    dose : float
        d, the fraction of the counts that was kept.
    """

    geometry: ParallelGeometry
    protocol: ScanProtocol
    prompts: np.ndarray
    trues: np.ndarray
    scatter: np.ndarray
    randoms: np.ndarray
    attenuation: np.ndarray
    normalisation: np.ndarray
    calibration: float
    dose: float = 1.0

    @property
    def expected(self) -> np.ndarray:
        """Expected prompts ȳ: noise-free data."""
        return self.trues + self.scatter + self.randoms

    @property
    def additive(self) -> np.ndarray:
        """Expected background, scatter plus randoms."""
        return self.scatter + self.randoms

    def multiplicative(self, attenuation: bool = True) -> np.ndarray:
        """Return counts per u·mm of each bin, c·D·d·n·a, or c·D·d·n without attenuation correction."""
        level = self.calibration * self.protocol.effective_seconds * self.dose
        factors = self.normalisation * self.attenuation if attenuation else self.normalisation
        return (level * factors).astype(self.trues.dtype, copy=False)

    def model(self, operator, *, attenuation: bool = True, background: bool = True,
              point_spread: bool = True) -> AcquisitionModel:
        """Return the model that reconstructs this scan: ``osem(scan.model(A), scan.prompts, 2, 16)``, in unit u.

        Parameters
        ----------
        operator : RadonOperator
            Projector from any image grid to the scan's bins.
        attenuation, background, point_spread : bool
            What is corrected for. Without attenuation the image is the non-corrected one of clinical practice;
            without background, scatter and randoms are taken for trues.

        Raises
        ------
        InputError, GeometryError
            Something that is no RadonOperator, or one of other bins.
        """
        _check_operator(operator, self.geometry)
        width = self.protocol.psf_fwhm_mm if point_spread else 0
        return AcquisitionModel(operator, multiplicative=self.multiplicative(attenuation),
                                additive=self.additive if background else None,
                                image_operator=GaussianPSF(operator.geometry, width) if width else None)

    def precorrected(self, *, attenuation: bool = True, background: bool = True, noise: bool = True) -> np.ndarray:
        r"""Return line integrals for FBP, (y − S − R)/(c D d n a), in u·mm: ``fbp(scan.precorrected(), geometry)``.

        Bins whose factor is zero measured nothing; they are interpolated linearly along s from the nearest live bins
        of their angle (and are 0 where an angle has none). Noise makes values negative; they are kept, since clipping
        would bias the image. The variance of a value is ȳ over the factor squared.

        Parameters
        ----------
        attenuation, background : bool
            As in `model`.
        noise : bool
            Whether the prompts are corrected or, if False, their expectation.
        """
        counts = self.prompts if noise else self.expected
        factors = np.broadcast_to(self.multiplicative(attenuation), counts.shape)
        signal = (counts - self.additive if background else counts).astype(self.trues.dtype, copy=False)
        live = factors > 0
        out = np.divide(signal, factors, out=np.zeros_like(signal), where=live)
        if not live.all():
            _fill_dead_bins(out, live)
        return out

    def thinned(self, fraction: float, rng: np.random.Generator) -> "Scan":
        r"""Return the scan at a fraction of its counts, by exact binomial thinning of the prompts.

        The result is distributed as a scan whose means are all `fraction` of these: a shorter scan. (With less
        *activity*, randoms would fall with its square; the fractions stay as they are here.) The counts kept are a part
        of this scan's, so a low- and a full-dose copy are not independent.

        Parameters
        ----------
        fraction : float
            In (0, 1], for example 1/100.
        rng : numpy.random.Generator

        Raises
        ------
        InputError
            A fraction outside (0, 1], no Generator.
        """
        fraction = as_positive_float("fraction", fraction)
        kept = thin(self.prompts, fraction, rng)
        means = {name: getattr(self, name) * getattr(self, name).dtype.type(fraction)
                 for name in ("trues", "scatter", "randoms")}
        return dataclasses.replace(self, prompts=kept, dose=self.dose * fraction, **means)


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
    _check_operator(operator)
    _check_protocol(protocol)
    activity = as_float_array("activity", activity, operator.in_shape, nonnegative=True)
    blur = GaussianPSF(operator.geometry, protocol.psf_fwhm_mm)
    attenuation = None if mu is None else attenuation_factors(mu, operator)
    return acquire_projections(operator(blur(activity)), attenuation, operator.geometry, protocol, rng,
                               normalisation=normalisation, calibration=calibration)


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
    _check_operator(operator)
    mu = as_float_array("mu", mu, operator.in_shape, nonnegative=True)
    if mu.size and mu.max() > _LARGEST_MU:
        raise InputError(f"mu must be in 1/mm (water 0.0096), but its maximum was {mu.max():g}, denser than steel; "
                         "divide a map in 1/cm by 10.")
    return np.exp(-operator(mu))


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


def _fill_dead_bins(sinogram: np.ndarray, live: np.ndarray) -> None:
    bins = np.arange(sinogram.shape[-1])
    rows, alive = sinogram.reshape(-1, bins.size), live.reshape(-1, bins.size)
    for row in np.flatnonzero(~alive.all(axis=1) & alive.any(axis=1)):
        good = alive[row]
        rows[row, ~good] = np.interp(bins[~good], bins[good], rows[row, good])


def _check_operator(operator, geometry: ParallelGeometry | None = None) -> None:
    if not isinstance(operator, RadonOperator):
        raise InputError(f"operator must be a RadonOperator, but was {type(operator).__name__}.")
    check_trailing_shape("the sinogram of operator", operator.out_shape, operator.geometry.sinogram_shape)
    bins = ("n_angles", "n_bins", "bin_mm", "arc")
    if geometry is not None and any(getattr(operator.geometry, f) != getattr(geometry, f) for f in bins):
        raise GeometryError("operator must have the angles and bins of the scan, "
                            f"{ {f: getattr(geometry, f) for f in bins} }, but has "
                            f"{ {f: getattr(operator.geometry, f) for f in bins} }.")


def _check_geometry(geometry) -> None:
    if not isinstance(geometry, ParallelGeometry):
        raise InputError(f"geometry must be a ParallelGeometry, but was {type(geometry).__name__}.")


def _check_protocol(protocol) -> None:
    if not isinstance(protocol, ScanProtocol):
        raise InputError(f"protocol must be a ScanProtocol, but was {type(protocol).__name__}.")
