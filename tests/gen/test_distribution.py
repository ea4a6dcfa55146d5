"""Distances of distributions: closed forms, no bias where none is promised, every kind of failure seen by a metric."""

import json
from pathlib import Path

import numpy as np
import pytest

from allpet_gen.evaluation.distribution import (
    PrincipalAxes,
    compare,
    compare_features,
    frechet_distance,
    gaussian_frechet_distance,
    inception_score,
    kernel_distance,
    neighbourhood_metrics,
    shrunk_covariance,
    split_by_patient,
)
from allpet_gen.evaluation.features import StatisticsFeatures
from allpet_physics.errors import InputError

METRICS = ("frechet", "kernel_polynomial", "kernel_rbf", "precision", "recall", "density", "coverage")


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def two_modes(rng, n, d=4, share=0.5):
    return rng.standard_normal((n, d)) + 6 * (rng.random(n) < share)[:, None]


# --- Fréchet ------------------------------------------------------------------------------------------------------

def test_frechet_of_commuting_gaussians():
    a, b, mean = np.array([4.0, 1.0, 0.25]), np.array([1.0, 9.0, 0.25]), np.array([1.0, -2.0, 0.5])
    q = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    expected = (mean**2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    found = gaussian_frechet_distance(np.zeros(3), q * a @ q.T, mean, q * b @ q.T)
    assert found == pytest.approx(expected, rel=1e-10)


def test_frechet_of_two_by_two_gaussians_in_closed_form(rng):
    """tr (AB)^½ of 2 × 2 matrices is √(tr AB + 2 √det AB)."""
    for _ in range(20):
        a, b = (m @ m.T for m in rng.standard_normal((2, 2, 2)))
        expected = np.trace(a + b) - 2 * np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a) * np.linalg.det(b)))
        assert gaussian_frechet_distance(np.zeros(2), a, np.zeros(2), b) == pytest.approx(expected, abs=1e-9)


def test_frechet_is_stable_where_covariances_are_singular_or_ill_conditioned(rng):
    x = rng.standard_normal((20, 60)) * np.logspace(0, -12, 60)
    c = np.cov(x, rowvar=False)
    assert gaussian_frechet_distance(x.mean(0), c, x.mean(0), c) == pytest.approx(0, abs=1e-9)
    turn = np.linalg.qr(rng.standard_normal((60, 60)))[0]
    first, second = np.cov(rng.standard_normal((20, 60)), rowvar=False), c
    here = gaussian_frechet_distance(np.zeros(60), first, np.zeros(60), second)
    there = gaussian_frechet_distance(np.zeros(60), turn @ first @ turn.T, np.zeros(60), turn @ second @ turn.T)
    assert there == pytest.approx(here, rel=1e-6)


def test_frechet_of_samples_reaches_that_of_their_distributions(rng):
    x, y = rng.standard_normal((40_000, 3)), 1 + 2 * rng.standard_normal((40_000, 3))
    assert frechet_distance(x, y) == pytest.approx(3 + 3, rel=0.03)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-10)


def test_frechet_is_biased_by_small_samples(rng):
    """Why floors need the same n: with equal distributions it falls about as 1/n."""
    small, large = (np.mean([frechet_distance(*rng.standard_normal((2, n, 8))) for _ in range(40)]) for n in (40, 400))
    assert 6 < small / large < 16


def test_fewer_samples_than_features_are_refused_with_ways_out(rng):
    x, y = rng.standard_normal((2, 10, 20))
    with pytest.raises(InputError, match=r"fewer samples than features.*10 samples of 20 features.*PCA.*shrinkage"):
        frechet_distance(x, y)
    assert frechet_distance(x, y, shrinkage=True) > 0
    axes = PrincipalAxes.fit(x, 5)
    assert frechet_distance(axes.project(x), axes.project(y)) > 0
    with pytest.raises(InputError, match="at most 9"):
        PrincipalAxes.fit(x, 10)


def test_shrinkage_keeps_the_trace_and_conditions_the_matrix(rng):
    x = rng.standard_normal((15, 30))
    c = shrunk_covariance(x)
    assert np.trace(c) == pytest.approx((x - x.mean(0)).var(0).sum())
    assert np.linalg.eigvalsh(c)[0] > 0.1
    many = rng.standard_normal((20_000, 3)) * [1, 2, 3]
    np.testing.assert_allclose(shrunk_covariance(many), np.cov(many, rowvar=False, bias=True), rtol=0.01, atol=0.01)


def test_principal_axes_are_those_of_the_reference(rng):
    x = rng.standard_normal((500, 5)) * [5, 1, 3, 0.1, 0.2]
    axes = PrincipalAxes.fit(x, 2)
    np.testing.assert_allclose(np.abs(axes.axes[[0, 2], [0, 1]]), 1, atol=0.02)
    np.testing.assert_allclose(axes.project(x).var(0, ddof=1), axes.variances)


