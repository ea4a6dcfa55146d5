"""The tables of docs/evaluation.md: generators beside one another, the bridge beside classical methods, bounds."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from allpet_gen.certificate import printed

#: What a report calls each generator, and what the page does.
NAMES = {"generator": "generator", "generator, guidance 1": "generator, no guidance", "vae": "VAE", "gan": "GAN",
         "sgm": "score-based model"}
SHIPS = "the generator that ships"
#: What `decoded_distances.py` calls its rows, and what the page does.
AS_THEY_ARE = "as they are"
DECODED = {AS_THEY_ARE: "other real ones", "generator": "other real ones, decoded by the generator",
           "ships": "other real ones, decoded by the one that ships"}
#: What is compared: less is better.
DISTANCES = ("frechet", "kernel_rbf", "kernel_polynomial")


def distances(tables: dict, shipped: dict, decoded: dict) -> str:
    """Return a table of distances for each domain and features; what was decoded stands below what was drawn."""
    parts = []
    for key, by_tracer in tables["distances"].items():
        lines = [f"### {key}", "", "| | Fréchet | × real | kernel, RBF | precision | recall | coverage |",
                 "|" + "---|" * 7]
        rows = {NAMES[name]: by_tracer["all"][name] for name in NAMES if name in by_tracer["all"]}
        for name, found in (rows | {SHIPS: shipped["distances"][key]["all"]["generator"]}).items():
            lines.append(row(name, found, "generated"))
        for name, found in decoded["distances"][key]["all"].items():
            if name in DECODED:
                lines.append(row(DECODED[name], found, "generated"))
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
        for metric in DISTANCES:
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
    rows[SHIPS] = shipped["prompts"]["generator"]
    for name, found in rows.items():
        lines.append(f"| {name} | " + " | ".join(f"{100 * found[k]:.1f} %" for k in ("tracer", "region", "both"))
                     + f" | {cell(found['score'])} |")
    empty = ", ".join(f"{NAMES[name]} {n}" for name, n in tables["left out"].items() if n)
    return "\n".join([*lines, "", f"Empty draws, left out: {empty or 'none'}."])


def copies(tables: dict, shipped: dict) -> str:
    """Return the table of copies of training patients."""
    lines = ["### Copies of training patients", "",
             "Looked for over rotations and the mirror, in bins and in features of the random network.", "",
             "| | copies, bins | authentic | copies, features | authentic |", "|---|---|---|---|---|"]
    rows = {NAMES[name]: tables["copies"][name] for name in NAMES if name in tables["copies"]}
    rows[SHIPS] = shipped["copies"]["generator"]
    real = [("real, held out", found, "held_out") for found in list(rows.values())[-1:]]
    for name, found, side in [*((name, found, "generated") for name, found in rows.items()), *real]:
        both = [(by, key) for by in (found, found.get("in features")) for key in ("copies", "authenticity")]
        lines.append(f"| {name} | " + " | ".join(share(by[key][side]) if by else "–" for by, key in both) + " |")
    return "\n".join(lines)


def share(values: dict) -> str:
    """Return a share with its interval, in per cent."""
    return f"{100 * values['value']:.1f} % ({100 * values['low']:.1f} to {100 * values['high']:.1f})"


def consistency(tables: dict, shipped: dict) -> str:
    """Return the table of Helgason-Ludwig residuals."""
    lines = ["### Helgason–Ludwig residuals", "",
             "Of uncorrected counts, in per cent: what a generator should have is what real ones have.", "",
             "| | order 0 | 1 | 2 | 3 |", "|---|---|---|---|---|"]
    rows = {NAMES.get(name, name): values for name, values in tables["consistency"].items()}
    lines += [f"| {name} | " + " | ".join(f"{100 * v:.1f}" for v in values) + " |"
              for name, values in (rows | {SHIPS: shipped["consistency"]["generator"]}).items()]
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
             "page, and the patients are the test patients of this store, with three slices each; [those of the models "
             "that ship](certificates.md) have more patients and their middle slices alone. Each generator predicts in "
             "latents of its own, so a lower loss is not a better generator.", "",
             "| | patients | loss | bound, δ = 0.05 | bound, δ = 0.001 |", "|---|---|---|---|---|"]
    for name, kinds in tables["certificates"].items():
        for kind, found in kinds.items():
            bounds = {r["delta"]: printed(r["bound"]) + (" (vacuous)" if r["vacuous"] else "") for r in found["rows"]}
            lines.append(f"| {name}, {kind} | {found['patients']} | {found['loss']:.4f} | {bounds[0.05]} | "
                         f"{bounds[0.001]} |")
    return "\n".join(lines)
