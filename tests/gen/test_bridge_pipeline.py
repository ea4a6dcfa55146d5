"""The bridge: samples belong to their seeds, means are taken in counts, and what is no count is refused."""

import json
import warnings

import numpy as np
import pytest
import torch

from allpet_gen import _pretrained
from allpet_gen.data import apply_view, view_numbers
from allpet_gen.pipelines import SinogramGenerationPipeline
from allpet_gen.source_attention import source_attention
from allpet_gen.tasks import TASKS
from allpet_gen.translation_pipelines import SinogramBridgePipeline
from allpet_physics.attention import project_roi
from allpet_physics.counts import thin
from allpet_physics.errors import GeometryError, InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.resampling import resample_sinogram

from .tiny_pipeline import tiny_pipeline
from .tiny_translation import GEOMETRY, SCALES, random_counts, random_pairs, tiny_scheduler, tiny_translator, trained

LOW = {"task": "low-dose", "dose_factor": 10, "steps": 3}
AC = {"task": "attenuation-correction", "steps": 3}
SEPARATION = {"task": "tracer-separation", "other": "PSMA", "steps": 3}
TAUGHT = ("low-dose", "attenuation-correction", "tracer-separation")
OTHER = ParallelGeometry(48, 40, 18.0, (40, 40), 18.0)
CLOSE = {"rtol": 2e-3, "atol": 2e-2}


@pytest.fixture(scope="module")
def bridge():
    return SinogramBridgePipeline(tiny_translator(), tiny_scheduler())


@pytest.fixture(scope="module")
def low():
    return thin(random_counts(4).astype(np.int64), 0.1, np.random.default_rng(1))


@pytest.fixture(scope="module")
def pairs():
    return random_pairs(12)


@pytest.fixture(scope="module")
def taught(pairs, tmp_path_factory):
    """A bridge after 60 steps, which knows roughly what bodies are like."""
    objective = trained("bridge", TAUGHT, tmp_path_factory.mktemp("bridge"), pairs)
    return SinogramBridgePipeline(objective.network, objective.scheduler)


def deviance(counts, expected):
    """Return the Poisson deviance of counts in the mean bin."""
    expected = np.maximum(expected.astype(float), 1e-3)
    log = counts * np.log(np.where(counts > 0, counts, 1) / expected)
    return 2 * float((log - counts + expected).mean())


def disc(geometry=GEOMETRY, radius_mm=80.0):
    return np.hypot(geometry.x, geometry.y[:, None]) < radius_mm


def test_the_same_seed_gives_the_same_bits_and_another_does_not(bridge, low):
    first, again = (bridge(low, seed=5, n_samples=2, **LOW) for _ in range(2))
    np.testing.assert_array_equal(first.samples, again.samples)
    np.testing.assert_array_equal(first.sinograms, again.sinograms)
    assert first.sinograms.shape == first.spread.shape == low.shape
    assert first.samples.shape == (4, 2, 32, 32)
    assert first.sinograms.dtype == first.samples.dtype == first.spread.dtype == np.float32
    assert (first.geometry, first.task, first.images, len(first)) == (GEOMETRY, "low-dose", None, 4)
    other = bridge(low, seed=6, n_samples=2, **LOW)
    assert (other.samples != first.samples).mean() > 0.9
    assert (first.samples[:, 0] != first.samples[:, 1]).mean() > 0.9


def test_equal_slices_have_noise_of_their_own(bridge, low):
    twice = bridge(low[[0, 0]], **LOW)
    assert (twice.samples[0] != twice.samples[1]).mean() > 0.9


def test_no_global_seed_is_used_or_moved(bridge, low):
    torch.manual_seed(1)
    wanted = torch.rand(1)
    torch.manual_seed(1)
    bridge(low, eta=1.0, noise=True, **LOW)
    assert torch.rand(1) == wanted


@pytest.mark.parametrize("how", [{}, {"eta": 1.0}, {"sampler": "dbim1"}, {"sampler": "heun"}], ids=str)
def test_a_slice_alone_is_the_slice_in_its_stack(bridge, low, how):
    """Neither its neighbours nor the batch matter, beyond rounding."""
    together = bridge(low, n_samples=2, batch=8, **how, **LOW)
    for batch in (1, 3):
        parted = bridge(low, n_samples=2, batch=batch, **how, **LOW)
        np.testing.assert_allclose(parted.samples, together.samples, **CLOSE)
    alone = bridge(low[2], n_samples=2, first_slice=2, **how, **LOW)
    np.testing.assert_allclose(alone.samples[0], together.samples[2], **CLOSE)
    fewer = bridge(low[2], n_samples=1, first_slice=2, **how, **LOW)
    np.testing.assert_allclose(fewer.samples[0, 0], together.samples[2, 0], **CLOSE)


