"""A thorax for demonstrations: one axial FDG slice, and the attenuation map that belongs to it."""

import dataclasses

import numpy as np

from allpet_physics._arrays import as_positive_float
from allpet_physics.errors import InputError
from allpet_physics.simulation.outline import Outline
from allpet_physics.simulation.phantom import Phantom
from allpet_physics.simulation.shapes import Ellipse, disc


def _oval(width, height, side_radius):
    """Return vertices and arcs of an oval of four arcs that meet without a kink, centred at the origin."""
    d, h = width / 2 - side_radius, height / 2
    # The upper arc, of radius h + c around (0, -c), touches the side circle from within: h + c - side = |(d, c)|.
    c = (d**2 - (h - side_radius) ** 2) / (2 * (h - side_radius))
    flank = np.arctan2(c, d)
    x, y = d + side_radius * np.cos(flank), side_radius * np.sin(flank)
    return (((x, y), (-x, y), (-x, -y), (x, -y)), (np.pi - 2 * flank, 2 * flank, np.pi - 2 * flank, 2 * flank))


#: Region, the region it lies in, its outline with value 1, FDG uptake in SUV, attenuation in 1/cm at 511 keV.
#: Uptake: means near those of adults at 60 min (liver 1.9, blood pool below 2.3, marrow near 1.0, lung below 0.7, all
#: SUV); myocardium, lesions, fat and muscle are assumptions. Attenuation: within fat 0.086-0.093, soft tissue
#: 0.095-0.100, lung 0.018-0.032, bone from 0.13 on. Shape and place of organs are drawn by eye.
_THORAX = (
    ("skin and fat", None, Outline(*_oval(400, 260, 95)), 0.3, 0.090),
    ("muscle", "skin and fat", Outline(*_oval(368, 228, 79)), 0.7, 0.097),
    ("right lung", "muscle", Outline(((-24, 80), (-152, 0), (-40, -86), (-44, -30), (-34, 10)),
                                     (2.02, 1.83, -0.5, 0.4, 0.2)), 0.45, 0.026),
    ("left lung", "muscle", Outline(((42, -86), (152, 0), (104, 62), (104, 8), (48, -30)),
                                    (1.83, 1.31, -0.65, -0.75, 0.5)), 0.45, 0.026),
    ("liver", "right lung", Ellipse(-88, 4, 50, 42, np.deg2rad(20)), 2.1, 0.099),
    ("liver cyst", "liver", disc(-104, 16, 11), 0.2, 0.097),
    ("heart", "muscle", Ellipse(38, 36, 60, 42, np.deg2rad(20)), 1.5, 0.099),
    ("myocardium", "heart", Ellipse(57, 36, 38, 27, np.deg2rad(40)), 7.5, 0.099),
    ("left ventricle", "myocardium", Ellipse(55, 34, 25, 14, np.deg2rad(40)), 1.7, 0.099),
    ("aorta", "muscle", disc(28, -40, 12), 1.7, 0.099),
    ("oesophagus", "muscle", Ellipse(4, -30, 9, 6, 0.2), 1.2, 0.097),
    ("vertebra", "muscle", Ellipse(0, -62, 23, 18), 1.3, 0.140),
    ("vertebral arch", "muscle", Ellipse(0, -95, 14, 9), 1.0, 0.140),
    ("sternum", "muscle", Ellipse(0, 99, 22, 6), 1.0, 0.130),
    ("lung lesion", "right lung", disc(-62, -60, 9), 9.0, 0.097),
    ("lymph node", "muscle", Ellipse(-22, -10, 8, 6, 0.6), 6.5, 0.097),
)


def demo_torso(quantity: str = "activity", kbq_ml_per_suv: float = 5.0) -> Phantom:
    """Return an axial slice of a thorax, 400 mm wide and 260 mm deep, at the level of the heart and the liver's dome.

    As radiologists read it: the patient's left at greater x (right of the picture), anterior up. Two hot lesions (18 mm
    in the right lung, a 16 x 12 mm lymph node between the lungs) and a cold one (a 22 mm cyst in the liver).

    Parameters
    ----------
    quantity : {"activity", "attenuation"}
        FDG concentration in kBq/ml, or the linear attenuation coefficient at 511 keV in 1/mm.
    kbq_ml_per_suv : float
        Concentration at SUV 1: injected activity over body mass (5.0: 370 MBq in 74 kg).

    Raises
    ------
    InputError
        An unknown quantity, a concentration that is not positive.

    Notes
    -----
    A demonstration, not a patient: uptake and attenuation are typical published values or assumptions, as the table
    in this module says row by row; organs are drawn by eye.
    """
    scale = as_positive_float("kbq_ml_per_suv", kbq_ml_per_suv)
    if quantity not in ("activity", "attenuation"):
        raise InputError(f"quantity must be activity or attenuation, but was {quantity!r}.")
    values = {name: scale * suv if quantity == "activity" else mu / 10 for name, _, _, suv, mu in _THORAX}
    values[None] = 0.0
    # A region adds what it has more than the region around it.
    shapes = (dataclasses.replace(shape, value=values[name] - values[parent], label=name)
              for name, parent, shape, _, _ in _THORAX)
    return Phantom(tuple(shapes), f"thorax, {quantity}")
