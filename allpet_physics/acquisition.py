"""What a scanner is expected to count, and how likely the counts are: the Poisson model of an acquisition."""

from functools import lru_cache

import numpy as np

from allpet_physics._arrays import as_float_array, as_positive_int
from allpet_physics.errors import GeometryError, InputError
from allpet_physics.operators import LinearOperator

#: An expected count at or below this is zero, so that no quotient of counts overflows the working precision.
SMALLEST_MEAN = {np.dtype(np.float32): 1e-24, np.dtype(np.float64): 1e-200}


class AcquisitionModel:
    r"""The affine model of a scan and its Poisson log-likelihood.

    .. math::

        \bar y(x) &= m \cdot A\,G\,x + b, \tag{A1} \\
        L(x; y) &= \sum_i y_i \log \bar y_i - \bar y_i, \tag{A2} \\
        \nabla L &= G^\mathsf{T} A^\mathsf{T}\, m \cdot (y / \bar y - 1), \tag{A3} \\
        s &= G^\mathsf{T} A^\mathsf{T}\, m, \tag{A4}

    with the projector A, an optional image operator G (a point-spread function), factors m per bin (attenuation times
    normalisation times exposure) and a background b per bin in counts (randoms plus scatter).

    **Bins without an expected count.** No threshold is applied to quotients. A bin with y = 0 adds :math:`-\bar y` to
    the value and :math:`-G^\mathsf{T} A^\mathsf{T} m` to the gradient, whatever its mean. A bin with y > 0 whose mean
    is zero (at most 1e-24 in float32, 1e-200 in float64; or negative) is *impossible*: the value is -inf, and the
    gradient leaves that bin out, since a constant -inf has no slope that an algorithm could follow. So wherever the
    value is finite, the gradient is exactly its gradient; `impossible_bins` finds the culprits.

    Parameters
    ----------
    operator : LinearOperator
        The projector A, from images ``in_shape`` to sinograms ``out_shape`` (angles first).
    multiplicative : array_like, optional
        m, non-negative, broadcastable to ``(..., *out_shape)``; 1 by default. 0 marks a dead bin.
    additive : array_like, optional
        b in counts, non-negative, broadcastable to ``(..., *out_shape)``; 0 by default. Leading axes of m and b are
        batch axes: one set of factors per slice, say.
    image_operator : LinearOperator, optional
        G, from images to the operator's images; the identity by default.

    Raises
    ------
    InputError
        Something that is no LinearOperator; factors that are negative, not finite or not broadcastable.
    GeometryError
        An image operator that does not fit the projector.

    Notes
    -----
    Arrays of another precision than the image's are converted in passing; the image and the counts decide the
    working precision (float32 unless one of them is float64). Likelihood values are always summed in float64.
    """

    def __init__(self, operator: LinearOperator, *, multiplicative=None, additive=None,
                 image_operator: LinearOperator | None = None):
        for name, value in (("operator", operator), ("image_operator", image_operator)):
            if not isinstance(value, LinearOperator) and (name == "operator" or value is not None):
                raise InputError(f"{name} must be a LinearOperator, for example RadonOperator(geometry), "
                                 f"but was {type(value).__name__}.")
        if image_operator is not None and image_operator.out_shape != operator.in_shape:
            raise GeometryError(f"image_operator must give images of the operator's shape {operator.in_shape}, "
                                f"but gives {image_operator.out_shape}.")
        self.operator, self.image_operator = operator, image_operator
        self.out_shape = operator.out_shape
        self.multiplicative = _bin_factors("multiplicative", multiplicative, self.out_shape)
        self.additive = _bin_factors("additive", additive, self.out_shape)
        self._system = operator if image_operator is None else operator @ image_operator
        self.in_shape = self._system.in_shape
        self._sensitivity = {}

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of the bin factors, () when all slices share them."""
        n = len(self.out_shape)
        return np.broadcast_shapes(*(f.shape[:-n] for f in (self.multiplicative, self.additive) if f is not None))

    def expected(self, x) -> np.ndarray:
        """Return the expected counts ȳ(x), eq. (A1), shape ``(..., *out_shape)``, for images ``(..., *in_shape)``."""
        x = as_float_array("x", x, self.in_shape)
        mean = self._system(x)
        factors = [f for f in (self.multiplicative, self.additive) if f is not None]
        shape = np.broadcast_shapes(mean.shape, *(f.shape for f in factors))
        if shape != mean.shape or (factors and np.may_share_memory(mean, x)):
            mean = np.array(np.broadcast_to(mean, shape))
        if self.multiplicative is not None:
            np.multiply(mean, self.multiplicative, out=mean, casting="same_kind")
        if self.additive is not None:
            np.add(mean, self.additive, out=mean, casting="same_kind")
        return mean

    def log_likelihood(self, x, counts, *, constant: bool = False) -> float | np.ndarray:
        r"""Return the Poisson log-likelihood of eq. (A2), in float64, one value per item of the batch.

        Parameters
        ----------
        x : array_like, shape (..., \*in_shape)
            Images.
        counts : array_like, shape (..., \*out_shape)
            Counts y, non-negative; they need not be integers. Leading axes broadcast with those of `x`.
        constant : bool
            Whether the term :math:`-\log y!` is added, which depends on the counts alone.

        Returns
        -------
        float, or ndarray of the batch's shape
            -inf where an impossible bin has counts.
        """
        counts = self.checked_counts(counts)
        return self._value(counts, self.expected(x), constant)

    def gradient(self, x, counts) -> np.ndarray:
        """Return the gradient of `log_likelihood` with respect to `x`, eq. (A3), shape ``(..., *in_shape)``."""
        counts = self.checked_counts(counts)
        return self._slope(counts, self.expected(x))

    def value_and_gradient(self, x, counts) -> tuple[float | np.ndarray, np.ndarray]:
        """Return `log_likelihood` (without its constant) and `gradient`, with one forward projection for both."""
        counts = self.checked_counts(counts)
        mean = self.expected(x)
        return self._value(counts, mean), self._slope(counts, mean)

    def back_projected_quotient(self, x, counts) -> np.ndarray:
        r"""Return :math:`G^\mathsf{T} A^\mathsf{T} m\,(y/\bar y)`, the numerator of the EM update; 0/0 counts as 0."""
        quotient = _quotient(self.checked_counts(counts), self.expected(x))
        return self._system.T(self._weighted(quotient))

    def sensitivity(self, dtype=np.float32) -> np.ndarray:
        """Return the sensitivity image s of eq. (A4), read-only, shape ``(*batch_shape of m, *in_shape)``.

        It is computed once for each `dtype` (float32 or float64) and kept.
        """
        dtype = np.dtype(dtype)
        if dtype not in SMALLEST_MEAN:
            raise InputError(f"dtype must be float32 or float64, but was {dtype}.")
        if dtype not in self._sensitivity:
            image = self._system.T(self._weighted(np.ones(self.out_shape, dtype)))
            image.setflags(write=False)
            self._sensitivity[dtype] = image
        return self._sensitivity[dtype]

    def impossible_bins(self, x, counts) -> np.ndarray:
        """Tell which bins have counts although their expected count is zero, bool, shape ``(..., *out_shape)``."""
        mean = self.expected(x)
        return (self.checked_counts(counts) > 0) & (mean <= SMALLEST_MEAN[mean.dtype])

    def subset(self, angle_indices) -> "AcquisitionModel":
        """Return the model of some of the angles, by a slice or by a list of indices.

        A slice makes views of the bin factors; a list copies them.

        Raises
        ------
        InputError
            The projector has no ``subset(angle_indices)``, or refuses the indices.
        """
        if not hasattr(self.operator, "subset"):
            raise InputError("operator must have a method subset(angle_indices), as RadonOperator has, to take angle "
                             f"subsets, but {self.operator!r} has none; use mlem, or n_subsets=1.")
        chosen = (..., angle_indices, *(slice(None),) * (len(self.out_shape) - 1))
        part = AcquisitionModel(self.operator.subset(angle_indices), image_operator=self.image_operator)
        # Not through the constructor, which would copy the views to make them contiguous.
        part.multiplicative = None if self.multiplicative is None else self.multiplicative[chosen]
        part.additive = None if self.additive is None else self.additive[chosen]
        return part

    def subsets(self, n_subsets: int) -> list["AcquisitionModel"]:
        """Return the models of the angle subsets of `angle_subsets`, in the order in which to use them."""
        return [self.subset(angles) for angles in angle_subsets(self.out_shape[0], n_subsets)]

    def checked_counts(self, counts) -> np.ndarray:
        """Return `counts` as a float array of the model's shape; negative, NaN or infinite counts are refused."""
        return as_float_array("counts", counts, self.out_shape, nonnegative=True)

    @property
    def _bin_axes(self) -> tuple[int, ...]:
        return tuple(range(-len(self.out_shape), 0))

    def _value(self, counts, mean, constant=False):
        """Return eq. (A2) for expected counts."""
        counted, possible = counts > 0, mean > SMALLEST_MEAN[mean.dtype]
        log_mean = np.zeros(mean.shape)
        np.log(mean, out=log_mean, where=possible)
        terms = np.multiply(counts, log_mean, dtype=np.float64)
        terms -= mean
        if not possible.all():
            terms[counted & ~possible] = -np.inf
        if constant:
            from scipy.special import gammaln

            terms -= gammaln(counts.astype(np.float64) + 1)
        value = terms.sum(axis=self._bin_axes)
        return float(value) if value.ndim == 0 else value

    def _slope(self, counts, mean):
        """Return eq. (A3) for expected counts."""
        residual = _quotient(counts, mean)
        residual -= 1
        impossible = mean <= SMALLEST_MEAN[mean.dtype]
        if impossible.any():
            impossible &= counts > 0
            residual[np.broadcast_to(impossible, residual.shape)] = 0
        return self._system.T(self._weighted(residual))

    def _weighted(self, sinogram: np.ndarray) -> np.ndarray:
        """Multiply a sinogram of one's own by m, in place where the shape allows."""
        m = self.multiplicative
        if m is None:
            return sinogram
        if np.broadcast_shapes(m.shape, sinogram.shape) != sinogram.shape:
            return (sinogram * m).astype(sinogram.dtype, copy=False)
        return np.multiply(sinogram, m, out=sinogram, casting="same_kind")


