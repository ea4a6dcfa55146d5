"""Write docs/evaluation.md, and its pictures, from a report of `allpet evaluate` with baselines of the generator.

    python benchmarks/evaluation_report.py docs/evaluation docs/evaluation/shipped.json docs/evaluation/decoded.json
"""

import argparse
import re
import sys
import textwrap
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _evaluation_tables import (
    AS_THEY_ARE,
    DISTANCES,
    NAMES,
    ahead,
    certificates,
    consistency,
    copies,
    distances,
    prompts,
    translations,
)
from _record import read_record, write_page

from allpet_gen._pretrained import shipped_models
from allpet_gen.evaluation.report import rounded
from allpet_gen.evaluation.report_join import in_order, read_report
from allpet_gen.prompt_guidance import guidance_words
from allpet_gen.settings import read_settings
from allpet_physics.errors import InputError

ROOT = Path(__file__).resolve().parents[1]

HEAD = """# The paper's results, redone

What the figures 2 to 7 of [arXiv:2509.09130](https://arxiv.org/abs/2509.09130) show, measured on simulated patients
whom no model was trained on: the whole of it, pictures, tables and intervals, is one page,
[report.html](evaluation/report.html), and one record, [report.json](evaluation/report.json). Here are the generators
beside one another, and the rest in short; translations and certificates have pages of their own,
[here](translation.md) and [here](certificates.md).

Made on {made}; seed {seed}; {drawn} drawn sinograms of each generator.

```
allpet simulate --patients 720 --seed 2026 --size 128 --out cohort.zarr
{training}
{command}
{shipped}
python benchmarks/decoded_distances.py cohort.zarr --model ships=small --model generator=run \\
    --json docs/evaluation/decoded.json
python benchmarks/evaluation_report.py docs/evaluation docs/evaluation/shipped.json docs/evaluation/decoded.json
```

The same checkpoints and store give the same tables again, to the last digit on one machine."""

GENERATORS = """## Generators beside one another

All were trained on the same sinograms of the same patients, with the same augmentation, prompts and seed, and each
with about as much computing, {share} of the steps in the settings `small`, with which the one that ships was trained:

{budgets}

Their steps, timed by turns on one thread of a quiet machine (`generator_budgets.py`), come to 1.07 of the generator's
time for the VAE, 0.96 for the GAN and 0.98 for the score-based model.

The average of the weights after the last step is taken of each. {guided}Last in each table, for comparison, the
generator that ships, measured in the same way on the same sinograms ([shipped.json](evaluation/shipped.json)); [its
own page](generator.md) has more of it, by the random network in another unit of counts.

Fréchet and kernel distances to real sinograms of test patients, mean over random halvings (95 % interval); "real" is
the floor, as many real ones against real ones. "random-cnn" is an untrained network with fixed weights, "statistics"
are named ones; none of them is the FID of photographs. "Other real ones" are sinograms of validation patients, as
many as were drawn; decoded, they went through an autoencoder and had counts drawn anew, so they stand where its
generator would with a perfect denoiser."""


WHY = """### Why not everywhere

{gan}The VAE's sinograms are near to real ones on average because they are averages: each is plausible, and together
they are a small part of what there is, as recall says ({vae_recall}; real ones have {real_recall}). Its bodies are
too round, so that their totals change too little with the angle (order 0 of the residuals below). The score-based
model, which has no latent, has to learn noise in every bin: its sinograms are grainy, and most of its Fréchet
distance of statistics of sinograms is of one of them, the power of the finest detail.

All of them are trained too short, on one CPU core for {least} to {most} minutes each, and the generator that ships
says by how much: it had four times the steps, and is nearer than the generator of this page in {nearer} of {all}
distances."""

GAN = """The GAN is nearer to real ones than the generator in {ahead} of {all} distances. What holds the generator
back in them is first its autoencoder: other real sinograms that went through it are about as far away as what it
draws (Fréchet of features of the random network {decoded_cnn} against {drawn_cnn}, of statistics {decoded_statistics}
against {drawn_statistics}; in images {decoded_image_cnn} and {decoded_image_statistics} against {drawn_image_cnn} and
{drawn_image_statistics}), so in these distances a perfect denoiser would gain little. It would gain in coverage
({decoded_coverage} against {drawn_coverage} by features of images), in obedience and in the pictures above, whose
bodies are blotchy. A GAN has no such ceiling, and no second network to train. The autoencoder that ships, with four
times the steps, costs little in sinograms and more in images ({ships_image_statistics} of their statistics, where
other real ones have {real_image_statistics} as they are): structures below about 10 mm do not go through its latent.
A larger share of the steps for the autoencoder, or a latent of finer cells, is what to try next.

Of statistics of sinograms the GAN is far off ({gan_statistics}), almost wholly in one of them, the power of the
finest detail: it has to imitate the noise of counting bin by bin, and makes it too strong. The generator draws counts
from Poisson's law.

"""

GUIDED = """The generator draws with guidance {weight} from {start:.0%} of its steps on, which was chosen on validation
patients{also}. """

