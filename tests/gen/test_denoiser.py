"""The denoiser: what it sees of prompt, view, time and attention, and that gates leave no trace."""

import copy

import numpy as np
import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from allpet_gen import attention_gate
from allpet_gen.denoiser import SinogramDenoiser
from allpet_gen.prompts import VOCABULARY, Prompt
from allpet_gen.symmetry import rotate_sinogram
from allpet_gen.wrap_padding import WrapConv2d, WrapDownsample
from allpet_physics.errors import GeometryError, InputError

SHAPE = (3, 8, 16)
pytestmark = pytest.mark.usefixtures("one_thread")
TINY = {"block_out_channels": (8, 16, 16), "token_dim": 12, "attention_head_dim": 2, "norm_num_groups": 4}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(shape=SHAPE, arc=np.pi, seed=0, **changes):
    torch.manual_seed(seed)
    return SinogramDenoiser(shape, arc, **TINY | changes)


def batch(n=2, shape=SHAPE):
    tokens = torch.tensor([Prompt("FDG", "head").tokens(), Prompt("PSMA", "abdomen", "low-dose").tokens(), (0, 0, 0)])
    return normal(n, *shape), torch.tensor([999, 10, 500])[:n], tokens[:n]


@pytest.mark.parametrize(("shape", "changes"), [
    ((4, 16, 16), {}), ((4, 8, 12), {"block_out_channels": (8, 8), "attention_levels": (True, False)}),
    ((1, 8, 8), {"layers_per_block": 2}), ((4, 10, 14), {}), ((2, 8, 8), {"attention_levels": (False,) * 3})], ids=str)
def test_shapes(shape, changes):
    model = make(shape, **changes)
    for n in (1, 3):
        z, t, tokens = batch(n, shape)
        v = model(z, t, tokens)
        assert v.shape == z.shape
        assert v.isfinite().all()


def test_further_channels_are_condition_only():
    model = make(condition_channels=2)
    z, t, tokens = batch(2, (5, 8, 16))
    v = model(z, t, tokens)
    assert v.shape == (2, 3, 8, 16)
    z[:, 3:] += 1
    assert not torch.allclose(model(z, t, tokens), v)


@torch.no_grad()
def test_prompt_view_and_time_are_seen_item_by_item():
    model = make().eval()
    z, t, tokens = batch(3)
    v = model(z, t, tokens)
    for kind in range(3):
        other = tokens.clone()
        other[0, kind] = 2
        changed = model(z, t, other)
        assert not torch.allclose(changed[0], v[0], atol=1e-5)
        torch.testing.assert_close(changed[1:], v[1:])
    assert torch.equal(model(z, t, tokens, torch.zeros(3, 3)), v)
    view = torch.zeros(3, 3)
    view[1, 2] = 1
    changed = model(z, t, tokens, view)
    assert not torch.allclose(changed[1], v[1], atol=1e-5)
    torch.testing.assert_close(changed[0], v[0])
    assert not torch.allclose(model(z, t + 50, tokens), v, atol=1e-5)
    torch.testing.assert_close(model(z, torch.tensor(10), tokens)[1], v[1])
    torch.testing.assert_close(model(z[:1], t[:1], tokens[:1]), v[:1])


def test_tokens_can_be_learned():
    # Two items differ in a word only; the targets are opposite.
    model = make((2, 8, 8)).train()
    z = normal(1, 2, 8, 8).expand(2, -1, -1, -1)
    tokens, t = torch.tensor([[1, 1, 1], [1, 2, 1]]), torch.tensor([400, 400])
    target = torch.tensor([1.0, -1.0])[:, None, None, None].expand_as(z)

    def error():
        return (model(z, t, tokens) - target).square().mean()

    before = error().item()
    for _ in range(15):
        gradients = torch.autograd.grad(error(), list(model.parameters()), allow_unused=True)
        with torch.no_grad():
            for p, g in zip(model.parameters(), gradients, strict=True):
                if g is not None:
                    p -= 0.003 * g.sign()
    with torch.no_grad():
        apart = model(z, t, tokens).mean((1, 2, 3))
    assert error().item() < 0.5 * before
    assert apart[0] - apart[1] > 0.5
    region = model.embeddings["region"].weight
    assert region.shape == (len(VOCABULARY["region"]) + 1, 12)


def test_only_the_words_said_are_learned():
    model = make()
    z, t, _ = batch(1)
    model(z, t, torch.tensor([[2, 0, 1]])).square().sum().backward()
    for kind, token in zip(VOCABULARY, (2, 0, 1), strict=True):
        moved = model.embeddings[kind].weight.grad.abs().sum(1) > 0
        assert moved.nonzero().flatten().tolist() == [token]


