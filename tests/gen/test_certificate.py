"""Certificates of trained networks: the moments they rest on, the posterior, how often the bound fails, refusals."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import allpet_gen
from allpet_gen._pretrained import model_digests
from allpet_gen.certificate import PRIOR_SPREADS, certify, gibbs_posterior, miscounted_bound, printed
from allpet_gen.data import ClassSet
from allpet_gen.denoising_moments import _generator_batches, denoising_moments, load_certifiable
from allpet_gen.output_moments import gather_moments
from allpet_gen.settings import read_settings
from allpet_gen.training_card import store_digest, write_card
from allpet_gen.translation_pipelines import SinogramBridgePipeline
from allpet_physics.errors import GeometryError, InputError
from allpet_physics.pac_bayes import certified_bound, gaussian_kl, seeger_maurer_bound
from allpet_physics.simulation.cohort_reader import read_cohort

from .tiny_pipeline import GEOMETRY, tiny_pipeline
from .tiny_translation import tiny_scheduler, tiny_translator
from .translation_store import allpet, write_store

pytestmark = pytest.mark.usefixtures("one_thread")


def problem(n, *, gain=1.0, noise=0.5, c=2, pixels=6, examples=2, seed=0, groups=None):
    """Return batches of n patients whose targets are standard normal and whose outputs are gain·v + noise."""
    rng = np.random.default_rng(seed)
    for patient in range(n):
        v = rng.standard_normal((examples, c, pixels))
        used = np.ones((examples, c))
        if groups is not None:
            used[::2, np.asarray(groups) == 1] = 0
        f = gain * v + noise * rng.standard_normal(v.shape)
        yield f * used[..., None], v * used[..., None], used, np.full(examples, patient)


def plain_errors(batches, w):
    """Return the error of each patient under one map, by the definition."""
    errors = []
    for f, v, used, _ in batches:
        phi = np.concatenate([f, np.ones_like(f[:, :1])], axis=1)
        left = (v - np.einsum("ij,njx->nix", w, phi)) ** 2 * used[..., None]
        errors.append((left.sum((1, 2)) / (used.sum(1) * f.shape[2])).mean())
    return errors


@pytest.mark.parametrize("groups", [[0, 0, 0], [0, 0, 1]])
def test_moments_give_the_errors_of_any_map(groups):
    moments = gather_moments(problem(4, c=3, groups=groups), groups)
    maps = moments.unchanged + np.random.default_rng(1).standard_normal((3, 3, 4))
    wanted = np.array([plain_errors(problem(4, c=3, groups=groups), w) for w in maps])
    np.testing.assert_allclose(moments.errors(maps), wanted, rtol=1e-10)
    np.testing.assert_allclose(moments.mean().errors(maps)[:, 0], wanted.mean(1), rtol=1e-10)
    assert moments.n_examples == 8


def test_the_posterior_is_the_gibbs_posterior():
    moments = gather_moments(problem(5, c=3, groups=[0, 0, 1]), [0, 0, 1])
    q = gibbs_posterior(moments, 0.3, 40.0)
    maps = q.draw(20, moments.group, 0)
    residual = maps - q.mean
    log_q = -0.5 * np.einsum("mri,rij,mrj->m", residual, np.linalg.inv(q.covariance)[moments.group], residual)
    log_p = -0.5 * ((maps - moments.unchanged) ** 2).sum((1, 2)) / 0.3**2
    gibbs = log_p - 40 * moments.errors(maps).mean(1)
    np.testing.assert_allclose(log_q - log_q[0], gibbs - gibbs[0], atol=1e-8)  # densities up to a constant


def test_risk_and_divergence_of_the_posterior():
    moments = gather_moments(problem(5, c=2), [0, 0])
    q = gibbs_posterior(moments, 0.2, 30.0)
    maps = q.draw(40_000, moments.group, 1)
    errors = moments.errors(maps).mean(1)
    assert q.risk == pytest.approx(errors.mean(), abs=4 * errors.std() / 200)
    whole = np.kron(np.eye(2), q.covariance[0])
    assert q.kl == pytest.approx(float(gaussian_kl(q.mean.ravel(), whole, moments.unchanged.ravel(),
                                                   0.04 * np.eye(6))), rel=1e-9)
    assert gibbs_posterior(moments, 0.2, 0.0).kl == 0.0


def test_a_network_that_shrinks_is_mended_where_patients_are_enough():
    """Outputs of half the size have an error of 0.25; a map that doubles them has none, and is paid for by its KL."""
    moments = gather_moments(problem(1500, gain=0.5, noise=0.0, examples=4), [0, 0])
    found = certify(moments, 0.05, n_draws=20_000)
    assert found.unchanged == pytest.approx(0.25, abs=0.01)
    assert found.certificate.kl > 1
    assert found.certificate.bound < 0.2 < found.test_set_bound
    few = certify(gather_moments(problem(20, gain=0.5, noise=0.0), [0, 0]), 0.05, n_draws=2000)
    assert few.certificate.empirical_risk > found.certificate.empirical_risk
    # What is chosen is the bound: a map that fits twenty patients best has a divergence that they cannot pay.
    share = 0.9 * 0.05 / len(PRIOR_SPREADS)
    alone = seeger_maurer_bound(few.unchanged, 0, 20, share)
    assert few.certificate.bound < alone + 0.03  # the draws cost a little


def test_the_bound_fails_as_rarely_as_it_says_and_a_miscounted_one_does_not():
    """Losses of 0, or of 1 for a share of the patients: what is seen varies as much as losses in [0, 1] can."""
    delta, share, repeats, n = 0.2, 0.15, 200, 25
    rng = np.random.default_rng(0)
    fails, miscounted, gaps = 0, 0, []
    for k in range(repeats):
        wrong = rng.random(n) < share
        found = certify(gather_moments(coins(wrong), [0]), delta, n_draws=2000, seed=k)
        # The posterior may move to another map; what a patient of either kind loses under it is known.
        q = gibbs_posterior(gather_moments(coins(wrong), [0]), found.prior_spread, found.rate)
        kinds = gather_moments(coins([False, True]), [0])
        of_right, of_wrong = kinds.errors(q.draw(2000, kinds.group, k)).clip(max=1).mean(0)
        risk = (1 - share) * of_right + share * of_wrong
        fails += risk > found.certificate.bound
        miscounted += risk > miscounted_bound(found, 40 * n)
        gaps.append(found.certificate.bound - risk)
    assert fails <= delta * repeats
    assert miscounted > delta * repeats
    assert np.mean(gaps) < 0.45  # and it is no empty one


def coins(wrong):
    """Return predictions that are right, or have the wrong sign: an error of 0, or of 4, which is capped at 1."""
    v = np.array([[[1.0, -1.0]]])
    return [(-v if bad else v, v, np.ones((1, 1)), [patient]) for patient, bad in enumerate(wrong)]


def test_vacuous_and_miscounted():
    found = certify(gather_moments(problem(3, gain=0.0, noise=1.0), [0, 0]), 0.01, n_draws=500)
    assert found.certificate.vacuous
    assert str(found.certificate).startswith("Vacuous")
    good = certify(gather_moments(problem(30), [0, 0]), 0.05, n_draws=5000)
    assert not good.certificate.vacuous
    assert good.certificate.n == 30
    assert good.test_set_bound < good.certificate.bound
    assert miscounted_bound(good, 30) == pytest.approx(good.certificate.bound)
    assert miscounted_bound(good, 3000) < good.certificate.bound - 0.1
    assert certify(gather_moments(problem(30), [0, 0]), 0.001, n_draws=5000).certificate.bound > good.certificate.bound


def test_priors_were_written_down_beforehand_and_paid_for():
    found = certify(gather_moments(problem(30), [0, 0]), 0.05, n_draws=5000)
    assert found.prior_spread in PRIOR_SPREADS
    c = found.certificate
    assert c.delta + c.delta_monte_carlo == pytest.approx(0.05)
    unpaid = certified_bound(c.empirical_risk, c.draws, c.kl, c.n, c.delta, c.delta_monte_carlo)
    assert c.bound > unpaid


@pytest.mark.parametrize(("change", "said"), [({"delta": 0.0}, "delta"), ({"delta": 1.0}, "delta"),
                                              ({"n_draws": 0}, "n_draws"), ({"seed": -1}, "seed")])
def test_what_certify_refuses(change, said):
    with pytest.raises(InputError, match=said):
        certify(gather_moments(problem(3), [0, 0]), **({"delta": 0.05} | change))


def test_predictions_that_are_not_finite_are_refused():
    f, v, used, patient = next(problem(1))
    f[0, 0, 0] = np.nan
    with pytest.raises(InputError, match="finite"):
        gather_moments([(f, v, used, patient)], [0, 0])
    with pytest.raises(InputError, match="held none"):
        gather_moments([], [0, 0])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A store of six patients, and a generator and a bridge said to be trained on the first three."""
    folder = tmp_path_factory.mktemp("certify")
    cohort = read_cohort(write_store(folder / "s", 32))
    for name, pipe, family in (("generator", tiny_pipeline(), ""), ("bridge", SinogramBridgePipeline(
            tiny_translator(), tiny_scheduler()), "translation-")):
        pipe.save_pretrained(folder / name, card={})
        write_card(folder / name, {
            "format": 1, "settings": read_settings("tiny", {}, family), "stages": {},
            "store": {"sha256": store_digest(cohort), "kind": "cohort", "seed": 0},
            "patients": {"train": [0, 1, 2], "validation": [3, 4, 5]}})
    return folder


