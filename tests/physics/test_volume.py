"""The grid of a volume: one object, however it is stored, gives one stack of axial slices."""

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allpet_physics.errors import GeometryError
from allpet_physics.io import read_dicom_series, read_nifti
from allpet_physics.io.volume import Volume, grid_mismatch, resample_to

from .dicom_series import write_series

#: Shape (slice, row, col) and a label at each place that no flip, swap or rotation maps onto itself.
SHAPE = (4, 5, 6)


def asymmetric_slices() -> np.ndarray:
    """Axial slices with a voxel at the patient's head-front-left, one at the feet and a ramp in every direction."""
    k, r, c = np.indices(SHAPE)
    slices = 100.0 * k + 10 * r + c
    slices[3, 0, 5] = 5000  # superior, anterior, left
    slices[0, 4, 5] = 7000  # inferior, posterior, left
    return slices


def lps_volume(spacing=(2.0, 3.0, 4.0)) -> Volume:
    """The same slices as a volume [i, j, k] = [col, row, slice] that grows to L, P, S."""
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = 10, 20, -30
    return Volume(asymmetric_slices().transpose(2, 1, 0), affine)


def rotation(axis, degrees) -> np.ndarray:
    a, t = np.asarray(axis, float) / np.linalg.norm(axis), np.radians(degrees)
    cross = np.array([[0, -a[2], a[1]], [a[2], 0, -a[0]], [-a[1], a[0], 0]])
    return np.eye(3) + np.sin(t) * cross + (1 - np.cos(t)) * cross @ cross


def test_axial_slices_do_not_depend_on_how_the_phantom_is_stored(tmp_path):
    truth = asymmetric_slices()
    write_series(tmp_path / "dicom", truth, pixel_mm=(3, 2), slice_mm=4, origin_lps=(-10, -20, -30), slope=1)
    dicom = read_dicom_series(tmp_path / "dicom")

    ras = lps_volume().reoriented(("R", "A", "S"))
    nib.save(nib.Nifti1Image(ras.data, ras.affine), tmp_path / "ras.nii.gz")
    turned = lps_volume().reoriented(("S", "R", "P"))
    nib.save(nib.Nifti1Image(turned.data, turned.affine), tmp_path / "turned.nii")
    volumes = [dicom, read_nifti(tmp_path / "ras.nii.gz"), read_nifti(tmp_path / "turned.nii")]

    assert [v.axis_codes for v in volumes] == [("L", "P", "S"), ("R", "A", "S"), ("S", "R", "P")]
    for volume in volumes:
        np.testing.assert_array_equal(volume.axial_slices(), truth)
        assert grid_mismatch(lps_volume(), volume) is None
        assert volume.voxel_ml == pytest.approx(2 * 3 * 4 / 1000)


def test_a_voxel_stays_at_its_place_in_the_patient():
    volume = lps_volume()
    for codes in (("R", "A", "S"), ("S", "R", "P"), ("P", "I", "L")):
        turned = volume.reoriented(codes)
        index = np.argwhere(turned.data == 5000)[0]
        place = turned.affine @ [*index, 1]
        np.testing.assert_allclose(place[:3], volume.affine[:3] @ [5, 0, 3, 1], atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.permutations([0, 1, 2]), st.tuples(*[st.booleans()] * 3))
def test_from_axial_slices_undoes_axial_slices(order, flips):
    pairs = [("R", "L"), ("A", "P"), ("S", "I")]
    volume = lps_volume().reoriented(tuple(pairs[a][flips[a]] for a in order))
    back = volume.from_axial_slices(volume.axial_slices() * 2, unit="label")
    np.testing.assert_array_equal(back.data, 2 * volume.data)
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-12)
    assert back.unit == "label"


def test_from_axial_slices_refuses_another_shape():
    with pytest.raises(GeometryError, match=r"\(4, 5, 6\).*\(6, 5, 4\)"):
        lps_volume().from_axial_slices(np.zeros((6, 5, 4)))


