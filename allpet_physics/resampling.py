r"""Sinograms of one size made into sinograms of another: views, bins, spacing, arc and field of view.

Both axes are remapped conservatively. Within a cell (a bin, or a view with half the way to its neighbours) of average
a the data are a parabola

.. math:: f(\xi) = a + d\,(\xi - \tfrac12) + c\,(\xi - \xi^2 - \tfrac16), \qquad 0 \le \xi \le 1, \tag{RS1}

with :math:`d = e_+ - e_-`, :math:`c = 6a - 3(e_+ + e_-)` from sixth-order values e at the cell's two edges

.. math:: e_{j+1/2} = \tfrac{37}{60}(a_j + a_{j+1}) - \tfrac{8}{60}(a_{j-1} + a_{j+2})
   + \tfrac{1}{60}(a_{j-2} + a_{j+3}), \tag{RS2}

and a cell of the target takes the integral of f over it, so every count is in exactly one cell (Colella & Woodward
1984, J Comput Phys 54:174, without their monotone limiter). Where f would fall below zero within a cell it is drawn
towards its average by the largest factor that keeps it positive,

.. math:: f \leftarrow a + \theta\,(f - a), \qquad \theta = \min\{1, a / (a - \min f)\}, \tag{RS3}

which keeps the cell's total and the order of accuracy (Zhang & Shu 2010, J Comput Phys 229:3091).

A bin is a mean over its width already; a view is a sample at one angle. So views become means over their cells first,
:math:`\bar p_j = p_j + (p_{j+1} - 2 p_j + p_{j-1})/24`, and samples again after the remapping, by the inverse to fourth
order, in the form of fluxes between neighbours that never take more than half of what a view has for each side.
"""

import numpy as np

from allpet_physics._arrays import as_float_array, as_positive_float
from allpet_physics.errors import GeometryError, InputError
from allpet_physics.geometry import ParallelGeometry

KINDS = ("counts", "line-integrals")

_VALUES_AT_ONCE = 2**19


