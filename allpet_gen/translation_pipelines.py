"""The pipelines of translations: what bridges and baselines share, and the bridge itself."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from diffusers import DiffusionPipeline

from allpet_gen._drawing_checks import RECONSTRUCTIONS
from allpet_gen._pretrained import PretrainedPipeline
from allpet_gen.bridge_scheduler import MOST_STEPS, BridgeScheduler
from allpet_gen.data import apply_view, undo_view, view_numbers
from allpet_gen.translated import SampleStatistics, TranslatedSinograms, sample_seed
from allpet_gen.translation_inputs import TranslationInputs, read_inputs
from allpet_gen.translator import SinogramTranslator, refuse_unknown_tasks, slots_used
from allpet_physics._arrays import as_positive_float, as_positive_int
from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry

__all__ = ["SinogramBridgePipeline", "TranslatedSinograms", "TranslationBatch", "TranslationPipeline"]


class TranslationBatch(NamedTuple):
    """Some items as tensors: counts (batch, angle, bin), what a network sees, and what its output is decoded with."""

    counts: torch.Tensor
    source: torch.Tensor
    start: torch.Tensor
    used: torch.Tensor
    scales: torch.Tensor
    told: dict


class TranslationPipeline(PretrainedPipeline, DiffusionPipeline):
    """What the pipelines of translations share; they have a `SinogramTranslator` as ``network``."""

    @property
    def geometry(self) -> ParallelGeometry:
        """The geometry that the network works on."""
        return self.network.geometry

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that the network was trained for, in the order of `allpet_gen.tasks`."""
        return refuse_unknown_tasks(self.network.tasks)

    def _tensors(self, inputs: TranslationInputs, slices: list[int], views: list[int]) -> TranslationBatch:
        """Return the slices of some items, each in a view, for one call of the network."""
        n, network = len(slices), self.network
        seen = [network.view(number) for number in views]

        def viewed(arrays):
            return torch.from_numpy(np.stack([apply_view(arrays[i], *view, self.geometry) for i, view in
                                              zip(slices, seen, strict=True)])).to(self.device)

        counts = viewed(inputs.counts)
        used = torch.tensor([slots_used(inputs.task.name)] * n, device=self.device)
        source = network.encode_source(counts, inputs.dose_factor)
        told = {"tokens": torch.tensor([inputs.tokens] * n, device=self.device),
                "numbers": torch.tensor([[*view_numbers(*view, self.geometry), inputs.number] for view in seen],
                                        device=self.device)}
        if inputs.attention is not None:
            told |= {"attention": viewed(inputs.attention)[:, None], "gate_strength": inputs.gate_strength}
        scales = torch.full((n,), network.target_scale(inputs.task.name), device=self.device)
        start = network.start(source, used, told["tokens"], told["numbers"])
        return TranslationBatch(counts, source, start, used, scales, told)

    def _counts(self, z: torch.Tensor, batch: TranslationBatch, views: list[int]) -> np.ndarray:
        """Return the expected counts of z, upright again, shape (batch, SLOTS, angle, bin)."""
        counts = self.network.decode(z, batch.scales).cpu().numpy()
        return np.stack([undo_view(c, *self.network.view(number), self.geometry)
                         for c, number in zip(counts, views, strict=True)])

    def _asked(self, z: torch.Tensor, t: torch.Tensor, batch: TranslationBatch) -> torch.Tensor:
        """Return the network's output in single precision, whatever it computes in."""
        return self.network(z.to(self.network.dtype), t, batch.source, **batch.told).float()


