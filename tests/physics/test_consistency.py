"""Consistency: zero for what is consistent, of known size for noise, and large where something is wrong."""

import numpy as np
import pytest
from scipy import stats

from allpet_physics.blocks import Blocks
from allpet_physics.composites import composite
from allpet_physics.consistency import count_balance, helgason_ludwig, pn_residual
from allpet_physics.counts import poisson_counts, scale_to_counts
from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.mask_projection import normalise_mask, project_blocks
from allpet_physics.radon import RadonOperator
from allpet_physics.scan import acquire
from allpet_physics.scan_protocol import ScanProtocol
from allpet_physics.simulation import demo_torso

#: Chance that a statistical test fails although the code is right; every seed is fixed.
FALSE_ALARM = 1e-4


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


def torso_geometry(arc=np.pi):
    return ParallelGeometry(90, 128, 5.2, (128, 128), 5.2, arc)


@pytest.mark.parametrize("arc", [np.pi, 2 * np.pi])
@pytest.mark.parametrize(("model", "limit"), [("strip", 2e-4), ("joseph", 1e-3)])
def test_projections_of_images_are_consistent(arc, model, limit):
    geometry = torso_geometry(arc)
    image = np.random.default_rng(0).random((2, 128, 128)) * (np.hypot(geometry.x, geometry.y[:, None]) < 300)
    image[1] = demo_torso().image(geometry)
    check = helgason_ludwig(RadonOperator(geometry, model)(image), geometry)
    assert check.residual.shape == (2, 4)
    assert (check.residual < limit).all()
    if model == "strip":
        assert (check.residual[:, 0] < 1e-12).all()
    assert check.moments.shape == (2, 4, 90)
    assert check.z is None
    assert check.reduced_chi_squared is None


@pytest.mark.parametrize("arc", [np.pi, 2 * np.pi])
def test_the_moments_are_those_of_the_image(arc):
    geometry = torso_geometry(arc)
    image = demo_torso().image(geometry)
    check = helgason_ludwig(RadonOperator(geometry)(image), geometry)
    x, y = np.broadcast_arrays(geometry.x, geometry.y[:, None])
    s = x * np.cos(geometry.angles)[:, None, None] + y * np.sin(geometry.angles)[:, None, None]
    for n in range(4):
        direct = 5.2**2 * (image * s**n).sum(axis=(1, 2))
        size = 5.2**2 * (image * np.abs(s) ** n).sum(axis=(1, 2)).max()
        np.testing.assert_allclose(check.fitted[n], direct, atol=2e-3 * size)


def test_the_residual_grows_with_noise_as_predicted():
    """The mean square residual is the mean variance of a moment, less what the fit takes, over the scale squared."""
    geometry = torso_geometry()
    line_integrals = RadonOperator(geometry)(demo_torso().image(geometry))
    rng = np.random.default_rng(0)
    for total in (1e5, 4e5, 1.6e6):
        mean = scale_to_counts(line_integrals, total)
        residual = helgason_ludwig(poisson_counts(np.broadcast_to(mean, (60, 90, 128)), rng), geometry).residual
        for n in range(4):
            s = np.abs(geometry.bin_centres)
            variance = (mean @ s ** (2 * n)).mean() * (90 - n - 1) / 90
            scale = (mean @ s**n).mean()
            # 60 draws of 90 angles: the mean square is known to 2 %.
            assert (residual[:, n] ** 2).mean() == pytest.approx(variance / scale**2, rel=0.1)


@pytest.mark.parametrize("arc", [np.pi, 2 * np.pi])
def test_noise_alone_is_within_its_variance(arc):
    geometry = torso_geometry(arc)
    mean = scale_to_counts(RadonOperator(geometry)(demo_torso().image(geometry)), 3e6) + 1
    counts = poisson_counts(np.broadcast_to(mean, (80, 90, 128)), np.random.default_rng(1))
    check = helgason_ludwig(counts, geometry, variance=mean)
    for n in range(4):
        freedom = 90 - n - 1
        assert stats.kstest(freedom * check.reduced_chi_squared[:, n], "chi2", (freedom,)).pvalue > FALSE_ALARM
        assert stats.kstest(check.z[:, n].ravel(), "norm").pvalue > FALSE_ALARM


def test_a_corrected_scan_is_consistent_and_an_uncorrected_one_is_not():
    geometry = torso_geometry()
    activity, mu = demo_torso().image(geometry), demo_torso("attenuation").image(geometry)
    scan = acquire(activity, mu, RadonOperator(geometry), ScanProtocol(5e6, 0.3, 0.2, 5.0), np.random.default_rng(2))
    variance = scan.expected / scan.multiplicative() ** 2
    corrected = helgason_ludwig(scan.precorrected(), geometry, variance=variance)
    limit = stats.chi2.isf(FALSE_ALARM, 90) / 90
    assert (corrected.reduced_chi_squared < limit).all()
    flat = scan.expected / scan.multiplicative(attenuation=False) ** 2
    uncorrected = helgason_ludwig(scan.precorrected(attenuation=False), geometry, variance=flat)
    assert (uncorrected.reduced_chi_squared[[0, 2]] > 3 * limit).all()
    exact = helgason_ludwig(scan.precorrected(noise=False), geometry)
    assert (exact.residual < 1e-3).all()


