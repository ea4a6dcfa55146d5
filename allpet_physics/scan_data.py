"""The record of a simulated scan: its counts, their expected parts, and the way back to data for reconstruction."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from allpet_physics._arrays import as_positive_float, check_trailing_shape
from allpet_physics.acquisition import AcquisitionModel
from allpet_physics.counts import thin
from allpet_physics.errors import GeometryError, InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.point_spread import GaussianPSF
from allpet_physics.radon import RadonOperator
from allpet_physics.scan_protocol import ScanProtocol


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
        check_operator(operator, self.geometry)
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


def check_operator(operator, geometry: ParallelGeometry | None = None) -> None:
    """Raise unless `operator` projects all angles of its geometry, and those and the bins are the given geometry's."""
    if not isinstance(operator, RadonOperator):
        raise InputError(f"operator must be a RadonOperator, but was {type(operator).__name__}.")
    check_trailing_shape("the sinogram of operator", operator.out_shape, operator.geometry.sinogram_shape)
    bins = ("n_angles", "n_bins", "bin_mm", "arc")
    if geometry is not None and any(getattr(operator.geometry, f) != getattr(geometry, f) for f in bins):
        raise GeometryError("operator must have the angles and bins of the scan, "
                            f"{ {f: getattr(geometry, f) for f in bins} }, but has "
                            f"{ {f: getattr(operator.geometry, f) for f in bins} }.")


def _fill_dead_bins(sinogram: np.ndarray, live: np.ndarray) -> None:
    bins = np.arange(sinogram.shape[-1])
    rows, alive = sinogram.reshape(-1, bins.size), live.reshape(-1, bins.size)
    for row in np.flatnonzero(~alive.all(axis=1) & alive.any(axis=1)):
        good = alive[row]
        rows[row, ~good] = np.interp(bins[~good], bins[good], rows[row, good])
