"""``allpet info``: what a store holds, and whether it is whole."""

from pathlib import Path

import click

from allpet_physics import _command_line as line
from allpet_physics.commands.simulate import size_text


@line.command("info", short_help="What a store holds; its checksums; a contact sheet.", example="""
allpet info cohort.zarr
allpet info cohort.zarr --verify
allpet info cohort.zarr --contact-sheet cohort.png""")
@click.argument("store_path", metavar="STORE", type=line.FilePath())
@click.option("--verify", is_flag=True, help="Read every file and compare it with its digest; exit code 1 when one "
              "is missing or damaged.")
@click.option("--contact-sheet", type=line.FilePath(), metavar="PNG",
              help="Draw slices of a cohort: images, sinograms, noise levels, tasks.")
@line.overwrite_option
@line.json_option
@line.quiet_option
@click.pass_context
def command(ctx, store_path, verify, contact_sheet, overwrite, as_json, quiet):
    """Describe a store that allpet wrote: kind, samples, classes, split, arrays, size, how far it is."""
    from allpet_physics.io import store

    progress = line.Progress(quiet)
    found = store.describe(store_path)
    report = {"allpet": "info", **found, "path": str(store_path)}
    lines = _lines(report, store_path)
    if found["kind"] == "cohort":
        lines += _cohort_lines(report, store_path)
    if contact_sheet is not None:
        report["contact_sheet"] = str(_draw(found, store_path, contact_sheet, overwrite, progress))
        lines.append(f"drawn      {contact_sheet}")
    if verify:
        report["problems"] = store.verify(store_path, progress=progress)
        bad = [p for p in report["problems"] if p["problem"] != "not done"]
        lines.append("checksums  " + ("all files are as they were written" if not report["problems"] else
                     f"{len(bad)} files missing or damaged, {len(report['problems']) - len(bad)} not done"))
        lines += [f"           {p['file']}: {p['problem']}" for p in bad[:10]]
    report["exit_code"] = line.FAILED if verify and bad else 0
    # What was asked for is the description: --quiet silences progress alone.
    line.finish(report, lines, as_json)
    ctx.exit(report["exit_code"])


def _lines(report: dict, path: Path) -> list[str]:
    state = "complete" if report["complete"] else f"{report['shards_done']} of {report['shards']} shards done"
    lines = [f"store      {path}: {report['kind']}, {report['n_samples']:,} samples, {state}",
             f"size       {size_text(report['bytes'])} on disk, {size_text(report['bytes_uncompressed'])} unfolded"]
    for i, (name, array) in enumerate(report["arrays"].items()):
        shape = " x ".join(map(str, array["shape"]))
        lines.append(f"{'arrays' if i == 0 else '':10s} {name}: {array['dtype']}{f' {shape}' if shape else ''}")
    return lines


def _cohort_lines(report: dict, path: Path) -> list[str]:
    """Add classes and split of a cohort to the report, of the samples that are there; return the lines."""
    import numpy as np

    from allpet_physics.simulation.cohort_reader import read_cohort
    from allpet_physics.simulation.split import SPLITS

    parameters = report["parameters"]
    apart = ", ".join(f"{mm:g} mm ({region})" for region, mm in parameters["slice_mm"].items())
    lines = [f"patients   {parameters['n_patients']:,}, {parameters['n_slices']} slices each, apart by {apart}; "
             f"seed {parameters['seed']}"]
    if report["shards_done"] == 0:
        return lines
    cohort = read_cohort(path, incomplete=not report["complete"])
    report["classes"] = cohort.classes
    report["split"] = {name: {"patients": len(np.unique(cohort.patients[cohort.splits == name])),
                              "slices": int((cohort.splits == name).sum())} for name in SPLITS}
    lines += [f"{'classes' if i == 0 else '':10s} {n:,} sinograms of {prompt}"
              for i, (prompt, n) in enumerate(report["classes"].items())]
    return [*lines, "split      " + ", ".join(f"{name}: {n['patients']:,} patients, {n['slices']:,} slices"
                                              for name, n in report["split"].items())]


def _draw(found: dict, store_path: Path, png: Path, overwrite: bool, progress) -> Path:
    from allpet_physics._files import staged
    from allpet_physics.errors import InputError
    from allpet_physics.simulation.cohort_reader import read_cohort
    from allpet_physics.simulation.contact_sheet import cohort_sheet

    if found["kind"] != "cohort":
        raise InputError(f"--contact-sheet needs a cohort, but the store holds {found['kind']}.")
    if png.suffix.lower() != ".png":
        raise click.UsageError(f"--contact-sheet must be a name ending in .png, but was {png.name!r}.")
    cohort = read_cohort(store_path, incomplete=not found["complete"])
    with staged(png.parent, [png.name], overwrite=overwrite) as folder:
        progress.stage("drawing")
        cohort_sheet(cohort, folder / png.name)
    return png
