"""Finding one DICOM image series among files, and ordering its slices."""

from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError

from allpet_physics.errors import InputError, MetadataError
from allpet_physics.io.dicom_grid import check_alike, orientation, position
from allpet_physics.io.dicom_header import number, text

#: What pydicom raises on a file that is none, or is damaged.
NOT_DICOM = (InvalidDicomError, OSError, EOFError, ValueError, AttributeError, KeyError, NotImplementedError)
#: Positions closer than this, in mm, are the same position.
SAME_POSITION_MM = 0.01
_IMAGES = ("PT", "CT", "MR", "NM")
_INDEX = ["SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "Modality", "SeriesDescription", "Rows",
          "NumberOfFrames", "ImageType"]


def load_slices(path, series_uid: str | None = None, *, modality: str | None = None, frame: int | None = None) -> tuple:
    """Return the datasets of one series, ordered along the normal of the image plane, and remarks on the choice."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"path must be a DICOM folder or file, but {path} does not exist.")
    if path.is_file():
        header = _header(path) or pydicom.Dataset()
        kind = text(header, "Modality")
        if not kind:
            raise InputError(f"path must be a DICOM file, a folder of them or a NIfTI file, but {path} is not.")
        if kind != (modality or kind) or kind not in _IMAGES:
            raise InputError(f"path must be a {modality or 'DICOM image'} file, but {path} is of modality {kind}.")
        series_uid = series_uid or text(header, "SeriesInstanceUID")
        path, files = path.parent, path.parent.iterdir()
    else:
        files = path.rglob("*")
    uid, files = _choose(path, _group(files), series_uid, modality)
    slices, notes = [], []
    seen = set()
    for file, header in files:
        if header.SOPInstanceUID in seen:
            continue
        seen.add(header.SOPInstanceUID)
        try:
            slices.append(pydicom.dcmread(file))
        except Exception as error:  # pydicom raises many kinds on a damaged file
            raise InputError(f"{file} cannot be read ({brief(error)}); copy it again from its source.") from None
    if len(seen) < len(files):
        notes.append(f"{len(files) - len(seen)} files are copies of other slices and were left out.")
    if any((number(s, "NumberOfFrames") or 1) > 1 for s in slices):
        raise InputError(f"series {_tail(uid)} in {path} is stored as a multi-frame (enhanced) object, which is not "
                         "supported; convert it to one file per slice.")
    check_alike(slices)
    slices = _ordered(slices, frame)
    notes += [] if len(slices) > 1 else ["The series is a single slice; its thickness is the header's."]
    stated = number(slices[0], "NumberOfSlices")
    if stated and stated > len(slices):
        notes.append(f"NumberOfSlices (0054,0081) is {stated:g}, but {len(slices)} slices were found; "
                     "the series may be cropped at an end.")
    return slices, notes


def brief(error: Exception) -> str:
    """Return the first words of an error, on one line."""
    return " ".join(str(error).split())[:120] or type(error).__name__


def _ordered(slices, frame: int | None) -> list:
    """Sort along the normal; where every place is taken several times, pick the asked frame in order of time."""
    normal = np.cross(*orientation(slices[0]).reshape(2, 3))
    heights = np.array([position(s) @ normal for s in slices])
    order = np.argsort(heights, kind="stable")
    slices, heights = [slices[i] for i in order], heights[order]
    same = np.diff(heights) < SAME_POSITION_MM
    places = np.concatenate([[0], np.cumsum(~same)])
    counts = Counter(places.tolist())
    n_frames = max(counts.values())
    if n_frames == 1:
        if frame not in (None, 0):
            raise InputError(f"frame must be 0 or None for a series with one image per position, but was {frame}.")
        return slices
    listing = (f"series {_tail(text(slices[0], 'SeriesInstanceUID'))} ({text(slices[0], 'SeriesDescription')}, "
               f"{len(slices)} images at {len(counts)} positions)")
    if len(set(counts.values())) > 1:
        raise MetadataError(f"duplicate slices: in {listing} some positions hold {n_frames} images and others fewer; "
                            "separate the images, or choose another series with series_uid.")
    if frame is None:
        raise MetadataError(f"duplicate slices: {listing} holds {n_frames} images per position, as a dynamic or "
                            f"gated series does; choose one with frame=0 to {n_frames - 1}, or another series with "
                            "series_uid.")
    if not isinstance(frame, (int, np.integer)) or not 0 <= frame < n_frames:
        raise InputError(f"frame must be an integer from 0 to {n_frames - 1}, but was {frame!r}.")
    chosen = []
    for place in counts:
        group = [s for s, p in zip(slices, places, strict=True) if p == place]
        keys = [_frame_key(s) for s in group]
        if len(set(keys)) < n_frames:
            raise MetadataError(f"the {n_frames} images per position of {listing} do not differ in acquisition time or "
                                "frame time, so no order can be given to them; separate them into folders.")
        chosen.append(group[sorted(range(n_frames), key=keys.__getitem__)[frame]])
    return chosen


def _frame_key(ds) -> tuple:
    return (text(ds, "AcquisitionDate"), text(ds, "AcquisitionTime"), number(ds, "FrameReferenceTime") or 0.0,
            number(ds, "TriggerTime") or 0.0)


def _group(files) -> dict[str, list]:
    series: dict[str, list] = {}
    for file in sorted(p for p in files if p.is_file()):
        header = _header(file)
        if header is not None and text(header, "SeriesInstanceUID") and "SOPInstanceUID" in header:
            series.setdefault(str(header.SeriesInstanceUID), []).append((file, header))
    return series


def _choose(folder: Path, series: dict, series_uid: str | None, modality: str | None) -> tuple[str, list]:
    images = {uid: [(f, h) for f, h in files if "Rows" in h and "LOCALIZER" not in text(h, "ImageType")]
              for uid, files in series.items() if text(files[0][1], "Modality") in _IMAGES}
    fitting = {uid: files for uid, files in images.items()
               if files and modality in (None, text(files[0][1], "Modality"))}
    if series_uid is not None:
        wanted = str(series_uid).lstrip(".")
        named = [uid for uid in fitting if uid == wanted] or [uid for uid in fitting if uid.endswith(wanted)]
        if len(named) != 1:
            raise MetadataError(f"series_uid must name one {modality or 'image'} series in {folder}, but "
                                f"{series_uid!r} names {len(named)}; it holds {_listing(series)}.")
        return named[0], fitting[named[0]]
    if not series:
        raise InputError(f"path must hold DICOM files, but none was found in {folder}.")
    if not fitting:
        raise InputError(f"path must hold a {modality or 'DICOM image'} series, but {folder} holds {_listing(series)}.")
    if len(fitting) > 1:
        raise MetadataError(f"{folder} holds {len(fitting)} {modality or 'image'} series: {_listing(fitting)}; choose "
                            "one with series_uid (its end is enough).")
    return next(iter(fitting.items()))


def _listing(series: dict) -> str:
    rows = [f"{_tail(uid)} ({text(files[0][1], 'Modality')}, "
            f"{text(files[0][1], 'SeriesDescription') or 'no description'}, {len(files)} files)"
            for uid, files in series.items()]
    return "; ".join(rows[:12]) + (f"; and {len(rows) - 12} more" if len(rows) > 12 else "") or "no DICOM files"


def _header(file: Path):
    """Return the elements that identify a series, or None where `file` is not DICOM."""
    try:
        return pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_INDEX)
    except PermissionError:
        raise
    except NOT_DICOM:
        return None


def _tail(uid: str) -> str:
    return uid if len(uid) <= 16 else f"...{uid[-12:]}"
