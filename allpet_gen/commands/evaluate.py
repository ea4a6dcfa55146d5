"""``allpet evaluate``: the paper's results redone on a store's test patients, as one page and one record."""

import platform
from dataclasses import asdict, replace
from datetime import date

import click

from allpet_gen._torch import require_torch
from allpet_gen.commands._guidance_options import guidance_options
from allpet_physics import _command_line as line

_SHIPPED = {"generator": "small", "bridge": "bridge-small"}


@line.command("evaluate", short_help="A report: generators, translations and certificates on test patients.",
              example="""
allpet evaluate cohort.zarr --out report
allpet evaluate cohort.zarr --model generator=small --model vae=run/vae --model bridge=bridge-small --out report
allpet evaluate cohort.zarr --model unet=run/unet --tier tiny --out quick
allpet evaluate cohort.zarr --model vae=run/vae --join report --out whole""")
@click.argument("store", type=line.FilePath(), metavar="STORE")
@click.option("--model", "models", multiple=True, metavar="NAME=DIR",
              help="A model and what it is: generator, vae, gan, sgm, bridge, unet, cyclegan, bridge+sd, unet+sd; "
                   "repeat [default: the generator and the bridge that come with the package].")
@click.option("--tier", type=click.Choice(["tiny", "small", "base"]), default="small", show_default=True,
              help="How much is measured: minutes, hours on a CPU, or hours on a GPU.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, metavar="N")
@guidance_options
@click.option("--network", type=line.FilePath(), metavar="FILE",
              help="A TorchScript file of a trained network, such as Inception's: distances by its features as well.")
@click.option("--keep", type=line.FilePath(), metavar="DIR",
              help="Keep what models draw and translate there: a report with one more model then draws for that alone.")
@click.option("--join", "earlier", type=line.FilePath(), metavar="DIR",
              help="An earlier report of the same store, tier and seed: what it has of models that are not named now "
                   "goes into this one.")
@click.option("--out", required=True, type=line.FilePath(), metavar="DIR", help="Folder for the page and the record.")
@line.overwrite_option
@line.json_option
@line.quiet_option
@click.pass_context
def command(ctx, store, models, tier, seed, guidance, guidance_start, network, keep, earlier, out, overwrite, as_json,
            quiet):
    """Measure trained models on the test patients of STORE, a cohort of allpet simulate.

    \b
    Written to --out:
      report.html    tables and pictures by the figures 2 to 7 of arXiv 2509.09130, in one file
      report.json    all figures; the same models, store, tier and seed give the same ones

    The generator is measured with its guidance and without any; choose a guidance on validation patients.

    Models must have the geometry of the store, and must not have been trained on its test patients; by the cards of
    their trainings, that is refused.
    """
    require_torch()
    from allpet_gen._drawing_checks import prompt_weights
    from allpet_gen.commands._translation_results import versions_of_all
    from allpet_gen.evaluation import report
    from allpet_gen.evaluation import report_join as joining
    from allpet_gen.evaluation import report_models as known
    from allpet_gen.evaluation.report_page import page
    from allpet_gen.evaluation.report_pictures import draw_all
    from allpet_gen.training_card import hardware, store_digest
    from allpet_physics._files import refuse_existing, refuse_unwritable, staged
    from allpet_physics._record import plain
    from allpet_physics.commands._roi2sino_results import write_record
    from allpet_physics.simulation.cohort_reader import read_cohort

    asked = _asked(models, (*known.GENERATORS, *known.TRANSLATIONS))
    prompt_weights(guidance)  # raises where they are none
    _refuse_unused(ctx, asked, known.GENERATORS)
    guided = {"guidance": guidance, "guidance_start": guidance_start}
    names = [joining.PAGE, joining.RECORD]
    refuse_existing(out, names, overwrite)
    refuse_unwritable(out)
    if keep is not None:
        refuse_unwritable(keep)
    cohort = read_cohort(store)
    before, pictures_before = (None, {}) if earlier is None else joining.read_report(earlier)
    if before is not None:
        joining.check_join(before, store_digest(cohort), asdict(report.TIERS[tier]), seed)
    progress = line.Progress(quiet)
    progress.stage("loading the models")
    loaded = {name: _load(name, source) for name, source in asked.items()}
    with line.collected_warnings() as noticed, staged(out, names, overwrite=overwrite) as folder:
        found = report.evaluate(loaded, cohort, store, report.TIERS[tier], seed=seed, guided=guided, network=network,
                                keep=keep, progress=progress, stage=progress.stage)
        taken, sheets = {}, joining.sheets(found.shown)
        if before is not None:
            taken, of_models = joining.pictures_to_take(found.shown, before["made"]["sheets"], pictures_before, asked)
            sheets |= of_models
            noticed += joining.differing(found.tables, before["tables"])
            found = replace(found, tables=joining.join_tables(found.tables, before["tables"], asked))
        progress.stage("drawing")
        pictures = folder / "pictures"
        pictures.mkdir()
        draw_all(pictures, found, cohort.geometry)
        for name, data in taken.items():
            (pictures / f"{name}.png").write_bytes(data)
        shown = {path.stem: path for path in sorted(pictures.glob("*.png"))}
        record = plain({"allpet": "evaluate", "tables": found.tables,
                        "made": {"command": line.command_line(ctx), "date": str(date.today()), "tier": tier,
                                 "hardware": _said(hardware()),
                                 "versions": versions_of_all(), "store": store_digest(cohort),
                                 "models": (before["made"]["models"] if before else {})
                                 | known.made_of(loaded, report.TIERS[tier], guided), "sheets": sheets}
                        | ({"joined": before["made"] | {"warnings": before["warnings"]}} if before else {}),
                        "warnings": noticed})
        (folder / joining.PAGE).write_text(page(record, shown), encoding="utf-8")
        write_record(folder / joining.RECORD, record)
        for path in shown.values():
            path.unlink()
        pictures.rmdir()
    line.warn(noticed)
    summary = {"allpet": "evaluate", "result": "done", "folder": str(out), "files": names, "exit_code": 0}
    line.finish(summary, [f"written  {', '.join(names)} in {out}"], as_json, quiet)


def _asked(models, known) -> dict[str, str]:
    """Return the folder of each model by what it is."""
    from allpet_physics.errors import InputError

    found = {}
    for text in models:
        name, equals, folder = text.partition("=")
        if not equals or name not in known or not folder:
            raise InputError(f"model must be NAME=DIR with a name of {', '.join(known)}, but was {text!r}.")
        if name in found:
            raise InputError(f"model must name each kind once, but {name} was named twice.")
        found[name] = folder
    return found or dict(_SHIPPED)


def _refuse_unused(ctx, asked, generators) -> None:
    """Raise where a guidance is given and no generator is asked for, or a network and nothing that draws."""
    from allpet_physics.errors import InputError

    for option, users in (("guidance", ("generator",)), ("guidance_start", ("generator",)), ("network", generators)):
        given = ctx.get_parameter_source(option) is click.core.ParameterSource.COMMANDLINE
        if given and not set(users) & set(asked):
            raise InputError(f"--{option.replace('_', '-')} must be left out where no {' or '.join(users)} is "
                             f"evaluated, but was given for {', '.join(asked)}; add --model {users[0]}=DIR, or leave "
                             "it out.")


def _said(found) -> str:
    """Return what a report was made on, in words."""
    return (f"{found['system']}, {found['processors']} processors, {found['device']}, Python "
            f"{platform.python_version()}")


def _load(name: str, source: str):
    """Return a model of the report."""
    from pathlib import Path

    from allpet_gen._pretrained import model_digest
    from allpet_gen.evaluation.report_models import GENERATORS, Model
    from allpet_physics.errors import InputError

    if name in GENERATORS:
        from allpet_gen.generation_models import generator_folder, load_generator

        pipe, folder = load_generator(source), generator_folder(source)
    else:
        from allpet_gen.denoising_moments import load_certifiable

        pipe, folder = load_certifiable(source)
    wanted = {"generator": "SinogramGenerationPipeline", "vae": "VAEPipeline", "gan": "GANPipeline",
              "sgm": "SGMPipeline", "bridge": "SinogramBridgePipeline"}.get(name.partition("+")[0], "UNetPipeline")
    if type(pipe).__name__ != wanted:
        raise InputError(f"model {name} must be one for {wanted}, but {source!r} is one for {type(pipe).__name__}.")
    return Model(pipe, Path(folder), model_digest(folder))
