"""``allpet simulate``: a cohort of random patients with the data of every task."""

import json
from pathlib import Path

import click

from allpet_physics import _command_line as line


class _Split(click.ParamType):
    """Three fractions joined by colons, or a JSON file with lists of patients."""

    name = "A:B:C or FILE"

    def convert(self, value, param, ctx):
        if isinstance(value, dict):
            return value
        from allpet_physics.simulation.split import SPLITS

        if str(value).lower().endswith(".json"):
            try:
                found = json.loads(Path(value).read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                self.fail(f"{Path(value).name} could not be read as JSON ({type(error).__name__}).", param, ctx)
            return found
        try:
            numbers = [float(part) for part in str(value).split(":")]
        except ValueError:
            numbers = []
        if len(numbers) != len(SPLITS):
            self.fail(f"must be the fractions {':'.join(SPLITS)}, such as 0.7:0.1:0.2, or a JSON file with lists of "
                      f"patients, but was {value!r}.", param, ctx)
        return dict(zip(SPLITS, numbers, strict=True))


@line.command("simulate", short_help="A cohort of simulated patients, with the data of every task.", example="""
allpet simulate --patients 20 --seed 0 --size 256 --out cohort.zarr
allpet simulate --patients 500 --size 128 --slices 3 --workers 2 --out cohort.zarr --resume
allpet simulate --patients 30 --regions head --tracers FDG --tracers DOPA --out brains.zarr""")
@click.option("--out", required=True, type=line.FilePath(), metavar="STORE", help="Folder of the store.")
@click.option("--patients", required=True, type=click.IntRange(1), metavar="N",
              help="Number of patients; they take turns through the regions.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="Of everything drawn.")
@click.option("--size", type=click.IntRange(16), default=256, show_default=True, metavar="N",
              help="N x N px over 665.6 mm; sinograms of N angles x N bins.")
@click.option("--regions", multiple=True, metavar="NAME", help="head, chest or abdomen; repeat or join by commas "
              "[default: all].")
@click.option("--tracers", multiple=True, metavar="NAME", help="FDG, DOPA or PSMA; repeat or join by commas "
              "[default: all].")
@click.option("--slices", type=click.IntRange(1, 255), default=3, show_default=True, metavar="N",
              help="Slices of each patient.")
@click.option("--slice-mm", type=float, metavar="MM",
              help="Distance of a patient's slices [default: 12 in the head, 24 in the trunk].")
@click.option("--lesions", type=click.IntRange(0), metavar="N", help="Lesions of each patient [default: drawn].")
@click.option("--split", type=_Split(), default="0.7:0.1:0.2", show_default=True,
              help="Patients for training:validation:testing, or a JSON file with lists of patients.")
@click.option("--counts", type=float, metavar="N", help="Expected prompts of a slice [default: 2e6].")
@click.option("--scatter-fraction", type=float, metavar="F", help="S/(T+S) [default: 0.2 in the head, else 0.4].")
@click.option("--randoms-fraction", type=float, metavar="F", help="R/(T+S+R) [default: 0.15 in the head, else 0.4].")
@click.option("--psf-mm", type=float, metavar="MM", help="Resolution, FWHM [default: 6 in the head, else 4].")
@click.option("--delayed-min", type=(float, float), metavar="START END",
              help="Delayed frame, minutes after injection [default: 120 130].")
@click.option("--uptake", type=line.FilePath(), metavar="CSV", help="A table of uptakes of one's own.")
@click.option("--kinetics", type=line.FilePath(), metavar="CSV", help="A table of kinetics of one's own.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="Local processes.")
@click.option("--scheduler", metavar="ADDRESS", help="Use the workers of a dask cluster, which share the file system.")
@click.option("--resume", is_flag=True, help="Go on with a store that was begun; repair what is damaged.")
@click.option("--dry-run", is_flag=True, help="Say how many samples and bytes it would be; write nothing.")
@line.overwrite_option
@line.json_option
@line.quiet_option
@click.pass_context
def command(ctx, out, workers, scheduler, resume, dry_run, overwrite, as_json, quiet, **options):
    """Draw patients and scan each with every tracer in a first and a delayed frame; write all to a zarr store.

    A sample is one slice: counts, line integrals, activity, attenuation, organs, lesions. Low doses and the pairs of
    the tasks follow from these when read. Patients are split, never slices. A run that is stopped, or killed, goes on
    with --resume; the store is the same, byte for byte, for any number of workers.
    """
    from allpet_physics._files import refuse_unwritable
    from allpet_physics.io import store
    from allpet_physics.simulation import cohort

    if resume and overwrite:
        raise click.UsageError("--resume keeps what is there and --overwrite deletes it; give one of them.")
    if scheduler is not None and ctx.get_parameter_source("workers") is click.core.ParameterSource.COMMANDLINE:
        raise click.UsageError("--workers is for local processes; a --scheduler has its own.")
    refuse_unwritable(out.parent)
    progress = line.Progress(quiet)
    parameters = _parameters(options)
    n_samples = cohort.n_samples(parameters)
    report = {"allpet": "simulate", "store": str(out), "patients": options["patients"], "samples": n_samples,
              "parameters": parameters, "exit_code": 0}
    what = (f"{options['patients']:,} patients, {n_samples:,} slices x {len(parameters['tracers'])} "
            f"tracer{'s' * (len(parameters['tracers']) > 1)} x 2 frames")
    if dry_run:
        report |= {"result": "dry run", "bytes": cohort.expected_bytes(parameters)}
        line.finish(report, [f"would write  {what}, about {size_text(report['bytes'])}, to {out}"], as_json, quiet)
        return
    try:
        report |= cohort.write_cohort(out, parameters, workers=workers, scheduler=scheduler, resume=resume,
                                      overwrite=overwrite, progress=progress)
    except KeyboardInterrupt:
        done = store.describe(out)
        raise KeyboardInterrupt(f"interrupted; {done['shards_done']} of {done['shards']} shards are done and kept; "
                                "go on with --resume.") from None
    described = store.describe(out)
    report |= {"result": "done", "bytes": described["bytes"], "arrays": described["arrays"]}
    line.finish(report, [f"cohort   {what}, {size_text(report['bytes'])} in {report['shards']} shards"
                         + (f" ({report['kept']} were there already)" if report["kept"] else ""),
                         f"written  {out}"], as_json, quiet)


def _parameters(options: dict) -> dict:
    """Return the settings of the cohort that the options describe."""
    from allpet_physics.simulation.cohort_settings import cohort_parameters
    from allpet_physics.simulation.study_settings import StudySettings

    settings = StudySettings()
    protocol = {name: options[option] for name, option in
                (("counts", "counts"), ("scatter_fraction", "scatter_fraction"),
                 ("randoms_fraction", "randoms_fraction"), ("psf_fwhm_mm", "psf_mm")) if options[option] is not None}
    changes = {"head": settings.head.replace(**protocol), "body": settings.body.replace(**protocol)}
    if options["delayed_min"] is not None:
        changes["delayed_min"] = options["delayed_min"]
    lists = {name: [v.strip() for value in options[name] for v in value.split(",")] for name in ("regions", "tracers")}
    return cohort_parameters(
        options["patients"], seed=options["seed"], size=options["size"], n_slices=options["slices"],
        slice_mm=options["slice_mm"], lesions=options["lesions"], split=options["split"],
        settings=settings.replace(**changes), uptake=options["uptake"], kinetics=options["kinetics"],
        **{name: value for name, value in lists.items() if value})


def size_text(n_bytes: float) -> str:
    """Return a number of bytes with three digits and its unit."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} TB"
