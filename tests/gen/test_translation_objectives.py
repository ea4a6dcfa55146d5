"""The losses of translations, asked of networks that are perfect, or wrong in a known way."""

import pytest
import torch

from allpet_gen.bridge_schedule import latent_statistics
from allpet_gen.bridge_scheduler import BridgeScheduler
from allpet_gen.translation_objectives import BridgeObjective, RegressionObjective, Translation

from .translation_helpers import TOLD, batch_of, pair_dataset, random_pairs, tiny_translator

PAIRS = random_pairs()
NETWORK = tiny_translator(PAIRS)
BATCH = batch_of(pair_dataset(PAIRS, NETWORK, {"rotation_deg": 45.0, "mirror": 0.5}))
SEPARATION = BATCH["used"].bool().all(1)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def uniform(*shape):
    return torch.rand(*shape, generator=generator())


def rows(batch, chosen):
    return {name: value[chosen] for name, value in batch.items()}


def repeated(batch, times):
    return {name: value.repeat(times, *[1] * (value.ndim - 1)) for name, value in batch.items()}


def bridge_objective(network=None, **told):
    network = network or tiny_translator(PAIRS)
    shared = Translation(network, TOLD)
    _, start, target = shared.encoded(BATCH)
    return BridgeObjective(network, TOLD | told, BridgeScheduler(**latent_statistics(target, start)))


# What both share

def test_words_are_left_out_together_and_task_and_other_never():
    batch = repeated(BATCH, 40)
    told = Translation(NETWORK, TOLD).told(batch, uniform)
    kept = told["tokens"] == batch["tokens"]
    assert kept[:, 2:].all()
    assert torch.equal(kept[:, 0], kept[:, 1])
    assert (told["tokens"][~kept] == 0).all()
    assert (~kept[:, 0]).float().mean() == pytest.approx(0.1, abs=0.035)
    assert torch.equal(told["numbers"], batch["numbers"])


def test_the_gate_is_on_for_a_share_of_the_samples():
    batch = repeated(BATCH, 40)
    told = Translation(NETWORK, TOLD).told(batch, uniform)
    on = told["attention"].flatten(1).any(1)
    assert torch.equal(told["attention"][on], batch["attention"][on])
    assert on.float().mean() == pytest.approx(0.25, abs=0.05)
    assert told["gate_strength"] == 0.25


def test_errors_are_means_over_the_slots_that_are_used():
    shared = Translation(NETWORK, TOLD)
    _, start, _ = shared.encoded(BATCH)
    wrong = start + torch.tensor([3.0, 1.0]).repeat_interleave(4)[:, None, None]
    expected = torch.where(SEPARATION, torch.tensor(5.0), torch.tensor(9.0))
    torch.testing.assert_close(shared.error(wrong, start, BATCH["used"]), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("make", [bridge_objective, lambda: RegressionObjective(tiny_translator(PAIRS), TOLD)],
                         ids=["bridge", "regression"])
def test_the_same_generator_gives_the_same_loss_and_every_weight_a_gradient(make):
    objective = make()
    loss, terms = objective(BATCH, generator(5))
    assert torch.equal(loss, objective(BATCH, generator(5))[0])
    assert not torch.equal(loss, objective(BATCH, generator(6))[0])
    assert set(terms) == {"clean"}
    assert not terms["clean"].requires_grad
    loss.backward()
    assert loss.isfinite()
    assert set(objective.parts) == {"model"}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.parts["model"])
    assert sum(p.grad.any().item() for p in objective.parts["model"]) > 0.9 * len(objective.parts["model"])


# The bridge

class Oracle:
    """Stands for a network's ``forward``: what it should say, and how far it is off, at the last z that was drawn."""

    def __init__(self, objective, monkeypatch, off=0.0):
        self.scheduler, self.off, self.draw = objective.scheduler, off, objective.scheduler.bridge_sample
        self.seen = []
        monkeypatch.setattr(objective.scheduler, "bridge_sample", self.sample)
        monkeypatch.setattr(objective.network, "forward", self.forward)

    def sample(self, target, start, noise, t):
        self.target, self.start, self.noise, self.t = target, start, noise, t
        return self.draw(target, start, noise, t)

    def forward(self, z, condition, source, **told):
        torch.testing.assert_close(condition, self.scheduler.noise_condition(self.t))
        clean = self.scheduler.scale_model_input(torch.ones_like(z), self.t)
        self.seen.append(z / clean)
        return self.scheduler.model_target(self.target, self.t, self.seen[-1]) + self.off


