"""The organs that a patient is made of: number in the label map, attenuation at 511 keV, texture.

One table, `ORGANS`, in the order of the numbers. A name is lower_snake_case and is the key by which tracers give an
uptake; a number is what the label map holds. Numbers are kept for good: a new organ is appended.

Attenuation. ``range`` marks a value within the published range of its tissue at 511 keV (water 0.096, fat 0.086-0.093,
lung 0.018-0.032, soft tissue 0.095-0.100, bone 0.13-0.172 1/cm); ``slope`` a mixture of bone and marrow whose mean CT
number is an assumption (in brackets), converted with the slope for 120 kVp of STIR's ``ct_slopes.json``,
0.096 + 5.73e-5 HU; anything else is an assumption.

Texture. The uptake within an organ is its mean times a random field of mean 1 with the standard deviation
``texture_sd`` and the correlation length ``texture_mm`` (the standard deviation of the Gaussian that smooths white
noise). All of it is an assumption: tuned by eye against the mottle of clinical images, before any counting noise.
"""

from dataclasses import dataclass

import numpy as np

from allpet_physics.errors import InputError


@dataclass(frozen=True)
class Organ:
    """A row of the table.

    Parameters
    ----------
    number : int
        Value in the label map.
    name : str
        Lower snake case.
    mu_per_cm : float
        Linear attenuation coefficient at 511 keV in 1/cm.
    mu_source : str
        Where it comes from; see the module's docstring.
    texture_sd : float
        Relative standard deviation of the uptake within the organ (assumption).
    texture_mm : float
        Correlation length of the uptake within the organ in mm (assumption).
    bone : bool
        Whether a lesion in it keeps the attenuation of the organ (a bone metastasis is not soft tissue).
    """

    number: int
    name: str
    mu_per_cm: float
    mu_source: str
    texture_sd: float
    texture_mm: float
    bone: bool = False


def _rows():
    table = (
        # name, mu 1/cm, source, texture sd, texture mm, bone
        ("air", 0.0, "air outside and inside the body", 0.0, 1.0, False),
        ("skin", 0.097, "range: soft tissue", 0.12, 8.0, False),
        ("fat", 0.090, "range: fat", 0.20, 14.0, False),
        ("muscle", 0.098, "range: soft tissue", 0.14, 14.0, False),
        ("scalp", 0.095, "range: soft tissue", 0.15, 8.0, False),
        ("skull", 0.151, "range: bone", 0.15, 8.0, True),
        ("csf", 0.096, "range: water", 0.05, 8.0, False),
        ("brain_grey", 0.098, "range: soft tissue", 0.12, 12.0, False),
        ("brain_white", 0.098, "range: soft tissue", 0.07, 10.0, False),
        ("caudate", 0.098, "range: soft tissue", 0.05, 5.0, False),
        ("putamen", 0.098, "range: soft tissue", 0.06, 6.0, False),
        ("thalamus", 0.098, "range: soft tissue", 0.05, 6.0, False),
        ("brainstem", 0.098, "range: soft tissue", 0.06, 6.0, False),
        ("cerebellum", 0.098, "range: soft tissue", 0.09, 7.0, False),
        ("cerebellum_white", 0.098, "range: soft tissue", 0.06, 6.0, False),
        ("eye", 0.098, "range: soft tissue", 0.05, 6.0, False),
        ("lacrimal", 0.097, "range: soft tissue", 0.08, 4.0, False),
        ("parotid", 0.096, "range: soft tissue", 0.12, 6.0, False),
        ("submandibular", 0.097, "range: soft tissue", 0.10, 5.0, False),
        ("nasal_mucosa", 0.097, "range: soft tissue", 0.20, 5.0, False),
        ("thyroid", 0.099, "range: soft tissue", 0.12, 5.0, False),
        ("lung", 0.026, "range: lung", 0.16, 16.0, False),
        ("airway", 0.0, "air in trachea, bronchi, sinuses and pharynx", 0.0, 1.0, False),
        ("heart_muscle", 0.099, "range: soft tissue", 0.13, 14.0, False),
        ("heart_muscle_right", 0.099, "range: soft tissue", 0.12, 12.0, False),
        ("blood_pool", 0.099, "range: soft tissue", 0.04, 10.0, False),
        ("aorta", 0.099, "range: soft tissue", 0.05, 10.0, False),
        ("vena_cava", 0.099, "range: soft tissue", 0.05, 10.0, False),
        ("pulmonary_vessel", 0.099, "range: soft tissue", 0.05, 10.0, False),
        ("oesophagus", 0.097, "range: soft tissue", 0.20, 6.0, False),
        ("vertebra", 0.112, "slope: bone with marrow (280 HU)", 0.10, 7.0, True),
        ("intervertebral_disc", 0.101, "slope: cartilage (90 HU)", 0.10, 6.0, False),
        ("spinal_cord", 0.098, "range: soft tissue", 0.08, 6.0, False),
        ("rib", 0.117, "slope: bone with marrow (370 HU)", 0.15, 8.0, True),
        ("sternum", 0.108, "slope: bone with marrow (210 HU)", 0.12, 7.0, True),
        ("scapula", 0.119, "slope: bone with marrow (400 HU)", 0.15, 8.0, True),
        ("clavicle", 0.122, "slope: bone with marrow (450 HU)", 0.15, 8.0, True),
        ("pelvis_bone", 0.114, "slope: bone with marrow (310 HU)", 0.14, 9.0, True),
        ("femur", 0.118, "slope: bone with marrow (380 HU)", 0.12, 8.0, True),
        ("arm_bone", 0.139, "slope: cortical bone with marrow (750 HU)", 0.12, 8.0, True),
        ("marrow", 0.093, "range: fat; yellow marrow of long bones", 0.15, 8.0, True),
        ("breast", 0.094, "range: between fat and soft tissue", 0.30, 9.0, False),
        ("liver", 0.100, "range: soft tissue", 0.07, 7.0, False),
        ("spleen", 0.100, "range: soft tissue", 0.07, 7.0, False),
        ("kidney_cortex", 0.099, "range: soft tissue", 0.10, 6.0, False),
        ("kidney_pelvis", 0.097, "range: soft tissue; urine", 0.15, 6.0, False),
        ("adrenal", 0.098, "range: soft tissue", 0.08, 4.0, False),
        ("pancreas", 0.098, "range: soft tissue", 0.12, 6.0, False),
        ("gallbladder", 0.096, "range: water; bile", 0.06, 8.0, False),
        ("stomach_wall", 0.098, "range: soft tissue", 0.22, 9.0, False),
        ("stomach_content", 0.096, "range: water", 0.15, 12.0, False),
        ("duodenum", 0.098, "range: soft tissue", 0.20, 7.0, False),
        ("bowel", 0.097, "range: soft tissue", 0.35, 12.0, False),
        ("bowel_content", 0.096, "range: water", 0.25, 12.0, False),
        ("bowel_gas", 0.0, "gas", 0.0, 1.0, False),
        ("bladder", 0.097, "range: soft tissue; urine", 0.03, 12.0, False),
        ("prostate", 0.098, "range: soft tissue", 0.15, 6.0, False),
        ("uterus", 0.098, "range: soft tissue", 0.15, 8.0, False),
        ("lesion_hot", 0.098, "range: soft tissue; in bone the bone's", 0.12, 4.0, False),
        ("lesion_cold", 0.097, "range: soft tissue; in bone the bone's", 0.08, 5.0, False),
        ("table", 0.012, "assumption: carbon shell over foam, averaged", 0.0, 1.0, False),
    )
    return tuple(Organ(number, *row) for number, row in enumerate(table))


