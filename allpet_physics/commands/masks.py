"""``allpet masks``: a store of masks, as parameters or as sinograms."""

from pathlib import Path

import click

from allpet_physics import _command_line as line
from allpet_physics.commands._options import arc_radians

#: Samples in the plot of --statistics: the whole catalogue of the paper, and no more memory for longer datasets.
_PLOTTED = 250_000
_DRAWN_AT_ONCE = 100_000
_DMM_OPTIONS = ("samples", "blocks", "block_px", "placement", "seed")


class _Range(click.ParamType):
    """A whole number, or the smallest and the largest joined by a colon."""

    name = "N or MIN:MAX"

    def convert(self, value, param, ctx):
        if isinstance(value, tuple):
            return value
        parts = str(value).split(":")
        try:
            numbers = tuple(int(part) for part in parts)
        except ValueError:
            numbers = ()
        if len(numbers) not in (1, 2):
            self.fail(f"must be a whole number or MIN:MAX, such as 1:6, but was {value!r}.", param, ctx)
        return (numbers[0], numbers[-1])


@line.command("masks", short_help="A store of block masks, as parameters or as sinograms.", example="""
allpet masks --dmm --samples 100000 --blocks 1:6 --block-px 16:64 --seed 0 --out masks.zarr
allpet masks --catalogue --block 64 --size 512 --sinograms --workers 2 --out rmas.zarr
allpet masks --catalogue --block 64 --size 512 --sinograms --workers 2 --out rmas.zarr --resume""")
@click.option("--out", required=True, type=line.FilePath(), metavar="STORE", help="Folder of the store.")
@click.option("--catalogue", is_flag=True, help="Every placement of one block (RMAS).")
@click.option("--block", type=int, metavar="PX", help="Side of the catalogue's block [default: 64].")
@click.option("--stride", type=int, metavar="PX", help="Shift between neighbours of the catalogue [default: 1].")
@click.option("--dmm", is_flag=True, help="Random sets of blocks that do not overlap (dynamic multi-masks).")
@click.option("--samples", type=click.IntRange(1), metavar="N", help="Number of random sets.")
@click.option("--blocks", type=_Range(), help="Blocks of a set [default: 1:6].")
@click.option("--block-px", type=_Range(), help="Side of a block in px [default: 16:64].")
@click.option("--placement", type=click.Choice(["free", "grid"]), help="Of the random blocks [default: free].")
@click.option("--seed", type=click.IntRange(0), help="Of the random blocks [default: 0].")
@click.option("--size", type=click.IntRange(1), metavar="N",
              help="Image of N x N px over 665.6 mm; sinograms of N angles x N bins [default: 512].")
@click.option("--preset", metavar="NAME", help="Image and sinogram of a named geometry, instead of --size.")
@click.option("--arc", type=click.Choice(["pi", "2pi"]), help="Arc of the angles of the sinograms [default: pi].")
@click.option("--sinograms", is_flag=True, help="Write the projected masks too (float32), not only their parameters.")
@click.option("--kernel", type=click.Choice(["strip", "line", "linear", "gaussian"]),
              help="Of the sinograms [default: strip].")
@click.option("--normalisation", type=click.Choice(["linear", "clip", "none"]),
              help="Of the sinograms [default: linear].")
@click.option("--statistics", type=line.FilePath(), metavar="PNG",
              help="Plot the number, size, place and coverage of the blocks (of 250,000 samples at most).")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="Local processes.")
@click.option("--scheduler", metavar="ADDRESS", help="Use the workers of a dask cluster, which share the file system.")
@click.option("--resume", is_flag=True, help="Go on with a store that was begun; repair what is damaged.")
@click.option("--dry-run", is_flag=True, help="Say how many samples and bytes it would be; write nothing.")
@line.overwrite_option
@line.json_option
@line.quiet_option
@click.pass_context
def command(ctx, out, statistics, workers, scheduler, resume, dry_run, overwrite, as_json, quiet, **options):
    """Write masks to a sharded zarr store: blocks as row, col, height and width in px, and sinograms on request.

    A run that is stopped, or killed, goes on with --resume. The store is the same, byte for byte, for any number of
    workers. manifest.sha256 lists its checksums.
    """
    from allpet_physics._files import refuse_existing, refuse_unwritable
    from allpet_physics.io import store
    from allpet_physics.mask_dataset import KIND, expected_bytes, make_masks, mask_arrays, mask_parameters
    from allpet_physics.parallel import check_scheduler

    if resume and overwrite:
        raise click.UsageError("--resume keeps what is there and --overwrite deletes it; give one of them.")
    if scheduler is not None and ctx.get_parameter_source("workers") is click.core.ParameterSource.COMMANDLINE:
        raise click.UsageError("--workers is for local processes; a --scheduler has its own.")
    if statistics is not None:
        if statistics.suffix.lower() != ".png":
            raise click.UsageError(f"--statistics must be a name ending in .png, but was {statistics.name!r}.")
        refuse_existing(statistics.parent, [statistics.name], overwrite or resume)
        refuse_unwritable(statistics.parent)
    sampler, n_samples, parameters = _describe(options, mask_parameters)
    progress = line.Progress(quiet)
    report = {"allpet": "masks", "store": str(out), "samples": n_samples, "parameters": parameters,
              "exit_code": 0}
    what = f"{n_samples:,} samples of {sampler.image_shape[0]} x {sampler.image_shape[1]} px"
    if dry_run:
        report |= {"result": "dry run", "bytes": expected_bytes(parameters, n_samples)}
        line.finish(report, [f"would write  {what}, about {_size(report['bytes'])}, to {out}"], as_json)
        return
    if scheduler is not None:
        check_scheduler(scheduler)
    _draw_all(sampler, n_samples)
    card = store.create(out, mask_arrays(parameters), n_samples, parameters, kind=KIND, resume=resume,
                        overwrite=overwrite)
    try:
        report |= store.fill(out, make_masks, workers=workers, scheduler=scheduler, progress=progress)
    except KeyboardInterrupt:
        done = store.describe(out)
        raise KeyboardInterrupt(f"interrupted; {done['shards_done']} of {done['shards']} shards are done and kept; "
                                "go on with --resume.") from None
    report |= {"result": "done", "bytes": store.describe(out)["bytes"], "arrays": card["arrays"]}
    if statistics is not None:
        progress.stage("plotting")
        report["statistics"] = _plot(sampler, n_samples, statistics)
    lines = [f"masks    {what}, {_size(report['bytes'])} in {report['shards']} shards"
             + (f" ({report['kept']} were there already)" if report["kept"] else ""), f"written  {out}"]
    if statistics is not None:
        lines.append(f"plotted  {statistics}")
    line.finish(report, lines, as_json, quiet)


