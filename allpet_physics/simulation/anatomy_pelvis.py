"""The pelvis: hip bones, sacrum, femoral heads, gluteal muscles, bladder, prostate or uterus."""

import numpy as np

from allpet_physics.simulation.anatomy_shapes import Canvas, Solid, waves


def draw_pelvis(rng: np.random.Generator, sizes: dict, sex: str, ca: float, cb: float, cy: float, yv: float) -> dict:
    """Return the pelvis's shapes; `ca`, `cb`, `cy` are the cavity's half axes and middle, `yv` the spine's y."""
    k = float(rng.normal(1.04 if sex == "female" else 1.0, 0.04))
    bladder = sizes["bladder_width_mm"] / 2
    hip = 90.0 * k

    def both(centre, radii, angle=0.0, power=2.0, lean=(0.0, 0.0)):
        x, y, z = centre
        return [Solid((side * x, y, z), radii, side * angle, power, (side * lean[0], lean[1]), waves(rng, 0.04))
                for side in (1, -1)]

    wings = both((86 * k, yv + 2, -125), (7.5, 56, 68), -0.72, 2.2, (0.28, 0.1))
    return {
        "wings": [*wings, *both((46 * k, yv - 26, -140), (13, 20, 42), -0.6)],
        "sacrum": Solid((0.0, yv - 18, -165.0), (50 * k, 19.0, 58.0), 0.0, 2.3, (0.0, 0.35), waves(rng, 0.05)),
        "hips": both((hip, yv + 38, -222), (27, 30, 36), 0.2, 2.2),
        "heads": both((hip + 6, yv + 40, -226), (23.5, 23.5, 23.5)),
        "shafts": both((hip + 44, yv + 26, -268), (18, 19, 38), 0.0),
        "pubis": both((34, cy + 0.55 * cb, -252), (34, 9, 13), -0.35),
        "glutei": both((78 * k, yv - 34, -205), (62, 42, 105), 0.2, 2.2),
        "iliacus": both((70 * k, yv + 16, -150), (14, 30, 60), -0.7),
        "obturator": both((62 * k, yv + 34, -235), (9, 30, 32), 0.15),
        "bladder": Solid((float(rng.normal(0, 4)), cy + 0.32 * cb, -226.0),
                         (bladder, 0.82 * bladder, float(rng.uniform(0.75, 1.1)) * bladder), 0.0, 2.3, (0, 0),
                         waves(rng, 0.05)),
        "gland": (("uterus", Solid((float(rng.normal(0, 6)), cy - 0.06 * cb, -196.0), (27, 21, 30),
                                   float(rng.normal(0, 0.3)), 2.0, (0, 0), waves(rng, 0.08))) if sex == "female" else
                  ("prostate", Solid((0.0, cy + 0.05 * cb, -258.0), (25, 20, 24), 0.0, 2.2, (0, 0),
                                     waves(rng, 0.05)))),
    }


def paint_pelvis(canvas: Canvas, pelvis: dict, room: str, buttocks: Solid) -> None:
    """Paint muscles (the gluteal ones within `buttocks`) and bones over the wall, then the organs into `room`."""
    if canvas.z_low > -50:
        return
    for shape in pelvis["glutei"]:
        found = canvas.at(shape)
        if found is not None:
            window, level = found
            within = buttocks.level(*(a[window] for a in (canvas.x, canvas.y, canvas.z))) < 1
            canvas.fill("muscle", window, (level < 1) & within, ("fat", room))
    for name in ("iliacus", "obturator"):
        for shape in pelvis[name]:
            canvas.paint("muscle", shape, (room,))
    tissue = ("muscle", room)
    for name, label in (("wings", "pelvis_bone"), ("hips", "pelvis_bone"), ("pubis", "pelvis_bone")):
        for shape in pelvis[name]:
            canvas.paint(label, shape, tissue)
    for shape in (*pelvis["heads"], *pelvis["shafts"]):
        canvas.paint("femur", shape, (*tissue, "pelvis_bone", "fat"))
    canvas.paint("bladder", pelvis["bladder"], room)
    canvas.paint(pelvis["gland"][0], pelvis["gland"][1], room)
