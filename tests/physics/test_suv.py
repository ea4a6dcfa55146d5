"""SUV from PET headers: every case of the IBSI SUV reference objects, and what must be refused."""

import csv
import json

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allpet_physics.errors import InputError, MetadataError
from allpet_physics.io import SUVInputs, body_size, read_nifti, read_pet
from allpet_physics.io.decay import average_rate_time, nuclide_half_life
from allpet_physics.io.moments import parse_moment
from allpet_physics.io.plausible import check_dose
from allpet_physics.io.suv import suv_factor

from .dicom_series import BQML_PER_SUV, DOSE_BQ, HALF_LIFE_S, shared_data, write_series

PHILIPS, GE = "Philips PET Private Group", "GEMS_PETD_01"
SHAPE = (6, 9, 7)
#: A man of 70 kg and 175 cm, worked out by hand: James 1.10*70 - 128*(70/175)^2 = 56.52 kg; ideal body weight
#: (48.0 + 1.06*23 + 45.5 + 0.91*23)/2 = 69.405 kg; Du Bois 0.007184*70^0.425*175^0.725 = 1.84814 m2.
LBM_JAMES_KG, IBW_KG, BSA_M2 = 56.52, 69.405, 1.84814


def suv_phantom() -> tuple[np.ndarray, np.ndarray]:
    """Return SUVbw (background 1, hot 4, cold 0.2, 0 outside) and the mask of the body."""
    mask = np.zeros(SHAPE, dtype=bool)
    mask[:, 1:8, 1:6] = True
    suv = mask.astype(float)
    suv[1:5, 2:4, 2:4] = 4.0
    suv[2:4, 5:7, 3:5] = 0.2
    return suv, mask


def per_bed(first, second) -> list:
    """Return one value per slice: two bed positions of three slices."""
    return [first] * 3 + [second] * 3


def beds_at(first, second, reference_ms=(None, None)) -> list[dict]:
    """Return the slices' acquisition times, with frames of 603 s: their average count rate occurs after 300 s."""
    beds = [{"AcquisitionTime": first}, {"AcquisitionTime": second}]
    for bed, ms in zip(beds, reference_ms, strict=True):
        if ms is not None:
            bed |= {"FrameReferenceTime": ms, "ActualFrameDuration": 603000}
    return per_bed(*beds)


def decayed(seconds) -> float:
    return 2 ** (-seconds / HALF_LIFE_S)


