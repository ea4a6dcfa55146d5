r"""What is minimised for translations: the loss of a bridge, and of a network that is asked once."""

import torch
from torch import nn

from allpet_gen.bridge_scheduler import BridgeScheduler
from allpet_gen.objectives import poisson_deviance
from allpet_gen.prompts import NULL
from allpet_gen.translator import SinogramTranslator

#: Share of a batch at t = T exactly, where a sampler begins and nothing but the source is known.
_AT_END = 0.1
#: Expected counts, as a share of the scale, below which the deviance has no pole.
_LEAST = 1e-6
#: κ of eq. (XO3).
_STEEPNESS = 16.0


class Translation(nn.Module):
    """What the losses of translations share: how a batch is encoded, and what the network is told.

    Parameters
    ----------
    network : SinogramTranslator
    settings : mapping
        ``gate_strength`` (λ of the gate in training), ``gated`` (the chance that a sample has its attention map on)
        and ``null_prompt`` (the chance that tracer and region are not said).
    """

    def __init__(self, network: SinogramTranslator, settings):
        super().__init__()
        self.network, self.settings = network, dict(settings)

    @property
    def parts(self) -> dict[str, list]:
        """Parameters by part, each with an optimiser of its own."""
        return {"model": list(self.network.parameters())}

    def encoded(self, batch: dict):
        """Return z of source, start and target of a batch."""
        source = self.network.encode_source(batch["source"], batch["gain"])
        start = self.network.start(source, batch["used"], batch["tokens"], batch["numbers"])
        return source, start, self.network.encode_target(batch["targets"], batch["scale"], batch["used"])

    def told(self, batch: dict, uniform) -> dict:
        """Return what the network is told of a batch; the gate is on for a part of the samples."""
        n = len(batch["gain"])
        silent = uniform(n, 1) < self.settings["null_prompt"]
        tokens = torch.where(silent & torch.tensor([True, True, False, False], device=silent.device),
                             torch.full_like(batch["tokens"], NULL), batch["tokens"])
        gated = (uniform(n, 1) < self.settings["gated"]).to(batch["attention"].dtype)[..., None, None]
        return {"tokens": tokens, "numbers": batch["numbers"], "attention": batch["attention"] * gated,
                "gate_strength": self.settings["gate_strength"]}

    def error(self, found: torch.Tensor, wanted: torch.Tensor, used: torch.Tensor) -> torch.Tensor:
        """Return the mean squared error of each sample over the slots that are used."""
        square = self.network.masked((found.float() - wanted).square(), used)
        return square.mean(dim=(1, 2, 3)) * used.shape[1] / used.sum(1)


class BridgeObjective(Translation):
    r"""The denoising bridge's loss, in the preconditioned form of `BridgeScheduler`.

    .. math:: L = \langle \|F(c_\text{in} z_t, c_\text{noise}(t), z_T) - F^*\|^2 \rangle, \qquad t \sim U(0, T),
              \tag{XO1}

    a tenth of the times at T exactly; times of a batch are spread evenly, so that the loss is less noisy than with
    independent ones.

    Parameters
    ----------
    network, settings
        Of `Translation`.
    scheduler : BridgeScheduler
    """

    def __init__(self, network, settings, scheduler: BridgeScheduler):
        super().__init__(network, settings)
        self.scheduler = scheduler

    def forward(self, batch: dict, generator: torch.Generator, part: str = "model"):
        """Return the loss and its terms by name."""
        found, wanted, t, z, target = self.predicted(batch, generator)
        clean = self.scheduler.predicted_clean(found.detach().float(), t, z)
        return self.error(found, wanted, batch["used"]).mean(), {
            "clean": self.error(clean, target, batch["used"]).mean()}

    def predicted(self, batch: dict, generator: torch.Generator):
        """Return F, F*, t, z_t and the target's z for times and noise that are drawn."""
        device = batch["source"].device

        def uniform(*shape):
            return torch.rand(*shape, generator=generator, device=generator.device).to(device)

        source, start, target = self.encoded(batch)
        n, bridge = len(start), self.scheduler.bridge
        share = (torch.arange(n, device=device) + uniform(n)) / n
        least = self.scheduler.config.t_min
        t = (least + (1 - least) * share / (1 - _AT_END)).clamp(max=1).double() * bridge.T
        t = t[torch.randperm(n, generator=generator, device=generator.device).to(device)]
        noise = torch.randn(start.shape, generator=generator, device=generator.device).to(device)
        z = self.network.masked(self.scheduler.bridge_sample(target, start, noise, t), batch["used"])
        found = self.network(self.scheduler.scale_model_input(z, t), self.scheduler.noise_condition(t), source,
                             **self.told(batch, uniform))
        return found, self.scheduler.model_target(target, t, z), t, z, target


class RegressionObjective(Translation):
    r"""The loss of a network that is asked once, U-Net fashion: the Poisson deviance of the targets.

    .. math:: L = \tfrac{1}{d^2}\langle d(n/c_k, \hat n/c_k) \rangle, \tag{XO2}

    with eq. (O1), m and d of `SinogramTranslator`: near the target this is the squared error of z, but its minimiser is
    the *mean* of the target, so that counts are kept; the squared error of roots would be low by their variance.
    """

    def forward(self, batch: dict, generator: torch.Generator, part: str = "model"):
        """Return the loss and its terms by name."""
        device = batch["source"].device

        def uniform(*shape):
            return torch.rand(*shape, generator=generator, device=generator.device).to(device)

        source, start, target = self.encoded(batch)
        z = self.predict(source, start, **self.told(batch, uniform))
        wanted, made = batch["targets"] / batch["scale"].reshape(-1, 1, 1, 1), self.shares(z)
        deviance = poisson_deviance(wanted, made) / self.network.config.deviation**2
        used = batch["used"]
        loss = (deviance.mean(dim=(2, 3)) * used).sum(1) / used.sum(1)
        scale = batch["scale"]
        again = self.network.encode_target(made.detach() * scale.reshape(-1, 1, 1, 1), scale, used)
        return loss.mean(), {"clean": self.error(again, target, used).mean()}

    def predict(self, source, start, **told) -> torch.Tensor:
        """Return z of the targets: the start and what the network adds to it."""
        t = torch.zeros((), device=start.device)
        return start + self.network(start, t, source, **told).float()

    def shares(self, z: torch.Tensor) -> torch.Tensor:
        r"""Return expected counts over c_k, the square of a root that is kept positive smoothly.

        .. math:: s = \Big(\tfrac1\kappa \ln\big(1 + e^{\kappa (x + 1)/2}\big)\Big)^2. \tag{XO3}

        It is the square of eq. (X1) but for a few counts, rises everywhere, and so has one z for each expectation. The
        plain square has two, and no slope between them, where the z of empty bins is: a network that starts from a low
        dose stays there.
        """
        network = self.network
        x = nn.functional.pixel_shuffle(z, network.config.patch) * network.config.deviation + network.config.center
        return nn.functional.softplus((x + 1) / 2, beta=_STEEPNESS).square() + _LEAST
