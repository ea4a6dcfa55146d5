"""The settings of a cohort: everything that its bytes depend on, checked, in plain types for the card of a store."""

import functools
import hashlib
import tempfile
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import numpy as np

from allpet_physics._arrays import as_positive_float, as_positive_int
from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.simulation.organs import ORGAN_NAME
from allpet_physics.simulation.split import DEFAULT_FRACTIONS, split_patients
from allpet_physics.simulation.study import check_tracers
from allpet_physics.simulation.study_settings import FRAMES, REGION_WORDS, StudySettings, prompt_text
from allpet_physics.simulation.tracers import TRACERS, TracerTables, read_tracer_tables

#: Distance of a patient's slices in mm by region: far enough that no two slices of a hundred patients had a normalised
#: correlation of the activity above 0.98. A full bladder outshines all else over several centimetres.
SLICE_MM = {"head": 12.0, "chest": 24.0, "abdomen": 24.0}
#: Room for this many lesions in each patient.
MOST_LESIONS = 8


def cohort_parameters(n_patients: int, *, seed: int = 0, size: int = 256, regions=tuple(REGION_WORDS),
                      tracers=tuple(TRACERS), n_slices: int = 3, slice_mm: float | None = None,
                      lesions: int | None = None, split: Mapping = DEFAULT_FRACTIONS,
                      settings: StudySettings | None = None, geometry: ParallelGeometry | None = None, uptake=None,
                      kinetics=None) -> dict:
    """Return every setting of a cohort in plain types; `make_cohort` makes samples from it.

    Parameters
    ----------
    n_patients : int
        They take turns through the regions.
    seed : int
    size : int
        Rows, columns, angles and bins over a field of view of 665.6 mm.
    regions : sequence of {"head", "chest", "abdomen"}
        "brain" is understood, too.
    tracers : sequence of str
    n_slices : int
        Slices of each patient.
    slice_mm : float, optional
        Distance of their centres; by default that of `SLICE_MM`. Close slices are nearly copies of one another.
    lesions : int, optional
        Lesions of each patient, up to `MOST_LESIONS`; drawn by default, 0 for none.
    split : mapping
        Fractions of patients, or lists of them: see `split_patients`.
    settings : StudySettings, optional
    geometry : ParallelGeometry, optional
        Another sinogram than the square one of `size`; its image must be square.
    uptake, kinetics : path, optional
        Tables of one's own, see `read_tracer_tables`. Their text goes into the card, without their names.

    Raises
    ------
    InputError
        Anything out of range; an unknown region or tracer; a tracer whose table lacks an organ that patients have; a
        split that would put one patient on both sides.
    """
    n_patients = as_positive_int("n_patients", n_patients)
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise InputError(f"seed must be a non-negative integer, but was {seed!r}.")
    settings = settings or StudySettings()
    regions = _regions(regions)
    if lesions is not None and not 0 <= lesions <= MOST_LESIONS:
        raise InputError(f"lesions must be from 0 to {MOST_LESIONS}, but was {lesions}.")
    tracers = check_tracers(tracers)
    if geometry is None:
        size = as_positive_int("size", size, minimum=16)
        side = ParallelGeometry.preset("network-512").fov_mm / size
        geometry = ParallelGeometry(size, size, side, (size, size), side)
    if geometry.image_shape[0] != geometry.image_shape[1]:
        raise InputError(f"geometry must have a square image for random patients, but had {geometry.image_shape}.")
    tables = {name: None if path is None else _table_text(name, path) for name, path in
              (("uptake", uptake), ("kinetics", kinetics))}
    _check_organs(tracers, read_tracer_tables(uptake, kinetics))  # from the files themselves: errors name them
    spacing = {region: SLICE_MM[region] if slice_mm is None else as_positive_float("slice_mm", slice_mm)
               for region in regions}
    parts = split_patients([regions[i % len(regions)] for i in range(n_patients)], split)
    return {
        "n_patients": n_patients, "seed": int(seed), "regions": list(regions), "tracers": list(tracers),
        "n_slices": as_positive_int("n_slices", n_slices), "slice_mm": spacing,
        "lesions": None if lesions is None else int(lesions),
        "split": {name: list(value) if isinstance(value, (list, tuple)) else float(value)
                  for name, value in split.items()},
        "patients_by_split": np.bincount(parts, minlength=3).tolist(),
        "geometry": geometry.to_dict(), "settings": settings.to_dict(), "frames": list(FRAMES),
        "prompts": {region: {t: prompt_text(region, t) for t in tracers} for region in regions},
        "organs": list(ORGAN_NAME), "tables": tables, "tables_sha256": {name: _table_digest(name, text)
                                                                        for name, text in tables.items()},
    }


def card_tables(parameters: Mapping) -> TracerTables:
    """Return the tables of a card.

    Raises
    ------
    InputError
        The cohort was begun with other packaged tables than this version's.
    """
    for name, digest in parameters["tables_sha256"].items():
        if _table_digest(name, parameters["tables"][name]) != digest:
            raise InputError(f"the table {name}.csv of this version of allpet differs from the one that the cohort was "
                             "begun with; go on with that version, or begin anew.")
    return _tables(parameters["tables"]["uptake"], parameters["tables"]["kinetics"])


def _regions(regions) -> tuple[str, ...]:
    alias = {word: region for region, word in REGION_WORDS.items()}
    names = [regions] if isinstance(regions, str) else list(regions)
    found = tuple(alias.get(name, name) for name in names)
    if not found or len(set(found)) < len(found) or not set(found) <= set(REGION_WORDS):
        raise InputError(f"regions must be different ones of {', '.join(REGION_WORDS)}, at least one, but were "
                         f"{', '.join(map(str, names)) or 'none'}.")
    return found


@functools.lru_cache(maxsize=4)
def _tables(uptake: str | None, kinetics: str | None) -> TracerTables:
    """Return tables from the text of a card."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for name, text in (("uptake", uptake), ("kinetics", kinetics)):
            if text is not None:
                paths[name] = Path(folder) / f"{name}.csv"
                paths[name].write_text(text, encoding="utf-8")
        return read_tracer_tables(**paths)


def _table_text(name: str, path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{name} must be a readable CSV file, but {Path(path).name} could not be read "
                         f"({type(error).__name__}).") from None


def _table_digest(name: str, text: str | None) -> str:
    packaged = files("allpet_physics.simulation") / f"{name}.csv"
    return hashlib.sha256(packaged.read_bytes() if text is None else text.encode()).hexdigest()


def _check_organs(tracers, tables: TracerTables) -> None:
    """Refuse at once a tracer that lacks an organ, which a worker would find at some patient only."""
    from allpet_physics.simulation.tracer_tables import EMPTY_ORGANS, uptake_rows

    for tracer in tracers:
        uptake_rows(tables, tracer, [organ for organ in ORGAN_NAME if organ not in EMPTY_ORGANS])
