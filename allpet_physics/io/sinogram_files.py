"""Sinogram stacks with their geometry: npz, NIfTI and Interfile, told apart by the file's suffix."""

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from allpet_physics._arrays import as_float_array
from allpet_physics.axial_grid import centred_affine, recentred_affine
from allpet_physics.errors import GeometryError, InputError, MetadataError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.io.nifti import write_whole

#: What each format's file name ends in.
SUFFIXES = {"npz": ".npz", "nifti": ".nii.gz", "interfile": ".hs"}
#: What the header of a NIfTI file of sinograms says of itself.
NIFTI_MARK = b"allpet sinogram"
#: Start of the comment lines in which an Interfile keeps what its keys cannot say; other readers pass over them.
_COMMENT, _COMMENT_WIDTH = "; allpet ", 100
#: A stated bin width that differs from the file's by less than this part agrees with it: it was rounded to be read.
_AGREES = 1e-3
_AXES = "sinogram[slice, angle, bin]; slices from inferior to superior"
_UNREADABLE = (OSError, EOFError, ValueError, KeyError, zlib.error, zipfile.BadZipFile,
               nib.filebasedimages.ImageFileError)


@dataclass(frozen=True, eq=False)
class SinogramStack:
    """Sinograms of neighbouring slices with everything that their images need to find back to the patient.

    Attributes
    ----------
    data : ndarray
        ``[slice, angle, bin]``, slices from inferior to superior; one sinogram gets a slice axis.
    geometry : ParallelGeometry
    unit : str
        Of the data: ``"mm"``, ``"SUVbw mm"``, ``"counts"``, ``"relative"`` or ``"unknown"``.
    image_unit : str
        Unit of the image that was projected; empty when it follows from `unit`.
    scale : float
        The data are this many times the projection of the image: counts per line integral.
    affine : ndarray
        4 × 4 matrix from (col, row, slice) of the images to RAS mm, slice being the axial index in `slices`.
    slice_mm : float
        Distance between slices with neighbouring axial indices.
    slices : tuple of int
        Axial index of each slice of the stack.
    warnings : tuple of str
    """

    data: np.ndarray
    geometry: ParallelGeometry
    unit: str = "unknown"
    affine: np.ndarray | None = None
    slice_mm: float = 1.0
    slices: tuple[int, ...] = ()
    image_unit: str = ""
    scale: float = 1.0
    warnings: tuple[str, ...] = ()

    def __post_init__(self):
        shape = self.geometry.sinogram_shape
        data = as_float_array("sinogram", self.data, shape).reshape(-1, *shape)
        object.__setattr__(self, "data", data)
        object.__setattr__(self, "slices", tuple(int(k) for k in self.slices) or tuple(range(len(data))))
        if len(self.slices) != len(data):
            raise GeometryError(f"slices must name each of the {len(data)} sinograms, but named {len(self.slices)}.")
        if self.affine is None:
            object.__setattr__(self, "affine", centred_affine(self.geometry, self.slice_mm, self.slices))

    @property
    def unit_of_images(self) -> str:
        """Unit of what a reconstruction gives after division by `scale`."""
        return self.image_unit or (self.unit.removesuffix(" mm") if self.unit.endswith(" mm") else "unknown")

    def image_affine(self) -> np.ndarray:
        """Return the matrix from (col, row, position in the stack) to RAS mm.

        Raises
        ------
        GeometryError
            The chosen slices are not evenly spaced, so their images do not form a volume.
        """
        steps = np.diff(self.slices)
        if len(steps) and (steps != steps[0]).any():
            raise GeometryError(f"the slices must be evenly spaced to form an image volume, but were {self.slices}; "
                                "choose a range of slices.")
        step = int(steps[0]) if len(steps) else 1
        out = np.array(self.affine, dtype=np.float64)
        out[:3, 3] += out[:3, 2] * self.slices[0]
        out[:3, 2] *= step
        return out


def sinogram_format(path) -> str:
    """Return "npz", "nifti" or "interfile" from a file's suffix, or raise InputError."""
    name = str(path).lower()
    for kind, suffixes in {"npz": (".npz", ".npy"), "nifti": (".nii.gz", ".nii"), "interfile": (".hs",)}.items():
        if name.endswith(suffixes):
            return kind
    raise InputError(f"a sinogram file must end in .npz, .nii.gz, .nii or .hs, but was {Path(path).name!r}.")


