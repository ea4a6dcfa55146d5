"""``allpet project``: the sinograms of an image."""

from pathlib import Path

import click

from allpet_physics import _command_line as line
from allpet_physics.commands._options import (
    files_of_image,
    geometry_options,
    image_options,
    make_geometry,
    pick_geometry,
    pick_image,
    read_volume,
)

_path = line.FilePath()


@line.command("project", short_help="Sinograms of an image, as line integrals or Poisson counts.", example="""
allpet project pet.nii.gz --out sinogram.npz
allpet project pet_dicom_folder --out counts.npz --slices 40:60 --counts 2e7 --seed 1""")
@image_options
@click.option("--out", required=True, type=_path, metavar="FILE",
              help="Sinogram file: .npz, .nii.gz or .hs (Interfile).")
@click.option("--slices", metavar="LIST", help="all (default), or axial indices from 0, the most inferior: 40, 3,8:12.")
@geometry_options
@click.option("--model", type=click.Choice(["strip", "joseph"]), default="strip", show_default=True)
@click.option("--backend", type=click.Choice(["numba", "astra"]), default="numba", show_default=True)
@click.option("--counts", type=float, metavar="N", help="Poisson counts, N expected in all slices together.")
@click.option("--seed", type=click.IntRange(0), help="Of the random numbers of --counts [default: 0].")
@click.option("--pixel-mm", type=float, metavar="MM", help="Side of a pixel of an .npz or .npy image.")
@click.option("--slice-mm", type=float, metavar="MM",
              help="Distance of slices of an .npz or .npy image [default: pixel].")
@click.option("--dry-run", is_flag=True, help="Read, check and report; write nothing.")
@line.overwrite_option
@line.json_option
@line.quiet_option
@click.pass_context
def command(ctx, image, out, slices, model, backend, counts, seed, pixel_mm, slice_mm, dry_run, overwrite, as_json,
            quiet, **options):
    """Project the axial slices of IMAGE: a NIfTI file, a DICOM folder or file, or an .npz or .npy array.

    Arrays are [slice, row, col], the most inferior slice first, anterior up, patient left at the right; an .npz holds
    them as "image". Sinograms [slice, angle, bin] are in the image's unit x mm, or counts.
    """
    import contextlib

    from allpet_physics._arrays import as_positive_float
    from allpet_physics._files import refuse_existing, refuse_replacing, refuse_unwritable, staged
    from allpet_physics._memory import refuse_too_large
    from allpet_physics.axial_grid import axial_slices, slice_indices
    from allpet_physics.errors import InputError
    from allpet_physics.io.sinogram_files import sinogram_format

    image_choice, geometry_choice = pick_image(options), pick_geometry(options)
    if seed is not None and counts is None:
        raise click.UsageError("--seed belongs to --counts; leave it out.")
    if counts is not None:
        as_positive_float("--counts", counts)
    names = [out.name, *([out.name[:-3] + ".s"] if sinogram_format(out) == "interfile" else [])]
    if out.name.lower().endswith(".npy"):
        raise InputError("--out must end in .npz, .nii.gz, .nii or .hs: an .npy file has no room for the geometry.")
    refuse_replacing(out.parent, names, files_of_image(image))
    refuse_existing(out.parent, names, overwrite)
    refuse_unwritable(out.parent)
    progress = line.Progress(quiet)
    with (contextlib.nullcontext() if dry_run else staged(out.parent, names, overwrite=overwrite)) as folder, \
            line.collected_warnings() as noticed:
        progress.stage("reading the image")
        volume = _read(image, pixel_mm, slice_mm, image_choice)
        grid = axial_slices(volume)
        geometry = make_geometry(grid, **geometry_choice)
        chosen = slice_indices(slices, [1] * len(grid.data))
        refuse_too_large(f"sinograms of {len(chosen)} slices x {geometry.n_angles} angles x {geometry.n_bins} bins",
                         len(chosen) * geometry.n_angles * geometry.n_bins, 8 if counts is None else 28,
                         "choose fewer --slices, --n-angles or --n-bins")
        operator, images = _checked(grid, geometry, chosen, model, backend, counts)
        report = {"allpet": "project", "result": "dry run" if dry_run else "done", "file": str(out), "model": model,
                  "geometry": geometry.to_dict(), "slices": chosen, "unit": "counts" if counts else f"{volume.unit} mm",
                  "exit_code": 0}
        if not dry_run:
            stack = _project(volume, grid, operator, images, chosen, counts, seed or 0, progress)
            report |= {"sum": float(stack.data.sum(dtype="float64")), "scale": stack.scale}
            progress.stage("writing")
            from allpet_physics.io.sinogram_files import write_sinogram

            write_sinogram(folder / out.name, stack)
    report["warnings"] = list(dict.fromkeys([*volume.warnings, *grid.warnings, *noticed]))
    line.warn(report["warnings"])
    lines = [f"sinogram  {len(chosen)} slices x {geometry.n_angles} angles x {geometry.n_bins} bins of "
             f"{geometry.bin_mm:.4g} mm, {report['unit']}", f"{'would be ' * dry_run}written   {out}"]
    line.finish(report, lines, as_json, quiet and not dry_run)


