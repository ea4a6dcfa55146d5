"""`allpet translate` writes what the pipeline makes, in files that other commands read, with a record of how."""

import hashlib
import json
import re
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from allpet_gen.baselines.unet import UNetPipeline
from allpet_gen.translation_picture import Column, translation_picture
from allpet_gen.translation_pipelines import SinogramBridgePipeline
from allpet_physics import ParallelGeometry
from allpet_physics.io.nifti import write_nifti
from allpet_physics.io.sinogram_files import SinogramStack, read_sinogram, write_sinogram
from allpet_physics.io.volume import Volume
from allpet_physics.metrics import psnr
from allpet_physics.simulation.cohort_reader import read_cohort

from .translation_store import allpet, quick, write_store

GEOMETRY = ParallelGeometry(32, 32, 20.8, (32, 32), 20.8)
TASKS = ("low-dose", "tracer-separation", "attenuation-correction")
LOW = ["--task", "low-dose", "--dose-factor", 10, "--tracer", "FDG", "--region", "brain"]
QUICK = ["--steps", 2, "--samples", 3, "--quiet"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a store ``s``, a bridge and a U-Net in ``m``, and low counts in ``low.npz`` and ``low.hs``."""
    folder = tmp_path_factory.mktemp("translate")
    store = write_store(folder / "s", 32)
    tasks = [word for task in TASKS for word in ("--task", task)]
    for method, steps in (("bridge", 30), ("unet", 4)):
        result = allpet("train", *quick(32, steps), *tasks, "--store", store, "--out", folder / "m", "--method", method,
                        "--quiet")
        assert result.exit_code == 0, result.output
    counts = np.random.default_rng(0).binomial(read_cohort(store).prompts([0, 3], "FDG"), 0.1).astype(np.float32)
    stack = SinogramStack(counts, GEOMETRY, unit="counts", slice_mm=4.0, slices=(5, 6), image_unit="SUVbw", scale=7.0)
    for suffix in (".npz", ".hs"):
        write_sinogram(folder / f"low{suffix}", stack)
    return folder


def translate(place, source, out, *more, model="m/bridge"):
    return allpet("translate", place / source, "--model", place / model, "--out", out, *more)


@pytest.fixture(scope="module")
def made(place):
    result = translate(place, "low.npz", place / "made", *LOW, *QUICK, "--seed", 4, "--json")
    assert result.exit_code == 0, result.output
    return place / "made", json.loads(result.stdout)


@pytest.fixture(scope="module")
def direct(place):
    """What the pipeline itself makes of the same counts."""
    low = read_sinogram(place / "low.npz")
    return SinogramBridgePipeline.from_pretrained(place / "m" / "bridge")(
        low.data, task="low-dose", dose_factor=10, tracer="FDG", region="brain", steps=2, n_samples=3, seed=4,
        reconstruct="osem")


def test_files_hold_what_the_pipeline_makes(place, made, direct):
    out, report = made
    low = read_sinogram(place / "low.npz")
    for name, wanted in {"translated": direct.expected, "spread": direct.spread,
                         **{f"sample_{s + 1}": direct.samples[:, s] for s in range(3)}}.items():
        stack = read_sinogram(out / f"{name}.npz")
        np.testing.assert_array_equal(stack.data, wanted)
        np.testing.assert_array_equal(stack.affine, low.affine)
        assert (stack.geometry, stack.unit, stack.slices, stack.slice_mm) == (GEOMETRY, "counts", (5, 6), 4.0)
        assert (stack.image_unit, stack.scale) == ("SUVbw", 70.0)  # ten times the counts of the same image
    image = nib.load(out / "translated_images.nii.gz")
    np.testing.assert_allclose(image.get_fdata().transpose(2, 1, 0), direct.images / 70, rtol=1e-5)
    np.testing.assert_allclose(image.affine, low.image_affine())
    assert nib.load(out / "spread_images.nii.gz").get_fdata().max() > 0
    assert sorted(path.name for path in out.iterdir()) == sorted(report["files"])
    assert len(report["files"]) == 9


def test_the_record_says_how_and_what(made, place, direct):
    out, _ = made
    text = (out / "record.json").read_text(encoding="utf-8")
    record = json.loads(text)
    assert str(place) not in text
    assert record["settings"] | {"seed": 4, "n_samples": 3, "steps": 2, "dose_factor": 10.0} == record["settings"]
    assert record["input"]["files"]["data"]["sha256"] == hashlib.sha256((place / "low.npz").read_bytes()).hexdigest()
    for name, digest in record["files"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    weights = "network/diffusion_pytorch_model.safetensors"
    assert record["model"]["files"][weights] == hashlib.sha256(
        (place / "m" / "bridge" / weights).read_bytes()).hexdigest()
    assert record["source_ratio"] == pytest.approx(direct.source_ratio)
    assert record["counts"]["source"] == read_sinogram(place / "low.npz").data.sum((1, 2)).tolist()
    assert set(direct.notes) <= set(record["notes"])
    assert record["truth"] is None
    assert record["versions"]["torch"]


def test_the_picture_shows_three_columns_of_two_slices(made):
    picture = np.asarray(Image.open(made[0] / "translated.png").convert("L"))
    assert picture.shape[1] > 1.5 * picture.shape[0] > 600
    ink = (picture < 128).any(axis=1)
    assert ink.mean() > 0.5


def test_a_column_may_have_greys_of_its_own(tmp_path):
    shown = {}
    for scale in ("counts", "spread"):
        columns = [Column("mean", np.full((1, 1, 32, 32), 100.0), None, "counts"),
                   Column("spread", np.full((1, 1, 32, 32), 1.0), None, scale)]
        translation_picture(tmp_path / "p.png", columns, GEOMETRY, ["slice 0"], [""], title="")
        shown[scale] = (np.asarray(Image.open(tmp_path / "p.png").convert("L")) < 20).mean()
    assert shown["spread"] > 1.8 * shown["counts"] > 0.1


def test_interfile_gives_the_same_and_reconstruct_reads_it(made, place, tmp_path):
    result = translate(place, "low.hs", tmp_path / "o", *LOW, *QUICK, "--seed", 4, "--format", "interfile",
                       "--reconstruct", "none")
    assert result.exit_code == 0, result.output
    assert not list((tmp_path / "o").glob("*images*"))
    first, again = read_sinogram(made[0] / "translated.npz"), read_sinogram(tmp_path / "o" / "translated.hs")
    np.testing.assert_allclose(again.data, first.data, rtol=1e-6)
    assert (again.geometry, again.slices, again.scale) == (first.geometry, first.slices, first.scale)
    record = json.loads((tmp_path / "o" / "record.json").read_text())
    assert set(record["input"]["files"]) == {"header", "data"}
    result = allpet("reconstruct", tmp_path / "o" / "translated.hs", "--out", tmp_path / "i.nii.gz", "--quiet")
    assert result.exit_code == 0, result.output


def test_a_store_is_compared_with_its_truth(place, tmp_path):
    arguments = ["--task", "low-dose", "--dose-factor", 20, "--tracer", "PSMA", "--patient", 4, "--patient", 0]
    result = translate(place, "s", tmp_path / "o", *arguments, "--steps", 2, "--samples", 2, "--reconstruct",
                       "none")
    assert result.exit_code == 0, result.output
    cohort, made = read_cohort(place / "s"), read_sinogram(tmp_path / "o" / "translated.npz").data
    studies = [cohort.patient_study(patient) for patient in (4, 0)]
    truth = np.concatenate([study.scan("PSMA").expected for study in studies])
    record = json.loads((tmp_path / "o" / "record.json").read_text())
    found = record["truth"]["target"]
    assert found["translation"]["psnr_db"] == pytest.approx(psnr(made, truth, data_range=float(truth.max())), rel=1e-6)
    total = truth.sum((1, 2))
    assert found["translation"]["total_error"] == pytest.approx(made.sum((1, 2)) / total - 1, rel=1e-3, abs=1e-5)
    low = np.concatenate([study.pair("low-dose", tracer="PSMA", dose_factor=20).source for study in studies])
    assert found["source"]["total_error"] == pytest.approx(20 * low.sum((1, 2)) / total - 1, abs=1e-5)
    assert np.abs(found["source"]["total_error"]).max() < 0.1
    assert re.search(r"truth: PSNR \d+\.\d+ dB, total counts .* by slice\); the source x 20: PSNR", result.stdout)
    assert "warning: the model was trained on patient 0 of this store" in result.stderr
    direct = SinogramBridgePipeline.from_pretrained(place / "m" / "bridge")(
        low[1], task="low-dose", tracer="PSMA", region=studies[1].region, dose_factor=20, steps=2, n_samples=2,
        first_slice=1)
    np.testing.assert_allclose(made[1], direct.expected[0], rtol=1e-4, atol=1e-3)


def test_two_tracers_give_files_for_each(place, tmp_path):
    result = translate(place, "s", tmp_path / "o", "--task", "tracer-separation", "--split", "validation", "--tracer",
                       "FDG", "--other", "PSMA", *QUICK, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    wanted = {"translated_18F-FDG.npz", "translated_68Ga-PSMA.npz", "sample_3_68Ga-PSMA.npz",
              "spread_18F-FDG_images.nii.gz"}
    assert wanted <= set(report["files"])
    mixed = report["counts"]["source"]
    apart = sum(np.array(report["counts"]["translated"][name]) for name in ("18F-FDG", "68Ga-PSMA"))
    assert report["source_ratio"] == pytest.approx(apart / mixed, rel=1e-5)
    study = read_cohort(place / "s").patient_study(3)
    assert mixed[0] == study.prompts[0, :, 0].sum()
    truth = study.scan("PSMA").expected.sum()
    other = report["truth"]["68Ga-PSMA"]["translation"]["total_error"][0]
    assert other == pytest.approx(report["counts"]["translated"]["68Ga-PSMA"][0] / truth - 1, abs=1e-5)


def test_another_geometry_is_resampled_with_a_warning_or_refused(place, tmp_path):
    wide = GEOMETRY.replace(n_angles=40, n_bins=48, bin_mm=15.0)
    counts = np.random.default_rng(0).poisson(np.full(wide.sinogram_shape, 20.0)).astype(np.float32)
    counts[:, :3] = counts[:, -3:] = 0
    write_sinogram(tmp_path / "wide.npz", SinogramStack(counts, wide, unit="counts"))
    result = translate(place, tmp_path / "wide.npz", tmp_path / "o", *LOW, *QUICK, "--reconstruct", "none")
    assert result.exit_code == 0, result.output
    assert "no longer Poisson" in result.stderr
    assert read_sinogram(tmp_path / "o" / "translated.npz").geometry == wide
    record = json.loads((tmp_path / "o" / "record.json").read_text())
    assert any(note.startswith("source: Resampled counts") for note in record["notes"])
    result = translate(place, tmp_path / "wide.npz", tmp_path / "n", *LOW, *QUICK, "--no-resample")
    assert result.exit_code == 3
    assert "32 over pi x 32 of 20.8 mm" in result.stderr
    assert "--resample" in result.stderr
    assert not (tmp_path / "n").exists()


def disc(affine, shape, radius_mm=90.0):
    """Return a mask of a disc 80 mm to the patient's right and 40 mm behind the middle, on some grid."""
    i, j = np.meshgrid(*(np.arange(n) for n in shape[:2]), indexing="ij")
    x, y = (affine[a, a] * index + affine[a, 3] for a, index in ((0, i), (1, j)))
    mask = np.broadcast_to((np.hypot(x - 80, y + 40) < radius_mm)[..., None], shape)
    return Volume(mask.astype(np.uint8), affine, "mask")


def test_a_region_moves_what_is_made_and_must_lie_on_the_image(place, made, tmp_path):
    affine = read_sinogram(place / "low.npz").image_affine()
    fine = affine @ np.diag([0.5, 0.5, 1, 1])
    fine[:2, 3] = affine[:2, 3] - 0.25 * np.diag(affine)[:2]
    write_nifti(tmp_path / "same.nii.gz", disc(affine, (32, 32, 2)))
    write_nifti(tmp_path / "fine.nii.gz", disc(fine, (64, 64, 2)))
    estimates = {"none": read_sinogram(made[0] / "translated.npz").data}
    for name, roi in (("same", tmp_path / "same.nii.gz"), ("fine", tmp_path / "fine.nii.gz"), ("auto", "auto")):
        result = translate(place, "low.npz", tmp_path / name, *LOW, *QUICK, "--seed", 4, "--roi", roi, "--reconstruct",
                           "none")
        assert result.exit_code == 0, result.output
        estimates[name] = read_sinogram(tmp_path / name / "translated.npz").data
        assert ("was on another grid" in result.stderr) == (name == "fine")
        record = json.loads((tmp_path / name / "record.json").read_text())
        assert record["settings"]["gate_strength"] == 0.25
    assert record["region"] == {"roi": "auto"}
    right, behind = -GEOMETRY.x, -GEOMETRY.y[:, None]
    low, pipe = read_sinogram(place / "low.npz"), SinogramBridgePipeline.from_pretrained(place / "m" / "bridge")
    direct = pipe(low.data, task="low-dose", dose_factor=10, tracer="FDG", region="brain", steps=2, n_samples=3, seed=4,
                  roi=np.hypot(right - 80, behind - 40) < 90, gate_strength=0.25)
    np.testing.assert_array_equal(estimates["same"], direct.expected)
    for name in ("same", "auto"):
        assert np.abs(estimates[name] - estimates["none"]).max() > 1e-3 * estimates["none"].max()
    np.testing.assert_allclose(estimates["fine"], estimates["same"], rtol=0.2, atol=0.02 * estimates["same"].max())
    result = translate(place, "low.npz", tmp_path / "n", *LOW, *QUICK, "--roi", tmp_path / "fine.nii.gz",
                       "--no-resample")
    assert result.exit_code == 3
    assert "64" in result.stderr
    assert "--resample" in result.stderr
    assert not (tmp_path / "n").exists()


def test_a_baseline_has_one_estimate_and_no_spread(place, tmp_path):
    result = translate(place, "low.npz", tmp_path / "o", *LOW, "--json", "--quiet", model="m/unet")
    assert result.exit_code == 0, result.output
    files = json.loads(result.stdout)["files"]
    assert files == ["translated.npz", "translated_images.nii.gz", "translated.png", "record.json"]
    direct = UNetPipeline.from_pretrained(place / "m" / "unet")(
        read_sinogram(place / "low.npz").data, task="low-dose", dose_factor=10, tracer="FDG", region="brain")
    np.testing.assert_array_equal(read_sinogram(tmp_path / "o" / "translated.npz").data, direct.expected)
    result = translate(place, "low.npz", tmp_path / "n", *LOW, *QUICK, model="m/unet")
    assert result.exit_code == 2
    assert "--samples must be 1 for a U-Net" in result.stderr
    assert not (tmp_path / "n").exists()


def test_overwriting_leaves_no_file_of_the_run_before(place, tmp_path):
    arguments = [*LOW, "--steps", 1, "--quiet", "--reconstruct", "none"]
    assert translate(place, "low.npz", tmp_path / "o", *arguments, "--samples", 3).exit_code == 0
    (tmp_path / "o" / "sample_9.npz").write_text("mine")
    refused = translate(place, "low.npz", tmp_path / "o", *arguments, "--samples", 2)
    assert refused.exit_code == 2
    assert "--overwrite" in refused.stderr
    result = translate(place, "low.npz", tmp_path / "o", *arguments, "--samples", 2, "--overwrite", "--json")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == sorted(
        [*json.loads(result.stdout)["files"], "sample_9.npz"])


def written(path, values, **how):
    write_sinogram(path, SinogramStack(np.asarray(values, np.float32), GEOMETRY, **{"unit": "counts"} | how))
    return path


@pytest.mark.parametrize(("source", "arguments", "code", "words"), [
    ("low.npz", ["--task", "low-dose"], 2, "--dose-factor must be given for low-dose"),
    ("low.npz", ["--task", "low-dose", "--dose-factor", 0.5], 2, "--dose-factor must be a number from 1"),
    ("low.npz", ["--task", "attenuation-correction", "--dose-factor", 4], 2, "--dose-factor must not be given"),
    ("low.npz", ["--task", "cleaning"], 2, "--task must be one of"),
    ("low.npz", ["--task", "delayed-frame"], 2, "--task must be one that the model was trained for"),
    ("low.npz", [*LOW[:4], "--tracer", "water"], 2, "--tracer must be one of"),
    ("low.npz", ["--task", "tracer-separation", "--tracer", "FDG"], 2, "--other must name the second tracer"),
    ("low.npz", [*LOW, "--other", "PSMA"], 2, "--other must not be given"),
    ("low.npz", [*LOW, "--likelihood", 2], 2, "--likelihood must be from 0 to 1"),
    ("low.npz", [*LOW, "--gate-strength", 1], 2, "--gate-strength must come with roi"),
    ("low.npz", [*LOW, "--roi", "nowhere.nii.gz"], 2, "nowhere.nii.gz"),
    ("low.npz", [*LOW, "--patient", 1], 2, "--patient can only be used with a cohort"),
    ("negative.npz", LOW, 2, "SINOGRAMS must not be negative"),
    ("halves.npz", LOW, 2, "SINOGRAMS must be whole numbers of counts"),
    ("suv.npz", LOW, 2, "SINOGRAMS must be counts, but suv.npz holds SUVbw mm"),
    ("nowhere.npz", LOW, 2, "there is none at"),
    ("s", ["--task", "low-dose"], 2, "--dose-factor must be given for low-dose"),
    ("s", LOW[:4], 2, "--patient or --split must say which slices of the store"),
    ("s", [*LOW[:4], "--patient", 77], 2, "--patient must be one of the chosen"),
    ("s", [*LOW[:4], "--split", "test"], 2, "must hold slices of split test"),
    ("s", ["--task", "low-dose", "--dose-factor", 2.5, "--patient", 4], 2, "--dose-factor must be a whole number"),
    ("s", [*LOW[:4], "--patient", 4, "--bin-mm", 2], 2, "--bin-mm can only be used with a file"),
])
def test_mistakes_are_one_sentence_and_nothing_is_written(place, tmp_path, source, arguments, code, words):
    counts = read_sinogram(place / "low.npz").data
    made_up = {"negative.npz": (counts - counts.max(), {}), "halves.npz": (counts / 2, {}), "suv.npz": (counts, {
        "unit": "SUVbw mm"})}
    path = place / source
    if source in made_up:
        path = written(tmp_path / source, made_up[source][0], **made_up[source][1])
    result = translate(place, path, tmp_path / "o", *arguments, "--steps", 1, "--samples", 2, "--quiet", "--json")
    assert result.exit_code == code, result.output
    assert re.search(words, result.stderr), result.stderr
    assert "Traceback" not in result.stderr
    assert json.loads(result.stdout)["exit_code"] == code
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(("model", "words"), [
    ("m", "holds bridge, unet; give the folder of one"), ("nowhere", "--model must be one of"),
    ("generator", "is one for SinogramGenerationPipeline")])
def test_a_model_must_be_one_translation(place, tmp_path, model, words):
    (place / "generator").mkdir(exist_ok=True)
    (place / "generator" / "model_index.json").write_text('{"_class_name": "SinogramGenerationPipeline"}')
    result = translate(place, "low.npz", tmp_path / "o", *LOW, *QUICK, model=model)
    assert result.exit_code == 2
    assert words in result.stderr
    assert not (tmp_path / "o").exists()


def test_its_help_has_an_example_and_imports_no_torch():
    program = ("import sys\nfrom click.testing import CliRunner\nfrom allpet_physics.cli import cli\n"
               "done = CliRunner().invoke(cli, ['translate', '--help'])\n"
               "assert 'allpet translate low.npz --task low-dose' in done.output\n"
               "assert not {'torch', 'diffusers', 'accelerate'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", program], check=True)
