r"""Filling of planar contours on any voxel grid: parallel to its slices, between them, or oblique.

A structure is a stack of parallel planes at distances :math:`d_1 < \dots < d_m` along a common unit normal
:math:`n`. A voxel with its centre at :math:`p` belongs to it when the centre lies in the slab of a plane and inside
or on that plane's contours,

.. math:: \mathrm{lo}_q \le n \cdot p < \mathrm{hi}_q \quad\text{and}\quad
          (u \cdot p, v \cdot p) \in \overline{P_q}, \tag{F1}

where :math:`P_q` is the even-odd (exclusive-or) combination of the contours of plane q and the bar adds its outline:
"Points in space lying along the path defined by the contour are considered to be part of the ROI" (DICOM PS3.3
C.8.8.6.3). A slab reaches half-way to the next plane; at the ends, and where a plane is missing, it reaches half of
the usual distance :math:`h` between planes. Slabs are half-open, so that m planes always stand for a length of m h.
"""

import numpy as np

from allpet_physics.errors import GeometryError
from allpet_physics.io.volume import GRID_TOLERANCE, Volume

#: Points of one plane may leave it by this part of the smallest voxel side (coordinates are rounded decimals).
FLATNESS = 0.05
#: A step between neighbouring planes above this multiple of the usual step is a gap, not an uneven step.
GAP = 1.5
#: Planes further apart than this (mm), and than the grid's slices, are separate pieces rather than one thick stack.
ISOLATED_MM = 10.0
#: Upper bound on (edge, point) pairs handled at once; 4 million pairs take about 200 MB.
_PAIRS_AT_ONCE = 4_000_000


def fill_contours(contours: list[np.ndarray], reference: Volume, *,
                  slab_mm: float | None = None) -> tuple[np.ndarray, list[str]]:
    """Return the voxels of a grid whose centres lie in a stack of planar contours, equation (F1).

    Parameters
    ----------
    contours : list of ndarray
        Closed polygons, shape (points, 3), RAS mm; the last point joins the first. All must lie on parallel planes.
    reference : Volume
        The grid; axes may be permuted, flipped, oblique and anisotropic.
    slab_mm : float, optional
        Thickness that a plane stands for when it has no neighbour to tell; by default the grid's slice distance.

    Returns
    -------
    mask : ndarray of bool
        Shape of the reference.
    warnings : list of str
        Gaps between planes, isolated planes, contours that leave the grid.

    Raises
    ------
    GeometryError
        Contours that are not flat, or not parallel to each other.
    """
    mask = np.zeros(reference.data.shape, dtype=bool)
    if not contours:
        return mask, []
    normal = _common_normal(contours, reference)
    depth = np.array([np.mean(c @ normal) for c in contours])
    plane = _planes_of(depth, FLATNESS * reference.voxel_mm.min())
    centres = np.array([depth[plane == q].mean() for q in range(plane.max() + 1)])
    grid_step = np.abs(normal @ reference.affine[:3, :3]).max()
    low, high, warnings = _slabs(centres, grid_step, slab_mm)
    for q, (d, lo, hi) in enumerate(zip(centres, low, high, strict=True)):
        _fill_plane(mask, [contours[c] for c in np.flatnonzero(plane == q)], normal, (d, lo, hi), reference)
    warnings += _outside_grid(contours, reference)
    return mask, warnings


def inside_or_on(points: np.ndarray, polygons: list[np.ndarray], tolerance: float) -> np.ndarray:
    """Tell which points lie inside the even-odd combination of polygons, or within `tolerance` of an edge.

    A point is inside when a ray from it towards +u crosses an odd number of edges; an edge counts its lower end and
    not its upper end (Hormann & Agathos 2001), so that a vertex is never counted twice. The points are sorted once
    by v, and each edge meets only the points in its own range of v: the cost is that of the crossings, not points
    times edges.

    Parameters
    ----------
    points : ndarray
        Shape (points, 2): u and v.
    polygons : list of ndarray
        Shape (vertices, 2) each, closed implicitly.
    tolerance : float
        Distance from an edge that still counts as on it.

    Returns
    -------
    ndarray of bool
        Shape (points,).
    """
    start = np.concatenate(polygons)
    end = np.concatenate([np.roll(p, -1, axis=0) for p in polygons])
    upwards = (start[:, 1] <= end[:, 1])[:, None]
    a, b = np.where(upwards, start, end), np.where(upwards, end, start)
    order = np.argsort(points[:, 1], kind="stable")
    u, v = points[order].T
    crossings = np.zeros(len(points), dtype=np.int64)
    on_edge = np.zeros(len(points), dtype=bool)

    for edge, point in _pairs(np.searchsorted(v, a[:, 1]), np.searchsorted(v, b[:, 1])):
        along = (v[point] - a[edge, 1]) / (b[edge, 1] - a[edge, 1])
        right = u[point] < a[edge, 0] + along * (b[edge, 0] - a[edge, 0])
        crossings += np.bincount(point[right], minlength=len(points))

    ab = b - a
    squared = np.maximum((ab * ab).sum(axis=1), np.finfo(float).tiny)
    for edge, point in _pairs(np.searchsorted(v, a[:, 1] - tolerance),
                              np.searchsorted(v, b[:, 1] + tolerance, side="right")):
        du, dv = u[point] - a[edge, 0], v[point] - a[edge, 1]
        along = np.clip((du * ab[edge, 0] + dv * ab[edge, 1]) / squared[edge], 0, 1)
        near = np.hypot(du - along * ab[edge, 0], dv - along * ab[edge, 1]) <= tolerance
        on_edge[point[near]] = True

    out = np.empty(len(points), dtype=bool)
    out[order] = (crossings % 2 == 1) | on_edge
    return out


