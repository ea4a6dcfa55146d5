"""Translations beside every baseline and the classical methods, for the rows of one table, in both domains."""

import contextlib
import hashlib
import json
import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from allpet_gen._pretrained import model_digest
from allpet_gen.evaluation.classical import GRIDS, classical
from allpet_gen.evaluation.paired import summary
from allpet_gen.evaluation.translation_items import draw_items, images
from allpet_gen.translation_models import is_bridge, load_translation
from allpet_physics.errors import InputError

#: Rows of the table: task and dose factor.
ROWS = {"low-dose 1/4": ("low-dose", 4), "low-dose 1/10": ("low-dose", 10), "low-dose 1/20": ("low-dose", 20),
        "low-dose 1/50": ("low-dose", 50), "low-dose 1/100": ("low-dose", 100),
        "attenuation correction": ("attenuation-correction", None), "delayed frame": ("delayed-frame", None),
        "tracer separation": ("tracer-separation", None), "tracer conversion": ("tracer-conversion", None)}
#: Patients of the validation part that settings are chosen on: three of each region, one with each tracer.
TUNING = 9
#: A 90 % interval needs so many samples.
_ENOUGH = 19


@dataclass(frozen=True)
class HowMeasured:
    """Posterior samples of a bridge, its steps, the seed of the first, and a folder for what methods make, if any."""

    samples: int = 20
    steps: int = 10
    seed: int = 1
    keep: Path | None = None


def measure_row(name: str, studies, tuning, models, how: HowMeasured, reference: str = "unet") -> dict:
    """Return what `measure` says of one of `ROWS`, for studies with their numbers and others to choose settings on.

    Without others, the classical methods are left out.
    """
    task, factor = ROWS[name]
    items, others = (None if part is None else draw_items(part, task, dose_factor=factor) for part in (studies, tuning))
    return measure(items, others, models, how, reference)


def join_rows(row: dict, further: dict) -> dict:
    """Return a row with the methods of another one of the same slices, of which those of one name take the place.

    Differences are those that each row was measured with: to a reference that it has itself.

    Raises
    ------
    InputError
        Rows of other slices.
    """
    joined = dict(row)
    for domain in ("sinograms", "images"):
        of_slices = [{name: part[domain][name] for name in ("data_range", "n_items", "n_patients")}
                     for part in (row, further)]
        if of_slices[0] != of_slices[1]:
            raise InputError(f"rows must be of the same slices, but in {domain} they were of {of_slices[0]} and "
                             f"{of_slices[1]}; measure all methods again.")
        joined[domain] = further[domain] | row[domain] | {
            "methods": row[domain]["methods"] | further[domain]["methods"]}
    joined["regions covered"] = row["regions covered"] | further["regions covered"]
    return joined


def load_models(folders) -> dict:
    """Return trained methods by name, pipeline and digest of its files, from folders or names of shipped ones."""
    models = {}
    for name, source in folders.items():
        pipe, folder = load_translation(source)
        models[name] = pipe, model_digest(folder)
    return models


def read_patients(store, split, n):
    """Return studies of the first patients of a part, with their numbers."""
    from allpet_physics.simulation import read_cohort

    part = read_cohort(store, split=split)
    return [(int(p), part.patient_study(int(p))) for p in np.unique(part.patients)[:n]]


