"""What chest and abdomen share: skin, fat and muscle wall, spine, ribs, arms beside the body."""

from dataclasses import dataclass

import numpy as np

from allpet_physics.simulation.anatomy_shapes import Canvas, Solid, Tube, waves

SKIN_MM = 2.0


@dataclass(frozen=True)
class Wall:
    """The layers of a trunk: solids from outside in, and the middle of the vertebral body in y."""

    skin: Solid
    fat: Solid
    muscle: Solid
    cavity: Solid
    spine_y: float


def trunk_wall(rng, width, depth, fat, muscle, *, inner_mm, taper=None, power=2.4) -> Wall:
    """Return the layers of a trunk `width` by `depth` mm.

    `inner_mm` is what lies between muscle and cavity (the ribs); `taper` is (height of the widest place, vertical
    radius) of a cavity that closes upwards.
    """
    a, b = width / 2, depth / 2
    outline = ((2, float(rng.normal(0, 0.012)), 0.0, 0.5), (3, float(rng.normal(0.012, 0.008)), np.pi / 2, 0.5),
               *waves(rng, 0.005, (4, 5, 6), 1.0))
    skin = Solid((0.0, 0.0, 0.0), (a, b, 900.0), 0.0, power, (0.0, 0.0), outline)
    side, front, back = fat * rng.uniform(0.8, 1.15), fat * rng.uniform(0.8, 1.2), fat * rng.uniform(0.75, 1.1)
    inner = outline[:2]
    # The thickness of fat differs from front to back: the muscle's centre moves.
    muscle_solid = Solid((0.0, (back - front) / 2, 0.0), (a - side, b - (front + back) / 2, 900.0), 0.0, power,
                         (0.0, 0.0), inner)
    m_side, m_front, m_back = muscle + inner_mm, 0.75 * muscle + inner_mm, 1.15 * muscle + inner_mm
    z, rz = taper or (0.0, 900.0)
    cavity = Solid((0.0, (back - front) / 2 + (m_back - m_front) / 2, z),
                   (a - side - m_side, b - (front + back) / 2 - (m_front + m_back) / 2, rz), 0.0, power, (0.0, 0.0),
                   inner)
    return Wall(skin, skin.scaled(-SKIN_MM), muscle_solid, cavity, -b + back + float(rng.normal(53, 3)))


def paint_wall(canvas: Canvas, wall: Wall) -> None:
    """Paint skin, fat and muscle."""
    for name, shape in (("skin", wall.skin), ("fat", wall.fat), ("muscle", wall.muscle)):
        canvas.paint(name, shape)


def draw_spine(rng, wall: Wall, width: float, spacing: float, lean=(0.0, 0.0)) -> dict:
    """Return the shapes of the vertebral column: a body, its arch and processes, canal and cord."""
    y, r = wall.spine_y, width / 2
    long = 900.0
    curve = float(rng.normal(0, 0.03))
    lean = (curve, lean[1])
    depth = r * rng.uniform(0.74, 0.86)
    canal_y = y - depth - 8.0
    return {
        "body": Solid((0.0, y, 0.0), (r, depth, long), 0.0, 2.4, lean, waves(rng, 0.02)),
        "arch": Solid((0.0, canal_y, 0.0), (15.5, 12.5, long), 0.0, 2.2, lean),
        "canal": Solid((0.0, canal_y, 0.0), (10.0, 8.0, long), 0.0, 2.0, lean),
        "cord": Solid((0.0, canal_y, 0.0), (5.5, 4.2, long), 0.0, 2.0, lean),
        "spinous": Solid((0.0, canal_y - 20, 0.0), (3.6, 15.0, long), 0.0, 2.4, lean),
        "transverse": [Solid((side * (r * 0.6 + 13), canal_y + 1, 0.0), (13.0, 4.4, long), side * -0.3, 2.2, lean)
                       for side in (1, -1)],
        "spacing": spacing,
        "phase": float(rng.random()),
    }


