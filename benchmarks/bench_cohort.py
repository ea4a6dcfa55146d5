"""Complete five-task slices a second, from the patient to the store, with a profile; memory over the cohort's size.

The cohort's slices have half as many rows as ``--size`` says: 256 where the claim is stated.
"""

import cProfile
import itertools
import pstats
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
from _measure import interleave, no_longer_than, parse, report

CLAIM_S = 1 / 8
#: What a profile is summed up by: functions of these files, with all that they call.
PARTS = {"draw patients": ("anatomy.py", "draw_patient"), "simulate": ("study.py", "simulate_study"),
         "project": ("radon.py", "_apply"), "blur": ("point_spread.py", "_apply"),
         "scatter": ("background.py", "scatter_shape"), "randoms": ("background.py", "randoms_shape"),
         "Poisson": ("counts.py", "poisson_counts"), "uptake and kinetics": ("study_activity.py", "patient_uptake"),
         "encode and write": ("_shards.py", "encode_shard")}


def main(argv=None):
    arguments = parse(__doc__, argv, repeats=3)
    from allpet_physics.simulation.cohort import cohort_parameters, make_cohort

    size = max(16, arguments.size // 2)
    parameters = cohort_parameters(10_000, size=size)
    n_slices, n_regions = parameters["n_slices"], len(parameters["regions"])
    starts = itertools.count(step=n_regions * n_slices)

    def make():
        return make_cohort(parameters, np.arange(n_regions * n_slices) + next(starts))

    timings, _ = interleave({"make_cohort": make}, arguments.repeats, {"make_cohort": n_regions * n_slices})
    with tempfile.TemporaryDirectory() as folder:
        per_slice, parts, slices = filled(Path(folder) / "cohort", size, arguments.repeats)
    tracers = len(parameters["tracers"])
    what = (f"a slice with {tracers} tracers in 2 frames, {size} x {size}: the data of the five tasks for every pair "
            "of tracers")
    rows = [no_longer_than(f"{what}, in memory", timings["make_cohort"], CLAIM_S, size=arguments.size),
            no_longer_than(f"{what}, in the store", per_slice, CLAIM_S, size=arguments.size)]
    rates = [f"{1 / row['ours']['median']:.3g} slices a second ({place})" for row, place in
             zip(rows, ("in memory", "in the store"), strict=True)]
    profile = ", ".join(f"{name} {1e3 * t / slices:.3g}" for name, t in parts.items())
    memory = {n: peak_mb(n, size) for n in (24, 240, 24_000)}
    remarks = [f"{', '.join(rates)}: one process with all cores.",
               f"Profile of the store, ms a slice, each with what it calls: {profile}.",
               "Peak of Python's memory while a shard is made, MB by patients of the cohort: "
               + ", ".join(f"{n:,}: {mb:.0f}" for n, mb in memory.items()) + "."]
    return report(__file__, "Cohorts of simulated patients", rows, arguments, remarks=remarks)


def filled(path, size, repeats):
    """Fill stores of a few shards; return the time per slice, the profile of another one, and its slices."""
    from allpet_physics.simulation.cohort import cohort_parameters, n_samples, samples_per_shard, write_cohort

    def fill(seed):
        parameters = cohort_parameters(2 * samples_per_shard(cohort_parameters(1000, size=size)) // 3, seed=seed,
                                       size=size)
        write_cohort(path, parameters, overwrite=True)
        return n_samples(parameters)

    seeds, slices = itertools.count(), fill(10**6)
    timings, _ = interleave({"fill": lambda: fill(next(seeds))}, repeats, {"fill": slices})
    profile = cProfile.Profile()
    profile.runcall(fill, next(seeds))
    found = {(Path(file).name, function): spent for (file, _, function), (*_, spent, _) in
             pstats.Stats(profile).stats.items()}
    return timings["fill"], {name: found.get(key, 0.0) for name, key in PARTS.items()}, slices


def peak_mb(n_patients: int, size: int) -> float:
    """Return the peak in MB of what Python allocates while the last shard of a cohort is made."""
    from allpet_physics.simulation.cohort import cohort_parameters, make_cohort, n_samples, samples_per_shard

    parameters = cohort_parameters(n_patients, size=size)
    per_shard = samples_per_shard(parameters)
    samples = np.arange(per_shard) + (n_samples(parameters) // per_shard - 1) * per_shard
    tracemalloc.start()
    make_cohort(parameters, samples)
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return peak


if __name__ == "__main__":
    main()
