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
import json
import math
from collections.abc import Callable, Mapping

import numpy as np

from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.simulation.cohort_settings import MOST_LESIONS, card_tables, cohort_parameters
from allpet_physics.simulation.organs import ORGAN_NUMBER, ORGANS
from allpet_physics.simulation.split import split_patients
from allpet_physics.simulation.study import Study, simulate_study
from allpet_physics.simulation.study_settings import FRAMES, StudySettings

__all__ = ["KIND", "MOST_LESIONS", "cohort_arrays", "cohort_parameters", "expected_bytes", "make_cohort", "make_study",
           "n_samples", "samples_per_shard", "write_cohort"]

KIND = "cohort"
#: A shard holds whole patients, up to this many bytes before compression and this many patients.
_SHARD_BYTES, _SHARD_PATIENTS = 2**25, 8
#: Part of a random key that belongs to the anatomy; a study's own parts are 1 and more.
_ANATOMY = 0


def write_cohort(path, parameters: Mapping, *, workers: int = 1, scheduler: str | None = None, resume: bool = False,
                 overwrite: bool = False, progress: Callable | None = None) -> dict:
    """Write a cohort to a store; the same bytes for any number of workers, resumable after any end.

    Parameters
    ----------
    path : path-like
        Folder of the store.
    parameters : mapping
        Of `cohort_parameters`.
    workers, scheduler, progress
        As in `allpet_physics.io.store.fill`.
    resume, overwrite : bool
        As in `allpet_physics.io.store.create`.

    Returns
    -------
    dict
        "shards", and how many of them were "made" and how many "kept".

    Raises
    ------
    InputError, OSError
        As `create` and `fill` of `allpet_physics.io.store`.
    """
    from allpet_physics.io import store

    # One patient of each region shows whether the settings can work, before a store is made.
    for patient in range(min(len(parameters["regions"]), parameters["n_patients"])):
        make_cohort(parameters, np.array([patient * parameters["n_slices"]]))
    store.create(path, cohort_arrays(parameters), n_samples(parameters), parameters, kind=KIND,
                 samples_per_shard=samples_per_shard(parameters), resume=resume, overwrite=overwrite)
    return store.fill(path, make_cohort, workers=workers, scheduler=scheduler, progress=progress)


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
                raise InputError(f"counts must leave every bin at or below {np.iinfo(made[name].dtype).max:,}, but one "
                                 f"of patient {patient} had {chosen.max():,}; lower the counts of the protocol.")
            made[name][rows] = chosen
        made["slice"][rows] = slices[rows]
    return made


def make_study(parameters: Mapping, patient: int) -> Study:
    """Return the study of one patient of a cohort, as it was before it was stored."""
    from allpet_physics.simulation.anatomy import draw_patient

    geometry = ParallelGeometry(**parameters["geometry"])
    settings = StudySettings.from_dict(parameters["settings"])
    size, pixel_mm = geometry.image_shape[0], geometry.pixel_mm
    region = _region(parameters, patient)
    drawn = draw_patient((parameters["seed"], patient, _ANATOMY), region, size, parameters["n_slices"],
                         fov_mm=size * pixel_mm, slice_mm=parameters["slice_mm"][region],
                         lesions=parameters["lesions"])
    return simulate_study(drawn, (parameters["seed"], patient), geometry, parameters["tracers"], settings,
                          tables=card_tables(parameters),
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
