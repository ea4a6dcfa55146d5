"""CycleGAN: no pairs, cycles that close, two parts that leave each other alone, a training that learns and resumes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from allpet_gen.baselines.cyclegan import CycleGANObjective, ToldDiscriminator, without_pairs
from allpet_gen.baselines.unet import UNetPipeline
from allpet_gen.prompts import VOCABULARY
from allpet_gen.tasks import TASKS
from allpet_gen.training import TrainingSettings, TrainingStopped, train
from allpet_gen.training_log import read_losses
from allpet_gen.translator import SinogramTranslator
from allpet_physics.errors import InputError

from .translation_helpers import TOLD, batch_of, pair_dataset, random_pairs, tiny_translator

PAIRS = random_pairs()
WEIGHTS = {"cycle": 10.0, "identity": 5.0, "paired": 0.0}
BATCH = batch_of(pair_dataset(PAIRS, tiny_translator(PAIRS)))
ALONE = [not task.other for task in TASKS.values() for _ in range(len(PAIRS))]

pytestmark = pytest.mark.usefixtures("one_thread")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def objective_of(tasks=tuple(TASKS), told=TOLD, **weights):
    network = tiny_translator(PAIRS, tasks)
    torch.manual_seed(1)
    return CycleGANObjective(network, told, WEIGHTS | weights)


def rows(chosen, batch=BATCH):
    return {name: value[chosen] for name, value in batch.items()}


def adds_nothing(monkeypatch, *networks):
    for network in networks:
        monkeypatch.setattr(network, "forward", lambda z, *_, **__: torch.zeros_like(z))


# No pairs

@settings(deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=24), st.integers(0, 1000))
def test_nobody_keeps_its_own_target_unless_it_is_alone(tasks, seed):
    tasks, draws = torch.tensor(tasks), generator(seed)
    order = without_pairs(tasks, lambda *shape: torch.rand(*shape, generator=draws))
    assert sorted(order.tolist()) == list(range(len(tasks)))
    assert torch.equal(tasks[order], tasks)
    for i, task in enumerate(tasks):
        assert (order[i] == i) == ((tasks == task).sum() == 1)


def test_who_gets_whose_target_is_drawn():
    draws = generator()
    found = {tuple(without_pairs(torch.ones(5), lambda *shape: torch.rand(*shape, generator=draws)).tolist())
             for _ in range(60)}
    assert len(found) > 15


def spied(objective, monkeypatch):
    """Return the calls of both networks' ``forward``, by name: (z, source, told)."""
    calls = {"there": [], "back": []}
    for name, network in (("there", objective.network), ("back", objective.back)):
        def forward(z, t, source, _own=network.forward, _calls=calls[name], **told):
            _calls.append((z.detach(), source.detach(), told))
            return _own(z, t, source, **told)
        monkeypatch.setattr(network, "forward", forward)
    return calls


def test_each_target_comes_with_what_is_said_of_it_and_away_from_its_source(monkeypatch):
    objective = objective_of(told=TOLD | {"null_prompt": 0.0, "gated": 1.0})
    calls = spied(objective, monkeypatch)
    objective(BATCH, generator())
    x, _, y = objective.encoded(BATCH)
    z, noise, told = calls["back"][0]
    found = [int(((y == row).flatten(1).all(1) & (BATCH["tokens"] == said).all(1)).nonzero())
             for row, said in zip(z, told["tokens"], strict=True)]
    assert sorted(found) == list(range(len(y)))
    assert all(i != place for place, i in enumerate(found))
    assert torch.equal(told["numbers"], BATCH["numbers"][found])
    torch.testing.assert_close(noise.std(), torch.tensor(1.0), atol=0.05, rtol=0)
    # G is told of the sources first, then, of what H made, what was said of the targets.
    first, second, third = calls["there"]
    assert torch.equal(first[1], x)
    assert torch.equal(first[2]["tokens"], BATCH["tokens"])
    assert torch.equal(second[2]["tokens"], BATCH["tokens"][found])
    # The attention map is of a source that was measured, so nobody else may see it.
    assert torch.equal(first[2]["attention"], BATCH["attention"])
    assert not any("attention" in call[2] for call in (*calls["back"], second, third))
    # Identity: low doses alone.
    assert third[2]["tokens"][:, 2].unique().tolist() == [2]
    assert torch.equal(third[0][:, :4], third[1])
    low = [i for i in found if i < len(PAIRS)]
    torch.testing.assert_close(third[1], y[low][:, :4], rtol=1e-4, atol=1e-5)


