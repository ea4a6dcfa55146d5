r"""The process between two given ends: moments, score and pull of a diffusion bridge, and its preconditioning.

With SNR_t = α_t²/σ_t², w_t = 1 − SNR_T/SNR_t and both ends given,

.. math::
    q(z_t \mid z_0, z_T) = N(a_t z_T + b_t z_0,\ c_t^2 I), \qquad
    a_t = \frac{\alpha_t}{\alpha_T}(1 - w_t), \quad b_t = \alpha_t w_t, \quad c_t^2 = \sigma_t^2 w_t. \tag{B1}

At t = T these are exactly (1, 0, 0), at t = 0 exactly (0, 1, 0): the ends are pinned. Reference: Zhou et al. 2024,
Denoising diffusion bridge models (DDBM), arXiv 2309.16948, section 3 and appendix on preconditioning.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch

from allpet_physics._arrays import as_positive_float
from allpet_physics.errors import InputError

KINDS = ("vp", "ve")
SPACINGS = ("cosine", "karras")


class Moments(NamedTuple):
    """Of eq. (B1): z_t = a·z_T + b·z_0 + c·noise."""

    a: torch.Tensor
    b: torch.Tensor
    c: torch.Tensor


class Preconditioning(NamedTuple):
    """Of eq. (B7); D = skip·z_t + out·F(in·z_t)."""

    c_skip: torch.Tensor
    c_out: torch.Tensor
    c_in: torch.Tensor


@dataclass(frozen=True)
class BridgeSchedule:
    r"""Noise over time of the diffusion that is bent into a bridge, dz = f_t z dt + g_t dw.

    .. math::
        \text{VP:}\quad \alpha_t = e^{-B_t/2},\ \sigma_t^2 = 1 - e^{-B_t},\ f_t = -\tfrac12\beta_t,\ g_t^2 = \beta_t,
        \quad \beta_t = \beta_\min + \beta_d t,\ B_t = \beta_\min t + \tfrac12\beta_d t^2 \tag{B2}

    .. math:: \text{VE:}\quad \alpha_t = 1,\ \sigma_t = t,\ f_t = 0,\ g_t^2 = 2t \tag{B3}

    Times are float64 tensors in [0, T] of any shape; they are trusted.

    Parameters
    ----------
    kind : {"vp", "ve"}
        Variance preserving or variance exploding.
    T : float
        Time of the source. For VE also the noise that the unconditioned diffusion would have there.
    beta_d, beta_min : float
        Of VP.

    Raises
    ------
    InputError
        An unknown kind, numbers that are not positive.
    """

    kind: str = "vp"
    T: float = 1.0
    beta_d: float = 2.0
    beta_min: float = 0.1

    def __post_init__(self):
        if self.kind not in KINDS:
            raise InputError(f"schedule must be one of {', '.join(KINDS)}, but was {self.kind!r}.")
        for name in ("T", "beta_d", "beta_min"):
            as_positive_float(name, getattr(self, name))

    def alpha(self, t: torch.Tensor) -> torch.Tensor:
        """Return α_t of eqs. (B2), (B3)."""
        return torch.exp(-self._rise(t) / 2) if self.kind == "vp" else torch.ones_like(t)

    def variance(self, t: torch.Tensor) -> torch.Tensor:
        """Return σ_t² of eqs. (B2), (B3)."""
        return -torch.expm1(-self._rise(t)) if self.kind == "vp" else t**2

    def drift(self, t: torch.Tensor) -> torch.Tensor:
        """Return f_t of eqs. (B2), (B3)."""
        return -(self.beta_min + self.beta_d * t) / 2 if self.kind == "vp" else torch.zeros_like(t)

    def diffusion(self, t: torch.Tensor) -> torch.Tensor:
        """Return g_t² of eqs. (B2), (B3)."""
        return self.beta_min + self.beta_d * t if self.kind == "vp" else 2 * t

    def snr_loss(self, later, t: torch.Tensor) -> torch.Tensor:
        """Return 1 − SNR_later/SNR_t for t ≤ later; no digits are lost where the two are near."""
        later = torch.as_tensor(later, dtype=torch.float64)
        if self.kind == "ve":
            return (later - t) * (later + t) / later**2
        between = (later - t) * (self.beta_min + self.beta_d * (later + t) / 2)
        return torch.exp(self._rise(t)) * torch.expm1(between) / torch.expm1(self._rise(later))

    def snr_ratio(self, t: torch.Tensor) -> torch.Tensor:
        """Return SNR_T/SNR_t, all of whose digits are right where it is small, too."""
        if self.kind == "ve":
            return (t / self.T) ** 2
        return torch.expm1(self._rise(t)) / math.expm1(self._rise(self.T))

    def moments(self, t: torch.Tensor) -> Moments:
        """Return (a_t, b_t, c_t) of eq. (B1)."""
        w, alpha = self.snr_loss(self.T, t), self.alpha(t)
        end = self.alpha(torch.as_tensor(self.T, dtype=torch.float64))
        return Moments(alpha / end * self.snr_ratio(t), alpha * w, (self.variance(t) * w).sqrt())

    def log_ratio(self, t: torch.Tensor) -> torch.Tensor:
        """Return λ_t = ln(b_t/c_t): −∞ at T, +∞ at 0."""
        return (self.alpha(t).square() * self.snr_loss(self.T, t) / self.variance(t)).log() / 2

    def ancestral_noise(self, later: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Return σ_t·√(1 − SNR_later/SNR_t), the deviation of q(z_t | z_0, z_later)."""
        return (self.variance(t) * self.snr_loss(later, t)).sqrt()

    def score(self, z, clean, source, t: torch.Tensor) -> torch.Tensor:
        r"""Return the bridge's score for a clean sample D, the gradient of ln q(z_t | z_0 = D, z_T).

        .. math:: s = -(z - a_t z_T - b_t D)/c_t^2 \tag{B4}

        This is M25, singular at both ends.
        """
        a, b, c = self.moments(t)
        return -(z - a * source - b * clean) / c**2

    def pull(self, z, source, t: torch.Tensor) -> torch.Tensor:
        r"""Return Doob's h-transform, the gradient of ln p(z_T | z_t).

        .. math:: h = \frac{(\alpha_t/\alpha_T) z_T - z}{\sigma_t^2(\mathrm{SNR}_t/\mathrm{SNR}_T - 1)}
                    = \frac{a_t z_T - (1 - w_t)\,z}{c_t^2} \tag{B5}

        It is singular at T, where it grows as 1/(T − t).
        """
        a, _, c = self.moments(t)
        return (a * source - self.snr_ratio(t) * z) / c**2

    def reverse_slope(self, z, clean, source, t: torch.Tensor, *, stochastic: bool) -> torch.Tensor:
        r"""Return dz/dt of the reverse process, its SDE (M23) or its probability flow (M24).

        .. math:: f z - g^2(s - h) \ \text{(SDE)}, \qquad f z - g^2(\tfrac12 s - h) \ \text{(flow)},
           \qquad s - h = (\alpha_t D - z)/\sigma_t^2 \tag{B6}

        In s − h the pole at T cancels, so that the SDE is regular there and the flow has an integrable pole.
        """
        bend = (self.alpha(t) * clean - z) / self.variance(t)
        if not stochastic:
            bend = bend - self.score(z, clean, source, t) / 2
        return self.drift(t) * z - self.diffusion(t) * bend

    def preconditioning(self, t: torch.Tensor, sigma_0: float, sigma_T: float, covariance: float) -> Preconditioning:
        r"""Return what makes input and target of the network of unit power, and the target small.

        .. math::
            c_\text{in}^{-2} = a^2\sigma_T^2 + b^2\sigma_0^2 + 2ab\,\sigma_{0T} + c^2, \quad
            c_\text{skip} = (b\,\sigma_0^2 + a\,\sigma_{0T})\,c_\text{in}^2, \quad
            c_\text{out}^2 = [a^2(\sigma_0^2\sigma_T^2 - \sigma_{0T}^2) + \sigma_0^2c^2]\,c_\text{in}^2. \tag{B7}

        c_skip·z_t is the best linear guess of z_0 from z_t, and c_out² is what it leaves.
        """
        a, b, c = self.moments(t)
        power = a**2 * sigma_T**2 + b**2 * sigma_0**2 + 2 * a * b * covariance + c**2
        left = a**2 * (sigma_0**2 * sigma_T**2 - covariance**2) + sigma_0**2 * c**2
        return Preconditioning((b * sigma_0**2 + a * covariance) / power, (left / power).sqrt(), power.rsqrt())

    def _rise(self, t):
        """Return B_t of eq. (B2)."""
        return t * (self.beta_min + self.beta_d * t / 2)


