"""Measure translations on patients that no method has seen, beside every baseline, in sinograms and in images.

    python benchmarks/translation_quality.py cohort.zarr --bridge small --unet run/unet --json docs/translation.json
    python benchmarks/translation_quality.py cohort.zarr --bridge small --anatomy DATA --json docs/translation.json

Settings of the classical methods (filters, strength of the prior) are chosen on validation patients, never on those
that are tested. PSNR and SSIM take one range for all items of a row: the median over items of the truth's maximum. With
--anatomy the items are slices of real anatomy instead, see `_real_anatomy`; settings still come from the cohort. --keep
keeps what each method made, by the digest of its model, so that a further method costs its own time alone.
"""

import argparse
import hashlib
import json
import pickle
import platform
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _classical import GRIDS, classical
from _real_anatomy import REGIONS, real_studies
from _translation import draw_items, images

#: Rows of the table: task and dose factor.
ROWS = {"low-dose 1/4": ("low-dose", 4), "low-dose 1/10": ("low-dose", 10), "low-dose 1/20": ("low-dose", 20),
        "low-dose 1/50": ("low-dose", 50), "low-dose 1/100": ("low-dose", 100),
        "attenuation correction": ("attenuation-correction", None), "delayed frame": ("delayed-frame", None),
        "tracer separation": ("tracer-separation", None), "tracer conversion": ("tracer-conversion", None)}
#: Patients of the validation part that settings are chosen on: three of each region, one with each tracer.
TUNING = 9
#: A 90 % interval needs so many samples.
_ENOUGH = 19


def main(argv=None) -> dict:
    """Measure, print and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="the cohort that the models were trained on, with its test patients")
    parser.add_argument("--bridge", help="a shipped model's name, or a folder")
    parser.add_argument("--unet", help="a folder")
    parser.add_argument("--cyclegan", help="a folder")
    parser.add_argument("--anatomy", type=Path, help="a folder with brain and ct_abdomen, to be tested on instead")
    parser.add_argument("--patients", type=int, default=27, help="patients, or slices of real anatomy")
    parser.add_argument("--samples", type=int, default=20, help="posterior samples of the bridge (default %(default)s)")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--keep", type=Path, help="a folder for what the methods make")
    parser.add_argument("--json", type=Path, help="write, or renew, the record here")
    arguments = parser.parse_args(argv)
    models = load_models(arguments)
    studies = read_studies(arguments)
    tuning = read_patients(arguments.store, "validation", TUNING)
    record = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.exists() else {}
    settings = {"seed": arguments.seed, "steps": arguments.steps, "samples": arguments.samples,
                "split": "real" if arguments.anatomy else arguments.split, "patients": len(studies)}
    part = record.setdefault("anatomy" if arguments.anatomy else "cohort", {"rows": {}})
    if any(part.get(name, value) != value for name, value in settings.items()):
        part["rows"].clear()  # rows of other settings are no part of this record
    part |= settings | {"date": str(date.today()), "models": {name: digest for name, (_, digest) in models.items()},
                        "machine": f"{platform.machine()}, Python {platform.python_version()}"}
    for name in arguments.rows:
        began = time.perf_counter()
        task, factor = ROWS[name]
        items = draw_items(studies, task, dose_factor=factor)
        part["rows"][name] = measure(items, draw_items(tuning, task, dose_factor=factor), models, arguments)
        print(f"{name} ({time.perf_counter() - began:.0f} s)\n{table(part['rows'][name])}", flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(record, separators=(",", ":")) + "\n")
    return record


def load_models(arguments) -> dict:
    """Return the trained methods that were named: pipeline and digest of its files."""
    from allpet_gen._pretrained import model_digests
    from allpet_gen.translation_models import load_translation

    models = {}
    for name in ("bridge", "unet", "cyclegan"):
        if getattr(arguments, name):
            pipe, folder = load_translation(getattr(arguments, name))
            files = json.dumps(model_digests(folder), sort_keys=True)
            models[name] = pipe, hashlib.sha256(files.encode()).hexdigest()
    return models


def read_studies(arguments):
    """Return what is tested on: numbers and studies."""
    if arguments.anatomy is None:
        return read_patients(arguments.store, arguments.split, arguments.patients)
    from allpet_physics.simulation import read_cohort

    cohort, each = read_cohort(arguments.store), arguments.patients // len(REGIONS)
    found = [study for region in REGIONS
             for _, study in real_studies(arguments.anatomy, cohort, region, each, arguments.seed)]
    return list(enumerate(found))


def read_patients(store, split, n):
    """Return studies of the first patients of a part, with their numbers."""
    from allpet_physics.simulation import read_cohort

    part = read_cohort(store, split=split)
    return [(int(p), part.patient_study(int(p))) for p in np.unique(part.patients)[:n]]


def measure(items, tuning, models, arguments) -> dict:
    """Return what `summary` says of all methods for one row, in both domains."""
    from allpet_gen.evaluation.paired import summary

    plain = kept(arguments.keep, items, ["classical", GRIDS, tuning.sources], lambda: classical(items, tuning))
    counts, pictures = dict(plain["counts"]), dict(plain["pictures"])
    samples, how = {}, [arguments.samples, arguments.steps, arguments.seed]
    for name, (model, digest) in models.items():
        made = kept(arguments.keep, items, [digest, *how], lambda model=model: translate(model, items, arguments))
        counts[name] = made["mean"]
        if made["samples"] is not None:
            counts[f"{name}, one sample"] = made["samples"][:, 0]
            if made["samples"].shape[1] >= _ENOUGH:
                samples[name] = made["samples"]
    for name, sinograms in counts.items():
        if name not in pictures:
            pictures[name] = images(sinograms, items)
    truth = images(items.truth, items)
    return {"sinograms": summary(counts, items.truth, items.patients, data_range=usual_maximum(items.truth),
                                 reference="unet" if "unet" in counts else None, counts=items.measured,
                                 samples=samples or None),
            "images": summary(pictures, truth, items.patients,
                              data_range=usual_maximum(truth), reference="unet" if "unet" in counts else None,
                              masks=items.masks, lesions=items.masks["lesions"],
                              lesion_background=items.lesion_background),
            "regions covered": {name: kept(arguments.keep, items, [models[name][1], *how, "regions"],
                                           lambda values=values: covered_regions(values, items, truth))
                                for name, values in samples.items()},
            "chosen": plain["chosen"]}


def covered_regions(samples, items, truth) -> dict:
    """Return how often central 90 % intervals of the samples' images cover the means of organs and lesions."""
    from allpet_gen.evaluation.paired import summary

    made = np.stack([images(samples[:, s], items) for s in range(samples.shape[1])], axis=1)
    found = summary({"bridge": made.mean(1)}, truth, items.patients, data_range=usual_maximum(truth),
                    masks=items.masks, samples={"bridge": made})
    return found["methods"]["bridge"]["coverage"]


