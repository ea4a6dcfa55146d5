"""A random abdomen, from the dome of the liver to the pelvis.

The origin is the midline at half depth, at the height of the kidneys; +x left, +y anterior, +z superior. Organs are
painted in the order of their firmness: each takes what the ones before it left of the cavity.
"""

import numpy as np

from allpet_physics.simulation.anatomy_bowel import draw_bowel, paint_bowel
from allpet_physics.simulation.anatomy_pelvis import draw_pelvis, paint_pelvis
from allpet_physics.simulation.anatomy_shapes import Canvas, Plan, Pose, Solid, Tube, waves
from allpet_physics.simulation.anatomy_trunk import (
    draw_arms,
    draw_ribs,
    draw_spine,
    paint_arms,
    paint_ribs,
    paint_spine,
    paint_wall,
    trunk_wall,
)
from allpet_physics.simulation.organ_sizes import draw_sizes
from allpet_physics.simulation.organs import ORGAN_NUMBER

#: Heights of the middle slice in mm: from the hip joints to the dome of the liver; the usual ones, above the pelvis.
LEVELS_MM = (-235.0, 95.0)
USUAL_MM = (-60.0, 90.0)
#: The cavity before its organs; a label that patients never have stands for it while a slice is painted.
OPEN = "table"


def draw_abdomen(rng: np.random.Generator, sex: str, age: float, level_mm: float, arms: str) -> Plan:
    """Draw an abdomen's parameters and shapes; see `Plan`."""
    habitus = float(rng.normal(0, 1))
    sizes = draw_sizes(rng, "abdomen", sex, {"fat_mm": 0.9 * habitus, "abdomen_width_mm": 0.7 * habitus,
                                             "abdomen_depth_mm": 0.8 * habitus, "aorta_mm": (age - 60) / 40})
    sizes["habitus"] = habitus
    fat = sizes["fat_mm"]
    wall = trunk_wall(rng, sizes["abdomen_width_mm"] + 0.5 * fat, sizes["abdomen_depth_mm"], fat, sizes["muscle_mm"],
                      inner_mm=2.0, power=2.3)
    ca, cb, cy = *wall.cavity.radii[:2], wall.cavity.centre[1]
    # A liver leaves room for stomach and spleen beside it, in a narrow trunk too.
    sizes["liver_width_mm"] = min(sizes["liver_width_mm"], 1.55 * ca)
    spine = draw_spine(rng, wall, sizes["vertebra_width_mm"], sizes["vertebra_spacing_mm"])
    ribs = draw_ribs(rng, 7.5, float(rng.normal(30, 2)))
    organs = _upper_organs(rng, sizes, ca, cb, cy, wall.spine_y)
    back = _retroperitoneum(rng, sizes, wall.spine_y, ca)
    bowel = draw_bowel(rng, sizes, ca, cb, cy, wall.spine_y)
    pelvis = draw_pelvis(rng, sizes, sex, ca, cb, cy, wall.spine_y)
    limbs = draw_arms(rng, wall.skin.radii[0] * 1.03, fat, 322.0, forearm=True) if arms == "down" else []

    def paint(canvas: Canvas) -> None:
        paint_arms(canvas, limbs)
        paint_wall(canvas, wall)
        canvas.paint(OPEN, wall.cavity)
        paint_ribs(canvas, wall, ribs, lowest_mm=-25.0)
        found = canvas.at(wall.cavity)
        if found is not None and canvas.z_high > 30:
            window, level = found
            dome = organs["diaphragm"].level(*(a[window] for a in (canvas.x, canvas.y, canvas.z)))
            canvas.fill("lung", window, (dome > 1) & (level < 0.985) & (canvas.z[window] > 20), OPEN)
        paint_pelvis(canvas, pelvis, OPEN, wall.muscle.scaled(0.45 * fat))
        _paint_back(canvas, back)
        paint_spine(canvas, spine, cord=canvas.z_high > -10, lowest_mm=-140.0)
        if canvas.z_low < -100:
            canvas.paint("pelvis_bone", pelvis["sacrum"], (OPEN, "muscle", "fat", "vertebra", "csf",
                                                           "intervertebral_disc"))
        _paint_upper(canvas, organs)
        paint_bowel(canvas, bowel, OPEN)
        rest = canvas.labels == ORGAN_NUMBER[OPEN]
        canvas.labels[rest] = ORGAN_NUMBER["fat"]

    pose = Pose((float(rng.normal(0, 7)), float(rng.normal(0, 10))), float(rng.normal(0, 0.03)),
                float(rng.normal(0, 0.02)), float(rng.normal(0, 0.012)))
    half = (322.0 if limbs else 1.06 * wall.skin.radii[0] + 12, 1.06 * wall.skin.radii[1] + 12)
    return Plan(paint, sizes, pose, half, level_mm, ((36.0, 3.8), (14.0, 1.3)))


