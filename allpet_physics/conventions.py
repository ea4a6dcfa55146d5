r"""Converters between this library's sinograms and those of ASTRA, scikit-image and STIR.

Here a sinogram is ``[..., angle, bin]`` with :math:`s = x\cos\theta + y\sin\theta`, x growing with the column, y
against the row, the origin at the middle of the grid, :math:`\theta_i = i\,\mathrm{arc}/n`, and the values in the
image's unit times mm. What differs elsewhere:

============  ==================  =====================  ==============================  =====================
              axis order          direction              s = 0 at (n bins)               length unit
============  ==================  =====================  ==============================  =====================
here          angle, bin          θ                      (n − 1)/2                       mm
ASTRA         angle, bin          θ                      (n − 1)/2                       of the geometry
scikit-image  bin, angle          θ                      n // 2, and pixel n // 2        pixel
STIR          view, tangential    φ = −θ                 n // 2                          mm
============  ==================  =====================  ==============================  =====================

For odd sizes every conversion is a permutation and a factor, hence exact. For even sizes scikit-image and STIR put the
centre half a sample away from ours; each converter says what it does about that.
"""

import numpy as np

from allpet_physics._arrays import as_float_array, as_positive_float, check_trailing_shape
from allpet_physics.errors import GeometryError, InputError
from allpet_physics.geometry import ParallelGeometry


def to_astra(geometry: ParallelGeometry, *, unit_mm: float = 1.0) -> tuple[dict, dict]:
    """Return ASTRA's projection and volume geometry for `geometry`, in that order.

    Both are written in lengths of `unit_mm` millimetres. ASTRA's line integrals come in that same unit, so with the
    default of 1 mm its ``strip`` and ``linear`` sinograms equal ours; with ``unit_mm=geometry.pixel_mm``, the habit of
    most ASTRA scripts, they must be multiplied by `unit_mm` (`sinogram_from_astra` does).

    Raises
    ------
    InputError
        ASTRA is not installed; `unit_mm` is not a positive number.
    """
    unit = as_positive_float("unit_mm", unit_mm)
    try:
        import astra
    except ImportError as error:
        raise InputError('to_astra needs the ASTRA Toolbox, which is not installed; install it with: '
                         'pip install ".[astra]" in the source folder of allpet.') from error
    rows, cols = geometry.image_shape
    half_x, half_y = cols * geometry.pixel_mm / (2 * unit), rows * geometry.pixel_mm / (2 * unit)
    projection = astra.create_proj_geom("parallel", geometry.bin_mm / unit, geometry.n_bins, geometry.angles)
    return projection, astra.create_vol_geom(rows, cols, -half_x, half_x, -half_y, half_y)


def from_astra(projection: dict, volume: dict, *, unit_mm: float = 1.0) -> ParallelGeometry:
    """Return our geometry for ASTRA's projection and volume geometry: the inverse of `to_astra`.

    Parameters
    ----------
    projection : dict
        Of type "parallel", with angles i·arc/n from 0 on, over π or 2π.
    volume : dict
        2D, with square pixels, centred on the origin.
    unit_mm : float
        Millimetres per unit of length in both.

    Raises
    ------
    InputError
        `unit_mm` is not a positive number.
    GeometryError
        Another beam, angles that are no equal steps over π or 2π, pixels that are not square, a volume off centre.
    """
    unit = as_positive_float("unit_mm", unit_mm)
    if projection.get("type") != "parallel":
        raise GeometryError(f'projection must be of ASTRA\'s type "parallel", but was {projection.get("type")!r}.')
    angles = np.asarray(projection["ProjectionAngles"], np.float64)
    for arc in (np.pi, 2 * np.pi):
        if np.allclose(angles, np.arange(angles.size) * (arc / angles.size), rtol=0, atol=1e-6 * arc / angles.size):
            break
    else:
        raise GeometryError("the projection's angles must be i·arc/n from 0 on, over pi or 2 pi, but run from "
                            f"{angles.min():.4g} to {angles.max():.4g}; use a geometry with more angles and "
                            "RadonOperator(...).subset(indices).")
    rows, cols = volume["GridRowCount"], volume["GridColCount"]
    option = volume.get("option", {})
    left, right = option.get("WindowMinX", -cols / 2), option.get("WindowMaxX", cols / 2)
    low, high = option.get("WindowMinY", -rows / 2), option.get("WindowMaxY", rows / 2)
    width, height = (right - left) / cols, (high - low) / rows
    if abs(width - height) > 1e-6 * width or max(abs(left + right), abs(low + high)) > 1e-6 * (right - left):
        raise GeometryError("the volume must have square pixels and lie centred on the origin, but its pixels were "
                            f"{width:.6g} by {height:.6g} and its middle ({(left + right) / 2:.4g}, "
                            f"{(low + high) / 2:.4g}).")
    return ParallelGeometry(angles.size, projection["DetectorCount"], projection["DetectorWidth"] * unit, (rows, cols),
                            width * unit, arc)


