r"""The two guides of sampling: towards the range of the Radon transform, and towards measured counts.

Both are called as ``guide(x0, decode)`` at every step and return what to add to the latent; `guidance_step` takes
several at once and states the equation.
"""

import numpy as np
import torch

from allpet_gen.guidance_step import Guidance, guidance_step
from allpet_gen.projection_layer import back_project, project
from allpet_physics._arrays import as_float_array, as_positive_float, as_positive_int
from allpet_physics.errors import GeometryError, InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.operators import LinearOperator
from allpet_physics.radon import RadonOperator

__all__ = ["Guidance", "PoissonGuidance", "RangeGuidance", "guidance_step"]

MEASURES = ("moments", "projection")

#: Expected counts below which the logarithm of the likelihood is continued by its tangent: bins that have counts but no
#: expectation pull with a finite force.
SMALLEST_MEAN = 1e-2


class RangeGuidance(Guidance):
    r"""Pull generated sinograms towards the range of the Radon transform: towards being projections of something.

    Expected counts λ are turned into line integrals :math:`p = (\lambda - b)/m` (m and b are 1 and 0 by default).

    **"moments"** takes the Helgason-Ludwig residuals ρₙ of p, eq. (HL3) of `allpet_physics.consistency`: the part of
    the moment :math:`M_n(\theta)` that is no trigonometric polynomial of degree n and parity n,

    .. math:: r^2 = \frac{1}{\tau^2} \sum_n \max(0, \rho_n - \rho_n^*)^2, \tag{RG1}

    with targets ρₙ* and a tolerance τ. It is cheap, and says what totals, centres and low moments say: angles that are
    scaled or shifted as a whole. It is blind to all that has no low moment.

    **"projection"** takes the distance to the range of a projector A,

    .. math:: \rho = \|p - A x_k\| / \|p\|, \qquad r^2 = \max(0, \rho - \rho^*)^2 / \tau^2, \tag{RG2}

    where :math:`x_k` is the least-squares image after k steps of conjugate gradients from zero (CGLS). :math:`A x_k`
    is held fixed in the gradient, so the pull is straight towards that point of the range; when converged this is the
    gradient of the distance itself, since :math:`A^\mathsf{T}(p - A x_k) = 0`. It sees every order, streaks and single
    bins, for 2k projections a step. Of sinograms in the range, k = 20 leaves ρ about 0.005, and noise alone is part of
    ρ: it is meant for expectations.

    **What is honest.** Only line integrals are in the range. Expected *prompts* are not: attenuation alone makes ρ₀
    0.1 to 0.25 at 511 keV for heads and trunks, and scatter and randoms add to it. So either give the m and b of the
    patient (then the target is 0), or give as target the ρ of real prompts of the same class, measured with
    `residual`, below which nothing is pulled. A target 0 without m and b would pull prompts away from real ones.

    Parameters
    ----------
    geometry : ParallelGeometry
    strength : float
        ζ ≥ 0 of eq. (GU1), in latent units for a change of r by one per latent unit.
    measure : {"moments", "projection"}
    orders : sequence of int
        Moments n, for "moments".
    target : float or sequence of float
        ρ*, one for all or one for each order.
    tolerance : float
        τ > 0, the excess that counts as one.
    multiplicative, additive : array_like, optional
        m > 0 and b ≥ 0, broadcastable to (batch, angle, bin).
    operator : LinearOperator, optional
        A for "projection"; the strip `RadonOperator` of the geometry by default.
    n_iterations : int
        k for "projection".

    Raises
    ------
    InputError
        A negative strength or target, an unknown measure, orders that are no sequence of numbers, factors that are not
        positive or do not fit.
    GeometryError
        An operator of another sinogram's shape.
    """

    def __init__(self, geometry: ParallelGeometry, strength: float, *, measure: str = "moments", orders=(0, 1, 2, 3),
                 target=0.0, tolerance: float = 0.01, multiplicative=None, additive=None,
                 operator: LinearOperator | None = None, n_iterations: int = 20):
        if not isinstance(geometry, ParallelGeometry):
            raise InputError(f"geometry must be a ParallelGeometry, but was {type(geometry).__name__}.")
        if measure not in MEASURES:
            raise InputError(f"measure must be one of {', '.join(MEASURES)}, but was {measure!r}.")
        self.geometry, self.measure = geometry, measure
        self.strength = as_positive_float("strength", strength, allow_zero=True)
        self.tolerance = as_positive_float("tolerance", tolerance)
        if np.ndim(orders) != 1:
            raise InputError(f"orders must be a sequence of whole numbers, such as (0, 1, 2), but was {orders!r}.")
        self.orders = tuple(as_positive_int("orders", n, minimum=0) for n in orders)
        if not self.orders or max(self.orders) + 1 >= geometry.n_angles:
            raise InputError(f"orders must be at least one, each below {geometry.n_angles - 1} for {geometry.n_angles} "
                             f"angles, but were {self.orders}.")
        self.target = as_float_array("target", target, nonnegative=True)
        if self.target.shape not in ((), (len(self.orders),) if measure == "moments" else ()):
            raise InputError("target must be one number, or with moments one for each of the orders "
                             f"{self.orders}, but was {target!r}.")
        self.multiplicative = _bins("multiplicative", multiplicative, geometry.sinogram_shape)
        self.additive = _bins("additive", additive, geometry.sinogram_shape)
        if self.multiplicative is not None and not (self.multiplicative > 0).all():
            raise InputError("multiplicative must be greater than zero in every bin, but its minimum was "
                             f"{self.multiplicative.min():g}; a dead bin has no line integral.")
        self.n_iterations = as_positive_int("n_iterations", n_iterations)
        self.operator = RadonOperator(geometry) if operator is None else operator
        if not isinstance(self.operator, LinearOperator):
            raise InputError(f"operator must be a LinearOperator, but was {type(operator).__name__}.")
        if tuple(self.operator.out_shape) != geometry.sinogram_shape:
            raise GeometryError(f"operator must give sinograms of the geometry's shape {geometry.sinogram_shape}, but "
                                f"gives {self.operator.out_shape}.")
        s = geometry.bin_centres / (geometry.fov_mm / 2)
        self._powers = np.stack([s**n for n in self.orders], axis=-1)
        self._bases = [_trigonometric_basis(geometry.angles, n) for n in self.orders]

    def residual(self, expected: torch.Tensor) -> torch.Tensor:
        """Return ρ for counts (batch, angle, bin): shape (batch, orders) for moments, (batch, 1) for projection."""
        _check_counts(expected, self.geometry.sinogram_shape)
        p = expected
        if self.additive is not None:
            p = p - self.additive.to(p)
        if self.multiplicative is not None:
            p = p / self.multiplicative.to(p)
        return self._moments(p) if self.measure == "moments" else self._distance(p)

    def squared_residual(self, expected: torch.Tensor) -> torch.Tensor:
        """Return r² of eq. (RG1) or (RG2), shape (batch,)."""
        target = torch.as_tensor(self.target).to(expected)
        return ((self.residual(expected) - target).clamp(min=0) / self.tolerance).square().sum(dim=-1)

    def _moments(self, p):
        powers = torch.as_tensor(self._powers).to(p)
        moments, sizes = p @ powers, (p.abs() @ powers.abs()).mean(dim=1)
        squared = []
        for k, basis in enumerate(self._bases):
            q = torch.as_tensor(basis).to(p)
            off = moments[..., k] - (moments[..., k] @ q) @ q.T
            squared.append(off.square().mean(dim=-1))
        return _ratio(torch.stack(squared, dim=-1), sizes.square())

    def _distance(self, p):
        with torch.no_grad():
            nearest = project(self.operator, _least_squares(self.operator, p.detach(), self.n_iterations))
        axes = (-2, -1)
        return _ratio((p - nearest).square().sum(axes), p.square().sum(axes))[:, None]


