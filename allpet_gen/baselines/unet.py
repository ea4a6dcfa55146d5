"""The U-Net: one pass from a source to the mean of its target, without samples and so without a spread."""

from collections.abc import Callable, Iterable

import torch

from allpet_gen.translated import SampleStatistics, TranslatedSinograms
from allpet_gen.translation_inputs import read_inputs
from allpet_gen.translation_pipelines import TranslationPipeline, refuse_settings
from allpet_gen.translator import SinogramTranslator
from allpet_physics._arrays import as_positive_int
from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry


class UNetPipeline(TranslationPipeline):
    """Translates count sinograms by a network that was trained to give the mean of the target's roots (eq. XO2).

    Parameters
    ----------
    network : SinogramTranslator

    Examples
    --------
    >>> unet = UNetPipeline.from_pretrained("trained/unet")
    >>> out = unet(low, task="low-dose", dose_factor=100)
    """

    def __init__(self, network: SinogramTranslator):
        super().__init__()
        self.register_modules(network=network)

    @torch.no_grad()
    def __call__(self, sinograms, *, task: str, tracer: str | None = None, region: str | None = None,
                 other: str | None = None, dose_factor: float | None = None,
                 geometry: ParallelGeometry | None = None, resample: bool = True, roi=None, attention=None,
                 gate_strength: float = 0.0, seed: int = 0, first_slice: int = 0, steps: int = 1,
                 sampler: str | None = None, eta: float | None = None, n_samples: int = 1,
                 n_views: int | None = None, likelihood_strength: float = 0.0, noise: bool = False, batch: int = 16,
                 keep_samples: bool = True, reconstruct: str | None = None,
                 progress: Callable[[Iterable], Iterable] | None = None) -> TranslatedSinograms:
        """Translate a slice or a stack of slices; the arguments and errors are those of `SinogramBridgePipeline`.

        One call serves bridge and baseline: `steps`, `sampler`, `eta` and `keep_samples` are accepted and have no
        meaning here, and the seed is that of Poisson noise alone. With `n_views` the network is asked once in each of
        so many views, 1 by default, and the mean of what it says is returned.

        Returns
        -------
        TranslatedSinograms
            Without samples and spread.

        Raises
        ------
        InputError
            As of the bridge; more than one sample, or guidance, which a network that is asked once cannot give.
        GeometryError
            As of the bridge.
        """
        inputs = read_inputs(self.network, sinograms, task=task, tracer=tracer, region=region, other=other,
                             dose_factor=dose_factor, geometry=geometry, resample=resample, roi=roi,
                             attention=attention, gate_strength=gate_strength)
        refuse_settings(reconstruct)
        for name, value, plain in (("n_samples", n_samples, 1), ("likelihood_strength", likelihood_strength, 0)):
            if value != plain:
                raise InputError(f"{name} must be {plain} for a U-Net, which is asked once, but was {value!r}; take a "
                                 "bridge.")
        size = as_positive_int("batch", batch)
        seed, first_slice = (as_positive_int(name, value, minimum=0) for name, value in
                             (("seed", seed), ("first_slice", first_slice)))
        n_views = 1 if n_views is None else as_positive_int("n_views", n_views)
        found = SampleStatistics(inputs, self.geometry, n_views, keep=False, spread=False)
        total = len(inputs.counts) * n_views
        rounds = range(0, total, size)
        for start in rounds if progress is None else progress(rounds):
            items = range(start, min(start + size, total))
            views = [item % n_views for item in items]
            part = self._tensors(inputs, [item // n_views for item in items], views)
            z = part.start + self._asked(part.start, torch.zeros((), device=self.device), part)
            found.add(items, self._counts(z, part, views))
        return found.finish(noise=noise, seed=seed, first_slice=first_slice, reconstruct=reconstruct)
