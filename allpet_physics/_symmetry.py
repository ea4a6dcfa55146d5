r"""The symmetries that let one set of weights serve up to eight rays: which image, which angle, which bin.

Let n be the normal of a ray, :math:`n\cdot p = s`, and M an orthogonal matrix that maps the pixel grid to itself. The
image :math:`f_M(p) = f(Mp)` has the projection

.. math:: R[f_M](n_0, s) = R[f](M n_0, s), \tag{Y1}

and -M gives the ray at -s. So the rays of f at the angles :math:`M n_0` are rays of transformed images at one base
angle :math:`\theta_0`, with the same weights. A pass is a list of such matrices whose transformed images all have one
shape; its base angles lie within 45 degrees of the x axis, so every base ray crosses rows. With the half turn (-M) only
the bins of the lower half remain to be computed.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from allpet_physics.geometry import ParallelGeometry

_IDENTITY = np.array([[1, 0], [0, 1]])
_MIRROR = np.array([[-1, 0], [0, 1]])
_QUARTER = np.array([[0, -1], [1, 0]])
_SWAP = np.array([[0, 1], [1, 0]])

_SQUARE_GROUPS = (((_IDENTITY, _MIRROR, _QUARTER, _SWAP),), ((_IDENTITY, _QUARTER),))
_ANY_GROUPS = (((_IDENTITY, _MIRROR), (_SWAP, _QUARTER)), ((_IDENTITY,), (_QUARTER,)))

_TOLERANCE = 1e-12


@dataclass(frozen=True)
class Pass:
    """The base rays of one list of transformed images, and where their results belong.

    Attributes
    ----------
    image_shape : (int, int)
        Rows and columns of the transformed images.
    to_image : ndarray of int, (2·matrices, 6)
        For each lane (M, then -M, for each matrix) the row and column of the image that pixel (r, c) of the
        transformed image shows: ``(a0 + a1·r + a2·c, b0 + b1·r + b2·c)``.
    to_lane : ndarray of int, (2·matrices, 6)
        The inverse of `to_image`.
    table : ndarray, (bases, 4)
        u00 at bin edge 0, u_r, u_e and the path length per row in mm of each base angle, eq. (K1).
    angle : ndarray of int, (bases, matrices)
        The index of the angle that each lane pair measures, -1 where there is none.
    flipped : ndarray of bool, (bases, matrices)
        Whether that angle's normal is -M n0, so that its bins run backwards.
    """

    image_shape: tuple[int, int]
    to_image: np.ndarray
    to_lane: np.ndarray
    table: np.ndarray
    angle: np.ndarray
    flipped: np.ndarray

    @property
    def lanes_per_slice(self) -> int:
        """Number of lanes that one slice takes: two for each matrix."""
        return 2 * self.angle.shape[1]


@lru_cache(maxsize=64)
def plan_passes(geometry: ParallelGeometry, angle_indices: tuple[int, ...]) -> list[Pass]:
    """Return the passes that cover each angle once with the fewest base angles; the same object for the same input."""
    normals = _normals(geometry.angles[list(angle_indices)])
    groups = _ANY_GROUPS
    if geometry.image_shape[0] == geometry.image_shape[1]:
        groups = _SQUARE_GROUPS + groups
    plans = [_assign(normals, group) for group in groups]
    # Of equals the smaller group: it leaves lanes for more slices.
    best = min(plans, key=lambda plan: (sum(len(bases) for _, bases, _ in plan), len(plan[0][0])))
    return [_make_pass(geometry, *part) for part in best if part[1]]


def _normals(angles: np.ndarray) -> np.ndarray:
    """Return (cos θ, sin θ), with exact zeros at multiples of π/2, where rays run along pixel edges."""
    normals = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    normals[np.abs(normals) < 1e-15] = 0.0
    return normals


def _assign(normals, group):
    """Give every angle a lane: for each pass its matrices, base normals and {(base, matrix): (angle, flipped)}."""
    parts = [(matrices, [], {}) for matrices in group]
    known = [{} for _ in group]  # rounded base angle -> bases with it
    mirrored = any(np.linalg.det(m) < 0 for matrices in group for m in matrices)
    for a, normal in enumerate(normals):
        options = []
        for p, matrices in enumerate(group):
            for j, matrix in enumerate(matrices):
                base = matrix.T @ normal
                flipped = base[0] < 0
                base = -base if flipped else base
                # On the diagonal rows and columns give the same weights, so either may take the ray.
                if abs(base[1]) > base[0] + _TOLERANCE or (mirrored and base[1] < -_TOLERANCE):
                    continue
                options.append((p, j, base, flipped, round(float(np.arctan2(base[1], base[0])) * 1e9)))
        for p, j, _, flipped, key in options:
            free = [q for q in known[p].get(key, ()) if (q, j) not in parts[p][2]]
            if free:
                parts[p][2][free[0], j] = (a, flipped)
                break
        else:
            p, j, base, flipped, key = options[0]
            q = len(parts[p][1])
            parts[p][1].append(base)
            known[p].setdefault(key, []).append(q)
            parts[p][2][q, j] = (a, flipped)
    return parts


def _make_pass(geometry, matrices, bases, lanes):
    rows, cols = geometry.image_shape
    if not matrices[0][0, 0]:
        rows, cols = cols, rows
    cos, sin = np.array(bases).T
    pixel, width = geometry.pixel_mm, geometry.bin_mm
    top = (rows - 1) / 2 * pixel
    table = np.stack([(geometry.bin_edges[0] - top * sin) / (pixel * cos) + cols / 2, sin / cos,
                      width / (pixel * cos), pixel / cos], axis=1)
    angle = np.full((len(bases), len(matrices)), -1)
    flipped = np.zeros(angle.shape, bool)
    for (q, j), (a, flip) in lanes.items():
        angle[q, j], flipped[q, j] = a, flip
    signed = [sign * m for m in matrices for sign in (1, -1)]
    to_image = np.array([_pixel_map(m, geometry.image_shape) for m in signed])
    to_lane = np.array([_pixel_map(m.T, (rows, cols)) for m in signed])
    return Pass((rows, cols), to_image, to_lane, table, angle, flipped)


def _pixel_map(matrix, shape_to):
    """Return (a0, a1, a2, b0, b1, b2) of eq. (Y1) for pixels: from (r, c) of one grid to p' = M p on another's.

    With x = c - (C - 1)/2 and y = (R - 1)/2 - r, an entry of -1 counts its axis from the other end.
    """
    (xx, xy), (yx, yy) = matrix.tolist()
    rows, cols = shape_to
    # x' = xx·x + xy·y and y' = yx·x + yy·y; the offsets of the two grids cancel because M maps one onto the other.
    column = (0 if xx + (-xy) > 0 else cols - 1, -xy, xx)
    row = (0 if yy + (-yx) > 0 else rows - 1, yy, -yx)
    return (*row, *column)
