r"""Plane shapes with closed forms for their projections: `Ellipse`, `Rectangle` (and `Outline`, next door).

Lengths are in mm, angles in radians, coordinates are world coordinates (x right, y up, origin at the image centre).
The line at :math:`(\theta, s)` is

.. math:: (x, y) = s\,(\cos\theta, \sin\theta) + t\,(-\sin\theta, \cos\theta). \tag{S1}

A shape of value v has the line integral :math:`p(\theta, s) = v \cdot` (length of the line inside) and the cumulative
:math:`P(\theta, s) = \int_{-\infty}^s p\,ds'`, v times the area to the left of the line; the mean of p over a
bin is a difference of P at its edges divided by its width, with a rounding error below about
:math:`10^{-15}\,v \cdot \mathrm{area} / \mathrm{width}`.

A new shape is one class: subclass `Shape` and write its `area`, `contains`, `extent`, `crossings` and `cumulative`.
"""

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from allpet_physics._arrays import as_positive_float
from allpet_physics.errors import InputError


class Shape(ABC):
    """A region of the plane with a constant `value`; every method broadcasts its arguments and works in float64."""

    value: float

    @property
    @abstractmethod
    def area(self) -> float:
        """The area in mm²."""

    @abstractmethod
    def contains(self, x, y) -> np.ndarray:
        """Tell which points (mm) lie inside; on the boundary either answer is right."""

    @abstractmethod
    def extent(self, theta) -> tuple[np.ndarray, np.ndarray]:
        """Return the least and the greatest s (mm) at which lines of angle `theta` meet the shape."""

    @abstractmethod
    def crossings(self, theta, s) -> tuple[np.ndarray, np.ndarray]:
        """Return where lines cross the boundary.

        Returns
        -------
        t, sign : ndarray, shape (n, ...)
            Position t along the line, eq. (S1), in mm, and +1 where the line leaves the shape towards greater t,
            -1 where it enters it, 0 for no crossing. Signs sum to zero over the first axis, so that the length of
            the line inside is the sum of sign times t.
        """

    @abstractmethod
    def cumulative(self, theta, s) -> np.ndarray:
        """Return the integral of the line integral from minus infinity to `s`, in u·mm²."""

    def line_integral(self, theta, s) -> np.ndarray:
        """Return `value` times the length of the lines (theta, s) inside the shape, in u·mm."""
        t, sign = self.crossings(theta, s)
        return self.value * np.sum(t * sign, axis=0)

    @property
    def mass(self) -> float:
        """Value times area in u·mm²: what every complete projection integrates to."""
        return self.value * self.area

    def to_dict(self) -> dict:
        """Return the class name and the fields as plain Python types, ready for JSON."""
        fields = {name: [list(v) if isinstance(v, tuple) else v for v in item] if isinstance(item, tuple) else item
                  for name, item in ((f.name, getattr(self, f.name)) for f in dataclasses.fields(self))}
        return {"shape": type(self).__name__, **fields}

    def _check(self, real=(), positive=()):
        for name in (*real, "value"):
            object.__setattr__(self, name, as_real(name, getattr(self, name)))
        for name in positive:
            object.__setattr__(self, name, as_positive_float(name, getattr(self, name)))


