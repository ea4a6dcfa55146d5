"""Paired evaluation: what an item's figures say on simulated scans, and what a summary makes of several methods."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from allpet_gen.evaluation.bootstrap import bootstrap_by_patient, paired_difference
from allpet_gen.evaluation.paired import consistency_residuals, paired_metrics, region_bias, summary
from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.metrics import psnr, rmse, ssim
from allpet_physics.radon import RadonOperator
from allpet_physics.simulation.anatomy import draw_patient
from allpet_physics.simulation.study import simulate_study

GEOMETRY = ParallelGeometry.preset("network-64")


@pytest.fixture(scope="module")
def study():
    patient = draw_patient((3, 0), "chest", 64, 2, slice_mm=12.0, level_mm=0.0)
    return simulate_study(patient, 5, GEOMETRY, ("FDG",), operator=RadonOperator(GEOMETRY))


@pytest.fixture(scope="module")
def images():
    """Eight images of four patients, one liver each (none in the last), a lesion in the first six, and two methods."""
    rng = np.random.default_rng(0)
    truth = 1 + 0.1 * rng.random((8, 16, 16))
    liver, lesions = np.zeros((8, 16, 16), dtype=bool), np.zeros((2, 8, 16, 16), dtype=bool)
    liver[:7, 3:13, 3:13] = True
    lesions[0, :6, 5:8, 5:8], lesions[1, 0, 10, 10] = True, True
    truth[lesions.any(axis=0)] *= 4
    hard = np.repeat(rng.uniform(0.05, 0.3, 4), 2)[:, None, None] * rng.standard_normal(truth.shape)
    return {"truth": truth, "patients": np.repeat(["p0", "p1", "p2", "p3"], 2), "masks": {"liver": liver},
            "lesions": lesions, "lesion_background": liver & ~lesions.any(axis=0),
            "estimates": {"good": truth + 0.5 * hard, "poor": 0.8 * truth + hard}}


def summarised(images, **more):
    given = {"data_range": 5.0, "reference": "poor", "n": 300} | images | more
    return summary(given.pop("estimates"), given.pop("truth"), given.pop("patients"), **given)


# --- One item at a time -------------------------------------------------------------------------------------------

def test_the_figures_are_those_of_the_metrics(images):
    estimate, truth = images["estimates"]["poor"], images["truth"]
    found = paired_metrics(estimate, truth, data_range=5)
    assert set(found) == {"psnr", "ssim", "rmse", "nrmse", "total_error", "absolute_total_error"}
    np.testing.assert_array_equal(found["psnr"], psnr(estimate, truth, data_range=5))
    np.testing.assert_array_equal(found["ssim"], ssim(estimate, truth, data_range=5))
    np.testing.assert_array_equal(found["rmse"], rmse(estimate, truth))
    np.testing.assert_allclose(found["total_error"], -0.2, atol=0.03)
    np.testing.assert_array_equal(found["absolute_total_error"], -found["total_error"])


@settings(deadline=None, max_examples=20)
@given(st.floats(1e-2, 1e4))
def test_units_change_nothing_but_the_rmse(k):
    rng = np.random.default_rng(1)
    estimate, truth = rng.gamma(2.0, 3.0, (2, 2, 16, 16))
    first = paired_metrics(estimate, truth, data_range=30)
    second = paired_metrics(k * estimate, k * truth, data_range=k * 30)
    for name, value in first.items():
        np.testing.assert_allclose(second[name], value * (k if name == "rmse" else 1), rtol=1e-8)


def test_one_range_makes_decibels_comparable(images):
    """The same error has the same PSNR in a faint image and in a bright one."""
    truth = images["truth"][:1] * np.array([1.0, 10.0])[:, None, None]
    found = paired_metrics(truth + 0.3, truth, data_range=50)
    assert found["psnr"][0] == pytest.approx(found["psnr"][1])
    assert found["nrmse"][0] == pytest.approx(10 * found["nrmse"][1])


def test_the_true_mean_of_counts_has_the_deviance_that_is_expected(study):
    scan = study.scan("FDG")
    found = paired_metrics(scan.expected, scan.expected * 1.01, data_range=scan.expected.max(), counts=scan.prompts)
    np.testing.assert_allclose(found["deviance"], found["deviance_expected"], rtol=0.06)
    np.testing.assert_allclose(found["deviance_expected"], 1, atol=0.2)
    assert (found["deviance_floored"] == 0).all()
    wrong = paired_metrics(1.2 * scan.expected, scan.expected, data_range=1, counts=scan.prompts)
    assert (wrong["deviance"] > wrong["deviance_expected"] + 0.2).all()


def test_negative_estimates_are_raised_and_told(study):
    counts, estimate = study.prompts[:, 0, 0], study.scan("FDG").expected.copy()
    estimate[:, :16] = -1
    found = paired_metrics(estimate, counts, data_range=counts.max(), counts=counts)
    np.testing.assert_allclose(found["deviance_floored"], 0.25)
    assert np.isfinite(found["deviance"]).all()


def test_expected_counts_are_consistent_once_corrected(study):
    """And are not before: attenuation and background are no line integrals."""
    scan = study.scan("FDG")
    raw = consistency_residuals(scan.expected, GEOMETRY)
    corrected = consistency_residuals(scan.expected, GEOMETRY, multiplicative=scan.multiplicative(),
                                      additive=scan.additive)
    for n in range(4):
        assert (corrected[f"consistency_{n}"] < 2e-3).all()
        assert (raw[f"consistency_{n}"] > 5 * corrected[f"consistency_{n}"]).all()
    assert (raw["consistency_0"] > 0.05).all()
    within = paired_metrics(scan.expected, study.prompts[:, 0, 0], data_range=9, geometry=GEOMETRY,
                            multiplicative=scan.multiplicative(), additive=scan.additive)
    np.testing.assert_array_equal(within["consistency_2"], corrected["consistency_2"])


def test_low_dose_of_a_patient(study):
    """Smoothing takes noise away, and neither it nor thinning changes the counts."""
    pair = study.pair("low-dose", dose_factor=20)
    truth = study.scan("FDG").expected
    scaled = 20 * pair.source
    smooth = gaussian_filter(scaled.astype(float), (0, 1.5, 1.5))
    found = [paired_metrics(x, truth, data_range=truth.max()) for x in (scaled, smooth)]
    assert (found[1]["psnr"] > found[0]["psnr"] + 5).all()
    assert (found[1]["ssim"] > found[0]["ssim"]).all()
    np.testing.assert_allclose([f["total_error"] for f in found], 0, atol=0.02)


@pytest.mark.parametrize(("change", "message"), [
    ({"truth": np.ones((2, 16, 16))}, "truth must vary within each item, but 2 of 2 were constant, the first at index"),
    ({"estimate": np.full((2, 16, 16), np.nan)}, "estimate must be finite"),
    ({"estimate": np.ones((3, 16, 16))}, "estimate must have the shape of truth"),
    ({"data_range": -1}, "data_range must be a finite number greater than zero"),
    ({"data_range": [1, 2]}, "data_range must be one number for all items"),
    ({"counts": np.ones((2, 16, 15))}, "counts must have the shape of estimate"),
    ({"counts": -np.ones((2, 16, 16))}, "counts must not be negative"),
    ({"geometry": GEOMETRY}, r"sinogram must have shape \(..., 64, 64\)"),
    ({"geometry": "mMR"}, "geometry must be a ParallelGeometry"),
])
def test_what_cannot_be_measured_is_said(change, message):
    truth = np.random.default_rng(2).random((2, 16, 16))
    given = {"estimate": truth + 0.1, "truth": truth, "data_range": 1.0} | change
    with pytest.raises(InputError, match=message):
        paired_metrics(given.pop("estimate"), given.pop("truth"), **given)


def test_factors_that_do_not_fit_are_refused(study):
    sinogram = study.prompts[:, 0, 0]
    with pytest.raises(InputError, match="multiplicative must be positive, but its minimum was 0"):
        consistency_residuals(sinogram, GEOMETRY, multiplicative=np.zeros(64))
    with pytest.raises(InputError, match=r"additive must be broadcastable to the sinogram's shape \(2, 64, 64\)"):
        consistency_residuals(sinogram, GEOMETRY, additive=np.zeros((3, 64, 64)))


# --- Summaries ----------------------------------------------------------------------------------------------------

def test_a_summary_is_made_of_its_parts(images):
    found = summarised(images)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    values = {name: paired_metrics(x, images["truth"], data_range=5)["psnr"]
              for name, x in images["estimates"].items()}
    for name, own in values.items():
        assert found["methods"][name]["metrics"]["psnr"] == bootstrap_by_patient(own, images["patients"], n=300)
    assert found["methods"]["good"]["difference"]["metrics"]["psnr"] == paired_difference(
        values["good"], values["poor"], images["patients"], n=300)
    assert found["methods"]["good"]["difference"]["metrics"]["psnr"]["low"] > 0
    assert "difference" not in found["methods"]["poor"]
    about = {"n_items": 8, "n_patients": 4, "reference": "poor", "data_range": 5.0, "n_bootstrap": 300, "seed": 0,
             "level": 0.95, "coverage_level": 0.9}
    assert {key: found[key] for key in about} == about


def test_regions_of_a_summary(images):
    liver = summarised(images)["methods"]["poor"]["regions"]["liver"]
    bias = region_bias(images["estimates"]["poor"], images["truth"], images["masks"])["liver"].values[0]
    assert liver["bias"]["mean"] == pytest.approx(np.nanmean(bias))
    assert liver["bias_error"]["mean"] == pytest.approx(np.nanmean(np.abs(bias)))
    assert liver["bias"]["mean"] == pytest.approx(-0.2, abs=0.03)
    assert liver["bias"]["n_undefined"] == 1
    assert liver["numbers"] == {"measured": 7, "small": 0, "empty": 1, "undefined": 0}
    assert liver["small_bias"] == {"mean": None, "low": None, "high": None, "n_items": 0, "n_patients": 0,
                                   "n_undefined": 8}
    difference = summarised(images)["methods"]["good"]["difference"]["regions"]["liver"]
    assert difference["bias_error"]["high"] < 0 < difference["bias"]["low"]


def test_lesions_of_a_summary(images):
    """A factor keeps contrast; what is left of it after half of the excess is taken away is half."""
    truth, mask = images["truth"], images["lesions"].any(axis=0)
    around = truth[images["lesion_background"]].mean()
    faded = np.where(mask, around + (truth - around) / 2, truth) * (1 + 1e-9)
    found = summarised(images | {"estimates": {"scaled": 0.8 * truth, "faded": faded}}, reference="scaled")["methods"]
    assert found["scaled"]["lesions"]["recovery"]["mean"] == pytest.approx(1)
    assert found["scaled"]["lesions"]["recovery_error"]["mean"] == pytest.approx(0, abs=1e-12)
    assert found["faded"]["lesions"]["recovery"]["mean"] == pytest.approx(0.5, abs=0.01)
    assert found["faded"]["difference"]["lesions"]["recovery_error"]["low"] > 0.4
    assert found["faded"]["lesions"]["numbers"] == {"measured": 6, "small": 1, "empty": 9, "undefined": 0}
    small = found["faded"]["lesions"]["small_recovery"]
    assert small["mean"] == pytest.approx(0.5, abs=0.02)
    assert (small["low"], small["high"], small["n_patients"]) == (None, None, 1)


def test_samples_of_a_summary(images):
    rng = np.random.default_rng(3)
    truth, centre = images["truth"], images["truth"] + 0.2 * rng.standard_normal((8, 16, 16))
    draws = centre[:, None] + 0.2 * rng.standard_normal((8, 39, 16, 16))
    found = summarised(images, estimates={"sampled": centre, "plain": 0.9 * truth}, reference=None,
                       samples={"sampled": draws})
    assert "coverage" not in found["methods"]["plain"]
    coverage = found["methods"]["sampled"]["coverage"]
    assert coverage["bins"]["inside"]["mean"] == pytest.approx(0.9, abs=0.03)
    assert coverage["bins"]["width"]["mean"] == pytest.approx(2 * 1.735 * 0.2, rel=0.03)  # Blom: Φ⁻¹(1.625/39.25)
    assert coverage["regions"]["liver"]["inside"]["n_undefined"] == 1
    assert coverage["regions"]["liver"]["width"]["mean"] < 0.2 * coverage["bins"]["width"]["mean"]


def test_sinograms_of_a_summary(study):
    pair = study.pair("attenuation-correction")
    pairs = np.concatenate([pair.target, 1.5 * pair.target])
    found = summary({"scaled": 1.1 * pairs, "no correction": np.tile(pair.source, (2, 1, 1))}, pairs, [0, 0, 1, 1],
                    data_range=pairs.max(), reference="no correction", geometry=GEOMETRY, n=100)
    assert found["truth"]["consistency_0"]["mean"] < 1e-3
    scaled = found["methods"]["scaled"]
    assert scaled["metrics"]["consistency_0"]["mean"] == pytest.approx(found["truth"]["consistency_0"]["mean"],
                                                                           rel=1e-4)
    assert scaled["metrics"]["total_error"]["mean"] == pytest.approx(0.1, rel=1e-4)
    assert scaled["difference"]["metrics"]["consistency_0"]["high"] < -0.05
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(("change", "message"), [
    ({"estimates": {}}, "estimates must be a mapping of at least one method's name"),
    ({"estimates": [np.ones((8, 16, 16))]}, "estimates must be a mapping.*but was list"),
    ({"reference": "best"}, "reference must name methods of estimates, good, poor, but named 'best'"),
    ({"samples": {"other": np.ones((8, 19, 16, 16))}}, "samples must name methods of estimates.*'other'"),
    ({"samples": {"good": np.ones((8, 9, 16, 16))}}, "samples must be at least 19"),
    ({"patients": np.zeros(8, int)}, "patients must be at least 2 for intervals, but were 1"),
    ({"patients": np.arange(7)}, "patients must name one group .* of 8 samples"),
    ({"lesion_background": None}, "lesions and lesion_background must be given together"),
    ({"truth": np.ones((8, 2, 16, 16))}, r"truth must have shape \(n, rows, columns\).*one by one"),
    ({"level": 95}, "level must be between 0 and 1"),
    ({"data_range": 0}, "data_range must be"),
])
def test_what_cannot_be_summarised_is_said(images, change, message):
    with pytest.raises(InputError, match=message):
        summarised(images, **change)


def test_an_estimate_that_is_the_truth_is_refused(images):
    estimate = images["truth"] + 0.1
    estimate[5] = images["truth"][5]
    with pytest.raises(InputError, match=r"estimates\['oracle'\] must be an estimate, but 1 items equalled.*index 5"):
        summarised(images, estimates={"oracle": estimate}, reference=None)
