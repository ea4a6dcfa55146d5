r"""Source and target of the five tasks, from the scans of one patient.

With the prompts y, levels κ, line integrals L = A G x, attenuation factors a and background b = s + r of a `Study`:

==========================  ==================================  =====================================================
task                        source                              target
==========================  ==================================  =====================================================
``low-dose``                Binomial(y, 1/factor)               y
``attenuation-correction``  y, with attenuation, s and r        κ L: the same activity and exposure without attenuation
``delayed-frame``           y of the first frame                y of the delayed frame, same calibration
``tracer-separation``       y of one tracer plus y of another   the two, on an axis ``tracer`` before the angles
``tracer-conversion``       y of one tracer                     y of another, same anatomy and frame
==========================  ==================================  =====================================================

A sum of independent Poisson counts is a Poisson count, so the mixture is what one scan of both tracers would count
(but for the randoms between one tracer's photons and the other's), and its two targets add up to it exactly.

The target of ``attenuation-correction`` comes in three kinds. ``"expected"`` is κ L: noise-free. ``"poisson"`` draws
counts of it: an ideal scan that loses nothing; in a trunk it has some ten times the counts of the source, hence less
noise than any correction can reach. ``"corrected"`` is (y - b) / a: what a scanner with a CT makes of these very
counts, unbiased, noisy, and signed.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from allpet_physics._arrays import as_positive_int
from allpet_physics.counts import poisson_counts, thin
from allpet_physics.errors import InputError
from allpet_physics.scan import Scan
from allpet_physics.simulation.streams import random_stream
from allpet_physics.simulation.study import Study
from allpet_physics.simulation.study_settings import FRAMES, frame_number

TASKS = ("low-dose", "attenuation-correction", "delayed-frame", "tracer-separation", "tracer-conversion")
TARGETS = ("expected", "poisson", "corrected")
_THINNING, _UNATTENUATED = 11, 12


@dataclass(frozen=True, eq=False)
class TaskPair:
    """What goes into a task and what should come out.

    Attributes
    ----------
    task : str
    source : ndarray of int64, shape (slices, angles, bins)
        Counts.
    target : ndarray, shape (slices, angles, bins), or (slices, 2, angles, bins) for ``tracer-separation``
        Counts (int64), or float32 in counts for the targets of ``attenuation-correction`` that are not drawn.
    source_level, target_level : float or tuple of float
        Counts per SUV·mm, κ (times the dose): divide by it, and by the attenuation where it is in, to get SUV·mm.
    prompt : str
        Class of the source, such as "brain with 18F-FDG".
    condition : dict
        What tells variants of a task apart: dose factor, tracers, frames, kind of target.
    """

    task: str
    source: np.ndarray
    target: np.ndarray
    source_level: float | tuple[float, ...]
    target_level: float | tuple[float, ...]
    prompt: str
    condition: dict = field(default_factory=dict)


def task_pair(study: Study, task: str, *, tracer: str | None = None, other: str | None = None, frame: str = "first",
              dose_factor: int = 10, target: str = "expected", draw: int = 0) -> TaskPair:
    """Return source and target of a task, for every slice of a study.

    Parameters
    ----------
    study : Study
    task : str
        One of `TASKS`.
    tracer : str, optional
        Of the source; the study's first by default.
    other : str, optional
        The second tracer of ``tracer-separation``, the target's of ``tracer-conversion``; by default the one after
        `tracer` in the study.
    frame : {"first", "delayed"}
        Of source and target (``delayed-frame`` has its own).
    dose_factor : int
        For ``low-dose``: the fraction 1/factor of the counts is kept, by exact binomial thinning.
    target : {"expected", "poisson", "corrected"}
        For ``attenuation-correction``.
    draw : int
        Which of the possible low doses (or Poisson targets): the same number gives the same counts in any process.

    Raises
    ------
    InputError
        An unknown task, tracer, frame or target; a task of two tracers for a study of one; a factor below 2 (a
        fraction of 1 is no lower dose).
    """
    if task not in TASKS:
        raise InputError(f"task must be one of {', '.join(TASKS)}, but was {task!r}.")
    first = study.tracer_number(tracer) if tracer is not None else 0
    at = frame_number(frame)
    name = study.tracers[first]
    condition = {"tracer": name, "frame": frame}

    def pair(source, out, levels, **more):
        return TaskPair(task, source, out, *levels, study.prompt(name), condition | more)

    counts = study.prompts[:, first, at].astype(np.int64)
    level = float(study.level[first, at])
    if task == "low-dose":
        factor = as_positive_int("dose_factor", dose_factor, minimum=2)
        low = low_dose(study, name, factor, frame=frame, draw=draw)
        return pair(low, counts, (level / factor, level), dose_factor=factor)
    if task == "attenuation-correction":
        return pair(counts, _unattenuated(study, name, frame, target, draw), (level, level), target=target)
    if task == "delayed-frame":
        condition["frame"] = FRAMES[0]
        return pair(study.prompts[:, first, 0].astype(np.int64), study.prompts[:, first, 1].astype(np.int64),
                    tuple(float(v) for v in study.level[first]), target_frame=FRAMES[1])
    second = _other(study, first, other)
    counts_of_second = study.prompts[:, second, at].astype(np.int64)
    level_of_second = float(study.level[second, at])
    condition["other"] = study.tracers[second]
    if task == "tracer-conversion":
        return pair(counts, counts_of_second, (level, level_of_second))
    both = (level, level_of_second)
    return pair(counts + counts_of_second, np.stack([counts, counts_of_second], axis=1), (both, both))


def low_dose(study: Study, tracer: str, dose_factor: int, *, frame: str = "first", draw: int = 0) -> np.ndarray:
    """Return prompts of a dose lowered by a factor, int64, shape (slices, angles, bins).

    They depend on the patient's key, the slice, tracer, frame, factor and `draw` alone, so no store needs to keep them.
    """
    full = study.prompts[:, study.tracer_number(tracer), frame_number(frame)].astype(np.int64)
    name = study.tracers[study.tracer_number(tracer)]
    out = np.empty_like(full)
    for k, number in enumerate(study.slices):
        rng = random_stream(study.key, _THINNING, name, frame_number(frame), number, dose_factor, draw)
        out[k] = thin(full[k], 1 / dose_factor, rng)
    return out


def low_dose_scan(study: Study, tracer: str, dose_factor: int, *, frame: str = "first", draw: int = 0) -> Scan:
    """Return the scan of `low_dose` with its means, ready for reconstruction; see `Study.scan`."""
    full, share = study.scan(tracer, frame), np.float32(1 / dose_factor)
    means = {name: getattr(full, name) * share for name in ("trues", "scatter", "randoms")}
    return replace(full, prompts=low_dose(study, tracer, dose_factor, frame=frame, draw=draw), dose=1 / dose_factor,
                   **means)


def _unattenuated(study: Study, tracer: str, frame: str, target: str, draw: int) -> np.ndarray:
    if target not in TARGETS:
        raise InputError(f"target must be one of {', '.join(TARGETS)}, but was {target!r}.")
    if target == "corrected":
        scan = study.scan(tracer, frame)
        return ((scan.prompts - scan.additive) / scan.attenuation).astype(np.float32)
    expected = study.unattenuated(tracer, frame)
    if target == "expected":
        return expected
    rngs = (random_stream(study.key, _UNATTENUATED, tracer, frame_number(frame), number, draw)
            for number in study.slices)
    return np.stack([poisson_counts(mean, rng) for mean, rng in zip(expected, rngs, strict=True)])


def _other(study: Study, first: int, other: str | None) -> int:
    if len(study.tracers) < 2:
        raise InputError(f"a task of two tracers needs a study of two, but this one has {study.tracers[0]} alone.")
    second = (first + 1) % len(study.tracers) if other is None else study.tracer_number(other)
    if second == first:
        raise InputError(f"other must be another tracer than {study.tracers[first]}, but was {other!r}.")
    return second
