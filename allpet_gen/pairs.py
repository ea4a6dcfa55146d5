r"""What bridges and baselines are trained on: source and target of every task, drawn on the fly from a cohort.

As in `allpet_gen.data`, what item ``(epoch, index)`` holds follows from the seed, the epoch and the index alone.
"""

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from allpet_gen.data import apply_view, class_rows, draw_view, view_numbers
from allpet_gen.source_attention import source_attention
from allpet_gen.tasks import DOSE_FACTORS, TASKS, dose_number, task_tokens
from allpet_gen.training_card import store_digest
from allpet_gen.translator import SLOTS, refuse_unknown_tasks, slots_used
from allpet_physics.counts import thin
from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry

TARGETS = ("expected", "counts")
_DRAW = 3
_NO_ARRAYS = ("tracers", "geometry", "origin")


@dataclass(frozen=True, eq=False)
class PairSet:
    """Scans of some slices of a part of a cohort, as many of every region.

    Attributes
    ----------
    counts : ndarray of uint16 or uint32, shape (n, tracer, frame, angle, bin)
        Prompts at full dose.
    expected : ndarray of float32, same shape
        Their expectation: trues, scatter and randoms.
    unattenuated : ndarray of float32, same shape
        Expected counts of the same exposure without attenuation, scatter and randoms.
    attention : ndarray of uint8, same shape
        `source_attention` of the counts, 255 for 1.
    regions : ndarray of str, shape (n,)
    patients : ndarray of int, shape (n,)
    tracers : tuple of str
    geometry : ParallelGeometry
    origin : str
        `pair_origin` of what it was read from; empty where that is not known.
    """

    counts: np.ndarray
    expected: np.ndarray
    unattenuated: np.ndarray
    attention: np.ndarray
    regions: np.ndarray
    patients: np.ndarray
    tracers: tuple[str, ...]
    geometry: ParallelGeometry
    origin: str = ""

    def __len__(self) -> int:
        return len(self.counts)


def pair_origin(cohort, per_region: int, split: str = "train") -> str:
    """Return what `read_pair_set` would read, as text: sets of the same text are the same."""
    slices = hashlib.sha256(np.asarray(cohort.samples, np.int64).tobytes()).hexdigest()
    return json.dumps({"store": store_digest(cohort), "slices": slices, "tracers": list(cohort.tracers),
                       "split": split, "per_region": per_region})


def read_pair_set(cohort, per_region: int, split: str = "train", progress: Callable = iter, *,
                  attention: bool = True) -> PairSet:
    """Read the first `per_region` slices of every region of a part of a cohort, with the truth behind their counts.

    Parameters
    ----------
    cohort : Cohort
    per_region : int
    split : {"train", "validation", "test"}
    progress : callable
        Wraps the iteration over patients.
    attention : bool
        Whether maps of attention are made, which takes most of the time; they are zero otherwise.

    Raises
    ------
    InputError
        A region with fewer slices.
    """
    part = cohort.select(split=split)
    rows = np.sort(np.concatenate(list(class_rows(cohort, per_region, split).values())))
    shape = (len(rows), len(part.tracers), 2, *part.geometry.sinogram_shape)
    counts = np.empty(shape, np.dtype(part.group["prompts"].dtype))
    expected, unattenuated = np.empty(shape, np.float32), np.empty(shape, np.float32)
    maps = np.zeros(shape, np.uint8)
    at = {int(row): place for place, row in enumerate(rows)}
    for patient in progress(np.unique(part.patients[rows])):
        study = part.patient_study(int(patient))
        own = np.flatnonzero(part.patients == patient)
        kept = [k for k, row in enumerate(own) if int(row) in at]
        places = [at[int(own[k])] for k in kept]
        for t, tracer in enumerate(part.tracers):
            for f, frame in enumerate(("first", "delayed")):
                scan = study.scan(tracer, frame)
                counts[places, t, f], expected[places, t, f] = scan.prompts[kept], scan.expected[kept]
                unattenuated[places, t, f] = study.unattenuated(tracer, frame)[kept]
                if attention:
                    maps[places, t, f] = np.rint(255 * source_attention(scan.prompts[kept], part.geometry))
    return PairSet(counts, expected, unattenuated, maps, part.regions[rows], part.patients[rows], part.tracers,
                   part.geometry, pair_origin(cohort, per_region, split))


@dataclass(frozen=True)
class Drawn:
    """One pair: counts of the source (angle, bin), targets (n_targets, angle, bin), and what is said of them."""

    source: np.ndarray
    targets: np.ndarray
    attention: np.ndarray
    dose_factor: int | None
    tokens: tuple[int, ...]