def sinogram_from_astra(sinogram, geometry: ParallelGeometry, *, unit_mm: float = 1.0) -> np.ndarray:
    """Return ASTRA's `sinogram` ``[..., angle, bin]``, made with lengths of `unit_mm`, in image unit times mm."""
    return _scaled(_checked(sinogram, geometry), as_positive_float("unit_mm", unit_mm))


def sinogram_to_astra(sinogram, geometry: ParallelGeometry, *, unit_mm: float = 1.0) -> np.ndarray:
    """Return our `sinogram` ``[..., angle, bin]`` in ASTRA lengths of `unit_mm`: the inverse of the above."""
    return _scaled(_checked(sinogram, geometry), 1 / as_positive_float("unit_mm", unit_mm))


def sinogram_from_skimage(sinogram, geometry: ParallelGeometry) -> np.ndarray:
    r"""Convert the result of ``skimage.transform.radon(image, np.degrees(geometry.angles), circle=True)``.

    scikit-image's sinogram is ``[bin, angle]`` with lengths in pixels, and the same sense of rotation as ours. It turns
    about the *pixel* n // 2 and that pixel projects to bin n // 2. For odd n this is the middle, and the conversion is
    exact. For even n the middle of the image is half a pixel off its centre of rotation, and a point that we see at
    bin b lies there at

    .. math:: b + \tfrac12\,(1 - \cos\theta + \sin\theta), \tag{C1}

    a shift of up to 1.21 bins that depends on the angle; it is undone by cubic-spline interpolation along the bins
    (samples beyond the edge count as zero, as they are for ``circle=True``), which keeps smooth objects but may
    overshoot at sharp edges.

    Parameters
    ----------
    sinogram : array_like
        Shape ``(..., n_bins, n_angles)``.
    geometry : ParallelGeometry
        Ours; the image must be square with as many bins as columns and bins as wide as pixels.

    Returns
    -------
    ndarray
        Shape ``(..., n_angles, n_bins)``, in image unit times mm.

    Raises
    ------
    GeometryError
        The geometry is one that scikit-image cannot express.
    InputError
        The sinogram has another shape.
    """
    _check_skimage(geometry)
    a = as_float_array("sinogram", sinogram, geometry.sinogram_shape[::-1])
    out = np.swapaxes(a, -1, -2)
    if geometry.n_bins % 2 == 0:
        out = _sample_at_offset(out, _skimage_shift(geometry))
    return _scaled(out, geometry.pixel_mm)