def _path(rng, points, radius, jitter=2.5):
    points = np.array(points, float)
    return Tube.through(points + rng.normal(0, jitter, points.shape), radius)


def _upper_organs(rng, sizes, ca, cb, cy, yv):
    """Return liver, gallbladder, spleen, stomach, pancreas, duodenum."""
    width, half = sizes["liver_width_mm"], sizes["liver_height_mm"] / 2
    length, w = sizes["spleen_length_mm"] / 2, sizes["stomach_width_mm"] / 2
    edge = -0.98 * ca
    zl, zs = float(rng.normal(48, 9)), float(rng.normal(52, 12))
    x_stomach = float(rng.normal(0.4, 0.06)) * ca
    front = cy + cb
    return {
        "diaphragm": Solid((0.0, cy + 0.08 * cb, -40.0), (1.02 * ca, 1.02 * cb, float(rng.uniform(165, 190))), 0.0,
                           2.3),
        "liver": [Solid((edge + 0.40 * width, cy - 0.02 * cb, zl), (0.42 * width, 0.93 * cb, half), 0.15, 2.3,
                        (0.0, 0.0), waves(rng, 0.05)),
                  Solid((edge + 0.72 * width, cy + 0.5 * cb, zl + 0.22 * half), (0.42 * width, 0.36 * cb, 0.62 * half),
                        float(rng.normal(-0.12, 0.08)), 2.2, (0.0, 0.0), waves(rng, 0.07))],
        "portal": [_path(rng, [(-8, yv + 52, -30), (-22, yv + 55, 8), (-48, yv + 62, 34), (-78, yv + 66, 42)],
                         [7.5, 7.5, 6.0, 3.5]),
                   _path(rng, [(-22, yv + 28, 88), (-55, yv + 50, 74), (-80, yv + 70, 52)], [6.5, 4.5, 2.5]),
                   _path(rng, [(-20, yv + 30, 88), (-25, yv + 72, 72), (-22, yv + 95, 55)], [6.0, 4.0, 2.5])],
        "fissure": Solid((edge + 0.58 * width, cy + 0.3 * cb, zl - 0.5 * half), (3.2, 0.42 * cb, 0.5 * half),
                         float(rng.normal(0.25, 0.15)), 2.0, (0, 0), waves(rng, 0.1)),
        "gallbladder": Solid((edge + 0.45 * width, cy + 0.45 * cb, zl - 0.62 * half + float(rng.normal(0, 6))),
                             (float(rng.uniform(11, 19)), float(rng.uniform(15, 26)), 26.0), 0.4, 2.0, (0, 0),
                             waves(rng, 0.05)),
        "spleen": Solid((0.76 * ca, cy - 0.45 * cb, zs), (0.36 * length + 11, 0.88 * length, length),
                        float(rng.normal(0.42, 0.12)), 2.2, (0.0, 0.0), waves(rng, 0.07)),
        "stomach": [Solid((x_stomach, cy + 0.22 * cb, 52.0), (w, 0.48 * cb, 64.0), float(rng.normal(-0.3, 0.2)), 2.2,
                          (0.12, -0.15), waves(rng, 0.08)),
                    Solid((0.5 * x_stomach, cy + 0.48 * cb, 2.0), (0.55 * x_stomach + 20, 0.5 * w, 0.55 * w + 5),
                          float(rng.normal(0.1, 0.15)), 2.2, (0, 0), waves(rng, 0.08))],
        "stomach_gas_y": cy + float(rng.uniform(0.3, 1.1)) * cb,
        "wall_mm": sizes["stomach_wall_mm"],
        "pancreas": _path(rng, [(-30, yv + 44, -18), (-18, yv + 48, -6), (4, yv + 54, 4), (34, yv + 48, 12),
                                (70, yv + 24, 24)], [16.0, 15.0, 11.5, 13.0, 10.0]),
        "duodenum": _path(rng, [(-0.18 * ca, min(yv + 70, front - 30), 6), (-48, yv + 48, 2), (-50, yv + 36, -26),
                                (-28, yv + 32, -48), (12, yv + 38, -50), (34, yv + 48, -34)], 10.5),
    }


