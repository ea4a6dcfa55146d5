"""Errors of an estimate: closed forms, what scaling may and may not change, agreement with a peer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from skimage.metrics import structural_similarity

from allpet_physics.errors import InputError
from allpet_physics.metrics import (
    expected_poisson_deviance,
    normalised_rmse,
    poisson_deviance,
    psnr,
    rmse,
    ssim,
    total_error,
)

#: Bound of statistical tests in standard deviations; every seed is fixed.
SIGMAS = 4


@pytest.fixture
def pair():
    rng = np.random.default_rng(4)
    truth = rng.gamma(2.0, 3.0, (2, 3, 24, 17))
    return truth + rng.standard_normal(truth.shape), truth


def test_a_known_offset(pair):
    _, truth = pair
    for shift in (0.5, -2.0):
        estimate = truth + shift
        np.testing.assert_allclose(rmse(estimate, truth), abs(shift), rtol=1e-12)
        np.testing.assert_allclose(psnr(estimate, truth, data_range=50), 20 * np.log10(50 / abs(shift)), rtol=1e-12)
        np.testing.assert_allclose(total_error(estimate, truth), shift / truth.mean((-2, -1)), rtol=1e-10)


def test_a_known_factor_and_nothing_at_all(pair):
    _, truth = pair
    np.testing.assert_allclose(normalised_rmse(1.2 * truth, truth), 0.2, rtol=1e-12)
    np.testing.assert_allclose(total_error(0.7 * truth, truth), -0.3, rtol=1e-12)
    np.testing.assert_allclose(normalised_rmse(0 * truth, truth), 1, rtol=1e-12)
    np.testing.assert_allclose(total_error(0 * truth, truth), -1, rtol=1e-12)


def test_the_truth_has_no_error(pair):
    _, truth = pair
    assert (psnr(truth, truth, data_range=50) == np.inf).all()
    assert (rmse(truth, truth) == 0).all()
    np.testing.assert_allclose(ssim(truth, truth, data_range=50), 1, rtol=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.floats(1e-3, 1e6))
def test_units_change_the_rmse_alone(k):
    rng = np.random.default_rng(1)
    estimate, truth = rng.gamma(2.0, 3.0, (2, 2, 16, 16))
    for measure in (psnr, ssim):
        np.testing.assert_allclose(measure(k * estimate, k * truth, data_range=k * 30),
                                   measure(estimate, truth, data_range=30), rtol=1e-8)
    for measure in (normalised_rmse, total_error):
        np.testing.assert_allclose(measure(k * estimate, k * truth), measure(estimate, truth), rtol=1e-8)
    np.testing.assert_allclose(rmse(k * estimate, k * truth), k * rmse(estimate, truth), rtol=1e-8)


def test_doubling_the_range_adds_six_decibels(pair):
    gain = psnr(*pair, data_range=100) - psnr(*pair, data_range=50)
    np.testing.assert_allclose(gain, 20 * np.log10(2), rtol=1e-10)


@pytest.mark.parametrize("data_range", [1.0, 40.0])
def test_ssim_is_that_of_scikit_image(pair, data_range):
    found = ssim(*pair, data_range=data_range)
    peer = [structural_similarity(x, y, data_range=data_range, gaussian_weights=True, sigma=1.5,
                                  use_sample_covariance=False)
            for x, y in zip(*(a.reshape(-1, 24, 17) for a in pair), strict=True)]
    np.testing.assert_allclose(found.ravel(), peer, rtol=1e-9)


def test_items_are_measured_alone_and_keep_their_axes(pair):
    estimate, truth = pair
    for measure in (lambda x, y: psnr(x, y, data_range=20), lambda x, y: ssim(x, y, data_range=20), rmse,
                    normalised_rmse, total_error):
        found = measure(estimate, truth)
        assert found.shape == (2, 3)
        assert found[1, 2] == measure(estimate[1, 2], truth[1, 2])
    np.testing.assert_allclose(rmse(*(a.astype(np.float32) for a in pair)), rmse(*pair), rtol=1e-6)


def test_what_is_not_defined_is_nan(pair):
    estimate, truth = pair
    assert np.isnan(total_error(estimate, -truth)).all()
    assert np.isnan(normalised_rmse(estimate, 0 * truth)).all()


# --- Poisson deviance ---------------------------------------------------------------------------------------------

def test_deviance_in_closed_form():
    assert poisson_deviance(np.zeros((4, 4)), np.full((4, 4), 3.0)) == pytest.approx(6)
    assert poisson_deviance(np.full((4, 4), 3), np.full((4, 4), 3.0)) == pytest.approx(0, abs=1e-12)
    assert poisson_deviance(np.full((4, 4), 2), np.full((4, 4), 1.0)) == pytest.approx(2 * (2 * np.log(2) - 1))


@pytest.mark.parametrize(("mean", "about"), [(0.02, 0.15), (1.5, 1.16), (50.0, 1.0)])
def test_deviance_of_the_truth_is_its_expectation(mean, about):
    """About 1 for many counts, and much less for few."""
    expected = np.full((300, 400), mean)
    counts = np.random.default_rng(2).poisson(expected)
    expectation = expected_poisson_deviance(expected)
    assert expectation == pytest.approx(about, abs=0.01)
    bins = [poisson_deviance(np.array([[n]]), np.array([[mean]])) for n in counts.ravel()[:5000]]
    assert abs(poisson_deviance(counts, expected) - expectation) < SIGMAS * np.std(bins) / np.sqrt(counts.size)


@pytest.mark.parametrize("mean", [0.003, 0.4, 7.3, 59.9, 60.1, 300.0])
def test_expected_deviance_is_the_sum_over_all_counts(mean):
    n = np.arange(1000)
    deviance = np.array([poisson_deviance(np.array([[k]]), np.array([[mean]])) for k in n])
    assert expected_poisson_deviance([[mean]]) == pytest.approx(stats.poisson(mean).pmf(n) @ deviance, rel=2e-4)


def test_deviance_is_least_at_the_mean():
    counts = np.random.default_rng(3).poisson(2.0, (30, 30))
    values = [poisson_deviance(counts, np.full(counts.shape, counts.mean() * f)) for f in (0.9, 0.99, 1, 1.01, 1.1)]
    assert np.argmin(values) == 2


def test_impossible_means_are_raised_to_the_floor():
    counts = np.array([[1.0, 0.0], [2.0, 3.0]])
    low = poisson_deviance(counts, np.array([[-1.0, 0.0], [2.0, 3.0]]), floor=0.01)
    assert low == pytest.approx(poisson_deviance(counts, np.array([[0.01, 0.01], [2.0, 3.0]])))
    assert expected_poisson_deviance([[-1.0]], floor=0.5) == expected_poisson_deviance([[0.5]])


# --- Refusals -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("wrong", [0, -1.0, np.nan, np.inf, "wide", True])
def test_a_range_is_one_positive_number(pair, wrong):
    for measure in (psnr, ssim):
        with pytest.raises(InputError, match="data_range must be a finite number greater than zero"):
            measure(*pair, data_range=wrong)


def test_a_range_for_each_image_is_refused(pair):
    with pytest.raises(InputError, match=r"data_range must be one number for all items.*shape \(2, 3\)"):
        psnr(*pair, data_range=pair[1].max((-2, -1)))


def test_wrong_arrays_are_refused(pair):
    estimate, truth = pair
    with pytest.raises(InputError, match=r"estimate must have the shape of truth, \(2, 3, 24, 17\)"):
        rmse(estimate[:, :2], truth)
    with pytest.raises(InputError, match=r"shape \(..., rows, columns\)"):
        rmse(estimate[0, 0, 0], truth[0, 0, 0])
    with pytest.raises(InputError, match="hold something"):
        rmse(estimate[:0], truth[:0])
    with pytest.raises(InputError, match="at least 11 rows and columns"):
        ssim(estimate[..., :10], truth[..., :10], data_range=1)
    bad = truth.copy()
    bad[0, 1, 2, 3] = np.nan
    for names in (("estimate", bad, truth), ("truth", estimate, bad)):
        with pytest.raises(InputError, match=f"{names[0]} must be finite"):
            total_error(*names[1:])
    with pytest.raises(InputError, match="counts must not be negative"):
        poisson_deviance(-truth, truth)
    with pytest.raises(InputError, match="floor must be"):
        poisson_deviance(truth, truth, floor=0)
