"""Write docs/translation.md from the records of translation_quality.py, _effects.py and _variants.py.

    python benchmarks/translation_report.py docs/translation.json docs/translation_effects.json \
        docs/translation_variants.json
"""

import argparse
from pathlib import Path

from _record import read_record, write_page

ROOT = Path(__file__).resolve().parents[1]

#: What each method is, in the order of the tables.
METHODS = {
    "source": "the source itself: a low dose times its factor, others times the usual ratio of target to source of "
              "validation patients with the same tracers and region",
    "gaussian": "the source under a two-dimensional Gaussian, its width chosen on validation patients",
    "bsrem, no factors": "BSREM of the low-dose counts as if nothing absorbed or scattered, projected again: what a "
                         "reconstruction can do that is told as little as a bridge; its strength chosen likewise",
    "fbp": "FBP of the corrected low-dose counts with a Hann window, Gaussian post-filter chosen likewise",
    "osem": "OSEM of the low-dose counts, Gaussian post-filter chosen on validation patients",
    "bsrem": "BSREM of the low-dose counts, relative difference prior, strength chosen on validation patients",
    "with CT": "OSEM with the true attenuation, scatter and randoms: what a scanner with a CT makes of these counts",
    "unet": "the bridge's network asked once, from the same start, trained on the same pairs for 6,000 steps of 8, a "
            "third of what the bridge had that ships",
    "unet, views": "the mean of what the U-Net says in as many views as the bridge has samples",
    "cyclegan": "CycleGAN of two such networks, trained without pairs for as long",
    "cyclegan, views": "its mean over views likewise",
    "as long as unet": "a bridge that was trained as long as the U-Net and CycleGAN; its estimate",
    "bridge, one sample": "one sample of the bridge",
    "bridge, mean of samples": "the mean of its samples",
    "bridge": "its estimate: the samples, and with most of the weight what it says at once, in as many views (eq. TE1)",
}

#: Of the settings that are chosen.
UNITS = {"fbp": " mm", "osem": " mm", "bsrem": "", "gaussian": " bins", "bsrem, no factors": ""}
#: The row below which a task's figure of translation_figures.py stands.
PICTURES = {"low-dose 1/20": "low-dose", "attenuation correction": "attenuation-correction",
            "delayed frame": "delayed-frame", "tracer separation": "tracer-separation",
            "tracer conversion": "tracer-conversion"}


def main(argv=None) -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path)
    parser.add_argument("effects", type=Path, nargs="?")
    parser.add_argument("variants", type=Path, nargs="?", help="of translation_variants.py")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "translation.md")
    arguments = parser.parse_args(argv)
    records = [read_record(parser, name, path) if (path := getattr(arguments, name)) else None
               for name in ("record", "effects", "variants")]
    write_page(parser, arguments.out, lambda: page(*records))


def page(record: dict, effects: dict | None = None, variants: dict | None = None) -> str:
    """Return the page as Markdown."""
    cohort, real = record["cohort"], record.get("anatomy")
    parts = [HEAD.format(**cohort), methods(cohort), standing(cohort), *filter(None, [alike(cohort)])]
    for name, row in in_order(cohort["rows"]):
        picture = PICTURES.get(name)
        parts += [row_section(name, row)] + ([f"![{name}](images/translation-{picture}.png)"] if picture else [])
    if real:
        parts += [REAL.format(**real), drop_table(cohort, real)]
        parts += [row_section(f"{name}, real anatomy", row, level=3) for name, row in in_order(real["rows"])]
    if variants:
        parts.append(variants_section(variants))
    if effects:
        parts.append(EFFECTS.format(**effects))
        parts += [SECTIONS[name](effects[name]) for name in SECTIONS if name in effects]
    return "\n\n".join(parts) + "\n"


HEAD = """# Translations, measured

{date}, on {machine}: {patients} {split} patients, one slice each, none of them trained on; tracers go round
within each region. Truth is the expected counts of the target, and in images OSEM of them (2 iterations of 16 subsets,
5 mm Gaussian) with the target's true factors, by which every method's sinogram is reconstructed. Bridge: {steps} DBIM
steps, {samples} samples, seed {seed}. Means with 95 % intervals over patients. PSNR and SSIM take one range for all
items of a table, the median over items of the truth's maximum; nothing is masked.

FBP, OSEM, BSREM and "with CT" are told the true attenuation, scatter and randoms of the slice, as a scanner with a CT
estimates them. The networks, "gaussian" and "bsrem, no factors" see the counts alone.

Filters and priors of images are chosen by the mean PSNR of images, those of sinograms by that of sinograms. The
truth of the images has a filter of 5 mm; BSREM has none.

```
allpet train --task all --config small --store cohort.zarr --out run
allpet train --task all --method unet --config small --store cohort.zarr --out run
allpet train --task all --method cyclegan --config small --store cohort.zarr --out run
python benchmarks/translation_quality.py cohort.zarr --bridge small --unet run/unet --cyclegan run/cyclegan \\
    --model "as long as unet" run/bridge --steps 5 --json docs/translation.json
python benchmarks/translation_quality.py cohort.zarr --bridge small --unet run/unet --cyclegan run/cyclegan \\
    --steps 5 --samples 4 --anatomy DATA --json docs/translation.json
python benchmarks/translation_effects.py cohort.zarr --bridge small --steps 5 --patients 60 \\
    --json docs/translation_effects.json
python benchmarks/translation_figures.py cohort.zarr --bridge small --steps 5
python benchmarks/translation_report.py docs/translation.json docs/translation_effects.json \\
    docs/translation_variants.json
```"""

