import dataclasses
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.filters import threshold_multiotsu, threshold_otsu

from allpet_physics.attention import asymmetry_map, body_mask, edit_roi, project_roi, threshold_roi
from allpet_physics.errors import EmptyROIWarning, GeometryError, InputError
from allpet_physics.geometry import ParallelGeometry

SIZE = 96


def disc(row, col, radius, shape=(SIZE, SIZE)):
    r, c = np.ogrid[:shape[0], :shape[1]]
    return (r - row)**2 + (c - col)**2 <= radius**2


def ball(centre, radius_mm, shape, voxel_mm):
    axes = np.ogrid[tuple(slice(n) for n in shape)]
    return sum(((a - c) * v)**2 for a, c, v in zip(axes, centre, voxel_mm, strict=True)) <= radius_mm**2


def patient(hot=(), cold=(), background=1.0, blur=1.0):
    """A body with round lesions (row, col, radius, uptake)."""
    image = background * disc(47.5, 47.5, 40).astype(np.float64)
    for row, col, radius, uptake in (*hot, *cold):
        image[disc(row, col, radius)] = uptake
    return ndimage.gaussian_filter(image, blur) if blur else image


def overlap(a, b):
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


# Hot regions -----------------------------------------------------------------------------------------------------


def test_fixed_is_equation_10():
    image = np.random.default_rng(0).normal(size=(40, 50))
    np.testing.assert_array_equal(threshold_roi(image, "fixed", value=0.7).mask, image > 0.7)


@pytest.mark.parametrize("radius_mm", [8.0, 14.0])
def test_41_percent_isocontour_has_the_volume_of_a_sphere_on_an_anisotropic_grid(radius_mm):
    voxel = (3.0, 1.5, 2.0)
    shape = (20, 34, 26)
    fine = ball((9.3, 16.6, 12.4), radius_mm, shape, voxel).astype(np.float64)
    image = 12 * ndimage.gaussian_filter(fine, [2.0 / v for v in voxel])
    roi = threshold_roi(image, "relative", voxel_mm=voxel)
    assert roi.n_components == 1
    # Blurred by 4.7 mm FWHM the 41 % contour lies just outside the 50 % contour, which is the sphere's surface.
    assert roi.components[0].volume_ml == pytest.approx(4 / 3 * np.pi * radius_mm**3 / 1000, rel=0.15)
    assert roi.components[0].volume_ml == pytest.approx(np.count_nonzero(roi.mask) * 9.0 / 1000)
    assert roi.thresholds["hot"] == pytest.approx([0.41 * image.max()])


def test_gaussian_lesion_has_the_analytic_isocontour():
    r, c = np.mgrid[:SIZE, :SIZE]
    sigma = 9.0
    image = np.exp(-((r - 48)**2 + (c - 48)**2) / (2 * sigma**2))
    for fraction in (0.3, 0.41, 0.5):
        area = np.count_nonzero(threshold_roi(image, "relative", value=fraction).mask)
        assert area == pytest.approx(2 * np.pi * sigma**2 * np.log(1 / fraction), rel=0.03)


@pytest.mark.parametrize("background", [0.0, 1.0])
def test_lesions_of_different_uptake_each_get_their_own_isocontour(background):
    lesions = [(35, 30, 7, 30.0), (60, 62, 8, 5.0)]
    image = patient(lesions, background=background)
    roi = threshold_roi(image, "relative", voxel_mm=1)
    assert roi.n_components == 2
    # One global 41 % threshold sees the hotter one alone.
    assert not (image > 0.41 * image.max())[60, 62]
    for row, col, radius, uptake in lesions:
        assert overlap(roi.mask & disc(row, col, 14), disc(row, col, radius)) > 0.9
        own = next(c for c in roi.components if abs(c.centroid[0] - row) < 1)
        assert own.threshold == pytest.approx(0.41 * own.maximum)
        assert own.maximum == pytest.approx(uptake, rel=0.02)


def test_touching_lesions_are_told_apart_by_the_valley_between_them():
    image = patient([(48, 34, 6, 20.0), (48, 51, 6, 9.0)], background=0.5, blur=2.0)
    valley = image[48, 34:52].min()
    assert 0.5 < valley < 0.41 * 9
    assert threshold_roi(image, "relative").n_components == 2
    # A fraction that puts the lower lesion's isocontour below the valley makes it part of the slope of the other.
    merged = threshold_roi(image, "relative", value=0.9 * valley / 9)
    assert merged.n_components == 1
    assert merged.components[0].maximum == pytest.approx(image.max())


