"""What the generator's baselines share: seeds, prompts, counts, files, options that they do not have, resumption."""

import numpy as np
import pytest
import torch

from allpet_gen.baseline_stages import baseline_memory, new_objective, train_baseline
from allpet_gen.baselines.views import ViewDataset, without_some_words
from allpet_gen.data import CompositeDataset
from allpet_gen.generation_models import generator_folder, limits, load_generator
from allpet_gen.prompts import Prompt
from allpet_gen.training import TrainingStopped
from allpet_physics.errors import GeometryError, InputError

from .baseline_helpers import CLASSES, GEOMETRY, METHODS, batch_of, class_set, quick, trained, untrained
from .training_helpers import loss_lines, random_class_set, tiny_autoencoder, tiny_settings

pytestmark = pytest.mark.usefixtures("one_thread")
#: Of the score-based model's sampler.
STEPS = {"vae": {}, "gan": {}, "sgm": {"steps": 6}}


@pytest.fixture(scope="module", params=METHODS)
def method(request):
    return request.param


@pytest.fixture(scope="module")
def pipe(method):
    return load_generator(trained(method))


def test_a_seed_is_a_sinogram_whatever_stands_beside_it(pipe, method):
    how = STEPS[method] | {"reconstruct": None}
    first, again = (pipe(CLASSES, count=2, seed=5, **how) for _ in range(2))
    np.testing.assert_array_equal(first.sinograms, again.sinograms)
    assert first.seeds == (5, 6, 7, 8)
    assert first.sinograms.dtype == np.int64
    other = pipe(CLASSES, count=2, seed=9, **how)
    assert (other.expected != first.expected).mean() > 0.9
    alone = pipe(CLASSES[1], seed=8, **how)
    np.testing.assert_allclose(alone.expected[0], first.expected[3], rtol=1e-3, atol=1e-2)
    parted = pipe(CLASSES, count=2, seed=5, batch=3, **how)
    np.testing.assert_allclose(parted.expected, first.expected, rtol=1e-3, atol=1e-2)


def test_no_global_seed_is_used_or_moved(pipe, method):
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        found.append(pipe(CLASSES[0], reconstruct=None, **STEPS[method]).sinograms)
        assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(*found)


def test_prompts_decide_the_totals_as_in_the_training_set(pipe, method):
    real = class_set()
    steps = {"steps": 40} if method == "sgm" else {}
    drawn = pipe(CLASSES, count=8, seed=1, reconstruct=None, **steps)
    for k, name in enumerate(CLASSES):
        totals = drawn.sinograms[8 * k:8 * k + 8].sum((1, 2))
        wanted = real.counts[real.labels == k].sum((1, 2), dtype=float).mean()
        assert totals.mean() == pytest.approx(wanted, rel=0.35), name


def test_counts_are_poisson_around_the_expectation(pipe, method):
    drawn = pipe(CLASSES[1], count=8, reconstruct=None, **STEPS[method])
    deviance = (drawn.sinograms - drawn.expected) ** 2 / np.maximum(drawn.expected, 1e-3)
    assert deviance[drawn.expected > 5].mean() == pytest.approx(1, abs=0.1)
    bare = pipe(CLASSES[1], count=8, noise=False, reconstruct=None, **STEPS[method])
    np.testing.assert_array_equal(bare.sinograms, drawn.expected)


def test_images_and_another_geometry_are_those_of_the_generator(pipe, method):
    target = GEOMETRY.replace(n_angles=24)
    own, other = (pipe(CLASSES[0], geometry=g, noise=False, reconstruct="fbp", **STEPS[method])
                  for g in (None, target))
    assert other.sinograms.shape == (1, 24, 16)
    assert other.images.shape == (1, 16, 16)
    np.testing.assert_allclose(other.sinograms.sum(), own.sinograms.sum(), rtol=1e-4)
    with pytest.raises(GeometryError, match="geometry must be a ParallelGeometry"):
        pipe(CLASSES[0], geometry="ge", **STEPS[method])


def test_a_model_that_is_saved_again_draws_the_same_bits(pipe, method, tmp_path):
    pipe.save_pretrained(tmp_path / "again")
    again = load_generator(tmp_path / "again")
    assert type(again) is type(pipe)
    assert again.card["method"] == method
    first, second = (p(CLASSES[0], seed=3, reconstruct=None, **STEPS[method]).sinograms for p in (pipe, again))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(("option", "value"), [("guidance", 2.0), ("roi", np.ones((16, 16))), ("eta", 0.5),
                                               ("guides", ()), ("sampler", "ddpm"), ("rescale", 0.0)])
def test_what_only_the_generator_has_is_refused(pipe, option, value):
    with pytest.raises(InputError, match=rf"^{option} must be left out for {pipe.kind}, .* for it\.$"):
        pipe(CLASSES[0], **{option: value})


def test_steps_belong_to_the_score_based_model(pipe, method):
    if method == "sgm":
        for steps in (1, 1001):
            with pytest.raises(InputError, match=f"^steps must be an integer from 2 to 1000, but was {steps}"):
                pipe(CLASSES[0], steps=steps)
    else:
        with pytest.raises(InputError, match=f"^steps must be left out for {pipe.kind}"):
            pipe(CLASSES[0], steps=10)


