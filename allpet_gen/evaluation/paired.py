r"""Translated sinograms, or images of them, against the known truth of the same patient.

**One range for all.** PSNR and SSIM depend on a range R. Here the caller gives one number for everything that is
compared, the maximum or a high quantile of the whole reference set. The range of each image by itself would make the
figure depend on that image's hottest pixel, often the bladder, and average decibels of different peaks. Scaling an
estimate by its own minimum and maximum would forgive every error in counts; and a mask made of the truth would forgive
activity where there is none.

**Patients, not slices.** Intervals are drawn over patients, see `bootstrap_by_patient`, and methods are compared by the
differences of their values on the same slices, see `paired_difference`.
"""

from collections.abc import Mapping

import numpy as np

from allpet_gen.evaluation._checks import as_level
from allpet_gen.evaluation.bootstrap import as_patients, bootstrap_by_patient, paired_difference
from allpet_gen.evaluation.coverage import central_interval, interval_coverage, region_samples
from allpet_gen.evaluation.item_metrics import consistency_residuals, paired_metrics
from allpet_gen.evaluation.regions import RegionValues, lesion_contrast_recovery, mean_over_regions, region_bias
from allpet_physics._arrays import as_float_array
from allpet_physics.errors import InputError

__all__ = ["RegionValues", "bootstrap_by_patient", "central_interval", "consistency_residuals", "interval_coverage",
           "lesion_contrast_recovery", "paired_difference", "paired_metrics", "region_bias", "region_samples",
           "summary"]


def summary(estimates, truth, patients, *, data_range: float, reference: str | None = None, counts=None, geometry=None,
            multiplicative=None, additive=None, masks=None, lesions=None, lesion_background=None, samples=None,
            minimum_pixels: int = 4, coverage_level: float = 0.9, n: int = 2000, seed: int = 0,
            level: float = 0.95) -> dict:
    """Return means, intervals and differences of several methods on the same items, in one domain, ready for JSON.

    Parameters
    ----------
    estimates : mapping of str to array_like, shape (n, rows, columns)
        By the method's name. The untouched source, scaled to the target's counts, is a method worth its line. Tracers
        that were separated are evaluated one by one.
    truth : array_like, shape (n, rows, columns)
    patients : array_like, shape (n,)
        Whose slice it is. Nobody of them may have been trained on.
    data_range, counts, geometry, multiplicative, additive
        As for `paired_metrics`.
    reference : str, optional
        Name of the method that the others are compared with.
    masks : mapping of str to array_like of bool, optional
        For images: see `region_bias`.
    lesions, lesion_background : array_like of bool, optional
        For images, together: see `lesion_contrast_recovery`.
    samples : mapping of str to array_like, shape (n, samples, rows, columns), optional
        Posterior samples of some of the methods: coverage of their central intervals, of bins and of the regions in
        `masks`.
    minimum_pixels, coverage_level
        Of regions, and of the intervals made of samples.
    n, seed, level
        Of the bootstrap over patients.

    Returns
    -------
    dict
        ``methods``: for each name ``metrics``; ``regions`` by name, each with ``bias``, ``bias_error`` (its magnitude),
        ``small_bias`` and ``numbers`` (regions measured, small, empty, undefined); ``lesions`` with ``recovery``,
        ``recovery_error`` (its distance from 1), ``small_recovery`` and ``numbers``; ``coverage`` of ``bins`` and
        ``regions``; and ``difference``, the same without coverage, method − reference. Every leaf is a dict of
        `bootstrap_by_patient`, whose ``low`` and ``high`` are None where fewer than two patients have a value, and
        whose ``mean`` is None where none has. ``truth`` holds the truth's own consistency, if asked for. What the
        figures depend on stands beside: ``data_range``, ``reference``, ``n_items``, ``n_patients``, ``level``,
        ``coverage_level``, ``n_bootstrap``, ``seed``.

    Raises
    ------
    InputError
        No methods, an unknown reference, patients of another length or fewer than two, an estimate that equals its
        truth, lesions without background, samples of an unknown method; what the functions named above refuse.
    """
    estimates, truth = _as_methods("estimates", estimates), as_float_array("truth", truth)
    if truth.ndim != 3 or len(truth) == 0:
        raise InputError(f"truth must have shape (n, rows, columns), but its shape was {truth.shape}; evaluate tracers "
                         "or frames one by one.")
    samples = {} if samples is None else _as_methods("samples", samples)
    for name, unknown in (("reference", {reference} - {None} - set(estimates)),
                          ("samples", set(samples) - set(estimates))):
        if unknown:
            raise InputError(f"{name} must name methods of estimates, {', '.join(estimates)}, but named "
                             f"{', '.join(map(repr, sorted(unknown)))}.")
    if (lesions is None) != (lesion_background is None):
        raise InputError("lesions and lesion_background must be given together; contrast is between the two.")
    patients = as_patients(patients, len(truth))
    number = len(np.unique(patients))
    if number < 2:
        raise InputError(f"patients must be at least 2 for intervals, but were {number}.")
    coverage_level, level = as_level(coverage_level), as_level(level)
    draw = {"n": n, "seed": seed, "level": level}
    values, methods = {}, {}
    for name, estimate in estimates.items():
        metrics = paired_metrics(estimate, truth, data_range=data_range, counts=counts, geometry=geometry,
                                 multiplicative=multiplicative, additive=additive)
        same = np.flatnonzero(np.isinf(metrics["psnr"]))
        if same.size:
            raise InputError(f"estimates[{name!r}] must be an estimate, but {same.size} items equalled their truth, "
                             f"the first at index {same[0]}.")
        own = {("metrics", key): value for key, value in metrics.items()}
        numbers = {}
        if masks is not None:
            for region, found in region_bias(estimate, truth, masks, minimum_pixels=minimum_pixels).items():
                own |= _region_values(("regions", region), found, "bias", 0)
                numbers["regions", region, "numbers"] = found.numbers
        if lesions is not None:
            found = lesion_contrast_recovery(estimate, truth, lesions, lesion_background, minimum_pixels=minimum_pixels)
            own |= _region_values(("lesions",), found, "recovery", 1)
            numbers["lesions", "numbers"] = found.numbers
        values[name] = own
        covered = _coverage(samples[name], truth, masks, coverage_level) if name in samples else {}
        methods[name] = _nested({path: _mean(v, patients, draw) for path, v in (own | covered).items()} | numbers)
    for name in estimates if reference is not None else ():
        if name != reference:
            methods[name]["difference"] = _nested({path: _mean(v - values[reference][path], patients, draw)
                                                   for path, v in values[name].items()})
    out = {"data_range": float(data_range), "reference": reference, "n_items": len(truth), "n_patients": number,
           "level": level, "coverage_level": coverage_level, "n_bootstrap": int(n), "seed": int(seed),
           "methods": methods}
    if geometry is not None:
        own = consistency_residuals(truth, geometry, multiplicative=multiplicative, additive=additive)
        out["truth"] = {key: _mean(value, patients, draw) for key, value in own.items()}
    return out


