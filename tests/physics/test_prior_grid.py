"""The union bound over a grid of priors: δ is shared, and the best is honest although it was chosen."""

from functools import partial

import numpy as np
import pytest

from allpet_physics.errors import InputError
from allpet_physics.pac_bayes import (
    best_over_grid,
    catoni_bound,
    diagonal_gaussian_kl,
    mcallester_bound,
    monte_carlo_risk_bound,
    seeger_maurer_bound,
    union_over_grid,
)

KL = np.array([9.0, 1.0, 4.0])


def test_the_shares_add_up():
    np.testing.assert_allclose(union_over_grid(0.05, 4), [0.0125] * 4, rtol=1e-15)
    np.testing.assert_allclose(union_over_grid(0.1, 3, weights=[0.5, 0.3, 0.2]), [0.05, 0.03, 0.02], rtol=1e-6)
    assert union_over_grid(0.1, 3, weights=np.full(3, 1 / 3, np.float32)).sum() <= 0.1 * (1 + 1e-15)


def test_one_point_costs_nothing_and_more_points_cost():
    alone = seeger_maurer_bound(0.2, 1.0, 14, 0.05)
    assert best_over_grid(seeger_maurer_bound, 0.2, [1.0], 14, 0.05).bound == alone
    assert best_over_grid(seeger_maurer_bound, 0.2, KL, 14, 0.05).bound > alone


def test_the_best_point_is_found_with_the_delta_it_had():
    best = best_over_grid(mcallester_bound, [0.2, 0.3, 0.1], KL, 14, 0.05, weights=[0.2, 0.2, 0.6])
    np.testing.assert_array_equal(best.bounds, mcallester_bound([0.2, 0.3, 0.1], KL, 14, best.deltas))
    np.testing.assert_allclose(best.deltas, [0.01, 0.01, 0.03], rtol=1e-12)
    assert best.bound == best.bounds.min() == best.bounds[best.index]
    assert best.index == 2


def test_a_larger_share_helps_its_point():
    even, uneven = (best_over_grid(seeger_maurer_bound, 0.2, KL, 14, 0.05, weights=w)
                    for w in (None, [0.05, 0.9, 0.05]))
    assert even.index == uneven.index == 1
    assert uneven.bound < even.bound


def test_a_grid_of_widths_and_of_rates():
    theta, sigma = np.full(50, 0.3), np.geomspace(0.01, 10, 9)
    kl = diagonal_gaussian_kl(theta, 0.2**2, 0, sigma[:, np.newaxis] ** 2)
    means = monte_carlo_risk_bound(np.full(9, 0.1), 300, union_over_grid(0.01, 9))
    widths = best_over_grid(seeger_maurer_bound, means, kl, 14, 0.04)
    assert widths.index == np.argmin(kl)
    assert 0 < widths.index < 8
    rates = best_over_grid(partial(catoni_bound, rate=sigma), 0.1, np.full(9, 2.0), 14, 0.04)
    assert 0 < rates.index < 8


def test_sharing_delta_keeps_a_chosen_bound_honest_and_not_sharing_does_not():
    """Many priors, each on one fair coin, so KL = 0; whoever picks the luckiest coin must pay for having looked."""
    rng, k, n, delta = np.random.default_rng(5), 200, 10, 0.3
    lucky = rng.binomial(n, 0.5, (1000, k)) / n
    shared = np.array([best_over_grid(seeger_maurer_bound, row, np.zeros(k), n, delta).bound for row in lucky[:200]])
    assert (shared < 0.5).mean() <= delta
    alone = seeger_maurer_bound(lucky, 0, n, delta).min(axis=1)
    assert (alone < 0.5).mean() > delta


@pytest.mark.parametrize(("call", "message"), [
    (lambda: union_over_grid(1.0, 3), "delta must be between 0 and 1"),
    (lambda: union_over_grid([0.1, 0.2], 3), "delta must be one number"),
    (lambda: union_over_grid(0.1, 0), "n_grid must be an integer of at least 1"),
    (lambda: union_over_grid(0.1, 2, weights=[0.5, 0.6]), "weights must be 2 positive numbers"),
    (lambda: union_over_grid(0.1, 2, weights=[1.0, 0.0]), "weights must be 2 positive numbers"),
    (lambda: union_over_grid(0.1, 2, weights=[1.0]), "weights must be 2 positive numbers"),
    (lambda: best_over_grid("seeger", 0.2, KL, 14, 0.05), "bound must be a function such as seeger_maurer_bound"),
    (lambda: best_over_grid(seeger_maurer_bound, 0.2, 1.0, 14, 0.05), r"kl must have shape \(k,\)"),
    (lambda: best_over_grid(seeger_maurer_bound, [[0.2], [0.3]], KL, 14, 0.05), "empirical_risk and n must be numbers"),
])
def test_mistakes_are_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