def test_progress_sees_every_round(pipe, method):
    seen = []
    pipe(CLASSES[0], count=3, batch=2, reconstruct=None, progress=lambda rounds: seen.append(len(rounds)) or rounds,
         **STEPS[method])
    assert seen == [2 * STEPS[method].get("steps", 1)]


def test_the_loader_finds_the_model_and_says_what_is_wrong(tmp_path, method):
    assert generator_folder(trained(method)) == trained(method) / method
    limit = limits(trained(method) / method)
    assert limit.geometry == GEOMETRY
    assert limit.baseline is type(load_generator(trained(method)))
    (tmp_path / "both").mkdir()
    for name in METHODS[:2]:
        (tmp_path / "both" / name).symlink_to(trained(name) / name)
    with pytest.raises(InputError, match=r"holds vae, gan; give the folder of one, such as .*vae\."):
        load_generator(tmp_path / "both")
    with pytest.raises(InputError, match="model must be one of"):
        load_generator(tmp_path)
    (tmp_path / "config").mkdir()
    for part in (trained(method) / method).iterdir():
        if part.name != "network":
            (tmp_path / "config" / part.name).symlink_to(part)
    with pytest.raises(InputError, match="cannot be loaded"):
        limits(tmp_path / "config")


def test_a_resumed_training_is_the_unbroken_one(method, tmp_path):
    changes = {f"training.{method}.steps": 6, "vae.kl_warmup": 5, "training.accumulation": 2}
    settings, sets = quick(method, **changes), (class_set(4), class_set(2, seed=1))
    whole = train_baseline(method, sets, settings, tmp_path / "whole")
    calls = []
    with pytest.raises(TrainingStopped):
        train_baseline(method, sets, settings, tmp_path / "broken", stop=lambda: calls.append(1) or len(calls) == 3)
    broken = train_baseline(method, sets, settings, tmp_path / "broken", resume=True)
    assert loss_lines(tmp_path / "broken" / f"{method}-training") == loss_lines(
        tmp_path / "whole" / f"{method}-training")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, broken.state_dict()[name]), name


def test_every_weight_learns(method):
    objective, dataset = untrained(method)
    for number, (part, parameters) in enumerate(objective.parts.items()):
        loss, _ = objective(batch_of(dataset), torch.Generator().manual_seed(number), part)
        loss.backward()
        names = {id(p): name for name, p in objective.named_parameters()}
        still = [names[id(p)] for p in parameters if p.grad is None or not p.grad.any()]
        assert not still, (part, still)


def test_checkpointed_gradients_are_the_same(method):
    found = []
    for checkpointed in (False, True):
        objective, dataset = untrained(method)
        if checkpointed:
            objective.network.enable_gradient_checkpointing()
        loss, _ = objective.train()(batch_of(dataset), torch.Generator().manual_seed(0))
        loss.backward()
        found.append([p.grad.clone() for p in objective.network.parameters()])
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(plain, again, rtol=1e-4, atol=1e-6)


def test_memory_grows_with_the_batch(method):
    few, many = (baseline_memory(quick(method, **{f"training.{method}.batch": n}), GEOMETRY, method) for n in (16, 64))
    assert few.fixed == many.fixed
    assert 3 < (many.total - many.fixed) / (few.total - few.fixed) < 5


def test_what_no_network_can_have_is_refused(method):
    with pytest.raises(GeometryError, match="multiples of 4, but had 18 x 16"):
        new_objective(method, GEOMETRY.replace(n_angles=18), quick(method))
    with pytest.raises(InputError, match="method must be one of vae, gan, sgm, but was 'magic'"):
        new_objective("magic", GEOMETRY, quick(method))


# What they are trained on

def test_views_are_those_of_the_generator():
    settings, data = tiny_settings(**{"data.composite": False}), random_class_set()
    autoencoder = tiny_autoencoder(settings, data)
    of_generator = CompositeDataset(data, autoencoder, settings["masks"], settings["augmentation"], 3)
    views = ViewDataset(data, autoencoder.scaling.scale, settings["augmentation"], 3)
    assert len(views) == len(data)
    turned = 0
    for key in [(0, 0), (0, 5), (4, 2), (7, 3)]:
        item = views[key]
        assert torch.equal(item["x"], of_generator[key])
        assert item["tokens"].tolist() == data.tokens[key[1]].tolist()
        turned += bool(item["view"].any())
    assert turned >= 2


def test_words_are_dropped_as_often_as_asked():
    tokens = torch.tensor([Prompt.parse("brain with FDG").tokens()]).repeat(20000, 1)
    found = without_some_words(tokens, 0.1, torch.Generator().manual_seed(0)) == 0
    assert found.all(1).float().mean() == pytest.approx(0.1, abs=0.01)
    assert found[:, 0].float().mean() == pytest.approx(1 - 0.9**2, abs=0.01)
    assert torch.equal(without_some_words(tokens, 0.0, torch.Generator()), tokens)
