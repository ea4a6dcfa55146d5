"""What ``allpet translate`` is given: sinograms of a file, or of patients of a cohort together with their truth."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from allpet_physics.errors import InputError

#: Units of sinograms that may be counts; a file that another program wrote says none.
_UNITS = ("counts", "unknown")


@dataclass(frozen=True)
class Part:
    """Slices of which the same is said to the network."""

    slices: slice
    tracer: str | None
    region: str | None
    other: str | None
    name: str = ""


@dataclass(frozen=True, eq=False)
class Source:
    """Sinograms to translate.

    Attributes
    ----------
    stack : SinogramStack
        Counts.
    parts : tuple of Part
    truth : ndarray of float32 or None, shape (n, angle, bin), or (n, 2, angle, bin) for separation
        Expected counts of the target, where a simulation knows them.
    names : tuple of str
        Of each slice, for a picture.
    record : dict
        What the record says of the input.
    patients : tuple of int
        Of a cohort.
    store : str
        SHA-256 of the card of a cohort; empty for a file.
    notes : tuple of str
    """

    stack: object
    parts: tuple[Part, ...]
    truth: np.ndarray | None
    names: tuple[str, ...]
    record: dict
    patients: tuple[int, ...] = ()
    store: str = ""
    notes: tuple[str, ...] = ()


def is_store(path: Path) -> bool:
    """Return whether a path is meant as a cohort, not as a file of sinograms."""
    return path.is_dir() or path.suffix == ".zarr"


def files_of(path: Path) -> dict[str, Path]:
    """Return what is read of an input, by what it is called in a message."""
    if is_store(path) or not path.is_file():
        return {}
    if path.suffix.lower() != ".hs":
        return {"SINOGRAMS": path}
    from allpet_physics.io._interfile_header import read_header

    return {"SINOGRAMS": path, "the data file of SINOGRAMS": path.parent / read_header(path).text("name of data file")}


def read_file(path: Path, *, tracer, region, other, array: str, bin_mm, arc) -> Source:
    """Return the sinograms of a file.

    Raises
    ------
    InputError
        What `read_sinogram` refuses; sinograms that are no counts by their unit.
    """
    from allpet_physics._record import digest
    from allpet_physics.io.sinogram_files import read_sinogram

    stack = read_sinogram(path, array=array, bin_mm=bin_mm, arc=arc)
    if stack.unit not in _UNITS:
        raise InputError(f"sinograms must be counts, but {path.name} holds {stack.unit}; give measured counts, or draw "
                         "them with allpet project --counts.")
    files = {name: digest(file) for name, file in zip(("header", "data"), files_of(path).values(), strict=False)}
    record = {"files": files if len(files) > 1 else {"data": digest(path)}, "unit": stack.unit,
              "slices": list(stack.slices)}
    if path.suffix == ".npz":
        record["array"] = array
    return Source(stack, (Part(slice(None), tracer, region, other),), None,
                  tuple(f"slice {k}" for k in stack.slices), record, notes=tuple(stack.warnings))


def read_store(path: Path, task, *, tracer, region, other, dose_factor, patients, split) -> Source:
    """Return the source of a task for patients of a cohort, with its truth.

    Raises
    ------
    InputError
        What `read_cohort` and `task_pair` refuse; neither patients nor a part chosen.
    """
    from allpet_gen.training_card import store_digest
    from allpet_physics.io.sinogram_files import SinogramStack
    from allpet_physics.simulation.cohort_reader import read_cohort
    from allpet_physics.simulation.study_settings import REGION_WORDS

    cohort = read_cohort(path, region=region)
    if not (patients or split):
        examples = sorted(set(cohort.patients[cohort.splits == "test"].tolist()))[:5]
        raise InputError("--patient or --split must say which slices of the store to translate, such as --patient "
                         f"{examples[0] if examples else 0} or --split test"
                         + (f" (of which are the patients {', '.join(map(str, examples))}, ...)." if examples else "."))
    cohort = cohort.select(split=split)
    chosen = tuple(dict.fromkeys(patients or cohort.patients.tolist()))
    options = {} if dose_factor is None else {"dose_factor": _whole("dose_factor", dose_factor)}
    sources, truths, parts, names = [], [], [], []
    for patient in chosen:
        study = cohort.patient_study(patient)
        first = study.tracers[study.tracer_number(tracer)] if tracer else study.tracers[0]
        pair = study.pair(task.name, tracer=first, other=other if task.other else None, **options)
        second = pair.condition.get("other")
        start = sum(map(len, sources))
        parts.append(Part(slice(start, start + len(study)), first, study.region, second, f"patient {patient}"))
        names += [f"patient {patient}, {REGION_WORDS.get(study.region, study.region)}, slice {k}" for k in study.slices]
        sources.append(pair.source)
        truths.append(_truth(study, task, first, second))
    stack = SinogramStack(np.concatenate(sources).astype(np.float32), cohort.geometry, unit="counts",
                          image_unit="counts/mm")
    record = {"store": {"name": path.name, "sha256": store_digest(cohort)}, "patients": list(chosen),
              "split": split, "slices": [len(s) for s in sources], "tracer": parts[0].tracer, "other": parts[0].other}
    return Source(stack, tuple(parts), np.concatenate(truths).astype(np.float32), tuple(names), record, chosen,
                  record["store"]["sha256"])


def _truth(study, task, tracer: str, other: str | None) -> np.ndarray:
    """Return the expected counts of a task's target, for every slice of a study."""
    if not task.attenuated:
        return study.unattenuated(tracer)
    if task.n_targets == 2:
        return np.stack([study.scan(tracer).expected, study.scan(other).expected], axis=1)
    if task.name == "delayed-frame":
        return study.scan(tracer, "delayed").expected
    return study.scan(other or tracer).expected


def _whole(name: str, value: float) -> int:
    if not float(value).is_integer():
        raise InputError(f"{name} must be a whole number for a store, whose counts are thinned by it, but was "
                         f"{value:g}.")
    return int(value)
