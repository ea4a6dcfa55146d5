"""Checkpoints of a training: a folder for each, written beside and renamed, so that none is ever half there."""

import dataclasses
import hashlib
import json
import os
import shutil
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from allpet_physics.errors import InputError

FORMAT = 1
KEPT = 2
#: What every card says.
_PARTS = {"step": int, "settings": dict, "bytes": dict}
_CARD, _PARTIAL, _DAMAGED, _SCALER = "card.json", ".partial-", "damaged-", "scaler"
#: Settings that may differ when a training is resumed: none of them changes a loss.
FREE = {"workers", "checkpoint_minutes", "gradient_checkpointing"}
#: Settings that may differ too, with a warning: a training whose loss diverged needs them changed.
ADJUSTABLE = {"learning_rate", "clip", "precision", "weight_decay"}


class DamagedCheckpoint(InputError):
    """A checkpoint whose files are not those that were written.

    Attributes
    ----------
    reason : str
        Which files, without a way out: there may be another one for a whole training.
    """

    def __init__(self, folder: Path, reason: str):
        self.reason = f"the checkpoint {folder} {reason}"
        super().__init__(f"{self.reason}; delete the folder, and the training goes on from the checkpoint before it.")


def checkpoints(out) -> list[Path]:
    """Return the folders of the checkpoints of a training, oldest first."""
    return sorted((Path(out) / "checkpoints").glob("step-*"))


def latest_checkpoint(out) -> Path | None:
    """Return the folder of the last checkpoint of a training, None if there is none."""
    return (checkpoints(out) or [None])[-1]


def last_good_checkpoint(out) -> Path | None:
    """Return the last checkpoint whose files are whole; damaged ones after it are set aside, with a warning.

    Raises
    ------
    InputError
        There are checkpoints, but all are damaged; the last one is of another format.
    """
    found, damaged = checkpoints(out), []
    for folder in reversed(found):
        try:
            verify_checkpoint(folder)
        except DamagedCheckpoint as error:
            damaged.append((folder, error.reason))
            continue
        for bad, reason in damaged:
            aside = bad.with_name(bad.name.replace("step-", _DAMAGED))
            shutil.rmtree(aside, ignore_errors=True)
            bad.rename(aside)
            warnings.warn(f"{reason}; it is kept as {aside.name}, and the training goes on from "
                          f"{folder.name}.", UserWarning, stacklevel=2)
        return folder
    if damaged:
        raise InputError(f"the training in {str(out)!r} must have a whole checkpoint, but none of its "
                         f"{len(damaged)} is ({damaged[0][1]}); restore one, or delete the folder checkpoints "
                         "there, and it begins anew.")
    return None


