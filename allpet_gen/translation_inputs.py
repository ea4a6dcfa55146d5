"""What a translation is given: counts of the user's geometry, brought to the network's, and what is said of them."""

import warnings
from dataclasses import dataclass

import numpy as np

from allpet_gen.source_attention import source_attention
from allpet_gen.tasks import Task, dose_gain, dose_number, find_task, task_tokens
from allpet_physics._arrays import as_float_array, as_positive_float
from allpet_physics.attention import project_roi
from allpet_physics.body_outline import as_mask
from allpet_physics.errors import GeometryError, InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.resampling import describe_resampling, resample_sinogram

_COUNTS = ("counts as measured, before randoms are subtracted and before any correction, scaling or resampling; of an "
           "expectation, draw them with allpet_physics.poisson_counts")
#: Spacings that differ by less are one: they were computed in other ways.
_SAME = 1e-6


@dataclass(frozen=True, eq=False)
class TranslationInputs:
    """Checked inputs of a translation.

    Attributes
    ----------
    task : Task
    counts : ndarray of float32, shape (n, angle, bin)
        On the network's grid; whole numbers, unless they were resampled.
    totals : ndarray of float64, shape (n,)
        Counts of each slice as given.
    geometry : ParallelGeometry
        The caller's, in which results are returned.
    tokens : tuple of int
    number : float
        What the network is told, for every slice alike; the number is ℓ of eq. (T1).
    dose_factor : float
        1 where a task has none.
    attention : ndarray of float32 or None, shape (n, angle, bin)
    gate_strength : float
    notes : list of str
    """

    task: Task
    counts: np.ndarray
    totals: np.ndarray
    geometry: ParallelGeometry
    tokens: tuple[int, ...]
    number: float
    dose_factor: float
    attention: np.ndarray | None
    gate_strength: float
    notes: list[str]


def read_inputs(network, sinograms, *, task, tracer=None, region=None, other=None, dose_factor=None, geometry=None,
                resample: bool = True, roi=None, attention=None, gate_strength: float = 0.0) -> TranslationInputs:
    """Check what a translation is given; the parameters and errors are those of `SinogramBridgePipeline`."""
    network.target_scale(task)  # refuses what the network was not trained for
    tokens, number = task_tokens(task, tracer, region, other), dose_number(task, dose_factor)
    own = network.geometry
    geometry = own if geometry is None else geometry
    if not isinstance(geometry, ParallelGeometry):
        raise GeometryError(f"geometry must be a ParallelGeometry, but was {type(geometry).__name__}.")
    given = _as_count_stack(sinograms, geometry, own)
    notes: list[str] = []
    counts = _on_grid_of(given, geometry, own, resample, notes)
    _warn_of_brightness(counts * dose_gain(dose_factor), network.scaling.scale)
    gate_strength = as_positive_float("gate_strength", gate_strength, allow_zero=True)
    attention = _attention(roi, attention, gate_strength, counts, geometry, own, notes)
    return TranslationInputs(find_task(task), counts, given.sum(axis=(1, 2), dtype=np.float64), geometry, tokens,
                             number, float(dose_gain(dose_factor)), attention, gate_strength, notes)


def same_grid(one: ParallelGeometry, two: ParallelGeometry) -> bool:
    """Return whether two geometries have the same angles and bins; their images are free."""
    return ((one.n_angles, one.n_bins, one.arc) == (two.n_angles, two.n_bins, two.arc)
            and abs(one.bin_mm - two.bin_mm) <= _SAME * two.bin_mm)


def _as_count_stack(sinograms, geometry: ParallelGeometry, own: ParallelGeometry) -> np.ndarray:
    """Return counts as floats that hold them exactly, shape (n, angle, bin)."""
    shape = np.shape(sinograms)
    if len(shape) not in (2, 3) or shape[-2:] != geometry.sinogram_shape or 0 in shape:
        way = "" if len(shape) not in (2, 3) or geometry != own else \
            "; say by geometry=ParallelGeometry(...) what they were measured with, and they are resampled"
        raise GeometryError("sinograms must have shape (angle, bin) or (n, angle, bin) with the angles and bins of "
                            f"{'the model' if geometry == own else 'geometry'}, {geometry.n_angles} x "
                            f"{geometry.n_bins}, but their shape was {shape}{way}.")
    counts = as_float_array("sinograms", sinograms).reshape(-1, *geometry.sinogram_shape)
    if counts.min() < 0:
        raise InputError(f"sinograms must not be negative, but their minimum was {counts.min():g}; give {_COUNTS}.")
    fractions = counts != np.floor(counts)
    if fractions.any():
        raise InputError(f"sinograms must be whole numbers of counts, but held {float(counts[fractions][0])!r}; give "
                         f"{_COUNTS}.")
    return counts