def angle_subsets(n_angles: int, n_subsets: int) -> list[slice]:
    """Return angle subsets as slices, in an order that keeps successive subsets far apart.

    Subset k holds the angles k, k + n, k + 2n, ... of n subsets, so that each covers the whole arc and their sizes
    differ by at most one; n need not divide the number of angles. The distance of two subsets is that of their
    numbers on a circle of n. The order starts with subset 0; each next one is, among those left, the farthest from
    all that were used (the largest minimum distance); of equals, the farthest from the latest, then from the one
    before it, and so on, then the lowest. For 8 subsets that is 0, 4, 2, 6, 1, 5, 3, 7. So after any number of
    subsets the angles seen so far are spread evenly over the arc, up to a factor of two in their largest gap.

    Parameters
    ----------
    n_angles, n_subsets : int
        From 1 to n_angles subsets.

    Raises
    ------
    InputError
        Counts below one, or more subsets than angles.
    """
    n_angles = as_positive_int("n_angles", n_angles)
    n_subsets = as_positive_int("n_subsets", n_subsets)
    if n_subsets > n_angles:
        raise InputError(f"n_subsets must be at most the number of angles, {n_angles}, but was {n_subsets}.")
    return [slice(k, None, n_subsets) for k in _farthest_first(n_subsets)]


