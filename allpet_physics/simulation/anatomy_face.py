"""What lies below and in front of the brain: orbits, sinuses, nose, jaws, salivary glands, throat and neck."""

import numpy as np

from allpet_physics.simulation.anatomy_shapes import Solid, Tube, waves
from allpet_physics.simulation.texture import SmoothNoise

_SOFT = ("muscle", "fat", "skull", "scalp", "nasal_mucosa", "csf")


def draw_face(rng: np.random.Generator, brain: Solid, shell: float, scale, sex: str):
    """Return a function that paints the face and neck on a canvas, before the cranium is painted over it.

    Parameters
    ----------
    rng : numpy.random.Generator
    brain : Solid
        The cerebrum's outline.
    shell : float
        Thickness of fluid, skull and scalp together in mm.
    scale : array of 3
        Size of the head relative to the one that the places are given for.
    sex : {"male", "female"}
    """
    sx, sy, sz = (float(v) for v in scale)
    fat = float(rng.uniform(2.5, 6))
    jaw = float(rng.normal(1.0 if sex == "male" else 0.94, 0.03))
    neck = float(rng.normal(1.0 if sex == "male" else 0.88, 0.06))

    def solid(centre, radii, angle=0.0, power=2.0, wave=0.05, lean=(0.0, 0.0)):
        c = np.array(centre) * scale + rng.normal(0, 0.7, 3)
        r = np.array(radii) * scale * rng.normal(1, 0.06, 3)
        return Solid(tuple(c), tuple(r), angle, power, lean, waves(rng, wave))

    def pair(centre, radii, angle=0.0, power=2.0, wave=0.06):
        x, y, z = centre
        return [solid((side * x, y, z), radii, side * angle, power, wave) for side in (1, -1)]

    bx, by, bz = brain.centre
    skin = [
        Solid((bx, by, bz), tuple(r + shell for r in brain.radii), 0.0, brain.power, (0, 0), brain.waves),
        Solid((0.0, -10 * sy, -42 * sz), (71 * sx, 93 * sy, 58 * sz), 0.0, 2.3, (0, 0.1), waves(rng, 0.012)),
        Solid((0.0, 24 * sy, -66 * sz), (66 * sx * jaw, 72 * sy, 92 * sz), 0.0, 2.5, (0, 0.03), waves(rng, 0.02)),
        Solid((0.0, -24 * sy, -150 * sz), (60 * neck, 62 * neck, 122 * sz), 0.0, 2.6, (0, 0.05), waves(rng, 0.02)),
        Solid((0.0, 98 * sy, -56 * sz), (15 * sx, 19 * sy, 25 * sz), 0.0, 2.0, (0, -0.25), ()),
        *pair((74, -16, -42), (5, 13, 24), 0.4),
    ]
    bone = [
        *pair((38, -14, -33), (26, 9, 11), -0.6),  # petrous ridge
        *pair((33, 34, -24), (27, 5, 12), 0.45),  # sphenoid wing
        solid((0, 20, -35), (20, 20, 15)),  # sphenoid body
        solid((0, -16, -40), (11, 16, 16)),  # clivus
        solid((0, 66, -66), (30, 27, 14), power=2.6),  # maxilla
        *pair((52, 56, -50), (9, 16, 7), 0.5),  # zygoma
    ]
    arch = np.array([(49, 2, -52), (48, 6, -78), (45, 14, -98), (36, 46, -110), (20, 72, -116), (0, 82, -118)], float)
    arch[:, 0] *= jaw
    mandible = [Tube.through(arch * scale * (side, 1, 1), np.array([4.5, 5, 6.5, 6.5, 7, 7.5])) for side in (1, -1)]
    teeth = [Tube.through(np.array([(27, 38, h), (25, 58, h), (14, 77, h), (0, 83, h)]) * scale * (side, 1, 1), 5.0)
             for side in (1, -1) for h in (-80, -93)]
    spine = Tube.through(np.array([(0, -20, -56), (0, -20, -85), (0, -24, -115), (0, -30, -160)]) * scale,
                         [10.0, 11.0, 12.5, 13.0])
    arches = Tube.through(np.array([(0, -42, -58), (0, -47, -90), (0, -52, -160)]) * scale, [19.0, 17.0, 17.0])
    canal = Tube.through(np.array([(0, -33, -38), (0, -38, -60), (0, -43, -90), (0, -47, -160)]) * scale,
                         [13.0, 10.5, 9.5, 9.0])
    cord = Tube.through(np.array([(0, -33, -50), (0, -38, -62), (0, -43, -90), (0, -47, -160)]) * scale,
                        [6.0, 6.0, 5.5, 5.5])
    muscles = [*pair((56, 26, -82), (8, 18, 28), 0.35), *pair((40, 16, -72), (8, 14, 22)),
               *pair((24, -66, -100), (22, 20, 70)), *pair((46, -40, -110), (12, 17, 60), 0.4),
               solid((0, 45, -100), (22, 34, 18))]
    air = [solid((0, 22, -36), (13, 13, 10), power=2.6), *pair((29, 58, -60), (13, 17, 16), -0.2, 2.3),
           solid((0, 79, -6), (22, 4.5, 11)), solid((0, 12, -74), (12, 7, 14)), solid((0, 0, -105), (13, 5.5, 24))]
    orbits, eyes = pair((32, 60, -27), (17, 24, 16), 0.25), pair((32, 70, -27), (12.3, 12.3, 12.3), wave=0.0)
    glands = {"lacrimal": pair((43, 70, -19), (4, 7, 6), 0.7),
              "parotid": pair((58, -2, -80), (10, 18, 27), 0.2, wave=0.1),
              "submandibular": pair((35, 20, -112), (9, 15, 13), 0.3, wave=0.1)}
    vessels = [Tube.through(np.array([(26, -8, -50), (28, -4, -90), (30, -10, -160)]) * scale * (side, 1, 1), 3.6)
               for side in (1, -1)]
    veins = [Tube.through(np.array([(30, -18, -52), (35, -14, -90), (36, -16, -160)]) * scale * (side, 1, 1), 5.2)
             for side in (1, -1)]
    mottle = SmoothNoise(rng, (-130,) * 3, (130,) * 3, (4.0, 4.0, 3.0))
    planes = SmoothNoise(rng, (-200,) * 3, (200,) * 3, (7.0, 6.0, 6.0))
    nasal = solid((0, 62, -56), (13, 34, 27), power=2.6)
    cells = [solid((0, 50, -34), (12, 26, 14), power=2.6), *pair((56, -24, -40), (9, 13, 16))]

    def paint(canvas) -> None:
        if canvas.z_low > 12:
            return
        thickness = (("skin", 0.0), ("fat", -2.2), ("muscle", -2.2 - fat))
        for name, grow in thickness:
            for shape in skin[1:]:
                canvas.paint(name, shape.scaled(grow))
            window_level = canvas.at(skin[0])
            if window_level is not None:
                level = skin[0].scaled(grow).level(*(a[window_level[0]] for a in (canvas.x, canvas.y, canvas.z)))
                canvas.fill(name, window_level[0], level < 1)
        for shape in bone:
            canvas.paint("skull", shape, ("muscle", "fat"))
        canvas.paint("vertebra", arches, ("muscle", "fat"))
        _paint_planes(canvas, planes, skin)
        for shape in muscles:
            canvas.paint("muscle", shape, ("muscle", "fat"))
        for shape in orbits:
            canvas.paint("fat", shape, ("muscle", "skull", "fat"))
        for shape in (*mandible, *teeth):
            canvas.paint("skull", shape, ("muscle", "fat"))
        canvas.paint("vertebra", spine, ("muscle", "fat", "vertebra", "skull"))
        canvas.paint("csf", canal, ("vertebra", "muscle", "fat", "skull"))
        canvas.paint("spinal_cord", cord, ("csf",))
        canvas.paint("nasal_mucosa", nasal, _SOFT)
        _paint_cells(canvas, mottle, nasal, cells)
        for shape in air:
            canvas.paint("airway", shape, _SOFT)
        for shape in eyes:
            canvas.paint("eye", shape, ("fat", "muscle", "skull", "skin"))
        for name, shapes in glands.items():
            for shape in shapes:
                canvas.paint(name, shape, ("fat", "muscle"))
        for shape in (*vessels, *veins):
            canvas.paint("blood_pool", shape, ("fat", "muscle"))

    return paint


