"""The attention map of a source: it lies where something hot is, and nowhere else."""

import numpy as np
import pytest

from allpet_gen.source_attention import hot_regions, source_attention
from allpet_gen.symmetry import rotate_sinogram
from allpet_physics import ParallelGeometry, RadonOperator

GEOMETRY = ParallelGeometry(64, 64, 10.4, (64, 64), 10.4)
A = RadonOperator(GEOMETRY)
X, Y = GEOMETRY.x, GEOMETRY.y[:, None]
BODY = (np.hypot(X, Y) < 320).astype(np.float32)  # nearly all of the picture: its mean is that of the body
SPOT = np.hypot(X - 80, Y + 60) < 30


def counts(image, total=1e6, seed=0):
    means = A(image.astype(np.float32))
    return np.random.default_rng(seed).poisson(means * (total / means.sum()))


HOT = BODY + 7 * SPOT


def test_it_finds_the_hot_spot_and_nothing_else():
    (found,) = hot_regions(counts(HOT)[None], GEOMETRY)
    core = np.hypot(X - 80, Y + 60) < 20
    assert found[core].all()
    assert not found[np.hypot(X - 80, Y + 60) > 50].any()


def test_the_map_lies_along_the_spots_trace():
    attention = source_attention(counts(HOT), GEOMETRY)
    assert attention.shape == GEOMETRY.sinogram_shape
    assert attention.dtype == np.float32
    assert attention.min() == 0
    assert attention.max() == pytest.approx(1)
    theta = np.arange(64)[:, None] * np.pi / 64
    away = np.abs((np.arange(64) - 31.5) * GEOMETRY.bin_mm - (80 * np.cos(theta) - 60 * np.sin(theta)))
    assert (attention[away < 15] > 0.5).all()
    assert not attention[away > 55].any()


def test_two_spots_have_two_traces():
    twin = np.hypot(X + 90, Y - 40) < 30
    found = hot_regions(counts(HOT + 7 * twin), GEOMETRY)
    assert found[np.hypot(X + 90, Y - 40) < 20].all()
    assert found[np.hypot(X - 80, Y + 60) < 20].all()


@pytest.mark.parametrize("image", [BODY, np.zeros_like(BODY)], ids=["even", "empty"])
def test_where_nothing_is_hot_it_is_zero(image):
    sinogram = counts(image) if image.any() else np.zeros(GEOMETRY.sinogram_shape)
    assert not hot_regions(sinogram, GEOMETRY).any()
    assert not source_attention(sinogram, GEOMETRY).any()


def test_it_does_not_depend_on_the_dose_but_through_noise():
    sinogram = counts(HOT)
    np.testing.assert_array_equal(hot_regions(50 * sinogram, GEOMETRY), hot_regions(sinogram, GEOMETRY))


def test_a_turned_patient_has_a_turned_map():
    sinogram = counts(HOT)
    turned = source_attention(rotate_sinogram(sinogram, 32, np.pi), GEOMETRY)  # a quarter turn: exact on a square grid
    np.testing.assert_allclose(turned, rotate_sinogram(source_attention(sinogram, GEOMETRY), 32, np.pi), atol=1e-4)
    assert not np.allclose(turned, source_attention(sinogram, GEOMETRY), atol=0.1)


def test_a_batch_is_its_items():
    stack = np.stack([counts(HOT), counts(BODY), np.zeros(GEOMETRY.sinogram_shape, int), counts(HOT, seed=1)])
    together = source_attention(stack.reshape(2, 2, 64, 64), GEOMETRY).reshape(4, 64, 64)
    for one, sinogram in zip(together, stack, strict=True):
        np.testing.assert_array_equal(one, source_attention(sinogram, GEOMETRY))
    assert together.any((1, 2)).tolist() == [True, False, False, True]
