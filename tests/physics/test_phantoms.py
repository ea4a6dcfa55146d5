"""Analytic shapes and phantoms: closed forms against sampling and quadrature, symmetries, limits, ASTRA."""

import dataclasses
import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.radon import RadonOperator
from allpet_physics.simulation import (
    Ellipse,
    Outline,
    Phantom,
    Rectangle,
    asymmetric_test_phantom,
    demo_torso,
    derenzo,
    disc,
    nema_iec,
    shepp_logan,
)

GEOMETRY = ParallelGeometry(36, 301, 1.0, (200, 200), 1.0, 2 * np.pi)
KEYHOLE = Outline(((-30, -40), (20, -40), (35, 10), (-10, 60)), (0.0, 1.2, -0.8, 2.5), 1.7)
CRESCENT = Outline(((0, -30), (0, 30)), (4.0, -1.5), 2.0)
NAMED = {p.name: p for p in (shepp_logan(90), shepp_logan(90, modified=False), nema_iec(), derenzo(radius_mm=95),
                             asymmetric_test_phantom(90), demo_torso(), demo_torso("attenuation"))}

centres = st.floats(-60, 60)
sizes = st.floats(0.02, 60)
angles = st.floats(-7, 7)
values = st.floats(-3, 3).filter(lambda v: abs(v) > 1e-3)


@st.composite
def outlines(draw):
    """Star-shaped around their centre: polygons of any angle, some edges bulging outwards or inwards a little."""
    n = draw(st.integers(3, 7))
    turns = np.sort([2 * np.pi * (k + draw(st.floats(0, 0.5))) / n for k in range(n)])
    radii = [draw(st.floats(20, 50)) for _ in turns]
    arcs = [draw(st.sampled_from([0.0, 0.0, 0.3, -0.05, 0.9])) for _ in turns]
    x, y = draw(centres), draw(centres)
    return Outline(tuple((x + r * np.cos(a), y + r * np.sin(a)) for a, r in zip(turns, radii, strict=True)),
                   tuple(arcs), draw(values))


shapes = st.one_of(st.builds(Ellipse, centres, centres, sizes, sizes, angles, values),
                   st.builds(Rectangle, centres, centres, sizes, sizes, angles, values), outlines())


def moved(shape, rotation):
    """The shape turned about the origin."""
    def turn(x, y):
        return (x * np.cos(rotation) - y * np.sin(rotation), x * np.sin(rotation) + y * np.cos(rotation))

    if isinstance(shape, Outline):
        return dataclasses.replace(shape, vertices=tuple(turn(*p) for p in shape.vertices))
    x, y = turn(shape.x_mm, shape.y_mm)
    return dataclasses.replace(shape, x_mm=x, y_mm=y, angle=shape.angle + rotation)


def jumps(shape, theta):
    """Whether a straight edge is all but parallel to the lines, so that p jumps there."""
    if isinstance(shape, Rectangle):
        return min(abs(np.cos(shape.angle - theta)), abs(np.sin(shape.angle - theta))) < 1e-3
    if isinstance(shape, Outline):
        ends = np.roll(shape.vertices, -1, axis=0) - shape.vertices
        return (abs(ends @ (np.cos(theta), np.sin(theta))) < 1e-3 * np.hypot(*ends.T)).any()
    return False


@pytest.mark.parametrize("shape", [Ellipse(12, -30, 45, 18, 0.7, 2.0), Rectangle(-20, 15, 70, 22, -0.4, 1.3), KEYHOLE,
                                   CRESCENT, dataclasses.replace(KEYHOLE, vertices=KEYHOLE.vertices[::-1],
                                                                 arcs=(0.8, -1.2, 0.0, -2.5)), nema_iec().shapes[0]])
