"""Telling the formats of region files apart by their content, and opening them."""

import gzip
import struct
import zlib
from os import PathLike
from pathlib import Path

import nibabel
import pydicom

from allpet_physics.errors import InputError, MetadataError

_RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
#: Segmentation Storage and Label Map Segmentation Storage.
_SEG = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
#: What the libraries below raise on damaged files.
UNREADABLE = (OSError, EOFError, ValueError, KeyError, AttributeError, TypeError, IndexError, NotImplementedError,
               struct.error, zlib.error, nibabel.filebasedimages.ImageFileError, pydicom.errors.InvalidDicomError)


def open_region(path: str | PathLike):
    """Return the file, its format by content, and the opened NIfTI image or DICOM dataset."""
    path = Path(path)
    if path.is_dir():
        path = _only_region_file(path)
    try:
        head = _head(path)
        if not head:
            raise InputError(f"{path.name} must hold a region, but is empty (0 bytes).")
        if _is_nifti(head):
            return path, "NIfTI", _nifti_image(path, head)
        dataset = pydicom.dcmread(path, force=head[128:132] != b"DICM")
        kind = _dicom_kind(dataset)
    except (InputError, PermissionError):
        raise
    except FileNotFoundError:
        raise InputError(f"path must be an existing file, but there is none at {path}.") from None
    except UNREADABLE as error:
        raise MetadataError(f"{path.name} could not be read ({error}); it may be cut short or damaged: export it "
                            "again.") from None
    if kind is None:
        if "SOPClassUID" not in dataset and "Modality" not in dataset:
            raise InputError(f"{path.name} must be a NIfTI, DICOM RTSTRUCT or DICOM SEG file, but its content is none "
                             "of these.")
        raise InputError(f"{path.name} must be a DICOM RTSTRUCT or SEG, but is a DICOM object of modality "
                         f"{dataset.get('Modality', 'unknown')}; give the file with the region.")
    if _is_cut_short(dataset):
        raise MetadataError(f"{path.name} ends inside an element: it is cut short; export it again.")
    needed = "StructureSetROISequence" if kind == "RTSTRUCT" else "SegmentSequence"
    if needed not in dataset:
        raise MetadataError(f"{path.name} must list its regions ({needed}), but does not; it may be cut short: "
                            "export it again.")
    return path, kind, dataset


def _is_cut_short(dataset: pydicom.Dataset) -> bool:
    """Tell whether an element holds less than its header states; pydicom itself passes this over in silence."""
    for tag in list(dataset.keys()):  # iterating over the data set itself would decode every element
        element = dataset.get_item(tag)
        if isinstance(element, pydicom.dataelem.RawDataElement):
            if element.length != 0xFFFFFFFF and len(element.value or b"") < element.length:
                return True
        elif element.VR == "SQ" and any(_is_cut_short(item) for item in element.value):
            return True
    return False


def _dicom_kind(dataset: pydicom.Dataset) -> str | None:
    sop, modality = str(dataset.get("SOPClassUID") or ""), str(dataset.get("Modality") or "")
    if sop == _RTSTRUCT or (not sop and modality == "RTSTRUCT"):
        return "RTSTRUCT"
    return "SEG" if sop in _SEG or (not sop and modality == "SEG") else None


def _only_region_file(folder: Path) -> Path:
    found = []
    for file in sorted(f for f in folder.iterdir() if f.is_file() and not f.name.startswith(".")):
        try:
            dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["SOPClassUID", "Modality"])
        except UNREADABLE:
            continue
        if _dicom_kind(dataset):
            found.append(file)
    if len(found) != 1:
        names = ", ".join(f.name for f in found[:10]) or "none"
        raise InputError(f"the folder {folder.name} must hold one DICOM RTSTRUCT or SEG file, but holds {len(found)} "
                         f"({names}); give the file itself, as a NIfTI region always must be.")
    return found[0]


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        head = file.read(544)
    if head[:2] == b"\x1f\x8b":
        with gzip.open(path, "rb") as file:
            head = file.read(544)
    return head


def _is_nifti(head: bytes) -> bool:
    size = {struct.unpack(order + "i", head[:4])[0] for order in "<>"} if len(head) >= 4 else set()
    return ((348 in size and head[344:348] in (b"n+1\0", b"ni1\0"))
            or (540 in size and head[4:8] in (b"n+2\0", b"ni2\0")))


def _nifti_image(path: Path, head: bytes):
    """Open a NIfTI image whatever its name."""
    if head[344:348] == b"ni1\0" or head[4:8] == b"ni2\0":
        raise InputError(f"{path.name} is the header of a NIfTI pair (.hdr and .img); convert the pair to one .nii "
                         "file.")
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    return (nibabel.Nifti2Image if head[4:7] == b"n+2" else nibabel.Nifti1Image).from_bytes(raw)
