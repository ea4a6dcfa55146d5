"""What a trained model says of its making: settings, data, patients, seeds, versions, hardware, minutes, losses."""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import numpy as np

from allpet_gen.checkpoints import ADJUSTABLE, FREE
from allpet_gen.model_card import measured_classes
from allpet_gen.settings import differences
from allpet_physics._record import versions
from allpet_physics.errors import InputError

CARD, FORMAT = "training.json", 1
_PACKAGES = ("torch", "diffusers", "accelerate", "safetensors")


def store_digest(cohort) -> str:
    """Return the SHA-256 of a cohort's card, on which all its bytes depend: two equal stores have the same."""
    return hashlib.sha256(json.dumps(cohort.card, sort_keys=True).encode()).hexdigest()


def new_card(settings: Mapping, cohort, sets, processes: int = 1) -> dict:
    """Return the card of a generator's training that begins.

    Parameters
    ----------
    settings : mapping
        Of `read_settings`.
    cohort : Cohort
    sets : (ClassSet, ClassSet)
        What is trained on and what is held out.
    processes : int
    """
    validation = sets[1]
    return {**_begun(settings, cohort, sets, processes), "classes": list(sets[0].classes), "stages": {},
            "measured": measured_classes({name: np.asarray(validation.counts[validation.labels == k])
                                          for k, name in enumerate(validation.classes)}, validation.geometry)}


def new_translation_card(settings: Mapping, cohort, sets, method: str, tasks, processes: int = 1) -> dict:
    """Return the card of a training of translations that begins.

    Parameters
    ----------
    settings, cohort, processes
        As in `new_card`.
    sets : (PairSet, PairSet)
        What is trained on and what is held out.
    method : str
    tasks : sequence of str
    """
    return {**_begun(settings, cohort, sets, processes), "method": method, "tasks": list(tasks),
            "tracers": list(sets[0].tracers), "regions": np.unique(sets[0].regions).tolist(), "stages": {}}


def read_card(out) -> dict | None:
    """Return the card of the training in a folder, None if there is none.

    Raises
    ------
    InputError
        One that cannot be read, is of another format or lacks a part.
    """
    path = Path(out) / CARD
    if not path.exists():
        return None
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        found = card["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{CARD} in {str(out)!r} must be readable ({type(error).__name__}); restore it, or begin anew "
                         "with --overwrite.") from None
    if found != FORMAT:
        raise InputError(f"{CARD} in {str(out)!r} must be of format {FORMAT}, but is of {found!r}; use the version of "
                         "allpet that wrote it.")
    absent = [f'"{name}"' for name in ("settings", "store", "stages") if not isinstance(card.get(name), dict)]
    if absent:
        raise InputError(f"{CARD} in {str(out)!r} must be whole, but lacks {', '.join(absent)}; restore it, or begin "
                         "anew with --overwrite.")
    return card


def write_card(out, card: Mapping) -> None:
    """Write the card of a training, whole or not at all."""
    partial = Path(out) / f".{CARD}"
    partial.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, Path(out) / CARD)


def refuse_other_settings(card: Mapping, settings: Mapping) -> None:
    """Raise InputError that names the settings that keep a training from being resumed.

    Those of a stage may change as long as the stage has not ended; checkpoints then say which of them may.
    """
    free = {"cohort.patients", "cohort.slices", "cohort.seed"}  # the store has its own card
    found = []
    for name, (old, new) in differences(card["settings"], settings).items():
        key = name.rpartition(".")[2]
        if name in free or (name.startswith("training.") and key in FREE | ADJUSTABLE | {"steps"}):
            continue
        found.append(f"{name} was {old!r} and is {new!r}")
    if found:
        raise InputError(f"the settings must be those that the training was begun with, but {', '.join(found)}; give "
                         "the old ones, choose another --out, or --overwrite.")


def hardware(processes: int = 1) -> dict:
    """Return on what this runs: system, processors that it may use, processes, device."""
    import torch

    on_gpu = torch.cuda.is_available()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"system": f"{platform.system()} {platform.machine()}", "processors": usable, "processes": processes,
            "device": torch.cuda.get_device_name() if on_gpu else "cpu"}


def _begun(settings: Mapping, cohort, sets, processes: int) -> dict:
    """Return what is said of every training.

    The patients of the first set have been seen: who tests the model must leave them out.
    """
    training, validation = sets
    return {"allpet": "training", "format": FORMAT, "settings": settings,
            "store": {"sha256": store_digest(cohort), "kind": cohort.card["kind"],
                      "seed": cohort.card["parameters"]["seed"]},
            "patients": {"train": np.unique(training.patients[training.patients >= 0]).tolist(),
                         "validation": np.unique(validation.patients).tolist()},
            "sinograms": {"train": len(training), "validation": len(validation),
                          "drawn": int((np.asarray(training.patients) < 0).sum())},
            "geometry": training.geometry.to_dict(), "seeds": {"training": settings["training"]["seed"]},
            "versions": versions() | {name: metadata.version(name) for name in _PACKAGES},
            "hardware": hardware(processes)}
