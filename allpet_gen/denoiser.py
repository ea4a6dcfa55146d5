"""The denoiser: a conditional U-Net over latents, steered by prompt tokens and, where asked, by an attention map."""

import torch
from diffusers import UNet2DConditionModel
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from allpet_gen._network_checks import as_widths
from allpet_gen.attention_gate import AttentionGates
from allpet_gen.prompts import VOCABULARY
from allpet_gen.wrap_padding import WrapConv2d, wrap_convolutions
from allpet_physics.errors import InputError

#: The tokens that a network is told, by name, and the vocabulary of each. As many numbers go with them.
CONDITIONS = {"prompt": {kind: kind for kind in VOCABULARY},
              "task": {kind: kind for kind in VOCABULARY} | {"other": "tracer"}}


class SinogramDenoiser(ModelMixin, ConfigMixin):
    """diffusers' conditional U-Net with three prompt tokens; its convolutions continue the angles.

    Each token (tracer, region, task; 0 for "not said") has a learned vector. The layers at the coarser levels attend to
    the three vectors, and all layers see them beside the time. So they do with the `view`: by how much a training
    sinogram was turned and whether it was mirrored. Said to the network, augmentation does not leak into what it draws
    (Karras et al. 2022, arXiv 2206.00364, section 5): at sampling the view is zero, an upright patient.

    Parameters
    ----------
    latent_shape : sequence of int
        (channels, height, width).
    arc : float
        π or 2π.
    block_out_channels : sequence of int
        Widths by level, finest first.
    attention_levels : sequence of bool
        Which levels attend to the prompt and to themselves.
    layers_per_block, token_dim, norm_num_groups : int
    attention_head_dim : int
        Number of heads of each attention, under the name that diffusers' U-Net gives it; widths of the levels that
        attend must be multiples of it.
    condition_channels : int
        Further channels of the input, such as the source of a bridge.
    conditions : {"prompt", "task"}
        What the network is told. "prompt": the three tokens and the view. "task": a fourth token, the tracer that comes
        out or is mixed in, and a fourth number beside the view; see `allpet_gen.tasks`.
    patch : int
        Where the channels are blocks of patch × patch bins, their side; 1 for features of an encoder.

    Raises
    ------
    InputError
        Widths that are no multiples of groups or heads, or not as many as `attention_levels`.
    GeometryError
        An arc other than π or 2π.
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(self, latent_shape, arc: float, block_out_channels=(96, 192, 192),
                 attention_levels=(False, True, True), layers_per_block: int = 1, token_dim: int = 128,
                 attention_head_dim: int = 6, norm_num_groups: int = 16, condition_channels: int = 0,
                 conditions: str = "prompt", patch: int = 1):
        super().__init__()
        if conditions not in CONDITIONS:
            raise InputError(f"conditions must be one of {', '.join(CONDITIONS)}, but was {conditions!r}.")
        channels, height, width = latent_shape
        widths, attention_levels = tuple(block_out_channels), tuple(attention_levels)
        if len(attention_levels) != len(widths):
            raise InputError(f"attention_levels must say yes or no for each of the {len(widths)} levels of "
                             f"block_out_channels, but had {len(attention_levels)}.")
        as_widths("block_out_channels", widths, norm_num_groups)
        # The middle block attends too, at the width of the last level.
        attending = [w for w, a in zip(widths, attention_levels, strict=True) if a]
        as_widths("block_out_channels of levels that attend", [*attending, widths[-1]], attention_head_dim)
        self.n_conditions = len(CONDITIONS[conditions])
        self.embeddings = nn.ModuleDict({name: nn.Embedding(len(VOCABULARY[kind]) + 1, token_dim)
                                         for name, kind in CONDITIONS[conditions].items()})
        down = tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attention_levels)
        up = tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention_levels))
        self.unet = UNet2DConditionModel(
            sample_size=(height, width), in_channels=channels + condition_channels, out_channels=channels,
            down_block_types=down, up_block_types=up, block_out_channels=widths,
            layers_per_block=layers_per_block, cross_attention_dim=token_dim, norm_num_groups=norm_num_groups,
            attention_head_dim=attention_head_dim, class_embed_type="projection",
            projection_class_embeddings_input_dim=self.n_conditions * (token_dim + 1))
        self.unet.conv_in = WrapConv2d(self.unet.conv_in, arc, patch)
        wrap_convolutions(self.unet, arc)
        self._gates = AttentionGates(self.unet, ResnetBlock2D)

    def forward(self, z: torch.Tensor, t: torch.Tensor, tokens: torch.Tensor, view: torch.Tensor | None = None,
                attention: torch.Tensor | None = None, gate_strength: float = 0.0,
                gate: str = "residual") -> torch.Tensor:
        """Return the prediction for noisy latents.

        Parameters
        ----------
        z : tensor, shape (batch, channels + condition_channels, height, width)
        t : tensor, shape (batch,) or ()
            Time of the noise schedule.
        tokens : tensor of int, shape (batch, 3)
            Of `Prompt.tokens`; (batch, 4) for conditions "task", of `allpet_gen.tasks`.
        view : tensor, shape (batch, 3), optional
            (cos φ − 1, sin φ, 1 if mirrored) of an augmented sinogram, and for "task" one number more; zero if not
            given.
        attention : tensor, shape (batch, 1, angle, bin) or (1, 1, angle, bin), optional
            M̂ in [0, 1], the normalised projection of a region.
        gate_strength, gate
            See `gate_features`.

        Returns
        -------
        tensor, shape (batch, channels, height, width)

        Raises
        ------
        InputError
            Tokens, view or attention of another shape, a negative strength, an unknown gate.
        """
        for name, value in (("tokens", tokens), ("view", view)):
            if value is not None and tuple(value.shape) != (len(z), self.n_conditions):
                raise InputError(f"{name} must have shape ({len(z)}, {self.n_conditions}), one row for each of z, but "
                                 f"its shape was {tuple(value.shape)}.")
        words = [embedding(tokens[:, i]) for i, embedding in enumerate(self.embeddings.values())]
        view = words[0].new_zeros(len(z), self.n_conditions) if view is None else view.to(words[0].dtype)
        with self._gates.using(attention, gate_strength, gate):
            return self.unet(z, t, torch.stack(words, dim=1), class_labels=torch.cat([*words, view], dim=1),
                             return_dict=False)[0]

    def enable_gradient_checkpointing(self, gradient_checkpointing_func=None) -> None:
        """Compute features again in ``backward`` instead of keeping them, with the attention map that was set."""
        super().enable_gradient_checkpointing(gradient_checkpointing_func or self._gates.checkpoint)
