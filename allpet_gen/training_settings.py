"""How a network is trained: steps, batches, rates; checked before anything long begins."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from allpet_physics.errors import InputError

PRECISIONS = ("auto", "no", "bf16", "fp16")
SCHEDULES = ("cosine", "constant")
#: Smallest allowed value of each whole number.
_LEAST = {"steps": 1, "batch": 1, "accumulation": 1, "warmup": 0, "workers": 0, "validation": 0, "seed": 0}


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is trained: the sections ``training`` and ``training.<stage>`` of the settings.

    Parameters
    ----------
    steps : int
        Updates of the weights.
    batch : int
        Items of one process in one pass; `accumulation` passes make an update.
    learning_rate, weight_decay, clip, ema_decay : float
        Of AdamW; the largest norm of a gradient; of the average of the weights.
    warmup : int
        Steps over which the rate rises.
    schedule : {"cosine", "constant"}
    precision : {"no", "bf16", "fp16", "auto"}
        "auto" becomes that of `device_precision` at once.
    accumulation : int
    gradient_checkpointing : bool
    workers : int
        Processes that make batches.
    checkpoint_minutes : float
    validation : int
        Items of the validation set.
    seed : int

    Raises
    ------
    InputError
        A value out of range.
    """

    steps: int
    batch: int
    learning_rate: float
    warmup: int = 0
    ema_decay: float = 0.999
    schedule: str = "cosine"
    weight_decay: float = 0.01
    clip: float = 1.0
    precision: str = "no"
    accumulation: int = 1
    gradient_checkpointing: bool = False
    workers: int = 0
    checkpoint_minutes: float = 5.0
    validation: int = 0
    seed: int = 0

    def __post_init__(self):
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise InputError(f"{name} must be {least} or more, but was {getattr(self, name)}.")
        for name in ("learning_rate", "clip", "weight_decay", "checkpoint_minutes"):
            value, zero = getattr(self, name), name in ("weight_decay", "checkpoint_minutes")
            if not (math.isfinite(value) and (value > 0 or (zero and value == 0))):
                raise InputError(f"{name} must be a finite {'number >= 0' if zero else 'positive number'}, but was "
                                 f"{value}.")
        if not 0 <= self.ema_decay < 1:
            raise InputError(f"ema_decay must be in [0, 1), but was {self.ema_decay}.")
        for name, known in (("precision", PRECISIONS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in known:
                raise InputError(f"{name} must be one of {', '.join(known)}, but was {getattr(self, name)!r}.")
        if self.precision == "auto":
            object.__setattr__(self, "precision", device_precision())

    @classmethod
    def of(cls, training: Mapping, stage: str) -> "TrainingSettings":
        """Return the settings of a stage from the section ``training``."""
        known = {field.name for field in fields(cls)}
        common = {name: value for name, value in training.items() if name in known}
        return cls(**common | training[stage])

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        if self.schedule == "constant":
            return self.learning_rate
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * min(1.0, done))) / 2)


def device_precision() -> str:
    """Return "bf16" where a GPU, or a processor without one, has instructions for it, "no" elsewhere.

    A processor without them computes bfloat16 all the same, but a step then takes ten times as long as in float32. Of
    processors, those with such AVX-512 or AMX instructions count, if torch can tell.
    """
    from allpet_gen._torch import require_torch

    require_torch()
    import torch

    if torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has = getattr(torch.cpu, "get_capabilities", dict)()  # older torch does not say
        fast = any(has.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    return "bf16" if fast else "no"


def require_precision(precision: str) -> None:
    """Raise `InputError` for float16 without a GPU."""
    import torch

    if precision == "fp16" and not torch.cuda.is_available():
        raise InputError('precision must be "bf16" or "no" without a GPU, but was "fp16".')
