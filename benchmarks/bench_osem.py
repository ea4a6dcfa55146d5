"""OSEM of one slice, 16 subsets and 2 iterations, against the same algorithm written plainly on ASTRA's projector."""

import numpy as np
from _measure import difference, faster_than, interleave, parse, report, standard_geometry
from _peers import astra_or_reason
from _projection import ASTRA_KERNEL, smooth_image

CLAIM = 6
SUBSETS, ITERATIONS = 16, 2


def main(argv=None):
    arguments = parse(__doc__, argv, repeats=3)
    from allpet_physics import AcquisitionModel, RadonOperator, osem

    size = arguments.size
    geometry = standard_geometry(size)
    astra = astra_or_reason()
    rows, remarks = [], ["Sensitivity images are computed within the time, by both."]
    for model in ("strip", "joseph"):
        operator = RadonOperator(geometry, model)
        counts = np.random.default_rng(0).poisson(operator(smooth_image(size))).astype(np.float32)
        name = f"plain OSEM on ASTRA {ASTRA_KERNEL[model]}"
        theirs = RadonOperator(geometry, model, backend="astra") if astra else None
        timings, results = interleave({
            # A new model each time, so that no sensitivity image is left over from the call before.
            "allpet": lambda a=operator, y=counts: osem(AcquisitionModel(a), y, ITERATIONS, SUBSETS),
            name: (lambda a=theirs, y=counts: plain_osem(a, y)) if astra else None}, arguments.repeats)
        rows.append(faster_than(f"OSEM with the {model} model, {SUBSETS} subsets, {ITERATIONS} iterations, {size} x "
                                f"{size}, {size} angles", timings.pop("allpet"), timings, CLAIM, size=size))
        if astra:
            remarks.append(f"Difference of the {model} images, relative in norm: "
                           f"{difference(results['allpet'], results[name]):.1e}.")
    return report(__file__, "OSEM", rows, arguments, remarks=remarks)


def plain_osem(operator, counts):
    """Return the OSEM image from eq. (E1) alone: multiply by the back-projected quotient over the sensitivity."""
    from allpet_physics.acquisition import angle_subsets

    order = angle_subsets(len(counts), SUBSETS)
    parts = [(operator.subset(angles), counts[angles]) for angles in order]
    sensitivities = [part.T(np.ones_like(y)) for part, y in parts]
    seen = sum(sensitivities) > 0
    image = (seen * (counts.sum() / sum(sensitivities).sum())).astype(np.float32)
    for _ in range(ITERATIONS):
        for (part, y), sensitivity in zip(parts, sensitivities, strict=True):
            mean = part(image)
            quotient = np.divide(y, mean, out=np.zeros_like(y), where=mean > 0)
            image *= np.divide(part.T(quotient), sensitivity, out=np.ones_like(image), where=sensitivity > 0)
    return image


if __name__ == "__main__":
    main()