def resample_sinogram(sinogram, source: ParallelGeometry, target: ParallelGeometry, *, kind: str = "counts",
                      max_lost: float = 1e-3) -> np.ndarray:
    r"""Return a sinogram on the views and bins of another geometry.

    Sinograms continue beyond their arc by :math:`p(\theta + \pi, s) = p(\theta, -s)`, so no view is at a border. The
    image grids of both geometries are free.

    - ``"counts"``: the same scan on another grid. The sum over the sinogram is kept, and every value stays at or above
      zero. A view of :math:`n_t` holds :math:`n_s/n_t` of the counts of a view of :math:`n_s`. Over 2π every line of
      response has two opposing views, which share its counts: going from π to 2π halves a view's counts,
      going from 2π to π adds opposing views. Beyond the source's bins there are no counts.
    - ``"line-integrals"``: the same object on another grid. Values are kept (means over a bin, in u·mm); opposing views
      are equal. The map is linear, so values may be negative, and undershoot a little beside sharp edges.

    Expected counts are resampled, not drawn ones: Poisson counts on the new grid come from drawing after resampling
    (`poisson_counts`). Drawn counts that are resampled keep their expectation and their total, but are no longer
    Poisson, integer or independent; only adding opposing views of equal angles, or whole bins, keeps them so.

    With ``"counts"``, the map of a sum is the sum of the maps except where eq. (RS3) or its counterpart for views holds
    values above zero, that is, beside sharp edges to zero.

    Parameters
    ----------
    sinogram : array_like, shape (..., source.n_angles, source.n_bins)
        Counts, or line integrals in u·mm. Counts must not be negative.
    source, target : ParallelGeometry
        Of `sinogram`, and of the result.
    kind : {"counts", "line-integrals"}
    max_lost : float
        The largest part of a sinogram (of its absolute values) that may lie beyond the bins of `target`, 0 to 1.

    Returns
    -------
    ndarray, shape (..., target.n_angles, target.n_bins)
        float64 if `sinogram` is, float32 otherwise. A copy, bit for bit, where the grids are equal.

    Raises
    ------
    InputError
        An unknown kind, values that are negative (counts), NaN or infinite, or of another shape than the source's.
    GeometryError
        A target whose bins do not reach as far as the object: the message says what would be lost and what holds it.
    """
    _check(source, target, kind)
    lost = as_positive_float("max_lost", max_lost, allow_zero=True)
    y = as_float_array("sinogram", sinogram, source.sinogram_shape, nonnegative=kind == "counts")
    batch = y.shape[:-2]
    y = y.reshape((-1, *source.sinogram_shape))
    _refuse_cut(y, source, target, lost)
    out = np.empty((len(y), *target.sinogram_shape), y.dtype)
    # A few sinograms at a time: the intermediate arrays stay small and in the cache.
    step = max(1, _VALUES_AT_ONCE // max(source.n_angles, target.n_angles) // max(source.n_bins, target.n_bins))
    for first in range(0, len(y), step):
        out[first:first + step] = _resample(y[first:first + step], source, target, kind)
    return out.reshape(batch + target.sinogram_shape)


def describe_resampling(source: ParallelGeometry, target: ParallelGeometry, *, kind: str = "counts") -> str:
    """Return one sentence that says what `resample_sinogram` does between two geometries, for a log or a record.

    Raises
    ------
    InputError
        An unknown kind, something else than a geometry.
    """
    _check(source, target, kind)
    arcs = {True: "2 pi", False: "pi"}
    steps = []
    if _bins_differ(source, target):
        step = f"{source.n_bins} bins of {source.bin_mm:g} mm to {target.n_bins} of {target.bin_mm:g} mm"
        margin = (target.fov_mm - source.fov_mm) / 2
        if abs(margin) > 1e-6 * source.bin_mm:
            step += f" ({abs(margin):.4g} mm {'empty' if margin > 0 else 'cut off'} at either side)"
        steps.append(step)
    if _views_differ(source, target):
        steps.append(f"{source.n_angles} views over {arcs[source.arc > 4]} to {target.n_angles} over "
                     f"{arcs[target.arc > 4]}")
        if source.arc > 4 and source.n_angles % 2 == 0:
            steps.append(f"opposing views {'added' if kind == 'counts' else 'averaged'}")
        if kind == "counts":
            steps.append(f"each view with {source.n_angles / target.n_angles:.4g} of the counts of a view before")
    if not steps:
        return "No resampling: views and bins are equal."
    return f"Resampled {kind.replace('-', ' ')}: {'; '.join(steps)}."


def _check(source, target, kind):
    for name, geometry in (("source", source), ("target", target)):
        if not isinstance(geometry, ParallelGeometry):
            raise InputError(f"{name} must be a ParallelGeometry, but was {type(geometry).__name__}.")
    if kind not in KINDS:
        raise InputError(f"kind must be one of {', '.join(KINDS)}, but was {kind!r}.")


def _resample(y, source, target, kind):
    positive = kind == "counts"
    if _bins_differ(source, target):
        y = _rebin(y, source, target, positive)
    if _views_differ(source, target):
        y = _over_two_pi(_change_views(_over_pi(y, source), _half_turn_views(target), positive), target)
    if not positive:
        # Both remappings handle totals of cells; a mean over a bin is a total by a constant.
        y = y * y.dtype.type(source.bin_mm / target.bin_mm * (target.n_angles / source.n_angles))
    return y


def _bins_differ(source, target):
    return (source.n_bins, source.bin_mm) != (target.n_bins, target.bin_mm)


def _views_differ(source, target):
    return (source.n_angles, source.arc) != (target.n_angles, target.arc)


def _refuse_cut(y, source, target, max_lost):
    """Raise where more than `max_lost` of a sinogram lies beyond the target's bins."""
    if target.fov_mm >= source.fov_mm * (1 - 1e-12) or not y.size:
        return
    # Bins that lie equally far from the axis, outermost first.
    weight = np.abs(y).sum(axis=1, dtype=np.float64)
    weight = (weight + weight[:, ::-1])[:, :(source.n_bins + 1) // 2]
    if source.n_bins % 2:
        weight[:, -1] /= 2
    total = weight.sum(axis=1, keepdims=True)
    share = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)
    cut = (source.fov_mm - target.fov_mm) / 2 / source.bin_mm
    depth = cut - np.arange(share.shape[1])
    if source.n_bins % 2:
        depth[-1] *= 2  # of the middle bin each side has half
    lost = share @ np.clip(depth, 0, 1)
    worst = int(lost.argmax())
    if lost[worst] <= max_lost:
        return
    kept = source.n_bins - 2 * int(np.count_nonzero((np.cumsum(share, axis=1) <= max_lost).all(axis=0)))
    needed = kept * source.bin_mm
    raise GeometryError(
        f"target must reach as far as the object, but {lost[worst]:.2%} of sinogram {worst} lie beyond its "
        f"{target.fov_mm:g} mm (allowed: {max_lost:.2%}); n_bins x bin_mm of {needed:g} mm holds it, for example "
        f"n_bins={int(np.ceil(needed / target.bin_mm - 1e-9))} of {target.bin_mm:g} mm or "
        f"bin_mm={needed / target.n_bins:.5g} with {target.n_bins} bins, or allow the loss with max_lost.")


def _rebin(y, source, target, positive):
    """Remap the last axis; what a bin of `target` covers beyond the bins of `source` is empty."""
    edges = target.bin_edges / source.bin_mm + source.n_bins / 2
    # Bins beside the border continue it, so that a uniform background stays uniform.
    padded = np.pad(y.transpose(0, 2, 1), ((0, 0), (3, 3), (0, 0)), mode="edge")
    return np.ascontiguousarray(_remap(padded, edges, positive).transpose(0, 2, 1))


def _half_turn_views(geometry):
    """Return the number of different lines' views: an even number of views over 2π sees each of them twice."""
    return geometry.n_angles // 2 if geometry.arc > 4 and geometry.n_angles % 2 == 0 else geometry.n_angles


def _over_pi(y, source):
    """Return the counts of all lines in views over π, in order: opposing views are added."""
    n = source.n_angles
    if source.arc < 4:
        return y
    if n % 2 == 0:
        return y[:, :n // 2] + y[:, n // 2:, ::-1]
    # An odd number of views has no opposing ones: every second view over π is one from beyond π, flipped.
    out = np.empty_like(y)
    out[:, ::2] = y[:, :n // 2 + 1]
    out[:, 1::2] = y[:, n // 2 + 1:, ::-1]
    return out


def _over_two_pi(y, target):
    """Undo `_over_pi`; opposing views share the counts equally."""
    n = target.n_angles
    if target.arc < 4:
        return y
    if n % 2 == 0:
        half = y * y.dtype.type(0.5)
        return np.concatenate([half, half[:, :, ::-1]], axis=1)
    return np.concatenate([y[:, ::2], y[:, 1::2, ::-1]], axis=1)


def _change_views(y, n_target, positive):
    """Remap n views over π to `n_target` views over π, from samples to samples."""
    n = y.shape[1]
    if n == n_target:
        return y
    beyond = -(-n // (2 * n_target))  # the first view's cell begins before angle 0
    ring = _ring(y, beyond + 4)
    ring = ring[:, 1:-1] * y.dtype.type(22 / 24) + (ring[:, 2:] + ring[:, :-2]) * y.dtype.type(1 / 24)
    edges = ((2 * np.arange(n_target + 1) - 1) * n + n_target) / (2 * n_target)
    out = _remap(ring, edges + beyond, positive)
    ring = _ring(out, 1)
    flux = np.diff(ring, axis=1) * y.dtype.type(1 / 24)
    if positive:
        most = np.minimum(ring[:, 1:], ring[:, :-1]) * y.dtype.type(0.5)
        flux = np.clip(flux, -most, most)
    out -= flux[:, 1:]
    out += flux[:, :-1]
    return np.maximum(out, 0, out=out) if positive else out


def _ring(y, ghosts):
    """Return views over π continued by `ghosts` at either side: p(θ + π, s) = p(θ, -s)."""
    turns, views = np.divmod(np.arange(-ghosts, y.shape[1] + ghosts), y.shape[1])
    ring = y[:, views]
    odd = np.flatnonzero(turns % 2)
    ring[:, odd] = ring[:, odd, ::-1]
    return ring


def _remap(a, edges, positive):
    """Integrate eq. (RS1) between `edges` along axis 1; beyond the cells it is zero.

    Parameters
    ----------
    a : ndarray, (batch, 3 + cells + 3, columns)
        Totals of cells of unit length, the first of which begins at 0, and three neighbours at either side.
    edges : ndarray, (targets + 1,)
        Ascending.
    positive : bool
        Whether eq. (RS3) holds the parabolas above zero.
    """
    kind = a.dtype.type
    inner = a[:, 3:-3]
    edge = ((a[:, 2:-3] + a[:, 3:-2]) * kind(37 / 60) - (a[:, 1:-4] + a[:, 4:-1]) * kind(8 / 60)
            + (a[:, :-5] + a[:, 5:]) * kind(1 / 60))
    slope = edge[:, 1:] - edge[:, :-1]
    curve = kind(6) * inner - kind(3) * (edge[:, 1:] + edge[:, :-1])
    if positive:
        _keep_positive(inner, slope, curve)
    nearest = np.round(edges)
    edges = np.where(np.abs(edges - nearest) < 1e-9, nearest, edges)  # cells that match are added as they are
    first = np.floor(edges[:-1]).astype(int)
    cells = inner.shape[1]
    out = np.zeros((a.shape[0], len(first), a.shape[2]), a.dtype)
    for k in range(int(np.max(np.ceil(edges[1:]).astype(int) - first))):
        cell = first + k
        low, high = np.clip(edges[:-1] - cell, 0, 1), np.clip(edges[1:] - cell, 0, 1)
        use = np.flatnonzero((cell >= 0) & (cell < cells) & (high > low))
        if not len(use):
            continue
        cell, low, high = cell[use], low[use], high[use]
        parts = (high - low, (high**2 - low**2 - (high - low)) / 2,
                 (high**2 - low**2) / 2 - (high**3 - low**3) / 3 - (high - low) / 6)
        rows = slice(use[0], use[-1] + 1) if len(use) == use[-1] - use[0] + 1 else use
        for values, weight in zip((inner, slope, curve), parts, strict=True):
            if weight.any():
                out[:, rows] += values[:, cell] * weight.astype(a.dtype)[:, None]
    return np.maximum(out, 0, out=out) if positive else out  # rounding


def _keep_positive(mean, slope, curve):
    """Apply eq. (RS3) in place."""
    low = mean - curve / 6 - np.abs(slope) / 2
    # A parabola that is convex and turns within the cell has its minimum there.
    turns = (curve < 0) & (np.abs(slope) < -curve)
    at = np.where(turns, curve, -1)
    low = np.where(turns, mean + curve / 12 + slope**2 / (4 * at), low)
    bad = low < 0
    factor = np.divide(mean, mean - low, out=np.ones_like(mean), where=bad)
    slope *= factor
    curve *= factor
