"""``allpet generate``: count sinograms for a prompt, their images, a contact sheet and a record."""

import math
import re

import click

from allpet_gen.commands._guidance_options import guidance_options
from allpet_physics import _command_line as line
from allpet_physics.commands._options import arc_radians
from allpet_physics.errors import InputError

_FORMATS = {"npz": (".npz",), "interfile": (".hs", ".s"), "nifti": (".nii.gz",)}
_PICTURE, _RECORD = "generated.png", "generated.json"
#: Sinograms of each prompt on the contact sheet.
_SHOWN = 16
#: Steps of the latent diffusion model's sampler, and what else it can be told.
_STEPS, _STEERING = 50, ("guidance", "guidance_start", "rescale", "sampler", "eta")


@line.command("generate", short_help="Count sinograms for a prompt, from a trained generator.", example="""
allpet generate "brain with 18F-FDG" --count 8 --out brains
allpet generate "chest with FDG" "abdomen with PSMA" --count 4 --preset ge-discovery-690 --out trunks
allpet generate "abdomen" --model trained/ --steps 100 --sampler ddpm --format interfile --out abdomens""")
@click.argument("prompts", nargs=-1, required=True, metavar="PROMPT...")
@click.option("--out", required=True, type=line.FilePath(), metavar="DIR", help="Folder for the files.")
@click.option("--count", type=click.IntRange(1), default=1, show_default=True, metavar="N",
              help="Sinograms of each prompt.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N",
              help="Of the first sinogram; each further one has the next.")
@click.option("--model", type=line.FilePath(), default="small", show_default=True, metavar="NAME|DIR",
              help="A model that comes with the package, or a folder that allpet train wrote; a baseline's too.")
@click.option("--steps", type=click.IntRange(1), metavar="N",
              help="Of the sampler, up to those of the training [default: 50; of a score-based model 40].")
@guidance_options
@click.option("--rescale", type=click.FloatRange(0, 1), default=0.7, show_default=True, metavar="F",
              help="How much of the contrast that guidance adds is taken back.")
@click.option("--sampler", type=click.Choice(["ddim", "ddpm"]), default="ddim", show_default=True)
@click.option("--eta", type=float, default=0.0, show_default=True, metavar="F",
              help="ddim: 0 adds no noise on the way, 1 as much as ddpm.")
@click.option("--range-guidance", type=click.FloatRange(0), default=0.0, metavar="STRENGTH",
              help="Pull the moments towards those of held-out sinograms, which the model's card must say.")
@click.option("--preset", metavar="NAME", help="Angles, bins, arc and image of a named scanner.")
@click.option("--angles", "n_angles", type=int, metavar="N", help="Resample to N angles.")
@click.option("--bins", "n_bins", type=int, metavar="N", help="Resample to N radial bins.")
@click.option("--bin-mm", type=float, metavar="MM", help="Resample to bins of this width.")
@click.option("--arc", type=click.Choice(["pi", "2pi"]), help="Resample to this arc.")
@click.option("--expected", is_flag=True, help="Expected counts, without Poisson noise.")
@click.option("--reconstruct", type=click.Choice(["osem", "fbp", "none"]), default="osem", show_default=True,
              help="Images without corrections.")
@click.option("--format", "kind", type=click.Choice(list(_FORMATS)), default="npz", show_default=True,
              help="Of the sinograms.")
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True, metavar="N",
              help="Sinograms made together; fewer need less memory.")
