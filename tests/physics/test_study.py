"""Studies of one patient: counts hit their budgets, pairs obey their physics, draws can be repeated by anyone."""

import json
from importlib.resources import files

import numpy as np
import pytest

from allpet_physics.errors import GeometryError, InputError
from allpet_physics.fbp import fbp
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.radon import RadonOperator
from allpet_physics.scan_protocol import ScanProtocol
from allpet_physics.simulation.anatomy import draw_patient
from allpet_physics.simulation.lesions import LesionSpec
from allpet_physics.simulation.organs import ORGAN_NUMBER
from allpet_physics.simulation.study import simulate_study
from allpet_physics.simulation.study_settings import FRAMES, StudySettings, prompt_text
from allpet_physics.simulation.task_pairs import TASKS, low_dose, low_dose_scan
from allpet_physics.simulation.tracers import read_tracer_tables

GEOMETRY = ParallelGeometry.preset("network-64")
OPERATOR = RadonOperator(GEOMETRY)
EXACT = StudySettings(counts_spread=0)


def patient(region="chest", seed=3, **options):
    return draw_patient((seed, 0), region, 64, 2, slice_mm=12.0, **options)


def simulate(who, seed=5, tracers=("FDG", "DOPA", "PSMA"), settings=EXACT, **options):
    return simulate_study(who, seed, GEOMETRY, tracers, settings, operator=OPERATOR, **options)


@pytest.fixture(scope="module")
def chest_patient():
    return patient(level_mm=0.0, lesions=[LesionSpec("lung", "hot", 30.0), LesionSpec("muscle", "cold", 30.0)])


@pytest.fixture(scope="module")
def chest(chest_patient):
    return simulate(chest_patient)


def test_axes_and_words(chest):
    assert chest.prompts.shape == chest.line_integrals.shape == (2, 3, 2, 64, 64)
    assert chest.activity.shape == (2, 3, 2, 64, 64)
    assert chest.attenuation.shape == chest.mu.shape == chest.labels.shape == chest.lesion_map.shape == (2, 64, 64)
    assert chest.tracers == ("18F-FDG", "18F-DOPA", "68Ga-PSMA")
    assert chest.prompt("fdg") == "chest with 18F-FDG"
    assert prompt_text("head", "18F-DOPA") == "brain with 18F-DOPA"
    assert len(chest) == 2


@pytest.mark.parametrize("region", ["head", "abdomen"])
def test_the_first_frame_has_its_budget_and_every_frame_its_fractions(region):
    study = simulate(patient(region))
    for tracer in study.tracers:
        for frame in FRAMES:
            scan, protocol = study.scan(tracer, frame), EXACT.protocol(region, tracer, frame)
            trues, scatter, randoms = (float(part.sum(dtype=np.float64)) for part in (scan.trues, scan.scatter,
                                                                                      scan.randoms))
            total = trues + scatter + randoms
            assert scatter / (trues + scatter) == pytest.approx(protocol.scatter_fraction, rel=1e-5)
            assert randoms / total == pytest.approx(protocol.randoms_fraction, rel=1e-5)
            assert abs(scan.prompts.sum() - total) < 5 * np.sqrt(total)
            if frame == "first":
                assert total / len(study) == pytest.approx(protocol.counts, rel=1e-5)


def test_prompts_are_poisson_counts_of_what_the_scan_says(chest):
    for tracer in chest.tracers:
        scan = chest.scan(tracer, "delayed")
        expected = scan.expected.astype(np.float64)
        many = expected > 5
        chi2 = ((scan.prompts - expected)[many] ** 2 / expected[many]).mean()
        assert abs(chi2 - 1) < 5 * np.sqrt(2.2 / many.sum())


def test_noise_of_tracers_frames_and_doses_is_independent(chest):
    scans = [chest.scan(t, f) for t in chest.tracers for f in FRAMES]
    scans.append(low_dose_scan(chest, "DOPA", 4))
    other = chest.pair("attenuation-correction", tracer="PSMA", target="poisson")
    noise = [(s.prompts - s.expected) / np.sqrt(s.expected) for s in scans]
    seen = chest.unattenuated("PSMA")
    noise.append((other.target - seen) / np.sqrt(np.maximum(seen, 1)))
    inside = seen > 50
    alike = np.corrcoef([n[inside] for n in noise])
    # A low dose is a part of its own full dose: a correlation of sqrt(1/4). All others are 0 within 5 deviations.
    assert alike[2, 6] == pytest.approx(0.5, abs=5 / np.sqrt(inside.sum()))
    alike[2, 6] = alike[6, 2] = 0
    np.fill_diagonal(alike, 0)
    assert np.abs(alike).max() < 5 / np.sqrt(inside.sum())


