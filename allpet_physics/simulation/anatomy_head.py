"""A random head: brain with folded cortex and deep nuclei, skull, and below it the face.

The origin is the middle of the brain at the height of the commissures; +x is left, +y anterior, +z superior. Places are
for an adult brain 138 mm wide, 170 mm long and 130 mm high and scale with the patient.
"""

import numpy as np

from allpet_physics.simulation.anatomy_face import draw_face
from allpet_physics.simulation.anatomy_shapes import Canvas, Plan, Pose, Solid, Tube, waves
from allpet_physics.simulation.organ_sizes import draw_sizes
from allpet_physics.simulation.organs import ORGAN_NUMBER as NUMBER

#: Heights of the middle slice in mm above the commissures: brain and face; the usual ones, through the brain.
LEVELS_MM = (-95.0, 62.0)
USUAL_MM = (-42.0, 62.0)
_BRAIN = (69.0, 85.0, 65.0)


def draw_head(rng: np.random.Generator, sex: str, age: float, level_mm: float) -> Plan:
    """Draw a head's parameters and shapes; see `Plan`."""
    atrophy = (age - 55) / 25
    sizes = draw_sizes(rng, "head", sex, {"ventricle_radius_mm": atrophy, "cortex_mm": -0.6 * atrophy})
    sizes["sulcal_gap_mm"] = float(np.clip(0.5 + 0.45 * atrophy + 0.25 * rng.standard_normal(), 0.0, 1.8))
    shell = sizes["skull_mm"] + sizes["scalp_mm"] + 3.0
    kx = (sizes["head_breadth_mm"] / 2 - shell + 1) / _BRAIN[0]
    ky = (sizes["head_length_mm"] / 2 - shell) / _BRAIN[1]
    kz = sizes["brain_height_mm"] / 130
    scale = np.array([kx, ky, kz])

    def solid(centre, radii, angle=0.0, power=2.0, wave=0.03, lean=(0.0, 0.0)):
        return Solid(tuple(scale * centre), tuple(scale * radii), angle, power, lean, waves(rng, wave))

    def pair(centre, radii, angle=0.0, power=2.0, wave=0.04):
        """Draw left and right, alike but not equal."""
        both = []
        for side in (1, -1):
            c = np.array(centre) + rng.normal(0, 0.8, 3)
            r = np.array(radii) * rng.normal(1, 0.04, 3)
            both.append(solid((side * c[0], c[1], c[2]), r, side * angle, power, wave))
        return both

    outline = ((2, float(rng.normal(0, 0.012)), 0.0, 0.3), (3, float(rng.normal(-0.022, 0.008)), -np.pi / 2, 0.2),
               *waves(rng, 0.008, (4, 5, 6), 0.5))
    brain = Solid(tuple(scale * (0, -12, 10)), tuple(scale * _BRAIN), 0.0, 2.25, (0, 0), outline)
    shapes = {
        "brain": brain,
        "skull_inner": brain.scaled(3.0),
        "skull_outer": brain.scaled(3.0 + sizes["skull_mm"]),
        "scalp": brain.scaled(shell),
        "cerebellum": Solid((0.0, -60 * ky, -36 * kz), (sizes["cerebellum_width_mm"] / 2, 32 * ky, 25 * kz), 0.0, 2.2,
                            (0, 0), waves(rng, 0.03, (3, 4))),
        "midbrain": solid((0, -24, -13), (17, 14, 12)),
        "pons": solid((0, -23, -29), (17.5, 15, 16)),
        "medulla": Tube.through(scale * [(0, -27, -38), (0, -33, -60), (0, -38, -90), (0, -42, -140)],
                                [9.5, 7.5, 6.0, 5.5]),
        "fourth": solid((0, -41, -34), (7, 5, 11)),
        "thalamus": pair((11.5, -16, 5), (9.8, 16, 12), 0.4),
        "caudate": [_caudate(rng, scale, side) for side in (1, -1)],
        "putamen": pair((26.5, 3, 2), (5.8, sizes["putamen_length_mm"] / 2 / ky, 13), 0.3, 2.3),
        "hippocampus": pair((27, -20, -17), (6, 18, 6), 0.25),
        "dentate": pair((17, -58, -36), (13, 9, 10), 0.2),
        "ventricles": _ventricles(rng, scale, sizes["ventricle_radius_mm"]),
        "third": solid((0, -8, 1), (0.9 + 0.22 * sizes["ventricle_radius_mm"], 15, 9)),
    }
    seeds, cell = _gyri(rng, brain, sizes["gyrus_mm"])
    sylvian = {"slope": float(rng.normal(0.5, 0.06)), "y": float(rng.normal(24, 3)), "z": float(rng.normal(-15, 2))}
    face = draw_face(rng, brain, shell, scale, sex)
    depth_waves = waves(rng, 0.25, (2, 3, 5, 7), 2.0)

    def paint(canvas: Canvas) -> None:
        face(canvas)
        _paint_cranium(canvas, shapes, scale)
        _paint_cerebrum(canvas, shapes, scale, sizes, seeds, cell, sylvian, depth_waves)
        _paint_depth(canvas, shapes)

    pose = Pose(tuple(rng.normal(0, (5, 8))), float(rng.normal(0, 0.07)), float(rng.normal(0.02, 0.07)),
                float(rng.normal(0, 0.03)))
    half = (shell + scale[0] * _BRAIN[0] + 20, shell + scale[1] * _BRAIN[1] + 40)
    return Plan(paint, sizes, pose, half, level_mm, ((26.0, 1.6), (10.0, 0.55)))