def test_line_integrals_match_sampling_along_the_line(shape):
    rng = np.random.default_rng(3)
    n, reach = 200_000, 250.0
    t = ((np.arange(n) + 0.5) / n * 2 - 1) * reach
    low, high = shape.extent(0.3)
    assert low < high
    for theta in rng.uniform(0, 2 * np.pi, 6):
        low, high = shape.extent(theta)
        for s in (*rng.uniform(low, high, 3), low - 0.01, high + 0.01):
            x, y = s * np.cos(theta) - t * np.sin(theta), s * np.sin(theta) + t * np.cos(theta)
            sampled = shape.value * np.count_nonzero(shape.contains(x, y)) * 2 * reach / n
            # Every crossing is off by up to a step, and no shape here has more than six.
            assert abs(sampled - shape.line_integral(theta, s)) <= shape.value * 6 * 2 * reach / n


@given(shape=shapes, theta=angles, where=st.tuples(st.floats(0, 1), st.floats(0, 1)))
@settings(max_examples=60, deadline=None)
def test_cumulative_is_the_integral_of_the_line_integral(shape, theta, where):
    low, high = shape.extent(theta)
    begin, end = sorted(low + w * (high - low) for w in where)
    # Kinks and infinite slopes sit where the outline turns back or has a corner: tell the quadrature about them.
    knots = [low, high]
    if isinstance(shape, Rectangle):
        plateau = shape._projected(theta)
        knots += [plateau[0] + sign * (plateau[1] - plateau[2]) / 2 for sign in (-1, 1)]
    elif isinstance(shape, Outline):
        knots += [s + float(shape._reference(theta)[0]) for piece in shape._pieces(np.asarray(theta))
                  for s in piece[:2]]
    inner = sorted({begin, end, *(float(s) for s in knots if begin < s < end)})
    numerical = sum(quad(lambda s: float(shape.line_integral(theta, s)), a, b, epsabs=1e-9, limit=200)[0]
                    for a, b in pairwise(inner) if b - a > 1e-9)
    exact = shape.cumulative(theta, end) - shape.cumulative(theta, begin)
    assert exact == pytest.approx(numerical, rel=1e-6, abs=2e-6 * (1 + abs(shape.mass)))


@given(shape=shapes, theta=angles)
@settings(max_examples=60, deadline=None)
def test_the_extent_is_tight(shape, theta):
    low, high = shape.extent(theta)
    margin = 1e-3 * (high - low)
    for edge, inward in ((low, margin), (high, -margin)):
        assert shape.line_integral(theta, edge - inward) == 0
        assert shape.line_integral(theta, edge + inward) / shape.value > 0


@given(shape=shapes, arc=st.sampled_from([np.pi, 2 * np.pi]))
@example(shape=Ellipse(33.3, -21, 1e-3, 1e-3, 0, 1.0), arc=np.pi)
@example(shape=Rectangle(10, 20, 100, 1e-6, 0.0, 1.0), arc=np.pi)
@example(shape=Rectangle(0, 0, 8, 3, np.pi / 2, 1.0), arc=2 * np.pi)
@settings(max_examples=80, deadline=None)
def test_every_projection_holds_the_whole_mass(shape, arc):
    geometry = ParallelGeometry(40, 401, 1.0, (8, 8), 1.0, arc)
    sums = Phantom((shape,)).sinogram(geometry).sum(axis=1) * geometry.bin_mm
    np.testing.assert_allclose(sums, shape.value * shape.area, rtol=1e-10, atol=1e-13)


@given(shape=shapes)
@settings(max_examples=60, deadline=None)
def test_opposite_angles_see_the_mirrored_projection(shape):
    half = GEOMETRY.n_angles // 2
    sinogram = Phantom((shape,)).sinogram(GEOMETRY)
    np.testing.assert_allclose(sinogram[half:], sinogram[:half, ::-1], rtol=0, atol=1e-11 * (1 + abs(shape.mass)))


