"""Shapes of scatter, randoms and detector efficiencies: smooth, without a seam, symmetric where they must be."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allpet_physics.background import detector_efficiencies, randoms_shape, scatter_shape
from allpet_physics.errors import GeometryError, InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.simulation import demo_torso

GEOMETRY = ParallelGeometry.preset("network-128")


@pytest.fixture(scope="module")
def trues():
    return demo_torso().sinogram(GEOMETRY) * np.exp(-demo_torso("attenuation").sinogram(GEOMETRY))


def opposite(sinogram):
    """Return what the angles π further on see."""
    return sinogram[..., ::-1]


def over_two_pi(sinogram):
    return np.concatenate([sinogram, opposite(sinogram)])


@pytest.mark.parametrize("shape", [scatter_shape, randoms_shape])
def test_both_arcs_agree_and_the_seam_does_not_show(shape, trues):
    whole_turn = GEOMETRY.replace(arc=2 * np.pi, n_angles=2 * GEOMETRY.n_angles)
    half, whole = shape(trues, GEOMETRY), shape(over_two_pi(trues), whole_turn)
    np.testing.assert_allclose(whole, over_two_pi(half), rtol=1e-6, atol=1e-8 * half.max())
    # Turning the patient turns the shape: angles that wrap around are flipped along s.
    turned = np.concatenate([trues[40:], opposite(trues[:40])])
    expected = np.concatenate([half[40:], opposite(half[:40])])
    np.testing.assert_allclose(shape(turned, GEOMETRY), expected, rtol=5e-3, atol=1e-6 * half.max())


@pytest.mark.parametrize("shape", [scatter_shape, randoms_shape])
def test_they_are_smooth_and_fill_the_field(shape, trues):
    s = shape(trues, GEOMETRY)
    assert (s > 0).all()
    assert np.abs(np.diff(s, 2, axis=-1)).max() < 0.01 * s.max()
    assert np.abs(np.diff(s, 2, axis=-2)).max() < 0.01 * s.max()


def test_scatter_has_the_widths_it_is_given():
    geometry = ParallelGeometry(180, 401, 2.0, (100, 100), 2.0)
    line = np.zeros(geometry.sinogram_shape)
    line[90, 200] = 1
    s = scatter_shape(line, geometry, fwhm_mm=150.0, fwhm_rad=0.5)
    assert s.sum() == pytest.approx(1, rel=1e-4)
    variance = (s.sum(axis=0) * geometry.bin_centres**2).sum()
    assert np.sqrt(8 * np.log(2) * variance) == pytest.approx(150, rel=1e-3)
    around = geometry.angles - geometry.angles[90]
    assert np.sqrt(8 * np.log(2) * (s.sum(axis=1) * around**2).sum()) == pytest.approx(0.5, rel=1e-3)


def test_scatter_reaches_outside_the_body_and_keeps_its_place(trues):
    s = scatter_shape(trues, GEOMETRY)
    outside = trues == 0
    assert 0.05 < s[outside].sum() / s.sum() < 0.5
    centre = [(part * GEOMETRY.bin_centres).sum() / part.sum() for part in (s, trues)]
    assert abs(centre[0] - centre[1]) < 2.0


def test_randoms_are_nearly_uniform_and_follow_the_singles(trues):
    emission = demo_torso().sinogram(GEOMETRY) * np.exp(-demo_torso("attenuation").sinogram(GEOMETRY) / 2)
    r = randoms_shape(emission, GEOMETRY)
    assert r.mean() == pytest.approx(1)
    assert r.min() > 0.5
    assert r.max() < 2.0
    # With singles that are the same everywhere, what is left is the density of detector pairs.
    flat = randoms_shape(np.broadcast_to(1 / np.sqrt(1 - (GEOMETRY.bin_centres / 405) ** 2), GEOMETRY.sinogram_shape),
                         GEOMETRY)
    density = 1 / np.sqrt(405.0**2 - GEOMETRY.bin_centres**2)
    np.testing.assert_allclose(flat / density, (flat / density).mean(), rtol=1e-6)


@given(scale=st.floats(1e-3, 1e6), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_scale_and_batch(scale, seed):
    geometry = ParallelGeometry(24, 32, 5.0, (32, 32), 5.0)
    batch = np.random.default_rng(seed).random((2, 3, 24, 32)) * scale
    batch[1, 2] = 0
    s, r = scatter_shape(batch, geometry), randoms_shape(batch, geometry)
    np.testing.assert_allclose(s[1, 0], scatter_shape(batch[1, 0], geometry), rtol=1e-9, atol=1e-12 * scale)
    np.testing.assert_allclose(s, scale * scatter_shape(batch / scale, geometry), rtol=1e-9, atol=1e-12 * scale)
    np.testing.assert_allclose(r[0, 1], randoms_shape(batch[0, 1], geometry), rtol=1e-9)
    np.testing.assert_allclose(r, randoms_shape(batch / scale, geometry), rtol=1e-9)
    assert not s[1, 2].any()
    assert not r[1, 2].any()
    assert scatter_shape(batch.astype(np.float32), geometry).dtype == np.float32
    assert randoms_shape(batch.astype(np.float32), geometry).dtype == np.float32


def test_efficiencies_have_their_spread_and_belong_to_crystals():
    n = detector_efficiencies(GEOMETRY, np.random.default_rng(0), spread=0.05)
    assert n.mean() == pytest.approx(1, abs=0.01)
    # Two crystals, each interpolated between neighbours, which lowers a crystal's variance to between 1/2 and 1.
    assert 0.05 < n.std() < 0.05 * np.sqrt(2)
    np.testing.assert_array_equal(n, detector_efficiencies(GEOMETRY, np.random.default_rng(0), spread=0.05))
    np.testing.assert_array_equal(detector_efficiencies(GEOMETRY, np.random.default_rng(0), spread=0), 1)
    # The same crystals see the same line from both sides.
    whole_turn = GEOMETRY.replace(arc=2 * np.pi, n_angles=2 * GEOMETRY.n_angles)
    both = detector_efficiencies(whole_turn, np.random.default_rng(0), spread=0.05)
    np.testing.assert_allclose(both, over_two_pi(n), rtol=1e-9)


def test_wrong_input_is_named(trues):
    for shape in (scatter_shape, randoms_shape):
        with pytest.raises(InputError, match="must not be negative"):
            shape(-trues, GEOMETRY)
        with pytest.raises(InputError, match=r"must have shape \(\.\.\., 128, 128\)"):
            shape(trues[1:], GEOMETRY)
        with pytest.raises(InputError, match="geometry must be a ParallelGeometry"):
            shape(trues, 128)
    with pytest.raises(GeometryError, match="ring_diameter_mm must be larger than the field of view"):
        randoms_shape(trues, GEOMETRY, ring_diameter_mm=600.0)
    with pytest.raises(InputError, match="fwhm_mm must be"):
        scatter_shape(trues, GEOMETRY, fwhm_mm=0)
    with pytest.raises(InputError, match="rng must be a numpy"):
        detector_efficiencies(GEOMETRY, 0)
    with pytest.raises(InputError, match="spread must be"):
        detector_efficiencies(GEOMETRY, np.random.default_rng(0), spread=-0.1)
