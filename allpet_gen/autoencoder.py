r"""The sinogram autoencoder: composites of counts to a small latent and back to expected counts."""

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import Decoder, DiagonalGaussianDistribution, Encoder
from diffusers.models.modeling_utils import ModelMixin
from torch.nn import functional

from allpet_gen._network_checks import as_widths
from allpet_gen.count_scaling import CountScaling
from allpet_gen.wrap_padding import WrapConv2d, wrap_convolutions
from allpet_physics._arrays import as_float_array, as_positive_int
from allpet_physics.errors import GeometryError, InputError
from allpet_physics.geometry import ParallelGeometry

#: Place of the whole sinogram S among the channels [C₊, S, C₋] of a composite.
WHOLE = 1


class SinogramAutoencoder(ModelMixin, ConfigMixin):
    r"""A KL autoencoder of composites [C₊, S, C₋] (or of S alone) in the √-scale of `CountScaling`.

    The encoder's Gaussian q(z | x) and the decoder are diffusers' blocks behind a rearrangement of `patch` × `patch`
    bins into channels, which is free, so that no layer works at full size; their convolutions continue the angles (see
    `wrap_padding`). The decoder gives *expected* counts: noise cannot be stored in a small latent and need not be, as
    Poisson's law adds it again exactly. It gives their roots, and a root below zero (x < −1) means the same counts as
    its opposite, in training and after it:

    .. math:: \lambda = c\,\left(\tfrac{x + 1}{2}\right)^2. \tag{E1}

    Latents are standardised, :math:`(z - m_c)/s_c` with mean and deviation of each channel over the training set, so
    that a diffusion starts from data of unit variance whatever the encoder's scale.

    Parameters
    ----------
    geometry : dict
        Of `ParallelGeometry.to_dict`; angles and bins must be multiples of `factor`.
    count_scale : float
        Of `CountScaling`.
    channels : int
        3 for composites, 1 for sinograms alone.
    patch : int
        Side of the squares of bins that become channels.
    block_out_channels : sequence of int
        Of diffusers' encoder, multiples of `norm_num_groups`; each further one halves angles and bins.
    layers_per_block, latent_channels, norm_num_groups : int
    mid_attention : bool
        Self-attention at the coarsest level.
    latent_mean, latent_std : sequence of float, optional
        m and s of each latent channel.

    Attributes
    ----------
    geometry : ParallelGeometry
    scaling : CountScaling
    factor : int
        By how much a latent is smaller than a sinogram, along angles and along bins.
    latent_channels : int

    Raises
    ------
    InputError
        Channels other than 1 or 3, widths that do not fit, statistics of another number of channels.
    GeometryError
        A geometry that is none, or with angles or bins that are no multiples of `factor`.
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(self, geometry: dict, count_scale: float, channels: int = 3, patch: int = 4,
                 block_out_channels=(64, 128), layers_per_block: int = 1, latent_channels: int = 4,
                 norm_num_groups: int = 16, mid_attention: bool = True, latent_mean=None, latent_std=None):
        super().__init__()
        if channels not in (1, 3):
            raise InputError(f"channels must be 3 (composites) or 1 (sinograms), but was {channels!r}.")
        patch = as_positive_int("patch", patch)
        widths = as_widths("block_out_channels", block_out_channels, norm_num_groups)
        levels = len(widths)
        self.geometry = _geometry_of(geometry)
        self.scaling = CountScaling(count_scale)
        self.factor = patch * 2 ** (levels - 1)
        self.latent_channels = as_positive_int("latent_channels", latent_channels)
        if any(n % self.factor for n in self.geometry.sinogram_shape):
            raise GeometryError(f"geometry must have angles and bins that are multiples of {self.factor}, but had "
                                f"{self.geometry.n_angles} x {self.geometry.n_bins}; resample the sinograms.")
        common = {"block_out_channels": widths, "layers_per_block": layers_per_block,
                  "norm_num_groups": norm_num_groups, "mid_block_add_attention": mid_attention}
        self.encoder = Encoder(in_channels=channels * patch**2, out_channels=latent_channels, double_z=True,
                               down_block_types=("DownEncoderBlock2D",) * levels, **common)
        self.decoder = Decoder(in_channels=latent_channels, out_channels=channels * patch**2,
                               up_block_types=("UpDecoderBlock2D",) * levels, **common)
        self.encoder.conv_in = WrapConv2d(self.encoder.conv_in, self.geometry.arc, patch)
        wrap_convolutions(self, self.geometry.arc)
        mean, std = _statistics([0.0] * latent_channels if latent_mean is None else latent_mean,
                                [1.0] * latent_channels if latent_std is None else latent_std, latent_channels)
        self.register_buffer("latent_shift", mean[:, None, None], persistent=False)
        self.register_buffer("latent_scale", std[:, None, None], persistent=False)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, angles/factor, bins/factor)."""
        return self.latent_channels, *(n // self.factor for n in self.geometry.sinogram_shape)

    def encode(self, x: torch.Tensor) -> DiagonalGaussianDistribution:
        """Return q(z | x) of composites in the range of the network, shape (batch, channels, angle, bin)."""
        return DiagonalGaussianDistribution(self.encoder(functional.pixel_unshuffle(x, self.config.patch)))

    def standardise(self, z: torch.Tensor) -> torch.Tensor:
        """Return latents of mean 0 and variance 1 over the training set."""
        return (z - self.latent_shift) / self.latent_scale

    def set_latent_statistics(self, mean, std) -> None:
        """Keep mean and standard deviation of each latent channel with the model; `save_pretrained` writes them.

        Parameters
        ----------
        mean, std : tensor or sequence of float, shape (latent_channels,)

        Raises
        ------
        InputError
            Another number of values, values that are not finite, a deviation that is not positive.
        """
        mean, std = _statistics(mean, std, self.latent_channels)
        self.register_to_config(latent_mean=mean.tolist(), latent_std=std.tolist())
        self.latent_shift.copy_(mean[:, None, None])
        self.latent_scale.copy_(std[:, None, None])

    def decode_raw(self, z: torch.Tensor) -> torch.Tensor:
        """Return composites in the range of the network from latents as the encoder gives them."""
        return functional.pixel_shuffle(self.decoder(z.to(self.dtype)), self.config.patch)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Return composites in the range of the network, (batch, channels, angle, bin), from standardised latents."""
        return self.decode_raw(z * self.latent_scale + self.latent_shift)

    def expected(self, x: torch.Tensor) -> torch.Tensor:
        """Return the expected counts (E1) of decoded composites of any shape, float32 at least, never below 0."""
        return self.scaling.scale * ((x.float() + 1) / 2) ** 2

    def counts(self, z: torch.Tensor) -> torch.Tensor:
        """Return the expected counts of S, (batch, angle, bin), from standardised latents: the channel S alone.

        C₊ + C₋ is S by training only and up to the decoder's error, so it is not mixed in.
        """
        x = self.decode(z)
        return self.expected(x[:, WHOLE if x.shape[1] == 3 else 0])

    def middle_blocks(self, n: int):
        """Return one block in the middle of the image for each of n sinograms, None where none is wanted.

        It is what composites of sinograms have whose masks do not matter.
        """
        if self.config.channels == 1:
            return None
        from allpet_physics import Blocks

        rows, cols = shape = self.geometry.image_shape
        height, width = max(1, rows // 8), max(1, cols // 8)
        block = [(rows - height) // 2, (cols - width) // 2, height, width]
        return Blocks(shape, np.tile(block, (n, 1)), np.arange(n + 1))

    def network_input(self, sinograms, blocks=None) -> torch.Tensor:
        """Return counts, with their blocks where the model wants composites, as the input of `encode`.

        Parameters
        ----------
        sinograms : array_like, shape (batch, angle, bin)
            Counts of any real dtype.
        blocks : Blocks, optional
            One set for each sinogram; needed for composites, refused for sinograms alone.

        Returns
        -------
        tensor, shape (batch, channels, angle, bin), of the model's device and dtype

        Raises
        ------
        InputError
            Counts that are negative or not finite, another shape than the geometry's, blocks that lack or do not fit.
        """
        from allpet_physics import composite_blocks

        counts = as_float_array("sinograms", sinograms, self.geometry.sinogram_shape, nonnegative=True)
        if counts.ndim != 3:
            raise InputError(f"sinograms must have shape (batch, angle, bin), but their shape was {counts.shape}.")
        if (blocks is None) == (self.config.channels == 3):
            raise InputError("blocks must be given, because this autoencoder was made for composites." if blocks is None
                             else "blocks must be None, because this autoencoder was made for sinograms alone.")
        counts = counts.astype(np.float32, copy=False)
        counts = counts[:, None] if blocks is None else composite_blocks(counts, blocks, self.geometry)
        return torch.from_numpy(self.scaling.encode(counts)).to(self.device, self.dtype)


def _geometry_of(fields) -> ParallelGeometry:
    try:
        return ParallelGeometry(**fields)
    except TypeError:
        raise GeometryError("geometry must be the dictionary of ParallelGeometry.to_dict(), but was "
                            f"{fields!r}.") from None


def _statistics(mean, std, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    # Looked at as numpy arrays: where memory is counted, tensors have no values.
    mean, std = (np.asarray(v.detach().cpu() if isinstance(v, torch.Tensor) else v, np.float32).ravel()
                 for v in (mean, std))
    if len(mean) != n or len(std) != n or not (std > 0).all() or not np.isfinite([mean, std]).all():
        raise InputError(f"mean and std must have {n} finite values each, the latter positive, but were "
                         f"{mean.tolist()} and {std.tolist()}.")
    return torch.tensor(mean, device="cpu"), torch.tensor(std, device="cpu")
