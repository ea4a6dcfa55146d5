r"""Time-activity curves: input function, two-tissue compartment model, frames and decay.

Times are minutes after injection, rate constants 1/min (K1 in ml/min/ml). Curves are corrected for decay unless said
otherwise; their unit is the input function's and cancels, for only their ratio to the reference time is used
(:class:`UptakeCurve`).
"""

import itertools
from dataclasses import dataclass, fields

import numpy as np

from allpet_physics._arrays import as_float_array, as_positive_float
from allpet_physics.errors import InputError

#: When the uptake table holds, in minutes after injection.
REFERENCE_MIN = 60.0
#: Frame quadrature: the longest panel in minutes while the bolus (shortest time 1/4.134 min) passes and after, when
#: curves vary over tens of minutes; the nodes of a panel. Panels also break where the bolus arrives, a kink.
_EARLY_PANEL_MIN, _LATE_PANEL_MIN, _BOLUS_OVER_MIN = 2.0, 15.0, 20.0
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)


@dataclass(frozen=True)
class InputFunction:
    r"""Tracer concentration in plasma after a bolus, Feng's model 2.

    With u = t - delay, and 0 for u < 0,

    .. math:: C_p(t) = (A_1 u - A_2 - A_3)\,e^{\lambda_1 u} + A_2\,e^{\lambda_2 u} + A_3\,e^{\lambda_3 u}. \tag{K1}

    The minus signs of A2 and A3 make C_p(delay) = 0; with plus signs, as in some public copies, the curve would jump
    to 2 (A2 + A3). The model describes unmetabolised tracer; FDG has no metabolites in plasma.

    Parameters
    ----------
    amplitudes : tuple of float
        A1 (per minute), A2, A3.
    rates : tuple of float
        λ1, λ2, λ3 in 1/min, negative.
    delay_min : float

    References
    ----------
    Feng, Huang, Wang 1993, Int J Biomed Comput 32:95-110 (model 2).
    """

    amplitudes: tuple[float, float, float] = (851.1, 21.88, 20.81)
    rates: tuple[float, float, float] = (-4.134, -0.1191, -0.01043)
    delay_min: float = 0.735

    def __post_init__(self):
        for name, value in (("amplitudes", self.amplitudes), ("rates", self.rates)):
            array = as_float_array(name, value)
            if array.shape != (3,):
                raise InputError(f"{name} must be three numbers, but its shape was {array.shape}.")
        if min(self.amplitudes) < 0 or max(self.rates) >= 0:
            raise InputError("amplitudes must not be negative and rates must be negative, "
                             f"but were {self.amplitudes} and {self.rates}.")
        as_positive_float("delay_min", self.delay_min, allow_zero=True)

    def __call__(self, time_min) -> np.ndarray:
        """Return C_p at the given times, float64, of the shape of `time_min` (K1)."""
        u = np.maximum(as_times(time_min) - self.delay_min, 0)
        (a1, a2, a3), (l1, l2, l3) = self.amplitudes, self.rates
        bolus = np.exp(l1 * u)
        return a1 * u * bolus + a2 * (np.exp(l2 * u) - bolus) + a3 * (np.exp(l3 * u) - bolus)

    def convolved(self, time_min, rate: float) -> np.ndarray:
        r"""Return (C_p * e^{-rate t})(t), in closed form for every non-negative rate, equal exponents included."""
        u = np.maximum(as_times(time_min) - self.delay_min, 0)
        (a1, a2, a3), (l1, l2, l3) = self.amplitudes, self.rates
        return (a1 * _ramp_convolved(u, l1, rate) - (a2 + a3) * _exponential_convolved(u, l1, rate)
                + a2 * _exponential_convolved(u, l2, rate) + a3 * _exponential_convolved(u, l3, rate))


#: Feng's model 2 with the published parameters for FDG.
FDG_INPUT = InputFunction()


