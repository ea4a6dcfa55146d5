r"""Errors of regions' means: bias in organs and lesions, and how much of a lesion's contrast an estimate shows."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from allpet_physics._arrays import as_float_array, as_positive_float, as_positive_int
from allpet_physics.errors import InputError


@dataclass(frozen=True, eq=False)
class RegionValues:
    """A measure of one kind of region in each image.

    Attributes
    ----------
    values : ndarray of float64, shape (regions, n)
        NaN where a region is empty, small, or the measure is not defined.
    small_values : ndarray of float64, shape (regions, n)
        The same of the small regions alone: they are a pixel or a few, so partial volume and noise rule them, and they
        are never mixed with the others.
    pixels : ndarray of int, shape (regions, n)
        Size of each region.
    minimum_pixels : int
        Smaller regions are small.
    """

    values: np.ndarray
    small_values: np.ndarray
    pixels: np.ndarray
    minimum_pixels: int

    @property
    def numbers(self) -> dict[str, int]:
        """How many were ``measured``, and how many ``small``, ``empty`` or ``undefined`` ones were not."""
        small = int(((self.pixels > 0) & (self.pixels < self.minimum_pixels)).sum())
        measured, empty = int(np.isfinite(self.values).sum()), int((self.pixels == 0).sum())
        return {"measured": measured, "small": small, "empty": empty,
                "undefined": self.pixels.size - measured - small - empty}

    def per_image(self, small: bool = False) -> np.ndarray:
        """Return the mean over an image's regions (or its small ones), shape (n,); NaN where it has none."""
        return mean_over_regions(self.small_values if small else self.values)


def region_bias(estimate_images, truth_images, masks, *, minimum_pixels: int = 4) -> dict[str, RegionValues]:
    r"""Return the signed relative bias of each region's mean.

    .. math:: b = \langle\hat x\rangle_\mathrm{region} / \langle x\rangle_\mathrm{region} - 1. \tag{R1}

    Parameters
    ----------
    estimate_images, truth_images : array_like, shape (n, rows, columns)
        In one unit, such as SUV; the truth is what was simulated, or a reconstruction of the target.
    masks : mapping of str to array_like of bool
        For each name n masks, shape (n, rows, columns), as ``Study.mask("liver")`` gives them; or several regions of
        one kind, shape (regions, n, rows, columns), as ``Study.lesion_masks()``, each measured by itself.
    minimum_pixels : int
        Smaller regions are measured apart. 4 is an assumption: the pixels of about one resolution element at the
        sizes that the generator comes in.

    Returns
    -------
    dict of str to RegionValues
        By the names of `masks`. Not defined where the truth's mean is not positive.

    Raises
    ------
    InputError
        Images or masks of another shape, NaN or Inf, masks that are not bool.
    """
    estimate, truth = _as_images(estimate_images, truth_images)
    minimum_pixels = as_positive_int("minimum_pixels", minimum_pixels)
    found = {}
    for name, mask in as_masks("masks", masks, truth.shape).items():
        pixels, mean, true_mean = _means(mask, estimate, truth)
        bias = _quotient(mean, true_mean, true_mean > 0) - 1
        found[name] = _sorted(bias, pixels, minimum_pixels)
    return found


