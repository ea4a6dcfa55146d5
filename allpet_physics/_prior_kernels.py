"""The compiled loops of the relative difference prior. Arguments are trusted: `relative_difference` validates them."""

import numba as nb
import numpy as np

from allpet_physics._compiled import compiled

_DIAGONAL = 1 / np.sqrt(2)


@compiled(parallel=True, fastmath={"contract", "nsz"}, error_model="numpy")
def penalty_rows(images, gamma, epsilon, rows):
    """Write the penalty of the pairs that each row forms with itself and the next, float64, shape (batch, rows)."""
    n_batch, n_rows, n_cols = images.shape
    for task in nb.prange(n_batch * n_rows):
        item, row = task // n_rows, task % n_rows
        total = 0.0
        for down in range(min(2, n_rows - row)):
            for right in range(-1 if down else 1, 2):  # right; then lower left, below, lower right
                weight = _DIAGONAL if down and right else 1.0
                here, there = images[item, row], images[item, row + down]
                for col in range(max(0, -right), n_cols - max(0, right)):
                    a, b = np.float64(here[col]), np.float64(there[col + right])
                    d = a - b
                    total += weight * d * d / (a + b + gamma * abs(d) + epsilon[item])
        rows[item, row] = total


@compiled(parallel=True, fastmath={"contract", "nsz"}, error_model="numpy")
def penalty_slopes(images, gamma, epsilon, gradient, curvature):
    """Write the gradient and the diagonal of the Hessian, both of the shape of `images`."""
    n_batch, n_rows, n_cols = images.shape
    real = images.dtype.type
    for task in nb.prange(n_batch * n_rows):
        item, row = task // n_rows, task % n_rows
        first, second, here = gradient[item, row], curvature[item, row], images[item, row]
        e, g, two, three = real(epsilon[item]), real(gamma), real(2), real(3)
        first[:] = 0
        second[:] = 0
        for down in range(-1 if row > 0 else 0, 2 if row < n_rows - 1 else 1):
            there = images[item, row + down]
            for right in range(-1, 2):
                if down == 0 and right == 0:
                    continue
                weight = real(_DIAGONAL if down and right else 1.0)
                for col in range(max(0, -right), n_cols - max(0, right)):
                    a, b = here[col], there[col + right]
                    d = a - b
                    size = abs(d)
                    over = real(1) / (a + b + g * size + e)
                    first[col] += weight * d * (a + three * b + g * size + two * e) * over * over
                    half = (two * b + e) * over
                    second[col] += weight * two * half * half * over