@line.overwrite_option
@line.json_option
@line.quiet_option
@click.pass_context
def command(ctx, prompts, out, count, seed, model, kind, expected, reconstruct, range_guidance, batch, overwrite,
            as_json, quiet, **options):
    """Draw count sinograms for each PROMPT, such as "brain with 18F-FDG"; a region or a tracer alone will do.

    \b
    Written to --out, for each prompt:
      brain_18F-FDG.npz              its sinograms, as allpet reconstruct reads them
      brain_18F-FDG_images.nii.gz    their images, uncorrected for attenuation, scatter and randoms, in counts/mm
    and for all of them:
      generated.png                  every sinogram above its image
      generated.json                 seeds, settings, digest of the model, counts, consistency

    The samples of a prompt lie in one file like slices, but are of different patients. Each can be drawn again alone by
    its own seed. The same command gives the same counts on the same machine.
    """
    from allpet_gen._torch import require_torch
    from allpet_physics._files import refuse_existing, refuse_unwritable, staged
    from allpet_physics._memory import refuse_too_large

    require_torch()
    from allpet_gen._drawing_checks import as_prompts
    from allpet_gen._pretrained import model_digests, read_card
    from allpet_gen.generation_models import generator_folder, limits

    wanted = as_prompts(prompts)
    if len(set(wanted)) < len(wanted):
        raise InputError("PROMPT must name each class once, but one was named twice; draw more of it with --count.")
    stems = [_stem(p) for p in wanted]
    method = None if reconstruct == "none" else reconstruct
    names = [f"{stem}{suffix}" for stem in stems for suffix in _FORMATS[kind]]
    names += [f"{stem}_images.nii.gz" for stem in stems] if method else []
    names += [_PICTURE, _RECORD]
    refuse_existing(out, names, overwrite)
    refuse_unwritable(out)
    source = generator_folder(model)
    limit = limits(source)
    settings = _settings(ctx, limit, options)
    geometry = _geometry(limit.geometry, options)
    total = len(wanted) * count
    refuse_too_large(f"{total} sinograms of {geometry.n_angles} x {geometry.n_bins} bins and their images",
                     total * (2 * math.prod(geometry.sinogram_shape) + math.prod(geometry.image_shape)), 8,
                     "choose a smaller --count")
    moments = [_moments(read_card(source), p) for p in wanted] if range_guidance else []
    progress = line.Progress(quiet)
    with staged(out, names, overwrite=overwrite) as folder, line.collected_warnings() as noticed:
        from allpet_gen.generation_models import load_generator
        from allpet_physics._record import digest, plain
        from allpet_physics.commands._roi2sino_results import write_record

        progress.stage("loading the model")
        pipe = load_generator(model)
        guides = [_range_guide(pipe.geometry, range_guidance, found) for found in moments]
        results, notes = _draw(pipe, wanted, count, seed, guides, progress, geometry=geometry,
                               noise=not expected, reconstruct=method, batch=batch, **settings)
        progress.stage("writing")
        described = [_describe(pipe.card, prompt, result, noise=not expected)
                     for prompt, result in zip(wanted, results, strict=True)]
        for stem, result in zip(stems, results, strict=True):
            _write(folder, stem, _FORMATS[kind][0], result)
        _picture(folder / _PICTURE, wanted, results, described, expected)
        written = {name: digest(folder / name)["sha256"] for name in names if (folder / name).exists()}
        record = plain({
            "allpet": "generate", "command": line.command_line(ctx), "versions": _versions(),
            "model": {"name": model, "files": model_digests(source),
                      "card": {k: v for k, v in pipe.card.items() if k != "measured"}},
            "settings": {**settings, "seed": seed, "count": count, "batch": batch, "range_guidance": range_guidance,
                         "poisson_noise": not expected, "reconstruct": reconstruct},
            "geometry": geometry.to_dict(), "network_geometry": pipe.geometry.to_dict(),
            "prompts": described, "notes": notes, "files": written, "warnings": noticed})
        write_record(folder / _RECORD, record)
    line.warn(noticed)
    report = record | {"result": "done", "folder": str(out), "files": [*written, _RECORD], "exit_code": 0}
    line.finish(report, _lines(described, notes, out, written), as_json, quiet)


def _settings(ctx, limit, options) -> dict:
    """Return how a model is to sample; refuse what it cannot do."""
    if limit.baseline is None:
        steps = _STEPS if options["steps"] is None else options["steps"]
        if steps > limit.most_steps:
            raise InputError(f"steps must be an integer from 1 to {limit.most_steps}, but was {steps}.")
        return {"steps": steps, **{name: options[name] for name in _STEERING}}
    given = [name for name in ("steps", *_STEERING, "range_guidance")
             if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE]
    baseline = limit.baseline
    baseline.refuse_options(*(name for name in given if name != "steps" or baseline.default_steps is None))
    if baseline.default_steps is None:
        return {}
    return {"steps": baseline.checked_steps(options["steps"] or baseline.default_steps)}


def _draw(pipe, wanted, count, seed, guides, progress, **settings):
    """Return what was drawn for each prompt, and notes; the seeds go on from one prompt to the next."""
    def shown(rounds):
        return progress(rounds, "sampling", unit="step")

    if not guides:
        # All prompts together: batches stay full.
        drawn = pipe(wanted, count=count, seed=seed, progress=shown, **settings)
        return [drawn[k * count:(k + 1) * count] for k in range(len(wanted))], list(drawn.notes)
    results = [pipe(prompt, count=count, seed=seed + k * count, guides=guide, progress=shown, **settings)
               for k, (prompt, guide) in enumerate(zip(wanted, guides, strict=True))]
    return results, list(dict.fromkeys(note for result in results for note in result.notes))


def _moments(card, prompt) -> dict:
    """Return what a model's card says of the moments of held-out sinograms of a prompt."""
    from allpet_gen.model_card import measured_like

    measured = measured_like(card, prompt)
    if measured is None:
        raise InputError(f"--range-guidance needs the moments of held-out sinograms of {prompt}, which this model's "
                         "card does not say (attenuated and scattered counts have residuals of their own); leave it "
                         "out.")
    return measured["moments"]


