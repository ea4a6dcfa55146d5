"""``allpet train``: a generator, a baseline of it or translations, from a cohort to a folder that can be loaded."""

import os
import time
from pathlib import Path

import click

from allpet_gen._torch import require_torch
from allpet_gen.commands import _baseline_training as baselines
from allpet_gen.commands import _training as shared
from allpet_physics import _command_line as line

_STAGES = ("autoencoder", "denoiser", "all")
_METHODS = ("bridge", "unet", "cyclegan")
_GENERATOR = "generator"


@line.command("train", short_help="Train a generator, or networks of translations.", example="""
allpet train --config tiny --out trained
allpet train --config small --store cohort.zarr --out trained --set training.denoiser.steps=20000
allpet train --config small --store cohort.zarr --out trained --resume
allpet train --method vae --config small --store cohort.zarr --out trained
allpet train --task low-dose --task delayed-frame --config small --store cohort.zarr --out translations
allpet train --task all --method unet --config small --store cohort.zarr --out translations
accelerate launch --num_processes 2 $(which allpet) train --config base --store cohort.zarr --out trained""")
@click.option("--config", default="small", show_default=True, metavar="NAME",
              help="tiny (32 x 32), small (128), medium (256), base (512), or a TOML file; tiny and small have "
                   "settings for translations too.")
@click.option("--store", type=line.FilePath(), metavar="STORE",
              help="Cohort to train on, of allpet simulate [default: one of the config is simulated into --out].")
@click.option("--out", required=True, type=line.FilePath(), metavar="DIR", help="Folder of the model and of all logs.")
@click.option("--stage", type=click.Choice(_STAGES), default="all", show_default=True,
              help="What to train of a generator.")
@click.option("--task", "tasks", multiple=True, metavar="TASK",
              help="Train translations of this kind instead of a generator, or all; repeat for several: low-dose, "
                   "attenuation-correction, delayed-frame, tracer-separation, tracer-conversion.")
@click.option("--method", type=click.Choice((_GENERATOR, *baselines.METHODS, *_METHODS)),
              help="The generator [default], or a baseline of it: vae, gan, sgm; with --task a bridge [default], or a "
                   "baseline of it: unet, cyclegan.")
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE",
              help="Change a setting, such as training.seed=1; repeat.")
@click.option("--resume", is_flag=True, help="Go on with a training that was begun in --out.")
@click.option("--overwrite", is_flag=True, help="Replace a training in --out.")
@line.json_option
@line.quiet_option
@click.pass_context
def command(ctx, config, store, out, stage, tasks, method, changes, resume, overwrite, as_json, quiet):
    """Train the autoencoder on composites of sinograms and masks, then the denoiser on the latents of it.

    With --task, train one network that translates sinograms for the tasks named; its model is the folder of the
    method's name in --out, and pairs of source and target are kept beside it for other methods. With --method vae, gan
    or sgm, train a baseline on the sinograms that the generator is trained on, into the folder of that name in --out.

    A run that is stopped, or killed, goes on with --resume, and has the losses of one that was not. The folder holds
    the model, losses.csv and TensorBoard's events of each stage, and training.json, which says how all was made and
    which patients were trained on.
    """
    method = _method_of(ctx, method, bool(tasks))
    require_torch()
    from allpet_gen.settings import parse_change, read_settings, settings_of
    from allpet_gen.training import TrainingError, TrainingStopped, start_accelerator

    if resume and overwrite:
        raise click.UsageError("--resume keeps what is there and --overwrite deletes it; give one of them.")
    if tasks:
        from allpet_gen.commands import _translation_training as translation

        tasks, family = translation.chosen_tasks(tasks, config), translation.FAMILY
    else:
        family = ""
    # A training that was begun on another machine goes on in the precision of that one, unless told otherwise.
    begun = None if overwrite else shared.begun_precision(out if method == _GENERATOR else out / method)
    settings = read_settings(config, dict(parse_change(change) for change in changes), family, begun)
    if not tasks:
        settings = settings_of(settings, method)
    stages = _STAGES[:2] if stage == "all" else (stage,)
    main = int(os.environ.get("RANK", "0")) == 0
    progress = line.Progress(quiet or not main)
    began = time.monotonic()
    processes = start_accelerator()
    with shared.stop_signals() as stop:
        try:
            if tasks:
                card = translation.run(settings, tasks, method, store, out, resume, overwrite, progress, stop,
                                       processes)
            elif method in baselines.METHODS:
                card = baselines.run(settings, method, store, out, resume, overwrite, progress, stop, processes)
            else:
                card = _run(settings, store, out, stages, resume, overwrite, progress, stop, processes)
        except TrainingError as error:
            line.Command.fail(ctx, "TrainingError", str(error), line.FAILED)
        except TrainingStopped as stopped:
            raise KeyboardInterrupt(f"{stopped}; the checkpoint is written: go on with --resume.") from None
    if processes.is_main_process:
        report = {"allpet": "train", "result": "done", "out": str(out), "config": str(config), "stages": card["stages"],
                  **{name: card[name] for name in ("method", "tasks") if name in card},
                  "minutes": round((time.monotonic() - began) / 60, 2), "exit_code": 0}
        line.finish(report, shared.stage_lines(card, out / method if "method" in card else out), as_json, quiet)
    if processes.num_processes > 1:
        processes.end_training()


