r"""Translations that need no pairs: the generator as a prior, the law of counting as all that is known of the task.

At time t of the schedule the generator predicts a clean latent :math:`\hat z_0`. Latents are standardised, so the clean
one scatters around it with a variance of about :math:`v_t = 1 - \bar\alpha_t`. Where the source follows from the
target, :math:`\bar y = H(D(z))` (`Task.means_of_source`: the expected counts over the dose factor, the sum of both
tracers), measured counts y in N bins move the prediction to where

.. math:: J(z) = s\,N\,h(r(\bar y)) + \frac{\|z - \hat z_0\|^2}{2 v_t} \tag{UT1}

is smaller, with h(r) of eq. (GU1) and the deviance r² of `PoissonGuidance`: :math:`N h(r)` is minus the logarithm of
the likelihood up to a constant where r ≤ 1, at noise's own deviance, and rises more gently beyond. A few steps go along
conjugate directions d (Polak & Ribière 1969; the first is :math:`-\nabla J`), as far as is best where the Fisher
information, 4 for every :math:`\sqrt{\bar y}` whatever the mean, is the curvature of the likelihood:

.. math:: z \leftarrow z - \frac{d \cdot \nabla J}
       {\|d\|^2/v_t + 4 s \|\partial_d \sqrt{\bar y}\|^2/\max(1, r)}\,d. \tag{UT2}

So no step length depends on the decoder or the dose. This is the data step of DiffPIR (Zhu et al. 2023, arXiv
2305.08995, algorithm 1) for Poisson counts: a heuristic for the posterior under the prior that the generator has
learned, not a sampler of it.
"""

from collections.abc import Callable, Iterable
from types import MappingProxyType

import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor

from allpet_gen._drawing_checks import MOST_GUIDANCE, in_range
from allpet_gen.autoencoder import SinogramAutoencoder
from allpet_gen.guidance import PoissonGuidance
from allpet_gen.pipelines import SinogramGenerationPipeline
from allpet_gen.prompts import Prompt
from allpet_gen.samplers import make_sampler, predicted_clean, velocity_of
from allpet_gen.tasks import find_task
from allpet_gen.translated import SampleStatistics, TranslatedSinograms, sample_seed
from allpet_gen.translation_inputs import TranslationInputs, read_inputs
from allpet_gen.translation_pipelines import refuse_settings
from allpet_physics._arrays import as_positive_float, as_positive_int
from allpet_physics.errors import InputError

#: From which share of the schedule sampling starts, where the caller does not say.
START = MappingProxyType({"low-dose": 1.0, "tracer-separation": 0.5, "tracer-conversion": 0.5, "delayed-frame": 0.2})
#: Directional derivatives are differences over this much of a latent's deviation.
_SMALL = 1e-2
#: Keeps what has come to rest from being divided by zero.
_TINY = 1e-30


