"""Regions from files against shapes that are known in millimetres, whatever the grid and the format."""

import gzip
import itertools
import json
import sys

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RTStructureSetStorage, generate_uid
from scipy import ndimage

from allpet_physics.errors import EmptyROIWarning, GeometryError, InputError, MetadataError
from allpet_physics.io.dicom_header import uid_digest
from allpet_physics.io.images import read_pet
from allpet_physics.io.mask_grid import volume_fraction
from allpet_physics.io.roi_files import list_rois, read_roi, roi_to_volume, write_roi
from allpet_physics.io.volume import Volume

from .dicom_series import shared_data, write_series

LPS = np.array([-1.0, -1.0, 1.0])
DROS = ("DRO_0_0", "DRO_1_0", "DRO_2_4", "DRO_3_1")


def rotation(*degrees):
    a, b = np.radians(degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    return about_x @ about_y


def volume(directions, voxel, shape, tags=None):
    """Return an empty image whose centre is 10 mm off the origin on every axis."""
    affine = np.eye(4)
    affine[:3, :3] = directions * voxel
    affine[:3, 3] = 10 - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Volume(np.zeros(shape, np.uint8), affine, tags=tags or {})


AXIAL = np.array([[-1.0, 0, 0], [0, -1, 0], [0, 0, 1]])
GRIDS = {
    "axial": volume(AXIAL, (2.7, 2.7, 2.7), (60, 54, 21)),
    "sagittal": volume(np.array([[0.0, 0, 1], [-1, 0, 0], [0, 1, 0]]), (2.7, 2.9, 3.3), (60, 54, 21)),
    "anisotropic": volume(AXIAL, (1.9, 3.1, 4.7), (80, 50, 13)),
    "oblique": volume(rotation(20, 20) @ AXIAL, (2.3, 3.1, 4.1), (70, 50, 15)),
    "flipped": volume(np.diag([1.0, -1, -1]), (2.3, 3.1, 4.1), (70, 50, 15)),
}
#: An L with a triangular hole, in mm from the centre along i and j; the lower arm grows with the slice.
L_SHAPE = [(-41.03, -33.07), (37.11, -33.07), (37.11, -9.17), (-9.19, -9.17), (-9.19, 29.23), (-41.03, 29.23)]
HOLE = [(-34.03, -27.11), (-14.31, -27.11), (-34.03, -12.07)]


def in_plane_mm(reference):
    """Return the mm along i and j from the image's centre, and the slice number, of every voxel."""
    i, j, k = np.indices(reference.data.shape)
    step = reference.voxel_mm
    return (i - (i.max() / 2)) * step[0], (j - j.max() / 2) * step[1], k


def expected_shape(reference, slices):
    """Return the L with its hole, from inequalities, and how far each voxel is from deciding otherwise."""
    a, b, k = in_plane_mm(reference)
    right = 37.11 - 2.0 * k
    lower = (a > -41.03) & (a < right) & (b > -33.07) & (b < -9.17)
    upper = (a > -41.03) & (a < -9.19) & (b > -33.07) & (b < 29.23)
    slope = (a + 34.03) / 19.72 + (b + 27.11) / 15.04
    hole = (a > -34.03) & (b > -27.11) & (slope < 1)
    margin = np.minimum.reduce([abs(a + 41.03), abs(a - right), abs(b + 33.07), abs(b + 9.17), abs(a + 9.19),
                                abs(b - 29.23), abs(a + 34.03), abs(b + 27.11), 8 * abs(slope - 1)])
    return (lower | upper) & ~hole & np.isin(k, slices), margin


def contours_lps(reference, slices, offset=0.0):
    """Return the outlines of the shape on some slices of an image, LPS mm."""
    directions = reference.affine[:3, :3] / reference.voxel_mm
    middle = (np.array(reference.data.shape) - 1) / 2
    out = []
    for k in slices:
        shape = [(x - 2.0 * k if x == 37.11 else x, y) for x, y in L_SHAPE]
        for outline in (shape, HOLE):
            along = np.c_[np.array(outline), np.full(len(outline), (k - middle[2] + offset) * reference.voxel_mm[2])]
            out.append((10 + along @ directions.T) * LPS)
    return out


def write_rtstruct(path, structures, *, frame="1.2.3.4", syntax=ExplicitVRLittleEndian, kind="CLOSED_PLANAR"):
    """Write a structure set: a list of (number, name, contours in LPS mm)."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = RTStructureSetStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.Modality, ds.StructureSetLabel, ds.PatientName = "RTSTRUCT", "TEST", "Secret^Name"
    ds.StructureSetROISequence, ds.ROIContourSequence, ds.RTROIObservationsSequence = [], [], []
    for number, name, contours in structures:
        roi, outline, observation = Dataset(), Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, frame
        outline.ReferencedROINumber = observation.ReferencedROINumber = observation.ObservationNumber = number
        if contours:
            outline.ContourSequence = []
        for points in contours:
            item = Dataset()
            item.ContourGeometricType, item.NumberOfContourPoints = kind, len(points)
            item.ContourData = [f"{x:.6f}" for x in np.ravel(points)]
            outline.ContourSequence.append(item)
        ds.StructureSetROISequence.append(roi)
        ds.ROIContourSequence.append(outline)
        ds.RTROIObservationsSequence.append(observation)
    ds.save_as(path, enforce_file_format=True)
    return path


def write_nifti(path, data, affine):
    nibabel.save(nibabel.Nifti1Image(data, affine), path)
    return path


def turned(reference):
    """Yield the same image in every axis order and direction."""
    for pair in itertools.permutations([("L", "R"), ("P", "A"), ("S", "I")]):
        for codes in itertools.product(*pair):
            yield reference.reoriented(codes)


# --- RTSTRUCT ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("offset", [0.0, 0.31])
def test_contours_fill_the_voxels_whose_centres_they_enclose(tmp_path, name, offset):
    reference = GRIDS[name]
    slices = range(3, 10)
    path = write_rtstruct(tmp_path / "rs", [(1, "L", contours_lps(reference, slices, offset))])
    roi = read_roi(path, reference)
    expected, margin = expected_shape(reference, slices)
    sure = margin > 0.05
    assert expected.sum() > 1000
    assert np.array_equal(roi.mask[sure], expected[sure])
    assert sure.mean() > 0.8
    assert (roi.source, roi.names, roi.numbers, roi.warnings) == ("RTSTRUCT", ("L",), (1,), ())
    assert np.array_equal(roi.affine, reference.affine)


def test_axial_contours_on_an_oblique_image_fill_axial_slabs(tmp_path):
    drawn_on, reference = GRIDS["anisotropic"], GRIDS["oblique"]
    slices = range(3, 10)
    path = write_rtstruct(tmp_path / "rs", [(1, "L", contours_lps(drawn_on, slices))])
    roi = read_roi(path, reference)
    # The shape at each oblique voxel, from the coordinates of its centre in the grid that it was drawn on.
    to_drawn = np.linalg.inv(drawn_on.affine) @ reference.affine
    index = np.einsum("ab,b...->a...", to_drawn[:3, :3], np.indices(roi.mask.shape)) + to_drawn[:3, 3, None, None, None]
    k = np.round(index[2])
    a, b = ((index[n] - (drawn_on.data.shape[n] - 1) / 2) * drawn_on.voxel_mm[n] for n in (0, 1))
    right = 37.11 - 2.0 * k
    slope = (a + 34.03) / 19.72 + (b + 27.11) / 15.04
    expected = (a > -41.03) & (b > -33.07) & (((a < right) & (b < -9.17)) | ((a < -9.19) & (b < 29.23)))
    expected &= ~((a > -34.03) & (b > -27.11) & (slope < 1)) & (k >= 3) & (k <= 9)
    margin = np.minimum.reduce([abs(a + 41.03), abs(a - right), abs(b + 33.07), abs(b + 9.17), abs(a + 9.19),
                                abs(b - 29.23), abs(a + 34.03), abs(b + 27.11), 8 * abs(slope - 1),
                                (0.5 - abs(index[2] - k)) * drawn_on.voxel_mm[2]])
    assert expected.sum() > 1000
    assert np.array_equal(roi.mask[margin > 0.05], expected[margin > 0.05])


def test_contours_coarser_than_the_image_fill_the_slices_between(tmp_path):
    fine = volume(AXIAL, (2.7, 2.7, 1.0), (60, 54, 60))
    square = np.array([(-20.0, -20), (20, -20), (20, 20), (-20, 20)])
    planes = [np.c_[square, np.full(4, z)] for z in (0.0, 5.0, 10.0)]
    roi = read_roi(write_rtstruct(tmp_path / "rs", [(1, "box", planes)]), fine)
    assert roi.mask.any(axis=(0, 1)).sum() == 15
    assert roi.volume_ml == pytest.approx(40 * 40 * 15 / 1000, rel=0.08)


@pytest.mark.parametrize("case", DROS)
def test_the_reference_object_s_contours_give_its_suv(case):
    folder = shared_data("suv_dro", case)
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    pet = read_pet(folder / "PT", unit="SUVbw")
    roi = read_roi(folder / "RS", pet)
    inside = pet.data[roi.mask]
    assert [inside.min(), np.median(inside), inside.max()] == pytest.approx([0.2, 1.0, 4.0], abs=0.01)
    # The file's contours run 59 voxels from the centre on 16 slices; its mask reaches 60 voxels on 18 slices.
    mask = read_roi(folder / "mask" / "DRO_mask.nii.gz", pet).mask
    assert np.all(roi.mask <= ndimage.binary_erosion(mask, ndimage.generate_binary_structure(3, 1)))
    assert np.all(roi.mask >= ndimage.binary_erosion(mask, np.ones((3, 3, 3))))


def test_structures_are_chosen_by_number_or_name_and_joined(tmp_path):
    reference = GRIDS["axial"]
    left, right = contours_lps(reference, [4]), contours_lps(reference, [8])
    path = write_rtstruct(tmp_path / "rs", [(7, "Tumour", left), (9, "node", right), (12, "node", left), (13, "", [])],
                          syntax=ImplicitVRLittleEndian)
    assert list_rois(path) == [(7, "Tumour"), (9, "node"), (12, "node"), (13, "")]
    one, other = read_roi(path, reference, name="tumour "), read_roi(path, reference, label=9)
    assert np.array_equal(read_roi(path, reference, label=[7, 9]).mask, one.mask | other.mask)
    assert not (one.mask & other.mask).any()
    with pytest.raises(InputError, match=r"2 regions of rs \(numbers 9, 12\); choose one with label"):
        read_roi(path, reference, name="node")
    with pytest.raises(InputError, match=r"'liver' is not there: it holds 7 \(Tumour\), 9 \(node\)"):
        read_roi(path, reference, name="liver")
    with pytest.raises(InputError, match="must hold one region unless label or name says which"):
        read_roi(path, reference)
    with pytest.raises(InputError, match="not both"):
        read_roi(path, reference, label=7, name="node")
    with pytest.warns(EmptyROIWarning, match="region 13 of rs holds no voxel"):
        assert not read_roi(path, reference, label=13).mask.any()


def test_what_does_not_enclose_voxels_is_ignored_and_said(tmp_path):
    reference = GRIDS["axial"]
    contours = contours_lps(reference, [4, 5])
    path = write_rtstruct(tmp_path / "rs", [(1, "L", [*contours, contours[0]])])
    ds = pydicom.dcmread(path)
    point = Dataset()
    point.ContourGeometricType, point.NumberOfContourPoints, point.ContourData = "POINT", 1, ["1.0", "2.0", "3.0"]
    ds.ROIContourSequence[0].ContourSequence.append(point)
    ds.save_as(path)
    roi = read_roi(path, reference)
    expected, margin = expected_shape(reference, [4, 5])
    assert np.array_equal(roi.mask[margin > 0.05], expected[margin > 0.05])
    assert any("type POINT were ignored" in note for note in roi.warnings)
    assert any("repeat another exactly" in note for note in roi.warnings)


def test_another_frame_of_reference_is_said(tmp_path):
    path = write_rtstruct(tmp_path / "rs", [(1, "L", contours_lps(GRIDS["axial"], [4]))], frame="1.2.3.4")
    same = GRIDS["axial"].replace(tags={"frame_of_reference_sha256": uid_digest("1.2.3.4")})
    other = GRIDS["axial"].replace(tags={"frame_of_reference_sha256": uid_digest("1.2.3.5")})
    assert read_roi(path, same).warnings == ()
    assert "frames of reference" in read_roi(path, other).warnings[0]
    assert not [secret for secret in ("Secret", "1.2.3.4") if secret in repr(dict(read_roi(path, other).tags))]
    assert "Secret" not in repr(read_roi(path, other))


def test_a_folder_with_one_structure_set_is_accepted(tmp_path):
    reference = GRIDS["axial"]
    write_rtstruct(tmp_path / "a", [(1, "L", contours_lps(reference, [4]))])
    (tmp_path / "notes.txt").write_text("not DICOM")
    assert read_roi(tmp_path, reference).mask.any()
    write_rtstruct(tmp_path / "b", [(1, "L", contours_lps(reference, [4]))])
    with pytest.raises(InputError, match=r"holds 2 \(a, b\)"):
        read_roi(tmp_path, reference)


@pytest.mark.parametrize("undefined_length", [False, True])
def test_no_cut_of_a_structure_set_passes_for_a_whole_one(tmp_path, undefined_length):
    path = write_rtstruct(tmp_path / "rs", [(1, "L", contours_lps(GRIDS["axial"], range(3, 8)))])
    ds = pydicom.dcmread(path)
    ds["ROIContourSequence"].is_undefined_length = undefined_length
    ds.ROIContourSequence[0]["ContourSequence"].is_undefined_length = undefined_length
    ds.save_as(path)
    whole = path.read_bytes()
    end = len(whole) - 100  # what follows the contours
    for n in np.linspace(400, end, 40).astype(int):
        cut = tmp_path / "cut"
        cut.write_bytes(whole[:n])
        with pytest.raises(InputError, match=r"cut short|must be|could not be used"):
            read_roi(cut, GRIDS["axial"])


def test_contour_data_that_contradict_themselves_are_refused(tmp_path):
    path = write_rtstruct(tmp_path / "rs", [(1, "L", contours_lps(GRIDS["axial"], [4]))])
    ds = pydicom.dcmread(path)
    ds.ROIContourSequence[0].ContourSequence[0].NumberOfContourPoints = 5
    ds.save_as(path)
    with pytest.raises(MetadataError, match="holds 6 points where NumberOfContourPoints states 5"):
        read_roi(path, GRIDS["axial"])


# --- NIfTI ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["axial", "oblique"])
def test_a_mask_in_another_axis_order_is_the_same_region(tmp_path, name):
    reference = GRIDS[name]
    expected, _ = expected_shape(reference, range(3, 9))
    drawn = reference.replace(data=expected.astype(np.uint8))
    for n, other in enumerate(turned(drawn)):
        path = write_nifti(tmp_path / f"{n}.nii", other.data, other.affine)
        assert np.array_equal(read_roi(path, reference).mask, expected)
        assert np.array_equal(read_roi(path, other).mask, other.data > 0)


def test_a_mask_on_another_grid_is_refused_with_the_distance_unless_resampled(tmp_path):
    reference = GRIDS["axial"]
    expected, _ = expected_shape(reference, range(3, 9))
    shifted = reference.affine.copy()
    shifted[:3, 3] += [0.6, 0, 0]
    path = write_nifti(tmp_path / "m.nii.gz", expected.astype(np.uint8), shifted)
    with pytest.raises(GeometryError, match=r"voxel centres up to 0\.6 mm apart; pass resample=True \(--resample\)"):
        read_roi(path, reference)
    roi = read_roi(path, reference, resample=True)
    assert roi.mask.sum() == expected.sum()  # less than half a voxel: the same voxels
    assert np.array_equal(roi.mask, expected)
    assert "was resampled" in roi.warnings[0]
    cropped = write_nifti(tmp_path / "c.nii.gz", expected[:, :, :-1].astype(np.uint8), reference.affine)
    with pytest.raises(GeometryError, match=r"shape \(60, 54, 20\)"):
        read_roi(cropped, reference)


@pytest.mark.parametrize("source_mm", [0.9, 2.7, 7.0])
def test_resampling_keeps_place_and_volume(tmp_path, source_mm):
    shape = tuple(round(150 / source_mm) for _ in range(3))
    source = volume(rotation(20, -10) @ AXIAL, (source_mm,) * 3, shape)
    p = np.einsum("ab,b...->a...", source.affine[:3, :3], np.indices(shape)) + source.affine[:3, 3, None, None, None]
    ball = sum((p[n] - c) ** 2 for n, c in enumerate((12.0, 3.0, 17.0))) <= 27.0**2
    path = write_nifti(tmp_path / "m.nii.gz", ball.astype(np.uint8), source.affine)
    reference = volume(AXIAL, (2.7, 2.7, 4.0), (60, 60, 40))
    roi = read_roi(path, reference, resample=True)
    assert roi.volume_ml == pytest.approx(ball.sum() * source_mm**3 / 1000, rel=0.02)
    centre = np.argwhere(roi.mask).mean(axis=0) @ reference.affine[:3, :3].T + reference.affine[:3, 3]
    assert np.linalg.norm(centre - np.argwhere(ball).mean(axis=0) @ source.affine[:3, :3].T
                          - source.affine[:3, 3]) < 0.2


@pytest.mark.parametrize("radius", [6.0, 10.0, 16.0])
def test_resampling_a_small_lesion_keeps_its_volume(tmp_path, radius):
    source = volume(rotation(20, -10) @ AXIAL, (4.0,) * 3, (30, 30, 30))
    p = np.einsum("ab,b...->a...", source.affine[:3, :3], np.indices((30, 30, 30)))
    p += source.affine[:3, 3, None, None, None]
    ball = sum((p[n] - c) ** 2 for n, c in enumerate((12.0, 3.0, 17.0))) <= radius**2
    path = write_nifti(tmp_path / "m.nii.gz", ball.astype(np.uint8), source.affine)
    reference = volume(AXIAL, (2.7, 2.7, 4.0), (60, 60, 40))
    roi = read_roi(path, reference, resample=True)
    assert roi.volume_ml == pytest.approx(ball.sum() * source.voxel_ml, rel=0.02, abs=1.5 * reference.voxel_ml)


def test_a_coarse_voxel_holds_the_part_of_it_that_a_fine_region_fills():
    plates = np.zeros((40, 40, 40), bool)
    plates[..., ::4] = True
    fine = Volume(plates, np.eye(4))
    coarse = Volume(np.zeros((8, 8, 8), np.uint8), np.diag([4.0, 4, 4, 1]))
    fraction = volume_fraction(fine, coarse)
    assert np.allclose(fraction[1:-1, 1:-1, 1:-1], 0.25, atol=0.01)


def test_a_mask_that_fills_its_grid_keeps_its_outermost_half_voxels(tmp_path):
    source = volume(AXIAL, (8.0, 8.0, 8.0), (3, 4, 5))
    path = write_nifti(tmp_path / "m.nii", np.ones((3, 4, 5), np.uint8), source.affine)
    roi = read_roi(path, volume(AXIAL, (2.0, 2.0, 2.0), (40, 40, 40)), resample=True)
    assert roi.volume_ml == pytest.approx(3 * 4 * 5 * 8**3 / 1000, rel=0.1)
    with pytest.warns(EmptyROIWarning, match="lies outside"):
        far = read_roi(path, Volume(np.zeros((4, 4, 4)), np.diag([1.0, 1, 1, 1]) + np.eye(4, k=3) * 500), resample=True)
    assert not far.mask.any()


def test_labels_by_number_and_by_name(tmp_path):
    data = np.zeros(GRIDS["axial"].data.shape, np.int16)
    data[3:9, 4:12, 5:8], data[20:30, 4:12, 5:8], data[40:45, 20:30, 9:12] = 1, 5, 700
    path = write_nifti(tmp_path / "labels.nii.gz", data, GRIDS["axial"].affine)
    reference = GRIDS["axial"]
    assert np.array_equal(read_roi(path, reference, label=5).mask, data == 5)
    assert np.array_equal(read_roi(path, reference, label=(1, 700)).mask, (data == 1) | (data == 700))
    with pytest.raises(InputError, match="no names are known"):
        read_roi(path, reference, name="liver")
    with pytest.raises(InputError, match="but 3 is not there: it holds 1, 5, 700"):
        read_roi(path, reference, label=[1, 3])
    with pytest.raises(InputError, match=r"must hold one region .* holds 1, 5, 700"):
        read_roi(path, reference)
    named = read_roi(path, reference, name=["Liver", "heart"], label_names={"5": "liver", 1: "heart"})
    assert np.array_equal(named.mask, (data == 5) | (data == 1))
    (tmp_path / "labels.json").write_text(json.dumps({"5": "liver"}))
    assert list_rois(path) == [(1, ""), (5, "liver"), (700, "")]
    assert np.array_equal(read_roi(path, reference, name="liver").mask, data == 5)
    with pytest.raises(InputError, match=r"it holds 1, 5 \(liver\), 700"):
        read_roi(path, reference, name="spleen")
    (tmp_path / "labels.json").write_text('{"name": "of another tool"}')
    assert list_rois(path)[1] == (5, "")
    with pytest.raises(MetadataError, match="label_names must map label to name"):
        list_rois(path, label_names=tmp_path / "labels.json")
    with pytest.raises(InputError, match="label must be an integer"):
        read_roi(path, reference, label="5")


def test_the_liver_of_a_real_label_map():
    folder = shared_data("ct_abdomen")
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    ct = nibabel.load(folder / "ct.nii.gz")
    reference = Volume(np.asarray(ct.dataobj), ct.affine, "HU")
    roi = read_roi(folder / "labels.nii.gz", reference, name="liver")
    assert (roi.names, roi.numbers) == (("liver",), (5,))
    assert 20 < np.median(reference.data[roi.mask]) < 150  # liver tissue, HU
    x = np.argwhere(roi.mask).mean(axis=0) @ ct.affine[:3, :3].T + ct.affine[:3, 3]
    spleen = np.argwhere(read_roi(folder / "labels.nii.gz", reference, name="spleen").mask).mean(axis=0)
    assert x[0] > (spleen @ ct.affine[:3, :3].T + ct.affine[:3, 3])[0]  # the liver lies to the patient's right


def test_probabilities_are_cut_at_one_half_and_images_are_refused(tmp_path):
    reference = GRIDS["axial"]
    rng = np.random.default_rng(0)
    p = rng.uniform(0, 1, reference.data.shape).astype(np.float32)
    roi = read_roi(write_nifti(tmp_path / "p.nii.gz", p, reference.affine), reference)
    assert np.array_equal(roi.mask, p >= 0.5)
    assert "probabilities" in roi.warnings[0]
    with pytest.raises(InputError, match="holds no label to choose"):
        read_roi(tmp_path / "p.nii.gz", reference, label=3)
    with pytest.raises(InputError, match="looks like an image: threshold it first"):
        read_roi(write_nifti(tmp_path / "pet.nii.gz", 7 * p, reference.affine), reference)
    p[3, 4, 5] = np.nan
    with pytest.raises(InputError, match="NaN"):
        read_roi(write_nifti(tmp_path / "nan.nii.gz", p, reference.affine), reference)
    with pytest.raises(InputError, match="holds 2 frames"):
        read_roi(write_nifti(tmp_path / "4d.nii", np.ones((3, 4, 5, 2), np.uint8), reference.affine), reference)


def test_the_format_is_told_by_content_not_by_name(tmp_path):
    reference = GRIDS["axial"]
    expected, _ = expected_shape(reference, range(3, 9))
    packed = write_nifti(tmp_path / "m.nii.gz", expected.astype(np.uint8), reference.affine).read_bytes()
    (tmp_path / "mask.dcm").write_bytes(packed)
    (tmp_path / "mask").write_bytes(gzip.decompress(packed))
    nibabel.save(nibabel.Nifti2Image(expected.astype(np.float32), reference.affine), tmp_path / "two.nii")
    for name in ("mask.dcm", "mask", "two.nii"):
        assert np.array_equal(read_roi(tmp_path / name, reference).mask, expected)
    nibabel.save(nibabel.Nifti1Pair(expected.astype(np.uint8), reference.affine), tmp_path / "pair.hdr")
    with pytest.raises(InputError, match=r"convert the pair to one \.nii"):
        read_roi(tmp_path / "pair.hdr", reference)


def test_files_that_are_no_region(tmp_path):
    reference = GRIDS["axial"]
    mask = write_nifti(tmp_path / "m.nii.gz", np.ones(reference.data.shape, np.uint8), reference.affine).read_bytes()
    whole = gzip.decompress(mask)
    for name, content, message in [
        ("empty", b"", "is empty"), ("text", b"hello world " * 50, "its content is none of these"),
        ("short", b"ab", "none of these|could not be read"), ("cut.nii.gz", mask[: len(mask) // 2], "cut short"),
        ("cut.nii", whole[: len(whole) // 2], "truncated"), ("head.nii", whole[:352], "truncated"),
        ("half_header.nii", whole[:347], "none of these"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_roi(tmp_path / name, reference)
    with pytest.raises(InputError, match="there is none at"):
        read_roi(tmp_path / "missing.nii", reference)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="holds 0"):
        read_roi(tmp_path / "folder", reference)
    pet = write_series(tmp_path / "pet", np.ones((2, 4, 5)))[0]
    with pytest.raises(InputError, match="is a DICOM object of modality PT"):
        read_roi(pet, reference)
    with pytest.raises(InputError, match="reference must be a Volume"):
        read_roi(tmp_path / "m.nii.gz", np.ones((2, 2, 2)))


def test_an_empty_mask_is_said(tmp_path):
    path = write_nifti(tmp_path / "m.nii", np.zeros(GRIDS["axial"].data.shape, np.uint8), GRIDS["axial"].affine)
    with pytest.warns(EmptyROIWarning, match="holds no voxel"):
        assert read_roi(path, GRIDS["axial"]).volume_ml == 0


def test_what_is_written_is_read_back(tmp_path):
    reference = GRIDS["oblique"]
    expected, _ = expected_shape(reference, range(3, 9))
    path = tmp_path / "out.nii.gz"
    assert write_roi(path, reference, expected) == path
    assert nibabel.load(path).get_data_dtype() == np.uint8
    roi = read_roi(path, reference)
    assert np.array_equal(roi.mask, expected)
    assert np.array_equal(roi_to_volume(roi).data, expected)
    assert roi_to_volume(roi).unit == "mask"
    assert roi.volume_ml == pytest.approx(expected.sum() * reference.voxel_ml)
    with pytest.raises(InputError):
        assert write_roi(path, reference, expected) == path
    write_roi(path, reference, ~expected, overwrite=True)
    assert np.array_equal(read_roi(path, reference).mask, ~expected)
    with pytest.raises(GeometryError, match="must have the image's shape"):
        write_roi(path, reference, expected[1:], overwrite=True)
    with pytest.raises(InputError, match="only 0 and 1"):
        write_roi(path, reference, 2 * expected.astype(int), overwrite=True)


# --- DICOM SEG --------------------------------------------------------------------------------------------------------

OBLIQUE_SERIES = {"pixel_mm": (3.1, 2.3), "slice_mm": 4.1, "origin_lps": (-31.5, 22.25, 7.125),
                  "row_lps": tuple(rotation(20, 20)[:, 0]), "column_lps": tuple(rotation(20, 20)[:, 1])}


def series_volume(shape):
    """Return the grid of the oblique series, axes (column, row, slice)."""
    turn = rotation(20, 20)
    affine = np.eye(4)
    affine[:3, :3] = (turn * [2.3, 3.1, 4.1]) * LPS[:, None]
    affine[:3, 3] = np.array(OBLIQUE_SERIES["origin_lps"]) * LPS
    return Volume(np.zeros(shape[::-1], np.uint8), affine)


def write_seg(folder, masks, names, *, kind="BINARY", change=None, **settings):
    """Write a DICOM SEG of the oblique series with highdicom; masks (segment, slice, row, column)."""
    highdicom = pytest.importorskip("highdicom", reason="the extra seg is not installed")
    from pydicom.sr.codedict import codes

    shape = masks.shape[1:]
    header = {"AccessionNumber": "", "StudyID": "1", "PatientSex": "O", "ReferringPhysicianName": "",
              "PositionReferenceIndicator": "", "SeriesNumber": 1}
    source = [pydicom.dcmread(p) for p in write_series(folder / "pet", np.ones(shape), header=header, **OBLIQUE_SERIES)]
    algorithm = highdicom.AlgorithmIdentificationSequence("by hand", codes.DCM.ArtificialIntelligence, "1")
    tissue = codes.SCT.Tissue
    segments = [highdicom.seg.SegmentDescription(n + 1, name, tissue, tissue, "AUTOMATIC", algorithm)
                for n, name in enumerate(names)]
    segmentation = highdicom.seg.Segmentation(
        source, np.moveaxis(masks, 0, -1), kind, segments, generate_uid(), 2,
        generate_uid(), 1, "allpet", "test", "1", "1", **settings)
    if change:
        change(segmentation)
    segmentation.save_as(folder / "seg.dcm")
    return folder / "seg.dcm"


def two_segments(shape=(9, 24, 30)):
    masks = np.zeros((2, *shape), np.uint8)
    masks[0, 2:5, 3:11, 4:20] = 1
    masks[0, 4, 3:11, 15:20] = 0
    masks[1, 4:8, 12:20, 1:13] = 1
    masks[1, 6] = 0  # an empty slice within the segment, which the file leaves out
    return masks


def test_a_binary_segmentation_is_read_exactly_in_every_axis_order(tmp_path):
    masks = two_segments()
    path = write_seg(tmp_path, masks, ["lesion", "organ"])
    reference = series_volume(masks.shape[1:])
    assert list_rois(path) == [(1, "lesion"), (2, "organ")]
    for n, name in enumerate(["lesion", "organ"]):
        roi = read_roi(path, reference, name=name)
        assert (roi.source, roi.names, roi.warnings) == ("SEG", (name,), ())
        assert np.array_equal(roi.mask, masks[n].T > 0)
    drawn = reference.replace(data=masks.any(axis=0).T)
    for other in turned(drawn):
        assert np.array_equal(read_roi(path, other, label=[1, 2]).mask, other.data > 0)
    with pytest.raises(InputError, match=r"it holds 1 \(lesion\), 2 \(organ\)"):
        read_roi(path, reference, name="liver")


@pytest.mark.parametrize("spacing", ["stated", "absent", "thickness alone"])
def test_slices_that_a_segmentation_leaves_out_are_empty(tmp_path, spacing):
    def change(ds):
        measures = ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        if spacing == "stated":
            measures.SpacingBetweenSlices = 4.1
        elif "SpacingBetweenSlices" in measures:
            del measures.SpacingBetweenSlices
        if spacing == "absent":
            measures.SliceThickness = 1.0

    masks = np.zeros((1, 9, 24, 30), np.uint8)
    masks[0, 1, 3:11, 4:20], masks[0, 3, 5:11, 4:15], masks[0, 7, 3:8, 9:13] = 1, 1, 1  # every second slice, and a gap
    path = write_seg(tmp_path, masks, ["x"], change=change)
    assert np.array_equal(read_roi(path, series_volume(masks.shape[1:])).mask, masks[0].T > 0)
    single = np.zeros_like(masks)
    single[0, 5, 3:11, 4:20] = 1
    path = write_seg(tmp_path / "single", single, ["x"], change=change)
    assert np.array_equal(read_roi(path, series_volume(masks.shape[1:])).mask, single[0].T > 0)


def test_a_fractional_segmentation_is_cut_at_one_half(tmp_path):
    fractions = np.random.default_rng(0).choice([0.0, 0.2, 0.45, 0.55, 0.9, 1.0], size=(1, 6, 12, 14))
    path = write_seg(tmp_path, fractions, ["p"], kind="FRACTIONAL")
    assert np.array_equal(read_roi(path, series_volume(fractions.shape[1:])).mask, fractions[0].T >= 0.5)


def test_a_label_map_segmentation_is_read_like_a_binary_one(tmp_path):
    masks = two_segments()
    path = write_seg(tmp_path, masks, ["lesion", "organ"], kind="LABELMAP")
    reference = series_volume(masks.shape[1:])
    assert np.array_equal(read_roi(path, reference, name="organ").mask, masks[1].T > 0)
    assert np.array_equal(read_roi(path, reference, label=(1, 2)).mask, masks.any(axis=0).T)


def test_a_segmentation_of_another_image_is_refused_unless_resampled(tmp_path):
    masks = two_segments()
    path = write_seg(tmp_path, masks, ["lesion", "organ"])
    own = series_volume(masks.shape[1:])
    middle = own.affine @ [15, 12, 4, 1]
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = middle[:3] - 60
    other = Volume(np.zeros((60, 60, 60), np.uint8), affine)
    with pytest.raises(GeometryError, match=r"the DICOM SEG seg\.dcm must be on the image's grid.*--resample"):
        read_roi(path, other, name="organ")
    roi = read_roi(path, other, name="organ", resample=True)
    voxels = np.argwhere(masks[1].T)
    assert roi.volume_ml == pytest.approx(len(voxels) * own.voxel_ml, rel=0.05)
    found = np.argwhere(roi.mask).mean(axis=0) @ affine[:3, :3].T + affine[:3, 3]
    assert np.linalg.norm(found - (voxels.mean(axis=0) @ own.affine[:3, :3].T + own.affine[:3, 3])) < 0.5


def test_a_left_out_slice_keeps_its_thickness_when_resampled(tmp_path):
    def change(ds):
        measures = ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        if "SpacingBetweenSlices" in measures:
            del measures.SpacingBetweenSlices

    masks = np.zeros((1, 9, 24, 30), np.uint8)
    masks[0, 1::2, 3:13, 4:24] = 1  # every second slice, so that stored slices are 8.2 mm apart and 4.1 mm thick
    path = write_seg(tmp_path, masks, ["x"], change=change)
    own = series_volume(masks.shape[1:])
    affine = np.eye(4)
    affine[:3, 3] = (own.affine @ [14, 11, 4, 1])[:3] - 50
    roi = read_roi(path, Volume(np.zeros((100, 100, 100), np.uint8), affine), resample=True)
    assert roi.volume_ml == pytest.approx(masks.sum() * own.voxel_ml, rel=0.02)


def test_a_part_of_a_segmentation_outside_the_image_is_said(tmp_path):
    masks = two_segments()
    path = write_seg(tmp_path, masks, ["lesion", "organ"])
    own = series_volume(masks.shape[1:])
    cropped = own.replace(data=own.data[:, :, :4])
    roi = read_roi(path, cropped, name="lesion")
    assert np.array_equal(roi.mask, masks[0].T[:, :, :4] > 0)
    assert "outside the image" in roi.warnings[0]


def test_a_cut_segmentation_is_refused(tmp_path):
    masks = two_segments()
    whole = write_seg(tmp_path, masks, ["lesion", "organ"]).read_bytes()
    for n in np.linspace(300, len(whole) - 2, 25).astype(int):
        (tmp_path / "cut").write_bytes(whole[:n])
        with pytest.raises(InputError):
            read_roi(tmp_path / "cut", series_volume(masks.shape[1:]), label=1)


def test_without_highdicom_the_extra_is_named(tmp_path, monkeypatch):
    masks = two_segments()
    path = write_seg(tmp_path, masks, ["lesion", "organ"])
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(InputError, match=r'pip install "\.\[seg\]"'):
        read_roi(path, series_volume(masks.shape[1:]), label=1)
    assert list_rois(path) == [(1, "lesion"), (2, "organ")]