def test_levels_of_the_frames_differ_by_decay_alone(chest):
    seconds = [[EXACT.protocol("chest", t, f).effective_seconds for f in FRAMES] for t in chest.tracers]
    np.testing.assert_allclose(chest.level[:, 1] / chest.level[:, 0], np.divide(*np.transpose(seconds)[::-1]))
    # One hour later: 2^(-60/109.77) of fluorine-18, 2^(-60/67.63) of gallium-68.
    np.testing.assert_allclose(chest.level[:, 1] / chest.level[:, 0], [0.6846, 0.6846, 0.5407], rtol=1e-3)


def test_fdg_rises_in_a_lesion_and_falls_in_blood(chest):
    first, delayed = chest.uptake[0]
    assert delayed[ORGAN_NUMBER["blood_pool"]] < 0.95 * first[ORGAN_NUMBER["blood_pool"]]
    assert chest.lesion_uptake[0, 1, 0] > 1.02 * chest.lesion_uptake[0, 0, 0]


def test_lesions_have_masks_and_their_own_uptake(chest_patient, chest):
    masks = chest.lesion_masks()
    for k, lesion in enumerate(chest_patient.lesions):
        np.testing.assert_array_equal(masks[k], lesion.mask)
        host = chest.uptake[:, :, ORGAN_NUMBER[lesion.organ]]
        own = chest.lesion_uptake[:, :, k]
        assert (own > host).all() if lesion.kind == "hot" else (own < host).all()
        texture = chest_patient.texture[lesion.mask]
        np.testing.assert_allclose(chest.activity[:, 0, 0][lesion.mask], own[0, 0] * texture, rtol=1e-5)
    np.testing.assert_array_equal(chest.mask("lung"), chest_patient.mask("lung"))


def test_one_tracer_does_not_depend_on_the_others(chest_patient, chest):
    alone = simulate(chest_patient, tracers=["68Ga-PSMA"])
    for name in ("prompts", "line_integrals", "activity"):
        np.testing.assert_array_equal(getattr(alone, name)[:, 0], getattr(chest, name)[:, 2])
    other = simulate(chest_patient, seed=6, tracers=["68Ga-PSMA"])
    assert (other.uptake != alone.uptake).any()


@pytest.mark.parametrize("factor", EXACT.dose_factors)
def test_low_doses_are_thinned_from_the_full_dose(chest, factor):
    pair = chest.pair("low-dose", tracer="FDG", dose_factor=factor)
    full = chest.prompts[:, 0, 0]
    np.testing.assert_array_equal(pair.target, full)
    assert (pair.source <= full).all()
    n = full.sum()
    assert abs(pair.source.sum() - n / factor) < 5 * np.sqrt(n / factor * (1 - 1 / factor))
    assert pair.target_level / pair.source_level == pytest.approx(factor)
    np.testing.assert_array_equal(low_dose(chest, "FDG", factor), pair.source)
    assert (low_dose(chest, "FDG", factor, draw=1) != pair.source).any()
    scan = low_dose_scan(chest, "FDG", factor)
    np.testing.assert_allclose(scan.expected * factor, chest.scan("FDG").expected, rtol=1e-5)


def test_without_attenuation_the_same_activity_is_seen(chest):
    pair = chest.pair("attenuation-correction", tracer="FDG")
    np.testing.assert_array_equal(pair.source, chest.prompts[:, 0, 0])
    np.testing.assert_allclose(pair.target * chest.attenuation, chest.scan("FDG").trues, rtol=1e-5, atol=1e-6)
    image = fbp(pair.target / pair.target_level, GEOMETRY)
    body = chest.labels > 0
    assert image[body].mean() == pytest.approx(chest.activity[:, 0, 0][body].mean(), rel=0.02)
    drawn = chest.pair("attenuation-correction", tracer="FDG", target="poisson").target
    total = pair.target.sum(dtype=np.float64)
    assert drawn.dtype == np.int64
    assert abs(drawn.sum() - total) < 5 * np.sqrt(total)
    corrected = chest.pair("attenuation-correction", tracer="FDG", target="corrected").target
    scan = chest.scan("FDG")
    spread = np.sqrt((scan.expected.astype(np.float64) / scan.attenuation**2).sum())
    assert abs(corrected.sum(dtype=np.float64) - total) < 5 * spread
    assert corrected.min() < 0


