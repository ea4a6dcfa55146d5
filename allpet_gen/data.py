"""What networks are trained on: sinograms of a cohort by class, with masks and views drawn on the fly.

Nothing is random in order or in process: what item ``(epoch, index)`` holds follows from the seed, the epoch and the
index alone, so any worker can make any item and a resumed training sees what an unbroken one would have seen.
"""

import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from allpet_gen.prompts import Prompt
from allpet_gen.stored_counts import StoredCounts
from allpet_gen.symmetry import mirror_sinogram, rotate_sinogram
from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.masks import DynamicMultiMask

if TYPE_CHECKING:  # a worker that makes batches has no use for diffusers, whose import takes seconds
    from allpet_gen.autoencoder import SinogramAutoencoder

_VIEW, _NOISE = 1, 2
#: Counts above this many bytes stay in their store and are read one sinogram at a time.
IN_MEMORY_BYTES = 2 * 10**9


@dataclass(frozen=True, eq=False)
class ClassSet:
    """Sinograms with their prompts, the same number of every class.

    Attributes
    ----------
    counts : ndarray or StoredCounts, of uint16 or uint32, shape (n, angle, bin)
        Prompts of the first frame at full dose.
    tokens : ndarray of int64, shape (n, 3)
    patients : ndarray of int, shape (n,)
    geometry : ParallelGeometry
    classes : tuple of str
        Prompts in the order of the classes; sinogram i is of class ``i // per_class``.
    per_class : int
    stored : StoredCounts, optional
        Where `counts` came from: what travels to other processes in their place.
    """

    counts: np.ndarray | StoredCounts
    tokens: np.ndarray
    patients: np.ndarray
    geometry: ParallelGeometry
    classes: tuple[str, ...]
    per_class: int
    stored: StoredCounts | None = None

    def __getstate__(self) -> dict:
        return self.__dict__ | ({} if self.stored is None else {"counts": self.stored})

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def labels(self) -> np.ndarray:
        """Number of the class of each sinogram."""
        return np.arange(len(self)) // self.per_class


def read_class_set(cohort, per_class: int, split: str = "train") -> ClassSet:
    """Read the first `per_class` sinograms of every class of a part of a cohort.

    Up to `IN_MEMORY_BYTES` they are held in memory; more of them are read from the store when they are needed.

    Parameters
    ----------
    cohort : Cohort
        Of `allpet_physics.simulation.cohort_reader.read_cohort`.
    per_class : int
    split : {"train", "validation", "test"}

    Raises
    ------
    InputError
        A class with fewer sinograms: the message says how many it has.
    """
    part = cohort.select(split=split)
    rows = class_rows(cohort, per_class, split)
    tracers = [part.card["parameters"]["tracers"].index(tracer) for tracer in part.tracers]
    samples, numbers, tokens, patients, classes = [], [], [], [], []
    for region, chosen in rows.items():
        for tracer, number in zip(part.tracers, tracers, strict=True):
            prompt = Prompt(tracer, region)
            classes.append(str(prompt))
            samples.append(part.samples[chosen])
            numbers.append(np.full(per_class, number))
            tokens.append(np.tile(prompt.tokens(), (per_class, 1)))
            patients.append(part.patients[chosen])
    stored = StoredCounts(part, np.concatenate(samples), np.concatenate(numbers))
    counts = stored
    if stored.nbytes <= IN_MEMORY_BYTES:
        counts = np.concatenate([part.prompts(chosen, tracer).astype(stored.dtype)
                                 for chosen in rows.values() for tracer in part.tracers])
    return ClassSet(counts, np.concatenate(tokens).astype(np.int64), np.concatenate(patients), part.geometry,
                    tuple(classes), per_class, stored)


def class_rows(cohort, per_class: int, split: str = "train", setting: str = "") -> dict[str, np.ndarray]:
    """Return which slices of a part of a cohort are read, by region; raise as `read_class_set`, but read nothing.

    Where the number comes from a setting, the error names it: ``data.per_class``.
    """
    part = cohort.select(split=split)
    regions = [r for r in part.card["parameters"]["regions"] if (cohort.regions == r).any()]
    found = {region: np.flatnonzero(part.regions == region) for region in regions}
    for region, rows in found.items():
        if len(rows) < per_class:
            raise InputError(f"the store must hold {per_class} {split} sinograms of each class, but has {len(rows)} of "
                             f"the {region}; simulate more patients{or_fewer(per_class, setting)}.")
    return {region: rows[:per_class] for region, rows in found.items()}


