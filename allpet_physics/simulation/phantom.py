"""A phantom as a sum of analytic shapes: exact sinogram, anti-aliased image, parameters as JSON."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from allpet_physics._arrays import as_positive_int
from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.simulation.shapes import Shape, as_real

MODELS = ("bin", "line")


@dataclass(frozen=True)
class Phantom:
    """A sum of shapes: where shapes overlap their values add, so a cold insert has a negative value.

    Parameters
    ----------
    shapes : sequence of Shape
        At least one.
    name : str
        What the phantom is, for titles and records.

    Raises
    ------
    InputError
        No shapes, or something else among them.
    """

    shapes: tuple[Shape, ...]
    name: str = "phantom"

    def __post_init__(self):
        try:
            shapes = tuple(self.shapes)
        except TypeError:
            shapes = ()
        if not shapes or not all(isinstance(shape, Shape) for shape in shapes):
            raise InputError("shapes must be a sequence of at least one Shape (Ellipse, Rectangle, Outline), "
                             f"but was {self.shapes!r}.")
        object.__setattr__(self, "shapes", shapes)

    def __add__(self, other) -> "Phantom":
        if not isinstance(other, Phantom):
            return NotImplemented
        return Phantom(self.shapes + other.shapes, f"{self.name} + {other.name}")

    def __mul__(self, factor) -> "Phantom":
        if not np.isscalar(factor):
            return NotImplemented
        factor = as_real("factor", factor)
        return dataclasses.replace(
            self, shapes=tuple(dataclasses.replace(shape, value=factor * shape.value) for shape in self.shapes))

    __rmul__ = __mul__

    @property
    def total_mass(self) -> float:
        """The sum of value times area in u·mm²: what every complete projection integrates to."""
        return float(sum(shape.mass for shape in self.shapes))

    def value_at(self, x, y) -> np.ndarray:
        """Return the value at points in mm."""
        return np.asarray(sum(shape.value * shape.contains(x, y) for shape in self.shapes))

    def sinogram(self, geometry: ParallelGeometry, model: str = "bin", dtype=np.float64) -> np.ndarray:
        r"""Return the exact sinogram ``[angle, bin]`` in u·mm.

        With P the shapes' cumulative and p their line integral (see `allpet_physics.simulation.shapes`), bin edges
        :math:`e_b` and width w,

        .. math:: \text{bin:}\ \frac{P(\theta, e_{b+1}) - P(\theta, e_b)}{w}, \qquad
           \text{line:}\ p(\theta, s_b). \tag{S5}

        "bin" is the mean over the bin, what the strip model of `RadonOperator` approximates for the image and what
        keeps the total; "line" is the value at the bin's centre. Both agree as the bins shrink (to second order in w
        where p is smooth). Shapes beyond the bins are cut off, as a scanner cuts them.

        Raises
        ------
        InputError
            An unknown model or dtype, something else than a geometry.
        """
        _check_geometry(geometry)
        if model not in MODELS:
            raise InputError(f"model must be one of {', '.join(MODELS)}, but was {model!r}.")
        dtype = _float_dtype(dtype)
        theta, n_bins = geometry.angles[:, None], geometry.n_bins
        rows = np.arange(geometry.n_angles)[:, None]
        # One more column takes what falls outside.
        sinogram = np.zeros((geometry.n_angles, n_bins + 1))
        for shape in self.shapes:
            bins = _touched_bins(geometry, *shape.extent(geometry.angles))
            edges = np.minimum(np.concatenate([bins, bins[:, -1:] + 1], axis=1), n_bins)
            bins = np.minimum(bins, n_bins)
            if model == "bin":
                values = np.diff(shape.cumulative(theta, geometry.bin_edges[edges]), axis=1) / geometry.bin_mm
            else:
                values = shape.line_integral(theta, geometry.bin_centres[np.minimum(bins, n_bins - 1)])
            sinogram[rows, bins] += values
        return np.ascontiguousarray(sinogram[:, :n_bins], dtype=dtype)

    def image(self, geometry: ParallelGeometry, supersampling: int = 8, dtype=np.float64) -> np.ndarray:
        """Return the image ``[row, col]``: the phantom averaged over each pixel.

        Every pixel row is cut into `supersampling` = n lines over the height that a shape has within it, and the
        overlap of each line with each pixel is exact. So a pixel that one smooth edge crosses is off by at most
        1/(2n) of the edge's step, far less when averaged along an edge; rectangles along the axes are exact, and
        shapes smaller than a pixel are not lost.

        Raises
        ------
        InputError
            `supersampling` below one, an unknown dtype, something else than a geometry.
        """
        _check_geometry(geometry)
        n = as_positive_int("supersampling", supersampling)
        dtype = _float_dtype(dtype)
        image = np.zeros(geometry.image_shape)
        for shape in self.shapes:
            _add_shape(image, shape, geometry, n)
        return image.astype(dtype, copy=False)

    def to_dict(self) -> dict:
        """Return the name and every shape's parameters as plain Python types, ready for JSON."""
        return {"name": self.name, "shapes": [shape.to_dict() for shape in self.shapes]}

    @classmethod
    def from_dict(cls, parameters: dict) -> "Phantom":
        """Return the phantom that `to_dict` described, validated again."""
        known = {kind.__name__: kind for kind in Shape.__subclasses__()}
        shapes = []
        try:
            for item in parameters["shapes"]:
                fields = dict(item)
                kind = fields.pop("shape")
                if kind not in known:
                    raise InputError(f"shape must be one of {', '.join(sorted(known))}, but was {kind!r}.")
                shapes.append(known[kind](**fields))
            return cls(tuple(shapes), parameters.get("name", "phantom"))
        except (KeyError, TypeError) as error:
            raise InputError("parameters must be what Phantom.to_dict returns, a name and a list of shapes, "
                             f"but reading them failed: {error}.") from error


