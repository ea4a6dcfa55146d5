"""`allpet train`: what it leaves, what it refuses, how it is stopped and goes on."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from allpet_gen.checkpoints import checkpoints, latest_checkpoint
from allpet_gen.training_card import store_digest
from allpet_gen.training_log import read_losses
from allpet_physics.cli import cli
from allpet_physics.simulation.cohort import cohort_parameters, write_cohort
from allpet_physics.simulation.cohort_reader import read_cohort

from .training_helpers import loss_lines

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).resolve().parents[2]
SPLIT = {"train": [0, 1, 2], "validation": [3, 4, 5]}
#: Networks of some thousand weights, four steps each.
SMALLEST = """
[cohort]
size = 16
[data]
per_class = 2
[masks]
n_blocks = [1, 2]
block_px = [2, 4]
[augmentation]
views = 2
[autoencoder]
patch = 2
block_out_channels = [8, 8]
norm_num_groups = 4
mid_attention = false
[denoiser]
block_out_channels = [16, 16]
attention_levels = [false, true]
attention_head_dim = 2
token_dim = 8
norm_num_groups = 4
[training]
precision = "no"
workers = 0
validation = 3
[training.autoencoder]
steps = 4
batch = 2
[training.denoiser]
steps = 4
batch = 2
"""


def train(*arguments):
    return CliRunner().invoke(cli, ["train", *(str(a) for a in arguments)])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a store, ``s``, and settings, ``c.toml``."""
    folder = tmp_path_factory.mktemp("train")
    write_cohort(folder / "s", cohort_parameters(6, size=16, n_slices=2, tracers=("FDG",), split=SPLIT))
    (folder / "c.toml").write_text(SMALLEST)
    return folder


@pytest.fixture(scope="module")
def given(place):
    return ["--config", place / "c.toml", "--store", place / "s"]


@pytest.fixture(scope="module")
def trained(place, given):
    result = train(*given, "--out", place / "m", "--json")
    assert result.exit_code == 0, result.output
    return place / "m", json.loads(result.stdout), result.stderr


def losses(out, stage):
    return loss_lines(out / f"{stage}-training")


def test_it_leaves_a_model_and_a_card_that_says_how(trained, place):
    out, printed, said = trained
    card = json.loads((out / "training.json").read_text())
    assert printed["stages"] == card["stages"]
    assert printed["exit_code"] == 0
    for name in ("autoencoder", "denoiser"):
        assert (out / name / "diffusion_pytorch_model.safetensors").is_file()
        assert card["stages"][name]["steps"] == 4
        found = read_losses(out / f"{name}-training")
        assert card["stages"][name]["losses"]["loss"] == pytest.approx(np.mean(list(found["loss"].values())))
        assert card["stages"][name]["validation_loss"] == found["validation"][4]
        assert f"training the {name} ..." in said
    assert json.loads((out / "scheduler" / "scheduler_config.json").read_text())["prediction_type"] == "v_prediction"
    cohort = read_cohort(place / "s")
    assert card["store"]["sha256"] == store_digest(cohort)
    assert card["patients"] == {"train": [0, 1, 2], "validation": [3, 4, 5]}
    assert card["settings"]["data"]["per_class"] == 2
    assert card["versions"]["torch"] == torch.__version__
    assert str(place) not in (out / "training.json").read_text()
    assert not list(out.glob(".*"))


def test_the_pipeline_loads_what_it_left(trained):
    from allpet_gen.pipelines import SinogramGenerationPipeline

    out = SinogramGenerationPipeline.from_pretrained(trained[0])("brain with 18F-FDG", count=2, steps=2, seed=1)
    assert out.sinograms.shape == (2, 16, 16)
    assert out.sinograms.min() >= 0


def test_the_same_command_trains_the_same_weights_in_two_parts(trained, given, tmp_path):
    assert train(*given, "--out", tmp_path / "m", "--stage", "autoencoder", "--quiet").exit_code == 0
    assert not (tmp_path / "m" / "model_index.json").exists()
    result = train("--config", given[1], "--out", tmp_path / "m", "--stage", "denoiser", "--quiet")
    assert result.exit_code == 0, result.output
    for name in ("autoencoder", "denoiser"):
        assert losses(tmp_path / "m", name) == losses(trained[0], name)
        weights = f"{name}/diffusion_pytorch_model.safetensors"
        assert (tmp_path / "m" / weights).read_bytes() == (trained[0] / weights).read_bytes()