def _paint_planes(canvas, planes, skin):
    """Put fat between the muscles of face and neck, along a random field."""
    for shape in skin[1:3]:
        found = canvas.at(shape)
        if found is not None:
            window, _ = found
            rows, cols = (np.clip(a, -199, 199) for a in (canvas.axis_y[window[0]], canvas.axis_x[window[1]]))
            noise = planes.on([np.clip(0.5 * (canvas.z_low + canvas.z_high), -199, 199)], rows, cols)[0, 0]
            canvas.fill("fat", window, noise > 0.45, "muscle")


def _paint_cells(canvas, mottle, nasal, cells):
    """Riddle the nasal cavity and the air cells of ethmoid and mastoid with air, along a random field."""
    level = float(0.5 * (canvas.z_low + canvas.z_high))
    if not -125 < level < 20:
        return
    for shape, wall in ((nasal, "nasal_mucosa"), *((s, "skull") for s in cells)):
        found = canvas.at(shape)
        if found is None:
            continue
        window, f = found
        rows, cols = (np.clip(a, -129, 129) for a in (canvas.axis_y[window[0]], canvas.axis_x[window[1]]))
        noise = mottle.on([level], rows, cols)[0, 0]
        canvas.fill(wall, window, f < 1, _SOFT)
        canvas.fill("airway", window, (f < 1) & (noise > (0.1 if wall == "skull" else 0.25)), (wall,))