def _check_geometry(geometry):
    if not isinstance(geometry, ParallelGeometry):
        raise InputError(f"geometry must be a ParallelGeometry, but was {type(geometry).__name__}.")


def _float_dtype(dtype):
    try:
        known = np.dtype(dtype)
    except TypeError:
        known = None
    if known not in (np.float32, np.float64):
        raise InputError(f"dtype must be float32 or float64, but was {dtype!r}.")
    return known


def _touched_bins(geometry, low, high):
    """Return the indices of bins between `low` and `high` mm for each angle, as many for each; n_bins is none."""
    first, end = (np.clip((s - geometry.bin_edges[0]) / geometry.bin_mm, 0, geometry.n_bins) for s in (low, high))
    # A bin more at either side, so that rounding cannot cut off the rim of a shape.
    first = np.maximum(np.floor(first).astype(int) - 1, 0)
    count = max(1, int(np.max(np.ceil(end).astype(int) + 1 - first)))
    return first[:, None] + np.arange(count)


def _add_shape(image, shape, geometry, n):
    """Add a shape's value times the fraction of each pixel that it covers."""
    n_rows, n_columns = image.shape
    side = geometry.pixel_mm
    (x_low, x_high), (y_low, y_high) = shape.extent(0.0), shape.extent(np.pi / 2)
    top, bottom = geometry.y[0] + side / 2, geometry.y[-1] - side / 2
    left = geometry.x[0] - side / 2
    rows = slice(*(int(np.clip(f((top - y) / side), 0, n_rows)) for f, y in ((np.floor, y_high), (np.ceil, y_low))))
    columns = slice(*(int(np.clip(f((x - left) / side), 0, n_columns))
                      for f, x in ((np.floor, x_low), (np.ceil, x_high))))
    if top < y_low or bottom > y_high or rows.start == rows.stop or columns.start == columns.stop:
        return
    upper = np.minimum(geometry.y[rows] + side / 2, y_high)
    height = np.maximum(upper - np.maximum(geometry.y[rows] - side / 2, y_low), 0)
    pixel_left = geometry.x[columns] - side / 2
    covered = np.zeros((len(upper), len(pixel_left)))
    for k in range(n):
        # At θ = -π/2 a line runs along x: s = -y, t = x.
        ends, signs = shape.crossings(-np.pi / 2, -(upper - (k + 0.5) / n * height))
        for end, sign in zip(ends, signs, strict=True):
            if sign.any():
                covered += np.clip(end[:, None] - pixel_left, 0, side) * (sign * height / n)[:, None]
    image[rows, columns] += shape.value / side**2 * covered
