"""Random fields: mean, variance and correlation as stated, whatever the sampling."""

import numpy as np
import pytest

from allpet_physics.errors import InputError
from allpet_physics.simulation.organs import ORGAN_NUMBER, ORGANS
from allpet_physics.simulation.texture import SmoothNoise, organ_texture

BOX = ((-2.0, -200.0, -200.0), (2.0, 200.0, 200.0))


def fields(length, axis, seed=0, n=60):
    return SmoothNoise(np.random.default_rng(seed), *BOX, length, n_fields=n).on([0.0], axis, axis)[:, 0]


def test_noise_has_mean_zero_and_variance_one():
    values = fields(9.0, np.linspace(-190, 190, 60))
    assert abs(values.mean()) < 0.04
    assert values.var() == pytest.approx(1, abs=0.04)


@pytest.mark.parametrize("length", [5.0, 12.0])
def test_noise_correlates_over_the_stated_length(length):
    axis = np.arange(-195, 195, 2.5)
    values = fields(length, axis)
    for steps in (1, round(length / 2.5), round(2 * length / 2.5)):
        rho = np.mean(values[:, :, steps:] * values[:, :, :-steps]) / values.var()
        assert rho == pytest.approx(np.exp(-(steps * 2.5) ** 2 / (4 * length**2)), abs=0.05)


def test_noise_is_one_field_for_every_sampling():
    coarse, fine = fields(8.0, np.arange(-100, 101, 20.0)), fields(8.0, np.arange(-100, 101, 5.0))
    np.testing.assert_allclose(fine[:, ::4, ::4], coarse, atol=1e-5)


def test_noise_refuses_places_outside_its_box():
    noise = SmoothNoise(np.random.default_rng(0), *BOX, 10.0)
    with pytest.raises(InputError, match="box"):
        noise.on([0.0], [0.0], [400.0])


def test_texture_of_an_organ_has_mean_one_and_its_standard_deviation():
    for name in ("liver", "muscle", "brain_grey"):
        organ = ORGANS[ORGAN_NUMBER[name]]
        labels = np.full((3, 160, 160), organ.number, np.uint8)
        stack = np.stack([organ_texture(labels, 4.0, 4.0, np.random.default_rng(s)) for s in range(6)])
        assert stack.mean() == pytest.approx(1, abs=0.02)
        assert stack.std() == pytest.approx(organ.texture_sd, rel=0.08)


def test_texture_is_one_in_air_and_positive_everywhere():
    labels = np.zeros((2, 64, 64), np.uint8)
    labels[:, 16:48, 16:48] = ORGAN_NUMBER["bowel"]
    texture = organ_texture(labels, 10.4, 3.0, np.random.default_rng(3))
    assert texture.dtype == np.float32
    assert (texture[labels == 0] == 1).all()
    assert texture.min() > 0
    assert len(np.unique(texture[labels > 0])) > 1000


def test_texture_is_the_same_field_at_another_pixel_size():
    number = ORGAN_NUMBER["liver"]
    coarse = organ_texture(np.full((1, 64, 64), number, np.uint8), 10.4, 3.0, np.random.default_rng(5))[0]
    fine = organ_texture(np.full((1, 256, 256), number, np.uint8), 2.6, 3.0, np.random.default_rng(5))[0]
    averaged = fine.reshape(64, 4, 64, 4).mean(axis=(1, 3))
    assert np.corrcoef(averaged.ravel(), coarse.ravel())[0, 1] > 0.95
