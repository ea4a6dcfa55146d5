"""A PAC-Bayes certificate: a bound of the expected risk with everything that it depends on, or a refusal."""

import math
from dataclasses import dataclass, field

import numpy as np

from allpet_physics._arrays import as_positive_float, as_positive_int
from allpet_physics._probability_checks import as_confidence, as_divergence, as_number, as_probability
from allpet_physics.errors import InputError
from allpet_physics.relative_entropy import binary_kl_inverse

#: What is never independent of others of its patient.
_NOT_INDEPENDENT = ("slices", "images", "sinograms", "samples", "frames", "bins", "pixels", "voxels", "copies")


@dataclass(frozen=True, kw_only=True)
class Certificate:
    r"""An upper bound of the expected risk of a model drawn from a posterior, and what it rests on.

    It takes a bound of any kind (`certified_bound`, or one of a grid) and refuses what no bound of this library can be:
    with the given n, KL, δ and m draws with δ', none is below

    .. math:: \mathrm{kl}^{-1}\Big(\mathrm{kl}^{-1}\big(\hat R, \tfrac1m \ln\tfrac1{\delta'}\big),
              \tfrac1n \big(\mathrm{KL} + \ln\tfrac1\delta\big)\Big), \tag{PB16}

    so one that was computed for slices cannot pass for patients.

    Parameters
    ----------
    bound : float
        On the expected risk R(Q).
    empirical_risk : float
        Mean over the draws θ_j ~ Q of the mean loss on the n units, in [0, 1].
    kl : float
        KL(Q‖P) in nats, finite.
    n : int
        Number of independent units.
    delta, delta_monte_carlo : float
        δ of the bound (of the whole grid, where there was one) and δ' of the draws, in (0, 1), together below 1.
    draws : int
        m, the number of draws of Q behind the empirical risk.
    posterior_spread : float
        Least standard deviation that Q gives a parameter of those it draws; positive.
    unit : str
        What n counts: patients, or whatever else is independent. Slices, images and their like are refused. Whether the
        units are independent, and whether rate and grid of the bound were fixed before the data, cannot be seen here.
    threshold : float
        Risk that is known without data, in (0, 1]: 1, or the bound of a constant that ignores the data.

    Attributes
    ----------
    vacuous : bool
        Whether the bound, rounded up to the four decimals that are printed, is at or above the threshold and so says
        nothing.

    Raises
    ------
    InputError
        A point estimate (infinite KL or a posterior without spread), which is *not a certificate*; n or draws that are
        no positive integers; δ outside (0, 1); a risk outside [0, 1]; a bound below (PB16).
    """

    bound: float
    empirical_risk: float
    kl: float
    n: int
    delta: float
    delta_monte_carlo: float
    draws: int
    posterior_spread: float
    unit: str = "patients"
    threshold: float = 1.0
    vacuous: bool = field(init=False)

    def __post_init__(self):
        checked = {name: as_number(name, check(name, getattr(self, name))) for name, check in (
            ("empirical_risk", as_probability), ("kl", as_divergence), ("delta", as_confidence),
            ("delta_monte_carlo", as_confidence), ("posterior_spread", as_divergence), ("threshold", as_probability))}
        checked |= {name: as_positive_int(name, getattr(self, name)) for name in ("n", "draws")}
        checked["bound"] = as_positive_float("bound", self.bound, allow_zero=True)
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.kl == math.inf or self.posterior_spread == 0:
            raise InputError("kl must be finite and posterior_spread positive, but they were "
                             f"{self.kl:g} and {self.posterior_spread:g}: a point estimate is not a certificate; draw "
                             "the parameters from a posterior with spread.")
        if self.delta + self.delta_monte_carlo >= 1:
            raise InputError("delta and delta_monte_carlo must sum to less than 1, but were "
                             f"{self.delta:g} and {self.delta_monte_carlo:g}.")
        if not (isinstance(self.unit, str) and self.unit.strip()):
            raise InputError(f'unit must name what n counts, such as "patients", but was {self.unit!r}.')
        if self.unit.strip().lower() in _NOT_INDEPENDENT:
            raise InputError(f"unit must be what is independent, such as patients, but was {self.unit!r}, not a "
                             "certificate: those of one patient go together; count the patients.")
        if self.threshold == 0:
            raise InputError("threshold must be above 0, but was 0, which no bound can beat; leave it at 1.")
        risk = binary_kl_inverse(self.empirical_risk, -np.log(self.delta_monte_carlo) / self.draws)
        least = binary_kl_inverse(risk, (self.kl - np.log(self.delta)) / self.n)
        if self.bound < least - 1e-9:
            raise InputError(f"bound must be at least {least:g}, the least that {self.n} {self.unit} and this "
                             f"divergence allow, but was {self.bound:g}, not a certificate; compute it for this n.")
        object.__setattr__(self, "vacuous", self._printed_bound() >= self.threshold)

    def __str__(self) -> str:
        error = self.delta + self.delta_monte_carlo
        claim = (f"the expected loss of a model drawn from the posterior is at most {self._printed_bound():.4f}, with "
                 f"a chance of error of at most {error:.6g} over {self.n} independent {self.unit} and {self.draws} "
                 f"draws (empirical risk {self.empirical_risk:.4f}, KL {self.kl:.4g} nats)")
        if self.vacuous:
            return f"Vacuous: {claim}, which is no better than {self.threshold:g}, known without data."
        return f"Certified: {claim}."

    def _printed_bound(self) -> float:
        return math.ceil(round(self.bound * 1e4, 6)) / 1e4