# --- kernels ------------------------------------------------------------------------------------------------------

def test_rbf_distance_of_gaussians_in_expectation(rng):
    """For N(0, I) and N(m, I) in d dimensions MMD² = 2 (σ²/(σ²+2))^{d/2} (1 − exp(−|m|²/(2(σ²+2))))."""
    d, s2, m = 3, 4.0, 1.2
    expected = 2 * (s2 / (s2 + 2)) ** (d / 2) * (1 - np.exp(-d * m**2 / (2 * (s2 + 2))))
    found = [kernel_distance(rng.standard_normal((60, d)), m + rng.standard_normal((50, d)), kernel="rbf",
                             bandwidth=2.0, n_bootstrap=1)["value"] for _ in range(200)]
    assert np.mean(found) == pytest.approx(expected, abs=4 * np.std(found) / 200**0.5)


def test_polynomial_distance_of_shifted_variables_in_expectation(rng):
    """In one dimension (xy + 1)³ compares moments: Σ_k C(3, k) (E x^k − E y^k)²."""
    moments = np.array([1, 0.5, 1.25, 1.625]) - [1, 0, 1, 0]  # of N(0.5, 1) and N(0, 1)
    expected = ([1, 3, 3, 1] * moments**2).sum()
    found = [kernel_distance(rng.standard_normal((80, 1)), 0.5 + rng.standard_normal((80, 1)), n_bootstrap=1)["value"]
             for _ in range(300)]
    assert np.mean(found) == pytest.approx(expected, abs=4 * np.std(found) / 300**0.5)


@pytest.mark.parametrize("kernel", ["polynomial", "rbf"])
def test_kernel_distance_has_no_bias(rng, kernel):
    found = np.array([kernel_distance(*rng.standard_normal((2, 30, 5)), kernel=kernel, n_bootstrap=1)["value"]
                      for _ in range(300)])
    assert abs(found.mean()) < 4 * found.std() / 300**0.5
    assert (found < 0).any()  # an unbiased estimate of zero must be


def patients_with_slices(rng, n, d=3, strata=None):
    """Three slices each, alike; strata shift their patients."""
    centre = rng.standard_normal((n, d)) + (0 if strata is None else 3 * strata[:, None])
    return np.repeat(centre, 3, axis=0) + 0.1 * rng.standard_normal((3 * n, d))


def test_slices_of_a_patient_do_not_bias_the_kernel_distance(rng):
    groups = np.repeat(np.arange(12), 3)
    given, not_given = [], []
    for _ in range(200):
        x, y = patients_with_slices(rng, 12), rng.standard_normal((36, 3)) * np.sqrt(1.01)
        settings = {"kernel": "rbf", "bandwidth": 2.0, "n_bootstrap": 1}
        given.append(kernel_distance(x, y, reference_groups=groups, **settings)["value"])
        not_given.append(kernel_distance(x, y, **settings)["value"])
    assert abs(np.mean(given)) < 4 * np.std(given) / 200**0.5
    assert np.mean(not_given) > 8 * np.std(not_given) / 200**0.5


def test_a_balanced_mix_does_not_bias_the_kernel_distance(rng):
    strata, groups = np.arange(12) % 3, np.repeat(np.arange(12), 3)
    given, not_given = [], []
    for _ in range(200):
        x = patients_with_slices(rng, 12, strata=strata)
        y = rng.standard_normal((36, 3)) * np.sqrt(1.01) + 3 * (np.arange(36) % 3)[:, None]
        settings = {"kernel": "rbf", "bandwidth": 3.0, "n_bootstrap": 1, "reference_groups": groups,
                    "generated_strata": np.arange(36) % 3}
        given.append(kernel_distance(x, y, reference_strata=np.repeat(strata, 3), **settings)["value"])
        not_given.append(kernel_distance(x, y, **settings)["value"])
    assert abs(np.mean(given)) < 4 * np.std(given) / 200**0.5
    assert np.mean(not_given) < -8 * np.std(not_given) / 200**0.5


def test_bootstrap_interval_holds_the_true_distance_about_as_often_as_it_says(rng):
    expected = 3 * 0.25 + 3 * 0.0625 + 1.625**2
    hits = 0
    for i in range(60):
        out = kernel_distance(rng.standard_normal((100, 1)), 0.5 + rng.standard_normal((100, 1)), seed=i, level=0.9)
        hits += out["low"] <= expected <= out["high"]
    assert 43 <= hits <= 60  # 54 expected; below 43 once in 10⁴


