"""Resampling of sinograms: what it keeps, and how near it comes to a scan on the other grid."""

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from allpet_physics import ParallelGeometry, RadonOperator, describe_resampling, resample_sinogram
from allpet_physics.errors import GeometryError, InputError
from allpet_physics.simulation.phantom import Phantom
from allpet_physics.simulation.phantoms import asymmetric_test_phantom, nema_iec
from allpet_physics.simulation.shapes import disc

FOV = 300.0
ARCS = st.sampled_from([np.pi, 2 * np.pi])


def grid(n_angles, n_bins, arc=np.pi, fov=FOV):
    return ParallelGeometry(n_angles, n_bins, fov / n_bins, (n_bins, n_bins), fov / n_bins, arc)


@st.composite
def grids(draw, min_angles=1, min_bins=1):
    """A geometry of any parity over a field of at least FOV."""
    return grid(draw(st.integers(min_angles, 60)), draw(st.integers(min_bins, 70)), draw(ARCS),
                FOV * draw(st.sampled_from([1, 1.02, 1.4, 2.5])))


def noisy(geometry, seed=0, dtype=np.float64, batch=()):
    """Counts with large jumps and many zeros."""
    counts = np.random.default_rng(seed).poisson(0.7, batch + geometry.sinogram_shape)
    return (counts**3).astype(dtype)


def smooth(geometry, fwhm=30.0, seed=3):
    """The sinogram of Gaussian blobs: the mean over each bin of their line integrals, by nested averages of shifts."""
    rng = np.random.default_rng(seed)
    fine = geometry.replace(n_bins=16 * geometry.n_bins, bin_mm=geometry.bin_mm / 16)
    total = np.zeros(fine.sinogram_shape)
    for x, y, value in zip(*rng.uniform(-60, 60, (2, 12)), rng.uniform(0.2, 1, 12), strict=True):
        centre = x * np.cos(fine.angles) + y * np.sin(fine.angles)
        total += value * np.exp(-4 * np.log(2) * (fine.bin_centres - centre[:, None])**2 / fwhm**2)
    return total.reshape(*geometry.sinogram_shape, 16).mean(axis=-1)


