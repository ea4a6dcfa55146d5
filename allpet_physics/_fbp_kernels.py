"""The compiled loop of filtered back projection. Arguments are trusted: `fbp` validates them."""

import numba as nb
import numpy as np

from allpet_physics._compiled import compiled

#: Image rows that one task accumulates: a tile of this many rows stays in the first-level cache while every filtered
#: projection passes over it. Fixed, so that the order of additions does not depend on the number of threads.
ROWS_PER_TASK = 16


@compiled(parallel=True, fastmath={"contract", "nsz", "nnan", "ninf"}, error_model="numpy")
def back_project_linear(filtered, start, row_step, col_step, scale, image):
    """Sum linearly interpolated filtered projections into every pixel.

    Parameters
    ----------
    filtered : ndarray, shape (batch, angles, extended bins)
        Filtered projections, extended so that every pixel of the image falls between two samples.
    start, row_step, col_step : ndarray, float64, shape (angles,)
        Position of pixel (0, 0) on the extended bin axis and its change per row and per column, in bins.
    scale : float
        Factor of the sum.
    image : ndarray, shape (batch, rows, cols)
        Written, every pixel.
    """
    n_batch, n_rows, n_cols = image.shape
    n_angles = filtered.shape[1]
    tiles = (n_rows + ROWS_PER_TASK - 1) // ROWS_PER_TASK
    real = image.dtype.type
    for task in nb.prange(n_batch * tiles):
        item = task // tiles
        first = (task % tiles) * ROWS_PER_TASK
        last = min(first + ROWS_PER_TASK, n_rows)
        tile = np.zeros((last - first, n_cols), image.dtype)
        for angle in range(n_angles):
            profile = filtered[item, angle]
            step = real(col_step[angle])
            for row in range(first, last):
                # The row's start is taken in float64, so that only n_cols steps round in the working precision.
                begin = real(start[angle] + row * row_step[angle])
                line = tile[row - first]
                for col in range(n_cols):
                    position = begin + real(col) * step
                    below = np.uint64(np.int64(position))  # unsigned: no test for a negative index
                    weight = position - real(below)
                    left = profile[below]
                    line[col] += left + weight * (profile[below + np.uint64(1)] - left)
        for row in range(first, last):
            for col in range(n_cols):
                image[item, row, col] = tile[row - first, col] * real(scale)
