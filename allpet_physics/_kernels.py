r"""Every compiled loop over pixels and bins of the projectors, and nothing else. Inputs are trusted.

The kernels see the base rays of one `_symmetry.Pass`: steep rays, which cross every row of a transformed image. On row
r (n pixels, pixel j covering [j, j + 1]) the ray of bin edge e crosses at

.. math:: u(r, e) = u_{00} + r\,u_r + e\,u_e, \qquad u_e > 0,\ |u_r| \le 1. \tag{K1}

Eight lanes (transformed images, times slices) share each weight. Arrays of lines are ``(group, row, n + 3, 8)``.

Strip
    Let P be the running sum of a row, extended linearly between pixel edges. Within one row an edge sweeps an
    interval of width :math:`\tau = |u_r|` around u, so the mean of P over it,

    .. math:: A(u) = \frac1\tau \int_{u-\tau/2}^{u+\tau/2} P(v)\,dv, \tag{K2}

    is the exact area of the row left of the edge, in pixels. The interval holds at most one knot k of P; with
    :math:`\delta = u - k` and :math:`m` the mean of :math:`\max(v - k, 0)` it is
    :math:`A = P_k + (P_{k+1} - P_k)\,m + (P_k - P_{k-1})(\delta - m)`, and a bin is the difference of its two edges,
    summed over rows. Every area is exact: no sampling, no small-angle special case. Sums are kept in float64.

Joseph
    The row is interpolated linearly between pixel centres where the ray of the bin's centre crosses it, times the path
    length per row (Joseph 1982, IEEE TMI 1:192).

Each output value is summed by one thread in a fixed order, so results have the same bits for any number of threads.
"""

import math

import numpy as np
from numba import njit, prange

from allpet_physics._compiled import compiled
from allpet_physics._simd import (
    LANES,
    add_area_step,
    add_interpolated,
    add_lanes,
    spread_area,
    spread_interpolated,
    subtract_lanes,
)

# Contracting a·b + c into one rounding is allowed; reordering sums is not.
_FASTMATH = {"contract", "nsz", "arcp"}

#: Base angles (forward) or rows (back) that one task works on together, so that a row of lanes stays in the cache.
_BLOCK = 4
#: Side of the square of pixels that is gathered together.
_TILE = 16


@njit(fastmath=_FASTMATH, inline="always")
def _crossing_range(u0, step, low, high, n):
    """Return the half-open range of e in [0, n) with low < u0 + e·step < high, for step > 0."""
    start = min(max(0.0, math.floor((low - u0) / step) + 1.0), float(n))
    stop = min(float(n), math.ceil((high - u0) / step))
    return int(start), int(max(start, stop))


@njit(fastmath=_FASTMATH, inline="always")
def _strip_weights(u, tau, inverse):
    """Return the knot k and the two weights of eq. (K2)."""
    k = int(u + 0.5)
    delta = u - k
    part = min(max(delta + 0.5 * tau, 0.0), tau)
    m = part * part * inverse + max(delta - 0.5 * tau, 0.0)
    return k, m, delta - m


