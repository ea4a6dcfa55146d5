"""Measure translations on patients that no method has seen, beside every baseline, in sinograms and in images.

    python benchmarks/translation_quality.py cohort.zarr --bridge small --unet run/unet --json docs/translation.json

Settings of the classical methods (post-filter, strength of the prior) are chosen on validation patients, never on those
that are tested. PSNR and SSIM take one range for all items of a row: the median over items of the truth's maximum.
"""

import argparse
import json
import platform
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _translation import draw_items, images, projected

#: Rows of the table: task and dose factor.
ROWS = {"low-dose 1/4": ("low-dose", 4), "low-dose 1/10": ("low-dose", 10), "low-dose 1/20": ("low-dose", 20),
        "low-dose 1/50": ("low-dose", 50), "low-dose 1/100": ("low-dose", 100),
        "attenuation correction": ("attenuation-correction", None), "delayed frame": ("delayed-frame", None),
        "tracer separation": ("tracer-separation", None), "tracer conversion": ("tracer-conversion", None)}
FILTERS_MM = (5.0, 8.0, 12.0, 16.0)
STRENGTHS = (0.003, 0.01, 0.03, 0.1)


def main(argv=None) -> dict:
    """Measure, print and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="the cohort that the models were trained on, with its test patients")
    parser.add_argument("--bridge", help="a shipped model's name, or a folder")
    parser.add_argument("--unet", help="a folder")
    parser.add_argument("--cyclegan", help="a folder")
    parser.add_argument("--patients", type=int, default=72)
    parser.add_argument("--samples", type=int, default=8, help="posterior samples of the bridge (default %(default)s)")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--json", type=Path, help="write, or renew, the record here")
    arguments = parser.parse_args(argv)
    record = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.exists() else {"rows": {}}
    record |= {"date": str(date.today()), "machine": f"{platform.machine()}, Python {platform.python_version()}",
               "split": arguments.split, "seed": arguments.seed, "steps": arguments.steps,
               "samples": arguments.samples}
    models = load_models(arguments)
    studies, tuning = (read_studies(arguments.store, split, n) for split, n in
                       ((arguments.split, arguments.patients), ("validation", 12)))
    record["patients"] = len(studies)
    for name in arguments.rows:
        began = time.perf_counter()
        task, factor = ROWS[name]
        items = draw_items(studies, task, dose_factor=factor)
        record["rows"][name] = measure(items, draw_items(tuning, task, dose_factor=factor), models, arguments)
        print(f"{name} ({time.perf_counter() - began:.0f} s)\n{table(record['rows'][name])}", flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    return record


def load_models(arguments) -> dict:
    """Return the trained methods by name."""
    models = {}
    if arguments.bridge:
        from allpet_gen import SinogramBridgePipeline

        models["bridge"] = SinogramBridgePipeline.from_pretrained(arguments.bridge)
    for name in ("unet", "cyclegan"):
        if getattr(arguments, name):
            from allpet_gen.baselines.unet import UNetPipeline

            models[name] = UNetPipeline.from_pretrained(getattr(arguments, name))
    return models


def read_studies(store, split, n):
    """Return studies of the first patients of a part, with their numbers."""
    from allpet_physics.simulation import read_cohort

    part = read_cohort(store, split=split)
    return [(int(p), part.patient_study(int(p))) for p in np.unique(part.patients)[:n]]


def measure(items, tuning, models, arguments) -> dict:
    """Return what `summary` says of all methods for one row, in both domains."""
    from allpet_gen.evaluation.paired import summary

    counts, pictures, samples = classical(items, tuning)
    for name, model in models.items():
        made = translate(model, items, arguments)
        counts[name] = made["mean"]
        if made["samples"] is not None:
            samples[name] = made["samples"]
            counts[f"{name}, one sample"] = made["samples"][:, 0]
    for name, sinograms in counts.items():
        if name not in pictures:
            pictures[name] = images(sinograms, items)
    truth = images(items.truth, items)
    reference = "unet" if "unet" in counts else None
    enough = {k: v for k, v in samples.items() if v.shape[1] >= 19}
    return {"sinograms": summary(counts, items.truth, items.patients, data_range=usual_maximum(items.truth),
                                 reference=reference, counts=items.measured, samples=enough or None),
            "images": summary(pictures, truth, items.patients,
                              data_range=usual_maximum(truth), reference=reference, masks=items.masks,
                              lesions=items.masks["lesions"], lesion_background=items.lesion_background)}


def usual_maximum(truth) -> float:
    """Return the median over items of the largest value."""
    return float(np.median(truth.max((1, 2))))


def translate(model, items, arguments) -> dict:
    """Return the posterior mean, and the samples, of every row."""
    mean, drawn = np.empty_like(items.truth), None
    said = sorted(set(items.said), key=str)
    n = arguments.samples if hasattr(model, "scheduler") else 1
    for words in said:
        rows = np.array([i for i, s in enumerate(items.said) if s == words])
        tracer, region, other = words
        firsts = rows[items.slots[rows] == 0]
        options = {"n_samples": n, "steps": arguments.steps, "seed": arguments.seed} if n > 1 else {}
        out = model(items.sources[firsts], task=items.task, tracer=tracer, region=region, other=other,
                    **items.options, **options)
        for i, row in enumerate(firsts):
            for slot, at in enumerate(range(row, row + (2 if items.task == "tracer-separation" else 1))):
                pick = (slot,) if items.task == "tracer-separation" else ()
                mean[at] = out.sinograms[(i, *pick)]
                if n > 1:
                    if drawn is None:
                        drawn = np.empty((len(items), n, *items.truth.shape[1:]), np.float32)
                    drawn[at] = out.samples[i][(slice(None), *pick)]
    return {"mean": mean, "samples": drawn}


def classical(items, tuning):
    """Return sinograms and images of the methods that need no training, tuned on other patients."""
    gain = np.float32(items.options.get("dose_factor", 1))
    counts = {"source": items.sources * gain / (2 if items.task == "tracer-separation" else 1)}
    pictures = {}
    if items.task == "low-dose":
        width = best(tuning, FILTERS_MM, lambda t, w: images(t.sources, t, of_source=True, post_filter_mm=w))
        beta = best(tuning, STRENGTHS, lambda t, b: images(t.sources, t, of_source=True, post_filter_mm=0,
                                                           method="bsrem", beta=b))
        pictures["osem"] = images(items.sources, items, of_source=True, post_filter_mm=width)
        pictures["bsrem"] = images(items.sources, items, of_source=True, post_filter_mm=0, method="bsrem", beta=beta)
        for name in ("osem", "bsrem"):
            counts[name] = projected(pictures[name], items)
    if items.task == "attenuation-correction":
        # The ceiling: the same counts with the attenuation, scatter and randoms of the CT.
        pictures["with CT"] = images(items.sources, items, of_source=True)
        counts["with CT"] = projected(images(items.sources, items, of_source=True), items)
    return counts, pictures, {}


def best(tuning, values, make):
    """Return the value whose images of validation patients are nearest to the truth."""
    truth = images(tuning.truth, tuning)
    return min(values, key=lambda v: float(np.square(make(tuning, v) - truth).mean()))


def table(row) -> str:
    """Return a short table for the terminal."""
    lines = [f"{'':24} sinogram: PSNR  SSIM  total   image: PSNR  SSIM  lesion bias"]
    for name in row["images"]["methods"]:
        s, i = (row[d]["methods"][name] for d in ("sinograms", "images"))
        lesions = i["regions"]["lesions"]["bias"]["mean"]
        lines.append(f"{name:24} {s['metrics']['psnr']['mean']:14.2f} {s['metrics']['ssim']['mean']:6.3f} "
                     f"{100 * s['metrics']['total_error']['mean']:6.2f} % {i['metrics']['psnr']['mean']:11.2f} "
                     f"{i['metrics']['ssim']['mean']:6.3f} {100 * lesions if lesions is not None else np.nan:7.1f} %")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
