"""Random patients: label maps of head, chest and abdomen with lesions, texture and attenuation."""

import dataclasses
from dataclasses import dataclass, field

import numpy as np

from allpet_physics._arrays import as_positive_float, as_positive_int
from allpet_physics.errors import InputError
from allpet_physics.simulation import anatomy_abdomen, anatomy_chest, anatomy_head
from allpet_physics.simulation.anatomy_shapes import Canvas, Plan, Pose, Warp
from allpet_physics.simulation.lesions import Lesion, add_lesions
from allpet_physics.simulation.organs import ORGAN_NAME, ORGAN_NUMBER, ORGANS, group_numbers, mu_table
from allpet_physics.simulation.texture import SmoothNoise, organ_texture

REGIONS = ("head", "chest", "abdomen")
ARMS = ("up", "down")
#: Field of view in mm that the default pixel sizes tile: 512 pixels of 1.3 mm.
FOV_MM = 665.6
#: So many patients have their slices at the usual heights of the region, the others anywhere in it (assumption).
_USUAL_SHARE = 0.6


@dataclass(frozen=True, eq=False)  # arrays have no single truth value
class Patient:
    """A patient as a label map, with everything needed to give it an uptake and an attenuation.

    Parameters
    ----------
    labels : ndarray of uint8, shape (slices, rows, cols)
        Numbers of `allpet_physics.simulation.organs.ORGANS`; slice grows superior, row posterior, col to the patient's
        left. Lesions have the labels ``lesion_hot`` and ``lesion_cold``; what they replace is in `lesions`.
    pixel_mm, slice_mm : float
        Spacing in plane and between slices.
    region : {"head", "chest", "abdomen"} or another word for real anatomy
    arms : {"up", "down"} or None
        None where the region has none.
    parameters : dict
        What was drawn: sex, age, habitus, sizes, pose; plain Python types, ready for JSON.
    lesions : tuple of Lesion
    texture : ndarray of float32, shape of `labels`
        Multiplies the uptake; its mean is 1.
    hu : ndarray, optional
        A CT on the same grid in HU; `mu_map` uses it.
    """

    labels: np.ndarray
    pixel_mm: float
    slice_mm: float
    region: str
    arms: str | None
    parameters: dict
    lesions: tuple[Lesion, ...] = ()
    texture: np.ndarray | None = field(default=None)
    hu: np.ndarray | None = None

    def __post_init__(self):
        if self.labels.ndim != 3 or self.labels.dtype.kind not in "iu":
            raise InputError("labels must be integers with axes (slice, row, col), but had shape "
                             f"{self.labels.shape} and dtype {self.labels.dtype}.")
        if self.labels.size and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(ORGANS):
            raise InputError(f"labels must be organ numbers from 0 to {len(ORGANS) - 1}, but ranged from "
                             f"{self.labels.min()} to {self.labels.max()}; map them first (from_totalsegmentator, "
                             "from_freesurfer).")
        for name in ("texture", "hu"):
            value = getattr(self, name)
            if value is not None and value.shape != self.labels.shape:
                raise InputError(f"{name} must have the shape of labels, {self.labels.shape}, but its shape was "
                                 f"{value.shape}.")

    @property
    def organs(self) -> tuple[str, ...]:
        """Names of the organs that are present, in the order of their numbers."""
        counts = np.bincount(self.labels.ravel(), minlength=len(ORGANS))
        return tuple(ORGAN_NAME[n] for n in np.flatnonzero(counts))

    def mask(self, organ: str) -> np.ndarray:
        """Return where an organ or a group (``"kidney"``, ``"striatum"``) is, as booleans.

        Raises
        ------
        InputError
            An unknown name.
        """
        return np.isin(self.labels, group_numbers(organ))

    def organ_labels(self) -> np.ndarray:
        """Return the label map without lesions: each gives its pixels back to the organ it lies in."""
        labels = self.labels.copy()
        for lesion in reversed(self.lesions):
            labels[lesion.mask] = ORGAN_NUMBER[lesion.organ]
        return labels

    def mu_map(self, kvp: float | None = None) -> np.ndarray:
        """Return the linear attenuation coefficient at 511 keV in 1/mm, float32, shape of `labels`.

        From the CT where there is one (its tube voltage `kvp` selects the slopes, see `hu_to_mu`), else from the table
        of organs; a lesion in bone has the bone's value.

        Raises
        ------
        InputError
            A CT without its tube voltage.
        """
        if self.hu is None:
            mu = mu_table()[self.labels]
            for lesion in self.lesions:
                if ORGANS[ORGAN_NUMBER[lesion.organ]].bone:
                    mu[lesion.mask] = mu_table()[ORGAN_NUMBER[lesion.organ]]
            return mu
        from allpet_physics.simulation.ct import hu_to_mu

        kvp = self.parameters.get("kvp") if kvp is None else kvp
        if kvp is None:
            raise InputError("kvp must be the tube voltage of the CT in kV (80 to 140), but was not given; it is "
                             "DICOM tag (0018,0060).")
        mu = hu_to_mu(self.hu, kvp)
        return np.where(self.labels == 0, np.float32(0), mu)

    def to_dict(self) -> dict:
        """Return everything but the arrays as plain Python types, ready for JSON."""
        return {"region": self.region, "arms": self.arms, "pixel_mm": self.pixel_mm, "slice_mm": self.slice_mm,
                "shape": list(self.labels.shape), "organs": list(self.organs), "parameters": self.parameters,
                "lesions": [lesion.to_dict() for lesion in self.lesions]}


