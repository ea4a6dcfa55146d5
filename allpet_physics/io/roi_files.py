"""Regions of interest from files: NIfTI masks and label maps, DICOM RT structure sets, DICOM segmentations.

Whatever the file, the result is a binary mask on the grid of a reference image, in that image's own axis order.
Formats are told apart by what is in the file, never by its name.
"""

import operator
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np
import pydicom

from allpet_physics.errors import EmptyROIWarning, GeometryError, InputError, MetadataError
from allpet_physics.io.dicom_header import uid_digest
from allpet_physics.io.dicom_seg import list_segments, read_segments
from allpet_physics.io.label_map import label_values, labels_present
from allpet_physics.io.mask_grid import region_on_grid
from allpet_physics.io.nifti import write_nifti
from allpet_physics.io.region_format import open_region
from allpet_physics.io.rtstruct import frame_of_reference, list_structures, read_structure
from allpet_physics.io.volume import Volume

#: Where probabilities and fractions of a voxel are cut.
HALF = 0.5
#: At most this many regions are listed in a message.
_LISTED = 40


@dataclass(frozen=True)
class ROI:
    """A region of interest on the grid of an image.

    Parameters
    ----------
    mask : ndarray of bool
        Shape (i, j, k): the grid and axis order of the reference it was read for.
    affine : ndarray
        4 × 4 matrix from voxel index to RAS mm, the reference's.
    numbers : tuple of int
        Label, ROI Number or Segment Number of each region in the union.
    names : tuple of str
        Their names; empty strings where the file gives none.
    source : str
        ``"NIfTI"``, ``"RTSTRUCT"`` or ``"SEG"``.
    warnings : tuple of str
        What was noticed; one sentence each.
    tags : mapping
        What was read from the header (no patient name or identifier).
    """

    mask: np.ndarray
    affine: np.ndarray
    numbers: tuple[int, ...]
    names: tuple[str, ...]
    source: str
    warnings: tuple[str, ...] = ()
    tags: Mapping = field(default_factory=dict)

    @property
    def volume_ml(self) -> float:
        """Volume of the region in mL."""
        return float(self.mask.sum() * abs(np.linalg.det(self.affine[:3, :3])) / 1000)


def read_roi(path: str | PathLike, reference: Volume, *, label: int | Iterable[int] | None = None,
             name: str | Iterable[str] | None = None, resample: bool = False,
             label_names: Mapping | str | PathLike | None = None) -> ROI:
    """Read one region, or the union of several, onto the grid of an image.

    A structure set is filled by the rule of `contour_fill`: a voxel belongs to it when its centre lies inside or on
    the contours of the plane whose slab holds the centre. A mask, a label map or a segmentation is taken voxel by
    voxel; on a grid other than the reference's it is refused, or, with `resample`, gets the voxels that it fills
    most, as many as its volume asks for (`mask_grid`). A NIfTI file whose values are not integers is taken for a
    probability map when they all lie between 0 and 1, and cut at 0.5, as FRACTIONAL segmentations are.

    Parameters
    ----------
    path : path-like
        A NIfTI file, a DICOM RTSTRUCT or SEG file, or a folder that holds one such DICOM file.
    reference : Volume
        The image whose grid and axis order the mask gets.
    label : int or iterable of int, optional
        Label value, ROI Number or Segment Number.
    name : str or iterable of str, optional
        Name of the region, instead of `label`; case counts only when two names differ in nothing else. Neither is
        needed when the file holds one region.
    resample : bool
        Whether a region on another grid is brought onto the reference's.
    label_names : mapping or path-like, optional
        Names of a NIfTI file's labels, ``{"5": "liver"}``, or a JSON file of them; by default ``labels.json`` beside
        the file, if there is one.

    Returns
    -------
    ROI
        With an `EmptyROIWarning` when no voxel belongs to it.

    Raises
    ------
    InputError
        No such file, or not one that holds regions; no such label or name, or several.
    GeometryError
        Another grid without `resample`; contours that are not flat and parallel.
    MetadataError
        Contours or labels that cannot be read as such.
    """
    if not isinstance(reference, Volume):
        raise InputError(f"reference must be a Volume (the image that the region is for), but was "
                         f"{type(reference).__name__}; read it with allpet_physics.io first.")
    path, kind, content = open_region(path)
    if kind == "NIfTI":
        roi = _from_nifti(path, content, reference, label, name, resample, label_names)
    else:
        available = list_structures(content) if kind == "RTSTRUCT" else list_segments(content)
        numbers = _select(path, available, label, name)
        roi = _from_dicom(path, kind, content, reference, dict(available), numbers, resample)
    if not roi.mask.any():
        warnings.warn(f"The region {_title(roi)} of {path.name} holds no voxel of the image: it is empty, lies "
                      "outside, or is thinner than a voxel.", EmptyROIWarning, stacklevel=2)
    return roi


