"""NIfTI volumes: reading with the unit where it is known, writing without leaving half a file."""

import gzip
import re
import struct
import uuid
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from allpet_physics.errors import InputError, MetadataError
from allpet_physics.io._remarks import told
from allpet_physics.io.volume import Volume, grid_mismatch

SUFFIXES = (".nii", ".nii.gz")
#: How `write_nifti` records the unit in the header's free text (80 characters).
_UNIT_TEXT = "allpet unit="
_METRES = {"meter": 1000.0, "mm": 1.0, "micron": 1e-3, "unknown": 1.0}
_UNREADABLE = (OSError, EOFError, ValueError, KeyError, TypeError, OverflowError, zlib.error, struct.error,
               ImageFileError, HeaderDataError)


def is_nifti(path) -> bool:
    """Tell whether the name of `path` is a NIfTI file's."""
    return str(path).lower().endswith(SUFFIXES)


def read_nifti(path, unit: str | None = None, *, dtype=np.float32, frame: int | None = None,
               nonfinite: str = "raise") -> Volume:
    """Return a NIfTI file as a volume.

    Parameters
    ----------
    path : path-like
        A ``.nii`` or ``.nii.gz`` file.
    unit : str, optional
        What the values are, declared by the caller; no value is converted. Without it the unit is what `write_nifti`
        recorded in the file, or "unknown".
    dtype : numpy dtype or None
        Of the data; None keeps the integers of a label image (and float32 or float64 as they come).
    frame : int, optional
        Which image of a 4D file, from 0.
    nonfinite : {"raise", "zero", "keep"}
        What becomes of NaN and Inf, which some tools write outside the brain or the field of view.

    Returns
    -------
    Volume
        Data [i, j, k] as in the file; affine in RAS mm: the sform, else the qform. What was noticed stands in
        `Volume.warnings` and is issued as UserWarning.

    Raises
    ------
    InputError
        No such file, not NIfTI, complex or RGB values, a frame that is not there, an unknown `nonfinite`.
    MetadataError
        A truncated or damaged file; NaN or Inf; a 4D file without `frame`.
    """
    return told(load_nifti(path, unit, dtype=dtype, frame=frame, nonfinite=nonfinite))


def load_nifti(path, unit=None, *, dtype=np.float32, frame=None, nonfinite="raise") -> Volume:
    """Return what `read_nifti` does, without issuing warnings."""
    path = _existing(path)
    if nonfinite not in ("raise", "zero", "keep"):
        raise InputError(f'nonfinite must be "raise", "zero" or "keep", but was {nonfinite!r}.')
    try:
        image = _open(path)
    except PermissionError:
        raise
    except _UNREADABLE as error:
        raise _damaged(path, error) from None
    return volume_of_image(path, image, unit, dtype=dtype, frame=frame, nonfinite=nonfinite)


def volume_of_image(path, image, unit: str | None = None, *, dtype=np.float32, frame: int | None = None,
                    nonfinite: str = "raise") -> Volume:
    """Return an opened nibabel image as a volume; parameters and errors are those of `read_nifti`."""
    try:
        if not isinstance(image, nib.Nifti1Pair):
            raise InputError(f"path must be a NIfTI file, but {path} is {type(image).__name__}; convert it first.")
        kind = image.get_data_dtype().kind
        if kind not in "fiu":
            raise InputError(f"{path} must hold real numbers, but its data type is {image.get_data_dtype()}; "
                             "save its magnitude or one channel instead.")
        data = np.asanyarray(_one_image(path, image, frame))
    except (InputError, PermissionError):
        raise
    except _UNREADABLE as error:
        raise _damaged(path, error) from None
    if dtype is not None:
        with np.errstate(over="ignore", invalid="ignore"):
            data = data.astype(dtype, copy=False)
    elif data.dtype.kind == "f" and data.dtype.itemsize not in (4, 8):
        data = data.astype(np.float32 if data.dtype.itemsize < 4 else np.float64)
    data = np.asarray(data.astype(data.dtype.newbyteorder("="), copy=False))
    data, notes = _finite(path, data, nonfinite)
    affine, remarks = _affine(path, image)
    found = re.match(rf"{_UNIT_TEXT}(\S+)", _free_text(image))
    tags = {"source": "NIfTI", "dtype_on_disk": str(image.get_data_dtype())}
    if frame is not None:
        tags["frame"] = int(frame)
    return Volume(data, affine, unit or (found[1] if found else "unknown"), tags, tuple(notes + remarks))


