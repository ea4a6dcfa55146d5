"""The bowel: a colon that frames the abdomen, with haustra and gas, and loops of small bowel within it."""

import numpy as np

from allpet_physics.simulation.anatomy_shapes import Canvas, Tube
from allpet_physics.simulation.organs import ORGAN_NUMBER


def draw_bowel(rng: np.random.Generator, sizes: dict, ca: float, cb: float, cy: float, yv: float) -> dict:
    """Return colon and small bowel; `ca`, `cb`, `cy` are the cavity's half axes and middle, `yv` the spine's y."""
    radius = sizes["colon_mm"] / 2
    sag = float(rng.uniform(-75, -10))
    path = np.array([
        (-0.66 * ca, cy - 0.05 * cb, -150), (-0.78 * ca, cy - 0.2 * cb, -110), (-0.8 * ca, cy - 0.22 * cb, -60),
        (-0.74 * ca, cy - 0.05 * cb, -12), (-0.52 * ca, cy + 0.5 * cb, -14), (-0.2 * ca, cy + 0.76 * cb, 0.6 * sag),
        (0.12 * ca, cy + 0.78 * cb, sag), (0.46 * ca, cy + 0.62 * cb, 0.3 * sag), (0.7 * ca, cy + 0.1 * cb, 34),
        (0.82 * ca, cy - 0.28 * cb, 18), (0.84 * ca, cy - 0.35 * cb, -40), (0.82 * ca, cy - 0.25 * cb, -100),
        (0.66 * ca, cy - 0.05 * cb, -140), (0.36 * ca, cy + 0.1 * cb, -165), (0.12 * ca, cy - 0.1 * cb, -150),
        (0.02 * ca, yv + 38, -178), (0.0, yv + 14, -215), (0.0, yv + 12, -270)], float)
    path += rng.normal(0, 7, path.shape)
    width = radius * np.array([1.25, 1.2, 1.1, 1, 0.95, 0.9, 0.9, 0.9, 0.9, 0.8, 0.7, 0.65, 0.62, 0.62, 0.62, 0.7, 0.85,
                               0.8])
    colon = Tube.through(path, width * rng.normal(1, 0.1, len(path)), 6.0)
    n = len(colon.radius)
    haustra = 1 + 0.16 * np.sin(np.cumsum(rng.normal(1.35, 0.35, n)))
    colon = Tube(colon.points, (colon.radius * haustra).astype(np.float32))
    gas = np.repeat(rng.random(n // 6 + 1) < 0.35, 6)[:n]
    return {"colon": colon, "colon_gas": gas, "small": _loops(rng, sizes["bowel_mm"] / 2, ca, cb, cy, yv),
            "wall_mm": float(rng.uniform(2.6, 4.2))}


def _loops(rng, radius, ca, cb, cy, yv):
    """Return a long tube that wanders within the middle of the cavity without long straight runs."""
    back, front = yv + 34, cy + 0.84 * cb
    low = np.array([-0.62 * ca, min(back, front - 40), -200.0])
    high = np.array([0.66 * ca, front, -8.0])
    points, place = [], rng.uniform(low, high)
    heading = rng.standard_normal(3)
    for _ in range(230):
        heading = 0.45 * heading + rng.standard_normal(3) * (1.0, 0.9, 0.7)
        step = heading / np.linalg.norm(heading) * rng.uniform(18, 34)
        # A step that would leave the room turns back.
        step = np.where((place + step < low) | (place + step > high), -step, step)
        heading = np.where(step * heading < 0, -heading, heading)
        place = np.clip(place + step, low, high)
        points.append(place)
    return Tube.through(points, radius * np.clip(rng.normal(0.92, 0.14, len(points)), 0.6, 1.3), 7.0)


def paint_bowel(canvas: Canvas, bowel: dict, room: str) -> None:
    """Paint the colon, then the small bowel into what is left of `room`."""
    colon = bowel["colon"]
    box = colon.box(canvas.z_low, canvas.z_high)
    if box is not None:
        window = canvas.window(box)
        if canvas.labels[window].size:
            level, place = colon.level_and_place(canvas.x[window], canvas.y[window], canvas.z[window])
            nearest = np.minimum(place.astype(int), len(colon.radius) - 1)
            lumen = level < 1 - np.float32(bowel["wall_mm"]) / colon.radius[nearest]
            free = (level < 1) & (canvas.labels[window] == ORGAN_NUMBER[room])
            canvas.fill("bowel", window, free)
            canvas.fill("bowel_content", window, free & lumen)
            # Gas rises: it fills the upper part of a segment that has any.
            up = canvas.y[window] > colon.points[nearest, 1] - 0.15 * colon.radius[nearest]
            canvas.fill("bowel_gas", window, free & lumen & up & bowel["colon_gas"][nearest])
    found = canvas.at(bowel["small"])
    if found is not None:
        window, level = found
        free = canvas.labels[window] == ORGAN_NUMBER[room]
        canvas.fill("bowel", window, free & (level < 1))
        canvas.fill("bowel_content", window, free & (level < 0.5))

