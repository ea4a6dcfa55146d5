"""NIfTI masks, label maps and probability maps: their values, and the names of their labels."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from allpet_physics.errors import GeometryError, InputError, MetadataError
from allpet_physics.io.region_format import UNREADABLE

#: Stored labels may miss an integer by this much (scaled storage); a probability map misses it by more.
_INTEGER = 1e-4


def label_values(path: Path, image) -> tuple[np.ndarray, list[str]]:
    """Return integer labels, or float32 probabilities, shape (i, j, k)."""
    try:
        values = np.asanyarray(image.dataobj)
    except UNREADABLE as error:
        raise InputError(f"{path.name} could not be read to its end ({error}); it may be cut short.") from None
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        raise GeometryError(f"{path.name} must be a mask or label map with three axes, but its shape was "
                            f"{values.shape}; select one volume first.")
    notes = []
    if not (image.header["sform_code"] or image.header["qform_code"]):
        notes.append(f"{path.name} states no position in the patient (sform and qform codes are 0); voxel sizes alone "
                     "were used.")
    if values.dtype.kind in "iub":
        return values, notes
    if values.dtype.kind != "f" or not np.isfinite(values).all():
        raise InputError(f"{path.name} must hold finite integers (labels) or probabilities, but held NaN, Inf or "
                         f"values of type {values.dtype}; write it again as integers.")
    rounded = np.round(values)
    if np.abs(values - rounded).max(initial=0) <= _INTEGER:
        return rounded.astype(np.int64), notes
    if values.min() >= 0 and values.max() <= 1:
        return values.astype(np.float32), notes
    raise InputError(f"{path.name} must hold integer labels, or probabilities between 0 and 1, but held other values "
                     f"between {values.min():.4g} and {values.max():.4g}; it looks like an image: threshold it first.")


def labels_present(path: Path, values: np.ndarray, label_names) -> list[tuple[int, str]]:
    """Return (label, name) of the labels that are in a label map."""
    if values.dtype.kind == "f":
        return [(1, "")]
    names = _names(path, label_names)
    return [(int(n), names.get(int(n), "")) for n in np.unique(values) if n]


def _names(path: Path, label_names) -> dict[int, str]:
    """Return the names of labels from a mapping, a JSON file, or ``labels.json`` beside the file."""
    given = label_names is not None
    try:
        if not given:
            label_names = path.with_name("labels.json")
            if not label_names.is_file():
                return {}
        if not isinstance(label_names, Mapping):
            label_names = json.loads(Path(label_names).read_text(encoding="utf-8"))
        return {int(n): str(text) for n, text in label_names.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        if not given:
            return {}  # a labels.json of another tool, that nobody pointed at
        raise MetadataError('label_names must map label to name, {"5": "liver"}, or be a JSON file that does, but '
                            f"could not be used ({error}).") from None
