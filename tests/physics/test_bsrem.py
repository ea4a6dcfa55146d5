"""BSREM and the relative difference prior: one maximum, whatever the start and the subsets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allpet_physics.acquisition import AcquisitionModel
from allpet_physics.bsrem import bsrem, bsrem_iterates
from allpet_physics.emission import mlem, osem
from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.radon import RadonOperator
from allpet_physics.relative_difference import (
    relative_difference_gradient,
    relative_difference_penalty,
    relative_difference_slopes,
)
from allpet_physics.scan import acquire
from allpet_physics.scan_protocol import ScanProtocol
from allpet_physics.simulation import demo_torso


@pytest.fixture(scope="module")
def noisy():
    """Return model, counts and a β that is felt, of a noisy scan of a thorax."""
    geometry = ParallelGeometry.preset("network-64")
    operator = RadonOperator(geometry)
    scan = acquire(demo_torso().image(geometry), demo_torso("attenuation").image(geometry), operator,
                   ScanProtocol(2e5, 0.3, 0.2, 8.0), np.random.default_rng(0))
    model = scan.model(operator)
    return model, scan.prompts.astype(np.float64), 0.02 * float(model.sensitivity(np.float64).max())


def objective(model, counts, beta, image, epsilon):
    return model.log_likelihood(image, counts) - beta * relative_difference_penalty(image, epsilon=epsilon)


def relative(first, second):
    return np.linalg.norm(first - second) / np.linalg.norm(second)


def test_two_starts_and_1_and_16_subsets_lead_to_the_same_image(noisy):
    model, counts, beta = noisy
    rng = np.random.default_rng(1)
    reference = bsrem(model, counts, beta, 25, 16)
    assert relative(bsrem(model, counts, beta, 20, 16, initial=np.full((64, 64), 30.0)), reference) < 1e-3
    assert relative(bsrem(model, counts, beta, 20, 16, initial=40 * rng.random((64, 64))), reference) < 1e-3
    assert relative(bsrem(model, counts, beta, 150, 1), reference) < 1e-3
    # Far from where they started, from each other, and from OSEM, which ends in a cycle of its own.
    assert relative(osem(model, counts, 10, 16), reference) > 0.1


def test_the_image_is_the_maximum(noisy):
    """The conditions of Karush, Kuhn and Tucker: no slope where the image is positive, none upwards where it is 0."""
    model, counts, beta = noisy
    epsilon = 0.1
    image = bsrem(model, counts, beta, 30, 16, epsilon=epsilon)
    slope = model.gradient(image, counts) - beta * relative_difference_gradient(image, epsilon=epsilon)
    sensitivity = model.sensitivity(np.float64)
    assert np.abs(slope * image).max() < 1e-3 * (sensitivity * image).max()
    # Outside of the field of view nothing is known.
    assert (slope[(image == 0) & (sensitivity > 0)] < 1e-3 * sensitivity.max()).all()
    best = objective(model, counts, beta, image, epsilon)
    rng = np.random.default_rng(0)
    for size in (1e-3, 1e-2, 0.1):
        other = image * (1 + size * rng.standard_normal(image.shape)).clip(0)
        assert objective(model, counts, beta, other, epsilon) < best


def test_the_objective_never_falls(noisy):
    model, counts, beta = noisy
    for n_subsets in (1, 7):
        before = -np.inf
        for _, subset, image in bsrem_iterates(model, counts, beta, 8, n_subsets, epsilon=0.1,
                                               initial=np.full((64, 64), 8.0)):
            if subset == n_subsets:
                value = objective(model, counts, beta, image, 0.1)
                assert value >= before - 1e-9 * abs(value)
                before = value


def test_without_a_prior_it_is_maximum_likelihood():
    rng = np.random.default_rng(2)
    geometry = ParallelGeometry(24, 28, 2.0, (8, 8), 4.0)
    model = AcquisitionModel(RadonOperator(geometry), multiplicative=rng.uniform(0.3, 1, (24, 28)), additive=0.5)
    counts = rng.poisson(30 * model.expected(rng.uniform(1, 3, (8, 8)))).astype(float)
    image = bsrem(model, counts, 0, 40, 6)
    sensitivity = model.sensitivity(np.float64)
    np.testing.assert_allclose(model.gradient(image, counts) * image / sensitivity, 0, atol=1e-3 * image.max())
    assert model.log_likelihood(image, counts) >= model.log_likelihood(mlem(model, counts, 200), counts)


def test_a_stronger_prior_gives_a_smoother_image(noisy):
    model, counts, beta = noisy
    rough = [relative_difference_penalty(bsrem(model, counts, factor * beta, 8, 16)) for factor in (0.1, 1, 10)]
    assert rough[0] > 1.2 * rough[1] > 1.44 * rough[2]


def test_a_batch_is_its_items_in_single_precision(noisy):
    model, counts, beta = noisy
    two = np.stack([counts, np.random.default_rng(4).permutation(counts.ravel()).reshape(counts.shape), 0 * counts])
    together = bsrem(model, two.astype(np.float32), beta, 6, 8)
    assert together.dtype == np.float32
    for k in range(3):
        alone = bsrem(model, two[k], beta, 6, 8)
        assert np.abs(together[k] - alone).max() < 1e-2 * max(alone.max(), 1e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_few_counts_no_background_and_dead_bins_stay_finite(dtype):
    rng = np.random.default_rng(6)
    geometry = ParallelGeometry(16, 12, 4.0, (16, 16), 4.0)  # corners lie outside the bins
    multiplicative = rng.uniform(0, 1, (16, 12)) * (rng.random((16, 12)) < 0.6)
    model = AcquisitionModel(RadonOperator(geometry), multiplicative=multiplicative)
    counts = rng.poisson(0.05, (5, 16, 12)).astype(dtype)
    image = bsrem(model, counts, 0.05, 20, 16, initial=np.full((16, 16), 0.3, dtype))
    assert image.dtype == dtype
    assert np.isfinite(image).all()
    assert (image >= 0).all()
    assert np.isfinite(bsrem(model, counts, 0.05, 5, 16)).all()
    assert not bsrem(model, np.zeros((16, 12), dtype), 0.05, 3, 4).any()


def test_iterates_callback_and_progress(noisy, capsys):
    model, counts, beta = noisy
    seen = []
    image = bsrem(model, counts, beta, 2, 3, callback=lambda *step: seen.append(step), progress=True)
    assert [step[:2] for step in seen] == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]
    assert seen[-1][2] is image
    assert len({id(step[2]) for step in seen}) == 6
    assert "BSREM" in capsys.readouterr().err


@given(seed=st.integers(0, 2**32 - 1), gamma=st.floats(0, 10), epsilon=st.floats(1e-3, 1), scale=st.floats(0.1, 100))
@settings(max_examples=40, deadline=None)
def test_the_gradient_of_the_prior_is_its_slope(seed, gamma, epsilon, scale):
    rng = np.random.default_rng(seed)
    image = rng.gamma(1, 1, (7, 9)) + 1e-2
    image[2:4] = image[2, 3]  # flat parts, where the sign of a difference changes
    image *= scale
    prior = {"gamma": gamma, "epsilon": epsilon * scale}
    gradient, curvature = relative_difference_slopes(image, **prior)
    direction = rng.standard_normal(image.shape)
    h = 1e-5 * scale
    ahead, behind = (relative_difference_penalty(image + sign * h * direction, **prior) for sign in (1, -1))
    scale_of_slope = np.linalg.norm(gradient) * np.linalg.norm(direction) + 1e-3
    assert abs((ahead - behind) / (2 * h) - np.vdot(gradient, direction)) < 1e-6 * scale_of_slope
    # The diagonal of the Hessian, where nothing is flat.
    pixel = np.zeros_like(image)
    pixel[6, 4] = h
    second = (relative_difference_gradient(image + pixel, **prior)
              - relative_difference_gradient(image - pixel, **prior))[6, 4] / (2 * h)
    assert second == pytest.approx(curvature[6, 4], rel=1e-3, abs=1e-6 / scale)


def test_the_prior_has_the_properties_of_its_definition():
    rng = np.random.default_rng(0)
    image = rng.gamma(2, 1, (2, 12, 10))
    value = relative_difference_penalty(image, epsilon=1e-12)
    assert value.shape == (2,)
    np.testing.assert_allclose(relative_difference_penalty(5 * image, epsilon=5e-12), 5 * value)
    assert relative_difference_penalty(np.full((5, 6), 3.0)) == 0
    assert relative_difference_penalty(np.zeros((5, 6))) == 0
    np.testing.assert_allclose(relative_difference_penalty(image[:, ::-1].swapaxes(1, 2), epsilon=1e-12), value)
    # Convex: no chord lies below.
    middle = relative_difference_penalty(image.mean(axis=0), epsilon=1e-12)
    assert middle <= value.mean()
    # One pixel above flat surroundings: four neighbours, and four more at 1/√2.
    single = np.ones((3, 3))
    single[1, 1] = 2
    assert relative_difference_penalty(single, gamma=2, epsilon=1e-12) == pytest.approx((4 + 4 / np.sqrt(2)) / 5)
    # An edge costs less the larger γ is.
    costs = [relative_difference_penalty(single, gamma=g) for g in (0, 1, 4)]
    assert costs[0] > costs[1] > costs[2]


def test_wrong_input_is_named(noisy):
    model, counts, beta = noisy
    for name, value in (("beta", -1), ("gamma", -1), ("n_iterations", 0), ("n_subsets", 65)):
        settings = {"beta": beta, "n_iterations": 1, "n_subsets": 2, name: value}
        with pytest.raises(InputError, match=f"{name} must be"):
            bsrem_iterates(model, counts, **settings)
    for wrong in (0, -1, np.nan, [1.0, 2.0]):
        with pytest.raises(InputError, match="epsilon must be"):
            bsrem_iterates(model, counts, beta, 1, 2, epsilon=wrong)
    with pytest.raises(InputError, match="counts must not be negative"):
        bsrem(model, -counts - 1, beta, 1, 2)
    with pytest.raises(InputError, match="initial must have shape"):
        bsrem(model, counts, beta, 1, 2, initial=np.ones((5, 5)))
    with pytest.raises(InputError, match="model must be an AcquisitionModel"):
        bsrem(None, counts, beta, 1, 2)
    with pytest.raises(InputError, match="image must not be negative"):
        relative_difference_penalty(-np.ones((3, 3)))
    with pytest.raises(InputError, match=r"image must have shape \(\.\.\., rows, cols\)"):
        relative_difference_gradient(np.ones(3))
