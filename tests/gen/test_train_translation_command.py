"""`allpet train --task`: what it leaves, what it refuses, how it goes on after a kill."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from allpet_gen.baselines.unet import UNetPipeline
from allpet_gen.checkpoints import latest_checkpoint
from allpet_gen.settings import read_settings
from allpet_gen.tasks import TASKS
from allpet_gen.training_card import store_digest
from allpet_gen.training_log import read_losses
from allpet_gen.translation_checks import translation_memory
from allpet_gen.translation_pipelines import SinogramBridgePipeline
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.simulation.cohort_reader import read_cohort

from .translation_store import allpet, quick, write_store

ROOT = Path(__file__).resolve().parents[2]
TWO = ["--task", "tracer-separation", "--task", "low-dose"]


@pytest.fixture(autouse=True, scope="module")
def _one_thread(store):
    """Sums of several threads differ in their last bits from those of one; numba, started by then, changes them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("translations") / "s", 16)


def train(store, out, *more, steps=4):
    return allpet("train", *quick(16, steps), *([] if store is None else ["--store", store]), "--out", out, *more)


@pytest.fixture(scope="module")
def trained(store):
    result = train(store, store.parent / "m", *TWO, "--json")
    assert result.exit_code == 0, result.output
    return store.parent / "m", json.loads(result.stdout), result.stderr


def losses(out, method):
    lines = (out / f"{method}-training" / "losses.csv").read_text().splitlines()
    return [line for line in lines if ",validation," not in line]


def test_it_leaves_a_model_and_a_card_that_says_how(trained, store):
    out, printed, said = trained
    card = json.loads((out / "bridge" / "training.json").read_text())
    assert printed["stages"] == card["stages"]
    assert card["method"] == printed["method"] == "bridge"
    assert card["tasks"] == printed["tasks"] == ["low-dose", "tracer-separation"]  # in the order of tasks
    found = read_losses(out / "bridge-training")
    assert card["stages"]["bridge"]["steps"] == 4
    assert card["stages"]["bridge"]["losses"]["loss"] == pytest.approx(np.mean(list(found["loss"].values())))
    assert card["stages"]["bridge"]["validation_loss"] == found["validation"][4]
    assert card["store"]["sha256"] == store_digest(read_cohort(store))
    assert card["patients"] == {"train": [0, 1, 2], "validation": [3, 4, 5]}
    assert card["settings"]["training"]["bridge"]["steps"] == 4
    assert card["hardware"]["device"]
    assert card["versions"]["torch"] == torch.__version__
    assert str(store.parent) not in (out / "bridge" / "training.json").read_text()
    assert not list(out.rglob(".*"))
    assert "training the bridge ..." in said


def test_the_pipeline_loads_what_it_left(trained, store):
    bridge = SinogramBridgePipeline.from_pretrained(trained[0] / "bridge")
    assert bridge.tasks == ("low-dose", "tracer-separation")
    assert bridge.card["tasks"] == list(bridge.tasks)
    assert bridge.card["dose_factors"][-1] == 100
    made = bridge(read_cohort(store).prompts(0, "FDG"), task="tracer-separation", tracer="FDG", other="PSMA", steps=2)
    assert made.expected.shape == (1, 2, 16, 16)
    assert np.isfinite(made.expected).all()


