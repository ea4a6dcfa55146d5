"""The tracers known: names, nuclides and half-lives."""

import re
from dataclasses import dataclass

from allpet_physics.errors import InputError


@dataclass(frozen=True)
class Tracer:
    """A radiopharmaceutical.

    Parameters
    ----------
    name : str
        As prompts, stores and tables write it.
    nuclide : str
        For example ``"F-18"``.
    half_life_s : float
        Physical half-life in seconds.
    half_life_source : str
    aliases : tuple of str
        Other names, lower case, letters and digits only, without the nuclide.
    """

    name: str
    nuclide: str
    half_life_s: float
    half_life_source: str
    aliases: tuple[str, ...]


_ENSDF = "ENSDF evaluation, National Nuclear Data Center (https://www.nndc.bnl.gov/ensdf)"
#: The tracers known, by name.
TRACERS = {tracer.name: tracer for tracer in (
    Tracer("18F-FDG", "F-18", 6586.2, _ENSDF, ("fdg", "fluorodeoxyglucose", "fludeoxyglucose")),
    Tracer("18F-DOPA", "F-18", 6586.2, _ENSDF, ("dopa", "fdopa", "fluorodopa", "ldopa", "fluoroldopa")),
    Tracer("68Ga-PSMA", "Ga-68", 4057.74, _ENSDF, ("psma", "gapsma", "psma11", "gapsma11", "psmahbedcc", "gozetotide")),
)}


def parse_tracer(name: str | Tracer) -> Tracer:
    """Return the tracer that a name means: "18F-FDG", "FDG", "[18F]FDG", "F-18 FDG", "fdopa", "[68Ga]Ga-PSMA-11".

    Raises
    ------
    InputError
        An unknown name, or a known one with another nuclide; the message lists the tracers known.
    """
    if isinstance(name, Tracer):
        return name
    plain = re.sub(r"[^0-9a-z]", "", name.lower()) if isinstance(name, str) else ""
    for tracer in TRACERS.values():
        symbol, mass = tracer.nuclide.lower().split("-")
        marks = (f"{mass}{symbol}", f"{symbol}{mass}", "")
        for alias in tracer.aliases:
            if plain in {mark + alias for mark in marks} | {alias + mark for mark in marks}:
                return tracer
    raise InputError(f"tracer must be one of {', '.join(TRACERS)} (or a usual spelling such as FDG), "
                     f"but was {name!r}.")
