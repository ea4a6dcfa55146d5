"""``allpet translate``: measured count sinograms to those of another dose, time, tracer or correction."""

import math

import click

from allpet_physics import _command_line as line
from allpet_physics.commands._options import arc_radians, pick

_FORMATS = {"npz": (".npz",), "interfile": (".hs", ".s"), "nifti": (".nii.gz",)}
#: Samples of a bridge, and the strength that its gate was trained with.
_SAMPLES, _GATE = 8, 0.25


@line.command("translate", short_help="Translate counts: dose, attenuation, time, tracers.", example="""
allpet translate low.npz --task low-dose --dose-factor 100 --tracer FDG --region brain --out full
allpet translate scan.hs --task delayed-frame --model trained/ --samples 20 --reconstruct none --out later
allpet translate mixed.npz --task tracer-separation --tracer FDG --other PSMA --roi auto --out apart
allpet translate cohort.zarr --task low-dose --dose-factor 20 --patient 2 --model trained/bridge --out check""")
@click.argument("sinograms", type=line.FilePath(), metavar="SINOGRAMS")
@click.option("--task", required=True, metavar="TASK",
              help="low-dose, attenuation-correction, delayed-frame, tracer-separation or tracer-conversion.")
@click.option("--out", required=True, type=line.FilePath(), metavar="DIR", help="Folder for the files.")
@click.option("--model", type=line.FilePath(), default="small", show_default=True, metavar="NAME|DIR",
              help="A bridge that comes with the package, or a folder that allpet train --task wrote.")
@click.option("--dose-factor", type=float, metavar="F", help="low-dose: how much the dose was lowered; 10 for a tenth.")
@click.option("--tracer", metavar="NAME", help="Of the source; what is not said is left to the model.")
@click.option("--region", metavar="NAME", help="Brain, chest or abdomen.")
@click.option("--other", metavar="NAME", help="The second tracer: mixed in (separation) or wanted (conversion).")
@click.option("--roi", metavar="FILE|auto",
              help="Region to attend to: a mask on the grid of the source's image, or its hot regions.")
@click.option("--gate-strength", type=float, metavar="L", help=f"Of the attention [default: {_GATE} with --roi].")
@click.option("--samples", "n_samples", type=click.IntRange(1), metavar="N",
              help=f"Drawn of the posterior for each slice [default: {_SAMPLES}; 1 for a baseline].")
@click.option("--steps", type=click.IntRange(1), default=10, show_default=True, metavar="N", help="Of a bridge.")
@click.option("--likelihood", "likelihood_strength", type=float, default=0.0, show_default=True, metavar="S",
              help="low-dose, tracer-separation: pull towards the measured counts, 0 to 1.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N")
@click.option("--resample/--no-resample", default=True, show_default=True,
              help="Whether counts and regions on other grids than the model's are resampled, or refused.")
@click.option("--reconstruct", type=click.Choice(["osem", "fbp", "none"]), default="osem", show_default=True,
              help="Images without corrections.")
@click.option("--format", "kind", type=click.Choice(list(_FORMATS)), default="npz", show_default=True,
              help="Of the sinograms.")
@click.option("--array", metavar="NAME", default="sinogram", show_default=True, help="Which array of an .npz.")
@click.option("--bin-mm", type=float, metavar="MM", help="Width of a bin, where the file does not say it.")
@click.option("--arc", type=click.Choice(["pi", "2pi"]), help="Arc, where the file does not say it.")
@click.option("--patient", type=int, multiple=True, metavar="N", help="Of a cohort; repeat.")
@click.option("--split", type=click.Choice(["train", "validation", "test"]), help="Of a cohort: these patients.")
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True, metavar="N",
              help="Sinograms made together; fewer need less memory.")
