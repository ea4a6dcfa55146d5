"""Cohorts in a store: many random patients, the slices of each scanned with every tracer in two frames.

A sample is one slice of one patient. Arrays of the store, samples first; tracers and frames stand in the order of the
card, ``parameters["tracers"]`` and ``FRAMES`` (first, delayed):

``prompts`` uint16 or uint32 ``(n, tracers, frames, angles, bins)``
    Full-dose coincidences (true, scattered and random). Low doses are thinned from them when read.
``line_integrals`` float16 ``(n, tracers, frames, angles, bins)``
    Blurred activity along each line in SUV·mm, without attenuation. Times ``level``: expected trues of an exposure
    without attenuation. Expected counts and backgrounds follow from these and are computed when read.
``level`` float64 ``(n, tracers, frames)``
    Counts per SUV·mm.
``attenuation`` float16 ``(n, angles, bins)``
    Factors in (0, 1].
``activity`` float16 ``(n, tracers, frames, rows, cols)``
    SUV, decay-corrected to the injection.
``mu`` float16 ``(n, rows, cols)``
    Attenuation at 511 keV in 1/mm.
``labels`` uint8 ``(n, rows, cols)``
    Organ numbers; their names are ``parameters["organs"]``.
``lesion_map`` uint8 ``(n, rows, cols)``
    k in the k-th lesion of the patient, counted from 1.
``uptake`` float32 ``(n, tracers, frames, organs)``, ``lesion_uptake`` float32 ``(n, tracers, frames, MOST_LESIONS)``
    SUV before texture.
``lesion_organ`` uint8 ``(n, MOST_LESIONS)``
    The organ that each lesion lies in; 0 where there is no lesion.
``patient`` int32, ``region``, ``slice``, ``split`` uint8, ``age`` float32, ``male``, ``arms_up`` uint8, each ``(n,)``
    Numbers; words are ``parameters["regions"]`` and ``SPLITS``.

A patient is made from (seed, patient) alone, and all slices of a patient stand together in one shard.
"""

import functools
import hashlib
import json
import math
import tempfile
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import numpy as np

from allpet_physics._arrays import as_positive_float, as_positive_int
from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.simulation.organs import ORGAN_NAME, ORGAN_NUMBER, ORGANS
from allpet_physics.simulation.split import DEFAULT_FRACTIONS, split_patients
from allpet_physics.simulation.study import Study, check_tracers, simulate_study
from allpet_physics.simulation.study_settings import FRAMES, REGION_WORDS, StudySettings, prompt_text
from allpet_physics.simulation.tracers import TRACERS, TracerTables, read_tracer_tables

KIND = "cohort"
#: Room for this many lesions in each patient.
MOST_LESIONS = 8
#: A shard holds whole patients, up to this many bytes before compression and this many patients.
_SHARD_BYTES, _SHARD_PATIENTS = 2**25, 8
#: Part of a random key that belongs to the anatomy; a study's own parts are 1 and more.
_ANATOMY = 0


def cohort_parameters(n_patients: int, *, seed: int = 0, size: int = 256, regions=tuple(REGION_WORDS),
                      tracers=tuple(TRACERS), n_slices: int = 3, slice_mm: float = 12.0, lesions: int | None = None,
                      split: Mapping = DEFAULT_FRACTIONS, settings: StudySettings | None = None,
                      geometry: ParallelGeometry | None = None, uptake=None, kinetics=None) -> dict:
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
    slice_mm : float
        Distance of their centres. Slices are thin; close ones are nearly copies of one another.
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
    _check_organs(tracers, _tables(tables["uptake"], tables["kinetics"]))
    parts = split_patients([regions[i % len(regions)] for i in range(n_patients)], split)
    return {
        "n_patients": n_patients, "seed": int(seed), "regions": list(regions), "tracers": list(tracers),
        "n_slices": as_positive_int("n_slices", n_slices), "slice_mm": as_positive_float("slice_mm", slice_mm),
        "lesions": None if lesions is None else int(lesions),
        "split": {name: list(value) if isinstance(value, (list, tuple)) else float(value)
                  for name, value in split.items()},
        "patients_by_split": np.bincount(parts, minlength=3).tolist(),
        "geometry": geometry.to_dict(), "settings": settings.to_dict(), "frames": list(FRAMES),
        "prompts": {region: {t: prompt_text(region, t) for t in tracers} for region in regions},
        "organs": list(ORGAN_NAME), "tables": tables, "tables_sha256": {name: _table_digest(name, text)
                                                                        for name, text in tables.items()},
    }


