"""The paper's results redone on a benchmark that anyone has: from checkpoints and a store to tables and pictures.

The sections follow the figures 2 to 7 of arXiv 2509.09130. What a section needs and was not given is said to be absent.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from allpet_gen._drawing_checks import prompt_weights
from allpet_gen.certificate import certificate_table
from allpet_gen.denoising_moments import denoising_moments
from allpet_gen.evaluation import generated_table as generated
from allpet_gen.evaluation.features import ScriptedFeatures
from allpet_gen.evaluation.report_models import GENERATORS, GUIDED, TRANSLATIONS, Model, asked_of, check
from allpet_gen.evaluation.translation_items import draw_items
from allpet_gen.evaluation.translation_table import (
    TUNING,
    HowMeasured,
    measure_row,
    read_patients,
    remembered,
    translate,
)
from allpet_gen.known_patients import known_patients, training_card
from allpet_physics._record import digest
from allpet_physics.counts import thin
from allpet_physics.errors import InputError

#: The rows of the paper's figure 5.
ROWS = ("low-dose 1/100", "attenuation correction", "delayed frame", "tracer separation", "tracer conversion")
#: Times and noises of each sinogram in a certificate.
_DRAWS = 4
#: Digits of all figures of the record: what is beyond them is rounding of another number of threads.
_DIGITS = 6


@dataclass(frozen=True)
class Tier:
    """How much is measured.

    Attributes
    ----------
    drawn, drawn_steps : int
        Sinograms of each generator, and steps of those that have any: 0 for as many as each takes by default.
    patients, samples, steps : int
        Of the translations: test patients, samples of a bridge and its steps.
    known : int
        Training sinograms of each class that the classifier learns from and that copies are looked for in.
    epochs : int
        Of the classifier.
    maps : int
        Draws from the posterior of a certificate.
    """

    drawn: int
    drawn_steps: int
    patients: int
    samples: int
    steps: int
    known: int
    epochs: int
    maps: int


TIERS = {"tiny": Tier(36, 4, 6, 2, 2, 30, 2, 1000), "small": Tier(500, 0, 27, 20, 5, 500, 20, 50_000),
         "base": Tier(2000, 0, 144, 20, 10, 500, 20, 50_000)}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` found.

    Attributes
    ----------
    tables : dict
        By section, plain values; the same models and store give the same ones.
    shown : dict
        By section, what pictures show: arrays, not for the record.
    """

    tables: dict
    shown: dict


def evaluate(models: Mapping[str, Model], cohort, store, tier: Tier, *, seed: int = 1, guided: Mapping = GUIDED,
             network: Path | None = None, keep: Path | None = None,
             progress: Callable = lambda items, stage, **_: items, stage: Callable = lambda name: None) -> Evaluation:
    """Measure models on the test patients of a cohort.

    Parameters
    ----------
    models : mapping of str to Model
        By `GENERATORS` and `TRANSLATIONS`.
    cohort : Cohort
    store : path-like
        Of the cohort.
    tier : Tier
    seed : int
    guided : mapping
        How the generator draws; it is measured without guidance as well.
    network : path-like, optional
        A TorchScript file, such as Inception's: distances are taken by its features as well (`ScriptedFeatures`).
    keep : path-like, optional
        A folder for what models draw and translate, so that a run which was broken off, or has one more model, does
        not make that again.
    progress : callable
        ``progress(items, stage, unit=...)`` wraps an iteration.
    stage : callable
        Is told what is done next.

    Raises
    ------
    InputError
        No model; a model without the card of a training, or that was trained on test patients; a store of one tracer
        for translations, or without validation patients.
    GeometryError
        A model of another geometry than the store's.
    """
    check(models, cohort)
    further = {} if network is None else further_features(network, cohort.geometry)
    tables, shown = {"tier": asdict(tier), "seed": seed}, {}
    made = {name: models[name] for name in GENERATORS if name in models}
    asked = {name: models[name] for name in TRANSLATIONS if name in models}
    if made:
        _generators(made, cohort, tier, seed, guided, further, tables, shown, keep, progress, stage)
    if asked:
        _translations(asked, store, tier, seed, tables, shown, keep, stage)
    if "generator" in made and "bridge" in asked:
        stage("pairs of drawn sinograms")
        shown["pairs"] = _pairs(made["generator"].pipe, asked["bridge"].pipe, cohort, tier, seed, guided)
    tables["certificates"] = {}
    for name in ("generator", "bridge"):
        if name in models:
            tables["certificates"][name] = _certificates(models[name], name, cohort, tier, seed, progress)
    return Evaluation(rounded(tables), shown)


def further_features(path, geometry) -> dict[str, Callable]:
    """Return a network from a file by a name that says which it is, once it was seen to take what it will be shown.

    Raises
    ------
    InputError
        What `ScriptedFeatures` refuses of the file and of pictures of both domains.
    """
    pictures = np.random.default_rng(0)
    try:
        extractor = ScriptedFeatures(path, 1.0)
        for shape in (geometry.sinogram_shape, geometry.image_shape):
            extractor(pictures.random((2, *shape)))
    except InputError as error:
        raise InputError(str(error).replace("path", "network", 1)) from None
    return {f"network {Path(path).name} {digest(path)['sha256'][:8]}": partial(ScriptedFeatures, path)}


