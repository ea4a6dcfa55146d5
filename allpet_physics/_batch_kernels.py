r"""The kernels of `_kernels` for many slices at once: the same weights, computed once for all slices of a group.

A group of up to `LANES` slices lies in the last axis, so that one weight meets a whole vector of values and no
gathering from memory is left. `BLOCK` angles (or lines) are worked on together, so that a line of the image (or a row
of the sinogram) is read from the cache. Each value is summed in the same order as in `_kernels`: a slice has the same
bits whether it is projected alone or in a batch.
"""

import numpy as np
from numba import njit, prange

from allpet_physics._kernels import FASTMATH, crossing_range, strip_weights

LANES = 32
BLOCK = 8


@njit(parallel=True, fastmath=FASTMATH, cache=True)
def running_sum_lanes(image, along_rows):
    """Return `_kernels.running_sums` of one group with slices last: ``(lines, n + 3, slices)``, float64."""
    slices, rows, cols = image.shape
    lines, n = (rows, cols) if along_rows else (cols, rows)
    out = np.empty((lines, n + 3, slices), np.float64)
    for r in prange(lines):
        for i in range(slices):
            total = 0.0
            out[r, 0, i] = 0.0
            out[r, 1, i] = 0.0
            for j in range(n):
                total += image[i, r, j] if along_rows else image[i, j, r]
                out[r, j + 2, i] = total
            out[r, n + 2, i] = total
    return out


@njit(parallel=True, fastmath=FASTMATH, cache=True)
def padded_line_lanes(image, along_rows):
    """Return `_kernels.padded_lines` of one group with slices last: ``(lines, n + 3, slices)``."""
    slices, rows, cols = image.shape
    lines, n = (rows, cols) if along_rows else (cols, rows)
    out = np.zeros((lines, n + 3, slices), image.dtype)
    for r in prange(lines):
        for i in range(slices):
            for j in range(n):
                out[r, j + 1, i] = image[i, r, j] if along_rows else image[i, j, r]
    return out