def test_a_training_is_not_replaced_unless_asked(trained, store):
    out = trained[0]
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    result = train(store, out, *TWO)
    assert result.exit_code == 2
    assert "--resume to go on with it, --overwrite to replace it" in result.output
    again = train(store, out, *TWO, "--resume", "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["stages"] == trained[1]["stages"]
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(("more", "words"), [
    (["--task", "low-dose"], "--task must be what the training was begun with, low-dose, tracer-separation, but was "
                             "low-dose"),
    ([*TWO, "--set", "bridge.beta_d=1.5"], "bridge.beta_d was 2.0 and is 1.5")])
def test_resuming_with_other_tasks_or_settings_is_refused(trained, store, more, words):
    result = train(store, trained[0], *more, "--resume")
    assert result.exit_code == 2
    assert words in result.output


def test_a_training_can_begin_from_a_trained_model_of_its_store(trained, store, tmp_path):
    first = trained[0] / "bridge"
    begin = ["--set", f"training.initial={first}", "--set", "training.bridge.learning_rate=1e-9"]
    result = train(store, tmp_path / "m", *TWO, *begin, steps=2)
    assert result.exit_code == 0, result.output
    own, begun = (SinogramBridgePipeline.from_pretrained(folder).network.state_dict()
                  for folder in (first, tmp_path / "m" / "bridge"))
    for name, value in own.items():
        torch.testing.assert_close(begun[name], value, rtol=0, atol=1e-6)
    assert json.loads((tmp_path / "m" / "bridge" / "training.json").read_text())["settings"]["training"][
        "initial"] == str(first)
    # One of another store has seen patients that the card would not name; other layers have no weights to take.
    for other, more, words in ((write_store(tmp_path / "s", 16, seed=9), (), "trained on this store"),
                               (store, ("--set", "network.token_dim=24"), "layers of network in the settings")):
        result = train(other, tmp_path / "n", *TWO, *begin, *more)
        assert result.exit_code == 2
        assert words in result.stderr
        assert len(result.stderr.strip().splitlines()[-1:]) == 1


def test_a_training_goes_on_with_its_own_store_alone(trained, store, tmp_path):
    out = tmp_path / "m"
    (out / "bridge").mkdir(parents=True)
    card = json.loads((trained[0] / "bridge" / "training.json").read_text()) | {"stages": {}}
    (out / "bridge" / "training.json").write_text(json.dumps(card))
    other = write_store(tmp_path / "other", 16, seed=1)
    result = train(other, out, *TWO, "--resume")
    assert result.exit_code == 2
    assert "store must be the one that the training was begun with" in result.output
    assert not (out / "pairs-train.npz").exists()


def test_methods_share_a_simulated_cohort_and_its_pairs(tmp_path):
    out, methods, more = tmp_path / "m", ("unet", "cyclegan"), ["--set", "cohort.patients=23"]
    for method in methods:
        result = train(None, out, "--task", "low-dose", "--method", method, *more, steps=2)
        assert result.exit_code == 0, result.output
        assert ("making pairs" in result.stderr) == (method == methods[0])
        pipe = UNetPipeline.from_pretrained(out / method)
        assert pipe.card["method"] == method
        assert pipe(np.full((16, 16), 5), task="low-dose", dose_factor=10).spread is None
    before = {path: path.stat().st_mtime_ns for path in (out / "unet").rglob("*") if path.is_file()}
    (out / "notes.txt").write_text("mine")
    result = train(None, out, "--task", "all", "--method", "cyclegan", "--overwrite", "--set", "training.seed=3", *more,
                   steps=2)
    assert result.exit_code == 0, result.output
    card = json.loads((out / "cyclegan" / "training.json").read_text())
    assert card["seeds"] == {"training": 3}
    assert card["tasks"] == list(TASKS)
    assert {path: path.stat().st_mtime_ns for path in (out / "unet").rglob("*") if path.is_file()} == before
    assert (out / "notes.txt").read_text() == "mine"


def test_a_killed_training_goes_on_with_the_losses_of_an_unbroken_one(store, tmp_path):
    out, how = tmp_path / "m", ["--task", "low-dose"]
    program = "from allpet_physics.cli import main\nmain()"
    command = [sys.executable, "-c", program, "train", *quick(16, 40), "--store", store, "--out", out, *how,
               "--set", "training.checkpoint_minutes=0"]
    process = subprocess.Popen([str(c) for c in command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env=os.environ | {"PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1",
                                                 "NUMBA_NUM_THREADS": "1"})  # as one_thread here
    began = time.monotonic()
    while latest_checkpoint(out / "bridge-training") is None and time.monotonic() - began < 300:
        time.sleep(0.01)
    process.kill()
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == -9, stderr
    at = int(latest_checkpoint(out / "bridge-training").name.removeprefix("step-"))
    assert 0 < at < 40
    assert not (out / "bridge" / "model_index.json").exists()
    refused = train(store, out, *how, steps=40)
    assert refused.exit_code == 2
    assert "--resume" in refused.output
    result = train(store, out, *how, "--resume", steps=40)
    assert result.exit_code == 0, result.output
    assert train(store, tmp_path / "whole", *how, steps=40).exit_code == 0
    assert losses(out, "bridge") == losses(tmp_path / "whole", "bridge")
    weights = "bridge/network/diffusion_pytorch_model.safetensors"
    assert (out / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()


@pytest.mark.parametrize(("more", "code", "sentence"), [
    (["--task", "denoising"], 2, "--task must be one of low-dose, .*, or all, but was 'denoising'"),
    ([*TWO, "--method", "magic"], 2, "magic"),
    ([*TWO, "--stage", "denoiser"], 2, "--stage belongs to the training of a generator"),
    (["--method", "unet"], 2, "--method belongs to the training of translations"),
    ([*TWO, "--config", "medium"], 2, "--config must be tiny, small or a TOML file for translations, but was 'medium'"),
    ([*TWO, "--set", "masks.n_blocks=[1,2]"], 2, "masks was given"),
    ([*TWO, "--set", "data.per_region=2"], 2, "must hold 2 train slices of each region, but has 1.*lower data.per_reg"),
    ([*TWO, "--set", "training.validation=30"], 2, "2 validation slices of each region.*lower training.validation"),
    ([*TWO, "--set", "cohort.size=32"], 3, "must have sinograms of 32 x 32.*has 16 x 16"),
    ([*TWO, "--set", "network.patch=32"], 3, "multiples of 64"),
    ([*TWO, "--set", "training.precision=fp16"], 2, "without a GPU"),
    ([*TWO, "--set", "training.bridge.batch=1000000000"], 2, "training the bridge with a batch of 1000000000 needs"),
    ([*TWO, "--store", "nowhere"], 2, "there is none at .*nowhere"),
    ([*TWO, "--resume", "--overwrite"], 2, "give one of them")])
def test_mistakes_end_with_a_sentence_and_a_code_before_long_work(store, tmp_path, more, code, sentence):
    result = train(store, tmp_path / "m", *more, "--json")
    assert result.exit_code == code, result.output
    assert re.search(sentence, result.output), result.output
    assert json.loads(result.stdout)["exit_code"] == code
    assert not (tmp_path / "m").exists()


def test_two_tracers_are_asked_for_where_a_task_needs_them(tmp_path):
    one = write_store(tmp_path / "one", 16, tracers=("FDG",))
    result = train(one, tmp_path / "m", *TWO)
    assert result.exit_code == 2
    assert "tracer-separation need two and it has 18F-FDG alone" in result.output
    assert not (tmp_path / "m").exists()


def test_what_is_planned_is_checked_before_it_is_simulated(tmp_path):
    result = train(None, tmp_path / "m", *TWO, "--set", "data.per_region=9")
    assert result.exit_code == 2
    assert "raise cohort.patients, or lower data.per_region" in result.output
    assert not (tmp_path / "m").exists()


def test_memory_is_counted_by_batch_and_method():
    geometry = ParallelGeometry(32, 32, 20.8, (32, 32), 20.8)
    small, large = (read_settings("tiny", {"training.unet.batch": n, "training.cyclegan.batch": n}, "translation-")
                    for n in (2, 8))
    few, many = (translation_memory(s, geometry, "unet") for s in (small, large))
    assert many.activations == pytest.approx(4 * few.activations, rel=0.02)
    assert many.fixed == few.fixed
    assert translation_memory(small, geometry, "cyclegan").total > 2 * few.total