def test_floor_excludes_faint_lesions_and_bounds_the_isocontour():
    image = patient([(35, 30, 7, 20.0), (60, 62, 8, 3.0)], background=0.2)
    roi = threshold_roi(image, "relative", floor=4.0)
    assert roi.n_components == 1
    raised = threshold_roi(image, "relative", floor=15.0)
    assert raised.thresholds["hot"] == pytest.approx([15.0])
    assert image[raised.mask].min() > 15


def test_leak_of_a_low_contrast_isocontour_is_reported():
    leaking = threshold_roi(patient([(48, 48, 8, 2.0)]), "relative")
    assert any("below the background" in w for w in leaking.warnings)
    assert not threshold_roi(patient([(48, 48, 8, 2.0)]), "relative", floor=1.5).warnings
    assert not threshold_roi(patient([(48, 48, 8, 5.0)]), "relative").warnings


@given(st.integers(0, 10_000), st.floats(0.2, 0.8))
@settings(max_examples=25, deadline=None)
def test_every_relative_component_is_the_isocontour_of_its_own_maximum(seed, fraction):
    rng = np.random.default_rng(seed)
    image = ndimage.gaussian_filter(rng.normal(size=(32, 32)), 1.5)
    image -= image.min()
    roi = threshold_roi(image, "relative", value=fraction, floor=0.3 * image.max())
    for part in roi.components:
        seed_voxel = np.argwhere(image == part.maximum)[0]
        labels, _ = ndimage.label(image > part.threshold)
        isocontour = labels == labels[tuple(seed_voxel)]
        assert np.count_nonzero(isocontour) == part.n_voxels
        assert roi.mask[isocontour].all()
        assert image[isocontour].max() == part.maximum
    assert roi.mask.flat[np.argmax(image)]


def test_otsu_agrees_with_scikit_image_within_one_histogram_bin():
    rng = np.random.default_rng(2)
    image = np.abs(patient([(40, 40, 12, 6.0)]) + rng.normal(scale=0.3, size=(SIZE, SIZE)))
    everywhere = np.ones(image.shape, bool)
    bin_width = np.ptp(image) / 256
    roi = threshold_roi(image, "otsu", body=everywhere)
    assert abs(roi.thresholds["hot"] - threshold_otsu(image)) <= bin_width
    both = threshold_roi(image, "otsu", body=everywhere, polarity="both", rim_mm=0).thresholds
    theirs = threshold_multiotsu(image, classes=3, nbins=256)

    def variance_between(borders):
        classes = np.digitize(image, borders)
        return sum(np.sum(classes == k) * (image[classes == k].mean() - image.mean())**2 for k in range(3))

    assert variance_between([both["cold"], both["hot"]]) >= variance_between(theirs) * (1 - 1e-4)
    np.testing.assert_allclose([both["cold"], both["hot"]], theirs, atol=4 * bin_width)


def test_otsu_separates_a_lesion_from_the_body_and_splits_integers_without_losing_one():
    image = patient([(40, 40, 10, 6.0)], blur=0)
    roi = threshold_roi(image, "otsu")
    np.testing.assert_array_equal(roi.mask, disc(40, 40, 10))
    assert roi.thresholds["hot"] == pytest.approx(3.5)
    counts = np.repeat(np.arange(257), 3).reshape(3, -1)
    hot = threshold_roi(counts, "otsu", body=np.ones(counts.shape, bool))
    assert counts[hot.mask].min() - counts[~hot.mask].max() == 1


def test_percentile_counts_the_voxels_of_the_body():
    rng = np.random.default_rng(4)
    image = np.where(disc(47.5, 47.5, 40), rng.uniform(1, 2, (SIZE, SIZE)), 0.0)
    body = disc(47.5, 47.5, 40)
    roi = threshold_roi(image, "percentile", value=90, body=body)
    assert np.count_nonzero(roi.mask) == pytest.approx(0.1 * np.count_nonzero(body), abs=1)
    both = threshold_roi(image, "percentile", polarity="both", value=(20, 90), body=body, rim_mm=0)
    assert np.count_nonzero(both.cold) == pytest.approx(0.2 * np.count_nonzero(body), abs=1)
    np.testing.assert_array_equal(both.hot, roi.mask)


