"""DICOM series: which one, in what order, on which grid, and what is refused."""

import json
import re

import numpy as np
import pydicom
import pytest
from click.testing import CliRunner
from pydicom.uid import EnhancedPETImageStorage, JPEG2000Lossless, generate_uid

from allpet_physics.cli import cli
from allpet_physics.errors import GeometryError, InputError, MetadataError
from allpet_physics.io import read_dicom_series, read_image, read_pet
from allpet_physics.io.dicom_series import load_slices

from .dicom_series import BQML_PER_SUV, write_series


def ramp(n=4) -> np.ndarray:
    """Values [slice, row, col] that name their own index."""
    k, r, c = np.indices((n, 3, 5))
    return 100.0 * k + 10 * r + c


def edit(path, **changes) -> None:
    ds = pydicom.dcmread(path)
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    ds.save_as(path)


def test_slices_are_ordered_by_position_not_by_name_or_number(tmp_path):
    paths = write_series(tmp_path, ramp(12), slope=1, seed=3)
    numbers = [int(pydicom.dcmread(p).InstanceNumber) for p in paths]
    assert numbers != sorted(numbers)
    assert paths != sorted(paths)
    np.testing.assert_array_equal(read_dicom_series(tmp_path).axial_slices(), ramp(12))


@pytest.mark.parametrize(("row", "column"), [
    ((1, 0, 0), (0, 1, 0)),  # axial
    ((1, 0, 0), (0, 0, -1)),  # coronal
    ((0, 1, 0), (0, 0, -1)),  # sagittal
    ((-1, 0, 0), (0, -1, 0)),  # prone
    ((0.8, 0.6, 0), (-0.6, 0.8, 0)),  # oblique
])
def test_every_voxel_lies_where_the_header_puts_it(row, column, tmp_path):
    origin, normal = np.array([-7.0, 11.0, -13.0]), np.cross(row, column)
    write_series(tmp_path, ramp(), pixel_mm=(3, 2), slice_mm=5, origin_lps=origin, row_lps=row, column_lps=column,
                 slope=1)
    volume = read_dicom_series(tmp_path)
    np.testing.assert_allclose(volume.voxel_mm, [2, 3, 5])
    for index in np.ndindex(volume.data.shape):
        c, r, k = index
        assert volume.data[index] == ramp()[k, r, c]
        lps = origin + 2 * c * np.array(row) + 3 * r * np.array(column) + 5 * k * normal
        np.testing.assert_allclose(volume.affine[:3] @ [*index, 1], lps * [-1, -1, 1], atol=1e-9)


def test_slope_and_intercept_belong_to_their_slice(tmp_path):
    write_series(tmp_path, ramp() - 1000, modality="CT", slope=[1, 0.5, 0.25, 2], intercept=-1024)
    volume = read_image(tmp_path)
    assert volume.unit == "HU"
    np.testing.assert_allclose(volume.axial_slices(), ramp() - 1000, atol=1)
    np.testing.assert_allclose(volume.axial_slices()[:3], ramp()[:3] - 1000, atol=0.25)


def test_one_file_stands_for_its_series(tmp_path):
    paths = write_series(tmp_path, ramp(), slope=1)
    np.testing.assert_array_equal(read_dicom_series(paths[2]).axial_slices(), ramp())


def test_the_pet_series_is_picked_among_other_objects(tmp_path):
    write_series(tmp_path / "sub", ramp() * BQML_PER_SUV)
    write_series(tmp_path, ramp(), modality="CT", prefix="ct", slope=1)
    structure = write_series(tmp_path, ramp(1), modality="CT", prefix="rs", slope=1)[0]
    ds = pydicom.dcmread(structure)
    ds.Modality, ds.SeriesInstanceUID = "RTSTRUCT", generate_uid()
    del ds.Rows, ds.PixelData
    ds.save_as(structure)
    (tmp_path / "notes.txt").write_text("not DICOM")
    (tmp_path / "empty.dcm").touch()
    np.testing.assert_allclose(read_pet(tmp_path).axial_slices(), ramp(), rtol=1e-4, atol=2e-2)
    np.testing.assert_array_equal(read_dicom_series(tmp_path, modality="CT").axial_slices(), ramp())
    with pytest.raises(MetadataError, match=r"2 image series.*choose one with series_uid"):
        read_image(tmp_path)
    with pytest.raises(InputError, match="RTSTRUCT"):
        read_image(structure)


