r"""Guidance of sampling by physics: what a guide asks of the expected counts is pulled back to the latent.

At each step a sampler predicts the clean latent :math:`\hat z_0`; a decoder D gives its expected counts
:math:`\lambda = D(\hat z_0)`. A guide measures by :math:`r(\lambda) \ge 0` how far they are from what it asks, in units
in which 1 is as near as can be told (noise, tolerance), and the step against it is

.. math:: \Delta = -\zeta\, \nabla_z\, h(r(D(\hat z_0))), \qquad
   h(r) = \begin{cases} r^2/2 & r \le 1 \\ r - 1/2 & r > 1. \end{cases} \tag{GU1}

Far away this is the normalised step of diffusion posterior sampling (Chung et al. 2023, arXiv 2209.14687, algorithm 1:
ζ over the norm of the residual, times the gradient of its square); near r = 0 it shrinks with r, so that nothing is
pulled when there is nothing to pull. With z the noisy latent, the gradient runs through the denoiser too, as in that
paper; with z the clean prediction itself (the default) it costs one pass through the decoder only, as in manifold
preserving guidance (He et al. 2024, arXiv 2311.16424). Both are heuristics for the posterior, not samplers of it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

import torch

from allpet_physics.errors import InputError

Decode = Callable[[torch.Tensor], torch.Tensor]


class Guidance(ABC):
    """One demand on expected counts, with a strength ζ.

    A subclass writes `squared_residual`; a pipeline calls the object, or `guidance_step` with several.
    """

    strength: float

    @abstractmethod
    def squared_residual(self, expected: torch.Tensor) -> torch.Tensor:
        """Return r² for expected counts (batch, angle, bin), differentiable, shape (batch,)."""

    def loss(self, expected: torch.Tensor) -> torch.Tensor:
        """Return h(r) of eq. (GU1) for expected counts (batch, angle, bin), shape (batch,)."""
        squared = self.squared_residual(expected)
        return torch.where(squared <= 1, squared / 2, squared.clamp(min=1).sqrt() - 0.5)

    def __call__(self, x0: torch.Tensor, decode: Decode, wrt: torch.Tensor | None = None) -> torch.Tensor:
        """Return the step Δ of this guide alone; see `guidance_step`."""
        return guidance_step([self], x0, decode, wrt)


def as_guides(guides) -> tuple[Guidance, ...]:
    """Return a guide, or several, as a tuple; None is none.

    Raises
    ------
    InputError
        Something that is no Guidance.
    """
    several = () if guides is None else (guides,) if isinstance(guides, Guidance) else guides
    if not isinstance(several, Iterable):
        raise InputError(f"guides must be a Guidance object or several of them, but was {type(guides).__name__}.")
    several = tuple(several)
    for guide in several:
        if not isinstance(guide, Guidance):
            raise InputError(f"guides must be Guidance objects, but one was {type(guide).__name__}.")
    return several


def guidance_step(guides: Guidance | Iterable[Guidance], x0: torch.Tensor, decode: Decode,
                  wrt: torch.Tensor | None = None) -> torch.Tensor:
    r"""Return what to add to a latent so that its expected counts move towards what all guides ask, eq. (GU1).

    .. math:: \Delta = -\nabla_z \sum_g \zeta_g\, h(r_g(D(\hat z_0))) \tag{GU2}

    Parameters
    ----------
    guides : Guidance or iterable of them
        They share one pass through the decoder.
    x0 : torch.Tensor, shape (batch, channel, height, width)
        The predicted clean latent.
    decode : callable
        Latents to expected counts (batch, angle, bin), differentiable: ``autoencoder.counts``.
    wrt : torch.Tensor, optional
        The noisy latent z_t that `x0` was computed from with gradients on; the step is for z then. By default the
        step is for `x0`, which may come from ``torch.no_grad()``.

    Returns
    -------
    torch.Tensor
        Of the shape of `wrt` or `x0`, detached; samples of the batch do not mix.

    Raises
    ------
    InputError
        Something that is no Guidance, counts of another shape, an `x0` that does not depend on `wrt`.
    """
    active = [guide for guide in as_guides(guides) if guide.strength > 0]
    if not active:
        return torch.zeros_like(x0 if wrt is None else wrt)
    with torch.inference_mode(False), torch.enable_grad():
        if wrt is None:
            x0 = wrt = x0.detach().clone().requires_grad_()
        elif not (wrt.requires_grad and x0.requires_grad):
            raise InputError("wrt must require grad and x0 must have been computed from it with gradients on, but "
                             f"{'x0' if wrt.requires_grad else 'wrt'} did not require grad; leave wrt away to guide "
                             "the clean latent alone.")
        expected = decode(x0)
        if expected.ndim != 3 or len(expected) != len(x0):
            raise InputError(f"decode must return counts (batch, angle, bin) for a batch of {len(x0)}, but their shape "
                             f"was {tuple(expected.shape)}.")
        loss = sum(guide.strength * guide.loss(expected) for guide in active).sum()
        gradient, = torch.autograd.grad(loss, wrt, allow_unused=True)
    if gradient is None:
        raise InputError("x0 must depend on wrt, but no gradient came back; pass the noisy latent that x0 came from.")
    return -gradient
