"""The autoencoder: shapes, counts, statistics of latents, saving, and what it refuses."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from allpet_gen.autoencoder import WHOLE, SinogramAutoencoder
from allpet_gen.symmetry import rotate_sinogram
from allpet_gen.wrap_padding import WrapConv2d, WrapDownsample
from allpet_physics import DynamicMultiMask, ParallelGeometry, composite, normalise_mask, project_blocks
from allpet_physics.errors import GeometryError, InputError

SQUARE = ParallelGeometry(32, 32, 2.0, (32, 32), 2.0)
LONG = ParallelGeometry(48, 32, 2.0, (24, 20), 2.5, 2 * np.pi)
pytestmark = pytest.mark.usefixtures("one_thread")
TINY = {"patch": 2, "block_out_channels": (8, 16), "latent_channels": 3, "norm_num_groups": 4}


def make(geometry=SQUARE, seed=0, **changes):
    torch.manual_seed(seed)
    return SinogramAutoencoder(geometry.to_dict(), 50.0, **TINY | changes)


def counts_of(geometry, n=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.poisson(20 * rng.random((n, *geometry.sinogram_shape))).astype(np.int64)


def blocks_of(geometry, n=2):
    return DynamicMultiMask(geometry.image_shape, n_blocks=(1, 3), block_px=(3, 8), seed=0).draw(list(range(n)))


def x_of(model, n=2):
    return torch.from_numpy(model.scaling.encode(np.random.default_rng(1).gamma(
        1.0, 20.0, (n, model.config.channels, *model.geometry.sinogram_shape)).astype(np.float32)))


@pytest.mark.parametrize("geometry", [SQUARE, LONG], ids=["square", "long"])
@pytest.mark.parametrize(("changes", "factor"), [
    ({}, 4), ({"channels": 1}, 4), ({"patch": 1}, 2), ({"patch": 4}, 8), ({"block_out_channels": (8, 8, 8)}, 8),
    ({"mid_attention": False, "layers_per_block": 2}, 4)], ids=str)
def test_shapes(geometry, changes, factor):
    model = make(geometry, **changes)
    assert model.factor == factor
    for n in (1, 2):
        x = x_of(model, n)
        q = model.encode(x)
        assert model.latent_shape == (3, geometry.n_angles // factor, geometry.n_bins // factor)
        assert q.mean.shape == q.logvar.shape == q.sample().shape == (n, *model.latent_shape)
        assert model.decode(model.standardise(q.mean)).shape == x.shape
        counts = model.counts(model.standardise(q.mean))
        assert counts.shape == (n, *geometry.sinogram_shape)
        assert counts.dtype == torch.float32


@torch.no_grad()
def test_counts_are_the_squares_of_the_decoded_roots_and_never_negative():
    model = make()
    z = 20 * torch.randn(4, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    x, counts = model.decode(z)[:, WHOLE], model.counts(z)
    assert (x < -1).any()
    assert counts.min() >= 0
    torch.testing.assert_close(counts, 50.0 * ((x + 1) / 2) ** 2)
    torch.testing.assert_close(counts[x > -1], model.scaling.decode(x)[x > -1])
    torch.testing.assert_close(model.expected(-2 - x), counts, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_standardised_latents_have_mean_0_and_deviation_1_and_come_back():
    model = make()
    z = model.encode(x_of(model, 6)).mean
    model.set_latent_statistics(z.mean((0, 2, 3)), z.std((0, 2, 3)))
    standard = model.standardise(z)
    torch.testing.assert_close(standard.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(standard.std((0, 2, 3)), torch.ones(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(model.decode(standard), model.decode_raw(z), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_saving_and_loading_keeps_every_bit(tmp_path):
    model = make(LONG).eval()
    model.set_latent_statistics(torch.tensor([0.1, -1 / 3, 1e-7]), [0.7, 1.1, 1e3])
    model.save_pretrained(tmp_path)
    loaded = SinogramAutoencoder.from_pretrained(tmp_path)
    assert not loaded.training
    assert loaded.geometry == model.geometry
    assert loaded.scaling == model.scaling
    assert loaded.factor == model.factor
    assert torch.equal(loaded.latent_shift, model.latent_shift)
    assert torch.equal(loaded.latent_scale, model.latent_scale)
    state = model.state_dict()
    assert list(loaded.state_dict()) == list(state)
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())
    x = x_of(model)
    z = model.standardise(model.encode(x).mean)
    assert torch.equal(loaded.standardise(loaded.encode(x).mean), z)
    assert torch.equal(loaded.counts(z), model.counts(z))


def test_the_state_has_diffusers_names_and_no_statistics():
    keys = list(make().state_dict())
    assert all(key.startswith(("encoder.", "decoder.")) for key in keys)
    assert {"encoder.conv_in.weight", "encoder.down_blocks.0.downsamplers.0.conv.weight",
            "decoder.up_blocks.0.upsamplers.0.conv.bias"} <= set(keys)


def test_no_convolution_pads_its_angles_with_zeros():
    model = make(block_out_channels=(8, 8, 8))
    wrapped = [m for m in model.modules() if isinstance(m, WrapConv2d | WrapDownsample)]
    inside = {id(m.conv) for m in wrapped if isinstance(m, WrapDownsample)}
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and not isinstance(module, WrapConv2d):
            assert id(module) in inside or module.padding == (0, 0)
            assert id(module) in inside or module.kernel_size == (1, 1)
    assert sum(isinstance(m, WrapDownsample) for m in wrapped) == 2
    assert all(m.arc == np.pi for m in wrapped)


@torch.no_grad()
def test_the_first_layer_sees_the_sinogram_continued():
    model = make().double()
    x = x_of(model).double()
    longer = torch.cat([rotate_sinogram(x, 2)[..., :2, :], x, rotate_sinogram(x, -2)[..., -2:, :]], dim=-2)
    conv = model.encoder.conv_in
    expected = functional.conv2d(functional.pixel_unshuffle(longer, 2), conv.weight, conv.bias, padding=(0, 1))
    torch.testing.assert_close(conv(functional.pixel_unshuffle(x, 2)), expected)


@torch.no_grad()
def test_on_2pi_turns_by_whole_latent_steps_turn_latents_and_back():
    model = make(LONG).double().eval()
    x = x_of(model).double()
    z = model.encode(x).mean
    turned = model.encode(rotate_sinogram(x, 3 * model.factor, LONG.arc)).mean
    torch.testing.assert_close(turned, rotate_sinogram(z, 3, LONG.arc))
    torch.testing.assert_close(model.decode_raw(turned), rotate_sinogram(model.decode_raw(z), 12, LONG.arc))


@torch.no_grad()
def test_items_of_a_batch_are_independent():
    model = make().eval()
    x = x_of(model, 3)
    torch.testing.assert_close(model.encode(x).mean[1:2], model.encode(x[1:2]).mean)


# Input

def test_network_input_is_the_encoded_composite():
    model, counts, blocks = make(), counts_of(SQUARE), blocks_of(SQUARE)
    x = model.network_input(counts, blocks)
    masks = normalise_mask(project_blocks(blocks, SQUARE))
    expected = model.scaling.encode(composite(counts.astype(np.float32), masks))
    assert x.shape == (2, 3, 32, 32)
    assert x.dtype == torch.float32
    np.testing.assert_allclose(x, expected, atol=2e-6)
    back = model.scaling.decode(x)
    np.testing.assert_allclose(back[:, WHOLE], counts, atol=1e-4)
    np.testing.assert_allclose(back[:, 0] + back[:, 2], back[:, WHOLE], atol=1e-4)


def test_network_input_of_sinograms_alone():
    model = make(LONG, channels=1)
    counts = counts_of(LONG)
    for given in (counts, counts.astype(np.uint16), counts.tolist(), counts[::-1][::-1].astype(float)):
        x = model.network_input(given)
        assert x.shape == (2, 1, 48, 32)
        assert torch.equal(x, torch.from_numpy(model.scaling.encode(counts.astype(np.float32)))[:, None])
    assert model.bfloat16().network_input(counts).dtype == torch.bfloat16


@pytest.mark.parametrize(("channels", "counts", "blocks", "message"), [
    (3, np.ones((2, 32, 32)), None, "blocks must be given, because this autoencoder was made for composites"),
    (1, np.ones((2, 32, 32)), blocks_of(SQUARE), "blocks must be None"),
    (3, np.ones((3, 32, 32)), blocks_of(SQUARE), "blocks must hold one set for each sinogram"),
    (1, np.ones((2, 32, 31)), None, r"sinograms must have shape \(..., 32, 32\)"),
    (1, np.ones((32, 32)), None, r"sinograms must have shape \(batch, angle, bin\)"),
    (1, -np.ones((1, 32, 32)), None, "sinograms must not be negative"),
    (1, np.full((1, 32, 32), np.nan), None, "sinograms must be finite"),
])
def test_network_input_refuses(channels, counts, blocks, message):
    with pytest.raises(InputError, match=message):
        make(channels=channels).network_input(counts, blocks)


# Training

def test_bfloat16_autocast():
    model = make()
    x = x_of(model)
    with torch.autocast("cpu", torch.bfloat16):
        q = model.encode(x)
        counts = model.counts(model.standardise(q.mean))
    assert q.mean.dtype == torch.bfloat16
    assert counts.dtype == torch.float32
    assert counts.isfinite().all()
    with torch.no_grad():
        torch.testing.assert_close(q.mean.float(), model.encode(x).mean, atol=0.1, rtol=0.1)


def test_gradient_checkpointing_changes_no_gradient():
    model = make()
    frugal = copy.deepcopy(model)
    frugal.enable_gradient_checkpointing()
    x = x_of(model)
    for m in (model.train(), frugal.train()):
        m.decode_raw(m.encode(x).mean).square().mean().backward()
    for (name, p), q in zip(model.named_parameters(), frugal.parameters(), strict=True):
        assert p.grad.abs().sum() > 0 or ".to_k.bias" in name, name
        torch.testing.assert_close(p.grad, q.grad)


def test_a_small_step_down_the_gradient_lowers_the_error_as_the_gradient_says():
    model = make(channels=1).double()
    x = x_of(model).double().clamp(max=2)

    def loss():
        return (model.decode_raw(model.encode(x).mean) - x).square().mean()

    before = loss()
    gradients = torch.autograd.grad(before, list(model.parameters()))
    slope = sum(g.square().sum() for g in gradients)
    with torch.no_grad():
        for p, g in zip(model.parameters(), gradients, strict=True):
            p -= 1e-5 / slope * g
        assert (before - loss()).item() == pytest.approx(1e-5, rel=0.01)


# Mistakes

@pytest.mark.parametrize(("changes", "error", "message"), [
    ({"channels": 2}, InputError, r"channels must be 3 \(composites\) or 1 \(sinograms\), but was 2"),
    ({"geometry": ParallelGeometry(30, 32, 2.0, (32, 32), 2.0).to_dict()}, GeometryError,
     "geometry must have angles and bins that are multiples of 4, but had 30 x 32"),
    ({"geometry": ParallelGeometry(32, 34, 2.0, (32, 32), 2.0).to_dict()}, GeometryError, "multiples of 4, .* 32 x 34"),
    ({"geometry": {"n_angles": 32}}, GeometryError, "geometry must be the dictionary of ParallelGeometry.to_dict"),
    ({"geometry": SQUARE}, GeometryError, "geometry must be the dictionary of ParallelGeometry.to_dict"),
    ({"count_scale": 0.0}, InputError, "scale must be a finite number greater than zero"),
    ({"patch": 0}, InputError, "patch must be an integer of at least 1"),
    ({"latent_channels": 2.5}, InputError, "latent_channels must be an integer"),
    ({"block_out_channels": (8, 10)}, InputError, "block_out_channels must be multiples of 4, .* were 8, 10"),
    ({"block_out_channels": ()}, InputError, "block_out_channels must name the width of at least one level"),
    ({"latent_mean": [0.0, 0.0]}, InputError, "mean and std must have 3 finite values"),
    ({"latent_std": [1.0, 1.0, 0.0]}, InputError, "mean and std must have 3 finite values each, the latter positive"),
])
def test_what_cannot_be_made_is_refused(changes, error, message):
    with pytest.raises(error, match=message):
        SinogramAutoencoder(**{"geometry": SQUARE.to_dict(), "count_scale": 50.0} | TINY | changes)


@pytest.mark.parametrize(("mean", "std"), [([0, 0, 0], [1, 1, -1]), ([0, 0, np.nan], [1, 1, 1]),
                                           ([0, 0, 0], [1, 1, np.inf]), ([0], [1])])
def test_statistics_that_cannot_be_are_refused_and_the_old_ones_stay(mean, std):
    model = make()
    model.set_latent_statistics([1, 2, 3], [4, 5, 6])
    with pytest.raises(InputError, match="mean and std must have 3 finite values each"):
        model.set_latent_statistics(mean, std)
    assert model.latent_shift.flatten().tolist() == [1, 2, 3]
    assert list(model.config.latent_std) == [4, 5, 6]
