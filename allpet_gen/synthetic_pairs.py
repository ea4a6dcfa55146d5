"""Pairs for attenuation correction out of drawn sinograms: a generator draws the source, a bridge samples its target.

A generator knows counts with attenuation alone, so a target must come from somebody who learned both. A *sample* of the
teacher is taken, not its mean: if generator and teacher were right, source and sample would be distributed like real
pairs. They are not, so a student learns the teacher's errors too: whether such pairs help must be measured.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from allpet_gen._pretrained import model_digests, model_folder
from allpet_gen.pairs import PairSet
from allpet_gen.source_attention import source_attention
from allpet_physics.errors import GeometryError, InputError
from allpet_physics.geometry import ParallelGeometry

TASK = "attenuation-correction"
#: The patient of what nobody is.
NOBODY = -1
#: As in what was measured of drawn pairs, whatever the generator's own default is.
_GUIDED = {"guidance": 1.5, "guidance_start": 0.0}
#: Sinograms of different prompts have seeds so far apart.
_SEEDS = 10**6


def synthetic_origin(settings: Mapping, like: PairSet) -> str:
    """Return what `draw_synthetic_pairs` would draw, as text: sets of the same text are the same."""
    generator, teacher = model_folders(settings)
    return json.dumps({"generator": model_digests(generator), "teacher": model_digests(teacher),
                       "tracers": list(like.tracers), **{name: settings[name] for name in ("per_region", "seed")}})


def draw_synthetic_pairs(settings: Mapping, like: PairSet, progress: Callable = iter) -> PairSet:
    """Draw pairs of every region and tracer of a set.

    Parameters
    ----------
    settings : mapping
        Section ``synthetic`` of the settings: ``per_region``, ``generator`` and ``teacher`` (names or folders) and
        ``seed``.
    like : PairSet
        Of real pairs: its tracers, regions and geometry are taken.
    progress : callable
        Wraps the iteration over prompts.

    Returns
    -------
    PairSet
        ``per_region`` sinograms of each tracer and region; both frames are the same, patients are `NOBODY`. The tracers
        of a row are of different bodies, so it is for tasks of one tracer and one frame alone.

    Raises
    ------
    GeometryError
        Models of another geometry.
    InputError
        A teacher that was not trained for the task; whatever loading refuses.
    """
    from allpet_gen.prompts import Prompt

    generator, teacher = load_models(settings, like.geometry)
    n, regions = settings["per_region"], np.unique(like.regions)
    shape = (n * len(regions), len(like.tracers), 2, *like.geometry.sinogram_shape)
    made = {"counts": np.empty(shape, like.counts.dtype), "expected": np.empty(shape, np.float32),
            "unattenuated": np.empty(shape, np.float32), "attention": np.empty(shape, np.uint8)}
    prompts = [(r, t) for r in range(len(regions)) for t in range(len(like.tracers))]
    for number, (r, t) in enumerate(progress(prompts)):
        tracer, region = like.tracers[t], str(regions[r])
        seed = settings["seed"] * len(prompts) * _SEEDS + number * _SEEDS
        drawn = generator(str(Prompt(tracer, region)), count=n, seed=seed, reconstruct=None, **_GUIDED)
        target = teacher(drawn.sinograms, task=TASK, tracer=tracer, region=region, seed=seed)
        rows = slice(r * n, (r + 1) * n)
        attention = np.rint(255 * source_attention(drawn.sinograms, like.geometry))
        if drawn.sinograms.max() > np.iinfo(made["counts"].dtype).max:
            made["counts"] = made["counts"].astype(np.uint32)
        for name, values in (("counts", drawn.sinograms), ("expected", drawn.expected),
                             ("unattenuated", target.samples[:, 0]), ("attention", attention)):
            made[name][rows, t] = values[:, None]
    return PairSet(**made, regions=np.repeat(regions, n), patients=np.full(n * len(regions), NOBODY),
                   tracers=like.tracers, geometry=like.geometry, origin=synthetic_origin(settings, like))


def join_pairs(first: PairSet, second: PairSet) -> PairSet:
    """Return the slices of two sets of the same tracers and geometry as one.

    Raises
    ------
    InputError
        Sets of other tracers or of another geometry.
    """
    if first.tracers != second.tracers or first.geometry != second.geometry:
        raise InputError("second must have the tracers and the geometry of first, but they differ.")
    joined = {field.name: np.concatenate([getattr(first, field.name), getattr(second, field.name)])
              for field in fields(PairSet) if isinstance(getattr(first, field.name), np.ndarray)}
    return replace(first, **joined, origin=json.dumps([first.origin, second.origin]))


def check_synthetic(settings: Mapping, tasks, geometry: ParallelGeometry) -> None:
    """Raise where the pairs that settings ask for could not be drawn; does nothing where they ask for none.

    Raises
    ------
    InputError
        Other tasks than they can be drawn for; a teacher that is no bridge or does not know the task; models that
        cannot be loaded.
    GeometryError
        Models of another geometry.
    """
    if not settings["synthetic"]["per_region"]:
        return
    if tuple(tasks) != (TASK,):
        raise InputError(f"synthetic.per_region must be 0 unless {TASK} is the only task, but the tasks were "
                         f"{', '.join(tasks)}; train that one alone.")
    load_models(settings["synthetic"], geometry)


def model_folders(settings: Mapping) -> tuple[Path, Path]:
    """Return the folders of generator and teacher."""
    from allpet_gen.translation_models import translation_folder

    return model_folder(settings["generator"]), translation_folder(settings["teacher"])


def load_models(settings: Mapping, geometry: ParallelGeometry) -> tuple:
    """Return generator and teacher, refusing what `check_synthetic` says."""
    from allpet_gen.pipelines import SinogramGenerationPipeline
    from allpet_gen.translation_models import is_bridge, load_translation

    generator = SinogramGenerationPipeline.from_pretrained(settings["generator"])
    teacher, _ = load_translation(settings["teacher"])
    if not is_bridge(teacher):
        raise InputError(f"synthetic.teacher must be a bridge, whose samples are drawn, but {settings['teacher']!r} is "
                         "none.")
    teacher.network.target_scale(TASK)
    for name, model in (("synthetic.generator", generator), ("synthetic.teacher", teacher)):
        if model.geometry != geometry:
            raise GeometryError(f"{name} must have the geometry of the store, {geometry.n_angles} x {geometry.n_bins}, "
                                f"but has {model.geometry.n_angles} x {model.geometry.n_bins} or other spacings; "
                                "choose another.")
    return generator, teacher
