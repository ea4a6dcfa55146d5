"""The phantoms of the field, built from analytic shapes: Shepp-Logan, NEMA IEC, Derenzo, a thorax."""

import numpy as np

from allpet_physics._arrays import as_positive_float
from allpet_physics.errors import InputError
from allpet_physics.simulation.outline import Outline
from allpet_physics.simulation.phantom import Phantom
from allpet_physics.simulation.shapes import Ellipse, Rectangle, as_real, disc

#: Shepp & Logan (1974) for a field from -1 to 1: x, y, semi-axis along x and y before the rotation, rotation
#: in degrees, value there, value of Toft (1996).
_SHEPP_LOGAN = (
    (0.0, 0.0, 0.69, 0.92, 0, 2.0, 1.0),
    (0.0, -0.0184, 0.6624, 0.874, 0, -0.98, -0.8),
    (0.22, 0.0, 0.11, 0.31, -18, -0.02, -0.2),
    (-0.22, 0.0, 0.16, 0.41, 18, -0.02, -0.2),
    (0.0, 0.35, 0.21, 0.25, 0, 0.01, 0.1),
    (0.0, 0.1, 0.046, 0.046, 0, 0.01, 0.1),
    (0.0, -0.1, 0.046, 0.046, 0, 0.01, 0.1),
    (-0.08, -0.605, 0.046, 0.023, 0, 0.01, 0.1),
    (0.0, -0.606, 0.023, 0.023, 0, 0.01, 0.1),
    (0.06, -0.605, 0.023, 0.046, 0, 0.01, 0.1),
)

#: Inner diameter in mm of each sphere of the IEC phantom and its place on the circle in degrees.
_IEC_SPHERES = ((10, 120), (13, 60), (17, 0), (22, 300), (28, 240), (37, 180))

#: Rod diameters in mm of the "ultra deluxe" Jaszczak (Derenzo) insert, largest first.
_DERENZO_RODS = (11.1, 9.5, 7.9, 6.4, 4.8, 3.2)


def shepp_logan(radius_mm: float = 100.0, modified: bool = True) -> Phantom:
    """Return the Shepp-Logan head.

    Parameters
    ----------
    radius_mm : float
        The length that 1 of the definition stands for: the head is 1.84 `radius_mm` tall and 1.38 wide.
    modified : bool
        Toft's values (skull 1, brain 0.2, contrasts of 0.1) or the original's (skull 2, brain 1.02, contrasts of
        0.01).

    References
    ----------
    Shepp & Logan 1974, IEEE Trans Nucl Sci 21:21; Toft 1996, The Radon Transform (thesis, DTU).
    """
    r = as_positive_float("radius_mm", radius_mm)
    shapes = tuple(Ellipse(r * x, r * y, r * a, r * b, np.deg2rad(angle), toft if modified else original)
                   for x, y, a, b, angle, original, toft in _SHEPP_LOGAN)
    return Phantom(shapes, "modified Shepp-Logan" if modified else "Shepp-Logan")


def nema_iec(hot_to_background: float = 4.0, background: float = 1.0, cold_mm: tuple[float, ...] = (28, 37),
             ring_diameter_mm: float = 114.5, lung_radius_mm: float = 21.0) -> Phantom:
    """Return the slice of the NEMA/IEC body phantom through the centres of its six spheres.

    The interior is the standard's, exactly: a half disc of radius 147 mm on top of two quarter discs of radius 77 mm
    that a box 140 mm wide joins (294 mm wide, 224 mm high, its middle at the origin). The lung insert lies in the
    middle, the spheres of 10, 13, 17, 22, 28 and 37 mm inner diameter around it, 60 degrees apart, the 17 mm sphere at
    3 o'clock and the 37 mm sphere at 9. Plastic walls (3 mm of the body, 4 mm of the insert, 1 mm of the spheres) are
    left out, so the activity reaches up to the spheres.

    Parameters
    ----------
    hot_to_background : float
        Concentration in the hot spheres over that of the background; NEMA NU 2 uses 4 and 8.
    background : float
        Concentration of the background, in any unit u.
    cold_mm : sequence of float
        Diameters of the spheres without activity: 28 and 37 in NEMA NU 2-2001 to 2012, none in NU 2-2018.
    ring_diameter_mm : float
        Diameter of the circle of the spheres' centres (11.45 cm; the standard's 5.72 cm radius is 0.1 mm less).
    lung_radius_mm : float
        Radius of the insert without activity (2.1 cm, the filling; 25 mm with its wall).

    Raises
    ------
    InputError
        A concentration, ratio or length out of range, a cold diameter that is no sphere of the phantom, or spheres
        that would reach the insert or the wall.

    References
    ----------
    NEMA NU 2-2018, section 7; IEC 61675-1. Spheres' order as in the GATE model of the phantom.
    """
    ratio = as_positive_float("hot_to_background", hot_to_background, allow_zero=True)
    background = as_positive_float("background", background)
    ring = as_positive_float("ring_diameter_mm", ring_diameter_mm) / 2
    lung = as_positive_float("lung_radius_mm", lung_radius_mm)
    diameters = [d for d, _ in _IEC_SPHERES]
    cold = tuple(cold_mm)
    if not set(cold) <= set(diameters):
        raise InputError(f"cold_mm must name spheres of the phantom, among {diameters}, but was {cold!r}.")
    if not lung + 18.5 <= ring <= 147 - 35 - 18.5:
        raise InputError("ring_diameter_mm must keep the 37 mm sphere clear of the lung insert and the wall, between "
                         f"{2 * lung + 37:g} and 187, but was {2 * ring:g}.")
    body = Outline(((147, -35), (-147, -35), (-70, -112), (70, -112)), (np.pi, np.pi / 2, 0, np.pi / 2),
                   background, "body")
    shapes = [body, disc(0, 0, lung, -background, "lung insert")]
    for diameter, degrees in _IEC_SPHERES:
        angle = np.deg2rad(degrees)
        value = -background if diameter in cold else background * (ratio - 1)
        shapes.append(disc(ring * np.cos(angle), ring * np.sin(angle), diameter / 2, value, f"sphere {diameter} mm"))
    return Phantom(tuple(shapes), "NEMA IEC body")


