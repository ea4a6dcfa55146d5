r"""What is minimised for translations: the loss of a bridge, and of a network that is asked once."""

import torch
from torch import nn

from allpet_gen.bridge_scheduler import BridgeScheduler
from allpet_gen.prompts import NULL
from allpet_gen.translator import SinogramTranslator

#: Share of a batch at t = T exactly, where a sampler begins, nothing but the source is known, and the prediction is the
#: mean of the posterior, of which estimates are made.
_AT_END = 0.4


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

    four tenths of the times at T exactly; times of a batch are spread evenly, so that the loss is less noisy than with
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
    r"""The loss of a network that is asked once, U-Net fashion: that of the bridge at t = T, and nowhere else.

    .. math:: L = \langle \|z_T + F(z_T, z_x) - z_0\|^2 \rangle, \tag{XO2}

    whose minimiser is the mean of z. The expected counts that it is decoded to are the square of a mean root, low by
    the root's variance; of the total that is some tenths of a per cent. A deviance of counts, whose minimiser is the
    mean of counts, was tried and is worse: from a low dose it learns slowly to tell noise from what is there.
    """

    def forward(self, batch: dict, generator: torch.Generator, part: str = "model"):
        """Return the loss and its terms by name."""
        device = batch["source"].device

        def uniform(*shape):
            return torch.rand(*shape, generator=generator, device=generator.device).to(device)

        source, start, target = self.encoded(batch)
        loss = self.error(self.predict(source, start, **self.told(batch, uniform)), target, batch["used"]).mean()
        return loss, {"clean": loss.detach()}

    def predict(self, source, start, **told) -> torch.Tensor:
        """Return z of the targets: the start and what the network adds to it."""
        t = torch.zeros((), device=start.device)
        return start + self.network(start, t, source, **told).float()
