r"""Compiled loops that project rectangles and binary masks, bin by bin, without visiting the image. Inputs are trusted.

Lengths across the rays are in bins. A rectangle seen at angle θ has projected sides :math:`A \ge B`; its profile is a
box of length A averaged over a window of length B (a trapezoid), of height area/A. Everything is built from the mean
over that window of a power of the positive part, which has no small-angle special case:

.. math:: m_j(z) = \frac1B \int_{z-B/2}^{z+B/2} \frac{\max(u, 0)^j}{j!}\,du. \tag{B1}

The profile at distance v from the centre is :math:`m_0(v + A/2) - m_0(v - A/2)`; its integral replaces m₀ by m₁, the
integral of that by m₂.

Each output value is computed by one thread in a fixed order: the same bits for any number of threads.
"""

import math

import numpy as np
from numba import njit, prange

from allpet_physics._compiled import compiled

# As in `_kernels`; no value here can be NaN, and saying so lets minima and maxima become vector instructions.
_FASTMATH = {"contract", "nsz", "arcp", "nnan"}

LINE, LINEAR, GAUSSIAN = 0, 1, 2

_ANGLES_AT_ONCE = 16

#: A Gaussian further than this many standard deviations away adds less than 1e-15 of the profile.
_GAUSSIAN_REACH = 8.0


@njit(fastmath=_FASTMATH, inline="always")
def _m1(z, window, inverse):
    """Return m₁ of eq. (B1); `inverse` is 1/(2B), or 0 where B is 0."""
    upper = z + 0.5 * window
    lower = z - 0.5 * window
    part = upper if upper > 0.0 else 0.0
    part = part if part < window else window
    return part * part * inverse + (lower if lower > 0.0 else 0.0)


@njit(fastmath=_FASTMATH)
def _m0(z, window):
    """Return m₀ of eq. (B1): a step, spread over the window; one half at a step without width."""
    if window > 0.0:
        return min(max(z / window + 0.5, 0.0), 1.0)
    return 0.5 if z == 0.0 else (1.0 if z > 0.0 else 0.0)


@njit(fastmath=_FASTMATH)
def _m2(z, window):
    """Return m₂ of eq. (B1)."""
    if z >= 0.5 * window:
        return 0.5 * z * z + window * window / 24.0
    upper = z + 0.5 * window
    return upper * upper * upper / (6.0 * window) if upper > 0.0 else 0.0


@njit(fastmath=_FASTMATH)
def _gaussian_step(z, window, sigma):
    """Return the mean over the window of the normal distribution function, m₀ convolved with a Gaussian."""
    if window < 0.1 * sigma:
        # Three Gauss-Legendre points: the error is below (B/σ)⁶/2e6, where differences would lose digits.
        node = 0.5 * window * math.sqrt(0.6)
        return (5.0 * _normal(z - node, sigma) + 8.0 * _normal(z, sigma) + 5.0 * _normal(z + node, sigma)) / 18.0
    upper, lower = z + 0.5 * window, z - 0.5 * window
    return (_normal_integral(upper, sigma) - _normal_integral(lower, sigma)) / window


@njit(fastmath=_FASTMATH)
def _normal(z, sigma):
    return 0.5 * math.erfc(-z / (sigma * math.sqrt(2.0)))


@njit(fastmath=_FASTMATH)
def _normal_integral(z, sigma):
    density = math.exp(-0.5 * (z / sigma) ** 2) / math.sqrt(2.0 * math.pi)
    return z * _normal(z, sigma) + sigma * density


@njit(fastmath=_FASTMATH, inline="always")
def _footprint(block, rows, cols, pixel, width, cos, sin):
    """Return the centre (bins from the origin), A, B (bins) and the height (mm) of a block's profile."""
    x = block[1] + 0.5 * block[3] - 0.5 * cols
    y = 0.5 * rows - block[0] - 0.5 * block[2]
    along, across = abs(block[3] * cos), abs(block[2] * sin)
    long, short = max(along, across), min(along, across)
    unit = pixel / width
    return (x * cos + y * sin) * unit, long * unit, short * unit, block[2] * block[3] * pixel / long


