"""Options that several commands share, and what they turn into: an image, a geometry."""

import functools
import math
from pathlib import Path

import click

from allpet_physics._command_line import FilePath

_path = FilePath()
_ARCS = {"pi": math.pi, "2pi": 2 * math.pi}
_PET_OVERRIDES = ("weight_kg", "dose_bq", "injection_time", "scan_time", "half_life_s", "height_m", "sex")


def together(*options):
    """Return one decorator that adds several options in the order given."""
    return lambda function: functools.reduce(lambda f, option: option(f), reversed(options), function)


image_options = together(
    click.argument("image", type=_path),
    click.option("--unit", type=click.Choice(["SUVbw", "Bq/ml", "native"]), default=None,
                 help="Unit of the image. DICOM PET: SUVbw (default) or Bq/ml, converted from the header. NIfTI: "
                      "declares what the values are. native: the values as stored (CT: HU)."),
    click.option("--series-uid", metavar="UID", help="SeriesInstanceUID, or its end, where a folder holds several."),
    click.option("--frame", type=int, metavar="N", help="Frame of a dynamic image, from 0."),
    click.option("--weight-kg", type=float, metavar="KG", help="Replaces PatientWeight."),
    click.option("--dose-bq", type=float, metavar="BQ", help="Replaces RadionuclideTotalDose."),
    click.option("--injection-time", metavar="ISO", help="Replaces the injection time, e.g. 2025-01-31T10:00:00."),
    click.option("--scan-time", metavar="ISO", help="Replaces the time the values are decay corrected to."),
    click.option("--half-life-s", type=float, metavar="S", help="Replaces RadionuclideHalfLife."),
    click.option("--height-m", type=float, metavar="M", help="Replaces PatientSize."),
    click.option("--sex", type=click.Choice(["M", "F", "O"]), help="Replaces PatientSex."),
    click.option("--nonfinite", type=click.Choice(["raise", "zero"]), default="raise", show_default=True,
                 help="NaN and Inf voxels of a NIfTI image: refuse, or set to zero with a warning."),
)

geometry_options = together(
    click.option("--preset", metavar="NAME", help="Angles, bins and arc of a named scanner; the image keeps its grid."),
    click.option("--n-angles", type=int, metavar="N", help="Number of angles."),
    click.option("--n-bins", type=int, metavar="N", help="Number of radial bins."),
    click.option("--bin-mm", type=float, metavar="MM", help="Width of a bin."),
    click.option("--arc", type=click.Choice(list(_ARCS)), help="Arc of the angles [default: pi]."),
)


def files_of_image(image: Path) -> dict[str, Path]:
    """Return what `read_volume` reads besides folders, by what it is called in a message."""
    from allpet_physics.io.nifti import is_nifti

    beside = Path(str(image).removesuffix(".gz").removesuffix(".nii") + ".json")
    return {"IMAGE": image} | ({"the JSON sidecar of IMAGE": beside} if is_nifti(image) else {})


def read_volume(image: Path, *, unit, series_uid, frame, nonfinite, **overrides):
    """Return the image that the options describe, as a `Volume`."""
    from allpet_physics.errors import InputError, MetadataError
    from allpet_physics.io import read_image, read_nifti, read_pet
    from allpet_physics.io.bids import read_sidecar
    from allpet_physics.io.nifti import is_nifti

    given = {name: value for name, value in overrides.items() if value is not None}
    if not image.exists():
        raise InputError(f"IMAGE must be a NIfTI file, a DICOM folder or a DICOM file, but {image} does not exist.")
    if is_nifti(image):
        if image.is_dir():
            raise InputError(f"IMAGE must be a NIfTI file by its name, but {image} is a folder; give the file in it, "
                             "or rename a folder of DICOM files.")
        _refuse_sinogram(image)
        _refuse(InputError, {"--series-uid": series_uid}, "a DICOM folder", image)
        converted = unit in (None, "SUVbw", "Bq/ml") and read_sidecar(image)
        if not converted:
            _refuse(InputError, given, "DICOM PET or a NIfTI file with a JSON sidecar", image)
            volume = read_nifti(image, frame=frame, nonfinite=nonfinite)
            if unit in (None, "native", volume.unit):
                return volume
            if volume.unit != "unknown":
                raise MetadataError(f"{image.name} records its unit as {volume.unit}, and nothing in it converts that "
                                    f"to {unit}; leave --unit out, or convert the DICOM series.")
            return volume.replace(unit=unit)
        return read_pet(image, unit or "SUVbw", frame=frame, nonfinite=nonfinite, **given)
    if unit == "native" or (unit is None and not given and not _is_pet(image, series_uid)):
        _refuse(InputError, given, "PET in SUV", image)
        return read_image(image, series_uid=series_uid, frame=frame)
    return read_pet(image, unit or "SUVbw", series_uid=series_uid, frame=frame, **given)


def _refuse_sinogram(image: Path) -> None:
    """Raise InputError when a NIfTI file is a sinogram stack of this library's."""
    import nibabel as nib

    from allpet_physics.errors import InputError
    from allpet_physics.io.sinogram_files import NIFTI_MARK

    try:
        found = bytes(nib.load(image).header["descrip"].tobytes())
    except PermissionError:
        raise
    except Exception:  # whatever is wrong with the file, the reader says it
        return
    if found.startswith(NIFTI_MARK):
        raise InputError(f"IMAGE must be an image, but {image.name} holds sinograms; make an image of it with "
                         "allpet reconstruct.")


def _refuse(kind, options: dict, belongs_to: str, image: Path) -> None:
    names = [f"--{name.lstrip('-').replace('_', '-')}" for name, value in options.items() if value is not None]
    if names:
        raise kind(f"{', '.join(names)} can only be used with {belongs_to}, but IMAGE was {image.name}; leave it out.")


def make_geometry(grid, *, preset, n_angles, n_bins, bin_mm, arc):
    """Return the geometry that the options describe for axial slices."""
    from allpet_physics.axial_grid import geometry_for

    return geometry_for(grid, preset=preset, n_angles=n_angles, n_bins=n_bins, bin_mm=bin_mm, arc=arc_radians(arc))


def arc_radians(arc: str | None) -> float | None:
    """Return π or 2π for "pi" or "2pi"."""
    return None if arc is None else _ARCS[arc]


def pick(options: dict, *names: str) -> dict:
    """Take some options out of a dict of all of them."""
    return {name: options.pop(name) for name in names}


def pick_image(options: dict) -> dict:
    """Take the options of `image_options` (but the argument) out of a dict of all of them."""
    return pick(options, "unit", "series_uid", "frame", "nonfinite", *_PET_OVERRIDES)


def pick_geometry(options: dict) -> dict:
    """Take the options of `geometry_options` out of a dict of all of them."""
    return pick(options, "preset", "n_angles", "n_bins", "bin_mm", "arc")


def _is_pet(image: Path, series_uid: str | None) -> bool:
    """Tell whether a DICOM file, or any file of a folder (of the series asked for), is a PET image."""
    import pydicom

    from allpet_physics.io.dicom_series import NOT_DICOM

    for file in sorted(image.rglob("*")) if image.is_dir() else [image]:
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["Modality", "SeriesInstanceUID"])
        except NOT_DICOM:
            continue
        if header.get("Modality") == "PT" and str(header.get("SeriesInstanceUID")).endswith(series_uid or ""):
            return True
    return False
