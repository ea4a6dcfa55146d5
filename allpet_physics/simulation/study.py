"""One patient to the data of every task: counts of each tracer in two frames, from one anatomy.

What is computed once per patient, by axis ``[slice, tracer, frame, ...]``: the activity, its line integrals, and the
prompts drawn from them. Everything else follows from these and from the attenuation, and is computed when asked for:
expected counts and backgrounds (:meth:`Study.scan`), low doses and all other pairs (:meth:`Study.pair`).
"""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from allpet_physics.errors import GeometryError, InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.point_spread import GaussianPSF
from allpet_physics.radon import RadonOperator
from allpet_physics.scan import Scan, acquire_projections, attenuation_factors
from allpet_physics.simulation.organs import group_numbers
from allpet_physics.simulation.streams import random_key, random_stream
from allpet_physics.simulation.study_activity import activity_images, number_lesions, patient_uptake
from allpet_physics.simulation.study_settings import FRAMES, StudySettings, frame_number, prompt_text
from allpet_physics.simulation.tracers import TRACERS, TracerTables, parse_tracer

if TYPE_CHECKING:
    from allpet_physics.simulation.task_pairs import TaskPair

#: Parts of a random key, so that what is drawn for one purpose does not move when another draws more.
_COUNTS, _NOISE = 2, 3


