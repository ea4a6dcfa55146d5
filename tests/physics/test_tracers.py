"""Tracer names, the tables and their errors, and the statistics of drawn patients."""

import numpy as np
import pytest

from allpet_physics.errors import InputError
from allpet_physics.simulation.organs import ORGAN_NAME
from allpet_physics.simulation.tracer_tables import EMPTY_ORGANS, KINETICS_COLUMNS, LESIONS, UPTAKE_COLUMNS
from allpet_physics.simulation.tracers import (
    PATIENT_CORRELATION,
    TRACERS,
    activity,
    draw_curves,
    draw_lesion,
    draw_uptake,
    parse_tracer,
    read_tracer_tables,
)

ORGANS = [name for name in ORGAN_NAME if name not in LESIONS]
UPTAKE_HEADER, KINETICS_HEADER = ",".join(UPTAKE_COLUMNS), ",".join(KINETICS_COLUMNS)
ROW = "18F-FDG,liver,SUVmean,2,0.4,1,liver,0.8,liver,assumption"
CURVE = "18F-FDG,liver,two-tissue,0.8,0.9,0.005,0.007,0.1,,,assumption"


@pytest.mark.parametrize(("written", "name"), [
    ("18F-FDG", "18F-FDG"), ("FDG", "18F-FDG"), ("[18F]FDG", "18F-FDG"), ("F-18 FDG", "18F-FDG"),
    ("fdg-f18", "18F-FDG"), ("[18F]fluorodeoxyglucose", "18F-FDG"), ("18F-DOPA", "18F-DOPA"), ("F-DOPA", "18F-DOPA"),
    ("[18F]FDOPA", "18F-DOPA"), ("18F fluoro-L-DOPA", "18F-DOPA"), ("68Ga-PSMA", "68Ga-PSMA"), ("psma", "68Ga-PSMA"),
    ("[68Ga]Ga-PSMA-11", "68Ga-PSMA"), ("Ga-68-PSMA-11", "68Ga-PSMA"), ("Ga-PSMA", "68Ga-PSMA"),
])
def test_usual_spellings_mean_the_tracer(written, name):
    assert parse_tracer(written) is TRACERS[name]
    assert parse_tracer(TRACERS[name]) is TRACERS[name]


@pytest.mark.parametrize("written", ["FET", "", "68Ga-FDG", "18F-PSMA-1007", "18F-PSMA", "18F", "FDGX", None, 18])
def test_unknown_tracers_list_the_known_ones(written):
    with pytest.raises(InputError, match="18F-FDG, 18F-DOPA, 68Ga-PSMA"):
        parse_tracer(written)


def test_half_lives_are_those_that_dicom_series_are_read_with():
    from allpet_physics.io.decay import HALF_LIVES
    for tracer in TRACERS.values():
        assert tracer.half_life_s == HALF_LIVES[tracer.nuclide][0]
        assert tracer.half_life_source


def test_the_packaged_table_covers_every_organ_for_every_tracer_with_a_source():
    tables = read_tracer_tables()
    assert set(tables.uptake) == set(tables.kinetics) == set(TRACERS)
    for rows in tables.uptake.values():
        assert set(rows) == set(ORGAN_NAME) - set(EMPTY_ORGANS)
        for row in rows.values():
            published = any(c.isdigit() for c in row.source)
            assert published or row.source.startswith("assumption"), row
            if row.statistic == "SUVmax":
                assert "SUVmax" in row.source
                assert "factor: assumption" in row.source


def test_known_contrasts_of_the_packaged_table():
    fdg, dopa, psma = (read_tracer_tables().uptake[name] for name in TRACERS)
    assert fdg["brain_grey"].mean / fdg["brain_white"].mean == pytest.approx(4, rel=0.05)
    assert (fdg["cerebellum"].mean, fdg["cerebellum"].sd) == (8.0, 2.2)
    assert fdg["liver"].mean == pytest.approx(1.9, rel=0.02)
    assert fdg["lung"].mean < fdg["blood_pool"].mean < fdg["liver"].mean < fdg["brain_white"].mean
    assert dopa["putamen"].mean / dopa["brain_grey"].mean > 2
    order = ["kidney_cortex", "parotid", "spleen", "liver", "blood_pool", "muscle"]
    means = [psma[organ].mean for organ in order]
    assert means == sorted(means, reverse=True)


