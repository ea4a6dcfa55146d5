"""NIfTI masks, label maps and probability maps: their values, and the names of their labels."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from allpet_physics.errors import InputError, MetadataError
from allpet_physics.io.nifti import volume_of_image
from allpet_physics.io.volume import Volume

#: Stored labels may miss an integer by this much (scaled storage); a probability map misses it by more.
_INTEGER = 1e-4


def label_values(path: Path, image) -> Volume:
    """Return a NIfTI image as integer labels, or as float32 probabilities.

    Raises
    ------
    InputError
        Values that are neither.
    MetadataError
        NaN or Inf, a damaged file, several images in one file.
    """
    volume = volume_of_image(path, image, dtype=None, nonfinite="keep")
    values = volume.data
    if values.dtype.kind in "iu":
        return volume
    bad = np.count_nonzero(~np.isfinite(values))
    if bad:
        raise MetadataError(f"{path.name} must hold labels, but {bad} of its {values.size} voxels are NaN or Inf; set "
                            "them to 0 in the file if they mean outside.")
    rounded = np.round(values)
    if np.abs(values - rounded).max(initial=0) <= _INTEGER:
        return volume.replace(data=rounded.astype(np.int64))
    if values.min() >= 0 and values.max() <= 1:
        return volume.replace(data=values.astype(np.float32))
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
    except PermissionError:
        if given:
            raise
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        if not given:
            return {}  # a labels.json of another tool, that nobody pointed at
        raise MetadataError('label_names must map label to name, {"5": "liver"}, or be a JSON file that does, but '
                            f"could not be used ({error}).") from None
