"""A random chest: lungs, heart and great vessels within a wall of ribs, muscle, fat and breasts.

The origin is the midline at half depth, at the height of the middle of the heart; +x left, +y anterior, +z superior.
"""

import numpy as np

from allpet_physics.simulation.anatomy_heart import draw_heart, paint_heart
from allpet_physics.simulation.anatomy_shapes import Canvas, Plan, Pose, Solid, Tube, waves
from allpet_physics.simulation.anatomy_trunk import (
    SKIN_MM,
    draw_arms,
    draw_ribs,
    draw_spine,
    paint_arms,
    paint_ribs,
    paint_spine,
    trunk_wall,
)
from allpet_physics.simulation.organ_sizes import draw_sizes
from allpet_physics.simulation.texture import SmoothNoise

#: Heights of the middle slice in mm: from the dome of the liver to the arch of the aorta.
LEVELS_MM = (-60.0, 105.0)
USUAL_MM = (-60.0, 105.0)


def draw_chest(rng: np.random.Generator, sex: str, age: float, level_mm: float, arms: str) -> Plan:
    """Draw a chest's parameters and shapes; see `Plan`."""
    habitus = float(rng.normal(0, 1))
    sizes = draw_sizes(rng, "chest", sex, {"fat_mm": 0.9 * habitus, "chest_width_mm": 0.6 * habitus,
                                           "chest_depth_mm": 0.7 * habitus, "breast_depth_mm": 0.4 * habitus,
                                           "ascending_aorta_mm": (age - 60) / 40})
    sizes["habitus"] = habitus
    if sex == "male":
        sizes["breast_depth_mm"] = 0.0
    width, depth, fat = sizes["chest_width_mm"], sizes["chest_depth_mm"], sizes["fat_mm"]
    wall = trunk_wall(rng, width + 0.7 * fat, depth + 0.5 * fat, fat, sizes["muscle_mm"],
                      inner_mm=0.8 * sizes["rib_mm"], taper=(-70.0, float(rng.uniform(235, 285))))
    spine = draw_spine(rng, wall, sizes["vertebra_width_mm"], sizes["vertebra_spacing_mm"])
    ribs = draw_ribs(rng, sizes["rib_mm"] * 0.8, float(rng.normal(27, 1.5)))
    ca, cb, cy = wall.cavity.radii[0], wall.cavity.radii[1], wall.cavity.centre[1]
    front = cy + cb
    heart = draw_heart(rng, sizes, front, wall.spine_y)
    shapes = _mediastinum(rng, sizes, wall, heart)
    domes = _domes(rng, ca, cb, cy)
    breasts = _breasts(rng, wall, sizes) if sex == "female" else []
    gland = SmoothNoise(rng, (-120, -400, -400), (160, 400, 400), 9.0) if breasts else None
    density = float(rng.normal(0.5 - (age - 55) / 60, 0.4))
    vessels = _lung_vessels(rng, ca, cb, cy)
    scapulae = [Solid((side * rng.normal(0.74, 0.03) * ca, cy - 0.9 * cb, 85.0), (4.5, 38.0, 75.0),
                      side * float(rng.normal(-0.95, 0.1)), 2.2, (0, 0), waves(rng, 0.05)) for side in (1, -1)]
    limbs = draw_arms(rng, wall.skin.radii[0] * 1.03, fat, 322.0, forearm=False) if arms == "down" else []

    def paint(canvas: Canvas) -> None:
        paint_arms(canvas, limbs)
        for breast in breasts:
            canvas.paint("skin", breast["skin"])
        paint_wall_with_breasts(canvas, wall, breasts, gland, density)
        for shape in scapulae:
            canvas.paint("scapula", shape, ("muscle",))
        paint_ribs(canvas, wall, ribs)
        canvas.paint("lung", wall.cavity.scaled(-1.0))
        for shape in vessels:
            canvas.paint("pulmonary_vessel", shape, ("lung",))
        _paint_domes(canvas, domes)
        _paint_mediastinum(canvas, shapes, heart)
        canvas.paint("muscle", shapes["paravertebral"], ("lung", "fat"))
        paint_spine(canvas, spine)
        _paint_vessels(canvas, shapes)
        canvas.paint("sternum", shapes["sternum"])

    pose = Pose((float(rng.normal(0, 7)), float(rng.normal(0, 10))), float(rng.normal(0, 0.03)),
                float(rng.normal(0, 0.03)), float(rng.normal(0, 0.015)))
    half = (322.0 if limbs else 1.06 * wall.skin.radii[0] + 12,
            1.06 * wall.skin.radii[1] + max(sizes["breast_depth_mm"], 0) + 12)
    return Plan(paint, sizes, pose, half, level_mm, ((36.0, 3.6), (14.0, 1.1)))