def moments_of(place, name, region=None, **options):
    pipe, folder = load_certifiable(place / name)
    cohort = read_cohort(place / "s", region=region)
    return denoising_moments(pipe, folder, cohort, **({"split": "validation", "draws": 2} | options))


def test_patients_do_not_depend_on_one_another(place):
    every, alone = moments_of(place, "generator"), moments_of(place, "generator", region="chest")
    assert every.patients.tolist() == [3, 4, 5]
    assert len(alone) == 1
    at = every.patients.tolist().index(alone.patients[0])
    np.testing.assert_allclose(alone.square[0], every.square[at], rtol=1e-6)
    np.testing.assert_allclose(alone.gram[0], every.gram[at], rtol=1e-4, atol=1e-6)


def test_patients_of_equal_counts_have_times_and_noise_of_their_own():
    counts = np.tile(np.random.default_rng(0).poisson(50, (1, 32, 32)), (2, 1, 1)).astype(np.uint16)
    data = ClassSet(counts, np.ones((2, 3), np.int64), np.array([4, 5]), GEOMETRY, ("a",), 2)
    one, two = _generator_batches(tiny_pipeline(), data, None, 3, 0, iter)
    assert not np.allclose(one[1], two[1])
    again = list(_generator_batches(tiny_pipeline(), data, None, 3, 0, iter))
    np.testing.assert_array_equal(one[1], again[0][1])