#: id -> stored value of 1 SUVbw (one number, or one per slice) and what is special in the header.
CASES = {
    "DRO_0_0": {},
    "DRO_1_0": {"slope": [0.6, 0.5, 0.9, 0.7, 0.8, 0.55]},
    "DRO_2_0": {"one": 1.0, "header": {"Units": "GML", "SUVType": "BW"}},
    "DRO_2_1": {"one": LBM_JAMES_KG / 70, "header": {"Units": "GML", "SUVType": "LBMJAMES128", "PatientSex": "M"}},
    "DRO_2_2": {"one": IBW_KG / 70, "header": {"Units": "GML", "SUVType": "IBW", "PatientSex": "O"}},
    "DRO_2_3": {"one": BSA_M2 * 1e4 / 70e3, "header": {"Units": "CM2ML", "SUVType": "BSA"}},
    "DRO_2_4": {"one": 2000.0, "header": {"Units": "CNTS", (0x7053, 0x1000, "DS"): "0.0005"}},
    "DRO_2_5": {"one": BQML_PER_SUV / 0.5, "header": {"Units": "CNTS", (0x7053, 0x1009, "DS"): "0.5"}},
    "DRO_3_0": {"drug": {"RadionuclideTotalDose": "368.08"}},
    "DRO_3_1": {"one": DOSE_BQ / 70e3, "header": {"DecayCorrection": "ADMIN"}},
    "DRO_3_2": {"header": {"SeriesTime": "113000"},
                "slice_headers": beds_at("110230", "110500", ("450000", "600000"))},
    "DRO_3_3": {"header": {"AcquisitionTime": "113000", (0x0009, 0x100D, "DT"): "20250101110000.000000"}},
    "DRO_3_4": {"one": per_bed(BQML_PER_SUV * decayed(300), BQML_PER_SUV * decayed(600)),
                "header": {"DecayCorrection": "NONE", "CorrectedImage": ["NORM", "ATTN", "SCAT"]},
                "slice_headers": beds_at("110000", "110500", ("300000", "600000"))},
    "DRO_4_0": {"drug": {"RadiopharmaceuticalStartTime": None}},
    "DRO_4_1": {"drug": {"RadiopharmaceuticalStartDateTime": None}},
    "DRO_4_2": {"header": {"StudyDate": "20250102", "SeriesDate": "20250102", "AcquisitionDate": "20250102",
                           "SeriesTime": "003000", "AcquisitionTime": "003000"},
                "drug": {"RadiopharmaceuticalStartDateTime": None, "RadiopharmaceuticalStartTime": "233000"}},
    "DRO_5_0": {"one": DOSE_BQ * 2 ** (-3600 / 4057.7) / 70e3,
                "drug": {"RadionuclideHalfLife": "4057.7", "Radiopharmaceutical": "Ga68-PSMA"}},
    # Beyond the reference objects: the same rules written differently.
    "no SUVType means body weight": {"one": 1.0, "header": {"Units": "GML"}},
    "private blocks with their creator": {"one": 2000.0, "header": {
        "Units": "CNTS", (0x7053, 0x00, "DS", PHILIPS): "0.0005", (0x7053, 0x09, "DS", PHILIPS): "77"}},
    "a SUV factor of zero does not apply": {"one": BQML_PER_SUV / 0.5, "header": {
        "Units": "CNTS", (0x7053, 0x00, "DS", PHILIPS): "0.0", (0x7053, 0x09, "DS", PHILIPS): "0.5"}},
    "GE scan time in its block, series processed later": {"header": {
        "SeriesTime": "150000", "AcquisitionTime": "113000", "FrameReferenceTime": "0",
        (0x0009, 0x0D, "DT", GE): "20250101110000.00"}},
    "standard decay correction time": {"header": {"SeriesTime": "090000", "AcquisitionTime": "113000",
                                                  "DecayCorrectionDateTime": "20250101110000"}},
    "earliest AcquisitionTime where frame times are missing": {
        "header": {"SeriesTime": "113000", "FrameReferenceTime": None}, "slice_headers": beds_at("110000", "110500")},
    "earliest AcquisitionTime where frame times restart at each bed": {
        "header": {"SeriesTime": "113000"},
        "slice_headers": beds_at("110000", "110500", ("300000", "300000"))},
    "earliest AcquisitionTime where frame times begin at zero": {
        "header": {"SeriesTime": "113000", "FrameReferenceTime": "0"}},
    "earliest AcquisitionTime where frame times disagree": {
        "header": {"SeriesTime": "113000"}, "slice_headers": beds_at("110000", "110500", ("600000", "700000"))},
    "half-life from the table": {"drug": {"RadionuclideHalfLife": None}},
    "weight in g": {"header": {"PatientWeight": "70000"}},
    "height in cm": {"one": BSA_M2 * 1e4 / 70e3, "header": {"Units": "CM2ML", "PatientSize": "175"}},
}


def write_case(folder, one=BQML_PER_SUV, drug=None, **series):
    suv, mask = suv_phantom()
    write_series(folder, suv * np.reshape(one, (-1, 1, 1)), radiopharmaceutical=drug, **series)
    return suv, mask


@pytest.mark.filterwarnings("ignore::UserWarning")  # what is said has a test of its own
@pytest.mark.parametrize("case", CASES)
def test_every_way_to_store_suv_is_read_back(case, tmp_path):
    suv, mask = write_case(tmp_path, **CASES[case])
    volume = read_pet(tmp_path)
    found = volume.axial_slices()
    assert volume.unit == "SUVbw"
    np.testing.assert_allclose(found, suv, atol=2e-3)
    inside = found[mask]
    np.testing.assert_allclose([inside.min(), np.median(inside), inside.max()], [0.2, 1.0, 4.0], atol=2e-3)
    tags = json.dumps(dict(volume.tags))
    assert "Secret" not in tags
    assert "SECRET" not in tags


