"""Divergences: to 1e-12 of 50-digit arithmetic, to the ends of the unit interval, and against integration and draws."""

import mpmath
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mpmath import mpf
from scipy import integrate, stats

from allpet_physics.errors import InputError
from allpet_physics.relative_entropy import binary_kl, binary_kl_inverse, diagonal_gaussian_kl, gaussian_kl

#: Frequencies and probabilities near both ends and between.
UNIT = np.array([0, 1e-18, 1e-12, 1e-8, 1e-4, 0.01, 0.2, 0.5, 0.77, 0.99, 1 - 1e-4, 1 - 1e-8, 1 - 1e-12, 1 - 2**-53, 1])
BUDGETS = np.array([1e-30, 1e-18, 1e-14, 1e-10, 1e-6, 1e-3, 0.02, 0.3, 1, 4, 20, 300, 1e5])
ACCURACY = 1e-12
#: Bound of statistical tests in standard deviations; every seed is fixed.
SIGMAS = 4


@pytest.fixture(autouse=True)
def fifty_digits():
    with mpmath.workdps(50):
        yield


def exact_kl(q, p):
    """Return kl in the working precision of mpmath, as its definition stands."""
    terms = [a * mpmath.log(a / b) if b else mpmath.inf for a, b in ((q, p), (1 - q, 1 - p)) if a]
    return mpmath.fsum(terms)


def exact_inverse(q, c, side):
    """Return the inverse by bisection alone."""
    inside, outside = q, mpf(1 if side == "upper" else 0)
    if exact_kl(q, outside) <= c:
        return outside
    for _ in range(100):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if exact_kl(q, middle) <= c else (inside, middle)
    return inside


def largest_error(values, reference):
    return max(float(abs(mpf(float(v)) - r)) for v, r in zip(np.ravel(values), reference, strict=True))


def test_the_relative_entropy_keeps_its_digits_where_q_and_p_are_nearly_equal():
    q, p = (a.ravel() for a in np.meshgrid(UNIT[1:-1], UNIT[1:-1]))
    p = np.append(p, np.minimum(UNIT[1:-2] * (1 + 1e-9), 1))
    q = np.append(q, UNIT[1:-2])
    reference = np.array([float(exact_kl(mpf(float(a)), mpf(float(b)))) for a, b in zip(q, p, strict=True)])
    np.testing.assert_allclose(binary_kl(q, p), reference, rtol=1e-14, atol=1e-45)


def test_the_relative_entropy_at_the_ends():
    np.testing.assert_array_equal(binary_kl([0, 1, 0.3, 0.3, 0, 1, 0.3], [0, 1, 0, 1, 1, 0, 0.3]),
                                  [0, 0, np.inf, np.inf, np.inf, np.inf, 0])
    p = np.array([1e-300, 0.25, 0.75])
    np.testing.assert_allclose(binary_kl(0, p), -np.log1p(-p), rtol=1e-15)
    np.testing.assert_allclose(binary_kl(1, p), -np.log(p), rtol=1e-15)


@pytest.mark.parametrize("side", ["upper", "lower"])
def test_the_inverse_over_the_unit_square(side):
    q, c = (a.ravel() for a in np.meshgrid(UNIT, BUDGETS))
    reference = [exact_inverse(mpf(float(a)), mpf(float(b)), side) for a, b in zip(q, c, strict=True)]
    assert largest_error(binary_kl_inverse(q, c, side=side), reference) < ACCURACY


@settings(deadline=None, max_examples=150)
@given(st.floats(0, 1), st.one_of(st.floats(0, 3), st.floats(-40, 6).map(lambda e: 10.0**e)),
       st.sampled_from(["upper", "lower"]))
@example(5e-324, 1e-300, "upper")
@example(1 - 2**-53, 1e300, "lower")
def test_the_inverse_of_any_frequency_and_budget(q, c, side):
    value = binary_kl_inverse(q, c, side=side)
    assert value >= q if side == "upper" else value <= q
    assert largest_error(value, [exact_inverse(mpf(q), mpf(c), side)]) < ACCURACY


