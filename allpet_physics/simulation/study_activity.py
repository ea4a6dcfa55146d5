"""The activity of one patient: uptake drawn by organ and lesion, put into the label map."""

import numpy as np

from allpet_physics.errors import InputError
from allpet_physics.simulation.organs import ORGAN_NUMBER, ORGANS
from allpet_physics.simulation.streams import random_stream
from allpet_physics.simulation.study_settings import FRAMES, StudySettings
from allpet_physics.simulation.tracers import draw_curves, draw_lesion

#: Parts of a random key.
_UPTAKE, _LESIONS = 1, 4
#: A cold lesion keeps at most this fraction of its host's uptake.
_LEAST_COLD = 0.9


def patient_uptake(patient, tracer: str, settings: StudySettings, key, tables) -> tuple[np.ndarray, np.ndarray]:
    """Return the SUV of each frame by organ number, and by lesion: shapes (frames, organs) and (frames, lesions)."""
    hosts = [lesion.organ for lesion in patient.lesions]
    wanted = dict.fromkeys([*(name for name in patient.organs if not name.startswith("lesion_")), *hosts])
    try:
        curves = draw_curves(tracer, wanted, random_stream(key, _UPTAKE, tracer), tables=tables)
    except InputError as error:
        raise InputError(f"a patient's {patient.region} cannot be scanned with {tracer}: {error}") from None

    def suv(curve):
        protocols = [settings.protocol(patient.region, tracer, frame) for frame in FRAMES]
        weights = np.array([p.duration_s / p.effective_seconds for p in protocols])
        return curve.frame_mean(settings.frames_min, protocols[0].half_life_s) * weights

    by_organ = np.zeros((len(FRAMES), len(ORGANS)))
    for name, curve in curves.items():
        if curve.kinetics is not None:
            by_organ[:, ORGAN_NUMBER[name]] = suv(curve)
    by_lesion, lesion_rng = np.zeros((len(FRAMES), len(patient.lesions))), random_stream(key, _LESIONS, tracer)
    for k, lesion in enumerate(patient.lesions):
        host = by_organ[:, ORGAN_NUMBER[lesion.organ]]
        own = suv(draw_lesion(tracer, f"lesion_{lesion.kind}", curves[lesion.organ], lesion_rng, tables=tables))
        if lesion.kind == "hot":
            by_lesion[:, k] = host + lesion.uptake_factor * (own - host)
        else:
            by_lesion[:, k] = np.minimum(lesion.uptake_factor * own, _LEAST_COLD * host)
    return by_organ, np.maximum(by_lesion, 0)


def activity_images(patient, lesion_map, uptake, lesion_uptake) -> np.ndarray:
    """Return SUV images, shape (slices, tracers, frames, rows, cols): the organ's or lesion's uptake times texture."""
    table = np.concatenate([uptake, lesion_uptake], axis=-1)
    index = np.where(lesion_map > 0, len(ORGANS) - 1 + lesion_map.astype(np.intp), patient.labels)
    out = np.empty((len(index), *table.shape[:2], *index.shape[1:]), np.float32)
    for t, f in np.ndindex(*table.shape[:2]):
        np.take(table[t, f], index, out=out[:, t, f], mode="clip")
    if patient.texture is not None:
        out *= patient.texture[:, None, None]
    return out


def number_lesions(patient) -> np.ndarray:
    """Return k in the k-th lesion, counted from 1, and 0 elsewhere: uint8, shape of the labels."""
    lesion_map = np.zeros(patient.labels.shape, np.uint8)
    for k, lesion in enumerate(patient.lesions, 1):
        lesion_map[lesion.mask] = k
    return lesion_map