def or_fewer(wanted: int, setting: str = "") -> str:
    """Return the other way out of too few sinograms: no setting can ask for less than one of each class."""
    return "" if wanted <= 1 else f", or lower {setting}" if setting else ", or ask for fewer"


def draw_view(rng: np.random.Generator, augmentation: Mapping, geometry: ParallelGeometry) -> tuple[int, bool]:
    """Return by how many angles to turn and whether to mirror, as the settings of augmentation allow."""
    most = most_turn(augmentation["rotation_deg"], geometry)
    return int(rng.integers(-most, most + 1)), bool(rng.random() < augmentation["mirror"])


def most_turn(rotation_deg: float, geometry: ParallelGeometry) -> int:
    """Return by how many angles a rotation of so many degrees turns, rounded down."""
    return int(rotation_deg / np.rad2deg(geometry.arc / geometry.n_angles))


def apply_view(sinogram: np.ndarray, turn: int, mirrored: bool, geometry: ParallelGeometry) -> np.ndarray:
    """Return the sinogram of the mirrored and then turned image."""
    if mirrored:
        sinogram = mirror_sinogram(sinogram, geometry.arc)
    return rotate_sinogram(sinogram, turn, geometry.arc) if turn else sinogram


def undo_view(sinogram: np.ndarray, turn: int, mirrored: bool, geometry: ParallelGeometry) -> np.ndarray:
    """Return the sinogram that `apply_view` made this one of, to the last bit."""
    sinogram = rotate_sinogram(sinogram, -turn, geometry.arc) if turn else sinogram
    return mirror_sinogram(sinogram, geometry.arc) if mirrored else sinogram


def view_numbers(turn: int, mirrored: bool, geometry: ParallelGeometry) -> tuple[float, float, float]:
    """Return what the denoiser is told of a view: (cos φ − 1, sin φ, mirrored)."""
    angle = turn * geometry.arc / geometry.n_angles
    return float(np.cos(angle) - 1), float(np.sin(angle)), float(mirrored)


class CompositeDataset(Dataset):
    """Inputs of the autoencoder: item (epoch, index) is a view of sinogram `index` with the masks of that epoch.

    Parameters
    ----------
    data : ClassSet
    autoencoder : SinogramAutoencoder
        Says the scale of counts and whether composites are wanted.
    masks, augmentation : mapping
        Sections of the settings.
    seed : int
    """

    def __init__(self, data: ClassSet, autoencoder: "SinogramAutoencoder", masks: Mapping, augmentation: Mapping,
                 seed: int):
        self.data, self.augmentation, self.seed = data, augmentation, seed
        self.scaling, self.channels = autoencoder.scaling, autoencoder.config.channels
        self.masks = DynamicMultiMask(data.geometry.image_shape, n_blocks=tuple(masks["n_blocks"]),
                                      block_px=tuple(masks["block_px"]), seed=seed)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: tuple[int, int]) -> torch.Tensor:
        epoch, index = key
        rng = np.random.Generator(np.random.Philox(key=[self.seed, _VIEW], counter=[0, 0, epoch, index]))
        return self.item(epoch, index, *draw_view(rng, self.augmentation, self.data.geometry))

    def item(self, epoch: int, index: int, turn: int, mirrored: bool) -> torch.Tensor:
        """Return one view with the masks of an epoch, float32 (channels, angle, bin) in the range of the network."""
        from allpet_physics.composites import composite_blocks

        counts = apply_view(self.data.counts[index], turn, mirrored, self.data.geometry).astype(np.float32)
        counts = np.ascontiguousarray(counts)[None]
        if self.channels == 3:
            blocks = self.masks.draw([epoch * len(self) + index])
            counts = composite_blocks(counts, blocks, self.data.geometry)[0]
        return torch.from_numpy(self.scaling.encode(counts))


