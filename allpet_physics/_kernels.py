r"""Every compiled loop over pixels and bins, and nothing else. Inputs are trusted: the public doors validate.

All kernels share one description of an angle. A ray is followed along the image axis that it crosses most steeply:
rows when :math:`|\cos\theta| \ge |\sin\theta|`, columns otherwise. On line r of that axis (a row or a column, n pixels
long, pixel j covering [j, j+1]) the ray with bin index e crosses at

.. math:: u(r, e) = u_{00} + r\,u_r + e\,u_e. \tag{K1}

`angle_table` gives :math:`u_{00}, u_r, u_e` once for bin edges (strip) and once for bin centres (Joseph).

Strip
    Let P be the running sum of a line, extended linearly between pixel edges. Within one line an edge sweeps an
    interval of width :math:`\tau = |u_r| \le 1` around u, so the mean of P over it,

    .. math:: A(u) = \frac1\tau \int_{u-\tau/2}^{u+\tau/2} P(v)\,dv, \tag{K2}

    is the exact area of the line left of the edge, in pixels. The interval holds at most one knot k of P; with
    :math:`\delta = u - k` and :math:`m = \overline{\max(v - k, 0)}` it is
    :math:`A = P_k + (P_{k+1} - P_k)\,m + (P_k - P_{k-1})(\delta - m)`, and a bin is the difference of its two edges,
    summed over lines. Every area is exact: no sampling, no small-angle special case.

Joseph
    The line is interpolated linearly between pixel centres at u (Joseph 1982), times the path length per line.

Each output value is summed by one thread in a fixed order, so results have the same bits for any number of threads.
Back projections repeat the forward weights, transposed.
"""

import math

import numpy as np
from numba import njit, prange

# Contracting a*b + c into one rounding is allowed; reordering sums is not: results must not depend on the machine.
FASTMATH = {"contract", "nsz", "arcp"}


@njit(fastmath=FASTMATH, inline="always")
def crossing_range(u0, step, low, high, n):
    """Return the half-open range of e in [0, n) with low < u0 + e·step < high, for any sign of step."""
    first = (low - u0) / step
    last = (high - u0) / step
    if first > last:
        first, last = last, first
    start = min(max(0.0, math.floor(first) + 1.0), float(n))
    stop = min(float(n), math.ceil(last))
    return int(start), int(max(start, stop))


@njit(fastmath=FASTMATH, inline="always")
def strip_weights(u, tau, inverse):
    """Return the knot k and the weights of eq. (K2): A = P_k + (P_{k+1} - P_k)·m + (P_k - P_{k-1})·l."""
    k = int(u + 0.5)
    delta = u - k
    part = min(max(delta + 0.5 * tau, 0.0), tau)
    m = part * part * inverse + max(delta - 0.5 * tau, 0.0)
    return k, m, delta - m


@njit(parallel=True, fastmath=FASTMATH, cache=True)
def running_sums(image, along_rows):
    """Return P of every line, float64 ``(batch, lines, n + 3)``, with index k + 1 holding P_k for k = -1 … n + 1."""
    batch, rows, cols = image.shape
    lines, n = (rows, cols) if along_rows else (cols, rows)
    out = np.empty((batch, lines, n + 3), np.float64)
    for task in prange(batch * lines):
        b, r = task // lines, task % lines
        total = 0.0
        out[b, r, 0] = 0.0
        out[b, r, 1] = 0.0
        for j in range(n):
            total += image[b, r, j] if along_rows else image[b, j, r]
            out[b, r, j + 2] = total
        out[b, r, n + 2] = total
    return out


@njit(parallel=True, fastmath=FASTMATH, cache=True)
def padded_lines(image, along_rows):
    """Return the lines with one zero before and two behind: index k + 1 holds pixel k, ``(batch, lines, n + 3)``."""
    batch, rows, cols = image.shape
    lines, n = (rows, cols) if along_rows else (cols, rows)
    out = np.zeros((batch, lines, n + 3), image.dtype)
    for task in prange(batch * lines):
        b, r = task // lines, task % lines
        for j in range(n):
            out[b, r, j + 1] = image[b, r, j] if along_rows else image[b, j, r]
    return out