REAL = """## Anatomy that nobody here made

{date}: {patients} slices, half of a head (labels of FreeSurfer), half of an abdomen (labels of TotalSegmentator and its
CT), scanned by the same simulation with uptake and lesions drawn anew for each slice. Nothing was trained or tuned on
them. There is one person for each region, so the intervals are over heights, tracers, lesions and noise, not over
people. The bridge has {samples} samples here. DATA above is a folder with `brain/labels.nii.gz` and `labels.ctab`
(openneuropet/pet-bids-derivatives-data, Apache-2.0), and `ct_abdomen/labels.nii.gz`, `labels.json` and `ct.nii.gz`
(wasserth/TotalSegmentator's reference files, Apache-2.0)."""

VARIANTS = """## Drawn pairs, and one task alone

{date}, on {machine}: {row}, {patients} test patients, {samples} samples, {steps} steps, seed {seed}.

Drawn pairs: as in the paper, some 500 pairs are all that there is: 84 slices with three tracers in two frames. Without:
600 steps of 8 on these. With: as many steps, half of whose pairs are drawn sinograms of the generator `small`, with a
sample of the bridge of five tasks as target. That teacher has seen far more than 500 pairs, so this is the best that
drawn pairs could do, and no substitute for a teacher of the same 500.

One task: without, a bridge of five tasks, the one "as long as unet"; with, one that was trained for this task alone
with as many pairs of it as the other saw (1,200 steps in place of a fifth of 6,000).

```
allpet train --task attenuation-correction --config small --store cohort.zarr --out single \\
    --set training.bridge.steps=1200
for method in bridge unet; do
  allpet train --task attenuation-correction --method $method --config small --store cohort.zarr --out few \\
      --set data.per_region=28 --set training.$method.steps=600
  allpet train --task attenuation-correction --method $method --config small --store cohort.zarr --out drawn \\
      --set data.per_region=28 --set training.$method.steps=600 \\
      --set synthetic.per_region=28
done
python benchmarks/translation_variants.py cohort.zarr --pair "bridge, drawn pairs" few/bridge drawn/bridge \\
    --pair "U-Net, drawn pairs" few/unet drawn/unet --pair "bridge, one task" run/bridge single/bridge \\
    --samples 4 --steps 5 --json docs/translation_variants.json
```"""

WHY = """Where the U-Net is ahead, it has the easier work: it is asked for the mean at the start alone, by the squared
error that PSNR measures. A bridge of its size and computing spends four tenths of its steps on that mean, and the rest
on what leads from there to a sample; so at the start it knows less. With three times the computing, the bridge that
ships is ahead of this U-Net where the one "as long as unet" is behind it, but for conversion and, in images,
attenuation and mixed tracers, where the source says least of the target. CycleGAN sees no pairs, and going there and
back again is done best by changing next to nothing: that is good enough where source and target are alike, at a quarter
of the dose."""

EFFECTS = """## What the settings do

{date}, on {machine}: test patients, {samples} samples, seed {seed}; the same slices and seeds in all lines of a
table. PSNR is of sinograms, with the range of the table's own slices: of nine patients for samplers and guidance, of
slices with lesions for attention, so it is not to be compared between tables."""


def in_order(rows: dict) -> list:
    """Return the rows in the order of the tasks, doses falling."""
    order = [*(f"low-dose 1/{factor}" for factor in (4, 10, 20, 50, 100)), *PICTURES]
    return sorted(rows.items(), key=lambda item: order.index(item[0]))


def methods(record: dict) -> str:
    """Return what the methods are."""
    there = {name for row in record["rows"].values() for name in row["images"]["methods"]}
    return "\n".join(["| method | |", "|---|---|",
                      *(f"| {name} | {what} |" for name, what in METHODS.items() if name in there)])


