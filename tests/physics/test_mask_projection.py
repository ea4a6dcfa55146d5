"""Masks projected by closed forms: against the strip projection of the raster, quadrature, and exact identities."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate

from allpet_physics.blocks import Blocks
from allpet_physics.composites import composite, composite_blocks
from allpet_physics.errors import GeometryError, InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.mask_projection import normalise_mask, project_blocks, project_mask
from allpet_physics.masks import DynamicMultiMask, block_catalogue
from allpet_physics.radon import RadonOperator
from allpet_physics.simulation import Rectangle

ARCS = (np.pi, 2 * np.pi)


@st.composite
def cases(draw):
    """A geometry whose bins may cut the image off, and a few blocks in it, at the border too."""
    rows, cols = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    geometry = ParallelGeometry(draw(st.integers(1, 24)), draw(st.integers(1, 60)),
                                draw(st.sampled_from([0.4, 1.0, 1.3, 3.0])), (rows, cols),
                                draw(st.sampled_from([0.7, 1.0, 1.9])), draw(st.sampled_from(ARCS)))
    parameters = []
    for _ in range(draw(st.integers(1, 4))):
        row, col = draw(st.integers(0, rows - 1)), draw(st.integers(0, cols - 1))
        parameters.append((row, col, draw(st.integers(1, rows - row)), draw(st.integers(1, cols - col))))
    return geometry, parameters


def raster(parameters, shape):
    image = np.zeros(shape)
    for row, col, height, width in parameters:
        image[row:row + height, col:col + width] += 1
    return image


@given(cases())
@settings(max_examples=150, deadline=None)
def test_closed_form_is_the_strip_projection_of_the_raster(case):
    geometry, parameters = case
    blocks = Blocks(geometry.image_shape, parameters)
    for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 1e-5)):
        expected = RadonOperator(geometry)(raster(parameters, geometry.image_shape).astype(dtype))
        found = project_blocks(blocks, geometry, dtype=dtype)
        assert found.dtype == dtype
        scale = max(expected.max(), 1e-3 * geometry.pixel_mm)
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


@given(cases(), st.integers(0, 2**32 - 1), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_row_runs_give_the_strip_projection_of_any_mask(case, seed, density):
    geometry, parameters = case
    rng = np.random.default_rng(seed)
    masks = rng.random((2, *geometry.image_shape)) < density
    masks[1] = raster(parameters, geometry.image_shape) > 0
    for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 1e-5)):
        expected = RadonOperator(geometry)(masks.astype(dtype))
        scale = max(expected.max(), 1e-3 * geometry.pixel_mm)
        np.testing.assert_allclose(project_mask(masks, geometry, dtype=dtype), expected, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("arc", ARCS)
def test_full_size_blocks_and_rois_are_exact(arc):
    geometry = ParallelGeometry(512, 512, 1.3, (512, 512), 1.3, arc)
    blocks = Blocks((512, 512), [(0, 0, 64, 64), (448, 448, 64, 64), (200, 301, 64, 64)], offsets=[0, 1, 2, 3])
    expected = RadonOperator(geometry)(blocks.to_mask().astype(np.float64))
    found = project_blocks(blocks, geometry, dtype=np.float64)
    assert np.abs(found - expected).max() <= 1e-12 * expected.max()
    assert np.abs(project_blocks(blocks, geometry) - expected).max() <= 1e-5 * expected.max()
    y, x = np.mgrid[:512, :512]
    disc = (y - 100) ** 2 + (x - 420) ** 2 < 29**2
    expected = RadonOperator(geometry)(disc.astype(np.float64))
    found = project_mask(disc, geometry, dtype=np.float64)
    assert np.abs(found - expected).max() <= 1e-12 * expected.max()
    assert not found[expected < 1e-9].any()  # exactly zero where the mask does not reach


@given(cases())
@settings(max_examples=40, deadline=None)
def test_disjoint_blocks_add_up_to_their_union(case):
    geometry, parameters = case
    taken = np.zeros(geometry.image_shape)
    disjoint = []
    for row, col, height, width in parameters:
        if not taken[row:row + height, col:col + width].any():
            taken[row:row + height, col:col + width] = 1
            disjoint.append((row, col, height, width))
    together = project_blocks(Blocks(geometry.image_shape, disjoint, disjoint=True), geometry, dtype=np.float64)
    apart = sum(project_blocks(Blocks(geometry.image_shape, [p]), geometry, dtype=np.float64) for p in disjoint)
    np.testing.assert_allclose(together, apart, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(together, project_mask(taken, geometry, dtype=np.float64), rtol=0, atol=1e-11)


def one_block():
    geometry = ParallelGeometry(24, 70, 1.1, (40, 44), 1.5, 2 * np.pi)
    row, col, height, width = 5, 9, 12, 20
    shape = Rectangle((col + width / 2 - 22) * 1.5, (20 - row - height / 2) * 1.5, width * 1.5, height * 1.5)
    return geometry, Blocks((40, 44), [(row, col, height, width)]), shape


def test_line_kernel_is_the_line_integral():
    geometry, blocks, shape = one_block()
    exact = shape.line_integral(geometry.angles[:, None], geometry.bin_centres[None, :])
    np.testing.assert_allclose(project_blocks(blocks, geometry, kernel="line", dtype=np.float64), exact, atol=1e-9)


@pytest.mark.parametrize(("kernel", "width"), [("linear", None), ("linear", 3.0), ("gaussian", None),
                                               ("gaussian", 2.5), ("gaussian", 40.0)])
def test_smooth_kernels_are_convolutions_of_the_line_integral(kernel, width):
    geometry, blocks, shape = one_block()
    found = project_blocks(blocks, geometry, kernel=kernel, width_mm=width, dtype=np.float64)
    if kernel == "linear":
        size = width or geometry.bin_mm

        def weight(u):
            return max(0.0, 1 - abs(u) / size) / size
        reach = size
    else:
        size = width or geometry.bin_mm / 2

        def weight(u):
            return np.exp(-0.5 * (u / size) ** 2) / (size * np.sqrt(2 * np.pi))
        reach = 9 * size
    for a, b in [(0, 30), (3, 28), (6, 40), (7, 25), (13, 44), (18, 33)]:
        theta, s = geometry.angles[a], geometry.bin_centres[b]
        low, high = (float(v) for v in shape.extent(theta))
        corners = [(x * np.cos(theta) + y * np.sin(theta)) for x in (shape.x_mm - 15, shape.x_mm + 15)
                   for y in (shape.y_mm - 9, shape.y_mm + 9)]
        cuts = sorted({v for v in [s - reach, s, s + reach, low, high, *corners]
                       if max(low, s - reach) <= v <= min(high, s + reach)})

        def integrand(v, theta=theta, s=s):
            return float(shape.line_integral(theta, v)) * weight(s - v)

        exact = sum(integrate.quad(integrand, p, q, epsabs=1e-11, limit=200)[0] for p, q in pairwise(cuts)
                    if q - p > 1e-9)
        assert found[a, b] == pytest.approx(exact, abs=1e-9)


def test_no_kernel_gives_a_negative_path():
    """At diagonal angles a block's last bin ends where the block does, and differences there round to either side."""
    geometry = ParallelGeometry(128, 128, 1.0, (128, 128), 1.0, 2 * np.pi)
    blocks = block_catalogue((128, 128), 15)[::7]
    for kernel, some in (("strip", slice(None)), ("line", slice(50)), ("linear", slice(50)), ("gaussian", slice(20))):
        for start in range(0, len(blocks[some]), 250):
            part = blocks[some][start:start + 250]
            assert project_blocks(part, geometry, kernel=kernel, dtype=np.float64).min() == 0
    assert project_mask(blocks[:200].to_mask(), geometry, dtype=np.float64).min() == 0
    s = np.ones((250, 128, 128))
    channels = composite_blocks(s, blocks[:250], geometry)
    assert channels.min() >= 0
    assert channels.max() <= 1