def _breasts(rng, wall, sizes):
    """Return both breasts, lying sidewards on the chest wall."""
    a, b = wall.skin.radii[:2]
    out = []
    for side in (1, -1):
        d = sizes["breast_depth_mm"] * rng.normal(1, 0.06)
        centre = (side * a * rng.normal(0.5, 0.03), 0.55 * b, float(rng.normal(2, 10)))
        skin = Solid(centre, (0.44 * a, 0.33 * b + d, 62 + 0.5 * d), side * -0.25, 2.1, (0, 0), waves(rng, 0.02))
        out.append({"skin": skin, "fat": skin.scaled(-SKIN_MM),
                    "gland": Solid((centre[0], centre[1] + 0.12 * b, centre[2]),
                                   (0.3 * a, 0.22 * b + 0.75 * d, 46 + 0.3 * d), side * -0.25)})
    return out


def paint_wall_with_breasts(canvas, wall, breasts, gland, density):
    """Paint the wall's layers with the breasts' between them, so that skin surrounds the union."""
    canvas.paint("skin", wall.skin)
    for shape in (*(b["fat"] for b in breasts), wall.fat):
        canvas.paint("fat", shape)
    for breast in breasts:
        found = canvas.at(breast["gland"])
        if found is None:
            continue
        window, level = found
        rows, cols = canvas.axis_y[window[0]], canvas.axis_x[window[1]]
        height = float(np.clip(0.5 * (canvas.z_low + canvas.z_high), -119, 159))
        noise = gland.on([height], rows, cols)[0, 0]
        canvas.fill("breast", window, (noise + 1.4 * (1 - level) + 0.5 * density > 0.9) & (level < 1), "fat")
    canvas.paint("muscle", wall.muscle)


def _domes(rng, ca, cb, cy):
    """Return liver, stomach and spleen under the diaphragm."""
    right, left = float(rng.normal(-8, 12)), float(rng.normal(-24, 12))
    return {
        "liver": Solid((-0.42 * ca, cy + 0.02 * cb, right - 85), (0.62 * ca, 0.86 * cb, 85.0), 0.1, 2.2, (0, 0),
                       waves(rng, 0.05)),
        "left": Solid((0.5 * ca, cy - 0.02 * cb, left - 70), (0.47 * ca, 0.85 * cb, 70.0), 0.0, 2.2, (0, 0),
                      waves(rng, 0.05)),
        "stomach": Solid((0.45 * ca, cy + 0.2 * cb, left - 66), (0.32 * ca, 0.42 * cb, 58.0), 0.0, 2.0, (0, 0),
                         waves(rng, 0.08)),
        "spleen": Solid((0.66 * ca, cy - 0.52 * cb, left - 62), (0.28 * ca, 0.3 * cb, 55.0), -0.5, 2.0, (0, 0),
                        waves(rng, 0.08)),
        "gas": bool(rng.random() < 0.5),
    }


def _paint_domes(canvas, domes):
    canvas.paint("liver", domes["liver"], ("lung", "pulmonary_vessel"))
    canvas.paint("fat", domes["left"], ("lung", "pulmonary_vessel"))
    canvas.hollow("stomach_wall", "bowel_gas" if domes["gas"] else "stomach_content", domes["stomach"], 5.0, ("fat",))
    canvas.paint("spleen", domes["spleen"], ("fat",))