@compiled(parallel=True, fastmath=_FASTMATH)
def spread_images(images, to_image, summed, out):
    """Write the transformed images into the lanes of `out` ``(group, row, n + 3, 8)``.

    Index j + 1 holds pixel j or, where `summed`, the running sum P_j, for j = -1 … n + 1.
    """
    groups, rows, padded, _ = out.shape
    per_slice = len(to_image)
    n = padded - 3
    for task in prange(groups * rows):
        g, r = task // rows, task % rows
        line = out[g, r]
        line[:] = 0
        for lane in range(LANES):
            i = g * (LANES // per_slice) + lane // per_slice
            if i >= len(images):
                break
            a0, a1, a2, b0, b1, b2 = to_image[lane % per_slice]
            if summed:
                total = 0.0
                for c in range(n):
                    total += images[i, a0 + a1 * r + a2 * c, b0 + b1 * r + b2 * c]
                    line[c + 2, lane] = total
                line[n + 2, lane] = total
            else:
                for c in range(n):
                    line[c + 1, lane] = images[i, a0 + a1 * r + a2 * c, b0 + b1 * r + b2 * c]


@compiled(parallel=True, fastmath=_FASTMATH)
def collect_images(lines, to_lane, out):
    """Add what every lane found for a pixel to `out` ``(slice, row, col)``, tile by tile: half the lanes lie across."""
    slices, rows, cols = out.shape
    per_slice = len(to_lane)
    strips = (rows + _TILE - 1) // _TILE
    for task in prange(slices * strips):
        i, top = task // strips, task % strips * _TILE
        bottom = min(top + _TILE, rows)
        group = lines[i // (LANES // per_slice)]
        first = (i % (LANES // per_slice)) * per_slice
        tile = np.empty((_TILE, _TILE), lines.dtype)
        for left in range(0, cols, _TILE):
            right = min(left + _TILE, cols)
            tile[:] = 0
            for lane in range(per_slice):
                a0, a1, a2, b0, b1, b2 = to_lane[lane]
                for r in range(top, bottom):
                    for c in range(left, right):
                        tile[r - top, c - left] += group[a0 + a1 * r + a2 * c, b0 + b1 * r + b2 * c, first + lane]
            for r in range(top, bottom):
                for c in range(left, right):
                    out[i, r, c] += tile[r - top, c - left]


@njit(fastmath=_FASTMATH)
def _collect_angle(total, lane, reverse, row):
    """Write the bins of one angle from its pair of lanes: the second measured them from the far end."""
    n_bins = len(row)
    for b in range(n_bins):
        far = n_bins - 1 - b
        value = total[b, lane] if b <= far else total[far, lane + 1]
        row[far if reverse else b] = value


@compiled(parallel=True, fastmath=_FASTMATH)
def spread_sinograms(sinograms, angle, flipped, scale, margin, out):
    """Write scaled bins into the lanes of `out` ``(group, base, margin + bins + margin, 8)``, the margins zero."""
    groups, bases = out.shape[:2]
    n_bins = sinograms.shape[2]
    per_slice = 2 * angle.shape[1]
    for task in prange(groups * bases):
        g, q = task // bases, task % bases
        out[g, q] = 0
        for lane in range(0, LANES, 2):
            i = g * (LANES // per_slice) + lane // per_slice
            a = angle[q, lane % per_slice // 2]
            if i >= len(sinograms) or a < 0:
                continue
            for b in range(n_bins):
                far = n_bins - 1 - b
                value = sinograms[i, a, far if flipped[q, lane % per_slice // 2] else b] * scale[q]
                if b <= far:
                    out[g, q, margin + b, lane] = value
                else:
                    out[g, q, margin + far, lane + 1] = value


@compiled(parallel=True, fastmath=_FASTMATH)
def strip_forward(sums, table, angle, flipped, scale, out):
    """Write the strip projection, eq. (K2), into `out` ``(slice, angle, bin)``."""
    slices, _, n_bins = out.shape
    groups, rows, padded, _ = sums.shape
    n, half, per_slice = padded - 3, (n_bins + 1) // 2, 2 * angle.shape[1]
    blocks = (len(table) + _BLOCK - 1) // _BLOCK
    for task in prange(groups * blocks):
        g, first = task // blocks, task % blocks * _BLOCK
        last = min(first + _BLOCK, len(table))
        # Index b + 1 holds bin b; what lies left of the first edge or right of the last goes to the ends. Growth from
        # edge to edge is summed, not area, so that bins beside the object are exactly zero.
        totals = np.zeros((last - first, half + 2, LANES))
        area = np.empty((1, LANES))
        for r in range(rows):
            line = sums[g, r]
            for q in range(first, last):
                u0 = table[q, 0] + r * table[q, 1]
                ue, tau = table[q, 2], abs(table[q, 1])
                inverse = 0.5 / tau if tau > 0.0 else 0.0
                start, stop = _crossing_range(u0, ue, -0.5, n + 0.5, half + 1)
                total = totals[q - first]
                area[0] = 0.0
                for e in range(start, stop):
                    k, ahead, back = _strip_weights(u0 + e * ue, tau, inverse)
                    add_area_step(total, e, area, line, k, ahead, back)
                add_lanes(total, stop, line, n + 1)
                subtract_lanes(total, stop, area)
        for q in range(first, last):
            total = totals[q - first, 1:]
            total *= scale
            for lane in range(0, LANES, 2):
                i = g * (LANES // per_slice) + lane // per_slice
                j = lane % per_slice // 2
                if i < slices and angle[q, j] >= 0:
                    _collect_angle(total, lane, flipped[q, j], out[i, angle[q, j]])


@compiled(parallel=True, fastmath=_FASTMATH)
def strip_back(bins, table, out):
    """Write the transpose of `strip_forward` to `out` ``(group, row, n, 8)``; `bins` has one zero at either end."""
    groups, rows, n, _ = out.shape
    half = bins.shape[2] - 2
    blocks = (rows + _BLOCK - 1) // _BLOCK
    for task in prange(groups * blocks):
        g, first = task // blocks, task % blocks * _BLOCK
        last = min(first + _BLOCK, rows)
        weight = np.zeros((last - first, n + 3, LANES))
        for q in range(len(table)):
            y = bins[g, q]
            ue, tau = table[q, 2], abs(table[q, 1])
            inverse = 0.5 / tau if tau > 0.0 else 0.0
            for r in range(first, last):
                w = weight[r - first]
                u0 = table[q, 0] + r * table[q, 1]
                start, stop = _crossing_range(u0, ue, -0.5, n + 0.5, half + 1)
                for e in range(start, stop):
                    k, ahead, back = _strip_weights(u0 + e * ue, tau, inverse)
                    spread_area(w, k, y, e, ahead, back)
                add_lanes(w, n + 1, y, stop)
        # The transpose of the running sum: each pixel collects the weights of all knots behind it.
        for r in range(first, last):
            for lane in range(LANES):
                total = weight[r - first, n + 2, lane]
                for j in range(n - 1, -1, -1):
                    total += weight[r - first, j + 2, lane]
                    out[g, r, j, lane] = total


@compiled(parallel=True, fastmath=_FASTMATH)
def joseph_forward(lines, table, angle, flipped, out):
    """Write the Joseph projection into `out` ``(slice, angle, bin)``."""
    slices, _, n_bins = out.shape
    groups, rows, padded, _ = lines.shape
    n, half, per_slice = padded - 3, (n_bins + 1) // 2, 2 * angle.shape[1]
    blocks = (len(table) + _BLOCK - 1) // _BLOCK
    for task in prange(groups * blocks):
        g, first = task // blocks, task % blocks * _BLOCK
        last = min(first + _BLOCK, len(table))
        totals = np.zeros((last - first, half, LANES), lines.dtype)
        for r in range(rows):
            line = lines[g, r]
            for q in range(first, last):
                ue = table[q, 2]
                u0 = table[q, 0] + r * table[q, 1] + 0.5 * ue + 0.5  # the bin's centre; pixel j's centre is at j + 1
                start, stop = _crossing_range(u0, ue, 0.0, n + 1.0, half)
                total = totals[q - first]
                for b in range(start, stop):
                    u = u0 + b * ue
                    k = int(u)
                    add_interpolated(total, b, line, k, lines.dtype.type(u - k))
        for q in range(first, last):
            total = totals[q - first]
            total *= lines.dtype.type(table[q, 3])
            for lane in range(0, LANES, 2):
                i = g * (LANES // per_slice) + lane // per_slice
                j = lane % per_slice // 2
                if i < slices and angle[q, j] >= 0:
                    _collect_angle(total, lane, flipped[q, j], out[i, angle[q, j]])


@compiled(parallel=True, fastmath=_FASTMATH)
def joseph_back(bins, table, out):
    """Write the transpose of `joseph_forward` to `out` ``(group, row, n + 3, 8)``: index j + 1 holds pixel j."""
    groups, rows, padded, _ = out.shape
    n, half = padded - 3, bins.shape[2]
    blocks = (rows + _BLOCK - 1) // _BLOCK
    for task in prange(groups * blocks):
        g, first = task // blocks, task % blocks * _BLOCK
        last = min(first + _BLOCK, rows)
        for r in range(first, last):
            out[g, r] = 0
        for q in range(len(table)):
            y = bins[g, q]
            ue = table[q, 2]
            for r in range(first, last):
                u0 = table[q, 0] + r * table[q, 1] + 0.5 * ue + 0.5
                start, stop = _crossing_range(u0, ue, 0.0, n + 1.0, half)
                line = out[g, r]
                for b in range(start, stop):
                    u = u0 + b * ue
                    k = int(u)
                    spread_interpolated(line, k, y, b, out.dtype.type(u - k))