# Attention

@torch.no_grad()
def test_without_a_map_or_strength_it_is_the_ungated_network_to_the_last_bit():
    model = make().eval()
    bare = make().eval()
    for module in bare.modules():
        module._forward_hooks.clear()
    z, t, tokens = batch()
    expected = bare(z, t, tokens)
    attention = torch.rand(2, 1, 64, 128)
    assert torch.equal(model(z, t, tokens), expected)
    assert torch.equal(model(z, t, tokens, attention=attention), expected)
    assert torch.equal(model(z, t, tokens, attention=attention, gate_strength=0.0), expected)
    assert torch.equal(model(z, t, tokens, gate_strength=3.0), expected)
    assert torch.equal(model(z, t, tokens, gate="multiply"), expected)
    gated = model(z, t, tokens, attention=attention, gate_strength=0.5)
    assert not torch.allclose(gated, expected, atol=1e-4)
    assert torch.equal(bare(z, t, tokens, attention=attention, gate_strength=0.5), expected)
    assert torch.equal(model(z, t, tokens), expected)


@torch.no_grad()
def test_the_map_comes_to_every_residual_block_at_its_own_size(monkeypatch):
    model = make().eval()
    seen, original = [], attention_gate.gate_features

    def spy(features, attention, strength, gate):
        out = original(features, attention, strength, gate)
        seen.append(tuple(features.shape[-2:]))
        assert attention.shape == (2, 1, 64, 128)
        assert (strength, gate) == (0.5, "residual")
        assert out.shape == features.shape
        return out

    monkeypatch.setattr(attention_gate, "gate_features", spy)
    z, t, tokens = batch()
    model(z, t, tokens, attention=torch.rand(2, 1, 64, 128), gate_strength=0.5)
    assert len(seen) == sum(isinstance(m, ResnetBlock2D) for m in model.modules())
    assert set(seen) == {(8, 16), (4, 8), (2, 4)}