def test_the_cases_are_those_of_the_reference_objects():
    table = shared_data("suv_dro", "expected.csv")
    if not table.is_file():
        pytest.skip("the table of the SUV reference objects is not here")
    with table.open(encoding="utf-8") as file:
        assert {row["ID"] for row in csv.DictReader(file)} == {case for case in CASES if case.startswith("DRO")}


@pytest.mark.parametrize("case", ["DRO_0_0", "DRO_1_0", "DRO_2_4", "DRO_3_1"])
def test_reference_objects(case):
    folder = shared_data("suv_dro", case)
    if not folder.is_dir():
        pytest.skip(f"the SUV reference object {case} is not here")
    inside = read_pet(folder).data[read_nifti(folder / "mask" / "DRO_mask.nii.gz").data > 0]
    np.testing.assert_allclose([inside.min(), np.median(inside), inside.max()], [0.2, 1.0, 4.0], atol=0.01)


def test_private_elements_of_unknown_type_are_understood(tmp_path):
    """Without its creator a private element in implicit VR has no type: its value arrives as bytes."""
    from pydicom.uid import ImplicitVRLittleEndian

    suv, _ = write_case(tmp_path, **CASES["DRO_2_4"])
    for path in tmp_path.iterdir():
        ds = pydicom.dcmread(path)
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        ds.save_as(path, implicit_vr=True, little_endian=True)
        assert isinstance(pydicom.dcmread(path)[0x7053, 0x1000].value, bytes)
    np.testing.assert_allclose(read_pet(tmp_path).axial_slices(), suv, atol=2e-3)


@pytest.mark.parametrize(("case", "words"), [
    ("DRO_3_0", "MBq"), ("DRO_4_2", "day before"), ("DRO_2_2", "mean of the formulas"), ("DRO_3_2", "frame times"),
    ("half-life from the table", "F-18"), ("weight in g", "divided by 1000"), ("height in cm", "divided by 100"),
    ("earliest AcquisitionTime where frame times are missing", "earliest AcquisitionTime")])
def test_what_was_assumed_is_said(case, words, tmp_path):
    """Once as a warning of the line that reads, for those who do not look, and once in the volume."""
    write_case(tmp_path, **CASES[case])
    with pytest.warns(UserWarning, match=words) as told:
        volume = read_pet(tmp_path)
    (remark,) = volume.warnings
    assert [str(warning.message) for warning in told] == [remark]
    assert told[0].filename == __file__


def test_an_ordinary_header_needs_no_remark_and_lists_what_it_gave(tmp_path):
    write_case(tmp_path)
    volume = read_pet(tmp_path)
    assert volume.warnings == ()
    expected = {"Units": "BQML", "DecayCorrection": "START", "PatientWeight": 70.0, "RadionuclideTotalDose": DOSE_BQ,
                "RadionuclideHalfLife": HALF_LIFE_S, "elapsed_s": 3600.0,
                "reference_time_from": "SeriesTime (0008,0031)"}
    assert {key: volume.tags[key] for key in expected} == expected
    assert "2025" not in json.dumps(dict(volume.tags))