@dataclass(frozen=True)
class TwoTissue:
    r"""Two-tissue compartment model, reversible or not.

    .. math::
        \dot C_1 &= K_1 C_p - (k_2 + k_3) C_1 + k_4 C_2, \qquad \dot C_2 = k_3 C_1 - k_4 C_2, \tag{K2} \\
        C(t) &= (1 - V_b)(C_1 + C_2) + V_b C_b, \tag{K3} \\
        C_1 + C_2 &= K_1\,[\,w\,e^{-\alpha_1 t} + (1 - w)\,e^{-\alpha_2 t}\,] * C_p, \tag{K4}

    with r = √((k3 + k4 - k2)² + 4 k2 k3), α₁,₂ = (k2 + k3 + k4 ∓ r)/2 and w = [1 + (k3 + k4 - k2)/r]/2. The weights lie
    in [0, 1] and the convolutions are closed forms, so nothing cancels where exponents meet. Whole blood C_b is taken
    to be C_p (assumption: FDG equilibrates with red cells within seconds).

    Parameters
    ----------
    K1, k2, k3, k4 : float
        Rate constants, non-negative; ml/min/ml for K1, 1/min for the others.
    Vb : float
        Blood volume fraction in [0, 1].

    References
    ----------
    Phelps et al. 1979, Ann Neurol 6:371-388, equation 3; Gunn, Gunn, Cunningham 2001, JCBFM 21:635-652.
    """

    K1: float
    k2: float
    k3: float
    k4: float
    Vb: float

    def __post_init__(self):
        for field in fields(self):
            as_positive_float(field.name, getattr(self, field.name), allow_zero=True)
        if self.Vb > 1:
            raise InputError(f"Vb must be a fraction from 0 to 1, but was {self.Vb!r}.")

    def curve(self, time_min, input_function: InputFunction = FDG_INPUT) -> np.ndarray:
        """Return C(t) of (K3) at the given times, float64."""
        difference = self.k3 + self.k4 - self.k2
        r = np.sqrt(difference**2 + 4 * self.k2 * self.k3)
        fast = (self.k2 + self.k3 + self.k4 + r) / 2
        slow = self.k2 * self.k4 / fast if fast else 0.0  # the product of both; their difference would cancel
        weight = 0.5 if r == 0 else 0.5 * (1 + difference / r)
        tissue = self.K1 * (weight * input_function.convolved(time_min, slow)
                            + (1 - weight) * input_function.convolved(time_min, fast))
        return (1 - self.Vb) * tissue + self.Vb * input_function(time_min)


@dataclass(frozen=True)
class BiExponential:
    r"""Uptake and washout with one rate each: a stated simplification, for tracers without a usable model.

    .. math:: C(t) = \frac{e^{-wt} - e^{-ut}}{u - w}, \qquad t\,e^{-ut} \text{ for } u = w. \tag{K5}

    It is the answer of one compartment of washout w to an exponential supply of rate u. w = 0 is irreversible uptake;
    a fast u describes blood after mixing.

    Parameters
    ----------
    uptake, washout : float
        u > 0 and w ≥ 0 in 1/min.
    """

    uptake: float
    washout: float

    def __post_init__(self):
        as_positive_float("uptake", self.uptake)
        as_positive_float("washout", self.washout, allow_zero=True)

    def curve(self, time_min) -> np.ndarray:
        """Return C(t) of (K5) at the given times, float64."""
        return _exponential_convolved(as_times(time_min), -self.uptake, self.washout)


@dataclass(frozen=True)
class UptakeCurve:
    r"""Uptake of one organ of one patient over time.

    .. math:: \mathrm{SUV}(t) = \mathrm{SUV}(t_0)\,\frac{C(t)}{C(t_0)}, \qquad t_0 = 60\ \mathrm{min}. \tag{K6}

    The table fixes the level, the kinetic model only the ratio to another time. SUV is corrected for decay to the
    injection; what a scanner counts is not, see :meth:`frame_mean`.

    Parameters
    ----------
    suv : float
        SUV at the reference time.
    kinetics : TwoTissue, BiExponential or None
        None for what holds no tracer (its `suv` is 0).
    """

    suv: float
    kinetics: TwoTissue | BiExponential | None

    def __post_init__(self):
        as_positive_float("suv", self.suv, allow_zero=True)
        if self.kinetics is None:
            if self.suv:
                raise InputError(f"kinetics must be given for an SUV above zero, but was None for SUV {self.suv:g}.")
        elif not self.kinetics.curve(REFERENCE_MIN) > 0:
            raise InputError(f"kinetics must reach a positive level at {REFERENCE_MIN:g} min, but {self.kinetics} "
                             "does not; K1 or Vb must be above zero.")

    def at(self, time_min) -> np.ndarray:
        """Return the decay-corrected SUV at the given times in minutes after injection, float64 (K6)."""
        time = as_times(time_min)
        if self.kinetics is None:
            return np.zeros(time.shape)
        return self.suv * self.kinetics.curve(time) / self.kinetics.curve(REFERENCE_MIN)

    def frame_mean(self, frames, half_life_s: float | None = None) -> np.ndarray:
        r"""Return the mean over frames, without or with decay.

        .. math:: \frac{1}{t_2 - t_1} \int_{t_1}^{t_2} \mathrm{SUV}(t)\,2^{-t/T_{1/2}}\,dt. \tag{K7}

        Parameters
        ----------
        frames : array_like, shape (n_frames, 2) or (2,)
            Start and end in minutes after injection.
        half_life_s : float, optional
            With it, activity as it is during the frame, in units of injected activity at injection per body weight:
            what counts are proportional to. Without it, the decay-corrected SUV.

        Returns
        -------
        ndarray, float64, shape (n_frames,), or a scalar for one pair
        """
        frames = as_frames(frames)
        decay = np.log(2) * 60 / as_positive_float("half_life_s", half_life_s) if half_life_s is not None else 0.0
        if not frames.size:
            return np.zeros(frames.shape[:-1])
        times, weights = zip(*(_frame_nodes(*frame) for frame in frames.reshape(-1, 2)), strict=True)
        every = np.concatenate(times)
        values = self.at(every) * np.exp(-decay * every) * np.concatenate(weights)
        starts = np.cumsum([0] + [len(t) for t in times[:-1]])
        return np.add.reduceat(values, starts).reshape(frames.shape[:-1])