@torch.no_grad()
@pytest.mark.parametrize("gate", ["residual", "multiply"])
def test_gates_weigh_the_output_of_residual_blocks(gate):
    model, by_hand = make().eval(), make().eval()
    z, t, tokens = batch()
    attention = torch.rand(2, 1, 64, 128)
    for module in by_hand.modules():
        if isinstance(module, ResnetBlock2D):
            module._forward_hooks.clear()
            module.register_forward_hook(lambda m, i, o: o * (
                (0 if gate == "multiply" else 1) + (1 if gate == "multiply" else 0.7)
                * attention.reshape(2, 1, o.shape[2], 64 // o.shape[2], o.shape[3], -1).mean((3, 5))))
    torch.testing.assert_close(model(z, t, tokens, attention=attention, gate_strength=0.7, gate=gate),
                               by_hand(z, t, tokens))


@torch.no_grad()
def test_a_map_acts_where_it_is():
    model = make((3, 32, 32), block_out_channels=(8, 8), attention_levels=(False, False)).eval()
    z, t, tokens = batch(1, (3, 32, 32))
    attention = torch.zeros(1, 1, 128, 128)
    attention[..., 60:68, 60:68] = 1
    change = (model(z, t, tokens, attention=attention, gate_strength=1.0) - model(z, t, tokens)).abs().mean((0, 1))
    assert change[12:20, 12:20].mean() > 4 * change[:6, :6].mean()


def test_the_map_is_forgotten_after_an_exception():
    model = make().eval()
    z, t, tokens = batch()
    expected = model(z, t, tokens)
    attention = torch.rand(2, 1, 64, 128)
    block = next(m for m in model.modules() if isinstance(m, ResnetBlock2D))
    features, time = normal(1, block.in_channels, 8, 16), normal(1, block.time_emb_proj.in_features)
    alone = block(features, time)
    with pytest.raises(RuntimeError):
        model(z[:, :2], t, tokens, attention=attention, gate_strength=1.0)
    with pytest.raises(InputError):
        model(z, t, tokens, attention=attention, gate_strength=-1.0)
    assert torch.equal(block(features, time), alone)
    assert torch.equal(model(z, t, tokens), expected)


def test_gates_are_no_part_of_the_state():
    model = make()
    assert {key.split(".")[0] for key in model.state_dict()} == {"embeddings", "unet"}
    assert not list(model.buffers())


def test_copies_have_gates_of_their_own():
    model = make().eval()
    twin = copy.deepcopy(model)
    z, t, tokens = batch()
    attention = torch.rand(2, 1, 64, 128)
    free = twin(z, t, tokens)
    with model._gates.using(attention, 1.0):
        assert torch.equal(twin(z, t, tokens), free)
    torch.testing.assert_close(twin(z, t, tokens, attention=attention, gate_strength=1.0),
                               model(z, t, tokens, attention=attention, gate_strength=1.0))


# Padding

def test_no_convolution_pads_its_angles_with_zeros():
    model = make()
    inside = {id(m.conv) for m in model.modules() if isinstance(m, WrapDownsample)}
    assert len(inside) == 2
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and not isinstance(module, WrapConv2d):
            assert module.padding == (0, 0)
            assert id(module) in inside or module.kernel_size == (1, 1)


@torch.no_grad()
def test_on_2pi_it_commutes_with_turns_by_whole_steps_of_the_coarsest_level():
    model = make(arc=2 * np.pi).double().eval()
    z, t, tokens = batch()
    turned = model(rotate_sinogram(z.double(), 4, 2 * np.pi), t, tokens)
    torch.testing.assert_close(turned, rotate_sinogram(model(z.double(), t, tokens), 4, 2 * np.pi))


# Saving and training

@torch.no_grad()
def test_saving_and_loading_keeps_every_bit(tmp_path):
    model = make(arc=2 * np.pi, condition_channels=1).eval()
    model.save_pretrained(tmp_path)
    loaded = SinogramDenoiser.from_pretrained(tmp_path)
    z, t, tokens = batch(2, (4, 8, 16))
    attention = torch.rand(2, 1, 64, 128)
    for options in ({}, {"attention": attention, "gate_strength": 0.3}):
        assert torch.equal(loaded(z, t, tokens, **options), model(z, t, tokens, **options))
    assert list(loaded.state_dict()) == list(model.state_dict())


def test_bfloat16_autocast():
    model = make()
    z, t, tokens = batch()
    with torch.autocast("cpu", torch.bfloat16):
        v = model(z, t, tokens, torch.ones(2, 3), torch.rand(2, 1, 64, 128), 0.5)
    v.float().square().mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        torch.testing.assert_close(model(z, t, tokens), model.bfloat16()(z.bfloat16(), t, tokens).float(), atol=0.1,
                                   rtol=0.1)


@pytest.mark.parametrize("strength", [0.0, 0.8])
def test_gradient_checkpointing_changes_no_gradient(strength):
    model = make().train()
    frugal = copy.deepcopy(model)
    frugal.enable_gradient_checkpointing()
    assert frugal.is_gradient_checkpointing
    z, t, tokens = batch()
    inputs = []
    for m in (model, frugal):
        inputs.append(z.clone().requires_grad_())
        m(inputs[-1], t, tokens, attention=torch.ones(2, 1, 64, 128), gate_strength=strength).square().mean().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    assert inputs[0].grad.any()
    for (name, p), q in zip(model.named_parameters(), frugal.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad)
    frugal.disable_gradient_checkpointing()
    assert not frugal.is_gradient_checkpointing


# Mistakes

@pytest.mark.parametrize(("changes", "error", "message"), [
    ({"attention_levels": (True, False)}, InputError, "attention_levels must say yes or no for each of the 3 levels"),
    ({"block_out_channels": (8, 16, 18)}, InputError, "block_out_channels must be multiples of 4, .* were 8, 16, 18"),
    ({"attention_head_dim": 3}, InputError, "block_out_channels of levels that attend must be multiples of 3"),
    ({"arc": 3.0}, GeometryError, "arc must be pi or 2 pi"),
])
def test_what_cannot_be_made_is_refused(changes, error, message):
    with pytest.raises(error, match=message):
        make(**changes)


@pytest.mark.parametrize(("options", "message"), [
    ({"tokens": torch.zeros(2, 2, dtype=torch.long)}, r"tokens must have shape \(2, 3\), .* was \(2, 2\)"),
    ({"tokens": torch.zeros(1, 3, dtype=torch.long)}, r"tokens must have shape \(2, 3\)"),
    ({"view": torch.zeros(3)}, r"view must have shape \(2, 3\), .* was \(3,\)"),
    ({"attention": torch.zeros(64, 128), "gate_strength": 1.0}, r"attention must have shape \(batch, 1, angle, bin\)"),
    ({"gate": "open"}, "gate must be one of residual, multiply, but was 'open'"),
])
def test_inputs_of_other_shapes_are_refused(options, message):
    z, t, tokens = batch()
    with pytest.raises(InputError, match=message):
        make()(**{"z": z, "t": t, "tokens": tokens} | options)