#: What is missing, which element the message must name, and what the caller can give instead.
MISSING = {
    "weight": ({"header": {"PatientWeight": None}}, "PatientWeight", {"weight_kg": 70}),
    "weight of zero": ({"header": {"PatientWeight": "0"}}, "PatientWeight", {"weight_kg": 70}),
    "dose": ({"drug": {"RadionuclideTotalDose": None}}, "RadionuclideTotalDose", {"dose_bq": DOSE_BQ}),
    "injection time": ({"drug": {"RadiopharmaceuticalStartDateTime": None, "RadiopharmaceuticalStartTime": None}},
                       "RadiopharmaceuticalStartDateTime", {"injection_time": "2025-01-01T10:00:00"}),
    "dates shifted": ({"drug": {"RadiopharmaceuticalStartDateTime": "20200101100000"}},
                      "RadiopharmaceuticalStartDateTime", {"injection_time": "2025-01-01 10:00"}),
    "injection after the scan": ({"drug": {"RadiopharmaceuticalStartDateTime": "20250101120000"}},
                                 "RadiopharmaceuticalStartDateTime", {"injection_time": "2025-01-01T10:00"}),
    "clock time after the scan": ({"drug": {"RadiopharmaceuticalStartDateTime": None,
                                            "RadiopharmaceuticalStartTime": "110500"}},
                                  "RadiopharmaceuticalStartTime", {"injection_time": "2025-01-01T10:00"}),
    "scan times": ({"header": {"SeriesTime": None, "AcquisitionTime": None}}, "AcquisitionTime",
                   {"scan_time": "2025-01-01T11:00:00"}),
    "half-life of an unknown nuclide": ({"drug": {"RadionuclideHalfLife": None, "RadionuclideCodeSequence": None,
                                                  "Radiopharmaceutical": "unobtainium"}},
                                        "RadionuclideHalfLife", {"half_life_s": HALF_LIFE_S}),
    "everything about the tracer": ({"header": {"RadiopharmaceuticalInformationSequence": None}},
                                    "RadionuclideTotalDose",
                                    {"dose_bq": DOSE_BQ, "injection_time": "2025-01-01T10:00",
                                     "half_life_s": HALF_LIFE_S}),
}


@pytest.mark.parametrize("what", MISSING)
def test_what_is_missing_is_named_and_can_be_given(what, tmp_path):
    series, element, way_out = MISSING[what]
    suv, _ = write_case(tmp_path, **series)
    with pytest.raises(MetadataError, match=element) as caught:
        read_pet(tmp_path)
    assert "pass " in str(caught.value)
    np.testing.assert_allclose(read_pet(tmp_path, **way_out).axial_slices(), suv, atol=2e-3)
    np.testing.assert_allclose(read_pet(tmp_path, unit="Bq/ml").axial_slices(), suv * BQML_PER_SUV, rtol=1e-4, atol=1)


REFUSED = {
    "Units": ({"header": {"Units": "PROPCPS"}}, "PROPCPS"),
    "no decay correction": ({"header": {"DecayCorrection": None}}, "DecayCorrection"),
    "counts without a factor": ({"header": {"Units": "CNTS"}}, "7053,1000"),
    "unknown SUV type": ({"header": {"Units": "GML", "SUVType": "XYZ"}}, "SUVType"),
    "SUV type and unit": ({"header": {"Units": "GML", "SUVType": "BSA"}}, "contradict"),
    "no sex": ({"header": {"Units": "GML", "SUVType": "LBM", "PatientSex": None}}, "PatientSex"),
    "no height": ({"header": {"Units": "GML", "SUVType": "LBM", "PatientSize": None}}, "PatientSize"),
    "no frame duration": ({"header": {"DecayCorrection": "NONE", "ActualFrameDuration": None}}, "ActualFrameDuration"),
    "weights differ": ({"slice_headers": per_bed({"PatientWeight": "70"}, {"PatientWeight": "71"})}, "70.0, 71.0"),
    "long half-life without date": ({"drug": {"RadiopharmaceuticalStartDateTime": None, "Radiopharmaceutical": "Zr-89",
                                              "RadionuclideHalfLife": "282276"}}, "has no date"),
    "dose in kBq": ({"drug": {"RadionuclideTotalDose": "368080"}}, "looks like kBq"),
    "dose in mBq": ({"drug": {"RadionuclideTotalDose": "368.08e9"}}, r"RadionuclideTotalDose.*50 MBq per kg"),
    "weight ten times too high": ({"header": {"PatientWeight": "700"}},
                                  r"PatientWeight.*0\.3 and 500 kg.*pass weight_kg"),
    "weight too low even in g": ({"header": {"PatientWeight": "0.07"}}, "PatientWeight"),
    "height of nobody": ({"header": {"Units": "CM2ML", "PatientSize": "17.5"}}, "PatientSize"),
    "half-life in minutes": ({"drug": {"RadionuclideHalfLife": "109.77"}}, r"within 5 %.*F-18"),
    "half-life of another nuclide": ({"drug": {"RadionuclideHalfLife": "4057.7"}}, r"within 5 %.*F-18"),
    "half-life of no PET nuclide": ({"drug": {"RadionuclideHalfLife": "1e9"}}, "864000 s"),
    "injection with a zone, scan without": ({"drug": {"RadiopharmaceuticalStartDateTime": "20250101100000+0100"}},
                                            r"TimezoneOffsetFromUTC.*pass injection_time"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_converted_is_refused(what, tmp_path):
    series, words = REFUSED[what]
    write_case(tmp_path, **series)
    with pytest.raises(MetadataError, match=words):
        read_pet(tmp_path)


@pytest.mark.parametrize(("what", "way_out"), [
    ("dose in kBq", {"dose_bq": DOSE_BQ}), ("dose in mBq", {"dose_bq": DOSE_BQ}),
    ("weight ten times too high", {"weight_kg": 70}), ("weight too low even in g", {"weight_kg": 70}),
    ("half-life in minutes", {"half_life_s": HALF_LIFE_S}),
    ("half-life of no PET nuclide", {"half_life_s": HALF_LIFE_S}),
    ("injection with a zone, scan without", {"injection_time": "2025-01-01T10:00"})])
def test_what_a_header_states_implausibly_can_be_given(what, way_out, tmp_path):
    suv, _ = write_case(tmp_path, **REFUSED[what][0])
    np.testing.assert_allclose(read_pet(tmp_path, **way_out).axial_slices(), suv, atol=2e-3)


@pytest.mark.parametrize(("override", "words"), [
    ({"dose_bq": 370}, "dose_bq.*looks like MBq.*give it in Bq"), ({"dose_bq": 368080}, "looks like kBq"),
    ({"dose_bq": 0.37}, "looks like GBq"), ({"dose_bq": 1e11}, "dose_bq"), ({"weight_kg": 1e9}, "weight_kg.*500 kg"),
    ({"weight_kg": 70000}, "weight_kg"), ({"height_m": 175}, "height_m"), ({"half_life_s": 1e9}, "half_life_s"),
    ({"half_life_s": 1.83}, "half_life_s"), ({"scan_time": "2025-01-01"}, "scan_time")])
def test_what_the_caller_gives_must_be_plausible_too(override, words, tmp_path):
    write_case(tmp_path)
    with pytest.raises(InputError, match=words):
        read_pet(tmp_path, **override)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.3, 500), st.floats(0.051, 49.9), st.sampled_from([1e-9, 1e-6, 1e-3, 1e3]))
