r"""What must hold between the channels of a composite: the positive/negative (PN) mask constraints.

The paper's PN term (M9) compares two expressions that are equal by construction, so on data it is identically zero.
It says something only about decoded channels :math:`\hat C_+, \hat S, \hat C_-`, and is meant for those here.
"""

import numpy as np

from allpet_physics._arrays import as_float_array
from allpet_physics.errors import InputError


def pn_residual(channels, mask=None) -> np.ndarray:
    r"""Return how far decoded channels are from being the composite of a sinogram with a mask.

    With a mask the residual is

    .. math:: \|\hat C_+ - \hat M \hat S\|^2 + \|\hat C_- - (1 - \hat M) \hat S\|^2, \tag{PN1}

    without one it is :math:`\|\hat C_+ + \hat C_- - \hat S\|^2`, which needs no mask because the parts of any mask add
    up. Both are divided by :math:`\|\hat S\|^2`: 0 for a perfect composite, about 1 for unrelated channels.

    Parameters
    ----------
    channels : array_like, shape (..., 3, angle, bin)
        [C₊, S, C₋] as `composite` stacks them.
    mask : array_like, shape (..., angle, bin), optional
        The normalised mask M̂ in [0, 1].

    Returns
    -------
    ndarray of float64, shape (...)
        The residual of each composite; NaN where S is zero everywhere.

    Raises
    ------
    InputError
        An array without three channels, a mask that does not fit or is outside [0, 1].
    """
    c = as_float_array("channels", channels).astype(np.float64, copy=False)
    if c.ndim < 3 or c.shape[-3] != 3:
        raise InputError(f"channels must have shape (..., 3, angle, bin), but their shape was {c.shape}.")
    positive, s, negative = np.moveaxis(c, -3, 0)
    if mask is None:
        residual = _sum_of_squares(positive + negative - s)
    else:
        m = as_float_array("mask", mask, c.shape[-2:])
        if m.size and (m.min() < 0 or m.max() > 1):
            raise InputError(f"mask must be normalised to [0, 1], but its range was [{m.min():g}, {m.max():g}]; "
                             "use normalise_mask first.")
        try:
            m = np.broadcast_to(m, s.shape)
        except ValueError:
            raise InputError(f"mask must broadcast to one per composite, {s.shape}, but was {m.shape}.") from None
        residual = _sum_of_squares(positive - m * s) + _sum_of_squares(negative - (1 - m) * s)
    norm = _sum_of_squares(s)
    return np.divide(residual, norm, out=np.full_like(norm, np.nan), where=norm > 0)


def _sum_of_squares(a):
    return np.sum(np.square(a), axis=(-2, -1))
