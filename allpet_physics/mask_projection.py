r"""Masks in the sinogram: `project_blocks`, `project_mask`, `normalise_mask`. Composites are next door.

A block is a rectangle and a row of a binary mask is a chain of rectangles one pixel high, so both are projected by
closed forms that visit only the bins they reach; nothing is rasterised.
"""

import numpy as np

from allpet_physics._arrays import as_float_array, as_positive_float, check_trailing_shape
from allpet_physics.errors import GeometryError, InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.masks import Blocks

KERNELS = ("strip", "line", "linear", "gaussian")
NORMALISATIONS = ("linear", "clip")


def project_blocks(blocks: Blocks, geometry: ParallelGeometry, *, kernel: str = "strip",
                   width_mm: float | None = None, dtype=np.float32, out: np.ndarray | None = None) -> np.ndarray:
    r"""Project sets of blocks into the sinogram by their closed form.

    .. math:: M(s, \theta) = \sum_k \iint_{\mathrm{block}_k} K(s - x\cos\theta - y\sin\theta)\,dx\,dy \tag{M2, M3}

    The kernel K is the paper's: a block is integrated over its area, not sampled at pixel centres.

    Parameters
    ----------
    blocks : Blocks
        One set, or many.
    geometry : ParallelGeometry
        Its `image_shape` must be that of the blocks.
    kernel : {"strip", "line", "linear", "gaussian"}
        "strip" (default) is the mean over the bin, equal to ``RadonOperator(geometry)`` of the rasterised mask;
        "line" the line integral through the bin's centre; "linear" a hat of half-width `width_mm` (default: one bin);
        "gaussian" a Gaussian of standard deviation `width_mm` (default: half a bin).
    width_mm : float, optional
        The size of the linear or Gaussian kernel in mm.
    dtype : float32 or float64
        Of the result when `out` is not given. The closed form is evaluated in float64 in either case.
    out : ndarray, optional
        A C-contiguous float32 or float64 buffer of the result's shape, to be overwritten.

    Returns
    -------
    ndarray
        Path lengths in mm, ``[angle, bin]`` for one set, ``[set, angle, bin]`` for a batch.

    Raises
    ------
    GeometryError
        Blocks of another image shape.
    InputError
        An unknown kernel, a width for a kernel without one, a buffer that does not fit.
    """
    check_blocks(blocks, geometry)
    spread = _kernel_width(kernel, width_mm, geometry)
    out = result_buffer(out, ((len(blocks),) if blocks.batched else ()) + geometry.sinogram_shape, dtype)
    stack = out.reshape(-1, *geometry.sinogram_shape)
    if kernel == "strip":
        strip_of_blocks(blocks, geometry, slice(None), stack)
    else:
        from allpet_physics import _mask_kernels

        kind = {"line": _mask_kernels.LINE, "linear": _mask_kernels.LINEAR, "gaussian": _mask_kernels.GAUSSIAN}[kernel]
        cos, sin = _directions(geometry)
        _mask_kernels.blocks_kernel(blocks.parameters, blocks.offsets, geometry.image_shape, geometry.pixel_mm,
                                    geometry.bin_mm, cos, sin, kind, spread / geometry.bin_mm, stack)
    return out


def project_mask(mask, geometry: ParallelGeometry, *, dtype=np.float32, out: np.ndarray | None = None) -> np.ndarray:
    """Project binary masks exactly (strip model) from the ends of their row and column runs.

    The cost grows with the outline of the mask, not with the image: each end of a run touches two or three bins per
    angle. Bins away from the mask are exactly zero.

    Polygons, ellipses and outlines with arcs have closed forms of their own, without pixels:
    ``simulation.Phantom((shape,)).sinogram(geometry)``.

    Parameters
    ----------
    mask : array_like, shape (..., row, col)
        Booleans, or numbers that are all 0 or 1.
    geometry : ParallelGeometry
    dtype, out
        As in `project_blocks`.

    Returns
    -------
    ndarray, shape (..., angle, bin)
        Path lengths in mm, equal to ``RadonOperator(geometry)(mask)``.

    Raises
    ------
    InputError
        A mask that is not binary or not of the geometry's image shape, a buffer that does not fit.
    """
    from allpet_physics import _mask_kernels

    mask = binary_mask("mask", mask, geometry.image_shape)
    out = result_buffer(out, mask.shape[:-2] + geometry.sinogram_shape, dtype)
    masks = mask.reshape(-1, *geometry.image_shape)
    cos, sin = _directions(geometry)
    rows, columns = (_mask_kernels.run_ends(masks, along_rows) for along_rows in (True, False))
    _mask_kernels.runs_strip(*rows, *columns, geometry.image_shape, geometry.pixel_mm, geometry.bin_mm, cos, sin,
                             out.reshape(-1, *geometry.sinogram_shape))
    return out


