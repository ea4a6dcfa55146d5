r"""Named statistics of a sinogram or an image, in the manner of radiomics, by our own equations.

Let p be one array of counts, q = p / mean(p), w = p / Σp and u = √p (whose Poisson noise has the variance 1/4).

First order: ln Σp; deviation, skewness and excess kurtosis of q; the quantiles 0.1, 0.5, 0.9 and 0.99 of q; the share
of zeros; the entropy and the uniformity of w,

.. math:: H = -\sum w \ln w - \ln N, \qquad U = \ln\Big(N \sum w^2\Big), \tag{R1}

both 0 for a flat array of N bins.

Moments of a *sinogram*, with s from −1 to 1 over the bins and w(s|θ) = p / Σ_s p at each angle:

.. math:: c(\theta) = \sum_s s\,w, \quad v(\theta) = \sum_s (s - c)^2 w, \quad
          \gamma_k(\theta) = \sum_s (s - c)^k w / v^{k/2}. \tag{R2}

Features are the coefficient of variation over θ of Σ_s p (0 for line integrals: Helgason–Ludwig order 0), the amplitude
of the first Fourier component of c over 2π (how far the centre of activity is from the axis) and the deviation of what
remains, the mean of √v, the amplitude of the second component of √v relative to its mean (elongation), the mean over θ
of γ₄ and the root mean square of γ₃. Amplitudes do not change when the patient is turned.

Moments of an *image*, with r and φ about the centre of activity in units of half the width: the distance of that centre
from the array's, mean and deviation of r, and

.. math:: a_m = \Big|\sum w\,r^2 e^{i m \varphi}\Big| \Big/ \sum w\,r^2, \quad m = 2, 3, 4, \tag{R3}

and the kurtosis of r about the centre, Σ w r⁴ / (Σ w r²)².

Spectrum: with P = |FFT(u − ū)|² / N (of a sinogram over the whole turn, where it is periodic), ln of the mean of P in
bands of the radial frequency with the edges 1/64, 1/32, 1/16, 1/8, 1/4, 1/2 and 0.75 cycles per sample. White Poisson
noise has P = 1/4 in every band. Fewer than 64 samples have no frequency in the lowest band, which takes the next one's
value.

Gradient: of u by differences of neighbours, g = √(Δ_row² + Δ_col²): mean, deviation and 0.95 quantile of g, and ln of
the ratio of the mean squares of Δ_row and Δ_col.
"""

from itertools import pairwise

import numpy as np

from allpet_gen.evaluation._checks import in_parts
from allpet_gen.symmetry import extended
from allpet_physics._arrays import as_positive_int
from allpet_physics.errors import InputError

_BAND_EDGES = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 0.75)
_FIRST_ORDER = ("log_total", "deviation", "skewness", "kurtosis", "quantile_10", "quantile_50", "quantile_90",
                "quantile_99", "zero_share", "entropy", "uniformity")
_MOMENTS = {
    "sinogram": ("angle_total_variation", "centre_amplitude", "centre_residual", "width", "elongation",
                 "width_kurtosis", "width_skewness"),
    "image": ("centre_distance", "radius_mean", "radius_deviation", "angular_2", "angular_3", "angular_4",
              "radius_kurtosis"),
}
_SPECTRUM = tuple(f"log_power_{low:.3g}_{high:.3g}" for low, high in pairwise(_BAND_EDGES))
_GRADIENT = ("gradient_mean", "gradient_deviation", "gradient_quantile_95", "gradient_anisotropy")
#: Keeps logarithms of a power finite; far below the 1/4 of counting noise.
_SMALLEST_POWER = 1e-6


class StatisticsFeatures:
    """Named statistics of counts: first order, moments (R1–R3), spectrum and gradient.

    Parameters
    ----------
    domain : {"sinogram", "image"}
    arc : float
        Of sinograms, π or 2π.
    batch_size : int
        Items that are in work at once.

    Attributes
    ----------
    names : tuple of str
        Of the features, in their order.

    Raises
    ------
    InputError
        Another domain.
    """

    def __init__(self, domain: str = "sinogram", *, arc: float = np.pi, batch_size: int = 64):
        if domain not in _MOMENTS:
            raise InputError(f'domain must be "sinogram" or "image", but was {domain!r}.')
        self.domain, self.arc = domain, float(arc)
        self.batch_size = as_positive_int("batch_size", batch_size)
        self.names = _FIRST_ORDER + _MOMENTS[domain] + _SPECTRUM + _GRADIENT
        self.n_features = len(self.names)
        self.name = f"statistics ({domain})"

    def __call__(self, batch) -> np.ndarray:
        """Return the statistics of non-negative arrays (n, rows, columns), shape (n, d), float64.

        Raises
        ------
        InputError
            Another shape, under 32 rows or columns, NaN, Inf, negative values, empty or constant items.
        """
        return in_parts(self._statistics, batch, self.batch_size, minimum=32)

    def _statistics(self, p: np.ndarray) -> np.ndarray:
        p = p.astype(np.float64)
        moments = _sinogram_moments(p, self.arc) if self.domain == "sinogram" else _image_moments(p)
        root = np.sqrt(extended(p, self.arc) if self.domain == "sinogram" else p)
        return np.stack([*_first_order(p), *moments, *_spectrum(root), *_gradient(np.sqrt(p))], axis=1)