def write_sinogram(path, stack: SinogramStack, extra: Mapping[str, tuple[np.ndarray, str]] | None = None) -> None:
    """Write a stack in the format of the suffix; Interfile puts the data beside the header, in ``.s``.

    NIfTI holds ``[bin, angle, slice]`` (its first axis runs fastest), voxel sizes in mm, degrees and mm, and the
    geometry as JSON in a header extension. Interfile holds STIR's axes and, as STIR has it, the most superior slice
    first; its keys know neither unit nor image grid nor patient, which stand in comment lines of the header that
    other readers pass over. `read_sinogram` returns all of them as they were given.

    Parameters
    ----------
    path : path-like
    stack : SinogramStack
        Saved as ``sinogram`` in an npz.
    extra : mapping of str to (ndarray, unit), optional
        Further stacks of the same shape for the same npz.
    """
    kind = sinogram_format(path)
    g = stack.geometry
    if kind == "npz":
        units = {"sinogram": stack.unit} | {name: unit for name, (_, unit) in (extra or {}).items()}
        np.savez_compressed(path, sinogram=stack.data, **{name: data for name, (data, _) in (extra or {}).items()},
                            geometry=json.dumps(g.to_dict()), units=json.dumps(units), slices=np.array(stack.slices),
                            affine=stack.affine, slice_mm=stack.slice_mm, axes=_AXES, scale=stack.scale,
                            image_unit=stack.image_unit)
    elif kind == "nifti":
        image = nib.Nifti1Image(stack.data.transpose(2, 1, 0), None)
        image.header.set_zooms((g.bin_mm, np.degrees(g.arc / g.n_angles), stack.slice_mm))
        image.header.set_xyzt_units("mm")
        image.header["descrip"] = NIFTI_MARK + b" [bin, angle, slice]; voxel mm, degrees, mm"
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", json.dumps(_fields(stack)).encode()))
        nib.save(image, path)
    else:
        from allpet_physics.io.interfile import write_interfile_sinogram

        step = stack.image_affine()[:3, 2]  # also refuses slices that are not evenly spaced
        write_interfile_sinogram(path, stack.data[::-1], g, plane_mm=float(np.linalg.norm(step)))
        text = json.dumps(_fields(stack))
        lines = [_COMMENT + text[i:i + _COMMENT_WIDTH] for i in range(0, len(text), _COMMENT_WIDTH)]
        first, rest = Path(path).read_text(encoding="utf-8").split("\n", 1)
        write_whole(Path(path), "\n".join([first, *lines, rest]).encode())


def read_sinogram(path, *, array: str = "sinogram", bin_mm: float | None = None, arc: float | None = None,
                  image_shape: tuple[int, int] | None = None, pixel_mm: float | None = None) -> SinogramStack:
    """Read a stack that `write_sinogram` wrote, any Interfile PET sinogram, or a bare array with a stated geometry.

    Parameters
    ----------
    path : path-like
    array : str
        Which array of an npz.
    bin_mm, arc : float, optional
        For files without a geometry; a file with one must agree (the bin width to 0.1 %), and its own value is kept.
    image_shape, pixel_mm : optional
        Replace the image grid of the file's geometry. Where there is none (arrays, Interfile of other programs), as
        many square pixels as bins, of the bins' size, so that the image holds the whole disc that the bins see.

    Raises
    ------
    InputError
        No such file, another format, an array that is not there (those that are get listed).
    MetadataError
        A damaged file, a file without geometry and no `bin_mm`.
    GeometryError
        A `bin_mm` or `arc` that contradicts the file.
    """
    path = Path(path)
    kind = sinogram_format(path)
    if path.is_dir():
        raise InputError(f"a sinogram must be a file, but {path} is a folder; give the file in it.")
    if not path.is_file():
        raise InputError(f"a sinogram file must exist, but there is none at {path}.")
    if kind == "interfile":
        from allpet_physics.io.interfile import read_interfile_sinogram
        found = read_interfile_sinogram(path)
        data, notes = found.data[::-1], found.warnings
        fields = _interfile_comment(path, found)
        if not fields:
            fields = {"slice_mm": found.plane_mm or 1.0}
            taken = "" if image_shape and pixel_mm else (
                "; pixels of the bins' size were taken, as many as bins, unless image_shape and pixel_mm are given")
            notes = (*notes, f"{path.name} does not say its unit, its place in the patient, or an image grid{taken}.")
        if found.bin_mm is not None and "geometry" not in fields:
            fields["geometry"] = ParallelGeometry(found.n_views, found.n_bins, found.bin_mm,
                                                  (found.n_bins, found.n_bins), found.bin_mm, found.arc).to_dict()
        if found.view_offset:
            notes = (*notes, f"The first view is at {np.degrees(found.view_offset):.4g} degrees; an image is turned by "
                     "that angle.")
    else:
        try:
            data, fields = (_read_npz if kind == "npz" else _read_nifti)(path, array)
        except (InputError, PermissionError):
            raise
        except _UNREADABLE as error:
            raise MetadataError(f"{path.name} cannot be read: it is truncated or damaged "
                                f"({' '.join(str(error).split())[:100]}); copy it again from its source.") from None
        notes = ()
    if np.ndim(data) not in (2, 3) or np.size(data) == 0:
        raise GeometryError(f"{path.name} must hold sinograms [slice, angle, bin], but its shape was {np.shape(data)}.")
    geometry, more = _geometry(path.name, data.shape[-2:], fields.get("geometry"), bin_mm, arc, image_shape, pixel_mm)
    affine = fields.get("affine")
    if affine is not None and geometry.to_dict() != fields["geometry"]:
        old = ParallelGeometry(**fields["geometry"])
        affine = recentred_affine(affine, (old.pixel_mm,) * 2, geometry.pixel_mm, old.image_shape[::-1],
                                  geometry.image_shape[::-1])
    return SinogramStack(data, geometry, fields.get("unit", "unknown"), affine, float(fields.get("slice_mm", 1.0)),
                         tuple(fields.get("slices", ())), fields.get("image_unit", ""),
                         float(fields.get("scale", 1.0)), tuple(notes) + more)


