r"""A conditional variational autoencoder (Kingma and Welling 2014, arXiv 1312.6114; Sohn et al. 2015) of sinograms."""

from collections.abc import Mapping

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from allpet_gen.baselines.drawing import BaselinePipeline, normal
from allpet_gen.baselines.vector_networks import VectorDecoder, VectorEncoder
from allpet_gen.count_scaling import CountScaling
from allpet_gen.objectives import poisson_deviance
from allpet_gen.prompts import NULL
from allpet_physics._arrays import as_positive_float, as_positive_int
from allpet_physics.geometry import ParallelGeometry

#: Logarithms of variances are kept in these limits, as diffusers does.
_LOGVAR = (-30.0, 20.0)
#: Half a thousandth of a count keeps the logarithm of the deviance finite, as of the generator's autoencoder.
_LEAST = 5e-4


class ConditionalVAE(ModelMixin, ConfigMixin):
    r"""Encoder q(z | x, p) and decoder of one latent vector z, told the prompt p; its prior is N(0, I).

    The decoder gives roots x of expected counts, :math:`\lambda = c\,((x + 1)/2)^2` as of eq. (E1).

    Parameters
    ----------
    geometry : dict
        Of `ParallelGeometry.to_dict`; angles and bins must be multiples of patch · 2^(levels − 1).
    count_scale : float
        c, of `CountScaling`.
    classes : sequence of sequences of int
        Tokens of the classes of the training: what a prompt leaves out is drawn from them.
    latent_dim : int
        Of z.
    patch, block_out_channels, layers_per_block, token_dim, norm_num_groups
        Of `VectorEncoder` and `VectorDecoder`, alike for both.

    Raises
    ------
    InputError
        Numbers that are not positive, widths that are no multiples of groups.
    GeometryError
        Angles or bins that are no multiples.
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(self, geometry: dict, count_scale: float, classes=(), latent_dim: int = 128, patch: int = 4,
                 block_out_channels=(64, 128, 192, 256), layers_per_block: int = 1, token_dim: int = 128,
                 norm_num_groups: int = 16):
        super().__init__()
        self.geometry, self.scaling = ParallelGeometry(**geometry), CountScaling(count_scale)
        n = as_positive_int("latent_dim", latent_dim)
        shape = (patch, tuple(block_out_channels), layers_per_block, token_dim, norm_num_groups)
        self.encoder = VectorEncoder(self.geometry, 2 * n, *shape)
        self.decoder = VectorDecoder(self.geometry, n, *shape)

    def encode(self, x, tokens, view=None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and logarithm of the variance of q, (batch, latent_dim) each, in float32."""
        mean, logvar = self.encoder(x, tokens, view).float().chunk(2, dim=1)
        return mean, logvar.clamp(*_LOGVAR)

    def completed(self, tokens: torch.Tensor, draws: list[torch.Generator]) -> torch.Tensor:
        """Return tokens (batch, 3) with what was not said drawn, from the classes of the training that fit.

        Where none fits, as of a tracer that was not trained on, what was not said stays unsaid.
        """
        found = tokens.cpu().clone()
        classes = torch.tensor(self.config.classes, dtype=found.dtype).reshape(-1, found.shape[1])
        for row, draw in zip(found, draws, strict=True):
            fitting = classes[((classes == row) | (row == NULL)).all(1)]
            if len(fitting):
                row.copy_(fitting[torch.randint(len(fitting), (), generator=draw)])
        return found.to(tokens.device)

    def expected(self, z: torch.Tensor, tokens: torch.Tensor, view=None) -> torch.Tensor:
        """Return expected counts (batch, angle, bin) of latent vectors, float32."""
        x = self.decoder(z.to(self.dtype), tokens, view)[:, 0].float()
        return self.scaling.scale * ((x + 1) / 2) ** 2