def test_the_inverse_at_its_ends_is_exact():
    np.testing.assert_array_equal(binary_kl_inverse(UNIT, 0), UNIT)
    np.testing.assert_array_equal(binary_kl_inverse(UNIT, 0, side="lower"), UNIT)
    np.testing.assert_array_equal(binary_kl_inverse(UNIT, np.inf), 1)
    np.testing.assert_array_equal(binary_kl_inverse(UNIT, np.inf, side="lower"), 0)
    np.testing.assert_array_equal(binary_kl_inverse(1, BUDGETS), 1)
    np.testing.assert_array_equal(binary_kl_inverse(0, BUDGETS), -np.expm1(-BUDGETS))
    np.testing.assert_array_equal(binary_kl_inverse(1, BUDGETS, side="lower"), np.exp(-BUDGETS))


def test_small_frequencies_keep_their_relative_digits():
    q = np.array([1e-15, 1e-9, 1e-4])
    np.testing.assert_allclose(binary_kl(q, binary_kl_inverse(q, 3 * q)), 3 * q, rtol=1e-12)
    np.testing.assert_allclose(binary_kl(q, binary_kl_inverse(q, q / 3, side="lower")), q / 3, rtol=1e-12)


def test_shapes_broadcast_and_numbers_stay_numbers():
    assert binary_kl_inverse(np.zeros((3, 1)), np.ones(2)).shape == (3, 2)
    assert binary_kl(np.zeros((3, 1)), np.ones(2) / 2).dtype == np.float64
    assert isinstance(binary_kl_inverse(0.1, 0.2), np.float64)
    assert binary_kl_inverse([], 0.2).shape == (0,)


def test_one_dimension_is_the_integral():
    q, p = stats.norm(0.4, 0.7), stats.norm(-0.3, 1.9)
    integral, error = integrate.quad(lambda x: q.pdf(x) * (q.logpdf(x) - p.logpdf(x)), -9, 9, epsabs=1e-12)
    assert error < 1e-10
    assert diagonal_gaussian_kl([0.4], 0.7**2, [-0.3], 1.9**2) == pytest.approx(integral, abs=1e-9)
    assert gaussian_kl([0.4], [[0.7**2]], [-0.3], [[1.9**2]]) == pytest.approx(integral, abs=1e-9)


def covariance(rng, d):
    a = rng.standard_normal((d, d))
    return a @ a.T + 0.1 * np.eye(d)


def test_full_covariances_are_the_mean_over_draws():
    rng = np.random.default_rng(3)
    mean_q, mean_p = rng.standard_normal((2, 3))
    sigma_q, sigma_p = covariance(rng, 3), covariance(rng, 3)
    q, p = stats.multivariate_normal(mean_q, sigma_q), stats.multivariate_normal(mean_p, sigma_p)
    x = q.rvs(200_000, random_state=rng)
    ratio = q.logpdf(x) - p.logpdf(x)
    off = ratio.mean() - gaussian_kl(mean_q, sigma_q, mean_p, sigma_p)
    assert abs(off) < SIGMAS * ratio.std() / np.sqrt(len(x))


def test_full_covariances_change_with_the_axes_but_the_divergence_does_not():
    rng = np.random.default_rng(5)
    a, mean_q, mean_p = rng.standard_normal((4, 4)), *rng.standard_normal((2, 4))
    variance_q, variance_p = rng.uniform(0.2, 3, (2, 4))
    expected = diagonal_gaussian_kl(mean_q, variance_q, mean_p, variance_p)
    turned = gaussian_kl(a @ mean_q, a * variance_q @ a.T, a @ mean_p, a * variance_p @ a.T)
    assert turned == pytest.approx(expected, rel=1e-10)
    assert gaussian_kl(mean_q, covariance(rng, 4), mean_q, covariance(rng, 4)) > 0