#: Every organ; ``ORGANS[n].number == n``.
ORGANS: tuple[Organ, ...] = _rows()
#: Name to number.
ORGAN_NUMBER: dict[str, int] = {organ.name: organ.number for organ in ORGANS}
#: Number to name.
ORGAN_NAME: tuple[str, ...] = tuple(organ.name for organ in ORGANS)

#: Names for several organs at once, for regions of interest and for tables that do not tell them apart.
ORGAN_GROUPS: dict[str, tuple[str, ...]] = {
    "striatum": ("caudate", "putamen"),
    "brain": ("brain_grey", "brain_white", "csf", "caudate", "putamen", "thalamus", "brainstem", "cerebellum",
              "cerebellum_white"),
    "kidney": ("kidney_cortex", "kidney_pelvis"),
    "stomach": ("stomach_wall", "stomach_content"),
    "heart": ("heart_muscle", "heart_muscle_right", "blood_pool"),
    "bone": tuple(organ.name for organ in ORGANS if organ.bone and organ.name != "marrow"),
    "gas": ("air", "airway", "bowel_gas"),
}


def organ_number(name: str) -> int:
    """Return the number of an organ in the label map.

    Raises
    ------
    InputError
        An unknown name; the message lists the known ones.
    """
    try:
        return ORGAN_NUMBER[name]
    except (KeyError, TypeError):
        raise InputError(f"organ must be one of {', '.join(ORGAN_NAME)}, but was {name!r}.") from None


def group_numbers(name: str) -> tuple[int, ...]:
    """Return the numbers of an organ or of a group of organs (``"striatum"``, ``"kidney"``, ...).

    Raises
    ------
    InputError
        An unknown name.
    """
    if isinstance(name, str) and name in ORGAN_GROUPS:
        return tuple(ORGAN_NUMBER[n] for n in ORGAN_GROUPS[name])
    if isinstance(name, str) and name in ORGAN_NUMBER:
        return (ORGAN_NUMBER[name],)
    raise InputError(f"organ must be one of {', '.join(ORGAN_NAME)} or a group of {', '.join(ORGAN_GROUPS)}, "
                     f"but was {name!r}.")


def mu_table() -> np.ndarray:
    """Return μ at 511 keV in 1/mm by organ number, float32: ``mu_table()[labels]`` is a μ-map."""
    return np.array([organ.mu_per_cm / 10 for organ in ORGANS], np.float32)
