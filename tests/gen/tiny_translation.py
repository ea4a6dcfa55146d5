"""Pairs of simple bodies and small networks for the tests of translations, made in an instant."""

import numpy as np
import torch

from allpet_gen.bridge_scheduler import BridgeScheduler
from allpet_gen.pairs import PairSet
from allpet_gen.settings import read_settings
from allpet_gen.source_attention import source_attention
from allpet_gen.translation_stages import train_translation
from allpet_gen.translator import SinogramTranslator
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.radon import RadonOperator

GEOMETRY = ParallelGeometry(32, 32, 20.8, (32, 32), 20.8)
TRACERS = ("18F-FDG", "68Ga-PSMA")
SCALES = {"low-dose": 500.0, "attenuation-correction": 1500.0, "tracer-separation": 500.0, "delayed-frame": 500.0}
WIDTHS = {"block_out_channels": (16, 16), "attention_levels": (False, True), "token_dim": 16, "attention_head_dim": 2,
          "norm_num_groups": 8, "patch": 2}


def random_pairs(n: int = 6, seed: int = 0) -> PairSet:
    """Return scans of n ellipses with a hot disc, whose place is the tracer's own; a third of what none absorbs."""
    rng = np.random.default_rng(seed)
    x, y = GEOMETRY.x, GEOMETRY.y[:, None]
    images = np.zeros((n, len(TRACERS), 2, *GEOMETRY.image_shape), np.float32)
    for image in images:
        body = np.hypot(x / rng.uniform(150, 220), y / rng.uniform(110, 180)) < 1
        for tracer in range(len(TRACERS)):
            spot = np.hypot(x - 80 * (2 * tracer - 1), y - rng.uniform(-40, 40)) < 50
            image[tracer] = (rng.uniform(0.5, 1) * body + 3 * spot) * np.array([1.0, 0.7])[:, None, None]
    expected = 0.2 * RadonOperator(GEOMETRY)(images) + np.float32(3)
    counts = rng.poisson(expected).astype(np.uint16)
    attention = np.rint(255 * source_attention(counts, GEOMETRY)).astype(np.uint8)
    regions = np.array(["head", "chest", "abdomen"])[np.arange(n) % 3]
    return PairSet(counts, expected, 3 * (expected - 3), attention, regions, np.arange(n), TRACERS, GEOMETRY)


def trained(method: str, tasks, out, pairs: PairSet, steps: int = 60):
    """Return the objective of a tiny network after some steps of training."""
    how = {f"training.{method}.{name}": value for name, value in
           (("steps", steps), ("batch", 8), ("warmup", 5), ("ema_decay", 0.9), ("learning_rate", 3e-3))}
    network = {f"network.{name}": list(value) if isinstance(value, tuple) else value for name, value in WIDTHS.items()}
    settings = read_settings("tiny", how | network | {"training.validation": 4}, family="translation-")
    return train_translation(method, (pairs, pairs), tasks, settings, out)


def tiny_translator(seed: int = 0, **views) -> SinogramTranslator:
    """Return an untrained network; what it makes means nothing."""
    torch.manual_seed(seed)
    return SinogramTranslator(GEOMETRY.to_dict(), 500.0, SCALES, -0.3, 0.5, **WIDTHS, **views).eval()


def tiny_scheduler(**changes) -> BridgeScheduler:
    """Return the bridge that goes with it."""
    return BridgeScheduler(**{"sigma_0": 1.0, "sigma_T": 1.2, "covariance": 0.9} | changes)


def random_counts(n: int = 3, seed: int = 0) -> np.ndarray:
    """Return counts of bodies, shape (n, angle, bin)."""
    return random_pairs(n, seed).counts[:, 0, 0]