def test_bins_before_and_behind_a_block_are_exactly_zero():
    geometry = ParallelGeometry(96, 200, 0.9, (128, 128), 1.0, 2 * np.pi)
    block = Blocks((128, 128), [(93, 5, 15, 17)])
    found = project_blocks(block, geometry, dtype=np.float64)
    s = geometry.bin_centres[None, :] - (13.5 - 64) * np.cos(geometry.angles)[:, None] \
        - (64 - 100.5) * np.sin(geometry.angles)[:, None]
    reach = (17 * np.abs(np.cos(geometry.angles)) + 15 * np.abs(np.sin(geometry.angles)))[:, None] / 2
    assert not found[np.abs(s) > reach + 0.46].any()


@pytest.mark.parametrize("kernel", ["strip", "line", "linear", "gaussian"])
def test_the_total_is_the_area_at_every_angle(kernel):
    geometry = ParallelGeometry(30, 200, 0.6, (50, 60), 1.0)
    blocks = Blocks((50, 60), [(10, 20, 17, 9), (30, 2, 5, 30)])
    area = 17 * 9 + 5 * 30
    total = project_blocks(blocks, geometry, kernel=kernel, dtype=np.float64, width_mm=None
                           if kernel in ("strip", "line") else 1.2).sum(axis=1) * geometry.bin_mm
    # A line sampled at bin centres holds the total only up to the sampling; the others are integrals.
    np.testing.assert_allclose(total, area, rtol=0.1 if kernel == "line" else 1e-6)


