"""Pipelines that a user calls: from words to count sinograms and their images."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils.torch_utils import randn_tensor

from allpet_gen._drawing_checks import (
    as_region,
    asked_of_generator,
    in_range,
    on_geometry,
    prompt_weights,
)
from allpet_gen._pretrained import PretrainedPipeline
from allpet_gen.autoencoder import SinogramAutoencoder
from allpet_gen.denoiser import SinogramDenoiser
from allpet_gen.generated import GeneratedSinograms, finished
from allpet_gen.guidance_step import as_guides, guidance_step
from allpet_gen.prompt_guidance import GUIDANCE, GUIDANCE_START
from allpet_gen.prompts import NULL, VOCABULARY
from allpet_gen.samplers import make_sampler, predicted_clean, velocity_of
from allpet_physics._arrays import as_positive_float
from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry

__all__ = ["SinogramGenerationPipeline"]


class SinogramGenerationPipeline(PretrainedPipeline, DiffusionPipeline):
    """Draws count sinograms for a prompt.

    Parameters
    ----------
    autoencoder : SinogramAutoencoder
    denoiser : SinogramDenoiser
    scheduler : SinogramDDIMScheduler
        Holds the noise schedule of the training.

    Examples
    --------
    >>> pipe = SinogramGenerationPipeline.from_pretrained("small")
    >>> out = pipe("brain with 18F-FDG", count=8, seed=0)
    >>> out.sinograms.shape, out.geometry.n_angles
    ((8, 128, 128), 128)
    """

    def __init__(self, autoencoder: SinogramAutoencoder, denoiser: SinogramDenoiser, scheduler):
        super().__init__()
        self.register_modules(autoencoder=autoencoder, denoiser=denoiser, scheduler=scheduler)

    @property
    def geometry(self) -> ParallelGeometry:
        """The geometry that the networks work on."""
        return self.autoencoder.geometry

    @torch.no_grad()
    def __call__(self, prompt, *, count: int = 1, seed: int = 0, steps: int = 50,
                 guidance: float | Mapping[str, float] = GUIDANCE, guidance_start: float = GUIDANCE_START,
                 rescale: float = 0.7, sampler: str = "ddim", eta: float = 0.0,
                 geometry: ParallelGeometry | None = None, noise: bool = True, reconstruct: str | None = "osem",
                 guides=(), roi=None, gate_strength: float = 0.25, batch: int = 16,
                 progress: Callable[[Iterable], Iterable] | None = None) -> GeneratedSinograms:
        """Draw sinograms; the same arguments give the same bits on the same machine.

        Parameters
        ----------
        prompt : str, Prompt, or sequence of them
            Such as "brain with 18F-FDG"; a tracer or a region alone leaves the other to the model.
        count : int
            Sinograms of each prompt.
        seed : int
            Sinogram i has the seed ``seed + i``: it can be drawn again alone.
        steps : int
            Of the sampler, 1 to 1000.
        guidance : float or mapping of str to float
            Weight of the prompt, classifier-free guidance: 1 samples what was learned, more exaggerates it, 0 ignores
            the prompt. As ``{"region": 3, "tracer": 7}`` its words have weights of their own, see `velocity`.
        guidance_start : float
            From 0 to 1: the part of the steps before weights above 1 count. What is decided first is the body's
            outline, of which strong guidance makes a caricature (Kynkäänniemi et al. 2024, arXiv 2404.07724). A single
            step is the first one, so it is not guided unless this is 0.
        rescale : float
            From 0 to 1: how far a prediction that `guidance` exaggerated is shrunk back to the deviation of the one
            with the prompt (its words that have a weight), sample by sample, φ of Lin et al. 2023 (arXiv 2305.08891,
            eqs. 15 and 16). Without it, strong guidance makes counts that no scan has.
        sampler : {"ddim", "ddpm"}
        eta : float
            Of DDIM, 0 (deterministic after the first noise) to 1 (as DDPM).
        geometry : ParallelGeometry, optional
            Resample the expected counts to any number of angles and bins, spacing and arc, before counts are drawn;
            totals are kept.
        noise : bool
            Whether to draw Poisson counts, or return their expectation.
        reconstruct : {"osem", "fbp", None}
            How to make the images, if any.
        guides : Guidance or sequence of them
            Of `allpet_gen.guidance`: at each step the predicted clean latent is moved as they ask. Guides with
            counts of their own for each sinogram need all sinograms in one `batch`.
        roi : array_like of bool, shape (row, col), optional
            A region in the model's image whose features the gate strengthens.
        gate_strength : float
            λ of the gate, used with `roi` only. It acts behind every block, so its effect grows fast: 0.25 brightens a
            region by half, 1 trebles it, more breaks the picture.
        batch : int
            Sinograms made together: lower it where memory is short. Another batch rounds differently, so that expected
            counts agree to float32 and a few drawn counts may not.
        progress : callable, optional
            Wraps the iteration over steps, such as ``tqdm``.

        Raises
        ------
        InputError
            Unknown words, a task that starts from a sinogram, numbers out of range, a region without a pixel.
        GeometryError
            A geometry that cannot hold what was drawn; said as soon as the first batch is there.
        """
        guides, asked = as_guides(guides), asked_of_generator(prompt, count, seed, batch, reconstruct, geometry,
                                                              self.geometry)
        weights, eta, rescale = prompt_weights(guidance), in_range("eta", eta, 1), in_range("rescale", rescale, 1)
        guided_below = self.scheduler.config.num_train_timesteps * (1 - in_range("guidance_start", guidance_start, 1))
        gate_strength = as_positive_float("gate_strength", gate_strength, allow_zero=True)
        if eta and sampler == "ddpm":
            raise InputError(f'eta belongs to sampler "ddim", but was {eta:g} with "ddpm", which has no such choice; '
                             "leave it out.")
        prompts, seeds, batch, geometry = asked
        gate = self._gate(roi, gate_strength)
        scheduler = make_sampler(sampler, self.scheduler, steps, self.device)
        options = {"eta": eta} if sampler == "ddim" else {}
        expected = np.empty((len(prompts), *geometry.sinogram_shape), np.float32)
        rounds = [(start, t) for start in range(0, len(prompts), batch) for t in scheduler.timesteps]
        for start, t in rounds if progress is None else progress(rounds):
            part = slice(start, start + batch)
            if t == scheduler.timesteps[0]:
                tokens = torch.tensor([p.tokens() for p in prompts[part]], device=self.device)
                draws = [torch.Generator(device=self.device).manual_seed(s) for s in seeds[part]]
                z = randn_tensor((len(tokens), *self.autoencoder.latent_shape), generator=draws, device=self.device,
                                 dtype=torch.float32)
            at_once = weights if t < guided_below else tuple(min(w, 1.0) for w in weights)
            velocity = self._velocity(z, t, tokens, at_once, rescale, **gate)
            if guides:
                velocity = self._guided(scheduler, guides, velocity, t, z)
            z = scheduler.step(velocity, t, z, generator=draws, **options).prev_sample
            if t == scheduler.timesteps[-1]:
                drawn = self.autoencoder.counts(z).cpu().numpy()
                expected[part] = on_geometry(drawn, seeds[part], self.geometry, geometry)
        return finished(expected, asked, self.geometry, noise, reconstruct)

    def _gate(self, roi, strength: float) -> dict:
        if roi is None:
            return {}
        from allpet_physics import project_roi

        attention = project_roi(as_region(roi, self.geometry), self.geometry)
        return {"attention": torch.from_numpy(attention)[None, None].to(self.device), "gate_strength": strength}

    def velocity(self, z: torch.Tensor, t: torch.Tensor, tokens: torch.Tensor, *,
                 guidance: float | Mapping[str, float] = 1.0, rescale: float = 0.0, **gate) -> torch.Tensor:
        r"""Return what the denoiser predicts of noisy latents for tokens of prompts, steered at this time; float32.

        With weights w of the tracer and of the other words, "region", the predictions v of the whole prompt, of it
        without its tracer and of nothing said are composed as Brooks et al. 2023 compose image and text (arXiv
        2211.09800, eq. 3):

        .. math:: v = v_\varnothing + w_\text{region} (v_\text{region} - v_\varnothing)
                  + w_\text{tracer} (v_\text{region, tracer} - v_\text{region}), \tag{P1}

        which for one weight is classifier-free guidance.

        Parameters
        ----------
        z : tensor, shape (batch, channels, height, width)
        t : tensor, shape () or (batch,)
        tokens : tensor of int, shape (batch, 3)
            Of `Prompt.tokens`.
        guidance, rescale
            Of a call.
        **gate
            Of `SinogramDenoiser.forward`: ``attention`` and ``gate_strength``.

        Returns
        -------
        tensor of float32, shape (batch, channels, height, width)

        Raises
        ------
        InputError
            Weights of other words or out of range.
        """
        return self._velocity(z, t, tokens, prompt_weights(guidance), rescale, **gate)

    def _velocity(self, z, t, tokens, weights: tuple[float, float], rescale: float, **gate):
        region, tracer = weights
        without = tokens.clone()
        without[:, list(VOCABULARY).index("tracer")] = NULL
        strong, heard = max(weights) > 1 and rescale > 0, tokens if tracer else without
        parts = [(factor, words) for factor, words in ((1 - region, torch.full_like(tokens, NULL)),
                                                       (region - tracer, without), (tracer, tokens))
                 if factor or (strong and words is heard)]
        many = torch.cat([z] * len(parts)).to(self.denoiser.dtype)
        found = self.denoiser(many, t, torch.cat([words for _, words in parts]), **gate).float().chunk(len(parts))
        pushed = sum(factor * velocity for (factor, _), velocity in zip(parts, found, strict=True))
        if not strong:
            return pushed
        shrink = found[-1].std(dim=(1, 2, 3), keepdim=True) / pushed.std(dim=(1, 2, 3), keepdim=True)
        return pushed * (1 + rescale * (shrink - 1))

    def _guided(self, scheduler, guides, velocity, t, z):
        """Return the velocity that means the clean latent which the guides ask for."""
        clean = predicted_clean(scheduler, velocity, t, z)
        return velocity_of(scheduler, clean + guidance_step(guides, clean, self.autoencoder.counts), t, z)