def _mediastinum(rng, sizes, wall, heart):
    """Return the tissue between the lungs and the vessels and airways in it."""
    cb, cy = wall.cavity.radii[1], wall.cavity.centre[1]
    yv, r_vertebra = wall.spine_y, sizes["vertebra_width_mm"] / 2
    r_up, r_down = sizes["ascending_aorta_mm"] / 2, sizes["descending_aorta_mm"] / 2

    def path(points, radius):
        points = np.array(points, float)
        return Tube.through(points + rng.normal(0, 1.8, points.shape), radius)

    down_x, down_y = r_vertebra + 0.55 * r_down, yv + 0.75 * r_down
    mid = 0.5 * (cy + cb + yv)  # between sternum and spine
    return {
        "strip": Solid((4.0, mid, 0.0), (float(rng.normal(21, 3)), cy + cb - mid + 4, 900.0), 0.0, 2.2, (0.0, 0.0),
                       waves(rng, 0.06)),
        "junction": Solid((float(rng.normal(0, 5)), cy + 0.72 * cb, 0.0), (9.0, 0.4 * cb, 900.0), 0.0, 2.4),
        "upper": Solid((1.0, mid + 6, 118.0), (float(rng.normal(36, 4)), 0.42 * cb, 78.0), 0.0, 2.6, (0, 0),
                       waves(rng, 0.05)),
        "aorta": path([(heart["base"][0] - 2, heart["base"][1] + 4, 4), (-14, mid + 14, 34), (-17, mid + 16, 62),
                       (-6, mid + 10, 88), (14, mid - 12, 97), (down_x - 1, down_y + 12, 86), (down_x, down_y, 62),
                       (down_x, down_y, 0), (0.8 * down_x, down_y + 4, -120)],
                      [r_up, r_up, r_up, 0.92 * r_up, r_down, r_down, r_down, r_down, 0.92 * r_down]),
        "cava": [path([(-24, mid + 16, 130), (-33, mid + 12, 70), (-34, mid + 2, 22)], [7.5, 9.5, 10.5]),
                 path([(-30, mid - 4, -12), (-27, mid - 12, -60), (-25, mid - 16, -120)], [13.0, 13.0, 12.5])],
        "pulmonary": [path([(20, mid + 30, 22), (24, mid + 20, 46), (16, mid + 2, 56), (-14, mid - 6, 53),
                            (-46, mid - 12, 46), (-68, mid - 18, 36)], [14.5, 14.5, 13.0, 11.0, 9.0, 6.0]),
                      path([(20, mid + 8, 56), (40, mid - 12, 60), (54, mid - 26, 44), (60, mid - 34, 16)],
                           [12.5, 11.0, 8.5, 6.0])],
        "airway": [path([(0, mid + 2, 170), (0, mid - 4, 100), (1, mid - 10, 68)], 8.6),
                   path([(1, mid - 10, 68), (-20, mid - 15, 50), (-40, mid - 19, 34), (-52, mid - 24, 14)],
                        [8.0, 7.0, 5.5, 4.0]),
                   path([(1, mid - 10, 68), (24, mid - 17, 52), (42, mid - 24, 38), (52, mid - 30, 16)],
                        [8.0, 6.3, 5.0, 3.8])],
        "branches": [path([(-10, mid + 16, 88), (-16, mid + 14, 112), (-22, mid + 8, 170)], 6.5),
                     path([(2, mid + 4, 92), (2, mid + 6, 112), (6, mid + 4, 170)], 4.5),
                     path([(12, mid - 8, 94), (18, mid - 6, 112), (26, mid - 4, 170)], 5.0)],
        "oesophagus": path([(6, yv + 22, 170), (3, yv + 24, 90), (2, yv + 26, 30), (10, yv + 32, -40),
                            (22, yv + 44, -90)], 7.5),
        "paravertebral": Solid((0.0, yv - 30.0, 0.0), (r_vertebra + 12.0, 33.0, 900.0), 0.0, 2.2),
        "sternum": Solid((0.0, cy + cb + 4.0, 40.0), (float(rng.normal(19, 2)), 6.3, 130.0), 0.0, 2.6, (0.0, 0.04)),
    }


def _paint_mediastinum(canvas, shapes, heart):
    over = ("lung", "pulmonary_vessel", "liver", "fat")
    for name in ("strip", "junction", "upper"):
        canvas.paint("fat", shapes[name], ("lung", "pulmonary_vessel"))
    paint_heart(canvas, heart, over)


def _paint_vessels(canvas, shapes):
    for shape in shapes["pulmonary"]:
        canvas.paint("pulmonary_vessel", shape, ("lung", "fat"))
    for shape in shapes["cava"]:
        canvas.paint("vena_cava", shape, ("lung", "fat", "liver", "muscle"))
    for shape in (shapes["aorta"], *shapes["branches"]):
        canvas.paint("aorta", shape, ("lung", "fat", "muscle", "pulmonary_vessel", "liver", "blood_pool"))
    canvas.paint("oesophagus", shapes["oesophagus"], ("lung", "fat", "muscle", "pulmonary_vessel",
                                                        "blood_pool"))
    for shape in shapes["airway"]:
        canvas.paint("airway", shape, ("lung", "fat", "pulmonary_vessel", "oesophagus", "aorta"))


def _lung_vessels(rng, ca, cb, cy):
    """Return vessels that fan out from each hilum, thinning."""
    out = []
    for side in (1, -1):
        hilum = np.array([side * 0.38 * ca, cy - 0.05 * cb, 28.0])
        for _ in range(11):
            direction = np.array([side * rng.uniform(0.15, 1.0), rng.normal(0, 0.8), rng.normal(-0.2, 1.0)])
            direction /= np.linalg.norm(direction)
            steps = np.array([0.0, 0.3, 0.62, 1.0])[:, None] * rng.uniform(60, 120)
            path = hilum + steps * direction + rng.normal(0, 6, (4, 3)) * [[0.3], [1], [1], [1.5]]
            out.append(Tube.through(path, np.array([4.4, 3.2, 2.2, 1.2]) * rng.uniform(0.75, 1.15), 10.0))
    return out
