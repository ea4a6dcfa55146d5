"""How large patients and their organs are drawn: one table, with a source or the word "assumption" in every row.

A size is drawn from a normal distribution of the sex's mean and the standard deviation, drawn again until it lies in
[low, high]. Sizes are edges of the shapes before the warp that makes outlines irregular moves them by a few mm.
"""

from dataclasses import dataclass

import numpy as np

from allpet_physics.errors import InputError

_ANSUR = "anthropometry of US Army personnel (ANSUR 1988), rounded; widened"
_WOLAK = "Wolak 2008, JACC Cardiovasc Imaging 1:200 (outer diameters on CT), rounded"
_LANG = "Lang 2015, J Am Soc Echocardiogr 28:1 (normal ranges), rounded"
_EMAMIAN = "Emamian 1993, Am J Roentgenol 160:83 (median lengths at sonography), rounded"


@dataclass(frozen=True)
class Size:
    """A row: means for men and women, spread and limits; lengths in mm, ages in years, fractions without unit."""

    male: float
    female: float
    sd: float
    low: float
    high: float
    source: str = "assumption"


#: Sizes by region and name.
SIZES: dict[str, dict[str, Size]] = {
    "head": {
        "head_breadth_mm": Size(152, 145, 6, 132, 170, _ANSUR),
        "head_length_mm": Size(197, 187, 7, 170, 216, _ANSUR),
        "brain_height_mm": Size(132, 126, 6, 110, 150),
        "skull_mm": Size(7.0, 7.3, 1.2, 4, 11),
        "scalp_mm": Size(6.0, 5.5, 1.2, 3, 10),
        "cortex_mm": Size(3.1, 3.1, 0.25, 2.4, 3.8),
        "gyrus_mm": Size(13.5, 13.0, 1.3, 10, 18),
        "sulcus_depth_mm": Size(20, 20, 2.5, 13, 28),
        "ventricle_radius_mm": Size(5.5, 5.0, 1.8, 2.5, 12),
        "putamen_length_mm": Size(40, 38, 3.0, 30, 48),
        "cerebellum_width_mm": Size(106, 101, 5, 88, 120),
    },
    "chest": {
        "chest_width_mm": Size(345, 310, 24, 260, 430),
        "chest_depth_mm": Size(228, 205, 20, 160, 300),
        "fat_mm": Size(16, 20, 8, 4, 52),
        "muscle_mm": Size(10, 7, 2.5, 4, 20),
        "heart_length_mm": Size(128, 116, 10, 95, 160),
        "lv_length_mm": Size(92, 84, 6, 70, 112),
        "lv_diameter_mm": Size(50, 45, 4, 36, 62, _LANG),
        "lv_wall_mm": Size(9.5, 8.5, 1.0, 6, 13, _LANG),
        "ascending_aorta_mm": Size(34, 31, 4, 22, 45, _WOLAK),
        "descending_aorta_mm": Size(26, 23, 3, 17, 34, _WOLAK),
        "vertebra_width_mm": Size(34, 30, 2.5, 24, 42),
        "vertebra_spacing_mm": Size(27, 25, 1.5, 21, 31),
        "rib_mm": Size(11, 10, 1.0, 7, 14),
        "breast_depth_mm": Size(42, 42, 14, 8, 85, "assumption; women only"),
    },
    "abdomen": {
        "abdomen_width_mm": Size(340, 325, 30, 255, 450),
        "abdomen_depth_mm": Size(232, 218, 28, 160, 330),
        "fat_mm": Size(20, 26, 10, 5, 62),
        "muscle_mm": Size(15, 12, 2.5, 6, 22),
        "liver_width_mm": Size(190, 178, 13, 145, 225),
        "liver_height_mm": Size(156, 146, 11, 120, 185),
        "spleen_length_mm": Size(108, 100, 14, 70, 145),
        "kidney_length_mm": Size(112, 109, 9, 85, 135, _EMAMIAN),
        "kidney_width_mm": Size(57, 54, 5, 42, 70),
        "kidney_cortex_mm": Size(17, 16, 2, 11, 23),
        "stomach_width_mm": Size(74, 70, 14, 40, 115),
        "stomach_wall_mm": Size(5.5, 5.5, 1.0, 3.5, 8.5),
        "aorta_mm": Size(20, 17.5, 2.5, 12, 27),
        "vena_cava_mm": Size(22, 21, 3, 13, 30),
        "vertebra_width_mm": Size(46, 41, 3, 33, 56),
        "vertebra_spacing_mm": Size(36, 33, 2, 28, 42),
        "bladder_width_mm": Size(78, 76, 18, 38, 125),
        "bowel_mm": Size(25, 24, 3, 17, 34),
        "colon_mm": Size(42, 41, 6, 28, 60),
    },
}


def draw_sizes(rng: np.random.Generator, region: str, sex: str, scale: dict[str, float] | None = None) -> dict:
    """Return one size per row of a region, as floats.

    Parameters
    ----------
    rng : numpy.random.Generator
    region : {"head", "chest", "abdomen"}
    sex : {"male", "female"}
    scale : dict, optional
        For some rows, by how many standard deviations their mean is moved before drawing (habitus, age).

    Raises
    ------
    InputError
        An unknown region.
    """
    if region not in SIZES:
        raise InputError(f"region must be one of {', '.join(SIZES)}, but was {region!r}.")
    shift = scale or {}
    out = {}
    for name, row in SIZES[region].items():
        mean = (row.male if sex == "male" else row.female) + row.sd * shift.get(name, 0.0)
        mean = min(max(mean, row.low), row.high)
        value = rng.normal(mean, row.sd)
        while not row.low <= value <= row.high:
            value = rng.normal(mean, row.sd)
        out[name] = float(value)
    return out