def save_checkpoint(out, step: int, objective, averages: dict, optimisers: dict, settings, *, scaler=None,
                    processes: int = 1, seconds: float = 0.0) -> Path:
    """Write a checkpoint after a number of steps; the last `KEPT` stay.

    Parameters
    ----------
    out : path-like
    step : int
        How many were done.
    objective, averages, optimisers
        What is kept: a module, tensors by name, optimisers by part.
    settings : TrainingSettings
    scaler : torch.amp.GradScaler, optional
        Of float16 training.
    processes : int
    seconds : float
        That the training took so far.
    """
    folder = Path(out) / "checkpoints"
    for left in folder.glob(f"{_PARTIAL}*"):  # of a run that was killed while it wrote
        shutil.rmtree(left, ignore_errors=True)
    final, partial = folder / f"step-{step:08d}", folder / f"{_PARTIAL}{step:08d}"
    partial.mkdir(parents=True)
    save_file({name: value.detach().cpu().contiguous() for name, value in objective.state_dict().items()},
              partial / "weights.safetensors")
    save_file({name: value.cpu().contiguous() for name, value in averages.items()}, partial / "averages.safetensors")
    states = {part: optimiser.state_dict() for part, optimiser in optimisers.items()}
    if scaler is not None:
        states[_SCALER] = scaler.state_dict()
    torch.save(states, partial / "optimisers.pt")
    files = sorted(partial.iterdir())
    card = {"format": FORMAT, "step": step, "settings": dataclasses.asdict(settings), "processes": processes,
            "seconds": seconds, "bytes": {path.name: path.stat().st_size for path in files},
            "sha256": {path.name: _digest(path) for path in files}}
    (partial / _CARD).write_text(json.dumps(card, indent=1), encoding="utf-8")
    for path in (*partial.iterdir(), partial):  # on the disk before it gets its name: a power cut leaves it whole
        _sync(path)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    _sync(folder)
    for old in checkpoints(out)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def load_checkpoint(folder: Path, objective, averages: dict, optimisers: dict, settings, *, scaler=None,
                    processes: int = 1) -> dict:
    """Put a checkpoint into an objective, its averages and its optimisers; return its card.

    Raises
    ------
    DamagedCheckpoint
        One that cannot be read.
    InputError
        One of another format, of other settings, of another number of processes or of another network.
    """
    card = read_card(folder)
    _refuse_other_settings(dataclasses.asdict(settings), card["settings"])
    if card.get("processes", processes) != processes:
        raise InputError(f"the training must go on with as many processes as it was begun with, "
                         f"{card['processes']}, but has {processes}: each makes a batch of its own.")
    try:
        weights = load_file(folder / "weights.safetensors")
        averaged = load_file(folder / "averages.safetensors")
        states = torch.load(folder / "optimisers.pt", map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError) as error:
        raise DamagedCheckpoint(folder, f"cannot be read ({type(error).__name__})") from None
    wanted = objective.state_dict()
    if {n: v.shape for n, v in weights.items()} != {n: v.shape for n, v in wanted.items()}:
        raise InputError(f"the checkpoint {folder} must be of the same network, but its weights differ in name or "
                         "shape; give the settings that it was made with.")
    objective.load_state_dict(weights)
    for name, value in averaged.items():
        averages[name].copy_(value)
    for part, optimiser in optimisers.items():
        optimiser.load_state_dict(states[part])
    if scaler is not None and _SCALER in states:
        scaler.load_state_dict(states[_SCALER])
    return card


def read_card(folder: Path) -> dict:
    """Return the card of a checkpoint, once its files have the size that the card gives.

    Raises
    ------
    DamagedCheckpoint
        No card, one that cannot be read or lacks a part, files that are absent or cut short.
    InputError
        A card of another format.
    """
    try:
        card = json.loads((folder / _CARD).read_text(encoding="utf-8"))
        found = card["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedCheckpoint(folder, f"lacks a readable {_CARD} ({type(error).__name__})") from None
    if found != FORMAT:
        raise InputError(f"the checkpoint {folder} must be of format {FORMAT}, but is of {found!r}; use the version "
                         "of allpet that made it.")
    absent = [f'"{name}"' for name, kind in _PARTS.items() if not isinstance(card.get(name), kind)]
    if absent:
        raise DamagedCheckpoint(folder, f"has a {_CARD} without {', '.join(absent)}")
    short = [name for name, size in card["bytes"].items() if not _has_size(folder / name, size)]
    if short:
        raise DamagedCheckpoint(folder, f"is cut short: {', '.join(short)} does not have the size that was written")
    return card


def _has_size(path: Path, size) -> bool:
    return path.is_file() and path.stat().st_size == size


def verify_checkpoint(folder: Path) -> dict:
    """Return the card of a checkpoint, once its files have the digests that the card gives."""
    card = read_card(folder)
    wrong = [name for name, digest in card.get("sha256", {}).items() if _digest(folder / name) != digest]
    if wrong:
        raise DamagedCheckpoint(folder, f"is damaged: {', '.join(wrong)} does not hold what was written")
    return card


def _refuse_other_settings(now: dict, then: dict) -> None:
    free = FREE | ({"steps"} if now["schedule"] == then.get("schedule") == "constant" else set())
    changed = {name: f"{name} was {then[name]!r} and is {value!r}" for name, value in now.items()
               if name not in free and name in then and value != then[name]}
    refused = [text for name, text in changed.items() if name not in ADJUSTABLE]
    if refused:
        raise InputError(f"the settings must be those that the training was begun with, but {', '.join(refused)}; give "
                         "the old ones, or begin anew in another folder.")
    if changed:
        warnings.warn(f"{', '.join(changed.values())}: the losses are no longer those of an unbroken training.",
                      UserWarning, stacklevel=2)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
