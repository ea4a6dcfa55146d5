"""``allpet train --task``: networks of translations, from a cohort to the folder of a method in ``--out``."""

import os
from pathlib import Path

from allpet_gen.commands import _one_network as one
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
    from allpet_gen.training_card import new_translation_card, read_card, write_card

    def patients(items):
        for item in progress(items, "making pairs", unit="patient"):
            if stop():
                raise KeyboardInterrupt("interrupted while pairs were made; nothing is trained yet: begin again with "
                                        "--resume.")
            yield item

    folder = out / method
    with processes.main_process_first():
        if processes.is_main_process:
            cohort = one.prepare(settings, method, store, out, resume, overwrite, progress,
                                 _checks(settings, tasks, method))
        else:
            cohort = None if one.ended(folder, method) else one.read(store or out / shared.COHORT)
        if cohort is None:
            return read_card(folder)
        sets = work.read_pair_sets(cohort, settings, out, patients)
    if processes.is_main_process:
        one.begin_card(folder, new_translation_card(settings, cohort, sets, method, tasks,
                                                    processes=int(os.environ.get("WORLD_SIZE", "1"))))
    with shared.Report(method, progress) as report:
        objective = work.train_translation(method, sets, tasks, settings, out, resume=resume, report=report, stop=stop)
    if processes.is_main_process:
        card = read_card(folder)
        card["stages"][method] = stage_summary(out, method)
        work.save_translation(objective, method, folder, card)
        write_card(folder, card)
    processes.wait_for_everyone()
    return read_card(folder)


def _checks(settings, tasks, method: str) -> one.Checks:
    from allpet_gen import training_card
    from allpet_gen import translation_checks as checks
    from allpet_gen.synthetic_pairs import check_synthetic
    from allpet_physics.geometry import ParallelGeometry

    def begun(card):
        if tuple(card["tasks"]) != tasks:
            raise InputError(f"tasks must be what the training was begun with, {', '.join(card['tasks'])}, but was "
                             f"{', '.join(tasks)}; give the old ones, choose another --out, or --overwrite.")

    def planned(parameters):
        checks.check_planned(parameters, tasks, settings)
        checks.check_initial(settings, "of a cohort that is still to be simulated")
        fitting(ParallelGeometry(**parameters["geometry"]), len(parameters["regions"]), len(parameters["tracers"]))

    def given(cohort):
        checks.check_cohort(cohort, tasks, settings)
        checks.check_initial(settings, training_card.store_digest(cohort))
        fitting(cohort.geometry, len(set(cohort.regions.tolist())), len(cohort.tracers))

    def fitting(geometry, n_regions, n_tracers):
        check_synthetic(settings, tasks, geometry)
        checks.require_room(settings, geometry, method, n_regions, n_tracers)

    return one.Checks(begun, planned, given)