@compiled(parallel=True, fastmath=_FASTMATH)
def blocks_strip(parameters, offsets, image_shape, pixel, width, cos, sin, out, largest):
    """Write the mean over each bin of the profiles of each set into `out` ``(set, angle, bin)``.

    `largest` ``(set, angle)`` receives the greatest value of each row.
    """
    sets, n_angles, n_bins = out.shape
    rows, cols = image_shape
    strips = (n_angles + _ANGLES_AT_ONCE - 1) // _ANGLES_AT_ONCE
    for task in prange(sets * strips):
        i, start = task // strips, task % strips * _ANGLES_AT_ONCE
        left = np.empty(n_bins + 1)
        for a in range(start, min(start + _ANGLES_AT_ONCE, n_angles)):
            row = out[i, a]
            row[:] = 0
            top = 0.0
            for n in range(offsets[i], offsets[i + 1]):
                centre, long, short, height = _footprint(parameters[n], rows, cols, pixel, width, cos[a], sin[a])
                middle = centre + 0.5 * n_bins
                reach = 0.5 * (long + short)
                first = max(0, math.floor(middle - reach))
                last = min(n_bins, math.ceil(middle + reach))
                if first >= last:
                    continue
                inverse = 0.5 / short if short > 0.0 else 0.0
                # Left of the centre only the near ramp counts; right of it the profile is what its mirror image leaves.
                # So the area is exactly 0 before the block, exactly A behind it, and never falls in between.
                for e in range(last + 1 - first):
                    v = e + (first - middle)
                    near = _m1(0.5 * long - abs(v), short, inverse)
                    left[e] = long - near if v > 0.0 else near
                for b in range(last - first):
                    row[first + b] += (left[b + 1] - left[b]) * height
                for b in range(first, last):
                    top = row[b] if row[b] > top else top
            largest[i, a] = top


@compiled(parallel=True, fastmath=_FASTMATH)
def blocks_kernel(parameters, offsets, image_shape, pixel, width, cos, sin, kind, spread, out):
    """Write the profiles of each set at the bins' centres, smoothed by a kernel of size `spread` (bins)."""
    sets, n_angles, n_bins = out.shape
    rows, cols = image_shape
    for task in prange(sets * n_angles):
        i, a = task // n_angles, task % n_angles
        total = np.zeros(n_bins)
        for n in range(offsets[i], offsets[i + 1]):
            centre, long, short, height = _footprint(parameters[n], rows, cols, pixel, width, cos[a], sin[a])
            middle = centre + 0.5 * (n_bins - 1)
            reach = 0.5 * (long + short)
            if kind == LINEAR:
                reach += spread
            elif kind == GAUSSIAN:
                reach += _GAUSSIAN_REACH * spread
            for b in range(max(0, math.ceil(middle - reach)), min(n_bins, math.floor(middle + reach) + 1)):
                ahead, behind = b - middle + 0.5 * long, b - middle - 0.5 * long
                if kind == LINE:
                    value = _m0(ahead, short) - _m0(behind, short)
                elif kind == LINEAR:
                    value = (_m2(ahead + spread, short) - 2.0 * _m2(ahead, short) + _m2(ahead - spread, short)
                             - _m2(behind + spread, short) + 2.0 * _m2(behind, short) - _m2(behind - spread, short))
                    value /= spread * spread
                else:
                    value = _gaussian_step(ahead, short, spread) - _gaussian_step(behind, short, spread)
                # A difference of equal tails may come out at -1e-15; a path length may not.
                total[b] += max(value, 0.0) * height
        for b in range(n_bins):
            out[i, a, b] = total[b]


