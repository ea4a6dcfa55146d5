"""Translations by the generator alone: measured counts steer what is drawn, and what it cannot do is refused."""

import inspect

import numpy as np
import pytest
import torch

from allpet_gen.autoencoder import SinogramAutoencoder
from allpet_gen.prompts import Prompt
from allpet_gen.translation_inputs import read_inputs
from allpet_gen.translation_pipelines import SinogramBridgePipeline
from allpet_gen.unsupervised import START, _AsTranslator, _Draws, encode_counts, translate_unsupervised
from allpet_physics.counts import thin
from allpet_physics.errors import GeometryError, InputError

from .tiny_pipeline import GEOMETRY, tiny_pipeline

LOW = {"task": "low-dose", "tracer": "FDG", "dose_factor": 10, "steps": 4}
SEPARATION = {"task": "tracer-separation", "tracer": "FDG", "other": "PSMA", "steps": 4}
CONVERSION = {"task": "tracer-conversion", "tracer": "FDG", "other": "PSMA", "steps": 5}
CLOSE = {"rtol": 2e-3, "atol": 5e-2}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pipe():
    """Its decoder, which is not trained, gives half of its contrast: a root below zero means its opposite's counts, and
    a search among many such is a matter of the last digit."""
    pipe = tiny_pipeline()
    with torch.no_grad():
        pipe.autoencoder.decoder.conv_out.weight *= 0.5
    return pipe


@pytest.fixture(scope="module")
def drawn(pipe):
    """Counts that the generator itself could have drawn, of four latents."""
    with torch.no_grad():
        expected = pipe.autoencoder.counts(1.5 * torch.randn(4, *pipe.autoencoder.latent_shape,
                                                             generator=torch.Generator().manual_seed(11)))
    return np.random.default_rng(0).poisson(expected.double().numpy())


@pytest.fixture(scope="module")
def low(drawn):
    return thin(drawn, 0.1, np.random.default_rng(1))


def deviance(counts, expected):
    """Return the Poisson deviance of counts in the mean bin, for each slice."""
    expected = np.maximum(expected.astype(float), 1e-3)
    log = counts * np.log(np.where(counts > 0, counts, 1) / expected)
    return 2 * (log - counts + expected).mean(axis=(1, 2))


def test_measured_counts_pull_a_low_dose_to_what_explains_them(pipe, drawn, low):
    free, guided, longer = (translate_unsupervised(pipe, low, **LOW, **how) for how in
                            ({"strength": 0}, {"likelihood_steps": 1}, {"likelihood_steps": 6}))
    apart = [deviance(low, out.expected / 10) for out in (free, guided, longer)]
    assert (apart[1] < 0.9 * apart[0]).all()
    assert (apart[2] < 0.6 * apart[0]).all()
    # So are the counts that were not measured: it is no copy of the noise.
    unseen = [deviance(drawn - low, 0.9 * out.expected) for out in (free, longer)]
    assert (unseen[1] < 0.6 * unseen[0]).all()
    np.testing.assert_allclose(longer.source_ratio, longer.expected.sum((1, 2)) / 10 / low.sum((1, 2)), rtol=1e-5)


def test_the_sum_of_separated_tracers_explains_the_mixture(pipe, drawn):
    mixture = drawn[:2] + drawn[2:]
    free, guided = (translate_unsupervised(pipe, mixture, **SEPARATION, **how) for how in
                    ({"strength": 0}, {"likelihood_steps": 4}))
    assert guided.sinograms.shape == (2, 2, *GEOMETRY.sinogram_shape)
    apart, near = (deviance(mixture, out.expected.sum(axis=1)) for out in (free, guided))
    assert (near < 0.4 * apart).all()
    np.testing.assert_allclose(guided.source_ratio, guided.expected.sum((1, 2, 3)) / mixture.sum((1, 2)), rtol=1e-5)
    # Both are moved, by what their sum lacks, and not alike.
    moved = np.abs(guided.expected - free.expected).mean(axis=(2, 3))
    assert (moved > 0.02 * free.expected.mean(axis=(2, 3))).all()
    assert (np.abs(guided.expected[:, 0] - guided.expected[:, 1]).mean(axis=(1, 2)) > 1).all()


def test_each_separated_tracer_has_its_own_prompt(pipe, drawn):
    how = SEPARATION | {"strength": 0}
    one, two = (translate_unsupervised(pipe, drawn[:1], **how | {"other": other}).expected[0]
                for other in ("PSMA", "DOPA"))
    np.testing.assert_array_equal(one[0], two[0])
    assert (one[1] != two[1]).mean() > 0.9


