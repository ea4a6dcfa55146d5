"""Wrapped convolutions: plain ones on the continued sinogram, under the same names, everywhere in the networks."""

import copy

import numpy as np
import pytest
import torch
from diffusers.models.downsampling import Downsample2D
from diffusers.models.upsampling import Upsample2D
from torch import nn
from torch.nn import functional

from allpet_gen.symmetry import mirror_sinogram, rotate_sinogram
from allpet_gen.wrap_padding import WrapConv2d, WrapDownsample, wrap_convolutions
from allpet_physics.errors import GeometryError, InputError

ARCS = pytest.mark.parametrize("arc", [np.pi, 2 * np.pi], ids=["pi", "2pi"])
TIGHT = {"rtol": 1e-12, "atol": 1e-12}


def noise(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def conv(*args, seed=0, **kwargs):
    torch.manual_seed(seed)
    return nn.Conv2d(*args, **kwargs).double()


def whole_turns(p, arc):
    """A sinogram with its angles before and after, from turns of it alone: three arcs long."""
    n = p.shape[-2]
    return torch.cat([rotate_sinogram(p, n, arc), p, rotate_sinogram(p, -n, arc)], dim=-2)


def make_even(network):
    """Make every kernel symmetric in s."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.copy_((module.weight + module.weight.flip(-1)) / 2)
    return network


def plain_network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.GroupNorm(3, 6), nn.SiLU(),
                         nn.Sequential(nn.Conv2d(6, 6, (5, 3), padding=(2, 1)), nn.SiLU()), nn.Conv2d(6, 3, 1),
                         nn.Conv2d(3, 2, 3, padding=1)).double()


@ARCS
@pytest.mark.parametrize("kernel", [{"kernel_size": 3, "padding": 1}, {"kernel_size": (5, 3), "padding": (2, 1)},
                                    {"kernel_size": (5, 1), "padding": (2, 0)}, {"kernel_size": (3, 5), "padding": 1},
                                    {"kernel_size": 3, "padding": 2, "dilation": 2},
                                    {"kernel_size": 3, "padding": 1, "stride": 2},
                                    {"kernel_size": 3, "padding": 1, "groups": 2, "bias": False}],
                         ids=lambda k: ",".join(f"{name}={value}" for name, value in k.items()))
def test_it_is_the_plain_convolution_of_the_continued_sinogram(arc, kernel):
    plain = conv(4, 6, **kernel)
    x = noise(2, 4, 8, 10)
    rows = plain.padding[0]
    expected = functional.conv2d(whole_turns(x, arc)[..., 8 - rows:16 + rows, :], plain.weight, plain.bias,
                                 plain.stride, (0, plain.padding[1]), plain.dilation, plain.groups)
    wrapped = WrapConv2d(plain, arc)(x)
    assert wrapped.shape == plain(x).shape
    torch.testing.assert_close(wrapped, expected, **TIGHT)
    assert not torch.allclose(wrapped[..., 0, :], plain(x)[..., 0, :])
    torch.testing.assert_close(wrapped[..., 2:-2, :], plain(x)[..., 2:-2, :], **TIGHT)


@ARCS
def test_blocks_of_bins_continue_as_the_bins_do(arc):
    patch, side = 2, 4
    plain = conv(3 * patch**2, 5, 3, padding=1)
    x = noise(2, 3, 4 * patch, side * patch)
    longer = whole_turns(x, arc)[..., 4 * patch - patch:8 * patch + patch, :]
    expected = functional.conv2d(functional.pixel_unshuffle(longer, patch), plain.weight, plain.bias, padding=(0, 1))
    torch.testing.assert_close(WrapConv2d(plain, arc, patch)(functional.pixel_unshuffle(x, patch)), expected, **TIGHT)


@ARCS
def test_networks_commute_with_turns(arc):
    network = wrap_convolutions(plain_network(), arc)
    if arc < 4:  # once around, s is reversed: the kernels must be even
        make_even(network)
    x = noise(2, 2, 8, 7)
    for steps in (1, 3, 8, 11, -2):
        torch.testing.assert_close(network(rotate_sinogram(x, steps, arc)), rotate_sinogram(network(x), steps, arc),
                                   **TIGHT)


def test_networks_that_are_not_even_do_not_commute_on_pi():
    network = wrap_convolutions(plain_network(), np.pi)
    x = noise(1, 2, 8, 7)
    assert not torch.allclose(network(rotate_sinogram(x, 3)), rotate_sinogram(network(x), 3), atol=1e-3)


def test_plain_networks_do_not_commute_at_all():
    network = make_even(plain_network())
    x = noise(1, 2, 8, 7)
    assert not torch.allclose(network(rotate_sinogram(x, 1)), rotate_sinogram(network(x), 1), atol=1e-3)


@ARCS
def test_networks_even_both_ways_commute_with_mirrors(arc):
    network = make_even(wrap_convolutions(plain_network(), arc))
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.copy_((module.weight + module.weight.flip(-2)) / 2)
    x = noise(1, 2, 8, 7)
    torch.testing.assert_close(network(mirror_sinogram(x, arc)), mirror_sinogram(network(x), arc), **TIGHT)


@ARCS
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("n_angles", [6, 8])
def test_downsampling_wraps_where_the_original_pads(arc, padding, n_angles):
    torch.manual_seed(2)
    down = Downsample2D(3, use_conv=True, out_channels=5, padding=padding, name="op").double()
    x = noise(2, 3, n_angles, 10)
    original = down(x)
    longer = whole_turns(x, arc)[..., n_angles - padding:2 * n_angles + 1, :]
    expected = functional.conv2d(functional.pad(longer, (padding, 1)), down.conv.weight, down.conv.bias, stride=2)
    wrapped = WrapDownsample(copy.deepcopy(down), arc)(x)
    assert wrapped.shape == original.shape == (2, 5, n_angles // 2, 5)
    torch.testing.assert_close(wrapped, expected, **TIGHT)
    torch.testing.assert_close(wrapped[:, :, 1:-1], original[:, :, 1:-1], **TIGHT)


def test_downsampling_commutes_with_turns_by_two_steps_on_2pi():
    torch.manual_seed(3)
    down = WrapDownsample(Downsample2D(2, use_conv=True, padding=1, name="op").double(), 2 * np.pi)
    x = noise(1, 2, 8, 6)
    torch.testing.assert_close(down(rotate_sinogram(x, 4, 2 * np.pi)), rotate_sinogram(down(x), 2, 2 * np.pi), **TIGHT)


def blocks():
    torch.manual_seed(4)
    return nn.ModuleDict({"down": Downsample2D(4, use_conv=True, padding=0, name="op"),
                          "up": Upsample2D(4, use_conv=True),
                          "pooled": Downsample2D(4, use_conv=False, name="op"),
                          "deep": nn.Sequential(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1)), nn.Conv2d(4, 4, 1))})


def test_names_and_values_of_parameters_stay():
    before = blocks()
    after = wrap_convolutions(copy.deepcopy(before), np.pi)
    assert list(after.state_dict()) == list(before.state_dict())
    assert [name for name, _ in after.named_parameters()] == [name for name, _ in before.named_parameters()]
    for key, value in before.state_dict().items():
        assert torch.equal(after.state_dict()[key], value)
    assert isinstance(after["down"], WrapDownsample)
    assert isinstance(after["up"].conv, WrapConv2d)
    assert isinstance(after["deep"][0][0], WrapConv2d)
    assert type(after["deep"][1]) is nn.Conv2d
    assert type(after["pooled"].conv) is nn.AvgPool2d


def test_weights_of_plain_networks_load_and_save(tmp_path):
    plain, wrapped = plain_network(), wrap_convolutions(plain_network(), np.pi)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            parameter.add_(1)
    torch.save(plain.state_dict(), tmp_path / "weights.pt")
    wrapped.load_state_dict(torch.load(tmp_path / "weights.pt"))
    x = noise(1, 2, 8, 7)
    assert torch.equal(wrapped(x), wrap_convolutions(plain, np.pi)(x))


def test_wrapping_twice_changes_nothing():
    network = wrap_convolutions(plain_network(), np.pi)
    kept = [id(m) for m in network.modules()]
    assert [id(m) for m in wrap_convolutions(network, np.pi).modules()] == kept


def test_copies_and_moves_to_other_types_keep_the_weights_used():
    network = wrap_convolutions(plain_network(), np.pi)
    twin = copy.deepcopy(network).float()
    x = noise(1, 2, 8, 7)
    assert twin(x.float()).dtype == torch.float32
    torch.testing.assert_close(twin(x.float()).double(), network(x), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert not twin(x.float()).any()
    assert network(x).any()


def test_gradients_reach_the_weights_through_the_wrap():
    layer = WrapConv2d(conv(2, 2, 3, padding=1), np.pi)
    x = noise(1, 2, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(layer, x)
    layer(x).square().sum().backward()
    assert layer.weight.grad.abs().min() > 0


def test_a_single_angle_and_a_single_item():
    layer = WrapConv2d(conv(1, 1, 3, padding=1), np.pi)
    x = noise(1, 1, 1, 5)
    expected = functional.conv2d(torch.cat([x.flip(-1), x, x.flip(-1)], dim=-2), layer.weight, layer.bias,
                                 padding=(0, 1))
    torch.testing.assert_close(layer(x), expected, **TIGHT)


def test_what_cannot_be_wrapped_is_refused():
    with pytest.raises(InputError, match=r"conv must pad with a number of zeros .*'circular'"):
        WrapConv2d(nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"))
    with pytest.raises(InputError, match=r"conv must pad with a number of zeros .*'same'"):
        wrap_convolutions(nn.Sequential(nn.Conv2d(1, 1, 3, padding="same")), np.pi)
    with pytest.raises(InputError, match="down must be a convolution of 3 x 3"):
        WrapDownsample(Downsample2D(2, use_conv=True, kernel_size=5, padding=2, name="op"), np.pi)
    with pytest.raises(GeometryError, match="arc must be pi or 2 pi"):
        wrap_convolutions(plain_network(), 3.0)