def _fields(stack: SinogramStack) -> dict:
    return {"allpet": "sinogram", "geometry": stack.geometry.to_dict(), "unit": stack.unit, "axes": _AXES,
            "image_unit": stack.image_unit, "scale": stack.scale, "slices": list(stack.slices),
            "slice_mm": stack.slice_mm, "affine": np.asarray(stack.affine).tolist()}


def _interfile_comment(path: Path, found) -> dict:
    """Return what `write_sinogram` put into the comments of an Interfile header, if its keys still say the same."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    text = "".join(line[len(_COMMENT):] for line in lines if line.startswith(_COMMENT))
    try:
        fields = json.loads(text)
        geometry = ParallelGeometry(**fields["geometry"])
        same = (fields["allpet"] == "sinogram" and geometry.sinogram_shape == found.data.shape[1:]
                and len(fields["slices"]) == len(found.data) and abs(found.bin_mm / geometry.bin_mm - 1) < _AGREES)
    except (ValueError, TypeError, KeyError, AttributeError):  # no comment, or one that was changed
        return {}
    return {**fields, "affine": np.array(fields["affine"])} if same else {}


def _read_npz(path: Path, array: str):
    if path.suffix.lower() == ".npy":
        return np.load(path, allow_pickle=False), {}
    with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        stacks = [name for name in file.files if file[name].ndim in (2, 3) and name != "affine"]
        if array not in stacks:
            raise InputError(f"array must be one of those in {path.name} ({', '.join(stacks) or 'none'}), but was "
                             f"{array!r}.")
        fields = {name: file[name] for name in ("affine", "slices") if name in file}
        known = ("geometry", "units", "slice_mm", "scale")
        fields |= {name: json.loads(str(file[name])) for name in known if name in file}
        if array == "sinogram" and "image_unit" in file:
            fields["image_unit"] = str(file["image_unit"])
        fields["unit"] = fields.pop("units", {}).get(array, "unknown")
        return file[array], fields


def _read_nifti(path: Path, array: str):
    image = nib.load(path)
    data = np.asanyarray(image.dataobj)
    fields = {"slice_mm": float(image.header.get_zooms()[2]) if data.ndim > 2 else 1.0}
    for extension in image.header.extensions:
        content = extension.get_content()
        try:
            found = json.loads(content if isinstance(content, str) else bytes(content).rstrip(b"\0").decode())
        except ValueError:
            continue
        if isinstance(found, dict) and found.get("allpet") == "sinogram":
            fields |= {**found, "affine": np.array(found["affine"])}
    return data.T, fields


def _geometry(name, shape, fields, bin_mm, arc, image_shape, pixel_mm):
    if fields is None:
        if bin_mm is None:
            raise MetadataError(f"{name} does not say its geometry; give the width of a bin in mm, bin_mm, and where "
                                "they are not pi, the number of bins and the bin width, also the arc, image_shape and "
                                "pixel_mm.")
        notes = () if arc is not None else (f"{name} does not say its arc; pi was taken.",)
        return ParallelGeometry(*shape, bin_mm, image_shape or (shape[1], shape[1]), pixel_mm or bin_mm,
                                np.pi if arc is None else arc), notes
    stored, grid = ParallelGeometry(**fields), {"image_shape": image_shape, "pixel_mm": pixel_mm}
    geometry = stored.replace(**{k: v for k, v in grid.items() if v is not None})
    for argument, said, value in (("bin_mm", stored.bin_mm, bin_mm), ("arc", stored.arc, arc)):
        if value is not None and not abs(value / said - 1) <= _AGREES:
            raise GeometryError(f"{argument} must agree with {name}, which says {said:.6g}, but was {value:.6g}; leave "
                                "it out, or correct the file.")
    if geometry.sinogram_shape != tuple(shape):
        raise MetadataError(f"{name} holds sinograms of {tuple(shape)}, but its geometry says "
                            f"{geometry.sinogram_shape}; write it again.")
    return geometry, ()
