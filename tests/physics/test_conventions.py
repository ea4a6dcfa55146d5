import builtins

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allpet_physics import conventions
from allpet_physics.errors import GeometryError, InputError
from allpet_physics.geometry import ParallelGeometry

#: x, y, σ in mm and peak of Gaussians that no rotation, flip or transposition maps onto each other.
BLOBS = ((17.0, 25.0, 6.0, 1.0), (-20.0, 8.0, 5.0, 0.5))


def blobs(g):
    x, y = np.meshgrid(g.x, g.y)
    return sum(p * np.exp(-((x - a)**2 + (y - b)**2) / (2 * w**2)) for a, b, w, p in BLOBS)


def blob_sinogram(g):
    c, s, t = np.cos(g.angles)[:, None], np.sin(g.angles)[:, None], g.bin_centres
    return sum(p * np.sqrt(2 * np.pi) * w * np.exp(-(t - a * c - b * s)**2 / (2 * w**2)) for a, b, w, p in BLOBS)


@pytest.mark.parametrize("arc", [np.pi, 2 * np.pi])
@pytest.mark.parametrize("n", [80, 81])
def test_skimage_radon_is_the_analytic_sinogram_once_converted(n, arc):
    radon = pytest.importorskip("skimage.transform").radon
    g = ParallelGeometry(24, n, 1.5, (n, n), 1.5, arc)
    image = blobs(g)
    image[np.hypot(*np.meshgrid(g.x, g.y)) > (n // 2 - 2) * 1.5] = 0  # radon warns of anything outside its circle
    theirs = radon(image, np.degrees(g.angles), circle=True)
    ours = blob_sinogram(g)
    assert np.abs(conventions.sinogram_from_skimage(theirs, g) - ours).max() < 0.01 * ours.max()
    assert np.abs(conventions.sinogram_to_skimage(ours, g) - theirs).max() < 0.01 * theirs.max()


@pytest.mark.parametrize(("n", "tolerance"), [(80, 1e-3), (81, 1e-14)])
def test_skimage_round_trip(n, tolerance):
    g = ParallelGeometry(24, n, 1.5, (n, n), 1.5, 2 * np.pi)
    ours = blob_sinogram(g)
    again = conventions.sinogram_from_skimage(conventions.sinogram_to_skimage(ours, g), g)
    assert np.abs(again - ours).max() < tolerance * ours.max()


def test_even_shift_keeps_the_counts_of_each_angle():
    g = ParallelGeometry(24, 80, 1.0, (80, 80), 1.0)
    ours = np.zeros(g.sinogram_shape)
    ours[:, 30:50] = np.random.default_rng(0).random((24, 20))
    np.testing.assert_allclose(conventions.sinogram_to_skimage(ours, g).sum(0), ours.sum(1), rtol=1e-9)


@pytest.mark.parametrize("change", [{"n_bins": 83}, {"bin_mm": 2.0}, {"image_shape": (81, 80)}])
def test_skimage_refuses_what_it_cannot_express(change):
    g = ParallelGeometry(24, 81, 1.5, (81, 81), 1.5).replace(**change)
    with pytest.raises(GeometryError, match="geometry must have a square image"):
        conventions.sinogram_to_skimage(np.zeros(g.sinogram_shape), g)


@pytest.mark.parametrize("unit", ["mm", "pixel"])
@pytest.mark.parametrize(("model", "tolerance"), [("strip", 0.03), ("linear", 0.03)])
def test_astra_projects_a_disc_to_its_chords(model, tolerance, unit):
    astra = pytest.importorskip("astra")
    g = ParallelGeometry(12, 101, 2.5, (90, 110), 2.0, 2 * np.pi)
    unit_mm = 1.0 if unit == "mm" else g.pixel_mm
    x, y, radius = 21.0, 13.0, 50.0
    fine = (np.arange(8) - 3.5) / 8 * g.pixel_mm  # pixels at the rim get the part of them that the disc covers
    inside = np.hypot((g.x[:, None] + fine)[None, None] - x, (g.y[:, None] + fine)[:, :, None, None] - y) <= radius
    disc = inside.mean(axis=(1, 3)).astype(np.float32)
    projection, volume = conventions.to_astra(g, unit_mm=unit_mm)
    projector = astra.create_projector(model, projection, volume)
    data, theirs = astra.create_sino(disc, projector)
    astra.data2d.delete(data)
    astra.projector.delete(projector)
    ours = conventions.sinogram_from_astra(theirs, g, unit_mm=unit_mm)

    s = g.bin_centres - x * np.cos(g.angles)[:, None] - y * np.sin(g.angles)[:, None]
    chords = 2 * np.sqrt(np.clip(radius**2 - s**2, 0, None))
    well_inside = np.abs(s) < radius - 5
    assert np.abs(ours - chords)[well_inside].max() < tolerance * 2 * radius
    assert not ours[np.abs(s) > radius + 4].any()
    np.testing.assert_allclose(ours.sum(1) * g.bin_mm, np.pi * radius**2, rtol=2e-3)
    centroid = (ours * g.bin_centres).sum(1) / ours.sum(1)
    np.testing.assert_allclose(centroid, x * np.cos(g.angles) + y * np.sin(g.angles), atol=0.1)
    np.testing.assert_allclose(conventions.sinogram_to_astra(ours, g, unit_mm=unit_mm), theirs, rtol=1e-6)


@pytest.mark.parametrize("unit_mm", [1.0, 2.0])
@pytest.mark.parametrize("arc", [np.pi, 2 * np.pi])
def test_geometry_goes_to_astra_and_back(arc, unit_mm):
    astra = pytest.importorskip("astra")
    g = ParallelGeometry(30, 41, 2.5, (30, 44), 2.0, arc)
    back = conventions.from_astra(*conventions.to_astra(g, unit_mm=unit_mm), unit_mm=unit_mm)
    assert (back.n_angles, back.n_bins, back.image_shape, back.arc) == (30, 41, (30, 44), arc)
    assert (back.bin_mm, back.pixel_mm) == pytest.approx((2.5, 2.0), rel=1e-12)
    plain = conventions.from_astra(astra.create_proj_geom("parallel", 1.0, 64, np.linspace(0, np.pi, 90, False)),
                                   astra.create_vol_geom(48, 64), unit_mm=3.0)
    assert plain == ParallelGeometry(90, 64, 3.0, (48, 64), 3.0)


def test_astra_geometries_that_ours_cannot_hold_are_refused():
    astra = pytest.importorskip("astra")
    angles, volume = np.linspace(0, np.pi, 20, False), astra.create_vol_geom(16, 16)
    parallel = astra.create_proj_geom("parallel", 1.0, 16, angles)
    for projection, grid, message in [
        (astra.create_proj_geom("fanflat", 1.0, 16, angles, 100, 100), volume, "fanflat"),
        (astra.create_proj_geom("parallel", 1.0, 16, angles + 0.1), volume, "from 0 on"),
        (astra.create_proj_geom("parallel", 1.0, 16, angles / 2), volume, "from 0 on"),
        (parallel, astra.create_vol_geom(16, 16, -8, 8, -4, 4), "square pixels"),
        (parallel, astra.create_vol_geom(16, 16, -7, 9, -8, 8), "centred on the origin"),
    ]:
        with pytest.raises(GeometryError, match=message):
            conventions.from_astra(projection, grid)


def test_astra_missing_names_the_extra(monkeypatch):
    real = builtins.__import__

    def without_astra(name, *args, **kwargs):
        if name.partition(".")[0] == "astra":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_astra)
    with pytest.raises(InputError, match=r'pip install "\.\[astra\]"'):
        conventions.to_astra(ParallelGeometry.preset("network-64"))


def stir_point_source(n_views, n_tangential, bin_mm, x, y_down, offset=0.0):
    """One count per view where STIR's X cos φ + Y sin φ falls, Y down, tangential position 0 at n // 2."""
    phi = np.arange(n_views) * np.pi / n_views + offset
    position = np.rint((x * np.cos(phi) + y_down * np.sin(phi)) / bin_mm).astype(int) + n_tangential // 2
    sinogram = np.zeros((n_views, n_tangential))
    sinogram[np.arange(n_views), position] = 1
    return sinogram


@pytest.mark.parametrize("steps", [0, 3, -5, 40])
@pytest.mark.parametrize("n_tangential", [61, 60])
def test_a_point_in_stir_is_the_same_point_here(n_tangential, steps):
    # to the right and above the axis, seen from the bed: X = 30, Y = -20 in STIR, x = 30, y = +20 here
    offset = steps * np.pi / 18
    stir = stir_point_source(18, n_tangential, 2.0, 30.0, -20.0, offset)
    g = ParallelGeometry(18, 61, 2.0, (61, 61), 2.0)
    ours = conventions.sinogram_from_stir(stir, g, view_offset=offset)
    assert ours.shape == (18, 61)
    np.testing.assert_array_equal(ours.sum(1), 1)
    s = g.bin_centres[ours.argmax(1)]
    np.testing.assert_allclose(s, 30 * np.cos(g.angles) + 20 * np.sin(g.angles), atol=1.001)


def test_stir_views_by_hand():
    # four views at 0, 45, 90, 135 degrees, three bins; the point X = 1, Y = 0 (right) and then X = 0, Y = 1 (below)
    g = ParallelGeometry(4, 3, 1.0, (3, 3), 1.0)
    right = np.array([[0, 0, 1], [0, 0, 1], [0, 1, 0], [1, 0, 0]])
    below = np.array([[0, 1, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1]])
    np.testing.assert_array_equal(conventions.sinogram_from_stir(right, g),
                                  [[0, 0, 1], [0, 0, 1], [0, 1, 0], [1, 0, 0]])
    np.testing.assert_array_equal(conventions.sinogram_from_stir(below, g),
                                  [[0, 1, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0]])


@given(st.integers(1, 9), st.integers(1, 12), st.integers(-30, 30), st.booleans(), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_stir_round_trip_is_exact(n_angles, n_bins, steps, centred, batch):
    n_bins += (n_bins + 1) % 2 if not centred else 0
    g = ParallelGeometry(n_angles, n_bins, 1.0, (4, 4), 1.0)
    a = np.random.default_rng(0).random((batch, n_angles, n_bins), dtype=np.float32)
    there = conventions.sinogram_to_stir(a, g, view_offset=steps * np.pi / n_angles, centred=centred)
    assert there.dtype == np.float32
    back = conventions.sinogram_from_stir(there, g, view_offset=steps * np.pi / n_angles, centred=centred)
    np.testing.assert_array_equal(back, a)


def test_even_sinogram_goes_to_stir_through_interpolation():
    even = ParallelGeometry(24, 80, 1.5, (80, 80), 1.5)
    odd = even.replace(n_bins=81)
    there = conventions.sinogram_to_stir(blob_sinogram(even), even)
    back = conventions.sinogram_from_stir(there, odd)
    assert np.abs(back - blob_sinogram(odd)).max() < 2e-3 * back.max()


def test_stir_refuses_what_it_cannot_express():
    g = ParallelGeometry(8, 9, 1.0, (9, 9), 1.0)
    a = np.zeros(g.sinogram_shape)
    with pytest.raises(GeometryError, match=r"geometry\.arc must be pi"):
        conventions.sinogram_to_stir(a, g.replace(arc=2 * np.pi))
    with pytest.raises(GeometryError, match="view_offset must be a whole number of view steps"):
        conventions.sinogram_to_stir(a, g, view_offset=0.1)
    with pytest.raises(GeometryError, match=r"geometry\.n_bins must be odd"):
        conventions.sinogram_from_stir(np.zeros((8, 10)), g.replace(n_bins=10))
    with pytest.raises(InputError, match=r"sinogram must have shape \(\.\.\., 8, 9\)"):
        conventions.sinogram_from_stir(np.zeros((8, 11)), g)
    with pytest.raises(InputError, match="sinogram must be finite"):
        conventions.sinogram_from_stir(np.full((8, 9), np.nan), g)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_batch_axes_and_dtype_pass_through(dtype):
    g = ParallelGeometry(6, 8, 2.0, (8, 8), 2.0)
    batch = np.random.default_rng(0).random((2, 3, 6, 8)).astype(dtype)
    for convert in (conventions.sinogram_to_skimage, conventions.sinogram_to_stir, conventions.sinogram_to_astra):
        whole = convert(batch, g)
        assert whole.dtype == dtype
        assert whole.shape[:2] == (2, 3)
        np.testing.assert_array_equal(whole[1, 2], convert(batch[1, 2], g))
