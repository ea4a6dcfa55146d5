r"""Regions within an outline of straight edges and circular arcs, with closed forms for their projections."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from allpet_physics.errors import InputError
from allpet_physics.simulation.shapes import Shape, half_disc_area

#: An arc of an outline sweeps at least this angle (and stays as far from a whole turn), or it is a straight edge.
_SMALLEST_ARC = 1e-3


@dataclass(frozen=True)
class Outline(Shape):
    r"""A region within a closed outline of straight edges and circular arcs: polygons, segments, rounded bodies.

    By Green's theorem, with the outline run counter-clockwise in the (s, t) plane of eq. (S1),

    .. math:: P(\theta, s) = -v \oint_{s' \le s} t\,ds', \qquad p = -v \sum_\mathrm{crossings}
       \operatorname{sgn}(ds)\,t, \tag{S4}

    and each piece of the outline that is monotonic in s, a segment or an upper or lower arc
    :math:`t = t_0 \pm \sqrt{r^2 - (s - s_0)^2}`, contributes a closed form. A line along a straight edge sees one of
    the two limits of p.

    Parameters
    ----------
    vertices : sequence of (x, y) in mm
        At least three (two where arcs join them), in either direction, not repeated at the end. The outline must not
        cross itself.
    arcs : sequence of float
        The angle in radians that the edge from vertex i to vertex i + 1 sweeps as a circular arc: 0 (default) for a
        straight edge, positive for counter-clockwise, otherwise from 0.001 up to 2π - 0.001 in magnitude.
    value : float
        The value inside, in any unit u.
    label : str
        What the shape stands for.

    Raises
    ------
    InputError
        Too few vertices, equal neighbours, arcs that are as many as vertices not or out of range, numbers that are
        not finite, an outline without area.
    """

    vertices: tuple[tuple[float, float], ...]
    arcs: tuple[float, ...] = ()
    value: float = 1.0
    label: str = ""

    def __post_init__(self):
        self._check()
        vertices, arcs = _checked_outline(self.vertices, self.arcs)
        object.__setattr__(self, "vertices", vertices)
        object.__setattr__(self, "arcs", arcs)
        scale = np.ptp(np.asarray(vertices), axis=0).max()
        if not self.area > 1e-12 * scale**2:
            raise InputError("vertices must enclose an area, but the outline's area was "
                             f"{self.area:g} mm²; give at least three vertices that are not on one line.")

    @property
    def area(self) -> float:
        """The area by the shoelace formula plus the arcs' circular segments."""
        return abs(self._signed_area)

    def contains(self, x, y):
        """Tell which points (mm) lie inside: the polygon of the vertices, exclusive-or each arc's segment."""
        x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
        inside = np.zeros(x.shape, bool)
        for (x0, y0), (x1, y1), arc in self._edges():
            # One rule decides on which side of the edge a point lies, for the polygon and for the arc's segment: points
            # on a chord must not fall between the two.
            if y0 == y1:
                on_left = y >= y0 if x1 > x0 else y < y0
            else:
                before = x < x0 + (x1 - x0) * (y - y0) / (y1 - y0)
                inside ^= ((y0 > y) != (y1 > y)) & before
                on_left = before if y1 > y0 else ~before
            if arc:
                xc, yc, radius = _arc_centre(x0, y0, x1, y1, arc)
                inside ^= (np.hypot(x - xc, y - yc) <= radius) & (on_left if arc < 0 else ~on_left)
        return inside

    def extent(self, theta):
        """Return the least and the greatest s of the vertices and of the arcs' extremes."""
        theta = np.asarray(theta, float)
        ends = np.stack([s for start, end, *_ in self._pieces(theta) for s in (start, end)])
        offset = self._reference(theta)[0]
        return ends.min(axis=0) + offset, ends.max(axis=0) + offset

    def crossings(self, theta, s):
        """Return where lines cross each monotonic piece of the outline; see `Shape.crossings`."""
        theta, s = np.broadcast_arrays(np.asarray(theta, float), np.asarray(s, float))
        s_offset, t_offset = self._reference(theta)
        s = s - s_offset
        positions, signs = [], []
        for start, end, height, _ in self._pieces(theta):
            # Half-open in s and with shared end points, so that every line crosses a closed outline evenly.
            low, high = np.minimum(start, end), np.maximum(start, end)
            signs.append(np.where((low <= s) & (s < high), self._turn * np.sign(start - end), 0.0))
            positions.append(height(np.clip(s, low, high)) + t_offset)
        return np.stack(positions), np.stack(signs)

    def cumulative(self, theta, s):
        """Return P of eq. (S4)."""
        theta, s = np.broadcast_arrays(np.asarray(theta, float), np.asarray(s, float))
        s = s - self._reference(theta)[0]
        total = np.zeros(s.shape)
        for start, end, _, integral in self._pieces(theta):
            low, high = np.minimum(start, end), np.maximum(start, end)
            total += np.sign(start - end) * integral(low, np.clip(s, low, high))
        return self.value * self._turn * total

    @cached_property
    def _signed_area(self):
        total = 0.0
        x_ref, y_ref = self._centroid
        for (x0, y0), (x1, y1), arc in self._edges():
            total += ((x0 - x_ref) * (y1 - y_ref) - (x1 - x_ref) * (y0 - y_ref)) / 2
            if arc:
                total += _arc_centre(x0, y0, x1, y1, arc)[2] ** 2 / 2 * (arc - np.sin(arc))
        return float(total)

    @property
    def _turn(self):
        return 1.0 if self._signed_area > 0 else -1.0

    @cached_property
    def _centroid(self):
        return tuple(np.mean(self.vertices, axis=0))

    def _reference(self, theta):
        # Everything is computed from the centroid: a closed outline does not depend on it, the rounding does.
        x, y = self._centroid
        return x * np.cos(theta) + y * np.sin(theta), y * np.cos(theta) - x * np.sin(theta)

    def _edges(self):
        return zip(self.vertices, self.vertices[1:] + self.vertices[:1], self.arcs, strict=True)

    def _pieces(self, theta):
        """Yield (s at start, s at end, t(s), integral of t from s to s) of every piece monotonic in s."""
        cos, sin = np.cos(theta), np.sin(theta)
        points = np.asarray(self.vertices) - self._centroid
        s_of = [x * cos + y * sin for x, y in points]
        t_of = [y * cos - x * sin for x, y in points]
        for i, arc in enumerate(self.arcs):
            j = (i + 1) % len(points)
            if arc:
                yield from _arc_pieces(*points[i], *points[j], arc, theta, s_of[i], s_of[j])
            else:
                yield s_of[i], s_of[j], *_segment(s_of[i], t_of[i], s_of[j], t_of[j])


def _segment(s0, t0, s1, t1):
    """Return t(s) and its integral for the segment between two points of the (s, t) plane."""
    width = np.asarray(s1 - s0)

    def height(s):
        fraction = np.divide(s - s0, width, out=np.zeros(np.broadcast(s, width).shape), where=width != 0)
        return t0 + fraction * (t1 - t0)

    def integral(low, high):
        return (high - low) * (height(low) + height(high)) / 2

    return height, integral


def _arc_pieces(x0, y0, x1, y1, arc, theta, s0, s1):
    """Yield an arc's upper and lower pieces in the order in which the outline runs through them."""
    xc, yc, radius = _arc_centre(x0, y0, x1, y1, arc)
    s_centre = xc * np.cos(theta) + yc * np.sin(theta)
    t_centre = yc * np.cos(theta) - xc * np.sin(theta)
    # Angles around the arc's centre from the s axis, counter-clockwise from `first` in [0, 2π) on; a clockwise arc is
    # the same set of points run from its end.
    xa, ya, s_first, s_last = (x0, y0, s0, s1) if arc > 0 else (x1, y1, s1, s0)
    first = np.mod(np.arctan2(ya - yc, xa - xc) - theta, 2 * np.pi)
    last = first + abs(arc)

    def branch(side):
        def height(s):
            return t_centre + side * np.sqrt(np.maximum((radius - (s - s_centre)) * (radius + (s - s_centre)), 0))

        def integral(low, high):
            u, v = (np.clip((s - s_centre) / radius, -1, 1) for s in (low, high))
            return t_centre * (high - low) + side * radius**2 * (half_disc_area(v) - half_disc_area(u))

        return height, integral

    for k in range(4):
        # From kπ to (k + 1)π the arc is an upper (k even) or lower branch; beyond its range a piece has no length.
        present = (first < (k + 1) * np.pi) & (last > k * np.pi)
        begin = np.where(present & (first < k * np.pi), s_centre + radius * (-1) ** k, s_first)
        finish = np.where(last <= (k + 1) * np.pi, s_last, s_centre - radius * (-1) ** k)
        finish = np.where(present, finish, begin)
        ends = (begin, finish) if arc > 0 else (finish, begin)
        yield *ends, *branch((-1) ** k)


def _arc_centre(x0, y0, x1, y1, arc):
    """Return the centre and radius of the arc that sweeps the angle `arc` from one point to the other."""
    chord = np.hypot(x1 - x0, y1 - y0)
    shift = 0.5 / np.tan(arc / 2)
    return ((x0 + x1) / 2 - shift * (y1 - y0), (y0 + y1) / 2 + shift * (x1 - x0), chord / 2 / abs(np.sin(arc / 2)))


def _checked_outline(vertices, arcs):
    try:
        points = np.array([tuple(p) for p in vertices], dtype=float)
    except (TypeError, ValueError):
        points = np.empty(0)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 2 or not np.isfinite(points).all():
        raise InputError("vertices must be at least two pairs (x, y) of finite numbers in mm (three without arcs), "
                         f"but were {vertices!r}.")
    if (points == np.roll(points, 1, axis=0)).all(axis=1).any():
        raise InputError("neighbouring vertices must differ, but two were equal; the outline closes by itself, so do "
                         "not repeat the first vertex at the end.")
    try:
        sweeps = tuple(float(a) for a in arcs) or (0.0,) * len(points)
    except (TypeError, ValueError):
        sweeps = ()
    if len(sweeps) != len(points) or any(
            a != 0 and not _SMALLEST_ARC <= abs(a) <= 2 * np.pi - _SMALLEST_ARC for a in sweeps):
        raise InputError(f"arcs must be one angle per vertex, 0 for a straight edge or from {_SMALLEST_ARC:g} up to "
                         f"2 pi - {_SMALLEST_ARC:g} radians in magnitude, but were {arcs!r}.")
    return tuple((float(x), float(y)) for x, y in points), sweeps