def normalise_mask(mask, method: str = "linear", *, scale_mm: float | None = None, per: str = "slice") -> np.ndarray:
    r"""Bring projected masks to [0, 1].

    .. math::
        \hat M = M / \max_{s,\theta} M \quad \text{("linear", M4)}, \qquad
        \hat M = \min(M / L, 1) \quad \text{("clip", M5)}. \tag{N1}

    The paper clips path lengths as they are, which saturates almost every bin that a block of many pixels touches; L
    repairs that. By default :math:`L = \max M / \sqrt2`: the side of the square whose diagonal is the longest chord,
    which for one square block is the block's own width.

    Parameters
    ----------
    mask : array_like, shape (..., angle, bin)
        Path lengths, not negative.
    method : {"linear", "clip"}
    scale_mm : float, optional
        L in the unit of `mask` (mm); for "clip" alone.
    per : {"slice", "stack"}
        Whether the maximum is taken for each sinogram or over all leading axes together.

    Returns
    -------
    ndarray
        The same shape, in [0, 1]; a mask of zeros stays zero.

    Raises
    ------
    InputError
        Negative or non-finite values, an unknown method, a scale that is not positive or not wanted.
    """
    scale_of = divisor_of(method, scale_mm)
    mask = as_float_array("mask", mask, nonnegative=True)
    if mask.ndim < 2:
        raise InputError(f"mask must have shape (..., angle, bin), but its shape was {mask.shape}.")
    if per not in ("slice", "stack"):
        raise InputError(f'per must be "slice" or "stack", but was {per!r}.')
    axes = (-2, -1) if per == "slice" else None
    scale = scale_of(mask.max(axis=axes, keepdims=True, initial=0)).astype(mask.dtype)
    out = mask / np.where(scale > 0, scale, 1)
    return np.minimum(out, 1, out=out) if method == "clip" else out


def strip_of_blocks(blocks, geometry, some, out):
    """Write the strip projection of some sets into `out` (any strides); return the greatest value of each row."""
    from allpet_physics import _mask_kernels

    cos, sin = _directions(geometry)
    first, last, _ = some.indices(len(blocks.offsets) - 1)
    largest = np.empty((last - first, geometry.n_angles))
    _mask_kernels.blocks_strip(blocks.parameters, blocks.offsets[first:last + 1], geometry.image_shape,
                               geometry.pixel_mm, geometry.bin_mm, cos, sin, out, largest)
    return largest


def _directions(geometry):
    """Return cos and sin of the angles, with exact zeros where rays run along pixel edges."""
    cos, sin = np.cos(geometry.angles), np.sin(geometry.angles)
    cos[np.abs(cos) < 1e-15] = 0.0
    sin[np.abs(sin) < 1e-15] = 0.0
    return cos, sin


def divisor_of(method, scale_mm):
    """Return the function from the largest value of a mask to what it is divided by."""
    if method not in NORMALISATIONS:
        raise InputError(f"the normalisation must be one of {', '.join(NORMALISATIONS)}, but was {method!r}.")
    if method == "linear":
        if scale_mm is not None:
            raise InputError('scale_mm is for the normalisation "clip"; "linear" divides by the largest value.')
        return lambda largest: largest
    if scale_mm is None:
        return lambda largest: largest / np.sqrt(2)
    scale = as_positive_float("scale_mm", scale_mm)
    return lambda largest: np.full_like(largest, scale)


def _kernel_width(kernel, width_mm, geometry):
    if kernel not in KERNELS:
        raise InputError(f"kernel must be one of {', '.join(KERNELS)}, but was {kernel!r}.")
    if kernel in ("strip", "line"):
        if width_mm is not None:
            raise InputError(f'width_mm is for the kernels "linear" and "gaussian"; {kernel!r} has none.')
        return 0.0
    if width_mm is None:
        return geometry.bin_mm if kernel == "linear" else geometry.bin_mm / 2
    return as_positive_float("width_mm", width_mm)


def binary_mask(name, mask, trailing_shape):
    """Return booleans, or say that the values are not all 0 and 1."""
    mask = np.asarray(mask)
    check_trailing_shape(name, mask.shape, trailing_shape)
    if mask.dtype != bool:
        ones = mask == 1
        if not np.array_equal(ones, mask != 0):
            raise InputError(f"{name} must be binary (booleans, or 0 and 1), but holds other values; "
                             "threshold it first, for example with threshold_roi.")
        mask = ones
    return np.ascontiguousarray(mask)


def check_blocks(blocks, geometry):
    """Raise unless `blocks` are Blocks drawn for the geometry's image."""
    if not isinstance(blocks, Blocks):
        raise InputError(f"blocks must be Blocks, but was {type(blocks).__name__}; make them with Blocks, "
                         "block_catalogue or DynamicMultiMask.")
    if tuple(blocks.image_shape) != geometry.image_shape:
        raise GeometryError(f"blocks must lie in the geometry's image of shape {geometry.image_shape}, but were drawn "
                            f"for {tuple(blocks.image_shape)}.")


def result_buffer(out, shape, dtype):
    """Return the caller's buffer, checked, or a new array."""
    if out is None:
        dtype = np.dtype(dtype)
        if dtype not in (np.float32, np.float64):
            raise InputError(f"dtype must be float32 or float64, but was {dtype}.")
        return np.empty(shape, dtype)
    if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype not in (np.float32, np.float64) \
            or not out.flags.c_contiguous or not out.flags.writeable:
        raise InputError(f"out must be a writeable C-contiguous float32 or float64 array of shape {shape}, but was "
                         f"{getattr(out, 'dtype', type(out).__name__)} of shape {np.shape(out)}.")
    return out
