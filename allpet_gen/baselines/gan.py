r"""A conditional GAN of sinograms with a projection discriminator (Miyato and Koyama 2018, arXiv 1802.05637)."""

from collections.abc import Mapping

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn import functional

from allpet_gen.baselines.drawing import BaselinePipeline, normal
from allpet_gen.baselines.vector_networks import Told, VectorDecoder, levels_of
from allpet_gen.baselines.views import without_some_words
from allpet_gen.count_scaling import CountScaling
from allpet_gen.wrap_padding import WrapConv2d, wrap_convolutions
from allpet_physics._arrays import as_positive_float, as_positive_int
from allpet_physics.geometry import ParallelGeometry

_SLOPE = 0.2
#: Counts that no bin has; beyond them, and for what is not finite, nothing is drawn.
_MOST = 1e9
#: What is added to the spread of pairs before its inverse is taken.
_LEAST_SPREAD = 1e-3


class GANGenerator(ModelMixin, ConfigMixin):
    r"""Noise z ~ N(0, I) and a prompt to roots x of expected counts, :math:`\lambda = c\,((x + 1)/2)^2` as of (E1).

    Its layers make standardised roots, :math:`(x - m)/s`, and the discriminator judges those.

    Parameters
    ----------
    geometry : dict
        Of `ParallelGeometry.to_dict`; angles and bins must be multiples of patch · 2^(levels − 1).
    count_scale : float
        c, of `CountScaling`.
    center, deviation : float
        m and s of training sinograms, of `allpet_gen.baseline_stages.measured_roots`.
    latent_dim : int
        Of z.
    patch, block_out_channels, layers_per_block, token_dim, norm_num_groups
        Of `VectorDecoder`.

    Raises
    ------
    InputError
        Numbers that are not positive, widths that are no multiples of groups.
    GeometryError
        Angles or bins that are no multiples.
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(self, geometry: dict, count_scale: float, center: float = 0.0, deviation: float = 1.0,
                 latent_dim: int = 128, patch: int = 4, block_out_channels=(64, 128, 192, 256),
                 layers_per_block: int = 1, token_dim: int = 128, norm_num_groups: int = 16):
        super().__init__()
        self.geometry, self.scaling = ParallelGeometry(**geometry), CountScaling(count_scale)
        as_positive_float("deviation", deviation)
        self.decoder = VectorDecoder(self.geometry, as_positive_int("latent_dim", latent_dim), patch,
                                     tuple(block_out_channels), layers_per_block, token_dim, norm_num_groups)

    def forward(self, z: torch.Tensor, tokens: torch.Tensor, view: torch.Tensor | None = None) -> torch.Tensor:
        """Return roots x (batch, 1, angle, bin) of noise (batch, latent_dim), float32."""
        return self.config.center + self.config.deviation * self.decoder(z.to(self.dtype), tokens, view).float()

    def standardised(self, x: torch.Tensor) -> torch.Tensor:
        """Return roots without the mean of all bins and in units of their deviation."""
        return (x - self.config.center) / self.config.deviation

    def expected(self, x: torch.Tensor) -> torch.Tensor:
        """Return expected counts of roots x."""
        return self.scaling.scale * ((x + 1) / 2) ** 2


class ProjectionDiscriminator(nn.Module):
    r"""Judges standardised roots x of a sinogram for what is said of it, y: high for what looks real.

    .. math:: D(x, y) = \psi(\phi(u)) + \langle e(y), \phi(u)\rangle/\sqrt F, \qquad u = (x - m)/s, \tag{GA1}

    with F features φ of residual blocks without a norm (a norm would hide the counts), and e of tokens and view.

    Parameters
    ----------
    geometry : ParallelGeometry
    patch : int
        Side of the squares of bins that become channels.
    block_out_channels : sequence of int
        Widths by level, finest first.
    features : int
        F.
    """

    def __init__(self, geometry: ParallelGeometry, patch: int, block_out_channels, features: int):
        super().__init__()
        widths, coarsest = levels_of(geometry, patch, block_out_channels)
        self.patch, before = patch, widths[0]
        layers = [WrapConv2d(_begun(nn.Conv2d(patch**2, before, 3, padding=1), slope=1.0), geometry.arc, patch)]
        for level, width in enumerate(widths):
            layers.append(_Residual(before, width, halves=level + 1 < len(widths)))
            before = width
        layers += [nn.LeakyReLU(_SLOPE), nn.Flatten(),
                   _begun(nn.Linear(before * coarsest[0] * coarsest[1], features)), nn.LeakyReLU(_SLOPE)]
        self.phi, self.psi, self.told = nn.Sequential(*layers), _begun(nn.Linear(features, 1)), Told(features)
        wrap_convolutions(self, geometry.arc)

    def forward(self, u: torch.Tensor, tokens: torch.Tensor, view: torch.Tensor | None = None) -> torch.Tensor:
        """Return a judgement (batch,) of standardised roots u (batch, 1, angle, bin), float32."""
        phi = self.phi(functional.pixel_unshuffle(u, self.patch)).float()
        said = self.told(tokens, view).float()
        return self.psi(phi)[:, 0].float() + (said * phi).sum(1) / phi.shape[1] ** 0.5


class GANObjective(nn.Module):
    r"""Losses of a generator G and of the discriminator D, for counts n with roots x and what is said of them, y.

    .. math:: L_D = \langle\max(0, 1 - D(x, y))\rangle + \langle\max(0, 1 + D(\tilde x, y))\rangle
              + \tfrac{\gamma}{2}\langle\|\nabla_x D(x, y)\|^2\rangle, \qquad
              L_G = -\langle D(\tilde x, y)\rangle + \lambda_z\,
              \Big(\epsilon + \Big\langle\frac{\|G(z, y) - G(z', y)\|_1}{\|z - z'\|_1}\Big\rangle\Big)^{-1},
              \tag{GA2}

    the hinge loss (Lim and Ye 2017, arXiv 1705.02894) with R1 (Mescheder et al. 2018, arXiv 1801.04406; by the roots x,
    which is 1/s² of what it would be by u), and mode seeking (Mao et al. 2019, arXiv 1903.05628; norms are means over
    their entries, those of sinograms in units of s, the inverse is of the batch's mean, and ε = 0.001): without it, G
    drew one sinogram for each prompt whatever z was. For it, G makes two of each prompt in half of a batch; a batch of
    one has no such term. Measured counts are Poisson and G gives expectations λ,
    which D could tell apart by the noise alone. So D is shown counts on both sides: those of G are drawn as a user's
    will be,

    .. math:: \tilde x = 2\sqrt{\tilde n/c} - 1, \quad \tilde n \sim \mathrm{Poisson}(\lambda), \qquad
              \frac{\partial\sqrt{\tilde n}}{\partial\sqrt\lambda} := 1. \tag{GA3}

    The derivative is that of :math:`\sqrt{\tilde n} \approx \sqrt\lambda + N(0, 1/4)`, the law of roots but for few
    counts (C1); adding such noise itself instead would leave D the whole numbers to tell the two apart by.

    D learns faster than G (Heusel et al. 2017, arXiv 1706.08500). What departs from the cited papers: R1 is taken of a
    share of each batch at every step instead of the whole batch at every 16th (Karras et al. 2020, arXiv 1912.04958),
    which costs as little, has the same mean, and needs no number of the step; tokens and view go through two linear
    layers before the projection; neither side has spectral norm.

    Parameters
    ----------
    network : GANGenerator
    settings : mapping
        ``r1`` (γ), ``r1_share`` (of a batch), ``mode_seeking`` (λ of z), ``discriminator_rate``
        (its learning rate, times that of G), ``discriminator_channels``, ``discriminator_features``, ``patch`` and
        ``null_prompt`` (the chance that a word is dropped, alike on both sides).

    Raises
    ------
    InputError
        A negative γ or λ, a share or a rate that is not above 0.
    """

    #: Of Adam: adversaries chase each other, and momentum makes them overshoot.
    betas = (0.0, 0.99)

    def __init__(self, network: GANGenerator, settings: Mapping):
        super().__init__()
        self.network, self.null_prompt = network, settings["null_prompt"]
        self.r1 = as_positive_float("gan.r1", settings["r1"], allow_zero=True)
        self.share = as_positive_float("gan.r1_share", settings["r1_share"])
        self.mode_seeking = as_positive_float("gan.mode_seeking", settings["mode_seeking"], allow_zero=True)
        self.rates = {"discriminator": as_positive_float("gan.discriminator_rate", settings["discriminator_rate"])}
        self.discriminator = ProjectionDiscriminator(network.geometry, settings["patch"],
                                                     settings["discriminator_channels"],
                                                     settings["discriminator_features"])

    @property
    def parts(self) -> dict[str, list]:
        """Parameters by part, each with an optimiser of its own."""
        return {"model": list(self.network.parameters()), "discriminator": list(self.discriminator.parameters())}

    def forward(self, batch: Mapping[str, torch.Tensor], generator: torch.Generator, part: str = "model"):
        """Return the loss of a part and its terms by name, for a batch of `ViewDataset`."""
        real, view = batch["x"], batch["view"]
        tokens = without_some_words(batch["tokens"], self.null_prompt, generator)
        if part == "model" and self.mode_seeking:
            tokens, view = in_pairs(tokens), in_pairs(view)
        z = torch.randn(len(real), self.network.config.latent_dim, generator=generator, device=generator.device)
        z = z.to(real.device)
        with torch.set_grad_enabled(part == "model" and torch.is_grad_enabled()):
            roots = self.network(z, tokens, view)
            made = with_counts(roots, self.network.scaling.scale, generator)
        return self._fools(roots, made, z, tokens, view) if part == "model" else self._judges(real, made, tokens, view)

    def judge(self, x: torch.Tensor, tokens: torch.Tensor, view: torch.Tensor) -> torch.Tensor:
        """Return D of roots x."""
        return self.discriminator(self.network.standardised(x), tokens, view)

    def _fools(self, roots, made, z, tokens, view):
        """Return L_G and its terms."""
        loss = -self.judge(made, tokens, view).mean()
        terms = {"adversarial": loss.detach()}
        if self.mode_seeking and len(z) > 1:
            found = spread_of_pairs(roots / self.network.config.deviation, z)
            loss, terms["spread"] = loss + self.mode_seeking / (found + _LEAST_SPREAD), found.detach()
        return loss, terms

    def _judges(self, real, made, tokens, view):
        """Return L_D and its terms."""
        judged, of_made = self.judge(real, tokens, view), self.judge(made, tokens, view)
        loss = (functional.relu(1 - judged) + functional.relu(1 + of_made)).mean()
        terms = {"discriminator": loss.detach(), "real": judged.detach().mean(), "made": of_made.detach().mean()}
        if self.r1 > 0:
            n = max(1, round(self.share * len(real)))
            with torch.autocast(real.device.type, enabled=False):  # squares of gradients need the digits
                penalty = gradient_penalty(lambda x: self.judge(x, tokens[:n], view[:n]), real[:n])
            loss, terms["r1"] = loss + self.r1 / 2 * penalty, penalty.detach()
        return loss, terms


class GANPipeline(BaselinePipeline):
    """Draws count sinograms for a prompt by the generator of a GAN, asked once.

    Parameters
    ----------
    network : GANGenerator

    Examples
    --------
    >>> gan = GANPipeline.from_pretrained("trained/gan")
    >>> out = gan("brain with 18F-FDG", count=8, seed=0)
    """

    kind = "a GAN"

    def __init__(self, network: GANGenerator):
        super().__init__()
        self.register_modules(network=network)

    def _rounds(self, tokens, draws, _steps):
        z = normal(draws, self.device, self.network.config.latent_dim)
        yield self.network.expected(self.network(z, tokens)[:, 0])


def with_counts(x: torch.Tensor, scale: float, generator: torch.Generator) -> torch.Tensor:
    """Return the roots of counts drawn around the expectation that roots x mean; the gradient passes by (GA3)."""
    root = (x + 1).abs() / 2 * scale**0.5
    expected = root.detach().square().nan_to_num(0.0).clamp(max=_MOST).to(generator.device)
    drawn = torch.poisson(expected, generator=generator).to(x.device).sqrt()
    # Where x is not finite, neither is what is returned: the training says so.
    return 2 * (drawn + (root - root.detach())) / scale**0.5 - 1


def in_pairs(values: torch.Tensor) -> torch.Tensor:
    """Return as many rows, of which the second half is the first one again; of an odd number one row has no other."""
    half = values[:(len(values) + 1) // 2]
    return torch.cat([half, half])[:len(values)]


def spread_of_pairs(x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Return how far pairs of `in_pairs` are apart for how far their noises are, the mean over all."""
    half = (len(z) + 1) // 2
    apart, noises = ((v[:len(v) - half] - v[half:]).abs().flatten(1).mean(1) for v in (x, z))
    return (apart / noises).mean()


def gradient_penalty(judge, x: torch.Tensor) -> torch.Tensor:
    """Return the mean over a batch of the squared norm of a judgement's gradient, differentiable itself (R1)."""
    x = x.detach().float().requires_grad_()
    gradient, = torch.autograd.grad(judge(x).sum(), x, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


def _begun(layer: nn.Module, slope: float = _SLOPE) -> nn.Module:
    """Return a layer with weights that keep the mean square of its input (He et al. 2015, arXiv 1502.01852).

    With PyTorch's own, each layer has a third of the mean square or less, and without norms a discriminator then begins
    all but blind: its features told two sinograms apart by a few thousandths of what they differ by.

    Parameters
    ----------
    layer : nn.Conv2d or nn.Linear
    slope : float
        Of the leaky rectifier before the layer; 1 where there is none.
    """
    nn.init.kaiming_normal_(layer.weight, a=slope, nonlinearity="leaky_relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class _Residual(nn.Module):
    """Two convolutions beside a shortcut, then the mean of 2 × 2 where it halves."""

    def __init__(self, before: int, width: int, halves: bool):
        super().__init__()
        self.first, self.second = (_begun(nn.Conv2d(n, width, 3, padding=1)) for n in (before, width))
        self.shortcut = _begun(nn.Conv2d(before, width, 1, bias=False), slope=1.0)
        self.halves = halves

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.second(functional.leaky_relu(self.first(functional.leaky_relu(x, _SLOPE)), _SLOPE))
        x = (h + self.shortcut(x)) / 2**0.5
        return functional.avg_pool2d(x, 2) if self.halves else x
