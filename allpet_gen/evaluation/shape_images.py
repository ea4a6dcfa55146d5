r"""What the classifier sees of a sinogram: an image without the total of its counts.

Counts n are summed to at most 64 angles and 64 bins (sums of Poisson counts are Poisson counts),
divided by their mean, so that the total is gone, and reconstructed, since an organ has a place in an image and a curve
in a sinogram:

.. math:: f = \mathrm{FBP}(n / \bar n), \qquad x = \operatorname{sgn}(f) \sqrt{|f| / 0.05}. \tag{L1}

No attenuation, scatter or randoms are corrected: a reader of raw data learns to look through them. In training a random
share of the counts, at least half, is kept (exact thinning), so that noise tells little; and the sinogram is turned by
a few degrees (exact rotation).
"""

from collections.abc import Iterator

import numpy as np

from allpet_gen.symmetry import rotate_sinogram
from allpet_physics.counts import thin
from allpet_physics.fbp import fbp
from allpet_physics.geometry import ParallelGeometry

_LARGEST_SIDE = 64
#: A share of counts from this to 1 is kept in training, uniform in its logarithm.
_LEAST_SHARE = 0.5
#: Largest turn in training, in radians.
_LARGEST_TURN = np.deg2rad(15)


def summed_counts(batch: np.ndarray) -> np.ndarray:
    """Return counts summed over as few neighbours as leave at most 64 angles and bins, float64."""
    n, angles, bins = batch.shape
    a, b = (next((k for k in range(-(-size // _LARGEST_SIDE), size // 16 + 1) if size % k == 0), 1)
            for size in (angles, bins))
    return batch.reshape(n, angles // a, a, bins // b, b).sum((2, 4), dtype=np.float64)


def shape_images(counts: np.ndarray, arc: float) -> np.ndarray:
    """Return (L1) of counts (n, angles, bins), float32, shape (n, bins, bins)."""
    _, angles, bins = counts.shape
    geometry = ParallelGeometry(n_angles=angles, n_bins=bins, bin_mm=1.0, image_shape=(bins, bins), pixel_mm=1.0,
                                arc=arc)
    mean = counts.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
    image = fbp((counts / np.maximum(mean, 1e-12)).astype(np.float32), geometry, filter="hann")
    return np.sign(image) * np.sqrt(np.abs(image) / np.float32(0.05))


def augmented_images(counts: np.ndarray, arc: float, rng: np.random.Generator) -> np.ndarray:
    """Return the images (L1) of summed counts after thinning and turning each at random."""
    share = np.exp(rng.uniform(np.log(_LEAST_SHARE), 0, len(counts)))[:, None, None]
    kept = thin(counts, share, rng)
    largest = _largest_turn(counts, arc)
    turned = [rotate_sinogram(item, int(k), arc) for item, k in
              zip(kept, rng.integers(-largest, largest + 1, len(kept)), strict=True)]
    return shape_images(np.stack(turned), arc)


def turned_images(counts: np.ndarray, arc: float) -> Iterator[np.ndarray]:
    """Yield the images (L1) of summed counts as they are and turned, all alike, by angles that training knows."""
    for share in (-1, -0.5, 0, 0.5, 1):
        k = round(share * _largest_turn(counts, arc))
        yield shape_images(np.stack([rotate_sinogram(item, k, arc) for item in counts]), arc)


def _largest_turn(counts: np.ndarray, arc: float) -> int:
    return round(_LARGEST_TURN / arc * counts.shape[1])