def test_two_series_are_listed_and_chosen_by_the_end_of_the_uid(tmp_path):
    first, second = generate_uid(), generate_uid()
    write_series(tmp_path, ramp(), slope=1, series_uid=first, header={"SeriesDescription": "corrected"})
    write_series(tmp_path, 2 * ramp(), slope=1, series_uid=second, prefix="z", header={"SeriesDescription": "NAC"})
    with pytest.raises(MetadataError, match=r"2 PT series.*corrected, 4 files.*NAC, 4 files") as caught:
        read_pet(tmp_path)
    assert first[-12:] in str(caught.value)
    np.testing.assert_array_equal(read_dicom_series(tmp_path, second[-12:]).axial_slices(), 2 * ramp())
    np.testing.assert_array_equal(read_dicom_series(tmp_path, f"...{first[-12:]}").axial_slices(), ramp())
    with pytest.raises(MetadataError, match="names 0"):
        read_pet(tmp_path, series_uid="9.9.9.9.9")


def test_a_dynamic_series_needs_a_frame(tmp_path):
    uid = generate_uid()
    for frame, time in enumerate(("110000", "110500", "111000")):
        write_series(tmp_path, ramp() + 1000 * frame, slope=1, series_uid=uid, prefix=f"f{2 - frame}", seed=frame,
                     header={"AcquisitionTime": time, "FrameReferenceTime": f"{150000 + 300000 * frame}"})
    with pytest.raises(MetadataError, match=r"12 images at 4 positions.*frame=0 to 2"):
        read_dicom_series(tmp_path)
    for frame in range(3):
        np.testing.assert_array_equal(read_dicom_series(tmp_path, frame=frame).axial_slices(), ramp() + 1000 * frame)
    with pytest.raises(InputError, match="from 0 to 2"):
        read_dicom_series(tmp_path, frame=3)
    next(tmp_path.glob("f1*")).unlink()
    with pytest.raises(MetadataError, match="others fewer"):
        read_dicom_series(tmp_path, frame=0)


def test_duplicates_without_an_order_are_refused(tmp_path):
    uid = generate_uid()
    for part in range(2):
        write_series(tmp_path, ramp() + part, slope=1, series_uid=uid, prefix=f"p{part}")
    with pytest.raises(MetadataError, match="no order"):
        read_dicom_series(tmp_path, frame=0)


def test_copies_of_a_file_are_left_out_with_a_remark(tmp_path):
    paths = write_series(tmp_path, ramp(), slope=1)
    (tmp_path / "copy.dcm").write_bytes(paths[1].read_bytes())
    with pytest.warns(UserWarning, match="1 files are copies") as told:
        volume = read_dicom_series(tmp_path)
    np.testing.assert_array_equal(volume.axial_slices(), ramp())
    assert [str(warning.message) for warning in told] == list(volume.warnings)
    assert told[0].filename == __file__
    with pytest.warns(UserWarning, match="1 files are copies") as told:
        read_image(tmp_path, unit="SUVbw")
    assert (len(told), told[0].filename) == (1, __file__)


def test_a_missing_slice_is_located(tmp_path):
    paths = write_series(tmp_path, ramp(8), slope=1, slice_mm=4, origin_lps=(0, 0, 100))
    paths[3].unlink()
    with pytest.raises(MetadataError, match=r"from 108 to 116 mm.*gap of 8 mm.*distance is 4 mm"):
        read_dicom_series(tmp_path)


def test_a_series_cropped_at_an_end_is_noticed(tmp_path):
    paths = write_series(tmp_path, ramp(5), slope=1, header={"NumberOfSlices": 5})
    paths[-1].unlink()
    with pytest.warns(UserWarning, match="NumberOfSlices"):
        read_dicom_series(tmp_path)


@pytest.mark.parametrize(("changes", "error", "words"), [
    ({"ImageOrientationPatient": [1, 0, 0, 0, 0.8, 0.6]}, MetadataError, "ImageOrientationPatient"),
    ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, MetadataError, "perpendicular"),
    ({"PixelSpacing": [4, 5]}, MetadataError, "PixelSpacing"),
    ({"PixelSpacing": None}, MetadataError, "PixelSpacing"),
    ({"ImagePositionPatient": None}, MetadataError, "ImagePositionPatient"),
    ({"ImagePositionPatient": [0, 0, 9]}, GeometryError, "evenly spaced"),
    ({"ImagePositionPatient": [3, 0, 8]}, GeometryError, "evenly spaced"),
    ({"RescaleSlope": None}, MetadataError, "RescaleSlope"),
])
def test_slices_that_do_not_fit_are_refused(changes, error, words, tmp_path):
    paths = write_series(tmp_path, ramp(), slope=1)
    edit(paths[2], **changes)
    with pytest.raises(error, match=words):
        read_dicom_series(tmp_path)