@pytest.mark.parametrize("far", [0.1, 3.0])
def test_steps_towards_counts_end_where_prior_and_likelihood_balance(pipe, low, far):
    """With latents that are roots of counts themselves, the gradient of eq. (UT1) is written out bin by bin."""
    part = _Draws(pipe.autoencoder, read_inputs(_AsTranslator(pipe.autoencoder), low, task="low-dose", dose_factor=10),
                  [0, 1])
    part.implied = lambda z: z[:, 0] ** 2 / 9
    y, weight, variance = torch.from_numpy(low[:2])[:, None], 0.5, 0.8
    clean = 3 * (y + 2).sqrt() + far * torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).abs()

    def slope(z):
        mean = z**2 / 9
        r = (2 * (torch.xlogy(y, y.clamp(min=1) / mean) - y + mean)).mean((1, 2, 3), keepdim=True).sqrt()
        assert (r > 1).all() == (far > 1)
        return (weight / r.clamp(min=1) * (1 - y / mean) * 2 * z / 9 + (z - clean) / variance).norm()

    assert slope(part.towards_counts(clean, variance, weight, 25)) < 1e-3 * slope(clean)
    assert slope(part.towards_counts(clean, variance, weight, 1)) < 0.6 * slope(clean)
    assert (part.towards_counts(clean, 1e-6, weight, 4) - clean).abs().max() < 1e-4


