"""Mask datasets: what is stored is what the samplers draw, and `allpet masks` survives kills and mistakes."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from allpet_physics.cli import cli
from allpet_physics.errors import GeometryError, InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.io import store
from allpet_physics.mask_dataset import (
    expected_bytes,
    make_masks,
    mask_arrays,
    mask_parameters,
    mask_sampler,
    stored_blocks,
)
from allpet_physics.mask_projection import normalise_mask, project_blocks
from allpet_physics.masks import DynamicMultiMask, block_catalogue

from .shard_tasks import alive, contents, python, wait_for

DMM = DynamicMultiMask((48, 40), (1, 5), (3, 9), seed=11)
CATALOGUE = block_catalogue((48, 40), (8, 6), (2, 3))
GEOMETRY = ParallelGeometry(30, 70, 1.1, (48, 40), 1.3)
RUN = "from allpet_physics.cli import main\nmain()"


def allpet(*arguments):
    return CliRunner().invoke(cli, ["masks", *map(str, arguments)])


@settings(max_examples=20, deadline=None)
@given(n_blocks=st.tuples(st.integers(1, 3), st.integers(3, 6)), placement=st.sampled_from(["free", "grid"]),
       seed=st.integers(0, 2**64 - 1), samples=st.lists(st.integers(0, 2**40), min_size=1, max_size=9))
def test_stored_parameters_are_those_drawn(n_blocks, placement, seed, samples):
    sampler = DynamicMultiMask((48, 40), n_blocks, (2, 10), seed=seed, placement=placement)
    parameters = json.loads(json.dumps(mask_parameters(sampler)))
    assert mask_sampler(parameters) == sampler
    made = make_masks(parameters, np.array(samples))
    assert {name: (a.shape[1:], a.dtype.name) for name, a in made.items()} == mask_arrays(parameters)
    for i, sample in enumerate(samples):
        drawn = sampler.draw(sample)
        assert stored_blocks(made["blocks"][i], (48, 40)) == drawn
        assert made["n_blocks"][i] == len(drawn.parameters)
        assert (made["blocks"][i, made["n_blocks"][i]:] == -1).all()
    assert stored_blocks(made["blocks"], (48, 40)) == sampler.draw(samples)


def test_the_catalogue_is_stored_in_its_order():
    made = make_masks(mask_parameters(CATALOGUE), np.arange(len(CATALOGUE)))
    assert stored_blocks(made["blocks"], CATALOGUE.image_shape) == CATALOGUE[:]
    assert (made["n_blocks"] == 1).all()


@pytest.mark.parametrize("sampler", [DMM, CATALOGUE])
@pytest.mark.parametrize(("kernel", "normalisation"), [("strip", "linear"), ("gaussian", "clip"), ("strip", "none")])
def test_sinograms_are_the_projected_blocks(sampler, kernel, normalisation):
    parameters = mask_parameters(sampler, geometry=GEOMETRY, kernel=kernel, normalisation=normalisation)
    samples = np.array([5, 0, 17])
    made = make_masks(json.loads(json.dumps(parameters)), samples)
    blocks = sampler.draw(samples) if sampler is DMM else sampler[samples]
    projected = np.maximum(project_blocks(blocks, GEOMETRY, kernel=kernel), 0)
    wanted = projected if normalisation == "none" else normalise_mask(projected, normalisation)
    np.testing.assert_array_equal(made["sinograms"], wanted)
    assert made["sinograms"].dtype == np.float32
    if normalisation == "linear":
        np.testing.assert_array_equal(made["sinograms"].max(axis=(1, 2)), 1)


def test_bad_settings_are_refused():
    with pytest.raises(InputError, match="sampler"):
        mask_parameters((48, 40))
    with pytest.raises(InputError, match="kernel"):
        mask_parameters(DMM, geometry=GEOMETRY, kernel="square")
    with pytest.raises(InputError, match="normalisation"):
        mask_parameters(DMM, geometry=GEOMETRY, normalisation="max")
    with pytest.raises(GeometryError, match="image_shape"):
        mask_parameters(DMM, geometry=GEOMETRY.replace(image_shape=(40, 48)))
    with pytest.raises(InputError, match="shape"):
        stored_blocks(np.zeros((3, 5)), (48, 40))


def test_the_command_writes_what_the_library_draws(tmp_path):
    result = allpet("--out", tmp_path / "s", "--dmm", "--samples", 40, "--blocks", "2:4", "--block-px", 6, "--size", 64,
                    "--seed", 9, "--placement", "grid", "--sinograms", "--arc", "2pi", "--statistics",
                    tmp_path / "s.png", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["result"], report["samples"], report["made"]) == ("done", 40, 1)
    assert report["bytes"] == store.describe(tmp_path / "s")["bytes"]
    drawn = DynamicMultiMask((64, 64), (2, 4), 6, 9, "grid").draw(range(40))
    group = zarr.open(tmp_path / "s", mode="r")
    assert stored_blocks(group["blocks"][:], (64, 64)) == drawn
    geometry = ParallelGeometry.preset("network-64").replace(arc=2 * np.pi)
    np.testing.assert_allclose(group["sinograms"][:], normalise_mask(project_blocks(drawn, geometry)), atol=1e-6)
    assert report["statistics"]["n_sets"] == 40
    assert (tmp_path / "s.png").read_bytes()[:4] == b"\x89PNG"
    assert store.verify(tmp_path / "s") == []


def test_the_catalogue_command(tmp_path):
    result = allpet("--out", tmp_path / "s", "--catalogue", "--block", 60, "--preset", "network-64")
    assert result.exit_code == 0, result.output
    assert "25 samples of 64 x 64 px" in result.stdout
    assert stored_blocks(store.open_store(tmp_path / "s")["blocks"][:], (64, 64)) == block_catalogue((64, 64), 60)[:]


@pytest.mark.parametrize("options", [["--sinograms"], []])
def test_a_dry_run_foretells_the_size_and_writes_nothing(tmp_path, options):
    arguments = ["--out", tmp_path / "s", "--dmm", "--samples", 600, "--size", 96, "--block-px", "8:16", *options]
    foretold = json.loads(allpet(*arguments, "--dry-run", "--json").stdout)
    assert foretold["result"] == "dry run"
    assert not list(tmp_path.iterdir())
    assert allpet(*arguments).exit_code == 0
    assert foretold["bytes"] == pytest.approx(store.describe(tmp_path / "s")["bytes"], rel=0.25)


def test_the_whole_catalogue_of_the_paper_is_small():
    assert expected_bytes(mask_parameters(block_catalogue((512, 512), 64)), 201_601) < 5e6


@pytest.mark.parametrize(("options", "code", "words"), [
    ([], 2, "either --catalogue or --dmm"), (["--dmm"], 2, "--samples"),
    (["--dmm", "--samples", "3", "--stride", "2"], 2, "--stride can only be used with --catalogue"),
    (["--catalogue", "--seed", "1"], 2, "--seed can only be used with --dmm"),
    (["--catalogue", "--kernel", "line"], 2, "with --sinograms"),
    (["--catalogue", "--preset", "network-64", "--size", "64"], 2, "leave --size out"),
    (["--dmm", "--samples", "3", "--blocks", "1-6"], 2, "MIN:MAX"),
    (["--dmm", "--samples", "3", "--blocks", "4:2"], 2, "--blocks"),
    (["--dmm", "--samples", "3", "--blocks", "99", "--size", "64"], 3, "--blocks must be at most 16"),
    (["--catalogue", "--block", "65", "--size", "64"], 3, "--block must fit"),
    (["--dmm", "--samples", "9", "--blocks", "20", "--block-px", "1:64", "--size", "64"], 3, "could not be packed"),
    (["--catalogue", "--resume", "--overwrite"], 2, "one of them"),
    (["--catalogue", "--workers", "2", "--scheduler", "tcp://x:1"], 2, "--workers is for local"),
    (["--catalogue", "--scheduler", "nonsense://x:1"], 2, "scheduler must be an address"),
    (["--catalogue", "--statistics", "x.pdf"], 2, ".png")])
def test_mistakes_are_one_sentence_and_their_exit_code(tmp_path, options, code, words):
    result = allpet("--out", tmp_path / "s", *options)
    assert result.exit_code == code, result.output
    assert words in result.output
    assert "Traceback" not in result.output
    if "--scheduler" not in options:
        assert not list(tmp_path.iterdir())


def test_another_configuration_is_refused_by_name(tmp_path):
    begun = ["--out", tmp_path / "s", "--dmm", "--samples", 50, "--size", 64, "--block-px", 8]
    assert allpet(*begun).exit_code == 0
    before = contents(tmp_path / "s")
    for options, words in ((["--seed", 4], "seed was 0 and is now 4"), (["--blocks", "1:7"], "--blocks was [1, 6]"),
                           (["--sinograms"], "sinograms was null"), (["--samples", 51], "n_samples was 50")):
        result = allpet(*begun, *options, "--resume")
        assert result.exit_code == 2
        assert words in result.output
    result = allpet(*begun)
    assert result.exit_code == 2
    assert "--resume" in result.output
    assert contents(tmp_path / "s") == before
    result = allpet(*begun, "--resume")
    assert "1 were there already" in result.output
    assert allpet(*begun, "--seed", 4, "--overwrite").exit_code == 0
    assert contents(tmp_path / "s") != before


#: 16 shards of 32 samples, a second or two of work in all.
LONG = ["--dmm", "--samples", "512", "--preset", "digitmi930-512", "--arc", "2pi", "--sinograms", "--quiet"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "s"
    assert allpet("--out", path, *LONG).exit_code == 0
    return contents(path)


def started(path, *options):
    process = subprocess.Popen(python(RUN, "masks", "--out", path, *LONG, *options), stderr=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(lambda: len(list(path.glob("records/*.sha256"))) >= 1)
    return process


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_run_resumes_to_the_same_bytes(tmp_path, uninterrupted, workers):
    path = tmp_path / "s"
    process = started(path, "--workers", workers)
    process.send_signal(signal.SIGSTOP)  # it must not end while its children are looked for
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False)
    process.kill()
    process.communicate(timeout=30)
    wait_for(lambda: not any(alive(pid) for pid in children.stdout.split()))
    left = contents(path)
    assert "manifest.sha256" not in left
    kept = store.describe(path)["shards_done"]
    assert 0 < kept < store.describe(path)["shards"]
    result = allpet("--out", path, *LONG, "--resume", "--json")
    assert json.loads(result.stdout)["kept"] == kept
    assert contents(path) == uninterrupted


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is another thing there")
def test_ctrl_c_keeps_what_is_done(tmp_path, uninterrupted, workers):
    path = tmp_path / "s"
    process = started(path, "--workers", workers, "--json")
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert "go on with --resume" in stderr
    assert json.loads(stdout)["exit_code"] == 130
    assert not (path / ".partial").exists()
    assert allpet("--out", path, *LONG, "--resume").exit_code == 0
    assert contents(path) == uninterrupted


def test_damage_is_found_and_made_good_by_resume(tmp_path, uninterrupted):
    path = tmp_path / "s"
    for name, content in uninterrupted.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    assert store.verify(path) == []
    victim = path / "sinograms" / "c" / "2" / "0" / "0"
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    (found,) = store.verify(path)
    assert found == {"file": "sinograms/c/2/0/0", "shard": 2, "array": "sinograms", "problem": "damaged"}
    assert json.loads(allpet("--out", path, *LONG, "--resume", "--json").stdout)["made"] == 1
    assert contents(path) == uninterrupted


@pytest.mark.parametrize(("options", "code", "words"), [
    (["--dmm", "--samples", "2000", "--blocks", "1:7", "--block-px", "20:50", "--size", "100"], 3, "not be packed"),
    (["--dmm", "--samples", "10", "--scheduler", "nonsense"], 2, "must be an address such as tcp://127.0.0.1:8786"),
])
def test_what_cannot_succeed_leaves_no_store(tmp_path, options, code, words):
    done = allpet(*options, "--out", tmp_path / "m.zarr")
    assert done.exit_code == code
    assert words in done.stderr
    assert not (tmp_path / "m.zarr").exists()


def test_the_catalogue_over_the_full_turn_is_normalised(tmp_path):
    """Its masks meet the diagonal angles where a difference may round below zero, which normalisation refuses."""
    done = allpet("--catalogue", "--block", "15", "--size", "128", "--stride", "5", "--arc", "2pi", "--sinograms",
                  "--out", tmp_path / "m.zarr")
    assert done.exit_code == 0
    assert store.open_store(tmp_path / "m.zarr")["sinograms"][:].min() == 0
