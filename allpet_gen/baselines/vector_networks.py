"""Networks between a sinogram and one vector, told a prompt in every layer: of the VAE, and the GAN's generator."""

import torch
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import nn
from torch.nn import functional

from allpet_gen._network_checks import as_widths
from allpet_gen.prompts import VOCABULARY
from allpet_gen.wrap_padding import WrapConv2d, wrap_convolutions
from allpet_physics._arrays import as_positive_int
from allpet_physics.errors import GeometryError
from allpet_physics.geometry import ParallelGeometry


class Told(nn.Module):
    """A vector for three tokens and the view, as `SinogramDenoiser` is told them.

    Parameters
    ----------
    width : int
        Of the vector.
    """

    def __init__(self, width: int):
        super().__init__()
        self.embeddings = nn.ModuleDict({kind: nn.Embedding(len(words) + 1, width)
                                         for kind, words in VOCABULARY.items()})
        n = len(self.embeddings)
        # Of unit variance, as the vector beside it is: what is told must not be learned from that instead.
        self.mixed = nn.Sequential(nn.Linear(n * (width + 1), width), nn.SiLU(), nn.Linear(width, width),
                                   nn.LayerNorm(width))

    def forward(self, tokens: torch.Tensor, view: torch.Tensor | None = None) -> torch.Tensor:
        """Return (batch, width) for tokens (batch, 3) and views (batch, 3), zero if not given."""
        words = [embedding(tokens[:, i]) for i, embedding in enumerate(self.embeddings.values())]
        view = words[0].new_zeros(len(tokens), len(words)) if view is None else view.to(words[0].dtype)
        return self.mixed(torch.cat([*words, view], dim=1))


class VectorEncoder(nn.Module):
    """A sinogram to one vector: residual blocks and strided convolutions of diffusers, then a linear layer.

    Parameters
    ----------
    geometry : ParallelGeometry
    n_out : int
        Of the vector.
    patch : int
        Side of the squares of bins that become channels.
    block_out_channels : sequence of int
        Widths by level, finest first; each further level halves angles and bins.
    layers_per_block, token_dim, norm_num_groups : int

    Raises
    ------
    InputError
        Widths that are no multiples of `norm_num_groups`.
    GeometryError
        Angles or bins that are no multiples of patch · 2^(levels − 1).
    """

    def __init__(self, geometry: ParallelGeometry, n_out: int, patch: int, block_out_channels, layers_per_block: int,
                 token_dim: int, norm_num_groups: int):
        super().__init__()
        widths, coarsest = levels_of(geometry, patch, block_out_channels, norm_num_groups)
        self.patch, self.gradient_checkpointing = patch, False
        self.told = Told(token_dim)
        self.conv_in = WrapConv2d(nn.Conv2d(patch**2, widths[0], 3, padding=1), geometry.arc, patch)
        self.blocks, before = nn.ModuleList(), widths[0]
        for level, width in enumerate(widths):
            for _ in range(layers_per_block):
                self.blocks.append(_block(before, width, token_dim, norm_num_groups))
                before = width
            if level + 1 < len(widths):
                self.blocks.append(Downsample2D(width, use_conv=True))
        self.norm_out = nn.GroupNorm(norm_num_groups, before)
        self.out = nn.Linear(before * coarsest[0] * coarsest[1], n_out)
        wrap_convolutions(self, geometry.arc)

    def forward(self, x: torch.Tensor, tokens: torch.Tensor, view: torch.Tensor | None = None) -> torch.Tensor:
        """Return (batch, n_out) of sinograms (batch, 1, angle, bin)."""
        told = self.told(tokens, view)
        h = _through(self, self.conv_in(functional.pixel_unshuffle(x, self.patch)), told)
        return self.out(functional.silu(self.norm_out(h)).flatten(1))


class VectorDecoder(nn.Module):
    """One vector to a sinogram: a linear layer, then residual blocks that see vector and prompt, and upsampling.

    Parameters
    ----------
    geometry, patch, block_out_channels, layers_per_block, token_dim, norm_num_groups
        As of `VectorEncoder`; widths by level, finest first here too.
    n_in : int
        Of the vector.

    Raises
    ------
    InputError, GeometryError
        As of `VectorEncoder`.
    """

    def __init__(self, geometry: ParallelGeometry, n_in: int, patch: int, block_out_channels, layers_per_block: int,
                 token_dim: int, norm_num_groups: int):
        super().__init__()
        widths, coarsest = levels_of(geometry, patch, block_out_channels, norm_num_groups)
        self.patch, self.gradient_checkpointing = patch, False
        before = widths[-1]
        self.told = Told(token_dim)
        self.start = nn.Linear(n_in + token_dim, before * coarsest[0] * coarsest[1])
        self.shape = (before, *coarsest)
        self.style = nn.Sequential(nn.Linear(n_in + token_dim, before), nn.SiLU(), nn.Linear(before, before))
        self.blocks, style = nn.ModuleList(), before
        for level, width in enumerate(reversed(widths)):
            for _ in range(layers_per_block + (level == 0)):
                self.blocks.append(_block(before, width, style, norm_num_groups))
                before = width
            if level + 1 < len(widths):
                self.blocks.append(Upsample2D(width, use_conv=True))
        self.norm_out = nn.GroupNorm(norm_num_groups, before)
        self.conv_out = nn.Conv2d(before, patch**2, 3, padding=1)
        wrap_convolutions(self, geometry.arc)

    def forward(self, z: torch.Tensor, tokens: torch.Tensor, view: torch.Tensor | None = None) -> torch.Tensor:
        """Return x (batch, 1, angle, bin), roots in the range of `CountScaling`, of vectors (batch, n_in)."""
        known = torch.cat([z, self.told(tokens, view).to(z.dtype)], dim=1)
        h = _through(self, self.start(known).unflatten(1, self.shape), self.style(known))
        return functional.pixel_shuffle(self.conv_out(functional.silu(self.norm_out(h))), self.patch)


def levels_of(geometry: ParallelGeometry, patch: int, block_out_channels, groups: int = 1):
    """Return the widths of the levels, and angles and bins of the coarsest one.

    Raises
    ------
    InputError
        Widths that are no multiples of the groups.
    GeometryError
        Angles or bins that are no multiples of patch · 2^(levels − 1).
    """
    widths = as_widths("block_out_channels", block_out_channels, groups)
    factor = as_positive_int("patch", patch) * 2 ** (len(widths) - 1)
    if any(n % factor for n in geometry.sinogram_shape):
        raise GeometryError(f"geometry must have angles and bins that are multiples of {factor}, but had "
                            f"{geometry.n_angles} x {geometry.n_bins}; resample the sinograms.")
    return widths, tuple(n // factor for n in geometry.sinogram_shape)


def _block(before: int, width: int, told: int, groups: int) -> ResnetBlock2D:
    return ResnetBlock2D(in_channels=before, out_channels=width, temb_channels=told, groups=groups, eps=1e-6,
                         time_embedding_norm="scale_shift")


def _through(network, h: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
    """Return features after all blocks of a network; residual blocks are told something."""
    keep = not (network.gradient_checkpointing and torch.is_grad_enabled())
    for block in network.blocks:
        given = (h, told) if isinstance(block, ResnetBlock2D) else (h,)
        h = block(*given) if keep else network._gradient_checkpointing_func(block, *given)
    return h
