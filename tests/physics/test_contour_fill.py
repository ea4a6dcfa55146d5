"""Filling of contours: the outline rule, slabs, and independence of the grid's axis order."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allpet_physics.errors import GeometryError
from allpet_physics.io.contour_fill import fill_contours, inside_or_on
from allpet_physics.io.volume import Volume

CODES = [codes for pairs in itertools.product("LR", "PA", "SI") for codes in itertools.permutations(pairs)]


def grid(shape=(20, 24, 16), voxel=(2.0, 2.0, 3.0), origin=(0.0, 0.0, 0.0)):
    affine = np.diag([*voxel, 1.0])
    affine[:3, 3] = origin
    return Volume(np.zeros(shape, np.uint8), affine)


def polygon(points, z):
    return np.c_[np.asarray(points, dtype=float), np.full(len(points), float(z))]


def in_triangle(p, a, b, c):
    """Tell by the signs of three areas whether points lie inside a triangle."""
    def side(a, b):
        return (b[0] - a[0]) * (p[:, 1] - a[1]) - (b[1] - a[1]) * (p[:, 0] - a[0])
    s = np.sign([side(a, b), side(b, c), side(c, a)])
    return (s > 0).all(axis=0) | (s < 0).all(axis=0)


def distance_to_edges(points, vertices):
    best = np.full(len(points), np.inf)
    for a, b in zip(vertices, np.roll(vertices, -1, axis=0), strict=True):
        t = np.clip(((points - a) @ (b - a)) / max((b - a) @ (b - a), 1e-300), 0, 1)
        best = np.minimum(best, np.linalg.norm(points - a - t[:, None] * (b - a), axis=1))
    return best


@given(st.integers(0, 2**32 - 1), st.integers(3, 12))
@settings(max_examples=60, deadline=None)
def test_even_odd_of_any_polygon_is_the_xor_of_its_fan_of_triangles(seed, n):
    rng = np.random.default_rng(seed)
    vertices = rng.integers(-10, 11, size=(n, 2)).astype(float)  # coinciding, crossing and level edges included
    points = rng.uniform(-11, 11, size=(400, 2))
    apex = np.array([0.1234, 0.5678])
    expected = np.zeros(len(points), dtype=bool)
    near_a_spoke = np.zeros(len(points), dtype=bool)
    for a, b in zip(vertices, np.roll(vertices, -1, axis=0), strict=True):
        if abs((a - apex) @ [[0, 1], [-1, 0]] @ (b - apex)) > 1e-12:
            expected ^= in_triangle(points, apex, a, b)
        near_a_spoke |= distance_to_edges(points, np.array([apex, a])) < 1e-6
    sure = ~near_a_spoke & (distance_to_edges(points, vertices) > 1e-6)
    assert np.array_equal(inside_or_on(points, [vertices], 1e-9)[sure], expected[sure])


def test_a_point_on_the_outline_belongs_whatever_side_it_is_on():
    square = np.array([[2.0, 3.0], [6.0, 3.0], [6.0, 8.0], [2.0, 8.0]])
    points = np.stack(np.meshgrid(np.arange(10.0), np.arange(10.0), indexing="ij"), -1).reshape(-1, 2)
    inside = inside_or_on(points, [square], 1e-6).reshape(10, 10)
    assert inside.sum() == 5 * 6
    assert inside[2:7, 3:9].all()


@given(st.sampled_from(CODES), st.integers(0, 2**32 - 1))
@settings(max_examples=48, deadline=None)
def test_axis_order_and_direction_of_the_grid_do_not_matter(codes, seed):
    rng = np.random.default_rng(seed)
    reference = grid()
    # Vertices on voxel centres and half-way between slices: every tie there is.
    contours = [polygon(rng.integers(2, 18, size=(6, 2)) * 2.0, 3.0 * k + 1.5) for k in range(4, 9)]
    expected, _ = fill_contours(contours, reference)
    assert expected.any()
    turned = reference.reoriented(codes)
    mask, _ = fill_contours(contours, turned)
    back = turned.replace(data=mask).reoriented(reference.axis_codes).data
    assert np.array_equal(back, expected)


@given(st.integers(1, 12), st.sampled_from([1.0, 1.5, 2.0, 3.0, 4.5, 6.0]), st.sampled_from([0.5, 0.75, 1.5]),
       st.floats(-3, 3))
@settings(max_examples=60, deadline=None)
def test_m_planes_stand_for_m_times_their_distance(m, h, slice_mm, offset):
    reference = grid((8, 8, 200), (2.0, 2.0, slice_mm))
    contours = [polygon([(3, 3), (11, 3), (11, 11), (3, 11)], 30 + offset + q * h) for q in range(m)]
    mask, notes = fill_contours(contours, reference)
    slices = np.flatnonzero(mask.any(axis=(0, 1)))
    length = m * h if m > 1 else slice_mm
    assert abs(len(slices) * slice_mm - length) < slice_mm * (1 + 1e-9)
    if (length / slice_mm) % 1 == 0:
        assert len(slices) == length / slice_mm
    assert (np.diff(slices) == 1).all()
    assert notes == []


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_volume_is_the_polygon_s_area_times_its_length(seed):
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 11))
    radius = rng.uniform(12, 28, 11)
    xy = np.c_[40.3 + radius * np.cos(angle), 40.1 + radius * np.sin(angle)]
    x, y = xy.T
    area = 0.5 * abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))
    perimeter = np.linalg.norm(xy - np.roll(xy, -1, axis=0), axis=1).sum()
    reference = grid((160, 160, 12), (0.5, 0.5, 2.0))
    mask, _ = fill_contours([polygon(xy, 2.0 * k) for k in range(3, 8)], reference)
    volume = mask.sum() * 0.5 * 0.5 * 2.0
    assert abs(volume / (5 * 2.0) - area) < 0.15 * perimeter * 0.5  # errors of the rim's voxels nearly cancel


def test_a_plane_oblique_to_the_grid_is_filled_in_its_own_slab():
    reference = grid((60, 60, 60), (1.0, 1.0, 1.0), (-30.0, -30.0, -30.0))
    tilt = np.radians(31)
    n = np.array([0, -np.sin(tilt), np.cos(tilt)])
    u, v = np.array([1.0, 0, 0]), np.cross(n, [1.0, 0, 0])
    corner = [(-12.3, -9.1), (15.2, -9.1), (15.2, 4.4), (-12.3, 4.4)]
    contours = [np.array([a * u + b * v for a, b in corner]) + q * 2.0 * n for q in range(-3, 4)]
    mask, notes = fill_contours(contours, reference)
    p = np.stack(np.meshgrid(*[np.arange(60) - 30.0] * 3, indexing="ij"), -1)
    a, b, d = p @ u, p @ v, p @ n
    inside = (a > -12.3) & (a < 15.2) & (b > -9.1) & (b < 4.4) & (d > -7) & (d < 7)
    near = np.minimum.reduce([np.abs(a + 12.3), np.abs(a - 15.2), np.abs(b + 9.1), np.abs(b - 4.4), abs(abs(d) - 7)])
    assert np.array_equal(mask[near > 0.02], inside[near > 0.02])
    assert notes == []


def test_holes_islands_and_keyholes():
    reference = grid((40, 40, 5), (1.0, 1.0, 3.0))
    outer = [(5, 5), (30, 5), (30, 33), (5, 33)]
    hole = [(10.5, 10.5), (20.5, 10.5), (20.5, 20.5), (10.5, 20.5)]
    island = [(13.5, 13.5), (16.5, 13.5), (16.5, 16.5), (13.5, 16.5)]
    nested, _ = fill_contours([polygon(c, 6.0) for c in (hole, outer, island)], reference)
    assert nested.sum() == 26 * 29 - 10 * 10 + 3 * 3
    keyhole = [*outer[:1], *hole[:1], *hole[:0:-1], *hole[:1], *outer[:1], *outer[1:]]
    narrow, _ = fill_contours([polygon(keyhole, 6.0)], reference)
    plain, _ = fill_contours([polygon(c, 6.0) for c in (hole, outer)], reference)
    assert np.array_equal(narrow, plain)


def test_a_missing_plane_is_left_empty_and_said():
    reference = grid((12, 12, 30), (2.0, 2.0, 3.0))
    square = [(5, 5), (15, 5), (15, 15), (5, 15)]
    mask, notes = fill_contours([polygon(square, 3.0 * k) for k in (4, 5, 6, 9, 10)], reference)
    assert np.flatnonzero(mask.any(axis=(0, 1))).tolist() == [4, 5, 6, 9, 10]
    assert len(notes) == 1
    assert "missing" in notes[0]
    assert "9 mm" in notes[0]


def test_planes_far_apart_are_separate_pieces():
    reference = grid((12, 12, 30), (2.0, 2.0, 3.0))
    square = [(5, 5), (15, 5), (15, 15), (5, 15)]
    contours = [polygon(square, 30.0), polygon(square, 60.0)]
    mask, notes = fill_contours(contours, reference)
    assert np.flatnonzero(mask.any(axis=(0, 1))).tolist() == [10, 20]
    assert "separate piece" in notes[0]
    mask, _ = fill_contours(contours, reference, slab_mm=9.0)
    assert np.flatnonzero(mask.any(axis=(0, 1))).tolist() == [9, 10, 11, 19, 20, 21]


def test_contours_that_are_not_flat_or_not_parallel_are_refused():
    reference = grid()
    warped = polygon([(5, 5), (25, 5), (25, 25), (5, 25)], 12.0)
    warped[0, 2] += 3
    upright = polygon([(5, 5), (25, 5), (25, 25), (5, 25)], 12.0)[:, [0, 2, 1]]
    flat = polygon([(5, 5), (25, 5), (25, 25), (5, 25)], 12.0)
    with pytest.raises(GeometryError, match="parallel planes, but contour 1 of 1 leaves"):
        fill_contours([warped], reference)
    with pytest.raises(GeometryError, match="parallel planes"):
        fill_contours([flat, upright], reference)


def test_a_part_outside_the_grid_is_cut_off_and_said():
    reference = grid((10, 10, 10), (1.0, 1.0, 1.0))
    square = [(-20, 2), (4, 2), (4, 6), (-20, 6)]
    mask, notes = fill_contours([polygon(square, 5.0)], reference)
    assert mask.sum() == 5 * 5
    assert "2 of 4 contour points lie outside" in notes[0]
    nothing, _ = fill_contours([polygon(square, 500.0)], reference)
    assert not nothing.any()
