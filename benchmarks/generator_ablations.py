"""What the parts of the generator are worth: the same training with one of them left out, at equal steps and batch.

    python benchmarks/generator_ablations.py --json docs/generator_ablations.json

64 x 64 and a short training, so that every variant takes minutes; all variants share seeds, patients and the measure.
"""

import argparse
import json
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _record import write_record

COMMON = {"cohort.size": 64, "masks.block_px": [2, 8], "augmentation.views": 4, "training.workers": 0,
          "autoencoder.block_out_channels": [48, 96], "denoiser.block_out_channels": [64, 128],
          "denoiser.attention_levels": [False, True], "denoiser.attention_head_dim": 4}
VARIANTS = {
    "all parts": {},
    "without composites and masks": {"data.composite": False},
    "without symmetry augmentation": {"augmentation.rotation_deg": 0.0, "augmentation.mirror": 0.0},
    "without min-SNR weights and zero terminal SNR": {"diffusion.min_snr_gamma": 0.0,
                                                      "diffusion.zero_terminal_snr": False},
}
#: Of all variants alike, at all steps.
GUIDANCE = 1.5
#: Stages that a variant changes; the others are taken from "all parts".
OWN_AUTOENCODER = {"without composites and masks", "without symmetry augmentation"}


def main(argv=None) -> dict:
    """Train and measure every variant, print the table and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--autoencoder-steps", type=int, default=2000)
    parser.add_argument("--denoiser-steps", type=int, default=3000)
    parser.add_argument("--patients", type=int, default=720)
    parser.add_argument("--per-class", type=int, default=500)
    parser.add_argument("--count", type=int, default=495)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="folder for the store and the trainings; resumed if it has some")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        record = measure(arguments, arguments.work or Path(folder))
    print(json.dumps(record, indent=1))
    write_record(arguments.json, record)
    return record


def measure(arguments, work: Path) -> dict:
    """Return the distances of every variant with their floors."""
    from allpet_gen.settings import read_settings
    from allpet_physics.simulation.cohort import cohort_parameters, write_cohort
    from allpet_physics.simulation.cohort_reader import read_cohort

    work.mkdir(parents=True, exist_ok=True)
    changes = COMMON | {"cohort.patients": arguments.patients, "data.per_class": arguments.per_class,
                        "training.seed": arguments.seed, "training.autoencoder.steps": arguments.autoencoder_steps,
                        "training.denoiser.steps": arguments.denoiser_steps}
    store = work / "cohort.zarr"
    base = read_settings("small", changes)["cohort"]
    write_cohort(store, cohort_parameters(base["patients"], seed=base["seed"], size=base["size"],
                                          n_slices=base["slices"]), resume=store.exists())
    cohort, record = read_cohort(store), {}
    for name, change in VARIANTS.items():
        settings = read_settings("small", changes | change)
        folder = work / name.replace(" ", "-")
        record[name] = variant(name, settings, cohort, folder, work / "all-parts", arguments)
        print(name, json.dumps(record[name]), flush=True)
    return {"date": str(date.today()), "settings": changes, "count": arguments.count,
            "variants": record}


def variant(name, settings, cohort, folder, reference, arguments) -> dict:
    """Train one variant and return its distances from test patients."""
    import torch

    from allpet_gen.autoencoder import SinogramAutoencoder
    from allpet_gen.data import read_class_set
    from allpet_gen.evaluation.distribution import compare
    from allpet_gen.evaluation.features import RandomCNN
    from allpet_gen.generated import reconstruct_uncorrected
    from allpet_gen.objectives import noise_schedule
    from allpet_gen.pipelines import SinogramGenerationPipeline
    from allpet_gen.samplers import SinogramDDIMScheduler
    from allpet_gen.stages import read_sets, train_autoencoder, train_denoiser

    began = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    if name == "all parts" or name in OWN_AUTOENCODER:
        autoencoder = train_autoencoder(read_sets(cohort, settings), settings, folder, resume=True)
    else:
        (folder / "latents.safetensors").write_bytes((reference / "latents.safetensors").read_bytes())
        autoencoder = SinogramAutoencoder.from_pretrained(reference / "autoencoder")
    denoiser = train_denoiser(autoencoder, settings, folder, resume=True)
    trained = time.perf_counter() - began
    pipe = SinogramGenerationPipeline(autoencoder.eval(), denoiser.eval(), SinogramDDIMScheduler.from_config(
        noise_schedule(settings["diffusion"]).config))
    pipe.set_progress_bar_config(disable=True)
    out = {"training_seconds": round(trained), "certificate": certificate(pipe, cohort, settings, folder)}
    rows = min(int((cohort.select(split="test").regions == r).sum()) for r in np.unique(cohort.regions))
    test = read_class_set(cohort, rows, "test")
    with torch.no_grad():
        made = pipe(list(test.classes), count=arguments.count // len(test.classes), seed=10**6, batch=99,
                    guidance=GUIDANCE, guidance_start=0, reconstruct=None).sinograms
    for domain in ("sinogram", "image"):
        real, drawn, scale = test.counts, made, autoencoder.scaling.scale
        if domain == "image":
            real, drawn = (reconstruct_uncorrected(s, test.geometry)[0] for s in (real, drawn))
            scale = float(np.quantile(real, 0.999))
        result = compare(np.asarray(real, np.float32), np.asarray(drawn, np.float32), real_patients=test.patients,
                         real_strata=test.labels, extractor=RandomCNN(scale), n_components=24, whiten=True)
        out[domain] = {metric: {side: result[metric][side]["value"] for side in ("generated", "floor")}
                       for metric in ("frechet", "kernel_polynomial", "precision", "recall")}
    return out


def certificate(pipe, cohort, settings, folder) -> dict:
    """Return the certified denoising loss of test patients at δ = 0.05, of sinograms as measured and augmented.

    Each variant predicts in latents of its own, of variance 1 over the training data; their losses are shares of that.
    """
    from allpet_gen.certificate import certificate_table
    from allpet_gen.denoising_moments import denoising_moments
    from allpet_gen.stages import read_sets
    from allpet_gen.training_card import new_card, write_card

    write_card(folder, new_card(settings, cohort, read_sets(cohort, settings)))
    out = {}
    for kind, augmented in (("measured", False), ("augmented", True)):
        moments = denoising_moments(pipe, folder, cohort, augmented=augmented)
        table = certificate_table(moments, 4, deltas=[0.05])
        out[kind] = {"patients": table["patients"], "loss": table["loss"], "bound": table["rows"][0]["bound"]}
    return out


if __name__ == "__main__":
    main()
