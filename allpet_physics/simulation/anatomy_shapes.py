r"""The pencils anatomy is drawn with: superellipsoids with wavy outlines, tubes along curves, and a canvas per slice.

Patient coordinates are in mm: x towards the patient's left (right of the picture), y anterior (up), z superior.
Every shape is a function of (x, y, z), so neighbouring slices belong together. A canvas holds one slice: its pixels'
patient coordinates, turned, tilted and warped, and the label map under construction.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from allpet_physics.simulation.organs import ORGAN_NUMBER, ORGANS
from allpet_physics.simulation.texture import SmoothNoise


@dataclass(frozen=True)
class Solid:
    r"""A superellipsoid whose outline waves with the azimuth.

    With (u, v, w) the coordinates along its axes over its radii and φ the azimuth of (u, v),

    .. math:: f = \frac{(|u|^p + |v|^p + |w|^p)^{1/p}}{1 + \sum_k a_k \cos(k\varphi + \beta_k + \gamma_k w)}
       \le 1 \tag{A1}

    is inside.

    Parameters
    ----------
    centre, radii : (float, float, float)
        In mm along x, y, z.
    angle : float
        In-plane rotation of the axes in radians, counter-clockwise in the picture.
    power : float
        p: 2 an ellipsoid, above it more like a box.
    lean : (float, float)
        How far the centre moves in x and y per mm of z.
    waves : tuple of (k, a, β, γ)
        The harmonics of the outline.
    """

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    angle: float = 0.0
    power: float = 2.0
    lean: tuple[float, float] = (0.0, 0.0)
    waves: tuple[tuple[int, float, float, float], ...] = ()

    def level(self, x, y, z) -> np.ndarray:
        """Return f of eq. (A1) at points in mm."""
        dz = z - np.float32(self.centre[2])
        dx = x - np.float32(self.centre[0]) - np.float32(self.lean[0]) * dz
        dy = y - np.float32(self.centre[1]) - np.float32(self.lean[1]) * dz
        c, s = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        u = (c * dx + s * dy) * np.float32(1 / self.radii[0])
        v = (c * dy - s * dx) * np.float32(1 / self.radii[1])
        w = dz * np.float32(1 / self.radii[2])
        if self.power == 2:
            f = np.sqrt(u * u + v * v + w * w)
        else:
            p = np.float32(self.power)
            f = (np.abs(u) ** p + np.abs(v) ** p + np.abs(w) ** p) ** np.float32(1 / self.power)
        if self.waves:
            phi = np.arctan2(v, u)
            f = f / (1 + sum(np.float32(a) * np.cos(k * phi + np.float32(b) + np.float32(g) * w)
                             for k, a, b, g in self.waves))
        return f

    def scaled(self, grow_mm: float) -> "Solid":
        """Return the solid with every radius longer by `grow_mm` (at least 0.5 mm remain)."""
        radii = tuple(max(r + grow_mm, 0.5) for r in self.radii)
        return Solid(self.centre, radii, self.angle, self.power, self.lean, self.waves)

    def box(self, z_low: float, z_high: float):
        """Return (x low, x high, y low, y high) of what lies between two heights, or None."""
        low, high = max(z_low, self.centre[2] - self.radii[2]), min(z_high, self.centre[2] + self.radii[2])
        if low > high:
            return None
        turned = self.angle and self.radii[0] != self.radii[1]
        reach = (max(self.radii[:2]) if self.power <= 2 else np.hypot(*self.radii[:2])) if turned else None
        swell = 1 + sum(abs(a) for _, a, _, _ in self.waves)
        rx, ry = (r * swell for r in ((reach, reach) if reach else self.radii[:2]))
        xs = [self.centre[0] + self.lean[0] * (h - self.centre[2]) for h in (low, high)]
        ys = [self.centre[1] + self.lean[1] * (h - self.centre[2]) for h in (low, high)]
        return min(xs) - rx, max(xs) + rx, min(ys) - ry, max(ys) + ry


def waves(rng: np.random.Generator, amplitude: float, orders=(2, 3, 4, 5), drift: float = 1.0):
    """Draw the harmonics of an outline: amplitudes fall as 2/k, phases are free and drift with height."""
    n = len(orders)
    sizes = amplitude * rng.standard_normal(n) * 2 / np.array(orders)
    sizes = np.clip(sizes, -1.6 * amplitude, 1.6 * amplitude)
    phases, drifts = rng.uniform(0, 2 * np.pi, n), rng.normal(0, drift, n)
    return tuple((int(k), float(a), float(b), float(g)) for k, a, b, g in zip(orders, sizes, phases, drifts,
                                                                              strict=True))


@dataclass(frozen=True)
class Tube:
    """A tube along a polyline in 3D, its radius given at every point of it (mm)."""

    points: np.ndarray
    radius: np.ndarray

    @classmethod
    def through(cls, points, radius, step_mm: float = 6.0) -> "Tube":
        """Return a tube along the Catmull-Rom spline through `points`, resampled about every `step_mm`."""
        points = np.asarray(points, np.float64)
        radius = np.broadcast_to(np.asarray(radius, np.float64), len(points))
        q = np.c_[points, radius]
        q = np.vstack([2 * q[0] - q[1], q, 2 * q[-1] - q[-2]])
        out = []
        for a, b, c, d in zip(q[:-3], q[1:-2], q[2:-1], q[3:], strict=True):
            n = max(1, int(np.ceil(np.linalg.norm(c[:3] - b[:3]) / step_mm)))
            t = (np.arange(n) / n)[:, None]
            out.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2
                              + (3 * b - a - 3 * c + d) * t**3))
        curve = np.vstack([*out, q[-2:-1]])
        return cls(curve[:, :3].astype(np.float32), np.maximum(curve[:, 3], 0.5).astype(np.float32))

    def box(self, z_low: float, z_high: float):
        """Return (x low, x high, y low, y high) of what lies between two heights, or None."""
        z, r = self.points[:, 2], np.maximum(self.radius[:-1], self.radius[1:])
        near = (np.maximum(z[:-1], z[1:]) + r > z_low) & (np.minimum(z[:-1], z[1:]) - r < z_high)
        if not near.any():
            return None
        ends = np.r_[near, False] | np.r_[False, near]
        p, r = self.points[ends], self.radius[ends]
        return ((p[:, 0] - r).min(), (p[:, 0] + r).max(), (p[:, 1] - r).min(), (p[:, 1] + r).max())

    def level(self, x, y, z) -> np.ndarray:
        """Return the distance to the tube's middle over its radius: below 1 is inside."""
        return self.level_and_place(x, y, z)[0]

    def level_and_place(self, x, y, z):
        """Return the level and the place along the polyline (point number and fraction)."""
        from allpet_physics.simulation._anatomy_kernels import tube_level

        level, place = tube_level(x.ravel(), y.ravel(), np.ascontiguousarray(np.broadcast_to(z, x.shape)).ravel(),
                                  self.points, self.radius)
        return level.reshape(x.shape), place.reshape(x.shape)