@given(shape=shapes, steps=st.integers(0, 35))
@settings(max_examples=60, deadline=None)
def test_turning_the_shape_rolls_the_angles(shape, steps):
    turned = Phantom((moved(shape, steps * 2 * np.pi / GEOMETRY.n_angles),)).sinogram(GEOMETRY)
    expected = np.roll(Phantom((shape,)).sinogram(GEOMETRY), steps, axis=0)
    np.testing.assert_allclose(turned, expected, rtol=0, atol=1e-10 * (1 + abs(shape.mass)))


@given(first=shapes, second=shapes, factor=st.floats(-3, 3), model=st.sampled_from(["bin", "line"]))
@settings(max_examples=30, deadline=None)
def test_phantoms_are_linear(first, second, factor, model):
    p, q = Phantom((first,)), Phantom((second, first))
    total = p + factor * q
    scale = 1e-12 * (1 + abs(first.mass) + abs(second.mass))
    np.testing.assert_allclose(total.sinogram(GEOMETRY, model),
                               p.sinogram(GEOMETRY, model) + factor * q.sinogram(GEOMETRY, model), atol=scale)
    np.testing.assert_allclose(total.image(GEOMETRY), p.image(GEOMETRY) + factor * q.image(GEOMETRY), atol=scale)
    assert total.total_mass == pytest.approx(p.total_mass + factor * q.total_mass)


def test_bins_converge_to_lines_quadratically():
    phantom = Phantom((Ellipse(3, -4, 60, 40, 0.4, 1.0), Ellipse(-8, 12, 20, 30, 1.0, -0.5)))
    errors = []
    for width in (2.0, 1.0, 0.5, 0.25):
        geometry = ParallelGeometry(16, 1, width, (8, 8), 1.0)  # the bin at s = 0, where both chords are smooth
        errors.append(np.abs(phantom.sinogram(geometry) - phantom.sinogram(geometry, "line")).max())
    ratios = np.array(errors[:-1]) / errors[1:]
    assert errors[-1] > 1e-9  # still far above rounding, so that the ratios mean something
    np.testing.assert_allclose(ratios, 4, atol=0.1)


