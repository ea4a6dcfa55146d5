r"""Composites of a sinogram with a mask, [C₊, S, C₋]: what the autoencoder of ALL-PET is trained on."""

import numpy as np

from allpet_physics._arrays import as_float_array, check_trailing_shape
from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.mask_projection import (
    binary_mask,
    check_blocks,
    divisor_of,
    result_buffer,
    strip_of_blocks,
)
from allpet_physics.masks import Blocks

MODES = ("product", "exact")

#: Samples whose masks and composites are made together, so that the masks are still in the cache when they are used.
_SAMPLES_AT_ONCE = 4


def composite(sinogram, mask, *, mode: str = "product", image=None, geometry: ParallelGeometry | None = None,
              out: np.ndarray | None = None) -> np.ndarray:
    r"""Stack [C₊, S, C₋], with C₊ + C₋ = S exactly in floating point.

    "product" is the paper's: :math:`C_+ = \hat M S`, :math:`C_- = (1 - \hat M) S` (M7, M8), with the *normalised*
    projected mask. It is cheap, positive and local, but not the sinogram of any image: the Radon transform of a
    product is not the product of the transforms, and the total of C₊ varies from angle to angle by 5–9 % for a
    64-pixel block. "exact" gives :math:`C_+ = R[M f]` of an image f (a phantom, or a reconstruction of S) and
    :math:`C_- = S - C_+`: use it where the channels must be sinograms of something, as for consistency conditions.
    (Where noise leaves S below half of such a C₊, the sum is S to rounding only.)

    Parameters
    ----------
    sinogram : array_like, shape (..., angle, bin)
    mask : array_like
        For "product" a normalised mask in the sinogram, broadcastable to `sinogram`, in [0, 1]. For "exact" a binary
        mask in the image ``(..., row, col)``, or `Blocks`.
    mode : {"product", "exact"}
    image : array_like, shape (..., row, col)
        For "exact": the image f in the sinogram's unit per mm.
    geometry : ParallelGeometry
        For "exact".
    out : ndarray, optional
        A C-contiguous buffer of the result's shape and dtype.

    Returns
    -------
    ndarray, shape (..., 3, angle, bin)

    Raises
    ------
    InputError
        A mask outside [0, 1] (raw path lengths), shapes that do not fit, arguments that the mode lacks.
    """
    s = as_float_array("sinogram", sinogram)
    if s.ndim < 2:
        raise InputError(f"sinogram must have shape (..., angle, bin), but its shape was {s.shape}.")
    if mode == "product":
        if isinstance(mask, Blocks):
            raise InputError('mode "product" needs the normalised mask in the sinogram, but mask was Blocks; use '
                             'normalise_mask(project_blocks(blocks, geometry)), composite_blocks, or mode="exact".')
        if image is not None:
            raise InputError('image is for mode "exact"; mode "product" needs none.')
        m = as_float_array("mask", mask)
        if m.size and (m.min() < 0 or m.max() > 1):
            raise InputError(f"mask must be normalised to [0, 1], but its range was [{m.min():g}, {m.max():g}]; "
                             "use normalise_mask(mask) on projected path lengths first.")
        positive = _broadcast("mask", m, s) * s
    elif mode == "exact":
        positive = _exact_positive(s, mask, image, geometry)
    else:
        raise InputError(f"mode must be one of {', '.join(MODES)}, but was {mode!r}.")
    shape = (*positive.shape[:-2], 3, *s.shape[-2:])
    dtype = np.result_type(s, positive)
    out = result_buffer(out, shape, dtype)
    if out.dtype != dtype:
        raise InputError(f"out must be {dtype}, the precision of sinogram and mask, but was {out.dtype}.")
    s = np.broadcast_to(s, positive.shape)
    # Subtracting twice makes the two parts add up without rounding (Sterbenz' lemma).
    np.subtract(s, positive, out=out[..., 2, :, :])
    np.subtract(s, out[..., 2, :, :], out=out[..., 0, :, :])
    out[..., 1, :, :] = s
    return out


def composite_blocks(sinograms, blocks: Blocks, geometry: ParallelGeometry, *, normalisation: str = "linear",
                     scale_mm: float | None = None, out: np.ndarray | None = None) -> np.ndarray:
    """Project sets of blocks, normalise them and form the composites of as many sinograms, in one pass.

    Equal to ``composite(s, normalise_mask(project_blocks(b, geometry)))`` for each pair, to rounding, without the
    temporaries: the masks are made inside the output while it is in the cache.

    Parameters
    ----------
    sinograms : array_like, shape (..., angle, bin)
        One sinogram for each set of blocks.
    blocks : Blocks
    geometry : ParallelGeometry
    normalisation, scale_mm
        As in `normalise_mask`.
    out : ndarray, optional
        A C-contiguous float32 or float64 buffer of shape (..., 3, angle, bin).

    Returns
    -------
    ndarray, shape (..., 3, angle, bin)
        Of the sinograms' dtype when `out` is not given.

    Raises
    ------
    InputError, GeometryError
        As in `project_blocks` and `normalise_mask`; another number of sets than of sinograms.
    """
    from allpet_physics import _mask_kernels

    s = as_float_array("sinograms", sinograms, geometry.sinogram_shape)
    check_blocks(blocks, geometry)
    scale_of = divisor_of(normalisation, scale_mm)
    stack = s.reshape(-1, *geometry.sinogram_shape)
    count = len(blocks.offsets) - 1
    if len(stack) != count:
        raise InputError(f"blocks must hold one set for each sinogram, but there were {count} sets "
                         f"and {len(stack)} sinograms.")
    out = result_buffer(out, (*s.shape[:-2], 3, *geometry.sinogram_shape), s.dtype)
    parts = out.reshape(-1, 3, *geometry.sinogram_shape)
    for start in range(0, count, _SAMPLES_AT_ONCE):
        some = slice(start, min(start + _SAMPLES_AT_ONCE, count))
        largest = strip_of_blocks(blocks, geometry, some, parts[some, 0])
        _mask_kernels.composite_product(stack[some], scale_of(largest.max(axis=1)), parts[some])
    return out


def _exact_positive(s, mask, image, geometry):
    from allpet_physics.radon import RadonOperator

    if image is None or geometry is None:
        raise InputError('mode "exact" needs image= (the object, per mm) and geometry=.')
    check_trailing_shape("sinogram", s.shape, geometry.sinogram_shape)
    if isinstance(mask, Blocks):
        check_blocks(mask, geometry)
        mask = mask.to_mask()
    mask = binary_mask("mask", mask, geometry.image_shape)
    return _broadcast("mask and image", RadonOperator(geometry)(mask * as_float_array(
        "image", image, geometry.image_shape)), s)


def _broadcast(name, a, s):
    try:
        shape = np.broadcast_shapes(a.shape, s.shape)
    except ValueError:
        raise InputError(f"{name} must broadcast to the sinogram, but gave shape {a.shape} for {s.shape}.") from None
    return np.broadcast_to(a, shape)
