"""The acquisition model: value, gradient and sensitivity must be one consistent Poisson model."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allpet_physics.acquisition import AcquisitionModel, angle_subsets
from allpet_physics.errors import GeometryError, InputError
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


class Blur(LinearOperator):
    """Mixes neighbouring rows."""

    def __init__(self, shape):
        self.in_shape = self.out_shape = shape

    def _apply(self, x):
        return 0.6 * x + 0.4 * np.roll(x, 1, axis=1)

    def _adjoint(self, y):
        return 0.6 * y + 0.4 * np.roll(y, -1, axis=1)


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def dense_model(rng, *, angles=6, bins=5, shape=(4, 3), background=True):
    operator = DenseProjector(rng.random((angles, bins, *shape)))
    return AcquisitionModel(operator, multiplicative=rng.uniform(0.2, 1, operator.out_shape),
                            additive=rng.uniform(0.1, 1, operator.out_shape) if background else None,
                            image_operator=Blur(shape))


def test_the_expected_counts_are_the_affine_model(rng):
    model = dense_model(rng)
    x = rng.random((2, 4, 3))
    blurred = 0.6 * x + 0.4 * np.roll(x, 1, axis=1)
    expected = model.multiplicative * (blurred.reshape(2, -1) @ model.operator.weights.reshape(30, 12).T).reshape(
        2, 6, 5) + model.additive
    np.testing.assert_allclose(model.expected(x), expected, rtol=1e-13)
    assert model.expected(x.astype(np.float32)).dtype == np.float32
    assert model.in_shape == (4, 3)
    assert model.out_shape == (6, 5)


@given(seed=st.integers(0, 2**32 - 1), background=st.booleans(), zeros=st.floats(0, 0.9))
@settings(max_examples=30, deadline=None)
def test_the_gradient_is_the_slope_of_the_value(seed, background, zeros):
    rng = np.random.default_rng(seed)
    model = dense_model(rng, background=background)
    x, direction = rng.uniform(0.5, 1.5, (4, 3)), rng.standard_normal((4, 3))
    counts = rng.poisson(model.expected(x)) * (rng.random(model.out_shape) > zeros)
    step = 1e-4
    ahead, behind = (model.log_likelihood(x + sign * step * direction, counts) for sign in (1, -1))
    slope = np.vdot(model.gradient(x, counts), direction)
    scale = np.linalg.norm(model.gradient(x, counts)) * np.linalg.norm(direction) + 1
    assert abs((ahead - behind) / (2 * step) - slope) < 1e-6 * scale


@pytest.mark.parametrize("name", ["strip", "joseph"])
def test_the_gradient_with_the_real_projector(name, rng):
    geometry = ParallelGeometry(12, 20, 2.5, (16, 14), 2.0)
    model = AcquisitionModel(RadonOperator(geometry, model=name), additive=0.5,
                             multiplicative=rng.uniform(0.3, 1, geometry.sinogram_shape))
    x, direction = rng.uniform(0.5, 1.5, (2, 16, 14))
    counts = rng.poisson(model.expected(x))
    ahead, behind = (model.log_likelihood(x + sign * 1e-4 * direction, counts) for sign in (1, -1))
    slope = np.vdot(model.gradient(x, counts), direction)
    scale = np.linalg.norm(model.gradient(x, counts)) * np.linalg.norm(direction)
    assert abs((ahead - behind) / 2e-4 - slope) < 1e-6 * scale


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_without_counts_the_gradient_is_minus_the_sensitivity(dtype, rng):
    model = dense_model(rng)
    x = rng.random((4, 3)).astype(dtype)
    np.testing.assert_array_equal(model.gradient(x, np.zeros(model.out_shape, dtype)), -model.sensitivity(dtype))
    assert model.sensitivity(dtype) is model.sensitivity(dtype)
    assert model.gradient(x, np.zeros(model.out_shape, dtype)).dtype == dtype


def test_the_gradient_vanishes_where_the_model_explains_the_counts(rng):
    model = dense_model(rng)
    x = rng.random((4, 3))
    np.testing.assert_allclose(model.gradient(x, model.expected(x)), 0, atol=1e-12)


def test_the_value_is_the_poisson_log_probability(rng):
    from scipy.stats import poisson

    model = dense_model(rng)
    x = rng.random((3, 4, 3))
    counts = rng.poisson(model.expected(x))
    probability = poisson.logpmf(counts, model.expected(x)).sum(axis=(1, 2))
    np.testing.assert_allclose(model.log_likelihood(x, counts, constant=True), probability, rtol=1e-12)
    assert isinstance(model.log_likelihood(x[0], counts[0]), float)
    # One image against many data sets, and the reverse.
    assert model.log_likelihood(x[0], counts).shape == (3,)
    assert model.gradient(x[0], counts).shape == (3, 4, 3)
    np.testing.assert_allclose(model.gradient(x, counts[1])[2], model.gradient(x[2], counts[1]), rtol=1e-13)


def bins_without_means():
    """Two pixels, four bins: fed by pixel 0, by pixel 1, by both, by none."""
    weights = np.zeros((1, 4, 1, 2))
    weights[0, 0, 0, 0] = weights[0, 1, 0, 1] = weights[0, 2, 0, :] = 1
    return AcquisitionModel(DenseProjector(weights))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_zero_bins_follow_the_documented_rule(dtype):
    model = bins_without_means()
    x = np.array([[2.0, 0.0]], dtype)
    # No counts where none are expected: no contribution to the value, the full slope.
    counts = np.array([[3, 0, 5, 0]], dtype)
    assert model.log_likelihood(x, counts) == pytest.approx(3 * np.log(2) - 2 + 5 * np.log(2) - 2)
    np.testing.assert_allclose(model.gradient(x, counts), [[3 / 2 - 1 + 5 / 2 - 1, -1 + 5 / 2 - 1]])
    assert not model.impossible_bins(x, counts).any()
    # Counts where none are expected: impossible, and left out of the gradient.
    for bad in ([3, 1, 5, 0], [3, 0, 5, 1]):
        impossible = np.array([bad], dtype)
        assert model.log_likelihood(x, impossible) == -np.inf
        assert model.impossible_bins(x, impossible).sum() == 1
        gradient = model.gradient(x, impossible)
        assert np.isfinite(gradient).all()
        kept = AcquisitionModel(model.operator, multiplicative=~model.impossible_bins(x, impossible))
        np.testing.assert_array_equal(gradient, kept.gradient(x, np.where(kept.multiplicative > 0, impossible, 0)))


def test_means_too_small_to_divide_by_are_zero():
    model = bins_without_means()
    x = np.array([[2.0, 1e-38]], np.float32)
    counts = np.array([[3, 1000, 5, 0]], np.float32)
    assert model.log_likelihood(x, counts) == -np.inf
    assert np.isfinite(model.gradient(x, counts)).all()
    assert np.isfinite(model.back_projected_quotient(x, counts)).all()
    wide = x.astype(np.float64)  # the same image is possible in double precision
    assert np.isfinite(model.log_likelihood(wide, counts))
    assert model.gradient(wide, counts)[0, 1] > 1e40


def test_factors_broadcast_over_the_batch(rng):
    projector = DenseProjector(rng.random((6, 5, 4, 3)))
    m, b = rng.random((3, 6, 5)), rng.random((6, 1))
    model = AcquisitionModel(projector, multiplicative=m, additive=b)
    x = rng.random((4, 3))
    counts = rng.poisson(5.0, (3, 6, 5))
    assert model.batch_shape == (3,)
    assert model.expected(x).shape == (3, 6, 5)
    assert model.sensitivity(np.float64).shape == (3, 4, 3)
    for k in range(3):
        one = AcquisitionModel(projector, multiplicative=m[k], additive=np.broadcast_to(b, (6, 5)))
        np.testing.assert_allclose(model.expected(x)[k], one.expected(x), rtol=1e-14)
        np.testing.assert_allclose(model.gradient(x, counts)[k], one.gradient(x, counts[k]), rtol=1e-12)
        np.testing.assert_allclose(model.log_likelihood(x, counts)[k], one.log_likelihood(x, counts[k]), rtol=1e-14)


def test_the_callers_arrays_are_left_alone(rng):
    class Identity(LinearOperator):
        in_shape = out_shape = (3, 3)

        def _apply(self, x):
            return x

        _adjoint = _apply

    x, counts, m = rng.random((3, 3)), rng.random((3, 3)), rng.random((3, 3))
    before = x.copy(), counts.copy(), m.copy()
    model = AcquisitionModel(Identity(), multiplicative=m, additive=1.0)
    model.expected(x), model.gradient(x, counts), model.log_likelihood(x, counts), model.sensitivity()
    for array, original in zip((x, counts, m), before, strict=True):
        np.testing.assert_array_equal(array, original)


@given(n_angles=st.integers(1, 60), data=st.data())
@settings(max_examples=60, deadline=None)
def test_subsets_hold_every_angle_once_and_are_balanced(n_angles, data):
    n = data.draw(st.integers(1, n_angles))
    parts = [np.arange(n_angles)[s] for s in angle_subsets(n_angles, n)]
    assert len(parts) == n
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(n_angles))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("n", range(1, 41))
def test_successive_subsets_are_as_far_apart_as_those_left_allow(n):
    order = [s.start for s in angle_subsets(40, n)]

    def distance(i, j):
        return min((i - j) % n, (j - i) % n)

    for k in range(1, n):
        used, left = order[:k], order[k:]
        to_used = {j: min(distance(j, u) for u in used) for j in left}
        assert to_used[order[k]] == max(to_used.values())
        equals = [j for j in left if to_used[j] == to_used[order[k]]]
        assert distance(order[k], order[k - 1]) == max(distance(j, order[k - 1]) for j in equals)
        gaps = np.diff([*sorted(order[:k + 1]), n])
        assert gaps.max() <= 2 * -(-n // (k + 1))
    if n >= 2:
        assert distance(order[0], order[1]) == n // 2


def test_the_order_for_eight():
    assert [s.start for s in angle_subsets(64, 8)] == [0, 4, 2, 6, 1, 5, 3, 7]


@pytest.mark.parametrize("n", [1, 2, 4, 5])
def test_the_subsets_add_up_to_the_model(n, rng):
    geometry = ParallelGeometry(12, 20, 2.5, (16, 14), 2.0)
    model = AcquisitionModel(RadonOperator(geometry), multiplicative=rng.random((2, 12, 20)),
                             additive=rng.uniform(0.1, 1, (12, 1)), image_operator=Blur((16, 14)))
    x = rng.random((2, 16, 14))
    counts = rng.poisson(model.expected(x)).astype(float)
    parts, angles = model.subsets(n), angle_subsets(12, n)
    for part, chosen in zip(parts, angles, strict=True):
        np.testing.assert_allclose(part.expected(x), model.expected(x)[:, chosen], rtol=1e-12)
        assert np.shares_memory(part.multiplicative, model.multiplicative)
    np.testing.assert_allclose(sum(p.gradient(x, counts[:, a]) for p, a in zip(parts, angles, strict=True)),
                               model.gradient(x, counts), atol=1e-9)
    np.testing.assert_allclose(sum(p.sensitivity(np.float64) for p in parts), model.sensitivity(np.float64), rtol=1e-12)
    listed = model.subset([3, 0, 7])
    np.testing.assert_allclose(listed.expected(x), model.expected(x)[:, [3, 0, 7]], rtol=1e-12)


def test_wrong_input_is_named(rng):
    operator = DenseProjector(rng.random((6, 5, 4, 3)))
    with pytest.raises(InputError, match="operator must be a LinearOperator"):
        AcquisitionModel(None)
    with pytest.raises(InputError, match="image_operator must be a LinearOperator"):
        AcquisitionModel(operator, image_operator=np.eye(3))
    with pytest.raises(GeometryError, match="image_operator must give images"):
        AcquisitionModel(operator, image_operator=Blur((3, 4)))
    with pytest.raises(InputError, match="multiplicative must not be negative"):
        AcquisitionModel(operator, multiplicative=-1.0)
    with pytest.raises(InputError, match="additive must be finite"):
        AcquisitionModel(operator, additive=np.full((6, 5), np.inf))
    for shape in [(5, 6), (2, 5), (7,), (3, 7, 5)]:
        with pytest.raises(InputError, match=r"additive must be broadcastable to \(\.\.\., 6, 5\)"):
            AcquisitionModel(operator, additive=np.ones(shape))
    model = AcquisitionModel(operator)
    x = np.ones((4, 3))
    for call in (model.log_likelihood, model.gradient, model.impossible_bins, model.back_projected_quotient):
        with pytest.raises(InputError, match=r"counts must have shape \(\.\.\., 6, 5\)"):
            call(x, np.ones((5, 6)))
        with pytest.raises(InputError, match="counts must not be negative"):
            call(x, np.full((6, 5), -1))
        with pytest.raises(InputError, match="counts must be finite"):
            call(x, np.full((6, 5), np.nan))
    with pytest.raises(InputError, match="x must have shape"):
        model.expected(np.ones((3, 4)))
    with pytest.raises(InputError, match="dtype must be float32 or float64"):
        model.sensitivity(int)
    with pytest.raises(InputError, match="n_subsets must be at most the number of angles, 6"):
        model.subsets(7)
    with pytest.raises(InputError, match="operator must have a method subset"):
        AcquisitionModel(2 * operator).subset([0])
