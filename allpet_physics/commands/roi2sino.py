"""``allpet roi2sino``: the sinogram and the attention map of a region of interest."""

import contextlib
import sys
from datetime import UTC, datetime
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
from allpet_physics.commands._region import files_of_region, pick_region, read_region, region_options

_SUFFIXES = {"npz": ".npz", "nifti": ".nii.gz", "interfile": ".hs"}
#: What the library's warnings of an empty region say, which this command says once, with what follows.
_EMPTY = ("holds no voxel of the image", "region of interest is empty")


@line.command("roi2sino", short_help="Sinogram and attention map of a region of interest.", example="""
allpet roi2sino ct.nii.gz --mask labels.nii.gz --label liver --out liver/
allpet roi2sino pet_dicom_folder --threshold relative:0.41 --min-volume-ml 1 --out lesion/hot.nii.gz""")
@image_options
@click.option("--out", required=True, type=line.FilePath(), metavar="DIR|FILE",
              help="Folder for the results, or the name of the sinogram file (.npz, .nii.gz, .hs), which then starts "
                   "the other names.")
@region_options
@click.option("--slices", metavar="LIST", help="all (default), roi (those that hold the region), or axial indices from "
                                               "0, the most inferior: 40, 3,8:12 (end excluded).")
@geometry_options
@click.option("--model", type=click.Choice(["strip", "joseph"]), default="strip", show_default=True,
              help="strip: exact areas averaged over a bin; joseph: line integrals.")
@click.option("--normalisation", type=click.Choice(["linear", "clip", "exact"]), default="linear", show_default=True,
              help="Attention: path length over its maximum, clipped at --scale-mm, or in mm.")
@click.option("--per", type=click.Choice(["slice", "stack"]), default="slice", show_default=True,
              help="What the attention's scale is taken over.")
@click.option("--scale-mm", type=float, metavar="MM", help="clip: path length of full attention [default: mean path].")
@click.option("--with-activity", is_flag=True, help="Also project image x region and the whole image.")
@click.option("--format", "file_format", type=click.Choice(list(_SUFFIXES)),
              help="Of the sinograms [default: npz, or by the suffix of --out]. Interfile stores the most superior "
                   "slice first, as STIR has it; the others the most inferior.")
@click.option("--preview/--no-preview", default=True, help="PNG of the slice with most of the region.")
@click.option("--dry-run", is_flag=True, help="Read, check and report; write nothing.")
@line.overwrite_option
@line.json_option
@line.quiet_option
@line.version_option
@click.pass_context
def command(ctx, image, out, slices, model, normalisation, per, scale_mm, with_activity, file_format, preview, dry_run,
            overwrite, as_json, quiet, **options):
    """Project a region of interest of IMAGE into sinogram space, slice by slice.

    IMAGE is a NIfTI file, a DICOM folder or one file of a DICOM series. The region comes from --mask or --threshold.

    \b
    Written to --out:
      sinogram     path length through the region in mm [slice, angle, bin]
      attention    the same, normalised to 0..1 (in the npz, or a file beside)
      activity, image_sinogram   with --with-activity, in the image's unit x mm
      roi.nii.gz   the region on the image's own grid
      preview.png  outline, sinogram, attention over the image's sinogram
      record.json  inputs' digests, versions, geometry, thresholds, counts, warnings

    The record holds no patient name or id; of every path it keeps the last part alone. A region without a voxel is an
    empty result: the record says so, no sinogram is written, and the exit code is 5.
    """
    region_choice, image_choice, geometry_choice = pick_region(options), pick_image(options), pick_geometry(options)
    folder, names = _plan(out, file_format, with_activity, preview)
    everything = [*names["files"], names["record"]]
    progress = line.Progress(quiet)
    from allpet_physics._files import refuse_existing, refuse_replacing, refuse_unwritable, staged
    from allpet_physics.roi2sino import check_normalisation

    check_normalisation(normalisation, scale_mm, per, model)
    refuse_replacing(folder, everything, files_of_image(image) | files_of_region(region_choice))
    refuse_existing(folder, everything, overwrite)
    refuse_unwritable(folder)
    workplace = contextlib.nullcontext() if dry_run else staged(folder, everything, overwrite=overwrite)
    with workplace as staging, line.collected_warnings() as noticed:
        progress.stage("reading the image")
        volume = read_volume(image, **image_choice)
        progress.stage("reading the region" if region_choice["mask"] else "thresholding")
        region = read_region(volume, region_choice)
        from allpet_physics._arrays import as_float_array
        from allpet_physics._memory import refuse_too_large
        from allpet_physics.axial_grid import axial_slices, slice_indices
        from allpet_physics.commands import _roi2sino_results as results

        grid = axial_slices(volume)
        geometry = make_geometry(grid, **geometry_choice)
        per_slice = volume.replace(data=region.mask).axial_slices().sum(axis=(1, 2))
        chosen = slice_indices(slices, per_slice)
        refuse_too_large(f"sinograms of {len(chosen)} slices x {geometry.n_angles} angles x {geometry.n_bins} bins",
                         len(chosen) * geometry.n_angles * geometry.n_bins, 16 if with_activity else 8,
                         "choose fewer --slices, --n-angles or --n-bins")
        if with_activity:
            as_float_array("image", grid.data)
        empty = not per_slice[chosen].any()
        record = {
            "allpet": "roi2sino", "result": "empty" if empty else "dry run" if dry_run else "done",
            "command": line.command_line(ctx), "created": datetime.now(UTC).isoformat(timespec="seconds"),
            **results.describe(volume, region, grid, geometry, chosen, per_slice, image, model=model,
                               normalisation=normalisation, per=per, scale_mm=scale_mm)}
        if empty:
            noticed[:] = [text for text in noticed if not any(said in text for said in _EMPTY)]
            noticed.append(_why_empty(region, per_slice, chosen))
        elif not dry_run:
            record["outputs"] = results.compute_and_write(
                staging, names, volume, region, grid, geometry, chosen, model=model, normalisation=normalisation,
                per=per, scale_mm=scale_mm, with_activity=with_activity, progress=progress, notes=noticed)
        record["warnings"] = results.without_paths(
            [*volume.warnings, *grid.warnings, *region.warnings, *noticed], image, *region.inputs.values())
        if not dry_run:
            results.write_record(staging / names["record"], record)
    line.warn(record["warnings"])
    files = [names["record"]] if empty else everything
    record |= {"folder": str(folder), "files": files, "exit_code": line.EMPTY if empty else 0}
    line.finish(record, _summary(record, region.title, folder, files, dry_run, empty), as_json,
                quiet and not dry_run)
    sys.stdout.flush()
    ctx.exit(record["exit_code"])


