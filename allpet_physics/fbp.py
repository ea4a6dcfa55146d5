"""Filtered back projection of parallel-beam sinograms."""

import numpy as np

from allpet_physics._arrays import as_float_array, as_positive_float, as_positive_int
from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry

#: Windows that multiply the ramp, all 1 at zero frequency; f is the frequency over the cutoff, in [0, 1].
_WINDOWS = {
    "ramp": lambda f: np.ones_like(f),
    "shepp-logan": lambda f: np.sinc(f / 2),
    "cosine": lambda f: np.cos(np.pi * f / 2),
    "hamming": lambda f: 0.54 + 0.46 * np.cos(np.pi * f),
    "hann": lambda f: 0.5 + 0.5 * np.cos(np.pi * f),
}

#: Names that `fbp` knows.
FILTERS = tuple(_WINDOWS)

#: Filtered projections held at once, so that a long series of slices needs little more memory than its images.
_WORKSPACE_BYTES = 64 * 2**20


def fbp(sinogram, geometry: ParallelGeometry, filter: str = "ramp", *, cutoff: float = 1.0,
        mask_fov: bool = False) -> np.ndarray:
    r"""Reconstruct images from parallel-beam sinograms by filtered back projection.

    .. math::

        q_\theta(s_j) &= w \sum_b h(s_j - s_b)\, p_\theta(s_b), \tag{F1} \\
        f(x, y) &= \frac{\pi}{n_\mathrm{angles}} \sum_\theta q_\theta(x\cos\theta + y\sin\theta), \tag{F2}

    with the band-limited ramp h of `ramp_kernel` times a window, convolved without wrap-around (zero-padded), and q
    interpolated linearly at each pixel centre. The factor holds for both arcs: over 2π every line is measured twice
    and averaged. A bin that was not measured counts as zero, and q is computed as far out as the image reaches, so an
    object inside the field of view leaves no rim of artefacts around it.

    Parameters
    ----------
    sinogram : array_like, shape (..., n_angles, n_bins)
        Line integrals, or their bin means, in unit u·mm. float64 is kept, all else becomes float32.
    geometry : ParallelGeometry
        Sinogram grid and image grid; any sizes of bin and pixel.
    filter : {"ramp", "shepp-logan", "cosine", "hamming", "hann"}
        The window; "ramp" is none. The windows damp noise and resolution alike and keep the scale.
    cutoff : float
        Frequency, as a fraction (0, 1] of the Nyquist frequency 1/(2w), beyond which the filter is zero and to which
        the window is stretched.
    mask_fov : bool
        Whether pixels whose centre lies outside the field of view, the disc of diameter ``geometry.fov_mm`` that
        every angle sees, are set to zero.

    Returns
    -------
    ndarray, shape (..., rows, cols)
        Images in unit u, signed: noise and a sparse arc give negative values.

    Raises
    ------
    InputError
        An unknown filter, a cutoff outside (0, 1], a sinogram of another shape, NaN or Inf.

    References
    ----------
    Kak & Slaney, Principles of Computerized Tomographic Imaging (1988), section 3.3, eqs. 57-68.
    """
    if not isinstance(geometry, ParallelGeometry):
        raise InputError(f"geometry must be a ParallelGeometry, but was {type(geometry).__name__}.")
    sinogram = as_float_array("sinogram", sinogram, geometry.sinogram_shape)
    batch = sinogram.shape[:-2]
    flat = sinogram.reshape((int(np.prod(batch)), *geometry.sinogram_shape))
    image = np.empty((len(flat), *geometry.image_shape), flat.dtype)

    extra = _bins_beyond(geometry)
    n_extended = geometry.n_bins + 2 * extra
    n_fft = _transform_length(geometry.n_bins + n_extended - 1)
    response = filter_response(n_fft, geometry.bin_mm, filter, cutoff=cutoff)
    at_once = max(1, _WORKSPACE_BYTES // (geometry.n_angles * n_fft * flat.itemsize))
    for first in range(0, len(flat), at_once):
        part = slice(first, first + at_once)
        _back_project(_filtered(flat[part], response, n_fft, extra), geometry, extra, image[part])
    if mask_fov:
        radius = np.hypot(geometry.x, geometry.y[:, np.newaxis])
        image[:, radius > geometry.fov_mm / 2] = 0
    return image.reshape(batch + geometry.image_shape)


def ramp_kernel(n_lags: int, bin_mm: float) -> np.ndarray:
    r"""Return the band-limited ramp's impulse response at lags 0 to n_lags - 1, in 1/mm².

    .. math:: h(0) = \frac{1}{4w^2}, \qquad h(nw) = -\frac{1}{(\pi n w)^2}\ (n\ \text{odd}), \qquad 0\ (n\ \text{even})
       \tag{F3}

    Sampling |f| in the frequency domain instead would set the zero frequency to 0 and lower every image by a constant.

    References
    ----------
    Kak & Slaney (1988), eq. 3.61.
    """
    lag = np.arange(as_positive_int("n_lags", n_lags))
    kernel = np.zeros(lag.size)
    odd = lag % 2 == 1
    kernel[odd] = -1 / (np.pi * lag[odd]) ** 2
    kernel[0] = 0.25
    return kernel / as_positive_float("bin_mm", bin_mm) ** 2


def filter_response(n_fft: int, bin_mm: float, filter: str = "ramp", *, cutoff: float = 1.0) -> np.ndarray:
    """Return the frequency response of w·h times its window, in 1/mm, at ``scipy.fft.rfftfreq(n_fft)``.

    Parameters
    ----------
    n_fft : int
        Length of the zero-padded transform, in bins.
    bin_mm : float
        Bin width w.
    filter, cutoff
        As in `fbp`.

    Returns
    -------
    ndarray, float64, shape (n_fft // 2 + 1,)
    """
    from scipy import fft

    if not isinstance(filter, str) or filter not in _WINDOWS:
        raise InputError(f"filter must be one of {', '.join(FILTERS)}, but was {filter!r}; "
                         "back projection without a filter is RadonOperator(geometry).T(sinogram).")
    limit = as_positive_float("cutoff", cutoff)
    if limit > 1:
        raise InputError(f"cutoff must be at most 1, the Nyquist frequency, but was {limit:g}.")
    n_fft = as_positive_int("n_fft", n_fft)
    lag = np.arange(n_fft)
    kernel = bin_mm * ramp_kernel(n_fft, bin_mm)[np.minimum(lag, n_fft - lag)]
    fraction = 2 * fft.rfftfreq(n_fft) / limit
    window = np.where(fraction <= 1, _WINDOWS[filter](np.minimum(fraction, 1.0)), 0.0)
    return fft.rfft(kernel).real * window


def _bins_beyond(geometry: ParallelGeometry) -> int:
    """Bins to add at either end so that every pixel centre lies between two samples at every angle."""
    reach = np.hypot(geometry.x[0], geometry.y[0]) / geometry.bin_mm
    return max(0, int(np.ceil(reach - (geometry.n_bins - 1) / 2))) + 1


def _transform_length(n: int) -> int:
    from scipy import fft

    return fft.next_fast_len(n, real=True)


def _filtered(sinogram: np.ndarray, response: np.ndarray, n_fft: int, extra: int) -> np.ndarray:
    """Convolve each projection with the filter; the result has `extra` more bins at either end."""
    from scipy import fft

    n_bins = sinogram.shape[-1]
    spectrum = fft.rfft(sinogram, n_fft)
    spectrum *= response.astype(sinogram.dtype)
    periodic = fft.irfft(spectrum, n_fft)
    out = np.empty((*sinogram.shape[:-1], n_bins + 2 * extra), sinogram.dtype)
    # Negative positions stand at the end of the period.
    out[..., :extra] = periodic[..., n_fft - extra:]
    out[..., extra:] = periodic[..., :n_bins + extra]
    return out


def _back_project(filtered: np.ndarray, geometry: ParallelGeometry, extra: int, image: np.ndarray) -> None:
    from allpet_physics._fbp_kernels import back_project_linear

    cos, sin = np.cos(geometry.angles), np.sin(geometry.angles)
    origin = (geometry.n_bins - 1) / 2 + extra
    start = origin + (geometry.x[0] * cos + geometry.y[0] * sin) / geometry.bin_mm
    step = geometry.pixel_mm / geometry.bin_mm
    back_project_linear(filtered, start, -step * sin, step * cos, np.pi / geometry.n_angles, image)
