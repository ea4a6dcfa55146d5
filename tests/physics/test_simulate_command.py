"""`allpet simulate` survives kills and mistakes; `allpet info` describes, verifies and draws what it wrote."""

import json
import os
import signal
import subprocess

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from allpet_physics.cli import cli
from allpet_physics.io import store
from allpet_physics.simulation.cohort import cohort_parameters, make_cohort
from allpet_physics.simulation.cohort_reader import read_cohort

from .shard_tasks import alive, contents, python, wait_for

RUN = "from allpet_physics.cli import main\nmain()"
#: Three shards, a second or two of work in all.
TWENTY = ["--patients", "20", "--seed", "3", "--size", "64", "--quiet"]


def allpet(*arguments):
    return CliRunner().invoke(cli, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("cohort") / "s"
    result = allpet("simulate", "--out", path, *TWENTY)
    assert result.exit_code == 0, result.output
    return path


def test_it_writes_what_the_library_makes(written):
    parameters = cohort_parameters(20, seed=3, size=64)
    card = json.loads((written / "card.json").read_text())
    assert card["parameters"] == json.loads(json.dumps(parameters))
    found, made = store.open_store(written), make_cohort(parameters, np.array([7, 8]))
    for name, values in made.items():
        np.testing.assert_array_equal(found[name][7:9], values, err_msg=name)
    assert len(read_cohort(written)) == 60
    assert store.verify(written) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_twenty_patients_killed_and_resumed_are_the_same_bytes(tmp_path, written, workers):
    path = tmp_path / "s"
    process = subprocess.Popen(python(RUN, "simulate", "--out", path, *TWENTY, "--workers", workers),
                               stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(lambda: len(list(path.glob("records/*.sha256"))) >= 1)
    process.send_signal(signal.SIGSTOP)  # it must not end while its children are looked for
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False)
    process.kill()
    process.communicate(timeout=30)
    wait_for(lambda: not any(alive(pid) for pid in children.stdout.split()))
    assert "manifest.sha256" not in contents(path)
    kept = store.describe(path)["shards_done"]
    assert 0 < kept < 3
    result = allpet("simulate", "--out", path, *TWENTY, "--resume", "--json")
    assert json.loads(result.stdout)["kept"] == kept
    assert contents(path) == contents(written)


def test_ctrl_c_keeps_what_is_done(tmp_path, written):
    path = tmp_path / "s"
    process = subprocess.Popen(python(RUN, "simulate", "--out", path, *TWENTY, "--json"), stderr=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(lambda: len(list(path.glob("records/*.sha256"))) >= 1)
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert json.loads(stdout)["exit_code"] == 130
    described = allpet("info", path)
    assert described.exit_code == 0
    assert "of 3 shards done" in described.stdout
    assert "sinograms of brain with 18F-FDG" in described.stdout
    assert allpet("simulate", "--out", path, *TWENTY, "--resume").exit_code == 0
    assert contents(path) == contents(written)


def test_a_dask_cluster_writes_the_same_bytes(tmp_path, written):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None,
                                  protocol="tcp") as cluster:
        result = allpet("simulate", "--out", tmp_path / "s", *TWENTY, "--scheduler", cluster.scheduler_address)
        assert result.exit_code == 0, result.output
    assert contents(tmp_path / "s") == contents(written)


def test_another_cohort_is_not_mixed_in(written):
    before = contents(written)
    for options, words in ((["--seed", 4], "seed was 3 and is now 4"), (["--counts", 1e6], "settings.head.counts"),
                           (["--split", "0.5:0.2:0.3"], "split.train was 0.7 and is now 0.5")):
        result = allpet("simulate", "--out", written, *TWENTY, *options, "--resume")
        assert result.exit_code == 2
        assert words in result.output
    assert allpet("simulate", "--out", written, *TWENTY).exit_code == 2
    assert contents(written) == before


def test_a_dry_run_foretells_the_size_and_writes_nothing(tmp_path, written):
    result = allpet("simulate", "--out", tmp_path / "s", *TWENTY, "--dry-run", "--json")
    assert not list(tmp_path.iterdir())
    report = json.loads(result.stdout)
    assert (report["result"], report["samples"]) == ("dry run", 60)
    assert report["bytes"] == pytest.approx(store.describe(written)["bytes"], rel=0.25)


def test_choices_reach_the_store(tmp_path):
    (tmp_path / "split.json").write_text('{"train": [0, 2], "test": [1]}')
    result = allpet("simulate", "--out", tmp_path / "s", "--patients", 3, "--size", 32, "--regions", "brain,chest",
                    "--tracers", "fdg", "--slices", 1, "--lesions", 1, "--split", tmp_path / "split.json", "--json",
                    "--delayed-min", 80, 90, "--counts", 5e4, "--scatter-fraction", 0, "--psf-mm", 5)
    assert result.exit_code == 0, result.output
    cohort = read_cohort(tmp_path / "s")
    assert cohort.classes == {"brain with 18F-FDG": 2, "chest with 18F-FDG": 1}
    assert cohort.splits.tolist() == ["train", "test", "train"]
    assert cohort.settings.delayed_min == (80, 90)
    assert cohort.settings.body.counts == cohort.settings.head.counts == 5e4
    assert not cohort.study(1).scan("FDG").scatter.any()
    assert len(json.loads(result.stdout)["arrays"]) == 18


@pytest.mark.parametrize(("options", "words"), [
    (["--scatter-fraction", "1"], "must be S/(T+S), from 0 to below 1"),
    (["--randoms-fraction", "1.5"], "must be R/(T+S+R), from 0 to below 1"),
    (["--regions", "leg"], "must be different ones"),
    (["--tracers", "water"], "must be one of 18F-FDG"), (["--split", "1:2"], "fractions train:validation:test"),
    (["--split", "0.9:0.2:0.2"], "add up to 1"), (["--split", "none.json"], "could not be read"),
    (["--delayed-min", "65", "80"], "must start after the first frame"), (["--counts", "0"], "must be"),
    (["--counts", "1e12"], "--counts must leave every bin at or below 4,294,967,295"),
    (["--uptake", "none.csv"], "must be a readable CSV file"), (["--patients", "0"], "--patients"),
    (["--resume", "--overwrite"], "give one of them"),
    (["--workers", "2", "--scheduler", "tcp://x:1"], "--workers is for local")])
def test_mistakes_are_one_sentence(tmp_path, options, words):
    result = allpet("simulate", "--out", tmp_path / "s", "--patients", 2, "--size", 32, *options)
    assert result.exit_code == 2, result.output
    assert words in result.output
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


def test_a_patient_on_both_sides_is_refused(tmp_path):
    (tmp_path / "split.json").write_text('{"train": [0, 1], "test": [1, 2]}')
    result = allpet("simulate", "--out", tmp_path / "s", "--patients", 3, "--split", tmp_path / "split.json")
    assert result.exit_code == 2
    assert "patient 1 stood on more than one" in result.output
    assert not (tmp_path / "s").exists()


def test_info_describes_and_verifies(tmp_path, written):
    result = allpet("info", written, "--verify", "--json", "--quiet")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["complete"] is True
    assert report["problems"] == []
    assert report["classes"]["brain with 18F-FDG"] == 21
    assert {name: n["patients"] for name, n in report["split"].items()} == {"train": 14, "validation": 2, "test": 4}
    assert sum(n["slices"] for n in report["split"].values()) == 60
    masks = tmp_path / "m"
    drawn = allpet("masks", "--out", masks, "--dmm", "--samples", 9, "--size", 64, "--block-px", 8, "--quiet")
    assert drawn.exit_code == 0
    result = allpet("info", masks, "--verify", "--quiet")
    assert result.exit_code == 0
    assert "masks, 9 samples, complete" in result.stdout
    victim = masks / "blocks" / "c" / "0" / "0" / "0"
    victim.write_bytes(victim.read_bytes()[:-3])
    result = allpet("info", masks, "--verify", "--quiet")
    assert result.exit_code == 1
    assert "blocks/c/0/0/0: damaged" in result.stdout
    result = allpet("info", masks, "--contact-sheet", tmp_path / "x.png")
    assert result.exit_code == 2
    assert "needs a cohort" in result.output
    result = allpet("info", tmp_path / "nothing")
    assert result.exit_code == 2
    assert "a store is a folder" in result.output


def test_info_draws_a_contact_sheet(tmp_path, written):
    png = tmp_path / "sheet.png"
    result = allpet("info", written, "--contact-sheet", png, "--quiet")
    assert result.exit_code == 0, result.output
    sheet = np.asarray(Image.open(png))
    assert sheet.ndim == 2
    assert min(sheet.shape) > 800
    assert sheet.min() < 30  # something dark was drawn
    assert (sheet == 255).mean() > 0.3  # on white
    assert allpet("info", written, "--contact-sheet", png).exit_code == 2
    assert allpet("info", written, "--contact-sheet", tmp_path / "sheet.pdf").exit_code == 2