def draw_patient(rng, region: str = "head", size: int = 256, n_slices: int = 3, fov_mm: float = FOV_MM,
                 slice_mm: float = 3.0, arms: str = "random", lesions=None, *, sex: str = "random",
                 level_mm: float | None = None) -> Patient:
    """Draw a random patient.

    The anatomy depends on the random numbers alone, not on `size`: a patient drawn again with the same seed at another
    size is the same patient sampled anew (lesions are placed on pixels and may move by one).

    Parameters
    ----------
    rng : numpy.random.Generator, int or sequence of int
        A generator, or a seed; ``(seed, patient index)`` gives the same patient on any worker.
    region : {"head", "chest", "abdomen"}
    size : int
        Rows and columns, at least 16.
    n_slices : int
        Neighbouring slices.
    fov_mm : float
        Side of the image in mm.
    slice_mm : float
        Distance of neighbouring slices.
    arms : {"up", "down", "random"}
        Arms beside the trunk ("down") or out of the picture ("up"); the head has none.
    lesions : None, int or sequence of LesionSpec
        None draws a number of them, 0 gives none.
    sex : {"male", "female", "random"}
    level_mm : float, optional
        Height of the middle slice: head, above the commissures; chest, above the middle of the heart; abdomen, above
        the kidneys. Drawn by default.

    Raises
    ------
    InputError
        An unknown region, arms or sex, a size below 16, a field of view below 500 mm, a level out of range.
    """
    rng = np.random.default_rng(rng)
    _check_choice("region", region, REGIONS)
    _check_choice("arms", arms, (*ARMS, "random"))
    _check_choice("sex", sex, ("male", "female", "random"))
    size, n_slices = as_positive_int("size", size, minimum=16), as_positive_int("n_slices", n_slices)
    fov_mm, slice_mm = as_positive_float("fov_mm", fov_mm), as_positive_float("slice_mm", slice_mm)
    if fov_mm < 250 or (region != "head" and fov_mm < 500):
        raise InputError(f"fov_mm must be at least {250 if region == 'head' else 500} for the {region} to fit, but was "
                         f"{fov_mm:g}.")
    child = [np.random.default_rng(s) for s in rng.integers(2**63, size=5)]
    room = {"head": anatomy_head, "chest": anatomy_chest, "abdomen": anatomy_abdomen}[region]
    level_mm = _level(child[0], level_mm, room.LEVELS_MM, room.USUAL_MM)
    sex = str(child[0].choice(("male", "female"))) if sex == "random" else sex
    age = float(np.clip(child[0].normal(60, 14), 20, 90))
    if region == "head":
        arms = None
        plan = room.draw_head(child[1], sex, age, level_mm)
    else:
        arms = str(child[0].choice(ARMS, p=(0.75, 0.25))) if arms == "random" else arms
        draw = room.draw_chest if region == "chest" else room.draw_abdomen
        plan = draw(child[1], sex, age, level_mm, arms)
    pixel_mm = fov_mm / size
    heights = (np.arange(n_slices) - (n_slices - 1) / 2) * slice_mm
    labels = _rasterise(plan, child[2], size, pixel_mm, fov_mm, heights)
    parameters = {"sex": sex, "age": age, "level_mm": plan.level_mm, "sizes": plan.sizes,
                  "pose": dataclasses.asdict(plan.pose)}
    labels, found = add_lesions(labels, pixel_mm, slice_mm, region, lesions, child[3])
    texture = organ_texture(labels, pixel_mm, slice_mm, child[4])
    return Patient(labels, pixel_mm, slice_mm, region, arms, _plain(parameters), found, texture)


