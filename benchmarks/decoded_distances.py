"""Measure how far a generator would be from real sinograms if its denoiser were perfect: real ones, decoded.

    python benchmarks/decoded_distances.py cohort.zarr --model ships=small --model generator=run \\
        --json docs/evaluation/decoded.json

Sinograms of validation patients are encoded and decoded, Poisson counts are drawn from them, and they stand where drawn
ones stand in a report of `allpet evaluate`: beside real ones of test patients, with the same features and halvings. So
do the validation patients' own sinograms, which have nothing lost.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _evaluation_tables import AS_THEY_ARE
from _generator import decoded_counts
from _record import write_record

from allpet_gen import SinogramGenerationPipeline
from allpet_gen._pretrained import model_digest
from allpet_gen.evaluation import generated_table as generated
from allpet_gen.evaluation.report import rounded
from allpet_gen.generated import reconstruct_uncorrected
from allpet_gen.generation_models import generator_folder
from allpet_gen.training_card import store_digest
from allpet_physics.counts import poisson_counts
from allpet_physics.errors import InputError
from allpet_physics.simulation.cohort_reader import read_cohort


def main(argv=None) -> dict:
    """Measure, print and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="the cohort that the models were trained on, with its test patients")
    parser.add_argument("--model", action="append", default=[], metavar="NAME=MODEL",
                        help="a shipped model's name, or a folder; repeat")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--split", choices=("validation", "train"), default="validation",
                        help="whose sinograms are decoded (default %(default)s)")
    parser.add_argument("--json", type=Path, help="write the record here")
    arguments = parser.parse_args(argv)
    models = dict(text.partition("=")[::2] for text in arguments.model)
    if not models or not all(models.values()):
        parser.error("--model must be NAME=MODEL, at least once, such as ships=small.")
    try:
        record = measure(read_cohort(arguments.store), models, arguments.count, arguments.seed, arguments.split)
    except InputError as error:
        parser.error(str(error))
    for key, by_tracer in record["distances"].items():
        for name, found in by_tracer["all"].items():
            print(f"{key:24s} {name:16s} Fréchet {found['frechet']['generated']['value']:.3g}, "
                  f"real {found['frechet']['floor']['value']:.3g}")
    write_record(arguments.json, record)
    return record


def measure(cohort, models, count: int, seed: int, split: str = "validation") -> dict:
    """Return the distances of decoded sinograms, by domain and features, model by model.

    Raises
    ------
    InputError
        Too few sinograms or patients for a distance.
    """
    data, other = (generated.held_out(cohort, part) for part in ("test", split))
    truth, rng = generated.real(data), np.random.default_rng(seed)
    rows = np.sort(rng.permutation(len(other))[:count])
    made = {AS_THEY_ARE: np.asarray(other.counts[:], np.float32)[rows]}
    for name, source in models.items():
        pipe = SinogramGenerationPipeline.from_pretrained(generator_folder(source))
        made[name] = poisson_counts(decoded_counts(pipe.autoencoder, other, rows, seed), rng)
    drawn = {name: generated.Drawn(counts, other.labels[rows], reconstruct_uncorrected(
        np.asarray(counts, np.float32), data.geometry)[0]) for name, counts in made.items()}
    scale = float(np.quantile(truth.counts, 0.999))  # as in a report
    found = generated.distances(drawn, truth, data, scale, seed=seed)
    if not all("all" in by_tracer for by_tracer in found.values()):
        raise InputError(f"store must have patients enough for distances, but has {len(data)} test sinograms and "
                         f"{len(other)} in the part {split}; simulate more patients.")
    return rounded({"store": store_digest(cohort), "count": len(rows), "seed": seed,
                    "models": {name: model_digest(generator_folder(source)) for name, source in models.items()},
                    "distances": {key: {"all": by_tracer["all"]} for key, by_tracer in found.items()}})


if __name__ == "__main__":
    main()
