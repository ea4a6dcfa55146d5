"""Write docs/translation.md from the record of translation_quality.py.

    python benchmarks/translation_report.py docs/translation.json
"""

import argparse
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: What each method is, in the order of the tables.
METHODS = {
    "source": "the source itself, scaled to full dose (of a mixture, half of it)",
    "osem": "OSEM of the low-dose counts, Gaussian post-filter chosen on validation patients",
    "bsrem": "BSREM of the low-dose counts, relative difference prior, strength chosen on validation patients",
    "with CT": "OSEM with the true attenuation, scatter and randoms: what a scanner with a CT makes of these counts",
    "unet": "the same network asked once, trained for the mean",
    "cyclegan": "CycleGAN, unpaired",
    "bridge, one sample": "one sample of the bridge",
    "bridge": "mean of the bridge's samples",
}


def main(argv=None) -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "translation.md")
    arguments = parser.parse_args(argv)
    arguments.out.write_text(page(json.loads(arguments.record.read_text())))


def page(record: dict) -> str:
    """Return the page as Markdown."""
    parts = [HEAD.format(**record), methods(record)]
    parts += [row_section(name, row) for name, row in record["rows"].items()]
    return "\n\n".join(parts) + "\n"


HEAD = """# Translations, measured

{date}, on {machine}: {patients} {split} patients, one slice each, none of them trained on; tracers go round with the
patients. Truth is the expected counts of the target, and in images OSEM of them (2 iterations of 16 subsets, 5 mm
Gaussian) with the target's true factors, by which every method's sinogram is reconstructed. Bridge: {steps} DBIM steps,
{samples} samples, seed {seed}. Means with 95 % intervals over patients. PSNR and SSIM take one range for all items of a
table, the median over items of the truth's maximum; nothing is masked. Repeat it with
`python benchmarks/translation_quality.py` and `python benchmarks/translation_report.py`."""


def methods(record: dict) -> str:
    """Return what the methods are."""
    there = {name for row in record["rows"].values() for name in row["images"]["methods"]}
    return "\n".join(["| method | |", "|---|---|",
                      *(f"| {name} | {what} |" for name, what in METHODS.items() if name in there)])


def row_section(name: str, row: dict) -> str:
    """Return the table of one task."""
    lines = [f"## {name[0].upper()}{name[1:]}", "",
             "| | PSNR, sinograms | SSIM | total counts | PSNR, images | SSIM | lesions | organs |",
             "|---|---|---|---|---|---|---|---|"]
    for method in METHODS:
        if method not in row["images"]["methods"]:
            continue
        counts, images = (row[domain]["methods"][method] for domain in ("sinograms", "images"))
        organs = [r["bias_error"]["mean"] for n, r in images["regions"].items() if n != "lesions"]
        organs = [v for v in organs if v is not None]
        lines.append("| " + " | ".join([
            method, decibel(counts["metrics"]["psnr"]), number(counts["metrics"]["ssim"]),
            percent(counts["metrics"]["total_error"]), decibel(images["metrics"]["psnr"]),
            number(images["metrics"]["ssim"]), percent(images["regions"]["lesions"]["bias"]),
            f"{100 * sum(organs) / len(organs):.1f} %" if organs else "–"]) + " |")
    lines += ["", "Lesions: mean bias; organs: mean size of the bias."]
    covered = row["sinograms"]["methods"].get("bridge", {}).get("coverage")
    if covered:
        share = percent(covered["bins"]["coverage"], signed=False)
        lines.append(f"Of the bins, {share} lie in the bridge's central 90 % interval.")
    return "\n".join(lines)


def decibel(value: dict) -> str:
    """Return a mean with its interval in dB."""
    return f"{value['mean']:.2f} ({value['low']:.2f}–{value['high']:.2f})"


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