def test_subsets_give_the_same_distance_with_less_memory(rng):
    x, y = rng.standard_normal((600, 3)), 0.7 + rng.standard_normal((450, 3))
    whole, parts = (kernel_distance(x, y, kernel="rbf", bandwidth=2.0, subset_size=n) for n in (450, 50))
    assert parts["subset_size"] == 50
    assert parts["value"] == pytest.approx(whole["value"], rel=0.15)
    with pytest.raises(InputError, match="at most 450"):
        kernel_distance(x, y, subset_size=451)


# --- neighbourhoods -----------------------------------------------------------------------------------------------

def test_density_and_coverage_of_equal_distributions_as_published(rng):
    """Naeem et al. 2020: density 1, coverage 1 − Π (n − i)/(2n − i) over i = 1 … k in expectation."""
    n, k = 100, 3
    found = [neighbourhood_metrics(*rng.standard_normal((2, n, 3)), k=k) for _ in range(80)]
    expected = 1 - np.prod([(n - i) / (2 * n - i) for i in range(1, k + 1)])
    for name, value in (("density", 1.0), ("coverage", expected)):
        values = np.array([f[name] for f in found])
        assert values.mean() == pytest.approx(value, abs=4 * values.std() / 80**0.5), name


def test_neighbourhoods_far_apart_and_inside(rng):
    x = rng.standard_normal((200, 4))
    away = neighbourhood_metrics(x, x + 100)
    assert away == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}
    narrow = neighbourhood_metrics(x, 0.05 * rng.standard_normal((200, 4)))
    assert narrow["precision"] == 1
    assert narrow["recall"] < 0.1
    assert narrow["coverage"] < 0.4


def test_slices_of_a_patient_do_not_shrink_the_balls(rng):
    x, groups = patients_with_slices(rng, 60), np.repeat(np.arange(60), 3)
    y = rng.standard_normal((180, 3))
    assert neighbourhood_metrics(x, y, k=2)["density"] < 0.3
    assert neighbourhood_metrics(x, y, k=2, reference_groups=groups)["density"] > 0.7
    with pytest.raises(InputError, match="more than k = 5"):
        neighbourhood_metrics(x[:6], y, reference_groups=groups[:6])


# --- everything together ------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def cases():
    rng = np.random.default_rng(2)
    real = two_modes(rng, 420)
    made = {"equal": two_modes(rng, 420), "shifted": two_modes(rng, 420) + 0.6,
            "narrow": rng.standard_normal((420, 4)) * 0.4 + 6 * (rng.random(420) < 0.5)[:, None],
            "wide": rng.standard_normal((420, 4)) * 1.8 + 6 * (rng.random(420) < 0.5)[:, None],
            "dropped": two_modes(rng, 420, share=0.0)}
    patients = np.repeat(np.arange(140), 3)
    return {name: compare_features(real, y, real_patients=patients, seed=1, n_splits=6, n_bootstrap=10)
            for name, y in made.items()}


def worse(figures, metric):
    """Tell whether the whole interval of the excess is on the bad side."""
    excess = figures[metric]["excess"]
    return excess["low"] > 0 if metric.startswith(("frechet", "kernel")) else excess["high"] < 0


def test_two_halves_of_the_same_distribution_stand_at_the_floor(cases):
    for metric in METRICS:
        excess = cases["equal"][metric]["excess"]
        assert excess["low"] <= 0 <= excess["high"], metric
    assert cases["equal"]["frechet"]["floor"]["value"] > 0


#: What the documentation says of each failure, and which measures see it.
SEEN = {"shifted": ("all values shifted", ("frechet", "kernel_rbf")),
        "narrow": ("each kind varies too little", ("recall", "coverage")),
        "wide": ("each kind varies too much", ("precision", "density")),
        "dropped": ("a kind is left out", ("frechet", "kernel_rbf", "recall", "coverage"))}
NAMES = {"frechet": "Fréchet", "kernel_rbf": "kernel (RBF)"}


@pytest.mark.parametrize("case", SEEN)
def test_failures_of_a_generator_are_seen_as_the_documentation_says(cases, case):
    words, seen_by = SEEN[case]
    assert [m for m in seen_by if not worse(cases[case], m)] == []
    page = Path(__file__).resolve().parents[2] / "docs" / "guide" / "tasks" / "evaluate.md"
    assert f"| {words} | {', '.join(NAMES.get(m, m) for m in seen_by)} |" in page.read_text(encoding="utf-8")


