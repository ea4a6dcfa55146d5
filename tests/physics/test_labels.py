"""Real anatomy in: names, orientation, volumes, CT numbers, what is filled in, what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from allpet_physics.errors import GeometryError, InputError, MetadataError
from allpet_physics.io import read_nifti
from allpet_physics.io.volume import Volume
from allpet_physics.simulation.ct import body_of_ct, check_calibrated
from allpet_physics.simulation.label_names import TOTALSEGMENTATOR_V2, freesurfer_organ, totalsegmentator_organ
from allpet_physics.simulation.labels import (
    from_freesurfer,
    from_totalsegmentator,
    hu_to_mu,
    read_label_names,
    write_label_mapping,
)
from allpet_physics.simulation.lesions import LesionSpec
from allpet_physics.simulation.organs import ORGAN_NUMBER

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
NUMBER = {name: n for n, name in TOTALSEGMENTATOR_V2.items()}


def box_labels():
    """Return a map in LAS at 5 mm, situs inversus: liver left, spleen right, a vertebra behind, the aorta above it."""
    data = np.zeros((60, 40, 6), np.int16)
    data[34:54, 8:32, :] = NUMBER["liver"]
    affine = np.diag([-5.0, 5.0, 5.0, 1.0])
    data[6:14, 8:18, :] = NUMBER["spleen"]
    data[26:32, 2:8, :] = NUMBER["vertebrae_L1"]
    data[28:31, 9:12, 3:] = NUMBER["aorta"]
    return Volume(data, affine, "label")


def centre(patient, organ):
    return np.array([np.mean(axis) for axis in np.nonzero(patient.mask(organ))])


def test_sides_and_heights_come_out_as_radiologists_read_them_whatever_the_file_order():
    source = box_labels()
    patient = from_totalsegmentator(source, size=128)
    assert patient.labels.shape == (6, 128, 128)
    # i grows to the patient's left, so greater i must lie farther right in the picture (situs inversus, here).
    liver, spleen, spine = (centre(patient, o) for o in ("liver", "spleen", "vertebra"))
    assert source.axis_codes[0] == "L"
    assert liver[2] > spleen[2]
    assert spine[1] > liver[1]
    assert patient.mask("aorta")[3:].any()
    assert not patient.mask("aorta")[:3].any()
    for codes in (("R", "A", "S"), ("S", "P", "L"), ("A", "I", "R")):
        again = from_totalsegmentator(source.reoriented(codes), size=128)
        np.testing.assert_array_equal(again.labels, patient.labels)


def test_patient_left_is_at_the_right_of_the_picture():
    data = np.zeros((60, 40, 3), np.int16)
    data[40:50, 10:20] = NUMBER["spleen"]
    data[5:30, 10:30] = NUMBER["liver"]
    to_left = Volume(data, np.diag([-4.0, 4.0, 4.0, 1.0]), "label")
    patient = from_totalsegmentator(to_left, size=64)
    assert to_left.axis_codes[0] == "L"
    assert centre(patient, "spleen")[2] > centre(patient, "liver")[2]


def test_organs_keep_their_volume_and_the_gaps_become_muscle_fat_and_skin():
    source = box_labels()
    patient = from_totalsegmentator(source, size=256)
    voxel = patient.pixel_mm**2 * patient.slice_mm
    for name, organ in (("liver", "liver"), ("spleen", "spleen"), ("vertebrae_L1", "vertebra")):
        volume = (source.data == NUMBER[name]).sum() * 125.0
        assert patient.mask(organ).sum() * voxel == pytest.approx(volume, rel=0.1)
    assert {"muscle", "fat", "skin"} <= set(patient.organs)
    assert patient.texture.shape == patient.labels.shape


def test_lesions_can_be_added_to_real_anatomy():
    patient = from_totalsegmentator(box_labels(), size=128, lesions=[LesionSpec("liver", "hot", 20.0)], rng=3)
    lesion, = patient.lesions
    assert (patient.organ_labels()[lesion.mask] == ORGAN_NUMBER["liver"]).all()
    again = from_totalsegmentator(box_labels(), size=128, lesions=[LesionSpec("liver", "hot", 20.0)], rng=3)
    np.testing.assert_array_equal(again.labels, patient.labels)


def test_cysts_become_cold_lesions_and_kidneys_get_a_pelvis():
    data = np.zeros((50, 50, 20), np.int16)
    data[5:25, 10:30, 2:18] = NUMBER["kidney_left"]
    data[10:14, 14:18, 8:12] = NUMBER["kidney_cyst_left"]
    patient = from_totalsegmentator(Volume(data, np.diag([-3.0, 3.0, 3.0, 1.0]), "label"), size=256)
    cyst, = patient.lesions
    assert cyst.kind == "cold"
    assert cyst.organ == "kidney_cortex"
    assert cyst.diameter_mm == pytest.approx((6 * 64 * 27 / np.pi) ** (1 / 3), rel=0.1)
    assert patient.mask("kidney_pelvis").sum() < 0.4 * patient.mask("kidney").sum()
    assert patient.mask("kidney_pelvis").any()


@pytest.mark.parametrize("size", [64, 256])
def test_hollow_organs_show_wall_and_content_at_any_pixel_size(size):
    data = np.zeros((50, 50, 4), np.int16)
    data[5:25, 10:30] = NUMBER["colon"]
    data[28:48, 10:30] = NUMBER["stomach"]
    patient = from_totalsegmentator(Volume(data, np.diag([-4.0, 4.0, 4.0, 1.0]), "label"), size=size)
    for wall, content in (("bowel", "bowel_content"), ("stomach_wall", "stomach_content")):
        assert patient.mask(wall).any()
        assert patient.mask(content).any()
        depth = ndimage.distance_transform_edt(patient.mask(wall)[1] | patient.mask(content)[1])
        assert depth[patient.mask(content)[1]].min() > depth[patient.mask(wall)[1]].min()


def test_every_name_of_totalsegmentator_is_known():
    assert len(TOTALSEGMENTATOR_V2) == 117
    assert all(totalsegmentator_organ(name) for name in TOTALSEGMENTATOR_V2.values())
    assert totalsegmentator_organ("flux_capacitor") is None
    assert freesurfer_organ("ctx-lh-insula") == freesurfer_organ("Right-Hippocampus") == "brain_grey"


def test_unknown_names_are_listed_and_a_mapping_helps(tmp_path):
    source = box_labels()
    names = {**TOTALSEGMENTATOR_V2, NUMBER["spleen"]: "milt"}
    with pytest.raises(InputError, match=r"milt.*write_label_mapping"):
        from_totalsegmentator(source, names=names, size=64)
    patient = from_totalsegmentator(source, names=names, mapping={"milt": "spleen"}, size=64)
    assert "spleen" in patient.organs
    path = tmp_path / "mapping.json"
    write_label_mapping(path, names)
    table = json.loads(path.read_text())
    assert table["milt"] is None
    assert table["liver"] == "liver"
    with pytest.raises(InputError, match="exist"):
        write_label_mapping(path, names)
    table["milt"] = "spleen"
    path.write_text(json.dumps(table))
    np.testing.assert_array_equal(from_totalsegmentator(source, names=names, mapping=path, size=64).labels,
                                  patient.labels)


@pytest.mark.parametrize(("changes", "error", "message"), [
    ({"names": {1: "spleen"}}, MetadataError, "name each"),
    ({"mapping": {"liver": "livver"}}, InputError, "livver"),
    ({"mapping": "nowhere.json"}, MetadataError, "mapping"),
    ({"names": "nowhere.ctab"}, MetadataError, "names"),
    ({"ct": 3}, InputError, "ct"),
])
def test_wrong_input_is_refused_by_name(changes, error, message):
    with pytest.raises(error, match=message):
        from_totalsegmentator(box_labels(), size=32, **changes)


def test_empty_fractional_and_turned_maps_are_refused():
    source = box_labels()
    with pytest.raises(GeometryError, match="organ"):
        from_totalsegmentator(source.replace(data=np.zeros_like(source.data)), size=32)
    with pytest.raises(InputError, match="integers"):
        from_totalsegmentator(source.replace(data=source.data + 0.5), size=32)
    c, s = np.cos(0.2), np.sin(0.2)
    turn = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    with pytest.raises(GeometryError, match="turned"):
        from_totalsegmentator(source.replace(affine=turn @ source.affine), size=32)


def test_attenuation_of_water_air_and_the_published_slopes():
    np.testing.assert_allclose(hu_to_mu([-1000.0, 0.0, 40.0], 120), [0.0, 0.0096, 0.0096 + 40 * 9.6e-6], atol=1e-8)
    for kvp, a, b in ((80, 0.0989, 3.84e-5), (100, 0.0985, 4.56e-5), (120, 0.0982, 5.11e-5), (140, 0.0980, 5.6e-5)):
        assert hu_to_mu([1000.0], kvp)[0] == pytest.approx((a + 1000 * b) / 10)
        # The two lines meet at 50 HU to a part in a thousand.
        assert hu_to_mu([50.001], kvp)[0] == pytest.approx(float(hu_to_mu([50.0], kvp)[0]), rel=2e-3)


@settings(max_examples=40, deadline=None)
@given(kvp=st.floats(80, 140), hu=st.lists(st.floats(-1100, 3000), min_size=2, max_size=20))
def test_attenuation_grows_with_the_ct_number_and_falls_with_the_voltage_for_soft_bone(kvp, hu):
    hu = np.sort(np.array(hu))
    mu = hu_to_mu(hu, kvp)
    assert (mu >= 0).all()
    assert (np.diff(mu) >= -2e-5).all()  # the lines for 80 kV meet with a step of 0.00000 to 0.00001/mm
    assert (hu_to_mu(hu[hu > 200], 80) <= hu_to_mu(hu[hu > 200], kvp) + 1e-9).all()


@pytest.mark.parametrize("kvp", [60, 200, 0, float("nan")])
def test_unknown_voltages_are_refused(kvp):
    with pytest.raises(InputError, match="kvp"):
        hu_to_mu([0.0], kvp)


def ct_of(shape=(8, 60, 60)):
    """Return a calibrated CT of a cylinder of water in air, with a lung-like bubble and a couch beneath."""
    hu = np.full(shape, -1000.0, np.float32)
    y, x = np.mgrid[:shape[1], :shape[2]]
    hu[:, np.hypot(y - 28, x - 30) < 18] = 40
    hu[:, np.hypot(y - 28, x - 24) < 5] = -800
    hu[:, 52:54, 10:50] = 200
    return hu


def test_uncalibrated_ct_is_refused():
    hu = ct_of()
    check_calibrated(hu)
    for wrong in (hu + 1024, (hu + 1000) / 2000, np.zeros_like(hu), hu * 100, np.full_like(hu, -1000)):
        with pytest.raises(MetadataError, match="HU"):
            check_calibrated(wrong)
    with pytest.raises(MetadataError, match="finite"):
        check_calibrated(np.where(hu > 0, np.nan, hu))


def test_the_body_holds_its_gas_and_not_the_couch():
    body = body_of_ct(ct_of())
    assert body[:, 28, 24].all()
    assert not body[:, 53, 30].any()
    assert body[0].sum() == pytest.approx(np.pi * 18**2, rel=0.05)


def test_a_ct_elsewhere_and_one_without_voltage_are_refused():
    source = box_labels()
    hu = Volume(ct_of((60, 60, 60)).transpose(2, 1, 0), np.diag([-5.0, 5.0, 5.0, 1.0]), "HU")
    far = hu.affine.copy()
    far[:3, 3] += 5000
    with pytest.raises(GeometryError, match="overlap"):
        from_totalsegmentator(source, hu.replace(affine=far), size=32)
    patient = from_totalsegmentator(source, hu, size=32)
    with pytest.raises(InputError, match="kvp"):
        patient.mu_map()
    assert patient.mu_map(kvp=120).max() > 0.009


def real(folder):
    if not (DATA / folder).is_dir():
        pytest.skip(f"real data not found at {DATA / folder}")
    return DATA / folder


def test_a_real_abdomen_with_its_ct():
    folder = real("ct_abdomen")
    assert read_label_names(folder / "labels.json") == TOTALSEGMENTATOR_V2
    patient = from_totalsegmentator(folder / "labels.nii.gz", folder / "ct.nii.gz", kvp=120, size=128, slice_mm=6.0)
    assert {"liver", "spleen", "kidney_cortex", "kidney_pelvis", "bowel", "aorta", "vertebra", "fat", "muscle",
            "skin"} <= set(patient.organs)
    source = read_nifti(folder / "labels.nii.gz")
    liver_ml = (source.data == NUMBER["liver"]).sum() * source.voxel_ml
    ours = patient.mask("liver").sum() * patient.pixel_mm**2 * patient.slice_mm / 1000
    assert ours == pytest.approx(liver_ml, rel=0.05)
    assert centre(patient, "liver")[2] < centre(patient, "spleen")[2]
    assert centre(patient, "vertebra")[1] > centre(patient, "liver")[1]
    mu = patient.mu_map()
    assert 0.0095 < mu[patient.mask("liver")].mean() < 0.0106
    assert 0.0085 < mu[patient.mask("fat")].mean() < 0.0093
    assert mu[patient.labels == 0].max() == 0
    assert mu[patient.mask("vertebra")].mean() > 0.0102


def test_a_real_brain_with_and_without_its_names():
    folder = real("brain")
    patient = from_freesurfer(folder / "labels.nii.gz", names=folder / "labels.ctab", size=256)
    assert {"brain_grey", "brain_white", "csf", "caudate", "putamen", "thalamus", "cerebellum", "skull",
            "scalp"} <= set(patient.organs)
    np.testing.assert_array_equal(from_freesurfer(folder / "labels.nii.gz", size=256).labels, patient.labels)
    source = read_nifti(folder / "labels.nii.gz")
    voxel_ml = patient.pixel_mm**2 * patient.slice_mm / 1000
    assert patient.mask("putamen").sum() * voxel_ml == pytest.approx(
        np.isin(source.data, (12, 51)).sum() * source.voxel_ml, rel=0.06)
    assert centre(patient, "cerebellum")[1] > centre(patient, "putamen")[1]
    assert centre(patient, "cerebellum")[0] < centre(patient, "putamen")[0]
    mu = patient.mu_map()
    assert mu[patient.mask("skull")].mean() > 0.013


def test_a_brain_alone_gets_a_head_around_it():
    folder = real("brain")
    source = read_nifti(folder / "labels.nii.gz")
    brain = source.replace(data=np.where(np.isin(source.data, (130, 165, 257, 258)), 0, source.data))
    patient = from_freesurfer(brain, size=256)
    assert {"skull", "scalp", "csf"} <= set(patient.organs)
    middle = slice(20, 60)
    grown = ndimage.binary_dilation(patient.mask("brain"), np.ones((1, 5, 5)))[middle]
    assert (patient.labels[middle][grown] != 0).all()
