"""What a scanner counts besides true coincidences, and how unequal its lines of response are: shapes, without a scale.

Scatter and randoms of a real scan come from all of the body and of the scanner. A single slice knows neither, so the
shapes here are models: smooth, cheap, of the right width, and no more. Each function says what it leaves out.
"""

from functools import lru_cache

import numpy as np

from allpet_physics._arrays import as_float_array, as_positive_float, as_positive_int
from allpet_physics.errors import GeometryError, InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.point_spread import FWHM_PER_SIGMA

#: Width of scatter along s. An assumption: measured scatter of a body is a broad bell about as wide as the body.
SCATTER_FWHM_MM = 200.0
#: Width of scatter over the angle. An assumption: scatter has forgotten most of the direction of its line.
SCATTER_FWHM_RAD = np.pi / 3
#: Diameter of the detector ring: 81 cm, as of GE Discovery 690 and the DigitMI 930.
RING_DIAMETER_MM = 810.0
#: Sectors of the ring for which singles are estimated: wide enough to be smooth.
_SECTORS = 72
#: Share of the singles that is the same all around the ring. An assumption.
_UNIFORM_SINGLES = 0.5


def scatter_shape(trues, geometry: ParallelGeometry, *, fwhm_mm: float = SCATTER_FWHM_MM,
                  fwhm_rad: float = SCATTER_FWHM_RAD) -> np.ndarray:
    r"""Return the shape of scatter: attenuated trues, blurred broadly along s and over the angle.

    .. math:: s(\theta, s) \propto \int\!\!\int t(\theta', s')\,
       e^{-(s - s')^2 / 2\sigma_s^2}\, e^{-(\theta - \theta')^2 / 2\sigma_\theta^2}\, ds'\, d\theta' \tag{D1}

    Angles wrap around with :math:`t(\theta + \pi, s) = t(\theta, -s)`, so there is no seam; along s the trues are
    zero beyond the bins, and the tails reach outside the body, as measured ones do.

    Parameters
    ----------
    trues : array_like, shape (..., n_angles, n_bins)
        Expected true coincidences after attenuation, before the normalisation; any scale.
    geometry : ParallelGeometry
    fwhm_mm, fwhm_rad : float
        Widths of the kernel.

    Returns
    -------
    ndarray, shape (..., n_angles, n_bins)
        Non-negative, with the dtype of `trues`; its sum is somewhat below that of `trues` (tails beyond the bins).

    Raises
    ------
    InputError
        Trues that are negative, not finite or of another shape; widths that are not positive.

    Notes
    -----
    A convolution of the trues, the idea of convolution-subtraction, with a Gaussian in place of their exponential. It
    depends on attenuation only through the trues: no Klein-Nishina angle, no energy window, no scatter from activity
    outside the slice, and the same kernel for a lung and a liver. Real scatter is also drawn towards dense tissue. The
    amount is set by the caller's scatter fraction, which is where most of the effect on images lies.

    References
    ----------
    Bergström et al. 1983, J. Comput. Assist. Tomogr. 7:42; Bailey & Meikle 1994, Phys. Med. Biol. 39:411.
    """
    from scipy import fft

    _check_geometry(geometry)
    trues = as_float_array("trues", trues, geometry.sinogram_shape, nonnegative=True)
    sigma_bins = as_positive_float("fwhm_mm", fwhm_mm) / FWHM_PER_SIGMA / geometry.bin_mm
    sigma_rad = as_positive_float("fwhm_rad", fwhm_rad) / FWHM_PER_SIGMA
    whole = trues if geometry.arc > 4 else np.concatenate([trues, trues[..., ::-1]], axis=-2)
    n_angles, n_bins = whole.shape[-2:]
    # Beyond three standard deviations less than 1.2 % of the peak can wrap around, into the outermost bins alone.
    length = fft.next_fast_len(n_bins + int(np.ceil(3 * sigma_bins)), real=True)
    harmonics = np.arange(n_angles) - n_angles * (np.arange(n_angles) > n_angles // 2)
    radial = np.exp(-2 * (np.pi * sigma_bins * fft.rfftfreq(length)) ** 2)
    # A wrapped Gaussian has the Fourier series exp(-(k σ)²/2); harmonics that it removes need no transform.
    kept = np.flatnonzero(harmonics.astype(np.float64) ** 2 * sigma_rad**2 < 2 * np.log(1e9))
    kept_radial = int(np.count_nonzero(radial > 1e-9))
    spectrum = fft.rfft(whole, length, axis=-1)[..., :kept_radial] * radial[:kept_radial].astype(trues.dtype)
    smoothed = np.zeros_like(spectrum)
    angular = np.exp(-((harmonics[kept] * sigma_rad) ** 2) / 2)
    smoothed[..., kept, :] = fft.fft(spectrum, axis=-2)[..., kept, :] * angular[:, np.newaxis].astype(trues.dtype)
    smoothed = fft.ifft(smoothed, axis=-2)[..., :geometry.n_angles, :]
    out = fft.irfft(smoothed, length, axis=-1)[..., :n_bins]
    return np.maximum(out, 0).astype(trues.dtype, copy=False)


def randoms_shape(emission, geometry: ParallelGeometry, *, ring_diameter_mm: float = RING_DIAMETER_MM) -> np.ndarray:
    r"""Return the shape of random coincidences: the product of the singles at both ends of each line.

    .. math:: r(\theta, s) \propto \frac{S(\varphi_+)\, S(\varphi_-)}{\sqrt{R^2 - s^2}}, \qquad
       \varphi_\pm = \theta \pm \arccos(s / R), \tag{D2}

    on a ring of radius R; the root is the density of detector pairs per unit of s in uniform bins. Singles S are
    estimated per sector of the ring from the emission along the lines that end there (fan sums), half of them; the
    other half is taken as uniform, for photons that were scattered or come from outside the slice. The result is
    smooth, nearly uniform, and fills all of the field of view.

    Parameters
    ----------
    emission : array_like, shape (..., n_angles, n_bins)
        Projections of the activity times the share of *single* photons that leave the body, the square root of the
        attenuation factor of the pair (the emission lies, on average, half-way); any scale.
    geometry : ParallelGeometry
    ring_diameter_mm : float
        Diameter of the detector ring, larger than the bins' extent.

    Returns
    -------
    ndarray, shape (..., n_angles, n_bins)
        Non-negative, with the dtype of `emission`; the mean of each sinogram is 1, or 0 without emission.

    Raises
    ------
    InputError, GeometryError
        An emission that is negative, not finite or of another shape; a ring no larger than the field of view.

    Notes
    -----
    The share of uniform singles is an assumption; dead time, blocks and gaps are left out.

    References
    ----------
    Casey & Hoffman 1986, J. Comput. Assist. Tomogr. 10:845 (randoms from singles, fan sums).
    """
    _check_geometry(geometry)
    emission = as_float_array("emission", emission, geometry.sinogram_shape, nonnegative=True)
    first, second, density = _sectors_of_lines(geometry, _ring_diameter(geometry, ring_diameter_mm))
    flat = emission.reshape(-1, density.size)
    # What ends in a sector over the pairs that do: a rate, whatever the number of bins that meet there.
    ends = (first + second).T
    singles = (ends @ flat.T) / (ends @ density)[:, np.newaxis]
    mean = singles.mean(axis=0)
    singles = np.divide(singles, mean, out=np.zeros_like(singles), where=mean > 0)
    singles = np.where(mean > 0, (1 - _UNIFORM_SINGLES) * singles + _UNIFORM_SINGLES, 0)
    pairs = ((first @ singles) * (second @ singles)).T * density
    level = pairs.mean(axis=1, keepdims=True)
    pairs = np.divide(pairs, level, out=pairs, where=level > 0)
    return pairs.reshape(emission.shape).astype(emission.dtype, copy=False)


def detector_efficiencies(geometry: ParallelGeometry, rng: np.random.Generator, *, spread: float = 0.05,
                          n_crystals: int = 576, ring_diameter_mm: float = RING_DIAMETER_MM) -> np.ndarray:
    r"""Draw normalisation factors: products of the efficiencies of the two crystals that a line joins.

    .. math:: n(\theta, s) = \varepsilon(\varphi_+)\, \varepsilon(\varphi_-), \qquad
       \varphi_\pm = \theta \pm \arccos(s / R). \tag{D3}

    Crystals are drawn independently from a log-normal distribution of mean 1 and interpolated linearly around the
    ring, as arc correction does; a weak crystal is a diagonal line in the sinogram, bent like those of a scanner.

    Parameters
    ----------
    geometry : ParallelGeometry
    rng : numpy.random.Generator
    spread : float
        Standard deviation of a crystal's efficiency; an assumption, 0 gives 1 everywhere.
    n_crystals : int
        Crystals around the ring, 576 of 4.4 mm on 81 cm by default.
    ring_diameter_mm : float

    Returns
    -------
    ndarray of float64, shape (n_angles, n_bins)
        Factors around 1.

    Raises
    ------
    InputError, GeometryError
        A negative spread, no crystals, no Generator, a ring no larger than the field of view.
    """
    _check_geometry(geometry)
    if not isinstance(rng, np.random.Generator):
        raise InputError(f"rng must be a numpy.random.Generator, as np.random.default_rng(seed) makes, "
                         f"but was {type(rng).__name__}.")
    spread = as_positive_float("spread", spread, allow_zero=True)
    n_crystals = as_positive_int("n_crystals", n_crystals)
    width = np.sqrt(np.log1p(spread**2))
    crystals = np.exp(width * rng.standard_normal(n_crystals) - width**2 / 2)
    factors = np.ones(geometry.sinogram_shape)
    for position in _ring_positions(geometry, _ring_diameter(geometry, ring_diameter_mm)):
        factors *= np.interp(position, np.arange(n_crystals + 1) / n_crystals, np.append(crystals, crystals[0]))
    return factors


def _ring_diameter(geometry: ParallelGeometry, ring_diameter_mm) -> float:
    diameter = as_positive_float("ring_diameter_mm", ring_diameter_mm)
    if diameter <= 2 * np.abs(geometry.bin_centres).max():
        raise GeometryError(f"ring_diameter_mm must be larger than the field of view of the bins, "
                            f"{geometry.fov_mm:g}, but was {diameter:g}.")
    return diameter


@lru_cache(maxsize=8)
def _ring_positions(geometry: ParallelGeometry, diameter: float) -> tuple[np.ndarray, np.ndarray]:
    """Return where each line meets the ring, twice, in turns from 0 to 1, shape (n_angles, n_bins)."""
    half = np.arccos(2 * geometry.bin_centres / diameter)
    both = tuple(np.mod((geometry.angles[:, np.newaxis] + sign * half) / (2 * np.pi), 1.0) for sign in (1, -1))
    for position in both:
        position.setflags(write=False)
    return both


@lru_cache(maxsize=8)
def _sectors_of_lines(geometry: ParallelGeometry, diameter: float):
    """Return two sparse matrices that interpolate sectors at either end of each line, and the density of pairs."""
    from scipy.sparse import csr_array

    n = geometry.n_angles * geometry.n_bins
    both = []
    for position in _ring_positions(geometry, diameter):
        low = np.floor(position.ravel() * _SECTORS).astype(np.intp)
        weight = position.ravel() * _SECTORS - low
        sectors = np.stack([low % _SECTORS, (low + 1) % _SECTORS], axis=1)
        values = np.stack([1 - weight, weight], axis=1)
        both.append(csr_array((values.ravel(), sectors.ravel(), np.arange(0, 2 * n + 1, 2)), shape=(n, _SECTORS)))
    density = 1 / np.sqrt(1 - (2 * geometry.bin_centres / diameter) ** 2)
    return *both, np.tile(density, geometry.n_angles)


def _check_geometry(geometry) -> None:
    if not isinstance(geometry, ParallelGeometry):
        raise InputError(f"geometry must be a ParallelGeometry, but was {type(geometry).__name__}.")
