"""The plan of rays: every angle once, few base angles, transformed images that show what they claim."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allpet_physics._symmetry import plan_passes
from allpet_physics.geometry import ParallelGeometry


def planned(passes):
    return sorted(int(a) for p in passes for a in p.angle.ravel() if a >= 0)


@given(st.integers(1, 40), st.sampled_from([np.pi, 2 * np.pi]), st.booleans(), st.data())
@settings(max_examples=100, deadline=None)
def test_every_angle_is_measured_once_by_a_steep_base(n_angles, arc, square, data):
    geometry = ParallelGeometry(n_angles, 9, 1.0, (8, 8) if square else (8, 11), 1.0, arc)
    chosen = data.draw(st.lists(st.integers(0, n_angles - 1), min_size=1, max_size=50))
    passes = plan_passes(geometry, tuple(chosen))
    assert planned(passes) == list(range(len(chosen)))
    for p in passes:
        assert (p.table[:, 2] > 0).all()
        assert (np.abs(p.table[:, 1]) <= 1 + 1e-12).all()


@pytest.mark.parametrize(("shape", "n_angles", "step", "bases"), [
    ((8, 8), 64, 1, 17),    # all eight symmetries of the square: an eighth of the rays, and both ends of the octant
    ((8, 8), 64, 4, 5),
    ((8, 11), 64, 1, 34),   # no transposition: two passes of the mirror symmetry
    ((8, 8), 63, 1, 32),    # an odd number of angles has no quarter turn
])
def test_symmetric_angles_share_their_weights(shape, n_angles, step, bases):
    geometry = ParallelGeometry(n_angles, 9, 1.0, shape, 1.0)
    assert sum(len(p.table) for p in plan_passes(geometry, tuple(range(0, n_angles, step)))) <= bases


def test_a_subset_off_the_axes_still_has_the_quarter_turn():
    geometry = ParallelGeometry(64, 9, 1.0, (8, 8), 1.0)
    (only,) = plan_passes(geometry, tuple(range(3, 64, 8)))
    assert only.angle.shape == (4, 2)
    assert (only.angle >= 0).all()


@pytest.mark.parametrize("shape", [(5, 5), (4, 7)])
def test_pixel_maps_are_inverse_and_stay_inside(shape):
    geometry = ParallelGeometry(12, 9, 1.0, shape, 1.0)
    r, c = np.mgrid[:shape[0], :shape[1]]
    for p in plan_passes(geometry, tuple(range(12))):
        for to_image, to_lane in zip(p.to_image, p.to_lane, strict=True):
            a0, a1, a2, b0, b1, b2 = to_lane
            row, col = a0 + a1 * r + a2 * c, b0 + b1 * r + b2 * c
            assert row.min() == col.min() == 0
            assert (row.max() + 1, col.max() + 1) == p.image_shape
            a0, a1, a2, b0, b1, b2 = to_image
            np.testing.assert_array_equal(a0 + a1 * row + a2 * col, r)
            np.testing.assert_array_equal(b0 + b1 * row + b2 * col, c)
