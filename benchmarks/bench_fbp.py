"""Filtered back projection of one image, beside ASTRA and scikit-image (no claim)."""

from functools import partial

import numpy as np
from _measure import difference, faster_than, interleave, one_thread, parse, report, standard_geometry
from _peers import AstraCalls, astra_or_reason
from _projection import ONE_THREAD, smooth_image


def main(argv=None):
    arguments = parse(__doc__, argv, repeats=3)
    from allpet_physics import RadonOperator, fbp
    from allpet_physics.conventions import sinogram_to_skimage

    size = arguments.size
    geometry = standard_geometry(size)
    image = smooth_image(size)
    sinogram = RadonOperator(geometry)(image)
    calls = {"allpet": lambda: fbp(sinogram, geometry)}
    calls[ONE_THREAD] = one_thread(calls["allpet"])
    astra = astra_or_reason()
    if astra:
        calls["ASTRA linear"] = AstraCalls(astra, geometry, "linear", sinogram=sinogram).fbp
    forward = None
    try:
        from skimage.transform import iradon, radon
    except ImportError:
        print("scikit-image is left out: it is not installed; install it with: pip install scikit-image")
    else:
        values, theta = sinogram_to_skimage(sinogram, geometry), np.degrees(geometry.angles)
        calls["scikit-image iradon"] = lambda: iradon(values, theta, output_size=size)
        forward = partial(radon, image, theta)
    timings, results = interleave(calls, arguments.repeats)
    ours, single = timings.pop("allpet"), timings.pop(ONE_THREAD)
    rows = [faster_than(f"FBP, {size} x {size}, {size} angles", ours, timings, size=size, also={ONE_THREAD: single})]
    inside = image > 0
    remarks = [f"Difference of {name} from the image, relative in norm inside it: "
               f"{difference(np.asarray(result)[inside], image[inside]):.1e}." for name, result in results.items()
               if name != ONE_THREAD]
    if forward:
        operator = RadonOperator(geometry, "joseph")
        timings, _ = interleave({"allpet": lambda: operator(image), "scikit-image radon": forward}, arguments.repeats)
        rows.append(faster_than(f"Joseph forward, {size} x {size}, {size} angles", timings.pop("allpet"), timings,
                                size=size))
    return report(__file__, "Filtered back projection", rows, arguments, remarks=remarks)


if __name__ == "__main__":
    main()
