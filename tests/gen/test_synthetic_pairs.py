"""Drawn sinograms with a bridge's samples as targets join real pairs, for the one task that they can serve."""

import json
from dataclasses import replace

import numpy as np
import pytest

from allpet_gen.baselines.unet import UNetPipeline
from allpet_gen.pairs import draw_pair, load_pair_set
from allpet_gen.pipelines import SinogramGenerationPipeline
from allpet_gen.settings import read_settings
from allpet_gen.synthetic_pairs import NOBODY, check_synthetic, draw_synthetic_pairs, join_pairs
from allpet_gen.training_card import new_translation_card
from allpet_gen.translation_pipelines import SinogramBridgePipeline
from allpet_gen.translation_stages import read_pair_sets
from allpet_gen.translator import SinogramTranslator
from allpet_physics.errors import GeometryError, InputError
from allpet_physics.simulation.cohort_reader import read_cohort

from .tiny_pipeline import tiny_pipeline
from .tiny_translation import GEOMETRY, WIDTHS, random_pairs, tiny_scheduler, tiny_translator
from .translation_store import allpet, quick, write_store

AC = "attenuation-correction"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    tiny_pipeline().save_pretrained(folder / "generator")
    card = {"tasks": [AC], "tracers": ["18F-FDG", "68Ga-PSMA"], "regions": ["head", "chest", "abdomen"]}
    SinogramBridgePipeline(tiny_translator(), tiny_scheduler()).save_pretrained(folder / "bridge", card=card)
    return {"generator": str(folder / "generator"), "teacher": str(folder / "bridge")}


@pytest.fixture(scope="module")
def made(models):
    return draw_synthetic_pairs({"per_region": 2, "seed": 3, **models}, random_pairs())


def test_sources_are_drawn_and_targets_are_samples_of_the_teacher(models, made):
    assert made.counts.shape == (6, 2, 2, 32, 32)
    assert made.regions.tolist() == ["abdomen"] * 2 + ["chest"] * 2 + ["head"] * 2
    assert (made.patients == NOBODY).all()
    generator = SinogramGenerationPipeline.from_pretrained(models["generator"])
    teacher = SinogramBridgePipeline.from_pretrained(models["teacher"])
    seed = 3 * 6 * 10**6 + 3 * 10**6  # of the fourth prompt
    drawn = generator("chest with PSMA", count=2, seed=seed, guidance=1.5, guidance_start=0, reconstruct=None)
    np.testing.assert_array_equal(made.counts[2:4, 1, 0], drawn.sinograms)
    np.testing.assert_array_equal(made.expected[2:4, 1, 1], drawn.expected)
    target = teacher(drawn.sinograms, task=AC, tracer="PSMA", region="chest", seed=seed)
    np.testing.assert_allclose(made.unattenuated[2:4, 1, 0], target.samples[:, 0], rtol=1e-5)
    np.testing.assert_array_equal(made.counts[:, :, 0], made.counts[:, :, 1])
    pair = draw_pair(made, AC, 2, np.random.default_rng(0))
    assert pair.targets[0] in made.unattenuated[2]


def test_they_stand_behind_the_real_ones(made):
    real = random_pairs()
    joined = join_pairs(real, made)
    assert len(joined) == 12
    np.testing.assert_array_equal(joined.unattenuated[:6], real.unattenuated)
    np.testing.assert_array_equal(joined.unattenuated[6:], made.unattenuated)
    assert joined.regions[6:].tolist() == made.regions.tolist()
    with pytest.raises(InputError, match="tracers and the geometry"):
        join_pairs(real, random_pairs_of_one_tracer())


def random_pairs_of_one_tracer():
    pairs = random_pairs()
    arrays = {name: getattr(pairs, name)[:, :1] for name in ("counts", "expected", "unattenuated", "attention")}
    return replace(pairs, tracers=pairs.tracers[:1], **arrays)