@dataclass(frozen=True)
class Ellipse(Shape):
    r"""An ellipse; with :math:`\delta` = `angle` - :math:`\theta` and s counted from the projected centre.

    .. math:: w^2 = a^2 \cos^2\delta + b^2 \sin^2\delta, \quad p = v\,\frac{2ab}{w}\sqrt{1 - (s/w)^2}, \quad
       P = v\,ab\left[\tfrac{s}{w}\sqrt{1-(s/w)^2} + \arcsin\tfrac{s}{w} + \tfrac\pi2\right]. \tag{S2}

    Parameters
    ----------
    x_mm, y_mm : float
        The centre.
    a_mm, b_mm : float
        The semi-axes, a along `angle` and b across it.
    angle : float
        Counter-clockwise angle in radians from the x axis to the axis a.
    value : float
        The value inside, in any unit u.
    label : str
        What the shape stands for.

    Raises
    ------
    InputError
        A semi-axis that is not positive, any number that is not finite.
    """

    x_mm: float
    y_mm: float
    a_mm: float
    b_mm: float
    angle: float = 0.0
    value: float = 1.0
    label: str = ""

    def __post_init__(self):
        self._check(("x_mm", "y_mm", "angle"), ("a_mm", "b_mm"))

    @property
    def area(self) -> float:
        """π a b."""
        return np.pi * self.a_mm * self.b_mm

    def contains(self, x, y):
        """Tell which points (mm) lie inside or on the ellipse."""
        u, v = _local(self, x, y)
        return (u / self.a_mm) ** 2 + (v / self.b_mm) ** 2 <= 1

    def extent(self, theta):
        """Return the projected centre minus and plus w."""
        centre, half_width = self._projected(theta)
        return centre - half_width, centre + half_width

    def crossings(self, theta, s):
        """Return the two ends of the chord; see `Shape.crossings`."""
        centre, half_width = self._projected(theta)
        u = (np.asarray(s, float) - centre) / half_width
        delta = self.angle - np.asarray(theta, float)
        tilt = (self.a_mm - self.b_mm) * (self.a_mm + self.b_mm) * np.sin(delta) * np.cos(delta) / half_width
        middle = self.y_mm * np.cos(theta) - self.x_mm * np.sin(theta) + tilt * u
        half_chord = self.a_mm * self.b_mm / half_width * np.sqrt(np.maximum((1 - u) * (1 + u), 0))
        inside = np.where(np.abs(u) < 1, 1.0, 0.0)
        return np.stack([middle + half_chord, middle - half_chord]), np.stack([inside, -inside])

    def line_integral(self, theta, s):
        """Return p of eq. (S2)."""
        centre, half_width = self._projected(theta)
        u = (np.asarray(s, float) - centre) / half_width
        return self.value * 2 * self.a_mm * self.b_mm / half_width * np.sqrt(np.maximum((1 - u) * (1 + u), 0))

    def cumulative(self, theta, s):
        """Return P of eq. (S2)."""
        centre, half_width = self._projected(theta)
        u = np.clip((np.asarray(s, float) - centre) / half_width, -1, 1)
        return self.value * self.a_mm * self.b_mm * (2 * half_disc_area(u) + np.pi / 2)

    def _projected(self, theta):
        delta = self.angle - np.asarray(theta, float)
        return (_projected_centre(self, theta),
                np.hypot(self.a_mm * np.cos(delta), self.b_mm * np.sin(delta)))


def disc(x_mm: float, y_mm: float, radius_mm: float, value: float = 1.0, label: str = "") -> Ellipse:
    """Return an ellipse of equal axes."""
    radius_mm = as_positive_float("radius_mm", radius_mm)
    return Ellipse(x_mm, y_mm, radius_mm, radius_mm, 0.0, value, label)