@pytest.mark.parametrize("extra", [(), ("--method", "sgm")])
def test_a_training_goes_on_in_the_precision_of_the_machine_that_began_it(given, tmp_path, monkeypatch, extra):
    tiny = ["--set", "training.precision=auto", "--set", "sgm.patch=2", "--set", "training.sgm.steps=1", "--set",
            "training.sgm.batch=2", "--out", tmp_path / "m"]
    here = ["allpet_gen.training_settings.device_precision", "allpet_gen.settings.device_precision"]
    for name in here:
        monkeypatch.setattr(name, lambda: "bf16")
    begun = train(*given, *tiny, *extra, *(() if extra else ("--stage", "autoencoder")))
    assert begun.exit_code == 0, begun.output
    assert "no instructions" not in begun.stderr
    path = tmp_path / "m" / (extra[1] if extra else "") / "training.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"stages": {}}))  # as if it had not ended
    for name in here:
        monkeypatch.setattr(name, lambda: "no")
    again = train(*given, *tiny, *extra, "--resume")
    assert again.exit_code == 0, again.output
    assert "begun in bfloat16, for which this machine has no instructions" in again.stderr
    assert json.loads(path.read_text())["settings"]["training"]["precision"] == "bf16"


def test_a_training_is_not_replaced_unless_asked(trained, given, tmp_path):
    out = trained[0]
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    result = train(*given, "--out", out)
    assert result.exit_code == 2
    assert "--resume to go on with it, --overwrite to replace it" in result.output
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before
    again = train(*given, "--out", out, "--resume", "--json")
    assert again.exit_code == 0
    assert json.loads(again.stdout)["stages"] == trained[1]["stages"]


