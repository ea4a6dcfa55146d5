"""What is said of a task, and that the source follows from the target where physics says so."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allpet_gen.prompts import NULL, VOCABULARY, Prompt
from allpet_gen.tasks import DOSE_FACTORS, TASKS, dose_gain, dose_number, find_task, task_tokens
from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.simulation import task_pairs
from allpet_physics.simulation.anatomy import draw_patient
from allpet_physics.simulation.study import simulate_study


@pytest.fixture(scope="module")
def study():
    patient = draw_patient(3, "chest", size=16, n_slices=2)
    geometry = ParallelGeometry(16, 16, patient.pixel_mm, (16, 16), patient.pixel_mm)
    return simulate_study(patient, 3, geometry, ("FDG", "PSMA"))


def test_the_tasks_are_those_that_are_simulated_and_those_of_prompts():
    assert tuple(TASKS) == task_pairs.TASKS
    assert ("generation", *TASKS) == VOCABULARY["task"]
    assert all(find_task(name).name == name for name in TASKS)


@pytest.mark.parametrize("name", ["denoising", "generation", "", None, 3, ["low-dose"]])
def test_unknown_tasks_are_refused_with_the_known_ones(name):
    with pytest.raises(InputError, match=r"task must be one of low-dose, .*tracer-conversion, but was .*\.$"):
        find_task(name)


# What the target says of the source

def test_a_mixture_is_the_sum_of_its_targets(study):
    pair = study.pair("tracer-separation")
    np.testing.assert_array_equal(TASKS["tracer-separation"].means_of_source(pair.target), pair.source)


def test_the_mean_of_low_doses_is_the_full_dose_over_the_factor(study):
    draws, factor = 200, 10
    pairs = [study.pair("low-dose", dose_factor=factor, draw=k) for k in range(draws)]
    mean = TASKS["low-dose"].means_of_source(pairs[0].target[:, None], factor)
    sources = np.stack([pair.source for pair in pairs])
    deviation = np.sqrt(mean * (1 - 1 / factor) / draws)
    counted = mean > 1
    score = (sources.mean(0) - mean)[counted] / deviation[counted]
    assert counted.sum() > 100
    assert abs(score.mean()) < 4 / np.sqrt(score.size)
    assert score.std() == pytest.approx(1, abs=0.2)


def test_the_expected_target_implies_the_expected_source(study):
    first, second = (study.scan(tracer).expected for tracer in study.tracers)
    both = TASKS["tracer-separation"].means_of_source(np.stack([first, second], axis=1))
    score = (study.pair("tracer-separation").source - both) / np.sqrt(both)
    assert score.std() == pytest.approx(1, abs=0.1)
    assert abs(score.mean()) < 4 / np.sqrt(score.size)


@pytest.mark.parametrize("name", ["attenuation-correction", "delayed-frame", "tracer-conversion"])
def test_other_tasks_have_no_such_law(name):
    with pytest.raises(InputError, match=f"task must be low-dose or tracer-separation .* but was {name}"):
        TASKS[name].means_of_source(np.ones((1, 2, 2)))


# Tokens and numbers

def test_tokens_are_those_of_the_prompt_and_the_other_tracer():
    for name, task in TASKS.items():
        tokens = task_tokens(name, "FDG", "brain", "PSMA" if task.other else None)
        assert tokens[:3] == Prompt("FDG", "brain", name).tokens()
        assert tokens[3] == (VOCABULARY["tracer"].index("68Ga-PSMA") + 1 if task.other else NULL)
    assert task_tokens("low-dose", None, None) == (NULL, NULL, VOCABULARY["task"].index("low-dose") + 1, NULL)
    assert task_tokens("tracer-conversion", None, "chest", "DOPA")[0] == NULL


@pytest.mark.parametrize(("arguments", "message"), [
    (("denoise", "FDG", "head"), "task must be one of"),
    (("low-dose", "FDG", "head", "PSMA"), "other must not be given for low-dose.*was 'PSMA'"),
    (("tracer-separation", "FDG", "head"), "other must name the second tracer for tracer-separation"),
    (("tracer-conversion", "FDG", "head", "18F-FDG"), "other must be another tracer than 18F-FDG"),
    (("tracer-conversion", "FDG", "head", "water"), "tracer"),
    (("low-dose", "FDG", "knee"), "region"),
])
def test_words_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        task_tokens(*arguments)


@given(st.floats(1, 30), st.floats(1, 30))
def test_doses_are_told_on_a_logarithmic_scale(first, second):
    def of(factor):
        return dose_number("low-dose", factor)

    assert of(first * second) == pytest.approx(of(first) + of(second), abs=1e-12)
    assert (of(1), of(10), of(100)) == pytest.approx((0, 0.5, 1))


def test_other_tasks_have_the_dose_number_of_a_full_dose():
    assert [dose_number(name) for name, task in TASKS.items() if not task.dose] == [0.0] * 4
    assert all(dose_number("low-dose", factor) > 0 for factor in DOSE_FACTORS)


@pytest.mark.parametrize("factor", [0.5, 0, -4, 1001, float("nan"), float("inf"), "ten"])
def test_factors_out_of_range_are_refused(factor):
    with pytest.raises(InputError, match="dose_factor must be"):
        dose_number("low-dose", factor)


def test_a_factor_belongs_to_low_doses_alone():
    with pytest.raises(InputError, match="dose_factor must be given for low-dose"):
        dose_number("low-dose")
    with pytest.raises(InputError, match="dose_factor must not be given for delayed-frame, but was 10"):
        dose_number("delayed-frame", 10)


def test_the_gain_brings_a_low_dose_to_full_dose():
    assert dose_gain(None) == 1
    assert dose_gain(20) * 3 == 60
