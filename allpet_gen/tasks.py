r"""The five tasks, a row each: what goes in, what comes out, and what a network is told of it.

Tokens are those of a prompt (tracer, region, task) and a fourth, the *other* tracer: the one that is mixed in
(tracer separation) or wanted (tracer conversion). Numbers are those of a view (see `allpet_gen.data`) and a fourth,

.. math:: \ell = \ln f / \ln 100, \tag{T1}

for a dose lowered by the factor f: 0 at full dose, 1 at a hundredth.
"""

import math
from dataclasses import dataclass

import numpy as np

from allpet_gen.prompts import NULL, VOCABULARY, Prompt
from allpet_physics._arrays import as_positive_float
from allpet_physics.errors import InputError
from allpet_physics.simulation.tracer_names import parse_tracer

#: The factors by which networks have seen doses lowered.
DOSE_FACTORS = (4, 10, 20, 50, 100)


@dataclass(frozen=True)
class Task:
    """One kind of translation.

    Attributes
    ----------
    name : str
    what : str
        In words.
    n_targets : int
        Sinograms that come out.
    dose : bool
        Whether a dose factor belongs to it.
    other : bool
        Whether a second tracer belongs to it.
    attenuated : bool
        Whether attenuation, scatter and randoms are in the target as in the source.
    """

    name: str
    what: str
    n_targets: int = 1
    dose: bool = False
    other: bool = False
    attenuated: bool = True

    def means_of_source(self, targets, dose_factor: float = 1.0):
        """Return the expected counts of the source that expected targets (..., n_targets, angle, bin) imply.

        Low dose: the target over the factor. Separation: the sum of both, the mixture. The other tasks have no such
        law: their targets have seen another tissue, time or molecule.

        Raises
        ------
        InputError
            A task without such a law.
        """
        if not (self.dose or self.n_targets == 2):
            raise InputError("task must be low-dose or tracer-separation for the source to follow from the target, but "
                             f"was {self.name}.")
        return targets.sum(-3) / dose_factor


TASKS = {task.name: task for task in (
    Task("low-dose", "a scan of low dose to one of full dose", dose=True),
    Task("attenuation-correction", "counts with attenuation, scatter and randoms to those without, same exposure",
         attenuated=False),
    Task("delayed-frame", "a scan to one of the same patient an hour later"),
    Task("tracer-separation", "a scan of two tracers at once to one of each", n_targets=2, other=True),
    Task("tracer-conversion", "a scan with one tracer to one with another", other=True),
)}


def find_task(name) -> Task:
    """Return the row of a task.

    Raises
    ------
    InputError
        An unknown name; the message lists the known ones.
    """
    if not isinstance(name, str) or name not in TASKS:
        raise InputError(f"task must be one of {', '.join(TASKS)}, but was {name!r}.")
    return TASKS[name]


def task_tokens(task: str, tracer: str | None, region: str | None, other: str | None = None) -> tuple[int, ...]:
    """Return the four token numbers of a task; `NULL` for what is not said.

    Raises
    ------
    InputError
        Unknown words; a second tracer that a task lacks, has not, or that is the first one.
    """
    row = find_task(task)
    prompt = Prompt(tracer, region, task)
    if other is None:
        if row.other:
            raise InputError(f"other must name the second tracer for {task}, one of {', '.join(VOCABULARY['tracer'])}, "
                             "but was not given.")
        return *prompt.tokens(), NULL
    if not row.other:
        raise InputError(f"other must not be given for {task}, which has one tracer, but was {other!r}.")
    other = parse_tracer(other).name
    if other == prompt.tracer:
        raise InputError(f"other must be another tracer than {prompt.tracer}, but was the same.")
    return *prompt.tokens(), VOCABULARY["tracer"].index(other) + 1


def dose_number(task: str, dose_factor: float | None = None) -> float:
    """Return ℓ of eq. (T1).

    Raises
    ------
    InputError
        A factor that a task lacks or has not, or below 1.
    """
    row = find_task(task)
    if dose_factor is None:
        if row.dose:
            raise InputError(f"dose_factor must be given for {task}, such as 10 for a tenth of the dose.")
        return 0.0
    if not row.dose:
        raise InputError(f"dose_factor must not be given for {task}, but was {dose_factor!r}; it belongs to low-dose.")
    factor = as_positive_float("dose_factor", dose_factor)
    if not 1 <= factor <= 1000:
        raise InputError(f"dose_factor must be a number from 1 to 1000, but was {dose_factor!r}.")
    return math.log(factor) / math.log(100)


def dose_gain(dose_factor: float | None) -> np.float32:
    """Return what a source is multiplied by, so that its mean is that of full dose."""
    return np.float32(1 if dose_factor is None else dose_factor)
