"""The parallel-beam geometry: one frozen description of an image grid and its sinogram grid."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from allpet_physics._arrays import as_positive_float, as_positive_int
from allpet_physics.errors import GeometryError, InputError


@dataclass(frozen=True)
class ParallelGeometry:
    r"""A 2D parallel-beam geometry in mm and radians.

    A line of response at angle :math:`\theta` and signed distance :math:`s` from the origin is

    .. math:: s = x \cos\theta + y \sin\theta, \tag{G1}

    with the origin at the image centre, world x growing with the column and world y growing *against* the row
    (row 0 is the top). The centre of an n-long axis is at index (n - 1)/2, so that pixel (r, c) has its centre at

    .. math:: x = (c - (n_c - 1)/2)\,\Delta, \qquad y = ((n_r - 1)/2 - r)\,\Delta. \tag{G2}

    Angles are :math:`\theta_i = i\,\mathrm{arc}/n_\mathrm{angles}`, without the end point; bin centres are
    :math:`s_b = (b - (n_\mathrm{bins} - 1)/2)\,w`. This is ASTRA's ``parallel`` geometry.

    Parameters
    ----------
    n_angles, n_bins : int
        Number of projection angles over `arc` and of radial bins per angle.
    bin_mm : float
        Width w of a radial bin in mm.
    image_shape : (int, int)
        Rows and columns of the image.
    pixel_mm : float
        Side Δ of a square pixel in mm.
    arc : float
        π or 2π.

    Raises
    ------
    InputError
        A count below one, a spacing that is not a finite positive number.
    GeometryError
        An arc other than π or 2π, an image shape that is not two numbers.
    """

    n_angles: int
    n_bins: int
    bin_mm: float
    image_shape: tuple[int, int]
    pixel_mm: float
    arc: float = np.pi

    def __post_init__(self):
        def put(name, value):
            object.__setattr__(self, name, value)

        put("n_angles", as_positive_int("n_angles", self.n_angles))
        put("n_bins", as_positive_int("n_bins", self.n_bins))
        put("bin_mm", as_positive_float("bin_mm", self.bin_mm))
        put("pixel_mm", as_positive_float("pixel_mm", self.pixel_mm))
        try:
            shape = tuple(self.image_shape)
        except TypeError:
            shape = ()
        if len(shape) != 2:
            raise GeometryError(f"image_shape must be (rows, columns), but was {self.image_shape!r}; "
                                "leading batch axes are not part of a geometry.")
        put("image_shape", tuple(as_positive_int("image_shape", n) for n in shape))
        arc = as_positive_float("arc", self.arc)
        for allowed in (np.pi, 2 * np.pi):
            if abs(arc - allowed) <= 1e-6:
                put("arc", allowed)
                break
        else:
            raise GeometryError(f"arc must be pi or 2 pi (radians), but was {arc:g}; "
                                "a limited arc is a subset of angles: RadonOperator(...).subset(indices).")

    @property
    def sinogram_shape(self) -> tuple[int, int]:
        """(n_angles, n_bins)."""
        return self.n_angles, self.n_bins

    @property
    def angles(self) -> np.ndarray:
        """Projection angles θ in radians, float64, shape (n_angles,)."""
        return np.arange(self.n_angles) * (self.arc / self.n_angles)

    @property
    def bin_centres(self) -> np.ndarray:
        """Signed distance s of each bin's centre in mm, shape (n_bins,)."""
        return (np.arange(self.n_bins) - (self.n_bins - 1) / 2) * self.bin_mm

    @property
    def bin_edges(self) -> np.ndarray:
        """Edges of the bins in mm, shape (n_bins + 1,)."""
        return (np.arange(self.n_bins + 1) - self.n_bins / 2) * self.bin_mm

    @property
    def x(self) -> np.ndarray:
        """World x of each column's centre in mm, shape (columns,)."""
        n = self.image_shape[1]
        return (np.arange(n) - (n - 1) / 2) * self.pixel_mm

    @property
    def y(self) -> np.ndarray:
        """World y of each row's centre in mm, descending, shape (rows,)."""
        n = self.image_shape[0]
        return ((n - 1) / 2 - np.arange(n)) * self.pixel_mm

    @property
    def fov_mm(self) -> float:
        """Diameter of the disc that every angle sees whole: the bins' extent."""
        return self.n_bins * self.bin_mm

    @property
    def covers_image(self) -> bool:
        """Whether the bins reach the image's corners at every angle, so that no mass is cut off."""
        return self.fov_mm >= np.hypot(*self.image_shape) * self.pixel_mm * (1 - 1e-12)

    def replace(self, **changes) -> "ParallelGeometry":
        """Return a copy with some fields changed, validated again."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict:
        """Return the fields as plain Python types, ready for JSON."""
        return {**dataclasses.asdict(self), "image_shape": list(self.image_shape)}

    @classmethod
    def for_image(cls, image_shape, pixel_mm: float, *, n_angles: int | None = None, n_bins: int | None = None,
                  bin_mm: float | None = None, arc: float = np.pi) -> "ParallelGeometry":
        """Return the geometry that sees a whole image at its own resolution.

        By default a bin is as wide as a pixel, the bins reach the corners (their number has the parity of the
        larger image axis, so that centres line up at 0 and 90 degrees), and there are as many angles as bins times
        π/2 rounded up to a multiple of four, the sampling at which angular and radial steps match at the rim
        (Kak & Slaney 1988, eq. 5.43); an arc of 2π doubles the angles.
        """
        shape = tuple(image_shape)
        bin_mm = pixel_mm if bin_mm is None else bin_mm
        if n_bins is None:
            diagonal = np.hypot(*shape) * as_positive_float("pixel_mm", pixel_mm) / as_positive_float("bin_mm", bin_mm)
            n_bins = int(np.ceil(diagonal - 1e-9))
            n_bins += (n_bins - max(shape)) % 2
        if n_angles is None:
            n_angles = 4 * int(np.ceil(n_bins * np.pi / 2 / 4)) * (1 if arc < 4 else 2)
        return cls(n_angles, n_bins, bin_mm, shape, pixel_mm, arc)

    @classmethod
    def preset(cls, name: str) -> "ParallelGeometry":
        """Return a named geometry; `scanner_presets` lists the names and what each stands for."""
        presets = scanner_presets()
        if name not in presets:
            raise InputError(f"preset must be one of {', '.join(sorted(presets))}, but was {name!r}.")
        return presets[name][0]


def scanner_presets() -> dict[str, tuple[ParallelGeometry, str]]:
    """Return the named geometries, each with one sentence that says what it stands for and where its numbers come from.

    Native presets have the numbers of radial bins and views that a scanner records, network presets the shapes that
    the networks are trained on. They are not interchangeable: moving between them is a resampling. All arcs are π.
    The native ones take uniform bins of the scanner's default size, that is, arc-corrected data; their bins, views
    and bin sizes are those of `src/buildblock/Scanner.cxx` in STIR (https://github.com/UCL/STIR).
    """
    presets = {"digitmi930-512": (
        ParallelGeometry(512, 512, 1.3, (512, 512), 1.3),
        "The 81 cm ring of the DigitMI 930 resampled to 512 angles x 512 bins of 1.3 mm and a 512 x 512 image (field "
        "of view 665.6 mm), the network shape of the ALL-PET paper (arXiv 2509.09130); its native bins and views are "
        "not published.")}
    for n in (64, 128, 256, 512):
        side = 665.6 / n
        presets[f"network-{n}"] = (
            ParallelGeometry(n, n, side, (n, n), side),
            f"A network shape, {n} angles x {n} bins of {side:g} mm and a {n} x {n} image over the same 665.6 mm field "
            "of view as digitmi930-512; no scanner records it.")
    covered = "on a square grid of the bin size whose corners the bins cover"
    presets["ge-discovery-690"] = (
        ParallelGeometry(288, 381, 2.1306, (269, 269), 2.1306),
        f"GE Discovery 690, 81 cm ring: 381 bins of 2.1306 mm x 288 views (STIR Scanner.cxx), {covered} (573 mm).")
    presets["ge-discovery-mi"] = (
        ParallelGeometry(272, 415, 2.206, (293, 293), 2.206),
        f"GE Discovery MI: 415 bins of 2.206 mm x 272 views (STIR Scanner.cxx), {covered} (646 mm).")
    presets["siemens-mmr"] = (
        ParallelGeometry(252, 344, 2.08626, (344, 344), 2.08626),
        "Siemens Biograph mMR: 344 bins of 2.08626 mm x 252 views (STIR Scanner.cxx) and the scanner's usual 344 x 344 "
        "matrix at that size; its corners lie outside the 718 mm disc that the bins see.")
    return presets