def paint_spine(canvas: Canvas, spine: dict, cord: bool = True, lowest_mm: float = -1e9) -> None:
    """Paint the column down to a height; bodies and discs, arches and processes alternate with height."""
    if canvas.z_high < lowest_mm:
        return
    soft = ("muscle", "fat", "lung", "rib")
    step = canvas.z * np.float32(1 / spine["spacing"]) + np.float32(spine["phase"])
    step = step - np.floor(step)
    found = canvas.at(spine["body"])
    window, level = found
    part = step[window]
    canvas.fill("vertebra", window, level < 1)
    canvas.fill("intervertebral_disc", window, (level < 0.97) & (part < 0.2))
    for name, share in (("arch", 0.75), ("spinous", 0.62)):
        window, level = canvas.at(spine[name])
        canvas.fill("vertebra", window, (level < 1) & (step[window] > 1 - share), (*soft, "vertebra"))
    for shape in spine["transverse"]:
        window, level = canvas.at(shape)
        canvas.fill("vertebra", window, (level < 1) & (np.abs(step[window] - 0.72) < 0.17), soft)
    canvas.paint("csf", spine["canal"])
    canvas.paint("spinal_cord" if cord else "csf", spine["cord"])


def draw_ribs(rng, thickness: float, spacing: float) -> dict:
    """Return how ribs wind around the cavity: they fall by `drop` mm from the back to the front."""
    return {"thickness": thickness, "spacing": spacing, "phase": float(rng.random()),
            "drop": float(rng.normal(105, 14)), "bend": float(rng.uniform(0.8, 1.3))}


def paint_ribs(canvas: Canvas, wall: Wall, ribs: dict, lowest_mm: float = -1e9) -> None:
    """Paint ribs as a horizontal plane cuts them: long ellipses around the cavity, none at the front's cartilage."""
    found = canvas.at(wall.cavity.scaled(ribs["thickness"] + 4))
    if found is None:
        return
    window, _ = found
    x, y, z = canvas.x[window], canvas.y[window], canvas.z[window]
    cavity = wall.cavity
    f = cavity.level(x, y, z)
    near = (f > 0.97) & (f < 1.35)
    dy = y - cavity.centre[1]
    radial = np.hypot(x, dy)
    outside = radial * (1 - 1 / np.maximum(f, 0.3))  # mm beyond the cavity, along the ray from its centre
    forward = np.clip((dy / cavity.radii[1] + 1) / 2, 0, 1) ** np.float32(ribs["bend"])
    turn = (z + np.float32(ribs["drop"]) * forward) / np.float32(ribs["spacing"]) + np.float32(ribs["phase"])
    turn = turn - np.floor(turn) - np.float32(0.5)
    half = ribs["thickness"] / 2
    across = (outside - np.float32(1.0 + half)) / np.float32(half)
    inside = near & ((turn / np.float32(0.25)) ** 2 + across * across < 1)
    cartilage = (dy > 0.55 * cavity.radii[1]) & (np.abs(x) < 0.62 * cavity.radii[0])
    canvas.fill("rib", window, inside & ~cartilage & (z > lowest_mm), ("muscle", "fat"))


def draw_arms(rng, half_width: float, fat: float, room_mm: float, forearm: bool) -> list[dict]:
    """Return the arms beside the body; `room_mm` is how far from the middle they may reach."""
    arms = []
    for side in (1, -1):
        gap = rng.uniform(2, 14)
        radius = min(rng.uniform(42, 56), (room_mm - half_width - gap) / 2.15)
        centre = (side * (half_width + gap + 1.05 * radius), float(rng.normal(-12, 16)))
        lean = (side * float(rng.normal(-0.06, 0.03)), float(rng.normal(0, 0.05)))
        wave = waves(rng, 0.03)

        def ring(grow, centre=centre, radius=radius, lean=lean, wave=wave):
            return Solid((*centre, 0.0), (radius + grow, 0.95 * radius + grow, 900.0), 0.0, 2.0, lean, wave)

        layer = float(np.clip(0.45 * fat, 3, radius * 0.35))
        offsets = ((-11, 4, 8.0), (11, -5, 8.5)) if forearm else ((*rng.normal(0, 3, 2), 12.5),)
        bones = [Tube.through([(centre[0] + dx + lean[0] * h, centre[1] + dy + lean[1] * h, h) for h in (-400, 400)],
                              r, 400.0) for dx, dy, r in offsets]
        marrow = [Tube(t.points, t.radius * np.float32(0.55)) for t in bones]
        arms.append({"layers": (("skin", ring(0)), ("fat", ring(-SKIN_MM)), ("muscle", ring(-SKIN_MM - layer))),
                     "bones": bones, "marrow": marrow})
    return arms


def paint_arms(canvas: Canvas, arms: list[dict]) -> None:
    """Paint arms in front of nothing: the trunk is painted over them."""
    for arm in arms:
        for name, shape in arm["layers"]:
            canvas.paint(name, shape)
        for bone, marrow in zip(arm["bones"], arm["marrow"], strict=True):
            canvas.paint("arm_bone", bone)
            canvas.paint("marrow", marrow)