def measure(items, tuning, models, how: HowMeasured, reference: str = "unet") -> dict:
    """Return what `summary` says of all methods for one row, in both domains.

    Of a bridge, one sample and the mean of the samples alone stand beside its estimate; of a network that is asked
    once, the mean of what it says in as many views. Models that were not trained for the task are left out. So are the
    classical methods if there are no items to choose their settings on.
    """
    plain = {"counts": {}, "pictures": {}, "chosen": {}}
    if tuning is not None:
        plain = kept(how.keep, items, ["classical", GRIDS, tuning.sources], lambda: classical(items, tuning))
    counts, pictures = dict(plain["counts"]), dict(plain["pictures"])
    samples, settings = {}, [how.samples, how.steps, how.seed]
    models = {name: known for name, known in models.items() if items.task in known[0].tasks}
    for name, (model, digest) in models.items():
        made = kept(how.keep, items, [digest, *settings], lambda model=model: translate(model, items, how))
        counts[name] = made["mean"]
        if made["samples"] is not None:
            counts[f"{name}, one sample"] = made["samples"][:, 0]
            counts[f"{name}, mean of samples"] = made["samples"].mean(1)
            if made["samples"].shape[1] >= _ENOUGH:
                samples[name] = made["samples"]
        else:  # asked as often as a bridge is, so that nobody is ahead by views alone
            viewed = kept(how.keep, items, [digest, how.samples, "views"],
                          lambda model=model: translate(model, items, how, n_views=how.samples))
            counts[f"{name}, views"] = viewed["mean"]
    for name, sinograms in counts.items():
        if name not in pictures:
            pictures[name] = images(sinograms, items)
    truth, reference = images(items.truth, items), reference if reference in counts else None
    return {"sinograms": summary(counts, items.truth, items.patients, data_range=usual_maximum(items.truth),
                                 reference=reference, counts=items.measured, geometry=items.geometry,
                                 multiplicative=items.multiplicative, additive=items.additive,
                                 samples=samples or None),
            "images": summary(pictures, truth, items.patients,
                              data_range=usual_maximum(truth), reference=reference,
                              masks=items.masks, lesions=items.masks["lesions"],
                              lesion_background=items.lesion_background),
            "regions covered": {name: kept(how.keep, items, [models[name][1], *settings, "regions"],
                                           lambda values=values: covered_regions(values, items, truth))
                                for name, values in samples.items()},
            "chosen": plain["chosen"]}


def covered_regions(samples, items, truth) -> dict:
    """Return how often central 90 % intervals of the samples' images cover the means of organs and lesions."""
    made = np.stack([images(samples[:, s], items) for s in range(samples.shape[1])], axis=1)
    found = summary({"bridge": made.mean(1)}, truth, items.patients, data_range=usual_maximum(truth),
                    masks=items.masks, samples={"bridge": made})
    return found["methods"]["bridge"]["coverage"]


def kept(folder, items, made_by, make):
    """Return what `make` returns for some items, from the folder where it was kept."""
    arrays = [items.sources, items.truth, *(part for part in made_by if isinstance(part, np.ndarray))]
    words = [items.task, items.options, [part for part in made_by if not isinstance(part, np.ndarray)]]
    key = hashlib.sha256(json.dumps(words).encode() + b"".join(a.tobytes() for a in arrays)).hexdigest()[:16]
    return remembered(folder, f"{items.task}-{key}", make)


def remembered(folder, name: str, make):
    """Return what `make` returns, from a file of a folder if it is there and whole; without a folder, make it."""
    if folder is None:
        return make()
    path = Path(folder) / f"{name}.pickle"
    # Made and read by this library in a folder of the user's own; a file that was cut off is made again.
    with contextlib.suppress(OSError, EOFError, pickle.UnpicklingError, ValueError):
        return pickle.loads(path.read_bytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    made = make()
    partial = path.with_suffix(".partial")
    partial.write_bytes(pickle.dumps(made))
    partial.replace(path)
    return made


def usual_maximum(truth) -> float:
    """Return the median over items of the largest value."""
    return float(np.median(truth.max((1, 2))))


def translate(model, items, how, **options) -> dict:
    """Return the estimate, and the samples, of every row."""
    mean, drawn = np.empty_like(items.truth), None
    if is_bridge(model):
        options = {"n_samples": how.samples, "steps": how.steps, "seed": how.seed} | options
    separate = items.task == "tracer-separation"
    for words in sorted(set(items.said), key=str):
        rows = np.array([i for i, s in enumerate(items.said) if s == words])
        tracer, region, other = words
        firsts = rows[items.slots[rows] == 0]
        out = model(items.sources[firsts], task=items.task, tracer=tracer, region=region, other=other,
                    **items.options, **options)
        if out.samples is not None and drawn is None:
            drawn = np.empty((len(items), out.samples.shape[1], *items.truth.shape[1:]), np.float32)
        for i, row in enumerate(firsts):
            for slot, at in enumerate((row, row + 1) if separate else (row,)):
                pick = (slot,) if separate else ()
                mean[at] = out.expected[(i, *pick)]
                if drawn is not None:
                    drawn[at] = out.samples[i][(slice(None), *pick)]
    return {"mean": mean, "samples": drawn}