def step_times(n: int, T: float, high: float, low: float, spacing: str, rho: float, *, to_zero: bool) -> torch.Tensor:
    r"""Return the n + 1 times of n steps, from high·T down, float64 holding single-precision numbers.

    .. math:: \text{cosine:}\quad t_i \propto \cos^2\frac{\pi i}{2n}, \qquad \text{karras:}\quad
              t_i = \Big(t_0^{1/\rho} + \tfrac{i}{n}(t_n^{1/\rho} - t_0^{1/\rho})\Big)^\rho \tag{B11}

    Parameters
    ----------
    high, low : float
        Shares of T that the noisy times span.
    spacing : {"cosine", "karras"}
    to_zero : bool
        Whether the last time is 0, and the one before no shorter than low·T; else the last is low·T.
    """
    i, last = torch.arange(n + 1, dtype=torch.float64), max(n - 1, 1) if to_zero else n
    if spacing == "karras":
        top, bottom = high ** (1 / rho), low ** (1 / rho)
        times = (top + i / last * (bottom - top)).clamp(min=0) ** rho
    elif to_zero:
        # Many steps would come nearer to 0 than the times of training.
        times = high * torch.cos(min(math.pi / 2 / n, math.acos((low / high) ** 0.5) / last) * i) ** 2
    else:
        times = low + (high - low) * torch.cos(math.pi / 2 / n * i) ** 2
    times = single_precision(times * T)
    if to_zero:
        times[-1] = 0
    return times


