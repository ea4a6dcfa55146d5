r"""A score-based model of sinograms by a variance-exploding SDE (Song et al. 2021, arXiv 2011.13456)."""

import math
from collections.abc import Mapping

import torch
from diffusers import EDMDPMSolverMultistepScheduler
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn import functional

from allpet_gen.baselines.drawing import BaselinePipeline, normal
from allpet_gen.baselines.views import without_some_words
from allpet_gen.count_scaling import CountScaling
from allpet_gen.denoiser import SinogramDenoiser
from allpet_physics._arrays import as_positive_float, as_positive_int
from allpet_physics.errors import GeometryError, InputError
from allpet_physics.geometry import ParallelGeometry

#: The denoiser is told times from 0 to this.
_TIMES = 1000.0


class ScoreNetwork(ModelMixin, ConfigMixin):
    r"""The score of standardised root counts z under noise of deviation σ, by the generator's own denoiser.

    .. math:: z = (x - m)/d, \qquad s(z, \sigma) = \frac{D(z, \sigma) - z}{\sigma^2}, \qquad
              D = \frac{z}{\sigma^2 + 1} + \frac{\sigma}{\sqrt{\sigma^2 + 1}}\,
              F\Big(\frac{z}{\sqrt{\sigma^2 + 1}}, t(\sigma)\Big), \tag{SG1}

    with x of eq. (C1), mean m and deviation d of all training data, and squares of `patch` × `patch` bins as channels:
    nothing is lost on the way in, as of eq. (X1). Song et al. scale the output of their network by 1/σ alone; (SG1) is
    the scaling of Karras et al. (2022, arXiv 2206.00364, table 1), under which what is asked of F has unit variance at
    all σ; a short training would not get through the largest without.

    Parameters
    ----------
    geometry : dict
        Of `ParallelGeometry.to_dict`; angles and bins must be multiples of patch · 2^(levels − 1).
    count_scale : float
        c, of `CountScaling`.
    center, deviation : float
        m and d.
    sigma_min, sigma_max : float
        Of σ.
    patch : int
    **others
        Of `SinogramDenoiser`.

    Attributes
    ----------
    noise : float
        Deviation of Poisson noise in z to first order, τ.

    Raises
    ------
    InputError
        Numbers that are not positive or in the wrong order, widths that do not fit.
    GeometryError
        Angles or bins that are no multiples.
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(self, geometry: dict, count_scale: float, center: float = 0.0, deviation: float = 1.0,
                 sigma_min: float = 0.05, sigma_max: float = 300.0, patch: int = 4,
                 block_out_channels=(96, 160, 160), attention_levels=(False, True, True), layers_per_block: int = 1,
                 token_dim: int = 128, attention_head_dim: int = 5, norm_num_groups: int = 16):
        super().__init__()
        self.geometry, self.scaling = ParallelGeometry(**geometry), CountScaling(count_scale)
        self.noise = self.scaling.noise / as_positive_float("deviation", deviation)
        if not as_positive_float("sigma_min", sigma_min) < as_positive_float("sigma_max", sigma_max):
            raise InputError(f"sigma_min must be below sigma_max, but they were {sigma_min:g} and {sigma_max:g}.")
        factor = as_positive_int("patch", patch) * 2 ** (len(block_out_channels) - 1)
        if any(n % factor for n in self.geometry.sinogram_shape):
            raise GeometryError(f"geometry must have angles and bins that are multiples of {factor}, but had "
                                f"{self.geometry.n_angles} x {self.geometry.n_bins}; resample the sinograms.")
        self.latent_shape = (patch**2, *(n // patch for n in self.geometry.sinogram_shape))
        self.denoiser = SinogramDenoiser(
            self.latent_shape, self.geometry.arc, tuple(block_out_channels), tuple(attention_levels),
            layers_per_block, token_dim, attention_head_dim, norm_num_groups, patch=patch)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Return z (batch, patch², rows, columns) of roots x (batch, 1, angle, bin)."""
        return functional.pixel_unshuffle((x - self.config.center) / self.config.deviation, self.config.patch)

    def forward(self, z: torch.Tensor, sigma: torch.Tensor, tokens: torch.Tensor, view=None) -> torch.Tensor:
        """Return F of noisy z, float32; `sigma` has shape (batch,) or ()."""
        low, high = self.config.sigma_min, self.config.sigma_max
        sigma = sigma.to(z.device, torch.float32).expand(len(z))
        t = _TIMES * (sigma / low).log() / math.log(high / low)
        scaled = z / (sigma.square() + 1).sqrt().reshape(-1, 1, 1, 1)
        return self.denoiser(scaled.to(self.dtype), t, tokens, view).float()

    def score(self, z: torch.Tensor, sigma: torch.Tensor, tokens: torch.Tensor, view=None) -> torch.Tensor:
        """Return the score (SG1) of noisy z, float32."""
        s = sigma.to(z.device, torch.float32).expand(len(z)).reshape(-1, 1, 1, 1)
        return self(z, sigma, tokens, view) / (s * (s**2 + 1).sqrt()) - z / (s**2 + 1)

    def counts(self, z: torch.Tensor) -> torch.Tensor:
        r"""Return expected counts (batch, angle, bin) of z without noise.

        The mean of a root, :math:`r = \sqrt c\,(x + 1)/2`, lies below the root of the mean: counts whose roots have the
        variance 1/4 have the mean

        .. math:: \lambda = r^2 + \tfrac14. \tag{SG2}
        """
        x = functional.pixel_shuffle(z.float(), self.config.patch)[:, 0] * self.config.deviation + self.config.center
        return self.scaling.scale * ((x + 1).clamp(min=0) / 2) ** 2 + 0.25

    def enable_gradient_checkpointing(self, gradient_checkpointing_func=None) -> None:
        """Compute features again in ``backward`` instead of keeping them."""
        self.denoiser.enable_gradient_checkpointing(gradient_checkpointing_func)


