"""Small objectives and data for the tests of training, importable by processes that tests start."""

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from allpet_gen.autoencoder import SinogramAutoencoder
from allpet_gen.data import ClassSet, CompositeDataset
from allpet_gen.denoiser import SinogramDenoiser
from allpet_gen.objectives import AutoencoderObjective, DenoiserObjective
from allpet_gen.settings import read_settings
from allpet_physics.geometry import ParallelGeometry

GEOMETRY = ParallelGeometry(16, 16, 40.0, (16, 16), 40.0)


class Points(Dataset):
    """Item (epoch, index) follows from both; points of the line y = 2 x."""

    def __init__(self, n=12):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, key):
        return torch.from_numpy(np.random.default_rng(list(key)).normal(size=3).astype(np.float32))


class Fit(nn.Module):
    """Fit of the sum of a point by a small network; `noise` times the generator's numbers are added to points."""

    def __init__(self, noise=0.1, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.net, self.noise = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)), noise

    @property
    def parts(self):
        return {"model": list(self.net.parameters())}

    def forward(self, batch, generator, part="model"):
        noisy = batch + self.noise * torch.randn(batch.shape, generator=generator)
        error = (self.net(noisy) - batch.sum(-1, keepdim=True)).square().mean()
        return error, {"error": error.detach()}


def tiny_settings(**changes):
    small = {"cohort.size": 16, "autoencoder.block_out_channels": [8, 8], "autoencoder.norm_num_groups": 4,
             "denoiser.block_out_channels": [16, 16], "denoiser.norm_num_groups": 4, "masks.block_px": [2, 4],
             "training.autoencoder.batch": 2, "training.denoiser.batch": 2}
    return read_settings("tiny", small | changes)


def random_class_set(n=6, seed=0):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(50.0 * rng.random((n, 1, 16)), (n, 16, 16)).astype(np.uint16)
    tokens = np.stack([rng.integers(1, 4, n), rng.integers(1, 4, n), np.ones(n, int)], axis=1)
    return ClassSet(counts, tokens, np.arange(n), GEOMETRY, ("brain with 18F-FDG",), n)


def tiny_autoencoder(settings, data):
    torch.manual_seed(0)
    return SinogramAutoencoder(GEOMETRY.to_dict(), float(data.counts.max()),
                               channels=3 if settings["data"]["composite"] else 1, **settings["autoencoder"])


def tiny_composites(**changes):
    """Return settings, a class set, and the dataset of its composites."""
    settings, data = tiny_settings(**changes), random_class_set()
    return settings, data, CompositeDataset(data, tiny_autoencoder(settings, data), settings["masks"],
                                            settings["augmentation"], 0)


def autoencoder_objective(settings, data):
    return AutoencoderObjective(tiny_autoencoder(settings, data), settings["autoencoder_loss"])


def denoiser_objective(settings):
    torch.manual_seed(0)
    denoiser = SinogramDenoiser((4, 4, 4), GEOMETRY.arc, **settings["denoiser"])
    return DenoiserObjective(denoiser, settings["diffusion"], torch.zeros(4, 1, 1), torch.ones(4, 1, 1))


def loss_lines(folder):
    """Return the rows of a training's table without validation, whose steps follow the clock."""
    lines = (folder / "losses.csv").read_text().splitlines()
    return [line for line in lines if ",validation," not in line]


class Latents(Dataset):
    """Random latents with prompts."""

    def __len__(self):
        return 8

    def __getitem__(self, key):
        rng = np.random.default_rng([7, *key])
        return {"z": torch.from_numpy(rng.standard_normal((4, 4, 4), dtype=np.float32)),
                "tokens": torch.from_numpy(rng.integers(1, 4, 3)), "view": torch.zeros(3)}
