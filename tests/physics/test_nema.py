"""Contrast recovery and background variability on the IEC phantom."""

import numpy as np
import pytest

from allpet_physics.emission import osem
from allpet_physics.errors import GeometryError, InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.nema import BACKGROUND_CENTRES_MM, contrast_recovery, plot_contrast_recovery
from allpet_physics.point_spread import GaussianPSF
from allpet_physics.radon import RadonOperator
from allpet_physics.scan import acquire
from allpet_physics.scan_protocol import ScanProtocol
from allpet_physics.simulation import nema_iec

GEOMETRY = ParallelGeometry(144, 160, 2.5, (160, 160), 2.5)


@pytest.fixture(scope="module")
def truth():
    return nema_iec(4.0).image(GEOMETRY)


def test_the_background_regions_lie_in_the_background():
    """Apart from each other, and at least 11 mm from the wall, every sphere and the lung insert."""
    radius = 37 / 2
    phantom = nema_iec(4.0)
    turn = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    for x, y in BACKGROUND_CENTRES_MM:
        for r in (0, radius / 2, radius, radius + 11):
            np.testing.assert_allclose(phantom.value_at(x + r * np.cos(turn), y + r * np.sin(turn)), 1, atol=1e-12)
    centres = np.array(BACKGROUND_CENTRES_MM)
    distance = np.linalg.norm(centres[:, None] - centres, axis=-1) + 1e9 * np.eye(12)
    assert distance.min() > 37


def test_the_true_image_has_full_contrast_and_no_variability(truth):
    result = contrast_recovery(truth, GEOMETRY)
    assert result.diameters_mm.tolist() == [10, 13, 17, 22, 28, 37]
    assert result.hot.tolist() == [True] * 4 + [False] * 2
    # Pixels on the rim are shared between sphere and background, which costs small spheres a little.
    assert (result.contrast_percent > 80).all()
    assert (result.contrast_percent[2:] > 90).all()
    assert (result.contrast_percent <= 100).all()
    np.testing.assert_allclose(result.variability_percent, 0, atol=1e-9)
    np.testing.assert_allclose(result.background, 1)
    assert result.lung_residual_percent == pytest.approx(0, abs=1e-9)
    finer = GEOMETRY.replace(image_shape=(640, 640), pixel_mm=0.625)
    assert (contrast_recovery(nema_iec(4.0).image(finer), finer).contrast_percent > 95).all()


def test_the_numbers_do_not_depend_on_the_unit_but_on_the_ratio(truth):
    first, scaled = contrast_recovery(truth, GEOMETRY), contrast_recovery(1e4 * truth, GEOMETRY)
    np.testing.assert_allclose(scaled.contrast_percent, first.contrast_percent)
    eight = contrast_recovery(nema_iec(8.0, cold_mm=()).image(GEOMETRY), GEOMETRY, hot_to_background=8, cold_mm=())
    assert eight.hot.all()
    np.testing.assert_allclose(eight.contrast_percent[:4], first.contrast_percent[:4])


def test_blurring_costs_small_spheres_most(truth):
    widths = [contrast_recovery(GaussianPSF(GEOMETRY, w)(truth), GEOMETRY) for w in (4.0, 8.0)]
    for result in widths:
        assert (np.diff(result.contrast_percent[:4]) > 0).all()
        assert (np.diff(result.contrast_percent[4:]) > 0).all()
    assert (widths[1].contrast_percent < widths[0].contrast_percent).all()


def test_the_variability_of_white_noise_is_that_of_its_means(truth):
    rng = np.random.default_rng(0)
    noisy = truth + 0.3 * rng.standard_normal((200, 160, 160))
    result = contrast_recovery(noisy, GEOMETRY)
    assert result.variability_percent.shape == (200, 6)
    area_px = np.pi * (result.diameters_mm / 2 / 2.5) ** 2
    # The variance of a mean over an area; shared rim pixels make the small regions' slightly smaller.
    rms = np.sqrt((result.variability_percent**2).mean(axis=0))
    np.testing.assert_allclose(rms, 100 * 0.3 / np.sqrt(area_px), rtol=0.15)
    assert (np.diff(rms) < 0).all()
    assert result.lung_residual_percent.shape == (200,)
    np.testing.assert_allclose(contrast_recovery(noisy[7], GEOMETRY).contrast_percent, result.contrast_percent[7])


def test_contrast_of_a_reconstruction_rises_with_size_and_with_iterations(truth):
    operator = RadonOperator(GEOMETRY)
    scan = acquire(truth, 0.0096 * (nema_iec(1.0, cold_mm=()).image(GEOMETRY) > 0), operator,
                   ScanProtocol(2e6, 0.35, 0.2, 6.0), np.random.default_rng(0))
    results = [contrast_recovery(osem(scan.model(operator), scan.expected, n, 12), GEOMETRY) for n in (1, 4)]
    for result in results:
        assert (np.diff(result.contrast_percent[:4]) > 0).all()
        assert result.contrast_percent[5] > result.contrast_percent[4]
    assert (results[1].contrast_percent > results[0].contrast_percent).all()
    noisy = contrast_recovery(osem(scan.model(operator), scan.prompts, 4, 12), GEOMETRY)
    assert (noisy.variability_percent[:4] > 3 * results[1].variability_percent[:4]).all()
    # Scatter and randoms that are not corrected for are taken for activity.
    np.testing.assert_allclose(results[1].background, 1, atol=0.02)
    wrong = contrast_recovery(osem(scan.model(operator, background=False), scan.expected, 4, 12), GEOMETRY)
    assert (wrong.background > 1.3).all()
    assert (wrong.contrast_percent[:4] < results[1].contrast_percent[:4] - 3).all()


def test_the_plot_shows_every_result(truth, tmp_path):
    rng = np.random.default_rng(0)
    batch = contrast_recovery(truth + 0.2 * rng.standard_normal((3, 160, 160)), GEOMETRY)
    figure = plot_contrast_recovery({"true": contrast_recovery(truth, GEOMETRY), "noisy": batch})
    figure.savefig(tmp_path / "nema.png")
    assert (tmp_path / "nema.png").stat().st_size > 10_000
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts == ["true", "noisy", "open: cold spheres"]
    with pytest.raises(InputError, match="results must be a mapping"):
        plot_contrast_recovery({})


def test_wrong_input_is_named(truth):
    with pytest.raises(InputError, match=r"image must have shape \(\.\.\., 160, 160\)"):
        contrast_recovery(truth[1:], GEOMETRY)
    with pytest.raises(GeometryError, match="geometry must show the phantom, 294 x 224 mm"):
        contrast_recovery(truth[:64, :64], GEOMETRY.replace(image_shape=(64, 64)))
    for wrong in (1, 0.5):
        with pytest.raises(InputError, match="hot_to_background must be greater than 1"):
            contrast_recovery(truth, GEOMETRY, hot_to_background=wrong)
    with pytest.raises(InputError, match="cold_mm must name spheres"):
        contrast_recovery(truth, GEOMETRY, cold_mm=(12,))
    with pytest.raises(InputError, match="image must have a positive mean"):
        contrast_recovery(0 * truth, GEOMETRY)
    with pytest.raises(InputError, match="geometry must be a ParallelGeometry"):
        contrast_recovery(truth, 160)