def kept(folder, items, made_by, make):
    """Return what `make` returns, from the folder where it was kept."""
    if folder is None:
        return make()
    arrays = [items.sources, items.truth, *(part for part in made_by if isinstance(part, np.ndarray))]
    words = [items.task, items.options, [part for part in made_by if not isinstance(part, np.ndarray)]]
    key = hashlib.sha256(json.dumps(words).encode() + b"".join(a.tobytes() for a in arrays)).hexdigest()[:16]
    path = folder / f"{items.task}-{key}.pickle"
    if path.exists():
        return pickle.loads(path.read_bytes())
    folder.mkdir(parents=True, exist_ok=True)
    made = make()
    partial = path.with_suffix(".partial")
    partial.write_bytes(pickle.dumps(made))
    partial.replace(path)
    return made


def usual_maximum(truth) -> float:
    """Return the median over items of the largest value."""
    return float(np.median(truth.max((1, 2))))


def translate(model, items, arguments, **options) -> dict:
    """Return the posterior mean, and the samples, of every row."""
    from allpet_gen.translation_models import is_bridge

    mean, drawn = np.empty_like(items.truth), None
    if is_bridge(model):
        options = {"n_samples": arguments.samples, "steps": arguments.steps, "seed": arguments.seed} | options
    separate = items.task == "tracer-separation"
    for words in sorted(set(items.said), key=str):
        rows = np.array([i for i, s in enumerate(items.said) if s == words])
        tracer, region, other = words
        firsts = rows[items.slots[rows] == 0]
        out = model(items.sources[firsts], task=items.task, tracer=tracer, region=region, other=other,
                    **items.options, **options)
        if out.samples is not None and drawn is None:
            drawn = np.empty((len(items), out.samples.shape[1], *items.truth.shape[1:]), np.float32)
        for i, row in enumerate(firsts):
            for slot, at in enumerate((row, row + 1) if separate else (row,)):
                pick = (slot,) if separate else ()
                mean[at] = out.expected[(i, *pick)]
                if drawn is not None:
                    drawn[at] = out.samples[i][(slice(None), *pick)]
    return {"mean": mean, "samples": drawn}


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