def test_bits_do_not_depend_on_threads_batch_or_buffer():
    import numba

    geometry = ParallelGeometry(60, 90, 1.0, (64, 64), 1.0)
    sampler = DynamicMultiMask((64, 64), n_blocks=(1, 6), block_px=(4, 16), seed=3)
    blocks = sampler.draw(range(9))
    sinograms = np.random.default_rng(0).poisson(20, (9, 60, 90)).astype(np.float32)
    masks = blocks.to_mask()
    whole = project_blocks(blocks, geometry)
    runs = project_mask(masks, geometry)
    channels = composite_blocks(sinograms, blocks, geometry)
    before = numba.get_num_threads()
    try:
        for threads in range(1, numba.config.NUMBA_NUM_THREADS + 1):
            numba.set_num_threads(threads)
            np.testing.assert_array_equal(project_blocks(blocks, geometry), whole)
            np.testing.assert_array_equal(project_mask(masks, geometry), runs)
            np.testing.assert_array_equal(composite_blocks(sinograms, blocks, geometry), channels)
    finally:
        numba.set_num_threads(before)
    buffer = np.full(whole.shape, np.nan, np.float32)
    assert project_blocks(blocks, geometry, out=buffer) is buffer
    np.testing.assert_array_equal(buffer, whole)
    for i in (0, 8):
        np.testing.assert_array_equal(project_blocks(blocks[i], geometry), whole[i])
        np.testing.assert_array_equal(composite_blocks(sinograms[i], blocks[i], geometry), channels[i])


def test_linear_normalisation_reaches_one_and_zero_stays_zero():
    geometry = ParallelGeometry(60, 90, 1.3, (64, 64), 1.3)
    masks = project_blocks(DynamicMultiMask((64, 64), n_blocks=2, block_px=(5, 20), seed=1).draw(range(5)), geometry)
    masks[3] = 0
    found = normalise_mask(masks)
    np.testing.assert_array_equal(found.max(axis=(1, 2)), [1, 1, 1, 0, 1])
    assert found.min() >= 0
    for i in (0, 1, 2, 4):
        np.testing.assert_allclose(found[i] * masks[i].max(), masks[i], rtol=1e-6)


def test_clip_scale_defaults_to_the_width_of_a_square_block():
    geometry = ParallelGeometry(360, 512, 1.0, (256, 256), 1.0)
    mask = project_blocks(Blocks((256, 256), [(90, 101, 64, 64)]), geometry, dtype=np.float64)
    found = normalise_mask(mask, "clip")
    np.testing.assert_allclose(found, np.minimum(mask / 64, 1), atol=0.01)
    np.testing.assert_allclose(normalise_mask(mask, "clip", scale_mm=64), np.minimum(mask / 64, 1), rtol=1e-12)
    # Raw path lengths in pixels saturate nearly every bin the block touches; the scale undoes that.
    touched = mask > 0
    assert (normalise_mask(mask, "clip", scale_mm=1)[touched] == 1).mean() > 0.95
    assert (found[touched] == 1).mean() < 0.5


@given(st.integers(0, 2**32 - 1), st.sampled_from([np.float32, np.float64]))
@settings(max_examples=60, deadline=None)
def test_channels_add_up_to_the_sinogram_exactly(seed, dtype):
    rng = np.random.default_rng(seed)
    geometry = ParallelGeometry(11, 17, 1.0, (12, 12), 1.0)
    s = (rng.gamma(0.3, 50, (3, 11, 17)) * rng.choice([1e-6, 1, 1e5])).astype(dtype)
    blocks = DynamicMultiMask((12, 12), n_blocks=(1, 3), block_px=(1, 5), seed=seed).draw(range(3))
    masks = normalise_mask(project_blocks(blocks, geometry, dtype=dtype))
    image = rng.random((3, 12, 12)).astype(dtype)
    of_image = RadonOperator(geometry)(image)
    for source, channels in (
            (s, composite(s, masks)), (s, composite_blocks(s, blocks, geometry)),
            (s, composite_blocks(s, blocks, geometry, normalisation="clip", scale_mm=2.0)),
            (of_image, composite(of_image, blocks, mode="exact", image=image, geometry=geometry))):
        assert channels.shape == (3, 3, 11, 17)
        assert channels.dtype == dtype
        np.testing.assert_array_equal(channels[:, 0] + channels[:, 2], source)
        np.testing.assert_array_equal(channels[:, 1], source)


