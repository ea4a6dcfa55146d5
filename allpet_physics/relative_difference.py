"""The relative difference prior: smooth where the image is flat, forgiving at edges, scaled with the activity."""

import numpy as np

from allpet_physics._arrays import as_float_array, as_positive_float
from allpet_physics.errors import InputError


def relative_difference_penalty(image, *, gamma: float = 2.0, epsilon=1e-6) -> float | np.ndarray:
    r"""Return the relative difference penalty of images.

    .. math:: R(x) = \sum_{\{j,k\}} w_{jk} \frac{(x_j - x_k)^2}{x_j + x_k + \gamma |x_j - x_k| + \varepsilon},
       \tag{RD1}

    over the pairs of neighbouring pixels, each counted once: eight neighbours, w = 1 along rows and columns and
    1/√2 along diagonals. (A definition that sums over ordered pairs counts each twice; its β is half of ours.) R is
    convex, has the unit of the image, and ``R(2 x) = 2 R(x)`` for small ε.

    Parameters
    ----------
    image : array_like, shape (..., rows, cols)
        Non-negative.
    gamma : float
        γ ≥ 0: the larger, the less an edge costs.
    epsilon : float or array_like
        ε > 0 in the unit of the image, one or one per image: below it differences cost like their squares, and two
        pixels at zero are no 0/0.

    Returns
    -------
    float, or ndarray of float64 of the batch's shape

    Raises
    ------
    InputError
        Images that are negative, not finite or without two axes; γ or ε out of range.

    References
    ----------
    Nuyts et al. 2002, IEEE Trans Nucl Sci 49:56.
    """
    from allpet_physics._prior_kernels import penalty_rows

    images, epsilon, batch = _checked(image, epsilon)
    rows = np.empty(images.shape[:2])
    penalty_rows(images, as_positive_float("gamma", gamma, allow_zero=True), epsilon, rows)
    value = rows.sum(axis=1).reshape(batch)
    return float(value) if value.ndim == 0 else value


def relative_difference_gradient(image, *, gamma: float = 2.0, epsilon=1e-6) -> np.ndarray:
    """Return the gradient of `relative_difference_penalty`, shape ``(..., rows, cols)``, without a unit."""
    return relative_difference_slopes(image, gamma=gamma, epsilon=epsilon)[0]


def relative_difference_slopes(image, *, gamma: float = 2.0, epsilon=1e-6) -> tuple[np.ndarray, np.ndarray]:
    r"""Return the gradient of `relative_difference_penalty` and the diagonal of its Hessian.

    With :math:`d = x_j - x_k` and the denominator D of (RD1),

    .. math::

        \frac{\partial R}{\partial x_j} &= \sum_k w_{jk}\,
            \frac{d\,(x_j + 3 x_k + \gamma |d| + 2\varepsilon)}{D^2}, \tag{RD2} \\
        \frac{\partial^2 R}{\partial x_j^2} &= \sum_k w_{jk} \frac{2 (2 x_k + \varepsilon)^2}{D^3}. \tag{RD3}

    Parameters and errors are those of `relative_difference_penalty`; both arrays have the image's shape and dtype.
    """
    from allpet_physics._prior_kernels import penalty_slopes

    images, epsilon, batch = _checked(image, epsilon)
    gradient, curvature = np.empty_like(images), np.empty_like(images)
    penalty_slopes(images, as_positive_float("gamma", gamma, allow_zero=True), epsilon, gradient, curvature)
    shape = batch + images.shape[1:]
    return gradient.reshape(shape), curvature.reshape(shape)


def _checked(image, epsilon):
    image = as_float_array("image", image, nonnegative=True)
    if image.ndim < 2:
        raise InputError(f"image must have shape (..., rows, cols), but its shape was {image.shape}.")
    batch = image.shape[:-2]
    epsilon = np.asarray(epsilon, dtype=np.float64)
    if not (np.isfinite(epsilon).all() and (epsilon > 0).all()):
        raise InputError(f"epsilon must be finite and greater than zero, but was {epsilon!r}.")
    try:
        epsilon = np.broadcast_to(epsilon, batch).reshape(-1)
    except ValueError:
        raise InputError(f"epsilon must be one number or one per image, shape {batch}, but its shape was "
                         f"{epsilon.shape}.") from None
    return image.reshape((-1, *image.shape[-2:])), np.ascontiguousarray(epsilon), batch
