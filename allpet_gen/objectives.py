r"""What is minimised: the loss of the autoencoder and the loss of the denoiser, each a module of its own."""

from collections.abc import Mapping

import torch
from diffusers import DDPMScheduler
from torch import nn

from allpet_gen.autoencoder import WHOLE, SinogramAutoencoder
from allpet_gen.denoiser import SinogramDenoiser
from allpet_gen.discriminator import PatchDiscriminator, hinge_loss
from allpet_gen.prompts import NULL


def poisson_deviance(counts: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    r"""Return the Poisson deviance of each bin.

    .. math:: d(n, \lambda) = 2\,[n \ln(n/\lambda) - (n - \lambda)], \tag{O1}

    whose mean is 1 for Poisson counts around λ (to O(1/λ)), and whose minimiser over λ is the *mean* of n, so totals
    are kept; the squared error of roots would be low by a quarter of a count in each bin.
    """
    return 2 * (torch.special.xlogy(counts, counts) - counts * expected.log() - counts + expected)


class AutoencoderObjective(nn.Module):
    r"""Loss of the autoencoder on composites n_c, c in {C₊, S, C₋}, with decoded expectations λ_c.

    .. math:: L = \tfrac13\sum_c \langle d(n_c, \lambda_c)\rangle + w_s L_\text{spectral} + w_p L_\text{PN}
              + w_k\,\mathrm{KL} + w_a L_\text{adversarial}. \tag{O2}

    The spectral term is :math:`\langle|\omega|\,|\mathcal F_s(\lambda - n)|^2\rangle` over the mean of n: by Parseval
    the error that the ramp filter, and so FBP, makes of it. The PN term is the distance of the parts from what they
    must be, :math:`4\langle(\sqrt{\lambda_+ + \lambda_-} - \sqrt{\lambda_S})^2 + (\sqrt{\lambda_+} -
    \sqrt{\hat M\lambda_S})^2\rangle` with the mask :math:`\hat M = n_+/n_S` where there are counts; on data it is zero
    identically, so it is asked of decoded channels.

    Parameters
    ----------
    autoencoder : SinogramAutoencoder
    weights : mapping
        ``kl``, ``spectral``, ``consistency``, ``adversarial``.
    """

    def __init__(self, autoencoder: SinogramAutoencoder, weights: Mapping):
        super().__init__()
        self.autoencoder, self.weights = autoencoder, dict(weights)
        if weights["adversarial"] > 0:
            self.discriminator = PatchDiscriminator(autoencoder.config.channels)

    @property
    def parts(self) -> dict[str, list]:
        """Parameters by part, each with an optimiser of its own."""
        parts = {"model": list(self.autoencoder.parameters())}
        if self.weights["adversarial"] > 0:
            parts["discriminator"] = list(self.discriminator.parameters())
        return parts

    def forward(self, x: torch.Tensor, generator: torch.Generator, part: str = "model"):
        """Return the loss of a part and its terms by name, for inputs (batch, channels, angle, bin)."""
        posterior = self.autoencoder.encode(x)
        decoded = self.autoencoder.decode_raw(posterior.sample(generator)).float()
        if part == "discriminator":
            loss = hinge_loss(self.discriminator, x, decoded.detach())
            return loss, {"discriminator": loss.detach()}
        counts, expected = self.autoencoder.scaling.decode(x.float()), self._expected(decoded)
        deviance = poisson_deviance(counts, expected).mean()
        terms = {"deviance": deviance, "kl": posterior.kl().float().mean()}
        weights = dict(self.weights) | {"deviance": 1.0}
        if weights["spectral"] > 0:
            terms["spectral"] = _ramp_error(counts, expected)
        if weights["consistency"] > 0 and x.shape[1] == 3:
            terms["consistency"] = _pn_error(counts, expected)
        if weights["adversarial"] > 0:
            terms["adversarial"] = -self.discriminator(decoded).mean()
        loss = sum(weights[name] * value for name, value in terms.items())
        return loss, {name: value.detach() for name, value in terms.items()}

    def _expected(self, decoded: torch.Tensor) -> torch.Tensor:
        """Return expected counts, never 0: half a thousandth of a count keeps the logarithm finite."""
        return self.autoencoder.expected(decoded) + 5e-4


class DenoiserObjective(nn.Module):
    r"""Weighted v-prediction loss over the times of a schedule with zero terminal SNR.

    .. math:: L = E\big[w(t)\,\|\hat v - v\|^2\big], \quad v = \sqrt{\bar\alpha_t}\,\epsilon -
              \sqrt{1 - \bar\alpha_t}\,z_0, \quad w(t) = \frac{\min(\mathrm{SNR}_t + 1, \gamma)}{\mathrm{SNR}_t + 1}.
              \tag{O3}

    This is min-SNR-γ (Hang et al. 2023, arXiv 2303.09556) for v-prediction with SNR + 1 in place of SNR. Theirs,
    min(SNR, γ)/(SNR + 1), vanishes as SNR → 0: with a zero terminal SNR (Lin et al. 2023, arXiv 2305.08891) the first
    step of sampling, which decides anatomy, would not be trained. γ = 0 weights all times alike.

    Parameters
    ----------
    denoiser : SinogramDenoiser
    diffusion : mapping
        Section of the settings.
    mean, std : tensor, shape (channels, 1, 1)
        That standardise latents.
    """

    def __init__(self, denoiser: SinogramDenoiser, diffusion: Mapping, mean: torch.Tensor, std: torch.Tensor):
        super().__init__()
        self.denoiser, self.null_prompt = denoiser, diffusion["null_prompt"]
        self.scheduler = noise_schedule(diffusion)
        alphas = self.scheduler.alphas_cumprod.double()
        snr = alphas / (1 - alphas)
        gamma = diffusion["min_snr_gamma"]
        weight = torch.ones_like(snr) if gamma == 0 else (snr + 1).clamp(max=gamma) / (snr + 1)
        self.register_buffer("weight", weight.float(), persistent=False)
        self.register_buffer("mean", mean.clone(), persistent=False)
        self.register_buffer("std", std.clone(), persistent=False)

    @property
    def parts(self) -> dict[str, list]:
        """Parameters by part, each with an optimiser of its own."""
        return {"model": list(self.denoiser.parameters())}

    def forward(self, batch: Mapping[str, torch.Tensor], generator: torch.Generator, part: str = "model"):
        """Return the loss and its terms by name, for a batch of `LatentDataset`."""
        z = (batch["z"] - self.mean) / self.std
        n, device = len(z), z.device

        def uniform(*shape):
            return torch.rand(shape, generator=generator, device=generator.device).to(device)

        # One time in each of n equal parts of the schedule: the loss is less noisy than with independent times.
        steps = len(self.weight)
        t = (((torch.arange(n, device=device) + uniform(n)) / n) * steps).long().clamp(max=steps - 1)
        noise = torch.randn(z.shape, generator=generator, device=generator.device).to(device)
        dropped = uniform(n, 3) < self.null_prompt
        dropped |= uniform(n, 1) < self.null_prompt
        tokens = batch["tokens"].masked_fill(dropped, NULL)
        noisy = self.scheduler.add_noise(z, noise, t)
        target = self.scheduler.get_velocity(z, noise, t)
        predicted = self.denoiser(noisy, t, tokens, batch["view"]).float()
        error = (predicted - target).square().mean(dim=(1, 2, 3))
        loss = (self.weight[t] * error).mean()
        return loss, {"v": error.detach().mean()}


def noise_schedule(diffusion: Mapping) -> DDPMScheduler:
    """Return the schedule that a section ``diffusion`` describes, trailing, without clipping."""
    return DDPMScheduler(num_train_timesteps=diffusion["steps"], beta_schedule=diffusion["beta_schedule"],
                         beta_start=diffusion["beta_start"], beta_end=diffusion["beta_end"],
                         prediction_type="v_prediction", clip_sample=False, timestep_spacing="trailing",
                         rescale_betas_zero_snr=diffusion["zero_terminal_snr"])


def _ramp_error(counts: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    spectrum = torch.fft.rfft(expected - counts, n=2 * counts.shape[-1], norm="ortho")
    ramp = torch.linspace(0, 1, spectrum.shape[-1], device=counts.device)
    power = (ramp * (spectrum.real.square() + spectrum.imag.square())).mean(dim=(-2, -1))
    return (4 * power / counts.mean(dim=(-2, -1)).clamp(min=1e-3)).mean()


def _pn_error(counts: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    plus, whole, minus = expected.unbind(1)
    mask = torch.where(counts[:, WHOLE] > 0, counts[:, 0] / counts[:, WHOLE].clamp(min=1), (plus / whole).detach())
    together = (plus + minus).sqrt() - whole.sqrt()
    return 4 * (together.square() + (mask.clamp(0, 1).sqrt() * whole.sqrt() - plus.sqrt()).square()).mean()
