"""Two classes of simple bodies, and baselines that learn them in seconds."""

import functools
import tempfile
from pathlib import Path

import numpy as np
import torch

from allpet_gen.baseline_stages import new_objective, save_baseline, train_baseline
from allpet_gen.baselines.views import ViewDataset
from allpet_gen.data import ClassSet
from allpet_gen.model_card import measured_classes
from allpet_gen.prompts import Prompt
from allpet_gen.settings import read_settings
from allpet_gen.stages import count_scale
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.radon import RadonOperator

GEOMETRY = ParallelGeometry(16, 16, 41.6, (16, 16), 41.6)
CLASSES = ("brain with 18F-FDG", "abdomen with 68Ga-PSMA")
METHODS = ("vae", "gan", "sgm")
#: Enough for each to tell the classes apart.
STEPS = {"vae": 300, "gan": 150, "sgm": 150}


def class_set(n: int = 24, seed: int = 0) -> ClassSet:
    """Return Poisson counts of n heads, small and hot, and of n trunks, large and with three times the counts."""
    rng, counts, tokens = np.random.default_rng(seed), [], []
    x, y = GEOMETRY.x, GEOMETRY.y[:, None]
    for name, (wide, high), total in zip(CLASSES, ((110, 140), (230, 170)), (20_000, 60_000), strict=True):
        images = np.stack([np.hypot(x / (wide * rng.uniform(0.9, 1.1)), y / (high * rng.uniform(0.9, 1.1))) < 1
                           for _ in range(n)]).astype(np.float32)
        expected = RadonOperator(GEOMETRY)(images)
        expected *= total * rng.uniform(0.8, 1.25, (n, 1, 1)) / expected.sum((1, 2), keepdims=True)
        counts.append(rng.poisson(expected + 4))
        tokens += [Prompt.parse(name).tokens()] * n
    return ClassSet(np.concatenate(counts).astype(np.uint16), np.array(tokens), np.arange(2 * n), GEOMETRY, CLASSES, n)


def quick(method: str, **changes) -> dict:
    """Return settings of small networks."""
    small = {"cohort.size": 16, "vae.block_out_channels": [16, 16], "gan.block_out_channels": [16, 16],
             "gan.discriminator_channels": [16, 16], "denoiser.block_out_channels": [16, 16],
             "denoiser.norm_num_groups": 4, "vae.kl": 4.0, f"training.{method}.steps": STEPS[method],
             f"training.{method}.batch": 8, f"training.{method}.learning_rate": 2e-3,
             "training.validation": 16}
    return read_settings("tiny", small | changes)


def untrained(method: str, data: ClassSet | None = None, **changes):
    """Return an objective and a dataset for it."""
    settings, data = quick(method, **changes), class_set() if data is None else data
    dataset = ViewDataset(data, count_scale(data), settings["augmentation"], 0)
    return new_objective(method, data.geometry, settings, count_scale(data)), dataset


def batch_of(dataset, n: int = 8) -> dict:
    """Return the first items of a dataset of both classes together."""
    rows = np.linspace(0, len(dataset) - 1, n).astype(int)
    return torch.utils.data.default_collate([dataset[0, int(i)] for i in rows])


@functools.cache
def trained(method: str) -> Path:
    """Return a folder with the model of a method, trained once in a run of the tests."""
    out = Path(tempfile.mkdtemp())
    settings, sets = quick(method), (class_set(), class_set(8, seed=1))
    objective = train_baseline(method, sets, settings, out)
    (out / method).mkdir()
    measured = measured_classes({name: sets[1].counts[sets[1].labels == k] for k, name in enumerate(CLASSES)}, GEOMETRY)
    save_baseline(objective, method, settings, out / method, measured)
    return out