def test_local_threshold_finds_a_faint_lesion_beside_a_gradient():
    gradient = np.linspace(1, 9, SIZE)[None, :] * disc(47.5, 47.5, 40)
    lesion = disc(47, 22, 4)
    image = gradient + gradient * lesion
    roi = threshold_roi(image, "local", value=1.5, voxel_mm=1, window_mm=25)
    assert overlap(roi.mask & disc(47, 22, 9), lesion) > 0.9
    assert image[lesion].max() < image[~lesion].max()  # a global threshold would find the other side first
    with pytest.warns(EmptyROIWarning):
        assert not threshold_roi(image, "local", value=2, voxel_mm=1, window_mm=30, offset=50).mask.any()


def test_local_threshold_of_a_uniform_body_is_empty():
    with pytest.warns(EmptyROIWarning):
        roi = threshold_roi(patient(blur=0) * 7.3, "local", polarity="both", voxel_mm=4.0)
    assert not roi.mask.any()


# Cold regions and the body ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "value"), [("fixed", 0.5), ("relative", 0.5), ("otsu", None), ("local", 2.0)])
def test_cold_defect_is_found_and_the_rim_is_not(method, value):
    image = patient(cold=[(50, 55, 7, 0.05)], blur=1.5)
    roi = threshold_roi(image, method, value=value, polarity="cold", voxel_mm=2.0,
                        window_mm=80 if method == "local" else None)
    assert overlap(roi.cold, disc(50, 55, 7)) > 0.85
    assert not roi.hot.any()
    assert roi.n_components == 1
    assert roi.components[0].polarity == "cold"


def test_the_rim_alone_makes_the_edge_cold_when_it_is_switched_off():
    image = patient(cold=[(50, 55, 7, 0.05)], blur=1.5)  # 7 mm FWHM
    with_rim = threshold_roi(image, "fixed", value=0.5, polarity="cold", voxel_mm=2.0)
    without = threshold_roi(image, "fixed", value=0.5, polarity="cold", voxel_mm=2.0, rim_mm=0)
    assert with_rim.n_components == 1
    assert without.mask[(body_mask(image) & ~disc(47.5, 47.5, 40))].all()


def test_both_polarities_are_disjoint_and_add_up():
    image = patient([(30, 40, 6, 6.0)], [(60, 50, 7, 0.0)])
    for method, value in (("fixed", (0.4, 3)), ("relative", 0.5), ("otsu", None), ("percentile", (3, 97))):
        roi = threshold_roi(image, method, value=value, polarity="both")
        np.testing.assert_array_equal(roi.mask, roi.hot | roi.cold)
        assert not (roi.hot & roi.cold).any()
        assert roi.hot[30, 40]
        assert roi.cold[60, 50]
        assert set(roi.thresholds) == {"hot", "cold"}
        assert [c.polarity for c in roi.components] == sorted((c.polarity for c in roi.components), reverse=True)


def test_a_hot_isocontour_that_leaks_over_a_mild_defect_keeps_it():
    image = patient([(30, 40, 8, 2.0)], [(60, 50, 7, 0.85)], blur=0)
    roi = threshold_roi(image, "relative", value=(0.9, 0.41), polarity="both")
    assert roi.hot[60, 50]
    assert not roi.cold.any()


def test_rim_is_measured_in_mm_on_each_axis():
    body = np.zeros((40, 30), bool)
    body[5:35, 5:25] = True
    roi = threshold_roi(np.ones((40, 30)), "fixed", value=2, polarity="cold", body=body, voxel_mm=(2, 5), rim_mm=10.5)
    expected = np.zeros_like(body)
    expected[10:30, 7:23] = True  # 6 voxels of 2 mm and 3 of 5 mm are the first centres beyond 10.5 mm
    np.testing.assert_array_equal(roi.cold, expected)


def test_body_is_filled_and_ignores_air_noise_and_hot_spots():
    rng = np.random.default_rng(5)
    image = patient([(30, 40, 3, 60.0)], [(50, 35, 10, 0.0), (50, 62, 10, 0.0)])
    image = image + rng.normal(scale=0.02, size=image.shape)
    assert overlap(body_mask(image), disc(47.5, 47.5, 40)) > 0.95
    head = np.zeros((256, 256))
    head[:SIZE, :SIZE] = patient([(48, 48, 25, 4.0)]) * 0.5
    assert overlap(body_mask(head + 1e-3), np.pad(disc(47.5, 47.5, 40), (0, 160))) > 0.95


