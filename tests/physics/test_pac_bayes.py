"""PAC-Bayes bounds: their equations, their order, and how often they fail on a problem whose risk is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from allpet_physics.errors import InputError
from allpet_physics.pac_bayes import (
    binary_kl,
    binary_kl_inverse,
    catoni_bound,
    certified_bound,
    mcallester_bound,
    monte_carlo_risk_bound,
    seeger_maurer_bound,
)

REPETITIONS = 1000
DELTA = 0.1
#: The rate of Catoni's bound in simulations, fixed before their data.
RATE = 1.5
ROUNDING = 1e-12

unit = st.floats(0, 1)
divergence = st.floats(0, 200)
count = st.integers(1, 3000)
confidence = st.floats(1e-6, 0.999)


def catoni(risk, kl, n, delta):
    return catoni_bound(risk, kl, n, delta, rate=RATE)


BOUNDS = [seeger_maurer_bound, mcallester_bound, catoni]


def moment(n, delta=0.2):
    """Return the moment ξ(n) that the closed form pays for."""
    return delta * np.exp(2 * n * mcallester_bound(0, 0, n, delta) ** 2)


def test_the_moment_is_paid_for_at_every_n_and_hardly_more():
    """The sum of (PB11), the worst case of the moment, by the probabilities of the binomial distribution."""
    n = np.arange(1, 500)
    exact = np.array([stats.binom.pmf(np.arange(i + 1), i, np.arange(i + 1) / i).sum() for i in n])
    assert (exact <= moment(n) * (1 + ROUNDING)).all()
    assert (exact > 0.5 * moment(n)).all()


def test_coins_have_the_largest_moment_of_all_losses():
    n, risk = 6, 0.3
    k = np.arange(n + 1)
    coins = stats.binom.pmf(k, n, risk) @ np.exp(n * binary_kl(k / n, risk))
    losses = np.random.default_rng(0).beta(3, 7, (20_000, n))
    assert np.exp(n * binary_kl(losses.mean(axis=1), risk)).mean() < coins < moment(n)


def test_the_moment_is_n_plus_1_below_8_and_maurers_from_there():
    np.testing.assert_allclose(moment(np.arange(1, 8)), np.arange(2, 9), rtol=1e-12)
    n = np.array([8, 14, 500])
    np.testing.assert_allclose(moment(n), 2 * np.sqrt(n), rtol=1e-12)


def test_seegers_bound_divides_the_whole_numerator_by_n():
    """Equation 19 with its brackets: each nat of KL costs 1/n."""
    bounds = seeger_maurer_bound(0.2, np.array([0.0, 1.0, 2.5]), 5, 0.05)
    np.testing.assert_allclose(5 * binary_kl(0.2, bounds), np.array([0, 1, 2.5]) + np.log(6 / 0.05), rtol=1e-12)


def test_without_losses_the_bound_is_known():
    assert seeger_maurer_bound(0, 2.0, 100, 0.05) == pytest.approx(-np.expm1(-(2 + np.log(20 / 0.05)) / 100), rel=1e-14)


@settings(deadline=None, max_examples=200)
@given(unit, divergence, count, confidence)
def test_the_closed_form_is_never_below_the_inverse(risk, kl, n, delta):
    seeger = seeger_maurer_bound(risk, kl, n, delta)
    assert risk <= seeger <= 1
    assert seeger <= mcallester_bound(risk, kl, n, delta) + ROUNDING


@settings(deadline=None, max_examples=100)
@given(unit, divergence, count, confidence, st.floats(0, 1), st.sampled_from(BOUNDS))
def test_bounds_grow_with_risk_and_divergence_and_fall_with_n_and_delta(risk, kl, n, delta, step, bound):
    value = bound(risk, kl, n, delta) + ROUNDING
    assert bound(risk * (1 - step), kl, n, delta) <= value
    assert bound(risk, kl * (1 - step), n, delta) <= value
    assert bound(risk, kl, n + int(20 * step), delta) <= value
    assert bound(risk, kl, n, delta + step * (0.999 - delta)) <= value


@pytest.mark.parametrize("bound", BOUNDS)
def test_bounds_move_at_all(bound):
    value = bound(0.2, 2.0, 50, 0.05)
    assert bound(0.1, 2.0, 50, 0.05) < value < bound(0.2, 3.0, 50, 0.05)
    assert bound(0.2, 2.0, 51, 0.05) < value < bound(0.2, 2.0, 50, 0.04)


@pytest.mark.parametrize(("risk", "kl"), [(0.02, 0.5), (0.3, 4.0), (0.7, 0.0)])
def test_the_best_rate_reaches_the_inverse_without_the_moment_and_no_rate_beats_it(risk, kl):
    bounds = catoni_bound(risk, kl, 40, 0.05, rate=np.geomspace(1e-3, 30, 4000))
    floor = binary_kl_inverse(risk, (kl - np.log(0.05)) / 40)
    assert floor - ROUNDING <= bounds.min() < floor + 1e-5
    assert bounds.min() < seeger_maurer_bound(risk, kl, 40, 0.05)


def test_an_infinite_divergence_says_nothing():
    assert seeger_maurer_bound(0.1, np.inf, 10, 0.05) == 1
    assert mcallester_bound(0.1, np.inf, 10, 0.05) == np.inf
    assert catoni(0.1, np.inf, 10, 0.05) > 1


def test_shapes_broadcast():
    n = np.array([7, 14, 500])
    for bound in BOUNDS:
        table = bound(np.array([[0.1], [0.2]]), 1.0, n, 0.05)
        assert table.shape == (2, 3)
        assert table[1, 2] == bound(0.2, 1.0, 500, 0.05)


class Problem:
    """Twenty hypotheses of known risk, a uniform prior, and the Gibbs posterior of each of many samples."""

    def __init__(self, losses, n=20, sharpness=2.0, seed=11):
        rng = np.random.default_rng(seed)
        risks = np.linspace(0.35, 0.65, 20)
        size = (REPETITIONS, n, risks.size)
        if losses == "coins":
            sample = rng.random(size) < risks
        else:
            sample = rng.beta(risks, 1 - risks, size)
        empirical = sample.mean(axis=1)
        posterior = np.exp(-sharpness * n * empirical)
        posterior /= posterior.sum(axis=1, keepdims=True)
        self.n, self.rng, self.empirical, self.posterior = n, rng, empirical, posterior
        self.kl = np.sum(posterior * np.log(posterior * risks.size), axis=1)
        self.empirical_risk = np.minimum(np.sum(posterior * empirical, axis=1), 1)
        self.risk = posterior @ risks

    def mean_of_draws(self, m):
        drawn = self.rng.multinomial(m, self.posterior) / m
        return np.sum(drawn * self.empirical, axis=1)


@pytest.mark.parametrize("losses", ["coins", "fractions"])
@pytest.mark.parametrize("bound", BOUNDS)
def test_the_bounds_fail_no_more_often_than_they_may(bound, losses):
    problem = Problem(losses)
    bounds = bound(problem.empirical_risk, problem.kl, problem.n, DELTA)
    assert (problem.risk > bounds).mean() <= DELTA
    assert bounds.mean() < 0.9


@pytest.mark.parametrize("bound", BOUNDS)
def test_counting_slices_as_patients_makes_them_fail_too_often(bound):
    problem = Problem("coins")
    bounds = bound(problem.empirical_risk, problem.kl, 10 * problem.n, DELTA)
    assert (problem.risk > bounds).mean() > 2 * DELTA


def failures_of_the_draws(m, claimed):
    """Return the chance that m draws, claimed to be more, give a bound below each of many Gibbs risks; exact."""
    risk, k = np.linspace(0.01, 0.99, 99)[:, np.newaxis], np.arange(m + 1)
    too_low = monte_carlo_risk_bound(k / m, claimed, DELTA) < risk
    return np.sum(stats.binom.pmf(k, m, risk) * too_low, axis=1)


def test_the_bound_of_the_draws_fails_no_more_often_than_half_its_delta():
    for m in (1, 10, 100, 500):
        assert failures_of_the_draws(m, m).max() <= DELTA / 2
    assert failures_of_the_draws(100, 1000).max() > 2 * DELTA


def test_draws_are_paid_for_and_vanish_with_their_number():
    mean, kl, n = 0.2, 1.0, 60
    few, many = (certified_bound(mean, m, kl, n, 0.04, 0.01) for m in (100, 10**9))
    assert few > many > seeger_maurer_bound(mean, kl, n, 0.04)
    assert many == pytest.approx(seeger_maurer_bound(mean, kl, n, 0.04), abs=1e-4)
    assert few == seeger_maurer_bound(monte_carlo_risk_bound(mean, 100, 0.01), kl, n, 0.04)


def test_the_certified_bound_fails_no_more_often_than_both_deltas():
    problem = Problem("coins")
    m = 50
    mean = problem.mean_of_draws(m)
    honest = certified_bound(mean, m, problem.kl, problem.n, DELTA, DELTA / 2)
    assert (problem.risk > honest).mean() <= 1.5 * DELTA
    inflated = certified_bound(mean, 10 * m, problem.kl, 10 * problem.n, DELTA, DELTA / 2)
    assert (problem.risk > inflated).mean() > 1.5 * DELTA


@pytest.mark.parametrize(("call", "message"), [
    (lambda: seeger_maurer_bound(1.2, 1, 10, 0.1), r"empirical_risk must be in \[0, 1\]"),
    (lambda: mcallester_bound(0.2, -1, 10, 0.1), "kl must be at least 0"),
    (lambda: mcallester_bound(0.2, np.nan, 10, 0.1), "kl must be at least 0 and not NaN"),
    (lambda: seeger_maurer_bound(0.2, 1, 0, 0.1), "n must be a positive integer"),
    (lambda: seeger_maurer_bound(0.2, 1, 10.0, 0.1), "n must be a positive integer"),
    (lambda: seeger_maurer_bound(0.2, 1, True, 0.1), "n must be a positive integer"),
    (lambda: seeger_maurer_bound(0.2, 1, 10, 0), "delta must be between 0 and 1"),
    (lambda: seeger_maurer_bound(0.2, 1, 10, 1), "delta must be between 0 and 1"),
    (lambda: seeger_maurer_bound([0.2, 0.3], [1, 2, 3], 10, 0.1), "must have shapes that broadcast"),
    (lambda: catoni_bound(0.2, 1, 10, 0.1, rate=0), "rate must be positive and finite"),
    (lambda: monte_carlo_risk_bound(0.2, 0, 0.1), "m must be a positive integer"),
    (lambda: monte_carlo_risk_bound(-0.1, 10, 0.1), "empirical_mean must be in"),
    (lambda: certified_bound(0.2, 10, 1, 10, 0.5, 0.5), "delta . delta_monte_carlo must be below 1"),
    (lambda: certified_bound(0.2, 10, 1, 10, 0.5, 1.5), "delta_monte_carlo must be between 0 and 1"),
])
def test_mistakes_are_named(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