UNFINISHED = """A generator that was trained as long as these is not among them, so the table does not say which method
is the best."""


def main(argv=None) -> None:
    """Write the page and its pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="folder of allpet evaluate")
    parser.add_argument("shipped", type=Path, help="record of allpet evaluate with the generator that ships")
    parser.add_argument("decoded", type=Path, help="record of decoded_distances.py, of these two generators")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "evaluation.md")
    arguments = parser.parse_args(argv)
    try:
        record, pictures = read_report(arguments.report)
    except InputError as error:
        parser.error(str(error).replace("join must", "report must", 1))
    shipped, decoded = (read_record(parser, name, getattr(arguments, name)) for name in ("shipped", "decoded"))

    def make() -> str:
        if fault := unfit(record["tables"], shipped["tables"]) or other_models(record, shipped, decoded):
            parser.error(fault)
        return page(record, shipped, decoded, pictures)

    write_page(parser, arguments.out, make)
    images = arguments.out.parent / "images"
    try:
        images.mkdir(exist_ok=True)
        for name in shown(pictures):
            (images / f"evaluation-{name}.png").write_bytes(pictures[name])
    except OSError as error:
        parser.error(f"out must be beside a folder of pictures, but {str(images)!r} cannot be written ({error}).")


def shown(pictures) -> list[str]:
    """Return the names of the pictures of a report that the page shows."""
    return [*in_order(pictures, "methods"), *(name for name in ("distances", "translations") if name in pictures)]


def unfit(tables: dict, shipped: dict) -> str | None:
    """Return why there is no page of the tables of these two, if so: nothing to compare, or not the same ruler."""
    if "distances" not in tables:
        return "report must have been made with a generator or a baseline of one, but has translations alone."
    if "generator" not in shipped["prompts"]:
        return "shipped must be a report of the generator that ships, but has no generator."
    if set(tables["distances"]) != set(shipped["distances"]):
        return (f"shipped must have the distances of the report, {', '.join(tables['distances'])}, but had "
                f"{', '.join(shipped['distances'])}; run both with the same --network, or without.")
    ours, theirs = ([t["consistency"]["real, held out"], *(next(iter(by_tracer["all"].values()))["frechet"]["floor"][
        "value"] for by_tracer in t["distances"].values())] for t in (tables, shipped))
    if not all(np.allclose(a, b, rtol=0.01) for a, b in zip(ours, theirs, strict=True)):
        return (f"shipped must be measured on the real sinograms of the report and in the same way, whose "
                f"Helgason-Ludwig residuals and floors are {rounded(ours)}, but had {rounded(theirs)}; run allpet "
                "evaluate --model generator=small on the same store.")
    return None


def other_models(record: dict, shipped: dict, decoded: dict) -> str | None:
    """Return why what was decoded does not belong to the generators of these two, if so."""
    made = {"ships": shipped["made"]["models"]["generator"]["digest"]}
    if "generator" in record["made"]["models"]:
        made["generator"] = record["made"]["models"]["generator"]["digest"]
    if decoded["store"] != record["made"]["store"] or decoded["models"] != made:
        return ("decoded must be of the report's store and of its generator and the one that ships, as generator and "
                f"ships, but was of {', '.join(decoded['models'])}, or of other files; run decoded_distances.py anew.")
    return None


def page(record: dict, shipped: dict, decoded: dict, pictures) -> str:
    """Return the page as Markdown."""
    tables, made = record["tables"], record["made"]
    ships, asked = shipped["tables"], made["models"].get("generator", {}).get("asked", {})
    guided = GUIDED.format(weight=guidance_words(asked["guidance"]), start=asked["guidance_start"],
                           also=", so it stands here without as well" * ("generator, guidance 1" in tables["prompts"])
                           ) if asked else ""
    parts = [HEAD.format(**tables["tier"], made=when_and_where(made), seed=tables["seed"],
                         training=training_commands(made["models"]), command=evaluation_commands(made),
                         shipped=continued(shipped["made"]["command"])),
             GENERATORS.format(budgets=budgets(made["models"]), share=share_of_full(made["models"]), guided=guided),
             figures(in_order(pictures, "methods")), distances(tables, ships, decoded),
             figures(name for name in ("distances",) if name in pictures)]
    if "generator" not in tables["prompts"]:
        parts.append(UNFINISHED)
    else:
        parts.append(ahead(tables))
        if {"vae", "gan", "sgm"} <= set(made["models"]):
            parts.append(why(tables, ships, decoded, made["models"]))
    parts += [prompts(tables, ships), copies(tables, ships), consistency(tables, ships)]
    if "bridge" in made["models"]:
        parts += [translations(tables), figures(["translations"])]
    if tables["certificates"]:
        parts.append(certificates(tables))
    return "\n\n".join(wrapped(part) for block in parts for part in block.split("\n\n")) + "\n"


def why(tables: dict, ships: dict, decoded: dict, models: dict) -> str:
    """Return what holds each generator back, with the figures that show it."""
    def far(of: dict, key: str, name: str, metric: str = "frechet") -> float:
        return of["distances"][key]["all"][name][metric]["generated"]["value"]

    def nearer(one: dict, first: str, other: dict, second: str) -> int:
        return sum(far(one, key, first, metric) < far(other, key, second, metric)
                   for key in tables["distances"] for metric in DISTANCES)

    plain = "generator, guidance 1" if "generator, guidance 1" in tables["prompts"] else "generator"
    keys = {"cnn": "sinogram, random-cnn", "statistics": "sinogram, statistics", "image_cnn": "image, random-cnn",
            "image_statistics": "image, statistics"}
    numbers = {f"{what}_{short}": f"{far(of, key, name):.3g}" for short, key in keys.items() for what, of, name in (
        ("decoded", decoded, "generator"), ("ships", decoded, "ships"), ("real", decoded, AS_THEY_ARE),
        ("drawn", tables, plain), ("gan", tables, "gan"))}
    numbers |= {f"{what}_coverage": f"{far(of, keys['image_cnn'], name, 'coverage'):.2f}" for what, of, name in (
        ("decoded", decoded, "generator"), ("drawn", tables, plain))}
    total = len(tables["distances"]) * len(DISTANCES)
    recall = tables["distances"]["sinogram, statistics"]["all"]["vae"]["recall"]
    minutes = [sum(models[name]["minutes"].values()) for name in ("generator", "vae", "gan", "sgm")]
    of_gan = GAN.format(**numbers, all=total, ahead=nearer(tables, "gan", tables, plain))
    return WHY.format(gan=of_gan, all=total, least=f"{min(minutes):.0f}", most=f"{max(minutes):.0f}",
                      nearer=nearer(ships, "generator", tables, "generator"),
                      vae_recall=f"{recall['generated']['value']:.2f}", real_recall=f"{recall['floor']['value']:.2f}")


def wrapped(part: str) -> str:
    """Return a paragraph in lines of at most 120 characters; tables, lists, headings, pictures and code as they are."""
    if part.startswith(("|", "-", "#", "!", "```")):
        return part
    return textwrap.fill(part, 120, break_long_words=False, break_on_hyphens=False)


def when_and_where(made: dict) -> str:
    """Return the dates and machines of a report, and of those that it was joined to, the first one first."""
    before = f"{when_and_where(made['joined'])}, and on " if "joined" in made else ""
    return f"{before}{made['date']} ({made['hardware']})"


def evaluation_commands(made: dict) -> str:
    """Return the commands of a report, and of those that it was joined to, the first one first.

    Commands are recorded without the folders above; generators are where `training_commands` puts them, but for one
    that ships.
    """
    before = evaluation_commands(made["joined"]) + "\n" if "joined" in made else ""
    ships = "|".join(map(re.escape, shipped_models()))
    command = re.sub(rf"--model generator=(?!({ships})(\s|$))\S+", "--model generator=run", made["command"])
    return before + continued(re.sub(r"--model (vae|gan|sgm)=\S+", r"--model \1=run/\1", command))


def continued(command: str) -> str:
    """Return a command in lines of at most 120 characters, for a shell."""
    words = re.split(r" (?=--)", command)
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) + 3 <= 120:  # a space, and the two characters that say that it goes on
            lines[-1] += f" {word}"
        else:
            lines[-1] += " \\"
            lines.append(f"    {word}")
    return "\n".join(lines)


def training_commands(models: dict) -> str:
    """Return the commands that trained the generators of a report."""
    lines = []
    for name in ("generator", "vae", "gan", "sgm"):
        if name in models:
            method = "" if name == "generator" else f"--method {name} "
            how = {f"{part}.steps": of["steps"] for part, of in models[name]["training"].items()}
            how |= {"precision": models[name]["precision"], "seed": models[name]["seed"]}
            words = " ".join(f"--set training.{setting}={value}" for setting, value in how.items())
            lines.append(continued(f"allpet train {method}--config small --store cohort.zarr --out run {words}"))
    return "\n".join(lines)


def budgets(models: dict) -> str:
    """Return a list of what each generator was trained with."""
    return "\n".join(f"- {NAMES[name]}: " + ", ".join(
        f"{part} {how['steps']:,} steps of {how['batch']}" for part, how in models[name]["training"].items())
        for name in models if name in NAMES)


def share_of_full(models: dict) -> str:
    """Return what part of the steps of the settings "small" the generators had, in words."""
    found = {}
    for name, model in models.items():
        if name in NAMES:
            full = read_settings("small")["training"]
            parts = model["training"]
            found[name] = sum(how["steps"] for how in parts.values()) / sum(full[part]["steps"] for part in parts)
    low, high = min(found.values()), max(found.values())
    return f"{low:.0%}" if f"{low:.0%}" == f"{high:.0%}" else f"{low:.0%} to {high:.0%}"


def figures(names) -> str:
    """Return the links to pictures."""
    return "\n\n".join(f"![{name}](images/evaluation-{name}.png)" for name in names)


if __name__ == "__main__":
    main()