def test_a_stack_of_32_slices(bridge):
    assert bridge(np.tile(random_counts(4), (8, 1, 1)), **AC).sinograms.shape == (32, 32, 32)


def test_the_estimate_joins_samples_with_what_is_predicted_at_once_and_the_spread_is_theirs(bridge, low):
    out = bridge(low, n_samples=4, **LOW)
    # One sample has no weight; in one step there is nothing but the prediction.
    at_once = bridge(low, n_samples=1, **LOW).sinograms
    np.testing.assert_allclose(at_once, bridge(low, **LOW | {"steps": 1}).samples[:, 0], rtol=1e-5, atol=1e-4)
    wanted = (13 * at_once + 3 * out.samples.mean(axis=1, dtype=float)) / 16  # w = 3/16; this bridge has one view
    np.testing.assert_allclose(out.sinograms, wanted, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(out.spread, out.samples.std(axis=1, dtype=float, ddof=1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(out.expected, out.sinograms)
    bare = bridge(low, n_samples=4, keep_samples=False, **LOW)
    assert bare.samples is None
    np.testing.assert_array_equal(bare.sinograms, out.sinograms)
    np.testing.assert_array_equal(bare.spread, out.spread)
    assert bridge(low, **LOW).spread is None


def test_samples_see_views_and_come_back_upright(bridge, low, monkeypatch):
    """A network that repeats its source repeats it upright, whatever view it saw; views are told as in training."""
    viewing = SinogramBridgePipeline(tiny_translator(rotation_deg=15.0, mirrored=True), bridge.scheduler)
    seen = []

    def repeats(scaled, noise_condition, batch):
        seen.append(batch)
        t = torch.exp(4 * noise_condition.double() / bridge.scheduler.config.noise_scale).clamp(max=1)
        z = scaled / bridge.scheduler.scale_model_input(torch.ones(1), t)
        return bridge.scheduler.model_target(batch.start, t, z)

    monkeypatch.setattr(viewing, "_asked", repeats, raising=False)
    out = viewing(low, n_samples=6, batch=24, **LOW)
    np.testing.assert_allclose(out.samples, np.repeat(low[:, None] * 10, 6, axis=1), rtol=1e-3, atol=1e-2)
    views = [viewing.network.view(number) for number in range(6)]
    assert views[0] == (0, False)
    assert len(set(views)) == 6
    assert {mirrored for _, mirrored in views} == {False, True}
    assert max(abs(turn) for turn, _ in views) <= 15 / 180 * 32
    for item, (turn, mirrored) in enumerate(views):
        counts, numbers = seen[0].counts[item].numpy(), seen[0].told["numbers"][item].tolist()
        np.testing.assert_array_equal(counts, apply_view(low[0], turn, mirrored, GEOMETRY))
        assert numbers == pytest.approx([*view_numbers(turn, mirrored, GEOMETRY), 0.5])
    seen.clear()
    viewing(low, n_samples=6, n_views=1, batch=24, **LOW)
    np.testing.assert_array_equal(seen[0].counts[0], seen[0].counts[5])


def test_a_region_is_seen_in_the_view_of_its_sample(bridge, low, monkeypatch):
    viewing, seen = SinogramBridgePipeline(tiny_translator(rotation_deg=15.0, mirrored=True), bridge.scheduler), []

    def asked(z, t, batch):
        seen.append(batch)
        return SinogramBridgePipeline._asked(viewing, z, t, batch)

    monkeypatch.setattr(viewing, "_asked", asked, raising=False)
    attention = np.random.default_rng(0).random((32, 32), dtype=np.float32)
    viewing(low[0], n_samples=3, attention=attention, gate_strength=0.5, **LOW)
    for item in range(3):
        wanted = apply_view(attention, *viewing.network.view(item), GEOMETRY)
        np.testing.assert_array_equal(seen[0].told["attention"][item, 0], wanted)


def test_a_perfect_network_returns_its_targets_in_counts(bridge, monkeypatch, pairs):
    """What the network says of the clean latent is what comes out: slots, scales and times fit together."""
    targets = {"low-dose": pairs.expected[:2, 0, 0], "attenuation-correction": pairs.unattenuated[:2, 0, 0],
               "tracer-separation": pairs.expected[:2, :, 0]}
    scheduler, network = bridge.scheduler, bridge.network

    def perfect(scaled, noise_condition, batch):
        t = torch.exp(4 * noise_condition.double() / scheduler.config.noise_scale).clamp(max=1)
        z = scaled / scheduler.scale_model_input(torch.ones(1), t)
        wanted = torch.zeros(2, 2, 32, 32)
        wanted[:, :target.shape[1]] = torch.from_numpy(target)
        wanted = wanted.repeat_interleave(2, dim=0)  # two samples of each
        scales = torch.full((4,), SCALES[settings["task"]])
        return scheduler.model_target(network.encode_target(wanted, scales, batch.used), t, z)

    monkeypatch.setattr(bridge, "_asked", perfect, raising=False)
    for settings in (LOW, AC, SEPARATION):
        wanted = targets[settings["task"]]
        target = wanted.reshape(2, -1, 32, 32)
        out = bridge(pairs.counts[:2, 0, 0], n_samples=2, **settings)
        np.testing.assert_allclose(out.sinograms, wanted, rtol=1e-3, atol=1e-2)
        assert out.spread.max() < 1e-2 * wanted.max()


def test_a_slot_that_is_not_used_stays_empty(bridge, low, monkeypatch):
    seen = []

    def asked(z, t, batch):
        seen.append(z)
        return SinogramBridgePipeline._asked(bridge, z, t, batch)

    monkeypatch.setattr(bridge, "_asked", asked, raising=False)
    bridge(low, eta=1.0, **LOW)
    assert len(seen) == LOW["steps"]
    assert all((z[:, 4:] == 0).all() and (z[:, :4] != 0).any() for z in seen)
    seen.clear()
    bridge(low, eta=1.0, **SEPARATION)
    assert all((z[:, 4:] != 0).any() for z in seen)


def test_noise_is_poisson_around_the_estimate(bridge, low):
    plain, noisy = (bridge(low, noise=noise, **LOW) for noise in (False, True))
    np.testing.assert_array_equal(plain.expected, noisy.expected)
    assert noisy.sinograms.dtype == np.int64
    mean, use = noisy.expected.astype(float), noisy.expected > 5
    chi_squared = ((noisy.sinograms - mean)[use] ** 2 / mean[use]).sum()
    assert chi_squared == pytest.approx(use.sum(), abs=5 * np.sqrt((2 + 1 / mean[use]).sum()))
    alone = bridge(low[2], noise=True, first_slice=2, **LOW)
    assert (alone.sinograms[0] != noisy.sinograms[2]).mean() < 0.02


def test_counts_of_any_real_type_are_the_same_counts(bridge, low):
    wanted = bridge(low, **LOW).sinograms
    for dtype in (np.uint16, ">i4", np.float16, np.float32, np.float64):
        np.testing.assert_array_equal(bridge(low.astype(dtype), **LOW).sinograms, wanted)
    np.testing.assert_array_equal(bridge(low.tolist(), **LOW).sinograms, wanted)


def test_another_geometry_comes_back_in_its_own(bridge, low):
    given = np.rint(resample_sinogram(low.astype(float), GEOMETRY, OTHER))
    with pytest.warns(UserWarning, match="no longer Poisson"):
        out = bridge(given, geometry=OTHER, n_samples=2, roi=disc(OTHER), gate_strength=0.1, **LOW)
    assert out.sinograms.shape == (4, *OTHER.sinogram_shape)
    assert out.samples.shape == (4, 2, *OTHER.sinogram_shape)
    assert out.geometry == OTHER
    assert [note.partition(":")[0] for note in out.notes if "Resampled" in note] == ["source", "estimate"]
    own = bridge(resample_sinogram(given, OTHER, GEOMETRY).round(), n_samples=2, roi=disc(), gate_strength=0.1, **LOW)
    np.testing.assert_allclose(out.sinograms.sum((1, 2)), own.sinograms.sum((1, 2)), rtol=0.05)
    with pytest.raises(GeometryError, match="geometry must have the angles and bins of the model, 32 over pi x 32"):
        bridge(given, geometry=OTHER, resample=False, **LOW)


def test_what_needs_no_resampling_is_not_resampled(bridge, low):
    finer_image = GEOMETRY.replace(image_shape=(64, 64), pixel_mm=10.4, bin_mm=GEOMETRY.bin_mm * (1 + 1e-9))
    out = bridge(low, geometry=finer_image, resample=False, roi=disc(finer_image), gate_strength=0.2, **LOW)
    plain = bridge(low, roi=disc(), gate_strength=0.2, **LOW)
    np.testing.assert_allclose(out.sinograms, plain.sinograms, rtol=0.05, atol=1)  # the same disc on two grids
    assert not [note for note in out.notes if "Resampled" in note]
    # Whole bins that are added up are counts as before: nothing to warn of.
    halved = GEOMETRY.replace(n_bins=64, bin_mm=10.4)
    fine = np.stack([low // 2, low - low // 2], axis=-1).reshape(4, 32, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        both = bridge(fine, geometry=halved, **LOW)
    np.testing.assert_allclose(both.sinograms.reshape(4, 32, 32, 2).sum(-1), bridge(low, **LOW).sinograms, **CLOSE)


def test_bins_that_see_less_than_the_model_s_are_said(bridge):
    narrow = ParallelGeometry(32, 16, 20.8, (16, 16), 20.8)
    counts = np.full((32, 16), 9)
    out = bridge(counts, geometry=narrow, **AC)
    assert any("beyond the bins" in note for note in out.notes)
    wide = ParallelGeometry(32, 48, 20.8, (48, 48), 20.8)
    with pytest.raises(GeometryError, match="lie beyond"):
        bridge(np.full((32, 48), 9), geometry=wide, **AC)


@pytest.mark.parametrize(("change", "words"), [
    (lambda y: -y, "sinograms must not be negative, but their minimum was -"),
    (lambda y: y / 3, "sinograms must be whole numbers of counts, but held"),
    (lambda y: np.where(y > 3, np.nan, y), "sinograms must be finite"),
    (lambda y: np.where(y > 3, np.inf, y), "sinograms must be finite"),
    (lambda y: y + 0j, "real numbers"),
    (lambda y: y[:, :16], r"but their shape was \(4, 16, 32\); say by geometry="),
    (lambda y: y[:0], r"their shape was \(0, 32, 32\)"),
    (lambda y: y[0, 0], r"must have shape \(angle, bin\) or \(n, angle, bin\)"),
    (lambda y: y[None], r"their shape was \(1, 4, 32, 32\)"),
])
def test_what_is_no_count_is_refused(bridge, low, change, words):
    with pytest.raises(InputError, match=words) as raised:
        bridge(change(low), **LOW)
    assert "\n" not in str(raised.value)


def test_how_to_get_counts_is_said(bridge, low):
    with pytest.raises(InputError, match=r"before randoms are subtracted.*poisson_counts"):
        bridge(low * 0.5 + 0.1, **LOW)


@pytest.mark.parametrize(("arguments", "words"), [
    ({"task": "tracer-conversion", "other": "PSMA", "dose_factor": None}, "model was trained for, low-dose, .*--task"),
    ({"task": "superresolution"}, "task must be one of low-dose"),
    ({"dose_factor": None}, "dose_factor must be given for low-dose"),
    ({"dose_factor": 0.1}, "from 1 to 1000"),
    ({"task": "attenuation-correction"}, "dose_factor must not be given"),
    ({"task": "tracer-separation", "dose_factor": None}, "other must name the second tracer"),
    ({"other": "PSMA"}, "other must not be given for low-dose"),
    ({"tracer": "water"}, "water"),
    ({"region": "knee"}, "region must be one of"),
    ({"geometry": (32, 32)}, "geometry must be a ParallelGeometry"),
    ({"steps": 0}, "steps must be an integer of at least 1"),
    ({"steps": 1001}, "steps must be an integer from 1 to 1000"),
    ({"sampler": "ddim"}, "sampler must be one of dbim1"),
    ({"eta": 1.5}, "eta must be a number from 0"),
    ({"eta": 0.5, "sampler": "heun"}, "eta must be left out"),
    ({"n_samples": 0}, "n_samples must be"),
    ({"batch": 0}, "batch must be"),
    ({"seed": -1}, "seed must be"),
    ({"first_slice": -1}, "first_slice must be"),
    ({"reconstruct": "mlem"}, "reconstruct must be"),
    ({"likelihood_strength": -1}, "likelihood_strength must be"),
    ({"likelihood_strength": 1.1}, "likelihood_strength must be from 0 to 1, but was 1.1"),
    ({"gate_strength": 0.5}, "gate_strength must come with roi or attention"),
    ({"gate_strength": -1, "roi": "auto"}, "gate_strength must be"),
    ({"roi": "hot"}, 'roi must be a mask, "auto" or None'),
    ({"roi": disc(), "attention": np.zeros((32, 32))}, "must not both be given"),
    ({"roi": np.ones((20, 20), bool)}, r"image, \(32, 32\), .*but its shape was \(20, 20\)"),
    ({"roi": np.tile(disc(), (3, 1, 1))}, "roi must be one for all slices, or one for each of 4, but there were 3"),
    ({"roi": 0.5 * disc()}, "mask of 0 and 1"),
    ({"attention": np.full((32, 32), 1.5)}, "attention must be from 0 to 1"),
    ({"attention": np.full((32, 32), np.nan)}, "attention must be finite"),
    ({"attention": np.zeros((16, 32))}, r"attention must have the angles and bins .*\(32, 32\)"),
])
def test_mistakes_are_one_sentence(bridge, low, arguments, words):
    with pytest.raises(InputError, match=words) as raised:
        bridge(low, **{"task": "low-dose", "dose_factor": 10, "steps": 1, **arguments})
    assert "\n" not in str(raised.value)


def test_a_region_of_another_grid_names_both(bridge):
    counts = np.zeros(OTHER.sinogram_shape, int)
    with pytest.raises(GeometryError, match=r"\(40, 40\) or \(32, 32\), .* was \(20, 20\)"):
        bridge(counts, geometry=OTHER, roi=np.ones((20, 20), bool), **AC)
    with pytest.raises(GeometryError, match=r"\(48, 40\) or \(32, 32\), .* was \(20, 20\)"):
        bridge(counts, geometry=OTHER, attention=np.ones((20, 20)), **AC)


def test_a_region_is_seen_only_with_strength(bridge, low):
    plain, idle, gated = (bridge(low, roi=roi, gate_strength=strength, **LOW)
                          for roi, strength in ((None, 0), (disc(), 0), (disc(), 0.5)))
    np.testing.assert_array_equal(plain.sinograms, idle.sinograms)
    assert any("gate_strength of 0" in note for note in idle.notes)
    assert (plain.sinograms != gated.sinograms).mean() > 0.5
    ready = bridge(low, attention=project_roi(disc(), GEOMETRY), gate_strength=0.5, **LOW)
    np.testing.assert_array_equal(ready.sinograms, gated.sinograms)


def test_each_slice_has_its_region(bridge, low):
    masks = np.stack([disc(radius_mm=r) for r in (40, 80, 120, 160)])
    together = bridge(low, roi=masks, gate_strength=0.5, **LOW)
    alone = bridge(low[3], roi=masks[3], gate_strength=0.5, first_slice=3, **LOW)
    np.testing.assert_allclose(alone.sinograms[0], together.sinograms[3], **CLOSE)


def test_auto_is_the_hot_regions_of_the_input(bridge):
    counts = random_counts(3)
    counts[2] = 0
    auto = bridge(counts, roi="auto", gate_strength=0.5, **AC)
    wanted = source_attention(counts, GEOMETRY)
    assert wanted[:2].max() == 1
    ready = bridge(counts, attention=wanted, gate_strength=0.5, **AC)
    np.testing.assert_array_equal(auto.sinograms, ready.sinograms)
    assert "no hot region was found in 1 of 3 slices: the gate leaves them alone" in auto.notes


def test_far_too_many_counts_are_warned_of(bridge):
    with pytest.warns(UserWarning, match=r"slice 1 has 6e\+03 counts in the mean bin"):
        bridge(np.stack([np.ones((32, 32)), np.full((32, 32), 600)]), **LOW)


def test_settings_of_a_call_do_not_stay(bridge, low):
    before, plain = dict(bridge.scheduler.config), bridge(low, **LOW)
    for how in ({"sampler": "heun"}, {"eta": 1.0}):
        assert (bridge(low, **how, **LOW).samples != plain.samples).mean() > 0.9
    assert dict(bridge.scheduler.config) == before
    np.testing.assert_array_equal(bridge(low, **LOW).samples, plain.samples)


def test_progress_sees_every_step(bridge, low):
    seen = []

    def progress(rounds):
        assert len(rounds) == 9
        for step in rounds:
            seen.append(step)
            yield step

    bridge(low, n_samples=2, batch=3, progress=progress, **LOW)
    assert len(seen) == 9


def test_a_trained_bridge_keeps_totals(taught, pairs):
    full, truth = pairs.counts[:4, 0, 0].astype(np.int64), pairs.expected[:4, 0, 0]
    low = thin(full, 0.1, np.random.default_rng(3))
    out = taught(low, task="low-dose", dose_factor=10, tracer="FDG", steps=5, n_samples=8)
    np.testing.assert_allclose(out.sinograms.sum((1, 2)), truth.sum((1, 2)), rtol=0.3)
    np.testing.assert_allclose(out.source_ratio, out.sinograms.sum((1, 2)) / 10 / low.sum((1, 2)), rtol=1e-5)
    assert any("of the counts of the source" in note for note in out.notes)
    # Some of the noise of a tenth of the dose is gone.
    error, noise = (np.sqrt(np.square(a - truth).mean()) for a in (out.sinograms, 10.0 * low))
    assert error < 0.9 * noise
    corrected = taught(full, task="attenuation-correction", steps=5, n_samples=4)
    np.testing.assert_allclose(corrected.sinograms.sum((1, 2)), pairs.unattenuated[:4, 0, 0].sum((1, 2)), rtol=0.25)
    assert corrected.source_ratio is None


def test_separation_gives_two_and_says_what_they_add_up_to(taught, pairs):
    mixed = pairs.counts[:3, :, 0].sum(axis=1)
    out = taught(mixed, task="tracer-separation", tracer="FDG", other="PSMA", steps=5, n_samples=4, n_views=1,
                 reconstruct="fbp")
    assert out.sinograms.shape == out.spread.shape == (3, 2, 32, 32)
    assert out.samples.shape == (3, 4, 2, 32, 32)
    assert out.images.shape == (3, 2, 32, 32)
    sums = out.sinograms.sum((1, 2, 3)) / mixed.sum((1, 2))
    np.testing.assert_allclose(out.source_ratio, sums, rtol=1e-5)
    assert (np.abs(sums - 1) < 0.2).all()
    assert any(f"implies {out.source_ratio.mean():.4g} of the counts of the source (" in note for note in out.notes)
    # The first is the tracer's, the second the other's.
    truth = pairs.expected[:3, :, 0]
    assert np.square(out.sinograms - truth).mean() < np.square(out.sinograms - truth[:, ::-1]).mean()


@pytest.mark.parametrize("task", ["low-dose", "tracer-separation"])
def test_guidance_lowers_the_deviance_of_the_measured_counts(taught, pairs, task):
    if task == "low-dose":
        measured = thin(pairs.counts[:3, 0, 0].astype(np.int64), 0.1, np.random.default_rng(4))
        how = {"task": task, "dose_factor": 10}
    else:
        measured, how = pairs.counts[:3, :, 0].sum(axis=1), {"task": task, "other": "PSMA"}

    def off(strength, **more):
        out = taught(measured, n_samples=2, steps=5, likelihood_strength=strength, **how, **more)
        implied = out.sinograms / 10 if task == "low-dose" else out.sinograms.sum(axis=1)
        return deviance(measured, implied), out

    (plain, _), (little, _), (much, first), (_, again) = off(0.0), off(0.1), off(0.5), off(0.5)
    assert much < little < plain
    np.testing.assert_array_equal(first.samples, again.samples)
    np.testing.assert_allclose(off(0.5, batch=1)[1].samples, first.samples, **CLOSE)


def test_full_guidance_goes_to_the_counts_themselves(bridge, pairs):
    """Its strength is measured in bins: at 1, a last step within the noise ends at each bin's own count."""
    counts = pairs.counts[:2, 0, 0].astype(np.int64)
    out = bridge(counts, task="low-dose", dose_factor=1, steps=1, likelihood_strength=1.0)
    free = bridge(counts, task="low-dose", dose_factor=1, steps=1)
    root, wanted, before = (2 * np.sqrt(a) for a in (out.sinograms, counts, free.sinograms))
    far = np.sqrt(deviance(counts, free.sinograms))
    assert far > 2  # an untrained network is far off, and the step is shortened by as much
    bright = (counts > 20) & (free.sinograms > 20)
    shares = ((root - before) / (wanted - before))[bright & (np.abs(wanted - before) > 4)]
    assert np.median(shares) == pytest.approx(1 / far, rel=0.3)


def test_guidance_belongs_to_tasks_whose_source_follows_from_the_target(bridge):
    with pytest.raises(InputError, match=r"likelihood_strength must be 0 for attenuation-correction, .*low-dose and"):
        bridge(random_counts(1), likelihood_strength=0.1, **AC)


def test_images_are_those_of_the_estimate(bridge):
    counts = random_counts(2)
    out = bridge(counts, reconstruct="osem", **AC)
    assert out.images.shape == (2, *GEOMETRY.image_shape)
    assert any("OSEM" in note and "corrected already" in note for note in out.notes)
    out = bridge(counts, reconstruct="fbp", **LOW)
    assert out.notes[-1].endswith("no corrections")


def test_intervals_hold_what_the_samples_say(bridge, low):
    out = bridge(low[:2], n_samples=19, **LOW)
    lower, upper = out.interval(0.9)
    assert lower.shape == upper.shape == (2, 32, 32)
    np.testing.assert_array_equal(lower, out.samples.min(axis=1))
    np.testing.assert_array_equal(upper, out.samples.max(axis=1))
    with pytest.raises(InputError, match="at least 39"):
        out.interval(0.95)
    with pytest.raises(InputError, match="none were kept"):
        bridge(low, n_samples=2, keep_samples=False, **LOW).interval()


@pytest.fixture(scope="module")
def saved(bridge, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "bridge-m"
    bridge.save_pretrained(folder, card={"made": "for a test"})
    return folder


def test_a_saved_bridge_comes_back_to_the_last_bit(bridge, saved, low):
    loaded = SinogramBridgePipeline.from_pretrained(saved)
    assert loaded.card["made"] == "for a test"
    assert loaded.geometry == GEOMETRY
    assert loaded.tasks == bridge.tasks == tuple(name for name in TASKS if name in SCALES)
    mine, theirs = (p.network.state_dict() for p in (bridge, loaded))
    assert all(torch.equal(mine[key], theirs[key]) for key in mine | theirs)
    np.testing.assert_array_equal(loaded(low, n_samples=2, **LOW).samples, bridge(low, n_samples=2, **LOW).samples)


def test_half_precision_computes(bridge, saved, low):
    half = SinogramBridgePipeline.from_pretrained(saved, dtype=torch.bfloat16)
    assert half.network.dtype == torch.bfloat16
    assert half(low, **LOW).sinograms.sum() == pytest.approx(bridge(low, **LOW).sinograms.sum(), rel=0.1)


def test_a_model_of_another_kind_is_refused(saved, tmp_path):
    tiny_pipeline().save_pretrained(tmp_path / "generator")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    for loader, folder, found in ((SinogramBridgePipeline, tmp_path / "generator", "SinogramGenerationPipeline"),
                                  (SinogramGenerationPipeline, saved, "SinogramBridgePipeline"),
                                  (SinogramBridgePipeline, tmp_path / "foreign", "StableDiffusionPipeline")):
        with pytest.raises(InputError, match=f"must be one for {loader.__name__}, but .* is one for {found}") as raised:
            loader.from_pretrained(folder)
        assert "\n" not in str(raised.value)


def test_a_name_means_the_model_of_its_kind(bridge, tmp_path, monkeypatch):
    monkeypatch.setattr(_pretrained, "_shipped", lambda: tmp_path)
    bridge.save_pretrained(tmp_path / "bridge-small", card={"made": "bridge"})
    with pytest.raises(InputError, match=r"model must be one of \(none is shipped\), .*'small'"):
        SinogramGenerationPipeline.from_pretrained("small")
    tiny_pipeline().save_pretrained(tmp_path / "small", card={"made": "generator"})
    assert _pretrained.shipped_models() == ("small",)
    assert _pretrained.shipped_models("SinogramBridgePipeline") == ("small",)
    assert SinogramBridgePipeline.from_pretrained("small").card["made"] == "bridge"
    assert SinogramGenerationPipeline.from_pretrained("small").card["made"] == "generator"

    class Mine(SinogramBridgePipeline):
        """A pipeline of the user's own loads what its parent would."""

    assert Mine.from_pretrained("small").card["made"] == "bridge"