def _caudate(rng, scale, side):
    """Return one caudate nucleus: head beside the frontal horn, body and tail thinning along the ventricle."""
    path = np.array([(13, 24, -4), (14.5, 22, 6), (16.5, 10, 16), (18.5, -8, 21), (22, -24, 18)], float)
    path += rng.normal(0, 0.7, path.shape)
    return Tube.through(scale * path * (side, 1, 1), np.array([6.0, 7.0, 5.2, 3.0, 2.2]) * rng.normal(1, 0.06))


def _ventricles(rng, scale, radius):
    """Return the lateral ventricles: frontal horn, body and occipital horn, and the temporal horn."""
    tubes = []
    for side in (1, -1):
        path = np.array([(7, 35, 2), (7.5, 26, 8), (8.5, 8, 19), (12, -14, 23), (20, -33, 17), (25, -44, 8),
                         (23, -62 - rng.uniform(0, 8), 4)], float)
        path += rng.normal(0, 0.9, path.shape)
        r = np.array([0.62, 0.95, 0.9, 0.9, 1.15, 1.1, 0.45]) * radius * rng.normal(1, 0.08)
        tubes.append(Tube.through(scale * path * (side, 1, 1), r))
        horn = np.array([(25, -44, 8), (31, -32, -8), (33, -14, -18), (30, -4, -21)], float)
        tubes.append(Tube.through(scale * horn * (side, 1, 1), np.array([0.9, 0.5, 0.4, 0.35]) * radius))
    return tubes


def _gyri(rng, brain, width_mm):
    """Return Voronoi seeds near the brain's surface, and which of them share a gyrus.

    Seeds keep apart (darts that land too near another are dropped); each gyrus is a seed with up to two neighbours.
    """
    from allpet_physics.simulation._anatomy_kernels import spread

    rx, ry, rz = brain.radii
    n = int(4 * np.pi * ((rx * ry) ** 1.6 / 3 + (rx * rz) ** 1.6 / 3 + (ry * rz) ** 1.6 / 3) ** (1 / 1.6)
            / width_mm**2)
    candidates = rng.standard_normal((6 * n, 3))
    candidates /= (np.abs(candidates) ** brain.power).sum(axis=1, keepdims=True) ** (1 / brain.power)
    candidates = candidates * brain.radii * rng.uniform(0.8, 0.95, (6 * n, 1))
    seeds = candidates[spread(candidates, 0.8 * width_mm)][:n]
    n = len(seeds)
    distance = sum((seeds[:, None, k] - seeds[None, :, k]) ** 2 for k in range(3))
    # Gyri do not cross the fissure between the hemispheres.
    distance[seeds[:, None, 0] * seeds[None, :, 0] < 0] = np.inf
    nearest = np.argsort(distance, axis=1)[:, 1:4]
    cell = np.full(n, -1)
    length = rng.integers(0, 3, n)
    for i in rng.permutation(n):
        if cell[i] < 0:
            cell[i] = i
            free = nearest[i][cell[nearest[i]] < 0]
            cell[free[: length[i]]] = i
    return (seeds + brain.centre).astype(np.float32), cell.astype(np.int64)


def _floor(x, y, scale, middle_mm=-13.0):
    """Return the height of the cerebrum's lower surface in mm: frontal, temporal, middle and above the tentorium."""
    x, y = np.abs(x) / scale[0], y / scale[1]

    def step(v, width):
        return 1 / (1 + np.exp(-np.clip(v / np.float32(width), -30, 30)))

    frontal, lateral, behind = step(y - 23, 3.0), step(x - 13, 2.0), step(-34 - y, 4.0)
    tentorium = -9 - 0.0045 * (x**2 + 0.3 * (y + 40) ** 2)
    middle = lateral * -48 + (1 - lateral) * middle_mm
    return scale[2] * (frontal * -30 + (1 - frontal) * (behind * tentorium + (1 - behind) * middle))


