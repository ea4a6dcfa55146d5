"""Convolutions that continue a sinogram beyond its first and last angle instead of padding with zeros."""

import numpy as np
import torch
from diffusers.models.downsampling import Downsample2D
from torch import nn
from torch.nn import functional

from allpet_gen.symmetry import reverses_bins, wrap_angles
from allpet_physics.errors import InputError


class WrapConv2d(nn.Conv2d):
    """A convolution over (angle, bin) padded with the angles of the next turn, and with zeros in the bins.

    The input of a network continues exactly so (see `allpet_gen.symmetry`). Inside it does for features that are even
    in s and approximately for others: a learned kernel need not commute with s → −s. On an arc of 2π both are exact.

    Parameters
    ----------
    conv : nn.Conv2d
        With zero padding; its weights are shared, not copied, and keep their names.
    arc : float
        π or 2π.
    patch : int
        Where the channels are blocks of patch × patch bins (`torch.nn.functional.pixel_unshuffle`), their side: the
        bins of a block are then reversed too. 1 for channels that are features.

    Raises
    ------
    InputError
        A convolution with another padding than zeros.
    GeometryError
        An arc other than π or 2π.
    """

    def __init__(self, conv: nn.Conv2d, arc: float = np.pi, patch: int = 1):
        nn.Module.__init__(self)
        if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            raise InputError("conv must pad with a number of zeros to be wrapped instead, but its padding was "
                             f"{conv.padding!r} with padding_mode {conv.padding_mode!r}.")
        self.__dict__.update({key: value for key, value in conv.__dict__.items() if key != "_modules"})
        self.angle_padding, self.bin_padding = conv.padding
        self.arc, self.patch = arc, patch if reverses_bins(arc) and self.angle_padding else 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the convolution of ``(batch, channel, angle, bin)``."""
        rows = self.angle_padding
        x = wrap_angles(x, rows, rows, self.arc)
        if self.patch > 1:
            head, own, tail = x[..., :rows, :], x[..., rows:-rows, :], x[..., -rows:, :]
            x = torch.cat([self._reverse_blocks(head), own, self._reverse_blocks(tail)], dim=-2)
        return functional.conv2d(x, self.weight, self.bias, self.stride, (0, self.bin_padding), self.dilation,
                                 self.groups)

    def _reverse_blocks(self, x):
        return x.unflatten(1, (-1, self.patch, self.patch)).flip(3).flatten(1, 3)


class WrapDownsample(nn.Module):
    """diffusers' strided convolution with wrapped angles, padded where the original pads: before and after, or after.

    Parameters
    ----------
    down : Downsample2D
        With a convolution of 3 × 3; its weights are shared and keep their names.
    arc : float
        π or 2π.

    Raises
    ------
    InputError
        A layer with another kernel or with a norm of its own.
    """

    def __init__(self, down: Downsample2D, arc: float):
        super().__init__()
        if down.conv.kernel_size != (3, 3) or down.norm is not None:
            raise InputError("down must be a convolution of 3 x 3 without a norm to be wrapped, but had a kernel of "
                             f"{down.conv.kernel_size} and norm {down.norm}.")
        self.conv, self.arc, self.before = down.conv, arc, down.padding
        self.conv.padding = (0, 0)

    def forward(self, x: torch.Tensor, *args, **kwargs) -> torch.Tensor:
        """Return every second angle and bin of ``(batch, channel, angle, bin)``, convolved."""
        return self.conv(functional.pad(wrap_angles(x, self.before, 1, self.arc), (self.before, 1)))


def wrap_convolutions(module: nn.Module, arc: float) -> nn.Module:
    """Replace, in place, every convolution of a network that pads angles by one that wraps them; return the network.

    Convolutions without padding in the angles, and those that wrap already, are left as they are. Names and values of
    all parameters stay.

    Parameters
    ----------
    module : nn.Module
        Over ``(batch, channel, angle, bin)``; its parts are replaced, not itself.
    arc : float
        π or 2π.

    Raises
    ------
    InputError
        As in `WrapConv2d` and `WrapDownsample`.
    """
    for name, child in list(module.named_children()):
        if isinstance(child, WrapConv2d | WrapDownsample):
            continue
        if isinstance(child, Downsample2D) and child.use_conv:
            setattr(module, name, WrapDownsample(child, arc))
        elif isinstance(child, nn.Conv2d) and child.padding[0] != 0:
            setattr(module, name, WrapConv2d(child, arc))
        else:
            wrap_convolutions(child, arc)
    return module
