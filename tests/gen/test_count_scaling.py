"""Count scaling: invertible, one scale for all, Poisson noise of one size, alike for arrays and tensors."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from allpet_gen.count_scaling import CountScaling
from allpet_physics.errors import InputError

SCALES = st.floats(1e-3, 1e6)
FEW = settings(deadline=None, max_examples=50)


def counts_of(dtype, largest):
    return hnp.arrays(dtype, hnp.array_shapes(max_dims=3, max_side=5),
                      elements=st.floats(0, largest, width=np.dtype(dtype).itemsize * 8))


@FEW
@given(SCALES, st.data())
def test_decoding_undoes_encoding_in_float64(scale, data):
    counts = data.draw(counts_of(np.float64, 100 * scale))
    back = CountScaling(scale).decode(CountScaling(scale).encode(counts))
    assert back.dtype == np.float64
    assert np.all(abs(back - counts) <= 1e-12 * scale + 1e-12 * counts)
    assert abs(back.sum() - counts.sum()) <= 1e-12 * counts.size * (scale + counts.sum())


@FEW
@given(SCALES, st.data())
def test_decoding_undoes_encoding_in_float32(scale, data):
    counts = data.draw(counts_of(np.float32, np.float32(100 * scale)))
    back = CountScaling(scale).decode(CountScaling(scale).encode(counts))
    assert back.dtype == np.float32
    assert np.all(abs(back - counts) <= 1e-6 * scale + 1e-6 * counts)


@FEW
@given(SCALES, hnp.arrays(np.float64, (3, 4), elements=st.floats(-1, 10)))
def test_encoding_undoes_decoding_where_there_are_counts(scale, x):
    scaling = CountScaling(scale)
    counts = scaling.decode(x)
    assert counts.min() >= 0
    # The root of a rounding error near -1 is larger than it.
    np.testing.assert_allclose(scaling.encode(counts), x, atol=1e-8)


def test_below_the_range_there_are_no_counts_and_the_range_is_as_documented():
    scaling = CountScaling(400.0)
    assert scaling.decode(np.array([-1.0, -1.5, -100.0])).tolist() == [0, 0, 0]
    assert scaling.encode(np.array([0.0, 100.0, 400.0, 1600.0])).tolist() == [-1, 0, 1, 3]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_and_tensors_agree(dtype):
    scaling = CountScaling(37.0)
    counts = np.random.default_rng(0).gamma(1.0, 30.0, (4, 5, 6)).astype(dtype)
    counts[0] = 0
    eps = 4 * np.finfo(dtype).eps
    x = scaling.encode(torch.from_numpy(counts))
    np.testing.assert_allclose(x.numpy(), scaling.encode(counts), rtol=eps, atol=eps)
    back = scaling.decode(x - 0.2)
    assert back.numpy().dtype == dtype
    np.testing.assert_allclose(back.numpy(), scaling.decode(x.numpy() - dtype(0.2)), rtol=eps, atol=eps * 37)


def test_one_scale_keeps_the_ratio_of_images():
    scaling = CountScaling(50.0)
    bright = np.random.default_rng(1).gamma(2.0, 10.0, (8, 8))
    faint = bright / 100
    ratio = scaling.decode(scaling.encode(bright)).sum() / scaling.decode(scaling.encode(faint)).sum()
    assert ratio == pytest.approx(100, rel=1e-12)


@FEW
@given(st.floats(4, 1e4), st.floats(1, 1e4))
def test_poisson_noise_has_the_promised_size_whatever_the_mean(mean, scale):
    scaling = CountScaling(scale)
    n = np.arange(int(mean + 12 * np.sqrt(mean)) + 20)
    probability = stats.poisson.pmf(n, mean)
    x = scaling.encode(n.astype(float))
    variance = probability @ (x - probability @ x) ** 2
    # The next terms of the expansion are 3/(8 mean) and about 1/mean².
    assert abs(variance / scaling.noise**2 - 1) < 0.375 / mean + 4 / mean**2
    assert variance > scaling.noise**2


def test_poisson_noise_of_drawn_counts():
    scaling, rng = CountScaling(200.0), np.random.default_rng(2)
    mean = np.array([10.0, 100.0, 1000.0])
    drawn = scaling.encode(rng.poisson(mean, (40_000, 3)))
    assert np.all(abs(drawn.std(axis=0) / scaling.noise - 1) < [0.05, 0.02, 0.02])


def test_gradients_of_decoding_are_finite_everywhere_and_right():
    scaling = CountScaling(20.0)
    x = torch.tensor([-5.0, -1.0, -0.999, 0.0, 3.0], dtype=torch.float64, requires_grad=True)
    scaling.decode(x).sum().backward()
    np.testing.assert_allclose(x.grad, 20.0 * np.maximum(x.detach().numpy() + 1, 0) / 2)
    assert torch.autograd.gradcheck(scaling.decode, x.detach()[2:].requires_grad_())


def test_gradients_of_encoding_are_right_where_there_are_counts():
    counts = torch.tensor([1e-3, 1.0, 500.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(CountScaling(20.0).encode, counts)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64, bool, ">f4", np.float16])
def test_all_real_dtypes_become_float32(dtype):
    counts = np.array([[0, 1], [1, 0]]).astype(dtype)
    x = CountScaling(1.0).encode(counts)
    assert x.dtype == np.float32
    assert x.tolist() == [[-1, 1], [1, -1]]


def test_lists_and_numbers_are_counts_too():
    scaling = CountScaling(4.0)
    assert scaling.encode([0, 4]).tolist() == [-1, 1]
    assert scaling.encode(np.float64(1.0)) == 0
    assert scaling.decode(0.0) == 1


def test_strided_and_read_only_counts_are_taken_and_left_alone():
    counts = np.arange(24.0).reshape(4, 6)
    counts.setflags(write=False)
    x = CountScaling(7.0).encode(counts[::-2, ::3])
    np.testing.assert_allclose(x, 2 * np.sqrt(np.array([[18, 21], [6, 9]]) / 7) - 1)


def test_the_scale_of_training_counts_leaves_few_bins_beyond_one():
    counts = np.random.default_rng(3).poisson(20, (50, 64, 64))
    counts[:, :32] = 0
    scaling = CountScaling.from_counts(counts)
    x = scaling.encode(counts)
    assert 0 < (x[counts > 0] > 1).mean() <= 1e-4
    assert CountScaling.from_counts(counts, quantile=1.0).scale == counts.max()
    assert CountScaling.from_counts([0, 0.25]).scale == 1  # never below one count


@pytest.mark.parametrize("scale", [0, -1.0, np.nan, np.inf, "many", None, True])
def test_a_scale_must_be_a_positive_number(scale):
    with pytest.raises(InputError, match="scale must be a finite number greater than zero"):
        CountScaling(scale)


@pytest.mark.parametrize(("counts", "message"), [
    (np.array([3.0, -0.5]), "must not be negative.*-0.5"),
    (np.array([3, -1]), "must not be negative"),
    (np.array([1.0, np.nan]), "must be finite"),
    (np.array([1.0, np.inf]), "must be finite"),
    (np.array(["a"]), "must be an array of real numbers"),
])
def test_what_is_no_count_is_refused(counts, message):
    with pytest.raises(InputError, match="counts " + message):
        CountScaling(2.0).encode(counts)
    with pytest.raises(InputError, match="counts " + message):
        CountScaling.from_counts(counts)


@pytest.mark.parametrize("counts", [np.zeros((3, 3)), np.empty((0, 3))])
def test_nothing_has_no_scale(counts):
    with pytest.raises(InputError, match="zero everywhere"):
        CountScaling.from_counts(counts)


@pytest.mark.parametrize("quantile", [0, 1.1, np.nan])
def test_a_quantile_must_be_one(quantile):
    with pytest.raises(InputError, match="quantile must be"):
        CountScaling.from_counts([1, 2], quantile)