@given(shape=shapes, theta=angles)
@settings(max_examples=60, deadline=None)
def test_narrow_bins_meet_the_line_integral_away_from_edges(shape, theta):
    if jumps(shape, theta):
        return
    low, high = shape.extent(theta)
    s = low + (high - low) * np.linspace(0.02, 0.98, 31)
    width = 1e-4 * (high - low)
    mean = (shape.cumulative(theta, s + width / 2) - shape.cumulative(theta, s - width / 2)) / width
    peak = np.abs(shape.value) * shape.area / (high - low)
    np.testing.assert_allclose(mean, shape.line_integral(theta, s), rtol=0, atol=0.3 * peak)
    assert np.median(np.abs(mean - shape.line_integral(theta, s))) <= 1e-4 * peak


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
@pytest.mark.parametrize("angle", [0.0, np.pi / 2, -np.pi])
def test_axis_aligned_rectangles_are_boxes(turn, angle):
    theta = turn * np.pi / 2
    rectangle = Rectangle(10, -6, 8, 4, angle, 3.0)
    across = (8, 4) if abs(np.cos(angle)) > 0.5 else (4, 8)
    width, depth = across if turn % 2 == 0 else across[::-1]
    centre = (10, -6, -10, 6)[turn]
    inside, edge = centre + np.array([-0.49, 0, 0.49]) * width, centre + np.array([-0.5, 0.5]) * width
    np.testing.assert_allclose(rectangle.line_integral(theta, inside), 3 * depth, rtol=1e-12)
    np.testing.assert_allclose(rectangle.line_integral(theta, edge), 3 * depth / 2, rtol=0.1)
    np.testing.assert_array_equal(rectangle.line_integral(theta, edge + np.array([-1e-9, 1e-9])), 0)
    np.testing.assert_allclose(rectangle.cumulative(theta, [edge[0] - 1, edge[1] + 1, centre + width / 4]),
                               [0, 96, 72], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bins", [64, 65])
def test_a_shape_smaller_than_a_bin_lands_in_its_bin(bins):
    geometry = ParallelGeometry(12, bins, 2.0, (64, 64), 2.0)
    dot = disc(11.1, -20.3, 0.01, 5.0)
    sinogram = Phantom((dot,)).sinogram(geometry)
    centre = 11.1 * np.cos(geometry.angles) - 20.3 * np.sin(geometry.angles)
    expected = np.floor(centre / 2.0 + bins / 2).astype(int)
    np.testing.assert_array_equal(sinogram.argmax(axis=1), expected)
    np.testing.assert_allclose(sinogram.max(axis=1), 5 * np.pi * 1e-4 / 2, rtol=1e-9)
    image = Phantom((dot,)).image(geometry)
    assert np.unravel_index(image.argmax(), image.shape) == (42, 37)
    assert image.sum() * 4 == pytest.approx(dot.mass, rel=0.02)


def test_points_on_a_chord_are_inside():
    # The chords of a rounded body lie within it: no point on them may fall between the polygon and the arcs.
    body = nema_iec().shapes[0]
    for (x0, y0), (x1, y1) in zip(body.vertices, body.vertices[1:] + body.vertices[:1], strict=True):
        fraction = np.linspace(0.01, 0.99, 99)
        if y0 != y1 or y0 != -112:  # the straight edge is the boundary itself
            assert body.contains(x0 + fraction * (x1 - x0), y0 + fraction * (y1 - y0)).all()
    for turns in range(4):
        square = moved(Outline(((1, 1), (-1, 1), (-1, -1), (1, -1)), (np.pi,) * 4), turns * np.pi / 2)
        line = np.linspace(-1.9, 1.9, 39)
        for level in (-1.0, 1.0):
            assert square.contains(line * 0.5, level).all()
            assert square.contains(level, line * 0.5).all()


def test_bins_cut_off_what_they_do_not_reach():
    narrow, wide = (ParallelGeometry(20, n, 1.0, (8, 8), 1.0) for n in (60, 400))
    phantom = Phantom((Ellipse(25, 10, 60, 20, 0.3), Rectangle(120, 0, 10, 10), disc(0, 0, 5)))
    np.testing.assert_allclose(phantom.sinogram(narrow), phantom.sinogram(wide)[:, 170:230], atol=1e-11)


@pytest.mark.parametrize("n", [2, 8])
@given(shape=shapes)
@settings(max_examples=40, deadline=None)
def test_the_image_holds_the_area(n, shape):
    geometry = ParallelGeometry(1, 1, 1.0, (160, 170), 2.0)
    image = Phantom((dataclasses.replace(shape, value=1.0),)).image(geometry, supersampling=n)
    assert image.min() >= -1e-12
    assert image.max() <= 1 + 1e-12
    height = np.subtract(*shape.extent(np.pi / 2)[::-1])
    width = np.subtract(*shape.extent(0.0)[::-1])
    # The midpoint rule over y is off by at most half a line's height times the variation of the chord; the outlines
    # here have chords that rise and fall a few times at most.
    assert abs(image.sum() * 4 - shape.area) <= 4 * width * min(2.0, height) / (2 * n)


def test_the_image_of_a_rectangle_along_the_axes_is_exact():
    geometry = ParallelGeometry(1, 1, 1.0, (6, 8), 1.0)
    image = Phantom((Rectangle(0.65, 0.35, 2.5, 1.5),)).image(geometry, supersampling=1)
    # x from -0.6 to 1.9, y from -0.4 to 1.1; columns start at -4, rows at 3.
    columns = np.array([0, 0, 0, 0.6, 1, 0.9, 0, 0])
    rows = np.array([0, 0.1, 1, 0.4, 0, 0])[:, None]
    np.testing.assert_allclose(image, rows * columns, atol=1e-14)


def test_pixels_tend_to_their_exact_fraction():
    geometry = ParallelGeometry(1, 1, 1.0, (40, 44), 1.0)
    phantom = Phantom((KEYHOLE,)) * 0.5 + Phantom((disc(5.2, 3.3, 9.7),))
    side = (np.arange(50) + 0.5) / 50 - 0.5
    fine = phantom.value_at(geometry.x[None, :, None, None] + side,
                            geometry.y[:, None, None, None] + side[:, None]).mean(axis=(2, 3))
    for n, bound in ((1, 0.5), (4, 0.13), (32, 0.025)):
        assert np.abs(phantom.image(geometry, supersampling=n) - fine).max() <= 1.85 * bound


def test_sinogram_of_the_image_matches_the_exact_one():
    geometry = ParallelGeometry(90, 140, 2.0, (128, 128), 1.5)
    for phantom in (asymmetric_test_phantom(90), derenzo((11, 10, 9, 8, 7, 6), radius_mm=90, background=1.0)):
        exact = phantom.sinogram(geometry)
        difference = RadonOperator(geometry)(phantom.image(geometry)) - exact
        assert np.linalg.norm(difference) <= 5e-3 * np.linalg.norm(exact)


def test_astra_sees_the_same_orientation():
    astra = pytest.importorskip("astra", reason="astra-toolbox is not installed")
    geometry = ParallelGeometry(60, 220, 1.0, (256, 280), 0.7)
    phantom = Phantom((Ellipse(40, 22, 25, 9, 0.5, 1.0), Rectangle(-30, -40, 30, 12, 0.2, 2.0)))
    projections = astra.create_proj_geom("parallel", geometry.bin_mm, geometry.n_bins, geometry.angles)
    half_width, half_height = 280 * 0.7 / 2, 256 * 0.7 / 2
    volume = astra.create_vol_geom(256, 280, -half_width, half_width, -half_height, half_height)
    projector = astra.create_projector("strip", projections, volume)
    try:
        identifier, theirs = astra.create_sino(phantom.image(geometry, dtype=np.float32), projector)
        astra.data2d.delete(identifier)
    finally:
        astra.projector.delete(projector)
    ours = phantom.sinogram(geometry)
    # Strip weights are areas: line integrals times the bin width of 1 mm.
    assert np.linalg.norm(theirs / geometry.bin_mm - ours) <= 0.02 * np.linalg.norm(ours)
    assert np.linalg.norm(theirs - ours[:, ::-1]) > np.linalg.norm(ours)


@pytest.mark.parametrize("name", NAMED)
def test_named_phantoms(name):
    phantom = NAMED[name]
    extent = [shape.extent(theta) for shape in phantom.shapes for theta in (0.0, np.pi / 4, np.pi / 2)]
    geometry = ParallelGeometry(24, int(2.4 * np.max(np.abs(extent)) / 2), 2.0, (300, 300), 1.5)
    image, sinogram = phantom.image(geometry), phantom.sinogram(geometry)
    assert image.min() >= -1e-9
    assert image.sum() * 1.5**2 == pytest.approx(phantom.total_mass, rel=2e-3)
    np.testing.assert_allclose(sinogram.sum(axis=1) * 2, phantom.total_mass, rtol=1e-10)
    assert sinogram.min() >= -1e-9 * sinogram.max()
    again = Phantom.from_dict(json.loads(json.dumps(phantom.to_dict())))
    assert again == phantom
    np.testing.assert_array_equal(again.sinogram(geometry), sinogram)
    single = phantom.sinogram(geometry, dtype=np.float32)
    assert single.dtype == np.float32
    assert phantom.image(geometry, dtype="float32").dtype == np.float32
    np.testing.assert_allclose(single, sinogram, rtol=1e-6)


def test_shepp_logan_is_the_picture_everyone_knows():
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed")
    known = data.shepp_logan_phantom()
    geometry = ParallelGeometry(1, 1, 1.0, known.shape, 0.5)
    ours = shepp_logan(100).image(geometry)
    # Both rasterise the skull's thin rim in their own way, so the correlation is compared with that of a mirror image.
    same, mirrored = (np.corrcoef(a.ravel(), known.ravel())[0, 1] for a in (ours, ours[:, ::-1]))
    assert same > 0.97
    assert mirrored < same - 0.015
    original = shepp_logan(100, modified=False)
    np.testing.assert_allclose(original.value_at([0, 50, 22, 0, 200], [90, -30, 0, 35, 0]), [2, 1.02, 1.0, 1.03, 0],
                               atol=1e-12)


def test_nema_iec_has_the_dimensions_of_the_standard():
    phantom = nema_iec(8.0, 2.5, cold_mm=())
    body, insert, *spheres = phantom.shapes
    np.testing.assert_allclose(body.extent(0.0), (-147, 147))
    np.testing.assert_allclose(body.extent(np.pi / 2), (-112, 112))
    assert body.area == pytest.approx(np.pi * (147**2 + 77**2) / 2 + 140 * 77)
    assert not body.contains(130, -100)
    assert body.contains(130, -60)
    assert phantom.value_at(0, 0) == 0
    assert insert.a_mm == 21
    assert [2 * s.a_mm for s in spheres] == [10, 13, 17, 22, 28, 37]
    for s in spheres:
        assert np.hypot(s.x_mm, s.y_mm) == pytest.approx(57.25)
        assert phantom.value_at(s.x_mm, s.y_mm) == pytest.approx(20)
    assert phantom.value_at(0, -90) == 2.5
    cold = nema_iec()
    assert [cold.value_at(s.x_mm, s.y_mm) for s in spheres] == [4, 4, 4, 4, 0, 0]


def test_derenzo_rods_keep_their_distance():
    phantom = derenzo(background=0.2)
    _, *rods = phantom.shapes
    x, y, d = (np.array([getattr(r, name) for r in rods]) for name in ("x_mm", "y_mm", "a_mm"))
    apart = np.hypot(x[:, None] - x, y[:, None] - y)
    np.fill_diagonal(apart, np.inf)
    assert (apart > 1.9 * (d[:, None] + d) / 2).all()  # radii: at least about a mean diameter between centres
    for size in np.unique(d):
        same = d == size
        assert apart[np.ix_(same, same)].min() == pytest.approx(4 * size)
    assert (np.hypot(x, y) + d <= 102 + 1e-9).all()
    assert sorted(2 * np.unique(d)) == pytest.approx([3.2, 4.8, 6.4, 7.9, 9.5, 11.1])
    assert set(np.round(phantom.value_at(x, y), 12)) == {1.0}


def test_the_orientation_phantom_has_no_symmetry():
    image = asymmetric_test_phantom(60).image(ParallelGeometry(1, 1, 1.0, (64, 64), 2.0))
    for transpose in (False, True):
        for turns in range(4):
            other = np.rot90(image.T if transpose else image, turns)
            if transpose or turns:
                assert np.linalg.norm(other - image) > 0.3 * np.linalg.norm(image)


def test_regions_of_the_thorax_nest():
    # Where a region pokes out of the one it is drawn in, values add to something that no tissue has.
    y, x = np.mgrid[-135:135:541j, -205:205:821j]
    activity, mu = demo_torso(), demo_torso("attenuation")
    tissues = np.array([0, 0.2, 0.3, 0.45, 0.7, 1.0, 1.2, 1.3, 1.5, 1.7, 2.1, 6.5, 7.5, 9.0]) * 5
    found = activity.value_at(x, y)
    assert np.abs(found[..., None] - tissues).min(axis=-1).max() < 1e-9
    np.testing.assert_allclose(np.unique(np.round(mu.value_at(x, y), 9)),
                               [0, 0.0026, 0.009, 0.0097, 0.0099, 0.013, 0.014], atol=1e-9)
    # The patient's left is at greater x: the heart there, the liver opposite; the spine is behind.
    centre = {s.label: (s.extent(0.0)[0] + s.extent(0.0)[1]) / 2 for s in activity.shapes}
    assert centre["myocardium"] > 0 > centre["liver"]
    assert activity.shapes[0].extent(0.0) == pytest.approx((-200, 200))


@pytest.mark.parametrize(("make", "sentence"), [
    (lambda: disc(0, 0, -1), "radius_mm must be a finite number greater than zero"),
    (lambda: Ellipse(0, 0, 0, 1), "a_mm must be"),
    (lambda: Ellipse(np.nan, 0, 1, 1), "x_mm must be a finite number, but was nan"),
    (lambda: Ellipse(0, 0, 1, 1, 0, np.inf), "value must be a finite number"),
    (lambda: Rectangle(0, 0, 1, -2), "height_mm must be"),
    (lambda: Rectangle(0, 0, 1, 1, "east"), "angle must be a finite number"),
    (lambda: Outline(((0, 0),)), "vertices must be at least two pairs"),
    (lambda: Outline(((0, 0), (1, 0), (np.nan, 1))), "vertices must be at least two pairs"),
    (lambda: Outline(((0, 0), (1, 0), (1, 1), (0, 0))), "neighbouring vertices must differ"),
    (lambda: Outline(((0, 0), (1, 0), (2, 0))), "must enclose an area"),
    (lambda: Outline(((0, 0), (1, 0), (1, 1)), (0, 7.0, 0)), "arcs must be one angle per vertex"),
    (lambda: Outline(((0, 0), (1, 0), (1, 1)), (0.1,)), "arcs must be one angle per vertex"),
    (lambda: Phantom(()), "shapes must be a sequence of at least one"),
    (lambda: Phantom((1,)), "shapes must be a sequence of at least one"),
    (lambda: Phantom((disc(0, 0, 1),)) * np.nan, "factor must be a finite number"),
    (lambda: shepp_logan().sinogram(GEOMETRY, "strip"), "model must be one of bin, line, but was 'strip'"),
    (lambda: shepp_logan().sinogram(GEOMETRY, dtype=int), "dtype must be float32 or float64"),
    (lambda: shepp_logan().image(GEOMETRY, dtype="grey"), "dtype must be float32 or float64, but was 'grey'"),
    (lambda: shepp_logan().sinogram((10, 10)), "geometry must be a ParallelGeometry, but was tuple"),
    (lambda: shepp_logan().image(GEOMETRY, supersampling=0), "supersampling must be an integer of at least 1"),
    (lambda: shepp_logan(0), "radius_mm must be"),
    (lambda: nema_iec(-1), "hot_to_background must be"),
    (lambda: nema_iec(cold_mm=(12,)), "cold_mm must name spheres"),
    (lambda: nema_iec(ring_diameter_mm=300), "ring_diameter_mm must keep"),
    (lambda: derenzo((3, 4, 5)), "diameters_mm must be six"),
    (lambda: derenzo(radius_mm=20), "radius_mm must leave room"),
    (lambda: demo_torso("dose"), "quantity must be activity or attenuation"),
    (lambda: Phantom.from_dict({"shapes": [{"shape": "Star"}]}), "shape must be one of Ellipse, Outline, Rectangle"),
    (lambda: Phantom.from_dict({"shapes": [{"shape": "Ellipse", "x": 1}]}), "parameters must be what Phantom.to_dict"),
    (lambda: Phantom.from_dict({}), "parameters must be what Phantom.to_dict"),
])
def test_mistakes_are_told_in_a_sentence(make, sentence):
    with pytest.raises(InputError, match=r"^[a-z]") as caught:
        make()
    assert sentence in str(caught.value)
