"""Joseph projection of a batch of 32 slices, time per slice, against ASTRA's linear kernel, one slice a call."""

import numpy as np
from _measure import faster_than, interleave, parse, report, standard_geometry
from _peers import AstraCalls, astra_or_reason
from _projection import smooth_image

CLAIM = 20


def main(argv=None):
    arguments = parse(__doc__, argv, repeats=3, extra=lambda parser: parser.add_argument(
        "--batch", type=int, default=32, metavar="N", help="slices (default %(default)s)"))
    from allpet_physics import RadonOperator

    size, batch = arguments.size, arguments.batch
    geometry = standard_geometry(size)
    astra = astra_or_reason()
    rows = []
    for model, kernel, claim in (("joseph", "linear", CLAIM), ("strip", "strip", None)):
        operator = RadonOperator(geometry, model)
        images = smooth_image(size) * np.linspace(0.5, 1, batch, dtype=np.float32).reshape(-1, 1, 1)
        sinograms = operator(images)
        peer = AstraCalls(astra, geometry, kernel, images[0], sinograms[0]) if astra else None
        for direction, ours in (("forward", lambda a=operator, x=images: a(x)),
                                ("back", lambda a=operator, y=sinograms: a.T(y))):
            timings, _ = interleave({"allpet": ours, f"ASTRA {kernel}": getattr(peer, direction) if peer else None},
                                    arguments.repeats, {"allpet": batch})
            rows.append(faster_than(f"{model} {direction}, per slice of {batch}, {size} x {size}, {size} angles",
                                    timings.pop("allpet"), timings, claim, size=size))
    return report(__file__, "Projection of a batch of slices", rows, arguments,
                  remarks=["ASTRA's CPU kernels run on one thread and take one slice a call, whatever it holds."])


if __name__ == "__main__":
    main()