def derenzo(diameters_mm: tuple[float, ...] = _DERENZO_RODS, radius_mm: float = 108.0, rods: float = 1.0,
            background: float = 0.0, rim_mm: float = 6.0) -> Phantom:
    """Return a Derenzo (hot rod) phantom: sectors of equal rods on triangular lattices of pitch 2d.

    Each sector's lattice starts at a distance of one pitch from the centre, so that rods of neighbouring sectors keep
    at least the mean of their diameters apart, and goes on as long as whole rows of rods stay `rim_mm` from the wall.

    Parameters
    ----------
    diameters_mm : sequence of float
        Rod diameter d of each sector, counter-clockwise from the one at the top; six sectors of the "ultra deluxe"
        Jaszczak insert by default.
    radius_mm : float
        Inner radius of the cylinder (216 mm inner diameter by default).
    rods, background : float
        Concentration in the rods and in the cylinder around them, in any unit u.
    rim_mm : float
        Least distance of a rod from the wall.

    Raises
    ------
    InputError
        No diameters or other than six, a length that is not positive, a sector without room for a rod.

    References
    ----------
    Derenzo et al. 1977, IEEE Trans Nucl Sci 24:544; Data Spectrum "ultra deluxe" insert for the sizes.
    """
    radius = as_positive_float("radius_mm", radius_mm)
    rim = as_positive_float("rim_mm", rim_mm, allow_zero=True)
    rods, background = as_real("rods", rods), as_real("background", background)
    diameters = [as_positive_float("diameters_mm", d) for d in diameters_mm]
    if len(diameters) != 6:
        raise InputError(f"diameters_mm must be six, one for each sector of 60 degrees, but were {len(diameters)}.")
    shapes = [disc(0, 0, radius, background, "cylinder")] if background else []
    for k, d in enumerate(diameters):
        middle = np.pi / 2 + k * np.pi / 3
        row = 0
        while True:
            along = 2 * d * (1 + row * np.sqrt(3) / 2)
            across = 2 * d * (np.arange(row + 1) - row / 2)
            if np.hypot(along, across[0]) + d / 2 > radius - rim:
                break
            for u in across:
                shapes.append(disc(along * np.cos(middle) - u * np.sin(middle),
                                   along * np.sin(middle) + u * np.cos(middle), d / 2, rods - background,
                                   f"rod {d:g} mm"))
            row += 1
        if row == 0:
            raise InputError(f"radius_mm must leave room for a rod in every sector, but {radius:g} leaves none for "
                             f"{d:g} mm; it must be at least {2.5 * d + rim:g}.")
    return Phantom(tuple(shapes), "Derenzo")


def asymmetric_test_phantom(radius_mm: float = 100.0) -> Phantom:
    """Return a phantom that no flip, rotation or transpose maps to itself, for tests of orientation.

    Within a disc of value 1: a bright block upper right, a long tilted ellipse on the left, a cold spot below the
    centre, a letter L lower right and a hot dot at the top.
    """
    r = as_positive_float("radius_mm", radius_mm)
    corner = ((0.2, -0.6), (0.6, -0.6), (0.6, -0.5), (0.3, -0.5), (0.3, -0.2), (0.2, -0.2))
    return Phantom((
        disc(0, 0, 0.95 * r, 1.0, "disc"),
        Rectangle(0.38 * r, 0.33 * r, 0.4 * r, 0.2 * r, 0.25, 2.0, "block upper right"),
        Ellipse(-0.5 * r, 0.05 * r, 0.4 * r, 0.12 * r, np.deg2rad(70), 1.5, "ellipse left"),
        disc(-0.1 * r, -0.45 * r, 0.16 * r, -1.0, "cold spot below"),
        Outline(tuple((r * x, r * y) for x, y in corner), value=3.0, label="L lower right"),
        disc(-0.05 * r, 0.7 * r, 0.08 * r, 5.0, "hot dot at the top"),
    ), "asymmetric test phantom")