def _range_guide(geometry, strength: float, moments: dict):
    from allpet_gen.guidance import RangeGuidance

    return RangeGuidance(geometry, strength, orders=moments["orders"], target=moments["median"])


def _geometry(network, options):
    """Return the geometry that the options describe; by default the network's own."""
    from allpet_physics.geometry import ParallelGeometry

    given = {name: options[name] for name in ("n_angles", "n_bins", "bin_mm") if options[name] is not None}
    if options["arc"] is not None:
        given["arc"] = arc_radians(options["arc"])
    if options["preset"] is not None:
        return ParallelGeometry.preset(options["preset"]).replace(**given)
    changed = network.replace(**given)
    if not {"n_bins", "bin_mm"} & set(given):
        return changed
    # The field of view stays, where only one of the two was given.
    if "bin_mm" not in given:
        changed = changed.replace(bin_mm=network.fov_mm / changed.n_bins)
    elif "n_bins" not in given:
        changed = changed.replace(n_bins=max(1, math.ceil(network.fov_mm / changed.bin_mm - 1e-9)))
    return changed.replace(image_shape=(changed.n_bins,) * 2, pixel_mm=changed.bin_mm)


def _describe(card, prompt, result, noise: bool) -> dict:
    """Return what the record says of the sinograms of a prompt."""
    from allpet_gen.model_card import describe_sinograms, measured_like
    from allpet_physics.consistency import count_balance, helgason_ludwig

    moments = helgason_ludwig(result.sinograms, result.geometry)
    out = {"prompt": str(prompt), "seeds": result.seeds, "counts": result.sinograms.sum(axis=(1, 2)),
           "helgason_ludwig": {"orders": moments.orders, "residual": moments.residual},
           "all": describe_sinograms(result.sinograms, result.geometry)}
    if noise:
        balance = count_balance(result.sinograms, result.expected)
        out["count_balance"] = {"ratio": balance.ratio, "z": balance.z}
    measured = measured_like(card, prompt)
    return out | ({"measured": measured} if measured else {})


def _write(folder, stem: str, suffix: str, result) -> None:
    from allpet_physics.io.nifti import write_nifti
    from allpet_physics.io.sinogram_files import SinogramStack, write_sinogram
    from allpet_physics.io.volume import Volume

    stack = SinogramStack(result.sinograms, result.geometry, unit="counts", image_unit="counts/mm")
    write_sinogram(folder / f"{stem}{suffix}", stack)
    if result.images is not None:
        write_nifti(folder / f"{stem}_images.nii.gz",
                    Volume(result.images.transpose(2, 1, 0), stack.image_affine(), stack.unit_of_images))


def _picture(path, wanted, results, described, expected: bool) -> None:
    from allpet_gen.model_card import consistency_lines
    from allpet_gen.pictures import Panel, contact_sheet

    panels, subtitle = [], [_about(results[0].images is not None)]
    for prompt, result, about in zip(wanted, results, described, strict=True):
        for i in range(min(_SHOWN, len(result))):
            total = f"{result.sinograms[i].sum() / 1e6:.3g} million {'expected ' if expected else ''}counts"
            panels.append(Panel(result.sinograms[i], None if result.images is None else result.images[i],
                                f"seed {result.seeds[i]}", (str(prompt), total), str(prompt)))
        subtitle += [f"{prompt}: " + "; ".join(consistency_lines(about["all"], about.get("measured")))]
    contact_sheet(path, panels, results[0].geometry, title="Generated sinograms", subtitle="\n".join(subtitle))


def _about(with_images: bool) -> str:
    """Return what a viewer must know of all that is drawn."""
    text = "Simulated: drawn by a model that was trained on simulated patients alone."
    if with_images:
        text += (" Images are not corrected: attenuation leaves skin and lungs bright and the middle pale, scatter and "
                 "randoms leave a haze, and randoms, alike in all bins, a ring at the edge of the field of view.")
    return text


def _lines(described, notes, out, written) -> list[str]:
    from allpet_gen.model_card import consistency_lines

    lines = []
    for about in described:
        n = about["all"]["n"]
        lines.append(f"{about['prompt']}: {n} sinogram{'s' * (n > 1)}, seeds {about['seeds'][0]} to "
                     f"{about['seeds'][-1]}" if n > 1 else f"{about['prompt']}: 1 sinogram, seed {about['seeds'][0]}")
        lines += [f"  {text}" for text in consistency_lines(about["all"], about.get("measured"))]
    return [*lines, *notes, f"written  {', '.join([*written, _RECORD])} in {out}"]


def _versions() -> dict:
    from importlib.metadata import version

    from allpet_physics._record import versions

    return versions() | {name: version(name) for name in ("torch", "diffusers")}


def _stem(prompt) -> str:
    """Return a file name for a prompt, such as brain_18F-FDG."""
    return re.sub(r"[^\w-]+", "_", str(prompt).replace(" with ", "_"))