@compiled()
def run_ends(masks, along_rows):
    """Return the ends of the runs of ones: ``(line, position, sign)`` and the offsets of each mask."""
    count, rows, cols = masks.shape
    lines, n = (rows, cols) if along_rows else (cols, rows)
    offsets = np.zeros(count + 1, np.int64)
    for stage in range(2):
        if stage == 1:
            ends = np.empty((offsets[-1], 3), np.int32)
        k = 0
        for i in range(count):
            for r in range(lines):
                before = False
                for j in range(n + 1):
                    now = j < n and (masks[i, r, j] if along_rows else masks[i, j, r])
                    if now != before:
                        if stage == 1:
                            ends[k, 0], ends[k, 1], ends[k, 2] = r, j, 1 if now else -1
                        k += 1
                        before = now
            offsets[i + 1] = k
    return ends, offsets


@compiled(parallel=True, fastmath=_FASTMATH)
def runs_strip(row_ends, row_offsets, col_ends, col_offsets, image_shape, pixel, width, cos, sin, out):
    """Write the strip projection of binary masks into `out` ``(mask, angle, bin)`` from the ends of their runs.

    A run is a rectangle one pixel high: a step up at its start and a step down at its end, each spread over the
    window B. Beyond the window a step fills whole bins, which are counted in integers, so that bins away from the mask
    are exactly zero.
    """
    count, n_angles, n_bins = out.shape
    rows, cols = image_shape
    unit = pixel / width
    for task in prange(count * n_angles):
        i, a = task // n_angles, task % n_angles
        c, s = cos[a], sin[a]
        steep = abs(c) >= abs(s)
        ends, offsets = (row_ends, row_offsets) if steep else (col_ends, col_offsets)
        window = min(abs(c), abs(s)) * unit
        inverse = 0.5 / window if window > 0.0 else 0.0
        # s grows with the column where cos > 0, and against the row where sin > 0.
        sense = 1 if (c > 0.0 if steep else s < 0.0) else -1
        partial = np.zeros(n_bins)
        whole = np.zeros(n_bins + 1, np.int64)
        for n in range(offsets[i], offsets[i + 1]):
            line, position, sign = ends[n, 0], ends[n, 1], ends[n, 2] * sense
            if steep:
                x, y = position - 0.5 * cols, 0.5 * rows - line - 0.5
            else:
                x, y = line + 0.5 - 0.5 * cols, 0.5 * rows - position
            middle = (x * c + y * s) * unit + 0.5 * n_bins
            first = max(0, math.floor(middle - 0.5 * window))
            last = min(n_bins, max(0, math.ceil(middle + 0.5 * window)))
            if first < last:
                left = _m1(first - middle, window, inverse)
                for b in range(first, last):
                    right = _m1(b + 1 - middle, window, inverse)
                    partial[b] += sign * (right - left)
                    left = right
            whole[last] += sign
        length = pixel / max(abs(c), abs(s))
        filled = 0
        for b in range(n_bins):
            filled += whole[b]
            # Parts that cancel may leave -1e-16; a path length may not.
            out[i, a, b] = max(partial[b] + filled, 0.0) * length


@compiled(parallel=True, fastmath={"nsz", "arcp"})
def composite_product(sinograms, scale, out):
    """Turn masks standing in ``out[:, 0]`` into [M̂·S, S, (1 - M̂)·S], M̂ = min(mask / scale, 1).

    The positive channel is what the negative one leaves, so that the two add up to S exactly.
    """
    count, _, n_angles, n_bins = out.shape
    for task in prange(count * n_angles):
        i, a = task // n_angles, task % n_angles
        divisor = out.dtype.type(scale[i]) if scale[i] > 0.0 else out.dtype.type(1.0)
        for b in range(n_bins):
            s = out.dtype.type(sinograms[i, a, b])
            m = out[i, 0, a, b] / divisor
            m = m if m < 1 else out.dtype.type(1.0)  # a quotient may also round to just above 1
            rest = s - m * s
            out[i, 0, a, b] = s - rest
            out[i, 1, a, b] = s
            out[i, 2, a, b] = rest