def _method_of(ctx, method: str | None, translates: bool) -> str:
    """Return the method that was named or is meant; refuse one, or a stage, of another kind of training."""
    default, known = ("bridge", _METHODS) if translates else (_GENERATOR, (_GENERATOR, *baselines.METHODS))
    method = method or default
    name, whose = "method", "a generator; leave out --task" if translates else "translations; name a --task"
    if method in known:
        name, whose = "stage", "a generator; leave out --task" if translates else "the generator; leave out --method"
        if method == _GENERATOR or ctx.get_parameter_source("stage") is not click.core.ParameterSource.COMMANDLINE:
            return method
    raise click.UsageError(f"--{name} belongs to the training of {whose}, or leave out --{name}.")


def _run(settings, store, out: Path, stages, resume: bool, overwrite: bool, progress, stop, processes) -> dict:
    """Train a generator; return the card of its training."""
    from allpet_gen.training_card import read_card

    with processes.main_process_first():
        if processes.is_main_process:
            sets = _prepare(settings, store, out, stages, resume, overwrite, progress)
        else:
            sets = _sets(settings, store or out / shared.COHORT, stages, out)
    _train(settings, sets, out, stages, resume, progress, stop, processes.is_main_process)
    return read_card(out)


def _prepare(settings, store, out: Path, stages, resume: bool, overwrite: bool, progress):
    """Check all that can be checked before long work begins; return what is trained on, None if latents are there."""
    from allpet_gen import training_card
    from allpet_physics._files import refuse_unwritable
    from allpet_physics.errors import InputError
    from allpet_physics.geometry import ParallelGeometry

    refuse_unwritable(out.parent)
    if overwrite and "autoencoder" not in stages:
        raise InputError("--overwrite must not be given with --stage denoiser, which needs the trained autoencoder in "
                         "--out; leave it out, or train both stages anew.")
    card = None if overwrite else training_card.read_card(out)
    if card is not None:
        ended = [stage for stage in stages if stage in card["stages"]]
        if not resume and (ended or "autoencoder" in stages):
            raise InputError(f"{str(out)!r} holds a training already; pass --resume to go on with it, --overwrite to "
                             "replace it, or choose another --out.")
        training_card.refuse_other_settings(card, settings)
    elif "autoencoder" not in stages:
        raise InputError(f"{str(out)!r} must hold a trained autoencoder for --stage denoiser, but has no "
                         f"{training_card.CARD}; train it first, with --stage autoencoder.")
    if store is None:
        parameters = _planned(settings)
        geometry = ParallelGeometry(**parameters["geometry"])
    else:
        geometry = _checked_cohort(settings, store).geometry
    _require_memory(settings, stages, geometry)
    _require_possible(settings, stages, geometry)
    if "autoencoder" not in stages:
        return None
    if overwrite:
        _remove_training(out)
    if store is None:
        store = out / shared.COHORT
        shared.simulate(parameters, store, resume, overwrite, progress)
    progress.stage("reading sinograms")
    sets, cohort = _sets(settings, store, stages, out), _checked_cohort(settings, store)
    new = training_card.new_card(settings, cohort, sets, processes=int(os.environ.get("WORLD_SIZE", "1")))
    if card is not None:
        shared.refuse_other_store(card, new)
        new["stages"] = card["stages"]
    out.mkdir(parents=True, exist_ok=True)
    training_card.write_card(out, new)
    return sets