class LatentDataset(Dataset):
    """Latents with their prompts and views: item (epoch, index) is one of the cached views, drawn by epoch.

    Parameters
    ----------
    mean, logvar : tensor, shape (n, views, channels, height, width)
        Of q(z | x), before standardisation; float16 is enough, items are float32.
    tokens : tensor of int, shape (n, 3)
    views : tensor, shape (n, views, 3)
    seed : int
    """

    def __init__(self, mean, logvar, tokens, views, seed: int):
        self.mean, self.logvar, self.tokens, self.views, self.seed = mean, logvar, tokens, views, seed

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        epoch, index = key
        rng = np.random.Generator(np.random.Philox(key=[self.seed, _NOISE], counter=[0, 0, epoch, index]))
        view = int(rng.integers(self.mean.shape[1]))
        noise = torch.from_numpy(rng.standard_normal(self.mean.shape[2:], dtype=np.float32))
        z = self.mean[index, view].float() + torch.exp(self.logvar[index, view].float() / 2) * noise
        return {"z": z, "tokens": self.tokens[index], "view": self.views[index, view]}


@torch.no_grad()
def encode_views(autoencoder: "SinogramAutoencoder", dataset: CompositeDataset, n_views: int,
                 progress=iter, batch: int = 64) -> dict[str, torch.Tensor]:
    """Return the distributions q(z | x) of several views of every sinogram: what `LatentDataset` wants, by name.

    View 0 is the sinogram as measured; the others are drawn. Each has masks of its own. Means and logarithms of
    variances are rounded to float16, a thousandth of themselves, far below the noise of q. Two more tensors,
    "latent_mean" and "latent_std", are mean and deviation of z over all by channel, in float64.
    """
    data, autoencoder = dataset.data, autoencoder.eval()
    keys = [(index, view) for view in range(n_views) for index in range(len(data))]
    shape = (len(data), n_views, *autoencoder.latent_shape)
    mean, logvar = torch.empty(shape, dtype=torch.float16), torch.empty(shape, dtype=torch.float16)
    views = torch.zeros(len(data), n_views, 3)
    sums = torch.zeros(2, autoencoder.latent_channels, dtype=torch.float64)
    for start in progress(range(0, len(keys), batch)):
        chosen, inputs = keys[start:start + batch], []
        for index, view in chosen:
            rng = np.random.Generator(np.random.Philox(key=[dataset.seed, _VIEW], counter=[1, 0, view, index]))
            turn, mirrored = draw_view(rng, dataset.augmentation, data.geometry) if view else (0, False)
            inputs.append(dataset.item(view, index, turn, mirrored))
            views[index, view] = torch.tensor(view_numbers(turn, mirrored, data.geometry))
        q = autoencoder.encode(torch.stack(inputs).to(autoencoder.device))
        at = tuple(torch.tensor(chosen).T)
        mean[at], logvar[at] = q.mean.half().cpu(), q.logvar.half().cpu()
        wide = q.mean.double().cpu()
        sums += torch.stack([wide.sum((0, 2, 3)), (wide**2 + q.logvar.double().exp().cpu()).sum((0, 2, 3))])
    first, second = sums / (mean.numel() / autoencoder.latent_channels)
    return {"mean": mean, "logvar": logvar, "tokens": torch.from_numpy(data.tokens), "views": views,
            "latent_mean": first, "latent_std": (second - first**2).clamp(min=1e-12).sqrt()}


def start_worker(_number: int) -> None:
    """Begin a process that makes batches: Ctrl-C is for the training, which ends its workers; one thread each."""
    import numba

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    numba.set_num_threads(1)


class StepSampler(Sampler):
    """Batches of (epoch, index) by step: each epoch is a permutation by (seed, epoch), each process has its share.

    Parameters
    ----------
    n : int
        Items of an epoch.
    batch : int
        Items of one process in one step.
    steps : range
        The steps to make batches for: a resumed training begins where it stopped.
    seed : int
    rank, world : int
        Number of this process, and how many there are.
    """

    def __init__(self, n: int, batch: int, steps: range, seed: int, rank: int = 0, world: int = 1):
        self.n, self.batch, self.steps, self.seed, self.rank, self.world = n, batch, steps, seed, rank, world

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, order = -1, np.empty(0, int)
        for step in self.steps:
            first = (step * self.world + self.rank) * self.batch
            keys = []
            for place in range(first, first + self.batch):
                if place // self.n != epoch:
                    epoch = place // self.n
                    order = np.random.default_rng([self.seed, epoch]).permutation(self.n)
                keys.append((epoch, int(order[place % self.n])))
            yield keys
