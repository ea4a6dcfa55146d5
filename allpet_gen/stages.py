"""The two stages of a generator's training, from a store to a folder that a pipeline loads."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from allpet_gen.autoencoder import SinogramAutoencoder
from allpet_gen.checkpoints import latest_checkpoint
from allpet_gen.checkpoints import read_card as read_checkpoint_card
from allpet_gen.count_scaling import CountScaling
from allpet_gen.data import (
    IN_MEMORY_BYTES,
    ClassSet,
    CompositeDataset,
    LatentDataset,
    class_rows,
    encode_views,
    or_fewer,
    read_class_set,
)
from allpet_gen.denoiser import SinogramDenoiser
from allpet_gen.objectives import AutoencoderObjective, DenoiserObjective, noise_schedule
from allpet_gen.training import TrainingSettings, start_accelerator, train
from allpet_gen.training_log import read_losses
from allpet_physics.errors import GeometryError, InputError
from allpet_physics.simulation.split import SPLITS, split_patients

STAGES = ("autoencoder", "denoiser")
LATENTS = "latents.safetensors"
#: What says how many sinograms of a part of the patients are wanted.
_SETTING = {"train": "data.per_class", "validation": "training.validation"}
#: Losses of this many last steps are averaged for the card of a training.
_LAST_STEPS = 100


def check_cohort(cohort, settings: Mapping) -> None:
    """Raise unless a cohort has the size and the numbers that the settings ask for; only its card is read.

    Raises
    ------
    GeometryError
        Sinograms of another size than ``cohort.size``.
    InputError
        Too few sinograms of a class.
    """
    size, shape = settings["cohort"]["size"], cohort.geometry.sinogram_shape
    if shape != (size, size):
        raise GeometryError(f"the store must have sinograms of {size} x {size}, the cohort.size of the settings, but "
                            f"has {shape[0]} x {shape[1]}; choose another config, or set cohort.size, masks and "
                            "networks to fit.")
    for split, wanted in _per_class(settings, len(cohort.classes)).items():
        class_rows(cohort, wanted, split, _SETTING[split])


def check_planned(parameters: Mapping, settings: Mapping) -> None:
    """Raise `InputError` unless the cohort that will be simulated can hold what the settings ask for.

    Parameters
    ----------
    parameters : mapping
        Of `allpet_physics.simulation.cohort_settings.cohort_parameters`.
    settings : mapping
    """
    regions = parameters["regions"]
    of_patient = np.array([regions[i % len(regions)] for i in range(parameters["n_patients"])])
    part = np.array(SPLITS)[split_patients(of_patient.tolist(), parameters["split"])]
    n_classes = len(regions) * len(parameters["tracers"])
    for name, wanted in _per_class(settings, n_classes).items():
        for region in regions:
            n = int(((of_patient == region) & (part == name)).sum()) * parameters["n_slices"]
            if n < wanted:
                raise InputError(f"cohort.patients must give {wanted} {name} sinograms of each class, but "
                                 f"{parameters['n_patients']} patients give {n} of the {region}; raise it"
                                 f"{or_fewer(wanted, _SETTING[name])}.")


def read_sets(cohort, settings: Mapping) -> tuple[ClassSet, ClassSet]:
    """Return training and validation sinograms."""
    training, validation = (read_class_set(cohort, wanted, split)
                            for split, wanted in _per_class(settings, len(cohort.classes)).items())
    return training, validation


def new_autoencoder(data: ClassSet, settings: Mapping) -> SinogramAutoencoder:
    """Return an untrained autoencoder for some training sinograms; its weights follow from the seed."""
    torch.manual_seed(settings["training"]["seed"])
    return SinogramAutoencoder(data.geometry.to_dict(), count_scale(data),
                               channels=3 if settings["data"]["composite"] else 1, **settings["autoencoder"])


def count_scale(data: ClassSet) -> float:
    """Return the scale of `CountScaling` for some training sinograms."""
    step = -(-4 * data.counts.nbytes // IN_MEMORY_BYTES)  # of many, some spread over all are enough to find the scale
    return CountScaling.from_counts(data.counts if step <= 4 else data.counts[::step]).scale


def new_denoiser(autoencoder: SinogramAutoencoder, settings: Mapping) -> SinogramDenoiser:
    """Return an untrained denoiser for the latents of an autoencoder; its weights follow from the seed."""
    torch.manual_seed(settings["training"]["seed"] + 1)
    return SinogramDenoiser(autoencoder.latent_shape, autoencoder.geometry.arc, **settings["denoiser"])


def train_autoencoder(sets: tuple[ClassSet, ClassSet], settings: Mapping, out, *, progress: Callable = iter,
                      **options) -> SinogramAutoencoder:
    """Train the autoencoder, cache the latents of the training set and write both to `out`.

    Parameters
    ----------
    sets : (ClassSet, ClassSet)
        For training and validation.
    settings : mapping
        Of `read_settings`.
    out : path-like
    progress : callable
        Wraps the iteration over batches of latents.
    **options
        Of `train`.
    """
    out, how = Path(out), TrainingSettings.of(settings["training"], "autoencoder")
    autoencoder = new_autoencoder(sets[0], settings)
    augmentation = settings["augmentation"]
    datasets = [CompositeDataset(part, autoencoder, settings["masks"], augmentation, how.seed) for part in sets]
    train(AutoencoderObjective(autoencoder, settings["autoencoder_loss"]), datasets[0], how, training_folder(
        out, "autoencoder"), validation=datasets[1], **options)
    accelerator = start_accelerator()
    if accelerator.is_main_process:
        cache_latents(autoencoder, datasets, augmentation["views"], out, progress)
        _save(autoencoder, out / "autoencoder")
    accelerator.wait_for_everyone()
    return load_autoencoder(out)


def load_autoencoder(out) -> SinogramAutoencoder:
    """Return the autoencoder that was trained in a folder.

    Raises
    ------
    InputError
        There is none yet.
    """
    if not (Path(out) / "autoencoder" / "config.json").is_file() or not (Path(out) / LATENTS).is_file():
        raise InputError(f"{str(out)!r} must hold a trained autoencoder with its latents, but does not; train the "
                         "stage autoencoder first.")
    return SinogramAutoencoder.from_pretrained(Path(out) / "autoencoder")


def cache_latents(autoencoder: SinogramAutoencoder, datasets, n_views: int, out,
                  progress: Callable = iter) -> None:
    """Encode all views of both sets, set the statistics of the latents and write them to `out`."""
    latents = {}
    for name, dataset, views in zip(("train", "validation"), datasets, (n_views, 1), strict=True):
        for key, value in encode_views(autoencoder, dataset, views, progress).items():
            latents[f"{name}.{key}"] = value
    autoencoder.set_latent_statistics(latents["train.latent_mean"], latents["train.latent_std"])
    partial = Path(out) / f".{LATENTS}"
    save_file(latents, partial)
    partial.rename(Path(out) / LATENTS)


def train_denoiser(autoencoder: SinogramAutoencoder, settings: Mapping, out, **options) -> SinogramDenoiser:
    """Train the denoiser on the cached latents in `out` and write it there.

    Parameters
    ----------
    autoencoder, settings, out, **options
        As in `train_autoencoder`.
    """
    # An item is a few numbers from memory: another process would take longer to hand it over than to make it.
    out, how = Path(out), TrainingSettings.of(settings["training"] | {"workers": 0}, "denoiser")
    latents = load_file(out / LATENTS)

    def part(name):
        return LatentDataset(*(latents[f"{name}.{key}"] for key in ("mean", "logvar", "tokens", "views")), how.seed)

    denoiser = new_denoiser(autoencoder, settings)
    objective = DenoiserObjective(denoiser, settings["diffusion"], autoencoder.latent_shift.cpu(),
                                  autoencoder.latent_scale.cpu())
    train(objective, part("train"), how, training_folder(out, "denoiser"), validation=part("validation"), **options)
    accelerator = start_accelerator()
    if accelerator.is_main_process:
        _save(denoiser, out / "denoiser")
    accelerator.wait_for_everyone()
    return denoiser


def save_pipeline(settings: Mapping, out, measured: Mapping) -> None:
    """Make a folder with both trained networks one that `SinogramGenerationPipeline.from_pretrained` loads.

    Its card says what held-out sinograms are like (`measured_classes`), so that drawn ones can be seen beside them.
    """
    from allpet_gen.pipelines import SinogramGenerationPipeline
    from allpet_gen.samplers import SinogramDDIMScheduler

    out = Path(out)
    scheduler = SinogramDDIMScheduler.from_config(noise_schedule(settings["diffusion"]).config)
    pipeline = SinogramGenerationPipeline(load_autoencoder(out), SinogramDenoiser.from_pretrained(out / "denoiser"),
                                          scheduler)
    pipeline.save_into(out, card={"measured": dict(measured)})


def training_folder(out, stage: str) -> Path:
    """Return the folder of checkpoints and logs of a stage."""
    return Path(out) / f"{stage}-training"


def stage_summary(out, stage: str) -> dict:
    """Return what a card says of a stage: steps, minutes, mean losses of the last steps, the loss on held-out data."""
    folder = training_folder(out, stage)
    losses = read_losses(folder)
    checkpoint = read_checkpoint_card(latest_checkpoint(folder))
    last = checkpoint["step"]
    recent = {name: [v for step, v in values.items() if last - _LAST_STEPS < step <= last]
              for name, values in losses.items() if name not in ("validation", "rate")}
    held = losses.get("validation", {})
    return {"steps": last, "minutes": round(checkpoint.get("seconds", 0.0) / 60, 2),
            "losses": {name: sum(values) / len(values) for name, values in recent.items() if values},
            "validation_loss": held.get(last)}


def _per_class(settings: Mapping, n_classes: int) -> dict[str, int]:
    """Return how many sinograms of each class the settings want of training and of validation patients."""
    return {"train": settings["data"]["per_class"],
            "validation": max(1, settings["training"]["validation"] // n_classes)}


def _save(model, folder: Path) -> None:
    partial = folder.with_name(f".{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)
