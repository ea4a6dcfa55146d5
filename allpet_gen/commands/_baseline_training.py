"""``allpet train --method vae``, ``gan`` or ``sgm``: a baseline of the generator, on the generator's own sinograms."""

import os
from pathlib import Path

from allpet_gen.commands import _one_network as one
from allpet_gen.commands import _training as shared

METHODS = ("vae", "gan", "sgm")


def run(settings, method: str, store, out: Path, resume: bool, overwrite: bool, progress, stop, processes) -> dict:
    """Train a baseline; return the card of its training, which the first process writes.

    Everything that can be checked is checked before long work begins.
    """
    from allpet_gen import baseline_stages as work
    from allpet_gen.stages import read_sets, stage_summary
    from allpet_gen.training_card import new_card, read_card, write_card

    folder = out / method
    with processes.main_process_first():
        if processes.is_main_process:
            cohort = one.prepare(settings, method, store, out, resume, overwrite, progress, _checks(settings, method))
        else:
            cohort = None if one.ended(folder, method) else one.read(store or out / shared.COHORT)
        if cohort is None:
            return read_card(folder)
        progress.stage("reading sinograms")
        sets = read_sets(cohort, settings)
    if processes.is_main_process:
        new = new_card(settings, cohort, sets, processes=int(os.environ.get("WORLD_SIZE", "1")))
        one.begin_card(folder, new | {"method": method})
    with shared.Report(method, progress) as report:
        objective = work.train_baseline(method, sets, settings, out, resume=resume, report=report, stop=stop)
    if processes.is_main_process:
        card = read_card(folder)
        card["stages"][method] = stage_summary(out, method)
        work.save_baseline(objective, method, settings, folder, card["measured"])
        write_card(folder, card)
    processes.wait_for_everyone()
    return read_card(folder)


def _checks(settings, method: str) -> one.Checks:
    from allpet_gen import stages
    from allpet_physics.geometry import ParallelGeometry

    def planned(parameters):
        stages.check_planned(parameters, settings)
        _require_memory(settings, method, ParallelGeometry(**parameters["geometry"]))

    def given(cohort):
        stages.check_cohort(cohort, settings)
        _require_memory(settings, method, cohort.geometry)

    return one.Checks(lambda card: None, planned, given)


def _require_memory(settings, method: str, geometry) -> None:
    import torch

    from allpet_gen.baseline_stages import baseline_memory
    from allpet_gen.memory import require_memory
    from allpet_gen.training_settings import TrainingSettings

    how, device = TrainingSettings.of(settings["training"], method), "cuda" if torch.cuda.is_available() else "cpu"
    require_memory(baseline_memory(settings, geometry, method, device=device), method, batch=how.batch,
                   precision=how.precision, gradient_checkpointing=how.gradient_checkpointing, device=device)
