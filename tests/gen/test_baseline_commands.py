"""`allpet train --method` and `allpet generate --model` for the generator's baselines."""

import json
import re
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from allpet_gen.generation_models import load_generator
from allpet_gen.settings import read_settings, settings_of
from allpet_gen.stages import read_sets
from allpet_gen.training_card import new_card, store_digest
from allpet_gen.training_log import read_losses
from allpet_physics.cli import cli
from allpet_physics.io.sinogram_files import read_sinogram
from allpet_physics.simulation.cohort import cohort_parameters, write_cohort
from allpet_physics.simulation.cohort_reader import read_cohort

from .baseline_helpers import METHODS
from .training_helpers import loss_lines

pytestmark = pytest.mark.usefixtures("one_thread")
SPLIT = {"train": [0, 1, 2], "validation": [3, 4, 5]}
CHANGES = ["cohort.size=16", "cohort.patients=6", "cohort.slices=2", "data.per_class=2", "masks.block_px=[2,4]",
           "autoencoder.block_out_channels=[8,8]", "denoiser.block_out_channels=[16,16]", "training.validation=3",
           *(f"{m}.block_out_channels=[8,8]" for m in METHODS[:2]), "gan.discriminator_channels=[8,8]",
           *(f"training.{m}.{name}" for m in METHODS for name in ("steps=4", "batch=2"))]
QUICK = ["--config", "tiny", *(word for change in CHANGES for word in ("--set", change))]
STEPS = {"vae": [], "gan": [], "sgm": ["--steps", 2]}