def test_no_loss_sees_which_target_was_whose():
    """Targets that change places within their task, with what is said of them, change what is looked at alone."""
    batch = {name: torch.cat([value[:1]] * 2) for name, value in BATCH.items()}
    batch["source"] = BATCH["source"][:2]
    batch["targets"] = BATCH["targets"][:2]
    swapped = batch | {"targets": batch["targets"].flip(0)}
    objective = objective_of(["low-dose"], {"null_prompt": 0.0, "gated": 0.0, "gate_strength": 0.0}).eval()
    torch.manual_seed(0)
    silent = torch.zeros(2, 2, *objective.encoded(batch)[0].shape[1:])
    found = []
    for each in (batch, swapped):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "randn", lambda *_, **__: silent)  # noise belongs to a place, not to a target
            loss, terms = objective(each, generator())
            found.append((loss, terms))
    for name in ("adversarial", "cycle", "identity"):
        torch.testing.assert_close(found[0][1][name], found[1][1][name])
    assert abs(found[0][1]["clean"] - found[1][1]["clean"]) > 1e-3
    paired = objective_of(["low-dose"], {"null_prompt": 0.0, "gated": 0.0, "gate_strength": 0.0}, paired=1.0).eval()
    found = [paired(each, generator())[1]["paired"] for each in (batch, swapped)]
    assert abs(found[0] - found[1]) > 1e-3


# Cycles

def test_the_cycle_of_networks_that_add_nothing_is_closed(monkeypatch):
    objective = objective_of(paired=1.0)
    adds_nothing(monkeypatch, objective.network, objective.back)
    _, terms = objective(rows(ALONE), generator())
    assert terms["cycle"] < 1e-5
    assert terms["identity"] < 1e-5
    assert terms["paired"] > 0.1


def test_a_mixture_begins_as_the_sum_of_its_targets(monkeypatch):
    objective = objective_of()
    adds_nothing(monkeypatch, objective.back)
    for task, of_sum in (("tracer-separation", True), ("delayed-frame", False)):
        batch = rows([list(TASKS).index(task) * len(PAIRS) + i for i in range(3)])
        _, _, y = objective.encoded(batch)
        z = objective.predict_back(y, batch["used"], torch.zeros(3, 4, 8, 8), tokens=batch["tokens"],
                                   numbers=batch["numbers"])
        total = batch["targets"].sum(1) if of_sum else batch["targets"][:, 0]
        torch.testing.assert_close(z, objective.network.encode_source(total, 1.0), rtol=1e-4, atol=1e-4)


def test_the_way_back_uses_noise_and_gradients_are_finite_where_nothing_is():
    objective = objective_of()
    batch = rows(slice(0, 4))
    empty = -(1 + objective.network.config.center) / objective.network.config.deviation
    y = torch.full((4, 8, 8, 8), empty, requires_grad=True)
    told = {"tokens": batch["tokens"], "numbers": batch["numbers"]}
    out = [objective.predict_back(y, batch["used"], torch.randn(4, 4, 8, 8, generator=generator(seed)), **told)
           for seed in (0, 1)]
    assert not torch.allclose(*out, atol=1e-3)
    (slope,) = torch.autograd.grad(out[0].square().sum(), y)
    assert slope.isfinite().all()


def test_slots_that_are_not_used_reach_no_judge(monkeypatch):
    objective, seen = objective_of(), []
    own = objective.of_targets.forward
    monkeypatch.setattr(objective.of_targets, "forward", lambda x, *told: seen.append(x.detach()) or own(x, *told))
    objective(rows(ALONE), generator())
    objective(rows(ALONE), generator(), "discriminator")
    assert len(seen) == 3
    assert not any(x[:, 1].any() for x in seen)
    assert all(x[:, 0].flatten(1).any(1).all() for x in seen)


# Two parts

@pytest.mark.parametrize("part", ["model", "discriminator"])
def test_the_gradients_of_a_part_touch_that_part_alone(part):
    objective = objective_of(paired=0.5)
    for name, parameters in objective.parts.items():
        for parameter in parameters:
            parameter.requires_grad_(name == part)
    loss, terms = objective(BATCH, generator(), part)
    loss.backward()
    assert loss.isfinite()
    assert all(value.isfinite() and not value.requires_grad for value in terms.values())
    for name, parameters in objective.parts.items():
        moved = [p.grad is not None and bool(p.grad.any()) for p in parameters]
        assert sum(moved) > 0.9 * len(moved) if name == part else not any(moved), name
    assert all(p.grad is None or p.grad.isfinite().all() for p in objective.parameters())


