"""How the baselines of the generator draw: prompts, seeds, counts and images as of the generator itself."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from diffusers import DiffusionPipeline

from allpet_gen._drawing_checks import asked_of_generator, on_geometry
from allpet_gen._pretrained import PretrainedPipeline
from allpet_gen.generated import GeneratedSinograms, finished
from allpet_physics._arrays import as_positive_int
from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry


class BaselinePipeline(PretrainedPipeline, DiffusionPipeline):
    """What the baselines share; each has a ``network`` with a geometry, and draws by ``_rounds(tokens, draws, steps)``.

    That yields `steps` times, once where there is no sampler, and at last expected counts (batch, angle, bin); each
    sinogram has a generator of its own in `draws`.

    Attributes
    ----------
    kind : str
        What errors call it.
    default_steps, least_steps, most_steps : int or None
        Of its sampler, where it has one.
    """

    kind, default_steps, least_steps, most_steps = "a baseline", None, None, None

    @property
    def geometry(self) -> ParallelGeometry:
        """The geometry that the network works on."""
        return self.network.geometry

    @torch.no_grad()
    def __call__(self, prompt, *, count: int = 1, seed: int = 0, steps: int | None = None,
                 geometry: ParallelGeometry | None = None, noise: bool = True, reconstruct: str | None = "osem",
                 batch: int = 16, progress: Callable[[Iterable], Iterable] | None = None,
                 **options) -> GeneratedSinograms:
        """Draw sinograms; the same arguments give the same bits on the same machine.

        Noise is drawn on the processor, so that a seed has the same noise on a GPU.

        Parameters
        ----------
        prompt, count, seed, geometry, noise, reconstruct, batch, progress
            As of `SinogramGenerationPipeline`.
        steps : int, optional
            Of the sampler, where there is one.
        **options
            Others of `SinogramGenerationPipeline`, which no baseline has: refused.

        Raises
        ------
        InputError
            As of `SinogramGenerationPipeline`; an option that this baseline does not have.
        GeometryError
            As of `SinogramGenerationPipeline`.
        """
        self.refuse_options(*options, *(["steps"] if steps is not None and self.default_steps is None else []))
        asked = asked_of_generator(prompt, count, seed, batch, reconstruct, geometry, self.geometry)
        n_rounds = 1
        if self.default_steps is not None:
            n_rounds = self.checked_steps(self.default_steps if steps is None else steps)
        expected = np.empty((len(asked.prompts), *asked.geometry.sinogram_shape), np.float32)
        rounds = [(start, k) for start in range(0, len(asked.prompts), asked.batch) for k in range(n_rounds)]
        for start, k in rounds if progress is None else progress(rounds):
            part = slice(start, start + asked.batch)
            if k == 0:
                tokens = torch.tensor([p.tokens() for p in asked.prompts[part]], device=self.device)
                draws = [torch.Generator().manual_seed(s) for s in asked.seeds[part]]
                found = self._rounds(tokens, draws, n_rounds)
            drawn = next(found)
            if k + 1 == n_rounds:
                expected[part] = on_geometry(drawn.float().cpu().numpy(), asked.seeds[part], self.geometry,
                                             asked.geometry)
        return finished(expected, asked, self.geometry, noise, reconstruct)

    @classmethod
    def checked_steps(cls, steps) -> int:
        """Return a number of steps; raise `InputError` for one that the sampler cannot make."""
        if not cls.least_steps <= as_positive_int("steps", steps) <= cls.most_steps:
            raise InputError(f"steps must be an integer from {cls.least_steps} to {cls.most_steps}, but was {steps}.")
        return int(steps)

    @classmethod
    def refuse_options(cls, *names: str) -> None:
        """Raise `InputError` for options of the generator that this baseline does not have, if there are any."""
        if names:
            raise InputError(f"{names[0]} must be left out for {cls.kind}, which has no such choice, but was given; "
                             "take a model of the generator for it.")


def normal(draws: list[torch.Generator], device, *shape: int) -> torch.Tensor:
    """Return numbers of N(0, 1), shape (batch, *shape), each sinogram's from its own generator."""
    return torch.stack([torch.randn(shape, generator=g) for g in draws]).to(device)
