"""Simulated acquisitions: analytic phantoms with exact sinograms."""

from allpet_physics.simulation.outline import Outline
from allpet_physics.simulation.phantom import Phantom
from allpet_physics.simulation.phantoms import asymmetric_test_phantom, derenzo, nema_iec, shepp_logan
from allpet_physics.simulation.shapes import Ellipse, Rectangle, Shape, disc
from allpet_physics.simulation.thorax import demo_torso

__all__ = [
    "Ellipse",
    "Outline",
    "Phantom",
    "Rectangle",
    "Shape",
    "asymmetric_test_phantom",
    "demo_torso",
    "derenzo",
    "disc",
    "nema_iec",
    "shepp_logan",
]
