"""The algebra of operators: every combination must be linear and keep its transpose exact."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allpet_physics.errors import GeometryError, InputError
from allpet_physics.operators import LinearOperator, adjoint_error, assert_adjoint, stack


class Matrix(LinearOperator):
    """A dense matrix as an operator."""

    def __init__(self, matrix):
        self.matrix = np.asarray(matrix, dtype=np.float64)
        self.out_shape, self.in_shape = (self.matrix.shape[0],), (self.matrix.shape[1],)

    def _apply(self, x):
        return (x @ self.matrix.T).astype(x.dtype)

    def _adjoint(self, y):
        return (y @ self.matrix).astype(y.dtype)


@pytest.fixture
def operators(rng):
    return Matrix(rng.standard_normal((4, 3))), Matrix(rng.standard_normal((4, 3))), Matrix(rng.standard_normal((5, 4)))


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def test_algebra_equals_the_algebra_of_matrices(operators, rng):
    a, b, c = operators
    x = rng.standard_normal((2, 3))
    for operator, matrix in [
        (c @ a, c.matrix @ a.matrix),
        (a + b, a.matrix + b.matrix),
        (a - b, a.matrix - b.matrix),
        (2 * a, 2 * a.matrix),
        (a * np.float32(0.5), 0.5 * a.matrix),
        (-a, -a.matrix),
        (stack([a, b]), np.vstack([a.matrix, b.matrix])),
        (a.T, a.matrix.T),
        (c @ (a + 3 * b), c.matrix @ (a.matrix + 3 * b.matrix)),
        ((c @ a).T, (c.matrix @ a.matrix).T),
    ]:
        v = x if operator.in_shape == (3,) else rng.standard_normal((2, *operator.in_shape))
        np.testing.assert_allclose(operator(v), v @ matrix.T, rtol=1e-13, atol=1e-13)
        assert_adjoint(operator, rng, batch=(2, 3))
    assert a.T.T is a


@given(n=st.integers(1, 8), m=st.integers(1, 8), batch=st.lists(st.integers(1, 3), max_size=2),
       seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_batch_axes_are_free(n, m, batch, seed):
    rng = np.random.default_rng(seed)
    a = Matrix(rng.standard_normal((m, n)))
    x = rng.standard_normal((*batch, n))
    assert a(x).shape == (*batch, m)
    np.testing.assert_allclose(a(x), np.apply_along_axis(lambda v: a.matrix @ v, -1, x), rtol=1e-12, atol=1e-12)


def test_a_wrong_transpose_is_noticed(rng):
    class Wrong(Matrix):
        def _adjoint(self, y):
            return 1.001 * super()._adjoint(y)

    wrong = Wrong(rng.standard_normal((6, 5)))
    assert adjoint_error(wrong, rng) > 1e-6
    with pytest.raises(AssertionError, match="normalised error"):
        assert_adjoint(wrong, rng)


def test_mistakes_are_named(operators):
    a, _, c = operators
    with pytest.raises(GeometryError, match="composition must fit"):
        a @ c
    with pytest.raises(GeometryError, match="equal shapes"):
        a + c
    with pytest.raises(GeometryError, match="share in_shape"):
        stack([a, c])
    with pytest.raises(InputError, match="at least one"):
        stack([])
    with pytest.raises(InputError, match="finite real number"):
        np.nan * a
    for mistake in (lambda: a * a, lambda: a * np.ones(3), lambda: np.ones(3) * a, lambda: a @ np.ones(3)):
        with pytest.raises(TypeError, match=r"unsupported operand|does not support"):
            mistake()
    with pytest.raises(InputError, match=r"x must have shape \(\.\.\., 3\), but its shape was \(2,\)"):
        a([1.0, 2.0])
