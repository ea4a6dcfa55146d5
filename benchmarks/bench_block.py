"""One 64-px block in a sinogram of 512 x 512, against ASTRA's strip projection of the same mask."""

import numpy as np
from _measure import difference, faster_than, interleave, parse, report, standard_geometry, within
from _peers import AstraCalls, astra_or_reason

CLAIM = 10_000
FLOOR, INTO, NEW, PEER = "fill the buffer", "into a buffer of the caller's", "into a new array", "ASTRA strip"


def main(argv=None):
    arguments = parse(__doc__, argv, repeats=5)
    from allpet_physics import block_catalogue, project_blocks

    size = arguments.size
    geometry = standard_geometry(size)
    catalogue = block_catalogue((size, size), max(1, size // 8))
    block = catalogue[len(catalogue) // 3]
    astra = astra_or_reason()
    peer = AstraCalls(astra, geometry, "strip", block.to_mask()) if astra else None
    buffer, other = (np.empty(geometry.sinogram_shape, np.float32) for _ in range(2))
    timings, results = interleave({
        INTO: lambda: project_blocks(block, geometry, out=buffer),
        NEW: lambda: project_blocks(block, geometry),
        FLOOR: lambda: other.fill(0),
        PEER: peer.forward if peer else None,
    }, arguments.repeats)
    peers = {PEER: timings[PEER]} if peer else {}
    what = f"one block of {block.parameters[0, 2]} px, {size} x {size} sinogram"
    rows = [
        faster_than(f"{what}, {INTO}", timings[INTO], peers, CLAIM, size=size),
        faster_than(f"{what}, {NEW}", timings[NEW], peers, CLAIM, size=size),
        within(f"{what}, {INTO}, against the memory", timings[INTO], {FLOOR: timings[FLOOR]}, size=size),
    ]
    remarks = ["ASTRA's CPU kernels run on one thread."]
    if peer:
        remarks.append(f"Difference from ASTRA, relative in norm: {difference(buffer, results[PEER]):.1e}.")
    return report(__file__, "One block", rows, arguments, remarks=remarks)


if __name__ == "__main__":
    main()