def test_a_plausible_dose_is_never_plausible_in_another_unit(weight_kg, mbq_per_kg, slip):
    dose_bq = mbq_per_kg * 1e6 * weight_kg
    assert check_dose("dose", dose_bq, weight_kg, "", given=True) == dose_bq
    with pytest.raises(InputError, match="MBq/kg"):
        check_dose("dose", dose_bq * slip, weight_kg, "", given=True)


def test_a_half_life_given_against_the_named_nuclide_is_used_and_said(tmp_path):
    suv, _ = write_case(tmp_path, one=DOSE_BQ * 2 ** (-3600 / 4057.7) / 70e3)
    with pytest.warns(UserWarning, match="header names F-18"):
        volume = read_pet(tmp_path, half_life_s=4057.7)
    np.testing.assert_allclose(volume.axial_slices(), suv, atol=2e-3)


#: Header, injection element and overrides that all mean an hour from injection to scan.
ZONES = {
    "a header's own zone": ({"TimezoneOffsetFromUTC": "+0500"}, "20250101060000+0100", {}),
    "an element without zone is local": ({"TimezoneOffsetFromUTC": "+0500"}, "20250101100000", {}),
    "a scan time elsewhere": ({"TimezoneOffsetFromUTC": "+0100"}, "20250101060000", {
        "scan_time": "2025-01-01T11:00:00+05:00"}),
    "an injection time in UTC": ({"TimezoneOffsetFromUTC": "-0330"}, "", {"injection_time": "2025-01-01T13:30:00Z"}),
    "an override without zone is local": ({"TimezoneOffsetFromUTC": "+0100"}, "20250101090000+0000", {
        "scan_time": "2025-01-01T11:00:00"}),
    "both given with zones": ({}, "", {"injection_time": "2025-01-01T05:00:00Z",
                                       "scan_time": "2025-01-01T11:00:00+05:00"}),
    "both elements with zones": ({"DecayCorrectionDateTime": "20250101110000+0500"}, "20250101050000+0000", {}),
    "a time of day is local": ({"TimezoneOffsetFromUTC": "+0900",
                                "DecayCorrectionDateTime": "20250101020000+0000"}, None, {}),
}