def n_samples(parameters: Mapping) -> int:
    """Return the number of samples, one per slice of a patient."""
    return parameters["n_patients"] * parameters["n_slices"]


def samples_per_shard(parameters: Mapping) -> int:
    """Return the number of samples of a shard: whole patients."""
    per_sample = sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in cohort_arrays(parameters).values())
    per_patient = per_sample * parameters["n_slices"]
    return parameters["n_slices"] * max(1, min(_SHARD_BYTES // per_patient, _SHARD_PATIENTS, parameters["n_patients"]))


def cohort_arrays(parameters: Mapping) -> dict[str, tuple]:
    """Return name, (shape of a sample, dtype) of each array of a cohort."""
    geometry = ParallelGeometry(**parameters["geometry"])
    scans = (len(parameters["tracers"]), len(FRAMES))
    scalars = dict.fromkeys(("region", "slice", "split", "male", "arms_up"), ((), "uint8"))
    return {
        "prompts": ((*scans, *geometry.sinogram_shape), _count_dtype(parameters, geometry)),
        "line_integrals": ((*scans, *geometry.sinogram_shape), "float16"),
        "level": (scans, "float64"),
        "attenuation": (geometry.sinogram_shape, "float16"),
        "activity": ((*scans, *geometry.image_shape), "float16"),
        "mu": (geometry.image_shape, "float16"),
        "labels": (geometry.image_shape, "uint8"),
        "lesion_map": (geometry.image_shape, "uint8"),
        "uptake": ((*scans, len(ORGANS)), "float32"),
        "lesion_uptake": ((*scans, MOST_LESIONS), "float32"),
        "lesion_organ": ((MOST_LESIONS,), "uint8"),
        "patient": ((), "int32"), **scalars, "age": ((), "float32"),
    }


def make_cohort(parameters: Mapping, samples: np.ndarray) -> dict[str, np.ndarray]:
    """Return the arrays of some samples: a function of the settings and the samples' numbers alone."""
    arrays = cohort_arrays(parameters)
    made = {name: np.zeros((len(samples), *shape), dtype) for name, (shape, dtype) in arrays.items()}
    patients, slices = np.divmod(np.asarray(samples), parameters["n_slices"])
    parts = _parts(parameters["n_patients"], tuple(parameters["regions"]), json.dumps(parameters["split"]))
    for patient in np.unique(patients).tolist():
        rows = np.flatnonzero(patients == patient)
        found = _sample_arrays(make_study(parameters, patient))
        found |= {"patient": patient, "region": patient % len(parameters["regions"]), "split": parts[patient]}
        for name, values in found.items():
            chosen = np.asarray(values)[slices[rows]] if np.ndim(values) else values
            if name == "prompts" and chosen.max() > np.iinfo(made[name].dtype).max:
                raise InputError(f"counts must leave every bin below 65,536, but one of patient {patient} had "
                                 f"{chosen.max()}; lower the counts of the protocol.")
            made[name][rows] = chosen
        made["slice"][rows] = slices[rows]
    return made


def make_study(parameters: Mapping, patient: int) -> Study:
    """Return the study of one patient of a cohort, as it was before it was stored."""
    from allpet_physics.simulation.anatomy import draw_patient

    geometry = ParallelGeometry(**parameters["geometry"])
    settings = StudySettings.from_dict(parameters["settings"])
    _check_tables(parameters)
    size, pixel_mm = geometry.image_shape[0], geometry.pixel_mm
    drawn = draw_patient((parameters["seed"], patient, _ANATOMY), _region(parameters, patient), size,
                         parameters["n_slices"], fov_mm=size * pixel_mm, slice_mm=parameters["slice_mm"],
                         lesions=parameters["lesions"])
    return simulate_study(drawn, (parameters["seed"], patient), geometry, parameters["tracers"], settings,
                          tables=_tables(parameters["tables"]["uptake"], parameters["tables"]["kinetics"]),
                          operator=_operator(geometry, settings.model))


def expected_bytes(parameters: Mapping) -> int:
    """Return about how many bytes the shards of a cohort will take, from one patient of each region."""
    from allpet_physics.io.store import encoded_bytes

    tried = range(min(len(parameters["regions"]), parameters["n_patients"]))
    each = [encoded_bytes(make_cohort(parameters, np.arange(parameters["n_slices"]) + i * parameters["n_slices"]))
            for i in tried]
    return math.ceil(sum(each) / len(each) * parameters["n_patients"])


def _sample_arrays(study: Study) -> dict:
    """Return what a store keeps of a study, slices first."""
    n, lesions = len(study), study.details["lesions"]
    if len(lesions) > MOST_LESIONS:
        raise InputError(f"a patient must have at most {MOST_LESIONS} lesions, but had {len(lesions)}.")
    lesion_uptake = np.zeros((*study.level.shape, MOST_LESIONS), np.float32)
    lesion_uptake[..., :len(lesions)] = study.lesion_uptake
    organ = np.zeros(MOST_LESIONS, np.uint8)
    organ[:len(lesions)] = [ORGAN_NUMBER[lesion["organ"]] for lesion in lesions]

    def repeated(values):
        return np.broadcast_to(values, (n, *np.shape(values)))

    per_slice = {name: getattr(study, name) for name in ("prompts", "line_integrals", "attenuation", "activity", "mu",
                                                         "labels", "lesion_map")}
    whole = {"level": study.level, "uptake": study.uptake, "lesion_uptake": lesion_uptake, "lesion_organ": organ}
    drawn = study.details["parameters"]
    return per_slice | {name: repeated(values) for name, values in whole.items()} | {
        "age": drawn["age"], "male": drawn["sex"] == "male", "arms_up": study.details["arms"] != "down"}


def _regions(regions) -> tuple[str, ...]:
    alias = {word: region for region, word in REGION_WORDS.items()}
    names = [regions] if isinstance(regions, str) else list(regions)
    found = tuple(alias.get(name, name) for name in names)
    if not found or len(set(found)) < len(found) or not set(found) <= set(REGION_WORDS):
        raise InputError(f"regions must be different ones of {', '.join(REGION_WORDS)}, at least one, but were "
                         f"{', '.join(map(str, names)) or 'none'}.")
    return found


def _region(parameters: Mapping, patient: int) -> str:
    return parameters["regions"][patient % len(parameters["regions"])]


def _count_dtype(parameters: Mapping, geometry: ParallelGeometry) -> str:
    """Return uint16 unless half of an angle's counts in one bin would overflow it."""
    most = max(parameters["settings"][name]["counts"] for name in ("head", "body"))
    return "uint16" if 2 * most / geometry.n_angles <= 65535 else "uint32"


@functools.lru_cache(maxsize=4)
def _parts(n_patients: int, regions: tuple[str, ...], split: str) -> np.ndarray:
    return split_patients([regions[i % len(regions)] for i in range(n_patients)], json.loads(split))


@functools.lru_cache(maxsize=4)
def _operator(geometry: ParallelGeometry, model: str):
    from allpet_physics.radon import RadonOperator

    return RadonOperator(geometry, model=model)


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


def _check_tables(parameters: Mapping) -> None:
    """Refuse to go on with a cohort that was begun with other packaged tables."""
    for name, digest in parameters["tables_sha256"].items():
        if _table_digest(name, parameters["tables"][name]) != digest:
            raise InputError(f"the table {name}.csv of this version of allpet differs from the one that the cohort was "
                             "begun with; go on with that version, or begin anew.")


def _check_organs(tracers, tables: TracerTables) -> None:
    """Refuse at once a tracer that lacks an organ, which a worker would find at some patient only."""
    from allpet_physics.simulation.tracer_tables import EMPTY_ORGANS, uptake_rows

    for tracer in tracers:
        uptake_rows(tables, tracer, [organ for organ in ORGAN_NAME if organ not in EMPTY_ORGANS])