def rounded(value):
    """Return nested values with floats of six significant digits."""
    if isinstance(value, Mapping):
        return {str(k): rounded(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [rounded(v) for v in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.{_DIGITS}g}") if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def _generators(models, cohort, tier, seed, guided, further, tables, shown, keep, progress, stage) -> None:
    data = generated.held_out(cohort, "test")
    train = generated.held_out(cohort, "train", tier.known)
    stage("images of test patients")
    truth, drawn, known, tables["left out"] = generated.real(data), {}, {}, {}
    asked = {name: (model, asked_of(name, model.pipe, tier, guided)) for name, model in models.items()}
    # Guidance is chosen on validation patients; others have none.
    if "generator" in models and prompt_weights(guided["guidance"]) != (1, 1):
        model, options = asked["generator"]
        asked["generator, guidance 1"] = model, options | {"guidance": 1.0, "guidance_start": 0.0}
    for name, (model, options) in asked.items():
        key = json.dumps([model.digest, list(data.classes), tier.drawn, seed, options])
        found = remembered(
            keep, f"drawn-{hashlib.sha256(key.encode()).hexdigest()[:16]}",
            lambda model=model, options=options, name=name: generated.draw_like(
                model.pipe, data, tier.drawn, seed=seed, **options,
                progress=lambda rounds: progress(rounds, f"drawing, {name}", unit="step")))
        tables["left out"][name] = found.empty
        if found.empty <= tier.drawn // 2:
            drawn[name], known[name] = found, known_patients(training_card(model.folder), cohort)
    if not drawn:
        return
    stage("distances")
    # The random network's unit is that of the real sinograms: no generator may choose its own.
    scale = float(np.quantile(truth.counts, 0.999))
    tables["distances"] = generated.distances(drawn, truth, data, scale, seed=seed, further=further)
    stage("classifier")
    classifier = generated.trained_classifier(cohort, tier.known, tier.epochs)
    tables["prompts"] = generated.obedience(drawn, truth, data, classifier)
    stage("copies and consistency")
    tables["copies"] = generated.copies(drawn, truth, data, train, known)
    tables["consistency"] = generated.consistency(drawn, truth, data)
    tables["consistency range"] = generated.consistency_range(drawn, truth, data)
    tables["classes"] = list(data.classes)
    shown["drawn"] = {}
    for name, d in {"real, held out": truth, **drawn}.items():
        first = [int(np.flatnonzero(d.labels == k)[0]) for k in range(len(data.classes))]
        shown["drawn"][name] = d.counts[first], d.images[first]


def _translations(models, store, tier, seed, tables, shown, keep, stage) -> None:
    known = {name: (model.pipe, model.digest) for name, model in models.items()}
    studies, tuning = (read_patients(store, split, n) for split, n in (("test", tier.patients),
                                                                       ("validation", TUNING)))
    how = HowMeasured(tier.samples, tier.steps, seed, keep)
    tables["translations"] = {}
    for name in ROWS:
        stage(f"translations, {name}")
        tables["translations"][name] = measure_row(name, studies, tuning, known, how)
    able = {name: pipe for name, (pipe, _) in known.items() if "attenuation-correction" in pipe.tasks}
    items = draw_items(studies[:3], "attenuation-correction")
    shown["correction"] = items, {name: translate(pipe, items, how)["mean"] for name, pipe in able.items()}


def _pairs(generator, bridge, cohort, tier, seed, guided) -> list[tuple]:
    """Return (task, words, source, targets) of drawn sinograms: pairs that no patient was scanned for.

    Low doses are thinned, which is a shorter scan; other targets are means of the bridge's samples. A mixture is the
    drawn scan and counts around its conversion to another tracer, so that both are of one body.
    """
    region = next(r for r in cohort.card["parameters"]["regions"] if (cohort.regions == r).any())
    tracers = list(cohort.tracers)
    prompt = f"{region} with {tracers[0]}"
    drawn = generator(prompt, count=1, seed=seed * 10**6, reconstruct=None,
                      **asked_of("generator", generator, tier, guided)).sinograms
    rng = np.random.default_rng(seed)
    pairs = [("low-dose 1/4", prompt, thin(drawn[0], 0.25, rng), drawn)]
    about = {"tracer": tracers[0], "region": region, "n_samples": tier.samples, "steps": tier.steps, "seed": seed}
    for task in ("attenuation-correction", "delayed-frame", "tracer-conversion"):
        two = {"other": tracers[1]} if task == "tracer-conversion" and len(tracers) > 1 else {}
        if task in bridge.tasks and (two or task != "tracer-conversion"):
            made = bridge(drawn[0], task=task, **about, **two).expected
            pairs.append((task.replace("-", " "), prompt, drawn[0], made))
            if two:
                both = np.concatenate([drawn, rng.poisson(made.astype(np.float64))])
                pairs.append(("tracer separation", " and ".join(tracers[:2]), both.sum(0), both))
    return pairs


def _certificates(model, name, cohort, tier, seed, progress) -> dict:
    out = {}
    for kind, augmented in (("measured", False), ("augmented", True)):
        moments = denoising_moments(
            model.pipe, model.folder, cohort, augmented=augmented, draws=_DRAWS, seed=seed,
            progress=lambda items, kind=kind: progress(items, f"certificates, {name}, {kind}", unit="patient"))
        out[kind] = certificate_table(moments, _DRAWS, n_draws=tier.maps, seed=seed)
    return out
