"""Simulated scans: fractions, budgets, dose, attenuation, and the way back to the activity."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats

from allpet_physics.emission import osem
from allpet_physics.errors import GeometryError, InputError
from allpet_physics.fbp import fbp
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.radon import RadonOperator
from allpet_physics.scan import acquire, acquire_projections, attenuation_factors
from allpet_physics.scan_protocol import ScanProtocol, scan_presets
from allpet_physics.simulation import Phantom, demo_torso, disc

#: Chance that a statistical test fails although the code is right; every seed is fixed.
FALSE_ALARM = 1e-4
Z = stats.norm.isf(FALSE_ALARM / 2)
WATER = 0.0096


@pytest.fixture(scope="module")
def torso():
    geometry = ParallelGeometry.preset("network-128")
    return RadonOperator(geometry), demo_torso().image(geometry), demo_torso("attenuation").image(geometry)


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@given(scatter=st.floats(0, 0.9), randoms=st.floats(0, 0.9), counts=st.floats(1e3, 1e8), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_fractions_and_counts_hit_their_targets(scatter, randoms, counts, seed):
    geometry = ParallelGeometry.preset("network-64")
    operator = RadonOperator(geometry)
    protocol = ScanProtocol(counts, scatter, randoms, 5.0)
    scan = acquire(demo_torso().image(geometry), demo_torso("attenuation").image(geometry), operator, protocol,
                   np.random.default_rng(seed))
    t, s, r = (part.sum(dtype=np.float64) for part in (scan.trues, scan.scatter, scan.randoms))
    assert s / (t + s) == pytest.approx(scatter, abs=1e-6)
    assert r / (t + s + r) == pytest.approx(randoms, abs=1e-6)
    assert t + s + r == pytest.approx(counts, rel=1e-5)
    assert abs(scan.prompts.sum() - counts) < stats.norm.isf(1e-7) * np.sqrt(counts)
    assert scan.prompts.dtype == np.int64
    for part in (scan.trues, scan.scatter, scan.randoms):
        assert (part >= 0).all()


def test_every_slice_has_its_fractions_and_the_scan_one_calibration(torso, rng):
    operator, activity, mu = torso
    slices = np.stack([activity, 3 * activity, 0 * activity])
    scan = acquire(slices, mu, operator, ScanProtocol(1e6, 0.3, 0.2, 0), rng)
    t, s, r = (part.sum(axis=(1, 2), dtype=np.float64) for part in (scan.trues, scan.scatter, scan.randoms))
    np.testing.assert_allclose((s / np.maximum(t + s, 1e-9))[:2], 0.3, rtol=1e-5)
    np.testing.assert_allclose((r / np.maximum(t + s + r, 1e-9))[:2], 0.2, rtol=1e-5)
    assert (t + s + r).mean() == pytest.approx(1e6, rel=1e-5)
    assert t[1] / t[0] == pytest.approx(3, rel=1e-5)
    assert not scan.prompts[2].any()


def test_the_prompts_are_poisson_about_their_means(torso, rng):
    operator, activity, mu = torso
    scan = acquire(activity, mu, operator, ScanProtocol.preset("body"), rng)
    mean = scan.expected.astype(np.float64)
    assert mean.min() > 0  # scatter and randoms reach everywhere
    dispersion = ((scan.prompts - mean) ** 2 / mean).sum()
    assert abs(dispersion - mean.size) < Z * np.sqrt((2 + 1 / mean).sum())
    assert abs(scan.prompts.sum() - mean.sum()) < Z * np.sqrt(mean.sum())


def same_distribution(first, second):
    """Return z scores of total and dispersion for two independent samples: given their sum, one is binomial(n, 1/2)."""
    n = (first + second).astype(float)
    n_total, n = n.sum(), n[n > 0]
    d = (first - second)[(first + second) > 0]
    dispersion = (d**2 / n - 1).sum() / np.sqrt((2 * (1 - 1 / n)).sum())
    return np.array([d.sum() / np.sqrt(n_total), dispersion])


def test_a_thinned_scan_is_a_low_dose_draw(torso, rng):
    """Both scores are standard normal if and only if thinning is exact, so each fails with the known FALSE_ALARM."""
    operator, activity, mu = torso
    protocol = ScanProtocol(2e6, 0.2, 0.15, 6.0)
    full = acquire(activity, mu, operator, protocol, rng)
    for factor in (4, 10, 20, 50, 100):
        low = acquire(activity, mu, operator, protocol.replace(counts=2e6 / factor), rng)
        thinned = full.thinned(1 / factor, rng)
        assert np.abs(same_distribution(thinned.prompts, low.prompts)).max() < Z
        np.testing.assert_allclose(thinned.expected, low.expected, rtol=1e-5)
        np.testing.assert_allclose(thinned.multiplicative(), low.multiplicative(), rtol=1e-5)
        assert thinned.dose == pytest.approx(1 / factor)
        # The test can tell: rounding scaled counts has far too little noise.
        assert abs(same_distribution(np.rint(full.prompts / factor), low.prompts)[1]) > 5 * Z


def test_the_false_alarm_rate_is_the_stated_one():
    """The scores of the test above over 300 repetitions are standard normal."""
    geometry = ParallelGeometry(30, 40, 4.0, (40, 40), 4.0)
    rng = np.random.default_rng(0)
    body = disc(0, 0, 60, 1.0)
    lines = Phantom((body,)).sinogram(geometry)
    scores = []
    for _ in range(300):
        full = acquire_projections(lines, None, geometry, ScanProtocol(4e5), rng)
        low = acquire_projections(lines, None, geometry, ScanProtocol(4e4), rng)
        scores.append(same_distribution(full.thinned(0.1, rng).prompts, low.prompts))
    for score in np.transpose(scores):
        assert stats.kstest(score, "norm").pvalue > FALSE_ALARM


def test_a_later_scan_decays_with_the_half_life(torso, rng):
    operator, activity, mu = torso
    protocol = ScanProtocol(1e6, 0.2, 0.1, 5.0, start_s=3600, duration_s=600, half_life_s=6586)
    first = acquire(activity, mu, operator, protocol, rng)
    later = acquire(activity, mu, operator, protocol.replace(start_s=3600 + 6586), rng, calibration=first.calibration)
    np.testing.assert_allclose(2 * later.expected, first.expected, rtol=1e-5)
    longer = acquire(activity, mu, operator, protocol.replace(duration_s=1200), rng, calibration=first.calibration)
    grown = longer.trues.sum() / first.trues.sum()
    assert 1.9 < grown < 2
    # Both are reconstructed in the same unit: the calibration knows the time.
    np.testing.assert_allclose(later.precorrected(noise=False), first.precorrected(noise=False), atol=1e-2)
    decays, _ = integrate.quad(lambda t: 2 ** (-t / 6586), 3600, 4200)
    assert protocol.effective_seconds == pytest.approx(decays, rel=1e-10)
    assert ScanProtocol(duration_s=5).effective_seconds == 5


def cupping(r, radius, mu):
    """Return the exact FBP of an attenuated uniform disc of value 1 without attenuation correction, at radius r.

    Its projections p(s) = L exp(-μL), L = 2 √(R²-s²), have the inverse Abel transform
    (2/π) ∫ (1 - z sin φ) exp(-z sin φ) dφ over [0, π/2] with z = 2μ √(R²-r²), which modified Bessel and Struve
    functions express: I₀ - L₀ - z (2/π + L₁ - I₁).
    """
    z = 2 * mu * np.sqrt(radius**2 - np.asarray(r, float) ** 2)
    return special.i0(z) - special.modstruve(0, z) - z * (2 / np.pi + special.modstruve(1, z) - special.i1(z))


@pytest.mark.parametrize("radius", [60.0, 100.0, 150.0])
def test_the_closed_form_of_cupping_projects_to_the_attenuated_chords(radius):
    for s in (0.0, 0.3 * radius, 0.9 * radius, 0.99 * radius):
        half = np.sqrt(radius**2 - s**2)
        projected, _ = integrate.quad(lambda t, s=s: 2 * cupping(np.hypot(s, t), radius, WATER), 0, half)
        assert projected == pytest.approx(2 * half * np.exp(-2 * WATER * half), rel=1e-8)


@pytest.mark.parametrize("exact", [True, False])
def test_a_water_cylinder_shows_the_cupping_of_the_closed_form_and_is_flat_once_corrected(exact, rng):
    radius = 100.0
    geometry = ParallelGeometry.for_image((200, 200), 1.5, n_angles=240)
    cylinder = Phantom((disc(0, 0, radius, 1.0),))
    protocol = ScanProtocol(1e7, 0.3, 0.2, 0.0)
    if exact:
        lines = cylinder.sinogram(geometry)
        scan = acquire_projections(lines, np.exp(-WATER * lines), geometry, protocol, rng)
    else:
        image = cylinder.image(geometry)
        scan = acquire(image, WATER * image, RadonOperator(geometry), protocol, rng)
    r = np.hypot(geometry.x, geometry.y[:, None])

    def profile(image):
        rings = [(low, low + 5.0) for low in np.arange(0, 90, 5.0)]
        return np.array([(r[ring].mean(), image[ring].mean())
                         for ring in ((r >= low) & (r < high) for low, high in rings)]).T

    at, uncorrected = profile(fbp(scan.precorrected(attenuation=False, noise=False), geometry))
    np.testing.assert_allclose(uncorrected, cupping(at, radius, WATER), atol=0.002)
    edge_to_centre = uncorrected[-1] / uncorrected[0]
    assert edge_to_centre == pytest.approx(cupping(at[-1], radius, WATER) / cupping(at[0], radius, WATER), rel=0.02)
    _, corrected = profile(fbp(scan.precorrected(noise=False), geometry))
    np.testing.assert_allclose(corrected, 1, atol=0.02)
    _, noisy = profile(fbp(scan.precorrected(), geometry, "hann"))
    np.testing.assert_allclose(noisy[2:], 1, atol=0.05)


def test_osem_with_the_full_model_recovers_organ_means(torso, rng):
    operator, activity, mu = torso
    scan = acquire(activity, mu, operator, ScanProtocol(2e6, 0.4, 0.3, 6.0), rng)
    image = osem(scan.model(operator), scan.expected, 10, 16)
    geometry = operator.geometry
    organs = {s.label: s.contains(geometry.x, geometry.y[:, None]) for s in demo_torso().shapes}
    large = {label: inside for label, inside in organs.items() if inside.sum() >= 100}
    assert len(large) == 7
    for label, inside in large.items():
        assert image[inside].mean() == pytest.approx(activity[inside].mean(), rel=0.03), label
    # Each correction that is left out is missed.
    whole = activity > 0
    for without in ("attenuation", "background"):
        wrong = osem(scan.model(operator, **{without: False}), scan.expected, 2, 16)
        assert abs(wrong[whole].mean() / activity[whole].mean() - 1) > 0.2


def test_the_model_of_a_scan_expects_what_the_scan_expected(torso, rng):
    operator, activity, mu = torso
    scan = acquire(activity, mu, operator, ScanProtocol.preset("body"), rng).thinned(0.1, rng)
    np.testing.assert_allclose(scan.model(operator).expected(activity), scan.expected, rtol=1e-10)
    trues = scan.model(operator, background=False)
    np.testing.assert_allclose(trues.expected(activity), scan.trues, rtol=1e-10)
    sharp = scan.model(operator, point_spread=False).expected(activity)
    assert np.abs(sharp - scan.expected).max() > 0.01 * scan.trues.max()
    bare = scan.model(operator, attenuation=False, background=False).expected(activity)
    np.testing.assert_allclose(bare * scan.attenuation, scan.trues, rtol=1e-10)


def test_a_scan_reconstructs_on_another_image_grid(torso, rng):
    operator, activity, mu = torso
    scan = acquire(activity, mu, operator, ScanProtocol(1e6, 0.2, 0.1, 6.0), rng)
    coarse = RadonOperator(operator.geometry.replace(image_shape=(64, 64), pixel_mm=10.4))
    image = osem(scan.model(coarse), scan.expected, 3, 8)
    assert image.sum() * 4 == pytest.approx(activity.sum(), rel=0.01)


def test_bins_that_measured_nothing_are_interpolated(rng):
    geometry = ParallelGeometry(20, 60, 2.0, (50, 50), 2.0)
    lines = Phantom((disc(0, 0, 40, 1.0),)).sinogram(geometry)
    normalisation = np.ones(geometry.sinogram_shape)
    normalisation[3, 25:28] = 0
    normalisation[7] = 0
    scan = acquire_projections(lines, None, geometry, ScanProtocol(1e6), rng, normalisation=normalisation)
    assert not scan.prompts[7].any()
    data = scan.precorrected(noise=False)
    np.testing.assert_allclose(data[3], lines[3], atol=0.5)
    assert not data[7].any()
    np.testing.assert_allclose(data[4], lines[4], atol=1e-8)


def test_the_batch_is_its_slices_and_the_dtype_is_kept(torso):
    operator, activity, mu = torso
    two = np.stack([activity, activity[::-1]])
    both = acquire(two, np.stack([mu, mu[::-1]]), operator, ScanProtocol(1e6), np.random.default_rng(0))
    one = acquire(two[1], mu[::-1], operator, ScanProtocol(1e6), np.random.default_rng(0), calibration=both.calibration)
    for name in ("trues", "scatter", "randoms"):
        np.testing.assert_allclose(getattr(both, name)[1], getattr(one, name), rtol=1e-9)
        assert getattr(one, name).dtype == np.float64
    narrow = activity.astype(np.float32), mu.astype(np.float32), operator, ScanProtocol()
    single = acquire(*narrow, np.random.default_rng(0))
    assert single.trues.dtype == single.precorrected().dtype == single.multiplicative().dtype == np.float32
    again = acquire(*narrow, np.random.default_rng(0))
    np.testing.assert_array_equal(single.prompts, again.prompts)


def test_protocols_are_named_stored_and_checked():
    for name, (protocol, source) in scan_presets().items():
        assert ScanProtocol.preset(name) == protocol
        assert "PETSTEP" in source
        assert ScanProtocol(**protocol.to_dict()) == protocol
    for wrong in (1, 1.0, 1.5, -0.1, np.nan, "all", True):
        with pytest.raises(InputError, match=r"scatter_fraction must be S/\(T\+S\), from 0 to below 1"):
            ScanProtocol(scatter_fraction=wrong)
        with pytest.raises(InputError, match=r"randoms_fraction must be R/\(T\+S\+R\), from 0 to below 1"):
            ScanProtocol().replace(randoms_fraction=wrong)
    for name in ("counts", "duration_s", "half_life_s", "ring_diameter_mm"):
        with pytest.raises(InputError, match=f"{name} must be a finite number greater than zero"):
            ScanProtocol(**{name: 0})
    with pytest.raises(InputError, match="psf_fwhm_mm must be"):
        ScanProtocol(psf_fwhm_mm=-1)
    with pytest.raises(InputError, match="preset must be one of body, brain"):
        ScanProtocol.preset("knee")


def test_wrong_input_is_named(torso, rng):
    operator, activity, mu = torso
    protocol = ScanProtocol()
    with pytest.raises(InputError, match=r"mu must be in 1/mm .* divide a map in 1/cm by 10"):
        acquire(activity, 10 * mu, operator, protocol, rng)
    with pytest.raises(InputError, match="mu must not be negative"):
        attenuation_factors(-mu, operator)
    with pytest.raises(InputError, match="activity must not be negative"):
        acquire(-activity, mu, operator, protocol, rng)
    with pytest.raises(InputError, match="activity must be positive somewhere"):
        acquire(0 * activity, mu, operator, protocol, rng)
    with pytest.raises(InputError, match=r"activity must have shape \(\.\.\., 128, 128\)"):
        acquire(activity[1:], mu, operator, protocol, rng)
    with pytest.raises(InputError, match="attenuation must be broadcastable"):
        acquire(activity, np.stack([mu, mu]), operator, protocol, rng)
    with pytest.raises(InputError, match="attenuation must be factors from 0 to 1"):
        acquire_projections(operator(activity), 1.5, operator.geometry, protocol, rng)
    with pytest.raises(InputError, match="operator must be a RadonOperator"):
        acquire(activity, mu, operator.geometry, protocol, rng)
    with pytest.raises(InputError, match="protocol must be a ScanProtocol"):
        acquire(activity, mu, operator, {"counts": 1e6}, rng)
    with pytest.raises(InputError, match="rng must be a numpy"):
        acquire(activity, mu, operator, protocol, 0)
    with pytest.raises(InputError, match="sinogram of operator must have shape"):
        acquire(activity, mu, operator.subset([0, 1]), protocol, rng)
    scan = acquire(activity, mu, operator, protocol, rng)
    with pytest.raises(GeometryError, match="operator must have the angles and bins of the scan"):
        scan.model(RadonOperator(operator.geometry.replace(bin_mm=2.0)))
    for wrong in (0, 1.5, -1):
        with pytest.raises(InputError, match="fraction must be"):
            scan.thinned(wrong, rng)
