"""Input function, compartment model and frames against an ODE solver, quadrature and limit cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad, solve_ivp

from allpet_physics.errors import InputError
from allpet_physics.simulation.kinetics import (
    FDG_INPUT,
    REFERENCE_MIN,
    BiExponential,
    InputFunction,
    TwoTissue,
    UptakeCurve,
    decay_factor,
)
from allpet_physics.simulation.tracers import TRACERS, activity, mean_curve, read_tracer_tables

TIMES = np.array([0.0, 0.5, 0.735, 0.8, 1.0, 1.5, 3.0, 10.0, 30.0, 60.0, 120.0, 180.0])
RATE = st.one_of(st.just(0.0), st.floats(1e-4, 2.0))


def solved(model, times=TIMES, input_function=FDG_INPUT):
    """Integrate the two equations of the model numerically from the bolus on."""
    def change(t, c):
        inflow = model.K1 * float(input_function(t)) - (model.k2 + model.k3) * c[0] + model.k4 * c[1]
        return [inflow, model.k3 * c[0] - model.k4 * c[1]]

    start = input_function.delay_min
    after = times[times > start]
    solution = solve_ivp(change, (start, after[-1]), [0.0, 0.0], "DOP853", after, rtol=1e-10, atol=1e-10)
    tissue = np.concatenate([np.zeros(np.count_nonzero(times <= start)), solution.y.sum(axis=0)])
    return (1 - model.Vb) * tissue + model.Vb * input_function(times)


def assert_solves(model, input_function=FDG_INPUT):
    expected = solved(model, input_function=input_function)
    scale = max(np.abs(expected).max(), 1e-12)
    error = np.abs(model.curve(TIMES, input_function) - expected).max() / scale
    assert error < 1e-6, f"{model}: {error:.2g} of the peak {scale:.3g}"


def test_the_input_starts_at_zero_without_a_jump_and_stays_positive():
    t = np.linspace(0, 180, 20001)
    cp = FDG_INPUT(t)
    assert (cp[t <= 0.735] == 0).all()
    assert (cp[t > 0.735] > 0).all()
    assert FDG_INPUT(0.0) == 0
    assert FDG_INPUT(0.735 + 1e-9) == pytest.approx(0, abs=1e-5)
    # The slope at the bolus is A1 - λ1 (A2 + A3) + λ2 A2 + λ3 A3.
    slope = 851.1 + 4.134 * (21.88 + 20.81) - 0.1191 * 21.88 - 0.01043 * 20.81
    assert FDG_INPUT(0.735 + 1e-6) / 1e-6 == pytest.approx(slope, rel=1e-4)
    # After the bolus, the slowest term is left.
    assert FDG_INPUT(180.0) == pytest.approx(20.81 * np.exp(-0.01043 * (180 - 0.735)), rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(K1=RATE, k2=RATE, k3=RATE, k4=RATE, Vb=st.floats(0, 1))
def test_the_closed_form_solves_the_differential_equations(K1, k2, k3, k4, Vb):
    assert_solves(TwoTissue(K1, k2, k3, k4, Vb))


@pytest.mark.parametrize("rates", [
    (0.1, 0.01043, 0.0, 0.0),  # k2 is the slowest exponent of the input
    (0.1, 0.1191, 0.0, 0.0),
    (0.1, 4.134, 0.0, 0.3),  # the exponent of the ramp
    (0.1, 4.134 + 1e-9, 0.0, 0.0), (0.1, 4.134 - 1e-5, 0.0, 0.0), (0.1, 4.1, 0.034, 0.0),
    (0.1, 9.0, 0.5, 0.1),  # faster than the bolus
    (0.1, 0.2, 0.0, 0.2),  # both tissue exponents are equal
    (0.1, 0.2, 1e-14, 0.2), (0.1, 0.2, 1e-7, 0.2 + 1e-9),
    (0.1, 0.0, 0.0, 0.0), (0.1, 0.0, 0.1, 0.05), (0.1, 0.0, 0.0, 0.1),
], ids=str)
def test_equal_and_fast_exponents_are_no_special_case(rates):
    assert_solves(TwoTissue(*rates, 0.03))


def test_the_solution_moves_smoothly_through_equal_exponents():
    offsets = np.array([-1e-3, -1e-6, -1e-9, 0.0, 1e-9, 1e-6, 1e-3])
    for centre in (4.134, 0.1191, 0.01043):
        values = np.array([TwoTissue(0.1, centre + d, 0.0, 0.0, 0.0).curve(60.0) for d in offsets])
        assert np.abs(np.diff(values[1:-1])).max() < 1e-4 * values[3]
        assert (np.diff(values) <= 1e-13 * values[3]).all(), "more washout must leave less"


def test_another_input_function_is_followed():
    slow = InputFunction((300.0, 15.0, 12.0), (-2.0, -0.08, -0.006), 0.2)
    assert_solves(TwoTissue(0.3, 0.5, 0.1, 0.02, 0.1), slow)


def test_limits_of_the_model():
    cp = FDG_INPUT(TIMES)
    np.testing.assert_array_equal(TwoTissue(0.3, 0.2, 0.1, 0.0, 1.0).curve(TIMES), cp)  # all blood
    np.testing.assert_allclose(TwoTissue(0.0, 0.2, 0.1, 0.05, 0.3).curve(TIMES), 0.3 * cp, rtol=1e-12)
    one = TwoTissue(0.3, 0.2, 0.0, 0.0, 0.0)
    np.testing.assert_allclose(TwoTissue(0.3, 0.2, 0.0, 0.7, 0.0).curve(TIMES), one.curve(TIMES), rtol=1e-11)
    # Nothing leaves: what came in is K1 times the integral of the input.
    trapped = TwoTissue(0.3, 0.0, 0.4, 0.0, 0.0).curve(180.0)
    assert trapped == pytest.approx(0.3 * quad(FDG_INPUT, 0.735, 180, limit=200, points=[1, 2, 5])[0], rel=1e-8)
    # Irreversible: the late slope of tissue over plasma against ∫Cp/Cp is Ki = K1 k3/(k2 + k3) (Patlak).
    t = np.array([300.0, 420.0])
    area = np.array([quad(FDG_INPUT, 0.735, end, limit=200, points=[1, 2, 5, 30])[0] for end in t])
    patlak = TwoTissue(0.1, 0.3, 0.1, 0.0, 0.0).curve(t) / FDG_INPUT(t)
    assert np.diff(patlak)[0] / np.diff(area / FDG_INPUT(t))[0] == pytest.approx(0.1 * 0.1 / 0.4, rel=1e-4)


@settings(max_examples=30, deadline=None)
@given(K1=RATE, k2=RATE, k3=RATE, k4=RATE, factor=st.floats(0.1, 10))
def test_tissue_is_linear_in_K1_and_never_negative(K1, k2, k3, k4, factor):
    t = np.linspace(0, 180, 721)
    curve = TwoTissue(K1, k2, k3, k4, 0.0).curve(t)
    assert curve.min() >= -1e-12 * max(curve.max(), 1e-300)
    np.testing.assert_allclose(TwoTissue(factor * K1, k2, k3, k4, 0.0).curve(t), factor * curve, rtol=1e-9)


@settings(max_examples=25, deadline=None)
@given(uptake=st.floats(1e-3, 3.0), washout=RATE)
def test_the_bi_exponential_is_one_compartment_with_an_exponential_supply(uptake, washout):
    t = np.array([0.5, 5.0, 60.0, 180.0])
    expected = solve_ivp(lambda s, c: np.exp(-uptake * s) - washout * c, (0, 180), [0.0], "DOP853", t,
                         rtol=1e-10, atol=1e-13).y[0]
    np.testing.assert_allclose(BiExponential(uptake, washout).curve(t), expected, rtol=1e-6, atol=1e-10)
    assert BiExponential(uptake, uptake).curve(60.0) == pytest.approx(60 * np.exp(-60 * uptake), rel=1e-12)


@settings(max_examples=15, deadline=None)
@given(start=st.floats(0, 150), length=st.floats(0.05, 60), half_life=st.sampled_from([None, 6586.2, 4057.74]),
       model=st.sampled_from([TwoTissue(0.15, 0.5, 0.1, 0.0, 0.07), TwoTissue(0.8, 0.9, 0.005, 0.007, 0.1),
                              TwoTissue(0, 0, 0, 0, 1), BiExponential(3.0, 0.008)]))
def test_frames_are_means_with_and_without_decay(start, length, half_life, model):
    curve = UptakeCurve(2.0, model)
    rate = 0.0 if half_life is None else np.log(2) * 60 / half_life
    end = start + length
    points = [p for p in (0.735, 1.0, 1.5, 3.0, 8.0, 20.0) if start < p < end]
    expected = quad(lambda t: float(curve.at(t)) * np.exp(-rate * t), start, end, limit=500, points=points or None,
                    epsabs=1e-11, epsrel=1e-11)[0] / length
    assert curve.frame_mean((start, end), half_life) == pytest.approx(expected, rel=1e-8, abs=1e-9)


def test_frames_add_up_and_a_short_frame_is_the_instant():
    curve = mean_curve("FDG", "lesion_hot")
    parts = curve.frame_mean([(0, 1), (1, 5), (5, 60), (60, 90)])
    assert parts.shape == (4,)
    whole = curve.frame_mean((0, 90))
    assert np.shape(whole) == ()
    assert whole == pytest.approx((parts * [1, 4, 55, 30]).sum() / 90, rel=1e-12)
    assert curve.frame_mean((60, 60 + 1e-6)) == pytest.approx(float(curve.at(60.0)), rel=1e-6)


def test_the_level_is_the_tables_and_the_shape_the_models():
    model = TwoTissue(0.15, 0.5, 0.1, 0.0, 0.07)
    curve = UptakeCurve(4.2, model)
    assert curve.at(REFERENCE_MIN) == pytest.approx(4.2, rel=1e-14)
    assert curve.at(120.0) / curve.at(90.0) == pytest.approx(float(model.curve(120.0) / model.curve(90.0)))
    np.testing.assert_array_equal(UptakeCurve(0.0, None).at([0, 60, 120]), 0)


def test_delayed_over_first_rises_where_fdg_is_trapped_and_falls_where_it_is_not():
    def ratio(organ, tracer="FDG"):
        first, delayed = activity(tracer, organ, [(60, 70), (120, 130)])
        return delayed / first

    for organ in ("lesion_hot", "brain_grey", "heart_muscle"):
        assert ratio(organ) > 1.05, organ
    for organ in ("blood_pool", "aorta", "liver", "lung"):
        assert ratio(organ) < 0.95, organ
    assert ratio("lesion_hot") > ratio("brain_grey")
    assert ratio("putamen", "DOPA") > 1 > ratio("brain_grey", "DOPA")
    assert ratio("lesion_hot", "PSMA") > 1 > ratio("blood_pool", "PSMA")


@pytest.mark.parametrize("tracer", TRACERS)
def test_decay_is_apart_from_kinetics(tracer):
    half_life = TRACERS[tracer].half_life_s
    corrected = activity(tracer, "liver", [(60, 61)])
    decayed = activity(tracer, "liver", [(60, 61)], decayed=True)
    assert decayed / corrected == pytest.approx(decay_factor(60.5, half_life), rel=1e-4)
    assert decay_factor(half_life / 60, half_life) == pytest.approx(0.5)
    assert activity(tracer, "bowel_gas", [(60, 70)], decayed=True) == 0


def test_every_packaged_curve_is_positive_and_has_a_source():
    t = np.linspace(1, 240, 480)
    for tracer, rows in read_tracer_tables().kinetics.items():
        for row in rows.values():
            assert (row.model.curve(t) > 0).all(), (tracer, row)
            assert row.source
    dephosphorylation = read_tracer_tables().kinetics["18F-FDG"]["liver"].model.k4
    assert dephosphorylation > 0


@pytest.mark.parametrize(("call", "match"), [
    (lambda: TwoTissue(-0.1, 0, 0, 0, 0), "K1 must be a finite number of at least zero"),
    (lambda: TwoTissue(0.1, float("nan"), 0, 0, 0), "k2 must be"),
    (lambda: TwoTissue(0.1, 0, 0, 0, 1.5), r"Vb must be a fraction from 0 to 1, but was 1\.5"),
    (lambda: BiExponential(0, 0), "uptake must be a finite number greater than zero"),
    (lambda: InputFunction(rates=(1.0, -1.0, -1.0)), "rates must be negative"),
    (lambda: InputFunction(amplitudes=(1.0, 2.0)), "amplitudes must be three numbers"),
    (lambda: FDG_INPUT([-1.0]), "time_min must not be negative"),
    (lambda: UptakeCurve(1.0, TwoTissue(0, 0, 0, 0, 0)), "kinetics must reach a positive level at 60 min"),
    (lambda: UptakeCurve(1.0, None), "kinetics must be given for an SUV above zero"),
    (lambda: UptakeCurve(-1.0, None), "suv must be"),
    (lambda: UptakeCurve(0.0, None).frame_mean((70, 60)), r"end after start, but one was \(70, 60\)"),
    (lambda: UptakeCurve(0.0, None).frame_mean([60, 70, 80]), r"frames must have shape \(\.\.\., 2\)"),
    (lambda: UptakeCurve(0.0, None).frame_mean((60, 70), 0), "half_life_s must be"),
    (lambda: decay_factor(60, -1), "half_life_s must be"),
    (lambda: mean_curve("FDG", "lesion_cold"), "follows its host"),
])
def test_bad_input_is_named(call, match):
    with pytest.raises(InputError, match=match):
        call()