def _rasterise(plan: Plan, rng, size, pixel_mm, fov_mm, heights) -> np.ndarray:
    """Paint every slice of a plan."""
    axis = (np.arange(size) - (size - 1) / 2) * pixel_mm
    half = fov_mm / 2
    reach_z = np.ceil(np.abs(heights).max() + 1)
    warp = Warp(tuple(SmoothNoise(rng, (-reach_z, -half, -half), (reach_z, half, half), length, 2)
                      for length, _ in plan.warp), tuple(amplitude for _, amplitude in plan.warp))
    pose: Pose = plan.pose
    cols = np.flatnonzero(np.abs(axis - pose.shift[0]) < plan.half_extent_mm[0] + 15)
    rows = np.flatnonzero(np.abs(-axis - pose.shift[1]) < plan.half_extent_mm[1] + 15)
    rows, cols = slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)
    shift = warp.on(heights, axis[rows], axis[cols])
    px, py = np.meshgrid(axis[cols] - pose.shift[0], -axis[rows] - pose.shift[1])
    c, s = np.cos(pose.turn), np.sin(pose.turn)
    x0, y0 = c * px + s * py, c * py - s * px
    labels = np.zeros((len(heights), size, size), np.uint8)
    for k, h in enumerate(heights):
        # Turned by small angles about the x and y axes: a tilted head's slices are oblique.
        z = plan.level_mm + h + np.sin(pose.tilt) * y0 + np.sin(pose.roll) * x0
        y = np.cos(pose.tilt) * y0 - np.sin(pose.tilt) * h
        x = np.cos(pose.roll) * x0 - np.sin(pose.roll) * h
        canvas = Canvas((x + shift[0, k]).astype(np.float32), (y + shift[1, k]).astype(np.float32),
                        z.astype(np.float32), axis[cols], -axis[rows], pose, warp.reach_mm + 6)
        plan.paint(canvas)
        labels[k, rows, cols] = canvas.labels
    return labels


def _check_choice(name, value, known):
    if value not in known:
        raise InputError(f"{name} must be one of {', '.join(known)}, but was {value!r}.")


def _level(rng, level_mm, limits, usual) -> float:
    drawn = float(rng.uniform(*(usual if rng.random() < _USUAL_SHARE else limits)))
    if level_mm is None:
        return drawn
    level_mm = float(level_mm)
    if not limits[0] <= level_mm <= limits[1]:
        raise InputError(f"level_mm must be between {limits[0]:g} and {limits[1]:g} for this region, but was "
                         f"{level_mm:g}.")
    return level_mm


def _plain(value):
    """Return nested containers with NumPy numbers turned into Python's."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value