@njit(parallel=True, fastmath=FASTMATH, cache=True)
def strip_forward_lanes(lines, angles, table, scale, out):
    """Write the strip projection of one group at `angles` (all steep, or none) into `out` ``(slice, angle, bin)``."""
    slices, _, n_bins = out.shape
    n_lines, n = lines.shape[0], lines.shape[1] - 3
    for block in prange((len(angles) + BLOCK - 1) // BLOCK):
        first = block * BLOCK
        last = min(first + BLOCK, len(angles))
        area = np.zeros((last - first, n_bins + 1, slices))
        passed = np.zeros((last - first, n_bins + 2, slices))
        for r in range(n_lines):
            line = lines[r]
            for z in range(first, last):
                a = angles[z]
                ue = table[a, 2]
                tau = abs(table[a, 1])
                inverse = 0.5 / tau if tau > 0.0 else 0.0
                u0 = table[a, 0] + r * table[a, 1]
                total = area[z - first]
                start, stop = crossing_range(u0, ue, -0.5, n + 0.5, n_bins + 1)
                for e in range(start, stop):
                    k, m, l = strip_weights(u0 + e * ue, tau, inverse)
                    for i in range(slices):
                        p = line[k + 1, i]
                        total[e, i] += p + (line[k + 2, i] - p) * m + (p - line[k, i]) * l
                for i in range(slices):
                    if ue > 0.0:
                        passed[z - first, stop, i] += line[n + 1, i]
                    else:
                        passed[z - first, 0, i] += line[n + 1, i]
                        passed[z - first, start, i] -= line[n + 1, i]
        for z in range(first, last):
            a = angles[z]
            factor = scale if table[a, 2] > 0.0 else -scale
            for i in range(slices):
                whole = passed[z - first, 0, i]
                left = area[z - first, 0, i] + whole
                for b in range(n_bins):
                    whole += passed[z - first, b + 1, i]
                    right = area[z - first, b + 1, i] + whole
                    out[i, a, b] = (right - left) * factor
                    left = right


@njit(parallel=True, fastmath=FASTMATH, cache=True)
def strip_back_lanes(sinogram, angles, table, scale, n_lines, n, out):
    """Write the transpose at `angles` of one group ``(angle, bin, slice)`` to `out` ``(slice, line, pixel)``."""
    _, n_bins, slices = sinogram.shape
    for block in prange((n_lines + BLOCK - 1) // BLOCK):
        first = block * BLOCK
        last = min(first + BLOCK, n_lines)
        weight = np.zeros((last - first, n + 3, slices))
        left = np.empty(slices)
        for a in angles:
            ur, ue = table[a, 1], table[a, 2]
            tau = abs(ur)
            inverse = 0.5 / tau if tau > 0.0 else 0.0
            factor = scale if ue > 0.0 else -scale
            y = sinogram[a]
            for r in range(first, last):
                w = weight[r - first]
                u0 = table[a, 0] + r * ur
                start, stop = crossing_range(u0, ue, -0.5, n + 0.5, n_bins + 1)
                for i in range(slices):
                    left[i] = factor * y[start - 1, i] if 0 < start <= n_bins else 0.0
                    if ue < 0.0:
                        w[n + 1, i] -= left[i]
                for e in range(start, stop):
                    k, m, l = strip_weights(u0 + e * ue, tau, inverse)
                    inside = 1.0 if e < n_bins else 0.0
                    row = min(e, n_bins - 1)
                    for i in range(slices):
                        right = factor * y[row, i] * inside
                        g = left[i] - right
                        left[i] = right
                        before = g * l
                        behind = g * m
                        w[k, i] -= before
                        w[k + 1, i] += g + before - behind
                        w[k + 2, i] += behind
                if ue > 0.0:
                    for i in range(slices):
                        w[n + 1, i] += left[i]
        for r in range(first, last):
            for i in range(slices):
                total = weight[r - first, n + 2, i]
                for j in range(n - 1, -1, -1):
                    total += weight[r - first, j + 2, i]
                    out[i, r, j] = total


@njit(parallel=True, fastmath=FASTMATH, cache=True)
def joseph_forward_lanes(lines, angles, table, out):
    """Write the Joseph projection of one group at `angles` (all steep, or none) into `out` ``(slice, angle, bin)``."""
    slices, _, n_bins = out.shape
    n_lines, n = lines.shape[0], lines.shape[1] - 3
    for block in prange((len(angles) + BLOCK - 1) // BLOCK):
        first = block * BLOCK
        last = min(first + BLOCK, len(angles))
        total = np.zeros((last - first, n_bins, slices), out.dtype)
        for r in range(n_lines):
            line = lines[r]
            for z in range(first, last):
                a = angles[z]
                ue = table[a, 2]
                u0 = table[a, 0] + r * table[a, 1] + 0.5
                t = total[z - first]
                start, stop = crossing_range(u0, ue, 0.0, n + 1.0, n_bins)
                for b in range(start, stop):
                    u = u0 + b * ue
                    k = int(u)
                    w = out.dtype.type(u - k)
                    for i in range(slices):
                        p = line[k, i]
                        t[b, i] += p + (line[k + 1, i] - p) * w
        for z in range(first, last):
            a = angles[z]
            for i in range(slices):
                for b in range(n_bins):
                    out[i, a, b] = total[z - first, b, i] * table[a, 3]


@njit(parallel=True, fastmath=FASTMATH, cache=True)
def joseph_back_lanes(sinogram, angles, table, n_lines, n, out):
    """Write the transpose at `angles` of one group ``(angle, bin, slice)`` to `out` ``(slice, line, pixel)``."""
    _, n_bins, slices = sinogram.shape
    for block in prange((n_lines + BLOCK - 1) // BLOCK):
        first = block * BLOCK
        last = min(first + BLOCK, n_lines)
        total = np.zeros((last - first, n + 3, slices), out.dtype)
        for a in angles:
            path = out.dtype.type(table[a, 3])
            ue = table[a, 2]
            y = sinogram[a]
            for r in range(first, last):
                t = total[r - first]
                u0 = table[a, 0] + r * table[a, 1] + 0.5
                start, stop = crossing_range(u0, ue, 0.0, n + 1.0, n_bins)
                for b in range(start, stop):
                    u = u0 + b * ue
                    k = int(u)
                    w = out.dtype.type(u - k)
                    for i in range(slices):
                        value = y[b, i] * path
                        behind = value * w
                        t[k, i] += value - behind
                        t[k + 1, i] += behind
        for r in range(first, last):
            for i in range(slices):
                for j in range(n):
                    out[i, r, j] = total[r - first, j + 1, i]
