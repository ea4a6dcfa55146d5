"""The settings of a simulated scan: counts, fractions, resolution, time."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from allpet_physics._arrays import as_positive_float
from allpet_physics.background import RING_DIAMETER_MM
from allpet_physics.errors import InputError


@dataclass(frozen=True)
class ScanProtocol:
    """How a scan is made; numbers only, so that it can be stored beside the data.

    Parameters
    ----------
    counts : float
        Expected prompts (trues, scatter and randoms) of a slice. Not used where a calibration is given.
    scatter_fraction : float
        S/(T + S), from 0 to below 1.
    randoms_fraction : float
        R/(T + S + R), from 0 to below 1.
    psf_fwhm_mm : float
        Resolution in the image; 0 is none.
    start_s : float
        Begin of the scan after time zero, the time to which the activity is decay-corrected.
    duration_s : float
        Length of the scan.
    half_life_s : float, optional
        Physical half-life (F-18: 6586, Ga-68: 4058); None means no decay.
    ring_diameter_mm : float
        Diameter of the detector ring, for the shape of randoms.

    Raises
    ------
    InputError
        A fraction that is negative or 1 or more, a length, time or number of counts out of range.
    """

    counts: float = 2e6
    scatter_fraction: float = 0.20
    randoms_fraction: float = 0.15
    psf_fwhm_mm: float = 6.0
    start_s: float = 0.0
    duration_s: float = 600.0
    half_life_s: float | None = None
    ring_diameter_mm: float = RING_DIAMETER_MM

    def __post_init__(self):
        for name in ("counts", "duration_s", "ring_diameter_mm"):
            object.__setattr__(self, name, as_positive_float(name, getattr(self, name)))
        for name in ("psf_fwhm_mm", "start_s"):
            object.__setattr__(self, name, as_positive_float(name, getattr(self, name), allow_zero=True))
        for name, meaning in (("scatter_fraction", "S/(T+S)"), ("randoms_fraction", "R/(T+S+R)")):
            object.__setattr__(self, name, _fraction(name, meaning, getattr(self, name)))
        if self.half_life_s is not None:
            object.__setattr__(self, "half_life_s", as_positive_float("half_life_s", self.half_life_s))

    @property
    def effective_seconds(self) -> float:
        r"""Seconds that would give as many decays at the activity of time zero.

        .. math:: D = \int_{t_0}^{t_0 + T} e^{-\lambda t}\,dt
           = e^{-\lambda t_0}\,\frac{1 - e^{-\lambda T}}{\lambda}, \qquad \lambda = \ln 2 / T_{1/2} \tag{N3}
        """
        if self.half_life_s is None:
            return self.duration_s
        rate = np.log(2) / self.half_life_s
        return float(np.exp(-rate * self.start_s) * -np.expm1(-rate * self.duration_s) / rate)

    def replace(self, **changes) -> "ScanProtocol":
        """Return a copy with some settings changed, validated again."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict:
        """Return the settings as plain Python types, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def preset(cls, name: str) -> "ScanProtocol":
        """Return a named protocol; `scan_presets` lists the names and where their numbers come from."""
        presets = scan_presets()
        if name not in presets:
            raise InputError(f"preset must be one of {', '.join(sorted(presets))}, but was {name!r}.")
        return presets[name][0]


def scan_presets() -> dict[str, tuple[ScanProtocol, str]]:
    """Return the named protocols, each with one sentence that says where its numbers come from.

    Time and decay are left at ten minutes without decay: set them with `ScanProtocol.replace`.
    """
    source = "2e6 counts in a slice, fractions and resolution as in the examples of PETSTEP"
    return {
        "brain": (ScanProtocol(2e6, 0.20, 0.15, 6.0), f"Head: {source} (brain)."),
        "body": (ScanProtocol(2e6, 0.40, 0.40, 4.0), f"Trunk: {source} (lung)."),
    }


def _fraction(name: str, meaning: str, value) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if isinstance(value, (bool, np.bool_)) or not 0 <= number < 1:
        raise InputError(f"{name} must be {meaning}, from 0 to below 1, but was {value!r}; a fraction of 1 would leave "
                         "no true coincidences.")
    return number
