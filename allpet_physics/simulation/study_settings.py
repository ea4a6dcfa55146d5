"""What is scanned and how: regions and their words, frames, counts, doses. Numbers only, ready for a card."""

import dataclasses
from dataclasses import dataclass, field

from allpet_physics._arrays import as_positive_float, as_positive_int
from allpet_physics.errors import InputError
from allpet_physics.radon import MODELS
from allpet_physics.scan_protocol import ScanProtocol
from allpet_physics.simulation.tracer_names import parse_tracer

#: Frames of a study, in the order of their axis.
FRAMES = ("first", "delayed")
#: Region of a patient and the word that prompts use for it.
REGION_WORDS = {"head": "brain", "chest": "chest", "abdomen": "abdomen"}


@dataclass(frozen=True)
class StudySettings:
    """How every patient of a study is scanned.

    Parameters
    ----------
    head, body : ScanProtocol
        Counts of a slice in the first frame (the mean over a patient's slices), fractions of scatter and randoms, and
        resolution, for the head and for any other region. Their times and half-life are not used: frames and tracer
        have those. The defaults are the presets "brain" and "body".
    first_min, delayed_min : (float, float)
        Start and end of the two frames in minutes after injection. The delayed frame has the calibration of the
        first, so decay, kinetics and its length decide its counts.
    counts_spread : float
        Coefficient of variation of the counts between patients and tracers, log-normal (assumption): doses, habitus
        and scan times differ.
    dose_factors : tuple of int
        By how much doses are lowered: the full dose is thinned to 1/4, 1/10, ...
    model : {"strip", "joseph"}
        Of the projector.

    Raises
    ------
    InputError
        Frames that end before they start or a delayed frame that starts before the first ends, a factor below 2, a
        spread that is negative or 1 or more.
    """

    head: ScanProtocol = field(default_factory=lambda: ScanProtocol.preset("brain"))
    body: ScanProtocol = field(default_factory=lambda: ScanProtocol.preset("body"))
    first_min: tuple[float, float] = (60.0, 70.0)
    delayed_min: tuple[float, float] = (120.0, 130.0)
    counts_spread: float = 0.2
    dose_factors: tuple[int, ...] = (4, 10, 20, 50, 100)
    model: str = "strip"

    def __post_init__(self):
        def put(name, value):
            object.__setattr__(self, name, value)

        for name in ("head", "body"):
            if not isinstance(getattr(self, name), ScanProtocol):
                raise InputError(f"{name} must be a ScanProtocol, but was {type(getattr(self, name)).__name__}.")
        for name in ("first_min", "delayed_min"):
            put(name, _frame(name, getattr(self, name)))
        if self.delayed_min[0] < self.first_min[1]:
            raise InputError(f"delayed_min must start after the first frame's end at {self.first_min[1]:g} min, but "
                             f"started at {self.delayed_min[0]:g}.")
        put("counts_spread", as_positive_float("counts_spread", self.counts_spread, allow_zero=True))
        if self.counts_spread >= 1:
            raise InputError(f"counts_spread must be from 0 to below 1, but was {self.counts_spread:g}.")
        put("dose_factors", tuple(as_positive_int("dose_factors", n, minimum=2) for n in self.dose_factors))
        if self.model not in MODELS:
            raise InputError(f"model must be one of {', '.join(MODELS)}, but was {self.model!r}.")

    @property
    def frames_min(self) -> tuple[tuple[float, float], ...]:
        """Start and end of each frame of `FRAMES` in minutes after injection."""
        return self.first_min, self.delayed_min

    def protocol(self, region: str, tracer, frame: str = "first") -> ScanProtocol:
        """Return the protocol of one frame of one tracer; its time zero is the injection."""
        start, end = self.frames_min[frame_number(frame)]
        base = self.head if region in ("head", "brain") else self.body
        return base.replace(start_s=start * 60, duration_s=(end - start) * 60,
                            half_life_s=parse_tracer(tracer).half_life_s)

    def replace(self, **changes) -> "StudySettings":
        """Return a copy with some settings changed, validated again."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict:
        """Return the settings as plain Python types, ready for JSON."""
        plain = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}

    @classmethod
    def from_dict(cls, plain) -> "StudySettings":
        """Return the settings that `to_dict` described."""
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}
        return cls(**{**values, "head": ScanProtocol(**plain["head"]), "body": ScanProtocol(**plain["body"])})


def frame_number(frame: str) -> int:
    """Return the place of a frame on its axis.

    Raises
    ------
    InputError
        A name that is not one of `FRAMES`.
    """
    if frame not in FRAMES:
        raise InputError(f"frame must be one of {', '.join(FRAMES)}, but was {frame!r}.")
    return FRAMES.index(frame)


def prompt_text(region: str, tracer: str) -> str:
    """Return the wording of a class, such as "brain with 18F-FDG"."""
    return f"{REGION_WORDS.get(region, region)} with {tracer}"


def _frame(name: str, value) -> tuple[float, float]:
    try:
        start, end = (as_positive_float(name, t, allow_zero=True) for t in value)
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        start = end = 0.0
    if not end > start:
        raise InputError(f"{name} must be (start, end) in minutes with end after start, but was {value!r}.")
    return start, end