def test_a_network_that_says_the_target_has_no_loss(monkeypatch):
    objective = bridge_objective()
    Oracle(objective, monkeypatch)
    loss, terms = objective(BATCH, generator())
    assert loss < 1e-6
    assert terms["clean"] < 1e-6


def test_one_that_is_off_loses_the_square_where_slots_are_used(monkeypatch):
    objective = bridge_objective()
    Oracle(objective, monkeypatch, off=torch.tensor([0.5, 2.0]).repeat_interleave(4)[:, None, None])
    for chosen, wanted in ((~SEPARATION, 0.25), (SEPARATION, (0.25 + 4) / 2)):
        loss, terms = objective(rows(BATCH, chosen), generator())
        assert loss.item() == pytest.approx(wanted, rel=1e-4)
        assert 0 < terms["clean"] < wanted  # c_out is below 1


def test_four_tenths_of_the_times_are_the_end_and_the_rest_is_spread_evenly(monkeypatch):
    objective = bridge_objective()
    oracle = Oracle(objective, monkeypatch)
    n, end = len(BATCH["gain"]), objective.scheduler.bridge.T
    share, mixed = 0.0, False
    for seed in range(20):
        objective(BATCH, generator(seed))
        t = oracle.t
        assert t.min() > 0
        assert t.max() == end
        at_end = t == end
        share += at_end.double().mean() / 20
        torch.testing.assert_close(oracle.seen[-1][at_end], oracle.start[at_end], rtol=1e-5, atol=1e-5)
        free = t[~at_end].sort().values
        gaps = free.diff() / end
        assert gaps.max() < 2.05 / (0.6 * n)  # one in each n-th part of the times, of which 0.6 are below the end
        mixed |= not torch.equal(t.sort().values, t)
    assert share == pytest.approx(0.4, abs=0.02)
    assert mixed


def test_unused_slots_are_zero_on_the_way(monkeypatch):
    objective = bridge_objective()
    oracle = Oracle(objective, monkeypatch)
    objective(BATCH, generator())
    (z,) = oracle.seen
    assert not z[~SEPARATION][:, 4:].any()
    assert z[SEPARATION][:, 4:].any((1, 2, 3)).all()
    assert z[:, :4].any((1, 2, 3)).all()


# The regression

class Says:
    """Stands for a network's ``forward``: what must be added to the start for z to be as wished."""

    def __init__(self, objective, monkeypatch):
        self.objective, self.z = objective, None
        monkeypatch.setattr(objective.network, "forward", self.forward)

    def forward(self, start, t, source, **told):
        assert t == 0
        return self.z - start

    def loss(self, z, batch=BATCH):
        self.z = z
        return self.objective(batch, generator())


@pytest.fixture
def says(monkeypatch):
    return Says(RegressionObjective(tiny_translator(PAIRS), TOLD), monkeypatch)


def test_the_loss_is_the_squared_error_of_z(says):
    _, _, truth = says.objective.encoded(BATCH)
    loss, terms = says.loss(truth)
    assert loss < 1e-9
    assert terms["clean"] == loss
    loss, _ = says.loss(says.objective.network.masked(truth + 0.5, BATCH["used"]))
    assert loss.item() == pytest.approx(0.25, rel=1e-5)


def test_what_is_said_in_unused_slots_does_not_count(says):
    _, _, truth = says.objective.encoded(BATCH)
    other = truth.clone()
    other[~SEPARATION, 4:] += 3
    loss, terms = says.loss(other)
    same, same_terms = says.loss(truth)
    assert torch.equal(loss, same)
    assert torch.equal(terms["clean"], same_terms["clean"])
    other[SEPARATION, 4:] += 3
    assert says.loss(other)[0] > same


def test_gradients_are_finite_and_alive_where_nothing_is_expected(says):
    network = says.objective.network
    empty = -(1 + network.config.center) / network.config.deviation  # z of no counts
    for z in (empty, empty - 1.0, empty + 1.0, 5.0):
        leaf = torch.full((len(BATCH["gain"]), *network.latent_shape), z, requires_grad=True)
        loss, _ = says.loss(leaf)
        (slope,) = torch.autograd.grad(loss, leaf)
        assert loss.isfinite()
        assert slope.isfinite().all()
        assert slope[:, :4].any()


def test_the_start_is_what_comes_out_if_nothing_is_added(monkeypatch):
    objective = RegressionObjective(tiny_translator(PAIRS), TOLD)
    monkeypatch.setattr(objective.network, "forward", lambda start, t, source, **told: torch.zeros_like(start))
    source, start, _ = objective.encoded(BATCH)
    assert torch.equal(objective.predict(source, start), start)
