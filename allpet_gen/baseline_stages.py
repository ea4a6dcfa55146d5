"""The training of the generator's baselines, from a store to a folder: a VAE, a GAN or a score-based model."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from allpet_gen.baselines.gan import GANGenerator, GANObjective, GANPipeline
from allpet_gen.baselines.sgm import ScoreNetwork, SGMObjective, SGMPipeline, score_scheduler
from allpet_gen.baselines.vae import ConditionalVAE, VAEObjective, VAEPipeline
from allpet_gen.baselines.views import ViewDataset
from allpet_gen.data import ClassSet
from allpet_gen.generation_models import METHODS
from allpet_gen.memory import MemoryCount, count_training_memory
from allpet_gen.stages import count_scale, training_folder
from allpet_gen.training import TrainingSettings, train
from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry

_PIPELINES = {"vae": VAEPipeline, "gan": GANPipeline, "sgm": SGMPipeline}
_OF_NETWORK = ("latent_dim", "patch", "block_out_channels", "layers_per_block", "token_dim", "norm_num_groups")
#: How many sinograms, spread over all, what the score-based model is told of its data is measured on.
_MEASURED = 600


def new_objective(method: str, geometry: ParallelGeometry, settings: Mapping, scale: float = 1.0,
                  measured: Mapping | None = None) -> nn.Module:
    """Return what a baseline minimises around its untrained network; weights follow from the seed.

    Parameters
    ----------
    method : {"vae", "gan", "sgm"}
    geometry : ParallelGeometry
        Of the sinograms.
    settings : mapping
        Of `read_settings`.
    scale : float
        Of counts.
    measured : mapping, optional
        Of `measured_roots`, for the GAN and the score-based model; ``classes`` of `ConditionalVAE`.

    Raises
    ------
    InputError
        An unknown method, numbers that no network can have.
    GeometryError
        Angles or bins that are no multiples of what the network needs.
    """
    if method not in METHODS:
        raise InputError(f"method must be one of {', '.join(METHODS)}, but was {method!r}.")
    own, fields = settings[method], geometry.to_dict()
    torch.manual_seed(settings["training"]["seed"])
    if method == "sgm":
        network = ScoreNetwork(fields, scale, patch=own["patch"], **(measured or {}), **settings["denoiser"])
        return SGMObjective(network, own)
    of_network = {name: own[name] for name in _OF_NETWORK}
    if method == "vae":
        network = ConditionalVAE(fields, scale, **(measured or {}), **of_network)
        return VAEObjective(network, own, TrainingSettings.of(settings["training"], method).accumulation)
    return GANObjective(GANGenerator(fields, scale, **(measured or {}), **of_network), own)


def measured_roots(dataset: ViewDataset, noise_share: float | None = None) -> dict[str, float]:
    """Return ``center`` and ``deviation`` of some data, and ``sigma_min`` and ``sigma_max`` of `ScoreNetwork` for it.

    The largest noise is the largest distance of two standardised sinograms (Song and Ermon 2020, arXiv 2006.09011,
    technique 1), the smallest `noise_share` of the deviation of Poisson noise. All are of views of the first epoch, and
    rounded, as sums of another number of threads differ in their last bits.

    Parameters
    ----------
    dataset : ViewDataset
    noise_share : float, optional
        Without it, there are no noises.
    """
    rows = range(0, len(dataset), -(-len(dataset) // _MEASURED))
    x = torch.stack([dataset[0, i]["x"] for i in rows]).flatten(1).double()
    center, deviation = x.mean().item(), x.std().item()
    found = {"center": center, "deviation": deviation}
    if noise_share is not None:
        farthest, least = torch.cdist(x, x).max().item() / deviation, noise_share * dataset.scaling.noise / deviation
        found |= {"sigma_min": least, "sigma_max": max(farthest, 10 * least)}
    return {name: float(f"{value:.6g}") for name, value in found.items()}


def train_baseline(method: str, sets: tuple[ClassSet, ClassSet], settings: Mapping, out, **options) -> nn.Module:
    """Train a baseline and return its objective with the averaged weights.

    Parameters
    ----------
    method : {"vae", "gan", "sgm"}
    sets : (ClassSet, ClassSet)
        For training and validation, of `allpet_gen.stages.read_sets`.
    settings : mapping
        Of `read_settings`.
    out : path-like
        Checkpoints and logs go to ``<out>/<method>-training``.
    **options
        Of `allpet_gen.training.train`.

    Raises
    ------
    InputError
        An unknown method.
    """
    if method not in METHODS:
        raise InputError(f"method must be one of {', '.join(METHODS)}, but was {method!r}.")
    how, scale = TrainingSettings.of(settings["training"], method), count_scale(sets[0])
    datasets = [ViewDataset(part, scale, settings["augmentation"], how.seed) for part in sets]
    if method == "vae":
        measured = {"classes": np.unique(sets[0].tokens, axis=0).tolist()}
    else:
        measured = measured_roots(datasets[0], settings[method].get("noise_share"))
    objective = new_objective(method, sets[0].geometry, settings, scale, measured)
    return train(objective, datasets[0], how, training_folder(out, method), validation=datasets[1], **options)


def save_baseline(objective: nn.Module, method: str, settings: Mapping, folder, measured: Mapping) -> None:
    """Make a folder one that `allpet_gen.generation_models.load_generator` loads; other files in it stay.

    Parameters
    ----------
    objective : nn.Module
        Of `train_baseline`.
    method : {"vae", "gan", "sgm"}
    settings : mapping
        Of `read_settings`.
    folder : path-like
    measured : mapping
        What held-out sinograms are like, of `measured_classes`.
    """
    network = objective.network.cpu()
    parts = [score_scheduler(network)] if method == "sgm" else []
    _PIPELINES[method](network, *parts).save_into(folder, card={"method": method, "measured": dict(measured)})


def baseline_memory(settings: Mapping, geometry: ParallelGeometry, method: str, *, device="cpu") -> MemoryCount:
    """Count the memory of one step of a baseline's training; of a GAN, what either of its two parts needs at most.

    Raises
    ------
    InputError, GeometryError
        As of `new_objective`.
    """
    how = TrainingSettings.of(settings["training"], method)

    def empty(*shape, dtype=torch.float32):
        return torch.empty(how.batch, *shape, dtype=dtype, device="meta")

    batch = {"x": empty(1, *geometry.sinogram_shape), "tokens": empty(3, dtype=torch.long), "view": empty(3)}
    counts = [count_training_memory(lambda: new_objective(method, geometry, settings),
                                    (batch, torch.Generator(device), part), precision=how.precision, device=device,
                                    gradient_checkpointing=how.gradient_checkpointing)
              for part in (("model", "discriminator") if method == "gan" else ("model",))]
    return max(counts, key=lambda count: count.total)