def test_other_shapes_are_refused(tmp_path):
    uid = generate_uid()
    write_series(tmp_path, ramp(), slope=1, series_uid=uid)
    write_series(tmp_path, np.zeros((1, 3, 6)), slope=1, series_uid=uid, prefix="b", origin_lps=(0, 0, 16))
    with pytest.raises(MetadataError, match=r"Rows and Columns.*\[3, [56]\] and \[3, [56]\]"):
        read_dicom_series(tmp_path)


def test_a_tilted_gantry_is_refused(tmp_path):
    paths = write_series(tmp_path, ramp(), slope=1, modality="CT")
    for k, path in enumerate(paths):
        edit(path, ImagePositionPatient=[0, 0.5 * k, 4 * k])
    with pytest.raises(GeometryError, match=r"leans by 7\.1\d degrees"):
        read_dicom_series(tmp_path)


def test_positions_rounded_by_the_exporter_are_accepted(tmp_path):
    paths = write_series(tmp_path, ramp(10), slope=1, slice_mm=3.27)
    for k, path in enumerate(paths):
        edit(path, ImagePositionPatient=[0, 0, round(3.27 * k, 1)])
    assert read_dicom_series(tmp_path).voxel_mm[2] == pytest.approx(3.27, abs=0.02)


def test_one_slice_takes_its_thickness_from_the_header(tmp_path):
    (path,) = write_series(tmp_path, ramp(1), slope=1, slice_mm=2.5)
    with pytest.warns(UserWarning, match="single slice"):
        volume = read_dicom_series(tmp_path)
    assert volume.voxel_mm[2] == pytest.approx(2.5)
    edit(path, SliceThickness=None)
    with pytest.raises(MetadataError, match="how thick"):
        read_dicom_series(tmp_path)


