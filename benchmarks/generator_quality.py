"""Measure a trained generator on patients it has never seen: counts, distances, prompts, consistency, copies, time.

    python benchmarks/generator_quality.py small cohort.zarr --json docs/generator_small.json

Every figure has its floor or control beside it. Test patients are used here and nowhere else.
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

from _generator import Setup, decoded_counts, expectations, psnr
from _record import record_to_renew, write_record

from allpet_gen.evaluation.generated_table import class_words, residuals
from allpet_gen.prompt_guidance import parse_guidance

#: Sections in the order in which they are made; each needs those before it only for what it says.
SECTIONS = ("autoencoder", "distances", "prompts", "stronger", "consistency", "copies", "seconds", "memory")
#: Settings whose trainings the record has the memory of.
SIZES = ("small", "medium", "base")


def main(argv=None) -> dict:
    """Measure, print and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a shipped model's name, or a folder")
    parser.add_argument("store", type=Path, help="the cohort that it was trained on, with its test patients")
    parser.add_argument("--count", type=int, default=500, help="sinograms to draw (default %(default)s)")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--guidance", type=parse_guidance, help="default: that of the pipeline")
    parser.add_argument("--guidance-start", type=float, help="default: that of the pipeline")
    parser.add_argument("--rescale", type=float, help="default: that of the pipeline")
    parser.add_argument("--stronger", type=parse_guidance, default={"region": 3.0, "tracer": 7.0},
                        help="another guidance, for what obedience costs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--classifier", type=Path, help="folder of a trained classifier; made there if absent")
    parser.add_argument("--json", type=Path, help="write, or renew, the record here")
    arguments = parser.parse_args(argv)
    record = record_to_renew(parser, "--json", arguments.json)
    setup = Setup(arguments)
    record |= {"model": arguments.model, "date": str(date.today()), "machine": machine(), "split": arguments.split,
               "seed": arguments.seed, "steps": arguments.steps, "n_test": len(setup.test),
               "n_generated": arguments.count, **setup.steering}
    for section in arguments.only:
        began = time.perf_counter()
        record[section] = globals()[section](setup)
        print(f"{section} ({time.perf_counter() - began:.0f} s)\n{json.dumps(record[section], indent=1)}", flush=True)
        write_record(arguments.json, record)
    return record


def autoencoder(setup) -> dict:
    """Total counts, noise and reconstructed images of what the autoencoder makes of held-out patients."""
    import torch

    from allpet_gen.generated import POST_FILTER_MM, reconstruct_uncorrected
    from allpet_gen.objectives import poisson_deviance

    test = setup.test
    rows = np.linspace(0, len(test) - 1, min(len(test), 270)).astype(int)
    decoded = decoded_counts(setup.pipe.autoencoder, test, rows, setup.arguments.seed)
    counts = test.counts[rows].astype(np.float32)
    truth = expectations(setup.cohort, test, rows)
    ratio = decoded.sum((1, 2)) / counts.sum((1, 2))

    def noise(other):
        return 2 * np.sqrt(np.square(np.sqrt(counts) - np.sqrt(other)).mean((1, 2)))

    deviance = poisson_deviance(torch.from_numpy(counts), torch.from_numpy(decoded) + 5e-4).mean((1, 2)).numpy()
    out = {"n": len(rows), "total_count_ratio": spread(ratio), "largest_total_error": float(np.abs(ratio - 1).max()),
           "root_error_over_noise": spread(noise(decoded)), "root_error_over_noise_of_the_truth": spread(noise(truth)),
           "deviance": spread(deviance)}
    for name, method, width in (("osem, filtered", "osem", POST_FILTER_MM), ("osem", "osem", 0.0), ("fbp", "fbp", 0.0)):
        measured, coded, true = (reconstruct_uncorrected(s, test.geometry, method, post_filter_mm=width)[0]
                                 for s in (counts, decoded, truth))
        values, ceiling = psnr(measured, coded), psnr(measured, true)
        out[f"psnr, {name}"] = {"decoded": spread(values), "truth without noise": spread(ceiling),
                                "decoded against truth": spread(psnr(true, coded)), "by class": {
            prompt: [float(v[test.labels[rows] == k].mean()) for v in (values, ceiling)]
            for k, prompt in enumerate(test.classes)}}
    return out