@lru_cache(maxsize=64)
def _farthest_first(n: int) -> tuple[int, ...]:
    numbers = np.arange(n)
    order = [0]
    nearest = np.minimum(numbers, n - numbers)
    while len(order) < n:
        candidates = np.flatnonzero(nearest == nearest.max())
        for earlier in reversed(order):
            if candidates.size == 1:
                break
            distance = np.minimum((candidates - earlier) % n, (earlier - candidates) % n)
            candidates = candidates[distance == distance.max()]
        chosen = int(candidates[0])
        order.append(chosen)
        nearest = np.minimum(nearest, np.minimum((numbers - chosen) % n, (chosen - numbers) % n))
    return tuple(order)


def _bin_factors(name: str, value, out_shape: tuple[int, ...]) -> np.ndarray | None:
    """Return non-negative factors as a read-only array with at least the sinogram's axes."""
    if value is None:
        return None
    factors = as_float_array(name, value, nonnegative=True)
    try:
        shape = np.broadcast_shapes(factors.shape, out_shape)
    except ValueError:
        shape = ()
    if shape[-len(out_shape):] != tuple(out_shape):
        raise InputError(f"{name} must be broadcastable to (..., {', '.join(map(str, out_shape))}), "
                         f"but its shape was {factors.shape}.")
    return np.broadcast_to(factors, shape)


def _quotient(counts: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return counts over mean in a new array, 0 where the mean is zero."""
    out = np.zeros(np.broadcast_shapes(counts.shape, mean.shape), np.result_type(counts, mean))
    return np.divide(counts, mean, out=out, where=mean > SMALLEST_MEAN[mean.dtype])
