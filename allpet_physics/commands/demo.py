"""``allpet demo``: a simulated scan, its reconstructions, its lesions and their attention, as one picture."""

import time
from pathlib import Path

import click

from allpet_physics import _command_line as line

_PICTURE, _RECORD = "demo.png", "demo.json"


@line.command("demo", short_help="A simulated scan, from counts to attention in the sinogram.", example="""
allpet demo --out demo_output
allpet demo --trues 5e5 --seed 1 --out fewer_counts""")
@click.option("--out", type=line.FilePath(), default="demo_output", show_default=True, metavar="DIR",
              help="Folder for demo.png and demo.json.")
@click.option("--trues", type=float, default=2e6, show_default="2e6", metavar="N",
              help="Expected true coincidences in the slice; scatter and randoms come on top.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N", help="Of the noise.")
@line.overwrite_option
@line.json_option
@line.quiet_option
@click.pass_context
def command(ctx, out, trues, seed, overwrite, as_json, quiet):
    """Scan a thorax phantom, reconstruct it, find its lesions and project them into the sinogram.

    \b
    Written to --out:
      demo.png   truth, FBP, OSEM with regions; counts, attention, both together
      demo.json  counts, uptake in the lesions, seconds of every stage
      generated.png  sinograms that a trained generator draws, and their images (with the extra gen)
    """
    from allpet_physics._files import refuse_existing, refuse_unwritable, staged
    from allpet_physics.demo_steps import find_steps, picture_name, run_step

    steps = find_steps()
    names = [_PICTURE, *map(picture_name, steps), _RECORD]
    refuse_existing(out, names, overwrite)
    refuse_unwritable(out)
    progress = line.Progress(quiet)
    started = time.perf_counter()
    with staged(out, names, overwrite=overwrite) as staging:
        from allpet_physics.commands._roi2sino_results import write_record
        from allpet_physics.demo import report, run_demo
        from allpet_physics.demo_figure import save_figure

        progress.stage("scanning the phantom")
        demo = run_demo(trues, seed, progress)
        progress.stage("drawing")
        save_figure(staging / _PICTURE, demo)
        found = {point.name: run_step(point, staging, progress) for point in steps}
        record = {"allpet": "demo", "command": line.command_line(ctx), "seed": seed, **report(demo),
                  "steps": {name: step["record"] for name, step in found.items() if step["record"]}}
        record["seconds"]["in all"] = round(time.perf_counter() - started, 3)
        write_record(staging / _RECORD, record)
        written = [name for name in names if (staging / name).exists()]
    told = [text for step in found.values() for text in ("", *step["lines"])]
    line.finish(record | {"folder": str(out), "files": written, "exit_code": 0}, _lines(record, out, written, told),
                as_json, quiet)


def _lines(record: dict, out: Path, written: list[str], told: list[str]) -> list[str]:
    counts = record["counts"]
    prompts, trues = counts["prompts"] / 1e6, counts["expected_trues"] / 1e6
    lines = [f"{prompts:.2f} million prompts, {trues:.2f} million of them expected to be true", "",
             f"{'mean SUV':<16}{'true':>7}{'FBP':>7}{'OSEM':>7}"]
    lines += [f"{name:<16}{values['true']:7.2f}{values['fbp']:7.2f}{values['osem']:7.2f}"
              for name, values in record["suv"].items()]
    lines += [""] + [f"{name} region: {region['pixels']} pixels, the lesions have {region['true_pixels']} (Dice "
                     f"{region['dice']:.2f})" for name, region in record["regions"].items()]
    seconds = ", ".join(f"{stage} {value:.1f}" for stage, value in record["seconds"].items())
    pictures = [f"picture: {out / name}" for name in written if name.endswith(".png")]
    return [*lines, f"seconds (the first run compiles): {seconds}", *told, "", *pictures]
