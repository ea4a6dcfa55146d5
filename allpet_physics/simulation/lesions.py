"""Lesions with known masks: hot and cold, of several sizes, inside the organs where they occur."""

from dataclasses import dataclass

import numpy as np

from allpet_physics._arrays import as_positive_float
from allpet_physics.errors import InputError
from allpet_physics.simulation.anatomy_shapes import Solid, waves
from allpet_physics.simulation.organs import ORGAN_NUMBER, organ_number

KINDS = ("hot", "cold")

#: Where lesions are drawn: (organ, kind, weight, diameters in mm from, to). All assumptions.
_SITES = {
    "head": (("brain_white", "hot", 3, 8, 36), ("brain_grey", "hot", 2, 8, 26), ("brain_grey", "cold", 3, 12, 45),
             ("cerebellum", "hot", 1, 8, 25), ("brain_white", "cold", 2, 10, 35), ("skull", "hot", 1, 8, 22),
             ("putamen", "cold", 1, 8, 16), ("parotid", "hot", 1, 6, 18), ("muscle", "hot", 1, 8, 20)),
    "chest": (("lung", "hot", 6, 6, 45), ("node", "hot", 4, 7, 24), ("vertebra", "hot", 2, 8, 28),
              ("rib", "hot", 2, 7, 22), ("breast", "hot", 2, 7, 30), ("liver", "hot", 1, 8, 30),
              ("heart_muscle", "cold", 2, 12, 32), ("lung", "cold", 1, 20, 60), ("muscle", "hot", 1, 8, 18)),
    "abdomen": (("liver", "hot", 5, 8, 45), ("liver", "cold", 3, 8, 50), ("node", "hot", 4, 7, 24),
                ("vertebra", "hot", 2, 8, 30), ("pelvis_bone", "hot", 3, 8, 32), ("kidney_cortex", "cold", 2, 8, 30),
                ("spleen", "cold", 1, 8, 25), ("spleen", "hot", 1, 8, 22), ("pancreas", "hot", 2, 8, 24),
                ("bowel", "hot", 1, 10, 28), ("prostate", "hot", 3, 7, 22), ("adrenal", "hot", 1, 8, 20)),
}
#: Probability of 0, 1, 2, ... lesions when their number is drawn.
_HOW_MANY = (0.25, 0.27, 0.2, 0.14, 0.08, 0.06)
#: A node lies in the fat within this distance of a great vessel, mm.
_NODE_REACH_MM = 32.0


@dataclass(frozen=True)
class LesionSpec:
    """A lesion that is asked for.

    Parameters
    ----------
    organ : str
        The organ it lies in, or ``"node"`` for a lymph node in the fat beside the great vessels.
    kind : {"hot", "cold"}
    diameter_mm : float
    uptake_factor : float, optional
        See `Lesion`; drawn by default.
    """

    organ: str
    kind: str = "hot"
    diameter_mm: float = 15.0
    uptake_factor: float | None = None

    def __post_init__(self):
        if self.organ != "node":
            organ_number(self.organ)
        if self.kind not in KINDS:
            raise InputError(f"kind must be one of {', '.join(KINDS)}, but was {self.kind!r}.")
        as_positive_float("diameter_mm", self.diameter_mm)
        if self.uptake_factor is not None:
            as_positive_float("uptake_factor", self.uptake_factor, allow_zero=True)


@dataclass(frozen=True, eq=False)  # arrays have no single truth value
class Lesion:
    """A lesion in a patient.

    Parameters
    ----------
    kind : {"hot", "cold"}
        Its label is ``lesion_hot`` or ``lesion_cold``.
    organ : str
        The label that it replaces (``"fat"`` for a lymph node).
    site : str
        The organ, or ``"node"``.
    diameter_mm : float
        Of the sphere of the drawn size; the mask is irregular, and cut off where the organ ends.
    uptake_factor : float
        Multiplies the uptake that a tracer gives to ``lesion_hot`` or ``lesion_cold``: how lesions differ.
    centre : (float, float, float)
        Slice, row, column.
    mask : ndarray of bool, shape (slices, rows, cols)
    """

    kind: str
    organ: str
    site: str
    diameter_mm: float
    uptake_factor: float
    centre: tuple[float, float, float]
    mask: np.ndarray

    def to_dict(self) -> dict:
        """Return everything but the mask, and its number of voxels, as plain Python types."""
        return {"kind": self.kind, "organ": self.organ, "site": self.site, "diameter_mm": self.diameter_mm,
                "uptake_factor": self.uptake_factor, "centre": list(self.centre), "voxels": int(self.mask.sum())}


