import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allpet_physics.errors import GeometryError, InputError
from allpet_physics.geometry import ParallelGeometry, scanner_presets

PLAIN = {"n_angles": 12, "n_bins": 9, "bin_mm": 2.0, "image_shape": (7, 8), "pixel_mm": 1.5}
sizes = st.integers(1, 40)
lengths = st.floats(0.1, 10)


@pytest.mark.parametrize(("change", "error", "words"), [
    ({"n_angles": 0}, InputError, "n_angles must be an integer of at least 1, but was 0"),
    ({"n_angles": True}, InputError, "n_angles must be an integer"),
    ({"n_bins": 3.5}, InputError, "n_bins must be an integer"),
    ({"bin_mm": 0}, InputError, "bin_mm must be a finite number greater than zero, but was 0"),
    ({"bin_mm": -1.0}, InputError, "bin_mm must be"),
    ({"pixel_mm": np.nan}, InputError, "pixel_mm must be a finite number"),
    ({"pixel_mm": "wide"}, InputError, "pixel_mm must be a finite number"),
    ({"image_shape": (3, 4, 5)}, GeometryError, r"image_shape must be \(rows, columns\), but was \(3, 4, 5\)"),
    ({"image_shape": 7}, GeometryError, "image_shape must be"),
    ({"image_shape": (7, 0)}, InputError, "image_shape must be an integer of at least 1"),
    ({"arc": 1.0}, GeometryError, r"arc must be pi or 2 pi \(radians\), but was 1"),
    ({"arc": 180}, GeometryError, "arc must be pi"),
])
def test_mistakes_are_named(change, error, words):
    with pytest.raises(error, match=words):
        ParallelGeometry(**{**PLAIN, **change})


def test_is_frozen_and_hashable():
    g = ParallelGeometry(**PLAIN)
    with pytest.raises(dataclasses.FrozenInstanceError):
        g.n_bins = 3
    same = ParallelGeometry(**{**PLAIN, "image_shape": [7, np.int64(8)], "arc": np.float32(np.pi)})
    assert same == g
    assert len({same, g, g.replace(n_bins=10)}) == 2


def test_replace_validates_again():
    with pytest.raises(InputError, match="n_bins must be"):
        ParallelGeometry(**PLAIN).replace(n_bins=-1)


@given(sizes, sizes, lengths, sizes, sizes, lengths, st.sampled_from([np.pi, 2 * np.pi]))
@settings(max_examples=60, deadline=None)
def test_samples_are_centred_and_evenly_spaced(n_angles, n_bins, bin_mm, rows, cols, pixel_mm, arc):
    g = ParallelGeometry(n_angles, n_bins, bin_mm, (rows, cols), pixel_mm, arc)
    assert g.sinogram_shape == (n_angles, n_bins)
    assert g.angles.shape == (n_angles,)
    assert g.angles[0] == 0
    assert g.angles[-1] < arc
    np.testing.assert_allclose(np.diff(np.append(g.angles, arc)), arc / n_angles, atol=1e-12)

    assert g.bin_edges.shape == (n_bins + 1,)
    np.testing.assert_allclose(np.diff(g.bin_edges), bin_mm, rtol=1e-9)
    np.testing.assert_allclose((g.bin_edges[1:] + g.bin_edges[:-1]) / 2, g.bin_centres, atol=1e-9)
    for centred in (g.bin_centres, g.bin_edges, g.x, g.y):
        np.testing.assert_allclose(centred, -centred[::-1], atol=1e-9)
    assert np.ptp(g.bin_edges) == pytest.approx(g.fov_mm)

    assert g.x.shape == (cols,)
    assert g.y.shape == (rows,)
    np.testing.assert_allclose(np.diff(g.x), pixel_mm, rtol=1e-9)
    np.testing.assert_allclose(np.diff(g.y), -pixel_mm, rtol=1e-9)  # row 0 is the top


@pytest.mark.parametrize(("n", "middle"), [(5, 0.0), (6, -0.75)])
def test_odd_sizes_have_a_sample_at_the_origin_and_even_sizes_straddle_it(n, middle):
    g = ParallelGeometry(4, n, 1.5, (n, n), 1.5)
    for axis in (g.bin_centres, g.x, -g.y):
        assert axis[(n - 1) // 2] == pytest.approx(middle)


@given(sizes, sizes, lengths, st.sampled_from([np.pi, 2 * np.pi]), st.one_of(st.none(), lengths))
@settings(max_examples=60, deadline=None)
def test_for_image_sees_every_corner(rows, cols, pixel_mm, arc, bin_mm):
    g = ParallelGeometry.for_image((rows, cols), pixel_mm, bin_mm=bin_mm, arc=arc)
    assert g.covers_image
    assert g.bin_mm == (bin_mm or pixel_mm)
    assert (g.n_bins - max(rows, cols)) % 2 == 0
    corner = np.array([cols, rows]) * pixel_mm / 2
    s = corner[0] * np.cos(g.angles) + corner[1] * np.sin(g.angles)
    assert np.abs(s).max() <= g.bin_edges[-1] * (1 + 1e-9)
    step_at_rim = g.fov_mm / 2 * g.arc / g.n_angles
    assert step_at_rim <= g.bin_mm * (1 + 1e-9)


def test_too_few_bins_do_not_cover_the_image():
    assert not ParallelGeometry(4, 10, 1.0, (10, 10), 1.0).covers_image
    assert ParallelGeometry(4, 15, 1.0, (10, 10), 1.0).covers_image


def test_unknown_preset_lists_what_there_is():
    with pytest.raises(InputError, match=r"preset must be one of digitmi930-512, .*siemens-mmr, but was 'ecat'"):
        ParallelGeometry.preset("ecat")


@pytest.mark.parametrize("name", sorted(scanner_presets()))
def test_preset_survives_json_and_hashing_and_says_its_source(name):
    g, sentence = scanner_presets()[name]
    assert ParallelGeometry.preset(name) == g
    again = ParallelGeometry(**json.loads(json.dumps(g.to_dict())))
    assert again == g
    assert hash(again) == hash(g)
    assert sentence.endswith(".")
    assert f"{g.n_bins} bins" in sentence
    assert "arXiv" in sentence or "Scanner.cxx" in sentence or "no scanner records it" in sentence


def test_network_presets_share_one_field_of_view():
    for n in (64, 128, 256, 512):
        g = ParallelGeometry.preset(f"network-{n}")
        assert g.sinogram_shape == g.image_shape == (n, n)
        assert g.fov_mm == pytest.approx(665.6)
    assert ParallelGeometry.preset("network-512") == ParallelGeometry.preset("digitmi930-512")


@pytest.mark.parametrize(("name", "bins", "views"), [
    ("ge-discovery-690", 381, 288), ("ge-discovery-mi", 415, 272), ("siemens-mmr", 344, 252)])
def test_native_presets_have_the_scanners_bins_and_views(name, bins, views):
    g = ParallelGeometry.preset(name)
    assert (g.n_bins, g.n_angles, g.arc) == (bins, views, np.pi)
    assert g.covers_image or name == "siemens-mmr"
    assert 500 < g.image_shape[0] * g.pixel_mm < 720
