"""The point-spread function: its width, its symmetry, and what it keeps."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allpet_physics.acquisition import AcquisitionModel
from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.operators import assert_adjoint
from allpet_physics.point_spread import GaussianPSF, discrete_gaussian
from allpet_physics.radon import RadonOperator


def grid(shape=(64, 64), pixel_mm=2.0):
    return ParallelGeometry(8, 64, 2.0, shape, pixel_mm)


def variances_mm2(image, geometry):
    """Return the variance of an image's mass along x and y."""
    mass = image.sum()
    out = []
    for axis, position in ((0, geometry.x), (1, geometry.y)):
        profile = image.sum(axis=axis)
        mean = (profile * position).sum() / mass
        out.append((profile * (position - mean) ** 2).sum() / mass)
    return np.array(out)


@given(rows=st.integers(1, 40), cols=st.integers(1, 40), fwhm=st.floats(0, 60), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_it_is_its_own_transpose_and_keeps_totals_and_constants(rows, cols, fwhm, seed):
    psf = GaussianPSF(grid((rows, cols)), fwhm)
    rng = np.random.default_rng(seed)
    assert psf.T is psf
    assert_adjoint(psf, rng, batch=(2,))
    assert_adjoint(psf, rng, dtype=np.float32)
    x = rng.random((3, rows, cols))
    blurred = psf(x)
    np.testing.assert_allclose(blurred.sum(axis=(1, 2)), x.sum(axis=(1, 2)), rtol=1e-12)
    np.testing.assert_allclose(psf(np.ones((rows, cols))), 1, rtol=1e-12)
    assert (blurred >= 0).all()


@pytest.mark.parametrize("fwhm", [0.7, 2.0, 4.3, 6.0, 12.0])
def test_the_width_is_exact_in_mm_for_any_pixel(fwhm):
    for pixel in (1.0, 2.6):
        geometry = grid((81, 91), pixel)
        point = np.zeros((81, 91))
        point[40, 45] = 1
        expected = (fwhm / 2.3548200450309493) ** 2
        np.testing.assert_allclose(variances_mm2(GaussianPSF(geometry, fwhm)(point), geometry), expected, rtol=1e-4)


def test_a_wide_point_is_the_gaussian_with_that_half_width():
    geometry = grid((101, 101), 1.0)
    point = np.zeros((101, 101))
    point[50, 50] = 1
    image = GaussianPSF(geometry, 20.0)(point)
    radius = np.hypot(geometry.x, geometry.y[:, None])
    np.testing.assert_allclose(image / image.max(), np.exp(-4 * np.log(2) * (radius / 20) ** 2), atol=3e-3)
    assert image[50, 60] / image[50, 50] == pytest.approx(0.5, abs=3e-3)


def test_two_blurs_are_one_of_the_summed_variance():
    rng = np.random.default_rng(1)
    x = rng.random((40, 40))
    geometry = grid((40, 40))
    twice = GaussianPSF(geometry, 3.0)(GaussianPSF(geometry, 4.0)(x))
    np.testing.assert_allclose(twice, GaussianPSF(geometry, 5.0)(x), atol=1e-6)


def test_zero_is_the_identity_and_the_image_is_not_shared():
    x = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    out = GaussianPSF(grid(), 0)(x)
    np.testing.assert_array_equal(out, x)
    assert not np.shares_memory(out, x)
    assert out.dtype == np.float32
    assert discrete_gaussian(0).tolist() == [1.0]


def test_blurring_the_image_is_blurring_the_projections():
    """A disc far from the border: its sinogram through G is its sinogram convolved along s."""
    from scipy.ndimage import gaussian_filter1d

    geometry = ParallelGeometry(12, 140, 1.0, (100, 100), 1.0)
    disc = (np.hypot(geometry.x - 8, geometry.y[:, None] + 5) < 25).astype(float)
    model = AcquisitionModel(RadonOperator(geometry), image_operator=GaussianPSF(geometry, 7.0))
    direct = gaussian_filter1d(RadonOperator(geometry)(disc), 7.0 / 2.3548, axis=-1, mode="constant", truncate=6)
    assert np.abs(model.expected(disc) - direct).max() < 1e-3 * direct.max()


def test_a_slice_of_256_takes_few_milliseconds():
    psf = GaussianPSF(grid((256, 256), 2.6), 4.5)
    x = np.ones((4, 256, 256), np.float32)
    psf(x)
    took = []
    for _ in range(5):
        start = time.perf_counter()
        psf(x)
        took.append((time.perf_counter() - start) / 4)
    assert min(took) < 0.005  # 0.6 ms where it was written; room for a busy machine


def test_wrong_input_is_named():
    with pytest.raises(InputError, match="geometry must be a ParallelGeometry"):
        GaussianPSF((64, 64), 4.0)
    for wrong in (-1, np.nan, "wide", True):
        with pytest.raises(InputError, match="fwhm_mm must be a finite number of at least zero"):
            GaussianPSF(grid(), wrong)
    with pytest.raises(InputError, match=r"x must have shape \(\.\.\., 64, 64\)"):
        GaussianPSF(grid(), 4.0)(np.ones((32, 64)))