@line.overwrite_option
@line.json_option
@line.quiet_option
@click.pass_context
def command(ctx, sinograms, task, out, model, kind, roi, gate_strength, n_samples, reconstruct, resample, overwrite,
            as_json, quiet, **options):
    """Translate SINOGRAMS: an .npz, .nii.gz or Interfile .hs with measured counts, or a cohort of allpet simulate.

    \b
    Written to --out, for tracer-separation once for each tracer:
      translated.npz         the estimate: expected counts, as allpet reconstruct reads them
      spread.npz             the standard deviation of the samples, bin by bin
      sample_1.npz ...       the samples
      translated_images.nii.gz, spread_images.nii.gz
                             images of the estimate, and the deviation of those of the samples, in counts/mm
    and for all:
      translated.png         source, estimate and spread, side by side; of a cohort also the truth
      record.json            digests, model, settings, seeds, notes

    Of a cohort, the source is made from the patients' counts, and what comes out is compared with the truth. The
    spread is what the model holds possible: it covers no difference between its training data and your scanner.
    """
    from allpet_gen._torch import require_torch
    from allpet_gen.commands import _translation_results as results
    from allpet_gen.commands import _translation_source as given
    from allpet_physics._files import refuse_existing, refuse_replacing, refuse_unwritable, staged
    from allpet_physics._record import digest, plain
    from allpet_physics.commands._roi2sino_results import write_record

    require_torch()
    from allpet_gen.tasks import dose_number, find_task

    wanted = find_task(task)
    dose_number(task, options["dose_factor"])
    _refuse_options(ctx, given.is_store(sinograms))
    refuse_unwritable(out)
    progress = line.Progress(quiet)
    with line.collected_warnings() as noticed:
        progress.stage("reading the sinograms")
        source = _read(given, sinograms, wanted, options)
        mask, about_region = results.read_roi_of(roi, source.stack, resample)
        progress.stage("loading the model")
        from allpet_gen.translation_models import is_bridge, load_translation

        pipe, folder = load_translation(model)
        pipe.network.target_scale(task)  # refuses a task that it was not trained for
        n_samples = n_samples or (_SAMPLES if is_bridge(pipe) else 1)
        targets = results.target_names(wanted, source)
        names = results.FileNames(targets, n_samples, _FORMATS[kind], reconstruct != "none")
        all_names = [*names.all, results.PICTURE, results.RECORD]
        refuse_existing(out, all_names, overwrite)
        refuse_replacing(out, all_names, given.files_of(sinograms))
        _refuse_too_large(source.stack, n_samples * wanted.n_targets)
        if gate_strength is None:
            gate_strength = 0.0 if roi is None else _GATE
        settings = {"task": task, "n_samples": n_samples, "gate_strength": gate_strength, "resample": resample,
                    "reconstruct": None if reconstruct == "none" else reconstruct,
                    **pick(options, "dose_factor", "steps", "likelihood_strength", "seed", "batch")}
        about_model = results.about_model(pipe, folder, model, source)
        earlier = [name for name in results.earlier_files(out) if name not in all_names] if overwrite else []
        with staged(out, [*earlier, *all_names], overwrite=overwrite) as staging:
            found = results.translate(pipe, source, mask, settings, progress)
            progress.stage("writing")
            like = results.out_stack(source, wanted, settings)
            results.write_files(staging, names, like, found)
            results.write_picture(staging / results.PICTURE, source, wanted, like, found, settings, targets)
            files = {name: digest(staging / name)["sha256"] for name in all_names if (staging / name).exists()}
            record = plain({
                "allpet": "translate", "command": line.command_line(ctx), "versions": results.versions_of_all(),
                "input": source.record, "region": about_region, "model": about_model, "settings": settings,
                "geometry": like.geometry.to_dict(), "counts": results.counts_of(source, found, targets),
                "source_ratio": found.ratio, "truth": results.compared(source, wanted, found, settings, targets),
                "notes": found.notes, "part_notes": found.part_notes, "files": files, "warnings": noticed})
            write_record(staging / results.RECORD, record)
    line.warn(noticed)
    report = record | {"result": "done", "folder": str(out), "files": [*files, results.RECORD], "exit_code": 0}
    shown = [name for name in report["files"] if not name.startswith("sample_")]
    samples = f" and {len(report['files']) - len(shown)} of samples" if len(report["files"]) > len(shown) else ""
    line.finish(report, [*results.lines(record), f"written  {', '.join(shown)}{samples} in {out}"], as_json, quiet)


def _read(given, path, task, options: dict):
    """Return the source, once what is said of it is known to be words that there are."""
    from allpet_gen.prompts import Prompt
    from allpet_gen.tasks import task_tokens
    from allpet_physics.simulation.tracer_names import parse_tracer

    said = pick(options, "tracer", "region", "other")
    from_file = pick(options, "array", "bin_mm", "arc")
    from_store = pick(options, "patient", "split")
    if given.is_store(path):
        if said["other"] is not None:
            task_tokens(task.name, said["tracer"], said["region"], said["other"])
        return given.read_store(path, task, dose_factor=options["dose_factor"], **said,
                                patients=from_store["patient"], split=from_store["split"])
    task_tokens(task.name, **said)
    prompt = Prompt(said["tracer"], said["region"], task.name)
    other = None if said["other"] is None else parse_tracer(said["other"]).name
    return given.read_file(path, tracer=prompt.tracer, region=prompt.region, other=other, array=from_file["array"],
                           bin_mm=from_file["bin_mm"], arc=arc_radians(from_file["arc"]))


def _refuse_options(ctx, of_store: bool) -> None:
    wrong, whose = (("array", "bin_mm", "arc"), "a file") if of_store else (("patient", "split"), "a cohort")
    used = [name for name in wrong if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE]
    if used:
        options = {p.name: p.opts[0] for p in ctx.command.params}
        raise click.UsageError(f"{', '.join(options[name] for name in used)} can only be used with {whose}, but "
                               f"SINOGRAMS was {'a cohort' if of_store else 'a file'}.")


def _refuse_too_large(stack, n: int) -> None:
    from allpet_physics._memory import refuse_too_large

    n_slices, geometry = len(stack.data), stack.geometry
    each = math.prod(geometry.sinogram_shape) + math.prod(geometry.image_shape)
    refuse_too_large(f"{n_slices} slices of {geometry.n_angles} x {geometry.n_bins} bins with {n} samples each",
                     n_slices * (n + 4) * each, 8, "choose fewer --samples, or fewer slices")
