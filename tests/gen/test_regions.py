"""Bias and contrast of regions: closed forms, and small, empty and undefined regions told apart."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allpet_gen.evaluation.regions import lesion_contrast_recovery, region_bias
from allpet_physics.errors import InputError


@pytest.fixture
def truth():
    """Three images: background 2, a lesion of 3 × 3 pixels and 8 (image 0) or 0.5 (image 1), none in image 2."""
    images = np.full((3, 12, 12), 2.0)
    images[0, 4:7, 4:7], images[1, 4:7, 4:7] = 8, 0.5
    return images


@pytest.fixture
def lesion(truth):
    return truth != 2


@pytest.fixture
def host(lesion):
    mask = np.zeros_like(lesion)
    mask[:, 1:11, 1:11] = True
    return mask & ~lesion


def test_known_bias(truth, lesion, host):
    estimate = np.where(lesion, 0.75, 1.1) * truth
    found = region_bias(estimate, truth, {"lesion": lesion, "host": host})
    np.testing.assert_allclose(found["host"].values, [[0.1, 0.1, 0.1]], rtol=1e-12)
    np.testing.assert_allclose(found["lesion"].values, [[-0.25, -0.25, np.nan]], rtol=1e-12)
    assert found["lesion"].numbers == {"measured": 2, "small": 0, "empty": 1, "undefined": 0}
    assert found["lesion"].pixels.tolist() == [[9, 9, 0]]


def test_the_mean_counts_not_the_pattern(truth, host):
    noise = np.random.default_rng(0).standard_normal(truth.shape)
    for image, mask in zip(noise, host, strict=True):
        image[mask] -= image[mask].mean()
    np.testing.assert_allclose(region_bias(truth + noise, truth, {"host": host})["host"].values, 0, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.floats(1e-3, 1e4))
def test_units_cancel(k):
    rng = np.random.default_rng(1)
    estimate, images = rng.gamma(2.0, 1.0, (2, 2, 8, 8))
    mask = rng.random((2, 8, 8)) < 0.4
    around = ~mask
    first, second = (region_bias(f * estimate, f * images, {"a": mask})["a"].values for f in (1, k))
    np.testing.assert_allclose(first, second, rtol=1e-9)
    first, second = (lesion_contrast_recovery(f * estimate, f * images, mask, around, minimum_contrast=1e-6).values
                     for f in (1, k))
    np.testing.assert_allclose(first, second, rtol=1e-6)


def test_small_regions_are_counted_apart(truth, lesion):
    estimate = 0.5 * truth
    found = region_bias(estimate, truth, {"lesion": lesion}, minimum_pixels=10)["lesion"]
    assert np.isnan(found.values).all()
    np.testing.assert_allclose(found.small_values, [[-0.5, -0.5, np.nan]])
    assert found.numbers == {"measured": 0, "small": 2, "empty": 1, "undefined": 0}
    np.testing.assert_allclose(found.per_image(small=True), [-0.5, -0.5, np.nan])
    assert np.isnan(found.per_image()).all()
    enough = region_bias(estimate, truth, {"lesion": lesion}, minimum_pixels=9)["lesion"]
    assert enough.numbers["measured"] == 2
    assert np.isnan(enough.small_values).all()


def test_several_regions_of_a_kind_are_measured_each_by_itself(truth):
    """As lesions of a patient: those that an image does not cut are empty in it."""
    masks = np.zeros((3, *truth.shape), dtype=bool)
    masks[0, 0, :3, :3] = masks[1, 0, 6:9, 6:9] = masks[1, 1, 6:9, 6:9] = True
    estimate = truth.copy()
    estimate[0, :3, :3] *= 1.5
    found = region_bias(estimate, truth, {"lesions": masks})["lesions"]
    assert found.values.shape == (3, 3)
    assert found.numbers == {"measured": 3, "small": 0, "empty": 6, "undefined": 0}
    expected = (truth[0, 6:9, 6:9] + 0).sum()
    np.testing.assert_allclose(found.per_image(), [(0.5 + estimate[0, 6:9, 6:9].sum() / expected - 1) / 2, 0, np.nan])


def test_a_region_without_activity_has_no_relative_bias(truth, host):
    images = np.where(host, 0, truth)
    found = region_bias(truth, images, {"host": host})["host"]
    assert np.isnan(found.values).all()
    assert found.numbers == {"measured": 0, "small": 0, "empty": 0, "undefined": 3}


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0, 1.3])
def test_known_contrast(truth, lesion, host, share):
    """An estimate 2 + share·(truth − 2), whatever its scale, recovers that share, of hot and cold lesions alike."""
    estimate = 3 * (2 + share * (truth - 2))
    found = lesion_contrast_recovery(estimate, truth, lesion, host)
    np.testing.assert_allclose(found.values, [[share, share, np.nan]], atol=1e-12)
    assert found.numbers == {"measured": 2, "small": 0, "empty": 1, "undefined": 0}


def test_contrast_that_cannot_be_measured_is_not_defined(truth, lesion, host):
    weak = np.where(lesion, 2.1, 2.0)
    found = lesion_contrast_recovery(truth, weak, lesion, host)
    assert found.numbers == {"measured": 0, "small": 0, "empty": 1, "undefined": 2}
    assert lesion_contrast_recovery(truth, weak, lesion, host, minimum_contrast=0.04).numbers["measured"] == 2
    nothing = lesion_contrast_recovery(np.where(host, 0, truth), truth, lesion, host)
    assert nothing.numbers["undefined"] == 2
    thin = host.copy()
    thin[0] = False
    thin[0, 1, 1:4] = True
    assert np.isnan(lesion_contrast_recovery(truth, truth, lesion, thin).values[0, 0])
    assert lesion_contrast_recovery(truth, truth, lesion, thin, minimum_pixels=3).values[0, 0] == 1
    assert lesion_contrast_recovery(truth, truth, lesion, host, minimum_pixels=10).small_values[0, 0] == 1


def test_masks_may_be_lists(truth, host):
    found = region_bias(truth, truth, {"host": list(host)})
    np.testing.assert_allclose(found["host"].values, 0)


@pytest.mark.parametrize(("masks", "message"), [
    ([], "masks must be a mapping of at least one region's name"),
    ({}, "masks must be a mapping of at least one region's name"),
    ({"liver": np.ones((3, 12, 12))}, "masks of 'liver' must be bool, but its dtype was float64"),
    ({"liver": np.ones((3, 12, 11), bool)}, r"masks of 'liver' must have the images' shape \(3, 12, 12\)"),
    ({"liver": np.ones((2, 2, 3, 12, 12), bool)}, "masks of 'liver' must have the images' shape"),
    ({"liver": [np.ones((12, 12), bool), np.ones((11, 12), bool)]}, "masks of 'liver' must be masks of one shape"),
])
def test_wrong_masks_are_refused(truth, masks, message):
    with pytest.raises(InputError, match=message):
        region_bias(truth, truth, masks)


def test_wrong_images_are_refused(truth, lesion, host):
    with pytest.raises(InputError, match=r"estimate_images must have the shape of truth_images, \(3, 12, 12\)"):
        region_bias(truth[:2], truth, {"a": host})
    with pytest.raises(InputError, match=r"truth_images must have shape \(n, rows, columns\)"):
        region_bias(truth[0], truth[0], {"a": host[0]})
    with pytest.raises(InputError, match="estimate_images must be finite"):
        region_bias(np.where(host, np.nan, truth), truth, {"a": host})
    with pytest.raises(InputError, match="minimum_pixels must be an integer of at least 1"):
        region_bias(truth, truth, {"a": host}, minimum_pixels=0)
    with pytest.raises(InputError, match="background must leave out the lesions, but shared 18 pixels"):
        lesion_contrast_recovery(truth, truth, lesion, host | lesion)
    with pytest.raises(InputError, match="background must have one mask for each image"):
        lesion_contrast_recovery(truth, truth, lesion, np.stack([host, host]))
    with pytest.raises(InputError, match="minimum_contrast must be"):
        lesion_contrast_recovery(truth, truth, lesion, host, minimum_contrast=0)