@pytest.mark.parametrize("name", ["generator", "bridge"])
def test_the_same_seed_gives_the_same_moments_and_views_change_them(place, name):
    first, again, still, other = (moments_of(place, name, **how) for how in
                                  ({}, {}, {"augmented": False}, {"seed": 1}))
    np.testing.assert_array_equal(first.gram, again.gram)
    for changed in (still, other):
        assert not np.allclose(first.square, changed.square, rtol=1e-6)
    if name == "generator":  # what it should predict has a variance near 1; the bridge's scales are not those of s
        assert 0.3 < first.square.mean() < 3


def test_masks_are_drawn_for_augmented_moments_even_where_no_view_is(place, tmp_path):
    """Turned and mirrored by nothing, what differs from moments as measured is the masks alone."""
    shutil.copytree(place / "generator", tmp_path / "generator")
    shutil.copytree(place / "s", tmp_path / "s")
    card = json.loads((tmp_path / "generator" / "training.json").read_text())
    card["settings"]["augmentation"] |= {"rotation_deg": 0.0, "mirror": 0.0}
    (tmp_path / "generator" / "training.json").write_text(json.dumps(card))
    masked, still = (moments_of(tmp_path, "generator", augmented=augmented) for augmented in (True, False))
    assert not np.allclose(masked.square, still.square, rtol=1e-6)