@njit(parallel=True, fastmath=FASTMATH, cache=True)
def strip_forward(row_sums, col_sums, steep, table, scale, out):
    """Write the strip projection, eq. (K2), into `out` ``(batch, angle, bin)``."""
    batch, n_angles, n_bins = out.shape
    for task in prange(batch * n_angles):
        i, a = task // n_angles, task % n_angles
        sums = row_sums[i] if steep[a] else col_sums[i]
        n = sums.shape[1] - 3
        u00, ur, ue = table[a, 0], table[a, 1], table[a, 2]
        tau = abs(ur)
        inverse = 0.5 / tau if tau > 0.0 else 0.0
        area = np.zeros(n_bins + 1)
        # Edges beyond the far end of a line have its whole sum on their left; only the first of them is marked.
        passed = np.zeros(n_bins + 2)
        for r in range(sums.shape[0]):
            line = sums[r]
            u0 = u00 + r * ur
            start, stop = crossing_range(u0, ue, -0.5, n + 0.5, n_bins + 1)
            for e in range(start, stop):
                k, m, l = strip_weights(u0 + e * ue, tau, inverse)
                p = line[k + 1]
                area[e] += p + (line[k + 2] - p) * m + (p - line[k]) * l
            if ue > 0.0:
                passed[stop] += line[n + 1]
            else:
                passed[0] += line[n + 1]
                passed[start] -= line[n + 1]
        factor = scale if ue > 0.0 else -scale
        whole = passed[0]
        left = area[0] + whole
        for b in range(n_bins):
            whole += passed[b + 1]
            right = area[b + 1] + whole
            out[i, a, b] = (right - left) * factor
            left = right


@njit(parallel=True, fastmath=FASTMATH, cache=True)
def strip_back(sinogram, steep, wanted, table, scale, lines, n, out):
    """Add the transpose of `strip_forward` over angles with ``steep == wanted`` to `out` ``(batch, lines, n)``."""
    batch, n_angles, n_bins = sinogram.shape
    for task in prange(batch * lines):
        i, r = task // lines, task % lines
        weight = np.zeros(n + 3)
        for a in range(n_angles):
            if steep[a] != wanted:
                continue
            y = sinogram[i, a]
            u00, ur, ue = table[a, 0], table[a, 1], table[a, 2]
            tau = abs(ur)
            inverse = 0.5 / tau if tau > 0.0 else 0.0
            factor = scale if ue > 0.0 else -scale
            u0 = u00 + r * ur
            start, stop = crossing_range(u0, ue, -0.5, n + 0.5, n_bins + 1)
            left = factor * y[start - 1] if 0 < start <= n_bins else 0.0
            if ue < 0.0:
                weight[n + 1] -= left
            for e in range(start, stop):
                right = factor * y[e] if e < n_bins else 0.0
                g = left - right
                left = right
                k, m, l = strip_weights(u0 + e * ue, tau, inverse)
                before = g * l
                behind = g * m
                weight[k] -= before
                weight[k + 1] += g + before - behind
                weight[k + 2] += behind
            if ue > 0.0:
                weight[n + 1] += left
        # The transpose of the running sum: each pixel collects the weights of all knots behind it.
        total = weight[n + 2]
        for j in range(n - 1, -1, -1):
            total += weight[j + 2]
            out[i, r, j] = total


@njit(parallel=True, fastmath=FASTMATH, cache=True)
def joseph_forward(row_lines, col_lines, steep, table, out):
    """Write the Joseph projection into `out` ``(batch, angle, bin)``."""
    batch, n_angles, n_bins = out.shape
    for task in prange(batch * n_angles):
        i, a = task // n_angles, task % n_angles
        lines = row_lines[i] if steep[a] else col_lines[i]
        n = lines.shape[1] - 3
        u00, ur, ue, path = table[a, 0], table[a, 1], table[a, 2], table[a, 3]
        total = np.zeros(n_bins, out.dtype)
        for r in range(lines.shape[0]):
            line = lines[r]
            u0 = u00 + r * ur + 0.5
            start, stop = crossing_range(u0, ue, 0.0, n + 1.0, n_bins)
            for b in range(start, stop):
                u = u0 + b * ue
                k = int(u)
                p = line[k]
                total[b] += p + (line[k + 1] - p) * out.dtype.type(u - k)
        for b in range(n_bins):
            out[i, a, b] = total[b] * path


@njit(parallel=True, fastmath=FASTMATH, cache=True)
def joseph_back(sinogram, steep, wanted, table, lines, n, out):
    """Write the transpose of `joseph_forward` over angles with ``steep == wanted`` to `out` ``(batch, lines, n)``."""
    batch, n_angles, n_bins = sinogram.shape
    for task in prange(batch * lines):
        i, r = task // lines, task % lines
        total = np.zeros(n + 3, out.dtype)
        for a in range(n_angles):
            if steep[a] != wanted:
                continue
            y = sinogram[i, a]
            u00, ur, ue = table[a, 0], table[a, 1], table[a, 2]
            path = out.dtype.type(table[a, 3])
            u0 = u00 + r * ur + 0.5
            start, stop = crossing_range(u0, ue, 0.0, n + 1.0, n_bins)
            for b in range(start, stop):
                u = u0 + b * ue
                k = int(u)
                value = y[b] * path
                behind = value * out.dtype.type(u - k)
                total[k] += value - behind
                total[k + 1] += behind
        for j in range(n):
            out[i, r, j] = total[j + 1]