def test_overwrite_begins_anew_and_leaves_other_files_alone(given, tmp_path):
    out = tmp_path / "m"
    assert train(*given, "--out", out, "--stage", "autoencoder").exit_code == 0
    (out / "notes.txt").write_text("mine")
    result = train(*given, "--out", out, "--stage", "autoencoder", "--overwrite", "--set", "training.seed=3")
    assert result.exit_code == 0, result.output
    assert json.loads((out / "training.json").read_text())["seeds"] == {"training": 3}
    assert (out / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(("arguments", "code", "sentence"), [
    (["--set", "training.sed=1"], 2, "training.sed was given"),
    (["--set", "training.seed"], 2, "name=value"),
    (["--set", "data.per_class=3"], 2, "must hold 3 train sinograms of each class, but has 2"),
    (["--set", "cohort.size=32"], 3, "must have sinograms of 32 x 32.*has 16 x 16"),
    (["--set", "autoencoder.patch=32"], 3, "multiples of 64"),
    (["--set", "training.denoiser.batch=0"], 2, "error: training.denoiser.batch must be 1 or more"),
    (["--set", "training.denoiser.batch=1000000000"], 2,
     "denoiser with a batch of 1000000000 needs .* lower training.denoiser.batch to .* raise training.accumulation"),
    (["--stage", "denoiser"], 2, "must hold a trained autoencoder"),
    (["--store", "nowhere"], 2, "there is none at .*nowhere"),
    (["--config", "huge"], 2, "--config must be one of tiny, .*, but 'huge' is neither a size nor a file"),
    (["--resume", "--overwrite"], 2, "give one of them"),
    (["--set", "training.autoencoder.learning_rate=1e30", "--set", "training.clip=1e30"], 1, "must stay finite")])
def test_mistakes_end_with_a_sentence_and_a_code(given, tmp_path, arguments, code, sentence):
    result = train(*given, "--out", tmp_path / "m", *arguments, "--json")
    assert result.exit_code == code, result.output
    assert re.search(sentence, result.output), result.output
    assert json.loads(result.stdout)["exit_code"] == code
    if code != 1:
        assert not (tmp_path / "m").exists()


def test_resuming_with_other_settings_or_data_is_refused(trained, given, place):
    for change in ("masks.block_px=[2, 5]", "autoencoder_loss.kl=1e-4", "training.seed=2"):
        result = train(*given, "--out", trained[0], "--resume", "--set", change)
        assert result.exit_code == 2
        assert f"{change.partition('=')[0]} was" in result.output
    write_cohort(place / "other", cohort_parameters(6, seed=1, size=16, n_slices=2, tracers=("FDG",), split=SPLIT))
    result = train("--config", given[1], "--store", place / "other", "--out", trained[0], "--resume")
    assert result.exit_code == 2
    assert "store must be the one that the training was begun with" in result.output


def test_ctrl_c_writes_a_checkpoint_and_resume_gives_the_losses_of_an_unbroken_run(given, tmp_path):
    out, steps = tmp_path / "m", ["--set", "training.autoencoder.steps=60", "--stage", "autoencoder"]
    program = "import torch; torch.set_num_threads(1)\nfrom allpet_physics.cli import main\nmain()"
    command = [sys.executable, "-c", program, "train", *given, "--out", out, *steps, "--json"]
    process = subprocess.Popen([str(c) for c in command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, env=os.environ | {"PYTHONWARNINGS": "ignore"})
    began, table = time.monotonic(), out / "autoencoder-training" / "losses.csv"
    while (not table.exists() or table.read_text().count(",loss,") < 3) and time.monotonic() - began < 120:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert re.search(r"stopped after step \d+ of 60; the checkpoint is written: go on with --resume", stderr)
    assert json.loads(stdout)["exit_code"] == 130
    done = len(read_losses(table.parent)["loss"])
    assert latest_checkpoint(table.parent).name == f"step-{done:08d}"
    assert not (out / "autoencoder").exists()
    result = train(*given, "--out", out, *steps, "--resume")
    assert result.exit_code == 0, result.output
    assert train(*given, "--out", tmp_path / "whole", *steps).exit_code == 0
    assert losses(out, "autoencoder") == losses(tmp_path / "whole", "autoencoder")


def test_a_damaged_last_checkpoint_is_said_and_passed_over(given, tmp_path):
    out, steps = tmp_path / "m", ["--set", "training.checkpoint_minutes=0", "--stage", "autoencoder"]
    assert train(*given, "--out", out, *steps).exit_code == 0
    last = latest_checkpoint(out / "autoencoder-training")
    (last / "weights.safetensors").write_bytes(b"")
    card = json.loads((out / "training.json").read_text()) | {"stages": {}}
    (out / "training.json").write_text(json.dumps(card))
    result = train(*given, "--out", out, *steps, "--resume")
    assert result.exit_code == 0, result.output
    assert re.search(r"warning: .*step-00000004.*goes on from step-00000003", result.output)
    assert [folder.name for folder in checkpoints(out / "autoencoder-training")] == ["step-00000003", "step-00000004"]


NO_TORCH = """
import importlib.abc, importlib.util, sys
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "torch" else real(name, package)
class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
from allpet_physics.cli import main
main()
"""


def test_without_torch_one_sentence_says_what_to_install(tmp_path):
    done = subprocess.run([sys.executable, "-c", NO_TORCH, "train", "--out", str(tmp_path / "m")], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "torch is not installed" in done.stderr
    assert "pip install" in done.stderr


def test_its_help_has_an_example_and_imports_no_torch():
    program = ("import sys\nfrom click.testing import CliRunner\nfrom allpet_physics.cli import cli\n"
               "done = CliRunner().invoke(cli, ['train', '--help'])\n"
               "assert 'allpet train --config tiny' in done.output\n"
               "assert not {'torch', 'diffusers', 'accelerate'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


@pytest.mark.parametrize("part", ["format", "settings", "store", "stages"])
def test_a_card_that_lacks_a_part_is_one_sentence(trained, given, tmp_path, part):
    card = json.loads((trained[0] / "training.json").read_text())
    del card[part]
    (tmp_path / "training.json").write_text(json.dumps(card))
    result = train(*given, "--out", tmp_path, "--resume")
    assert result.exit_code == 2, result.output
    assert re.search(r"error: training\.json .*; restore it, or begin anew with --overwrite\.$", result.output.strip())


@pytest.mark.slow
def test_tiny_loop(tmp_path):
    """Simulate, train both networks, save, load, generate: the whole chain at the size made for it."""
    from allpet_gen.pipelines import SinogramGenerationPipeline

    result = train("--config", "tiny", "--out", tmp_path / "m", "--json")
    assert result.exit_code == 0, result.output
    for name in ("autoencoder", "denoiser"):
        found = list(read_losses(tmp_path / "m" / f"{name}-training")["loss"].values())
        assert np.mean(found[-20:]) < 0.7 * np.mean(found[:20]), name
    cohort = read_cohort(tmp_path / "m" / "cohort.zarr", split="train")
    assert set(np.unique(cohort.patients)) >= set(json.loads((tmp_path / "m" / "training.json").read_text())[
        "patients"]["train"])
    pipe = SinogramGenerationPipeline.from_pretrained(tmp_path / "m")
    made = pipe("brain with 18F-FDG", count=4, seed=0, steps=10)
    again = pipe("brain with 18F-FDG", count=4, seed=0, steps=10)
    np.testing.assert_array_equal(made.sinograms, again.sinograms)
    assert made.geometry == cohort.geometry
    # Not a picture to look at, but counts of the right order, within the field of view.
    real = cohort.select(region="head").prompts(slice(None), "FDG").sum(axis=(1, 2)).mean()
    assert 0.2 < made.sinograms.sum(axis=(1, 2)).mean() / real < 5


@pytest.mark.parametrize(("change", "code", "words"), [("training.precision=fp16", 2, "without a GPU"),
                                                       ("masks.block_px=[4,64]", 3, "block_px")])
def test_what_cannot_work_is_refused_before_an_older_training_is_removed(tmp_path, change, code, words):
    old = tmp_path / "m"
    (old / "autoencoder").mkdir(parents=True)
    (old / "model_index.json").write_text("{}")
    result = train("--config", "tiny", "--overwrite", "--set", change, "--out", old)
    assert result.exit_code == code
    assert words in result.output
    assert (old / "model_index.json").exists()
    assert (old / "autoencoder").is_dir()
    assert not (old / "cohort.zarr").exists()


def test_the_denoiser_alone_cannot_replace_what_it_needs(tmp_path):
    result = train("--config", "tiny", "--stage", "denoiser", "--overwrite", "--out", tmp_path / "m")
    assert result.exit_code == 2
    assert "--overwrite must not be given with --stage denoiser" in result.output