@pytest.mark.parametrize("case", ZONES)
def test_time_zones_are_converted(case, tmp_path):
    header, injection, overrides = ZONES[case]
    suv, _ = write_case(tmp_path, header=header, drug={"RadiopharmaceuticalStartDateTime": injection})
    volume = read_pet(tmp_path, **overrides)
    assert volume.tags["elapsed_s"] == 3600
    np.testing.assert_allclose(volume.axial_slices(), suv, atol=2e-3)


@pytest.mark.parametrize("override", [{"scan_time": "2025-01-01T11:00:00+05:00"},
                                      {"injection_time": "2025-01-01T10:00:00Z"},
                                      {"injection_time": "2025-01-01T10:00", "scan_time": "2025-01-01T11:00:00Z"}])
def test_a_zone_on_one_side_only_is_refused(override, tmp_path):
    write_case(tmp_path)
    with pytest.raises(MetadataError, match=r"TimezoneOffsetFromUTC.*local times without zone"):
        read_pet(tmp_path, **override)


def test_two_tracers_are_refused(tmp_path):
    from pydicom.dataset import Dataset

    write_case(tmp_path, header={"RadiopharmaceuticalInformationSequence": [Dataset(), Dataset()]})
    with pytest.raises(MetadataError, match="2 tracers"):
        read_pet(tmp_path)


def test_normalised_values_cannot_become_activity(tmp_path):
    write_case(tmp_path, one=1.0, header={"Units": "GML"})
    with pytest.raises(MetadataError, match='unit="SUVbw"'):
        read_pet(tmp_path, unit="Bq/ml")


def test_activity_of_counts_and_of_uncorrected_frames(tmp_path):
    suv, _ = write_case(tmp_path / "counts", **CASES["DRO_2_5"])
    np.testing.assert_allclose(read_pet(tmp_path / "counts", "Bq/ml").axial_slices(), suv * BQML_PER_SUV, rtol=1e-4)
    write_case(tmp_path / "none", **CASES["DRO_3_4"])
    with pytest.warns(UserWarning, match="own acquisition"):
        read_pet(tmp_path / "none", "Bq/ml")


def test_an_injection_during_the_scan_is_allowed_but_said(tmp_path):
    suv, _ = write_case(tmp_path, one=DOSE_BQ * 2 ** (60 / HALF_LIFE_S) / 70e3,
                        drug={"RadiopharmaceuticalStartDateTime": "20250101110100"})
    with pytest.warns(UserWarning, match="60 s after"):
        volume = read_pet(tmp_path)
    np.testing.assert_allclose(volume.axial_slices(), suv, atol=2e-3)


def test_a_disagreement_of_series_and_frame_times_is_said(tmp_path):
    write_case(tmp_path, header={"SeriesTime": "104000"})
    with pytest.warns(UserWarning, match=r"\+1200 s from SeriesTime.*\+13\.5% different"):  # 2^(1200/6586.2) - 1
        read_pet(tmp_path)


def test_values_given_for_an_image_that_is_suv_already_are_not_silently_ignored(tmp_path):
    write_case(tmp_path / "gml", one=1.0, header={"Units": "GML"})
    with pytest.warns(UserWarning, match="weight_kg had no effect"):
        read_pet(tmp_path / "gml", weight_kg=140)
    suv, _ = write_case(tmp_path / "counts", **CASES["a SUV factor of zero does not apply"] | {"header": {
        "Units": "CNTS", (0x7053, 0x00, "DS", PHILIPS): "0.3", (0x7053, 0x09, "DS", PHILIPS): "0.5"}})
    np.testing.assert_allclose(read_pet(tmp_path / "counts", weight_kg=140).axial_slices(), 2 * suv, atol=4e-3)


