"""MLEM and OSEM: monotone likelihood, balanced counts, convergence, and what happens at the edges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allpet_physics.acquisition import AcquisitionModel, angle_subsets
from allpet_physics.emission import mlem, mlem_iterates, osem, osem_iterates
from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.operators import LinearOperator
from allpet_physics.radon import RadonOperator


class DenseProjector(LinearOperator):
    """A matrix from images to sinograms that can take angle subsets."""

    def __init__(self, weights):
        self.weights = np.asarray(weights, dtype=np.float64)  # (angles, bins, rows, cols)
        self.out_shape, self.in_shape = self.weights.shape[:2], self.weights.shape[2:]

    def _apply(self, x):
        return np.einsum("abrc,nrc->nab", self.weights, x).astype(x.dtype)

    def _adjoint(self, y):
        return np.einsum("abrc,nab->nrc", self.weights, y).astype(y.dtype)

    def subset(self, angle_indices):
        return DenseProjector(self.weights[angle_indices])


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def pet_model(rng, *, additive=None, n_angles=24, shape=(20, 18)):
    geometry = ParallelGeometry.for_image(shape, 4.0, n_angles=n_angles)
    return AcquisitionModel(RadonOperator(geometry), multiplicative=rng.uniform(0.2, 1, geometry.sinogram_shape),
                            additive=additive)


def hot_spots(rng, shape=(20, 18)):
    image = np.full(shape, 0.2)
    image[5:12, 4:9] = 1.0
    image[13:16, 10:15] = 2.0
    return image * rng.uniform(0.5, 1.5)


@given(seed=st.integers(0, 2**32 - 1), background=st.booleans())
@settings(max_examples=10, deadline=None)
def test_every_mlem_update_raises_the_likelihood_and_balances_the_counts(seed, background):
    rng = np.random.default_rng(seed)
    b = rng.uniform(0, 8, (24, 28)) if background else 0.0
    model = pet_model(rng, additive=b if background else None)
    counts = rng.poisson(model.expected(hot_spots(rng))).astype(np.float64)
    before, earlier = -np.inf, None
    for _, _, image in mlem_iterates(model, counts, 12):
        value = model.log_likelihood(image, counts)
        assert value >= before - 1e-9 * abs(value)
        signal = (model.expected(image) - b).sum()
        if earlier is not None and background:
            mean = model.expected(earlier)
            assert signal == pytest.approx((counts * (mean - b) / mean).sum(), rel=1e-10)
        elif not background:
            assert signal == pytest.approx(counts.sum(), rel=1e-10)
        assert (image * model.sensitivity(np.float64)).sum() == pytest.approx(signal, rel=1e-10)
        before, earlier = value, image


def test_the_counts_balance_in_single_precision(rng):
    model = pet_model(rng)
    counts = rng.poisson(model.expected(hot_spots(rng)))
    for _, _, image in mlem_iterates(model, counts, 5):
        assert image.dtype == np.float32
        assert model.expected(image).sum(dtype=np.float64) == pytest.approx(counts.sum(), rel=1e-5)


def test_one_subset_is_mlem(rng):
    model = pet_model(rng, additive=1.0)
    counts = rng.poisson(model.expected(hot_spots(rng)))
    np.testing.assert_array_equal(osem(model, counts, 4, 1), mlem(model, counts, 4))


def test_consistent_data_lead_to_the_truth(rng):
    weights = rng.random((8, 4, 3, 3)) * (rng.random((8, 4, 3, 3)) < 0.5)
    model = AcquisitionModel(DenseProjector(weights), multiplicative=rng.uniform(0.3, 1, (8, 4)), additive=0.3)
    truth = rng.uniform(0.5, 3, (3, 3))
    counts = model.expected(truth)
    np.testing.assert_allclose(mlem(model, counts, 3000), truth, rtol=1e-4)
    np.testing.assert_allclose(osem(model, counts, 1500, 4), truth, rtol=1e-6)


def test_the_truth_is_a_fixed_point(rng):
    model = pet_model(rng, additive=0.7)
    truth = hot_spots(rng)
    np.testing.assert_allclose(osem(model, model.expected(truth), 2, 5, initial=truth), truth, rtol=1e-10)


def test_osem_gains_as_much_as_many_mlem_iterations(rng):
    model = pet_model(rng, n_angles=32)
    counts = 50 * model.expected(hot_spots(rng))
    value = model.log_likelihood(osem(model, counts, 2, 8), counts)
    assert model.log_likelihood(mlem(model, counts, 8), counts) < value
    assert value < model.log_likelihood(mlem(model, counts, 32), counts)


def test_osem_sees_more_subsets_than_divide_the_angles(rng):
    model = pet_model(rng, additive=0.5)
    truth = hot_spots(rng)
    counts = model.expected(truth)
    for n in (5, 7, 24):
        image = osem(model, counts, 40, n)
        assert np.sqrt(np.mean((image - truth) ** 2)) < 0.1 * truth.mean()


def test_a_batch_is_its_items(rng):
    attenuation = rng.uniform(0.2, 1, (3, 24, 28))
    geometry = ParallelGeometry.for_image((20, 18), 4.0, n_angles=24)
    operator = RadonOperator(geometry)
    model = AcquisitionModel(operator, multiplicative=attenuation, additive=0.4)
    counts = rng.poisson(model.expected(np.stack([hot_spots(rng) for _ in range(3)])))
    counts[1] = 0
    together = osem(model, counts, 2, 3)
    assert together.shape == (3, 20, 18)
    for k in range(3):
        alone = osem(AcquisitionModel(operator, multiplicative=attenuation[k], additive=0.4), counts[k], 2, 3)
        np.testing.assert_allclose(together[k], alone, rtol=1e-5, atol=1e-9)
    assert not together[1].any()  # nothing was counted
    shared = AcquisitionModel(operator)
    np.testing.assert_allclose(mlem(shared, counts[:, np.newaxis], 2)[2, 0], mlem(shared, counts[2], 2), rtol=1e-6)
    # One data set, three models: an image for each.
    assert mlem(model, counts[0], 1).shape == (3, 20, 18)


def test_stopping_and_resuming_changes_nothing(rng):
    model = pet_model(rng, additive=1.0)
    counts = rng.poisson(model.expected(hot_spots(rng))).astype(np.float32)
    whole = osem(model, counts, 5, 4)
    np.testing.assert_array_equal(osem(model, counts, 3, 4, initial=osem(model, counts, 2, 4)), whole)
    steps = list(osem_iterates(model, counts, 5, 4))
    assert [step[:2] for step in steps] == [(i, k) for i in range(1, 6) for k in range(1, 5)]
    np.testing.assert_array_equal(steps[-1][2], whole)
    assert len({id(step[2]) for step in steps}) == 20
    assert not np.array_equal(steps[0][2], steps[1][2])


def test_callbacks_and_the_progress_bar(rng, capsys):
    model = pet_model(rng)
    counts = rng.poisson(model.expected(hot_spots(rng)))
    seen = []
    image = osem(model, counts, 2, 3, callback=lambda *step: seen.append(step), progress=True)
    assert [step[:2] for step in seen] == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]
    assert seen[-1][2] is image
    printed = capsys.readouterr()
    assert "OSEM" in printed.err
    assert "6/6" in printed.err
    assert printed.out == ""
    mlem(model, counts, 1)
    assert capsys.readouterr().err == ""


def test_each_update_uses_its_own_subset(rng):
    model = pet_model(rng)
    counts = rng.poisson(model.expected(hot_spots(rng))).astype(float)
    for (_, _, image), part, angles in zip(osem_iterates(model, counts, 1, 6), model.subsets(6), angle_subsets(24, 6),
                                           strict=True):
        assert part.expected(image).sum() == pytest.approx(counts[angles].sum(), rel=1e-10)


def test_pixels_without_sensitivity(rng):
    weights = rng.uniform(0.1, 1, (4, 3, 2, 2))
    weights[:, :, 0, 0] = 0  # seen by no angle
    weights[::2, :, 1, 1] = 0  # seen by the odd angles alone
    model = AcquisitionModel(DenseProjector(weights))
    truth = np.array([[0.0, 1.0], [2.0, 3.0]])
    counts = model.expected(truth)
    images = [image for _, _, image in osem_iterates(model, counts, 400, 2, initial=np.full((2, 2), 5.0))]
    assert all(image[0, 0] == 0 for image in images)
    assert images[0][1, 1] == 5.0  # the first subset, the even angles, does not see it
    np.testing.assert_allclose(images[-1], truth, rtol=1e-3)


def test_zeros_of_the_start_stay(rng):
    model = pet_model(rng)
    counts = rng.poisson(model.expected(hot_spots(rng)))
    support = np.zeros((20, 18))
    support[3:18, 3:16] = 1
    image = mlem(model, counts, 3, initial=support)
    assert not image[support == 0].any()
    assert (image[support == 1] > 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_hard_zeros_never_make_nan(dtype, rng):
    """Few counts and many subsets empty pixels; later subsets then meet counts that no pixel explains."""
    geometry = ParallelGeometry(16, 12, 4.0, (16, 16), 4.0)  # corners lie outside the bins
    multiplicative = rng.uniform(0, 1, (16, 12)) * (rng.random((16, 12)) < 0.6)  # dead bins
    model = AcquisitionModel(RadonOperator(geometry), multiplicative=multiplicative)
    counts = rng.poisson(0.05, (5, 16, 12)).astype(dtype)
    image = osem(model, counts, 30, 16)
    assert image.dtype == dtype
    assert np.isfinite(image).all()
    assert (image >= 0).all()
    assert not mlem(model, np.zeros((16, 12), dtype), 2).any()
    assert not mlem(AcquisitionModel(model.operator, multiplicative=0.0), counts, 2).any()


def test_the_uniform_start_explains_the_counts(rng):
    model = pet_model(rng)
    counts = np.full((24, 28), 3.0)
    sensitivity = model.sensitivity(np.float64)
    level = counts.sum() / sensitivity.sum()
    np.testing.assert_array_equal(mlem(model, counts, 2), mlem(model, counts, 2, initial=np.full((20, 18), level)))
    # With a background, the uniform start explains what is left of the counts.
    lit = AcquisitionModel(model.operator, multiplicative=model.multiplicative, additive=1.0)
    less = np.full((20, 18), (counts - 1).sum() / sensitivity.sum())
    np.testing.assert_allclose(mlem(lit, counts, 1), mlem(lit, counts, 1, initial=less), rtol=1e-12)
    # A background larger than the counts leaves a positive start.
    drowned = AcquisitionModel(model.operator, multiplicative=model.multiplicative, additive=100.0)
    assert (mlem(drowned, counts, 1) > 0).all()


def test_wrong_input_is_named_at_the_call(rng):
    model = pet_model(rng)
    good = np.ones((24, 28))
    for call in (lambda y, **more: mlem(model, y, 1, **more), lambda y, **more: osem(model, y, 1, 2, **more),
                 lambda y, **more: osem_iterates(model, y, 1, 2, **more)):
        with pytest.raises(InputError, match=r"counts must not be negative, but its minimum was -1"):
            call(-good)
        with pytest.raises(InputError, match="counts must be finite"):
            call(good * np.nan)
        with pytest.raises(InputError, match=r"counts must have shape \(\.\.\., 24, 28\)"):
            call(good.T)
        with pytest.raises(InputError, match="initial must not be negative"):
            call(good, initial=np.full((20, 18), -1.0))
        with pytest.raises(InputError, match=r"initial must have shape \(\.\.\., 20, 18\)"):
            call(good, initial=np.ones((18, 20)))
    with pytest.raises(InputError, match="n_iterations"):
        mlem(model, good, 0)
    for n in (0, 25, 2.5):
        with pytest.raises(InputError, match="n_subsets"):
            osem(model, good, 1, n)
    with pytest.raises(InputError, match="model must be an AcquisitionModel"):
        mlem(model.operator, good, 1)
    with pytest.raises(InputError, match="batch axes"):
        mlem(model, np.ones((2, 24, 28)), 1, initial=np.ones((3, 20, 18)))