@dataclass(frozen=True, eq=False)
class Study:
    r"""Scans of one patient with several tracers, in two frames each, with the truth behind them.

    Prompts are Poisson counts of

    .. math:: \bar y = \kappa\, a \cdot A\,G\,x + s + r, \tag{S1}

    with the level κ (counts per SUV·mm: calibration times decay-weighted seconds), attenuation factors a, activity x
    and background s + r as of `allpet_physics.scan`. Line integrals and factors are rounded to what float16 holds
    *before* counts are drawn, so what a store keeps is exactly what the counts came from.

    Attributes
    ----------
    geometry : ParallelGeometry
    settings : StudySettings
    region : str
    tracers : tuple of str
        Names, in the order of the axis ``tracer``.
    prompts : ndarray of int, shape (slices, tracers, frames, angles, bins)
        Full-dose coincidences; frames are those of `FRAMES`, first and delayed.
    line_integrals : ndarray of float32, shape (slices, tracers, frames, angles, bins)
        A G x in SUV·mm.
    level : ndarray of float64, shape (tracers, frames)
        κ in counts per SUV·mm.
    attenuation : ndarray of float32, shape (slices, angles, bins)
        Factors a in (0, 1], exp(-A μ).
    activity : ndarray of float32, shape (slices, tracers, frames, rows, cols)
        SUV, decay-corrected to the injection: the decay-weighted mean over the frame.
    mu : ndarray of float32, shape (slices, rows, cols)
        Attenuation at 511 keV in 1/mm.
    labels : ndarray of uint8, shape (slices, rows, cols)
        Organ numbers of `allpet_physics.simulation.organs.ORGANS`.
    lesion_map : ndarray of uint8, shape (slices, rows, cols)
        k in the k-th lesion of the patient, counted from 1, and 0 elsewhere.
    uptake : ndarray of float32, shape (tracers, frames, organs)
        SUV by organ number, before texture; 0 where the patient has no such organ.
    lesion_uptake : ndarray of float32, shape (tracers, frames, lesions)
        SUV of each lesion.
    key : tuple of int
        Seed of the patient; low doses are drawn from it.
    slices : tuple of int
        The slices' numbers in the patient.
    details : dict
        The patient in plain types: ``Patient.to_dict()``, or what a store kept of it.
    """

    geometry: ParallelGeometry
    settings: StudySettings
    region: str
    tracers: tuple[str, ...]
    prompts: np.ndarray
    line_integrals: np.ndarray
    level: np.ndarray
    attenuation: np.ndarray
    activity: np.ndarray
    mu: np.ndarray
    labels: np.ndarray
    lesion_map: np.ndarray
    uptake: np.ndarray
    lesion_uptake: np.ndarray
    key: tuple[int, ...]
    slices: tuple[int, ...]
    details: dict = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of slices."""
        return len(self.slices)

    def prompt(self, tracer: str) -> str:
        """Return the wording of the class, such as "brain with 18F-FDG"."""
        return prompt_text(self.region, self.tracers[self.tracer_number(tracer)])

    def tracer_number(self, tracer: str) -> int:
        """Return the place of a tracer on its axis.

        Raises
        ------
        InputError
            A tracer that the study lacks.
        """
        name = parse_tracer(tracer).name
        if name not in self.tracers:
            raise InputError(f"tracer must be one of the study's, {', '.join(self.tracers)}, but was {tracer!r}.")
        return self.tracers.index(name)

    def unattenuated(self, tracer: str, frame: str = "first") -> np.ndarray:
        """Return the expected trues of the same exposure without attenuation, κ A G x, shape (slices, angles, bins)."""
        place = self.tracer_number(tracer), frame_number(frame)
        return self.line_integrals[:, *place] * np.float32(self.level[place])

    def scan(self, tracer: str, frame: str = "first") -> Scan:
        """Return the scan with its expected trues, scatter and randoms, ready for reconstruction.

        ``osem(study.scan("FDG").model(A), study.scan("FDG").prompts, 2, 16)`` gives SUV.
        """
        place = self.tracer_number(tracer), frame_number(frame)
        protocol = self.settings.protocol(self.region, tracer, frame)
        means = _means(self.line_integrals[:, *place], self.attenuation, self.geometry, protocol,
                       calibration=self.level[place] / protocol.effective_seconds)
        return replace(means, prompts=self.prompts[:, *place].astype(np.int64))

    def pair(self, task: str, **options) -> "TaskPair":
        """Return source and target of a task; see `allpet_physics.simulation.task_pairs.task_pair`."""
        from allpet_physics.simulation.task_pairs import task_pair

        return task_pair(self, task, **options)

    def mask(self, organ: str) -> np.ndarray:
        """Return where an organ, or a group such as ``"kidney"``, is: bool, shape (slices, rows, cols)."""
        return np.isin(self.labels, group_numbers(organ))

    def lesion_masks(self) -> np.ndarray:
        """Return the mask of each lesion of the patient, bool, shape (lesions, slices, rows, cols)."""
        numbers = np.arange(1, self.lesion_uptake.shape[-1] + 1)
        return self.lesion_map == numbers[:, None, None, None]


def simulate_study(patient, seed, geometry: ParallelGeometry, tracers=tuple(TRACERS), settings=None, *,
                   tables: TracerTables | None = None, operator: RadonOperator | None = None) -> Study:
    """Scan a patient with each of several tracers, in a first and a delayed frame.

    Parameters
    ----------
    patient : Patient
        Drawn by `draw_patient`, or made from real labels.
    seed : int, sequence of int, or numpy.random.Generator
        Uptake and counts depend on it; for a cohort, (seed, patient). One tracer's are the same whichever others are
        asked for.
    geometry : ParallelGeometry
        Its image grid is the patient's.
    tracers : sequence of str
    settings : StudySettings, optional
    tables : TracerTables, optional
        From `read_tracer_tables`; the packaged ones by default.
    operator : RadonOperator, optional
        Projector of `geometry`, to be used again between patients.

    Returns
    -------
    Study

    Raises
    ------
    InputError
        An unknown tracer, one that lacks an organ of the patient (the message names both), or the same one twice.
    GeometryError
        A geometry of another image grid than the patient's.

    Notes
    -----
    Each slice is scanned by itself: no activity outside it adds scatter or randoms, and nothing moves. The factor of a
    lesion (``Lesion.uptake_factor``) multiplies the excess over the host that a tracer gives to a hot lesion, and the
    ratio to the host of a cold one; it is what tracers share in a lesion.
    """
    settings = settings or StudySettings()
    names = check_tracers(tracers)
    _check_grid(patient, geometry)
    key = random_key(seed)
    operator = operator or RadonOperator(geometry, model=settings.model)
    lesion_map = number_lesions(patient)
    drawn = [patient_uptake(patient, name, settings, key, tables) for name in names]
    uptake, lesion_uptake = (np.stack(values).astype(np.float32) for values in zip(*drawn, strict=True))
    activity = activity_images(patient, lesion_map, uptake, lesion_uptake)
    mu = patient.mu_map().astype(np.float32, copy=False)
    attenuation = _rounded(attenuation_factors(mu, operator))
    protocols = [[settings.protocol(patient.region, name, frame) for frame in FRAMES] for name in names]
    blur = GaussianPSF(geometry, protocols[0][0].psf_fwhm_mm)
    lines = _rounded(operator(blur(activity)))
    prompts, level = np.empty(lines.shape, np.int64), np.empty(lines.shape[1:3])
    for t, name in enumerate(names):
        calibration = None
        for f, frame in enumerate(FRAMES):
            protocol = protocols[t][f]
            counts = protocol.counts * _spread(settings.counts_spread, random_stream(key, _COUNTS, name))
            scan = acquire_projections(lines[:, t, f], attenuation, geometry, protocol.replace(counts=counts),
                                       random_stream(key, _NOISE, name, frame_number(frame)), calibration=calibration)
            calibration = scan.calibration
            prompts[:, t, f], level[t, f] = scan.prompts, calibration * protocol.effective_seconds
    return Study(geometry, settings, patient.region, names, prompts, lines, level, attenuation, activity, mu,
                 patient.labels.astype(np.uint8, copy=False), lesion_map, uptake, lesion_uptake, key,
                 tuple(range(len(patient.labels))), patient.to_dict())


def check_tracers(tracers) -> tuple[str, ...]:
    """Return the names of tracers, each once.

    Raises
    ------
    InputError
        None at all, an unknown one, or one twice.
    """
    names = tuple(parse_tracer(t).name for t in ([tracers] if isinstance(tracers, str) else tracers))
    if not names or len(set(names)) < len(names):
        raise InputError(f"tracers must be different ones of {', '.join(TRACERS)}, at least one, but were "
                         f"{', '.join(names) or 'none'}.")
    return names


def _spread(cv: float, rng) -> float:
    variance = np.log1p(cv**2)
    return float(np.exp(np.sqrt(variance) * rng.standard_normal() - variance / 2))


def _means(lines, attenuation, geometry, protocol, calibration) -> Scan:
    """Return the expected parts of a scan; the counts drawn with them are thrown away."""
    return acquire_projections(lines, attenuation, geometry, protocol, np.random.default_rng(0),
                               calibration=calibration)


def _rounded(values: np.ndarray) -> np.ndarray:
    """Round to what float16 holds, and keep float32 for work."""
    with np.errstate(under="ignore"):
        return np.maximum(values, 0).astype(np.float16).astype(np.float32)


def _check_grid(patient, geometry) -> None:
    if not isinstance(geometry, ParallelGeometry):
        raise InputError(f"geometry must be a ParallelGeometry, but was {type(geometry).__name__}.")
    same = geometry.image_shape == patient.labels.shape[1:] and np.isclose(geometry.pixel_mm, patient.pixel_mm,
                                                                           rtol=1e-4)
    if not same:
        raise GeometryError(f"geometry must have the patient's grid, {patient.labels.shape[1:]} pixels of "
                            f"{patient.pixel_mm:g} mm, but had {geometry.image_shape} of {geometry.pixel_mm:g} mm.")
