"""NIfTI: what goes in comes out, the unit is never invented, bad files are said to be bad."""

import gzip
import json

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from allpet_physics.errors import InputError, MetadataError
from allpet_physics.io import Volume, grid_mismatch, read_image, read_nifti, read_pet, write_nifti

from .dicom_series import BQML_PER_SUV, DOSE_BQ, shared_data

AFFINE = np.array([[0, -3.0, 0, 11], [2.0, 0, 0, -7], [0, 0, 4.0, 5], [0, 0, 0, 1]])
BIDS = {"Units": "Bq/mL", "PatientWeight": 70, "InjectedRadioactivity": DOSE_BQ / 1e6,
        "InjectedRadioactivityUnits": "MBq", "TracerRadionuclide": "F18", "InjectionStart": 0,
        "ImageDecayCorrected": True, "ImageDecayCorrectionTime": 3600}


def ramp() -> np.ndarray:
    return np.arange(60, dtype=np.float32).reshape(3, 4, 5)


def save(path, data, **header):
    image = nib.Nifti1Image(data, AFFINE)
    for key, value in header.items():
        image.header[key] = value
    nib.save(image, path)
    return path


@settings(max_examples=25, deadline=None)
@given(data=hnp.arrays(st.sampled_from([np.float32, np.float64, np.uint8, np.int16]), (2, 3, 4),
                       elements=st.integers(0, 200)), suffix=st.sampled_from([".nii", ".nii.gz"]))
def test_what_is_written_is_read_back(tmp_path_factory, data, suffix):
    path = tmp_path_factory.mktemp("round") / f"image{suffix}"
    write_nifti(path, Volume(data, AFFINE, "SUVbw"))
    volume = read_nifti(path, dtype=None)
    assert volume.data.dtype == data.dtype
    np.testing.assert_array_equal(volume.data, data)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)
    assert volume.unit == "SUVbw"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("stored", "found"), [(bool, np.uint8), (np.float16, np.float32), (np.int64, np.int32)])
def test_types_that_nifti_lacks_are_widened_without_loss(stored, found, tmp_path):
    data = (np.arange(8) % 2).astype(stored).reshape(2, 2, 2)
    back = read_nifti(write_nifti(tmp_path / "a.nii.gz", Volume(data, AFFINE)), dtype=None)
    assert back.data.dtype == found
    np.testing.assert_array_equal(back.data, data)
    with pytest.raises(InputError, match="int32"):
        write_nifti(tmp_path / "b.nii", Volume(np.full((1, 1, 1), 2**40), AFFINE))
    with pytest.raises(InputError, match="complex"):
        write_nifti(tmp_path / "b.nii", Volume(np.ones((1, 1, 1), complex), AFFINE))


@pytest.mark.parametrize("flip", [1, -1])
def test_oblique_affines_survive_the_round_trip(flip, tmp_path):
    affine = AFFINE @ np.diag([flip, 1, 1, 1])
    turn = np.radians(17)
    affine[:3, :3] = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]) @ \
        affine[:3, :3]
    volume = Volume(ramp(), affine)
    back = read_nifti(write_nifti(tmp_path / "a.nii.gz", volume))
    assert grid_mismatch(volume, back) is None
    assert back.warnings == ()


def test_the_same_volume_gives_the_same_bytes(tmp_path):
    first, second = (write_nifti(tmp_path / f"{name}.nii.gz", Volume(ramp(), AFFINE)).read_bytes() for name in "ab")
    assert first == second


def test_nothing_is_overwritten_unasked_and_no_half_file_stays(tmp_path, monkeypatch):
    path = write_nifti(tmp_path / "a.nii.gz", Volume(ramp(), AFFINE))
    before = path.read_bytes()
    with pytest.raises(InputError, match="overwrite=True"):
        write_nifti(path, Volume(ramp() + 1, AFFINE))
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            write_nifti(path, Volume(ramp() + 1, AFFINE), overwrite=True)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    write_nifti(path, Volume(ramp() + 1, AFFINE), overwrite=True)
    np.testing.assert_array_equal(read_nifti(path).data, ramp() + 1)