@pytest.mark.parametrize("tracer", TRACERS)
def test_drawn_uptakes_have_the_moments_and_correlations_of_the_table(tracer):
    rng = np.random.default_rng(7)
    rows = {name: row for name, row in read_tracer_tables().uptake[tracer].items() if name not in LESIONS}
    n = 400
    patients = [draw_curves(tracer, rows, rng) for _ in range(n)]
    logs = np.log([[curve.suv for curve in patient.values()] for patient in patients])
    ratios = []
    for row, values in zip(rows.values(), logs.T, strict=True):
        sigma = np.sqrt(np.log1p((row.sd / row.mean) ** 2))
        # Five standard errors for each of 57 organs: a false alarm once in 30,000 runs.
        assert abs(values.mean() - (np.log(row.mean) - sigma**2 / 2)) < 5 * sigma / np.sqrt(n), row
        assert abs(values.std() / sigma - 1) < 5 / np.sqrt(2 * n), row
        ratios.append(values.std() / sigma)
    # The 57 ratios move with the patient; their mean scatters by about 0.01.
    assert np.mean(ratios) == pytest.approx(1, abs=0.04)
    names = list(rows)
    correlation = np.corrcoef(logs.T)
    blood = correlation[np.ix_(*[[names.index(o) for o in ("blood_pool", "aorta", "vena_cava")]] * 2)]
    np.testing.assert_allclose(blood, 1, atol=1e-9)
    families = np.array([row.family for row in rows.values()])
    across = correlation[families[:, None] != families[None, :]]
    assert across.mean() == pytest.approx(PATIENT_CORRELATION, abs=0.08)
    shared = rows["caudate"].shared
    expected = PATIENT_CORRELATION + (1 - PATIENT_CORRELATION) * shared
    assert correlation[names.index("caudate"), names.index("putamen")] == pytest.approx(expected, abs=0.035)


def test_arithmetic_mean_and_deviation_are_the_tables():
    rng = np.random.default_rng(3)
    suv = np.array([draw_curves("PSMA", ["kidney_cortex"], rng)["kidney_cortex"].suv for _ in range(1500)])
    assert suv.mean() == pytest.approx(41.7, rel=0.05)
    assert suv.std() == pytest.approx(16, rel=0.12)


def test_a_patient_is_the_same_at_any_time_and_whatever_organs_are_asked_for():
    early = draw_uptake("FDG", ORGANS, np.random.default_rng(5))
    some = draw_uptake("FDG", ["liver", "air", "brain_grey"], np.random.default_rng(5))
    assert some == {organ: early[organ] for organ in ("liver", "air", "brain_grey")}
    assert list(some) == ["liver", "air", "brain_grey"]
    assert all(early[organ] == 0 for organ in EMPTY_ORGANS)
    curves = draw_curves("FDG", ORGANS, np.random.default_rng(5))
    late = draw_uptake("FDG", ORGANS, np.random.default_rng(5), time_min=130)
    assert late == {organ: float(curve.at(130)) for organ, curve in curves.items()}
    assert draw_uptake("FDG", ORGANS, np.random.default_rng(6)) != early


def test_every_patients_delayed_scan_rises_in_lesions_and_falls_in_blood_and_liver():
    rng = np.random.default_rng(11)
    ratios = []
    for _ in range(150):
        curves = draw_curves("FDG", ["liver", "blood_pool", "lung", "brain_grey", "heart_muscle"], rng)
        lesion = draw_lesion("FDG", "lesion_hot", curves["liver"], rng)
        r = {name: float(c.at(120) / c.at(60)) for name, c in (curves | {"lesion": lesion}).items()}
        assert r["lesion"] > 1
        assert r["brain_grey"] > 1
        assert r["heart_muscle"] > 1
        assert r["blood_pool"] < 1
        assert r["liver"] < 1
        ratios.append((r["lesion"], r["liver"]))
    assert (np.std(ratios, axis=0) > 0.01).all(), "the delayed scan must be no function of the first"


