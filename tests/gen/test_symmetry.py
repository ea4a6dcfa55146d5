"""Symmetry: what is moved is the sinogram of the turned or mirrored image, to the last bit."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from allpet_gen.symmetry import extended, mirror_sinogram, reverse_bins, rotate_sinogram, wrap_angles
from allpet_physics.errors import GeometryError, InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.radon import RadonOperator
from allpet_physics.simulation.phantom import Phantom
from allpet_physics.simulation.phantoms import shepp_logan

ARCS = pytest.mark.parametrize("arc", [np.pi, 2 * np.pi], ids=["pi", "2pi"])
SINOGRAMS = st.tuples(st.integers(1, 12), st.integers(1, 9), st.integers(0, 2**32 - 1))
STEPS = st.integers(-40, 40)
ANY_ARC = st.sampled_from([np.pi, 2 * np.pi])
FEW = settings(deadline=None, max_examples=30)


def noise(drawn):
    n_angles, n_bins, seed = drawn
    return np.random.default_rng(seed).standard_normal((2, n_angles, n_bins)).astype(np.float32)


def same(a, b):
    return a.dtype == b.dtype and np.array_equal(a, b)


def turned(phantom, angle):
    cos, sin = np.cos(angle), np.sin(angle)
    return Phantom(tuple(dataclasses.replace(
        s, x_mm=cos * s.x_mm - sin * s.y_mm, y_mm=sin * s.x_mm + cos * s.y_mm, angle=s.angle + angle)
        for s in phantom.shapes))


def mirrored(phantom):
    return Phantom(tuple(dataclasses.replace(s, x_mm=-s.x_mm, angle=-s.angle) for s in phantom.shapes))


# Images

@ARCS
@pytest.mark.parametrize("model", ["strip", "joseph"])
@pytest.mark.parametrize("n_bins", [17, 20])
def test_quarter_turns_and_mirrors_of_images(arc, model, n_bins):
    n_angles = 12
    project = RadonOperator(ParallelGeometry(n_angles, n_bins, 1.3, (16, 16), 1.1, arc), model)
    image = np.random.default_rng(0).random((16, 16))
    sinogram = project(image)
    quarter = round(np.pi / 2 / (arc / n_angles))
    for k in range(-3, 6):
        np.testing.assert_allclose(rotate_sinogram(sinogram, k * quarter, arc), project(np.rot90(image, k)), atol=1e-12)
    np.testing.assert_allclose(mirror_sinogram(sinogram, arc), project(image[:, ::-1]), atol=1e-12)
    upside_down = rotate_sinogram(mirror_sinogram(sinogram, arc), 2 * quarter, arc)
    np.testing.assert_allclose(upside_down, project(image[::-1]), atol=1e-12)


@ARCS
def test_images_that_are_not_square(arc):
    image = np.random.default_rng(1).random((10, 17))
    geometry = ParallelGeometry(8, 21, 1.0, image.shape, 1.0, arc)
    sinogram = RadonOperator(geometry)(image)
    np.testing.assert_allclose(mirror_sinogram(sinogram, arc), RadonOperator(geometry)(image[:, ::-1]), atol=1e-12)
    on_its_side = RadonOperator(geometry.replace(image_shape=(17, 10)))(np.rot90(image))
    np.testing.assert_allclose(rotate_sinogram(sinogram, 4 if arc < 4 else 2, arc), on_its_side, atol=1e-12)


@FEW
@given(ANY_ARC, st.integers(3, 40), st.integers(20, 41), STEPS, st.sampled_from(["bin", "line"]))
def test_any_step_is_a_turn_of_the_object(arc, n_angles, n_bins, steps, model):
    geometry = ParallelGeometry(n_angles, n_bins, 200 / n_bins, (32, 32), 6.0, arc)
    phantom = shepp_logan(95.0)
    angle = steps * arc / n_angles
    got = rotate_sinogram(phantom.sinogram(geometry, model), steps, arc)
    np.testing.assert_allclose(got, turned(phantom, angle).sinogram(geometry, model), atol=1e-6)


@FEW
@given(ANY_ARC, st.integers(1, 40), st.integers(20, 41), STEPS)
def test_mirrors_of_turned_objects(arc, n_angles, n_bins, steps):
    geometry = ParallelGeometry(n_angles, n_bins, 200 / n_bins, (32, 32), 6.0, arc)
    phantom = turned(shepp_logan(95.0), steps * 0.1)
    got = mirror_sinogram(phantom.sinogram(geometry), arc)
    np.testing.assert_allclose(got, mirrored(phantom).sinogram(geometry), atol=1e-6)


# Group laws, to the last bit

@FEW
@given(SINOGRAMS, ANY_ARC, STEPS, STEPS)
def test_turns_add_up(drawn, arc, first, second):
    p = noise(drawn)
    assert same(rotate_sinogram(rotate_sinogram(p, first, arc), second, arc), rotate_sinogram(p, first + second, arc))
    assert same(rotate_sinogram(p, 0, arc), p)
    whole_turn = (2 if arc < 4 else 1) * p.shape[-2]
    assert same(rotate_sinogram(p, whole_turn, arc), p)


@FEW
@given(SINOGRAMS)
def test_a_turn_by_the_arc_reverses_bins_on_pi(drawn):
    p = noise(drawn)
    n = p.shape[-2]
    assert same(rotate_sinogram(p, n), reverse_bins(p))
    assert same(rotate_sinogram(rotate_sinogram(p, n), n), p)


@FEW
@given(SINOGRAMS, ANY_ARC, STEPS)
def test_mirrors_undo_themselves_and_turn_turns_around(drawn, arc, steps):
    p = noise(drawn)
    assert same(mirror_sinogram(mirror_sinogram(p, arc), arc), p)
    assert same(mirror_sinogram(rotate_sinogram(p, steps, arc), arc),
                rotate_sinogram(mirror_sinogram(p, arc), -steps, arc))


@FEW
@given(SINOGRAMS, ANY_ARC, STEPS)
def test_only_places_change(drawn, arc, steps):
    numbers = np.arange(drawn[0] * drawn[1]).reshape(drawn[:2])
    for moved in (rotate_sinogram(numbers, steps, arc), mirror_sinogram(numbers, arc)):
        assert moved.shape == numbers.shape
        assert moved.dtype == numbers.dtype
        assert sorted(moved.ravel()) == list(range(numbers.size))


@FEW
@given(SINOGRAMS, ANY_ARC, STEPS)
def test_arrays_and_tensors_agree(drawn, arc, steps):
    p = noise(drawn)
    tensor = torch.from_numpy(p)
    assert same(rotate_sinogram(tensor, steps, arc).numpy(), rotate_sinogram(p, steps, arc))
    assert same(mirror_sinogram(tensor, arc).numpy(), mirror_sinogram(p, arc))
    assert same(extended(tensor, arc).numpy(), extended(p, arc))


@ARCS
def test_results_are_copies_that_torch_takes(arc):
    p = np.random.default_rng(2).random((4, 5))
    kept = p.copy()
    p.setflags(write=False)
    for moved in (rotate_sinogram(p, 1, arc), mirror_sinogram(p, arc)):
        torch.from_numpy(moved).zero_()
    assert np.array_equal(p, kept)


# Padding

@FEW
@given(SINOGRAMS, ANY_ARC, st.data())
def test_padding_continues_the_turn(drawn, arc, data):
    p = torch.from_numpy(noise(drawn))
    n = p.shape[-2]
    before, after = data.draw(st.integers(0, n)), data.draw(st.integers(0, n))
    wrapped = wrap_angles(p, before, after, arc)
    assert wrapped.shape == (2, before + n + after, p.shape[-1])
    for row in range(before + n + after):
        # Row i of the padded sinogram is row 0 of the one that is turned back to it.
        assert torch.equal(wrapped[:, row], rotate_sinogram(p, before - row, arc)[:, 0])


# Mistakes

@pytest.mark.parametrize("arc", [0.0, 3.0, -np.pi, 180.0, np.nan])
def test_other_arcs_are_refused(arc):
    p = np.zeros((4, 5))
    for call in (lambda: rotate_sinogram(p, 1, arc), lambda: mirror_sinogram(p, arc),
                 lambda: wrap_angles(torch.zeros(4, 5), 1, 1, arc)):
        with pytest.raises(GeometryError, match="arc must be pi or 2 pi"):
            call()


@pytest.mark.parametrize("steps", [1.5, "3", None, np.float64(2)])
def test_steps_are_whole(steps):
    with pytest.raises(InputError, match="steps must be a whole number"):
        rotate_sinogram(np.zeros((4, 5)), steps)
    assert rotate_sinogram(np.zeros((4, 5)), np.int64(2)).shape == (4, 5)


def test_a_sinogram_has_two_axes():
    with pytest.raises(InputError, match=r"shape \(..., angle, bin\), but its shape was \(5,\)"):
        mirror_sinogram(np.zeros(5))
    with pytest.raises(InputError, match=r"shape \(..., angle, bin\)"):
        rotate_sinogram(torch.zeros(5), 1)
