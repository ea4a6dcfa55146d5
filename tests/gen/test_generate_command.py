"""`allpet generate` writes what the pipeline draws, in files that other commands read, with a record of how."""

import hashlib
import json
import re

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from allpet_gen.commands.generate import command
from allpet_gen.generated import POST_FILTER_MM
from allpet_gen.model_card import consistency_lines, describe_sinograms, measured_classes, measured_like
from allpet_gen.pipelines import SinogramGenerationPipeline
from allpet_physics import GaussianPSF, helgason_ludwig
from allpet_physics.cli import cli
from allpet_physics.io.sinogram_files import read_sinogram

from .tiny_pipeline import GEOMETRY, tiny_pipeline

QUICK = ["--steps", "2", "--quiet"]


def generate(*arguments):
    return CliRunner().invoke(command, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    pipe = tiny_pipeline()
    counts = pipe("brain with FDG", count=6, steps=1, reconstruct=None).sinograms
    pipe.save_pretrained(folder, card={"measured": measured_classes({"brain with FDG": counts}, GEOMETRY)})
    return folder


@pytest.fixture(scope="module")
def made(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "here"
    result = generate("brain with 18F-FDG", "abdomen, PSMA", "--count", 3, "--seed", 4, "--model", model, "--out", out,
                      "--json", *QUICK)
    assert result.exit_code == 0, result.output
    return out, json.loads(result.stdout)


def test_files_hold_what_the_pipeline_draws(made, model):
    out, report = made
    pipe = SinogramGenerationPipeline.from_pretrained(model)
    drawn = pipe(["brain with FDG", "abdomen with PSMA"], count=3, seed=4, steps=2)
    for k, stem in enumerate(("brain_18F-FDG", "abdomen_68Ga-PSMA")):
        stack = read_sinogram(out / f"{stem}.npz")
        np.testing.assert_array_equal(stack.data, drawn.sinograms[3 * k:3 * k + 3])
        assert stack.unit == "counts"
        assert stack.geometry == GEOMETRY
        image = nib.load(out / f"{stem}_images.nii.gz")
        np.testing.assert_allclose(image.get_fdata().transpose(2, 1, 0), drawn.images[3 * k:3 * k + 3], rtol=1e-5)
        np.testing.assert_allclose(image.header.get_zooms()[:2], GEOMETRY.pixel_mm, rtol=1e-5)
    assert sorted(p.name for p in out.iterdir()) == sorted(report["files"])
    assert len(report["files"]) == 6


def test_rescaling_reaches_the_pipeline(model, tmp_path):
    for name, rescale in (("less", 0), ("more", 1)):
        result = generate("brain with FDG", "--guidance", 4, "--rescale", rescale, "--expected", "--model", model,
                          "--out", tmp_path / name, *QUICK)
        assert result.exit_code == 0, result.output
    pipe = SinogramGenerationPipeline.from_pretrained(model)
    less, more = (read_sinogram(tmp_path / name / "brain_18F-FDG.npz").data for name in ("less", "more"))
    np.testing.assert_array_equal(less, pipe("brain with FDG", steps=2, guidance=4, rescale=0, noise=False).sinograms)
    assert (less != more).mean() > 0.5


def test_weights_of_words_reach_the_pipeline(model, tmp_path):
    result = generate("brain with FDG", "--guidance", "region=2, tracer=6", "--guidance-start", 0, "--expected",
                      "--model", model, "--out", tmp_path / "words", *QUICK)
    assert result.exit_code == 0, result.output
    pipe = SinogramGenerationPipeline.from_pretrained(model)
    words = pipe("brain with FDG", steps=2, guidance={"region": 2, "tracer": 6}, guidance_start=0, noise=False)
    np.testing.assert_array_equal(read_sinogram(tmp_path / "words" / "brain_18F-FDG.npz").data, words.sinograms)
    assert json.loads((tmp_path / "words" / "generated.json").read_text())["settings"]["guidance"] == {
        "region": 2, "tracer": 6}
    for wrong, words in (("much", "guidance must be a number, or weights of words"), ("tracer=a", "must be a number"),
                         ("tracer=2,tracer=3", "guidance must be a number"),
                         ("dose=2", "weigh region, tracer or both, but named 'dose'")):
        result = generate("brain", "--guidance", wrong, "--model", model, "--out", tmp_path / "wrong", *QUICK)
        assert result.exit_code == 2
        assert words in " ".join(result.output.split())


def test_the_record_says_how_and_what(made, model):
    out, _ = made
    text = (out / "generated.json").read_text(encoding="utf-8")
    record = json.loads(text)
    assert str(out.parent) not in text
    assert str(model.parent) not in text
    assert record["settings"]["steps"] == 2
    assert record["settings"]["rescale"] == 0.7
    assert [about["seeds"] for about in record["prompts"]] == [[4, 5, 6], [7, 8, 9]]
    for name, digest in record["files"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    weights = "denoiser/diffusion_pytorch_model.safetensors"
    assert record["model"]["files"][weights] == hashlib.sha256((model / weights).read_bytes()).hexdigest()
    brain, abdomen = record["prompts"]
    stack = read_sinogram(out / "brain_18F-FDG.npz")
    assert brain["counts"] == stack.data.sum((1, 2)).tolist()
    residual = helgason_ludwig(stack.data, GEOMETRY).residual
    np.testing.assert_allclose(brain["helgason_ludwig"]["residual"], residual, rtol=1e-6)
    assert np.abs(brain["count_balance"]["z"]).max() < 6
    assert brain["measured"]["n"] == 6
    assert "measured" not in abdomen


def test_the_contact_sheet_is_a_picture_of_all(made):
    out, _ = made
    picture = np.asarray(Image.open(out / "generated.png").convert("L"))
    assert min(picture.shape) > 500
    assert (picture < 128).mean() > 0.02


def test_the_contact_sheet_says_what_its_images_are(model, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("allpet_gen.pictures.contact_sheet", lambda *_, subtitle, **__: said.append(subtitle))
    for method in ("fbp", "none"):
        result = generate("brain", "--model", model, "--out", tmp_path / method, "--reconstruct", method, *QUICK)
        assert result.exit_code == 0, result.output
        assert bool(list((tmp_path / method).glob("*images*"))) == (method != "none")
    first, second = said
    assert all(text.startswith("Simulated: ") and "Helgason-Ludwig" in text for text in said)
    assert all(words in first for words in ("not corrected", "attenuation", "randoms", "ring at the edge"))
    assert "ring" not in second


@pytest.mark.parametrize(("kind", "suffix"), [("npz", ".npz"), ("interfile", ".hs"), ("nifti", ".nii.gz")])
def test_reconstruct_reads_every_format(model, tmp_path, kind, suffix):
    out = tmp_path / "g"
    result = generate("brain with FDG", "--count", 3, "--model", model, "--out", out, "--format", kind, *QUICK)
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(cli, ["reconstruct", str(out / f"brain_18F-FDG{suffix}"), "--method", "osem", "--out",
                                      str(tmp_path / "i.nii.gz"), "--quiet"])
    assert result.exit_code == 0, result.output
    again = nib.load(tmp_path / "i.nii.gz")
    first = nib.load(out / "brain_18F-FDG_images.nii.gz")
    filtered = GaussianPSF(GEOMETRY, POST_FILTER_MM)(
        again.get_fdata().transpose(2, 1, 0)).transpose(2, 1, 0)
    np.testing.assert_allclose(filtered, first.get_fdata(), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(again.affine, first.affine)


@pytest.mark.parametrize(("options", "geometry"), [
    (["--angles", 40], GEOMETRY.replace(n_angles=40)),
    (["--bins", 64], GEOMETRY.replace(n_bins=64, bin_mm=10.4, image_shape=(64, 64), pixel_mm=10.4)),
    (["--bin-mm", 41.6], GEOMETRY.replace(n_bins=16, bin_mm=41.6, image_shape=(16, 16), pixel_mm=41.6)),
    (["--arc", "2pi", "--angles", 64], GEOMETRY.replace(n_angles=64, arc=2 * np.pi)),
    (["--preset", "network-64"], GEOMETRY.preset("network-64")),
])
def test_geometry_options_resample(model, tmp_path, options, geometry):
    result = generate("brain", "--model", model, "--out", tmp_path / "o", "--json", "--reconstruct", "fbp", *options,
                      *QUICK)
    assert result.exit_code == 0, result.output
    assert read_sinogram(tmp_path / "o" / "brain.npz").geometry == geometry
    assert json.loads(result.stdout)["notes"][0].startswith("Resampl")


def test_expected_counts_have_no_noise(model, tmp_path):
    result = generate("brain", "--model", model, "--out", tmp_path / "o", "--expected", "--json", *QUICK)
    assert result.exit_code == 0, result.output
    data = read_sinogram(tmp_path / "o" / "brain.npz").data
    assert (data != np.round(data)).mean() > 0.9
    assert "count_balance" not in json.loads(result.stdout)["prompts"][0]


def test_range_guidance_needs_measured_moments_and_uses_them(model, tmp_path):
    plain, guided = tmp_path / "p", tmp_path / "g"
    for out, more in ((plain, []), (guided, ["--range-guidance", 2])):
        result = generate("brain with FDG", "--model", model, "--out", out, *more, *QUICK)
        assert result.exit_code == 0, result.output
    assert (read_sinogram(plain / "brain_18F-FDG.npz").data != read_sinogram(guided / "brain_18F-FDG.npz").data).any()
    result = generate("chest with FDG", "--model", model, "--out", tmp_path / "n", "--range-guidance", 2, *QUICK)
    assert result.exit_code == 2
    assert "leave it out" in result.stderr
    assert not (tmp_path / "n").exists()


def test_lines_for_a_reader(model, tmp_path):
    result = generate("brain with FDG", "--count", 2, "--model", model, "--out", tmp_path / "o", "--steps", 1)
    assert result.exit_code == 0, result.output
    assert "brain with 18F-FDG: 2 sinograms, seeds 0 to 1" in result.stdout
    assert "(held out: " in result.stdout
    assert "sampling" in result.stderr


def test_files_are_replaced_only_when_asked(made, model):
    out, _ = made
    arguments = ["brain with 18F-FDG", "--model", model, "--out", out, *QUICK]
    before = (out / "brain_18F-FDG.npz").read_bytes()
    result = generate(*arguments)
    assert result.exit_code == 2
    assert "--overwrite" in result.stderr
    assert (out / "brain_18F-FDG.npz").read_bytes() == before


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (["knee with FDG"], 2, "'knee'"),
    (["low-dose brain"], 2, "leave the task out"),
    (["brain", "--count", 0], 2, "--count"),
    (["brain", "--steps", 1001], 2, "--steps must be an integer from 1 to 1000"),
    (["brain", "--eta", 1.5], 2, "--eta must be"),
    (["brain", "--eta", 0.5, "--sampler", "ddpm"], 2, "ddpm"),
    (["brain", "--preset", "nowhere"], 2, "--preset must be one of"),
    (["brain with FDG", "FDG brain"], 2, "named twice"),
    (["brain", "--bins", 8, "--bin-mm", 10], 3, "lie beyond its 80 mm, .* choose --bins x --bin-mm of 665.6 mm"),
    (["brain", "--model", "enormous"], 2, "--model must be one of"),
    ([], 2, "PROMPT"),
])
def test_mistakes_are_one_sentence_and_nothing_is_written(model, tmp_path, arguments, code, words):
    given = arguments if "--model" in arguments else [*arguments, "--model", model]
    result = generate(*given, "--out", tmp_path / "o", "--quiet", *([] if "--steps" in arguments else ["--steps", 1]))
    assert result.exit_code == code, result.output
    assert re.search(words, result.stderr), result.stderr
    assert "Traceback" not in result.stderr
    assert "max_lost" not in result.stderr
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (["low-dose brain"], 2, "asked for the task low-dose, .* leave the task out"),
    (["brain", "--steps", 5000], 2, "--steps must be an integer from 1 to 1000, but was 5000"),
    (["brain", "--preset", "nowhere"], 2, "--preset must be one of"),
    (["brain", "--angles", 0], 2, "--angles must be"),
    (["brain", "--count", 10**9], 3, "choose a smaller --count"),
    (["brain with FDG", "chest with FDG", "--range-guidance", 1], 2, "held-out sinograms of chest with 18F-FDG"),
])
def test_what_can_be_known_is_refused_before_the_model_is_loaded(model, tmp_path, monkeypatch, arguments, code, words):
    loaded = []
    monkeypatch.setattr(SinogramGenerationPipeline, "from_pretrained", loaded.append)
    result = generate(*arguments, "--model", model, "--out", tmp_path / "o", "--quiet")
    assert result.exit_code == code, result.output
    assert re.search(words, result.stderr), result.stderr
    assert not loaded
    assert not (tmp_path / "o").exists()


def test_a_model_that_translates_is_named(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model_index.json").write_text('{"_class_name": "SinogramBridgePipeline"}')
    result = generate("brain", "--model", tmp_path / "m", "--out", tmp_path / "o", "--quiet")
    assert result.exit_code == 2
    assert re.search("--model must be one for SinogramGenerationPipeline, .* SinogramBridgePipeline", result.stderr)


def test_a_card_joins_the_classes_that_a_prompt_means():
    rng = np.random.default_rng(0)
    few, many = rng.poisson(2.0, (5, *GEOMETRY.sinogram_shape)), rng.poisson(9.0, (5, *GEOMETRY.sinogram_shape))
    card = {"measured": measured_classes({"chest with FDG": few, "chest with PSMA": many}, GEOMETRY)}
    assert measured_like(card, "brain") is None
    one, both = measured_like(card, "chest with FDG"), measured_like(card, "chest")
    assert one["counts"] == describe_sinograms(few, GEOMETRY)["counts"]
    assert both["n"] == 10
    assert both["counts"]["low"] == one["counts"]["low"]
    assert both["counts"]["high"] == measured_like(card, "PSMA")["counts"]["high"]
    assert len(consistency_lines(one)) == 2
    assert len(consistency_lines(one, both)) == 3
