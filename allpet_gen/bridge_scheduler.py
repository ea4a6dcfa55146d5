r"""Diffusion bridges from a source latent to a clean one, as a diffusers scheduler.

A network sees z_t, the source z_T and the time, and predicts the preconditioned F; all samplers are driven alike::

    scheduler.set_timesteps(10, device)
    z = source
    for t in scheduler.timesteps:
        out = model(scheduler.scale_model_input(z, t), scheduler.noise_condition(t), ...)   # sees the source too
        z = scheduler.step(out, t, z, source, generator=g).prev_sample

References: DDBM, Zhou et al. 2024, arXiv 2309.16948; DBIM, Zheng et al. 2025, arXiv 2405.15885.
"""

from itertools import pairwise

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor

from allpet_gen.bridge_schedule import SPACINGS, BridgeSchedule, check_statistics, single_precision, step_times
from allpet_physics._arrays import as_positive_float, as_positive_int
from allpet_physics.errors import InputError

# A saved pipeline names this module for its scheduler, and diffusers looks for the scheduler's base class in it.
__all__ = ["BRIDGE_SAMPLERS", "MOST_STEPS", "BridgeScheduler", "SchedulerMixin"]

BRIDGE_SAMPLERS = ("dbim1", "dbim2", "heun")
#: More could not be told apart in single precision near T.
MOST_STEPS = 1000


