"""Dynamic multi-masks drawn, projected, normalised and composed with sinograms, against writing the three channels."""

import itertools

import numpy as np
from _measure import all_threads_fill, interleave, parse, report, standard_geometry, within

CLAIM = 3
FUSED, SEPARATE, FLOOR = "draw + composite_blocks", "draw, project, normalise, compose", "fill the three channels"


def main(argv=None):
    arguments = parse(__doc__, argv, repeats=7, extra=lambda parser: parser.add_argument(
        "--batch", type=int, default=64, metavar="N", help="samples made at once (default %(default)s)"))
    from allpet_physics import DynamicMultiMask, composite, composite_blocks, normalise_mask, project_blocks

    size, batch = arguments.size, arguments.batch
    geometry = standard_geometry(size)
    masks = DynamicMultiMask((size, size), n_blocks=(1, 6), block_px=(max(1, size // 32), size // 8), seed=0)
    sinograms = np.random.default_rng(0).random((batch, *geometry.sinogram_shape), np.float32)
    out = np.empty((batch, 3, *geometry.sinogram_shape), np.float32)
    starts = itertools.count(step=batch)

    def fused():
        start = next(starts)
        return composite_blocks(sinograms, masks.draw(range(start, start + batch)), geometry, out=out)

    def separate():
        start = next(starts)
        projected = project_blocks(masks.draw(range(start, start + batch)), geometry)
        return composite(sinograms, normalise_mask(projected), out=out)

    timings, _ = interleave({FUSED: fused, FLOOR: lambda: out.fill(0), SEPARATE: separate,
                             "fill with every thread": all_threads_fill(out)}, arguments.repeats)
    what = (f"{batch} samples of 1 to 6 blocks of {masks.block_px[0]} to {masks.block_px[1]} px, {size} x {size}, "
            "float32: draw, project, normalise, composite")
    rows = [within(what, timings[FUSED], {FLOOR: timings[FLOOR]}, CLAIM, size=size,
                   also={name: timings[name] for name in (SEPARATE, "fill with every thread")})]
    remarks = [f"{timings[FUSED].median / batch * 1e3:.3g} ms for one sample; every call draws new samples."]
    return report(__file__, "Dynamic multi-masks and composites", rows, arguments, remarks=remarks)


if __name__ == "__main__":
    main()
