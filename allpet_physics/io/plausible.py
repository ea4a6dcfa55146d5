"""What a body weight, a height, an injected activity and a half-life can be; anything else is a wrong unit or a typo.

A value outside is refused, whether a header states it or the caller: a unit slip changes every SUV by a power of ten.
"""

import math

from allpet_physics.errors import InputError, MetadataError

#: Body weight in kg. Assumption: from half the weight of an extremely preterm newborn to twice what scanner tables
#: carry (about 230 kg); animals lie outside.
WEIGHT_KG = (0.3, 500.0)
#: Body height in m. Assumption: an extremely preterm newborn to above the tallest person measured (2.72 m).
HEIGHT_M = (0.2, 2.8)
#: Injected activity per body weight in MBq/kg. The largest in diagnostic PET is Rb-82, at most 2220 MBq (label of
#: CardioGen-82), 44 MBq/kg at 50 kg. Assumption: nothing below 0.05 MBq/kg (3.5 MBq at 70 kg) is imaged for SUV. The
#: limits lie a factor of 1000 apart, so that kBq or MBq taken for Bq never lies between them.
DOSE_MBQ_PER_KG = (0.05, 50.0)
#: Half-life in s: below Rb-82 (75 s) and above I-124 (4.2 d), the shortest and longest of the positron emitters in
#: clinical use. Assumption: 30 s to 10 d.
HALF_LIFE_S = (30.0, 864000.0)
#: A stated half-life may differ from the named nuclide's by this part; evaluations differ by up to 0.6 %. F-18 and
#: Ga-68, the nuclides most often confused, differ by 38 %.
HALF_LIFE_TOLERANCE = 0.05


def check_within(name: str, value: float, limits: tuple[float, float], unit: str, way_out: str, *,
                 given: bool) -> float:
    """Return `value` if it lies between `limits`.

    Parameters
    ----------
    name : str
        Argument or element, for the message.
    unit : str
        Of `value` and `limits`.
    way_out : str
        What to do, as the second half of a sentence.
    given : bool
        Whether the caller gave the value, rather than a header.

    Raises
    ------
    InputError
        A value outside that the caller gave.
    MetadataError
        A value outside that a header states.
    """
    if not limits[0] <= value <= limits[1]:
        raise (InputError if given else MetadataError)(
            f"{name} must lie between {limits[0]:g} and {limits[1]:g} {unit} to be plausible, but was {value:g}; "
            f"{way_out}.")
    return value


def check_dose(name: str, dose_bq: float, weight_kg: float, way_out: str, *, given: bool) -> float:
    """Return an administered activity in Bq if it is plausible for the body weight; errors as in `check_within`."""
    low, high = DOSE_MBQ_PER_KG
    per_kg = dose_bq / 1e6 / weight_kg
    if not low <= per_kg <= high:
        unit = next((u for u, factor in (("kBq", 1e3), ("MBq", 1e6), ("GBq", 1e9))
                     if low <= per_kg * factor <= high), None)
        hint = f" (it looks like {unit})" if unit else ""
        raise (InputError if given else MetadataError)(
            f"{name} must lie between {low:g} and {high:g} MBq per kg of body weight to be plausible, but was "
            f"{dose_bq:g} Bq{hint}, {per_kg:.3g} MBq/kg at {weight_kg:g} kg; {way_out}.")
    return dose_bq


def same_half_life(first_s: float, second_s: float) -> bool:
    """Tell whether two half-lives can be the same nuclide's."""
    return math.isclose(first_s, second_s, rel_tol=HALF_LIFE_TOLERANCE)