def list_rois(path: str | PathLike, *, label_names: Mapping | str | PathLike | None = None) -> list[tuple[int, str]]:
    """Return (number, name) of every region in a file: labels, ROI Numbers or Segment Numbers.

    Names that the file does not give are empty strings. Parameters and errors are those of `read_roi`.
    """
    path, kind, content = open_region(path)
    if kind == "RTSTRUCT":
        return list_structures(content)
    if kind == "SEG":
        return list_segments(content)
    return labels_present(path, label_values(path, content).data, label_names)


def roi_to_volume(roi: ROI) -> Volume:
    """Return a region as a volume of zeros and ones (uint8) with unit ``"mask"``."""
    tags = {**roi.tags, "source": roi.source, "numbers": list(roi.numbers), "names": list(roi.names)}
    return Volume(roi.mask.astype(np.uint8), roi.affine, "mask", tags, roi.warnings)


def write_roi(path: str | PathLike, volume_like: Volume, mask: np.ndarray, overwrite: bool = False) -> Path:
    """Write a mask on an image's grid as NIfTI, uint8.

    Parameters
    ----------
    path : path-like
        ``.nii`` or ``.nii.gz``.
    volume_like : Volume
        The image whose grid the mask is on.
    mask : array_like
        Booleans, or zeros and ones, with the shape of the image.
    overwrite : bool
        Whether an existing file is replaced.

    Returns
    -------
    Path
        The file written; it appears whole or not at all.

    Raises
    ------
    GeometryError
        A mask of another shape.
    InputError
        Values other than 0 and 1; an existing file without `overwrite`.
    """
    mask = np.asarray(mask)
    if mask.shape != np.shape(volume_like.data):
        raise GeometryError(f"mask must have the image's shape {np.shape(volume_like.data)}, but was {mask.shape}.")
    if mask.dtype != bool and not np.isin(mask, (0, 1)).all():
        raise InputError("mask must hold only 0 and 1, but held other values; threshold it first.")
    return write_nifti(path, Volume(mask.astype(np.uint8), volume_like.affine, "mask"), overwrite=overwrite)


def _from_dicom(path: Path, kind: str, dataset: pydicom.Dataset, reference: Volume, names: dict[int, str],
                numbers: list[int], resample: bool) -> ROI:
    notes, frames = [], set()
    if kind == "SEG":
        source = read_segments(dataset, numbers, reference)
        region = source.replace(data=source.data >= HALF)
        mask, notes = region_on_grid(f"the DICOM SEG {path.name}", region, reference, resample=resample, whole=False)
        frames.add(str(dataset.get("FrameOfReferenceUID") or ""))
    else:
        mask = np.zeros(reference.data.shape, dtype=bool)
        for number in numbers:
            one, more = read_structure(dataset, number, reference)
            mask |= one
            notes += more
            frames.add(frame_of_reference(dataset, number))
    frames = {uid_digest(f) for f in frames if f}
    wanted = str(reference.tags.get("frame_of_reference_sha256") or "")
    if wanted and any(f != wanted for f in frames):
        notes.append("The region and the image state different frames of reference (FrameOfReferenceUID): they may not "
                     "be aligned; check the overlay.")
    tags = {k: str(dataset.get(k)) for k in ("Modality", "SegmentationType") if dataset.get(k)}
    tags["frame_of_reference_sha256"] = ", ".join(sorted(frames))
    return ROI(mask, reference.affine, tuple(numbers), tuple(names[n] for n in numbers), kind, tuple(notes), tags)