class VAEObjective(nn.Module):
    r"""The evidence lower bound of counts n of N bins, as a loss per bin, with a dispersion that fits best.

    .. math:: -2\,\mathrm{ELBO}/N = \frac{\langle d(n, \lambda(z))\rangle}{\varphi} + \ln\varphi
              + \tfrac{2\beta}{N}\,\mathrm{KL}\big(q(z | x, p)\,\|\,N(0, I)\big), \qquad \beta = 1, \tag{VA1}

    with the deviance d of eq. (O1). φ = 1 is Poisson's law; but a decoder of few numbers leaves far more than Poisson
    noise behind, and with φ = 1 the divergence from the prior would count for nothing, and draws from the prior decode
    to no sinogram. So φ is what fits best, the mean deviance, never below 1 (quasi-Poisson counts; for Gaussians this
    is the calibrated decoder of Rybkin et al. 2021, arXiv 2006.13202). Counts are drawn by Poisson's law all the same,
    as the generator's are, since what is left behind is anatomy that the decoder blurs, no noise of a scanner. And

    .. math:: \mathrm{KL} = \tfrac12\sum_i\big(\mu_i^2 + \sigma_i^2 - 1 - \ln\sigma_i^2\big). \tag{VA2}

    β rises from 0 to its value over the first steps in a straight line (Bowman et al. 2016, arXiv 1511.06349), so that
    the latent comes into use. Another β than 1 is Higgins et al.'s (2017). What departs from the cited papers: encoder
    and decoder are residual and convolutional, and are told the view beside the prompt, as the generator's denoiser is.
    Words of the prompt are not dropped as for it: an encoder that may not be told the class puts it into z, and the
    decoder then need not mind the prompt. Where a prompt leaves out tracer or region, the class is drawn instead.

    Parameters
    ----------
    network : ConditionalVAE
    settings : mapping
        ``kl`` (β) and ``kl_warmup`` (steps).
    passes : int
        Forward passes of a step of the training (``training.accumulation``).

    Raises
    ------
    InputError
        A negative β.
    """

    def __init__(self, network: ConditionalVAE, settings: Mapping, passes: int = 1):
        super().__init__()
        self.network = network
        self.kl = as_positive_float("vae.kl", settings["kl"], allow_zero=True)
        self.warmup = max(1, settings["kl_warmup"] * passes)
        # A buffer, so that a resumed training goes on where the annealing was.
        self.register_buffer("passed", torch.zeros((), dtype=torch.long))

    @property
    def parts(self) -> dict[str, list]:
        """Parameters by part, each with an optimiser of its own."""
        return {"model": list(self.network.parameters())}

    def forward(self, batch: Mapping[str, torch.Tensor], generator: torch.Generator, part: str = "model"):
        """Return the loss and its terms by name, for a batch of `ViewDataset`; β is whole where nothing is trained."""
        x, tokens, view = batch["x"], batch["tokens"], batch["view"]
        mean, logvar = self.network.encode(x, tokens, view)
        noise = torch.randn(mean.shape, generator=generator, device=generator.device).to(mean.device)
        expected = self.network.expected(mean + (logvar / 2).exp() * noise, tokens, view) + _LEAST
        deviance = poisson_deviance(self.network.scaling.decode(x[:, 0].float()), expected).mean()
        kl = gaussian_kl(mean, logvar).mean()
        beta = self.kl * (self.passed / self.warmup).clamp(max=1) if self.training else self.kl
        if self.training:
            self.passed += 1
        dispersion = deviance.detach().clamp(min=1)
        loss = deviance / dispersion + dispersion.log() + beta * 2 * kl / x[0].numel()
        return loss, {"deviance": deviance.detach(), "kl": kl.detach()}


class VAEPipeline(BaselinePipeline):
    """Draws count sinograms for a prompt by a conditional VAE: z ~ N(0, I), decoded once.

    Parameters
    ----------
    network : ConditionalVAE

    Examples
    --------
    >>> vae = VAEPipeline.from_pretrained("trained/vae")
    >>> out = vae("brain with 18F-FDG", count=8, seed=0)
    """

    kind = "a VAE"

    def __init__(self, network: ConditionalVAE):
        super().__init__()
        self.register_modules(network=network)

    def _rounds(self, tokens, draws, _steps):
        tokens = self.network.completed(tokens, draws)
        yield self.network.expected(normal(draws, self.device, self.network.config.latent_dim), tokens)


def gaussian_kl(mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """Return the divergence (VA2) of diagonal Gaussians (batch, n) from N(0, I), one number each, in nats."""
    return (mean.square() + logvar.exp() - 1 - logvar).sum(dim=1) / 2
