"""Cohorts: pure functions of the card, split by patient, diverse, and read back as they were simulated."""

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allpet_physics.errors import InputError
from allpet_physics.io import store
from allpet_physics.scan_protocol import ScanProtocol
from allpet_physics.simulation.cohort import (
    KIND,
    MOST_LESIONS,
    cohort_arrays,
    cohort_parameters,
    expected_bytes,
    make_cohort,
    make_study,
    n_samples,
    samples_per_shard,
)
from allpet_physics.simulation.cohort_reader import read_cohort
from allpet_physics.simulation.split import SPLITS, check_split, split_patients
from allpet_physics.simulation.study_settings import StudySettings
from allpet_physics.simulation.task_pairs import TASKS

from .shard_tasks import contents

PARAMETERS = cohort_parameters(10, seed=4, size=32, n_slices=2, tracers=["FDG", "PSMA"])


def write(path, parameters, per_shard=None, **options):
    store.create(path, cohort_arrays(parameters), n_samples(parameters), parameters, kind=KIND,
                 samples_per_shard=per_shard or samples_per_shard(parameters))
    store.fill(path, make_cohort, **options)
    return path


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return read_cohort(write(tmp_path_factory.mktemp("cohort") / "s", PARAMETERS, per_shard=4))


def test_samples_depend_on_the_card_and_their_number_alone():
    parameters = json.loads(json.dumps(PARAMETERS))
    whole = make_cohort(parameters, np.arange(20))
    assert {name: (a.shape[1:], a.dtype.name) for name, a in whole.items()} == cohort_arrays(parameters)
    some = np.array([13, 2, 3, 8])
    for name, values in make_cohort(parameters, some).items():
        np.testing.assert_array_equal(values, whole[name][some], err_msg=name)
    np.testing.assert_array_equal(whole["patient"], np.arange(20) // 2)
    np.testing.assert_array_equal(whole["region"], np.arange(20) // 2 % 3)
    np.testing.assert_array_equal(whole["slice"], np.arange(20) % 2)
    longer = make_cohort(cohort_parameters(40, seed=4, size=32, n_slices=2, tracers=["FDG", "PSMA"]), some)
    other = make_cohort(cohort_parameters(10, seed=5, size=32, n_slices=2, tracers=["FDG", "PSMA"]), some)
    for name in ("prompts", "activity", "labels", "split"):
        np.testing.assert_array_equal(longer[name], whole[name][some], err_msg=name)
    assert (other["prompts"] != whole["prompts"][some]).any()


def test_workers_do_not_show_in_the_bytes(tmp_path):
    one = contents(write(tmp_path / "one", PARAMETERS, per_shard=4))
    two = contents(write(tmp_path / "two", PARAMETERS, per_shard=4, workers=2))
    assert one == two
    assert store.verify(tmp_path / "two") == []


def test_what_is_read_is_what_was_simulated(cohort):
    for index, patient in ((0, 0), (7, 3)):
        read, made = cohort.study(index), make_study(PARAMETERS, patient)
        which = read.slices[0]
        for name in ("prompts", "line_integrals", "attenuation", "labels", "lesion_map"):
            np.testing.assert_array_equal(getattr(read, name)[0], getattr(made, name)[which], err_msg=name)
        np.testing.assert_allclose(read.activity[0], made.activity[which], rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(read.mu[0], made.mu[which], rtol=1e-3, atol=1e-6)
        np.testing.assert_array_equal(read.scan("FDG").expected[0], made.scan("FDG").expected[which])
        assert read.lesion_uptake.shape == made.lesion_uptake.shape
        for task in TASKS:
            np.testing.assert_array_equal(read.pair(task).source[0], made.pair(task).source[which], err_msg=task)
            np.testing.assert_array_equal(read.pair(task).target[0], made.pair(task).target[which], err_msg=task)
    both = cohort.patient_study(3)
    assert both.slices == (0, 1)
    np.testing.assert_array_equal(both.prompts, make_study(PARAMETERS, 3).prompts)


def test_classes_can_be_chosen(cohort):
    assert cohort.classes == {"brain with 18F-FDG": 8, "brain with 68Ga-PSMA": 8, "chest with 18F-FDG": 6,
                              "chest with 68Ga-PSMA": 6, "abdomen with 18F-FDG": 6, "abdomen with 68Ga-PSMA": 6}
    brains = cohort.select(region="brain", tracer="psma", split="train")
    assert set(brains.classes) == {"brain with 68Ga-PSMA"}
    assert set(brains.regions) == {"head"}
    assert set(brains.splits) == {"train"}
    assert brains.prompt(0, "PSMA") == "brain with 68Ga-PSMA"
    row = int(brains.samples[-1])
    np.testing.assert_array_equal(brains.prompts(-1, "PSMA", "delayed"), cohort.group["prompts"][row][1, 1])
    assert brains.prompts([0, 1], "PSMA").shape == (2, 32, 32)
    assert brains.study(0).tracers == ("68Ga-PSMA",)
    sets = [set(cohort.select(split=s).patients.tolist()) for s in SPLITS if (cohort.splits == s).any()]
    assert sum(map(len, sets)) == len(set.union(*sets)) == 10
    for options, words in (({"region": "leg"}, "region must be one of the cohort's, head"),
                           ({"tracer": "DOPA"}, "tracer must be one of the cohort's, 18F-FDG"),
                           ({"split": "all"}, "split must be one of")):
        with pytest.raises(InputError, match=words):
            cohort.select(**options)
    with pytest.raises(InputError, match="tracer"):
        brains.prompts(0, "FDG")
    with pytest.raises(InputError, match="patient must be one of"):
        cohort.patient_study(99)


def test_an_incomplete_cohort_shows_what_it_has(tmp_path):
    path = write(tmp_path / "s", PARAMETERS, per_shard=4)
    (path / "manifest.sha256").unlink()
    (path / "records").mkdir()
    for shard in (0, 3):
        from allpet_physics.io import _shards

        files = [f"{name}/c/{shard}" + "/0" * len(shape) for name, (shape, _) in cohort_arrays(PARAMETERS).items()]
        (path / _shards.record_name(shard)).write_bytes(
            _shards.digest_lines({f: _shards.file_digest(path / f) for f in files}))
    with pytest.raises(InputError, match="2 of its 5 shards"):
        read_cohort(path)
    part = read_cohort(path, incomplete=True)
    np.testing.assert_array_equal(part.samples, [0, 1, 2, 3, 12, 13, 14, 15])


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 120), n_regions=st.integers(1, 4), parts=st.tuples(*[st.integers(0, 10)] * 3).filter(any))
def test_fractions_are_met_in_every_region(n, n_regions, parts):
    fractions = np.array(parts) / sum(parts)
    regions = [i % n_regions for i in range(n)]
    found = split_patients(regions, dict(zip(SPLITS, fractions, strict=True)))
    for region in set(regions):
        own = found[np.array(regions) == region]
        assert (np.abs(np.bincount(own, minlength=3) - fractions * len(own)) < 1.5).all()
    shorter = split_patients(regions[:n // 2], dict(zip(SPLITS, fractions, strict=True)))
    np.testing.assert_array_equal(shorter, found[:n // 2])


@pytest.mark.parametrize(("split", "words"), [
    ({"train": [0, 1, 2], "test": [2, 3]}, "patient 2 stood on more than one"),
    ({"train": [0, 1], "test": [3]}, "every patient from 0 to 3, but 2 was left out"),
    ({"train": [0, 1, 2, 3], "test": [4]}, "4"),
    ({"train": ["a"], "test": [1]}, "whole numbers from 0 to 3, but train held 'a'"),
    ({"train": [0.9, 1, 2, 3], "test": []}, "train held 0.9"), ({"train": [True, 0, 2, 3]}, "train held True"),
    ({"train": [0, 1, 2, 3, 3]}, "each patient once, but 3 stood there twice"), ({"train": [None]}, "held None"),
    ({"train": 0.5, "test": 0.4}, "add up to 1"), ({"train": 1.2, "test": -0.2}, "add up to 1"),
    ({"train": [0], "test": 0.5}, "fractions"), ({"learn": 1.0}, "train, validation, test"), ({}, "train")])
def test_bad_splits_are_refused(split, words):
    with pytest.raises(InputError, match=words):
        cohort_parameters(4, size=32, split=split)


def test_a_patient_on_both_sides_is_refused():
    check_split([0, 0, 1], [0, 0, 2])
    with pytest.raises(InputError, match="patients 1, 5 stood on more than one"):
        check_split([0, 1, 5, 1, 5], [0, 0, 0, 2, 1])


def test_patients_can_be_listed():
    parameters = cohort_parameters(4, size=16, n_slices=2, regions=["head"], tracers=["FDG"],
                                   split={"train": [3, 0], "test": [1, 2]})
    assert parameters["patients_by_split"] == [2, 0, 2]
    made = make_cohort(json.loads(json.dumps(parameters)), np.arange(8))
    np.testing.assert_array_equal(made["split"], [0, 0, 2, 2, 2, 2, 0, 0])


@pytest.mark.parametrize(("options", "words"), [
    ({"regions": ["leg"]}, "regions must be different ones of head"), ({"regions": ["head", "brain"]}, "different"),
    ({"regions": []}, "at least one"), ({"tracers": ["water"]}, "tracer must be one of"), ({"seed": -1}, "seed"),
    ({"lesions": MOST_LESIONS + 1}, "lesions"), ({"size": 8}, "size"), ({"slice_mm": 0}, "slice_mm"),
    ({"uptake": "nothing.csv"}, r"uptake must be a readable CSV file, but nothing\.csv")])
def test_bad_settings_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        cohort_parameters(4, **{"size": 32, **options})


def test_tables_of_ones_own_travel_in_the_card(tmp_path):
    from importlib.resources import files

    text = (files("allpet_physics.simulation") / "uptake.csv").read_text(encoding="utf-8")
    table = tmp_path / "mine.csv"
    table.write_text("\n".join(line for line in text.splitlines() if not line.startswith("18F-DOPA,liver")))
    with pytest.raises(InputError, match=r"mine\.csv has none for liver"):
        cohort_parameters(2, size=16, tracers=["DOPA"], uptake=table)
    hot = text.replace("18F-FDG,muscle,SUVmean,0.65,0.15", "18F-FDG,muscle,SUVmean,9.5,0.01")
    assert hot != text
    table.write_text(hot)
    parameters = cohort_parameters(1, size=32, regions=["chest"], tracers=["FDG"], uptake=table)
    table.unlink()
    from allpet_physics.simulation.organs import ORGAN_NUMBER

    found = make_cohort(json.loads(json.dumps(parameters)), np.arange(1))
    assert found["uptake"][0, 0, 0, ORGAN_NUMBER["muscle"]] == pytest.approx(9.5, rel=0.05)
    parameters["tables_sha256"]["kinetics"] = "0" * 64
    with pytest.raises(InputError, match=r"kinetics\.csv of this version"):
        make_cohort(parameters, np.arange(1))


def test_counts_that_overflow_are_refused_and_wide_ones_are_wider():
    assert cohort_arrays(cohort_parameters(1, size=16))["prompts"][1] == "uint32"
    assert cohort_arrays(cohort_parameters(1, size=64))["prompts"][1] == "uint16"
    parameters = cohort_parameters(1, size=64, tracers=["FDG"], n_slices=1)
    parameters["settings"]["head"] = ScanProtocol(counts=1e9).to_dict()
    assert cohort_arrays(parameters)["prompts"][1] == "uint32"
    assert make_cohort(parameters, np.arange(1))["prompts"].max() > 65535


def test_the_size_is_foretold(cohort, tmp_path):
    path = write(tmp_path / "s", PARAMETERS)
    assert expected_bytes(PARAMETERS) == pytest.approx(store.describe(path)["bytes"], rel=0.25)


def test_memory_does_not_grow_with_the_cohort():
    def peak(n):
        parameters = cohort_parameters(n, size=32, n_slices=2)
        samples = np.arange(samples_per_shard(parameters))
        make_cohort(parameters, samples)
        tracemalloc.start()
        make_cohort(parameters, samples)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return len(samples), most

    few, many = peak(8), peak(2000)
    assert few[0] == many[0] == 16
    assert many[1] < 1.1 * few[1]


@pytest.mark.slow
def test_no_two_slices_of_a_hundred_patients_are_alike():
    parameters = cohort_parameters(100, seed=1, size=96, tracers=["FDG"])
    images = np.concatenate([make_study(parameters, i).activity[:, 0, 0] for i in range(100)]).reshape(300, -1)
    images = images - images.mean(axis=1, keepdims=True)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    alike = images @ images.T
    np.fill_diagonal(alike, 0)
    assert alike.max() < 0.98


def test_the_settings_reach_the_scan():
    chosen = StudySettings(head=ScanProtocol(counts=3e5, psf_fwhm_mm=0.0), counts_spread=0.0, delayed_min=(90, 95))
    parameters = cohort_parameters(1, size=32, regions=["head"], settings=chosen, lesions=2)
    study = make_study(parameters, 0)
    assert study.settings == chosen
    assert study.scan("FDG").expected.sum(dtype=np.float64) / 3 == pytest.approx(3e5, rel=1e-4)
    assert study.lesion_uptake.shape[-1] <= 2


def test_a_store_with_a_part_that_was_cut_off_is_refused_in_one_sentence(tmp_path):
    path = write(tmp_path / "cohort", PARAMETERS)
    parts = [part for part in (path / "prompts").rglob("*") if part.is_file() and part.name != "zarr.json"]
    assert parts
    for part in parts:
        part.write_bytes(part.read_bytes()[:-7] + b"garbage")
    found = read_cohort(path)
    for ask in (lambda: found.prompts([0], "FDG"), lambda: found.study(0), lambda: found.patient_study(0)):
        with pytest.raises(InputError, match="see which with allpet info --verify"):
            ask()
    with pytest.raises(InputError, match="patient must be one of"):
        found.patient_study(99)