def _pairs(first: np.ndarray, last: np.ndarray):
    """Yield index arrays (edge, point) for every point in [first, last) of every edge, in bounded portions."""
    count = last - first
    portion = np.cumsum(count) // _PAIRS_AT_ONCE
    for p in np.unique(portion):
        edges = np.flatnonzero((portion == p) & (count > 0))
        n = count[edges]
        edge = np.repeat(edges, n)
        yield edge, np.arange(n.sum()) + np.repeat(first[edges] - (np.cumsum(n) - n), n)


def _common_normal(contours: list[np.ndarray], reference: Volume) -> np.ndarray:
    """Return the unit normal that all contours share, towards the patient axis it is nearest to.

    A plane of the grid or of the patient is preferred to the fitted one, whose direction carries the rounding of the
    coordinates; the fit serves structures that are oblique to both.
    """
    centred = [c - c.mean(axis=0) for c in contours]
    fitted = np.linalg.svd(np.concatenate(centred), full_matrices=False)[2][-1]
    axes = reference.affine[:3, :3].T
    planes = [np.cross(axes[1], axes[2]), np.cross(axes[2], axes[0]), np.cross(axes[0], axes[1]), *np.eye(3)]
    planes = [n / np.linalg.norm(n) for n in planes]
    planes.sort(key=lambda n: -abs(n @ fitted))
    allowed = FLATNESS * reference.voxel_mm.min()
    for normal in [*planes, fitted]:
        spread = [np.abs(c @ normal).max() for c in centred]
        if max(spread) <= allowed:
            return normal * np.sign(normal[np.abs(normal).argmax()])
    worst = int(np.argmax(spread))
    raise GeometryError(f"contours must lie on parallel planes, but contour {worst + 1} of {len(contours)} leaves "
                        f"their common plane by {spread[worst]:.3g} mm; draw the structure on one stack of slices, or "
                        "export it as a mask (NIfTI or DICOM SEG).")


def _planes_of(depth: np.ndarray, tolerance: float) -> np.ndarray:
    """Return, for each contour, the number of its plane, counted along the normal."""
    order = np.argsort(depth, kind="stable")
    plane = np.empty(len(depth), dtype=np.int64)
    plane[order] = np.cumsum(np.diff(depth[order], prepend=depth[order[0]]) > tolerance)
    return plane


def _slabs(centres: np.ndarray, grid_step: float,
           slab_mm: float | None) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return the ends of the slab that each plane stands for, and what is odd about the stack."""
    warnings = []
    steps = np.diff(centres)
    alone = slab_mm or grid_step
    # The lower median: with as many gaps between pieces as steps within them, a step wins.
    usual = np.sort(steps)[(len(steps) - 1) // 2] if len(steps) else alone
    separate = len(steps) > 0 and usual > max(ISOLATED_MM, grid_step * GAP)
    if separate:
        warnings.append(f"The contours are {usual:.4g} mm apart; each was taken as a separate piece, {alone:.4g} mm "
                        "thick.")
        usual = alone
    gap = steps > GAP * usual
    if gap.any() and not separate:
        where = int(np.argmax(steps))
        warnings.append(f"Contours are missing on {int(gap.sum())} stretch(es) of the structure, the longest of "
                        f"{steps[where]:.4g} mm where the usual step is {usual:.4g} mm; these were left empty.")
    half = np.where(gap, usual, steps) / 2
    low = centres - np.concatenate([[usual / 2], half])
    high = centres + np.concatenate([half, [usual / 2]])
    # Where two slabs meet, one number must stand for both ends, or rounding could lose or double a slice.
    high[:-1][~gap] = low[1:][~gap]
    return low, high, warnings


def _fill_plane(mask: np.ndarray, contours: list[np.ndarray], normal: np.ndarray,
                slab: tuple[float, float, float], reference: Volume) -> None:
    """Set the voxels of one plane's slab whose centres lie inside or on its contours."""
    d, lo, hi = slab
    tolerance = GRID_TOLERANCE * reference.voxel_mm.min()
    points = np.concatenate(contours)
    reach = np.concatenate([points + (lo - d) * normal, points + (hi - d) * normal])
    index = _to_voxels(reach, reference)
    first = np.maximum(np.floor(index.min(axis=0)).astype(int), 0)
    last = np.minimum(np.ceil(index.max(axis=0)).astype(int) + 1, mask.shape)
    if (last <= first).any():
        return
    matrix, origin = reference.affine[:3, :3], reference.affine[:3, 3]
    i, j, k = (np.arange(f, e) * s for f, e, s in zip(first, last, normal @ matrix, strict=True))
    height = i[:, None, None] + j[:, None] + k + normal @ origin
    voxels = np.argwhere((height >= lo - tolerance) & (height < hi - tolerance)) + first
    u = np.eye(3)[np.abs(normal).argmin()]
    u = u - (u @ normal) * normal
    u /= np.linalg.norm(u)
    in_plane = np.stack([u, np.cross(normal, u)], axis=1)
    inside = inside_or_on((voxels @ matrix.T + origin) @ in_plane, [c @ in_plane for c in contours], tolerance)
    mask[tuple(voxels[inside].T)] = True


def _to_voxels(points: np.ndarray, reference: Volume) -> np.ndarray:
    inverse = np.linalg.inv(reference.affine)
    return points @ inverse[:3, :3].T + inverse[:3, 3]


def _outside_grid(contours: list[np.ndarray], reference: Volume) -> list[str]:
    index = _to_voxels(np.concatenate(contours), reference)
    outside = ((index < -0.5 - FLATNESS) | (index > np.array(reference.data.shape) - 0.5 + FLATNESS)).any(axis=1)
    if not outside.any():
        return []
    return [f"{int(outside.sum())} of {len(outside)} contour points lie outside the image; that part was cut off."]