def _checked(grid, geometry, chosen, model, backend, counts):
    """Return the projector and the images, after the checks that need no projection."""
    from allpet_physics._arrays import as_float_array
    from allpet_physics.errors import InputError
    from allpet_physics.radon import RadonOperator

    operator = RadonOperator(geometry, model=model, backend=backend)
    images = as_float_array("image", grid.data[chosen])
    if counts is not None and not (images > 0).any():
        raise InputError("IMAGE must hold activity for --counts, but nothing in it is positive; choose other --slices.")
    return operator, images


def _project(volume, grid, operator, images, chosen, counts, seed, progress):
    import numpy as np

    from allpet_physics._arrays import as_float_array
    from allpet_physics.counts import poisson_counts
    from allpet_physics.errors import InputError
    from allpet_physics.io.sinogram_files import SinogramStack

    parts = [slice(i, i + 8) for i in range(0, len(chosen), 8)]
    data = np.concatenate([operator(images[part]) for part in progress(parts, "projecting")])
    unit, scale = f"{volume.unit} mm", 1.0
    if counts is not None:
        total = data.sum(dtype=np.float64)
        if not total > 0:
            raise InputError("IMAGE must hold activity for --counts, but its projections sum to "
                             f"{total:g}; choose other --slices.")
        scale = counts / total
        drawn = poisson_counts(data.astype(np.float64) * scale, np.random.default_rng(seed))
        data, unit = as_float_array("counts", drawn), "counts"
    return SinogramStack(data, operator.geometry, unit, grid.affine, grid.slice_mm, tuple(chosen), volume.unit, scale)


def _read(image: Path, pixel_mm, slice_mm, image_choice):
    from allpet_physics.errors import InputError

    if image.suffix.lower() not in (".npz", ".npy"):
        if pixel_mm is not None or slice_mm is not None:
            raise InputError("--pixel-mm and --slice-mm are for .npz and .npy images; other formats state their own.")
        return read_volume(image, **image_choice)
    import numpy as np

    from allpet_physics._arrays import as_float_array, as_positive_float
    from allpet_physics.io import Volume

    if not image.is_file():
        raise InputError(f"IMAGE must be an existing file, but there is none at {image}.")
    array = _array(image)
    if pixel_mm is None or array.ndim not in (2, 3) or array.size == 0:
        raise InputError(f"an array image must be [slice, row, col] or [row, col] with --pixel-mm, but its shape was "
                         f"{array.shape} and --pixel-mm {pixel_mm}.")
    data = as_float_array("image", array).reshape(-1, *array.shape[-2:]).transpose(2, 1, 0)
    pixel = as_positive_float("--pixel-mm", pixel_mm)
    affine = np.diag([-pixel, -pixel, pixel if slice_mm is None else as_positive_float("--slice-mm", slice_mm), 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(data.shape) - 1) / 2)
    unit = image_choice["unit"]
    return Volume(data, affine, unit if unit in ("SUVbw", "Bq/ml") else "unknown")


def _array(file: Path):
    import zipfile

    import numpy as np

    from allpet_physics.errors import InputError

    try:
        if file.suffix.lower() == ".npy":
            return np.load(file, allow_pickle=False)
        with file.open("rb") as raw, np.load(raw, allow_pickle=False) as arrays:
            if "image" in arrays:
                return arrays["image"]
            held = ", ".join(arrays.files) or "nothing"
    except PermissionError:
        raise
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{file.name} cannot be read ({error}); write it with np.savez or np.save.") from None
    raise InputError(f'{file.name} must hold an array named "image", but holds {held}.')
