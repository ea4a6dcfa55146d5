"""The U-Net: what it returns is what was minimised, by the call of the bridge."""

import inspect

import numpy as np
import pytest
import torch

from allpet_gen.baselines.unet import UNetPipeline
from allpet_gen.pairs import PairDataset
from allpet_gen.translation_objectives import RegressionObjective
from allpet_gen.translation_pipelines import SinogramBridgePipeline
from allpet_physics.counts import thin
from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry

from .tiny_translation import GEOMETRY, SCALES, random_counts, random_pairs, tiny_translator, trained

LOW = {"task": "low-dose", "dose_factor": 10}


@pytest.fixture(scope="module")
def unet():
    return UNetPipeline(tiny_translator())


def test_it_returns_what_its_objective_predicts(unet):
    """Source, dose, tokens and scales go the way they go in training."""
    still = {"rotation_deg": 0.0, "mirror": 0.0}
    told = {"gate_strength": 0.0, "gated": 0.0, "null_prompt": 0.0}
    objective, pairs = RegressionObjective(unet.network, told), random_pairs(3)
    dataset = PairDataset(pairs, SCALES, SCALES, still, seed=0)
    for index in range(0, len(dataset), 3):
        batch = torch.utils.data.default_collate([dataset[0, index]])
        source, start, _ = objective.encoded(batch)
        task = dataset.tasks[index // 3]
        with torch.no_grad():
            z = objective.predict(source, start, tokens=batch["tokens"], numbers=batch["numbers"])
            wanted = unet.network.decode(z, torch.tensor([SCALES[task]]))[0].numpy()
        words = [None, *pairs.tracers[:1], None, *pairs.tracers[1:]]  # by token
        tracer, other = words[batch["tokens"][0, 0]], words[batch["tokens"][0, 3]]
        factor = {"dose_factor": float(batch["gain"])} if task == "low-dose" else {}
        out = unet(batch["source"][0], task=task, tracer=tracer, region="brain", other=other, **factor)
        if task == "tracer-separation":
            np.testing.assert_allclose(out.sinograms[0], wanted, rtol=1e-4, atol=1e-3)
        else:
            np.testing.assert_allclose(out.sinograms[0], wanted[0], rtol=1e-4, atol=1e-3)


def test_one_call_serves_bridge_and_unet(unet):
    def names(method):
        return list(inspect.signature(method.__call__).parameters)

    assert names(UNetPipeline) == names(SinogramBridgePipeline)
    counts = random_counts(3)
    out = unet(counts, steps=10, sampler="dbim1", eta=0.5, reconstruct="fbp", **LOW)
    assert out.sinograms.shape == (3, 32, 32)
    assert out.images.shape == (3, 32, 32)
    assert out.samples is None
    assert out.spread is None
    np.testing.assert_array_equal(out.sinograms, unet(counts, seed=9, **LOW).sinograms)
    with pytest.raises(InputError, match="none were kept"):
        out.interval()


def test_the_mean_over_views_is_that_of_answers_turned_back():
    unet, counts = UNetPipeline(tiny_translator(rotation_deg=15.0, mirrored=True)), random_counts(2)
    wanted = np.zeros(counts.shape)
    for number in range(3):
        turn, mirrored = unet.network.view(number)
        seen = UNetPipeline(tiny_translator(rotation_deg=15.0, mirrored=True))
        # The same network, upright, told of a scan that stands as in this view.
        seen.network.view = lambda _, view=(turn, mirrored): view
        wanted += seen(counts, n_views=1, **LOW).sinograms / 3
    out = unet(counts, n_views=3, **LOW)
    np.testing.assert_allclose(out.sinograms, wanted, rtol=1e-4, atol=1e-3)
    assert out.spread is None
    assert np.abs(out.sinograms - unet(counts, **LOW).sinograms).max() > 0.1


def test_a_slice_alone_is_the_slice_in_its_stack(unet):
    counts = random_counts(5)
    together = unet(counts, noise=True, **LOW)
    for batch in (1, 3):
        np.testing.assert_allclose(unet(counts, batch=batch, **LOW).expected, together.expected, rtol=1e-4, atol=1e-3)
    alone = unet(counts[3], noise=True, first_slice=3, **LOW)
    assert (alone.sinograms[0] != together.sinograms[3]).mean() < 0.02


def test_another_geometry_comes_back_in_its_own(unet):
    halved = GEOMETRY.replace(n_bins=64, bin_mm=10.4)
    fine = np.repeat(random_counts(2), 2, axis=-1)
    out = unet(fine, geometry=halved, task="delayed-frame")
    assert out.sinograms.shape == (2, 32, 64)
    own = unet(2 * random_counts(2), task="delayed-frame")
    np.testing.assert_allclose(out.sinograms.sum((1, 2)), own.sinograms.sum((1, 2)), rtol=1e-3)
    assert ParallelGeometry(**unet.geometry.to_dict()) == GEOMETRY


@pytest.mark.parametrize(("arguments", "words"), [
    ({"n_samples": 2}, "n_samples must be 1 for a U-Net"),
    ({"likelihood_strength": 0.1}, "likelihood_strength must be 0 for a U-Net"),
    ({"task": "tracer-conversion", "other": "PSMA", "dose_factor": None}, "model was trained for"),
    ({"sinograms": -random_counts(1).astype(int)}, "negative"),
    ({"sinograms": random_counts(1) / 2}, "whole numbers"),
    ({"batch": 0}, "batch must be"),
    ({"seed": -1}, "seed must be"),
    ({"reconstruct": "mlem"}, "reconstruct must be"),
    ({"roi": np.ones((9, 9))}, r"\(32, 32\), .* was \(9, 9\)"),
])
def test_mistakes_are_one_sentence(unet, arguments, words):
    with pytest.raises(InputError, match=words) as raised:
        unet(**{"sinograms": random_counts(1).astype(int), **LOW, **arguments})
    assert "\n" not in str(raised.value)


def test_it_comes_back_from_its_folder(unet, tmp_path):
    unet.save_pretrained(tmp_path / "u", card={"made": "for a test"})
    loaded = UNetPipeline.from_pretrained(tmp_path / "u")
    assert loaded.card["made"] == "for a test"
    counts = random_counts(2)
    np.testing.assert_array_equal(loaded(counts, **LOW).sinograms, unet(counts, **LOW).sinograms)
    with pytest.raises(InputError, match=r"must be one for SinogramBridgePipeline, but .* is one for UNet"):
        SinogramBridgePipeline.from_pretrained(tmp_path / "u")
    half = UNetPipeline.from_pretrained(tmp_path / "u", dtype=torch.bfloat16)
    assert half(counts, **LOW).sinograms.sum() == pytest.approx(unet(counts, **LOW).sinograms.sum(), rel=0.05)


def test_trained_for_a_moment_it_keeps_totals(tmp_path):
    pairs = random_pairs(12)
    unet = UNetPipeline(trained("unet", ["low-dose"], tmp_path, pairs).network)
    full, truth = pairs.counts[:4, 0, 0].astype(np.int64), pairs.expected[:4, 0, 0]
    low = thin(full, 0.1, np.random.default_rng(3))
    out = unet(low, tracer="FDG", **LOW)
    np.testing.assert_allclose(out.sinograms.sum((1, 2)), truth.sum((1, 2)), rtol=0.15)
    np.testing.assert_allclose(out.source_ratio, out.sinograms.sum((1, 2)) / 10 / low.sum((1, 2)), rtol=1e-5)
    untrained = UNetPipeline(tiny_translator())(low, tracer="FDG", **LOW)
    assert np.square(out.sinograms - truth).mean() < 0.5 * np.square(untrained.sinograms - truth).mean()