class SGMObjective(nn.Module):
    r"""Denoising score matching (Song et al. 2021, eq. 7).

    The SDE has the noise :math:`\sigma(t) = \sigma_0(\sigma_1/\sigma_0)^t`, with t uniform in [0, 1]:

    .. math:: L = \Big\langle\lambda(\sigma)\,\Big\|s(z + \sigma\epsilon, \sigma) + \frac{\epsilon}{\sigma}\Big\|^2
              \Big\rangle = \langle\|F - F^*\|^2\rangle, \quad \lambda = \sigma^2(\sigma^2 + 1), \quad
              F^* = \frac{\sigma z - \epsilon}{\sqrt{\sigma^2 + 1}}. \tag{SG3}

    Song et al. weight by :math:`\lambda = \sigma^2`, under which errors of (SG1) at large σ, which decide what anatomy
    there is, would not count; the weight may be any positive function. Times of a batch are spread evenly, so that the
    loss is less noisy than with independent ones. Words of the prompt are dropped by chance as for the generator.

    Parameters
    ----------
    network : ScoreNetwork
    settings : mapping
        ``null_prompt``, the chance that a word is dropped.
    """

    def __init__(self, network: ScoreNetwork, settings: Mapping):
        super().__init__()
        self.network, self.null_prompt = network, settings["null_prompt"]

    @property
    def parts(self) -> dict[str, list]:
        """Parameters by part, each with an optimiser of its own."""
        return {"model": list(self.network.parameters())}

    def forward(self, batch: Mapping[str, torch.Tensor], generator: torch.Generator, part: str = "model"):
        """Return the loss and its terms by name, for a batch of `ViewDataset`."""
        z, device = self.network.encode(batch["x"].float()), batch["x"].device
        tokens = without_some_words(batch["tokens"], self.null_prompt, generator)
        n, config = len(z), self.network.config
        shift = torch.rand(n, generator=generator, device=generator.device).to(device)
        t = (torch.arange(n, device=device) + shift) / n
        sigma = config.sigma_min * (config.sigma_max / config.sigma_min) ** t
        noise = torch.randn(z.shape, generator=generator, device=generator.device).to(device)
        s = sigma.reshape(-1, 1, 1, 1)
        found = self.network(z + s * noise, sigma, tokens, batch["view"])
        error = (found - (s * z - noise) / (s**2 + 1).sqrt()).square().mean(dim=(1, 2, 3))
        loss = error.mean()
        return loss, {"score": (error / (sigma**2 + 1)).mean().detach()}


class SGMPipeline(BaselinePipeline):
    r"""Draws count sinograms for a prompt along the probability flow of the SDE, from N(0, σ₁²) down to σ₀.

    .. math:: \frac{\mathrm dz}{\mathrm d\sigma} = -\sigma\,s(z, \sigma) = \frac{z - D(z, \sigma)}{\sigma}, \tag{SG4}

    which has the marginals of the reverse SDE (Song et al. 2021, section 4.3), solved to second order in ln σ by
    diffusers' `EDMDPMSolverMultistepScheduler` (Lu et al. 2022, arXiv 2211.01095) at the levels of Karras et al. (2022,
    arXiv 2206.00364, eq. 5). One evaluation a step: the predictor and corrector of Song et al. take two, and ten times
    as many steps.

    Measured counts hold Poisson noise, which is N(0, τ²) in z: what lies under noise σ₀ lies under σ₀² + τ² of noise
    in all. So the last step takes away both, where Song et al. take away σ₀² (Tweedie's formula),

    .. math:: \hat z = z + (\sigma_0^2 + \tau^2)\,s(z, \sigma_0), \tag{SG5}

    and Poisson counts are drawn around what it means (SG2), as around the generator's.

    Parameters
    ----------
    network : ScoreNetwork
    scheduler : EDMDPMSolverMultistepScheduler
        Holds σ₀ and σ₁.

    Examples
    --------
    >>> sgm = SGMPipeline.from_pretrained("trained/sgm")
    >>> out = sgm("brain with 18F-FDG", count=8, seed=0, steps=40)
    """

    kind, default_steps, least_steps, most_steps = "a score-based model", 40, 2, 1000

    def __init__(self, network: ScoreNetwork, scheduler):
        super().__init__()
        self.register_modules(network=network, scheduler=scheduler)

    def _rounds(self, tokens, draws, steps):
        sampler = EDMDPMSolverMultistepScheduler.from_config(self.scheduler.config)
        sampler.set_timesteps(steps)
        z = self.network.config.sigma_max * normal(draws, self.device, *self.network.latent_shape)
        for t, sigma in zip(sampler.timesteps[:-1], sampler.sigmas, strict=False):
            z = sampler.step(self.network(z, sigma, tokens), t, z).prev_sample  # it makes D of F by (SG1)
            yield None
        sigma = sampler.sigmas[steps - 1]
        yield self.network.counts(z + (sigma**2 + self.network.noise**2) * self.network.score(z, sigma, tokens))


def score_scheduler(network: ScoreNetwork) -> EDMDPMSolverMultistepScheduler:
    """Return the scheduler that `SGMPipeline` holds; its scaling with σ_data = 1 is (SG1)."""
    return EDMDPMSolverMultistepScheduler(sigma_min=network.config.sigma_min, sigma_max=network.config.sigma_max,
                                          sigma_data=1.0, final_sigmas_type="sigma_min")