def test_bad_names_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"\.nii or \.nii\.gz"):
        write_nifti(tmp_path / "a.img", Volume(ramp(), AFFINE))
    with pytest.raises(InputError, match="existing folder"):
        write_nifti(tmp_path / "no" / "a.nii", Volume(ramp(), AFFINE))
    with pytest.raises(InputError, match="does not exist"):
        read_nifti(tmp_path / "none.nii.gz")
    with pytest.raises(InputError, match=r"\.nii or \.nii\.gz"):
        read_nifti(tmp_path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("keep", [0, 10, 200, 400, -20, -3])
def test_truncated_files_are_said_to_be_damaged(suffix, keep, tmp_path):
    noise = np.random.default_rng(0).normal(size=(9, 9, 9)).astype(np.float32)
    path = save(tmp_path / f"a{suffix}", noise)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(MetadataError, match=r"truncated or damaged|empty"):
        read_nifti(path)


def test_a_flipped_byte_in_a_compressed_file_is_noticed(tmp_path):
    path = save(tmp_path / "a.nii.gz", np.random.default_rng(0).normal(size=(9, 9, 9)).astype(np.float32))
    content = bytearray(path.read_bytes())
    content[1500] ^= 4
    path.write_bytes(content)
    with pytest.raises(MetadataError, match="damaged"):
        read_nifti(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_other_contents_are_said_to_be_damaged(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"this is not an image" * 50)
    with pytest.raises(MetadataError, match="damaged"):
        read_nifti(path)
    good = bytearray(gzip.decompress(save(tmp_path / "b.nii.gz", ramp()).read_bytes()))
    good[70:72] = b"\xff\x7f"  # an unknown data type
    (tmp_path / "c.nii").write_bytes(good)
    with pytest.raises(MetadataError, match="damaged"):
        read_nifti(tmp_path / "c.nii")


def test_complex_and_colour_are_refused(tmp_path):
    with pytest.raises(InputError, match="complex64"):
        read_nifti(save(tmp_path / "a.nii", ramp().astype(np.complex64)))
    colour = np.zeros((2, 2, 2), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(InputError, match="real numbers"):
        read_nifti(save(tmp_path / "b.nii", colour))


def test_nan_is_counted_and_refused_unless_allowed(tmp_path):
    data = ramp()
    data[0, 0, 0], data[1, 2, 3] = np.nan, np.inf
    path = save(tmp_path / "a.nii.gz", data)
    with pytest.raises(MetadataError, match="2 NaN or Inf among 60"):
        read_nifti(path)
    with pytest.warns(UserWarning, match="2 NaN"):
        zeroed = read_nifti(path, nonfinite="zero")
    assert zeroed.data[0, 0, 0] == zeroed.data[1, 2, 3] == 0
    assert np.isnan(read_nifti(path, nonfinite="keep").data[0, 0, 0])
    with pytest.warns(UserWarning, match="2 NaN|does not say its unit") as told:
        assert read_pet(path, nonfinite="zero").data[0, 0, 0] == 0
    assert len(told) == 2
    assert np.isnan(read_image(path, nonfinite="keep").data[0, 0, 0])
    with pytest.raises(InputError, match="nonfinite"):
        read_nifti(path, nonfinite="ignore")


def test_4d_needs_a_frame_and_trailing_ones_do_not(tmp_path):
    path = save(tmp_path / "a.nii.gz", np.stack([ramp(), ramp() + 100], axis=3))
    with pytest.raises(MetadataError, match=r"2 frames of shape \(3, 4, 5\).*frame=0 to 1"):
        read_nifti(path)
    np.testing.assert_array_equal(read_nifti(path, frame=1).data, ramp() + 100)
    with pytest.raises(InputError, match="from 0 to 1"):
        read_nifti(path, frame=2)
    np.testing.assert_array_equal(read_nifti(save(tmp_path / "b.nii", ramp()[..., None, None])).data, ramp())
    assert read_nifti(save(tmp_path / "c.nii", ramp()[:, :, 0])).data.shape == (3, 4, 1)


def test_scaling_and_byte_order_of_the_header_are_applied(tmp_path):
    image = nib.Nifti1Image(ramp().astype(np.int16), AFFINE, nib.Nifti1Header(endianness=">"))
    image.header.set_slope_inter(0.5, -3)
    nib.save(image, tmp_path / "a.nii")
    volume = read_nifti(tmp_path / "a.nii")
    np.testing.assert_array_equal(volume.data, 0.5 * ramp() - 3)
    assert volume.data.dtype == np.dtype("=f4")


def test_doubtful_orientations_are_said(tmp_path):
    image = nib.Nifti1Image(ramp(), None)
    image.header["sform_code"] = image.header["qform_code"] = 0
    nib.save(image, tmp_path / "none.nii")
    for read in (read_nifti, read_image):
        with pytest.warns(UserWarning, match="neither sform nor qform") as told:
            read(tmp_path / "none.nii")
        assert (len(told), told[0].filename) == (1, __file__)
    image = nib.Nifti1Image(ramp(), AFFINE)
    image.set_qform(AFFINE + np.diag([0, 0, 0, 0]) + np.eye(4, 4, 3) * [[0, 0, 0, 5]], code=1)
    image.set_sform(AFFINE, code=1)
    nib.save(image, tmp_path / "two.nii")
    with pytest.warns(UserWarning, match="two orientations"):
        volume = read_nifti(tmp_path / "two.nii")
    np.testing.assert_allclose(volume.affine, AFFINE)


def test_lengths_in_metres_become_millimetres(tmp_path):
    image = nib.Nifti1Image(ramp(), np.diag([1e-3, 1e-3, 1e-3, 1]) @ AFFINE)
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(read_nifti(tmp_path / "a.nii").affine, AFFINE, atol=1e-4)


def test_pet_without_a_unit_is_taken_as_it_is_and_said(tmp_path):
    path = save(tmp_path / "pet.nii.gz", ramp())
    with pytest.warns(UserWarning, match="does not say its unit") as told:
        volume = read_pet(path)
    assert [str(warning.message) for warning in told] == list(volume.warnings)
    assert told[0].filename == __file__
    np.testing.assert_array_equal(volume.data, ramp())
    assert volume.unit == "unknown"
    assert read_nifti(path, unit="SUVbw").unit == "SUVbw"
    assert read_image(path, unit="HU").unit == "HU"
    with pytest.raises(MetadataError, match="JSON sidecar"):
        read_pet(path, weight_kg=70)
    with pytest.raises(InputError, match="series_uid"):
        read_pet(path, series_uid="1.2.3")


def test_a_recorded_unit_must_be_the_one_asked_for(tmp_path):
    path = write_nifti(tmp_path / "pet.nii.gz", Volume(ramp(), AFFINE, "Bq/ml"))
    volume = read_pet(path, unit="Bq/ml")
    assert (volume.unit, volume.warnings) == ("Bq/ml", ())
    with pytest.raises(MetadataError, match="holds Bq/ml"):
        read_pet(path)


def test_a_sidecar_converts_activity_to_suv(tmp_path):
    path = save(tmp_path / "pet.nii.gz", ramp() * np.float32(BQML_PER_SUV))
    (tmp_path / "pet.json").write_text(json.dumps(BIDS))
    volume = read_pet(path)
    np.testing.assert_allclose(volume.data, ramp(), rtol=1e-5)
    assert (volume.unit, volume.warnings) == ("SUVbw", ())
    assert volume.tags["elapsed_s"] == 3600
    json.dumps(dict(volume.tags))
    np.testing.assert_allclose(read_pet(path, unit="Bq/ml").data, ramp() * BQML_PER_SUV, rtol=1e-5)
    (tmp_path / "pet.json").write_text(json.dumps(BIDS | {"Units": "kBq/mL"}))
    np.testing.assert_allclose(read_pet(path).data, 1000 * ramp(), rtol=1e-5)


@pytest.mark.parametrize(("field", "way_out"), [
    ("PatientWeight", {"weight_kg": 70}), ("InjectedRadioactivity", {"dose_bq": DOSE_BQ}),
    ("TracerRadionuclide", {"half_life_s": 6586.2}),
    ("ImageDecayCorrectionTime", {"injection_time": "2025-01-01T10:00", "scan_time": "2025-01-01T11:00"})])
def test_fields_that_a_sidecar_lacks_are_named_and_can_be_given(field, way_out, tmp_path):
    path = save(tmp_path / "pet.nii", ramp() * np.float32(BQML_PER_SUV))
    (tmp_path / "pet.json").write_text(json.dumps({k: v for k, v in BIDS.items() if k != field}))
    with pytest.raises(MetadataError, match=field):
        read_pet(path)
    np.testing.assert_allclose(read_pet(path, **way_out).data, ramp(), rtol=1e-5)


@pytest.mark.parametrize(("content", "words"), [
    ("{", "not valid JSON"), ("[]", "JSON object"), (json.dumps({"Units": "furlongs"}), "furlongs"),
    (json.dumps(BIDS | {"ImageDecayCorrectionTime": 1e7}), "half-lives"),
    (json.dumps(BIDS | {"ImageDecayCorrected": False}), "ImageDecayCorrected"),
    (json.dumps(BIDS | {"InjectedRadioactivityUnits": "kBq"}), "InjectedRadioactivity.*looks like kBq"),
    (json.dumps(BIDS | {"PatientWeight": 70000}), "PatientWeight.*500 kg"),
    (json.dumps(BIDS | {"RadionuclideHalfLife": 109.77}), "RadionuclideHalfLife.*within 5 %.*F-18")])
def test_sidecars_that_make_no_sense_are_refused(content, words, tmp_path):
    path = save(tmp_path / "pet.nii", ramp())
    (tmp_path / "pet.json").write_text(content)
    with pytest.raises(MetadataError, match=words):
        read_pet(path)


def test_what_is_given_beside_a_sidecar_must_be_plausible(tmp_path):
    path = save(tmp_path / "pet.nii", ramp() * np.float32(BQML_PER_SUV))
    (tmp_path / "pet.json").write_text(json.dumps(BIDS))
    with pytest.raises(InputError, match=r"dose_bq.*looks like MBq"):
        read_pet(path, dose_bq=370)
    with pytest.raises(MetadataError, match="without a time zone"):
        read_pet(path, injection_time="2025-01-01T10:00", scan_time="2025-01-01T11:00Z")
    given = {"injection_time": "2025-01-01T10:00+02:00", "scan_time": "2025-01-01T09:00Z"}
    np.testing.assert_allclose(read_pet(path, **given).data, ramp(), rtol=1e-5)
    with pytest.warns(UserWarning, match="sidecar names F-18"):
        assert read_pet(path, half_life_s=4057.7).data.max() > ramp().max()


def test_real_volumes_are_read():
    path = shared_data("ct_abdomen", "ct.nii.gz")
    if not path.is_file():
        pytest.skip("the abdominal CT is not here")
    ct = read_image(path, unit="HU")
    labels = read_image(path.with_name("labels.nii.gz"), dtype=None)
    assert ct.data.shape == (122, 101, 112)
    assert labels.data.dtype.kind in "iu"
    assert grid_mismatch(ct, labels) is None
