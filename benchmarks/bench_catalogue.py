"""Every placement of a 64-px block in 512 x 512 px (201,601 masks), streamed through one buffer of batches."""

import time

import numpy as np
from _measure import Timing, all_threads_fill, no_longer_than, parse, report, standard_geometry, within

CLAIM, LIMIT_S = 3, 60
BATCHES = (16, 32, 64, 128, 256)
FLOOR = "fill the buffer as often"


def main(argv=None):
    arguments = parse(__doc__, argv, repeats=2, extra=lambda parser: parser.add_argument(
        "--batch", type=int, metavar="N", help="masks in the buffer; by default that of the shortest total in a trial"))
    from allpet_physics import block_catalogue

    size = arguments.size
    geometry = standard_geometry(size)
    catalogue = block_catalogue((size, size), max(1, size // 8))
    rows, totals = [], {}
    for batch in (arguments.batch,) if arguments.batch else BATCHES:
        stream(catalogue, geometry, batch, limit=2 * batch)
        masks = min(4096, len(catalogue))
        ours, floor, threads = stream(catalogue, geometry, batch, limit=masks)
        rows.append(within(f"the first {masks:,} masks, {batch} at once", Timing.of(ours), {FLOOR: Timing.of(floor)},
                           size=size, also={"fill with every thread": Timing.of(threads)}))
        totals[batch] = sum(ours)
    best = min(totals, key=totals.get)
    passes = [[sum(seconds) for seconds in stream(catalogue, geometry, best)] for _ in range(arguments.repeats)]
    ours, floor, threads = (Timing.of(seconds) for seconds in zip(*passes, strict=True))
    what = f"all {len(catalogue):,} masks, {best} at once, one buffer"
    rows[:0] = [
        within(what, ours, {FLOOR: floor}, CLAIM, size=size, also={"fill with every thread": threads}),
        no_longer_than(what, ours, LIMIT_S, size=size),
    ]
    gigabytes = len(catalogue) * geometry.n_angles * geometry.n_bins * 4 / 1e9
    remarks = [f"{gigabytes:.0f} GB written in all, {gigabytes / ours.median:.0f} GB/s.",
               "A filling and a projection of every batch alternate; the floor is numpy's fill, on one thread."]
    return report(__file__, "The catalogue of shifts", rows, arguments, remarks=remarks)


def stream(catalogue, geometry, batch, limit=None):
    """Project the catalogue batch by batch into one buffer, filling the buffer before each; return the seconds of both.

    The blocks are taken from the catalogue within the time of the projection.
    """
    from allpet_physics import project_blocks

    buffer = np.zeros((batch, *geometry.sinogram_shape), np.float32)
    fill_with_threads = all_threads_fill(buffer)
    fill_with_threads()
    ours, floor, threads = [], [], []
    for start in range(0, min(limit or len(catalogue), len(catalogue)), batch):
        times = [time.perf_counter()]
        part = buffer[:min(batch, len(catalogue) - start)]
        part.fill(0)
        times.append(time.perf_counter())
        project_blocks(catalogue[start:start + batch], geometry, out=part)
        times.append(time.perf_counter())
        fill_with_threads()
        times.append(time.perf_counter())
        for seconds, spent in zip((floor, ours, threads), np.diff(times), strict=True):
            seconds.append(spent)
    return ours, floor, threads


if __name__ == "__main__":
    main()
