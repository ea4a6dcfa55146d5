"""The resolution of a scanner as a blur of the image: a Gaussian point-spread function that is its own transpose."""

import numpy as np

from allpet_physics._arrays import as_positive_float
from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.operators import LinearOperator

#: Full width at half maximum of a Gaussian in standard deviations, sqrt(8 ln 2).
FWHM_PER_SIGMA = float(np.sqrt(8 * np.log(2)))
#: The kernel ends where it leaves out less than this fraction of the counts (and is then scaled to sum to one).
_TAIL = 1e-7


class GaussianPSF(LinearOperator):
    r"""Blur images with a Gaussian of a given width in mm, the same everywhere.

    .. math:: (G x)_{rc} = \sum_{ij} k_i k_j\, x_{r-i,\,c-j}, \qquad k_n = e^{-t} I_n(t), \quad
       t = (\mathrm{FWHM} / (\Delta \sqrt{8 \ln 2}))^2, \tag{B1}

    with the discrete Gaussian k (I is the modified Bessel function), the counterpart of the continuous one on a grid of
    side Δ: its variance is t px² and two blurs in a row are one of the summed variance, however narrow they are. A
    sampled Gaussian has neither property below about two pixels of FWHM.

    At the border the image is continued by its mirror image about the outer edge of the last pixel. So the matrix is
    symmetric, no weight is negative, and rows and columns both sum to one: a constant stays a constant, the total of
    every image is kept, and ``G.T`` is ``G``. The price: activity within about one FWHM of the border, where a scan
    has none, would be blurred into itself rather than out of the image.

    Parameters
    ----------
    geometry : ParallelGeometry
        Its image grid is used.
    fwhm_mm : float
        Full width at half maximum, from zero on; zero is the identity.

    Raises
    ------
    InputError
        Something that is no geometry; a width that is negative or not finite.

    Notes
    -----
    For parallel beams, blurring the image isotropically is the same as blurring each projection along s. Real
    resolution grows towards the edge of the field and becomes radially elongated; this model has one width.

    References
    ----------
    Lindeberg 1990, Scale-space for discrete signals, IEEE PAMI 12:234.
    """

    def __init__(self, geometry: ParallelGeometry, fwhm_mm: float):
        if not isinstance(geometry, ParallelGeometry):
            raise InputError(f"geometry must be a ParallelGeometry, but was {type(geometry).__name__}.")
        self.geometry = geometry
        self.fwhm_mm = as_positive_float("fwhm_mm", fwhm_mm, allow_zero=True)
        self.in_shape = self.out_shape = geometry.image_shape
        self.kernel = discrete_gaussian((self.fwhm_mm / (FWHM_PER_SIGMA * geometry.pixel_mm)) ** 2)

    @property
    def T(self) -> "GaussianPSF":
        """The transpose: the operator itself."""
        return self

    def _apply(self, x):
        from scipy.ndimage import correlate1d

        if self.kernel.size == 1:
            return x.copy()
        rows = np.empty_like(x)
        correlate1d(x, self.kernel, axis=-1, output=rows, mode="reflect")
        return correlate1d(rows, self.kernel, axis=-2, output=np.empty_like(x), mode="reflect")

    _adjoint = _apply


def discrete_gaussian(variance: float) -> np.ndarray:
    """Return the kernel of eq. (B1) for a variance in px², float64, of odd length, summing to one."""
    from scipy.special import ive

    variance = as_positive_float("variance", variance, allow_zero=True)
    radius = int(np.ceil(7 * np.sqrt(variance))) + 8
    half = ive(np.arange(radius + 1), variance)
    # Weight beyond each lag on both sides, from the smallest terms up.
    beyond = np.append(2 * np.cumsum(half[::-1])[::-1][1:], 0.0)
    half = half[:int(np.argmax(beyond <= _TAIL)) + 1]
    kernel = np.concatenate([half[:0:-1], half])
    return kernel / kernel.sum()