@pytest.mark.parametrize("tracer", TRACERS)
def test_lesions_are_hotter_or_colder_than_their_host_by_the_tables_distribution(tracer):
    rng = np.random.default_rng(2)
    host = draw_curves(tracer, ["liver"], rng)["liver"]
    rows = read_tracer_tables().uptake[tracer]
    hot = np.array([draw_lesion(tracer, "lesion_hot", host, rng).suv - host.suv for _ in range(600)])
    cold = [draw_lesion(tracer, "lesion_cold", host, rng) for _ in range(600)]
    ratio = np.array([lesion.suv / host.suv for lesion in cold])
    assert hot.min() > 0
    row = rows["lesion_hot"]
    sigma = np.sqrt(np.log1p((row.sd / row.mean) ** 2))
    assert np.log(hot).std() == pytest.approx(sigma, rel=0.15)
    assert np.median(hot) == pytest.approx(row.mean * np.exp(-sigma**2 / 2), rel=0.15)
    assert 0 < ratio.min() < ratio.max() < 1
    assert ratio.mean() == pytest.approx(rows["lesion_cold"].mean, abs=0.03)
    assert ratio.std() == pytest.approx(rows["lesion_cold"].sd, rel=0.15)
    assert cold[0].at(120) / cold[0].at(60) == pytest.approx(float(host.at(120) / host.at(60)))


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_users_table_replaces_the_packaged_one(tmp_path):
    path = write(tmp_path / "mine.csv", "# mine", "", UPTAKE_HEADER,
                 "FDG,liver,SUVmean,3.5,0,1,liver,0.8,liver,mine 2024",
                 '[18F]FDG,striatum,SUVmax,10,2,0.5,brain,0.9,grey_matter,"assumption, mine"',
                 "FDG,putamen,SUVmean,7,0,1,brain,0.9,grey_matter,assumption")
    tables = read_tracer_tables(path)
    drawn = draw_uptake("FDG", ["liver", "putamen", "caudate"], np.random.default_rng(0), tables=tables)
    assert drawn["liver"] == pytest.approx(3.5)
    assert drawn["putamen"] == pytest.approx(7)
    assert tables.uptake["18F-FDG"]["caudate"].mean == 5
    assert tables.uptake["18F-FDG"]["caudate"].source == "assumption, mine"
    curves = write(tmp_path / "curves.csv", KINETICS_HEADER, CURVE.replace("0.8,0.9,0.005,0.007,0.1", "0,0,0,0,1"))
    uptake = write(tmp_path / "liver.csv", UPTAKE_HEADER, ROW)
    blood = read_tracer_tables(kinetics=curves, uptake=uptake)
    first, delayed = activity("FDG", "liver", [(60, 61), (120, 121)], tables=blood)
    assert delayed / first == pytest.approx(np.exp(-0.01043 * 60), rel=1e-2)


def test_missing_organs_are_listed_and_nothing_is_made_up(tmp_path):
    tables = read_tracer_tables(write(tmp_path / "mine.csv", UPTAKE_HEADER, ROW))
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match=r"mine\.csv has none for spleen, aorta; no default applies"):
        draw_uptake("FDG", ["liver", "spleen", "air", "aorta"], rng, tables=tables)
    with pytest.raises(InputError, match="none for lesion_hot"):
        draw_lesion("FDG", "lesion_hot", draw_curves("FDG", ["liver"], rng, tables=tables)["liver"], rng, tables=tables)
    with pytest.raises(InputError, match="none for liver"):
        draw_uptake("PSMA", ["liver"], rng, tables=tables)
    assert draw_uptake("PSMA", ["air", "table"], rng, tables=tables) == {"air": 0, "table": 0}