def test_a_shifted_projection_and_a_scaled_angle_are_found():
    geometry = torso_geometry()
    mean = scale_to_counts(RadonOperator(geometry)(demo_torso().image(geometry)), 5e6)
    variance = mean + 1e-3
    rng = np.random.default_rng(3)
    good = poisson_counts(mean, rng)
    limit = stats.chi2.isf(FALSE_ALARM, 90) / 90
    assert (helgason_ludwig(good, geometry, variance=variance).reduced_chi_squared < limit).all()
    shifted, scaled = good.copy(), good.copy()
    shifted[40] = np.roll(good[40], 3)
    scaled[25] = np.rint(1.1 * good[25])
    check = helgason_ludwig(shifted, geometry, variance=variance)
    assert check.reduced_chi_squared[0] < limit  # a shift keeps the counts
    assert check.reduced_chi_squared[1] > 1.5 * limit
    assert np.abs(check.z[1]).argmax() == 40
    check = helgason_ludwig(scaled, geometry, variance=variance)
    assert check.reduced_chi_squared[0] > 1.5 * limit
    assert np.abs(check.z[0]).argmax() == 25
    # Without noise, by how much: one angle of 90 scaled by 10 %.
    scaled = mean.copy()
    scaled[25] *= 1.1
    residual = helgason_ludwig(scaled, geometry).residual[0]
    assert residual == pytest.approx(0.1 / np.sqrt(90), rel=0.02)


def test_a_wrong_half_turn_is_found_over_two_pi():
    geometry = torso_geometry(2 * np.pi)
    s = RadonOperator(geometry)(demo_torso().image(geometry))
    good = helgason_ludwig(s, geometry).residual
    s[45:] = s[45:, ::-1]  # the second half turn the wrong way round: M₁ and M₃ change sign
    residual = helgason_ludwig(s, geometry).residual
    assert (residual[[1, 3]] > 100 * good[[1, 3]]).all()
    np.testing.assert_allclose(residual[[0, 2]], good[[0, 2]], rtol=0.1, atol=1e-12)


def test_moments_of_batches_scales_and_nothing():
    geometry = torso_geometry()
    s = RadonOperator(geometry)(np.stack([demo_torso().image(geometry)] * 2))
    s[1] = 0
    check = helgason_ludwig(s, geometry, orders=(2, 0))
    assert check.orders == (2, 0)
    assert np.isnan(check.residual[1]).all()
    np.testing.assert_allclose(helgason_ludwig(1e6 * s[0], geometry, orders=(2, 0)).residual, check.residual[0],
                               rtol=1e-6, atol=1e-14)
    one = np.full_like(s, 2.0)
    np.testing.assert_allclose(helgason_ludwig(s, geometry, variance=one).z[0],
                               helgason_ludwig(s[0], geometry, variance=2.0).z)


def test_the_count_balance():
    rng = np.random.default_rng(4)
    mean = rng.uniform(1, 9, (20, 30))
    counts = poisson_counts(np.broadcast_to(mean, (300, 20, 30)), rng)
    balance = count_balance(counts, mean)
    assert balance.angle_z.shape == (300, 20)
    assert stats.kstest(balance.z, "norm").pvalue > FALSE_ALARM
    assert stats.kstest(balance.angle_z.ravel(), "norm").pvalue > FALSE_ALARM
    np.testing.assert_allclose(balance.ratio, counts.sum(axis=(1, 2)) / mean.sum())
    wrong = counts[0].copy()
    wrong[7] *= 2
    assert np.abs(count_balance(wrong, mean).angle_z).argmax() == 7
    empty = count_balance(np.array([[0.0, 0], [1, 0]]), 0.0)
    assert np.isnan(empty.ratio)
    assert empty.angle_z.tolist() == [0, np.inf]


def test_mistakes_in_moments_and_balance_are_named():
    geometry = torso_geometry()
    s = np.ones(geometry.sinogram_shape)
    with pytest.raises(InputError, match=r"sinogram must have shape \(\.\.\., 90, 128\)"):
        helgason_ludwig(s[1:], geometry)
    with pytest.raises(InputError, match="geometry must be a ParallelGeometry"):
        helgason_ludwig(s, 90)
    for wrong in ((), (89,)):
        with pytest.raises(InputError, match="orders must be at least one, each below 89"):
            helgason_ludwig(s, geometry, orders=wrong)
    with pytest.raises(InputError, match="orders must be an integer"):
        helgason_ludwig(s, geometry, orders=(-1,))
    for wrong in (0.0, np.ones((3, 90, 128))):
        with pytest.raises(InputError, match="variance must fit the sinogram"):
            helgason_ludwig(s, geometry, variance=wrong)
    with pytest.raises(InputError, match="variance must be broadcastable"):
        helgason_ludwig(s, geometry, variance=np.ones(5))
    with pytest.raises(InputError, match="counts must not be negative"):
        count_balance(-s, s)
    with pytest.raises(InputError, match="expected must be broadcastable"):
        count_balance(s, s[1:])
    with pytest.raises(InputError, match="counts must have shape"):
        count_balance(np.ones(3), 1.0)