def standing(record: dict) -> str:
    """Return where the bridge stands: beside the best other method, in each domain."""
    lines = ["## Where the bridge stands", "",
             'PSNR in dB, means; the best of the others in each domain, "with CT" left out.', "",
             "| | sinograms: bridge | best other | images: bridge | best other |", "|" + "---|" * 5]
    for name, row in in_order(record["rows"]):
        cells = []
        for domain in ("sinograms", "images"):
            found = {method: row[domain]["methods"][method]["metrics"]["psnr"]["mean"]
                     for method in row[domain]["methods"]}
            if "bridge" not in found:
                break
            best = max((m for m in found if not m.startswith(("bridge", "as long")) and m != "with CT"), key=found.get)
            own = f"{found['bridge']:.2f}"
            cells += [f"**{own}**" if found["bridge"] > found[best] else own, f"{best}, {found[best]:.2f}"]
        else:
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def alike(record: dict) -> str:
    """Return the networks that were trained alike beside one another, or nothing where there are none."""
    methods = {"bridge": "as long as unet", "U-Net": "unet", "in views": "unet, views", "CycleGAN": "cyclegan",
               "in views ": "cyclegan, views"}
    rows = [(name, row) for name, row in in_order(record["rows"])
            if all(m in row["images"]["methods"] for m in methods.values())]
    if not rows:
        return ""
    lines = ["## Trained alike", "",
             "A bridge, a U-Net and a CycleGAN of one network, from one start, on the same pairs, with as much "
             "computing: 6,000 steps of 8, 6,000 of 8 and 1,900 of 4. PSNR in dB, means.", "",
             "| | " + " | ".join([f"sinograms: {next(iter(methods))}", *list(methods)[1:],
                                  f"images: {next(iter(methods))}", *list(methods)[1:]]) + " |",
             "|" + "---|" * (2 * len(methods) + 1)]
    for name, row in rows:
        cells = []
        for domain in ("sinograms", "images"):
            found = [row[domain]["methods"][m]["metrics"]["psnr"]["mean"] for m in methods.values()]
            cells += [f"**{v:.2f}**" if v == max(found) else f"{v:.2f}" for v in found]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", WHY])


def row_section(name: str, row: dict, level: int = 2) -> str:
    """Return the table of one task."""
    lines = [f"{'#' * level} {name[0].upper()}{name[1:]}", "",
             "| | PSNR, sinograms | SSIM | RMSE, counts | total counts | PSNR, images | SSIM | RMSE, SUV | "
             "organs, bias | lesions, bias | its size | contrast |", "|" + "---|" * 12]
    for method in METHODS:
        if method not in row["images"]["methods"]:
            continue
        counts, images = (row[domain]["methods"][method] for domain in ("sinograms", "images"))
        organs = [r["bias_error"]["mean"] for n, r in images["regions"].items() if n != "lesions"]
        organs = [v for v in organs if v is not None]
        lines.append("| " + " | ".join([
            method, decibel(counts["metrics"]["psnr"]), number(counts["metrics"]["ssim"]),
            f"{counts['metrics']['rmse']['mean']:.3g}", percent(counts["metrics"]["total_error"]),
            decibel(images["metrics"]["psnr"]), number(images["metrics"]["ssim"]),
            f"{images['metrics']['rmse']['mean']:.3g}",
            f"{100 * sum(organs) / len(organs):.1f} %" if organs else "–",
            percent(images["regions"]["lesions"]["bias"]), share(images["regions"]["lesions"]["bias_error"]),
            ratio(images["lesions"]["recovery"])]) + " |")
    lines += ["", "Organs: mean size of the bias; lesions: mean bias, its mean size, contrast recovered (1 is right)."]
    if row.get("chosen"):
        lines.append("Chosen on validation patients: "
                     + ", ".join(f"{name} {value:g}{UNITS[name]}" for name, value in row["chosen"].items()) + ".")
    better = row["images"]["methods"].get("bridge", {}).get("difference")
    if better:
        counts = row["sinograms"]["methods"]["bridge"]["difference"]["metrics"]["psnr"]
        lines.append(f"Bridge less U-Net, on the same slices: {decibel(counts)} dB in sinograms, "
                     f"{decibel(better['metrics']['psnr'])} dB in images.")
    covered = row["sinograms"]["methods"].get("bridge", {}).get("coverage")
    if covered:
        inside = percent(covered["bins"]["inside"], signed=False)
        lines.append(f"Of the bins, {inside} lie in the bridge's central 90 % interval"
                     + regions_covered(row["regions covered"]["bridge"]["regions"]) + ".")
    return "\n".join(lines)


