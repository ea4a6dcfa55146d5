"""Simulated acquisitions: analytic phantoms with exact sinograms, random patients, tracers, studies, cohorts."""

from allpet_physics.simulation.anatomy import Patient, draw_patient
from allpet_physics.simulation.cohort_reader import Cohort, read_cohort
from allpet_physics.simulation.ct import hu_to_mu
from allpet_physics.simulation.labels import from_freesurfer, from_totalsegmentator, write_label_mapping
from allpet_physics.simulation.lesions import Lesion, LesionSpec
from allpet_physics.simulation.outline import Outline
from allpet_physics.simulation.phantom import Phantom
from allpet_physics.simulation.phantoms import asymmetric_test_phantom, derenzo, nema_iec, shepp_logan
from allpet_physics.simulation.shapes import Ellipse, Rectangle, Shape, disc
from allpet_physics.simulation.study import Study, simulate_study
from allpet_physics.simulation.study_settings import StudySettings
from allpet_physics.simulation.task_pairs import TaskPair, task_pair
from allpet_physics.simulation.thorax import demo_torso
from allpet_physics.simulation.tracer_names import TRACERS, Tracer, parse_tracer
from allpet_physics.simulation.tracer_tables import read_tracer_tables
from allpet_physics.simulation.tracers import draw_curves, draw_lesion, draw_uptake

__all__ = [
    "TRACERS",
    "Cohort",
    "Ellipse",
    "Lesion",
    "LesionSpec",
    "Outline",
    "Patient",
    "Phantom",
    "Rectangle",
    "Shape",
    "Study",
    "StudySettings",
    "TaskPair",
    "Tracer",
    "asymmetric_test_phantom",
    "demo_torso",
    "derenzo",
    "disc",
    "draw_curves",
    "draw_lesion",
    "draw_patient",
    "draw_uptake",
    "from_freesurfer",
    "from_totalsegmentator",
    "hu_to_mu",
    "nema_iec",
    "parse_tracer",
    "read_cohort",
    "read_tracer_tables",
    "shepp_logan",
    "simulate_study",
    "task_pair",
    "write_label_mapping",
]
