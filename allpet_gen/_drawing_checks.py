"""What may be asked of a generator, checked before anything long begins."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from allpet_gen.prompt_guidance import GUIDED_WORDS
from allpet_gen.prompts import Prompt
from allpet_physics._arrays import as_positive_float, as_positive_int
from allpet_physics.attention import ThresholdedROI
from allpet_physics.body_outline import as_mask
from allpet_physics.errors import GeometryError, InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.resampling import resample_sinogram

#: The largest part of the counts of a drawn sinogram that may lie beyond the bins of another geometry.
MOST_LOST = 1e-3
RECONSTRUCTIONS = ("osem", "fbp", None)
#: The largest weight of a prompt.
MOST_GUIDANCE = 100
#: Seeds lie below this.
_SEEDS = 2**63


class Asked(NamedTuple):
    """What is to be drawn: a prompt and a seed for each sinogram, how many together, and on which geometry."""

    prompts: list[Prompt]
    seeds: list[int]
    batch: int
    geometry: ParallelGeometry


def asked_of_generator(prompt, count, seed, batch, reconstruct, geometry, own: ParallelGeometry) -> Asked:
    """Return what is asked of a generator whose networks work on a geometry of their own.

    Raises
    ------
    InputError
        Of `as_prompts`; numbers out of range, an unknown reconstruction.
    GeometryError
        A geometry that is none.
    """
    count, wanted = as_positive_int("count", count), as_prompts(prompt)
    prompts = [p for p in wanted for _ in range(count)]
    seed, batch = as_positive_int("seed", seed, minimum=0), as_positive_int("batch", batch)
    if seed + len(prompts) > _SEEDS:
        raise InputError(f"seed must leave room for {len(prompts)} below 2**63, but was {seed}.")
    if reconstruct not in RECONSTRUCTIONS:
        raise InputError(f'reconstruct must be "osem", "fbp" or None, but was {reconstruct!r}.')
    geometry = own if geometry is None else geometry
    if not isinstance(geometry, ParallelGeometry):
        raise GeometryError(f"geometry must be a ParallelGeometry, but was {type(geometry).__name__}.")
    return Asked(prompts, [seed + i for i in range(len(prompts))], batch, geometry)


def as_prompts(prompt) -> list[Prompt]:
    """Return a prompt, or several, as a list.

    Raises
    ------
    InputError
        Unknown words, nothing at all, a task that starts from a sinogram.
    """
    wanted = [prompt] if isinstance(prompt, (str, Prompt)) else prompt
    if not isinstance(wanted, Iterable):
        raise InputError(f'prompt must be words such as "brain with 18F-FDG", but was {type(prompt).__name__}.')
    wanted = [Prompt.parse(p) for p in wanted]
    if not wanted:
        raise InputError('prompt must be words such as "brain with 18F-FDG", but was empty.')
    for p in wanted:
        if p.task != "generation":
            raise InputError(f"prompt must ask for a region and a tracer alone, but asked for the task {p.task}, "
                             "which starts from a sinogram of one's own; leave the task out.")
    return wanted


def as_region(roi, geometry: ParallelGeometry) -> np.ndarray:
    """Return a region in the image of a geometry as bool, shape (row, col).

    Raises
    ------
    InputError
        No mask of 0 and 1, or one without any pixel.
    GeometryError
        Another shape.
    """
    mask = as_mask("roi", roi.mask if isinstance(roi, ThresholdedROI) else roi, geometry.image_shape)
    if not mask.any():
        raise InputError("roi must hold at least one pixel, but is empty; leave it out to draw without a region.")
    return mask


def on_geometry(expected: np.ndarray, seeds, own: ParallelGeometry, target: ParallelGeometry) -> np.ndarray:
    """Return expected counts (n, angle, bin) of a model's own geometry on another one.

    Raises
    ------
    GeometryError
        More than `MOST_LOST` of a sinogram lies beyond the bins of the other one.
    """
    if target == own:
        return expected
    out = resample_sinogram(expected, own, target, kind="counts", max_lost=1)
    before, after = (a.sum(axis=(1, 2), dtype=np.float64) for a in (expected, out))
    lost = 1 - np.divide(after, before, out=np.ones_like(before), where=before > 0)
    worst = int(lost.argmax())
    if lost[worst] > MOST_LOST:
        raise GeometryError(f"geometry must reach as far as what is drawn, but {lost[worst]:.2%} of the counts of the "
                            f"sinogram of seed {seeds[worst]} lie beyond its {target.fov_mm:g} mm, and at most "
                            f"{MOST_LOST:.1%} may; choose n_bins x bin_mm of {own.fov_mm:g} mm, which the model draws, "
                            "or more.")
    return out


def prompt_weights(guidance) -> tuple[float, float]:
    """Return the weights of region and tracer: one number for both, or a mapping with some of them, 1 if left out.

    Raises
    ------
    InputError
        Other words, numbers out of range.
    """
    if not isinstance(guidance, Mapping):
        return (in_range("guidance", guidance, MOST_GUIDANCE),) * 2
    strange = sorted(set(map(str, guidance)) - set(GUIDED_WORDS))
    if strange or not guidance:
        raise InputError(f"guidance must be a number, or weigh {', '.join(GUIDED_WORDS)} or both, but named "
                         f"{', '.join(map(repr, strange)) or 'nothing'}.")
    return tuple(in_range(f"guidance of the {word}", guidance.get(word, 1.0), MOST_GUIDANCE) for word in GUIDED_WORDS)


def in_range(name: str, value, high: float) -> float:
    """Return a number from 0 to `high`.

    Raises
    ------
    InputError
        Anything else.
    """
    number = as_positive_float(name, value, allow_zero=True)
    if number > high:
        raise InputError(f"{name} must be a number from 0 to {high:g}, but was {number:g}.")
    return number
