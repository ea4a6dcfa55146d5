r"""The symmetry of a sinogram: p(s, θ + π) = p(−s, θ), as exact rotation, as mirror and as padding.

With :math:`\theta_i = i\,\mathrm{arc}/n`, an image turned counter-clockwise by k steps has the sinogram

.. math:: p'(s, \theta_i) = p(s, \theta_{i-k}), \tag{S1}

where rows that leave [0, arc) come back: on an arc of π each turn around reverses s, on 2π it does not. An image
mirrored left–right (x → −x) has

.. math:: p'(s, \theta_i) = p(s, \pi - \theta_i) = p(-s, -\theta_i), \tag{S2}

which is row −i with s reversed. Both only move numbers, so they hold to the last bit. Functions take numpy arrays and
torch tensors ``(..., angle, bin)``.
"""

import operator

import numpy as np

from allpet_physics.errors import GeometryError, InputError


def rotate_sinogram(sinogram, steps: int, arc: float = np.pi):
    """Return the sinogram of the image turned counter-clockwise by `steps` angles (S1).

    Parameters
    ----------
    sinogram : ndarray or tensor, shape (..., angle, bin)
        Of any dtype.
    steps : int
        Any whole number; a turn by arc/n each.
    arc : float
        π or 2π.

    Returns
    -------
    ndarray or tensor of the same shape: a copy with the same numbers at other places.

    Raises
    ------
    InputError
        Steps that are not a whole number, a sinogram with fewer than two axes.
    GeometryError
        An arc other than π or 2π.
    """
    try:
        steps = operator.index(steps)
    except TypeError:
        raise InputError(f"steps must be a whole number of angles, but was {steps!r}; an image can be turned exactly "
                         "by multiples of arc/n_angles only.") from None
    whole, n = extended(sinogram, arc), sinogram.shape[-2]
    return whole[..., (np.arange(n) - steps) % whole.shape[-2], :]


def mirror_sinogram(sinogram, arc: float = np.pi):
    """Return the sinogram of the image mirrored left–right (S2): the patient's left to the right.

    Parameters
    ----------
    sinogram : ndarray or tensor, shape (..., angle, bin)
        Of any dtype.
    arc : float
        π or 2π.

    Returns
    -------
    ndarray or tensor of the same shape: a copy with the same numbers at other places.

    Raises
    ------
    InputError
        A sinogram with fewer than two axes.
    GeometryError
        An arc other than π or 2π.
    """
    whole, n = extended(sinogram, arc), sinogram.shape[-2]
    return reverse_bins(whole)[..., -np.arange(n) % whole.shape[-2], :]


def extended(sinogram, arc: float):
    """Return all angles of [0, 2π): on an arc of π the second half is the first with s reversed.

    Parameters
    ----------
    sinogram : ndarray or tensor, shape (..., angle, bin)
    arc : float
        π or 2π.

    Returns
    -------
    ndarray or tensor, shape (..., 2·angle, bin) on an arc of π; the sinogram itself on 2π.

    Raises
    ------
    InputError
        A sinogram with fewer than two axes.
    GeometryError
        An arc other than π or 2π.
    """
    if len(sinogram.shape) < 2:
        raise InputError(f"sinogram must have shape (..., angle, bin), but its shape was {tuple(sinogram.shape)}.")
    if not reverses_bins(arc):
        return sinogram
    both = (sinogram, reverse_bins(sinogram))
    if isinstance(sinogram, np.ndarray):
        return np.concatenate(both, axis=-2)
    import torch

    return torch.cat(both, dim=-2)


def reverses_bins(arc: float) -> bool:
    """Return whether a turn by the whole arc reverses s: on π it does, on 2π it does not.

    Raises
    ------
    GeometryError
        An arc other than π or 2π.
    """
    for allowed, reverses in ((np.pi, True), (2 * np.pi, False)):
        if abs(arc - allowed) <= 1e-6:
            return reverses
    raise GeometryError(f"arc must be pi or 2 pi (radians), but was {arc!r}.")


def reverse_bins(sinogram):
    """Return p(−s, θ) of an array or a tensor ``(..., angle, bin)``."""
    return sinogram[..., ::-1] if isinstance(sinogram, np.ndarray) else sinogram.flip(-1)


def wrap_angles(x, before: int, after: int, arc: float):
    """Return a tensor with rows of the neighbouring turns put before and after its own.

    Parameters
    ----------
    x : tensor, shape (..., angle, bin)
    before, after : int
        At most the number of angles.
    arc : float
        On π the added rows have s reversed.

    Returns
    -------
    tensor, shape (..., before + angle + after, bin)
    """
    import torch

    if not before and not after:
        return x
    n = x.shape[-2]
    head, tail = x[..., n - before:, :], x[..., :after, :]
    if reverses_bins(arc):
        head, tail = head.flip(-1), tail.flip(-1)
    return torch.cat([head, x, tail], dim=-2)
