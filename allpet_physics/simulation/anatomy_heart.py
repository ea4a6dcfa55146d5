"""The heart: a left ventricle with thick walls, open at its base, a thin right one around it, and the atria."""

from dataclasses import dataclass

import numpy as np

from allpet_physics.simulation.anatomy_shapes import Canvas, Solid, waves


@dataclass(frozen=True)
class Ventricle:
    r"""An ellipsoid of revolution about an axis, cut off towards its base.

    With t the place along the unit vector `axis` from `centre` and r the distance from the axis,
    :math:`f = \sqrt{(t/L)^2 + (r/R)^2}` inside where :math:`f \le 1` and :math:`t > -b`.
    """

    centre: tuple[float, float, float]
    axis: tuple[float, float, float]
    half_length: float
    radius: float
    base: float

    def box(self, z_low, z_high):
        """Return (x low, x high, y low, y high), or None when the heights miss it."""
        reach = max(self.half_length, self.radius)
        x, y, z = self.centre
        return None if z - reach > z_high or z + reach < z_low else (x - reach, x + reach, y - reach, y + reach)

    def level(self, x, y, z):
        """Return f, and a number above 1 beyond the base."""
        dx, dy, dz = (np.float32(c) for c in self.centre)
        dx, dy, dz = x - dx, y - dy, z - dz
        ax, ay, az = (np.float32(c) for c in self.axis)
        t = ax * dx + ay * dy + az * dz
        r2 = np.maximum(dx * dx + dy * dy + dz * dz - t * t, 0)
        f = np.sqrt((t / np.float32(self.half_length)) ** 2 + r2 / np.float32(self.radius) ** 2)
        return np.where(t < -self.base, np.float32(9), f)

    def scaled(self, grow_mm: float) -> "Ventricle":
        """Return the ventricle with other radii and the same base plane: the cavity is open there."""
        return Ventricle(self.centre, self.axis, self.half_length + grow_mm, self.radius + grow_mm, self.base)


def draw_heart(rng: np.random.Generator, sizes: dict, front: float, spine_y: float) -> dict:
    """Return the heart's shapes; its long axis points left, forward and down, differently in every patient.

    `front` is the y of the cavity's front, `spine_y` that of the middle of the vertebral body.
    """
    axis = np.array([rng.normal(0.72, 0.12), rng.normal(0.52, 0.12), rng.normal(-0.42, 0.15)])
    axis /= np.linalg.norm(axis)
    length, wall = sizes["lv_length_mm"], sizes["lv_wall_mm"]
    radius = sizes["lv_diameter_mm"] / 2 + wall
    half = length / 1.62  # the base plane cuts the ellipsoid at -0.62 of its half length
    middle_y = front - 62 + float(rng.normal(0, 4))
    centre = np.array([34.0, middle_y, -6.0]) + rng.normal(0, 4, 3)
    base = centre - 0.62 * half * axis
    right = np.cross(axis, (0, 0, 1.0))
    right /= np.linalg.norm(right)
    if right[0] > 0:
        right = -right  # towards the patient's right and front
    septal = -0.85 * np.array([right[0], -abs(right[1]), 0]) if right[1] < 0 else 0.85 * right
    rv = centre - 0.12 * half * axis + septal * radius * 1.05 + (0, 4, 0)
    scale = sizes["heart_length_mm"] / 122
    angle = float(np.arctan2(axis[1], axis[0]))
    return {
        "base": tuple(base),
        "lv": Ventricle(tuple(centre), tuple(axis), half, radius, 0.62 * half), "wall": wall,
        "sac": Solid((16.0, middle_y + 2, -2.0), (66 * scale, 51 * scale, 62 * scale), angle * 0.8, 2.2, (0, 0),
                     waves(rng, 0.03)),
        "rv": Solid(tuple(rv), (43 * scale, 31 * scale, 40 * scale), angle * 0.9, 2.1, (0, 0), waves(rng, 0.05)),
        "la": Solid((base[0] - 14, max(base[1] - 10, spine_y + 30 + 17 * scale), base[2] + 12),
                    (33 * scale, 17 * scale, 26 * scale), 0.15, 2.2,
                    (0, 0), waves(rng, 0.06)),
        "ra": Solid((base[0] - 46 * scale, base[1] + 10, base[2] + 2), (25 * scale, 29 * scale, 34 * scale), 0.2, 2.1,
                    (0, 0), waves(rng, 0.06)),
        "rv_wall": float(rng.uniform(3.0, 4.5)),
    }


def paint_heart(canvas: Canvas, heart: dict, over) -> None:
    """Paint pericardial fat, right ventricle, atria, then the left ventricle's wall and blood."""
    canvas.paint("fat", heart["sac"], over)
    inside = (*over, "fat")
    canvas.hollow("heart_muscle_right", "blood_pool", heart["rv"], heart["rv_wall"], inside)
    for name in ("la", "ra"):
        canvas.paint("blood_pool", heart[name], (*inside, "heart_muscle_right"))
    canvas.hollow("heart_muscle", "blood_pool", heart["lv"], heart["wall"],
                  (*inside, "heart_muscle_right", "blood_pool"))
