"""Counting statistics. The false-alarm rate of every statistical check is below 1e-4, and the seeds are fixed."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from allpet_physics.counts import poisson_counts, scale_to_counts, thin
from allpet_physics.errors import InputError

FALSE_ALARM = 1e-4


@pytest.fixture
def rng():
    return np.random.default_rng(2024)


def assert_poisson(counts, mean):
    """Chi-square of the histogram against the Poisson law, cells of at least 10 expected draws."""
    edges = stats.poisson.ppf(np.linspace(0, 1, 21), mean)
    edges = np.unique(edges[np.isfinite(edges)])
    cells = np.concatenate([[-1], edges, [np.inf]])
    expected = np.diff(stats.poisson.cdf(cells, mean)) * counts.size
    observed = np.array([((counts > low) & (counts <= high)).sum() for low, high in pairwise(cells)])
    keep = expected >= 10
    expected = np.append(expected[keep], expected[~keep].sum())
    observed = np.append(observed[keep], observed[~keep].sum())
    use = expected > 1e-9
    assert stats.chisquare(observed[use], expected[use]).pvalue > FALSE_ALARM


@pytest.mark.parametrize("mean", [0.3, 4.0, 60.0, 5000.0])
def test_draws_follow_poissons_law(mean, rng):
    counts = poisson_counts(np.full(20_000, mean), rng)
    assert counts.dtype == np.int64
    assert_poisson(counts, mean)


def test_draws_depend_on_the_generator_alone():
    mean = np.linspace(0, 9, 60).reshape(3, 4, 5)
    first, again, other = (poisson_counts(mean, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first[0, 0, 0] == 0
    assert first.shape == mean.shape
    assert poisson_counts(3.0, np.random.default_rng(0)).shape == ()


@pytest.mark.parametrize(("mean", "fraction"), [(2.0, 0.5), (40.0, 0.25), (900.0, 0.01)])
def test_thinned_poisson_counts_are_poisson_and_independent_of_the_rest(mean, fraction, rng):
    counts = poisson_counts(np.full(20_000, mean), rng)
    kept = thin(counts, fraction, rng)
    assert_poisson(kept, mean * fraction)
    assert_poisson(counts - kept, mean * (1 - fraction))
    assert stats.pearsonr(kept, counts - kept).pvalue > FALSE_ALARM


def test_given_the_counts_thinning_is_binomial(rng):
    kept = thin(np.full(20_000, 12), 0.3, rng)
    expected = stats.binom.pmf(np.arange(13), 12, 0.3) * kept.size
    observed = np.bincount(kept, minlength=13)
    tail = expected < 10
    observed, expected = (np.append(a[~tail], a[tail].sum()) for a in (observed, expected))
    assert stats.chisquare(observed, expected).pvalue > FALSE_ALARM


@given(seed=st.integers(0, 2**32 - 1), fraction=st.floats(0, 1),
       dtype=st.sampled_from(["u1", "u2", "i4", "i8", "u8", "f4", "f8", ">f4", ">i2"]))
@settings(max_examples=40, deadline=None)
def test_thinning_keeps_dtype_shape_and_bounds(seed, fraction, dtype):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 200, (2, 3, 7)).astype(dtype)
    kept = thin(counts, fraction, rng)
    assert kept.dtype == counts.dtype
    assert kept.shape == counts.shape
    assert ((kept >= 0) & (kept <= counts)).all()
    np.testing.assert_array_equal(thin(counts, 1.0, rng), counts)
    assert not thin(counts, 0, rng).any()
    assert thin(counts, [[[0.0]], [[1.0]]], rng)[0].sum() == 0
    assert thin(counts[0, 0, 0], fraction, rng).shape == ()


def test_large_counts_are_thinned_exactly(rng):
    kept = thin(np.full(1000, 10**12), 0.5, rng)
    z = (kept.mean() - 5e11) / (np.sqrt(10**12 * 0.25) / np.sqrt(1000))
    assert abs(z) < stats.norm.isf(FALSE_ALARM / 2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sinograms_are_scaled_to_their_budgets(dtype, rng):
    mean = rng.random((2, 3, 40, 50)).astype(dtype)
    scaled = scale_to_counts(mean, 2e6)
    assert scaled.dtype == dtype
    np.testing.assert_allclose(scaled.sum(axis=(2, 3), dtype=np.float64), 2e6, rtol=1e-6)
    np.testing.assert_allclose(scaled / scaled[..., :1, :1], mean / mean[..., :1, :1], rtol=1e-5)
    totals = rng.uniform(1, 10, (2, 3))
    np.testing.assert_allclose(scale_to_counts(mean, totals).sum(axis=(2, 3), dtype=np.float64), totals, rtol=1e-6)
    assert scale_to_counts(mean[0, 0], 5).sum() == pytest.approx(5, rel=1e-5)


def test_wrong_input_is_named(rng):
    for wrong, message in [(-1.0, "mean must not be negative"), (np.nan, "mean must be finite"), (1e19, "at most 1e")]:
        with pytest.raises(InputError, match=message):
            poisson_counts(np.array([1.0, wrong]), rng)
    for wrong in (None, 3, np.random.RandomState(0)):
        with pytest.raises(InputError, match="rng must be a numpy"):
            poisson_counts(np.ones(2), wrong)
        with pytest.raises(InputError, match="rng must be a numpy"):
            thin(np.ones(2), 0.5, wrong)
    with pytest.raises(InputError, match="counts must be integers, but held 0"):
        thin([1.0, 0.5], 0.5, rng)
    with pytest.raises(InputError, match="counts must not be negative"):
        thin([1, -2], 0.5, rng)
    with pytest.raises(InputError, match="counts must not be negative"):
        thin([1.0, -2.0], 0.5, rng)
    with pytest.raises(InputError, match="counts must be finite"):
        thin([1.0, np.inf], 0.5, rng)
    with pytest.raises(InputError, match="counts must be below"):
        thin(np.array([2**64 - 1], np.uint64), 0.5, rng)
    with pytest.raises(InputError, match="dtype was bool"):
        thin([True], 0.5, rng)
    for wrong in (-0.1, 1.1, [0.5, 2.0]):
        with pytest.raises(InputError, match="fraction must be from 0 to 1"):
            thin([1, 2], wrong, rng)
    with pytest.raises(InputError, match="fraction must be broadcastable"):
        thin([1, 2], [0.1, 0.2, 0.3], rng)
    with pytest.raises(InputError, match="mean must have a positive sum"):
        scale_to_counts(np.zeros((2, 3, 3)), 1.0)
    for wrong in (0, -5, np.inf):
        with pytest.raises(InputError, match="total must be"):
            scale_to_counts(np.ones((3, 3)), wrong)
    with pytest.raises(InputError, match="total must be one number"):
        scale_to_counts(np.ones((2, 3, 3)), [1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="mean must have shape"):
        scale_to_counts(np.ones(3), 1.0)