def _on_grid_of(counts: np.ndarray, geometry, own, resample: bool, notes: list[str]) -> np.ndarray:
    if same_grid(geometry, own):
        return counts.astype(np.float32, copy=False)
    if not resample:
        raise GeometryError(f"geometry must have the angles and bins of the model, {_words(own)}, but had "
                            f"{_words(geometry)}; allow resample=True, or bin the counts to the model's.")
    moved = resample_sinogram(counts.astype(np.float64), geometry, own, kind="counts")
    notes.append(f"source: {describe_resampling(geometry, own, kind='counts')}")
    if np.abs(moved - np.rint(moved)).max() > 1e-6 * max(1.0, moved.max()):  # whole bins and views added stay counts
        text = ("counts that are resampled are no longer Poisson, as those that the model was trained with are: its "
                "estimate and above all its spread may be off; a model of this geometry has no such doubt")
        notes.append(text)
        warnings.warn(text, UserWarning, stacklevel=2)
    return moved.astype(np.float32)


def _words(geometry: ParallelGeometry) -> str:
    return (f"{geometry.n_angles} over {'2 pi' if geometry.arc > 4 else 'pi'} x {geometry.n_bins} of "
            f"{geometry.bin_mm:g} mm")


def _warn_of_brightness(counts: np.ndarray, scale: float) -> None:
    """Warn of slices whose mean bin is brighter than nearly all bins of the training were."""
    mean = counts.mean(axis=(1, 2))
    worst = int(mean.argmax())
    if mean[worst] > scale:
        warnings.warn(f"slice {worst} has {mean[worst]:.3g} counts in the mean bin at full dose, but the model was "
                      f"trained with {scale:.3g} in the brightest: what it makes of them means little; are they counts "
                      "of one slice, and is the dose factor right?", UserWarning, stacklevel=2)


def _attention(roi, attention, gate_strength: float, counts, geometry, own, notes: list[str]) -> np.ndarray | None:
    """Return M̂ on the network's grid for every slice, or None."""
    n = len(counts)
    if roi is None and attention is None:
        if gate_strength:
            raise InputError(f"gate_strength must come with roi or attention, the region that it strengthens, but was "
                             f'{gate_strength:g} alone; give roi="auto" for the hot regions of the input.')
        return None
    if roi is not None and attention is not None:
        raise InputError("roi and attention must not both be given, for attention is the projection of a region.")
    if gate_strength == 0:
        notes.append("a region was given, but with a gate_strength of 0, which leaves the network alone")
    if attention is not None:
        found = _given_map(attention, geometry, own)
    elif isinstance(roi, str):
        if roi != "auto":
            raise InputError(f'roi must be a mask, "auto" or None, but was {roi!r}.')
        found = source_attention(counts, own)
        empty = int((found.max(axis=(1, 2)) == 0).sum())
        if empty:
            notes.append(f"no hot region was found in {empty} of {n} slices: the gate leaves them alone")
    else:
        found = _projected(roi, geometry, own)
    if found.ndim == 3 and len(found) not in (1, n):
        raise InputError(f"{'roi' if attention is None else 'attention'} must be one for all slices, or one for each "
                         f"of {n}, but there were {len(found)}.")
    return np.broadcast_to(found, (n, *own.sinogram_shape))


def _projected(roi, geometry, own) -> np.ndarray:
    """Return M̂ of a mask on the image grid of the caller's geometry or else of the network's."""
    mask = as_mask("roi", getattr(roi, "mask", roi))
    for grid in (geometry, own):
        if mask.ndim in (2, 3) and mask.shape[-2:] == grid.image_shape:
            return project_roi(mask, own.replace(image_shape=grid.image_shape, pixel_mm=grid.pixel_mm))
    known = " or ".join(dict.fromkeys(f"({g.image_shape[0]}, {g.image_shape[1]})" for g in (geometry, own)))
    raise GeometryError(f"roi must have the rows and columns of the image, {known}, for all slices or for each, but "
                        f"its shape was {mask.shape}; resample it, or give geometry its image_shape and pixel_mm.")


def _given_map(attention, geometry, own) -> np.ndarray:
    """Return a map that is given on the caller's angles and bins or on the network's."""
    found = as_float_array("attention", attention).astype(np.float32, copy=False)
    if found.size == 0 or found.min() < 0 or found.max() > 1:
        was = "empty" if found.size == 0 else f"from {found.min():g} to {found.max():g}"
        raise InputError(f"attention must be from 0 to 1, as allpet_physics.project_roi makes it, but was {was}.")
    if found.ndim in (2, 3) and found.shape[-2:] == geometry.sinogram_shape:
        if same_grid(geometry, own):
            return found
        return resample_sinogram(found, geometry, own, kind="line-integrals", max_lost=1.0).clip(0, 1)
    if found.ndim in (2, 3) and found.shape[-2:] == own.sinogram_shape:
        return found
    known = " or ".join(dict.fromkeys(f"({g.n_angles}, {g.n_bins})" for g in (geometry, own)))
    raise GeometryError(f"attention must have the angles and bins of the sinograms, {known}, for all slices or for "
                        f"each, but its shape was {found.shape}; make it with allpet_physics.project_roi.")