class PoissonGuidance(Guidance):
    r"""Condition generation on counts that were measured: the gradient of their Poisson likelihood.

    .. math:: \bar y = H(\lambda)/d + b, \qquad
       r^2 = \frac{2}{|\Omega|} \sum_{i \in \Omega} y_i \ln\frac{y_i}{\bar y_i} - y_i + \bar y_i, \tag{PG1}

    the deviance for each measured bin, Ω being the bins that were measured. It is minus twice the log-likelihood up to
    a constant; 0 where :math:`\bar y = y`, and about 1 for Poisson counts of their true mean (less where the mean is
    below a few counts), so r = 1 is the noise. In sparse angles Ω is those angles; for a low dose d is the dose factor.

    Below 0.01 expected counts the logarithm is continued by its tangent, so that a bin with counts but without an
    expectation pulls with a finite force.

    Parameters
    ----------
    counts : array_like or torch.Tensor, shape (angle, bin) or (batch, angle, bin)
        y ≥ 0, in the shape that `model` gives.
    strength : float
        ζ ≥ 0 of eq. (GU1).
    mask : array_like of bool, optional
        Ω, broadcastable to `counts`; all bins by default. Counts outside are not read.
    model : LinearOperator or callable, optional
        H, from decoded counts (batch, angle, bin) to those of the measurement at full dose; the identity by default. A
        callable must be differentiable.
    dose_factor : float
        d > 0: the measurement has 1/d of the counts of the decoded dose.
    additive : array_like, optional
        b ≥ 0, counts of the measurement's background that the decoded ones lack.

    Raises
    ------
    InputError
        Counts that are none, negative or not finite, a mask that is not boolean or empty, shapes that do not fit, a
        negative strength.
    """

    def __init__(self, counts, strength: float, *, mask=None, model=None, dose_factor: float = 1.0, additive=None):
        self.strength = as_positive_float("strength", strength, allow_zero=True)
        self.dose_factor = as_positive_float("dose_factor", dose_factor)
        counts = _as_numpy(counts)
        if counts.dtype.kind not in "biuf":
            raise InputError(f"counts must be an array of real numbers, but their dtype was {counts.dtype}.")
        measured = np.ones(counts.shape, bool) if mask is None else _as_numpy(mask)
        if measured.dtype != bool:
            raise InputError(f"mask must be boolean, True where counts were measured, but was {measured.dtype}.")
        try:
            measured = np.broadcast_to(measured, counts.shape)
        except ValueError:
            raise InputError(f"mask must be broadcastable to the counts' shape {counts.shape}, but its shape was "
                             f"{measured.shape}.") from None
        counts = as_float_array("counts", np.where(measured, counts, 0), nonnegative=True)
        if counts.ndim not in (2, 3) or not counts.size:
            raise InputError("counts must have shape (angle, bin) or (batch, angle, bin) with at least one of each, "
                             f"but their shape was {counts.shape}.")
        if not measured.any(axis=(-2, -1)).all():
            raise InputError("mask must leave at least one measured bin to every sinogram, but left none to one.")
        if model is not None and not callable(model):
            raise InputError(f"model must be a LinearOperator or a callable, but was {type(model).__name__}.")
        self.counts, self.mask, self.model = torch.tensor(counts), torch.tensor(measured), model
        self.additive = _bins("additive", additive, counts.shape[-2:])

    def expected(self, decoded: torch.Tensor) -> torch.Tensor:
        """Return ȳ of eq. (PG1) for decoded counts (batch, angle, bin)."""
        if self.model is None:
            mean = decoded
        else:
            linear = isinstance(self.model, LinearOperator)
            mean = project(self.model, decoded) if linear else self.model(decoded)
        mean = mean / self.dose_factor
        return mean if self.additive is None else mean + self.additive.to(mean)

    def squared_residual(self, expected: torch.Tensor) -> torch.Tensor:
        """Return the deviance for each measured bin, eq. (PG1), shape (batch,)."""
        mean = self.expected(expected)
        _check_counts(mean, tuple(self.counts.shape[-2:]))
        if self.counts.ndim == 3 and len(self.counts) not in (1, len(mean)):
            raise InputError(f"counts must be one sinogram or one for each of the batch of {len(mean)}, but were "
                             f"{len(self.counts)}.")
        y, measured = self.counts.to(mean), self.mask.to(mean.device)
        floor = mean.clamp(min=SMALLEST_MEAN)
        log_mean = floor.log() + (mean - floor) / SMALLEST_MEAN
        deviance = 2 * (torch.special.xlogy(y, y) - y * log_mean - y + mean)
        return torch.where(measured, deviance, 0).sum(dim=(-2, -1)).clamp(min=0) / measured.sum(dim=(-2, -1))