def sinogram_to_skimage(sinogram, geometry: ParallelGeometry) -> np.ndarray:
    """Convert our sinogram ``(..., n_angles, n_bins)`` to scikit-image's ``(..., n_bins, n_angles)`` in pixels.

    The result suits ``skimage.transform.iradon(result, np.degrees(geometry.angles), circle=True)`` and compares with
    ``radon``. Even sizes are shifted along the bins as `sinogram_from_skimage` says. Raises what it raises.
    """
    _check_skimage(geometry)
    out = _checked(sinogram, geometry)
    if geometry.n_bins % 2 == 0:
        out = _sample_at_offset(out, -_skimage_shift(geometry))
    return _scaled(np.swapaxes(out, -1, -2), 1 / geometry.pixel_mm)


def sinogram_from_stir(sinogram, geometry: ParallelGeometry, *, view_offset: float = 0.0,
                       centred: bool = False) -> np.ndarray:
    r"""Convert a STIR sinogram ``[..., view, tangential]`` (leading axes: segment, axial position) to ours.

    STIR's x points right and its y *down* as one looks from the bed into the gantry, and (``ProjDataInfoCylindrical``)

    .. math:: s = X\cos\varphi + Y\sin\varphi,\qquad \varphi_v = v\,\pi/n_\mathrm{views} + \varphi_0, \tag{C2}

    so view 0 without offset looks along the vertical and s grows to the right there. A STIR image ``[y, x]`` and our
    image ``[row, col]`` are the same array; as our y points up, φ = −θ, and by p(θ + π, s) = p(θ, −s)

    .. math:: p(\theta_i, s) = p_\mathrm{STIR}(\varphi_{n-i}, -s)\quad (i \ge 1), \qquad
              p(\theta_0, s) = p_\mathrm{STIR}(\varphi_0, s). \tag{C3}

    Tangential position 0, at s = 0, is the element n // 2. For an odd number of bins that is the middle and the
    conversion only permutes. An even number runs from −n/2 to n/2 − 1: it gets one more bin, a zero at the end where
    nothing was measured, and `geometry` must have that odd number. Values are not changed.

    Parameters
    ----------
    sinogram : array_like
        Shape ``(..., n_views, n_tangential)``; arc-corrected, views over π.
    geometry : ParallelGeometry
        Ours, of the result: arc π, n_views angles, n_tangential (odd) or n_tangential + 1 (even) bins.
    view_offset : float
        φ₀ in radians, STIR's "View offset"; a whole number of view steps.
    centred : bool
        The data have s = 0 at (n − 1)/2 for even n too, as this library's own Interfile files say of themselves: all
        sizes are then permuted exactly and keep their shape.

    Raises
    ------
    GeometryError
        An arc of 2π, an even `geometry.n_bins`, an offset that falls between views.
    InputError
        The sinogram has another shape.
    """
    angle, flipped = _stir_views(geometry, view_offset)
    if geometry.n_bins % 2 == 0 and not centred:
        raise GeometryError(f"geometry.n_bins must be odd, because STIR measures s = 0 in the middle of a bin, but was "
                            f"{geometry.n_bins}; use geometry.replace(n_bins={geometry.n_bins + 1}).")
    a = as_float_array("sinogram", sinogram)
    if not centred and a.ndim >= 2 and a.shape[-1] == geometry.n_bins - 1:
        a = np.concatenate([a, np.zeros((*a.shape[:-1], 1), a.dtype)], axis=-1)
    check_trailing_shape("sinogram", a.shape, geometry.sinogram_shape)
    out = np.empty_like(a)
    out[..., angle[~flipped], :] = a[..., ~flipped, :]
    out[..., angle[flipped], :] = a[..., flipped, ::-1]
    return out


