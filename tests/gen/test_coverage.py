"""Intervals of posterior samples: exact ranks, nominal coverage for an exact posterior, and refusal of too few."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allpet_gen.evaluation import coverage
from allpet_gen.evaluation.coverage import central_interval, interval_coverage, region_samples
from allpet_physics.errors import InputError

#: Bound of statistical tests in standard deviations; every seed is fixed.
SIGMAS = 4


def posterior(rng, n, samples, shape):
    """Return truths (n, *shape) and samples (n, samples, *shape) of their exact posteriors.

    A truth is a part common to its bins plus one of each bin, both N(0, 1) and measured with noise N(0, 1): the
    posterior of a part is N(half of what was measured, 1/2), so that bins of a sample go together.
    """
    parts = [rng.standard_normal((n, *size)) for size in ((1,) * len(shape), shape)]
    measured = [part + rng.standard_normal(part.shape) for part in parts]
    drawn = [m[:, None] / 2 + rng.standard_normal((n, samples, *m.shape[1:])) / np.sqrt(2) for m in measured]
    return sum(parts), sum(drawn)


@pytest.mark.parametrize(("samples", "ranks"), [(19, (1, 19)), (39, (2, 38)), (99, (5, 95))])
def test_the_ends_are_order_statistics(samples, ranks):
    values = np.random.default_rng(0).permutation(np.arange(1.0, samples + 1))
    lower, upper = central_interval(np.stack([values, 10 * values])[..., None], level=0.9)
    np.testing.assert_allclose(lower, [[ranks[0]], [10 * ranks[0]]], rtol=1e-12)
    np.testing.assert_allclose(upper, [[ranks[1]], [10 * ranks[1]]], rtol=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.integers(3, 200), st.floats(0.05, 0.99))
def test_the_rank_is_p_times_one_more_than_the_samples(samples, level):
    """Equally spaced samples 1 … S: interpolation between ranks is the rank itself."""
    values = np.arange(1.0, samples + 1)[None]
    if (1 - level) / 2 * (samples + 1) < 1 - 1e-6:
        with pytest.raises(InputError, match="samples must be at least"):
            central_interval(values, level=level)
        return
    lower, upper = central_interval(values, level=level)
    assert lower[0] == pytest.approx((1 - level) / 2 * (samples + 1), rel=1e-6)
    assert lower[0] + upper[0] == pytest.approx(samples + 1)


def test_sorting_by_parts_changes_nothing(monkeypatch):
    drawn = np.random.default_rng(10).standard_normal((7, 25, 3, 2))
    whole = central_interval(drawn)
    monkeypatch.setattr(coverage, "_AT_ONCE", 500)
    np.testing.assert_array_equal(central_interval(drawn), whole)


@pytest.mark.parametrize(("samples", "level"), [(19, 0.9), (39, 0.9), (19, 0.8), (3, 0.5), (99, 0.98)])
def test_samples_of_the_true_posterior_have_the_nominal_coverage(samples, level):
    n = 20_000
    rng = np.random.default_rng(samples)
    truth, drawn = posterior(rng, n, samples, (1, 1))
    found = interval_coverage(*central_interval(drawn, level=level), truth)
    error = np.sqrt(level * (1 - level) / n)
    assert abs(found["inside"].mean() - level) < SIGMAS * error
    for side in ("below", "above"):
        assert abs(found[side].mean() - (1 - level) / 2) < SIGMAS * error


def test_no_interval_of_so_many_samples_covers_more_than_their_range():
    """(S − 1)/(S + 1): 0.8 for 9 samples."""
    truth, drawn = posterior(np.random.default_rng(1), 20_000, 9, (1, 1))
    found = interval_coverage(drawn.min(axis=1), drawn.max(axis=1), truth)
    assert found["inside"].mean() == pytest.approx(0.8, abs=SIGMAS * np.sqrt(0.16 / 20_000))
    lower, upper = central_interval(drawn, level=0.8)
    np.testing.assert_array_equal(lower, drawn.min(axis=1))
    np.testing.assert_array_equal(upper, drawn.max(axis=1))


def test_ranks_between_samples_are_close():
    """At most 0.01 from nominal for a normal posterior, at the worst number of samples."""
    truth, drawn = posterior(np.random.default_rng(2), 40_000, 29, (1, 1))
    found = interval_coverage(*central_interval(drawn), truth)["inside"].mean()
    assert 0.9 - 0.006 < found < 0.91 + 0.006


def test_bins_and_regions_of_an_exact_posterior_are_covered():
    rng = np.random.default_rng(3)
    truth, drawn = posterior(rng, 3000, 19, (4, 4))
    mask = np.zeros((2, 3000, 4, 4), dtype=bool)
    mask[0, :, :2], mask[1, 1:, 3] = True, True
    found = interval_coverage(*central_interval(drawn), truth, regions={"a": mask, "all": mask[0] | True},
                              samples=drawn)
    assert found["inside"].mean() == pytest.approx(0.9, abs=0.01)
    assert found["degenerate"].max() == 0
    np.testing.assert_allclose(found["inside"] + found["below"] + found["above"], 1)
    error = np.sqrt(0.09 / 3000)
    for values in (*found["regions"]["a"]["inside"], found["regions"]["all"]["inside"][0]):
        assert abs(np.nanmean(values) - 0.9) < SIGMAS * error
    assert np.isnan(found["regions"]["a"]["inside"][1, 0])
    assert np.isnan(found["regions"]["a"]["width"][1, 0])
    assert not np.isnan(found["regions"]["a"]["inside"][0]).any()


def test_the_interval_of_a_mean_is_not_the_mean_of_intervals():
    """16 independent bins: their mean's interval is a quarter as wide."""
    drawn = np.random.default_rng(4).standard_normal((50, 99, 4, 4))
    everywhere = np.ones((50, 4, 4), dtype=bool)
    found = interval_coverage(*central_interval(drawn), drawn[:, 0], regions={"all": everywhere}, samples=drawn)
    assert found["regions"]["all"]["width"].mean() / found["width"].mean() == pytest.approx(0.25, rel=0.05)


