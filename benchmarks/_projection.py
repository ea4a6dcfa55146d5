"""One image projected forward and back by one of the models, beside the peers of that model."""

import numpy as np
from _measure import difference, faster_than, interleave, one_thread, parse, report, standard_geometry
from _peers import AstraCalls, astra_or_reason, parallelproj_or_reason

ASTRA_KERNEL = {"joseph": "linear", "strip": "strip"}
ONE_THREAD = "allpet, one thread"


def bench_projection(script, description, model, claim, argv):
    arguments = parse(description, argv, repeats=5)
    from allpet_physics import RadonOperator

    size = arguments.size
    geometry = standard_geometry(size)
    operator = RadonOperator(geometry, model)
    image = smooth_image(size)
    sinogram = operator(image)
    peers, remarks = {}, []
    astra = astra_or_reason()
    if astra:
        peers[f"ASTRA {ASTRA_KERNEL[model]}"] = AstraCalls(astra, geometry, ASTRA_KERNEL[model], image, sinogram)
        remarks.append("ASTRA's CPU kernels run on one thread.")
    if model == "joseph":
        parallelproj = parallelproj_or_reason(arguments.libparallelproj, geometry, image, sinogram)
        if parallelproj:
            peers[f"libparallelproj {parallelproj.version}"] = parallelproj
    rows = []
    for direction, ours in (("forward", lambda: operator(image)), ("back", lambda: operator.T(sinogram))):
        timings, results = interleave({"allpet": ours, ONE_THREAD: one_thread(ours)}
                                      | {name: getattr(peer, direction) for name, peer in peers.items()},
                                      arguments.repeats)
        rows.append(faster_than(f"{model} {direction}, one image of {size} x {size}, {size} angles",
                                timings.pop("allpet"), {name: timings[name] for name in peers}, claim, size=size,
                                also={ONE_THREAD: timings[ONE_THREAD]}))
        remarks += [f"Difference from {name}, {direction}, relative in norm: "
                    f"{difference(results['allpet'], results[name]):.1e}." for name in peers]
    return report(script, f"{model.capitalize()} projection of one image", rows, arguments, remarks=remarks)


def smooth_image(size: int) -> np.ndarray:
    """Return an image with values everywhere inside the field of view, float32."""
    r, c = (np.mgrid[:size, :size] + 0.5) / size - 0.5
    image = 1 + 0.5 * np.sin(19 * r) * np.cos(23 * c)
    return np.where(np.hypot(r, c) < 0.48, image, 0).astype(np.float32)


if __name__ == "__main__":
    raise SystemExit("run bench_joseph.py or bench_strip.py")
