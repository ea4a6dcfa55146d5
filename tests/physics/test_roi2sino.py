"""The region's sinogram in Python: its mass, its place in the patient, its agreement with the parts it is made of."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allpet_physics.attention import project_roi
from allpet_physics.axial_grid import axial_slices, geometry_for, slice_indices
from allpet_physics.errors import EmptyROIWarning, GeometryError, InputError, MetadataError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.io.sinogram_files import SinogramStack, read_sinogram, write_sinogram
from allpet_physics.io.volume import Volume
from allpet_physics.preview import outline
from allpet_physics.radon import RadonOperator
from allpet_physics.roi2sino import roi2sino, threshold_volume


def lps_affine(voxel_mm, shape):
    affine = np.diag([-voxel_mm[0], -voxel_mm[1], voxel_mm[2], 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def blob(shape=(14, 12, 5), voxel_mm=(3.0, 3.0, 4.0), unit="SUVbw"):
    """One bright block: patient left, anterior, superior of the middle."""
    data = np.full(shape, 0.5, np.float32)
    data[9:12, 2:4, 3] = 6.0
    return Volume(data, lps_affine(voxel_mm, shape), unit)


def test_it_is_the_projection_of_the_mask_and_the_activity_is_that_of_the_product():
    image = blob()
    mask = image.data > 2
    result = roi2sino(image, mask, with_activity=True)
    slices = image.replace(data=mask).axial_slices()
    np.testing.assert_array_equal(result.sinogram, project_roi(slices, result.geometry, normalisation="none"))
    np.testing.assert_array_equal(result.attention, project_roi(slices, result.geometry))
    projector = RadonOperator(result.geometry)
    np.testing.assert_allclose(result.activity, 6.0 * result.sinogram, rtol=1e-5)
    np.testing.assert_array_equal(result.image, projector(image.axial_slices()))
    assert result.slice_voxels == (0, 0, 0, 6, 0)


def test_mass_in_mm_is_the_regions_area_at_every_angle():
    image = blob()
    result = roi2sino(image, image.data > 2)
    area = result.sinogram.sum(axis=2, dtype=np.float64) * result.geometry.bin_mm
    np.testing.assert_allclose(area[3], 6 * 9.0, rtol=1e-6)
    assert not area[:3].any()


def test_left_and_anterior_are_at_positive_s():
    image = blob()
    result = roi2sino(image, image.data > 2, slices=[3])
    s, angles = result.geometry.bin_centres, result.geometry.angles
    moment = (result.sinogram[0] * s).sum(axis=1) / result.sinogram[0].sum(axis=1)
    # The block's middle is at index (10, 2.5) of (14, 12) pixels of 3 mm.
    x, y = (10 - 6.5) * 3, (5.5 - 2.5) * 3
    np.testing.assert_allclose(moment, x * np.cos(angles) + y * np.sin(angles), atol=0.05)  # a bin is 3 mm wide


@settings(max_examples=12, deadline=None)
@given(order=st.permutations([0, 1, 2]), flips=st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_the_order_of_the_files_axes_does_not_matter(order, flips):
    image = blob()
    codes = [pair[flip] for pair, flip in zip(("LR", "PA", "SI"), flips, strict=True)]
    other = image.reoriented(tuple(codes[i] for i in order))
    assert other.data.shape == tuple(np.array(image.data.shape)[order])
    expected, found = roi2sino(image, image.data > 2), roi2sino(other, other.data > 2)
    np.testing.assert_array_equal(found.sinogram, expected.sinogram)
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-9)


def test_unequal_pixels_of_an_integer_ratio_are_exact():
    rounded = lps_affine((4.0 * (1 + 1e-7), 2.0, 3.0), (10, 20, 2))  # as float32 headers have it
    coarse = Volume(np.zeros((10, 20, 2), np.float32), rounded, "SUVbw")
    mask = np.zeros(coarse.data.shape, bool)
    mask[6:9, 3:8, 1] = True
    fine = Volume(np.repeat(coarse.data, 2, axis=0), lps_affine((2.0, 2.0, 3.0), (20, 20, 2)), "SUVbw")
    found, expected = roi2sino(coarse, mask), roi2sino(fine, np.repeat(mask, 2, axis=0))
    np.testing.assert_array_equal(found.sinogram, expected.sinogram)
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-4)
    assert found.slice_voxels == (0, 15)
    assert any("4" in note and "2 mm" in note for note in found.warnings)


@settings(max_examples=20, deadline=None)
@given(ratio=st.floats(1.05, 3.0), seed=st.integers(0, 99))
def test_resampling_to_squares_keeps_the_activity_and_its_place(ratio, seed):
    data = np.random.default_rng(seed).random((7, 9, 2))
    image = Volume(data, lps_affine((2.0 * ratio, 2.0, 5.0), data.shape), "SUVbw")
    grid = axial_slices(image)
    mass = grid.data.sum() * grid.pixel_mm**2 * grid.slice_mm
    assert mass == pytest.approx(data.sum() * np.prod(image.voxel_mm), rel=1e-4)
    index = np.stack(np.meshgrid(*map(np.arange, data.shape), indexing="ij"), -1).reshape(-1, 3)
    centre = data.ravel() @ (index @ image.affine[:3, :3].T + image.affine[:3, 3]) / data.sum()
    pixels = np.moveaxis(grid.data, (0, 1, 2), (2, 1, 0))
    index = np.stack(np.meshgrid(*map(np.arange, pixels.shape), indexing="ij"), -1).reshape(-1, 3)
    found = pixels.ravel() @ (index @ grid.affine[:3, :3].T + grid.affine[:3, 3]) / pixels.sum()
    np.testing.assert_allclose(found, centre, atol=0.1)  # mm, of pixels of 2 mm: each voxel's parts keep its area


def test_a_resampled_mask_keeps_its_extent_to_a_pixel_without_bias():
    change = []
    for first in range(1, 20):
        mask = np.zeros((30, 24, 1), bool)
        mask[first:first + 5] = True
        slices = axial_slices(Volume(mask, lps_affine((3.1, 2.0, 5.0), mask.shape), "mask"))
        change.append(slices.data[0, 0].sum() * 2.0 - 15.5)
    assert np.abs(change).max() <= 2.0
    assert abs(np.mean(change)) < 0.5


def test_oblique_slices_are_projected_as_they_are_with_a_warning():
    image = blob()
    turn = np.radians(8.0)
    rotation = np.eye(4)
    rotation[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    oblique = image.replace(affine=rotation @ image.affine)
    found = roi2sino(oblique, image.data > 2)
    np.testing.assert_array_equal(found.sinogram, roi2sino(image, image.data > 2).sinogram)
    assert any("8 degrees" in note for note in found.warnings)
    sheared = image.affine.copy()
    sheared[0, 1] = 0.5
    with pytest.raises(GeometryError, match="right angles"):
        roi2sino(image.replace(affine=sheared), image.data > 2)


def test_a_thresholded_region_comes_back_to_the_images_own_axes():
    image = blob().reoriented(("S", "A", "R"))
    roi = threshold_volume(image, "fixed", value=2.0)
    np.testing.assert_array_equal(roi2sino(image, roi).mask, image.data > 2)
    assert roi.components[0].volume_ml == pytest.approx(6 * 0.036)


def test_empty_regions_warn_and_are_zero():
    image = blob()
    with pytest.warns(EmptyROIWarning):
        result = roi2sino(image, np.zeros(image.data.shape, bool))
    assert not result.sinogram.any()
    with pytest.warns(EmptyROIWarning):
        roi2sino(image, image.data > 2, slices=[0])


def test_a_region_beyond_the_bins_is_reported_once_with_its_share():
    image = blob((40, 40, 20), (4.0, 4.0, 4.0))
    mask = np.ones(image.data.shape, bool)
    geometry = ParallelGeometry(16, 20, 4.0, (40, 40), 4.0)
    result = roi2sino(image, mask, geometry)
    assert sum("outside the bins" in note for note in result.warnings) == 1


@pytest.mark.parametrize(("kwargs", "error", "match"), [
    ({"slices": [99]}, InputError, "0 .most inferior. to 4"), ({"slices": "2:x"}, InputError, "none"),
    ({"slices": "3:3"}, InputError, "at least one"), ({"normalisation": "max"}, InputError, "normalisation"),
    ({"slices": "::0"}, InputError, "slices"), ({"scale_mm": 3.0}, InputError, "scale_mm"),
    ({"geometry": ParallelGeometry(8, 20, 3.0, (12, 13), 3.0)}, GeometryError, "12, 14"),
    ({"mask": np.ones((2, 2, 2))}, GeometryError, "shape")])
def test_wrong_arguments_are_named(kwargs, error, match):
    image = blob()
    with pytest.raises(error, match=match):
        roi2sino(image, **{"mask": image.data > 2, **kwargs})


def test_nan_is_refused_only_where_the_values_matter():
    image = blob()
    image.data[0, 0, 0] = np.nan
    mask = np.nan_to_num(image.data) > 2
    assert roi2sino(image, mask).sinogram.any()
    with pytest.raises(InputError, match="image must be finite"):
        roi2sino(image, mask, with_activity=True)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 30), a=st.integers(-35, 35), b=st.integers(-35, 35))
def test_slice_ranges_are_pythons(n, a, b):
    expected = list(range(n))[a:b]
    if expected:
        assert slice_indices(f"{a}:{b}", [0] * n) == expected
    else:
        with pytest.raises(InputError):
            slice_indices(f"{a}:{b}", [0] * n)
    assert slice_indices("all", [0] * n) == list(range(n))


def test_slices_by_region_and_by_list():
    assert slice_indices("roi", [0, 2, 0, 1]) == [1, 3]
    assert slice_indices("3, 0:2,-1", [0] * 4) == [0, 1, 3]


def test_a_preset_gives_its_angles_and_bins_to_the_images_own_grid():
    grid = axial_slices(blob())
    geometry = geometry_for(grid, preset="ge-discovery-690", n_angles=10)
    assert (geometry.n_angles, geometry.n_bins, geometry.bin_mm) == (10, 381, 2.1306)
    assert (geometry.image_shape, geometry.pixel_mm) == ((12, 14), 3.0)


@pytest.mark.parametrize("suffix", [".npz", ".nii.gz", ".nii", ".hs"])
@pytest.mark.parametrize("n_bins", [9, 10])
def test_stacks_survive_every_format(tmp_path, suffix, n_bins):
    geometry = ParallelGeometry(8, n_bins, 2.5, (7, 6), 2.0)
    data = np.random.default_rng(0).random((3, 8, n_bins)).astype(np.float32)
    affine = np.array([[-2.0, 0, 0, 5], [0, -2, 0, 7], [0, 0, 4, -9], [0, 0, 0, 1]])
    stack = SinogramStack(data, geometry, "counts", affine, 4.0, (5, 6, 7), "SUVbw", 12.5)
    write_sinogram(tmp_path / f"s{suffix}", stack)
    back = read_sinogram(tmp_path / f"s{suffix}")
    np.testing.assert_array_equal(back.data, data)
    assert back.slice_mm == pytest.approx(4.0)
    assert back.geometry == geometry
    assert (back.unit, back.slices, back.scale, back.unit_of_images) == ("counts", (5, 6, 7), 12.5, "SUVbw")
    np.testing.assert_allclose(back.image_affine() @ [0, 0, 0, 1], affine @ [0, 0, 5, 1])
    assert back.warnings == ()


def test_another_image_grid_keeps_its_middle_in_the_patient(tmp_path):
    geometry = ParallelGeometry(8, 9, 2.5, (7, 6), 2.0)
    affine = np.array([[-2.0, 0, 0, 5], [0, -2, 0, 7], [0, 0, 4, -9], [0, 0, 0, 1]])
    write_sinogram(tmp_path / "s.npz", SinogramStack(np.ones((1, 8, 9)), geometry, "mm", affine, 4.0))
    back = read_sinogram(tmp_path / "s.npz", image_shape=(20, 11), pixel_mm=1.0)
    np.testing.assert_allclose(back.affine @ [5, 9.5, 0, 1], affine @ [2.5, 3, 0, 1])


def test_files_without_a_geometry_ask_for_one(tmp_path):
    np.save(tmp_path / "s.npy", np.ones((8, 9)))
    with pytest.raises(MetadataError, match="bin_mm"):
        read_sinogram(tmp_path / "s.npy")
    back = read_sinogram(tmp_path / "s.npy", bin_mm=2.0)
    assert (back.geometry.image_shape, back.geometry.pixel_mm) == ((9, 9), 2.0)
    assert any("arc" in note for note in back.warnings)
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 not the rest")
    with pytest.raises(MetadataError, match="truncated"):
        read_sinogram(tmp_path / "cut.npz")


def test_npz_says_what_it_holds_without_this_package(tmp_path):
    geometry = ParallelGeometry(8, 9, 2.5, (7, 6), 2.0)
    write_sinogram(tmp_path / "s.npz", SinogramStack(np.ones((2, 8, 9)), geometry, "mm"),
                   {"attention": (np.full((2, 8, 9), 0.5), "relative")})
    with np.load(tmp_path / "s.npz") as file:
        assert ParallelGeometry(**json.loads(str(file["geometry"]))) == geometry
        assert json.loads(str(file["units"])) == {"sinogram": "mm", "attention": "relative"}
    with pytest.raises(InputError, match="attention"):
        read_sinogram(tmp_path / "s.npz", array="none")


def test_a_stated_geometry_must_not_contradict_the_file(tmp_path):
    geometry = ParallelGeometry(8, 9, 2.5, (7, 6), 2.0, 2 * np.pi)
    write_sinogram(tmp_path / "s.npz", SinogramStack(np.ones((2, 8, 9)), geometry, "mm"))
    assert read_sinogram(tmp_path / "s.npz", bin_mm=2.501, arc=2 * np.pi).geometry == geometry
    for stated in ({"bin_mm": 2.6}, {"arc": np.pi}, {"bin_mm": np.nan}):
        with pytest.raises(GeometryError, match=f"{next(iter(stated))} must agree"):
            read_sinogram(tmp_path / "s.npz", **stated)


def test_more_bins_than_pixels_can_fill_are_refused():
    grid = axial_slices(blob())
    assert geometry_for(grid, n_bins=4096).n_bins == 4096
    with pytest.raises(GeometryError, match="at most 4096 bins"):
        geometry_for(grid, n_bins=4097)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999))
def test_the_outline_encloses_the_mask(seed):
    mask = np.random.default_rng(seed).random((6, 9)) > 0.5
    geometry = ParallelGeometry(4, 9, 2.0, (6, 9), 2.0)
    segments = outline(mask, geometry)
    # Green's theorem per vertical segment needs orientation; the length of a pixel outline does not.
    padded = np.pad(mask, 1).astype(int)
    edges = np.abs(np.diff(padded, axis=0)).sum() + np.abs(np.diff(padded, axis=1)).sum()
    assert len(segments) == edges
    assert np.allclose(np.linalg.norm(segments[:, 1] - segments[:, 0], axis=1), 2.0)
    if mask.any():
        rows, cols = np.nonzero(mask)
        assert segments[..., 0].min() == pytest.approx(geometry.x[cols.min()] - 1)
        assert segments[..., 1].max() == pytest.approx(geometry.y[rows.min()] + 1)
