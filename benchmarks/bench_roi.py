"""Binary regions that cover 1 % of the image, against ASTRA's strip projection of the same mask."""

import numpy as np
from _measure import difference, faster_than, interleave, parse, report, standard_geometry
from _peers import AstraCalls, astra_or_reason

CLAIM, COVERED = 300, 0.01


def main(argv=None):
    arguments = parse(__doc__, argv, repeats=3)
    from allpet_physics import project_mask

    size = arguments.size
    geometry = standard_geometry(size)
    astra = astra_or_reason()
    buffer = np.empty(geometry.sinogram_shape, np.float32)
    rows, remarks = [], []
    for name, mask in (("disc", region(size)), ("irregular region", region(size, seed=3))):
        peer = AstraCalls(astra, geometry, "strip", mask) if astra else None
        timings, results = interleave({
            "allpet": lambda mask=mask: project_mask(mask, geometry, out=buffer),
            "ASTRA strip": peer.forward if peer else None}, arguments.repeats)
        rows.append(faster_than(f"{name} of {int(mask.sum()):,} px, {size} x {size}", timings.pop("allpet"), timings,
                                CLAIM, size=size))
        if peer:
            error = difference(project_mask(mask, geometry), results["ASTRA strip"])
            remarks.append(f"Difference from ASTRA for the {name}, relative in norm: {error:.1e}.")
    return report(__file__, "Regions of 1 % of the image", rows, arguments, remarks=remarks)


def region(size: int, seed: int | None = None) -> np.ndarray:
    """Return the 1 % of the pixels that lie innermost in a disc, or in an outline with bays and spurs, off centre."""
    row, col = np.mgrid[:size, :size] - np.array([0.42, 0.55]).reshape(2, 1, 1) * size
    radius = np.hypot(row, col)
    if seed is not None:
        rng = np.random.default_rng(seed)
        angle = np.arctan2(row, col)
        waves = np.arange(2, 14)
        height, phase = rng.normal(0, 0.35 / waves**0.7), rng.uniform(0, 2 * np.pi, waves.size)
        radius /= np.exp(sum(h * np.cos(k * angle + p) for h, k, p in zip(height, waves, phase, strict=True)))
    return radius <= np.quantile(radius, COVERED)


if __name__ == "__main__":
    main()
