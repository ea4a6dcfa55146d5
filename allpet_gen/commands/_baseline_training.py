"""``allpet train --method vae``, ``gan`` or ``sgm``: a baseline of the generator, on the generator's own sinograms."""

import os
import shutil
from pathlib import Path

from allpet_gen.commands import _training as shared
from allpet_physics.errors import InputError

METHODS = ("vae", "gan", "sgm")


def run(settings, method: str, store, out: Path, resume: bool, overwrite: bool, progress, stop, processes) -> dict:
    """Train a baseline; return the card of its training, which the first process writes.

    Everything that can be checked is checked before long work begins.
    """
    from allpet_gen import baseline_stages as work
    from allpet_gen.stages import read_sets, stage_summary
    from allpet_gen.training_card import read_card, write_card

    folder = out / method
    with processes.main_process_first():
        if processes.is_main_process:
            cohort = _prepare(settings, method, store, out, resume, overwrite, progress)
        else:
            cohort = None if _ended(folder, method) else _read(store or out / shared.COHORT)
        if cohort is None:
            return read_card(folder)
        progress.stage("reading sinograms")
        sets = read_sets(cohort, settings)
    if processes.is_main_process:
        _begin_card(settings, cohort, sets, method, folder)
    with shared.Report(method, progress) as report:
        objective = work.train_baseline(method, sets, settings, out, resume=resume, report=report, stop=stop)
    if processes.is_main_process:
        card = read_card(folder)
        card["stages"][method] = stage_summary(out, method)
        work.save_baseline(objective, method, settings, folder, card["measured"])
        write_card(folder, card)
    processes.wait_for_everyone()
    return read_card(folder)


def _prepare(settings, method: str, store, out: Path, resume: bool, overwrite: bool, progress):
    """Return the cohort to train on, once all is checked; None where the training has ended already."""
    from allpet_gen import stages, training_card
    from allpet_gen.checkpoints import latest_checkpoint
    from allpet_gen.training_settings import TrainingSettings, require_precision
    from allpet_physics._files import refuse_unwritable
    from allpet_physics.geometry import ParallelGeometry

    folder = out / method
    refuse_unwritable(out.parent)
    card = None if overwrite else training_card.read_card(folder)
    if card is not None:
        if not resume:
            raise InputError(f"{str(folder)!r} holds a training already; pass --resume to go on with it, --overwrite "
                             "to replace it, or choose another --out.")
        training_card.refuse_other_settings(card, settings)
        if _ended(folder, method):
            return None
    elif not (resume or overwrite) and latest_checkpoint(stages.training_folder(out, method)) is not None:
        raise InputError(f"{str(out)!r} holds checkpoints of {method} already; pass --resume to go on with them, "
                         "--overwrite to replace them, or choose another --out.")
    require_precision(TrainingSettings.of(settings["training"], method).precision)
    if store is None:
        parameters = shared.planned_cohort(settings)
        stages.check_planned(parameters, settings)
        geometry = ParallelGeometry(**parameters["geometry"])
    else:
        cohort = _read(store)
        stages.check_cohort(cohort, settings)
        geometry = cohort.geometry
        if card is not None:
            shared.refuse_other_store(card, {"store": {"sha256": training_card.store_digest(cohort)}})
    _require_memory(settings, method, geometry)
    if overwrite:
        for path in (folder, stages.training_folder(out, method)):
            shutil.rmtree(path, ignore_errors=True)
    if store is None:
        store = out / shared.COHORT
        same = shared.parameters_of(store) == parameters  # the generator may have been trained on it
        shared.simulate(parameters, store, resume or same, overwrite and not same, progress)
    return _read(store)


def _begin_card(settings, cohort, sets, method: str, folder: Path) -> None:
    from allpet_gen import training_card

    new = training_card.new_card(settings, cohort, sets, processes=int(os.environ.get("WORLD_SIZE", "1")))
    card = training_card.read_card(folder)
    if card is not None:
        shared.refuse_other_store(card, new)
    folder.mkdir(parents=True, exist_ok=True)
    training_card.write_card(folder, new | {"method": method})


def _require_memory(settings, method: str, geometry) -> None:
    import torch

    from allpet_gen.baseline_stages import baseline_memory
    from allpet_gen.memory import require_memory
    from allpet_gen.training_settings import TrainingSettings

    how, device = TrainingSettings.of(settings["training"], method), "cuda" if torch.cuda.is_available() else "cpu"
    require_memory(baseline_memory(settings, geometry, method, device=device), method, batch=how.batch,
                   precision=how.precision, gradient_checkpointing=how.gradient_checkpointing, device=device)


def _ended(folder: Path, method: str) -> bool:
    from allpet_gen.training_card import read_card

    card = read_card(folder)
    return card is not None and method in card["stages"]


def _read(store):
    from allpet_physics.simulation.cohort_reader import read_cohort

    return read_cohort(store)