def _least_squares(operator, p, n_iterations):
    """Return the image of `n_iterations` steps of CGLS from zero (Hestenes & Stiefel 1952), slice by slice."""
    def dot(a):
        return a.square().sum(dim=(-2, -1), keepdim=True)

    r, s = p, back_project(operator, p)
    x, direction, size = torch.zeros_like(s), s, dot(s)
    tiny = torch.finfo(p.dtype).tiny
    for _ in range(n_iterations):
        q = project(operator, direction)
        step = size / dot(q).clamp(min=tiny)
        x, r = x + step * direction, r - step * q
        s = back_project(operator, r)
        size, before = dot(s), size
        direction = s + size / before.clamp(min=tiny) * direction
    return x


def _ratio(squared, scale):
    """Return the root of squared/scale, with the gradient zero at zero, where the root has none."""
    tiny = torch.finfo(squared.dtype).tiny
    squared = squared / scale.clamp(min=tiny**0.5)
    return torch.where(squared > tiny, squared.clamp(min=tiny).sqrt(), 0 * squared)


def _trigonometric_basis(angles, n):
    """Return an orthonormal basis of the polynomials of degree n in cos θ and sin θ, eq. (HL2), (angles, n + 1)."""
    k = np.arange(n + 1)
    return np.linalg.qr(np.cos(angles)[:, np.newaxis] ** k * np.sin(angles)[:, np.newaxis] ** (n - k))[0]


def _as_numpy(array):
    if not isinstance(array, torch.Tensor):
        return np.asarray(array)
    array = array.detach().cpu()
    return (array.float() if array.dtype == torch.bfloat16 else array).numpy()  # NumPy has no bfloat16


def _bins(name, value, shape):
    if value is None:
        return None
    value = as_float_array(name, _as_numpy(value), nonnegative=True)
    try:
        fits = np.broadcast_shapes(value.shape, shape)[-2:] == tuple(shape)
    except ValueError:
        fits = False
    if not fits:
        raise InputError(f"{name} must be broadcastable to (batch, {shape[0]}, {shape[1]}), but its shape was "
                         f"{value.shape}.")
    return torch.tensor(value)


def _check_counts(counts, shape):
    if counts.ndim != 3 or tuple(counts.shape[1:]) != tuple(shape):
        raise InputError(f"expected counts must have shape (batch, {shape[0]}, {shape[1]}), but their shape was "
                         f"{tuple(counts.shape)}; decode with the geometry that the guidance was made for.")
