"""Pairs of made-up scans, networks for them and batches, for the tests of translations."""

import numpy as np
import torch

from allpet_gen.pair_statistics import measured_scales
from allpet_gen.pairs import PairDataset, PairSet
from allpet_gen.tasks import TASKS
from allpet_gen.translator import SinogramTranslator
from allpet_physics.geometry import ParallelGeometry

GEOMETRY = ParallelGeometry(16, 16, 40.0, (16, 16), 40.0)
UPRIGHT = {"rotation_deg": 0.0, "mirror": 0.0}
TOLD = {"gated": 0.25, "gate_strength": 0.25, "null_prompt": 0.1}


def random_pairs(n=6, seed=0, mean=40.0, tracers=("18F-FDG", "18F-DOPA", "68Ga-PSMA")) -> PairSet:
    """Return Poisson counts of random expectations that have empty bins at one side; regions take turns."""
    rng = np.random.default_rng(seed)
    expected = rng.gamma(2.0, mean / 2, (n, len(tracers), 2, *GEOMETRY.sinogram_shape)).astype(np.float32)
    expected[..., :2] = 0
    attention = rng.integers(0, 256, expected.shape).astype(np.uint8)
    return PairSet(rng.poisson(expected).astype(np.uint16), expected, 3 * expected + 1, attention,
                   np.array([("head", "chest", "abdomen")[i % 3] for i in range(n)]), np.arange(n), tuple(tracers),
                   GEOMETRY)


def tiny_translator(pairs: PairSet, tasks=tuple(TASKS), seed=0, **changes) -> SinogramTranslator:
    scale, targets = measured_scales(pairs, tasks)
    torch.manual_seed(seed)
    return SinogramTranslator(GEOMETRY.to_dict(), scale, targets, **{
        "center": -0.4, "deviation": 0.3, "patch": 2, "block_out_channels": (16, 16), "attention_levels": (False, True),
        "token_dim": 8, "attention_head_dim": 2, "norm_num_groups": 4} | changes)


def pair_dataset(pairs: PairSet, network: SinogramTranslator, augmentation=UPRIGHT, seed=0, target="expected"):
    scales = {task: network.target_scale(task) for task in network.tasks}
    return PairDataset(pairs, network.tasks, scales, augmentation, seed, target)


def batch_of(dataset: PairDataset, indices=None, epoch=0) -> dict[str, torch.Tensor]:
    indices = range(len(dataset)) if indices is None else indices
    return torch.utils.data.default_collate([dataset[epoch, i] for i in indices])