def test_steps_towards_counts_get_nearer_through_the_decoder(pipe, drawn):
    part = _Draws(pipe.autoencoder, read_inputs(_AsTranslator(pipe.autoencoder), drawn[:2] + drawn[2:],
                                                task="tracer-separation", other="PSMA"), [0, 1])
    channels, *size = pipe.autoencoder.latent_shape
    clean = torch.randn(2, 2 * channels, *size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        apart = [deviance(part.source, part.implied(part.towards_counts(clean, 1.0, 1.0, n)).numpy())
                 for n in (0, 1, 2, 4, 8, 16)]
    assert (np.diff(apart, axis=0) < 0).all()
    assert (apart[-1] < 0.25 * apart[0]).all()


def test_slices_do_not_mix_and_are_the_same_alone(pipe, low):
    stack = translate_unsupervised(pipe, low, n_samples=2, seed=3, **LOW)
    alone = translate_unsupervised(pipe, low[2], n_samples=2, seed=3, first_slice=2, **LOW)
    np.testing.assert_allclose(alone.samples[0], stack.samples[2], **CLOSE)
    batches = translate_unsupervised(pipe, low, n_samples=2, seed=3, batch=3, **LOW)
    np.testing.assert_allclose(batches.samples, stack.samples, **CLOSE)
    pair = low[:2] + low[2:]
    np.testing.assert_allclose(translate_unsupervised(pipe, pair[1], first_slice=1, **SEPARATION).expected[0],
                               translate_unsupervised(pipe, pair, **SEPARATION).expected[1], **CLOSE)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(pipe, low):
    first, again, other = (translate_unsupervised(pipe, low, seed=seed, n_samples=2, eta=1.0, noise=True, **LOW)
                           for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.samples, again.samples)
    np.testing.assert_array_equal(first.sinograms, again.sinograms)
    assert first.sinograms.dtype == np.int64
    assert first.samples.shape == (4, 2, *GEOMETRY.sinogram_shape)
    np.testing.assert_allclose(first.expected, first.samples.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(first.spread, first.samples.std(axis=1, ddof=1), rtol=1e-3, atol=1e-3)
    assert (first.samples != other.samples).mean() > 0.9
    assert (first.samples[:, 0] != first.samples[:, 1]).mean() > 0.9


def test_an_early_start_keeps_the_source_and_a_late_one_draws_anew(pipe, drawn):
    with torch.no_grad():
        coded = pipe.autoencoder.counts(encode_counts(pipe.autoencoder, drawn.astype(float))).numpy()
    off = [np.abs(translate_unsupervised(pipe, drawn, **CONVERSION | {"steps": steps, "start": start}).expected
                  - coded).mean() for steps, start in ((1000, 0.001), (5, 0.2), (5, 1.0))]
    assert off[0] < 0.2 * off[2]
    assert off[0] < off[1] < off[2]
    # Of pure noise nothing of the source is left.
    np.testing.assert_array_equal(*(translate_unsupervised(pipe, y, start=1.0, **CONVERSION).expected
                                    for y in drawn[:2]))


def test_a_conversion_is_drawn_with_the_prompt_of_the_other_tracer(pipe, drawn):
    """From noise alone, it is what the pipeline draws for that prompt from the same noise."""
    seen = []

    def listen(module, args):
        seen.append(args[2])

    handle = pipe.denoiser.register_forward_pre_hook(listen)
    translate_unsupervised(pipe, drawn[0], region="chest", **CONVERSION)
    translate_unsupervised(pipe, drawn[0], task="delayed-frame", tracer="DOPA", steps=5)
    handle.remove()
    n_steps = [round(START[task] * 5) for task in ("tracer-conversion", "delayed-frame")]
    wanted = [Prompt("PSMA", "chest").tokens()] * n_steps[0] + [Prompt("DOPA").tokens()] * max(1, n_steps[1])
    assert [tuple(tokens[0].tolist()) for tokens in seen] == wanted


def test_a_delayed_frame_says_that_no_time_passes(pipe, drawn):
    assert any("first frames" in note for note in
               translate_unsupervised(pipe, drawn[0], task="delayed-frame", steps=5).notes)


def test_the_start_has_the_variance_of_its_time(pipe, low):
    part = _Draws(pipe.autoencoder, read_inputs(_AsTranslator(pipe.autoencoder), np.repeat(low[:1], 200, axis=0),
                                                task="tracer-separation", other="PSMA"), list(range(200)))
    draws = [torch.Generator().manual_seed(i) for i in range(200)]
    with torch.no_grad():
        z, source = part.begin(torch.tensor(0.36), draws), encode_counts(pipe.autoencoder, low[:1] / 2)
    assert z.std(dim=0).mean() == pytest.approx(0.8, rel=0.01)
    middle, channels = z.mean(dim=0), len(source[0])
    for slot in (middle[:channels], middle[channels:]):
        assert float((slot * source[0]).sum() / source.square().sum()) == pytest.approx(0.6, abs=0.02)


def test_more_strength_trusts_the_counts_more_and_at_noisy_times_most(pipe, low, monkeypatch):
    apart = [deviance(low, translate_unsupervised(pipe, low, strength=strength, **LOW).expected / 10)
             for strength in (0.001, 0.01, 0.1)]
    assert (np.diff(apart, axis=0) < 0).all()
    seen = []
    monkeypatch.setattr(_Draws, "towards_counts", lambda self, clean, *how: seen.append(how) or clean)
    translate_unsupervised(pipe, low, strength=0.25, likelihood_steps=3, **LOW)
    left = 1 - pipe.scheduler.alphas_cumprod[[999, 749, 499, 249]]
    np.testing.assert_allclose([how[0] for how in seen], left, rtol=1e-5)
    assert {how[1:] for how in seen} == {(0.25, 3)}


def test_bright_counts_and_great_strength_stay_finite(pipe, drawn):
    for how in ({"strength": 1e4}, {"strength": 1e6, "likelihood_steps": 4}):
        with pytest.warns(UserWarning, match="counts in the mean bin"):
            out = translate_unsupervised(pipe, 50 * drawn[:1], **LOW | {"dose_factor": 1} | how)
        assert np.isfinite(out.expected).all()


def test_empty_slices_pull_towards_nothing(pipe, low):
    out = translate_unsupervised(pipe, 0 * low, likelihood_steps=4, **LOW)
    free = translate_unsupervised(pipe, 0 * low, strength=0, **LOW)
    assert np.isfinite(out.expected).all()
    assert (out.expected.sum((1, 2)) < 0.95 * free.expected.sum((1, 2))).all()
    assert np.isnan(out.source_ratio).all()


def test_low_doses_start_from_the_latent_of_full_dose(pipe, low):
    near = translate_unsupervised(pipe, low, **LOW | {"steps": 1000, "start": 0.001, "strength": 0}).expected
    with torch.no_grad():
        full, as_given = (pipe.autoencoder.counts(encode_counts(pipe.autoencoder, gain * low)).numpy()
                          for gain in (10.0, 1.0))
    assert np.abs(near - full).mean() < 0.2 * np.abs(near - as_given).mean()


def test_another_geometry_is_resampled_and_comes_back(pipe, drawn):
    fine = GEOMETRY.replace(n_bins=64, bin_mm=10.4)
    y = np.repeat(drawn[0] // 2, 2, axis=1)
    out = translate_unsupervised(pipe, y, geometry=fine, reconstruct="fbp", **CONVERSION)
    assert out.sinograms.shape == (1, 32, 64)
    assert out.geometry == fine
    assert out.images.shape == (1, 32, 32)
    own = translate_unsupervised(pipe, 2 * (drawn[0] // 2), **CONVERSION).expected
    np.testing.assert_allclose(out.expected.reshape(1, 32, 32, 2).sum(axis=-1), own, rtol=1e-3, atol=1e-2)


def test_an_autoencoder_of_sinograms_alone_needs_no_blocks():
    torch.manual_seed(0)
    alone = SinogramAutoencoder(GEOMETRY.to_dict(), 400.0, channels=1, patch=2, block_out_channels=(16,),
                                latent_channels=2, norm_num_groups=8, mid_attention=False).eval()
    with torch.no_grad():
        assert encode_counts(alone, np.ones((3, *GEOMETRY.sinogram_shape))).shape == (3, *alone.latent_shape)


@pytest.mark.parametrize(("changes", "message"), [
    ({"task": "attenuation-correction", "dose_factor": None}, "never saw counts without attenuation"),
    ({"task": "dreams"}, "task must be one of low-dose, attenuation-correction, .* but was 'dreams'"),
    ({"task": None}, "task must be one of"),
    ({"dose_factor": None}, "dose_factor must be given for low-dose"),
    ({"dose_factor": 0.5}, "dose_factor must be a number from 1 to 1000"),
    ({"other": "PSMA"}, "other must not be given for low-dose"),
    ({"tracer": "water"}, "tracer"),
    ({"strength": -1}, "strength must be a finite number of at least zero"),
    ({"start": 0}, "start must be a finite number greater than zero"),
    ({"start": 1.5}, "start must be a number from 0 to 1, but was 1.5"),
    ({"eta": 2}, "eta must be a number from 0 to 1"),
    ({"rescale": -0.1}, "rescale must be a finite number of at least zero"),
    ({"guidance": "much"}, "guidance must be a finite number"),
    ({"steps": 1001}, "steps must be an integer from 1 to 1000"),
    ({"likelihood_steps": 0}, "likelihood_steps must be"),
    ({"n_samples": 0}, "n_samples must be"),
    ({"seed": -1}, "seed must be"),
    ({"batch": 0}, "batch must be"),
    ({"reconstruct": "magic"}, 'reconstruct must be "osem", "fbp" or None'),
    ({"task": "delayed-frame", "dose_factor": None, "strength": 0.5}, "strength must be 0 for delayed-frame"),
])
def test_bad_settings_are_told_in_a_sentence(pipe, low, changes, message):
    with pytest.raises(InputError, match=message) as told:
        translate_unsupervised(pipe, low, **LOW | changes)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(("change", "error", "message"), [
    (lambda y: y - 1.0, InputError, "sinograms must not be negative"),
    (lambda y: y + 0.5, InputError, "sinograms must be whole numbers of counts, but held"),
    (lambda y: np.where(y > 3, np.nan, y), InputError, "sinograms"),
    (lambda y: y[:, :30], GeometryError, "sinograms must have shape .* 32 x 32"),
    (lambda y: y[None], GeometryError, "sinograms must have shape"),
    (lambda y: "counts", GeometryError, "sinograms must have shape"),
])
def test_what_is_no_stack_of_counts_is_refused(pipe, low, change, error, message):
    with pytest.raises(error, match=message):
        translate_unsupervised(pipe, change(low), **LOW)


def test_other_geometries_and_pipelines_are_refused(pipe, low):
    with pytest.raises(GeometryError, match=r"geometry must have the angles and bins of the model.*resample=True"):
        translate_unsupervised(pipe, low, geometry=GEOMETRY.replace(bin_mm=10.0), resample=False, **LOW)
    with pytest.raises(GeometryError, match="geometry must be a ParallelGeometry, but was int"):
        translate_unsupervised(pipe, low, geometry=32, **LOW)
    with pytest.raises(InputError, match="pipe must be a SinogramGenerationPipeline, but was str"):
        translate_unsupervised("small", low, **LOW)


def test_arguments_are_named_as_those_of_the_bridge():
    bridge, own = (inspect.signature(call).parameters for call in
                   (SinogramBridgePipeline.__call__, translate_unsupervised))
    shared = set(bridge) - {"self", "roi", "attention", "gate_strength", "sampler", "likelihood_strength",
                            "n_views"}
    assert shared <= set(own)