def _plot(sampler, n_samples: int, file: Path) -> dict:
    """Plot the statistics of what was written; return them for the report."""
    import numpy as np

    from allpet_physics._files import staged
    from allpet_physics.mask_statistics import mask_statistics, plot_mask_statistics
    from allpet_physics.masks import BlockCatalogue

    chosen = np.unique(np.linspace(0, n_samples - 1, min(n_samples, _PLOTTED), dtype=np.int64))
    found = mask_statistics(sampler[chosen] if isinstance(sampler, BlockCatalogue) else sampler.draw(chosen))
    with staged(file.parent, [file.name], overwrite=True) as folder:
        plot_mask_statistics(found).savefig(folder / file.name)
    return found.to_dict()


def _describe(options: dict, mask_parameters):
    """Return the sampler, the number of samples and the settings that the options describe."""
    from allpet_physics.errors import InputError
    from allpet_physics.masks import DynamicMultiMask, block_catalogue

    if options["catalogue"] == options["dmm"]:
        raise click.UsageError("give either --catalogue or --dmm.")
    foreign = _DMM_OPTIONS if options["catalogue"] else ("block", "stride")
    _refuse(options, foreign, "--dmm" if options["catalogue"] else "--catalogue")
    if not options["sinograms"]:
        _refuse(options, ("kernel", "normalisation", "arc"), "--sinograms")
    geometry = _geometry(options)

    def chosen(**names):
        return {name: options[option] for name, option in names.items() if options[option] is not None}

    if options["catalogue"]:
        try:
            sampler = block_catalogue(geometry.image_shape, **{"block_px": 64,
                                                               **chosen(block_px="block", stride="stride")})
        except InputError as error:  # --block-px is an option too, but of --dmm
            raise type(error)(str(error).replace("block_px", "--block")) from None
        n_samples = len(sampler)
    elif options["samples"] is None:
        raise click.UsageError("--dmm needs --samples, the number of random sets.")
    else:
        sampler = DynamicMultiMask(geometry.image_shape, **chosen(n_blocks="blocks", block_px="block_px", seed="seed",
                                                                  placement="placement"))
        n_samples = options["samples"]
    return sampler, n_samples, mask_parameters(sampler, geometry=geometry if options["sinograms"] else None,
                                               **chosen(kernel="kernel", normalisation="normalisation"))


def _geometry(options: dict):
    from allpet_physics.geometry import ParallelGeometry

    if options["preset"] is not None and options["size"] is not None:
        raise click.UsageError("--preset has its own size; leave --size out.")
    if options["preset"] is not None:
        geometry = ParallelGeometry.preset(options["preset"])
    else:
        size = options["size"] or 512
        pixel_mm = ParallelGeometry.preset("network-512").fov_mm / size
        geometry = ParallelGeometry(size, size, pixel_mm, (size, size), pixel_mm)
    return geometry.replace(arc=arc_radians(options["arc"])) if options["arc"] else geometry


def _refuse(options: dict, names, owner: str) -> None:
    given = [f"--{name.replace('_', '-')}" for name in names if options[name] is not None]
    if given:
        raise click.UsageError(f"{', '.join(given)} can only be used with {owner}; leave it out.")


def _draw_all(sampler, n_samples: int) -> None:
    """Draw every sample once, before a folder is made, where some may not pack; a draw costs half a microsecond."""
    for start in range(0, 0 if getattr(sampler, "always_packs", True) else n_samples, _DRAWN_AT_ONCE):
        sampler.draw(range(start, min(start + _DRAWN_AT_ONCE, n_samples)))


def _size(n_bytes: int) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if n_bytes < 1000:
            break
        n_bytes, unit = n_bytes / 1000, {"bytes": "kB", "kB": "MB", "MB": "GB", "GB": "TB"}[unit]
    return f"{n_bytes:.3g} {unit}"