def lesion_contrast_recovery(estimate_images, truth_images, lesions, background, *, minimum_pixels: int = 4,
                             minimum_contrast: float = 0.1) -> RegionValues:
    r"""Return how much of each lesion's contrast to the background an estimate shows.

    .. math:: \mathrm{CR} = \frac{\hat L / \hat B - 1}{L / B - 1}, \tag{R2}

    with the means of the lesion L and the background B: 1 for the truth, 0 for a lesion that is lost, above 1 for one
    that is exaggerated; for hot and cold lesions alike. It is (Q1) of `allpet_physics.nema` with the truth's own
    contrast.

    Parameters
    ----------
    estimate_images, truth_images : array_like, shape (n, rows, columns)
    lesions : array_like of bool, shape (n, rows, columns) or (lesions, n, rows, columns)
    background : array_like of bool, shape (n, rows, columns)
        The host organ around, without the lesions.
    minimum_pixels : int
        Smaller lesions are measured apart; a smaller background leaves the recovery undefined.
    minimum_contrast : float
        Lesions with a true contrast \|L/B − 1\| below this are not defined: there is nothing to recover, and the
        quotient would be noise.

    Returns
    -------
    RegionValues

    Raises
    ------
    InputError
        As `region_bias`; lesions that overlap the background; a contrast that is not positive.
    """
    estimate, truth = _as_images(estimate_images, truth_images)
    minimum_pixels = as_positive_int("minimum_pixels", minimum_pixels)
    minimum_contrast = as_positive_float("minimum_contrast", minimum_contrast)
    mask = as_masks("lesions", {"lesions": lesions}, truth.shape)["lesions"]
    around = as_masks("background", {"background": background}, truth.shape)["background"]
    if len(around) != 1:
        raise InputError(f"background must have one mask for each image, shape {truth.shape}, but its shape was "
                         f"{around.shape}.")
    shared = int((mask & around).sum())
    if shared:
        raise InputError(f"background must leave out the lesions, but shared {shared} pixels with them; use "
                         "background & ~lesions.")
    pixels, lesion, true_lesion = _means(mask, estimate, truth)
    around_pixels, host, true_host = _means(around, estimate, truth)
    contrast = _quotient(lesion, host, host > 0) - 1
    true_contrast = _quotient(true_lesion, true_host, true_host > 0) - 1
    recovery = _quotient(contrast, true_contrast, np.abs(true_contrast) >= minimum_contrast)
    return _sorted(np.where(around_pixels >= minimum_pixels, recovery, np.nan), pixels, minimum_pixels)


def mean_over_regions(values: np.ndarray) -> np.ndarray:
    """Return the mean of what is defined in each image, shape (n,), of values (regions, n); NaN where nothing is."""
    defined = np.isfinite(values)
    number = defined.sum(axis=0)
    return _quotient(np.where(defined, values, 0).sum(axis=0), number, number > 0)


def as_masks(name: str, masks, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Return masks of images by name, bool, shape (regions, n, rows, columns), or say what is wrong with them."""
    if not isinstance(masks, Mapping) or not masks:
        raise InputError(f"{name} must be a mapping of at least one region's name to its masks, but was "
                         f"{type(masks).__name__}.")
    checked = {}
    for region, given in masks.items():
        try:
            mask = np.asarray(given)
        except ValueError:
            raise InputError(f"{name} of {region!r} must be masks of one shape, but they differed.") from None
        if mask.dtype != bool:
            raise InputError(f"{name} of {region!r} must be bool, but its dtype was {mask.dtype}; compare with a "
                             "threshold, such as weight > 0.5.")
        if mask.shape != shape and (mask.ndim != len(shape) + 1 or mask.shape[1:] != shape):
            raise InputError(f"{name} of {region!r} must have the images' shape {shape}, or (regions, ...) of it, but "
                             f"its shape was {mask.shape}.")
        checked[str(region)] = mask.reshape(-1, *shape)
    return checked


def _as_images(estimate, truth) -> tuple[np.ndarray, np.ndarray]:
    estimate, truth = as_float_array("estimate_images", estimate), as_float_array("truth_images", truth)
    if truth.ndim != 3 or truth.size == 0:
        raise InputError(f"truth_images must have shape (n, rows, columns), but its shape was {truth.shape}.")
    if estimate.shape != truth.shape:
        raise InputError(f"estimate_images must have the shape of truth_images, {truth.shape}, but its shape was "
                         f"{estimate.shape}.")
    return estimate, truth


def _means(masks: np.ndarray, *images: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the pixels of masks (regions, n, rows, columns) and images' means in them, (regions, n); NaN if empty."""
    pixels = masks.sum(axis=(-2, -1))
    sums = (np.array([np.sum(image, axis=(-2, -1), where=mask, dtype=np.float64) for mask in masks])
            .reshape(pixels.shape) for image in images)
    return pixels, *(_quotient(total, pixels, pixels > 0) for total in sums)


def _quotient(a: np.ndarray, b: np.ndarray, where: np.ndarray) -> np.ndarray:
    shape = np.broadcast_shapes(a.shape, b.shape)
    return np.divide(a, b, out=np.full(shape, np.nan), where=np.broadcast_to(where, shape))


def _sorted(values: np.ndarray, pixels: np.ndarray, minimum_pixels: int) -> RegionValues:
    small = pixels < minimum_pixels
    return RegionValues(np.where(small, np.nan, values), np.where(small, values, np.nan), pixels, minimum_pixels)