@dataclass(frozen=True)
class Pose:
    """How the patient lies: shift in mm, in-plane turn, tilt about the left-right axis, roll about the y axis (rad)."""

    shift: tuple[float, float] = (0.0, 0.0)
    turn: float = 0.0
    tilt: float = 0.0
    roll: float = 0.0


@dataclass(frozen=True)
class Warp:
    """A smooth displacement of patient coordinates, drawn at two lengths."""

    fields: tuple[SmoothNoise, ...] = ()
    amplitudes_mm: tuple[float, ...] = ()

    @property
    def reach_mm(self) -> float:
        """A displacement that is practically never exceeded."""
        return 3 * float(sum(self.amplitudes_mm))

    def on(self, z, rows, cols) -> np.ndarray:
        """Return (dx, dy) in mm, shape (2, slices, rows, cols)."""
        return sum(np.float32(a) * f.on(z, rows, cols) for a, f in zip(self.amplitudes_mm, self.fields, strict=True))


@dataclass
class Canvas:
    """One slice: patient coordinates of its pixels and the label map under construction.

    Attributes
    ----------
    x, y, z : ndarray, float32, shape (rows, cols)
        Warped patient coordinates in mm.
    labels : ndarray, uint8, shape (rows, cols)
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    axis_x: np.ndarray
    axis_y: np.ndarray
    pose: Pose
    margin_mm: float
    labels: np.ndarray = field(init=False)

    def __post_init__(self):
        self.labels = np.zeros(self.x.shape, np.uint8)
        self.z_low, self.z_high = float(self.z.min()), float(self.z.max())

    def window(self, box) -> tuple[slice, slice]:
        """Return the rows and columns that hold a box of patient coordinates, given the pose and the warp."""
        c, s = np.cos(self.pose.turn), np.sin(self.pose.turn)
        corners = np.array([(px, py) for px in box[:2] for py in box[2:]])
        px = corners[:, 0] * c - corners[:, 1] * s + self.pose.shift[0]
        py = corners[:, 0] * s + corners[:, 1] * c + self.pose.shift[1]
        m = self.margin_mm
        cols = np.searchsorted(self.axis_x, (px.min() - m, px.max() + m))
        rows = np.searchsorted(-self.axis_y, (-py.max() - m, -py.min() + m))
        return slice(rows[0], rows[1]), slice(cols[0], cols[1])

    def at(self, shape):
        """Return (window, level) of a shape near this slice, or None when it does not reach it."""
        box = shape.box(self.z_low, self.z_high)
        if box is None:
            return None
        window = self.window(box)
        if window[0].start >= window[0].stop or window[1].start >= window[1].stop:
            return None
        return window, shape.level(self.x[window], self.y[window], self.z[window])

    def paint(self, name: str, shape, over=None, below: float = 1.0) -> None:
        """Give the pixels of a shape a label; `over` names the labels that it may replace (all by default)."""
        found = self.at(shape)
        if found is not None:
            self.fill(name, found[0], found[1] < below, over)

    def fill(self, name: str, window, inside, over=None) -> None:
        """Give the pixels of a mask within a window a label."""
        part = self.labels[window]
        if over is not None:
            inside = inside & allowed(over)[part]
        part[inside] = ORGAN_NUMBER[name]

    def hollow(self, wall: str, content: str, shape, wall_mm: float, over=None) -> None:
        """Paint a wall of the given thickness around a content."""
        found = self.at(shape)
        if found is None:
            return
        window, level = found
        inside = level < 1
        if over is not None:
            inside &= allowed(over)[self.labels[window]]
        part = self.labels[window]
        part[inside] = ORGAN_NUMBER[wall]
        inner = shape.scaled(-wall_mm).level(self.x[window], self.y[window], self.z[window]) < 1
        part[inside & inner] = ORGAN_NUMBER[content]


def allowed(names) -> np.ndarray:
    """Return a table by label number: whether the label is among `names`."""
    table = np.zeros(len(ORGANS), bool)
    table[[ORGAN_NUMBER[n] for n in ((names,) if isinstance(names, str) else names)]] = True
    return table


@dataclass(frozen=True)
class Plan:
    """A drawn patient before rasterisation.

    Attributes
    ----------
    paint : callable
        Takes a `Canvas` and fills its labels.
    sizes : dict
        What was drawn, by name.
    pose : Pose
    half_extent_mm : (float, float)
        Half width and half height that hold the body, before the pose.
    level_mm : float
        Height of the middle slice.
    warp : tuple of (length in mm, amplitude in mm)
    """

    paint: Callable[[Canvas], None]
    sizes: dict
    pose: Pose
    half_extent_mm: tuple[float, float]
    level_mm: float
    warp: tuple[tuple[float, float], ...]
