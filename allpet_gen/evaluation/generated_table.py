"""Generators beside one another: distances in both domains, obedience to prompts, copies and consistency.

Every figure of drawn sinograms has beside it what real ones of held-out patients have.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from allpet_gen.data import ClassSet, read_class_set
from allpet_gen.evaluation import classifier as names
from allpet_gen.evaluation.distribution import compare_features, inception_score
from allpet_gen.evaluation.features import RandomCNN, StatisticsFeatures
from allpet_gen.evaluation.memorisation import memorisation
from allpet_gen.evaluation.nearest import summed
from allpet_gen.generated import reconstruct_uncorrected
from allpet_gen.prompts import Prompt
from allpet_physics.consistency import helgason_ludwig
from allpet_physics.errors import InputError

#: Axes of the random network's features that are kept, where there are samples enough.
_AXES = 24
#: Patients and samples of a side below which no distance is taken.
LEAST_PATIENTS, _LEAST_SAMPLES = 8, 12
#: Of `compare_features`: what stands in the table.
METRICS = ("frechet", "kernel_polynomial", "kernel_rbf", "precision", "recall", "density", "coverage")


@dataclass(frozen=True, eq=False)
class Drawn:
    """Sinograms of one generator, or real ones, with their classes and uncorrected images.

    Attributes
    ----------
    counts : ndarray, shape (n, angle, bin)
    labels : ndarray of int, shape (n,)
        Number of the class.
    images : ndarray of float32, shape (n, row, col)
    empty : int
        How many more were drawn that were empty or constant, and were left out.
    """

    counts: np.ndarray
    labels: np.ndarray
    images: np.ndarray
    empty: int = 0


def held_out(cohort, split: str, most: int | None = None) -> ClassSet:
    """Return as many sinograms of every class of a part as the region with fewest has, or `most`."""
    part = cohort.select(split=split)
    least = min(int((part.regions == region).sum()) for region in np.unique(part.regions))
    return read_class_set(cohort, least if most is None else min(most, least), split)


def real(data: ClassSet) -> Drawn:
    """Return real sinograms with their images."""
    counts = np.asarray(data.counts[:], np.float32)
    return Drawn(counts, data.labels, reconstruct_uncorrected(counts, data.geometry)[0])


def draw_like(pipe, data: ClassSet, count: int, *, seed: int, progress=None, **options) -> Drawn:
    """Return drawn sinograms, evenly over the classes of some real ones.

    Parameters
    ----------
    pipe : callable
        `SinogramGenerationPipeline` or a baseline of it.
    data : ClassSet
    count : int
    seed : int
        Of the first million; a run with the next draws others.
    progress : callable, optional
        Wraps the iteration over steps.
    **options
        Of the pipeline.

    Raises
    ------
    InputError
        Fewer sinograms than classes.
    """
    if count < len(data.classes):
        raise InputError(f"count must be at least {len(data.classes)}, one of each class, but was {count}.")
    per_class = -(-count // len(data.classes))
    out = pipe(list(data.classes), count=per_class, seed=seed * 10**6, reconstruct=None, batch=50, progress=progress,
               **options)
    keep = np.sort(np.random.default_rng(0).permutation(len(out))[:count])
    images = reconstruct_uncorrected(out.sinograms[keep], data.geometry)[0]
    good = [k for k in range(count) if np.ptp(out.sinograms[keep[k]]) > 0 and np.ptp(images[k]) > 0]
    return Drawn(out.sinograms[keep[good]], np.repeat(np.arange(len(data.classes)), per_class)[keep[good]],
                 images[good], count - len(good))


def distances(drawn: Mapping[str, Drawn], truth: Drawn, data: ClassSet, scale: float, *, seed: int = 0,
              further: Mapping[str, Callable] | None = None) -> dict:
    """Return `compare_features` of every generator, by domain, extractor and tracer ("all" for all of them).

    Tracers of too few patients or samples are left out.

    Parameters
    ----------
    drawn : mapping of str to Drawn
    truth : Drawn
        Of `data`.
    data : ClassSet
        Of patients that no generator was trained on.
    scale : float
        Counts that are 1 to the random network; for images it is the 99.9 % quantile of the real ones.
    seed : int
        Of the halvings.
    further : mapping of str to callable, optional
        By name, what returns an extractor for the counts that are white to it, such as `ScriptedFeatures` of a file.
    """
    regions, tracers = class_words(data)
    out = {}
    for domain, key, unit in (("sinogram", "counts", scale),
                              ("image", "images", float(np.quantile(truth.images, 0.999)))):
        for kind, extractor in (("random-cnn", RandomCNN(unit)), ("statistics", StatisticsFeatures(domain)),
                                *((name, of(unit)) for name, of in (further or {}).items())):
            random = kind != "statistics"
            seen = extractor(getattr(truth, key))
            found = {name: extractor(getattr(d, key)) for name, d in drawn.items()}
            table = out[f"{domain}, {kind}"] = {}
            for tracer in ("all", *dict.fromkeys(tracers)):
                rows = np.flatnonzero([tracer in ("all", tracers[k]) for k in truth.labels])
                if len(np.unique(data.patients[rows])) < LEAST_PATIENTS or len(rows) < _LEAST_SAMPLES:
                    continue
                table[tracer] = {}
                for name, d in drawn.items():
                    own = np.flatnonzero([tracer in ("all", tracers[k]) for k in d.labels])
                    if len(own) < _LEAST_SAMPLES:
                        continue
                    axes = min(_AXES, len(own) // 2 - 1, len(rows) // 2 - 2, seen.shape[1])
                    result = compare_features(
                        seen[rows], found[name][own], real_patients=data.patients[rows], seed=seed, whiten=random,
                        real_strata=[regions[k] for k in truth.labels[rows]],
                        n_components=axes if random or axes < seen.shape[1] else None,
                        k=min(5, max(1, min(len(own), len(rows)) // 4)))
                    table[tracer][name] = {m: {side: result[m][side] for side in ("generated", "floor")}
                                           for m in METRICS} | {"n_per_side": result["n_per_side"],
                                                                "n_features": result["n_features"]}
                if not table[tracer]:
                    del table[tracer]
    return out


def obedience(drawn: Mapping[str, Drawn], truth: Drawn, data: ClassSet, model) -> dict:
    """Return how often a classifier of real sinograms names what was asked for, and the score made of its certainty."""
    regions, tracers = map(np.array, class_words(data))
    out = {}
    for name, d in {"real, held out": truth, **drawn}.items():
        found = names.predict(model, d.counts)
        tracer, region = found.tracer == tracers[d.labels], found.region == regions[d.labels]
        out[name] = {"tracer": float(tracer.mean()), "region": float(region.mean()),
                     "both": float((tracer & region).mean()), "score": inception_score(found.joint)}
    return out


def copies(drawn: Mapping[str, Drawn], truth: Drawn, data: ClassSet, train: ClassSet,
           known: Mapping[str, set[int]]) -> dict:
    """Return `memorisation` of every generator that was trained on patients of `train`, `known` by name.

    Neighbours are looked for by bins, and by features of the random network (``in features``).
    """
    out, extractor = {}, RandomCNN(float(np.quantile(summed(truth.counts, 32), 0.999)))
    for name, d in drawn.items():
        seen = np.isin(train.patients, sorted(known[name]))
        if len(np.unique(train.patients[seen])) < 2:
            continue
        training = np.asarray(train.counts[:])[seen]
        rows = np.sort(np.random.default_rng(0).permutation(len(truth.counts))[:len(d.counts)])
        by_bins, by_features = (memorisation(
            d.counts, training, truth.counts[rows], training_patients=train.patients[seen],
            held_out_patients=data.patients[rows], arc=train.geometry.arc, extractor=of) for of in (None, extractor))
        out[name] = {key: by_bins[key] for key in ("copies", "authenticity", "median_distance", "n_training")}
        out[name]["in features"] = {key: by_features[key] for key in ("copies", "authenticity", "median_distance")}
    return out


def consistency(drawn: Mapping[str, Drawn], truth: Drawn, data: ClassSet) -> dict:
    """Return the mean Helgason-Ludwig residuals of orders 0 to 3 of uncorrected counts, real ones first."""
    return {name: residuals(d.counts, data.geometry).mean(0).tolist()
            for name, d in {"real, held out": truth, **drawn}.items()}


def consistency_range(drawn: Mapping[str, Drawn], truth: Drawn, data: ClassSet) -> dict:
    """Return (low, high) of the middle 90 % of sinograms for each order: a mean alone could hide too little variety."""
    return {name: np.quantile(residuals(d.counts, data.geometry), (0.05, 0.95), axis=0).T.tolist()
            for name, d in {"real, held out": truth, **drawn}.items()}


def residuals(counts, geometry) -> np.ndarray:
    """Return the Helgason-Ludwig residuals of orders 0 to 3 of uncorrected counts, shape (n, 4)."""
    return np.asarray(helgason_ludwig(np.asarray(counts, np.float64), geometry).residual)


def trained_classifier(cohort, most: int, epochs: int):
    """Return a classifier of tracer and region, trained on the training patients of a store."""
    sets = [held_out(cohort, split, most) for split in ("train", "validation")]
    words = [[[kind[k] for k in part.labels] for kind in class_words(part)[::-1]] for part in sets]
    return names.train_classifier(sets[0].counts, *words[0], sets[1].counts, *words[1], seed=0, epochs=epochs,
                                  arc=sets[0].geometry.arc)


def class_words(data: ClassSet) -> tuple[list[str], list[str]]:
    """Return region and tracer of each class."""
    each = [Prompt.parse(name) for name in data.classes]
    return [p.region for p in each], [p.tracer for p in each]