def test_settings_ask_for_them_and_they_are_kept(models, tmp_path):
    cohort = read_cohort(write_store(tmp_path / "store", 32))
    changes = {"data.per_region": 1, "training.validation": 15, "synthetic.per_region": 2,
               **{f"synthetic.{name}": value for name, value in models.items()}}
    settings = read_settings("tiny", changes, family="translation-")
    first = read_pair_sets(cohort, settings, tmp_path / "out")
    assert (first[0].patients == NOBODY).sum() == 6
    assert (first[1].patients >= 0).all()
    kept = load_pair_set(tmp_path / "out" / "pairs-synthetic.npz")
    np.testing.assert_array_equal(first[0].counts[-6:], kept.counts)
    again = read_pair_sets(cohort, settings, tmp_path / "out", progress=lambda patients: 1 / 0)
    np.testing.assert_array_equal(again[0].counts, first[0].counts)
    card = new_translation_card(settings, cohort, first, "unet", [AC])
    assert card["sinograms"]["drawn"] == 6
    assert NOBODY not in card["patients"]["train"]


def test_a_training_takes_them(models, tmp_path):
    store = write_store(tmp_path / "store", 32)
    with_them = ["--set", "synthetic.per_region=1", "--set", f"synthetic.generator={models['generator']}", "--set",
                 f"synthetic.teacher={models['teacher']}"]
    result = allpet("train", "--task", AC, "--method", "unet", "--store", store, "--out", tmp_path / "out",
                    *quick(32, 2), *with_them, "--quiet")
    assert result.exit_code == 0, result.output
    card = json.loads((tmp_path / "out" / "unet" / "training.json").read_text())
    assert card["sinograms"] == {"train": 6, "validation": 3, "drawn": 3}
    result = allpet("train", "--task", "all", "--store", store, "--out", tmp_path / "all", *quick(32, 2), *with_them)
    assert result.exit_code == 2
    assert "synthetic.per_region must be 0 unless attenuation-correction is the only task" in result.stderr
    assert not (tmp_path / "all").exists()


@pytest.mark.parametrize(("changes", "error", "message"), [
    ({"teacher": "nobody"}, InputError, "model must be one of"),
    ({"generator": "nobody"}, InputError, "model must be one of"),
])
def test_models_that_are_absent_are_named(models, changes, error, message):
    with pytest.raises(error, match=message):
        draw_synthetic_pairs({"per_region": 1, "seed": 0, **models, **changes}, random_pairs())


def test_models_that_do_not_fit_are_refused(models, tmp_path):
    settings = {"synthetic": {"per_region": 3, "seed": 0, **models}}
    with pytest.raises(GeometryError, match=r"synthetic.generator must have the geometry of the store, 32 x 32"):
        check_synthetic(settings, (AC,), GEOMETRY.replace(bin_mm=25.0))
    with pytest.raises(InputError, match="low-dose, attenuation-correction; train that one alone"):
        check_synthetic(settings, ("low-dose", AC), GEOMETRY)
    check_synthetic(settings, (AC,), GEOMETRY)
    check_synthetic({"synthetic": {"per_region": 0}}, ("low-dose", AC), GEOMETRY)
    UNetPipeline(tiny_translator()).save_pretrained(tmp_path / "unet", card={})
    with pytest.raises(InputError, match=r"synthetic\.teacher must be a bridge"):
        check_synthetic({"synthetic": settings["synthetic"] | {"teacher": str(tmp_path / "unet")}}, (AC,), GEOMETRY)
    ignorant = SinogramTranslator(GEOMETRY.to_dict(), 500.0, {"low-dose": 500.0}, **WIDTHS)
    SinogramBridgePipeline(ignorant, tiny_scheduler()).save_pretrained(tmp_path / "low", card={})
    with pytest.raises(InputError, match="task must be one that the model was trained for, low-dose"):
        check_synthetic({"synthetic": settings["synthetic"] | {"teacher": str(tmp_path / "low")}}, (AC,), GEOMETRY)


def test_counts_beyond_the_type_of_the_store_do_not_wrap(models, monkeypatch):
    drawn = SinogramGenerationPipeline.from_pretrained(models["generator"])("brain", count=1, reconstruct=None)
    bright = replace(drawn, sinograms=drawn.sinograms + 70_000)
    monkeypatch.setattr(SinogramGenerationPipeline, "__call__", lambda *_, **__: bright)
    with pytest.warns(UserWarning, match="brighter|trained with"):
        made = draw_synthetic_pairs({"per_region": 1, "seed": 0, **models}, random_pairs())
    assert made.counts.min() >= 70_000