def _region_values(path: tuple, found: RegionValues, name: str, ideal: float) -> dict[tuple, np.ndarray]:
    """Return a measure of each image's regions, its distance from the ideal, and the measure of small regions."""
    return {(*path, name): found.per_image(),
            (*path, f"{name}_error"): mean_over_regions(np.abs(found.values - ideal)),
            (*path, f"small_{name}"): found.per_image(small=True)}


def _coverage(samples, truth: np.ndarray, masks, level: float) -> dict[tuple, np.ndarray]:
    found = interval_coverage(*central_interval(samples, level=level), truth, regions=masks,
                              samples=samples if masks is not None else None, level=level)
    regions = found.pop("regions", {})
    out = {("coverage", "bins", key): value for key, value in found.items()}
    for region, judged in regions.items():
        for key, value in judged.items():
            out["coverage", "regions", region, key] = mean_over_regions(value)
    return out


def _mean(values: np.ndarray, patients: np.ndarray, draw: dict) -> dict:
    """Return the mean with its interval over patients, or without where fewer than two have a value."""
    defined = np.isfinite(values)
    known = len(np.unique(patients[defined]))
    if known > 1:
        return bootstrap_by_patient(values, patients, **draw)
    return {"mean": float(values[defined].mean()) if known else None, "low": None, "high": None,
            "n_items": int(defined.sum()), "n_patients": known, "n_undefined": int((~defined).sum())}


def _nested(values: Mapping[tuple, object]) -> dict:
    """Return a nested dict of values that are named by their paths."""
    out = {}
    for path, value in values.items():
        inner = out
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
        inner[path[-1]] = value
    return out


def _as_methods(name: str, methods) -> dict:
    if not isinstance(methods, Mapping) or not methods or not all(isinstance(key, str) for key in methods):
        raise InputError(f"{name} must be a mapping of at least one method's name to its arrays, but was "
                         f"{type(methods).__name__}.")
    return dict(methods)