def _from_nifti(path: Path, image, reference: Volume, label, name, resample: bool, label_names) -> ROI:
    labels = label_values(path, image)
    notes = list(labels.warnings)
    if labels.data.dtype.kind == "f":
        if name is not None or (label is not None and _as_tuple(label) != (1,)):
            raise InputError(f"{path.name} is a probability map (values between 0 and 1), so it holds no label to "
                             "choose; leave label and name out.")
        chosen, region = {1: ""}, labels.data >= HALF
        notes.append(f"The values are not integers but lie between 0 and 1: taken as probabilities, cut at {HALF}.")
    else:
        available = labels_present(path, labels.data, label_names)
        asked = label is not None or name is not None
        numbers = _select(path, available, label, name) if available or asked else []  # an empty mask has no label
        chosen = {n: dict(available)[n] for n in numbers}
        region = np.isin(labels.data, numbers)
    mask, more = region_on_grid(path.name, labels.replace(data=region), reference, resample=resample, whole=True)
    return ROI(mask, reference.affine, tuple(chosen), tuple(chosen.values()), "NIfTI", tuple(notes + more), labels.tags)


def _select(path: Path, available: list[tuple[int, str]], label, name) -> list[int]:
    """Return the numbers of the regions that were asked for."""
    if label is not None and name is not None:
        raise InputError("give label or name, not both; several labels, or several names, are joined.")
    if label is None and name is None:
        if len(available) == 1:
            return [available[0][0]]
        raise InputError(f"{path.name} must hold one region unless label or name says which, but holds "
                         f"{_listing(available)}.")
    if label is not None:
        wanted = _as_tuple(label)
        missing = [n for n in wanted if n not in dict(available)]
        if missing or not wanted:
            raise InputError(f"label must be among those in {path.name}, but {', '.join(map(str, missing)) or 'none'} "
                             f"is not there: it holds {_listing(available)}.")
        if len({n for n, _ in available}) < len(available):
            raise MetadataError(f"{path.name} gives one number to several regions: it holds {_listing(available)}.")
        return list(dict.fromkeys(wanted))
    found = [_find(path, available, text) for text in ([name] if isinstance(name, str) else list(name))]
    if not found:
        raise InputError(f"name must be given, but was empty; {path.name} holds {_listing(available)}.")
    return list(dict.fromkeys(found))


def _find(path: Path, available: list[tuple[int, str]], name: str) -> int:
    for same in (str.__eq__, lambda a, b: a.strip().casefold() == b.strip().casefold()):
        hits = [n for n, text in available if same(text, str(name))]
        if len(hits) == 1:
            return hits[0]
        if hits:
            raise InputError(f"name {name!r} stands for {len(hits)} regions of {path.name} (numbers "
                             f"{', '.join(map(str, hits))}); choose one with label.")
    known = "" if any(text for _, text in available) else "; no names are known: give label, or label_names"
    raise InputError(f"name must be that of a region in {path.name}, but {name!r} is not there: it holds "
                     f"{_listing(available)}{known}.")


def _as_tuple(label) -> tuple[int, ...]:
    try:
        items = (label,) if isinstance(label, (str, bool)) or not isinstance(label, Iterable) else tuple(label)
        if any(isinstance(n, (bool, np.bool_)) for n in items):
            raise TypeError
        return tuple(operator.index(n) for n in items)
    except TypeError:
        raise InputError(f"label must be an integer or several, but was {label!r}.") from None


def _listing(available: list[tuple[int, str]]) -> str:
    shown = ", ".join(f"{n} ({text})" if text else str(n) for n, text in available[:_LISTED])
    return (shown or "no region") + (f" and {len(available) - _LISTED} more" if len(available) > _LISTED else "")


def _title(roi: ROI) -> str:
    return ", ".join(text or str(n) for n, text in zip(roi.numbers, roi.names, strict=True)) or "(no label)"