def test_unused_slots_of_a_bridge_do_not_count(place):
    moments = moments_of(place, "bridge")
    assert moments.group.tolist() == [0] * 4 + [1] * 4
    task_share = 1 / 4 / 2  # one task of four fills the second slot, and there it has half of the elements
    np.testing.assert_allclose(moments.gram[:, 1, -1, -1] * 4, task_share, rtol=1e-6)
    np.testing.assert_allclose(moments.gram[:, 0, -1, -1] * 4, 1 - task_share, rtol=1e-6)


def test_patients_of_the_training_are_refused(place, tmp_path):
    for name in ("generator", "bridge"):
        with pytest.raises(InputError, match=r"3 of the train part were trained on, such as 0, 1, 2; choose --split"):
            moments_of(place, name, split="train")
    # The same patients at another size have another store, but the same seed.
    card = json.loads((place / "generator" / "training.json").read_text())
    card["store"]["sha256"] = "another"
    (place / "generator" / "training.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match="were trained on"):
        moments_of(place, "generator", split="train")
    card["store"]["seed"] = 77
    (place / "generator" / "training.json").write_text(json.dumps(card))
    assert len(moments_of(place, "generator", split="train")) == 3


def test_the_command(place, tmp_path):
    asked = ["certify", place / "bridge", place / "s", "--split", "validation", "--draws", 1, "--maps", 200]
    result = allpet(*asked, "--out", tmp_path / "c.json", "--delta", 0.05, "--delta", 0.01)
    assert result.exit_code == 0, result.output
    assert "NOT certificates: counted as 12 sinograms or pairs" in result.output
    assert "Vacuous: " in result.output
    assert [row["delta"] for row in json.loads((tmp_path / "c.json").read_text())["measured"]["rows"]] == [0.01, 0.05]
    again = allpet(*asked, "--json", "--quiet", "--delta", 0.05, "--delta", 0.01)
    kept, seen = json.loads((tmp_path / "c.json").read_text()), json.loads(again.stdout)
    assert {name: kept[name] for name in ("measured", "augmented")} == {
        name: seen[name] for name in ("measured", "augmented")}


def test_what_is_printed_holds():
    assert [printed(v) for v in (0.43230102, 0.4323, 0.12, 0.99999)] == ["0.4324", "0.4323", "0.1200", "1.0000"]


def test_cards_that_do_not_say_whom_a_model_knows_are_refused(place, tmp_path):
    pipe, folder = load_certifiable(place / "bridge")
    kept = (folder / "training.json").read_text()
    card = json.loads(kept)
    cohort = read_cohort(place / "s")
    try:
        write_card(folder, {name: value for name, value in card.items() if name != "patients"})
        with pytest.raises(InputError, match="must say what patients"):
            denoising_moments(pipe, folder, cohort, split="validation")
        # Whoever drew pairs, and whoever made their targets, had patients of their own.
        write_card(folder, card | {"store": {"kind": "cohort", "seed": 99}, "sinograms": {"drawn": 3}})
        shipped = load_certifiable("small")[1]
        seen = json.loads((shipped / "training.json").read_text())["patients"]["train"]
        monkey = type(cohort)(cohort.group, cohort.card | {"parameters": cohort.card["parameters"] | {"seed": 2026}},
                              cohort.samples, cohort.tracers, cohort.patients, cohort.regions, cohort.splits)
        assert {0, 1, 2} <= set(seen)
        with pytest.raises(InputError, match="were trained on, such as 0, 1, 2"):
            denoising_moments(pipe, folder, monkey, split="train")
    finally:
        (folder / "training.json").write_text(kept)


@pytest.mark.parametrize(("words", "said"), [
    (["nowhere", "s"], "MODEL must be one of small, bridge-small, or a folder"),
    (["generator", "s", "--split", "test"], "test"),
    (["generator", "s", "--split", "validation", "--patients", 4], "multiple of 3"),
    (["generator", "s", "--split", "validation", "--patients", 6], "at most 3"),
    (["small", "s", "--split", "validation"], "the model's geometry"),
    (["bridge/network", "s"], "MODEL must be"),
])
def test_what_the_command_refuses(place, words, said):
    paths = [str(place / word) if (place / str(word)).exists() else word for word in words]
    result = allpet("certify", *paths, "--quiet")
    assert result.exit_code not in (0, 1), result.output
    assert said in result.stderr
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_model_without_a_card_or_without_a_denoising_loss_is_refused(place, tmp_path):
    tiny_pipeline().save_pretrained(tmp_path / "no-card", card={})
    pipe, folder = load_certifiable(tmp_path / "no-card")
    with pytest.raises(InputError, match=r"must come with training\.json"):
        denoising_moments(pipe, folder, read_cohort(place / "s"), split="validation")
    from allpet_gen.baselines.unet import UNetPipeline

    UNetPipeline(tiny_translator()).save_pretrained(tmp_path / "unet", card={})
    (tmp_path / "unet" / "training.json").write_bytes((place / "bridge" / "training.json").read_bytes())
    pipe, folder = load_certifiable(tmp_path / "unet")
    with pytest.raises(InputError, match="have a denoising loss, but was UNetPipeline"):
        denoising_moments(pipe, folder, read_cohort(place / "s"), split="validation")


def test_another_geometry_is_refused(place, tmp_path):
    write_store(tmp_path / "s16", 16)
    pipe, folder = load_certifiable(place / "generator")
    with pytest.raises(GeometryError, match="the model's geometry"):
        denoising_moments(pipe, folder, read_cohort(tmp_path / "s16"), split="validation")


def test_shipped_models_are_found_by_name():
    for name in ("small", "bridge-small"):
        assert load_certifiable(name)[1].name == name


@pytest.mark.parametrize(("record", "name"), [("generator", "small"), ("bridge", "bridge-small")])
def test_the_records_are_of_the_models_that_ship(record, name):
    found = json.loads((Path(__file__).resolve().parents[2] / "docs" / f"certificate_{record}.json").read_text())
    digests = model_digests(Path(allpet_gen.__file__).parent / "pretrained" / name)
    assert digests == found["model"]["files"]


def test_the_page_is_that_of_the_records(monkeypatch):
    """docs/certificates.md is what its script writes, and its bounds are those of losses, divergences and patients."""
    root = Path(__file__).resolve().parents[2]
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    import certificate_report

    records = [json.loads((root / "docs" / f"certificate_{name}.json").read_text()) for name in ("generator", "bridge")]
    assert (root / "docs" / "certificates.md").read_text() == certificate_report.page(records)
    for record in records:
        for kind in ("measured", "augmented"):
            for row in record[kind]["rows"]:
                again = certified_bound(row["empirical_risk"], record["maps"], row["kl"], record[kind]["patients"],
                                        0.9 * row["delta"] / len(PRIOR_SPREADS), 0.1 * row["delta"])
                assert row["bound"] == pytest.approx(float(again), rel=1e-9)
