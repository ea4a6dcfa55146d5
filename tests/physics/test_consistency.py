"""The PN residual: zero for composites, and of known size for known deviations."""

import numpy as np
import pytest

from allpet_physics.blocks import Blocks
from allpet_physics.consistency import pn_residual
from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.mask_projection import composite, normalise_mask, project_blocks


@pytest.fixture
def pair():
    geometry = ParallelGeometry(20, 30, 1.0, (20, 20), 1.0)
    mask = normalise_mask(project_blocks(Blocks((20, 20), [(3, 4, 8, 8)]), geometry, dtype=np.float64))
    return np.random.default_rng(0).gamma(2.0, 3.0, (4, 20, 30)), mask


def test_a_composite_has_no_residual(pair):
    s, mask = pair
    channels = composite(s, mask)
    assert pn_residual(channels).shape == (4,)
    np.testing.assert_allclose(pn_residual(channels), 0, atol=1e-25)
    np.testing.assert_allclose(pn_residual(channels, mask), 0, atol=1e-25)


def test_a_deviation_has_its_own_size(pair):
    """C₊ off by a·S gives a², with and without the mask; moving it to C₋ is seen by the mask alone."""
    s, mask = pair
    channels = composite(s, mask)
    channels[:, 0] += 0.1 * s
    np.testing.assert_allclose(pn_residual(channels), 0.01, rtol=1e-9)
    np.testing.assert_allclose(pn_residual(channels, mask), 0.01, rtol=1e-9)
    channels[:, 2] -= 0.1 * s
    np.testing.assert_allclose(pn_residual(channels), 0, atol=1e-25)
    np.testing.assert_allclose(pn_residual(channels, mask), 0.02, rtol=1e-9)


def test_another_mask_is_noticed_and_zero_has_no_residual(pair):
    s, mask = pair
    assert (pn_residual(composite(s, mask), np.roll(mask, 8, axis=-1)) > 0.01).all()
    assert np.isnan(pn_residual(np.zeros((3, 20, 30))))


def test_mistakes_are_named(pair):
    s, mask = pair
    with pytest.raises(InputError, match=r"channels must have shape \(\.\.\., 3, angle, bin\)"):
        pn_residual(s)
    with pytest.raises(InputError, match=r"mask must be normalised to \[0, 1\]"):
        pn_residual(composite(s, mask), 3 * mask + 1)
    with pytest.raises(InputError, match="mask must broadcast to one per composite"):
        pn_residual(composite(s, mask), np.broadcast_to(mask, (3, 20, 30)))