def allpet(*arguments):
    return CliRunner().invoke(cli, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a store, ``s``, and all baselines trained in ``m``; what each training printed."""
    folder, printed = tmp_path_factory.mktemp("baselines"), {}
    write_cohort(folder / "s", cohort_parameters(6, size=16, n_slices=2, tracers=("FDG",), split=SPLIT))
    for method in METHODS:
        result = allpet("train", *QUICK, "--store", folder / "s", "--method", method, "--out", folder / "m", "--json")
        assert result.exit_code == 0, result.output
        printed[method] = json.loads(result.stdout)
    return folder, printed


@pytest.mark.parametrize("method", METHODS)
def test_training_leaves_a_model_and_a_card_that_says_how(place, method):
    folder, printed = place[0] / "m" / method, place[1][method]
    card = json.loads((folder / "training.json").read_text())
    assert printed["stages"] == card["stages"]
    assert card["method"] == printed["method"] == method
    assert list(card["stages"]) == [method]
    found = read_losses(folder.parent / f"{method}-training")
    assert card["stages"][method]["losses"]["loss"] == pytest.approx(np.mean(list(found["loss"].values())))
    assert card["stages"][method]["validation_loss"] == found["validation"][4]
    assert card["store"]["sha256"] == store_digest(read_cohort(place[0] / "s"))
    assert card["patients"] == {"train": [0, 1, 2], "validation": [3, 4, 5]}
    # The sinograms are those that the generator of these settings is trained on.
    cohort = read_cohort(place[0] / "s")
    sets = read_sets(cohort, card["settings"])
    assert card["sinograms"] == new_card(card["settings"], cohort, sets)["sinograms"]
    assert {len(part) for part in sets} == {2 * 3, 3}  # per_class = 2 for each of three regions, and one to validate
    assert set(card["settings"]) == {"cohort", "data", "augmentation", "training", method} | (
        {"denoiser"} if method == "sgm" else set())
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("method", METHODS)
def test_generate_draws_from_it_as_from_the_generator(place, method, tmp_path):
    model = place[0] / "m" / method
    result = allpet("generate", "brain with 18F-FDG", "chest", "--count", 2, "--seed", 3, "--model", model, "--out",
                    tmp_path / "o", "--json", "--quiet", *STEPS[method])
    assert result.exit_code == 0, result.output
    steps = {"steps": 2} if method == "sgm" else {}
    drawn = load_generator(model)(["brain with FDG", "chest"], count=2, seed=3, **steps)
    np.testing.assert_array_equal(read_sinogram(tmp_path / "o" / "brain_18F-FDG.npz").data, drawn.sinograms[:2])
    record = json.loads((tmp_path / "o" / "generated.json").read_text())
    assert record["model"]["card"]["method"] == method
    assert record["settings"].get("steps") == steps.get("steps")
    assert "guidance" not in record["settings"]
    assert record["prompts"][0]["measured"]["n"] == 1
    assert "network/diffusion_pytorch_model.safetensors" in record["model"]["files"]


@pytest.mark.parametrize(("method", "options", "words"), [
    ("vae", ["--steps", 10], "--steps must be left out for a VAE"),
    ("gan", ["--steps", 50], "--steps must be left out for a GAN"),
    ("vae", ["--guidance", 1.5], "--guidance must be left out for a VAE"),
    ("sgm", ["--guidance", 2], "--guidance must be left out for a score-based model"),
    ("sgm", ["--range-guidance", 1], "--range-guidance must be left out for a score-based model"),
    ("gan", ["--sampler", "ddim"], "--sampler must be left out for a GAN"),
    ("gan", ["--eta", 0], "--eta must be left out for a GAN"),
    ("gan", ["--rescale", 0.7], "--rescale must be left out for a GAN"),
    ("sgm", ["--steps", 1], "--steps must be an integer from 2 to 1000, but was 1"),
    ("sgm", ["--steps", 5000], "--steps must be an integer from 2 to 1000, but was 5000")])
def test_options_that_a_baseline_does_not_have_are_refused_before_it_is_loaded(place, tmp_path, monkeypatch, method,
                                                                               options, words):
    loaded = []
    monkeypatch.setattr("allpet_gen.generation_models.load_generator", loaded.append)
    result = allpet("generate", "brain", "--model", place[0] / "m" / method, "--out", tmp_path / "o", "--quiet",
                    *options)
    assert result.exit_code == 2, result.output
    assert re.search(words, result.stderr), result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not loaded
    assert not (tmp_path / "o").exists()


def test_a_folder_of_several_baselines_is_refused(place, tmp_path):
    result = allpet("generate", "brain", "--model", place[0] / "m", "--out", tmp_path / "o", "--quiet")
    assert result.exit_code == 2
    assert "holds vae, gan, sgm; give the folder of one" in result.stderr


def test_a_training_is_not_replaced_unless_asked_and_goes_on(place, tmp_path):
    given = [*QUICK, "--store", place[0] / "s", "--method", "vae", "--out", tmp_path / "m"]
    shutil.copytree(place[0] / "m" / "vae-training", tmp_path / "m" / "vae-training")
    result = allpet("train", *given)
    assert result.exit_code == 2
    assert "holds checkpoints of vae already; pass --resume" in result.output
    shutil.copytree(place[0] / "m" / "vae", tmp_path / "m" / "vae")
    result = allpet("train", *given)
    assert result.exit_code == 2
    assert "--resume to go on with it, --overwrite to replace it" in result.output
    again = allpet("train", *given, "--resume", "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["stages"] == place[1]["vae"]["stages"]
    changed = allpet("train", *given, "--resume", "--set", "vae.kl=2")
    assert changed.exit_code == 2
    assert "vae.kl was 1.0 and is 2.0" in changed.output
    anew = allpet("train", *given, "--overwrite", "--set", "vae.kl=2")
    assert anew.exit_code == 0, anew.output
    assert loss_lines(tmp_path / "m" / "vae-training") != loss_lines(place[0] / "m" / "vae-training")


def test_they_share_a_simulated_cohort_with_the_generator(tmp_path):
    given = [*QUICK, "--out", tmp_path / "m", "--set", "cohort.patients=30", "--set", "training.autoencoder.steps=1"]
    first = allpet("train", *given, "--method", "generator", "--stage", "autoencoder")
    assert first.exit_code == 0, first.output
    stamp = (tmp_path / "m" / "cohort.zarr" / "card.json").stat().st_mtime_ns
    second = allpet("train", *given, "--method", "gan")
    assert second.exit_code == 0, second.output
    assert (tmp_path / "m" / "cohort.zarr" / "card.json").stat().st_mtime_ns == stamp
    card = json.loads((tmp_path / "m" / "training.json").read_text())
    assert card["settings"] == settings_of(card["settings"], "generator")  # nothing of baselines
    assert "gan" not in card["settings"]["training"]


@pytest.mark.parametrize(("arguments", "code", "sentence"), [
    (["--method", "vae", "--stage", "autoencoder"], 2, "--stage belongs to the training of the generator"),
    (["--method", "vae", "--task", "low-dose"], 2, "--method belongs to the training of a generator; leave out --task"),
    (["--method", "unet"], 2, "--method belongs to the training of translations; name a --task"),
    (["--method", "magic"], 2, "magic"),
    (["--method", "gan", "--set", "gan.r1_share=2"], 2, "gan.r1_share must be above 0 and at most 1"),
    (["--method", "gan", "--set", "gan.patch=32"], 3, "multiples of 64"),
    (["--method", "sgm", "--set", "data.per_class=3"], 2, "must hold 3 train sinograms of each class, but has 2"),
    (["--method", "sgm", "--set", "cohort.size=32"], 3, "must have sinograms of 32 x 32.*has 16 x 16"),
    (["--method", "vae", "--set", "training.vae.batch=1000000000"], 2,
     "vae with a batch of 1000000000 needs .* lower training.vae.batch to"),
    (["--method", "vae", "--set", "training.vae.learning_rate=1e30", "--set", "training.clip=1e30"], 1,
     "must stay finite"),
    (["--method", "gan", "--set", "training.gan.learning_rate=1e30", "--set", "training.clip=1e30"], 1,
     "must stay finite")])
def test_mistakes_end_with_a_sentence_and_a_code(place, tmp_path, arguments, code, sentence):
    result = allpet("train", *QUICK, "--store", place[0] / "s", "--out", tmp_path / "m", *arguments)
    assert result.exit_code == code, result.output
    assert re.search(sentence, result.output), result.output
    assert "Traceback" not in result.output
    if code != 1:
        assert not (tmp_path / "m").exists()


def test_sections_of_other_methods_are_left_out():
    settings = read_settings("small")
    assert set(settings_of(settings, "generator")) == set(settings) - set(METHODS)
    assert set(settings_of(settings, "sgm")) == {"cohort", "data", "augmentation", "denoiser", "sgm", "training"}
    of_vae = settings_of(settings, "vae")["training"]
    assert {name for name, value in of_vae.items() if isinstance(value, dict)} == {"vae"}
