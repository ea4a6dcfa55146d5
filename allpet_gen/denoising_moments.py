"""What a certificate rests on: how well a trained network predicts, over patients that it was not trained on."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from allpet_gen._pretrained import KINDS, model_folder, pipeline_class, shipped_models
from allpet_gen.data import ClassSet, apply_view, draw_view, read_class_set, view_numbers
from allpet_gen.known_patients import refuse_known_patients, training_card
from allpet_gen.output_moments import OutputMoments, gather_moments
from allpet_gen.pairs import PairDataset, PairSet, read_pair_set
from allpet_gen.pipelines import SinogramGenerationPipeline
from allpet_gen.translation_models import load_translation
from allpet_gen.translation_objectives import BridgeObjective
from allpet_gen.translation_pipelines import SinogramBridgePipeline
from allpet_physics.errors import GeometryError, InputError
from allpet_physics.masks import DynamicMultiMask

#: A bridge as it is used: everything is said, nothing gated.
_AS_USED = {"gate_strength": 0.0, "gated": 0.0, "null_prompt": 0.0}


def denoising_moments(pipe, folder, cohort, *, split: str = "test", patients: int | None = None,
                      augmented: bool = True, draws: int = 4, seed: int = 0,
                      progress: Callable = iter) -> OutputMoments:
    """Return the moments of a model's predictions over the patients of a store.

    Times, noise and views of a patient are drawn for him alone, so that patients stay independent.

    Parameters
    ----------
    pipe : SinogramGenerationPipeline or SinogramBridgePipeline
    folder : path-like
        Where it was loaded from, with the card of its training.
    cohort : Cohort
    split : {"train", "validation", "test"}
        Part of the store. Patients that the model was trained on are refused.
    patients : int, optional
        How many, evenly over the regions; all that there are by default.
    augmented : bool
        Whether sinograms are turned and mirrored and, for the generator, have masks that are drawn; otherwise they are
        as measured, with one block in the middle.
    draws : int
        Times and noises of each sinogram, or of each pair of a task; each has a view of its own.
    seed : int
    progress : callable
        Wraps the iteration over patients.

    Raises
    ------
    InputError
        No card of a training; patients that were trained on; another kind of model; a store without a task's tracers.
    GeometryError
        A store of another geometry.
    """
    card = training_card(folder)
    if not isinstance(pipe, (SinogramGenerationPipeline, SinogramBridgePipeline)):
        raise InputError("model must be a generator or a bridge, which have a denoising loss, but was "
                         f"{type(pipe).__name__}.")
    if cohort.geometry != pipe.geometry:
        raise GeometryError(f"the store must have the model's geometry, {pipe.geometry}, but has {cohort.geometry}; "
                            "simulate one of that size.")
    refuse_known_patients(card, cohort, split)
    part = cohort.select(split=split)
    regions = sorted(set(part.regions.tolist()))
    slices = min(int((part.regions == region).sum()) for region in regions)
    if patients is not None:
        if patients < len(regions) or patients % len(regions):
            raise InputError(f"patients must be a multiple of {len(regions)}, the regions of the store, but was "
                             f"{patients}.")
        each = int(np.unique(part.patients, return_counts=True)[1].max())
        if patients // len(regions) * each > slices:
            raise InputError(f"patients must be at most {slices // each * len(regions)}, as many as the {split} part "
                             f"has evenly over its regions, but was {patients}; leave it out, or simulate more.")
        slices = patients // len(regions) * each
    settings = card["settings"]
    if isinstance(pipe, SinogramBridgePipeline):
        pairs = read_pair_set(cohort, slices, split, attention=False)
        batches = _bridge_batches(pipe, pairs, settings, augmented, draws, seed, progress)
        c = pipe.network.latent_shape[0]
        return gather_moments(batches, np.arange(c) // pipe.network.config.patch**2)
    data = read_class_set(cohort, slices, split)
    batches = _generator_batches(pipe, data, settings if augmented else None, draws, seed, progress)
    return gather_moments(batches, np.zeros(pipe.autoencoder.latent_channels, int))


@torch.no_grad()
def _generator_batches(pipe, data: ClassSet, settings: Mapping | None, draws: int, seed: int,
                       progress: Callable) -> Iterator[tuple]:
    """Yield predictions of v, patient by patient; views and masks are drawn where settings are given."""
    autoencoder, scheduler = pipe.autoencoder, pipe.scheduler
    steps = scheduler.config.num_train_timesteps
    masks = None
    if settings is not None and autoencoder.config.channels == 3:
        masks = DynamicMultiMask(data.geometry.image_shape, n_blocks=tuple(settings["masks"]["n_blocks"]),
                                 block_px=tuple(settings["masks"]["block_px"]), seed=seed)
    for patient in progress(np.unique(data.patients)):
        rows = np.repeat(np.flatnonzero(data.patients == patient), draws)
        rng = np.random.default_rng([seed, int(patient)])
        counts, views = [], []
        for row in rows:
            view = (0, False) if settings is None else draw_view(rng, settings["augmentation"], data.geometry)
            counts.append(apply_view(np.asarray(data.counts[int(row)]), *view, data.geometry))
            views.append(view_numbers(*view, data.geometry))
        blocks = autoencoder.middle_blocks(len(rows)) if masks is None else masks.draw(
            (rng.integers(2**40) + np.arange(len(rows))).tolist())
        q = autoencoder.encode(autoencoder.network_input(np.stack(counts), blocks))
        draw = torch.Generator().manual_seed(int(rng.integers(2**62)))
        z = autoencoder.standardise(q.sample(draw).float())
        noise = torch.randn(z.shape, generator=draw).to(z.device)
        spread = (torch.randperm(len(z), generator=draw) + torch.rand(len(z), generator=draw)) / len(z)
        t = (spread * steps).long().clamp(max=steps - 1).to(z.device)
        target = scheduler.get_velocity(z, noise, t)
        found = pipe.denoiser(scheduler.add_noise(z, noise, t), t, torch.from_numpy(data.tokens[rows]).to(z.device),
                              torch.tensor(views, device=z.device))
        yield found.float().cpu(), target.cpu(), np.ones(found.shape[:2]), np.full(len(rows), patient)


@torch.no_grad()
def _bridge_batches(pipe, pairs: PairSet, settings: Mapping, augmented: bool, draws: int, seed: int,
                    progress: Callable) -> Iterator[tuple]:
    """Yield predictions of F, patient by patient; views are drawn where they are wanted."""
    network = pipe.network
    objective = BridgeObjective(network, _AS_USED, pipe.scheduler)
    still = {"rotation_deg": 0.0, "mirror": 0.0}
    dataset = PairDataset(pairs, network.tasks, {task: network.target_scale(task) for task in network.tasks},
                          settings["augmentation"] if augmented else still, seed, settings["data"]["target"])
    of_task = np.arange(len(network.tasks)) * len(pairs)
    for patient in progress(np.unique(pairs.patients)):
        own = (of_task[:, None] + np.flatnonzero(pairs.patients == patient)).ravel()
        batch = torch.utils.data.default_collate([dataset[epoch, int(k)] for epoch in range(draws) for k in own])
        batch = {name: value.to(network.device) for name, value in batch.items()}
        draw = torch.Generator().manual_seed(int(np.random.default_rng([seed, int(patient)]).integers(2**62)))
        found, wanted, *_ = objective.predicted(batch, draw)
        used = batch["used"].repeat_interleave(network.config.patch**2, dim=1)
        yield (network.masked(found.float(), batch["used"]).cpu(), network.masked(wanted.float(), batch["used"]).cpu(),
               used.cpu(), np.full(len(found), patient))


def load_certifiable(name):
    """Return a generator or a bridge and its folder: "small", "bridge-small", or a folder of one's own.

    Raises
    ------
    InputError
        As `from_pretrained`; a model of another kind.
    """
    kind = "SinogramBridgePipeline"
    bridges = {f"{KINDS[kind]}{model}": model for model in shipped_models(kind)}
    if not Path(name).is_dir() and str(name) not in (*shipped_models(), *bridges):
        raise InputError(f"model must be one of {', '.join((*shipped_models(), *bridges))}, or a folder that allpet "
                         f"train wrote, but was {str(name)!r}.")
    if str(name) in bridges:
        return load_translation(bridges[str(name)])
    if str(name) in shipped_models() or pipeline_class(name) == "SinogramGenerationPipeline":
        folder = model_folder(name)
        return SinogramGenerationPipeline.from_pretrained(folder), folder
    return load_translation(name)