def test_noise_as_filtered_backprojection_has_it_spoils_neither_body_nor_peaks():
    rng = np.random.default_rng(7)
    image = patient([(30, 40, 5, 12.0), (60, 60, 5, 6.0)])
    image = image + ndimage.gaussian_filter(rng.normal(size=image.shape), 1.0) * 0.5  # σ = 0.14, also in air
    assert overlap(body_mask(image), disc(47.5, 47.5, 40)) > 0.95
    roi = threshold_roi(image, "relative", min_voxels=10)
    assert roi.n_components == 2
    assert np.count_nonzero(threshold_roi(image, "relative").mask & ~body_mask(image)) < 20


def test_noise_in_a_volume_does_not_join_the_air_to_the_body():
    rng = np.random.default_rng(8)
    cylinder = np.repeat(disc(23.5, 23.5, 12, (48, 48))[None], 16, axis=0)
    body = body_mask(cylinder + 0.1 * rng.normal(size=cylinder.shape))
    assert overlap(body, cylinder) > 0.98


def test_organs_that_hold_most_of_the_activity_do_not_hide_the_rest():
    kidneys = [(60, 28, 9, 30.0), (60, 67, 9, 30.0)]
    image = patient([*kidneys, (25, 47, 4, 3.0)], background=0.5)
    assert image[disc(60, 28, 9) | disc(60, 67, 9)].sum() > 0.75 * image.sum()
    assert overlap(body_mask(image), disc(47.5, 47.5, 40)) > 0.95
    assert threshold_roi(image, "relative").mask[25, 47]


def test_lungs_open_at_the_end_of_the_scan_belong_to_the_body():
    volume = np.stack([patient(cold=[(50, 50, 12, 0.0)], blur=0)] * 6)
    assert body_mask(volume)[:, 50, 50].all()


def test_given_body_restricts_hot_and_cold():
    image = patient([(35, 30, 7, 6.0), (60, 62, 8, 6.0)])
    left = np.zeros(image.shape, bool)
    left[:, :48] = True
    for method in ("fixed", "relative", "otsu", "percentile"):
        roi = threshold_roi(image, method, value=3 if method == "fixed" else None, body=left)
        assert roi.mask[35, 30]
        assert not roi.mask[:, 48:].any()


def test_asymmetry_finds_a_one_sided_loss():
    rng = np.random.default_rng(6)
    image = patient(blur=0)
    image[disc(47.5, 30, 8) | disc(47.5, 65, 8)] = 4.0
    image[disc(47.5, 65, 8)] *= 0.8  # above the rest of the body: no threshold on X finds it
    body = disc(47.5, 47.5, 40)
    image += 0.05 * rng.normal(size=image.shape) * body
    z = asymmetry_map(image, body=body)
    np.testing.assert_allclose(z, -z[:, ::-1], atol=1e-12)
    roi = threshold_roi(z, "fixed", value=-5, polarity="cold", body=body, min_voxels=20)
    assert overlap(roi.mask, disc(47.5, 65, 8)) > 0.95
    index = asymmetry_map(image, kind="index", body=body)
    assert index[47, 65] == pytest.approx((3.2 - 4) / 3.6, abs=0.08)
    shifted = asymmetry_map(np.roll(image, 5, axis=1), centre=52.5, body=np.roll(body, 5, axis=1))
    np.testing.assert_allclose(np.roll(shifted, -5, axis=1), z)
    assert not asymmetry_map(patient(blur=0)).any()
    one_arm = image + disc(12, 10, 6)
    assert not asymmetry_map(one_arm, body=body | disc(12, 10, 6))[12, 10]  # no counterpart to compare with
    noise_free = asymmetry_map(patient([(47.5, 65, 5, 3.0)], blur=0))
    assert noise_free[47, 65] > 3
    assert noise_free[47, 30] < -3


# Components ------------------------------------------------------------------------------------------------------


def test_small_components_are_removed_by_voxels_and_by_volume():
    image = np.zeros((40, 40))
    image[5:15, 5:15] = 5  # 100 voxels
    image[25:28, 25:28] = 5  # 9 voxels
    assert threshold_roi(image, "fixed", value=1).n_components == 2
    assert threshold_roi(image, "fixed", value=1, min_voxels=9).n_components == 2
    assert threshold_roi(image, "fixed", value=1, min_voxels=10).n_components == 1
    # 9 voxels of 4 × 2 × 2 mm are 0.144 mL.
    assert threshold_roi(image, "fixed", value=1, voxel_mm=(4, 2, 2), min_volume_ml=0.144).n_components == 2
    kept = threshold_roi(image, "fixed", value=1, voxel_mm=(4, 2, 2), min_volume_ml=0.145)
    assert [c.volume_ml for c in kept.components] == pytest.approx([1.6])
    with pytest.warns(EmptyROIWarning, match="fewer than 101"):
        assert threshold_roi(image, "fixed", value=1, min_voxels=101).n_components == 0
    with pytest.warns(EmptyROIWarning, match="fewer than 101"):
        threshold_roi(image, "relative", min_voxels=101)


