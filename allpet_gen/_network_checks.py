"""What the widths of a network's levels must be, checked before diffusers builds it."""

from allpet_physics._arrays import as_positive_int
from allpet_physics.errors import InputError


def as_widths(name: str, widths, *divisors: int) -> tuple[int, ...]:
    """Return the widths of levels as integers, each a multiple of the divisors (groups of a norm, heads).

    Raises
    ------
    InputError
        No widths, or one that is no positive multiple.
    """
    widths = tuple(as_positive_int(name, width) for width in widths)
    if not widths:
        raise InputError(f"{name} must name the width of at least one level, but was empty.")
    for divisor in divisors:
        if any(width % divisor for width in widths):
            raise InputError(f"{name} must be multiples of {divisor}, the number of groups or heads, but were "
                             f"{', '.join(map(str, widths))}.")
    return widths