def relative_error(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def roll_views(sinogram, k):
    """Rotate a sinogram over π by k of its steps: what passes the end comes back flipped."""
    n = sinogram.shape[-2]
    turns, views = np.divmod(np.arange(n) + k, n)
    out = sinogram[..., views, :]
    out[..., turns % 2 == 1, :] = out[..., turns % 2 == 1, ::-1]
    return out


# What is kept ----------------------------------------------------------------------------------------------------
@settings(max_examples=80, deadline=None)
@given(grids(), grids(), st.sampled_from([np.float32, np.float64]), st.integers(0, 99))
def test_counts_keep_their_total_and_stay_non_negative(source, target, dtype, seed):
    assume(target.fov_mm >= source.fov_mm)
    counts = noisy(source, seed, dtype, (2,))
    out = resample_sinogram(counts, source, target)
    assert out.shape == (2, *target.sinogram_shape)
    assert out.dtype == dtype
    assert out.min() >= 0
    np.testing.assert_allclose(out.sum(axis=(1, 2), dtype=float), counts.sum(axis=(1, 2), dtype=float), rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(grids(), st.integers(1, 70), st.sampled_from([1, 1.3]))
def test_every_view_keeps_its_total_when_only_bins_change(source, n_bins, wider):
    target = source.replace(n_bins=n_bins, bin_mm=wider * source.fov_mm / n_bins)
    counts = noisy(source)
    np.testing.assert_allclose(resample_sinogram(counts, source, target).sum(axis=1), counts.sum(axis=1), rtol=1e-12,
                               atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(grids(), grids())
def test_views_of_equal_totals_keep_equal_totals(source, target):
    assume(target.fov_mm >= source.fov_mm)
    counts = noisy(source) + 0.1
    counts *= 1000 / counts.sum(axis=1, keepdims=True)
    out = resample_sinogram(counts, source, target, kind="line-integrals")
    np.testing.assert_allclose(out.sum(axis=1) * target.bin_mm, 1000 * source.bin_mm, rtol=1e-10)


@settings(max_examples=40, deadline=None)
@given(grids(), st.sampled_from(["counts", "line-integrals"]), st.sampled_from([np.float32, np.float64]))
def test_equal_grids_give_a_copy_bit_for_bit_whatever_the_image_grids(geometry, kind, dtype):
    sinogram = noisy(geometry, dtype=dtype) / 3
    target = geometry.replace(image_shape=(7, 9), pixel_mm=3.0)
    out = resample_sinogram(sinogram, geometry, target, kind=kind)
    np.testing.assert_array_equal(out, sinogram)
    assert not np.shares_memory(out, sinogram)


@settings(max_examples=40, deadline=None)
@given(grids(min_bins=4), grids(min_bins=4))
def test_uniform_line_integrals_stay_uniform(source, target):
    target = target.replace(bin_mm=source.fov_mm / target.n_bins)
    out = resample_sinogram(np.full(source.sinogram_shape, 2.5), source, target, kind="line-integrals")
    np.testing.assert_allclose(out, 2.5, rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(grids(), grids(), st.floats(-3, 3))
def test_line_integrals_are_mapped_linearly(source, target, factor):
    assume(target.fov_mm >= source.fov_mm)
    a, b = noisy(source, 1), noisy(source, 2)

    def change(y):
        return resample_sinogram(y, source, target, kind="line-integrals")

    np.testing.assert_allclose(change(a + factor * b), change(a) + factor * change(b),
                               atol=1e-9 * (a + 3 * b + 1).max())


def test_counts_and_line_integrals_agree_up_to_their_units_where_data_are_smooth_and_positive():
    source, target = grid(40, 32), grid(90, 64, 2 * np.pi)
    y = smooth(source) + 0.5
    counts = resample_sinogram(y, source, target)
    values = resample_sinogram(y, source, target, kind="line-integrals")
    np.testing.assert_allclose(counts * (90 / 40) * (64 / 32), values, rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(grids(), grids(), st.integers(0, 9))
def test_a_batch_is_its_items_one_by_one(source, target, seed):
    assume(target.fov_mm >= source.fov_mm)
    counts = noisy(source, seed, batch=(2, 3))
    out = resample_sinogram(counts, source, target)
    for i, j in np.ndindex(2, 3):
        np.testing.assert_array_equal(out[i, j], resample_sinogram(counts[i, j], source, target))


def test_a_large_batch_is_its_items_too():
    source, target = grid(100, 100), grid(150, 120)
    counts = noisy(source, batch=(70,))
    out = resample_sinogram(counts, source, target)
    np.testing.assert_array_equal(out[-1], resample_sinogram(counts[-1], source, target))
    assert resample_sinogram(counts[:0], source, target).shape == (0, 150, 120)


def test_empty_bins_stay_exactly_empty():
    source, target = grid(30, 40), grid(77, 123)
    counts = noisy(source) + 1.0
    counts[:, :10] = 0
    counts[:, 30:] = 0
    beyond = np.abs(target.bin_centres) > FOV / 4 + target.bin_mm / 2
    assert (resample_sinogram(counts, source, target)[:, beyond] == 0).all()


# Symmetries ------------------------------------------------------------------------------------------------------
@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 6), st.integers(-20, 20), st.sampled_from([5, 8]))
def test_resampling_commutes_with_rotation_by_steps_that_both_grids_have(a, b, common, k, n_bins):
    source, target = grid(a * common, 8), grid(b * common, n_bins)
    counts = noisy(source)
    rotated = resample_sinogram(roll_views(counts, k * a), source, target)
    np.testing.assert_allclose(rotated, roll_views(resample_sinogram(counts, source, target), k * b), atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(grids(), grids())
def test_resampling_commutes_with_a_mirror_image(source, target):
    """The image mirrored top to bottom has the views in reverse order: p(-θ, s)."""
    assume(target.fov_mm >= source.fov_mm)

    def mirror(y, geometry):
        reverse = -np.arange(geometry.n_angles) % geometry.n_angles
        flipped = y[reverse]
        if geometry.arc < 4:
            flipped[1:] = flipped[1:, ::-1]
        return flipped

    counts = noisy(source)
    np.testing.assert_allclose(resample_sinogram(mirror(counts, source), source, target),
                               mirror(resample_sinogram(counts, source, target), target), atol=1e-9)


# The arc ---------------------------------------------------------------------------------------------------------
def test_opposing_views_share_the_counts_and_add_up_again():
    half, full = grid(30, 21), grid(60, 21, 2 * np.pi)
    counts = noisy(half)
    out = resample_sinogram(counts, half, full)
    np.testing.assert_array_equal(out[:30], counts / 2)
    np.testing.assert_array_equal(out[30:], counts[:, ::-1] / 2)
    np.testing.assert_array_equal(resample_sinogram(out, full, half), counts)
    drawn = noisy(full)
    np.testing.assert_array_equal(resample_sinogram(drawn, full, half), drawn[:30] + drawn[30:, ::-1])


def test_opposing_views_are_equal_as_line_integrals():
    half, full = grid(30, 21), grid(60, 21, 2 * np.pi)
    y = smooth(half)
    np.testing.assert_array_equal(resample_sinogram(y, half, full, kind="line-integrals"),
                                  np.concatenate([y, y[:, ::-1]]))
    z = smooth(full)
    np.testing.assert_allclose(resample_sinogram(z, full, half, kind="line-integrals"), (z[:30] + z[30:, ::-1]) / 2)


@pytest.mark.parametrize("n", [1, 3, 31])
def test_odd_views_over_two_pi_are_those_over_pi_in_another_order(n):
    half, full = grid(n, 24), grid(n, 24, 2 * np.pi)
    phantom = asymmetric_test_phantom()
    np.testing.assert_allclose(resample_sinogram(phantom.sinogram(full), full, half), phantom.sinogram(half), atol=1e-9)
    np.testing.assert_allclose(resample_sinogram(phantom.sinogram(half), half, full), phantom.sinogram(full), atol=1e-9)
    counts = noisy(full)
    np.testing.assert_array_equal(resample_sinogram(resample_sinogram(counts, full, half), half, full), counts)


# Agreement with a scan on the other grid -------------------------------------------------------------------------
@pytest.mark.parametrize("arcs", [(np.pi, np.pi), (np.pi, 2 * np.pi), (2 * np.pi, np.pi), (2 * np.pi, 2 * np.pi)])
@pytest.mark.parametrize(("shapes", "bound"), [(((96, 64), (250, 170)), 1e-3), (((250, 170), (96, 64)), 1e-4),
                                               (((95, 64), (121, 64)), 1e-5), (((96, 64), (96, 80)), 1e-3)])
def test_smooth_objects_agree_with_their_projection_on_the_other_grid(shapes, bound, arcs):
    """Blobs of 30 mm, bins of 4.7 and 1.8 mm: 6 bins or more across a blob."""
    (source, target) = (grid(n * (2 if arc > 4 else 1), bins, arc)
                        for (n, bins), arc in zip(shapes, arcs, strict=True))
    expected = smooth(target)
    found = resample_sinogram(smooth(source), source, target, kind="line-integrals")
    assert relative_error(found, expected) < bound
    counts = resample_sinogram(smooth(source), source, target)
    scale = source.n_angles / target.n_angles * target.bin_mm / source.bin_mm
    assert relative_error(counts / scale, expected) < bound


def test_the_error_falls_with_the_third_power_of_the_step_or_faster():
    target = grid(377, 311)
    errors = [relative_error(resample_sinogram(smooth(grid(n, n)), grid(n, n), target, kind="line-integrals"),
                             smooth(target)) for n in (40, 80, 160)]
    assert errors[1] < errors[0] / 7
    assert errors[2] < errors[1] / 7


@pytest.mark.parametrize(("phantom", "bound"), [(nema_iec(), 0.012), (asymmetric_test_phantom(), 0.04)])
def test_sharp_phantoms_agree_with_their_exact_sinograms(phantom, bound):
    coarse, fine = grid(128, 64), grid(320, 160)
    up = resample_sinogram(phantom.sinogram(coarse), coarse, fine, kind="line-integrals")
    down = resample_sinogram(phantom.sinogram(fine), fine, coarse, kind="line-integrals")
    assert relative_error(up, phantom.sinogram(fine)) < bound
    assert relative_error(down, phantom.sinogram(coarse)) < bound / 8


def test_resampling_beats_piecewise_constant_cells():
    """Nearest neighbours are what a remapping without slopes would give."""
    coarse, fine = grid(60, 40), grid(240, 160)
    near = np.repeat(np.repeat(smooth(coarse), 4, axis=0), 4, axis=1)
    found = resample_sinogram(smooth(coarse), coarse, fine, kind="line-integrals")
    assert relative_error(found, smooth(fine)) < relative_error(near, smooth(fine)) / 20


def test_projection_on_either_grid_gives_the_same_expected_counts():
    """The strip projector of an image, in counts per bin and view of a scan of a million."""
    coarse = ParallelGeometry(90, 80, 4.0, (128, 128), 2.0)
    fine = ParallelGeometry(200, 160, 2.0, (128, 128), 2.0)
    image = Phantom((disc(20, -10, 70, 1.0), disc(-15, 30, 25, 2.0))).image(fine)
    counts = [1e6 * p / p.sum() for p in (RadonOperator(coarse)(image), RadonOperator(fine)(image))]
    assert relative_error(resample_sinogram(counts[1], fine, coarse), counts[0]) < 1e-3
    assert relative_error(resample_sinogram(counts[0], coarse, fine), counts[1]) < 2e-2


@pytest.mark.parametrize("kind", ["counts", "line-integrals"])
def test_fine_to_coarse_to_fine_returns_smooth_data(kind):
    fine, coarse = grid(240, 160), grid(120, 80, 2 * np.pi, 1.1 * FOV)
    there = resample_sinogram(smooth(fine), fine, coarse, kind=kind)
    assert relative_error(resample_sinogram(there, coarse, fine, kind=kind), smooth(fine)) < 2e-3


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_whole_bins_are_added_as_they_are(factor):
    source = grid(12, 60)
    target = source.replace(n_bins=60 // factor, bin_mm=factor * source.bin_mm)
    counts = noisy(source)
    np.testing.assert_allclose(resample_sinogram(counts, source, target), counts.reshape(12, -1, factor).sum(axis=-1),
                               rtol=1e-12)


# What is refused, and what is said -------------------------------------------------------------------------------
def test_a_target_too_small_for_the_object_is_refused_with_a_size_that_holds_it():
    source = grid(40, 60)
    y = Phantom((disc(30, 0, 60, 1.0),)).sinogram(source)
    small = source.replace(n_bins=32)
    with pytest.raises(GeometryError, match=r"target must reach .*\d% of sinogram 1 .*160 mm.*n_bins=(\d+)") as caught:
        resample_sinogram(np.stack([0 * y, y]), source, small)
    n_bins = int(str(caught.value).split("n_bins=")[1].split()[0])
    assert 32 < n_bins <= 38
    out = resample_sinogram(y, source, source.replace(n_bins=n_bins))
    assert out.sum() == pytest.approx(y.sum(), rel=1e-3)
    cut = resample_sinogram(y, source, small, max_lost=1)
    np.testing.assert_allclose(cut, y[:, 14:46], rtol=1e-12)


@settings(max_examples=40, deadline=None)
@example(3, 1, 0.25, 0)  # cut within the middle bin
@given(st.integers(2, 40), st.integers(1, 40), st.floats(0.2, 0.99), st.integers(0, 99))
def test_the_loss_that_is_refused_is_the_loss_there_would_be(n_source, n_target, narrower, seed):
    source, target = grid(6, n_source), grid(6, n_target, fov=narrower * FOV)
    counts = np.full(source.sinogram_shape, 3.0)
    lost = 1 - narrower
    with pytest.raises(GeometryError, match="lie beyond"):
        resample_sinogram(counts, source, target, max_lost=lost * (1 - 1e-6))
    out = resample_sinogram(counts, source, target, max_lost=lost * (1 + 1e-6))
    assert out.sum() == pytest.approx(narrower * counts.sum())


def test_wrong_input_is_refused_in_one_sentence():
    source, target = grid(6, 8), grid(9, 8)
    y = np.ones(source.sinogram_shape)
    with pytest.raises(InputError, match=r"kind must be one of counts, line-integrals, but was 'rates'\."):
        resample_sinogram(y, source, target, kind="rates")
    with pytest.raises(InputError, match="must not be negative"):
        resample_sinogram(-y, source, target)
    with pytest.raises(InputError, match=r"shape \(\.\.\., 6, 8\)"):
        resample_sinogram(y.T, source, target)
    with pytest.raises(InputError, match="target must be a ParallelGeometry, but was tuple"):
        resample_sinogram(y, source, (9, 8))
    with pytest.raises(InputError, match="NaN"):
        resample_sinogram(y * np.nan, source, target)
    with pytest.raises(InputError, match="max_lost"):
        resample_sinogram(y, source, target, max_lost=-1)
    np.testing.assert_array_equal(resample_sinogram(-y, source, source, kind="line-integrals"), -y)


def test_the_description_names_every_step_and_only_those():
    half = grid(30, 20)
    assert describe_resampling(half, half.replace(pixel_mm=9.0)) == "No resampling: views and bins are equal."
    text = describe_resampling(grid(60, 20, 2 * np.pi), grid(40, 40, fov=1.2 * FOV))
    assert "20 bins of 15 mm to 40 of 9 mm (30 mm empty at either side)" in text
    assert "60 views over 2 pi to 40 over pi; opposing views added; each view with 1.5 of the counts" in text
    assert "bins" not in describe_resampling(half, grid(40, 20))
    assert "views" not in describe_resampling(half, grid(30, 10))
    assert "counts" not in describe_resampling(half, grid(40, 10), kind="line-integrals")