def test_connectivity_and_largest_only():
    image = np.zeros((4, 12, 12))
    image[0, 2:4, 2:4] = 5
    image[1, 4:7, 4:7] = 5  # shares one corner with the first
    assert threshold_roi(image, "fixed", value=1).n_components == 2
    assert threshold_roi(image, "fixed", value=1, connectivity=2).n_components == 2
    assert threshold_roi(image, "fixed", value=1, connectivity=3).n_components == 1
    largest = threshold_roi(image, "fixed", value=1, largest_only=True)
    assert np.count_nonzero(largest.mask) == 9
    assert largest.mask[1, 5, 5]


def test_component_records_describe_the_image():
    image = patient([(35, 30, 7, 20.0), (60, 62, 10, 6.0)], background=0.3)
    roi = threshold_roi(image, "fixed", value=3, voxel_mm=2)
    assert sum(c.n_voxels for c in roi.components) == np.count_nonzero(roi.mask)
    assert sum(c.n_voxels * c.mean for c in roi.components) == pytest.approx(image[roi.mask].sum())
    assert max(c.maximum for c in roi.components) == image.max()
    assert [c.n_voxels for c in roi.components] == sorted((c.n_voxels for c in roi.components), reverse=True)
    np.testing.assert_allclose(roi.components[0].centroid, (60, 62), atol=0.1)
    assert roi.components[0].volume_ml == pytest.approx(roi.components[0].n_voxels * 0.008)
    flat = threshold_roi(image, "fixed", value=3, voxel_mm=(2, 2))
    assert flat.components[0].volume_ml is None


# Invariances -----------------------------------------------------------------------------------------------------


METHODS = st.sampled_from([("relative", {}), ("otsu", {}), ("percentile", {"value": (7, 93)}),
                           ("local", {"voxel_mm": 2.0, "window_mm": 30})])


def random_patient(seed):
    rng = np.random.default_rng(seed)
    image = np.where(disc(23.5, 23.5, 20, (48, 48)), rng.uniform(0.5, 1.5, (48, 48)), 0.0)
    for _ in range(3):
        row, col = rng.uniform(12, 36, 2)
        image[disc(row, col, rng.uniform(2, 4), (48, 48))] = rng.choice([0.05, 4.0, 9.0])
    return ndimage.gaussian_filter(image, 0.8)


@given(st.integers(0, 10_000), METHODS, st.integers(-20, 20))
@settings(max_examples=30, deadline=None)
def test_scaling_the_image_does_not_change_the_region(seed, method, power):
    image = random_patient(seed)
    name, options = method
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyROIWarning)
        one = threshold_roi(image, name, polarity="both", **options)
        other = threshold_roi(image * 2.0**power, name, polarity="both", **options)
    np.testing.assert_array_equal(one.mask, other.mask)
    for part in ("hot", "cold"):
        np.testing.assert_allclose(other.thresholds[part], one.thresholds[part] * 2.0**power, rtol=1e-12)


@given(st.integers(0, 10_000), METHODS, st.booleans(), st.booleans(), st.booleans())
@settings(max_examples=30, deadline=None)
def test_flips_and_transposes_move_the_region_along(seed, method, flip_rows, flip_cols, transpose):
    def move(a):
        a = a[::-1] if flip_rows else a
        a = a[:, ::-1] if flip_cols else a
        return a.T if transpose else a

    image = random_patient(seed)
    name, options = method
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyROIWarning)
        one = threshold_roi(image, name, polarity="both", **options)
        other = threshold_roi(move(image), name, polarity="both", **options)
    np.testing.assert_array_equal(move(one.mask), other.mask)
    np.testing.assert_array_equal(move(one.body), other.body)


# Doors -----------------------------------------------------------------------------------------------------------


IMAGE = patient([(40, 40, 8, 5.0)])