def add_lesions(labels: np.ndarray, pixel_mm: float, slice_mm: float, region: str, lesions,
                rng: np.random.Generator) -> tuple[np.ndarray, tuple[Lesion, ...]]:
    """Return a copy of a label map with lesions, and the lesions.

    Parameters
    ----------
    labels : ndarray of int, shape (slices, rows, cols)
    pixel_mm, slice_mm : float
    region : str
        Says which sites lesions are drawn from when `lesions` does not.
    lesions : None, int or sequence of LesionSpec
        None draws a number of lesions, an integer that many; a lesion whose drawn site is not in the slices is drawn
        again, and left out when none is. A LesionSpec whose organ is not in the slices is an error.
    rng : numpy.random.Generator

    Raises
    ------
    InputError
        Something that is no lesion, an organ that the slices do not hold.
    """
    labels = labels.copy()
    specs, drawn = _specs(lesions, region, rng)
    out = []
    for spec in specs:
        if drawn:
            spec = _draw_spec(labels, region, rng)
            if spec is None:
                continue
        lesion = _place(labels, pixel_mm, slice_mm, spec, rng)
        if lesion is None:
            if drawn:
                continue
            raise InputError(f"lesions asked for one in {spec.organ!r}, but the slices hold no room for it; choose an "
                             "organ from Patient.organs, or another level_mm.")
        labels[lesion.mask] = ORGAN_NUMBER[f"lesion_{lesion.kind}"]
        out.append(lesion)
    return labels, tuple(out)


def _specs(lesions, region, rng):
    if lesions is None:
        return [None] * int(rng.choice(len(_HOW_MANY), p=_HOW_MANY)), True
    if isinstance(lesions, (int, np.integer)) and not isinstance(lesions, bool):
        if lesions < 0:
            raise InputError(f"lesions must be a number from 0 on or LesionSpec items, but was {lesions}.")
        return [None] * int(lesions), True
    try:
        specs = list(lesions)
    except TypeError:
        specs = [None]
    if not all(isinstance(s, LesionSpec) for s in specs):
        raise InputError(f"lesions must be None, a number, or a sequence of LesionSpec, but was {lesions!r}.")
    return specs, False


def _draw_spec(labels, region, rng) -> LesionSpec | None:
    """Draw a lesion for a site that the slices hold."""
    present = np.bincount(labels.ravel(), minlength=len(ORGAN_NUMBER)) > 0
    sites = [s for s in _SITES.get(region, _SITES["abdomen"])
             if (present[ORGAN_NUMBER["aorta"]] if s[0] == "node" else present[ORGAN_NUMBER[s[0]]])]
    if not sites:
        return None
    weights = np.array([s[2] for s in sites], float)
    organ, kind, _, low, high = sites[rng.choice(len(sites), p=weights / weights.sum())]
    return LesionSpec(organ, kind, float(np.exp(rng.uniform(np.log(low), np.log(high)))))


def _place(labels, pixel_mm, slice_mm, spec, rng, tries: int = 12) -> Lesion | None:
    """Put a lesion where, of several places tried, most of it lies within its organ."""
    organ = "fat" if spec.organ == "node" else spec.organ
    host = labels == ORGAN_NUMBER[organ]
    candidates = np.flatnonzero(_beside_vessels(labels, host, pixel_mm) if spec.organ == "node" else host)
    if not len(candidates):
        return None
    radii = spec.diameter_mm / 2 * np.clip(rng.normal(1, 0.15, 3), 0.7, 1.4)
    shape = Solid((0.0, 0.0, 0.0), tuple(radii), float(rng.uniform(0, np.pi)), 2.0, (0.0, 0.0), waves(rng, 0.09))
    factor = spec.uptake_factor
    if factor is None:
        factor = float(np.exp(rng.normal(0, 0.45 if spec.kind == "hot" else 0.25)))
    reach = [int(np.ceil(1.5 * radii.max() / step)) for step in (slice_mm, pixel_mm, pixel_mm)]
    best, best_share, best_place = None, 0.0, None
    for index in rng.choice(candidates, size=tries):
        centre = np.unravel_index(index, labels.shape)
        # Between pixel centres, so that equal lesions differ in their pixels.
        exact = np.array(centre) + rng.uniform(-0.4, 0.4, 3)
        box = tuple(slice(max(c - r, 0), min(c + r + 1, n)) for c, r, n in zip(centre, reach, labels.shape,
                                                                               strict=True))
        k, i, j = (np.arange(b.start, b.stop, dtype=np.float32) for b in box)
        f = shape.level(((j - exact[2]) * pixel_mm)[None, None, :].astype(np.float32),
                        ((exact[1] - i) * pixel_mm)[None, :, None].astype(np.float32),
                        ((k - exact[0]) * slice_mm)[:, None, None].astype(np.float32))
        inside = f < 1
        inside[tuple(int(c - b.start) for c, b in zip(centre, box, strict=True))] = True
        kept = inside & host[box]
        share = kept.sum() / inside.sum()
        if share > best_share:
            best, best_share, best_place = (box, kept), share, exact
    if best is None:
        return None
    mask = np.zeros(labels.shape, bool)
    mask[best[0]] = best[1]
    return Lesion(spec.kind, organ, spec.organ, float(spec.diameter_mm), factor,
                  tuple(float(v) for v in best_place), mask)


def _beside_vessels(labels, host, pixel_mm):
    """Return the part of `host` within reach of the aorta, slice by slice (as a box around it)."""
    near = np.zeros(labels.shape, bool)
    for k, plane in enumerate(labels == ORGAN_NUMBER["aorta"]):
        rows, cols = np.nonzero(plane)
        if len(rows):
            r = int(np.ceil(_NODE_REACH_MM / pixel_mm))
            near[k, max(rows.min() - r, 0):rows.max() + r + 1, max(cols.min() - r, 0):cols.max() + r + 1] = True
    return near & host
