"""A sharded zarr store that many processes fill: resumable after a kill, checksummed, the same bytes in any case.

Layout of a store, a folder::

    card.json              every setting that the bytes depend on
    zarr.json              the zarr v3 group; its attribute "allpet" repeats the card
    NAME/zarr.json         one zarr v3 array with the sharding codec; the first axis counts samples
    NAME/c/SHARD/0/...     one file per shard
    records/SHARD.sha256   while the store is filled: the digests of one finished shard
    manifest.sha256        when it is complete: the digests of all files, for ``sha256sum --check`` too
    log.jsonl              when, where and by how many workers it was filled; nothing else depends on the run

One task computes one whole shard of every array from the card and the numbers of its samples. Each file is written
beside its place and renamed, and the record that vouches for a shard is written last; so a store never counts a shard
as done that is not there whole, whatever ends the run.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from allpet_physics.errors import InputError
from allpet_physics.io import _shards
from allpet_physics.io._card import (
    CARD,
    finished_shards,
    layout_files,
    make_card,
    n_shards,
    read_card,
    refuse_other_card,
    repair_layout,
    sample_bytes,
    shard_files,
    write_empty_store,
)
from allpet_physics.io._store_filling import fill

__all__ = ["create", "describe", "encoded_bytes", "fill", "open_store", "verify"]


def create(path, arrays: Mapping[str, tuple], n_samples: int, parameters: Mapping, *, kind: str,
           samples_per_shard: int | None = None, resume: bool = False, overwrite: bool = False) -> dict:
    """Make an empty store, or check that the one that is there is the same; `fill` then fills it.

    Parameters
    ----------
    path : path-like
        The folder of the store; nothing, or an empty folder, unless `resume` or `overwrite`.
    arrays : mapping
        For each array its name, and (shape of one sample, dtype). Values that were never written read as 0.
    n_samples : int
    parameters : mapping
        Every setting that the samples depend on, in plain types for JSON.
    kind : str
        What the store holds, for readers.
    samples_per_shard : int, optional
        By default the power of two that makes a shard of up to 64 MiB (before compression) and 16,384 samples.
    resume : bool
        Accept a store that is there already, if it has the same card. Damaged metadata are repaired.
    overwrite : bool
        Delete a store that is there already. Other folders are never deleted.

    Returns
    -------
    dict
        The card: format, kind, n_samples, samples_per_shard, arrays, parameters.

    Raises
    ------
    InputError
        zarr is missing; something else is at `path`; a store is there and neither `resume` nor `overwrite` was given;
        to resume, its card differs: the message names the settings.
    """
    _shards.zarr_package()
    path = Path(path).resolve()  # where a link to a folder is given, the folder is meant
    card = make_card(kind, arrays, n_samples, samples_per_shard, parameters)
    if os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir())):
        was = read_card(path)
        if resume:
            refuse_other_card(path, was, card)
            repair_layout(path, card)
            return card
        if not overwrite:
            raise InputError(f"{path.name} exists already; pass --resume to continue it, --overwrite to replace it, or "
                             "choose another --out.")
        _delete(path)
    write_empty_store(path, card)
    return card


def open_store(path, *, incomplete: bool = False):
    """Open a store for reading, lazily: ``open_store(path)["sinograms"][7]`` reads one sample.

    Parameters
    ----------
    path : path-like
    incomplete : bool
        Whether to open a store whose shards are not all done; samples that are absent read as 0.

    Returns
    -------
    zarr.Group
        Read-only; ``group.attrs["allpet"]`` is the card.

    Raises
    ------
    InputError
        zarr is missing; there is no store at `path`; it is not complete.
    """
    zarr = _shards.zarr_package()
    path = Path(path).absolute()
    card = read_card(path)
    if not incomplete and not (path / _shards.MANIFEST).is_file():
        done, total = len(finished_shards(path, card)), n_shards(card)
        raise InputError(f"{path.name} must be complete, but {done} of its {total} shards are done; go on with "
                         "--resume, or open it with incomplete=True.")
    return zarr.open_group(path, mode="r", zarr_format=3)


def verify(path, *, progress: Callable | None = None) -> list[dict]:
    """Read every file of a store and compare it with its digest.

    Returns
    -------
    list of dict
        One for each file that is not as it must be: "file", "shard" (None for the card and zarr's metadata), "array",
        and "problem": "missing", "damaged", or "not done" for a shard that was never finished. An empty list means
        that the store is complete and whole. `create` with ``resume=True`` and `fill` repair what is listed.

    Raises
    ------
    InputError
        There is no store at `path`, or its card cannot be read.
    """
    path = Path(path).absolute()
    card = read_card(path)
    progress = progress or (lambda items, _stage, **_: items)
    vouched, finished = _shards.recorded(path), finished_shards(path, card)
    found = []

    def check(file: str, shard, array):
        digest = _shards.file_digest(path / file)
        if shard is not None and shard not in finished:
            found.append({"file": file, "shard": shard, "array": array, "problem": "not done"})
        elif digest is None or (file in vouched and digest != vouched[file]):
            found.append({"file": file, "shard": shard, "array": array,
                          "problem": "missing" if digest is None else "damaged"})

    for file in layout_files(card):
        check(file, None, None)
    for shard in progress(range(n_shards(card)), "checking shards", total=n_shards(card), unit="shard"):
        for array, file in zip(card["arrays"], shard_files(card, shard), strict=True):
            check(file, shard, array)
    return found


def describe(path) -> dict:
    """Return what a store holds and how far it is: the card, with "shards", "shards_done", "complete" and "bytes".

    "bytes" counts the shards on disk, "bytes_uncompressed" what they unfold to. Nothing is read but the card and the
    digests; `verify` reads the data.

    Raises
    ------
    InputError
        There is no store at `path`.
    """
    path = Path(path).absolute()
    card = read_card(path)
    files = [path / file for shard in range(n_shards(card)) for file in shard_files(card, shard)]
    return {**card, "path": str(path), "shards": n_shards(card), "shards_done": len(finished_shards(path, card)),
            "complete": (path / _shards.MANIFEST).is_file(),
            "bytes": sum(file.stat().st_size for file in files if file.is_file()),
            "bytes_uncompressed": card["n_samples"] * sum(sample_bytes(array) for array in card["arrays"].values())}


def encoded_bytes(made: Mapping[str, np.ndarray]) -> int:
    """Return the bytes on disk of some samples, as one shard of each array: to foretell the size of a store."""
    return sum(len(_shards.encode_shard(np.asarray(data), len(data))) for data in made.values())


def _delete(path: Path) -> None:
    """Delete a store, its card last, so that a deletion that is cut short can be taken up again."""
    for entry in path.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != CARD:
            entry.unlink()
    (path / CARD).unlink()
    path.rmdir()
