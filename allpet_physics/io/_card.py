"""The card of a store: every setting that its bytes depend on; how two cards differ; the empty store of a card."""

import json
import math
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from allpet_physics._arrays import as_positive_int
from allpet_physics._command_line import base_name
from allpet_physics.errors import InputError
from allpet_physics.io._shards import array_settings, recorded, shard_file, zarr_package

CARD, FORMAT = "card.json", "allpet-store/1"

#: A shard holds this many bytes before compression, if its samples allow, and no more than this many samples.
_SHARD_BYTES, _SHARD_SAMPLES = 2**26, 2**14


def make_card(kind: str, arrays: Mapping, n_samples: int, samples_per_shard: int | None, parameters: Mapping) -> dict:
    """Return the card of a store, checked, in the types that JSON gives back."""
    if not arrays:
        raise InputError("arrays must name at least one array, but was empty.")
    described = {}
    for name, (shape, dtype) in arrays.items():
        if not (isinstance(name, str) and name.isidentifier()):
            raise InputError(f"the name of an array must be a Python identifier, but was {name!r}.")
        dtype = np.dtype(dtype)
        if dtype.kind not in "biuf":
            raise InputError(f"the dtype of {name} must be a boolean, integer or float, but was {dtype}.")
        described[name] = {"shape": [as_positive_int(f"the shape of {name}", n) for n in shape], "dtype": dtype.name}
    per_sample = sum(sample_bytes(array) for array in described.values())
    if samples_per_shard is None:
        fitting = max(1, min(_SHARD_BYTES // per_sample, _SHARD_SAMPLES))
        samples_per_shard = 2 ** (fitting.bit_length() - 1)
    card = {"format": FORMAT, "kind": kind, "n_samples": as_positive_int("n_samples", n_samples),
            "samples_per_shard": as_positive_int("samples_per_shard", samples_per_shard), "arrays": described,
            "parameters": dict(parameters)}
    try:
        return json.loads(json.dumps(card, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(f"parameters must hold plain, finite values for JSON, but did not ({error}).") from None


def sample_bytes(array: Mapping) -> int:
    """Return the uncompressed bytes of one sample of an array that a card describes."""
    return math.prod(array["shape"]) * np.dtype(array["dtype"]).itemsize


def n_shards(card: Mapping) -> int:
    """Return the number of shards of each array."""
    return -(-card["n_samples"] // card["samples_per_shard"])


def shard_samples(card: Mapping, index: int) -> range:
    """Return the samples that a shard holds."""
    start = index * card["samples_per_shard"]
    return range(start, min(start + card["samples_per_shard"], card["n_samples"]))


def shard_files(card: Mapping, index: int) -> list[str]:
    """Return the path in the store of one shard of each array, in the order of the card."""
    return [shard_file(name, tuple(array["shape"]), index) for name, array in card["arrays"].items()]


def finished_shards(path: Path, card: Mapping) -> set[int]:
    """Return the shards that are vouched for, whether or not their files have been damaged since."""
    vouched = recorded(path)
    return {index for index in range(n_shards(card)) if all(file in vouched for file in shard_files(card, index))}


def read_card(path: Path) -> dict:
    """Return the card of the store at `path`, or raise InputError when there is none."""
    if not path.is_dir():
        raise InputError(f"a store is a folder with a {CARD}, but there is none at {str(path)!r}.")
    try:
        card = json.loads((path / CARD).read_text(encoding="utf-8"))
        found = card["format"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = "is not there" if isinstance(error, FileNotFoundError) else "cannot be read"
        raise InputError(f"{base_name(path)} must be a store that allpet wrote, but its {CARD} {reason}.") from None
    if found != FORMAT:
        raise InputError(f"{base_name(path)} must be a store of format {FORMAT}, but was {found!r}; read it with the "
                         "version of allpet that wrote it.")
    return card


def refuse_other_card(path: Path, was: Mapping, now: Mapping) -> None:
    """Raise InputError that names every setting by which two cards differ."""
    found = [f"{name} was {_shown(a)} and is now {_shown(b)}" for name, a, b in _differences(was, now)]
    if found:
        more = f"; and {len(found) - 6} more" if len(found) > 6 else ""
        raise InputError(f"{base_name(path)} was made with other settings: {'; '.join(found[:6])}{more}. Resume with "
                         "the settings it was begun with, or choose another --out or --overwrite.")


def write_empty_store(path: Path, card: Mapping) -> None:
    """Make the folder of a store with its card and empty arrays; it appears at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".allpet-{secrets.token_hex(4)}-{path.name}")
    staging.mkdir()
    try:
        _write_layout(staging, card)
        if path.is_dir():
            path.rmdir()  # an empty folder, which not every system replaces
        os.replace(staging, path)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def layout_files(card: Mapping) -> list[str]:
    """Return the paths of the card and of zarr's own metadata in a store."""
    return [CARD, "zarr.json", *(f"{name}/zarr.json" for name in card["arrays"])]


def repair_layout(path: Path, card: Mapping) -> None:
    """Write the metadata files of a store again where they are absent or differ from what its card says."""
    staging = path / f".layout-{secrets.token_hex(4)}"
    staging.mkdir()
    try:
        _write_layout(staging, card)
        for name in layout_files(card):
            target = path / name
            if not target.is_file() or target.read_bytes() != (staging / name).read_bytes():
                target.parent.mkdir(exist_ok=True)
                os.replace(staging / name, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write_layout(folder: Path, card: Mapping) -> None:
    """Write the card and zarr's metadata: the root lists its arrays itself, so that readers need not search."""
    zarr = zarr_package()
    zarr.create_group(folder, zarr_format=3, attributes={"allpet": card})
    for name, array in card["arrays"].items():
        zarr.create_array(folder, name=name, **array_settings(
            tuple(array["shape"]), array["dtype"], card["n_samples"], card["samples_per_shard"]))
    metadata = {name: json.loads((folder / name / "zarr.json").read_text()) for name in card["arrays"]}
    root = json.loads((folder / "zarr.json").read_text())
    # What zarr.consolidate_metadata writes; readers that do not know it pass it over. Without it, zarr would warn of
    # every file in the root that is not its own.
    root["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": metadata}
    for name, content in (("zarr.json", root), (CARD, card)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _differences(was, now, prefix: str = ""):
    """Yield (dotted name, old value, new value) for each leaf by which two nested dicts differ."""
    for key in dict.fromkeys([*was, *now]):
        a, b = was.get(key, "absent"), now.get(key, "absent")
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b, f"{prefix}{key}.")
        elif a != b or type(a) is not type(b):
            yield f"{prefix}{key}".removeprefix("parameters."), a, b


def _shown(value) -> str:
    text = json.dumps(value) if not isinstance(value, str) else value
    return text if len(text) <= 60 else text[:57] + "..."