class BridgeScheduler(SchedulerMixin, ConfigMixin):
    r"""Training targets and samplers of a denoising diffusion bridge z_T → z_0; see `BridgeSchedule` for its moments.

    The network's output F, its input and what it is told of the time are

    .. math:: \hat z_0 = D = c_\text{skip} z_t + c_\text{out} F(c_\text{in} z_t,\ c_\text{noise},\ z_T),
              \qquad c_\text{noise} = \tfrac14 m \ln t, \tag{B8}

    with eq. (B7) and m = `noise_scale`, which spreads the times over the range of a sinusoidal embedding.
    A weight 1/c_out² of the loss ‖D − z_0‖² is no weight for ‖F − F*‖², F* from `model_target`.

    **dbim1, dbim2** take one evaluation a step, from t_0 = T exactly to 0. From s to t, with λ = ln(b/c),

    .. math::
        z_t = a_t z_T + k\,(z_s - a_s z_T) + (b_t - k\,b_s)\,\bar D + \rho\,\epsilon, \quad
        k = \sqrt{c_t^2 - \rho^2}/c_s, \quad \rho = \eta\,\sigma_t\sqrt{1 - \mathrm{SNR}_s/\mathrm{SNR}_t}, \tag{B9}

    η = 0 deterministic, η = 1 ancestral. The first step has ρ = c_t whatever η: its noise, the booting noise, is where
    the diversity of samples comes from. Order 1 takes :math:`\bar D = D_s`. Order 2 takes the line through D_s and
    the one before, D_u, at its mean over the step,

    .. math:: \bar D = D_s + \frac{D_s - D_u}{\lambda_s - \lambda_u}\,\frac{h - 1 + e^{-h}}{1 - e^{-h}},
              \qquad h = \lambda_t - \lambda_s, \tag{B10}

    which for η = 0 is DBIM's second-order solver. Its first two steps and the last, to t = 0 (h = ∞), are of order 1.

    **heun** is DDBM's hybrid: each of n steps goes back a share `churn` of its length by the reverse SDE
    (Euler–Maruyama), then the rest along the probability flow (Heun), eq. (B6). That is three evaluations: three
    entries of `timesteps` and three calls of `step`, the last of which, at the time that the second one reached,
    corrects it. At the last time, t_min·T, one more evaluation returns D. So there are 3n + 1 times, and 2n + 1 without
    churn. The flow cannot start at T, where its score is singular: it starts from z_T at T(1 − epsilon). Without churn
    nothing is random, and all samples of a source are the same one.

    Parameters
    ----------
    schedule : {"vp", "ve"}
    T, beta_d, beta_min : float
        Of `BridgeSchedule`; T is rounded to single precision, in which times travel.
    sigma_0, sigma_T, covariance : float
        Root mean squares of clean and source latents and the mean of their product: `latent_statistics`.
    sampler : {"dbim2", "dbim1", "heun"}
    eta : float
        Of dbim, 0 to 1.
    churn : float
        Of heun, from 0 to below 1.
    spacing : {"cosine", "karras"}
        Times of the steps: :math:`T\cos^2(\pi i/2n)`, finer towards both ends, where the solution is smooth in
        √(T − t) and, for VP, √t; or those of Karras et al. 2022 (arXiv 2206.00364, eq. 5) with `rho`, as in DDBM.
    rho : float
        Of "karras", 1 (uniform) or more.
    t_min, epsilon : float
        Shortest time and, for heun, distance from T, both as shares of T.
    noise_scale : float
        m of eq. (B8).

    Raises
    ------
    InputError
        Names that are unknown, numbers out of range, statistics of no two variables or of perfectly correlated ones.
    """

    order = 1

    @register_to_config
    def __init__(self, schedule: str = "vp", T: float = 1.0, beta_d: float = 2.0, beta_min: float = 0.1,
                 sigma_0: float = 1.0, sigma_T: float = 1.0, covariance: float = 0.0, sampler: str = "dbim2",
                 eta: float = 0.0, churn: float = 0.33, spacing: str = "cosine", rho: float = 7.0,
                 t_min: float = 1e-4, epsilon: float = 1e-4, noise_scale: float = 1000.0):
        for name, value, known in (("sampler", sampler, BRIDGE_SAMPLERS), ("spacing", spacing, SPACINGS)):
            if value not in known:
                raise InputError(f"{name} must be one of {', '.join(known)}, but was {value!r}.")
        if as_positive_float("eta", eta, allow_zero=True) > 1:
            raise InputError(f"eta must be a number from 0 (deterministic) to 1 (ancestral), but was {eta!r}.")
        if as_positive_float("churn", churn, allow_zero=True) >= 1:
            raise InputError(f"churn must be a number from 0 to below 1, but was {churn!r}.")
        if as_positive_float("rho", rho) < 1:
            raise InputError(f"rho must be a number of at least 1, but was {rho!r}.")
        for name, value in (("t_min", t_min), ("epsilon", epsilon)):
            if not 1e-6 <= as_positive_float(name, value) <= 0.1:
                raise InputError(f"{name} must be a share of T from 1e-6 to 0.1, but was {value!r}.")
        as_positive_float("noise_scale", noise_scale)
        self._statistics = check_statistics(sigma_0, sigma_T, covariance)
        # Times travel in single precision: T must be one of them, or z_T would not be pinned at it.
        end = single_precision(torch.tensor(as_positive_float("T", T))).item()
        self.bridge = BridgeSchedule(schedule, end, beta_d, beta_min)
        self.timesteps, self.num_inference_steps = None, None
        self._plan, self._index, self._held = [], 0, None

    def bridge_sample(self, z0: torch.Tensor, zT: torch.Tensor, noise: torch.Tensor, t) -> torch.Tensor:
        """Return z_t = a·z_T + b·z_0 + c·noise of eq. (B1), for times () or (batch,) from 0 to T.

        Raises
        ------
        InputError
            Tensors of different shapes, times out of range or not one for each sample.
        """
        _same_shapes(z0=z0, zT=zT, noise=noise)
        a, b, c = (_spread(x, z0) for x in self.bridge.moments(self._times(t)))
        return a * zT + b * z0 + c * noise

    def scale_model_input(self, sample: torch.Tensor, t) -> torch.Tensor:
        """Return c_in·z_t of eq. (B7), for times () or (batch,)."""
        return _spread(self._precondition(t).c_in, sample) * sample

    def noise_condition(self, t) -> torch.Tensor:
        """Return c_noise of eq. (B8), float32, of the shape and on the device of the times."""
        device = t.device if isinstance(t, torch.Tensor) else None
        return (self.config.noise_scale / 4 * self._times(t, open_at_0=True).log()).to(torch.float32).to(device)

    def loss_weight(self, t) -> torch.Tensor:
        """Return 1/c_out², float64: with it the loss ‖D − z_0‖² is the plain ‖F − F*‖²."""
        return self._precondition(t, open_at_0=True).c_out ** -2

    def predicted_clean(self, model_output: torch.Tensor, t, sample: torch.Tensor) -> torch.Tensor:
        """Return D of eq. (B8) from the network's F at z_t."""
        _same_shapes(model_output=model_output, sample=sample)
        skip, out, _ = (_spread(x, sample) for x in self._precondition(t))
        return skip * sample + out * model_output

    def model_target(self, clean: torch.Tensor, t, sample: torch.Tensor) -> torch.Tensor:
        """Return F* that means a given clean latent at z_t; solves eq. (B8) for F."""
        _same_shapes(clean=clean, sample=sample)
        skip, out, _ = (_spread(x, sample) for x in self._precondition(t, open_at_0=True))
        return (clean - skip * sample) / out

    def set_timesteps(self, num_inference_steps: int, device=None) -> None:
        """Plan n steps; `timesteps` (float32, on the device) then holds one time for each evaluation of the network.

        Raises
        ------
        InputError
            A number of steps that is not an integer from 1 to 1000.
        """
        n = as_positive_int("num_inference_steps", num_inference_steps)
        if n > MOST_STEPS:
            raise InputError(f"num_inference_steps must be an integer from 1 to {MOST_STEPS}, but was {n}.")
        heun, churn = self.config.sampler == "heun", self.config.churn
        nodes = step_times(n, self.bridge.T, 1 - self.config.epsilon if heun else 1.0, self.config.t_min,
                           self.config.spacing, self.config.rho, to_zero=not heun)
        self._plan = []
        for s, t in pairwise(nodes):
            middle = single_precision(s + churn * (t - s))
            churned = [("churn", s, middle)] if churn else []
            self._plan += [*churned, ("flow", middle, t), ("correct", t, t)] if heun else [("dbim", s, t)]
        if heun:
            self._plan.append(("dbim", nodes[-1], torch.zeros_like(nodes[-1])))  # at t = 0 eq. (B9) is D
        self.timesteps = torch.stack([now for _, now, _ in self._plan]).to(torch.float32).to(device)
        self.num_inference_steps, self._index, self._held = n, 0, None

    def step(self, model_output: torch.Tensor, t, sample: torch.Tensor, source: torch.Tensor, generator=None,
             return_dict: bool = True):
        """Take the sample to the next of the times.

        Parameters
        ----------
        model_output, sample, source : torch.Tensor, shape (batch, ...)
            F at z_t, z_t and z_T; half precision is computed in single.
        t : tensor or float
            The times in their order; the first one starts anew, as for a next batch.
        generator : torch.Generator or list of them, optional
            A list has one for each sample, which then does not depend on its neighbours.

        Returns
        -------
        DDIMSchedulerOutput
            ``prev_sample``, and D as ``pred_original_sample``; or a tuple with the first alone.

        Raises
        ------
        InputError
            Tensors of different shapes, `set_timesteps` not called, a time out of turn.
        """
        _same_shapes(model_output=model_output, sample=sample, source=source)
        stage, now, then = self._turn(t)
        z, source, output = (x if x.dtype == torch.float64 else x.float() for x in (sample, source, model_output))
        clean = self.predicted_clean(output, now, z)
        previous = getattr(self, f"_{stage}")(z, clean, source, now, then, generator).to(sample.dtype)
        self._index += 1
        if self._index == len(self._plan):
            self._index, self._held = 0, None
        return DDIMSchedulerOutput(previous, clean.to(sample.dtype)) if return_dict else (previous,)

    def _dbim(self, z, clean, source, s, t, generator):
        """Step by eqs. (B9) and (B10)."""
        (a, b, c), (a_s, b_s, c_s) = self.bridge.moments(t), self.bridge.moments(s)
        drift = clean
        if self.config.sampler == "dbim2" and t > 0 and c_s > 0:
            lam = self.bridge.log_ratio(s)
            if self._held is not None:
                before, h = self._held, self.bridge.log_ratio(t) - lam
                share = (h + torch.expm1(-h)) / -torch.expm1(-h)
                drift = clean + share / (lam - before[1]) * (clean - before[0])
            self._held = clean, lam
        rho = c if c_s == 0 else self.config.eta * self.bridge.ancestral_noise(s, t)
        keep = torch.zeros_like(c) if c_s == 0 else (c**2 - rho**2).clamp(min=0).sqrt() / c_s
        moved = a * source + keep * (z - a_s * source) + (b - keep * b_s) * drift
        return moved + rho * _noise(z, generator) if rho > 0 else moved

    def _churn(self, z, clean, source, s, t, generator):
        """Step by Euler–Maruyama of the reverse SDE, eq. (B6)."""
        moved = z + (t - s) * self.bridge.reverse_slope(z, clean, source, s, stochastic=True)
        return moved + ((s - t) * self.bridge.diffusion(s)).sqrt() * _noise(z, generator)

    def _flow(self, z, clean, source, s, t, generator):
        """Step by Euler of the probability flow, eq. (B6), to be corrected."""
        slope = self.bridge.reverse_slope(z, clean, source, s, stochastic=False)
        self._held = z, slope, t - s
        return z + (t - s) * slope

    def _correct(self, z, clean, source, s, t, generator):
        """Repeat the last flow step with the mean of the slopes at both its ends, Heun's method."""
        start, slope, length = self._held
        return start + length * (slope + self.bridge.reverse_slope(z, clean, source, s, stochastic=False)) / 2

    def _turn(self, t) -> tuple[str, torch.Tensor, torch.Tensor]:
        if not self._plan:
            raise InputError("step must come after set_timesteps, but no times were set; call set_timesteps(steps).")
        t = self._times(t)
        if self._index and t.equal(self._plan[0][1]):
            self._index, self._held = 0, None
        if not t.equal(self._plan[self._index][1]):
            raise InputError(f"t must be entry {self._index} of timesteps, {self._plan[self._index][1]:g}, but was "
                             f"{t.tolist()}; take the times in their order, or begin anew with the first.")
        return self._plan[self._index]

    def _precondition(self, t, open_at_0: bool = False):
        return self.bridge.preconditioning(self._times(t, open_at_0), *self._statistics)

    def _times(self, t, open_at_0: bool = False) -> torch.Tensor:
        """Return times as float64 on the CPU: few numbers, and some accelerators have no double precision."""
        try:
            times = torch.as_tensor(t, dtype=None if isinstance(t, torch.Tensor) else torch.float64).detach().cpu()
            times, was = times.to(torch.float64), ""
        except (TypeError, ValueError, RuntimeError):
            times, was = torch.tensor(torch.nan), repr(t)
        wrong = ~((times > 0 if open_at_0 else times >= 0) & (times <= self.bridge.T))
        if times.ndim > 1 or wrong.any():
            was = was or (f"of shape {tuple(times.shape)}" if times.ndim > 1 else f"{times[wrong].flatten()[0]:g}")
            raise InputError(f"t must be one number, or one for each sample, from {'above 0' if open_at_0 else '0'} to "
                             f"{self.bridge.T:g}, but was {was}.")
        return times


def _noise(z, generator) -> torch.Tensor:
    if isinstance(generator, (list, tuple)) and len(generator) != len(z):
        raise InputError(f"generator must be one, or a list of {len(z)}, one for each sample, but the list had "
                         f"{len(generator)}.")
    return randn_tensor(z.shape, generator=generator, device=z.device, dtype=torch.float32).to(z.dtype)


def _spread(coefficient: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Return a number as it is, or one for each sample in the sample's type and along its first axis."""
    if coefficient.ndim == 0:
        return coefficient
    if len(coefficient) != len(z):
        raise InputError(f"t must be one number or {len(z)}, one for each sample, but were {len(coefficient)}.")
    return coefficient.to(z.dtype).to(z.device).reshape(-1, *[1] * (z.ndim - 1))


def _same_shapes(**tensors: torch.Tensor) -> None:
    """Raise InputError unless all tensors have the shape of the first."""
    (first, reference), *others = tensors.items()
    for name, tensor in others:
        if tensor.shape != reference.shape:
            raise InputError(f"{name} must have the shape of {first}, {tuple(reference.shape)}, but its shape was "
                             f"{tuple(tensor.shape)}.")
