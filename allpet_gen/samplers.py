r"""Samplers by name, through diffusers' schedulers, with the formulas that hold for any number of steps."""

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor

from allpet_physics._arrays import as_positive_float, as_positive_int
from allpet_physics.errors import InputError

# A saved pipeline names this module for its scheduler, and diffusers looks for the scheduler's base class in it.
__all__ = ["SAMPLERS", "SchedulerMixin", "SinogramDDIMScheduler", "make_sampler", "predicted_clean",
           "predicted_noise", "trailing_times", "velocity_of"]


class SinogramDDIMScheduler(DDIMScheduler):
    r"""DDIM (Song et al. 2021, arXiv 2010.02502) from each time to the very next one of the steps taken.

    .. math::
        \hat z_0 = \sqrt{\bar\alpha_t}\,z_t - \sqrt{1 - \bar\alpha_t}\,\hat v, \qquad
        \hat\epsilon = \sqrt{\bar\alpha_t}\,\hat v + \sqrt{1 - \bar\alpha_t}\,z_t \tag{D1}

    .. math::
        z_{t'} = \sqrt{\bar\alpha_{t'}}\,\hat z_0 + \sqrt{1 - \bar\alpha_{t'} - \sigma^2}\,\hat\epsilon + \sigma\,\xi,
        \qquad \sigma = \eta\sqrt{\frac{1 - \bar\alpha_{t'}}{1 - \bar\alpha_t}}
        \sqrt{1 - \frac{\bar\alpha_t}{\bar\alpha_{t'}}} \tag{D2}

    with t' the next of the times, ᾱ = 1 after the last. η = 0 is deterministic, η = 1 is DDPM (the posterior variance
    (1 − ᾱ_t')/(1 − ᾱ_t)·β). diffusers' own step takes t' = t − ⌊T/n⌋, which is not the next time where n does not
    divide T, as the paper's 72 does not divide 1000.
    """

    def step(self, model_output, timestep, sample, eta: float = 0.0, generator=None, return_dict: bool = True, **_):
        """Return the sample at the next time (D2) and the clean one predicted now (D1).

        Raises
        ------
        InputError
            An `eta` outside [0, 1]: beyond 1 the noise that is left, 1 − ᾱ_t' − σ², may be negative.
        """
        if as_positive_float("eta", eta, allow_zero=True) > 1:
            raise InputError(f"eta must be a number from 0 to 1, but was {eta!r}.")
        after = self.timesteps[self.timesteps < timestep]
        now = self.alphas_cumprod[timestep].double()
        then = self.alphas_cumprod[after[0]].double() if len(after) else torch.ones_like(now)
        clean = predicted_clean(self, model_output, timestep, sample)
        noise = predicted_noise(self, model_output, timestep, sample)
        sigma = eta * ((1 - then) / (1 - now) * (1 - now / then)).clamp(min=0).sqrt()
        previous = then.sqrt() * clean + (1 - then - sigma**2).clamp(min=0).sqrt() * noise
        if sigma > 0:
            previous = previous + sigma * randn_tensor(sample.shape, generator=generator, device=sample.device,
                                                       dtype=torch.float32)
        previous = previous.to(sample.dtype)
        return DDIMSchedulerOutput(previous, clean.to(sample.dtype)) if return_dict else (previous,)


SAMPLERS = {"ddim": SinogramDDIMScheduler, "ddpm": DDPMScheduler}


def predicted_clean(scheduler, velocity, timestep, sample) -> torch.Tensor:
    """Return the clean latent that a predicted velocity means (D1)."""
    a = scheduler.alphas_cumprod[timestep].double()
    return a.sqrt() * sample - (1 - a).sqrt() * velocity


def predicted_noise(scheduler, velocity, timestep, sample) -> torch.Tensor:
    """Return the noise that a predicted velocity means (D1)."""
    a = scheduler.alphas_cumprod[timestep].double()
    return a.sqrt() * velocity + (1 - a).sqrt() * sample


def velocity_of(scheduler, clean, timestep, sample) -> torch.Tensor:
    """Return the velocity that means a given clean latent, for times with noise; solves (D1) for v."""
    a = scheduler.alphas_cumprod[timestep].double()
    return ((a.sqrt() * sample - clean) / (1 - a).sqrt()).to(sample.dtype)


def trailing_times(steps: int, n_times: int) -> torch.Tensor:
    r"""Return the times of n steps, from the last one down: round(T·(n − i)/n) − 1 for i = 0 … n − 1.

    These are the trailing times of Lin et al. 2024 (arXiv 2305.08891, table 2), which begin where there is nothing but
    noise. diffusers finds them by adding up the float T/n, which for some n (61 or 103 of 1000) gives one more, −1.
    """
    return torch.from_numpy(np.round(n_times * np.arange(steps, 0, -1) / steps).astype(np.int64) - 1)


def make_sampler(name: str, scheduler, steps: int, device="cpu"):
    """Return a sampler with the noise schedule of another and its times set to `trailing_times`.

    Parameters
    ----------
    name : {"ddim", "ddpm"}
    scheduler : SchedulerMixin
        Its configuration holds the noise schedule.
    steps : int
        From 1 to the number of times that the network was trained with.
    device : torch.device or str
        Where the times lie.

    Raises
    ------
    InputError
        An unknown name, a number of steps out of range.
    """
    if name not in SAMPLERS:
        raise InputError(f"sampler must be one of {', '.join(SAMPLERS)}, but was {name!r}.")
    most = scheduler.config.num_train_timesteps
    if as_positive_int("steps", steps) > most:
        raise InputError(f"steps must be an integer from 1 to {most}, but was {steps}.")
    sampler = SAMPLERS[name].from_config(scheduler.config)
    sampler.set_timesteps(int(steps), device=device)
    sampler.timesteps = trailing_times(int(steps), most).to(device)
    return sampler