class SinogramBridgePipeline(TranslationPipeline):
    """Translates count sinograms by a diffusion bridge: samples of the posterior of the target's expected counts.

    Parameters
    ----------
    network : SinogramTranslator
    scheduler : BridgeScheduler

    Examples
    --------
    >>> bridge = SinogramBridgePipeline.from_pretrained("small")
    >>> out = bridge(low, task="low-dose", dose_factor=100, n_samples=20)
    >>> out.sinograms.shape, out.spread.shape
    ((1, 128, 128), (1, 128, 128))
    """

    def __init__(self, network: SinogramTranslator, scheduler):
        super().__init__()
        self.register_modules(network=network, scheduler=scheduler)

    @torch.no_grad()
    def __call__(self, sinograms, *, task: str, tracer: str | None = None, region: str | None = None,
                 other: str | None = None, dose_factor: float | None = None,
                 geometry: ParallelGeometry | None = None, resample: bool = True, roi=None, attention=None,
                 gate_strength: float = 0.0, seed: int = 0, first_slice: int = 0, steps: int = 10,
                 sampler: str | None = None, eta: float | None = None, n_samples: int = 1,
                 n_views: int | None = None, likelihood_strength: float = 0.0, noise: bool = False, batch: int = 16,
                 keep_samples: bool = True, reconstruct: str | None = None,
                 progress: Callable[[Iterable], Iterable] | None = None) -> TranslatedSinograms:
        r"""Translate a slice or a stack of slices; the same arguments give the same bits on the same machine.

        The estimate joins the mean of the samples with what the network says at once (eq. TE1); the spread is the
        deviation of the samples. Both are taken in counts: the mean of roots, in which the network works, would be too
        low. Every sample sees the source in a view of its own, turned and mirrored as in training and turned back
        afterwards, which moves no count out of its bin: what the network does wrong in one view, it does not in all.

        Parameters
        ----------
        sinograms : array_like, shape (angle, bin) or (n, angle, bin)
            Measured counts: whole numbers of any real type, neither corrected nor scaled.
        task : str
            One of `tasks`.
        tracer, region : str, optional
            Of the source; what is not said is left to the network.
        other : str, optional
            The second tracer: mixed in (``tracer-separation``, where it comes second) or wanted
            (``tracer-conversion``).
        dose_factor : float, optional
            For ``low-dose``, by how much the dose was lowered: 100 for a hundredth.
        geometry : ParallelGeometry, optional
            Of the sinograms, and of what is returned; the model's by default.
        resample : bool
            Whether counts of another geometry are resampled to the model's, and the estimate back; a warning then says
            that they are no longer Poisson counts. Else another geometry is refused.
        roi : array_like of bool or "auto", shape (row, col) or (n, row, col), optional
            Regions whose features the gate strengthens, on the image grid of `geometry`, or of the model. "auto": the
            hot regions of a fast image of the input, `source_attention`.
        attention : array_like, shape (angle, bin) or (n, angle, bin), optional
            A ready map in [0, 1] instead of `roi`, on the angles and bins of `geometry`, or of the model.
        gate_strength : float
            λ of the gate; 0 leaves the network alone. Networks were trained with the λ of their settings, 0.25.
        seed : int
            Sample s of slice i has a random generator of its own by (seed, first_slice + i, s), whatever the batch.
        first_slice : int
            Number of the first slice: slice 7 alone with ``first_slice=7`` gives what it gives within its stack.
        steps : int
            Of the bridge, 1 to 1000.
        sampler : {"dbim2", "dbim1", "heun"}, optional
        eta : float, optional
            Of dbim, 0 to 1; both are the model's by default, see `BridgeScheduler`.
        n_samples : int
            Samples of each slice; two or more have a spread.
        n_views : int, optional
            Views that the samples go round in: 1 leaves all upright; as many as samples by default.
        likelihood_strength : float
            From 0 (off) to 1, for the tasks whose source follows from the target, low-dose and tracer-separation:
            at each step the predicted clean latent is moved towards the measured counts y, by the gradient of the
            deviance of `PoissonGuidance` with the counts :math:`\bar y` that the latent implies. A lossless latent has
            one number for each bin, and the information of its bin on it is :math:`\kappa = c_k d^2/f` whatever the
            mean (d of eq. (X1), f the dose factor); the deviance is a mean over N bins. So the strength ζ of eq. (GU1)
            is `likelihood_strength` · N/κ: a step of Fisher scoring, which at 1 takes each bin all the way to its own
            measured count (beyond it where next to nothing is expected), at 0.1 a tenth of the way; less where the
            deviance is above that of noise. The network has seen these counts already, so this counts them twice: it
            mends an estimate that does not agree with them, and brings back their noise. What prevails depends on the
            dose (docs/translation.md): at a quarter 0.05 to 0.2 bring bins nearer to the truth, at a hundredth none
            does. It does not sample the posterior: spreads become too small.
        noise : bool
            Whether to draw Poisson counts around the estimate.
        batch : int
            Items made together: lower it where memory is short. Another batch changes rounding only.
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
            Sinograms that are no counts, a task that the model was not trained for, unknown words, numbers out of
            range, a region without a map, guidance for a task without a law of its source.
        GeometryError
            Shapes that do not fit, another geometry that must not be resampled, or whose bins would be cut off.
        """
        inputs = read_inputs(self.network, sinograms, task=task, tracer=tracer, region=region, other=other,
                             dose_factor=dose_factor, geometry=geometry, resample=resample, roi=roi,
                             attention=attention, gate_strength=gate_strength)
        refuse_settings(reconstruct)
        n_samples, size = as_positive_int("n_samples", n_samples), as_positive_int("batch", batch)
        seed, first_slice = (as_positive_int(name, value, minimum=0) for name, value in
                             (("seed", seed), ("first_slice", first_slice)))
        n_views = n_samples if n_views is None else as_positive_int("n_views", n_views)
        strength = _likelihood(likelihood_strength, inputs)
        scheduler = self._scheduler(steps, sampler, eta)
        found = SampleStatistics(inputs, self.geometry, n_samples, keep_samples)
        total = len(inputs.counts) * n_samples
        rounds = [(start, k) for start in range(0, total, size) for k in range(len(scheduler.timesteps))]
        for start, k in rounds if progress is None else progress(rounds):
            t = scheduler.timesteps[k]
            if k == 0:
                items = range(start, min(start + size, total))
                views = [item % n_samples % n_views for item in items]
                part = self._tensors(inputs, [item // n_samples for item in items], views)
                draws = [torch.Generator(device=self.device).manual_seed(
                    sample_seed(seed, first_slice + item // n_samples, item % n_samples)) for item in items]
                guide, z = self._guide(inputs, part, strength), part.start
            output = self._asked(scheduler.scale_model_input(z, t), scheduler.noise_condition(t), part)
            if guide is not None:
                clean = scheduler.predicted_clean(output, t, z)
                output = scheduler.model_target(clean + guide(clean), t, z)
            if k == 0:
                predicted = self._counts(scheduler.predicted_clean(output, t, z), part, views)
            z = self.network.masked(scheduler.step(output, t, z, part.start, generator=draws).prev_sample, part.used)
            if k + 1 == len(scheduler.timesteps):
                found.add(items, self._counts(z, part, views), predicted)
        return found.finish(noise=noise, seed=seed, first_slice=first_slice, reconstruct=reconstruct)

    def _scheduler(self, steps, sampler, eta) -> BridgeScheduler:
        """Return a sampler of this call alone."""
        if as_positive_int("steps", steps) > MOST_STEPS:
            raise InputError(f"steps must be an integer from 1 to {MOST_STEPS}, but was {steps}.")
        changes = {name: value for name, value in (("sampler", sampler), ("eta", eta)) if value is not None}
        scheduler = BridgeScheduler.from_config(self.scheduler.config, **changes)
        if eta and scheduler.config.sampler == "heun":
            raise InputError(f'eta must be left out with sampler "heun", which has no such choice, but was {eta:g}.')
        scheduler.set_timesteps(int(steps), device=self.device)
        return scheduler

    def _guide(self, inputs: TranslationInputs, batch: TranslationBatch, strength: float) -> Callable | None:
        """Return what takes a clean latent to its step towards the measured counts."""
        if strength == 0:
            return None
        from allpet_gen.guidance import PoissonGuidance

        network, task = self.network, inputs.task

        def implied(z):
            return task.means_of_source(network.decode(z, batch.scales)[:, :task.n_targets], inputs.dose_factor)

        information = network.target_scale(task.name) * network.config.deviation**2 / inputs.dose_factor
        guide = PoissonGuidance(batch.counts, strength * np.prod(batch.counts.shape[1:]) / information)
        return lambda clean: guide(clean, implied)


def refuse_settings(reconstruct) -> None:
    """Raise `InputError` for an unknown reconstruction."""
    if reconstruct not in RECONSTRUCTIONS:
        raise InputError(f'reconstruct must be "osem", "fbp" or None, but was {reconstruct!r}.')


def _likelihood(strength, inputs: TranslationInputs) -> float:
    value = as_positive_float("likelihood_strength", strength, allow_zero=True)
    if value > 1:
        raise InputError(f"likelihood_strength must be from 0 to 1, but was {value:g}.")
    if value and not (inputs.task.dose or inputs.task.n_targets == 2):
        raise InputError(f"likelihood_strength must be 0 for {inputs.task.name}, whose source does not follow from its "
                         f"target, but was {value:g}; it belongs to low-dose and tracer-separation.")
    return value
