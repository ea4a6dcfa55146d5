"""The demonstration: a thorax is scanned, reconstructed, its lesions found, and their attention put into the sinogram.

Nothing here is new physics; it is the shortest script that uses every part of the core once.
"""

import time
from dataclasses import dataclass, field

import numpy as np

from allpet_physics._arrays import as_positive_float, as_positive_int
from allpet_physics.acquisition import AcquisitionModel
from allpet_physics.attention import edit_roi, project_roi, threshold_roi
from allpet_physics.counts import poisson_counts, scale_to_counts
from allpet_physics.emission import osem_iterates
from allpet_physics.fbp import fbp
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.radon import RadonOperator

#: Angles, bins and pixels of a GE Discovery 690.
PRESET = "ge-discovery-690"
#: Of a 2D scan of the lung (PETSTEP): scattered of all true and scattered, random of all coincidences, resolution.
SCATTER_FRACTION, RANDOMS_FRACTION, RESOLUTION_MM = 0.40, 0.40, 4.0
#: Width of the Gaussian along s that turns trues into scatter: an assumption, broad as measured scatter is.
_SCATTER_WIDTH_MM = 140.0
N_ITERATIONS, N_SUBSETS, POST_FILTER_MM, FBP_CUTOFF = 4, 16, 5.0, 0.7
#: Hot: isocontour at 41 % of each maximum, above SUV 3. Cold: below 60 % of the liver's median.
HOT_FRACTION, HOT_FLOOR_SUV, COLD_FRACTION = 0.41, 3.0, 0.60
SLICE_MM, LEAST_ML = 3.27, 0.3
LESIONS = ("lung lesion", "lymph node", "liver cyst")
_SIGMA_PER_FWHM = 1 / np.sqrt(8 * np.log(2))


@dataclass(frozen=True, eq=False)
class Scan:
    """A simulated scan of one slice.

    Attributes
    ----------
    geometry : ParallelGeometry
    activity : ndarray
        The true image in SUV, ``[row, col]``.
    organs : dict of str to ndarray of bool
        Pixels whose centre lies in an organ or lesion of the phantom.
    model : AcquisitionModel
        From SUV to expected counts: attenuation and scale (multiplicative), scatter and randoms (additive).
    counts : ndarray of int64
        Prompts, ``[angle, bin]``.
    n_trues : float
        Expected number of true coincidences among them.
    """

    geometry: ParallelGeometry
    activity: np.ndarray
    organs: dict
    model: AcquisitionModel
    counts: np.ndarray
    n_trues: float


@dataclass(frozen=True, eq=False)
class Demonstration:
    """A scan and what was made of it: images in SUV, regions, attention in [0, 1] by name, seconds by stage."""

    scan: Scan
    fbp: np.ndarray
    osem: np.ndarray
    regions: dict
    attention: dict
    edits: tuple
    seconds: dict = field(default_factory=dict)


def simulate_scan(n_trues: float = 2e6, seed: int = 0) -> Scan:
    """Scan the thorax phantom.

    The expected counts come from the phantom's exact sinogram, not from the projector that reconstructs: activity,
    blurred along s by the scanner's resolution (for parallel beams the same as blurring the image), times attenuation,
    plus scatter and randoms; then Poisson.

    Parameters
    ----------
    n_trues : float
        Expected true coincidences in the slice; scatter and randoms come on top.
    seed : int

    Raises
    ------
    InputError
        `n_trues` is not greater than zero, `seed` is negative.
    """
    from scipy.ndimage import gaussian_filter1d

    from allpet_physics.simulation import demo_torso

    n_trues, seed = as_positive_float("n_trues", n_trues), as_positive_int("seed", seed, minimum=0)
    geometry = ParallelGeometry.preset(PRESET)
    phantom = demo_torso("activity", kbq_ml_per_suv=1.0)
    sinogram = _blur_bins(phantom.sinogram(geometry), RESOLUTION_MM, geometry)
    attenuation = np.exp(-demo_torso("attenuation").sinogram(geometry))
    trues = scale_to_counts(sinogram * attenuation, n_trues)
    counts_per_suv_mm = n_trues / (sinogram * attenuation).sum()

    scatter = gaussian_filter1d(_blur_bins(trues, _SCATTER_WIDTH_MM, geometry), 10, axis=0, mode="nearest")
    n_scatter = n_trues * SCATTER_FRACTION / (1 - SCATTER_FRACTION)
    n_randoms = (n_trues + n_scatter) * RANDOMS_FRACTION / (1 - RANDOMS_FRACTION)
    background = scale_to_counts(scatter, n_scatter) + n_randoms / trues.size

    model = AcquisitionModel(RadonOperator(geometry), multiplicative=counts_per_suv_mm * attenuation,
                             additive=background)
    organs = {shape.label: shape.contains(geometry.x, geometry.y[:, None]) for shape in phantom.shapes}
    counts = poisson_counts(trues + background, np.random.default_rng(seed))
    return Scan(geometry, phantom.image(geometry), organs, model, counts, n_trues)


