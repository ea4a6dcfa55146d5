"""Measure how long a step of each training takes, and what the steps of a size come to beside the generator's two.

    python benchmarks/generator_budgets.py cohort.zarr

Rounds go through all trainings in turn, so that a busy machine is busy for all of them; seconds are medians of steps,
with the batches that they are made of. On a GPU or with other numbers of threads, shares may be others.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _record import write_record

from allpet_gen.baseline_stages import measured_roots, new_objective
from allpet_gen.baselines.views import ViewDataset
from allpet_gen.data import CompositeDataset, LatentDataset
from allpet_gen.objectives import AutoencoderObjective, DenoiserObjective
from allpet_gen.settings import BASELINES, SIZES, read_settings
from allpet_gen.stages import count_scale, new_autoencoder, new_denoiser, read_sets
from allpet_gen.training import TrainingSettings, train
from allpet_physics.simulation.cohort_reader import read_cohort

#: The generator's two trainings, which each baseline's is to be as long as together.
GENERATOR = ("autoencoder", "denoiser")


def main(argv=None) -> dict:
    """Measure, print and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="a cohort of the size")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="of each training in each round, after one to warm up")
    parser.add_argument("--json", type=Path, help="write the record here")
    arguments = parser.parse_args(argv)
    settings = read_settings(arguments.size)
    settings["training"] |= {"workers": 0}
    sets = read_sets(read_cohort(arguments.store), settings)
    seconds = {name: [] for name in (*GENERATOR, *BASELINES)}
    for _ in range(arguments.rounds):
        for name in seconds:
            seconds[name] += steps_of(name, sets, settings, arguments.steps)
    steps = {name: settings["training"][name]["steps"] for name in seconds}
    median = {name: float(np.median(found)) for name, found in seconds.items()}
    whole = sum(steps[name] * median[name] for name in GENERATOR)
    record = {"size": arguments.size, "threads": torch.get_num_threads(), "trainings": {
        name: {"steps": steps[name], "seconds": median[name], "share": steps[name] * median[name] / whole}
        for name in seconds}}
    for name, found in record["trainings"].items():
        print(f"{name:12s} {found['steps']:6d} steps of {found['seconds']:.2f} s, {found['share']:.2f} of the whole")
    write_record(arguments.json, record)
    return record


def steps_of(name: str, sets, settings, n: int) -> list[float]:
    """Return the seconds of some steps of a training, without the first, in which caches are filled."""
    objective, dataset = training(name, sets, settings)
    how = TrainingSettings.of(settings["training"] | {name: settings["training"][name] | {"steps": n + 1}}, name)
    times = []
    with tempfile.TemporaryDirectory() as folder:
        train(objective, dataset, how, folder, report=lambda *_: times.append(time.perf_counter()))
    return np.diff(times).tolist()


def training(name: str, sets, settings):
    """Return objective and items of a training."""
    if name in BASELINES:
        scale = count_scale(sets[0])
        dataset = ViewDataset(sets[0], scale, settings["augmentation"], 0)
        measured = {} if name == "vae" else measured_roots(dataset, settings[name].get("noise_share"))
        return new_objective(name, sets[0].geometry, settings, scale, measured), dataset
    autoencoder = new_autoencoder(sets[0], settings)
    if name == "autoencoder":
        dataset = CompositeDataset(sets[0], autoencoder, settings["masks"], settings["augmentation"], 0)
        return AutoencoderObjective(autoencoder, settings["autoencoder_loss"]), dataset
    n, latent = len(sets[0]), autoencoder.latent_shape
    dataset = LatentDataset(torch.zeros(n, 1, *latent), torch.zeros(n, 1, *latent), torch.from_numpy(sets[0].tokens),
                            torch.zeros(n, 1, 3), 0)
    shift = torch.zeros(latent[0], 1, 1)
    return DenoiserObjective(new_denoiser(autoencoder, settings), settings["diffusion"], shift, shift + 1), dataset


if __name__ == "__main__":
    main()