@dataclass(frozen=True)
class Rectangle(Shape):
    r"""A rectangle, whose projection is a trapezoid.

    With the projected sides :math:`M \ge m` of :math:`|w \cos\delta|, |h \sin\delta|`,
    :math:`\delta` = `angle` - :math:`\theta`, and s counted from the projected centre,

    .. math:: p = v\,\frac{wh}{M} \operatorname{clip}\!\left(\frac12 + \frac{M/2 - |s|}{m}, 0, 1\right). \tag{S3}

    P is its integral, taken piece by piece. Where a side is parallel to the lines (m = 0) p is a box, with the mean
    of both limits at its edges.

    Parameters
    ----------
    x_mm, y_mm : float
        The centre.
    width_mm, height_mm : float
        The full sides along and across `angle`.
    angle : float
        Counter-clockwise angle in radians from the x axis to the side `width_mm`.
    value : float
        The value inside, in any unit u.
    label : str
        What the shape stands for.

    Raises
    ------
    InputError
        A side that is not positive, any number that is not finite.
    """

    x_mm: float
    y_mm: float
    width_mm: float
    height_mm: float
    angle: float = 0.0
    value: float = 1.0
    label: str = ""

    def __post_init__(self):
        self._check(("x_mm", "y_mm", "angle"), ("width_mm", "height_mm"))

    @property
    def area(self) -> float:
        """Width times height."""
        return self.width_mm * self.height_mm

    def contains(self, x, y):
        """Tell which points (mm) lie inside or on the rectangle."""
        u, v = _local(self, x, y)
        return (np.abs(u) <= self.width_mm / 2) & (np.abs(v) <= self.height_mm / 2)

    def extent(self, theta):
        """Return the projected centre minus and plus (M + m)/2."""
        centre, long, short = self._projected(theta)
        return centre - (long + short) / 2, centre + (long + short) / 2

    def crossings(self, theta, s):
        """Return the ends of the chord between both pairs of sides; see `Shape.crossings`."""
        centre, delta = self._projected(theta)[0], self.angle - np.asarray(theta, float)
        v = np.asarray(s, float) - centre
        enters, leaves = [], []
        # The line's coordinate along either axis of the rectangle is offset + t * slope.
        for offset, slope, half in ((v * np.cos(delta), np.sin(delta), self.width_mm / 2),
                                    (-v * np.sin(delta), np.cos(delta), self.height_mm / 2)):
            with np.errstate(over="ignore"):
                ends = np.stack([-half - offset, half - offset]) / np.where(slope == 0, np.finfo(float).tiny, slope)
            enters.append(ends.min(axis=0))
            leaves.append(ends.max(axis=0))
        enter, leave = np.maximum(*enters), np.minimum(*leaves)
        inside = enter < leave
        t = np.where(inside, np.stack([leave, enter]), 0.0) + self.y_mm * np.cos(theta) - self.x_mm * np.sin(theta)
        return t, np.stack([inside, -1.0 * inside])

    def line_integral(self, theta, s):
        """Return p of eq. (S3)."""
        centre, long, short = self._projected(theta)
        s = np.asarray(s, float)
        # A ramp narrower than the rounding of s is widened to it, so that a line along a side sees the mean of both
        # limits instead of noise.
        short = np.maximum(short, 16 * np.finfo(float).eps * (np.abs(s) + np.abs(centre) + long))
        ramp = np.clip(0.5 + (long / 2 - np.abs(s - centre)) / short, 0, 1)
        return self.value * self.area / long * ramp

    def cumulative(self, theta, s):
        """Return P, the integral of eq. (S3)."""
        centre, long, short = self._projected(theta)
        v = np.asarray(s, float) - centre
        distance = np.abs(v)
        plateau = (long - short) / 2
        on_ramp = np.clip(distance - plateau, 0, short)
        fraction = np.divide(on_ramp, 2 * short, out=np.zeros_like(on_ramp), where=short > 0)
        from_centre = (np.minimum(distance, plateau) + on_ramp * (1 - fraction)) / long
        return self.value * self.area * (0.5 + np.copysign(from_centre, v))

    def _projected(self, theta):
        delta = self.angle - np.asarray(theta, float)
        sides = np.abs(self.width_mm * np.cos(delta)), np.abs(self.height_mm * np.sin(delta))
        return _projected_centre(self, theta), np.maximum(*sides), np.minimum(*sides)


def half_disc_area(u):
    """Return the integral of sqrt(1 - u²) from 0 to u, for u in [-1, 1]."""
    return (u * np.sqrt((1 - u) * (1 + u)) + np.arcsin(u)) / 2


def _local(shape, x, y):
    """Return coordinates along and across the shape's own axis."""
    x, y = np.asarray(x, float) - shape.x_mm, np.asarray(y, float) - shape.y_mm
    cos, sin = np.cos(shape.angle), np.sin(shape.angle)
    return x * cos + y * sin, y * cos - x * sin


def _projected_centre(shape, theta):
    return shape.x_mm * np.cos(theta) + shape.y_mm * np.sin(theta)


def as_real(name: str, value) -> float:
    """Return `value` as a finite float, or say what is wrong with it."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if isinstance(value, (bool, np.bool_)) or not np.isfinite(number):
        raise InputError(f"{name} must be a finite number, but was {value!r}.")
    return number