def _first_order(p: np.ndarray) -> list[np.ndarray]:
    flat = p.reshape(len(p), -1)
    total = flat.sum(1)
    w = flat / total[:, None]
    q = w * flat.shape[1]
    deviation = q.std(1)
    z = (q - 1) / deviation[:, None]
    entropy = -np.sum(w * np.log(np.where(w > 0, w, 1)), axis=1) - np.log(flat.shape[1])
    return [np.log(total), deviation, (z**3).mean(1), (z**4).mean(1) - 3,
            *np.quantile(q, [0.1, 0.5, 0.9, 0.99], axis=1), (flat == 0).mean(1), entropy,
            np.log(flat.shape[1] * (w**2).sum(1))]


def _sinogram_moments(p: np.ndarray, arc: float) -> list[np.ndarray]:
    s = np.linspace(-1, 1, p.shape[2])
    totals = p.sum(2)
    # An angle without counts has no moments; it gets those of equal counts in the middle bins.
    w = np.where(totals[..., None] > 0, p, np.abs(s) <= 1.5 * np.abs(s).min())
    w = w / w.sum(2, keepdims=True)
    centre = w @ s
    about = s - centre[..., None]
    variance = np.maximum((w * about**2).sum(2), (s[1] - s[0]) ** 2 / 12)  # at least that of one bin
    third, fourth = ((w * about**k).sum(2) / variance ** (k / 2) for k in (3, 4))
    theta = arc * np.arange(p.shape[1]) / p.shape[1]
    # c(θ + π) = −c(θ) and v(θ + π) = v(θ): half a turn gives the components of the whole.
    first = 2 * (centre * np.exp(-1j * theta)).mean(1)
    residual = centre - (first[:, None] * np.exp(1j * theta)).real
    width = np.sqrt(variance)
    second = 2 * np.abs((width * np.exp(-2j * theta)).mean(1))
    return [totals.std(1) / totals.mean(1), np.abs(first), np.sqrt((residual**2).mean(1)), width.mean(1),
            second / width.mean(1), fourth.mean(1),
            np.sqrt((third**2).mean(1))]


def _image_moments(p: np.ndarray) -> list[np.ndarray]:
    rows, columns = p.shape[1:]
    half = max(rows, columns) / 2
    y = ((np.arange(rows) - (rows - 1) / 2) / half)[:, None]
    x = ((np.arange(columns) - (columns - 1) / 2) / half)[None]
    w = p / p.sum((1, 2), keepdims=True)
    centre_x, centre_y = (w * x).sum((1, 2)), (w * y).sum((1, 2))
    z = (x - centre_x[:, None, None]) + 1j * (y - centre_y[:, None, None])
    r = np.abs(z)
    second = (w * r**2).sum((1, 2))
    mean = (w * r).sum((1, 2))
    direction = z / np.where(r > 0, r, 1)
    angular = [np.abs((w * r**2 * direction**m).sum((1, 2))) / second for m in (2, 3, 4)]
    return [np.hypot(centre_x, centre_y), mean, np.sqrt(np.maximum(second - mean**2, 0)), *angular,
            (w * r**4).sum((1, 2)) / second**2]


def _spectrum(u: np.ndarray) -> list[np.ndarray]:
    n = u.shape[1] * u.shape[2]
    power = np.abs(np.fft.rfft2(u - u.mean((1, 2), keepdims=True))) ** 2 / n
    radius = np.hypot(np.fft.fftfreq(u.shape[1])[:, None], np.fft.rfftfreq(u.shape[2])[None])
    # Of a real array half of the frequencies are stored; the others count twice.
    twice = np.full(power.shape[2], 2.0)
    twice[0] = 1
    if u.shape[2] % 2 == 0:
        twice[-1] = 1
    out = []
    for low, high in reversed(tuple(pairwise(_BAND_EDGES))):
        weight = ((radius >= low) & (radius < high)) * twice
        if weight.any():
            out.append(np.log(np.maximum((power * weight).sum((1, 2)) / weight.sum(), _SMALLEST_POWER)))
        else:
            out.append(out[-1])
    return out[::-1]


def _gradient(u: np.ndarray) -> list[np.ndarray]:
    by_row, by_column = np.diff(u, axis=1)[:, :, :-1], np.diff(u, axis=2)[:, :-1]
    size = np.hypot(by_row, by_column).reshape(len(u), -1)
    energy = [np.maximum((d**2).mean((1, 2)), _SMALLEST_POWER) for d in (by_row, by_column)]
    return [size.mean(1), size.std(1), np.quantile(size, 0.95, axis=1), np.log(energy[0] / energy[1])]
