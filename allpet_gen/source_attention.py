r"""Targeted mask attention of a source sinogram: a fast image of it, its hot regions, and these in the sinogram."""

import warnings

import numpy as np
from scipy.ndimage import gaussian_filter

from allpet_physics.attention import project_roi, threshold_roi
from allpet_physics.fbp import fbp
from allpet_physics.geometry import ParallelGeometry

#: Full width at half maximum of the Gaussian that quiets the fast image.
SMOOTH_MM = 10.0
#: A region's peak must be so many times the mean of the picture's positive part.
_FLOOR = 2.5


def hot_regions(sinograms: np.ndarray, geometry: ParallelGeometry) -> np.ndarray:
    """Return the hot regions of fast images of some sinograms, bool, shape (..., row, col).

    FBP with a Hann window, a Gaussian of 10 mm, and 41 % of each component's maximum; components peak at 2.5 times the
    mean of the positive part of the picture or more, and have four pixels at least. Nothing is corrected:
    attenuation darkens what lies deep, and noise of a very low dose may look hot.

    Parameters
    ----------
    sinograms : array_like, shape (..., angle, bin)
        Counts.
    geometry : ParallelGeometry
    """
    sinograms = np.asarray(sinograms, np.float32)
    images = fbp(sinograms, geometry, filter="hann").reshape(-1, *geometry.image_shape)
    out = np.zeros(images.shape, bool)
    width = SMOOTH_MM / geometry.pixel_mm / np.sqrt(8 * np.log(2))
    for place, image in zip(out, images, strict=True):
        smooth = gaussian_filter(image, width)
        positive = smooth[smooth > 0]
        if not positive.size:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that nothing is hot is an answer here
            place[:] = threshold_roi(smooth, "relative", value=0.41, floor=_FLOOR * float(positive.mean()),
                                     min_voxels=4, body=np.ones(image.shape, bool)).mask
    return out.reshape(*sinograms.shape[:-2], *geometry.image_shape)


def source_attention(sinograms: np.ndarray, geometry: ParallelGeometry) -> np.ndarray:
    """Return M̂ of the hot regions of some sinograms, float32 in [0, 1], shape (..., angle, bin); 0 where none is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of regions cut by the bins, and of none at all
        return np.asarray(project_roi(hot_regions(sinograms, geometry), geometry), np.float32)