@pytest.mark.parametrize(("old", "new", "match"), [
    ("18F-FDG", "FET", r"u\.csv, line 3: tracer must be one of 18F-FDG"),
    (",liver,SUV", ",livre,SUV", r"u\.csv, line 3: organ must be one of"),
    (",liver,SUV", ",airway,SUV", "organ must be able to hold tracer, but was airway"),
    ("SUVmean", "SUVpeak", "statistic of liver must be SUVmean or SUVmax, but was 'SUVpeak'"),
    (",2,", ",two,", "suv must be a finite number of at least 0, but was 'two'"),
    (",2,", ",0,", "suv must be above 0"),
    (",0.4,", ",-0.4,", r"sd must be a finite number of at least 0, but was '-0\.4'"),
    (",0.4,", ",inf,", "sd must be a finite number"),
    ("0.4,1,", "0.4,0.6,", r"mean_per_suv must be 1 where statistic is SUVmean, but was 0\.6"),
    ("SUVmean,2,0.4,1,", "SUVmax,2,0.4,1.5,", "mean_per_suv above 0 and at most 1"),
    (",0.8,", ",1.8,", "shared from 0 to 1"),
    (",liver,assumption", ",lever,assumption", r"tissue of liver must be one that kinetics\.csv has for 18F-FDG"),
    (",liver,0.8,", ",,0.8,", "family must be given"),
    ("assumption", "", "source must be given, but was empty; write where the numbers come from, or assumption"),
    (",assumption", ",a,b", "a row must have 10 fields, but had 11; quote a field that holds a comma"),
    (ROW, ROW + "\n" + ROW, r"u\.csv, line 4: liver must have one row for 18F-FDG, but u\.csv, line 3 is another"),
    (",liver,SUVmean,2,0.4,1,liver,0.8,liver", ",lesion_cold,ratio,0.5,0.5,1,l,0,host", r"a mean in \(0, 1\)"),
    (",liver,SUVmean,2,0.4,1,liver,0.8,liver", ",lesion_cold,SUVmean,0.5,0.1,1,l,0,host", "must be ratio, but was"),
    (",liver,SUVmean,2,0.4,1,liver,0.8,liver", ",lesion_cold,ratio,0.5,0.1,1,l,0,liver", r"\(host\), but was 'liver'"),
    (ROW, "", "must hold a header and at least one row"),
    ("family,", "", "lacked family"),
    ("family,", "familie,", "lacked family and had the unknown familie"),
    ("family,", "family,family,", "repeated a column"),
])
def test_a_bad_uptake_table_names_the_line(tmp_path, old, new, match):
    text = f"# comment\n{UPTAKE_HEADER}\n{ROW}\n"
    assert old in text
    path = tmp_path / "u.csv"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=match):
        read_tracer_tables(path)


@pytest.mark.parametrize(("old", "new", "match"), [
    ("two-tissue", "one-tissue", r"k\.csv, line 2: model must be two-tissue or bi-exponential, but was 'one-tissue'"),
    ("0.9,", "-0.9,", r"k2 must be a finite number of at least 0, but was '-0\.9'"),
    ("0.8,0.9,0.005,0.007,0.1", "0,0.9,0.005,0.007,0", "K1 or Vb must be above 0"),
    ("0.007,0.1", "0.007,1.1", "Vb must be a fraction from 0 to 1"),
    (",,,assumption", ",0.1,,assumption", r"uptake must be empty for the model two-tissue, but was '0\.1'"),
    (",liver,", ",host,", "tissue must be a name other than 'host'"),
    ("assumption", "", "source must be given"),
])
def test_a_bad_kinetics_table_names_the_line(tmp_path, old, new, match):
    path = tmp_path / "k.csv"
    path.write_text(f"{KINETICS_HEADER}\n{CURVE}\n".replace(old, new, 1))
    with pytest.raises(InputError, match=match):
        read_tracer_tables(kinetics=path)


def test_groups_that_overlap_and_files_that_cannot_be_read_are_refused(tmp_path):
    brain = "FDG,brain,SUVmean,8,1,1,brain,0.9,grey_matter,assumption"
    path = write(tmp_path / "u.csv", UPTAKE_HEADER, brain, brain.replace("brain,S", "striatum,S"))
    with pytest.raises(InputError, match=r"line 3: caudate must be in one group .* line 2 has it too"):
        read_tracer_tables(path)
    with pytest.raises(InputError, match="could not be read: No such file"):
        read_tracer_tables(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(InputError, match="it is no UTF-8 text"):
        read_tracer_tables(tmp_path / "binary.csv")


@pytest.mark.parametrize(("call", "match"), [
    (lambda rng: draw_uptake("FDG", ["liver", "lesion_hot"], rng), "draw each lesion with draw_lesion"),
    (lambda rng: draw_uptake("FDG", "liver", rng), r"organs must be names in a list, but was the string 'liver'"),
    (lambda rng: draw_uptake("FDG", ["livre"], rng), "organ must be one of"),
    (lambda rng: draw_uptake("FDG", ["liver"], 0), "rng must be a numpy.random.Generator"),
    (lambda rng: draw_uptake("FDG", ["liver"], rng, time_min=-5), "time_min must not be negative"),
    (lambda rng: draw_lesion("FDG", "warm", None, rng), "kind must be lesion_hot or lesion_cold, but was 'warm'"),
    (lambda rng: draw_lesion("FDG", "lesion_hot", 2.0, rng), "host must be an UptakeCurve"),
])
def test_bad_arguments_are_named(call, match):
    with pytest.raises(InputError, match=match):
        call(np.random.default_rng(0))