def test_batches_of_full_covariances():
    rng = np.random.default_rng(6)
    sigma = np.stack([covariance(rng, 2) for _ in range(3)])
    means = rng.standard_normal((3, 2))
    batch = gaussian_kl(means, sigma, np.zeros(2), np.eye(2))
    assert batch.shape == (3,)
    single = [gaussian_kl(m, s, np.zeros(2), np.eye(2)) for m, s in zip(means, sigma, strict=True)]
    np.testing.assert_allclose(batch, single, rtol=1e-12)


def test_equal_widths_are_equation_24_and_a_grid_of_priors_is_a_batch():
    theta = np.random.default_rng(7).standard_normal(1000)
    sigma = np.array([0.1, 1.0, 7.0])
    np.testing.assert_allclose(diagonal_gaussian_kl(theta, sigma[:, np.newaxis] ** 2, 0, sigma[:, np.newaxis] ** 2),
                               theta @ theta / (2 * sigma**2), rtol=1e-12)


def test_widths_that_nearly_agree_or_are_far_apart_keep_their_digits():
    for v in (1 + 1e-9, 1e-30, 1e30, 0.4, 1.6):
        exact = float((mpf(v) - 1 - mpmath.log(mpf(v))) / 2)
        assert diagonal_gaussian_kl([0.0], v, [0.0], 1) == pytest.approx(exact, rel=1e-13)
        assert gaussian_kl([0.0], [[v]], [0.0], [[1.0]]) == pytest.approx(exact, rel=1e-13, abs=1e-22)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: binary_kl(1.1, 0.5), r"^q must be in \[0, 1\]"),
    (lambda: binary_kl([0.5, 0.2], [0.1, 0.2, 0.3]), "q and p must have shapes that broadcast"),
    (lambda: binary_kl_inverse(np.nan, 0.5), "q must be finite"),
    (lambda: binary_kl_inverse(0.5, -1e-9), "c must be at least 0"),
    (lambda: binary_kl_inverse(0.5, np.nan), "c must be at least 0 and not NaN"),
    (lambda: binary_kl_inverse(0.5, 0.1, side="left"), 'side must be "upper" or "lower"'),
    (lambda: gaussian_kl([0, 0], [[1, 2], [2, 1]], [0, 0], np.eye(2)), "covariance_q must be positive definite"),
    (lambda: gaussian_kl([0, 0], np.eye(2), [0, 0], [[1, 1], [1, 1]]), "covariance_p must be positive definite"),
    (lambda: gaussian_kl([0, 0], [[0.1, 0.3], [0.3, 0.9]], [0, 0], np.eye(2)), "covariance_q .* positive definite"),
    (lambda: gaussian_kl([0, 0], np.zeros((2, 2)), [0, 0], np.eye(2)), "covariance_q must be positive definite"),
    (lambda: gaussian_kl([0, 0], [[1, 0.5], [0, 1]], [0, 0], np.eye(2)), "covariance_q must be symmetric"),
    (lambda: gaussian_kl([0, 0], np.eye(3), [0, 0], np.eye(2)), r"covariance_q must have shape \(\.\.\., 2, 2\)"),
    (lambda: gaussian_kl([0, 0], np.eye(2), [0, 0, 0], np.eye(2)), r"mean_p must have shape \(\.\.\., 2\)"),
    (lambda: gaussian_kl(0, 1, 0, 1), r"mean_q must have shape \(\.\.\., d\)"),
    (lambda: diagonal_gaussian_kl([0.0], 0, [0.0], 1), "variance_q must be positive.*not a certificate"),
    (lambda: diagonal_gaussian_kl([0.0], 1, [0.0], [-1]), "variance_p must be positive"),
    (lambda: diagonal_gaussian_kl(0, 1, 0, 1), "how many components"),
    (lambda: diagonal_gaussian_kl([0, 0], [1, 1, 1], 0, 1), "must have shapes that broadcast"),
])
def test_mistakes_are_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_a_divergence_beyond_floats_is_infinite():
    assert gaussian_kl([1e200], [[1.0]], [0.0], [[1e-200]]) == np.inf
    assert diagonal_gaussian_kl([1e200], 1.0, [0.0], 1e-200) == np.inf