def test_two_tracers_add_up(chest):
    pair = chest.pair("tracer-separation", tracer="FDG", other="PSMA")
    assert pair.target.shape == (2, 2, 64, 64)
    np.testing.assert_array_equal(pair.target.sum(axis=1), pair.source)
    np.testing.assert_array_equal(pair.target[:, 1], chest.prompts[:, 2, 0])
    conversion = chest.pair("tracer-conversion", tracer="FDG", other="PSMA")
    np.testing.assert_array_equal(conversion.target, pair.target[:, 1])
    delayed = chest.pair("delayed-frame", tracer="DOPA")
    np.testing.assert_array_equal(delayed.source, chest.prompts[:, 1, 0])
    np.testing.assert_array_equal(delayed.target, chest.prompts[:, 1, 1])
    assert delayed.prompt == "chest with 18F-DOPA"


def test_settings_survive_json():
    settings = StudySettings(head=ScanProtocol(counts=1e5), delayed_min=(90, 100), dose_factors=(3, 7))
    assert StudySettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_a_tracer_without_an_organ_is_refused(tmp_path):
    table = tmp_path / "uptake.csv"
    lines = (files("allpet_physics.simulation") / "uptake.csv").read_text().splitlines()
    table.write_text("\n".join(line for line in lines if not line.startswith("68Ga-PSMA,lung")))
    tables = read_tracer_tables(uptake=table)
    with pytest.raises(InputError, match=r"68Ga-PSMA.*uptake\.csv has none for lung"):
        simulate(patient(), tables=tables)
    assert simulate(patient(), tracers=["FDG"], tables=tables).tracers == ("18F-FDG",)


@pytest.mark.parametrize(("options", "words"), [
    ({"task": "super-resolution"}, "task must be one of low-dose"),
    ({"task": "low-dose", "dose_factor": 1}, "dose_factor"),
    ({"task": "low-dose", "tracer": "water"}, "tracer must be one of"),
    ({"task": "low-dose", "frame": "third"}, "frame must be one of first, delayed"),
    ({"task": "attenuation-correction", "target": "clean"}, "target must be one of"),
    ({"task": "tracer-conversion", "tracer": "FDG", "other": "FDG"}, "other must be another tracer")])
def test_bad_tasks_are_refused(chest, options, words):
    with pytest.raises(InputError, match=words):
        chest.pair(**options)


def test_bad_studies_are_refused(chest_patient):
    with pytest.raises(InputError, match="needs a study of two"):
        simulate(chest_patient, tracers=["FDG"]).pair("tracer-separation")
    with pytest.raises(InputError, match="different ones"):
        simulate(chest_patient, tracers=["FDG", "18F-FDG"])
    with pytest.raises(InputError, match="seed"):
        simulate(chest_patient, seed=-1)
    with pytest.raises(GeometryError, match="patient's grid"):
        simulate_study(chest_patient, 0, ParallelGeometry.preset("network-128"))
    for options, words in (({"delayed_min": (65, 80)}, "delayed_min must start after"),
                           ({"first_min": (9, 3)}, "first_min"), ({"counts_spread": 1}, "counts_spread"),
                           ({"dose_factors": (1, 4)}, "dose_factors"),
                           ({"model": "wire"}, "model"), ({"head": None}, "head")):
        with pytest.raises(InputError, match=words):
            StudySettings(**options)
    for name in ("scatter_fraction", "randoms_fraction"):
        with pytest.raises(InputError, match=name):
            StudySettings(body=ScanProtocol(**{name: 1.0}))


def test_every_task_has_a_pair(chest):
    for task in TASKS:
        pair = chest.pair(task)
        assert pair.task == task
        assert pair.source.dtype == np.int64
        assert pair.source.shape == (2, 64, 64)