def test_paths_that_hold_no_images(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_pet(tmp_path / "nowhere")
    with pytest.raises(InputError, match="none was found"):
        read_pet(tmp_path)
    (tmp_path / "scan.dcm").write_bytes(b"not DICOM at all")
    with pytest.raises(InputError, match="none was found"):
        read_pet(tmp_path)
    with pytest.raises(InputError, match=r"scan\.dcm is not"):
        read_pet(tmp_path / "scan.dcm")
    write_series(tmp_path, ramp(), modality="CT", slope=1)
    with pytest.raises(InputError, match=r"PT series.*synthetic CT, 4 files"):
        read_pet(tmp_path)


def test_a_truncated_file_is_named(tmp_path):
    paths = write_series(tmp_path, ramp(), slope=1)
    paths[1].write_bytes(paths[1].read_bytes()[:-12])
    with pytest.raises(InputError, match=paths[1].name):
        read_dicom_series(tmp_path)


def test_compressed_pixels_without_a_decoder_say_what_to_install(tmp_path):
    for path in write_series(tmp_path, ramp(), slope=1):
        ds = pydicom.dcmread(path)
        ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
        ds.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51 not a codestream"])
        ds["PixelData"].VR = "OB"
        ds.save_as(path)
    with pytest.raises(InputError, match=r"JPEG 2000.*pylibjpeg"):
        read_dicom_series(tmp_path)


def test_enhanced_objects_are_refused_clearly(tmp_path):
    (path,) = write_series(tmp_path, ramp(1), slope=1)
    edit(path, SOPClassUID=EnhancedPETImageStorage, NumberOfFrames=4)
    with pytest.raises(InputError, match="multi-frame"):
        read_pet(tmp_path)


#: Where a name may hide, and what must not come out: none of these words, no UID, no date, no time of day.
PERSONAL = {"PatientName": "Doe^JaneZZ", "PatientID": "ID-JaneZZ-4711", "PatientBirthDate": "19611213",
            "OtherPatientIDs": "JaneZZ-2", "PatientAddress": "JaneZZ street", "PatientComments": "JaneZZ",
            "SeriesDescription": "PET Doe JaneZZ", "StudyDescription": "staging of JaneZZ", "StudyID": "JaneZZ",
            "ProtocolName": "WB JaneZZ", "ImageComments": "JaneZZ moved", "InstitutionName": "JaneZZ hospital",
            "StationName": "JANEZZ1", "ReferringPhysicianName": "JaneZZ^Dr", "OperatorsName": "JaneZZ^Op",
            "AccessionNumber": "JaneZZ-3", "ReconstructionMethod": "OSEM for JaneZZ", "AcquisitionDate": "20250203",
            "SeriesDate": "20250203", "StudyDate": "20250203", "SeriesTime": "221536", "AcquisitionTime": "213547",
            "PatientWeight": "70000"}
INJECTED = {"RadiopharmaceuticalStartDateTime": None, "RadiopharmaceuticalStartTime": "204501",
            "Radiopharmaceutical": "FDG JaneZZ"}


def personal_series(folder) -> list[str]:
    """Write a series that names its patient everywhere; return what may not come out of it."""
    paths = write_series(folder, ramp() * BQML_PER_SUV, header=PERSONAL, radiopharmaceutical=INJECTED)
    header = pydicom.dcmread(paths[0])
    uids = [str(e.value) for e in header if e.VR == "UI" and not str(e.value).startswith("1.2.840.10008.")]
    assert len(uids) == 4
    return ["janezz", "doe", "4711", "19611213", "1961-12-13", "20250203", "2025-02-03", "221536", "22:15", "213547",
            "21:35", "204501", "20:45", *uids]


def test_tags_never_hold_the_patient(tmp_path):
    secrets = personal_series(tmp_path)
    with pytest.warns(UserWarning, match=r"g;|frame times"):
        volume = read_pet(tmp_path)
    for written in (repr(dict(volume.tags)), repr(volume.warnings), repr(dict(read_dicom_series(tmp_path).tags))):
        assert not [secret for secret in secrets if secret in written.lower()]
    assert len(volume.tags["frame_of_reference_sha256"]) == 64
    assert {"Manufacturer", "elapsed_s", "PatientWeight"} <= set(volume.tags)


def test_the_record_of_the_command_line_never_holds_the_patient(tmp_path):
    """Every remark stands once on standard error, although it is a warning and a line of the record."""
    secrets = personal_series(tmp_path / "study")
    for command in (["roi2sino", "--threshold", "fixed:150", "--with-activity"], ["project"]):
        name, *options = command
        out = tmp_path / name / ("sinogram.npz" if name == "project" else "record")
        out.parent.mkdir()
        result = CliRunner().invoke(cli, [name, str(tmp_path / "study"), *options, "--out", str(out), "--n-angles", "8",
                                          "--json"])
        assert result.exit_code == 0, result.output
        texts = [result.stdout.replace(str(tmp_path), ""), result.stderr.replace(str(tmp_path), "")]
        texts += [path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.json")]
        for text in texts:
            created = re.search(r'"created": "[^"]*"', text)  # the time of the run, not the patient's
            text = text.replace(created[0], "") if created else text
            assert not [secret for secret in secrets if secret in text.lower()]
        assert result.stderr.count("divided by 1000") == 1
        assert sum("divided by 1000" in line for line in json.loads(result.stdout)["warnings"]) == 1
    assert (tmp_path / "roi2sino" / "record" / "record.json").is_file()


def test_the_record_withholds_a_series_and_times_that_were_typed(tmp_path):
    personal_series(tmp_path / "study")
    uid = str(pydicom.dcmread(next((tmp_path / "study").iterdir())).SeriesInstanceUID)
    result = CliRunner().invoke(cli, ["roi2sino", str(tmp_path / "study"), "--threshold", "fixed:50", "--series-uid",
                                      uid, "--injection-time", "2025-02-03T20:35:01", "--out", str(tmp_path / "r"),
                                      "--n-angles", "8"])
    assert result.exit_code == 0, result.output
    text = (tmp_path / "r" / "record.json").read_text(encoding="utf-8")
    command = json.loads(text)["command"]
    assert "--series-uid (withheld)" in command.replace('"', "")
    assert "--injection-time (withheld)" in command.replace('"', "")
    assert uid not in text
    assert "20:35" not in text


def test_slices_come_back_in_order_for_those_who_need_headers(tmp_path):
    write_series(tmp_path, ramp(), slope=1)
    slices, notes = load_slices(tmp_path)
    assert [float(s.ImagePositionPatient[2]) for s in slices] == [0, 4, 8, 12]
    assert notes == []


def test_overflowing_values_are_refused(tmp_path):
    for path in write_series(tmp_path, ramp(), slope=1):
        edit(path, RescaleSlope="1e38")
    with pytest.raises(MetadataError, match="overflow"):
        read_dicom_series(tmp_path)