def test_the_parts_are_both_networks_and_both_judges():
    objective = objective_of()
    parts = objective.parts
    assert list(parts) == ["model", "discriminator"]
    assert sum(map(len, parts.values())) == len(list(objective.parameters()))
    assert {id(p) for p in parts["model"]} == {id(p) for network in (objective.network, objective.back)
                                               for p in network.parameters()}
    assert isinstance(objective.back, SinogramTranslator)
    first, back = (network.denoiser.unet.conv_in.weight for network in (objective.network, objective.back))
    assert first.shape == back.shape
    assert not torch.equal(first, back)  # each begins elsewhere


@torch.no_grad()
def test_a_judge_hears_everything_that_is_said():
    torch.manual_seed(0)
    judge = ToldDiscriminator(2).eval()
    x = torch.randn(1, 2, 16, 16, generator=generator())
    tokens, numbers = torch.ones(1, 4, dtype=int), torch.zeros(1, 4)
    verdict = judge(x, tokens, numbers)
    assert verdict.shape == (1, 1, 2, 2)
    for place in torch.eye(4, dtype=int):
        assert not torch.allclose(judge(x, tokens + place, numbers), verdict, atol=1e-5)
        assert not torch.allclose(judge(x, tokens, numbers + place), verdict, atol=1e-5)


def test_the_same_generator_gives_the_same_loss():
    objective = objective_of().eval()  # in training, the spectral norm moves on with every call
    for part in ("model", "discriminator"):
        first, again, other = (objective(BATCH, generator(seed), part)[0] for seed in (3, 3, 4))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


@pytest.mark.parametrize("name", list(WEIGHTS))
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_weights_out_of_range_are_refused(name, value):
    with pytest.raises(InputError, match=rf"cyclegan.{name} must be"):
        objective_of(**{name: value})


# Its use

@torch.no_grad()
def test_the_way_there_is_a_network_that_the_unet_pipeline_asks(tmp_path):
    objective = objective_of().eval()
    UNetPipeline(objective.network).save_pretrained(tmp_path)
    pipeline = UNetPipeline.from_pretrained(tmp_path)
    task = list(TASKS).index("tracer-conversion") * len(PAIRS)
    batch = rows(slice(task, task + 3))
    source, start, _ = objective.encoded(batch)
    z = objective.predict(source, start, tokens=batch["tokens"], numbers=batch["numbers"])
    expected = objective.network.decode(z, batch["scale"])[:, 0]
    names = [None, *VOCABULARY["tracer"]]
    for counts, tokens, wanted, region in zip(batch["source"], batch["tokens"].tolist(), expected, PAIRS.regions,
                                              strict=False):
        out = pipeline(counts.numpy(), task="tracer-conversion", tracer=names[tokens[0]], other=names[tokens[3]],
                       region=str(region))
        torch.testing.assert_close(torch.from_numpy(out.expected).reshape(wanted.shape), wanted, rtol=1e-4, atol=1e-3)


# Training

def stop_after(n):
    calls = []
    return lambda: calls.append(1) or len(calls) == n


def run(out, steps, **options):
    how = TrainingSettings(steps=steps, batch=4, learning_rate=2e-3, warmup=5, ema_decay=0.9)
    objective = objective_of(("low-dose", "tracer-separation"))
    dataset = pair_dataset(PAIRS, objective.network)
    return train(objective, dataset, how, out, validation=dataset, **options)


def test_losses_are_finite_and_fall_in_60_steps(tmp_path):
    run(tmp_path, 60)
    found = read_losses(tmp_path)
    assert {"loss", "loss_discriminator", "adversarial", "cycle", "identity", "clean", "norm", "norm_discriminator",
            "validation"} <= set(found)
    assert "paired" not in found
    for name, values in found.items():
        assert all(math.isfinite(value) for value in values.values()), name
    for name in ("loss", "cycle", "loss_discriminator"):
        values = list(found[name].values())
        assert len(values) == 60
        assert sum(values[-10:]) < 0.7 * sum(values[:10]), name


def test_a_resumed_training_is_the_unbroken_one_bit_for_bit(tmp_path):
    whole = run(tmp_path / "whole", 8)
    with pytest.raises(TrainingStopped):
        run(tmp_path / "broken", 8, stop=stop_after(3))
    broken = run(tmp_path / "broken", 8, resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, broken.state_dict()[name]), name
    found = [read_losses(tmp_path / out) for out in ("whole", "broken")]
    assert found[0]["loss_discriminator"] == found[1]["loss_discriminator"]
    assert found[0]["validation"][8] == found[1]["validation"][8]