def test_comparison_is_json_and_repeats_by_seed(rng):
    real, made = rng.standard_normal((120, 3)), rng.standard_normal((90, 3))
    settings = {"real_patients": np.arange(120) // 2, "n_splits": 3, "n_bootstrap": 20}
    first = compare_features(real, made, seed=4, **settings)
    assert json.loads(json.dumps(first)) == first == compare_features(real, made, seed=4, **settings)
    assert first != compare_features(real, made, seed=5, **settings)
    assert first["n_per_side"] == 45  # half of the 90: the drawn half must vary too


def test_halves_share_no_patient_and_have_the_same_mix(rng):
    patients = np.repeat(np.arange(41), rng.integers(1, 5, 41))
    strata = (patients % 3)
    for _ in range(10):
        a, b = split_by_patient(patients, rng, strata=strata)
        assert not set(patients[a]) & set(patients[b])
        assert sorted([*a, *b]) == list(range(len(patients)))
        for s in range(3):
            assert abs(len(set(patients[a][strata[a] == s])) - len(set(patients[b][strata[b] == s]))) <= 1


def test_principal_axes_let_few_samples_be_compared(rng):
    real, made = rng.standard_normal((60, 50)), rng.standard_normal((60, 50))
    settings = {"real_patients": np.arange(60), "n_splits": 2, "n_bootstrap": 5}
    with pytest.raises(InputError, match="fewer samples than features need: 30 on each side"):
        compare_features(real, made, **settings)
    assert compare_features(real, made, n_components=6, whiten=True, **settings)["n_features"] == 6
    assert compare_features(real, made, shrinkage=True, **settings)["frechet"]["floor"]["value"] > 0
    with pytest.raises(InputError, match="whiten must come with n_components"):
        compare_features(real, made, whiten=True, **settings)


@pytest.mark.parametrize("size", [1e-8, 1.0, 1e4])
def test_a_feature_that_is_hardly_ever_other_than_zero_does_not_drown_the_others(rng, size):
    real, generated = (rng.normal(size=(200, 6)) for _ in range(2))
    rarely = [np.zeros((200, 1)) for _ in range(2)]
    rarely[0][7::15], rarely[1][:40] = size, 1e5 * size
    patients = np.repeat(np.arange(50), 4)
    without = compare_features(real, generated, real_patients=patients)
    beside = compare_features(np.hstack([real, rarely[0]]), np.hstack([generated, rarely[1]]), real_patients=patients)
    for side in ("generated", "floor"):
        assert beside["frechet"][side]["value"] == pytest.approx(without["frechet"][side]["value"], rel=1e-9)
    with pytest.raises(InputError, match="must vary in more than 10% of the samples, but none of 1 did"):
        compare_features(rarely[0], rarely[1], real_patients=patients)


def test_whole_sinograms_are_compared(rng):
    shape = 60 * np.exp(-(np.linspace(-1, 1, 32) ** 2) / 0.2)
    real, made = (rng.poisson(shape * rng.uniform(0.5, 2, (120, 1, 1)) + np.zeros((1, 32, 1))) for _ in range(2))
    settings = {"real_patients": np.arange(120), "extractor": StatisticsFeatures(), "n_splits": 3, "n_bootstrap": 5}
    out = compare(real, made, **settings)
    assert out["extractor"] == "statistics (sinogram)"
    assert out["frechet"]["excess"]["low"] < out["frechet"]["floor"]["value"]
    with pytest.raises(InputError, match=r"shape of real, \(32, 32\)"):
        compare(real, made[:, :, :-2].repeat(2, 2), **settings)
    with pytest.raises(InputError, match=r"generated must vary .* index 2 \(empty\)"):
        compare(real, made * (np.arange(120) != 2)[:, None, None], **settings)
    with pytest.raises(InputError, match="generated must be finite"):
        compare(real, np.where(made == made.max(), np.inf, made), **settings)
    with pytest.raises(InputError, match="one group"):
        compare(real, made, **(settings | {"real_patients": np.arange(7)}))
    with pytest.raises(InputError, match="at least 4 patients"):
        compare(real, made, **(settings | {"real_patients": np.arange(120) % 3}))


# --- class probabilities ------------------------------------------------------------------------------------------

def test_inception_score_of_known_probabilities(rng):
    certain = np.eye(4)[np.arange(80) % 4]
    assert inception_score(certain)["value"] == pytest.approx(4)
    assert inception_score(np.full((80, 4), 0.25))["value"] == pytest.approx(1)
    one_class = inception_score(np.eye(4)[np.zeros(80, int)])
    assert one_class["value"] == pytest.approx(1)
    p = rng.dirichlet([0.3] * 4, 80)
    out = inception_score(p, seed=3)
    assert out["low"] < out["value"] < out["high"]
    assert out == inception_score(p, seed=3)
    with pytest.raises(InputError, match="softmax"):
        inception_score(p * 2)


@pytest.mark.parametrize("spoil", [lambda y: y[:, :2], lambda y: y[0], lambda y: y[:1],
                                   lambda y: np.where(y == y.max(), np.nan, y)])
@pytest.mark.parametrize("door", [frechet_distance, kernel_distance, neighbourhood_metrics])
def test_bad_features_are_refused_in_a_sentence(rng, door, spoil):
    x = rng.standard_normal((40, 3))
    with pytest.raises(InputError, match=r"generated must (have|be finite)"):
        door(x, spoil(x))