def write_nifti(path, volume: Volume, *, overwrite: bool = False) -> Path:
    """Write a volume as NIfTI, compressed when the name ends in ``.gz``; the file appears whole or not at all.

    Booleans become uint8, 64-bit integers int32 where they fit, float16 float32; the unit is recorded in `descrip`.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    InputError
        A name that is not NIfTI's, a folder that does not exist, a file that exists without `overwrite`, values that
        NIfTI cannot hold.
    """
    path = Path(path)
    if not is_nifti(path):
        raise InputError(f"path must end in .nii or .nii.gz, but was {path.name!r}.")
    if not path.parent.is_dir():
        raise InputError(f"path must lie in an existing folder, but {path.parent} does not exist.")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists already; pass overwrite=True to replace it.")
    image = nib.Nifti1Image(_storable(volume.data), volume.affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(volume.affine, code="scanner")
    image.set_qform(volume.affine, code="scanner", strip_shears=True)
    image.header["descrip"] = f"{_UNIT_TEXT}{volume.unit}".encode()[:79]
    data = image.to_bytes()
    if path.name.lower().endswith(".gz"):
        data = gzip.compress(data, compresslevel=6, mtime=0)
    return write_whole(path, data)


def write_whole(path: Path, data: bytes) -> Path:
    """Write `data` beside `path` and rename it into place, so that nobody ever sees half a file."""
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    return path


def _existing(path) -> Path:
    path = Path(path)
    if not is_nifti(path):
        raise InputError(f"path must end in .nii or .nii.gz, but was {path.name!r}.")
    if not path.is_file():
        raise InputError(f"path must be a NIfTI file, but {path} does not exist.")
    if path.stat().st_size == 0:
        raise MetadataError(f"{path} is empty; copy it again from its source.")
    return path


def _open(path: Path):
    """Open a file; a compressed one is read whole, because only its end holds the checksum."""
    if not path.name.lower().endswith(".gz"):
        return nib.load(path, mmap=False)
    content = gzip.decompress(path.read_bytes())
    version_2 = content[:4] in (struct.pack("<i", 540), struct.pack(">i", 540))
    return (nib.Nifti2Image if version_2 else nib.Nifti1Image).from_bytes(content)


def _one_image(path, image, frame: int | None):
    """Return three-dimensional data: trailing axes of length one are dropped, a time axis needs `frame`."""
    shape = image.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) < 2 or len(shape) > 4 or 0 in shape:
        raise MetadataError(f"{path} must hold one 3D image, but its shape was {image.shape}.")
    if len(shape) == 4:
        if frame is None:
            raise MetadataError(f"{path} holds {shape[3]} frames of shape {shape[:3]}; choose one with frame=0 to "
                                f"{shape[3] - 1}.")
        if not isinstance(frame, (int, np.integer)) or not 0 <= frame < shape[3]:
            raise InputError(f"frame must be an integer from 0 to {shape[3] - 1}, but was {frame!r}.")
        return image.dataobj[(slice(None),) * 3 + (int(frame),) + (0,) * (image.ndim - 4)]
    if frame not in (None, 0):
        raise InputError(f"frame must be 0 or None for a file with one image, but was {frame!r}.")
    return np.asanyarray(image.dataobj).reshape((*shape, 1)[:3])


def _finite(path, data: np.ndarray, nonfinite: str) -> tuple[np.ndarray, list[str]]:
    if data.dtype.kind != "f" or nonfinite == "keep":
        return data, []
    bad = ~np.isfinite(data)
    count = int(np.count_nonzero(bad))
    if count == 0:
        return data, []
    if nonfinite == "raise":
        raise MetadataError(f'{path} holds {count} NaN or Inf among {data.size} voxels; read it with nonfinite="zero" '
                            "if they mean no value.")
    return np.where(bad, data.dtype.type(0), data), [f"{count} NaN or Inf voxels were set to zero."]


def _affine(path, image) -> tuple[np.ndarray, list[str]]:
    header = image.header
    space = header.get_xyzt_units()[0] if int(header["xyzt_units"]) & 7 in (0, 1, 2, 3) else "unknown"
    scale = np.diag([*[_METRES[space]] * 3, 1.0])
    sform, qform = int(header["sform_code"]), int(header["qform_code"])
    if not sform and not qform:
        return scale @ image.affine, [f"{path.name} has neither sform nor qform: left and right, the order of slices "
                                      "and the position in the patient are unknown."]
    notes = []
    if sform and qform:
        size = np.empty(image.shape[:3], dtype=np.uint8) if len(image.shape) >= 3 else np.empty((*image.shape, 1))
        difference = grid_mismatch(Volume(size, header.get_sform()), Volume(size, header.get_qform()))
        if difference is not None:
            notes.append(f"{path.name} has two orientations, sform and qform, with {difference}; the sform was used.")
    return scale @ image.affine, notes


def _free_text(image) -> str:
    return bytes(image.header["descrip"].tobytes()).split(b"\0")[0].decode("ascii", errors="replace")


def _storable(data: np.ndarray) -> np.ndarray:
    data = np.asarray(data)
    if data.dtype.kind == "b":
        return data.astype(np.uint8)
    if data.dtype == np.float16:
        return data.astype(np.float32)
    if data.dtype in (np.int64, np.uint64, np.uint32):
        if data.size and (data.min() < -2**31 or data.max() >= 2**31):
            raise InputError(f"volume holds integers up to {data.max()}, which NIfTI's int32 cannot; rescale them.")
        return data.astype(np.int32)
    if data.dtype.kind not in "fiu" or data.dtype.itemsize > 8:
        raise InputError(f"volume must hold real numbers of at most 64 bits, but its dtype was {data.dtype}.")
    return data


def _damaged(path, error: Exception) -> MetadataError:
    return MetadataError(f"{path} cannot be read as NIfTI: it is truncated or damaged ({_brief(error)}); "
                         "copy it again from its source.")


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
