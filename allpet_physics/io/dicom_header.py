"""Elements of a DICOM header as plain numbers and text, tolerant of how vendors write them."""

import hashlib
import math

from pydicom.dataset import Dataset

from allpet_physics.errors import MetadataError

#: Private elements as (group, element, private creator); anonymisers often drop the creator and keep the element.
GE_SCAN_DATETIME = (0x0009, 0x0D, "GEMS_PETD_01")
PHILIPS_SUV_FACTOR = (0x7053, 0x00, "Philips PET Private Group")
PHILIPS_ACTIVITY_FACTOR = (0x7053, 0x09, "Philips PET Private Group")


def number(ds: Dataset, keyword: str) -> float | None:
    """Return a single-valued element as float; None when it is absent, empty or not a finite number."""
    return _as_number(_value(ds, keyword))


def text(ds: Dataset, keyword: str) -> str:
    """Return an element as stripped text, values joined by a backslash; empty when it is absent."""
    value = _value(ds, keyword)
    if value is None:
        return ""
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        return _as_text(value)
    return "\\".join(_as_text(v) for v in value)


def uid_digest(uid: str) -> str:
    """Return the SHA-256 of a UID, which tells whether two are the same but not what they are; empty when it is."""
    return hashlib.sha256(uid.encode()).hexdigest() if uid else ""


def private_text(ds: Dataset, element: tuple[int, int, str]) -> str:
    """Return a private element as text: from its creator's block, or raw at 10xx where no creator is named."""
    group, offset, creator = element
    try:
        return _as_text(ds.private_block(group, creator)[offset].value)
    except KeyError:
        pass
    if (group, 0x10) in ds or (group, 0x1000 + offset) not in ds:
        return ""
    return _as_text(ds[group, 0x1000 + offset].value)


def private_number(ds: Dataset, element: tuple[int, int, str]) -> float | None:
    """Return a private element as float; None when it is absent or not a finite number."""
    return _as_number(private_text(ds, element))


def radiopharmaceutical(ds: Dataset) -> Dataset:
    """Return the item of RadiopharmaceuticalInformationSequence (0054,0016), or an empty one.

    Raises
    ------
    MetadataError
        More than one tracer: the dose of which one made the image is unknown.
    """
    items = _value(ds, "RadiopharmaceuticalInformationSequence") or []
    if len(items) > 1:
        raise MetadataError(f"RadiopharmaceuticalInformationSequence (0054,0016) lists {len(items)} tracers; SUV needs "
                            'one: read the image with unit="Bq/ml".')
    return items[0] if items else Dataset()


def same_in_all(name: str, values):
    """Return the value that all slices share.

    Raises
    ------
    MetadataError
        The slices contradict each other.
    """
    different = list(dict.fromkeys(values))
    if len(different) > 1:
        raise MetadataError(f"{name} must be the same in all slices of a series, but was "
                            f"{', '.join(repr(v) for v in different[:4])}; the folder may mix two series.")
    return different[0]


def _value(ds: Dataset, keyword: str):
    try:
        return ds.get(keyword)
    except (ValueError, TypeError, OverflowError):  # pydicom converts on access and refuses malformed text
        return None


def _as_text(value) -> str:
    if isinstance(value, bytes):
        value = value.decode("ascii", errors="replace")
    return str(value).strip(" \0")


def _as_number(value) -> float | None:
    try:
        result = float(_as_text(value))
    except ValueError:
        return None
    return result if math.isfinite(result) else None