def draw_pair(pairs: PairSet, task: str, index: int, rng: np.random.Generator, target: str = "expected") -> Drawn:
    """Return a pair of slice `index`: tracers, frame and dose factor are drawn.

    Parameters
    ----------
    pairs : PairSet
    task : str
    index : int
    rng : numpy.random.Generator
    target : {"expected", "counts"}
        Noise-free, which only a simulation has, or measured counts, as a clinic would have them. Attenuation
        correction has no measured target and takes the noise-free one.
    """
    truth = pairs.expected if target == "expected" else pairs.counts
    order = rng.permutation(len(pairs.tracers))
    t, frame = int(order[0]), 0 if task == "delayed-frame" else int(rng.integers(2))
    other = int(order[1]) if TASKS[task].other else None
    factor = int(rng.choice(DOSE_FACTORS)) if TASKS[task].dose else None
    source, attention = pairs.counts[index, t, frame], pairs.attention[index, t, frame]
    if task == "low-dose":
        source, targets = thin(source.astype(np.int64), 1 / factor, rng), truth[index, t, frame][None]
    elif task == "attenuation-correction":
        targets = pairs.unattenuated[index, t, frame][None]
    elif task == "delayed-frame":
        targets = truth[index, t, 1][None]
    elif task == "tracer-conversion":
        targets = truth[index, other, frame][None]
    else:
        source = source.astype(np.int64) + pairs.counts[index, other, frame]
        attention = np.maximum(attention, pairs.attention[index, other, frame])
        targets = truth[index, [t, other], frame]
    tokens = task_tokens(task, pairs.tracers[t], pairs.regions[index], None if other is None else pairs.tracers[other])
    return Drawn(source, targets, attention, factor, tokens)


class PairDataset(Dataset):
    """Inputs of a translation: item (epoch, index) is one pair of one of the tasks, in a view of that epoch.

    Index k is task ``k // len(pairs)`` of slice ``k % len(pairs)``, so that an epoch has all tasks of all slices.

    Parameters
    ----------
    pairs : PairSet
    tasks : sequence of str
    target_scales : mapping
        c_k of each task, see `SinogramTranslator`.
    augmentation : mapping
        Section of the settings.
    seed : int
    target : {"expected", "counts"}
        See `draw_pair`.

    Raises
    ------
    InputError
        An unknown task or kind of target; a task of two tracers for a cohort of one.
    """

    def __init__(self, pairs: PairSet, tasks, target_scales: Mapping, augmentation: Mapping, seed: int,
                 target: str = "expected"):
        if target not in TARGETS:
            raise InputError(f"target must be one of {', '.join(TARGETS)}, but was {target!r}.")
        self.pairs, self.tasks = pairs, refuse_unknown_tasks(tasks)
        for task in self.tasks:
            if TASKS[task].other and len(pairs.tracers) < 2:
                raise InputError(f"{task} needs a store of two tracers at least, but this one has "
                                 f"{', '.join(pairs.tracers)} alone.")
        self.scales = {task: float(target_scales[task]) for task in self.tasks}
        self.augmentation, self.seed, self.target = augmentation, seed, target

    def __len__(self) -> int:
        return len(self.pairs) * len(self.tasks)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        epoch, index = key
        rng = np.random.Generator(np.random.Philox(key=[self.seed, _DRAW], counter=[0, 0, epoch, index]))
        task = self.tasks[index // len(self.pairs)]
        drawn = draw_pair(self.pairs, task, index % len(self.pairs), rng, self.target)
        geometry = self.pairs.geometry
        turn, mirrored = draw_view(rng, self.augmentation, geometry)

        def seen(values, dtype=np.float32):
            return torch.from_numpy(np.ascontiguousarray(apply_view(values, turn, mirrored, geometry), dtype))

        targets = torch.zeros(SLOTS, *geometry.sinogram_shape)
        for slot, values in enumerate(drawn.targets):
            targets[slot] = seen(values)
        numbers = [*view_numbers(turn, mirrored, geometry), dose_number(task, drawn.dose_factor)]
        return {"source": seen(drawn.source), "targets": targets, "attention": seen(drawn.attention)[None] / 255,
                "gain": torch.tensor(float(drawn.dose_factor or 1)), "scale": torch.tensor(self.scales[task]),
                "used": torch.tensor(slots_used(task)), "tokens": torch.tensor(drawn.tokens),
                "numbers": torch.tensor(numbers)}


def save_pair_set(pairs: PairSet, path) -> None:
    """Write a set to one file, whole or not at all; reading it takes seconds where making it takes minutes."""
    path = Path(path)
    partial = path.with_name(f".{path.name}")
    arrays = {field.name: getattr(pairs, field.name) for field in fields(pairs) if field.name not in _NO_ARRAYS}
    with partial.open("wb") as file:
        np.savez(file, **arrays, tracers=np.array(pairs.tracers), origin=np.array(pairs.origin),
                 **pairs.geometry.to_dict())
    partial.rename(path)


def load_pair_set(path) -> PairSet:
    """Return a set that `save_pair_set` wrote.

    Raises
    ------
    InputError
        A file that is none, or cut short.
    """
    try:
        with Path(path).open("rb") as stream, np.load(stream) as file:  # numpy leaves what it opened and cannot read
            arrays = {name: file[name] for name in file.files}
        tracers, origin = tuple(arrays.pop("tracers").tolist()), str(arrays.pop("origin", ""))
        kept = {field.name: arrays.pop(field.name) for field in fields(PairSet) if field.name not in _NO_ARRAYS}
        geometry = ParallelGeometry(**{name: value.tolist() for name, value in arrays.items()})
        return PairSet(**kept, tracers=tracers, geometry=geometry, origin=origin)
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f"{str(path)!r} must be a file of pairs, but cannot be read ({type(error).__name__}); delete "
                         "it, and it is made again.") from None