@pytest.mark.parametrize(("arguments", "options", "error", "words"), [
    ((np.full((4, 4), np.nan), "relative"), {}, InputError, "image must be finite"),
    ((np.zeros((0, 4)), "relative"), {}, InputError, "non-empty"),
    ((np.zeros(4), "relative"), {}, InputError, "shape"),
    ((np.full((9, 9), 3.0), "otsu"), {}, InputError, "distinct levels"),
    ((np.full((9, 9), 3.0), "otsu"), {"polarity": "both", "rim_mm": 0}, InputError, "distinct levels"),
    ((np.zeros((9, 9)), "percentile"), {}, InputError, "body"),
    ((IMAGE, "median"), {}, InputError, "method"),
    ((IMAGE, "fixed"), {}, InputError, "value must be given"),
    ((IMAGE, "fixed"), {"value": np.inf}, InputError, "value"),
    ((IMAGE, "fixed"), {"value": 2, "polarity": "both"}, InputError, "pair"),
    ((IMAGE, "fixed"), {"value": (3, 2), "polarity": "both"}, InputError, "cold not above hot"),
    ((IMAGE, "relative"), {"value": 41}, InputError, "between 0 and 1"),
    ((IMAGE, "relative"), {"value": (0.4, 0.5)}, InputError, "one number"),
    ((IMAGE, "percentile"), {"value": 101}, InputError, "0 to 100"),
    ((IMAGE, "percentile"), {"value": -1}, InputError, "0 to 100"),
    ((IMAGE, "otsu"), {"value": 3}, InputError, "left out"),
    ((IMAGE, "local"), {}, InputError, "voxel_mm"),
    ((IMAGE, "local"), {"value": -1, "voxel_mm": 2}, InputError, "value"),
    ((IMAGE, "otsu"), {"floor": 2}, InputError, "floor belongs"),
    ((IMAGE, "otsu"), {"polarity": "warm"}, InputError, "polarity"),
    ((IMAGE, "otsu"), {"body": np.ones((3, 3))}, GeometryError, "body must have the shape"),
    ((IMAGE, "otsu"), {"body": np.zeros(IMAGE.shape)}, InputError, "empty"),
    ((IMAGE, "otsu"), {"body": np.full(IMAGE.shape, 2)}, InputError, "0 and 1"),
    ((IMAGE, "otsu"), {"min_volume_ml": -1}, InputError, "min_volume_ml"),
    ((IMAGE, "otsu"), {"min_volume_ml": 1}, InputError, "voxel_mm"),
    ((IMAGE, "otsu"), {"min_volume_ml": 1, "voxel_mm": (2, 2)}, InputError, "thickness"),
    ((IMAGE, "otsu"), {"min_voxels": 0}, InputError, "min_voxels"),
    ((IMAGE, "otsu"), {"voxel_mm": (1, 2, 3, 4)}, GeometryError, "voxel_mm"),
    ((IMAGE, "otsu"), {"voxel_mm": 0}, InputError, "voxel_mm"),
    ((IMAGE, "otsu"), {"connectivity": 3}, InputError, "connectivity"),
    ((IMAGE, "otsu"), {"polarity": "cold", "voxel_mm": 1, "rim_mm": 500}, InputError, "rim_mm"),
    ((IMAGE, "otsu"), {"polarity": "cold", "rim_mm": 5}, InputError, "voxel_mm"),
])
def test_mistakes_are_named(arguments, options, error, words):
    with pytest.raises(error, match=words):
        threshold_roi(*arguments, **options)


@pytest.mark.parametrize("image", [np.zeros((8, 8)), np.ones((8, 8), np.float32), np.zeros((3, 8, 8))])
def test_empty_region_warns_once_and_says_why(image):
    with pytest.warns(EmptyROIWarning) as caught:
        roi = threshold_roi(image, "fixed", value=2)
    assert len(caught) == 1
    assert roi.mask.shape == image.shape
    assert roi.mask.dtype == bool
    assert not roi.mask.any()
    assert "No voxel is hot" in roi.warnings[0]
    if not image.any():
        with pytest.warns(EmptyROIWarning):
            threshold_roi(image, "relative")


def test_image_is_not_changed_and_any_layout_is_taken():
    image = patient([(35, 30, 7, 6.0)]).astype(np.float32)
    image.setflags(write=False)
    expected = threshold_roi(image, "otsu").mask
    np.testing.assert_array_equal(threshold_roi(np.asfortranarray(image), "otsu").mask, expected)
    np.testing.assert_array_equal(threshold_roi(image.astype(">f4"), "otsu").mask, expected)


