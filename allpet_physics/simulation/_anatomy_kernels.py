"""The compiled loops of the anatomy: distances to cell walls and to curved tubes."""

import numpy as np

from allpet_physics._compiled import compiled


@compiled()
def wall_distance(x, y, z, seeds, cell, reach):
    """Return the distance in mm of every point to the wall between two Voronoi cells of different name.

    Seeds of one `cell` form one cell together. Seeds farther than `reach` from a point's height are skipped; a point
    that sees one cell only is `reach` away from any wall.
    """
    out = np.empty(x.size, np.float32)
    for i in range(x.size):
        own, other = np.float32(1e12), np.float32(1e12)
        own_cell = -1
        for k in range(len(seeds)):
            dz = seeds[k, 2] - z[i]
            if abs(dz) > reach:
                continue
            dx, dy = seeds[k, 0] - x[i], seeds[k, 1] - y[i]
            d = dx * dx + dy * dy + dz * dz
            if d < own:
                if cell[k] != own_cell:
                    other = own
                    own_cell = cell[k]
                own = d
            elif d < other and cell[k] != own_cell:
                other = d
        out[i] = reach if other > 1e11 else 0.5 * (np.sqrt(other) - np.sqrt(own))
    return out


@compiled()
def tube_level(x, y, z, points, radius):
    """Return, for every point, its least distance to a polyline over the radius there, and where along the line.

    Segments whose ends are equal are skipped. Below 1 is inside.
    """
    level = np.full(x.size, np.float32(1e6), np.float32)
    along = np.zeros(x.size, np.float32)
    z_low, z_high = z.min(), z.max()
    x_low, x_high = x.min(), x.max()
    y_low, y_high = y.min(), y.max()
    for k in range(len(points) - 1):
        r = max(radius[k], radius[k + 1])
        if (min(points[k, 2], points[k + 1, 2]) - r > z_high or max(points[k, 2], points[k + 1, 2]) + r < z_low
                or min(points[k, 0], points[k + 1, 0]) - r > x_high or max(points[k, 0], points[k + 1, 0]) + r < x_low
                or min(points[k, 1], points[k + 1, 1]) - r > y_high or max(points[k, 1], points[k + 1, 1]) + r < y_low):
            continue
        ax, ay, az = points[k, 0], points[k, 1], points[k, 2]
        bx, by, bz = points[k + 1, 0] - ax, points[k + 1, 1] - ay, points[k + 1, 2] - az
        length2 = bx * bx + by * by + bz * bz
        if length2 <= 0:
            continue
        for i in range(x.size):
            px, py, pz = x[i] - ax, y[i] - ay, z[i] - az
            t = (px * bx + py * by + pz * bz) / length2
            t = min(max(t, np.float32(0)), np.float32(1))
            dx, dy, dz = px - t * bx, py - t * by, pz - t * bz
            q = np.sqrt(dx * dx + dy * dy + dz * dz) / ((1 - t) * radius[k] + t * radius[k + 1])
            if q < level[i]:
                level[i] = q
                along[i] = k + t
    return level, along


@compiled()
def spread(points, least):
    """Return the indices of points that are at least `least` from all that were kept before them."""
    kept = np.empty(len(points), np.int64)
    n = 0
    for i in range(len(points)):
        free = True
        for j in range(n):
            k = kept[j]
            dx, dy, dz = points[i, 0] - points[k, 0], points[i, 1] - points[k, 1], points[i, 2] - points[k, 2]
            if dx * dx + dy * dy + dz * dz < least * least:
                free = False
                break
        if free:
            kept[n] = i
            n += 1
    return kept[:n]
