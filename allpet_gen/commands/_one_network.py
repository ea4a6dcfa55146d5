"""What trainings of a single network share on the command line: the folder of its method, its card and its cohort."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from allpet_gen.commands import _training as shared
from allpet_physics.errors import InputError


@dataclass(frozen=True)
class Checks:
    """What a training has to check for itself, each by an `InputError`.

    ``begun(card)`` looks at the card of a training that goes on, ``planned(parameters)`` at a cohort that is still to
    be simulated, ``given(cohort)`` at one that is there.
    """

    begun: Callable[[Mapping], None]
    planned: Callable[[Mapping], None]
    given: Callable[[object], None]


def prepare(settings, method: str, store, out: Path, resume: bool, overwrite: bool, progress, checks: Checks):
    """Return the cohort to train on, once all is checked; None where the training has ended already."""
    from allpet_gen import training_card
    from allpet_gen.checkpoints import latest_checkpoint
    from allpet_gen.stages import training_folder
    from allpet_gen.training_settings import TrainingSettings, require_precision
    from allpet_physics._files import refuse_unwritable

    folder = out / method
    refuse_unwritable(out.parent)
    card = None if overwrite else training_card.read_card(folder)
    if card is not None:
        if not resume:
            raise InputError(f"{str(folder)!r} holds a training already; pass --resume to go on with it, --overwrite "
                             "to replace it, or choose another --out.")
        checks.begun(card)
        training_card.refuse_other_settings(card, settings)
        if ended(folder, method):
            return None
    elif not (resume or overwrite) and latest_checkpoint(training_folder(out, method)) is not None:
        raise InputError(f"{str(out)!r} holds checkpoints of {method} already; pass --resume to go on with them, "
                         "--overwrite to replace them, or choose another --out.")
    require_precision(TrainingSettings.of(settings["training"], method).precision)
    if store is None:
        parameters = shared.planned_cohort(settings)
        checks.planned(parameters)
    else:
        cohort = read(store)
        checks.given(cohort)
        if card is not None:
            shared.refuse_other_store(card, {"store": {"sha256": training_card.store_digest(cohort)}})
    if overwrite:
        for path in (folder, training_folder(out, method)):
            shutil.rmtree(path, ignore_errors=True)
    if store is None:
        store = out / shared.COHORT
        same = shared.parameters_of(store) == parameters  # another method may have been trained on it
        shared.simulate(parameters, store, resume or same, overwrite and not same, progress)
    return read(store)


def begin_card(folder: Path, new: Mapping) -> None:
    """Write the card of a training that begins, or goes on with the same store."""
    from allpet_gen import training_card

    card = training_card.read_card(folder)
    if card is not None:
        shared.refuse_other_store(card, new)
    folder.mkdir(parents=True, exist_ok=True)
    training_card.write_card(folder, new)


def ended(folder: Path, method: str) -> bool:
    """Return whether the training in a folder is at its end."""
    from allpet_gen.training_card import read_card

    card = read_card(folder)
    return card is not None and method in card["stages"]


def read(store):
    """Return the cohort in a folder."""
    from allpet_physics.simulation.cohort_reader import read_cohort

    return read_cohort(store)
