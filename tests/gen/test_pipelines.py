"""The pipeline: what belongs to a seed stays with it, counts are Poisson, and files that are wrong are named."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from allpet_gen._drawing_checks import on_geometry
from allpet_gen._pretrained import generator_limits, shipped_models
from allpet_gen.generated import reconstruct_uncorrected
from allpet_gen.pipelines import SinogramGenerationPipeline
from allpet_gen.prompts import Prompt
from allpet_gen.samplers import predicted_clean
from allpet_physics.counts import scale_to_counts
from allpet_physics.errors import GeometryError, InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.radon import RadonOperator

from .tiny_pipeline import GEOMETRY, disc, tiny_pipeline

QUICK = {"steps": 3, "reconstruct": None}


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline()


def test_the_same_seed_gives_the_same_bits_and_another_does_not(pipe):
    first, again = (pipe("brain with 18F-FDG", count=2, seed=5, **QUICK) for _ in range(2))
    np.testing.assert_array_equal(first.sinograms, again.sinograms)
    np.testing.assert_array_equal(first.expected, again.expected)
    assert first.seeds == (5, 6)
    assert first.prompts == ("brain with 18F-FDG",) * 2
    assert first.sinograms.dtype == np.int64
    assert first.geometry == GEOMETRY
    assert first.images is None
    other = pipe("brain with 18F-FDG", count=2, seed=7, **QUICK)
    assert (other.expected != first.expected).mean() > 0.9
    assert (first.expected[0] != first.expected[1]).mean() > 0.9


def test_no_global_seed_is_used_or_moved(pipe):
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state(), str(np.random.get_bit_generator().state)
        states.append(pipe("brain", sampler="ddpm", **QUICK).sinograms)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert str(np.random.get_bit_generator().state) == before[1]
    np.testing.assert_array_equal(*states)


@pytest.mark.parametrize("sampler", [{"sampler": "ddim"}, {"sampler": "ddim", "eta": 0.6}, {"sampler": "ddpm"}])
def test_a_sinogram_can_be_drawn_again_alone(pipe, sampler):
    """Neither its place, nor the batch, nor other prompts matter, beyond rounding."""
    together = pipe(["chest", "abdomen with PSMA"], count=3, seed=10, **sampler, **QUICK)
    for batch in (1, 4):
        parted = pipe(["chest", "abdomen with PSMA"], count=3, seed=10, batch=batch, **sampler, **QUICK)
        np.testing.assert_allclose(parted.expected, together.expected, rtol=2e-4, atol=1e-3)
    alone = pipe("abdomen with PSMA", seed=14, **sampler, **QUICK)
    np.testing.assert_allclose(alone.expected[0], together.expected[4], rtol=2e-4, atol=1e-3)
    # A rate that differs by rounding changes next to no drawn count.
    assert (alone.sinograms[0] != together.sinograms[4]).mean() < 0.01
    part = together[4:5]
    assert part.seeds == (14,)
    assert part.prompts == ("abdomen with 68Ga-PSMA",)
    assert len(part) == 1


def test_noise_off_is_the_expectation_of_noise_on(pipe):
    off, on = (pipe("brain", count=3, noise=noise, **QUICK) for noise in (False, True))
    np.testing.assert_array_equal(off.sinograms, off.expected)
    np.testing.assert_array_equal(off.expected, on.expected)
    assert off.sinograms.dtype == np.float32
    assert (off.sinograms >= 0).all()


def test_counts_are_poisson_around_the_expectation(pipe):
    drawn = pipe("chest", count=40, steps=1, reconstruct=None)
    mean = drawn.expected.astype(float)
    use = mean > 5
    chi_squared = ((drawn.sinograms - mean)[use] ** 2 / mean[use]).sum()
    # Each term has mean 1 and variance 2 + 1/mean.
    assert chi_squared == pytest.approx(use.sum(), abs=5 * np.sqrt((2 + 1 / mean[use]).sum()))
    z = (drawn.sinograms.sum() - mean.sum()) / np.sqrt(mean.sum())
    assert abs(z) < 5
    # Of one seed to the next the noise is independent.
    normal = (drawn.sinograms - mean) / np.sqrt(np.maximum(mean, 1e-9))
    assert abs((normal[::2] * normal[1::2]).mean()) < 5 / np.sqrt(normal[::2].size)


def test_the_weight_of_the_prompt(pipe):
    """1 is the conditional model, 0 the unconditional one, and in between and beyond it is linear in one step."""
    def first(prompt, weight, rescale=0.0, start=0.0):
        """The latent after one step from the same noise, before the decoder."""
        kept = []
        counts = pipe.autoencoder.counts
        pipe.autoencoder.counts = lambda z: (kept.append(z), counts(z))[1]
        try:
            pipe(prompt, steps=1, guidance=weight, guidance_start=start, rescale=rescale, reconstruct=None)
        finally:
            del pipe.autoencoder.counts
        return kept[0]

    with_prompt, without, strong = (first("chest with DOPA", w) for w in (1, 0, 3.0))
    torch.testing.assert_close(strong, without + 3 * (with_prompt - without), rtol=1e-4, atol=1e-5)
    assert (with_prompt - without).abs().max() > 1e-3
    assert torch.equal(without, first("brain with FDG", 0))
    # The first step starts from noise alone, so its latent is the prediction itself but for the sign.
    shrunk, half = (first("chest with DOPA", 3.0, rescale) for rescale in (1.0, 0.5))
    torch.testing.assert_close(shrunk, strong * with_prompt.std() / strong.std(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(half, (strong + shrunk) / 2, rtol=1e-4, atol=1e-5)
    # Words have weights of their own (P1); one that is left out has 1, and before the start none has more.
    without_tracer = first("chest", 1)
    words = first("chest with DOPA", {"region": 2, "tracer": 4})
    torch.testing.assert_close(words, -without + (2 - 4) * without_tracer + 4 * with_prompt, rtol=1e-4, atol=1e-4)
    tracer = first("chest with DOPA", {"tracer": 4})
    torch.testing.assert_close(tracer, without_tracer + 4 * (with_prompt - without_tracer), rtol=1e-4, atol=1e-4)
    assert torch.equal(first("chest with DOPA", {"region": 1, "tracer": 0}), without_tracer)
    assert torch.equal(first("chest with DOPA", {"region": 2, "tracer": 4}, start=0.3), with_prompt)
    torch.testing.assert_close(first("chest with DOPA", {"region": 2, "tracer": 0}, start=0.3), without_tracer)
    # What conditional means, straight from the denoiser.
    z = torch.randn((1, *pipe.autoencoder.latent_shape), generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor([Prompt.parse("chest with DOPA").tokens()])
    with torch.no_grad():
        velocity = pipe.denoiser(z, torch.tensor(999), tokens)
    torch.testing.assert_close(with_prompt, predicted_clean(pipe.scheduler, velocity, 999, z))


def test_guidance_begins_after_a_part_of_the_steps_and_hears_no_word_of_weight_zero(pipe, monkeypatch):
    heard, plain = [], pipe._velocity
    monkeypatch.setattr(type(pipe), "_velocity", lambda _, z, t, tokens, weights, *rest, **gate: (
        heard.append(weights), plain(z, t, tokens, weights, *rest, **gate))[1])
    pipe("chest with DOPA", steps=5, guidance={"region": 3, "tracer": 0.5}, guidance_start=0.4, reconstruct=None)
    assert heard == [(1, 0.5)] * 2 + [(3, 0.5)] * 3
    z = torch.randn((1, *pipe.autoencoder.latent_shape), generator=torch.Generator().manual_seed(0))
    one, other = (pipe.velocity(z, torch.tensor(500), torch.tensor([Prompt.parse(words).tokens()]), rescale=0.7,
                                guidance={"region": 3, "tracer": 0}) for words in ("chest with FDG", "chest with PSMA"))
    assert torch.equal(one, other)


def test_a_region_without_strength_changes_no_bit(pipe):
    plain = pipe("chest", guidance=1.5, **QUICK)
    idle = pipe("chest", guidance=1.5, roi=disc(), gate_strength=0.0, **QUICK)
    gated = pipe("chest", guidance=1.5, roi=disc(), gate_strength=1.0, **QUICK)
    np.testing.assert_array_equal(plain.sinograms, idle.sinograms)
    assert (plain.expected != gated.expected).mean() > 0.5


@pytest.mark.parametrize("target", [ParallelGeometry(48, 40, 18.0, (40, 40), 18.0),
                                    ParallelGeometry(64, 32, 20.8, (32, 32), 20.8, 2 * np.pi),
                                    ParallelGeometry(20, 16, 41.6, (16, 16), 41.6)])
def test_another_geometry_keeps_the_total(pipe, target):
    own, other = (pipe("brain", count=2, geometry=g, noise=False, **QUICK) for g in (None, target))
    assert other.sinograms.shape == (2, *target.sinogram_shape)
    assert other.geometry == target
    np.testing.assert_allclose(other.sinograms.sum((1, 2)), own.sinograms.sum((1, 2)), rtol=1e-5)
    assert own.notes == ()
    assert len(other.notes) == 1
    assert f"{target.n_bins} of" in other.notes[0] or f"to {target.n_angles} over" in other.notes[0]
    drawn = pipe("brain", count=2, geometry=target, **QUICK)
    assert drawn.sinograms.dtype == np.int64  # drawn on the new grid, not resampled


def test_a_geometry_that_cuts_the_object_off_is_refused_after_the_first_batch(pipe):
    steps = []

    def progress(rounds):
        for r in rounds:
            steps.append(r)
            yield r

    with pytest.raises(GeometryError, match=r"[\d.]+% of the counts of the sinogram of seed \d lie beyond its 332.8 "
                                            r"mm, and .* n_bins x bin_mm of 665.6 mm, .* or more\.$"):
        pipe("brain", count=6, batch=2, geometry=ParallelGeometry(32, 16, 20.8, (16, 16), 20.8), progress=progress,
             **QUICK)
    assert len(steps) == QUICK["steps"]


def test_what_is_lost_beyond_the_bins_is_counted():
    wide, narrow = ParallelGeometry(4, 8, 10.0, (8, 8), 10.0), ParallelGeometry(4, 6, 10.0, (6, 6), 10.0)
    counts = np.zeros((3, *wide.sinogram_shape), np.float32)
    counts[1, :, 1:-1] = 1000
    counts[2, :, 1:-1] = 1000
    counts[2, :, 0] = 5  # of 6005
    np.testing.assert_allclose(on_geometry(counts, [7, 8, 9], wide, narrow).sum((1, 2)), [0, 24000, 24000], rtol=1e-3)
    counts[2, :, 0] = 7
    with pytest.raises(GeometryError, match=r"0\.12% .* seed 9 lie beyond its 60 mm, and at most 0\.1% may"):
        on_geometry(counts, [7, 8, 9], wide, narrow)


@pytest.mark.parametrize("method", ["osem", "fbp"])
def test_images_are_those_of_the_counts(method):
    image = disc(120.0) * 0.05
    sinogram = RadonOperator(GEOMETRY)(image)
    made, note = reconstruct_uncorrected(scale_to_counts(sinogram, 1e6)[None], GEOMETRY, method)
    inside = disc(60.0)
    wanted = image[inside].mean() * 1e6 / sinogram.sum()
    assert made[0][inside].mean() == pytest.approx(wanted, rel=0.1)
    assert method.upper() in note


def test_images_come_with_the_sinograms(pipe):
    drawn = pipe("brain", count=2, steps=2)
    assert drawn.images.shape == (2, *GEOMETRY.image_shape)
    assert "no corrections" in drawn.notes[-1]
    assert (drawn.images >= 0).all()


def test_progress_sees_every_step(pipe):
    seen = []

    def progress(rounds):
        assert len(rounds) == 6
        for r in rounds:
            seen.append(r)
            yield r

    pipe("brain", count=3, batch=2, progress=progress, **QUICK)
    assert len(seen) == 6


def test_guides_move_the_latent_they_are_shown(pipe):
    from allpet_gen.guidance_step import Guidance

    class FewerCounts(Guidance):
        strength = 30.0

        def squared_residual(self, expected):
            return (expected.mean(dim=(1, 2)) / 10).square()

    plain, guided, alone = (pipe("brain", count=2, steps=6, reconstruct=None, guides=g)
                            for g in ((), [FewerCounts()], FewerCounts()))
    np.testing.assert_array_equal(alone.sinograms, guided.sinograms)
    assert (guided.expected.sum((1, 2)) < 0.9 * plain.expected.sum((1, 2))).all()
    idle = FewerCounts()
    idle.strength = 0.0
    np.testing.assert_allclose(pipe("brain", count=2, steps=6, reconstruct=None, guides=[idle]).expected,
                               plain.expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("arguments", "words"), [
    ({"count": 0}, "count must be an integer of at least 1, but was 0"),
    ({"steps": 0}, "steps must be an integer of at least 1"),
    ({"steps": 1001}, "steps must be an integer from 1 to 1000, but was 1001"),
    ({"seed": -1}, "seed must be an integer"),
    ({"seed": 2**63}, "below 2\\*\\*63"),
    ({"batch": 0}, "batch must be"),
    ({"eta": 1.1}, "eta must be a number from 0 to 1, but was 1.1"),
    ({"eta": 0.5, "sampler": "ddpm"}, "eta belongs to sampler"),
    ({"guidance": -1}, "guidance must be a finite number of at least zero"),
    ({"guidance": 101}, "guidance must be a number from 0 to 100"),
    ({"guidance": {"tracer": 101}}, "guidance of the tracer must be a number from 0 to 100"),
    ({"guidance": {"dose": 2}}, "guidance must be a number, or weigh region, tracer or both, but named 'dose'"),
    ({"guidance": {}}, "guidance must be a number, or weigh region, tracer or both, but named nothing"),
    ({"guidance_start": 1.5}, "guidance_start must be a number from 0 to 1, but was 1.5"),
    ({"sampler": "heun"}, "sampler must be one of ddim, ddpm"),
    ({"reconstruct": "mlem"}, "reconstruct must be"),
    ({"geometry": (32, 32)}, "geometry must be a ParallelGeometry"),
    ({"roi": disc(), "gate_strength": -1.0}, "gate_strength must be"),
    ({"roi": np.ones((5, 5), bool)}, r"roi must have the shape \(32, 32\), but its shape was \(5, 5\)"),
    ({"roi": np.ones((1, 32, 32), bool)}, r"roi must have the shape \(32, 32\)"),
    ({"roi": np.zeros((32, 32), bool)}, "roi must hold at least one pixel, but is empty"),
    ({"roi": "all"}, "roi must be a mask of 0 and 1"),
    ({"guides": 3}, "guides must be a Guidance object or several of them, but was int"),
    ({"guides": [3]}, "guides must be Guidance objects, but one was int"),
    ({"prompt": "knee with FDG"}, "'knee'"),
    ({"prompt": []}, "empty"),
    ({"prompt": 3}, "but was int"),
    ({"prompt": "low-dose brain with FDG"}, "low-dose"),
])
def test_mistakes_are_one_sentence(pipe, arguments, words):
    with pytest.raises(InputError, match=words) as raised:
        pipe(**{"prompt": "brain", "steps": 1, "reconstruct": None, **arguments})
    assert "\n" not in str(raised.value)


@pytest.fixture(scope="module")
def saved(pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "m"
    pipe.save_pretrained(folder, card={"measured": {}, "made": "for a test"})
    return folder


def test_a_saved_pipeline_comes_back_to_the_last_bit(pipe, saved, tmp_path):
    loaded = SinogramGenerationPipeline.from_pretrained(saved)
    assert loaded.card["made"] == "for a test"
    assert loaded.geometry == GEOMETRY
    wanted = pipe("chest with FDG", count=2, **QUICK)
    np.testing.assert_array_equal(loaded("chest with FDG", count=2, **QUICK).sinograms, wanted.sinograms)
    for name in ("autoencoder", "denoiser"):
        mine, theirs = (getattr(p, name).state_dict() for p in (pipe, loaded))
        assert all(torch.equal(mine[key], theirs[key]) for key in mine | theirs)
    loaded.save_pretrained(tmp_path / "again")
    card = json.loads((tmp_path / "again" / "allpet.json").read_text(encoding="utf-8"))
    assert card["made"] == "for a test"


def test_half_precision_computes(saved):
    half = SinogramGenerationPipeline.from_pretrained(saved, dtype=torch.bfloat16)
    assert half.denoiser.dtype == torch.bfloat16
    drawn = half("brain", count=1, **QUICK)
    full = SinogramGenerationPipeline.from_pretrained(saved)("brain", count=1, **QUICK)
    assert drawn.expected.sum() == pytest.approx(full.expected.sum(), rel=0.05)


WEIGHTS = "denoiser/diffusion_pytorch_model.safetensors"


def _cut(folder):
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:len(whole) // 2])


def _drop_one(folder):
    weights = load_file(folder / WEIGHTS)
    weights.pop(sorted(weights)[5])
    save_file(weights, folder / WEIGHTS)


def _pickle(folder):
    torch.save(load_file(folder / WEIGHTS), folder / "denoiser" / "diffusion_pytorch_model.bin")
    (folder / WEIGHTS).unlink()


@pytest.mark.parametrize(("harm", "words"), [
    (_cut, "cut short"),
    (_drop_one, "denoiser are of another network .1 are absent"),
    (_pickle, "absent"),
    (lambda f: (f / WEIGHTS).unlink(), "absent"),
    (lambda f: (f / "denoiser/config.json").write_text("{}"), "another network"),
    (lambda f: (f / "model_index.json").write_text("{"), "cannot be loaded"),
    (lambda f: shutil.rmtree(f / "scheduler"), "absent"),
    (lambda f: (f / "allpet.json").unlink(), "must have a card, allpet.json, but has none; copy the whole folder"),
    (lambda f: (f / "allpet.json").write_text("{}"), "allpet.json, that says its format, but .* cannot be read"),
    (lambda f: (f / "allpet.json").write_text('{"format": 7}'), "must be of format 1, but is of 7"),
    (shutil.rmtree, "model must be"),
], ids=["cut", "a tensor absent", "pickled", "absent", "config", "index", "scheduler", "card", "empty card", "format",
        "folder"])
def test_a_damaged_model_is_one_sentence(saved, tmp_path, harm, words, capfd):
    folder = tmp_path / "m"
    shutil.copytree(saved, folder)
    harm(folder)
    with pytest.raises(InputError, match=words) as raised:
        SinogramGenerationPipeline.from_pretrained(folder)
    assert "\n" not in str(raised.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["enormous", None, 3])
def test_a_name_that_is_not_shipped_lists_those_that_are(name):
    with pytest.raises(InputError, match=rf"model must be one of .*'{name}'") as raised:
        SinogramGenerationPipeline.from_pretrained(name)
    assert all(name in str(raised.value) for name in shipped_models())


def test_limits_of_a_generator_are_known_without_its_weights(pipe, saved, tmp_path):
    assert generator_limits(saved) == (GEOMETRY, 1000)
    shutil.copytree(saved, tmp_path / "m")
    for path in (tmp_path / "m").rglob("*.safetensors"):
        path.unlink()
    assert generator_limits(tmp_path / "m") == (pipe.geometry, pipe.scheduler.config.num_train_timesteps)
    (tmp_path / "m/scheduler/scheduler_config.json").write_text("{}")
    with pytest.raises(InputError, match=r"cannot be loaded: .*num_train_timesteps.*; copy it again"):
        generator_limits(tmp_path / "m")


@pytest.mark.skipif("small" not in shipped_models(), reason="the trained model is not in this copy")
def test_the_shipped_model_draws_what_measured_sinograms_are_like():
    from allpet_gen.model_card import describe_sinograms, measured_like

    pipe = SinogramGenerationPipeline.from_pretrained("small")
    for prompt in ("brain with 18F-FDG", "abdomen with 68Ga-PSMA"):
        drawn = pipe(prompt, count=4, steps=15, reconstruct=None)
        measured = measured_like(pipe.card, prompt)
        total = np.median(drawn.sinograms.sum((1, 2)))
        assert 0.5 * measured["counts"]["low"] < total < 2 * measured["counts"]["high"]
        moments = describe_sinograms(drawn.sinograms, drawn.geometry)["moments"]["median"]
        assert (np.array(moments) < 2 * np.array(measured["moments"]["high"])).all()