# Projection ------------------------------------------------------------------------------------------------------


GEOMETRY = ParallelGeometry.for_image((SIZE, SIZE), 2.0, n_angles=24)


def test_exact_projection_holds_the_area_at_every_angle_and_the_chords_of_a_disc():
    mask = disc(40, 52, 20)
    p = project_roi(mask, GEOMETRY, normalisation="none")
    assert p.dtype == np.float32
    assert p.shape == GEOMETRY.sinogram_shape
    np.testing.assert_allclose(p.sum(axis=1) * GEOMETRY.bin_mm, mask.sum() * 4.0, rtol=1e-5)
    x, y = (52 - 47.5) * 2, (47.5 - 40) * 2
    s = GEOMETRY.bin_centres[None] - (x * np.cos(GEOMETRY.angles) + y * np.sin(GEOMETRY.angles))[:, None]
    chord = 2 * np.sqrt(np.maximum(40.0**2 - s**2, 0))
    inner = np.abs(s) < 34
    assert np.abs(p - chord)[inner].max() < 4.0  # two pixels: the raster of the disc
    assert np.abs((p - chord)[inner].mean()) < 0.3
    assert not p[np.abs(s) > 46].any()
    np.testing.assert_array_equal(project_roi(mask, GEOMETRY, normalisation="exact"), p)


def test_linear_and_clip_are_bounded_and_reach_one():
    mask = disc(40, 52, 12) | disc(70, 30, 5)
    p = project_roi(mask, GEOMETRY, normalisation="none")
    linear = project_roi(mask, GEOMETRY)
    assert linear.max() == 1
    np.testing.assert_allclose(linear * p.max(), p, rtol=1e-5, atol=1e-5)
    clip = project_roi(mask, GEOMETRY, normalisation="clip", scale_mm=30)
    np.testing.assert_allclose(clip, np.clip(p / 30, 0, 1), rtol=1e-6)
    default = project_roi(mask, GEOMETRY, normalisation="clip")
    assert default.min() == 0
    assert default.max() == 1
    assert 0.3 < np.mean(default[p > 0] == 1) < 0.8
    assert (default >= linear).all()


def test_default_clip_scale_of_a_disc_is_cauchys_mean_chord():
    fine = ParallelGeometry.for_image((240, 240), 1.0, n_angles=8)
    mask = disc(119.5, 119.5, 80, (240, 240))
    p = project_roi(mask, fine, normalisation="none")
    clipped = project_roi(mask, fine, normalisation="clip")
    shorter = (clipped > 0.5) & (clipped < 1)
    assert np.median(p[shorter] / clipped[shorter]) == pytest.approx(np.pi * 80 / 2, rel=0.02)


def test_projection_is_additive_and_joseph_agrees_roughly():
    a, b = disc(30, 40, 8), disc(60, 50, 10)
    exact = {"normalisation": "none"}
    np.testing.assert_allclose(project_roi(a | b, GEOMETRY, **exact),
                               project_roi(a, GEOMETRY, **exact) + project_roi(b, GEOMETRY, **exact), atol=1e-4)
    strip, joseph = (project_roi(a, GEOMETRY, model=m, **exact) for m in ("strip", "joseph"))
    assert np.linalg.norm(strip - joseph) < 0.12 * np.linalg.norm(strip)


def test_batches_slices_and_stacks():
    volume = np.zeros((2, 3, SIZE, SIZE), np.uint8)
    volume[0, 1] = disc(48, 48, 20)
    volume[1, 2] = disc(48, 48, 5)
    out = project_roi(volume, GEOMETRY)
    assert out.shape == (2, 3, *GEOMETRY.sinogram_shape)
    peaks = out.max(axis=(2, 3))
    np.testing.assert_array_equal(peaks, [[0, 1, 0], [0, 0, 1]])
    stack = project_roi(volume, GEOMETRY, per="stack").max(axis=(2, 3))
    assert stack[0, 1] == 1
    assert stack[1, 2] == pytest.approx(0.25, abs=0.05)
    np.testing.assert_array_equal(out[0, 1], project_roi(volume[0, 1], GEOMETRY))
    clip = project_roi(volume, GEOMETRY, normalisation="clip", per="stack")
    assert clip[1, 2].max() < 1
    assert project_roi(volume, GEOMETRY, normalisation="clip")[1, 2].max() == 1


