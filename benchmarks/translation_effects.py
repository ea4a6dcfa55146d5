"""Measure what the settings of a bridge do: steps and samplers, attention to lesions, measured counts, time.

    python benchmarks/translation_effects.py cohort.zarr --bridge small --json docs/translation_effects.json

Test patients, as in translation_quality.py; nothing here was used to choose a setting. Each part compares the same
slices and seeds, so differences are paired, with intervals over patients.
"""

import argparse
import json
import os
import platform
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _record import record_to_renew, write_record

from allpet_gen.evaluation.translation_items import draw_items, images
from allpet_gen.evaluation.translation_table import load_models, read_patients, translate, usual_maximum

_DOSE = 20
STRENGTHS = (0.0, 0.01, 0.05, 0.2)
_STACK = 32
#: One patient of each region with each tracer.
_FEWER = 9


def main(argv=None) -> dict:
    """Measure, print and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="the cohort that the model was trained on, with its test patients")
    parser.add_argument("--bridge", default="small", help="a shipped model's name, or a folder")
    parser.add_argument("--patients", type=int, default=18)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--most-steps", type=int, default=100, help="of the sampler to compare with")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--json", type=Path, help="write, or renew, the record here")
    arguments = parser.parse_args(argv)
    record = record_to_renew(parser, "--json", arguments.json)
    record |= {"date": str(date.today()), "machine": f"{platform.machine()}, Python {platform.python_version()}",
               "patients": arguments.patients, "samples": arguments.samples, "bridge_steps": arguments.steps,
               "seed": arguments.seed}
    models = load_models({"bridge": arguments.bridge})
    bridge = models["bridge"][0]
    studies = read_patients(arguments.store, "test", arguments.patients)
    for part in arguments.only:
        record[part] = PARTS[part](bridge, studies, arguments)
        print(f"{part}\n{json.dumps(record[part], indent=1)}", flush=True)
        write_record(arguments.json, record)
    return record


def steps(bridge, studies, arguments) -> dict:
    """Return PSNR in dB of estimate, mean of samples and one sample, by sampler and steps, for the first patients."""
    items = draw_items(studies[:_FEWER], "low-dose", dose_factor=_DOSE)
    out = {"most": arguments.most_steps}
    for sampler, n in (*(("dbim2", n) for n in (1, 5, 10, 20)), ("dbim1", 10), ("heun", arguments.most_steps)):
        name, began = f"{sampler}, {n}", time.perf_counter()
        made = translate(bridge, items, arguments, steps=n, sampler=sampler)
        out[name] = {"estimate": spread_of(psnr(made["mean"], items), items), "seconds": time.perf_counter() - began,
                     "mean": spread_of(psnr(made["samples"].mean(1), items), items),
                     "one sample": spread_of(psnr(made["samples"][:, 0], items), items)}
    return out


def attention(bridge, studies, arguments) -> dict:
    """Return lesions' bias with the gate off and on: of hot regions that were found, and of the lesions themselves."""
    from allpet_gen.evaluation.regions import region_bias

    items = draw_items(studies, "low-dose", dose_factor=_DOSE)
    items = items.part(np.flatnonzero(items.masks["lesions"].sum((1, 2)) >= 4))
    truth = images(items.truth, items)
    found = {}
    for name, options in (("off", {}), ("found regions, 0.25", {"roi": "auto", "gate_strength": 0.25}),
                          ("lesions, 0.25", {"roi": "lesions", "gate_strength": 0.25}),
                          ("lesions, 1", {"roi": "lesions", "gate_strength": 1.0})):
        made = gated(bridge, items, arguments, options)
        bias = region_bias(images(made, items), truth, {"lesions": items.masks["lesions"]})["lesions"].per_image()
        found[name] = bias, psnr(made, items)
    return {"items": len(items)} | {name: {
        "bias": spread_of(bias, items), "size of the bias": spread_of(np.abs(bias), items),
        "psnr": spread_of(decibels, items),
        "change of its size": spread_of(np.abs(bias) - np.abs(found["off"][0]), items)}
        for name, (bias, decibels) in found.items()}


def gated(bridge, items, arguments, options) -> np.ndarray:
    """Return estimates slice by slice, for each has its own lesions; the seed is the same for all settings."""
    made = []
    for i in range(len(items)):
        own = options | ({"roi": items.masks["lesions"][i]} if options.get("roi") == "lesions" else {})
        made.append(translate(bridge, items.part(np.array([i])), arguments, first_slice=i, **own)["mean"][0])
    return np.stack(made)


def likelihood(bridge, studies, arguments) -> dict:
    """Return PSNR and the deviance from the measured counts by strength of guidance, for a quarter and a hundredth."""
    from allpet_physics.metrics import expected_poisson_deviance, poisson_deviance

    out = {}
    for factor in (4, 100):
        items = draw_items(studies[:_FEWER], "low-dose", dose_factor=factor)
        for strength in STRENGTHS:
            made = translate(bridge, items, arguments, likelihood_strength=strength)["mean"]
            off = poisson_deviance(items.sources, made / factor) / expected_poisson_deviance(items.truth / factor)
            out[f"1/{factor}, {strength:g}"] = {"psnr": spread_of(psnr(made, items), items),
                                                "deviance over that of noise": spread_of(off, items)}
    return out


def seconds(bridge, studies, arguments) -> dict:
    """Return how long a stack of 32 slices takes, one sample of 10 steps, and how long with an interval's 20."""
    import torch

    items = draw_items((studies * _STACK)[:_STACK], "low-dose", dose_factor=_DOSE)
    out = {"slices": _STACK, "threads": torch.get_num_threads(), "processors": os.cpu_count()}
    for name, n in (("1 sample", 1), ("20 samples", 20)):
        began = time.perf_counter()
        bridge(items.sources, task="low-dose", dose_factor=_DOSE, n_samples=n, seed=arguments.seed, keep_samples=False)
        out[name] = time.perf_counter() - began
    return out


def psnr(made, items) -> np.ndarray:
    """Return PSNR in dB of each sinogram, with the range of these items."""
    from allpet_physics.metrics import psnr as decibels

    return decibels(made, items.truth, data_range=usual_maximum(items.truth))


def spread_of(values, items) -> dict:
    """Return the mean with its interval over patients."""
    from allpet_gen.evaluation.bootstrap import bootstrap_by_patient

    found = bootstrap_by_patient(values, items.patients)
    return {name: found[name] for name in ("mean", "low", "high")}


PARTS = {"steps": steps, "attention": attention, "likelihood": likelihood, "seconds": seconds}

if __name__ == "__main__":
    main()