def _sets(settings, store: Path, stages, out: Path):
    if "autoencoder" not in stages:
        return None
    from allpet_gen.stages import read_sets

    return read_sets(_checked_cohort(settings, store), settings)


def _checked_cohort(settings, store: Path):
    from allpet_gen.stages import check_cohort
    from allpet_physics.simulation.cohort_reader import read_cohort

    cohort = read_cohort(store)
    check_cohort(cohort, settings)
    return cohort


def _train(settings, sets, out: Path, stages, resume: bool, progress, stop, main: bool) -> None:
    from allpet_gen import stages as work
    from allpet_gen.training_card import read_card, write_card

    def ended(stage: str) -> None:
        if main:
            card = read_card(out)
            card["stages"][stage] = work.stage_summary(out, stage)
            write_card(out, card)

    def batches(items):
        for item in progress(items, "encoding latents", unit="batch"):
            yield item
            if stop():
                raise KeyboardInterrupt("interrupted; the autoencoder is trained: go on with --resume.")

    done = read_card(out)["stages"]
    if "autoencoder" in stages and "autoencoder" not in done:
        with shared.Report("autoencoder", progress) as report:
            work.train_autoencoder(sets, settings, out, resume=resume, report=report, stop=stop, progress=batches)
        ended("autoencoder")
    if "denoiser" in stages and "denoiser" not in done:
        with shared.Report("denoiser", progress) as report:
            work.train_denoiser(work.load_autoencoder(out), settings, out, resume=resume, report=report, stop=stop)
        ended("denoiser")
    if main and set(read_card(out)["stages"]) == set(work.STAGES):
        work.save_pipeline(settings, out, read_card(out)["measured"])


def _planned(settings) -> dict:
    """Return the parameters of the cohort that the settings describe, once they are enough for the training."""
    from allpet_gen.stages import check_planned

    parameters = shared.planned_cohort(settings)
    check_planned(parameters, settings)
    return parameters


def _require_memory(settings, stages, geometry) -> None:
    import torch

    from allpet_gen.memory import require_memory, training_memory
    from allpet_gen.training import TrainingSettings

    device = "cuda" if torch.cuda.is_available() else "cpu"
    for stage in stages:
        how = TrainingSettings.of(settings["training"], stage)
        count = training_memory(settings, geometry, stage, device=device)
        require_memory(count, stage, batch=how.batch, precision=how.precision,
                       gradient_checkpointing=how.gradient_checkpointing, device=device)


def _require_possible(settings, stages, geometry) -> None:
    """Refuse what could only fail once long work has begun, or once an older training has been removed."""
    from allpet_gen.training_settings import TrainingSettings, require_precision
    from allpet_physics.masks import DynamicMultiMask

    for stage in stages:
        require_precision(TrainingSettings.of(settings["training"], stage).precision)
    masks = settings["masks"]
    DynamicMultiMask(geometry.image_shape, n_blocks=tuple(masks["n_blocks"]), block_px=tuple(masks["block_px"]), seed=0)


def _remove_training(out: Path) -> None:
    """Delete what a training left in a folder; nothing else that may lie there."""
    import shutil

    for name in ("model_index.json", "allpet.json", "training.json", "latents.safetensors"):
        (out / name).unlink(missing_ok=True)
    for name in ("autoencoder", "denoiser", "scheduler", "autoencoder-training", "denoiser-training"):
        shutil.rmtree(out / name, ignore_errors=True)