def test_grid_mismatch_says_how_far_apart():
    volume = lps_volume()
    shifted = volume.affine.copy()
    shifted[0, 3] += 1.5
    assert "1.5 mm apart" in grid_mismatch(volume, volume.replace(affine=shifted))
    shifted[0, 3] = volume.affine[0, 3] + 0.015  # below 1 % of the 2 mm voxel side
    assert grid_mismatch(volume, volume.replace(affine=shifted)) is None
    stretched = volume.affine @ np.diag([1.1, 1, 1, 1])
    assert "1 mm apart" in grid_mismatch(volume, volume.replace(affine=stretched))  # 5 voxels of 0.2 mm
    assert "shape" in grid_mismatch(volume, volume.replace(data=volume.data[:-1]))


@pytest.mark.parametrize("degrees", [0, 7.5, 20])
def test_obliquity_is_the_angle_of_the_tilt(degrees):
    affine = lps_volume().affine
    affine[:3, :3] = rotation((1, 0, 0), degrees) @ affine[:3, :3]
    assert lps_volume().replace(affine=affine).obliquity_deg == pytest.approx(degrees, abs=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.floats(-8, 8), st.floats(-25, 25), st.sampled_from([(1, 0, 0), (0, 1, 0), (1, 2, 3)]))
def test_a_linear_ramp_is_resampled_exactly(shift, degrees, axis):
    source_affine = np.diag([-4.0, -4.0, 4.0, 1.0])
    source_affine[:3, 3] = 60, 60, -60
    slope = np.array([0.7, -1.3, 2.1])
    ijk = np.indices((31, 31, 31)).reshape(3, -1)
    ramp = slope @ (source_affine[:3, :3] @ ijk + source_affine[:3, 3:])
    source = Volume(ramp.reshape(31, 31, 31), source_affine)
    target_affine = np.eye(4)
    target_affine[:3, :3] = rotation(axis, degrees) @ np.diag([2.5, 3, 3.5])
    target_affine[:3, 3] = target_affine[:3, :3] @ [-4.5, -4.5, -4.5] + shift
    target = Volume(np.zeros((10, 10, 10)), target_affine)
    wanted = slope @ (target_affine[:3, :3] @ np.indices((10, 10, 10)).reshape(3, -1) + target_affine[:3, 3:])
    np.testing.assert_allclose(resample_to(source, target).data.ravel(), wanted, atol=1e-9)


def test_resampling_to_the_same_grid_turned_keeps_every_voxel_to_the_rim():
    """Rounding in the inverse affine must not push the outermost voxels outside."""
    volume = lps_volume((1.1, 0.7, 3.3))
    volume = volume.replace(data=volume.data + 1)
    turned = volume.reoriented(("S", "A", "R"))
    for order in (0, 1):
        np.testing.assert_allclose(resample_to(volume, turned, order=order).data, turned.data, rtol=1e-9)


def test_a_mask_keeps_its_volume_when_voxels_are_halved():
    mask = Volume(np.ones((3, 4, 5), dtype=bool), np.diag([2.0, 2.0, 2.0, 1.0]))
    fine = np.diag([1.0, 1.0, 1.0, 1.0])
    fine[:3, 3] = -0.5 - 4
    out = resample_to(mask, Volume(np.zeros((20, 20, 20)), fine), order=0)
    assert out.data.dtype == bool
    assert out.data.sum() * out.voxel_ml == pytest.approx(mask.data.sum() * mask.voxel_ml)


def test_float32_stays_float32():
    volume = lps_volume().replace(data=lps_volume().data.astype(np.float32))
    assert resample_to(volume, volume).data.dtype == np.float32


def test_a_volume_needs_three_axes_and_an_invertible_affine():
    with pytest.raises(GeometryError, match="three axes"):
        Volume(np.zeros((2, 2)), np.eye(4))
    with pytest.raises(GeometryError, match="invertible"):
        Volume(np.zeros((2, 2, 2)), np.diag([1.0, 0, 1, 1]))
