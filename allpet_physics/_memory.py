"""How much memory there is, so that a mistyped number ends with a sentence and not with a killed process."""

import os
from pathlib import Path

from allpet_physics.errors import GeometryError

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def physical_memory() -> float:
    """Return the bytes of memory of this machine, or of this container if that is less; infinity if unknown."""
    found = [float("inf")]
    if hasattr(os, "sysconf") and {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= set(os.sysconf_names):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for limit in _CGROUP_LIMITS:
        try:
            found.append(int(Path(limit).read_text(encoding="ascii")))
        except (OSError, ValueError):  # another system, or "max"
            continue
    return float(min(found))


def refuse_too_large(what: str, n_values: int, bytes_per_value: int, way_out: str) -> None:
    """Raise GeometryError when arrays of `n_values` values could not be held in memory.

    Parameters
    ----------
    what : str
        The arrays with their numbers, for the message.
    n_values : int
    bytes_per_value : int
        Of all arrays that are alive at once, together.
    way_out : str
    """
    needed, there = n_values * bytes_per_value, physical_memory()
    if needed > there:
        raise GeometryError(f"{what} would need {needed / 1e9:,.3g} GB of memory, but this machine has "
                            f"{there / 1e9:,.3g} GB; {way_out}.")
