"""What public doors accept and refuse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from allpet_physics._arrays import as_float_array, as_positive_float, as_positive_int
from allpet_physics.errors import InputError


@given(hnp.arrays(st.sampled_from([">f4", "<f8", ">f8", "f2", "i1", ">i2", "u4", "?"]), (4, 6),
                  elements={"allow_nan": False, "allow_infinity": False}), st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_layout_keeps_its_values(array, strided):
    view = array[::2, ::-1].T if strided else array
    view.flags.writeable = False
    out = as_float_array("x", view)
    assert out.flags.c_contiguous
    assert out.dtype.isnative
    assert out.dtype in (np.float32, np.float64)
    np.testing.assert_array_equal(out, view)


def test_float64_is_kept_and_the_rest_becomes_float32():
    assert as_float_array("x", np.zeros(3, ">f8")).dtype == np.float64
    for dtype in (np.float16, np.float32, np.uint8, np.bool_):
        assert as_float_array("x", np.zeros(3, dtype)).dtype == np.float32


def test_a_scalar_stays_a_scalar():
    for value in (1, 1.5, True, np.float32(2)):
        assert as_float_array("x", value).shape == ()


def test_integers_that_float32_cannot_hold_become_float64_and_larger_ones_are_refused():
    big = np.array([2**24 + 1])
    assert as_float_array("x", big)[0] == 2**24 + 1
    with pytest.raises(InputError, match=r"x holds integers up to 9007199254740993, beyond 2\*\*53"):
        as_float_array("x", np.array([2**53 + 1]))
    with pytest.raises(InputError, match="beyond"):
        as_float_array("x", np.array([-(2**63)]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_counted_and_located(bad):
    a = np.zeros((2, 3))
    a[1, 2] = bad
    with pytest.raises(InputError, match=r"image must be finite, but 1 of its 6 values .* index \(1, 2\)"):
        as_float_array("image", a)
    a[0, 0] = -bad  # the sum of +inf and -inf must not pass either
    with pytest.raises(InputError, match="2 of its 6"):
        as_float_array("image", a)


def test_huge_finite_values_are_finite():
    a = np.full(4, np.finfo(np.float32).max, np.float32)
    np.testing.assert_array_equal(as_float_array("x", a), a)


def test_wrong_kinds_are_refused_by_name():
    with pytest.raises(InputError, match="x must be an array of real numbers, but its dtype was complex128"):
        as_float_array("x", np.zeros(3, complex))
    with pytest.raises(InputError, match="real numbers"):
        as_float_array("x", ["a", "b"])
    with pytest.raises(InputError, match=r"must have shape \(\.\.\., 2, 2\), but its shape was \(2, 3\)"):
        as_float_array("x", np.zeros((2, 3)), (2, 2))
    with pytest.raises(InputError, match="must not be negative, but its minimum was -1"):
        as_float_array("x", [-1.0, 2.0], nonnegative=True)


@pytest.mark.parametrize("bad", [0, -3, 1.5, True, "4", None])
def test_counts_must_be_positive_integers(bad):
    with pytest.raises(InputError, match="n must be an integer of at least 1, but was"):
        as_positive_int("n", bad)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf, "wide", True, None])
def test_lengths_must_be_positive_and_finite(bad):
    with pytest.raises(InputError, match="w must be a finite number greater than zero, but was"):
        as_positive_float("w", bad)


def test_numpy_scalars_are_numbers():
    assert as_positive_int("n", np.int64(5)) == 5
    assert as_positive_float("w", np.float32(0.5)) == 0.5
    assert as_positive_float("w", 0, allow_zero=True) == 0.0