def _plan(out: Path, file_format: str | None, with_activity: bool, preview: bool) -> tuple[Path, dict]:
    """Return the folder and the name of every file: a role each, and all of them in the order of writing."""
    by_suffix = [(kind, suffix) for kind, suffix in (*_SUFFIXES.items(), ("nifti", ".nii"))
                 if out.name.lower().endswith(suffix) and not out.is_dir()]
    if by_suffix:
        kind, suffix = by_suffix[0]
        if file_format not in (None, kind):
            raise click.UsageError(f"--format {file_format} and the suffix of --out {out.name} contradict each other.")
        folder, stem = out.parent, out.name[:-len(suffix)]
        names, prefix = {"sinogram": out.name, "record": f"{stem}.json"}, f"{stem}_"
    else:
        kind, folder, prefix, suffix = file_format or "npz", out, "", _SUFFIXES[file_format or "npz"]
        names = {"sinogram": f"sinogram{suffix}", "record": "record.json"}
    stacks = ["attention", *(["activity", "image_sinogram"] if with_activity else [])]
    if kind != "npz":
        names |= {name: f"{prefix}{name}{suffix}" for name in stacks}
    names |= {"roi": f"{prefix}roi.nii.gz"} | ({"preview": f"{prefix}preview.png"} if preview else {})
    names["files"] = [n for role, name in names.items() if role != "record"
                      for n in ([name, name[:-3] + ".s"] if name.lower().endswith(".hs") else [name])]
    return folder, names


def _why_empty(region, per_slice, chosen) -> str:
    if not per_slice.any():
        why = ": it is empty, lies outside, or is thinner than a voxel" if region.record["from"] == "mask" else ""
        return f"The region ({region.title}) holds no voxel of the image{why}; no sinogram was made."
    filled = per_slice.nonzero()[0]
    return (f"The region ({region.title}) lies in slices {filled[0]} to {filled[-1]}, but slices {chosen[0]} to "
            f"{chosen[-1]} were chosen; no sinogram was made.")


def _summary(record, title, folder, files, dry_run, empty) -> list[str]:
    region, projection = record["region"], record["projection"]
    g = projection["geometry"]
    lines = [f"region    {title}: {region['n_voxels']} voxels, {region['volume_ml']:.4g} mL, "
             f"in {region['n_slices']} of {projection['n_slices_of_volume']} slices",
             f"sinogram  {len(projection['slices'])} slices x {g['n_angles']} angles x {g['n_bins']} bins of "
             f"{g['bin_mm']:.4g} mm"]
    verb = "would be written" if dry_run else "written"
    return [*lines, f"{verb}   {folder}: {', '.join(files)}" + (" (the region is empty)" if empty else "")]
