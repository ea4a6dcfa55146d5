"""Filtered back projection against discs whose sinograms are known in closed form."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allpet_physics.errors import InputError
from allpet_physics.fbp import FILTERS, fbp, filter_response, ramp_kernel
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.radon import RadonOperator

RADIUS, CENTRE = 60.0, (15.0, -20.0)


def disc_sinogram(geometry, *, bin_means, radius=RADIUS, centre=CENTRE):
    """Line integrals 2 sqrt(r² - s²) of a unit disc, at bin centres or averaged over the bins."""
    shift = centre[0] * np.cos(geometry.angles) + centre[1] * np.sin(geometry.angles)
    if not bin_means:
        s = geometry.bin_centres - shift[:, np.newaxis]
        return 2 * np.sqrt(np.maximum(radius**2 - s**2, 0))
    s = np.clip(geometry.bin_edges - shift[:, np.newaxis], -radius, radius)
    area = s * np.sqrt(radius**2 - s**2) + radius**2 * np.arcsin(s / radius)
    return np.diff(area, axis=1) / geometry.bin_mm


def distance_from(centre, geometry):
    return np.hypot(geometry.x - centre[0], geometry.y[:, np.newaxis] - centre[1])


GEOMETRIES = {
    "plain": ParallelGeometry(180, 129, 2.0, (128, 128), 2.0),
    "full turn": ParallelGeometry(360, 129, 2.0, (128, 128), 2.0, 2 * np.pi),
    "odd full turn": ParallelGeometry(255, 100, 2.6, (96, 127), 2.0, 2 * np.pi),
    "odd, not square": ParallelGeometry(181, 160, 1.7, (97, 130), 2.1),
    "fine bins, coarse pixels": ParallelGeometry(256, 257, 1.0, (64, 64), 4.0),
    "coarse bins, fine pixels": ParallelGeometry(128, 60, 4.0, (256, 255), 1.0),
}


@pytest.mark.parametrize("bin_means", [True, False])
@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_disc_keeps_its_activity_whatever_the_sampling(name, bin_means, dtype):
    geometry = GEOMETRIES[name]
    sinogram = disc_sinogram(geometry, bin_means=bin_means).astype(dtype)
    image = fbp(sinogram, geometry)
    distance = distance_from(CENTRE, geometry)
    assert image.dtype == dtype
    assert abs(image[distance < RADIUS - 4 * geometry.bin_mm].mean() - 1) < 1e-3
    assert abs(image[distance > RADIUS + 4 * geometry.bin_mm].mean()) < 1e-3


@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize("cutoff", [1.0, 0.5])
def test_every_window_keeps_the_scale(filter, cutoff):
    geometry = GEOMETRIES["plain"]
    image = fbp(disc_sinogram(geometry, bin_means=True), geometry, filter, cutoff=cutoff)
    assert abs(image[distance_from(CENTRE, geometry) < 40].mean() - 1) < 1e-3


def test_windows_damp_noise_in_their_order():
    rng = np.random.default_rng(3)
    geometry = ParallelGeometry(90, 91, 2.0, (64, 64), 2.0)
    noise = rng.standard_normal(geometry.sinogram_shape)
    deviation = [fbp(noise, geometry, name).std() for name in ("ramp", "shepp-logan", "cosine", "hamming", "hann")]
    assert deviation == sorted(deviation, reverse=True)
    assert fbp(noise, geometry, "hann", cutoff=0.5).std() < 0.5 * deviation[-1]


def test_total_activity_is_kept():
    geometry = GEOMETRIES["plain"]
    sinogram = disc_sinogram(geometry, bin_means=True)
    assert fbp(sinogram, geometry).sum() * geometry.pixel_mm**2 == pytest.approx(np.pi * RADIUS**2, rel=2e-3)


def test_the_disc_stands_where_it_should():
    geometry = GEOMETRIES["odd, not square"]
    image = fbp(disc_sinogram(geometry, bin_means=True, radius=12.0, centre=(40.0, 55.0)), geometry, "hann")
    weight = np.where(image > 0.2, image, 0)
    centre = (weight * geometry.x).sum() / weight.sum(), (weight * geometry.y[:, np.newaxis]).sum() / weight.sum()
    np.testing.assert_allclose(centre, (40.0, 55.0), atol=0.05)
    assert np.unravel_index(image.argmax(), image.shape)[0] < image.shape[0] / 2  # +y is the upper half


def test_both_arcs_give_one_image():
    half = ParallelGeometry(90, 101, 2.0, (80, 70), 2.2)
    full = half.replace(n_angles=180, arc=2 * np.pi)
    images = [fbp(disc_sinogram(g, bin_means=True), g) for g in (half, full)]
    np.testing.assert_allclose(images[0], images[1], atol=1e-12)


def test_it_inverts_the_projector():
    geometry = ParallelGeometry.for_image((96, 80), 1.5)
    image = np.exp(-(((geometry.x - 8) / 20) ** 2) - ((geometry.y[:, np.newaxis] + 5) / 16) ** 2)
    for model in ("strip", "joseph"):
        again = fbp(RadonOperator(geometry, model=model)(image), geometry)
        assert np.abs(again - image).max() < 0.01


def test_pixels_outside_the_bins_see_an_object_inside_them():
    geometry = ParallelGeometry(200, 70, 2.0, (128, 128), 2.0)  # the bins reach 70 mm, the corners lie at 180 mm
    image = fbp(disc_sinogram(geometry, bin_means=True, radius=50.0, centre=(5.0, 3.0)), geometry)
    outside = distance_from((0, 0), geometry) > 75
    assert abs(image[outside].mean()) < 1e-3
    assert np.abs(image[outside]).max() < 0.03
    masked = fbp(disc_sinogram(geometry, bin_means=True, radius=50.0, centre=(5.0, 3.0)), geometry, mask_fov=True)
    assert not masked[outside].any()
    np.testing.assert_array_equal(masked[distance_from((0, 0), geometry) < 69],
                                  image[distance_from((0, 0), geometry) < 69])


@pytest.mark.parametrize("filter", ["ramp", "hann"])
def test_more_empty_bins_change_nothing(filter):
    # The projections are convolved as if they went on as zeros for ever: nothing wraps around.
    geometry = ParallelGeometry(24, 31, 2.0, (40, 40), 2.0)
    y = np.random.default_rng(1).random(geometry.sinogram_shape)
    wide = fbp(np.pad(y, ((0, 0), (30, 30))), geometry.replace(n_bins=91), filter)
    # A window is applied on the grid of frequencies, which the padding refines.
    np.testing.assert_allclose(fbp(y, geometry, filter), wide, atol=1e-12 if filter == "ramp" else 2e-3)


@given(n_angles=st.integers(1, 9), n_bins=st.integers(1, 12), rows=st.integers(1, 40), cols=st.integers(1, 20),
       pixel=st.floats(0.1, 10), bin_mm=st.floats(0.1, 10), full=st.booleans(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_linear_batched_and_defined_for_every_geometry(n_angles, n_bins, rows, cols, pixel, bin_mm, full, seed):
    geometry = ParallelGeometry(n_angles, n_bins, bin_mm, (rows, cols), pixel, 2 * np.pi if full else np.pi)
    y = np.random.default_rng(seed).standard_normal((2, 3, *geometry.sinogram_shape))
    images = fbp(y, geometry)
    assert images.shape == (2, 3, rows, cols)
    np.testing.assert_array_equal(images[1, 2], fbp(y[1, 2], geometry))
    scale = np.abs(images).max() + 1e-300
    np.testing.assert_allclose(fbp(y[0, 0] - 2 * y[1, 1], geometry) / scale,
                               (images[0, 0] - 2 * images[1, 1]) / scale, atol=1e-11)
    np.testing.assert_allclose(fbp(y.astype(np.float32), geometry) / scale, images / scale, atol=2e-4)


def test_layout_does_not_matter():
    geometry = ParallelGeometry(8, 10, 1.0, (6, 6), 1.0)
    y = np.random.default_rng(0).random((10, 8)).astype(">f8").T
    y.setflags(write=False)
    np.testing.assert_array_equal(fbp(y, geometry), fbp(np.array(y, dtype=float), geometry))
    np.testing.assert_array_equal(fbp(np.ones((8, 10), int), geometry), fbp(np.ones((8, 10)).astype("f4"), geometry))
    assert fbp(np.zeros((0, 8, 10)), geometry).shape == (0, 6, 6)


def test_the_same_bits_for_any_number_of_threads():
    code = ("import numpy as np, numba, hashlib\n"
            "from allpet_physics.fbp import fbp\n"
            "from allpet_physics.geometry import ParallelGeometry\n"
            "g = ParallelGeometry(30, 40, 1.0, (45, 50), 1.1)\n"
            "y = np.random.default_rng(0).random((3, 30, 40)).astype('f4')\n"
            "for n in (1, 2, 3):\n"
            "    numba.set_num_threads(n)\n"
            "    print(hashlib.sha256(fbp(y, g).tobytes()).hexdigest())\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env={**os.environ, "NUMBA_NUM_THREADS": "3"})
    digests = done.stdout.split()
    assert len(digests) == 3
    assert len(set(digests)) == 1


def test_the_ramp_has_the_band_limited_response():
    # On a long line its response tends to |f|; at zero frequency the truncated kernel is small and positive, not 0.
    n, width = 4096, 2.0
    response = filter_response(n, width)
    frequency = np.fft.rfftfreq(n, width)
    np.testing.assert_allclose(response, frequency, atol=1e-3 / width)
    assert 0 < response[0] < 1e-3
    assert ramp_kernel(1, 2.0)[0] == 1 / 16
    assert (ramp_kernel(9, 1.0)[2::2] == 0).all()


def test_wrong_input_is_named():
    geometry = ParallelGeometry(8, 10, 1.0, (6, 6), 1.0)
    y = np.ones((8, 10))
    for filter in ("ram-lak", None, ["ramp"]):
        with pytest.raises(InputError, match="ramp, shepp-logan, cosine, hamming, hann"):
            fbp(y, geometry, filter)
    for cutoff in (0, -1, 1.5, np.nan, "a"):
        with pytest.raises(InputError, match="cutoff"):
            fbp(y, geometry, cutoff=cutoff)
    with pytest.raises(InputError, match=r"sinogram must have shape \(\.\.\., 8, 10\)"):
        fbp(y.T, geometry)
    with pytest.raises(InputError, match="sinogram must be finite"):
        fbp(np.where(np.eye(8, 10) > 0, np.nan, y), geometry)
    with pytest.raises(InputError, match="geometry must be a ParallelGeometry"):
        fbp(y, (6, 6))