def regions_covered(regions: dict) -> str:
    """Return how many of the means of organs and of lesions, in images, lie in their intervals."""
    text = []
    for what, names in (("organs", set(regions) - {"lesions"}), ("lesions", {"lesions"})):
        found = [regions[name]["inside"] for name in names if regions[name]["inside"]["mean"] is not None]
        n = sum(value["n_items"] for value in found)
        if n:
            text.append(f"{sum(value['mean'] * value['n_items'] for value in found):.0f} of {n} {what}")
    return "; of means in images, " + " and ".join(text) if text else ""


def drop_table(cohort: dict, real: dict) -> str:
    """Return how much worse the bridge does on real anatomy than on test patients, in errors that need no range."""
    lines = ["Root mean square error of the bridge over the root mean square of the truth, which needs no range; test "
             "patients include chests.", "",
             "| | sinograms: test patients | real anatomy | images: test patients | real anatomy |", "|" + "---|" * 5]
    for name, row in in_order(real["rows"]):
        cells = [percent(where[domain]["methods"]["bridge"]["metrics"]["nrmse"], signed=False)
                 for domain in ("sinograms", "images") for where in (cohort["rows"].get(name), row)
                 if where and "bridge" in where[domain]["methods"]]
        if len(cells) == 4:
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def variants_section(found: dict) -> str:
    """Return the table of models that differ in one thing."""
    lines = [VARIANTS.format(**found), "", "| what differs | sinograms: PSNR without | with | more, dB | images: PSNR "
             "without | with | more, dB |", "|" + "---|" * 7]
    for what, row in found["pairs"].items():
        cells = [cell for domain in ("sinograms", "images") for cell in (
            f"{row[domain]['without']['psnr']['mean']:.2f}", f"{row[domain]['with']['psnr']['mean']:.2f}",
            decibel(row[domain]["with"]["psnr more"]))]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def steps_section(found: dict) -> str:
    """Return the table of samplers."""
    lines = ["### Steps and samplers", "", "Low dose 1/20.", "",
             "| sampler, steps | PSNR of the estimate | of the mean of samples | of one sample | s |", "|" + "---|" * 5]
    lines += [f"| {name} | {decibel(row['estimate']) if 'estimate' in row else '–'} | {decibel(row['mean'])} | "
              f"{decibel(row['one sample'])} | {row['seconds']:.0f} |"
              for name, row in found.items() if isinstance(row, dict)]
    return "\n".join(lines)


def attention_section(found: dict) -> str:
    """Return the table of the gate."""
    lines = ["### Attention to lesions", "", f"Low dose 1/20, {found['items']} slices with lesions; bias of lesions in "
             "images.", "", "| gate: region, λ | PSNR | bias | its size | change of its size |", "|" + "---|" * 5]
    lines += [f"| {name} | {decibel(row['psnr'])} | {percent(row['bias'])} | "
              f"{percent(row['size of the bias'], signed=False)} | "
              f"{'–' if name == 'off' else percent(row['change of its size'])} |"
              for name, row in found.items() if name != "items"]
    return "\n".join(lines)


def likelihood_section(found: dict) -> str:
    """Return the table of guidance by measured counts."""
    lines = ["### Guidance by the measured counts", "", "| dose, strength | PSNR | deviance over that of noise |",
             "|---|---|---|"]
    lines += [f"| {name} | {decibel(row['psnr'])} | {number(row['deviance over that of noise'])} |"
              for name, row in found.items()]
    return "\n".join(lines)


def seconds_section(found: dict) -> str:
    """Return the line on time."""
    return (f"### Time\n\nA stack of {found['slices']} slices of low dose in 10 steps: {found['1 sample']:.0f} s for "
            f"one sample each, {found['20 samples']:.0f} s for 20, on {found['threads']} threads of "
            f"{found['processors']} processors, beside whatever else they did.")


SECTIONS = {"steps": steps_section, "attention": attention_section, "likelihood": likelihood_section,
            "seconds": seconds_section}


def decibel(value: dict) -> str:
    """Return a mean with its interval in dB."""
    return f"{value['mean']:.2f} ({value['low']:.2f}–{value['high']:.2f})"


def share(value: dict) -> str:
    """Return a mean in per cent."""
    return "–" if value["mean"] is None else f"{100 * value['mean']:.0f} %"


def ratio(value: dict) -> str:
    """Return a mean as it is."""
    return "–" if value["mean"] is None else f"{value['mean']:.2f}"


def number(value: dict) -> str:
    """Return a mean."""
    return f"{value['mean']:.3f}"


def percent(value: dict, signed: bool = True) -> str:
    """Return a mean with its interval in per cent."""
    if value["mean"] is None:
        return "–"
    sign = "+" if signed else ""
    mean, low, high = (None if value[k] is None else f"{100 * value[k]:{sign}.1f}" for k in ("mean", "low", "high"))
    return f"{mean} %" if low is None else f"{mean} % ({low} to {high})"


if __name__ == "__main__":
    main()
