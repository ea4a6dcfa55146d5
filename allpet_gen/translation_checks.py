"""What a training of translations needs of its data and of the machine, checked before it begins."""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np
import torch

from allpet_gen._free_memory import available_memory
from allpet_gen.data import or_fewer
from allpet_gen.memory import MemoryCount, count_training_memory, require_memory
from allpet_gen.tasks import find_task
from allpet_gen.training import TrainingSettings
from allpet_gen.translator import SLOTS
from allpet_physics.errors import GeometryError, InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.simulation.split import SPLITS, split_patients
from allpet_physics.simulation.study_settings import FRAMES

#: Bytes of a bin of a scan in a `PairSet`: counts, two expectations, the attention map.
_BYTES = 4 + 4 + 4 + 1
#: Of the networks of a CycleGAN in one step.
_PASSES = 5


def slices_wanted(settings: Mapping) -> dict[str, int]:
    """Return how many slices of each region a training reads, by part of the cohort."""
    return {"train": settings["data"]["per_region"], "validation": max(1, settings["training"]["validation"] // 15)}


def check_cohort(cohort, tasks: Iterable[str], settings: Mapping) -> None:
    """Raise unless a cohort has the size, the slices and the tracers that a training needs; only its card is read.

    Raises
    ------
    GeometryError
        Sinograms of another size than ``cohort.size``.
    InputError
        Too few slices of a region, one tracer for a task of two.
    """
    size, shape = settings["cohort"]["size"], cohort.geometry.sinogram_shape
    if shape != (size, size):
        raise GeometryError(f"the store must have sinograms of {size} x {size}, the cohort.size of the settings, but "
                            f"has {shape[0]} x {shape[1]}; choose another config, or set cohort.size to fit.")
    found = {(part, str(region)): int(((cohort.regions == region) & (cohort.splits == part)).sum())
             for region in np.unique(cohort.regions) for part in SPLITS}
    _check(found, cohort.tracers, tasks, settings, "the store", "simulate more patients")


def check_planned(parameters: Mapping, tasks: Iterable[str], settings: Mapping) -> None:
    """Raise `InputError` unless a cohort that will be simulated has the slices and tracers that a training needs.

    Parameters
    ----------
    parameters : mapping
        Of `allpet_physics.simulation.cohort_settings.cohort_parameters`.
    tasks : iterable of str
    settings : mapping
    """
    regions = parameters["regions"]
    of_patient = np.array([regions[i % len(regions)] for i in range(parameters["n_patients"])])
    part_of = np.array(SPLITS)[split_patients(of_patient.tolist(), parameters["split"])]
    found = {(part, region): int(((of_patient == region) & (part_of == part)).sum()) * parameters["n_slices"]
             for region in regions for part in SPLITS}
    _check(found, parameters["tracers"], tasks, settings, "the cohort that is simulated", "raise cohort.patients")


def check_initial(settings: Mapping, store: str) -> None:
    """Raise unless the model to begin from, if there is one, was trained on the same store, of that digest.

    So that the card of what comes out, which names the patients of the store's training part, names all that it has
    seen.

    Raises
    ------
    InputError
        A model of another store or without the card of its training; whatever loading refuses.
    """
    from allpet_gen.known_patients import training_card
    from allpet_gen.translation_models import translation_folder

    name = settings["training"]["initial"]
    if name and training_card(translation_folder(name))["store"]["sha256"] != store:
        raise InputError(f"training.initial must be a model that was trained on this store, but {name!r} was trained "
                         "on another, whose patients the card would not name; train anew.")


def translation_memory(settings: Mapping, geometry: ParallelGeometry, method: str, *, device="cpu") -> MemoryCount:
    """Count the memory of one step of a method's training, on a batch of any of its tasks.

    The loss of the U-Net is taken for the bridge's too: it asks the same network, and tensors without storage have no
    times for a bridge. A CycleGAN keeps two such networks and what their five passes leave for the backward pass.

    Raises
    ------
    InputError, GeometryError
        Settings that no network can have; angles and bins that are no multiples of what the network needs.
    """
    from allpet_gen.translation_objectives import RegressionObjective
    from allpet_gen.translator import SinogramTranslator

    how = TrainingSettings.of(settings["training"], method)

    def build():
        network = SinogramTranslator(geometry.to_dict(), 1.0, {"low-dose": 1.0}, **settings["network"])
        return RegressionObjective(network, settings["told"])

    def empty(*shape, dtype=torch.float32):
        return torch.empty(how.batch, *shape, dtype=dtype, device="meta")

    shape = geometry.sinogram_shape
    batch = {"source": empty(*shape), "targets": empty(SLOTS, *shape), "attention": empty(1, *shape),
             "gain": empty(), "scale": empty(), "used": empty(SLOTS), "tokens": empty(4, dtype=torch.long),
             "numbers": empty(4)}
    count = count_training_memory(build, (batch, torch.Generator(device)), precision=how.precision, device=device,
                                  gradient_checkpointing=how.gradient_checkpointing)
    if method != "cyclegan":
        return count
    twice = {name: 2 * getattr(count, name) for name in ("parameters", "gradients", "optimiser", "ema")}
    return dataclasses.replace(count, **twice, activations=_PASSES * count.activations)


def require_room(settings: Mapping, geometry: ParallelGeometry, method: str, n_regions: int, n_tracers: int) -> None:
    """Raise `InputError` unless there is memory for the pairs and for a step of a method's training."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    how = TrainingSettings.of(settings["training"], method)
    require_memory(translation_memory(settings, geometry, method, device=device), method, batch=how.batch,
                   precision=how.precision, gradient_checkpointing=how.gradient_checkpointing, device=device)
    n_slices = n_regions * (sum(slices_wanted(settings).values()) + settings["synthetic"]["per_region"])
    needed = n_slices * n_tracers * len(FRAMES) * geometry.n_angles * geometry.n_bins * _BYTES
    there = available_memory()
    if needed > there:
        raise InputError(f"data.per_region must leave room for the pairs of {n_slices:,} slices, but they would need "
                         f"{needed / 1e9:,.3g} GB of memory and {there / 1e9:,.3g} GB are free; lower it, or "
                         "cohort.size.")


def _check(found: Mapping, tracers, tasks, settings: Mapping, what: str, way_out: str) -> None:
    alone = [task for task in tasks if find_task(task).other and len(tracers) < 2]
    if alone:
        raise InputError(f"tasks must be possible with the tracers of {what}, but {', '.join(alone)} need two and it "
                         f"has {', '.join(tracers)} alone; leave them out, or simulate with more tracers.")
    for part, wanted in slices_wanted(settings).items():
        for (of_part, region), n in found.items():
            if of_part == part and n < wanted:
                lower = "data.per_region" if part == "train" else "training.validation"
                raise InputError(f"{what} must hold {wanted} {part} slices of each region, but has {n} of the "
                                 f"{region}; {way_out}{or_fewer(wanted, lower)}.")
