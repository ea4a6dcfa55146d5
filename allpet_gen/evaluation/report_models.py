"""The models of a report: what they can be, which are refused, and what a reader who compares must know of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from allpet_gen.evaluation.generated_table import LEAST_PATIENTS
from allpet_gen.known_patients import refuse_known_patients, training_card
from allpet_gen.prompt_guidance import GUIDANCE, GUIDANCE_START
from allpet_physics.errors import GeometryError, InputError

#: What a model can be in the report: generators, of which the first is ours, and translations.
GENERATORS = ("generator", "vae", "gan", "sgm")
TRANSLATIONS = ("bridge", "unet", "cyclegan", "bridge+sd", "unet+sd")
#: How the generator draws, if not asked otherwise.
GUIDED = {"guidance": GUIDANCE, "guidance_start": GUIDANCE_START}


@dataclass(frozen=True, eq=False)
class Model:
    """A trained model of the report: its pipeline, its folder, and the digest of its files."""

    pipe: object
    folder: Path
    digest: str


def check(models: Mapping[str, Model], cohort) -> None:
    """Raise what `evaluate` raises, before any long work."""
    if not models:
        raise InputError("models must be at least one, but were none.")
    for name, model in models.items():
        if model.pipe.geometry != cohort.geometry:
            raise GeometryError(f"{name} must have the store's geometry, {cohort.geometry}, but has "
                                f"{model.pipe.geometry}; simulate a store of its size.")
        card = training_card(model.folder)
        refuse_known_patients(card, cohort, "test")
        _refuse_other_role(name, card)
    if any(name in TRANSLATIONS for name in models) and len(cohort.tracers) < 2:
        raise InputError(f"the store must hold two tracers for translations, but has {', '.join(cohort.tracers)} "
                         "alone; simulate one with more, or leave the translations out.")
    n = len(np.unique(cohort.select(split="test").patients))
    if any(name in GENERATORS for name in models) and n < LEAST_PATIENTS:
        raise InputError(f"the store must have at least {LEAST_PATIENTS} test patients for generators, but "
                         f"has {n}; simulate more, or leave the generators out.")
    cohort.select(split="validation")  # settings of classical methods, and the classifier's best epoch, come from it


def _refuse_other_role(name: str, card: Mapping) -> None:
    """Raise unless the card of a model says that it is what it is called."""
    method, _, more = name.partition("+")
    said, drawn = card.get("method"), bool(card.get("sinograms", {}).get("drawn"))
    if said is not None and said != method and method != "generator":
        raise InputError(f"model {name} must have been trained as {method}, but its card says {said}.")
    if "sinograms" in card and drawn != bool(more):
        raise InputError(f"model {name} must have been trained {'with' if more else 'without'} drawn pairs, but its "
                         f"card says {'with' if drawn else 'without'}; name it {method}{'+sd' if drawn else ''}.")


def made_of(models: Mapping[str, Model], tier, guided: Mapping = GUIDED) -> dict:
    """Return of each model what a reader who compares must know: its files, its training, how it is asked."""
    out = {}
    for name, model in models.items():
        card = training_card(model.folder)
        how = card["settings"]["training"]
        out[name] = {"digest": model.digest, "seed": how["seed"], "precision": how["precision"],
                     "training": {part: dict(how[part]) for part in card.get("stages", {}) if part in how},
                     "minutes": {part: found["minutes"] for part, found in card.get("stages", {}).items()
                                 if "minutes" in found},
                     "start": card["settings"]["data"].get("start", "source") if name in TRANSLATIONS else None,
                     "asked": asked_of(name, model.pipe, tier, guided)}
    return out


def asked_of(name: str, pipe, tier, guided: Mapping) -> dict:
    """Return how a model of the report is asked to draw or to translate."""
    if name in GENERATORS:
        return _steps(pipe, tier) | (dict(guided) if name == "generator" else {})
    return {"steps": tier.steps, "samples": tier.samples} if name.startswith("bridge") else {}


def _steps(pipe, tier) -> dict:
    """Return the steps to sample with, where a pipeline has any and the tier asks for a number."""
    has = getattr(pipe, "default_steps", 50) is not None  # baselines say; the generator always samples
    return {"steps": tier.drawn_steps} if tier.drawn_steps and has else {}