@pytest.mark.parametrize(("keywords", "words"), [
    ({"weight_kg": -1}, "weight_kg"), ({"dose_bq": 0}, "dose_bq"), ({"sex": "male"}, "sex"),
    ({"injection_time": "yesterday"}, "injection_time"), ({"unit": "SUL"}, "unit"), ({"dtype": int}, "dtype")])
def test_arguments_are_checked(keywords, words, tmp_path):
    with pytest.raises(InputError, match=words):
        read_pet(tmp_path, **keywords)


def test_float64_is_kept(tmp_path):
    write_case(tmp_path)
    assert read_pet(tmp_path, dtype=np.float64).data.dtype == np.float64
    assert read_pet(tmp_path).data.dtype == np.float32


@settings(max_examples=30, deadline=None)
@given(st.floats(0.01, 200), st.floats(1e6, 1e9), st.floats(0, 2e4), st.floats(60, 4e5))
def test_a_tracer_spread_evenly_over_the_body_has_suv_one(weight_kg, dose_bq, elapsed_s, half_life_s):
    left = dose_bq * 0.5 ** (elapsed_s / half_life_s)
    concentration = left / (weight_kg * 1000)  # 1 g is 1 ml
    assert concentration * suv_factor(weight_kg, dose_bq, elapsed_s, half_life_s) == pytest.approx(1, rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.floats(1, 3600), st.floats(60, 4e5))
def test_the_average_rate_time_is_when_the_rate_is_average(duration, half_life_s):
    time = (np.arange(20000) + 0.5) / 20000 * duration
    mean = np.mean(0.5 ** (time / half_life_s))
    assert 0.5 ** (average_rate_time(duration, half_life_s) / half_life_s) == pytest.approx(mean, rel=1e-6)


def test_body_sizes_of_a_woman_and_a_man():
    assert body_size("LBM", 70, 1.75, "M") == pytest.approx(57.8)
    assert body_size("LBMJAMES128", 70, 1.75, "M") == pytest.approx(LBM_JAMES_KG)
    assert body_size("LBMJAMES128", 60, 1.60, "F") == pytest.approx(43.3875)
    assert body_size("LBMJANMA", 70, 1.75, "M") == pytest.approx(55.857, abs=0.001)
    assert body_size("BSA", 70, 1.75, "O") == pytest.approx(BSA_M2, abs=1e-4)
    for kind in ("LBM", "LBMJAMES128", "LBMJANMA", "IBW"):
        man, woman, other = (body_size(kind, 70, 1.75, sex) for sex in "MFO")
        assert other == pytest.approx((man + woman) / 2)
        assert woman < man < 80


@pytest.mark.parametrize(("name", "nuclide"), [
    ("^18^Fluorine", "F-18"), ("Fluorodeoxyglucose F^18^", "F-18"), ("18F-FDG", "F-18"), ("[18F]PSMA-1007", "F-18"),
    ("Ga68-PSMA", "Ga-68"), ("^68^Gallium", "Ga-68"), ("68Ga-DOTATATE", "Ga-68"), ("C-11 choline", "C-11"),
    ("^89^Zirconium", "Zr-89"), ("Rubidium Rb^82^", "Rb-82"), ("FDG", None), ("Tc-99m", None), ("", None)])
def test_nuclides_are_recognised_by_name(name, nuclide):
    found = nuclide_half_life(name)
    assert (found and found[0]) == nuclide


def test_moments_are_read_in_all_their_spellings():
    for text in ("20250131101500", "20250131101500.000000", "202501311015", "2025.01.3110:15:00", "20250131 101500"):
        assert parse_moment(text).isoformat() == "2025-01-31T10:15:00"
    assert parse_moment("20250131101500.00+0100").isoformat() == "2025-01-31T10:15:00+01:00"
    assert parse_moment("20250131101500-0330").isoformat() == "2025-01-31T10:15:00-03:30"
    for text in ("", "20250131", "20251331101500", "noon", "20250131101500+9900"):
        with pytest.raises(ValueError, match=r".*"):
            parse_moment(text)


def test_inputs_are_frozen_and_checked():
    assert SUVInputs(weight_kg=70).weight_kg == 70.0
    with pytest.raises(InputError, match="half_life_s"):
        SUVInputs(half_life_s=float("nan"))
