"""Write docs/evaluation.md, and its pictures, from a report of `allpet evaluate` with baselines of the generator.

    python benchmarks/evaluation_report.py docs/evaluation docs/generator_small.json
"""

import argparse
import re
import sys
import textwrap
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _record import read_record

from allpet_gen._pretrained import shipped_models
from allpet_gen.certificate import printed
from allpet_gen.evaluation.report import rounded
from allpet_gen.evaluation.report_join import in_order, read_report
from allpet_gen.settings import read_settings
from allpet_physics.errors import InputError

ROOT = Path(__file__).resolve().parents[1]

#: What a report calls each generator, and what the page does.
NAMES = {"generator": "generator", "generator, guidance 1": "generator, no guidance", "vae": "VAE", "gan": "GAN",
         "sgm": "score-based model"}
#: What is compared: less is better.
_DISTANCES = ("frechet", "kernel_rbf", "kernel_polynomial")

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
python benchmarks/evaluation_report.py docs/evaluation docs/generator_small.json
```

The same checkpoints and store give the same tables again, to the last digit on one machine."""

GENERATORS = """## Generators beside one another

All were trained on the same sinograms of the same patients, with the same augmentation, prompts and seed, and each with
about as much computing, {share} of the steps in the settings `small`, with which the one that ships was trained:

{budgets}

The average of the weights after the last step is taken of each. {guided}Last in each table, for comparison, the
generator that ships; its figures are of [its own page](generator.md), measured on the same sinograms.

Fréchet and kernel distances to real sinograms of test patients, mean over random halvings (95 % interval); "real" is
the floor, as many real ones against real ones. "random-cnn" is an untrained network with fixed weights, "statistics"
are named ones; none of them is the FID of photographs."""


WITHOUT_GAN = """There is no GAN among them yet. One was trained as long as the others and drew one sinogram for each
prompt: its discriminator began with weights under which the signal faded, so that it could not tell drawn sinograms
from real ones (its loss stayed at 1.95, and guessing has 2). The start is mended; whether that is all it lacked, a new
one has to show. To show the old one would flatter the others."""

WHY = """### Why not everywhere

The generator's guidance was chosen for the one that ships. A denoiser with a quarter of its training is not worth so
much trust: guided, it obeys more and makes some caricatures, abdomens with wide arms and hollow trunks, which lie far
from all real ones. Fréchet distances and the polynomial kernel weigh such draws by the square of their distance and
more, the RBF kernel hardly: wherever it is behind, it is so in one of the first two.

The VAE's sinograms are near to real ones on average because they are averages: each is plausible, and together they
are a small part of what there is, as recall says. Its bodies are too round, so that their totals change too little with
the angle (order 0 of the residuals below). The score-based model, which has no latent, has to learn noise in every bin:
its sinograms are grainy, and most of its Fréchet distance of statistics of sinograms is of one of them, the power of
the finest detail.

All of them are trained too short, on one CPU core for 45 to 55 minutes each, and the generator that ships says by how
much: with four times the steps it is nearer than all here, guided as it is, in every distance but one, the polynomial
kernel of random features of images (1.10, where the VAE has 0.75)."""

GUIDED = """The generator's guidance was chosen on validation patients, so it stands here without as well. """

UNFINISHED = """A generator that was trained as long as these is not among them, so the table does not say which method
is the best."""


def main(argv=None) -> None:
    """Write the page and its pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="folder of allpet evaluate")
    parser.add_argument("shipped", type=Path, help="record of generator_quality.py")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "evaluation.md")
    arguments = parser.parse_args(argv)
    try:
        record, pictures = read_report(arguments.report)
    except InputError as error:
        parser.error(str(error).replace("join must", "report must", 1))
    shipped = read_record(parser, "shipped", arguments.shipped)
    try:
        if fault := unfit(record["tables"], shipped):
            parser.error(fault)
        text = page(record, shipped, pictures)
    except (KeyError, TypeError, AttributeError) as error:
        parser.error("report and shipped must be whole records of allpet evaluate and of generator_quality.py, but "
                     f"one of them lacks a part ({type(error).__name__}: {error}).")
    images = arguments.out.parent / "images"
    try:
        images.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text, encoding="utf-8")
        for name in shown(pictures):
            (images / f"evaluation-{name}.png").write_bytes(pictures[name])
    except OSError as error:
        parser.error(f"out must be a file that can be written, but {str(arguments.out)!r} is none ({error}).")


def shown(pictures) -> list[str]:
    """Return the names of the pictures of a report that the page shows."""
    return [*in_order(pictures, "methods"), *(name for name in ("distances", "translations") if name in pictures)]


def unfit(tables: dict, shipped: dict) -> str | None:
    """Return why there is no page of these two, if so: nothing to compare, or real sinograms that are not the same."""
    if "distances" not in tables:
        return "report must have been made with a generator or a baseline of one, but has translations alone."
    ours, theirs = tables["consistency"]["real, held out"], shipped["consistency"]["real, held out"]["all"]
    if not np.allclose(ours, theirs, rtol=1e-3):
        return (f"shipped must be measured on the real sinograms of the report, whose Helgason-Ludwig residuals are "
                f"{rounded(ours)}, but was on some with {rounded(theirs)}; run generator_quality.py on the same store.")
    return None


def page(record: dict, shipped: dict, pictures) -> str:
    """Return the page as Markdown."""
    tables, made = record["tables"], record["made"]
    parts = [HEAD.format(**tables["tier"], made=when_and_where(made), seed=tables["seed"],
                         training=training_commands(made["models"]), command=evaluation_commands(made)),
             GENERATORS.format(budgets=budgets(made["models"]), share=share_of_full(made["models"]),
                               guided=GUIDED if "generator" in made["models"] else ""),
             figures(in_order(pictures, "methods")), distances(tables, shipped),
             figures(name for name in ("distances",) if name in pictures)]
    if "gan" not in made["models"]:
        parts.insert(2, WITHOUT_GAN)
    parts += [ahead(tables), WHY] if "generator" in tables["prompts"] else [UNFINISHED]
    parts += [prompts(tables, shipped), copies(tables, shipped), consistency(tables)]
    if "bridge" in made["models"]:
        parts += [translations(tables), figures(["translations"])]
    if tables["certificates"]:
        parts.append(certificates(tables))
    return "\n\n".join(wrapped(part) for block in parts for part in block.split("\n\n")) + "\n"


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


def distances(tables: dict, shipped: dict) -> str:
    """Return a table of distances for each domain and features."""
    parts = []
    for key, by_tracer in tables["distances"].items():
        lines = [f"### {key}", "", "| | Fréchet | × real | kernel, RBF | precision | recall | coverage |",
                 "|" + "---|" * 7]
        rows = {NAMES[name]: by_tracer["all"][name] for name in NAMES if name in by_tracer["all"]}
        for name, found in (rows | {"the generator that ships": shipped["distances"][key]}).items():
            lines.append(row(name, found, "generated"))
        lines.append(row("real", next(iter(rows.values())), "floor"))
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def row(name: str, found: dict, side: str) -> str:
    """Return a row of the table of distances."""
    of_floor = found["frechet"][side]["value"] / found["frechet"]["floor"]["value"]
    shares = (f"{found[metric][side]['value']:.2f}" for metric in ("precision", "recall", "coverage"))
    return (f"| {name} | {cell(found['frechet'][side])} | {of_floor:.2f} | {cell(found['kernel_rbf'][side])} | "
            f"{' | '.join(shares)} |")


def cell(values: dict) -> str:
    """Return a value with its interval."""
    return f"{values['value']:.3g} ({values['low']:.3g} to {values['high']:.3g})"


def ahead(tables: dict) -> str:
    """Return a table of where the generator is nearer to real sinograms than each baseline, guided and not."""
    found = {key: by_tracer["all"] for key, by_tracer in tables["distances"].items()}
    measured = next(iter(found.values()))
    pairs = [(ours, other) for ours in ("generator", "generator, guidance 1") for other in ("vae", "gan", "sgm")
             if ours in measured and other in measured]
    titles = [f"{'guided' if ours == 'generator' else 'not guided'}, {NAMES[other]}" for ours, other in pairs]
    lines = ["### Is the generator ahead?", "",
             "Ahead of a baseline, where its distance is the smaller; clearly so, where the intervals are apart.", "",
             f"| | {' | '.join(titles)} |", "|---" * (len(pairs) + 1) + "|"]
    for key, of in found.items():
        for metric in _DISTANCES:
            cells = [verdict(of[ours][metric]["generated"], of[other][metric]["generated"]) for ours, other in pairs]
            lines.append(f"| {key}, {metric.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def verdict(ours: dict, other: dict) -> str:
    """Return where a distance stands beside another one."""
    place = "ahead" if ours["value"] < other["value"] else "**behind**"
    apart = ours["high"] < other["low"] or other["high"] < ours["low"]
    return f"{place}, clearly" if apart else f"{place}, within the intervals"


def prompts(tables: dict, shipped: dict) -> str:
    """Return the table of obedience."""
    lines = ["### Prompts", "",
             "What a classifier of real training sinograms names; the score is the exponential of the mean divergence "
             "of its certainty, in the manner of Inception's.", "",
             "| | tracer | region | both | score |", "|---|---|---|---|---|"]
    rows = {NAMES.get(name, name): found for name, found in tables["prompts"].items()}
    for name, found in rows.items():
        lines.append(f"| {name} | " + " | ".join(f"{100 * found[k]:.1f} %" for k in ("tracer", "region", "both"))
                     + f" | {cell(found['score'])} |")
    found = shipped["prompts"]["generated"]
    lines.append("| the generator that ships | " + " | ".join(f"{100 * found[k]:.1f} %" for k in ("tracer", "region",
                                                                                                   "both")) + " | |")
    empty = ", ".join(f"{NAMES[name]} {n}" for name, n in tables["left out"].items() if n)
    return "\n".join([*lines, "", f"Empty draws, left out: {empty or 'none'}."])


def copies(tables: dict, shipped: dict) -> str:
    """Return the table of copies of training patients."""
    lines = ["### Copies of training patients", "", "| | copies | authentic |", "|---|---|---|"]
    rows = {NAMES[name]: tables["copies"][name] for name in NAMES if name in tables["copies"]}
    rows["the generator that ships"] = shipped["copies"]
    lines += [f"| {name} | " + " | ".join(share(found[key]["generated"]) for key in ("copies", "authenticity")) + " |"
              for name, found in rows.items()]
    for real in list(tables["copies"].values())[:1]:  # none, where the store lacks the training patients
        shares = (share(real[key]["held_out"]) for key in ("copies", "authenticity"))
        lines.append(f"| real, held out | {' | '.join(shares)} |")
    return "\n".join(lines)


def share(values: dict) -> str:
    """Return a share with its interval, in per cent."""
    return f"{100 * values['value']:.1f} % ({100 * values['low']:.1f} to {100 * values['high']:.1f})"


def consistency(tables: dict) -> str:
    """Return the table of Helgason-Ludwig residuals."""
    lines = ["### Helgason–Ludwig residuals", "",
             "Of uncorrected counts, in per cent: what a generator should have is what real ones have.", "",
             "| | order 0 | 1 | 2 | 3 |", "|---|---|---|---|---|"]
    lines += [f"| {NAMES.get(name, name)} | " + " | ".join(f"{100 * v:.1f}" for v in values) + " |"
              for name, values in tables["consistency"].items()]
    return "\n".join(lines)


def translations(tables: dict) -> str:
    """Return the bridge beside the best of the methods that are told as little, and beside the source."""
    lines = ["## Translations", "",
             "PSNR of images in dB, of the bridge that ships and of the best classical method, {patients} patients, "
             "{samples} samples; [Translations, measured](translation.md) has all methods, baselines and "
             "doses.".format(**tables["tier"]), "",
             "| | source | best classical method | bridge |", "|---|---|---|---|"]
    for name, found in tables["translations"].items():
        methods = {m: f["metrics"]["psnr"] for m, f in found["images"]["methods"].items()}
        classical = {m: f for m, f in methods.items() if m in ("fbp", "osem", "bsrem", "gaussian", "bsrem, no factors")}
        best = max(classical, key=lambda m: classical[m]["mean"]) if classical else None
        said = f"{interval(classical[best])}, {best}" if best else "none"
        lines.append(f"| {name} | {interval(methods['source'])} | {said} | {interval(methods['bridge'])} |")
    return "\n".join(lines)


def interval(found: dict) -> str:
    """Return a mean in dB with its interval."""
    return f"{found['mean']:.1f} ({found['low']:.1f} to {found['high']:.1f})"


def certificates(tables: dict) -> str:
    """Return the bounds at one chance of error, before and after augmentation."""
    lines = ["## PAC-Bayes bounds", "",
             "Of the denoising loss, n in patients; predicting nothing has about 1. The generator is the one of this "
             "page, and the patients are the test patients of this store; [those of the models that ship]"
             "(certificates.md) have more patients.", "",
             "| | patients | loss | bound, δ = 0.05 | bound, δ = 0.001 |", "|---|---|---|---|---|"]
    for name, kinds in tables["certificates"].items():
        for kind, found in kinds.items():
            bounds = {r["delta"]: printed(r["bound"]) + (" (vacuous)" if r["vacuous"] else "") for r in found["rows"]}
            lines.append(f"| {name}, {kind} | {found['patients']} | {found['loss']:.4f} | {bounds[0.05]} | "
                         f"{bounds[0.001]} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