@torch.no_grad()
def translate_unsupervised(pipe: SinogramGenerationPipeline, sinograms, *, task: str, tracer: str | None = None,
                           region: str | None = None, other: str | None = None, dose_factor: float | None = None,
                           geometry=None, resample: bool = True, steps: int = 50, strength: float | None = None,
                           likelihood_steps: int = 2, start: float | None = None, guidance: float = 1.0,
                           rescale: float = 0.7, eta: float = 1.0, n_samples: int = 1, seed: int = 0,
                           first_slice: int = 0, noise: bool = False, batch: int = 16, keep_samples: bool = True,
                           reconstruct: str | None = None,
                           progress: Callable[[Iterable], Iterable] | None = None) -> TranslatedSinograms:
    """Translate a slice or a stack of slices by a generator alone; the same arguments give the same bits.

    **low-dose** draws a sinogram of the prompt whose expected counts, over the dose factor, explain the counts that
    were measured. **tracer-separation** draws two together, each of its own prompt, whose sum explains them; what both
    prompts allow alike is shared out by the start, half and half, and by chance: nothing else tells it apart.

    **tracer-conversion** and **delayed-frame** have no law that ties the source to the target. The source's latent is
    noised to a share of the schedule and denoised with the target's prompt (SDEdit, Meng et al. 2022, arXiv
    2108.01073): what the noise leaves, size and rough shape, is kept, and the rest is drawn anew. A conversion so has
    no uptake that is this patient's: lesions are lost or made up. The generator learned from first frames and has no
    word for a later one, so a delayed frame is the source drawn again, with neither decay nor redistribution.

    **attenuation-correction** is refused: the generator never saw counts without attenuation.

    Parameters
    ----------
    pipe : SinogramGenerationPipeline
    sinograms : array_like, shape (angle, bin) or (n, angle, bin)
        Measured counts: whole numbers of any real type, neither corrected nor scaled.
    task : {"low-dose", "tracer-separation", "tracer-conversion", "delayed-frame"}
    tracer, region : str, optional
        Of the source; what is not said is left to the generator.
    other : str, optional
        The second tracer: mixed in (``tracer-separation``, where it comes second) or wanted (``tracer-conversion``).
    dose_factor : float, optional
        For ``low-dose``, by how much the dose was lowered: 100 for a hundredth.
    geometry, resample
        As for `SinogramBridgePipeline`.
    steps : int
        Of the whole schedule, 1 to 1000; the share `start` of them is taken.
    strength : float, optional
        s ≥ 0 of eq. (UT1), the weight of the measured counts for the tasks whose source follows from the target: 1 (the
        default there) trusts them as Poisson counts, 0 ignores them.
    likelihood_steps : int
        Steps (UT2) at each time.
    start : float, optional
        Share of the schedule to start from: 1 is noise alone, less the source's latent under so much noise: brought to
        full dose for low-dose, half of the mixture for each tracer. By default as in `START`.
    guidance, rescale : float
        Weight of the whole prompt at all steps, from 0 to 100; 1 is what was learned. As for
        `SinogramGenerationPipeline`, more is shrunk back by `rescale`.
    eta : float
        Of DDIM: 0 (deterministic after the first noise) to 1 (as DDPM, which forgets errors of early steps).
    n_samples : int
        Draws of each slice; the estimate is their mean, in counts.
    seed, first_slice : int
        Sample s of slice i has a random generator of its own by (seed, first_slice + i, s), whatever the batch: slice 7
        alone with ``first_slice=7`` gives what it gives within its stack.
    noise : bool
        Whether to draw Poisson counts around the estimate.
    batch : int
        Draws made together: lower it where memory is short. Another batch changes rounding only.
    keep_samples : bool
        Whether to return all samples, or their mean and spread alone.
    reconstruct : {"osem", "fbp", None}
        How to make images of the result, if any.
    progress : callable, optional
        Wraps the iteration over steps, such as ``tqdm``.

    Returns
    -------
    TranslatedSinograms

    Raises
    ------
    InputError
        Sinograms that are no counts, an unknown task or one without an unsupervised way, unknown words, numbers out of
        range, a strength for a task without a law of its source.
    GeometryError
        Shapes that do not fit, another geometry that must not be resampled, or whose bins would be cut off.
    """
    if not isinstance(pipe, SinogramGenerationPipeline):
        raise InputError(f"pipe must be a SinogramGenerationPipeline, but was {type(pipe).__name__}.")
    inputs = read_inputs(_AsTranslator(pipe.autoencoder), sinograms, task=task, tracer=tracer, region=region,
                         other=other, dose_factor=dose_factor, geometry=geometry, resample=resample)
    refuse_settings(reconstruct)
    n_samples, size, inner = (as_positive_int(name, value) for name, value in (
        ("n_samples", n_samples), ("batch", batch), ("likelihood_steps", likelihood_steps)))
    seed, first_slice = (as_positive_int(name, value, minimum=0) for name, value in
                         (("seed", seed), ("first_slice", first_slice)))
    weight = _strength(strength, inputs)
    share = as_positive_float("start", in_range("start", START[task] if start is None else start, 1))
    rescale, eta = in_range("rescale", rescale, 1), in_range("eta", eta, 1)
    guidance = in_range("guidance", guidance, MOST_GUIDANCE)
    scheduler = make_sampler("ddim", pipe.scheduler, steps, pipe.device)
    times = scheduler.timesteps[-max(1, round(share * steps)):]
    if task == "delayed-frame":
        inputs.notes.append("the generator knows first frames alone: nothing of the time that passed is in the result")
    found = SampleStatistics(inputs, pipe.geometry, n_samples, keep_samples)
    total = len(inputs.counts) * n_samples
    rounds = [(first, t) for first in range(0, total, size) for t in times]
    for first, t in rounds if progress is None else progress(rounds):
        if t == times[0]:
            items = range(first, min(first + size, total))
            draws = [torch.Generator(device=pipe.device).manual_seed(
                sample_seed(seed, first_slice + item // n_samples, item % n_samples)) for item in items]
            part = _Draws(pipe.autoencoder, inputs, [item // n_samples for item in items])
            tokens = torch.tensor(_tokens(inputs, tracer, region, other) * len(items), device=pipe.device)
            z = part.begin(scheduler.alphas_cumprod[t], draws)
        velocity = pipe.velocity(part.apart(z), t, tokens, guidance=guidance, rescale=rescale).view_as(z)
        if weight:
            clean = predicted_clean(scheduler, velocity, t, z)
            for_counts = part.towards_counts(clean, float(1 - scheduler.alphas_cumprod[t]), weight, inner)
            velocity = velocity_of(scheduler, for_counts, t, z)
        z = scheduler.step(velocity, t, z, eta=eta, generator=draws).prev_sample
        if t == times[-1]:
            found.add(items, part.counts(z).cpu().numpy())
    return found.finish(noise=noise, seed=seed, first_slice=first_slice, reconstruct=reconstruct)


class _Draws:
    """Some items that are drawn together; the latents of an item's targets stand side by side as channels of z."""

    def __init__(self, autoencoder: SinogramAutoencoder, inputs: TranslationInputs, slices: list[int]):
        self.autoencoder, self.inputs = autoencoder, inputs
        self.source = inputs.counts[slices]

    def apart(self, z: torch.Tensor) -> torch.Tensor:
        """Return the latents of z one after the other."""
        return z.reshape(-1, *self.autoencoder.latent_shape)

    def counts(self, z: torch.Tensor) -> torch.Tensor:
        """Return expected counts of all targets, shape (batch, target, angle, bin)."""
        return self.autoencoder.counts(self.apart(z)).unflatten(0, (len(z), -1))

    def implied(self, z: torch.Tensor) -> torch.Tensor:
        """Return ȳ of eq. (UT1), shape (batch, angle, bin)."""
        return self.inputs.task.means_of_source(self.counts(z), self.inputs.dose_factor)

    def begin(self, alpha: torch.Tensor, draws: list[torch.Generator]) -> torch.Tensor:
        """Return noise, over the source's latent where the time's ᾱ leaves something of it."""
        channels, *size = self.autoencoder.latent_shape
        n_targets, device = self.inputs.task.n_targets, self.autoencoder.device
        noise = randn_tensor((len(self.source), n_targets * channels, *size), generator=draws, device=device,
                             dtype=torch.float32)
        if alpha == 0:
            return noise
        latent = encode_counts(self.autoencoder, self.source * np.float32(self.inputs.dose_factor / n_targets))
        return (alpha.sqrt() * latent.repeat(1, n_targets, 1, 1) + (1 - alpha).sqrt() * noise).float()

    def towards_counts(self, clean: torch.Tensor, variance: float, weight: float, n_steps: int) -> torch.Tensor:
        """Return the predicted clean latents after some steps of eq. (UT2)."""
        guide = PoissonGuidance(self.source, weight * self.source[0].size)
        z, d, before = clean, None, None

        def total(values):
            return values.sum((1, 2, 3), keepdim=True)

        for _ in range(n_steps):
            steepest = guide(z, self.implied) - (z - clean) / variance
            if d is None:
                d = steepest
            else:
                turn = total(steepest * (steepest - before)) / total(before.square()).clamp(min=_TINY)
                d = steepest + turn.clamp(min=0) * d
            before = steepest
            small = _SMALL / d.square().mean((1, 2, 3), keepdim=True).clamp(min=_TINY).sqrt()
            here, there = self.implied(z), self.implied(z + small * d)
            softer = guide.squared_residual(here).clamp(min=1).sqrt()[:, None, None, None]
            information = 4 * weight * total(((there.sqrt() - here.sqrt())[:, None] / small).square()) / softer
            curvature = total(d.square()) / variance + information
            z = z + total(steepest * d) / curvature.clamp(min=_TINY) * d
        return z


def encode_counts(autoencoder: SinogramAutoencoder, counts: np.ndarray) -> torch.Tensor:
    """Return the standardised latents of counts (n, angle, bin), as composites of one block in the middle."""
    q = autoencoder.encode(autoencoder.network_input(counts, autoencoder.middle_blocks(len(counts))))
    return autoencoder.standardise(q.mean.float())


class _AsTranslator:
    """What `read_inputs` asks of a network, from a generator's autoencoder."""

    def __init__(self, autoencoder: SinogramAutoencoder):
        self.geometry, self.scaling = autoencoder.geometry, autoencoder.scaling

    def target_scale(self, task) -> float:
        """Refuse what a generator cannot do."""
        if not find_task(task).attenuated:
            raise InputError(f"task must be one of {', '.join(START)}, but was {task}: a generator that never saw "
                             "counts without attenuation has no unsupervised way to them; use SinogramBridgePipeline.")
        return self.scaling.scale


def _tokens(inputs: TranslationInputs, tracer, region, other) -> list[tuple[int, ...]]:
    """Return the tokens of the prompt of each target."""
    if not inputs.task.other:
        return [Prompt(tracer, region).tokens()]
    wanted = [tracer, other] if inputs.task.n_targets == 2 else [other]
    return [Prompt(name, region).tokens() for name in wanted]


def _strength(strength, inputs: TranslationInputs) -> float:
    lawful = inputs.task.dose or inputs.task.n_targets == 2
    value = as_positive_float("strength", float(lawful) if strength is None else strength, allow_zero=True)
    if value and not lawful:
        raise InputError(f"strength must be 0 for {inputs.task.name}, whose source does not follow from its target, "
                         f"but was {value:g}; it belongs to low-dose and tracer-separation.")
    return value
