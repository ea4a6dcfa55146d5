"""The generator's part of `allpet demo`, and how the demonstration finds, runs and survives such parts."""

import json
from importlib import metadata

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from allpet_gen import demo_step as step
from allpet_gen._pretrained import shipped_models
from allpet_gen.model_card import measured_classes
from allpet_physics._command_line import Progress
from allpet_physics.cli import cli
from allpet_physics.demo_steps import GROUP, picture_name, run_step
from allpet_physics.errors import InputError

from .tiny_pipeline import GEOMETRY, tiny_pipeline


def point(function):
    """Return an entry point to a function of this module."""
    return metadata.EntryPoint("extra", f"{__name__}:{function.__name__}", GROUP)


def good(folder, progress):
    (folder / "extra.png").write_bytes(b"a picture")
    return {"lines": ["all is well"], "record": {"answer": 42}}


def bad(folder, progress):
    (folder / "extra.png").write_bytes(b"half a pic")
    raise RuntimeError("no luck\ntoday")


def test_a_sinogram_of_every_class_is_drawn_and_told(tmp_path):
    pipe = tiny_pipeline()
    counts = pipe("head", count=4, steps=1, reconstruct=None).sinograms
    pipe.card = {"measured": measured_classes({"brain with FDG": counts}, GEOMETRY)}
    found = step.picture_of_classes(pipe, tmp_path, Progress(quiet=True), steps=2)
    classes = found["record"]["classes"]
    assert len(classes) == 9
    assert len(found["lines"]) == 10
    assert [line.partition("  ")[0] for line in found["lines"][1:]] == list(classes)
    assert "held out" in found["lines"][1]
    assert "measured" in classes["brain with 18F-FDG"]
    assert "measured" not in classes["chest with 18F-FDG"]
    # The third sinogram is the one of the third seed.
    third = pipe(list(classes)[2], seed=step.SEED + 2, steps=2, reconstruct=None)
    assert classes["brain with 68Ga-PSMA"]["counts"] == pytest.approx(third.sinograms.sum(), rel=1e-3)
    json.dumps(found["record"])
    picture = np.asarray(Image.open(tmp_path / step.PICTURE).convert("L"))
    assert min(picture.shape) > 700


def test_without_torch_one_line_says_how_to_get_it(tmp_path, monkeypatch):
    def absent():
        raise InputError('torch is not installed; run: pip install "allpet[gen]"')

    monkeypatch.setattr(step, "require_torch", absent)
    found = step.demo_step(tmp_path, Progress(quiet=True))
    assert len(found["lines"]) == 1
    assert 'pip install "allpet[gen]"' in found["lines"][0]
    assert not list(tmp_path.iterdir())


def test_without_the_model_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("allpet_gen._pretrained.shipped_models", tuple)
    found = step.demo_step(tmp_path, Progress(quiet=True))
    assert len(found["lines"]) == 1
    assert "without the trained model" in found["lines"][0]
    assert not list(tmp_path.iterdir())


def test_the_demonstration_runs_what_it_finds(tmp_path, monkeypatch):
    monkeypatch.setattr("allpet_physics.demo_steps.find_steps", lambda: [point(good)])
    result = CliRunner().invoke(cli, ["demo", "--trues", "1e5", "--out", str(tmp_path / "d"), "--quiet", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["files"] == ["demo.png", "extra.png", "demo.json"]
    assert json.loads((tmp_path / "d" / "demo.json").read_text(encoding="utf-8"))["steps"] == {"extra": {"answer": 42}}
    assert (tmp_path / "d" / "extra.png").read_bytes() == b"a picture"


def test_a_step_that_fails_is_told_and_leaves_nothing(tmp_path):
    found = run_step(point(bad), tmp_path, Progress(quiet=True))
    assert "RuntimeError: no luck today" in found["lines"][0]
    assert found["record"] == {"failed": "RuntimeError"}
    assert not list(tmp_path.iterdir())
    nowhere = metadata.EntryPoint("lost", "no.such.module:step", GROUP)
    assert "ModuleNotFoundError" in run_step(nowhere, tmp_path, Progress(quiet=True))["lines"][0]


def test_the_step_is_an_entry_point_that_writes_its_picture():
    found = {p.name: p for p in metadata.entry_points(group=GROUP)}
    assert found["generated"].load() is step.demo_step
    assert picture_name(found["generated"]) == step.PICTURE


@pytest.mark.skipif(step.MODEL not in shipped_models(), reason="the trained model is not in this copy")
def test_the_demonstration_ends_with_generated_sinograms(tmp_path):
    found = step.demo_step(tmp_path, Progress(quiet=True))
    assert (tmp_path / step.PICTURE).exists()
    assert len(found["record"]["classes"]) == 9
    for about in found["record"]["classes"].values():
        assert 0.5 * about["measured"]["counts"]["low"] < about["counts"] < 2 * about["measured"]["counts"]["high"]
