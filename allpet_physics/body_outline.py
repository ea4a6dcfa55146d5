"""The body in an emission image: its outline, its interior, its two sides.

Also the checks that everything about regions of interest shares: images, masks, fractions.
"""

import numpy as np

from allpet_physics._arrays import as_float_array, as_positive_float
from allpet_physics.errors import GeometryError, InputError

#: The body is above this part of the value below which a tenth of the activity lies (an assumption, see `body_mask`).
BODY_FRACTION = 0.2
#: How far cold regions keep from the body's outline, in mm and, without a voxel size, in voxels. An edge blurred by a
#: Gaussian rises from 10 % (the outline) to 95 % within 1.25 FWHM, so this serves images of up to 8 mm FWHM.
_RIM_MM, _RIM_VOXELS = 10.0, 3.0


def as_mask(name: str, mask, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Return `mask` as a bool array, refusing anything but False/True or 0/1 and, if given, any other shape."""
    a = np.asarray(mask)
    if a.dtype.kind not in "biuf":
        raise InputError(f"{name} must be a mask of 0 and 1, but its dtype was {a.dtype}.")
    if shape is not None and a.shape != tuple(shape):
        raise GeometryError(f"{name} must have the shape {tuple(shape)}, but its shape was {a.shape}; "
                            "resample it to the same grid first.")
    out = a != 0
    if a.dtype.kind != "b" and not np.array_equal(a, out):
        raise InputError(f"{name} must be a mask of 0 and 1, but held {a[a != out].flat[0]!s}; "
                         "threshold it or select one label first, for example labels == 3.")
    return out


def as_image(image) -> np.ndarray:
    """Return `image` as a finite, non-empty 2D or 3D float array."""
    a = as_float_array("image", image)
    if a.ndim not in (2, 3) or a.size == 0:
        raise InputError(f"image must be a non-empty slice [row, col] or volume [slice, row, col], but its shape was "
                         f"{a.shape}; loop over further axes.")
    return a


def as_fraction(name: str, value) -> float:
    """Return `value` as a float strictly between 0 and 1."""
    number = as_positive_float(name, value)
    if number >= 1:
        raise InputError(f"{name} must lie between 0 and 1, but was {value!r}; 41 % is 0.41.")
    return number


def activity_quantile(image: np.ndarray, q: float) -> float:
    r"""Return the value below which a part q of an image's positive activity lies, 0 for an image without any.

    .. math:: v = \min\Big\{v : \sum_{0 < X_i \le v} X_i \ge q \sum_{X_i > 0} X_i\Big\} \tag{T1}

    Unlike a quantile over voxels it hardly depends on how much air surrounds the body, since air holds next to no
    activity.
    """
    values = np.sort(image[image > 0], axis=None)
    if values.size == 0:
        return 0.0
    total = np.cumsum(values, dtype=np.float64)
    return float(values[np.searchsorted(total, q * total[-1])])


def noise_amplitude(image: np.ndarray) -> float:
    """Return how far an image of activity goes below zero (0.1 % of its voxels go farther), 0 if it does not.

    Negative activity is noise or undershoot of the reconstruction, so positive values up to here may be, too.
    """
    return max(0.0, -float(np.percentile(image, 0.1)))


def body_mask(image, *, fraction: float = BODY_FRACTION) -> np.ndarray:
    """Return the body in an emission image: the largest component above a low level, its holes filled.

    The level is `fraction` of the value below which a tenth of the activity lies (T1), or the amplitude of negative
    values where that is higher, as in filtered backprojection. Holes are filled in each slice (the last two axes), so
    that lungs cut by the end of a scan belong to the body.

    A body outlined by emission is an estimate: arms apart from the trunk are outside, and so is whatever is colder
    than the level, which is most of the body when hot organs hold over nine tenths of the activity. Where a CT or an
    attenuation map exists, outline the body there.

    Parameters
    ----------
    image : array_like
        Slice [row, col] or volume [slice, row, col], in any unit that is zero without tracer.
    fraction : float
        Between 0 and 1.

    Returns
    -------
    ndarray of bool
        All False when the image has no positive value.

    Raises
    ------
    InputError
        A fraction outside (0, 1), NaN, an empty image.
    """
    from scipy import ndimage

    image = as_image(image)
    level = max(as_fraction("fraction", fraction) * activity_quantile(image, 0.1), noise_amplitude(image))
    if image.max() <= level:
        return np.zeros(image.shape, bool)
    labels, _ = ndimage.label(image > level)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    body = labels == sizes.argmax()
    slices = body.reshape(-1, *body.shape[-2:])
    for i in np.flatnonzero(slices.any(axis=(1, 2))):
        slices[i] = ndimage.binary_fill_holes(slices[i])
    return body


def body_interior(body, sides, rim_mm):
    """Return the voxels of the body that are farther than the rim from the nearest voxel outside it."""
    from scipy import ndimage

    if rim_mm is None:
        rim = _RIM_MM if sides is not None else _RIM_VOXELS
    else:
        rim = as_positive_float("rim_mm", rim_mm, allow_zero=True)
        if rim and sides is None:
            raise InputError("voxel_mm must be given with rim_mm, which is in mm.")
    if rim == 0 or body.all():
        return body
    interior = ndimage.distance_transform_edt(body, sampling=sides) > rim
    if not interior.any():
        raise InputError(f"rim_mm must leave some of the body, but {rim:g} {'mm' if sides else 'voxels'} reach its "
                         "middle; give a smaller rim_mm (0 keeps all), or a body.")
    return interior


def asymmetry_map(image, *, body=None, axis: int = -1, centre: float | None = None, kind: str = "z") -> np.ndarray:
    r"""Compare every voxel with its mirror image in the other half of the body.

    With :math:`X'` the image mirrored in the plane at index `centre` of `axis`, ``kind="index"`` gives the asymmetry
    index and ``kind="z"`` the difference in robust standard deviations,

    .. math:: A = \frac{X - X'}{(X + X')/2}, \qquad
              z = \frac{X - X'}{1.4826\,\operatorname{median}_\mathrm{body} |X - X'|}. \tag{T2}

    A one-sided loss of uptake, such as a hypometabolic temporal lobe, is negative on its own side. Cold regions are
    then ``threshold_roi(asymmetry_map(image, body=body), "fixed", value=-3, polarity="cold", body=body)``.

    The plane is not tilted or turned: align the head first. What is one-sided by nature (heart, liver, stomach) is
    asymmetric too, so this is for brains and for paired organs.

    Parameters
    ----------
    image : array_like
        Slice [row, col] or volume [slice, row, col].
    body : array_like of bool, optional
        Where to compare; by default `body_mask`.
    axis : int
        The left-right axis; columns by convention.
    centre : float, optional
        Index of the mid-sagittal plane along `axis`, rounded to half a voxel so that no interpolation is needed; by
        default the body's centroid.
    kind : {"z", "index"}
        See (T2).

    Returns
    -------
    ndarray
        Shape and dtype of the image; 0 outside the body and where the mirrored voxel is outside the body.

    Raises
    ------
    InputError
        An unknown kind or axis, an image without a body, a plane outside the image.
    """
    image = as_image(image)
    if kind not in ("z", "index"):
        raise InputError(f'kind must be "z" or "index", but was {kind!r}.')
    if axis not in range(-image.ndim, image.ndim):
        raise InputError(f"axis must be one of the image's {image.ndim} axes, but was {axis!r}.")
    body = body_mask(image) if body is None else as_mask("body", body, image.shape)
    if not body.any():
        raise InputError("body must hold at least one voxel, but the image has no positive value or the mask is empty.")
    n = image.shape[axis]
    position = np.arange(n)
    if centre is None:
        profile = np.moveaxis(body, axis, 0).reshape(n, -1).sum(axis=1)
        centre = float(profile @ position / profile.sum())
    elif not 0 <= as_positive_float("centre", centre, allow_zero=True) <= n - 1:
        raise InputError(f"centre must lie between 0 and {n - 1}, but was {centre!r}.")
    partner = int(np.floor(2 * centre + 0.5)) - position
    exists = (partner >= 0) & (partner < n)
    along_axis = [1] * image.ndim
    along_axis[axis] = n
    partner = np.clip(partner, 0, n - 1)
    mirrored = np.take(image, partner, axis=axis)
    compared = body & np.take(body, partner, axis=axis) & exists.reshape(along_axis)
    difference = np.where(compared, image - mirrored, 0)
    if kind == "index":
        mean = (image + mirrored) / 2
        return np.divide(difference, mean, out=np.zeros_like(image), where=compared & (mean > 0))
    inside = difference[compared]
    # A noise-free image is symmetric almost everywhere, which leaves a median of zero: fall back on the RMS.
    scale = 1.4826 * np.median(np.abs(inside)) if inside.size else 0
    if scale == 0:
        scale = np.sqrt(np.mean(np.square(inside, dtype=np.float64))) if inside.size else 0
    return (difference / scale).astype(image.dtype) if scale > 0 else np.zeros_like(image)