def decay_factor(time_min, half_life_s: float) -> np.ndarray:
    """Return the fraction 2^(-t/T½) of a nuclide that is left after the given minutes."""
    return np.exp2(-as_times(time_min) * 60 / as_positive_float("half_life_s", half_life_s))


def as_times(time_min) -> np.ndarray:
    """Return times in minutes after injection as float64, or say what is wrong with them."""
    return as_float_array("time_min", time_min, nonnegative=True).astype(np.float64)


def as_frames(frames) -> np.ndarray:
    """Return frames (start, end) in minutes as float64 of shape (..., 2), or say what is wrong with them."""
    frames = as_float_array("frames", frames, (2,), nonnegative=True).astype(np.float64)
    if not (frames[..., 1] > frames[..., 0]).all():
        bad = frames.reshape(-1, 2)[(frames[..., 1] <= frames[..., 0]).reshape(-1)][0]
        raise InputError(f"frames must be pairs (start, end) in minutes with end after start, but one was "
                         f"({bad[0]:g}, {bad[1]:g}).")
    return frames


def _frame_nodes(start: float, end: float) -> tuple[np.ndarray, np.ndarray]:
    """Return times and weights whose weighted sum is the mean over a frame, by Gauss-Legendre panels."""
    breaks = [t for t in (FDG_INPUT.delay_min, _BOLUS_OVER_MIN) if start < t < end]
    edges = [start]
    for a, b in itertools.pairwise([start, *breaks, end]):
        panel = _EARLY_PANEL_MIN if a < _BOLUS_OVER_MIN else _LATE_PANEL_MIN
        edges += np.linspace(a, b, int(np.ceil((b - a) / panel)) + 1)[1:].tolist()
    edges = np.array(edges)
    half, centre = np.diff(edges)[:, np.newaxis] / 2, (edges[:-1] + edges[1:])[:, np.newaxis] / 2
    return (centre + half * _NODES).ravel(), (half * _WEIGHTS).ravel() / (end - start)


def _exponential_convolved(u: np.ndarray, exponent: float, rate: float) -> np.ndarray:
    """Return ∫₀ᵘ e^(exponent s) e^(-rate (u - s)) ds = u e^(max(exponent, -rate) u) g(|exponent + rate| u)."""
    return u * np.exp(max(exponent, -rate) * u) * _g(abs(exponent + rate) * u)


def _ramp_convolved(u: np.ndarray, exponent: float, rate: float) -> np.ndarray:
    """Return ∫₀ᵘ s e^(exponent s) e^(-rate (u - s)) ds."""
    x = abs(exponent + rate) * u
    shape = _g(x) - _h(x) if exponent + rate > 0 else _h(x)
    return u**2 * np.exp(max(exponent, -rate) * u) * shape


def _g(x: np.ndarray) -> np.ndarray:
    """Return ∫₀¹ e^(-x y) dy = (1 - e^(-x))/x for x ≥ 0; 1 at 0."""
    positive = np.where(x > 0, x, 1.0)
    return np.where(x > 0, -np.expm1(-positive) / positive, 1.0)


def _h(x: np.ndarray) -> np.ndarray:
    """Return ∫₀¹ y e^(-x y) dy = (1 - (1 + x) e^(-x))/x² for x ≥ 0; by its series Σ (-x)ⁿ/(n! (n + 2)) near 0."""
    small = x < 0.5
    y = np.where(small, x, 0.0)
    series, term = np.full(np.shape(x), 0.5), np.ones(np.shape(x))
    for n in range(1, 14):
        term = term * -y / n
        series = series + term / (n + 2)
    large = np.where(small, 1.0, x)
    return np.where(small, series, (1 - (1 + large) * np.exp(-large)) / large**2)