def _paint_cranium(canvas, shapes, scale):
    for name, label in (("scalp", "scalp"), ("skull_outer", "skull")):
        found = canvas.at(shapes[name])
        if found is not None:
            window, level = found
            high = canvas.z[window] > -46 * scale[2] + 0.28 * canvas.y[window]
            canvas.fill(label, window, (level < 1) & high, ("air", "fat", "muscle", "skin", "scalp"))
    found = canvas.at(shapes["skull_inner"])
    if found is not None:
        window, level = found
        x, y, z = canvas.x[window], canvas.y[window], canvas.z[window]
        canvas.fill("csf", window, (level < 1) & (z > _floor(x, y, scale, -23.0) - 1.5))
    canvas.paint("skull", shapes["cerebellum"].scaled(9.0), ("scalp", "fat", "muscle"))
    canvas.paint("csf", shapes["cerebellum"].scaled(2.5))


def _paint_cerebrum(canvas, shapes, scale, sizes, seeds, cell, sylvian, depth_waves):
    from allpet_physics.simulation._anatomy_kernels import wall_distance

    brain = shapes["brain"]
    found = canvas.at(brain)
    if found is None:
        return
    window, level = found
    x, y, z = canvas.x[window], canvas.y[window], canvas.z[window]
    rise = z - _floor(x, y, scale)
    inside = (level < 1) & (rise > 0)
    if not inside.any():
        return
    x, y, z, level, rise = x[inside], y[inside], z[inside], level[inside], rise[inside]
    cx, cy, cz = brain.centre
    radial = np.sqrt((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2)
    depth = 0.93 * radial * (1 / np.maximum(level, 0.05) - 1)
    wall = wall_distance(x, y, z, seeds, cell, np.float32(32))
    phi = np.arctan2(y - cy, x - cx)
    reach = 1 + sum(np.float32(a) * np.cos(k * phi + np.float32(b) + np.float32(g / 20) * z)
                    for k, a, b, g in depth_waves)
    reach *= np.float32(sizes["sulcus_depth_mm"])
    cortex, gap = sizes["cortex_mm"], sizes["sulcal_gap_mm"]
    x, y, z = x / scale[0], y / scale[1], z / scale[2]
    ax = np.abs(x)
    # Interhemispheric fissure, closed by the corpus callosum.
    callosum = (y > -38 + 0.5 * np.abs(z - 12)) & (y < 34 - 0.6 * np.abs(z - 8)) & (z < 27 - 0.006 * (y + 2) ** 2)
    middle = np.where(callosum, np.float32(40), ax)
    lowest = np.minimum(np.minimum(depth, 1.6 * rise), 1.4 * middle)
    # Sylvian fissure: a sheet that rises backwards, from the lateral surface to the insula.
    sheet = np.abs(z - sylvian["z"] - sylvian["slope"] * (sylvian["y"] - y)) * np.float32(0.89)
    sheet = np.where((ax > 37) & (y < 32) & (y > -48), sheet, np.float32(40))
    insula = np.where((y > -20) & (y < 24) & (z > -14) & (z < 17), np.abs(ax - 40), np.float32(40))
    fissure = np.minimum(np.minimum(middle, sheet), insula)
    folded = (wall < cortex) & (lowest < reach)
    grey = (lowest < cortex) | folded | (fissure < cortex + 1.0)
    fluid = ((wall < gap * (1 - lowest / (reach + 1))) & (lowest < 0.8 * reach)) | (fissure < 0.3 + 0.7 * gap)
    label = canvas.labels[window]
    label[inside] = np.where(fluid, NUMBER["csf"], np.where(grey, NUMBER["brain_grey"], NUMBER["brain_white"]))


def _paint_depth(canvas, shapes):
    brain = ("brain_white", "brain_grey", "csf")
    canvas.paint("cerebellum", shapes["cerebellum"], ("csf", "skull"))
    for name in ("midbrain", "pons"):
        canvas.paint("brainstem", shapes[name], (*brain, "skull"))
    canvas.paint("brainstem", shapes["medulla"], (*brain, "skull"))
    for shape in shapes["dentate"]:
        canvas.paint("cerebellum_white", shape, "cerebellum")
    for shape in shapes["hippocampus"]:
        canvas.paint("brain_grey", shape, "brain_white")
    for name in ("putamen", "thalamus", "caudate"):
        for shape in shapes[name]:
            canvas.paint(name, shape, ("brain_white", "brain_grey"))
    for shape in shapes["ventricles"]:
        canvas.paint("csf", shape, (*brain, "caudate", "thalamus"))
    canvas.paint("csf", shapes["third"], (*brain, "thalamus"))
    canvas.paint("csf", shapes["fourth"], ("cerebellum", "cerebellum_white", "brainstem"))