def distances(setup, **options) -> dict:
    """Fréchet and kernel distances in both domains, with the floor of real against real."""
    from allpet_gen.evaluation.distribution import compare
    from allpet_gen.evaluation.features import RandomCNN, StatisticsFeatures

    generated, _ = setup.generated(**options)
    pictures = setup.images(" ".join(["generated", *map(str, options.values())]), generated)
    regions = class_words(setup.test)[0]
    regions = [regions[k] for k in setup.test.labels]
    scale = setup.pipe.autoencoder.scaling.scale
    out = {}
    for domain, real, made, unit in (
            ("sinogram", setup.test.counts, generated, scale),
            ("image", setup.images("test", setup.test.counts), pictures,
             float(np.quantile(setup.images("test", setup.test.counts), 0.999)))):
        for name, extractor, how in (("random-cnn", RandomCNN(unit), {"n_components": 24, "whiten": True}),
                                     ("statistics", StatisticsFeatures(domain), {})):
            result = compare(np.asarray(real, np.float32), np.asarray(made, np.float32),
                             real_patients=setup.test.patients, real_strata=regions, extractor=extractor,
                             seed=setup.arguments.seed, **how)
            result["frechet_over_floor"] = result["frechet"]["generated"]["value"] / result["frechet"]["floor"]["value"]
            out[f"{domain}, {name}"] = result
    return out


def prompts(setup) -> dict:
    """How often a classifier of real sinograms names what was asked for, beside how often it names real ones."""
    return {"real, held out": named(setup, setup.test.counts, setup.test.labels),
            "generated": named(setup, *setup.generated())}


def stronger(setup) -> dict:
    """Obedience to the prompt with a stronger guidance, and the distances that it is paid with."""
    guidance = {"guidance": setup.arguments.stronger}
    return guidance | {"prompts": named(setup, *setup.generated(**guidance)), "distances": distances(setup, **guidance)}


def named(setup, counts, labels) -> dict:
    """Return the shares of sinograms whose tracer and region the classifier names, over all and by class."""
    from allpet_gen.evaluation.classifier import predict

    regions, tracers = map(np.array, class_words(setup.test))
    found = predict(setup.classifier(), np.asarray(counts, np.float32))
    tracer, region = np.asarray(found.tracer) == tracers[labels], np.asarray(found.region) == regions[labels]
    both = tracer & region
    return {"tracer": float(tracer.mean()), "region": float(region.mean()), "both": float(both.mean()),
            "by class": {c: float(both[labels == k].mean()) for k, c in enumerate(setup.test.classes)}}


def consistency(setup) -> dict:
    """Helgason–Ludwig residuals of generated and of real noisy sinograms, with and without range guidance."""
    test, sets = setup.test, {"real, held out": (setup.test.counts, setup.test.labels), "generated": setup.generated()}
    sets["generated, range guidance"] = setup.guided()
    return {name: by_class(residuals(counts, test.geometry), labels, test.classes)
            for name, (counts, labels) in sets.items()}


def by_class(values, labels, classes) -> dict:
    """Return the mean over all, and over each class, of values by order."""
    return {"all": values.mean(0).tolist()} | {c: values[labels == k].mean(0).tolist() for k, c in enumerate(classes)}


def copies(setup) -> dict:
    """Share of generated sinograms that lie as near to a training sinogram as held-out ones hardly do."""
    from allpet_gen.evaluation.memorisation import memorisation

    train, (generated, _) = setup.train(), setup.generated()
    rows = np.random.default_rng(0).permutation(len(setup.test))[:len(generated)]
    return memorisation(generated, train.counts, setup.test.counts[rows], training_patients=train.patients,
                        held_out_patients=setup.test.patients[rows], arc=train.geometry.arc)


def seconds(setup) -> dict:
    """Seconds per sample for 10, 50 and 250 steps."""
    import torch

    out = {"threads": torch.get_num_threads(), "device": str(setup.pipe.device)}
    for steps in (10, 50, 250):
        options = {"count": 8, "steps": steps, "reconstruct": None, "batch": 8, **setup.steering}
        began = time.perf_counter()
        setup.pipe(setup.test.classes[0], **options)
        out[f"{steps} steps"] = (time.perf_counter() - began) / 8
    return out


def memory(setup) -> dict:
    """Bytes that training takes by size and stage, counted exactly from the networks without running them."""
    import dataclasses

    from allpet_gen.memory import training_memory
    from allpet_gen.settings import read_settings
    from allpet_physics.simulation.cohort_settings import cohort_parameters

    out = {}
    for size in SIZES:
        settings = read_settings(size, {"training.precision": "bf16"})
        geometry = type(setup.test.geometry)(**cohort_parameters(3, size=settings["cohort"]["size"])["geometry"])
        for stage in ("autoencoder", "denoiser"):
            count = training_memory(settings, geometry, stage)
            out[f"{size} {stage}"] = dataclasses.asdict(count) | {
                "total": count.total, "batch": settings["training"][stage]["batch"],
                "gradient_checkpointing": settings["training"]["gradient_checkpointing"]}
    return out


def spread(values) -> dict:
    """Return mean, 5th and 95th percentile."""
    values = np.asarray(values, np.float64)
    low, high = np.quantile(values, (0.05, 0.95))
    return {"mean": float(values.mean()), "p5": float(low), "p95": float(high)}


def machine() -> str:
    """Return what this ran on."""
    import os

    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