def test_overconfident_and_biased_samples_are_found_out():
    truth, drawn = posterior(np.random.default_rng(5), 2000, 19, (1, 1))
    narrow = drawn.mean(axis=1, keepdims=True) + 0.3 * (drawn - drawn.mean(axis=1, keepdims=True))
    assert interval_coverage(*central_interval(narrow), truth)["inside"].mean() < 0.6
    high = interval_coverage(*central_interval(drawn + 1), truth)
    assert high["below"].mean() > 5 * high["above"].mean()


def test_bins_that_say_nothing_are_told():
    truth, drawn = np.zeros((2, 4, 4)), np.zeros((2, 19, 4, 4))
    drawn[0, :, 0] = np.random.default_rng(6).random((19, 4))
    found = interval_coverage(*central_interval(drawn), truth)
    np.testing.assert_allclose(found["degenerate"], [0.75, 1])
    np.testing.assert_allclose(found["inside"], [0.75, 1])
    np.testing.assert_allclose(found["below"], [0.25, 0])


def test_region_samples_are_means():
    drawn = np.random.default_rng(7).random((2, 5, 3, 4)).astype(np.float32)
    mask = np.zeros((2, 3, 4), dtype=bool)
    mask[0, 1, 2:] = True
    found = region_samples(drawn, mask)
    assert found.shape == (2, 5, 1)
    np.testing.assert_allclose(found[0, :, 0], drawn[0, :, 1, 2:].mean(axis=1), rtol=1e-6)
    assert np.isnan(found[1]).all()


def test_too_few_samples_are_refused():
    drawn = np.random.default_rng(8).random((3, 18, 2, 2))
    with pytest.raises(InputError, match=r"at least 19 for an interval of level 0.9, but were 18.*0.895 of cases"):
        central_interval(drawn)
    with pytest.raises(InputError, match=r"at least 39 for an interval of level 0.95"):
        central_interval(drawn, level=0.95)
    central_interval(drawn, level=0.89)


def test_what_cannot_be_is_said():
    rng = np.random.default_rng(9)
    truth, drawn = rng.random((3, 2, 2)), rng.random((3, 19, 2, 2))
    lower, upper = central_interval(drawn)
    masks = {"a": np.ones((3, 2, 2), dtype=bool)}
    with pytest.raises(InputError, match=r"lower and upper must have the truth's shape \(n, ...\), \(2, 2, 2\)"):
        interval_coverage(lower, upper, truth[:2])
    with pytest.raises(InputError, match=r"lower must be at most upper.*exchanged"):
        interval_coverage(upper, lower, truth)
    with pytest.raises(InputError, match="truth must be finite"):
        interval_coverage(lower, upper, truth * np.nan)
    with pytest.raises(InputError, match="samples must be given with regions"):
        interval_coverage(lower, upper, truth, regions=masks)
    with pytest.raises(InputError, match=r"samples must have shape \(n, samples, rows, columns\) around"):
        interval_coverage(lower, upper, truth, regions=masks, samples=drawn[:2])
    with pytest.raises(InputError, match="samples must be finite"):
        central_interval(drawn * np.inf)
    with pytest.raises(InputError, match=r"samples must have shape \(n, samples, ...\)"):
        central_interval(drawn[0, :, 0, 0])
    with pytest.raises(InputError, match=r"samples must have shape \(n, samples, rows, columns\) for regions"):
        region_samples(drawn[0], masks["a"])
    with pytest.raises(InputError, match="level must be between 0 and 1"):
        central_interval(drawn, level=90)
