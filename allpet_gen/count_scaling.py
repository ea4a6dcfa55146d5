r"""Counts ↔ the range of a network, by the square root that makes Poisson noise alike everywhere."""

from dataclasses import dataclass

import numpy as np

from allpet_physics._arrays import as_float_array, as_positive_float
from allpet_physics.errors import InputError


@dataclass(frozen=True)
class CountScaling:
    r"""Counts n to :math:`x = 2\sqrt{n/c} - 1` and back, with one scale c for all data of a model.

    .. math:: x = 2\sqrt{n/c} - 1, \qquad n = c\,\left(\max(x + 1, 0)/2\right)^2. \tag{C1}

    The variance of :math:`\sqrt n` of a Poisson count is 1/4 to first order whatever its mean (Bartlett 1936), so noise
    has the standard deviation :math:`1/\sqrt c` in x in every bin. The scale is global: a scale of each image, such as
    min–max, would lose the counts. ``decode(encode(n))`` is n to rounding for every n ≥ 0, far above c too.

    Parameters
    ----------
    scale : float
        c > 0, the counts that become 1.

    Raises
    ------
    InputError
        A scale that is not a finite positive number.
    """

    scale: float

    def __post_init__(self):
        object.__setattr__(self, "scale", as_positive_float("scale", self.scale))

    @classmethod
    def from_counts(cls, counts, quantile: float = 0.9999) -> "CountScaling":
        """Return the scaling that brings nearly all bins of some training counts to [-1, 1].

        Parameters
        ----------
        counts : array_like, any shape
        quantile : float
            In (0, 1]: that part of the bins with counts has x ≤ 1.

        Raises
        ------
        InputError
            Counts that are zero everywhere, negative or not finite; a quantile outside (0, 1].
        """
        counts = as_float_array("counts", counts, nonnegative=True)
        if not counts.any():
            raise InputError("counts must not be zero everywhere, for then they have no scale.")
        if not as_positive_float("quantile", quantile) <= 1:
            raise InputError(f"quantile must be at most 1, but was {quantile!r}.")
        return cls(float(max(np.quantile(counts[counts > 0], quantile), 1.0)))

    @property
    def noise(self) -> float:
        """Standard deviation of Poisson noise in the range of the network, to first order."""
        return self.scale**-0.5

    def encode(self, counts):
        """Return x of (C1).

        Parameters
        ----------
        counts : array_like or tensor, any shape
            Tensors are not looked through: a negative count becomes NaN there.

        Returns
        -------
        ndarray or tensor of the same shape: float64 for float64, float32 else (a tensor keeps its float type).

        Raises
        ------
        InputError
            Counts in an array that are negative or not finite.
        """
        if _is_tensor(counts):
            return 2 * (counts / self.scale).sqrt() - 1
        checked = as_float_array("counts", counts, nonnegative=True)
        counts = np.asarray(counts)
        dtype = checked.dtype if counts.dtype.kind == "f" else np.float32
        if counts.dtype.kind == "f":
            counts = checked
        return (2 * np.sqrt(counts / self.scale) - 1).astype(dtype, copy=False)

    def decode(self, x):
        """Return the counts of (C1), of the shape and float type of an array or a tensor x; below -1 there are none."""
        if _is_tensor(x):
            return self.scale * ((x + 1).clamp(min=0) / 2) ** 2
        return self.scale * (np.maximum(as_float_array("x", x) + 1, 0) / 2) ** 2


def _is_tensor(x) -> bool:
    return hasattr(x, "clamp") and hasattr(x, "sqrt")