def _retroperitoneum(rng, sizes, yv, ca):
    """Return great vessels, kidneys, adrenals and the muscles beside the spine."""
    r = sizes["vertebra_width_mm"] / 2
    ra, rc = sizes["aorta_mm"] / 2, sizes["vena_cava_mm"] / 2
    front = yv + 0.8 * r
    kidneys = []
    for side in (1, -1):
        half = sizes["kidney_length_mm"] / 2 * rng.normal(1, 0.03)
        across = sizes["kidney_width_mm"] / 2 * rng.normal(1, 0.03)
        centre = np.array([side * min(r + 18 + 1.05 * across, ca - 0.9 * across), yv + rng.normal(-8, 5),
                           (6 if side > 0 else -6) + rng.normal(0, 8)])
        angle, lean = side * float(rng.normal(0.5, 0.15)), (-side * 0.22, 0.12)
        outer = Solid(tuple(centre), (0.95 * across, 1.1 * across, half), angle, 2.1, lean, waves(rng, 0.04))
        cortex = sizes["kidney_cortex_mm"]
        # The sinus opens towards the midline and the front.
        inward = np.array([-side * np.cos(angle), -np.sin(abs(angle)) * -0.45, 0.0]) * 0.42 * across
        sinus = Solid(tuple(centre + inward), (0.95 * across + 2 - 0.66 * cortex, 1.1 * across - cortex,
                                               half - 1.25 * cortex), angle, 2.0, lean, waves(rng, 0.12))
        pelvis = Solid(tuple(centre + 1.2 * inward), tuple(np.array(sinus.radii) * (0.62, 0.6, 0.62)), angle, 2.0, lean,
                       waves(rng, 0.15))
        kidneys.append({"outer": outer, "sinus": sinus, "pelvis": pelvis})
    psoas = [_path(rng, [(side * (r + 4), yv - 4, 25), (side * (r + 12), yv - 2, -40), (side * (r + 22), yv + 8, -110),
                         (side * (r + 42), yv + 34, -190), (side * (r + 52), yv + 52, -260)],
                   [6.0, 14.0, 20.0, 19.0, 15.0], 1.0) for side in (1, -1)]
    return {
        "kidneys": kidneys, "psoas": psoas,
        "paravertebral": Solid((0.0, yv - 34.0, 0.0), (r + 40.0, 33.0, 900.0), 0.0, 2.6),
        "aorta": [_path(rng, [(r * 0.5, front + ra, 160), (4, front + ra, 60), (4, front + ra + 2, -80)], ra, 1.5),
                  *(_path(rng, [(4, front + ra + 2, -78), (side * 24, front + 8, -115), (side * 46, front + 2, -165),
                                (side * 62, front + 34, -235)], [0.7 * ra, 0.6 * ra, 0.52 * ra, 0.5 * ra], 1.5)
                    for side in (1, -1))],
        "cava": [_path(rng, [(-24, front + 14, 160), (-22, front + 10, 60), (-20, front + rc - 1, -90)],
                       [rc + 2, rc + 1, rc], 1.5),
                 *(_path(rng, [(-20, front + rc - 1, -88), (side * 26 - 6, front - 2, -125),
                               (side * 42, front - 8, -175), (side * 54, front + 26, -235)], 0.62 * rc, 1.5)
                   for side in (1, -1))],
        "adrenals": [Solid((side * (r + 14), yv + 12.0, 46.0), (3.2, 14.0, 14.0), side * float(rng.normal(0.5, 0.2)),
                           2.0, (0, 0), waves(rng, 0.2)) for side in (1, -1)],
    }


def _paint_back(canvas, back):
    muscle_room = (OPEN, "lung")
    canvas.paint("muscle", back["paravertebral"], muscle_room)
    for shape in back["psoas"]:
        canvas.paint("muscle", shape, muscle_room)
    for name, label in (("aorta", "aorta"), ("cava", "vena_cava")):
        for shape in back[name]:
            canvas.paint(label, shape, (OPEN, "lung"))
    for kidney in back["kidneys"]:
        canvas.paint("kidney_cortex", kidney["outer"], OPEN)
        canvas.paint("fat", kidney["sinus"], ("kidney_cortex",))
        canvas.paint("kidney_pelvis", kidney["pelvis"], ("kidney_cortex", "fat"))
        canvas.paint("fat", kidney["outer"].scaled(5.0), OPEN)
    for shape in back["adrenals"]:
        canvas.paint("adrenal", shape, (OPEN, "fat"))


def _paint_upper(canvas, organs):
    for name in ("gallbladder", "pancreas", "duodenum", "spleen"):
        canvas.paint(name, organs[name], OPEN)
    for shape in organs["liver"]:
        canvas.paint("liver", shape, OPEN)
    canvas.paint("fat", organs["fissure"], "liver")
    for shape in organs["portal"]:
        canvas.paint("vena_cava", shape, ("liver", OPEN))
    for shape in organs["stomach"]:
        canvas.hollow("stomach_wall", "stomach_content", shape, organs["wall_mm"], (OPEN, "stomach_wall"))
    # Gas rises to the front of a patient who lies on the back.
    everywhere = (slice(None), slice(None))
    canvas.fill("bowel_gas", everywhere, canvas.y > organs["stomach_gas_y"], "stomach_content")
