"""The gate: the equation, the resizing, nothing while idle, the map kept through checkpointing and cleared after."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from allpet_gen.attention_gate import AttentionGates, gate_features
from allpet_physics.errors import InputError


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return torch.tanh(self.conv(x))


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(Block(), nn.AvgPool2d(2), nn.Sequential(Block(), nn.Tanh()))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3), st.sampled_from([(4, 4), (2, 8), (1, 1), (8, 3)]), st.floats(0, 10))
def test_the_equations(batch, size, strength):
    features, attention = normal(batch, 5, *size), torch.rand(batch, 1, 8, 24)
    small = attention.reshape(batch, 1, size[0], 8 // size[0], size[1], 24 // size[1]).mean((3, 5))
    torch.testing.assert_close(gate_features(features, attention, strength), features + strength * small * features)
    torch.testing.assert_close(gate_features(features, attention, strength, "multiply"), small * features)


def test_the_papers_gate_deletes_the_background_and_ours_keeps_it():
    features, attention = normal(1, 2, 4, 4), torch.zeros(1, 1, 8, 8)
    attention[..., :4, :] = 1
    multiplied, weighted = (gate_features(features, attention, 2.0, gate) for gate in ("multiply", "residual"))
    assert torch.equal(multiplied[..., :2, :], features[..., :2, :])
    assert not multiplied[..., 2:, :].any()
    torch.testing.assert_close(weighted[..., :2, :], 3 * features[..., :2, :])
    assert torch.equal(weighted[..., 2:, :], features[..., 2:, :])


def test_features_keep_their_type_and_maps_their_total():
    features = torch.ones(1, 1, 3, 5, dtype=torch.bfloat16)
    assert gate_features(features, torch.rand(1, 1, 16, 16), 1.0).dtype == torch.bfloat16
    attention = torch.rand(1, 1, 12, 20)
    small = gate_features(torch.ones(1, 1, 3, 5), attention, 1.0, "multiply")
    torch.testing.assert_close(small.mean(), attention.mean())


def test_maps_smaller_than_features_are_spread():
    grown = gate_features(torch.ones(1, 1, 4, 4), torch.tensor([[[[0.0, 1.0]]]]), 1.0, "multiply")
    assert torch.equal(grown, torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(1, 1, 4, 4))


def test_every_block_is_weighted_at_its_own_size_and_idle_gates_touch_nothing():
    plain, gated = network(), network()
    gates = AttentionGates(gated, Block)
    x, attention = normal(2, 3, 8, 8), torch.rand(2, 1, 16, 16)
    assert torch.equal(gated(x), plain(x))
    for idle in ({"attention": None, "strength": 3.0}, {"attention": attention, "strength": 0.0}):
        with gates.using(**idle):
            assert torch.equal(gated(x), plain(x))
    first = gate_features(plain[0](x), attention, 0.7)
    expected = plain[2][1](gate_features(plain[2][0](plain[1](first)), attention, 0.7))
    with gates.using(attention, 0.7):
        torch.testing.assert_close(gated(x), expected)
    assert torch.equal(gated(x), plain(x))


def test_gates_have_no_parameters():
    gated = network()
    AttentionGates(gated, Block)
    assert list(gated.state_dict()) == list(network().state_dict())


def test_one_map_serves_a_batch():
    gated = network()
    gates = AttentionGates(gated, Block)
    x, attention = normal(2, 3, 8, 8), torch.rand(1, 1, 16, 16)
    with gates.using(attention, 1.0):
        one = gated(x)
    with gates.using(attention.expand(2, -1, -1, -1), 1.0):
        torch.testing.assert_close(gated(x), one)


def test_maps_nest_and_are_forgotten_after_an_exception():
    gated = network()
    gates = AttentionGates(gated, Block)
    x, attention = normal(1, 3, 8, 8), torch.rand(1, 1, 8, 8)
    free = gated(x)
    with gates.using(attention, 1.0):
        outer = gated(x)
        with gates.using(None):
            assert torch.equal(gated(x), free)
        assert torch.equal(gated(x), outer)
        with pytest.raises(RuntimeError), gates.using(attention, 2.0):
            gated(normal(1, 4, 8, 8))
        assert torch.equal(gated(x), outer)
    with pytest.raises(InputError), gates.using(attention, -1.0):
        pass
    assert torch.equal(gated(x), free)
    assert not torch.equal(outer, free)


@pytest.mark.parametrize("strength", [0.0, 1.5])
def test_checkpointed_parts_are_computed_again_with_their_map(strength):
    gated = network()
    gates = AttentionGates(gated, Block)
    attention, gradients = torch.rand(1, 1, 8, 8), []
    for call in (lambda f, x: f(x), gates.checkpoint):
        x = normal(1, 3, 8, 8).requires_grad_()
        with gates.using(attention, strength):
            y = call(gated, x)
        y.sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients)
    with gates.using(attention, strength):  # the second computation left no map behind
        during = gated(x)
    assert torch.equal(during, gated(x)) == (strength == 0)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"gate": "add"}, "gate must be one of residual, multiply, but was 'add'"),
    ({"strength": -0.1}, "gate_strength must be a finite number of at least zero, but was -0.1"),
    ({"strength": np.nan}, "gate_strength must be a finite number"),
    ({"strength": np.inf}, "gate_strength must be a finite number"),
    ({"strength": "much"}, "gate_strength must be a finite number"),
    ({"attention": torch.ones(8, 8)}, r"attention must have shape \(batch, 1, angle, bin\), .* was \(8, 8\)"),
    ({"attention": torch.ones(2, 3, 8, 8)}, r"attention must have shape .* was \(2, 3, 8, 8\)"),
])
def test_what_cannot_be_used_is_refused(arguments, message):
    gates = AttentionGates(network(), Block)
    with pytest.raises(InputError, match=message), \
            gates.using(**{"attention": torch.ones(1, 1, 8, 8), "strength": 1.0} | arguments):
        pass