def test_result_of_threshold_roi_is_projected_directly():
    roi = threshold_roi(IMAGE, "fixed", value=3)
    np.testing.assert_array_equal(project_roi(roi, GEOMETRY), project_roi(roi.mask.astype(np.float32), GEOMETRY))


def test_region_outside_the_bins_warns_with_the_part_that_is_lost():
    small = ParallelGeometry(16, 60, 2.0, (SIZE, SIZE), 2.0)
    corner = np.zeros((SIZE, SIZE), bool)
    corner[:6, :6] = True
    with pytest.warns(UserWarning, match=r"(9\d\.\d|8\d\.\d|7\d\.\d|6\d\.\d)% of the region of interest lies outside"):
        out = project_roi(corner, small)
    assert np.isfinite(out).all()
    narrow = ParallelGeometry(2, 2, 2.0, (SIZE, SIZE), 2.0)
    with pytest.warns(UserWarning, match=r"100\.0% of the region"):
        assert not project_roi(corner, narrow).any()
    project_roi(disc(48, 48, 20), small)  # inside the bins: no warning


@pytest.mark.parametrize(("mask", "options", "words"), [
    (np.full((SIZE, SIZE), 0.5), {}, "0 and 1"),
    (np.full((SIZE, SIZE), np.nan), {}, "0 and 1"),
    (np.full((SIZE, SIZE), "a"), {}, "0 and 1"),
    (np.ones((5, 5)), {}, "shape"),
    (np.ones((SIZE, SIZE)), {"normalisation": "max"}, "normalisation"),
    (np.ones((SIZE, SIZE)), {"per": "batch"}, "per"),
    (np.ones((SIZE, SIZE)), {"scale_mm": 3}, "scale_mm belongs"),
    (np.ones((SIZE, SIZE)), {"normalisation": "clip", "scale_mm": 0}, "scale_mm"),
    (np.ones((SIZE, SIZE)), {"model": "pencil"}, "model"),
])
def test_projection_mistakes_are_named(mask, options, words):
    with pytest.raises(InputError, match=words):
        project_roi(mask, GEOMETRY, **options)


def test_empty_mask_warns_and_gives_zeros():
    with pytest.warns(EmptyROIWarning):
        out = project_roi(np.zeros((2, SIZE, SIZE)), GEOMETRY)
    assert out.shape == (2, *GEOMETRY.sinogram_shape)
    assert not out.any()


# Edits -----------------------------------------------------------------------------------------------------------


def test_edits_are_applied_in_order_and_logged():
    found, missed, bladder = disc(30, 30, 8), disc(60, 60, 6), disc(30, 34, 5)
    before = found.copy()
    mask, log = edit_roi(found, add=missed, remove=bladder, note="reader 1: bladder")
    np.testing.assert_array_equal(mask, (before | missed) & ~bladder)
    np.testing.assert_array_equal(found, before)
    assert [e.action for e in log] == ["add", "remove"]
    assert log[0].n_changed == missed.sum()
    assert log[0].box == ((54, 66), (54, 66))
    assert log[1].n_changed == (found & bladder).sum()
    assert log[1].n_after == mask.sum()
    again, longer = edit_roi(mask, replace=missed, log=log)
    np.testing.assert_array_equal(again, missed)
    assert longer[:2] == log
    assert dataclasses.asdict(longer[2])["action"] == "replace"
    same, nothing = edit_roi(mask, add=mask)
    np.testing.assert_array_equal(same, mask)
    assert nothing[0].n_changed == 0
    assert nothing[0].box is None


def test_edit_on_another_grid_or_to_nothing():
    with pytest.raises(GeometryError, match="add must have the shape"):
        edit_roi(disc(30, 30, 8), add=np.ones((4, 4)))
    with pytest.warns(EmptyROIWarning):
        mask, _ = edit_roi(disc(30, 30, 8), remove=np.ones((SIZE, SIZE)))
    assert not mask.any()


def test_specks_of_noise_are_remarked_upon():
    rng = np.random.default_rng(0)
    image = 0.3 * np.abs(rng.standard_normal((SIZE, SIZE))) + disc(48, 48, 30) + 5.0 * disc(50, 40, 5)
    noisy = threshold_roi(image, "relative", floor=0.7)
    assert noisy.n_components > 20
    assert any("as noise makes them" in text and "min_voxels" in text for text in noisy.warnings)
    assert not any("noise" in text for text in threshold_roi(image, "relative", floor=3.0, min_voxels=5).warnings)
