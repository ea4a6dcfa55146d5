r"""CycleGAN: a translation learned without pairs (Zhu et al. 2017, arXiv 1703.10593), with the bridges' own network."""

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from allpet_gen.denoiser import CONDITIONS
from allpet_gen.discriminator import PatchDiscriminator
from allpet_gen.prompts import VOCABULARY
from allpet_gen.tasks import TASKS
from allpet_gen.translation_objectives import RegressionObjective
from allpet_gen.translator import SLOTS, SinogramTranslator
from allpet_physics._arrays import as_positive_float

#: Place of the task among the tokens, and the tokens of tasks whose source and target differ by noise alone.
_TASK = list(CONDITIONS["task"]).index("task")
_ALIKE = tuple(VOCABULARY["task"].index(name) + 1 for name, task in TASKS.items() if task.dose)
_TOLD_CHANNELS = 8


class ToldDiscriminator(nn.Module):
    """Judges patches of sinograms for what is said of them, so that one serves all tasks, tracers and doses.

    Tokens and numbers become some channels that are the same everywhere, beside the sinogram's own.

    Parameters
    ----------
    channels : int
        Sinograms side by side.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.embeddings = nn.ModuleDict({name: nn.Embedding(len(VOCABULARY[kind]) + 1, _TOLD_CHANNELS)
                                         for name, kind in CONDITIONS["task"].items()})
        self.numbers = nn.Linear(len(self.embeddings), _TOLD_CHANNELS)
        self.patches = PatchDiscriminator(channels + _TOLD_CHANNELS)

    def forward(self, x: torch.Tensor, tokens: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """Return a judgement per patch of sinograms (batch, channels, angle, bin), near 1 for what looks real."""
        said = sum(e(tokens[:, i]) for i, e in enumerate(self.embeddings.values())) + self.numbers(numbers)
        return self.patches(torch.cat([x, said[..., None, None].expand(-1, -1, *x.shape[-2:])], dim=1))


class CycleGANObjective(RegressionObjective):
    r"""Loss of two networks, G from sources to targets and H back, and of their two discriminators D and D′.

    With z of the sources x and of the targets y, which are *not* those of the sources,

    .. math::
        L = \langle (D(Gx) - 1)^2\rangle + \langle (D'(Hy) - 1)^2\rangle
            + w_c\,\langle|HGx - x| + |GHy - y|\rangle + w_i\,\langle|Gy - y|\rangle + w_p\,\langle|Gx - y_x|\rangle,
        \tag{CG1}

    least squares (Mao et al. 2017, arXiv 1611.04076), and the discriminators lose :math:`\tfrac12\langle(D - 1)^2
    \rangle` on data and :math:`\tfrac12\langle D^2\rangle` on what is made, from networks as they are now: no store of
    older ones is kept, which a resumed training would have to keep too.

    Nothing in it pairs a source with its own target, unless the weight w_p says so. The targets of a batch, with what
    is said of them, are moved among the samples of their task besides, so that none stands where its source does.
    The attention map, which is made from a source, is for Gx alone.

    G is as a U-Net asked once: ``predict`` adds its output to the start, eq. (X2), whose slopes and offsets match mean
    and deviation without pairs. H starts from a target by their inverse, or from the sum of two, which in counts is
    what their mixture expects, and is given noise where G is given the source, for targets do not say
    which noise their source had. The identity term is for tasks where source and target differ by noise alone, low
    doses: a scan that has none should be left as it is.

    Parameters
    ----------
    network : SinogramTranslator
        G. H is one like it.
    settings : mapping
        Of `Translation`.
    weights : mapping
        ``cycle``, ``identity`` and ``paired``: w_c, w_i and w_p.

    Raises
    ------
    InputError
        A weight that is negative or not finite.
    """

    def __init__(self, network: SinogramTranslator, settings, weights: Mapping):
        super().__init__(network, settings)
        self.weights = {name: as_positive_float(f"cyclegan.{name}", weights[name], allow_zero=True)
                        for name in ("cycle", "identity", "paired")}
        self.back = SinogramTranslator(**{name: value for name, value in network.config.items() if name[0] != "_"})
        self.of_targets, self.of_sources = ToldDiscriminator(SLOTS), ToldDiscriminator(1)

    @property
    def parts(self) -> dict[str, list]:
        """Parameters by part, each with an optimiser of its own."""
        return {name: [p for module in modules for p in module.parameters()] for name, modules in (
            ("model", (self.network, self.back)), ("discriminator", (self.of_targets, self.of_sources)))}

    def forward(self, batch: dict, generator: torch.Generator, part: str = "model"):
        """Return the loss of a part and its terms by name; "clean", the error of Gx, is looked at but not trained."""
        device = batch["source"].device

        def uniform(*shape):
            return torch.rand(*shape, generator=generator, device=generator.device).to(device)

        x, start, own = self.encoded(batch)
        told, order = self.told(batch, uniform), without_pairs(batch["tokens"][:, _TASK], uniform)
        noise = torch.randn(2, *x.shape, generator=generator, device=generator.device).to(device)
        y, used, used_y = own[order], batch["used"], batch["used"][order]
        said = {name: told[name] for name in ("tokens", "numbers")}
        said_y = {name: value[order] for name, value in said.items()}
        true = batch["tokens"], batch["numbers"]
        true_y = tuple(value[order] for value in true)
        with torch.set_grad_enabled(part == "model" and torch.is_grad_enabled()):
            made = self.network.masked(self.predict(x, start, **told), used)
            given = self.predict_back(y, used_y, noise[0], **said_y)
        if part == "discriminator":
            loss = sum(((judge(self._flat(real), *of_real) - 1).square().mean()
                        + judge(self._flat(fake), *of_fake).square().mean()) / 2 for judge, real, of_real, fake, of_fake
                       in ((self.of_targets, y, true_y, made, true), (self.of_sources, x, true, given, true_y)))
            return loss, {"discriminator": loss.detach()}
        again = self.predict(given, self.network.start(given, used_y, *true_y), **said_y)
        terms = {"adversarial": (self.of_targets(self._flat(made), *true) - 1).square().mean()
                 + (self.of_sources(self._flat(given), *true_y) - 1).square().mean(),
                 "cycle": (self.predict_back(made, used, noise[1], **said) - x).abs().mean()
                 + self._distance(again, y, used_y)}
        alike = torch.isin(true_y[0][:, _TASK], torch.tensor(_ALIKE, device=device))
        if self.weights["identity"] > 0 and alike.any():
            kept = self._as_source(y[alike], used_y[alike])
            same = self.predict(kept, self.network.start(kept, used_y[alike], *(value[alike] for value in true_y)),
                                **{name: value[alike] for name, value in said_y.items()})
            terms["identity"] = self._distance(same, y[alike], used_y[alike]) * alike.float().mean()
        if self.weights["paired"] > 0:
            terms["paired"] = self._distance(made, own, used)
        loss = sum(({"adversarial": 1.0} | self.weights)[name] * value for name, value in terms.items())
        return loss, {name: value.detach() for name, value in terms.items()} | {
            "clean": self.error(made.detach(), own, used).mean()}

    def predict_back(self, y: torch.Tensor, used: torch.Tensor, noise: torch.Tensor, **told) -> torch.Tensor:
        """Return z of the sources: the sum of the targets and what H adds to it; `noise` has the shape of a source."""
        t = torch.zeros((), device=y.device)
        added = self.back(y, t, noise, **told).float()
        slope, offset = self.network.slope_and_offset(told["tokens"], told["numbers"])
        alone = used.sum(1)[:, None, None, None] == 1  # the sum of two is a mixture as it is
        start = self._as_source(y, used)
        return torch.where(alone, (start - offset) / slope, start) + added[:, :noise.shape[1]]

    def _as_source(self, y: torch.Tensor, used: torch.Tensor) -> torch.Tensor:
        """Return z of the sum of the targets: a lone target's own, as its scale takes the place of the source's."""
        config = self.network.config
        roots = (self._flat(y) * config.deviation + config.center + 1) * used[..., None, None]
        # Counts add up, so roots add up in squares; unlike a square root, the norm has a gradient where all are 0.
        x = torch.linalg.vector_norm(roots, dim=1, keepdim=True) - 1
        return functional.pixel_unshuffle((x - config.center) / config.deviation, config.patch)

    def _distance(self, found: torch.Tensor, wanted: torch.Tensor, used: torch.Tensor) -> torch.Tensor:
        """Return the mean of the absolute error over the slots that are used."""
        apart = self.network.masked((found - wanted).abs(), used).mean(dim=(1, 2, 3))
        return (apart * used.shape[1] / used.sum(1)).mean()

    def _flat(self, z: torch.Tensor) -> torch.Tensor:
        return functional.pixel_shuffle(z, self.network.config.patch)


def without_pairs(tasks: torch.Tensor, uniform) -> torch.Tensor:
    """Return for each sample the number of another one of its task, each once; its own where it is alone.

    Parameters
    ----------
    tasks : tensor of int, shape (n,)
    uniform : callable
        Gives numbers in [0, 1) of a shape, such as ``torch.rand``.
    """
    order = torch.arange(len(tasks), device=tasks.device)
    for task in tasks.unique():
        rows = (tasks == task).nonzero().flatten()
        mixed = rows[uniform(len(rows)).argsort()]
        order[mixed] = mixed.roll(1)  # one ring through all of them: nobody keeps its own
    return order
