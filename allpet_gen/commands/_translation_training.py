"""``allpet train --task``: networks of translations, from a cohort to the folder of a method in ``--out``."""

import os
import shutil
from pathlib import Path

from allpet_gen.commands import _training as shared
from allpet_physics.errors import InputError

#: What the names of settings begin with.
FAMILY = "translation-"
_ALL = "all"


def chosen_tasks(names, config) -> tuple[str, ...]:
    """Return the tasks that were named, all for "all", in the order that cards have.

    Raises
    ------
    InputError
        An unknown task; a size that has no settings for translations.
    """
    from importlib.resources import files

    from allpet_gen.settings import SIZES
    from allpet_gen.tasks import TASKS
    from allpet_gen.translator import refuse_unknown_tasks

    found = [size for size in SIZES if (files("allpet_gen.settings") / f"{FAMILY}{size}.toml").is_file()]
    if str(config) in SIZES and str(config) not in found:
        raise InputError(f"config must be {', '.join(found)} or a TOML file for translations, but was {str(config)!r}; "
                         "write a file that changes cohort.size and network of small.")
    unknown = [name for name in names if name not in (*TASKS, _ALL)]
    if unknown:
        raise InputError(f"tasks must be one of {', '.join(TASKS)}, or {_ALL}, but was {unknown[0]!r}.")
    return refuse_unknown_tasks(TASKS if _ALL in names else names)


def run(settings, tasks, method: str, store, out: Path, resume: bool, overwrite: bool, progress, stop,
        processes) -> dict:
    """Train a method for some tasks; return the card of its training, which the first process writes.

    Everything that can be checked is checked before long work begins.
    """
    from allpet_gen import translation_stages as work
    from allpet_gen.stages import stage_summary
    from allpet_gen.training_card import read_card, write_card

    def patients(items):
        for item in progress(items, "making pairs", unit="patient"):
            if stop():
                raise KeyboardInterrupt("interrupted while pairs were made; nothing is trained yet: begin again with "
                                        "--resume.")
            yield item

    folder = out / method
    with processes.main_process_first():
        if processes.is_main_process:
            cohort = _prepare(settings, tasks, method, store, out, resume, overwrite, progress)
        else:
            cohort = None if _ended(folder, method) else _read(store or out / shared.COHORT)
        if cohort is None:
            return read_card(folder)
        sets = work.read_pair_sets(cohort, settings, out, patients)
    if processes.is_main_process:
        _begin_card(settings, cohort, sets, method, tasks, folder)
    with shared.Report(method, progress) as report:
        objective = work.train_translation(method, sets, tasks, settings, out, resume=resume, report=report, stop=stop)
    if processes.is_main_process:
        card = read_card(folder)
        card["stages"][method] = stage_summary(out, method)
        work.save_translation(objective, method, folder, card)
        write_card(folder, card)
    processes.wait_for_everyone()
    return read_card(folder)


def _prepare(settings, tasks, method: str, store, out: Path, resume: bool, overwrite: bool, progress):
    """Return the cohort to train on, once all is checked; None where the training has ended already."""
    from allpet_gen import training_card
    from allpet_gen import translation_checks as checks
    from allpet_gen.checkpoints import latest_checkpoint
    from allpet_gen.stages import training_folder
    from allpet_gen.synthetic_pairs import check_synthetic
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
        if tuple(card["tasks"]) != tasks:
            raise InputError(f"tasks must be what the training was begun with, {', '.join(card['tasks'])}, but was "
                             f"{', '.join(tasks)}; give the old ones, choose another --out, or --overwrite.")
        training_card.refuse_other_settings(card, settings)
        if _ended(folder, method):
            return None
    elif not (resume or overwrite) and latest_checkpoint(training_folder(out, method)) is not None:
        raise InputError(f"{str(out)!r} holds checkpoints of {method} already; pass --resume to go on with them, "
                         "--overwrite to replace them, or choose another --out.")
    require_precision(TrainingSettings.of(settings["training"], method).precision)
    if store is None:
        parameters = shared.planned_cohort(settings)
        checks.check_planned(parameters, tasks, settings)
        checks.check_initial(settings, "of a cohort that is still to be simulated")
        geometry, n_regions, n_tracers = (ParallelGeometry(**parameters["geometry"]), len(parameters["regions"]),
                                          len(parameters["tracers"]))
    else:
        cohort = _read(store)
        checks.check_cohort(cohort, tasks, settings)
        checks.check_initial(settings, training_card.store_digest(cohort))
        geometry, n_regions, n_tracers = cohort.geometry, len(set(cohort.regions.tolist())), len(cohort.tracers)
        if card is not None:
            shared.refuse_other_store(card, {"store": {"sha256": training_card.store_digest(cohort)}})
    check_synthetic(settings, tasks, geometry)
    checks.require_room(settings, geometry, method, n_regions, n_tracers)
    if overwrite:
        for path in (folder, training_folder(out, method)):
            shutil.rmtree(path, ignore_errors=True)
    if store is None:
        store = out / shared.COHORT
        same = shared.parameters_of(store) == parameters  # other methods may have been trained on it
        shared.simulate(parameters, store, resume or same, overwrite and not same, progress)
    return _read(store)


def _begin_card(settings, cohort, sets, method: str, tasks, folder: Path) -> None:
    from allpet_gen import training_card

    new = training_card.new_translation_card(settings, cohort, sets, method, tasks,
                                             processes=int(os.environ.get("WORLD_SIZE", "1")))
    card = training_card.read_card(folder)
    if card is not None:
        shared.refuse_other_store(card, new)
    folder.mkdir(parents=True, exist_ok=True)
    training_card.write_card(folder, new)


def _ended(folder: Path, method: str) -> bool:
    from allpet_gen.training_card import read_card

    card = read_card(folder)
    return card is not None and method in card["stages"]


def _read(store):
    from allpet_physics.simulation.cohort_reader import read_cohort

    return read_cohort(store)