def run_demo(n_trues: float = 2e6, seed: int = 0, progress=None) -> Demonstration:
    """Simulate, reconstruct, find the lesions and project them.

    Parameters
    ----------
    n_trues, seed
        As in `simulate_scan`.
    progress : callable, optional
        Called as ``progress(iterable, stage, total=n)``; it yields the items of the iterable.
    """
    seconds = {}

    def timed(stage, function, *arguments, **settings):
        start = time.perf_counter()
        result = function(*arguments, **settings)
        seconds[stage] = time.perf_counter() - start
        return result

    scan = timed("scan", simulate_scan, n_trues, seed)
    by_fbp = timed("FBP", reconstruct_fbp, scan)
    by_osem = timed("OSEM", reconstruct_osem, scan, progress)
    regions, edits = timed("regions", find_regions, by_osem, scan)
    attention = timed("attention", lambda: {name: project_roi(mask, scan.geometry) for name, mask in regions.items()})
    return Demonstration(scan, by_fbp, by_osem, regions, attention, edits, seconds)


def reconstruct_fbp(scan: Scan) -> np.ndarray:
    """Return the FBP of the counts, corrected for background and attenuation, in SUV."""
    corrected = (scan.counts - scan.model.additive) / scan.model.multiplicative
    return fbp(corrected, scan.geometry, "hann", cutoff=FBP_CUTOFF)


def reconstruct_osem(scan: Scan, progress=None) -> np.ndarray:
    """Return the OSEM image of the counts as they were measured, with a Gaussian post-filter, in SUV."""
    from scipy.ndimage import gaussian_filter

    updates = osem_iterates(scan.model, scan.counts, N_ITERATIONS, N_SUBSETS)
    if progress is not None:
        updates = progress(updates, "OSEM", total=N_ITERATIONS * N_SUBSETS)
    for _, _, latest in updates:
        image = latest
    return gaussian_filter(image, POST_FILTER_MM * _SIGMA_PER_FWHM / scan.geometry.pixel_mm)


def find_regions(image: np.ndarray, scan: Scan) -> tuple[dict, tuple]:
    """Return hot and cold regions by name, and the log of the reader's edit.

    Hot regions are found anywhere; the heart, whose uptake is normal, is then removed as a reader would. Cold ones are
    found within the contour of the liver, as a CT would give it.
    """
    voxel = {"voxel_mm": (SLICE_MM, scan.geometry.pixel_mm, scan.geometry.pixel_mm), "min_volume_ml": LEAST_ML}
    hot = threshold_roi(image, "relative", value=HOT_FRACTION, floor=HOT_FLOOR_SUV, **voxel)
    lesions, edits = edit_roi(hot, remove=scan.organs["heart"], note="normal uptake of the heart")
    cold = threshold_roi(image, "relative", value=COLD_FRACTION, polarity="cold", body=scan.organs["liver"], **voxel)
    return {"hot": lesions, "cold": cold.mask}, edits


def report(demo: Demonstration) -> dict:
    """Return the numbers of a demonstration as plain Python types, ready for JSON."""
    scan = demo.scan

    def mean(image, organ):
        return float(image[scan.organs[organ]].mean())

    lesions = {name: {"true": mean(scan.activity, name), "fbp": mean(demo.fbp, name), "osem": mean(demo.osem, name)}
               for name in LESIONS}
    # The median, because the cyst is a part of the liver.
    liver = {key: float(np.median(image[scan.organs["liver"]]))
             for key, image in (("true", scan.activity), ("fbp", demo.fbp), ("osem", demo.osem))}
    truth = {"hot": scan.organs["lung lesion"] | scan.organs["lymph node"], "cold": scan.organs["liver cyst"]}
    regions = {name: {"pixels": int(mask.sum()), "true_pixels": int(truth[name].sum()),
                      "dice": float(2 * (mask & truth[name]).sum() / max(mask.sum() + truth[name].sum(), 1))}
               for name, mask in demo.regions.items()}
    return {
        "geometry": scan.geometry.to_dict(),
        "counts": {"prompts": int(scan.counts.sum()), "expected_trues": float(scan.n_trues)},
        "suv": {**lesions, "liver (median)": liver},
        "regions": regions,
        "seconds": {stage: round(value, 3) for stage, value in demo.seconds.items()},
    }


def _blur_bins(sinogram, fwhm_mm, geometry):
    from scipy.ndimage import gaussian_filter1d

    return gaussian_filter1d(sinogram, fwhm_mm * _SIGMA_PER_FWHM / geometry.bin_mm, axis=-1, mode="constant")