def sinogram_to_stir(sinogram, geometry: ParallelGeometry, *, view_offset: float = 0.0,
                     centred: bool = False) -> np.ndarray:
    """Convert our sinogram ``(..., n_angles, n_bins)`` to STIR's ``(..., view, tangential)``.

    The inverse of `sinogram_from_stir`, exact for odd `n_bins`. An even number has no bin at s = 0; the result then
    has ``n_bins + 1`` bins at whole multiples of `bin_mm`, half a bin from ours, found by cubic-spline interpolation.
    With `centred` they are permuted only and stay half a bin away from where STIR takes them to be.

    Raises
    ------
    GeometryError
        An arc of 2π, an offset that falls between views.
    InputError
        The sinogram has another shape.
    """
    angle, flipped = _stir_views(geometry, view_offset)
    a = _checked(sinogram, geometry)
    if geometry.n_bins % 2 == 0 and not centred:
        wider = np.concatenate([a, np.zeros((*a.shape[:-1], 1), a.dtype)], axis=-1)
        a = _sample_at_offset(wider, np.full(geometry.n_angles, -0.5))
    out = a[..., angle, :]
    out[..., flipped, :] = out[..., flipped, ::-1].copy()
    return out


def _checked(sinogram, geometry):
    return as_float_array("sinogram", sinogram, geometry.sinogram_shape)


def _scaled(a, factor):
    return np.ascontiguousarray(a * a.dtype.type(factor))


def _check_skimage(geometry):
    rows, cols = geometry.image_shape
    if rows != cols or geometry.n_bins != cols or not np.isclose(geometry.bin_mm, geometry.pixel_mm, rtol=1e-9):
        raise GeometryError(
            "geometry must have a square image, as many bins as columns and bins as wide as pixels to be one of "
            f"scikit-image's (circle=True), but had a {rows} x {cols} image of {geometry.pixel_mm:g} mm and "
            f"{geometry.n_bins} bins of {geometry.bin_mm:g} mm; resample the sinogram first.")


def _skimage_shift(geometry):
    """How many bins further on scikit-image puts a point than we do, at each angle, for even sizes (C1)."""
    return 0.5 * (1 - np.cos(geometry.angles) + np.sin(geometry.angles))


def _stir_views(geometry, view_offset):
    """Our angle index of each STIR view, and whether its bins run backwards (C3)."""
    if geometry.arc != np.pi:
        raise GeometryError("geometry.arc must be pi for STIR, whose PET views run over half a turn, but was 2 pi; "
                            "merge the half-turns by p(theta + pi, s) = p(theta, -s) first.")
    n = geometry.n_angles
    steps = float(view_offset) * n / np.pi
    if not np.isfinite(steps) or abs(steps - round(steps)) > 1e-3:
        raise GeometryError(
            f"view_offset must be a whole number of view steps ({np.pi / n:.6g} rad), but was {view_offset:g} rad; "
            "convert without it and turn the reconstructed image by the offset instead.")
    turned = -(np.arange(n) + round(steps))
    return turned % n, (turned // n) % 2 == 1


def _sample_at_offset(a, offset):
    """Return ``a[..., i, b + offset[i]]``, zero outside, by cubic B-spline interpolation along the last axis.

    At a fixed offset f within a sample the interpolation is a filter of four taps, the cubic B-spline at f + 1, f,
    f − 1, f − 2, on the spline coefficients.
    """
    from scipy.ndimage import spline_filter1d

    margin = 16  # the coefficients' prefilter decays by 0.27 per sample: 16 samples reach 1e-9
    padded = np.pad(a, [(0, 0)] * (a.ndim - 1) + [(margin, margin)])
    coefficients = spline_filter1d(padded, order=3, axis=-1, output=np.float64)
    whole = np.floor(offset).astype(int)
    f = (offset - whole)[:, None]
    taps = ((1 - f)**3 / 6, 2 / 3 - f**2 * (2 - f) / 2, 2 / 3 - (1 - f)**2 * (1 + f) / 2, f**3 / 6)
    bins = np.arange(a.shape[-1]) + whole[:, None] + margin
    views = np.arange(a.shape[-2])[:, None]
    total = sum(tap * coefficients[..., views, bins + k] for k, tap in zip((-1, 0, 1, 2), taps, strict=True))
    return total.astype(a.dtype)