def single_precision(t: torch.Tensor) -> torch.Tensor:
    """Return times rounded to single precision, as float64: the same number on every device."""
    return t.to(torch.float32).to(torch.float64)


def latent_statistics(z0: torch.Tensor, zT: torch.Tensor) -> dict[str, float]:
    r"""Return what eq. (B7) needs of pairs of clean and source latents, as keywords of `BridgeScheduler`.

    .. math:: \sigma_0^2 = \langle z_0^2\rangle, \quad \sigma_T^2 = \langle z_T^2\rangle, \quad
              \sigma_{0T} = \langle z_0 z_T\rangle \tag{B12}

    The means are not taken off: so the network's input and target have unit power for any latents.

    Raises
    ------
    InputError
        Different shapes, nothing in them, no variance, or sources that are multiples of the clean latents.
    """
    if z0.shape != zT.shape or z0.numel() == 0:
        raise InputError(f"zT must have the shape of z0, of one latent or more, but the shapes were {tuple(zT.shape)} "
                         f"and {tuple(z0.shape)}.")
    z0, zT = z0.double(), zT.double()
    statistics = {"sigma_0": z0.square().mean().sqrt().item(), "sigma_T": zT.square().mean().sqrt().item(),
                  "covariance": (z0 * zT).mean().item()}
    check_statistics(**statistics)
    return statistics


def check_statistics(sigma_0: float, sigma_T: float, covariance: float) -> tuple[float, float, float]:
    """Return the three, which must be those of two variables of which neither is a multiple of the other.

    Raises
    ------
    InputError
        Deviations that are not positive, a covariance of their product or more.
    """
    sigma_0, sigma_T = as_positive_float("sigma_0", sigma_0), as_positive_float("sigma_T", sigma_T)
    try:
        number = float(covariance)
    except (TypeError, ValueError):
        number = math.nan
    # With a perfect correlation nothing is left to predict at T, and the weight of the loss there would be infinite.
    if not abs(number) < (1 - 1e-6) * sigma_0 * sigma_T:
        raise InputError(f"covariance must lie below sigma_0·sigma_T = {sigma_0 * sigma_T:g} in size, but was "
                         f"{covariance!r}; measure all three on the same latents with latent_statistics.")
    return sigma_0, sigma_T, number