@pytest.mark.parametrize("normalisation", ["linear", "clip"])
def test_fused_composite_equals_the_steps(normalisation):
    geometry = ParallelGeometry(60, 90, 1.3, (64, 64), 1.3)
    blocks = DynamicMultiMask((64, 64), n_blocks=(1, 6), block_px=(4, 16), seed=5).draw(range(7))
    s = np.random.default_rng(1).poisson(30, (7, 60, 90)).astype(np.float32)
    steps = composite(s, normalise_mask(project_blocks(blocks, geometry), normalisation))
    np.testing.assert_allclose(composite_blocks(s, blocks, geometry, normalisation=normalisation), steps,
                               rtol=1e-5, atol=1e-5)


def test_exact_mode_is_a_sinogram_and_product_mode_is_not():
    """The total of an exact channel is the same at every angle; that of a product varies by several percent."""
    geometry = ParallelGeometry.for_image((128, 128), 1.0, n_angles=90)
    x, y = np.meshgrid(geometry.x, geometry.y)
    image = (np.hypot(x / 55, y / 40) <= 1) * (1 + 0.5 * (np.hypot(x - 20, y) < 12))
    s = RadonOperator(geometry)(image)
    block = Blocks((128, 128), [(40, 30, 64, 64)])
    exact = composite(s, block, mode="exact", image=image, geometry=geometry)[0].sum(axis=1)
    product = composite(s, normalise_mask(project_blocks(block, geometry, dtype=np.float64)))[0].sum(axis=1)
    assert np.ptp(exact) <= 1e-9 * exact.mean()
    assert np.ptp(product) > 0.05 * product.mean()


def test_mistakes_are_named():
    geometry = ParallelGeometry(6, 9, 1.0, (8, 8), 1.0)
    blocks = Blocks((8, 8), [(0, 0, 2, 2)])
    s = np.ones((6, 9))
    with pytest.raises(GeometryError, match=r"image of shape \(8, 8\), but were drawn for \(9, 8\)"):
        project_blocks(Blocks((9, 8), [(0, 0, 2, 2)]), geometry)
    with pytest.raises(InputError, match="blocks must be Blocks, but was list"):
        project_blocks([(0, 0, 2, 2)], geometry)
    with pytest.raises(InputError, match="kernel must be one of strip, line, linear, gaussian"):
        project_blocks(blocks, geometry, kernel="cubic")
    with pytest.raises(InputError, match="width_mm is for the kernels"):
        project_blocks(blocks, geometry, width_mm=2.0)
    with pytest.raises(InputError, match=r"out must be a writeable C-contiguous .* of shape \(6, 9\)"):
        project_blocks(blocks, geometry, out=np.empty((9, 6), np.float32))
    with pytest.raises(InputError, match="dtype must be float32 or float64"):
        project_blocks(blocks, geometry, dtype=np.int32)
    with pytest.raises(InputError, match="mask must be binary"):
        project_mask(np.full((8, 8), 0.5), geometry)
    with pytest.raises(InputError, match="mask must be binary"):
        project_mask(np.full((8, 8), np.nan), geometry)
    with pytest.raises(InputError, match=r"mask must have shape \(\.\.\., 8, 8\)"):
        project_mask(np.zeros((8, 9)), geometry)
    with pytest.raises(InputError, match="the normalisation must be one of linear, clip"):
        normalise_mask(s, "max")
    with pytest.raises(InputError, match="scale_mm is for the normalisation"):
        normalise_mask(s, "linear", scale_mm=3)
    with pytest.raises(InputError, match="mask must not be negative"):
        normalise_mask(-s)
    with pytest.raises(InputError, match=r"mask must be normalised to \[0, 1\], but its range was \[2, 2\]"):
        composite(s, 2 * s)
    with pytest.raises(InputError, match="mode must be one of product, exact"):
        composite(s, s, mode="sum")
    with pytest.raises(InputError, match="mask was Blocks; use"):
        composite(s, blocks)
    with pytest.raises(InputError, match='image is for mode "exact"'):
        composite(s, s, image=np.ones((8, 8)))
    with pytest.raises(InputError, match="out must be float64"):
        composite(s, s, out=np.empty((3, 6, 9), np.float32))
    with pytest.raises(InputError, match='mode "exact" needs image='):
        composite(s, blocks, mode="exact")
    with pytest.raises(InputError, match="mask must broadcast to the sinogram"):
        composite(s, np.ones((5, 9)))
    with pytest.raises(InputError, match="there were 1 sets and 2 sinograms"):
        composite_blocks(np.stack([s, s]), blocks, geometry)
