import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from allpet_physics.conventions import sinogram_to_stir
from allpet_physics.errors import GeometryError, InputError, MetadataError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.io.interfile import (
    read_interfile_image,
    read_interfile_sinogram,
    write_interfile_image,
    write_interfile_sinogram,
)
from allpet_physics.io.volume import Volume, grid_mismatch

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "interfile"
FORMATS = {"f4": ("float", 4), "f8": ("float", 8), "i1": ("signed integer", 1), "i2": ("signed integer", 2),
           "i4": ("signed integer", 4), "u1": ("unsigned integer", 1), "u2": ("unsigned integer", 2),
           "u4": ("unsigned integer", 4)}
files = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write_by_hand(path, data, keys, code="<f4", offset=0):
    """Write numbers in the order given and a header of `keys`, as another program would."""
    name, size = FORMATS[code[1:]]
    path.with_suffix(".dat").write_bytes(b"\xff" * offset + np.asarray(data).astype(code).tobytes())
    lines = ["!INTERFILE  :=", f"name of data file := {path.with_suffix('.dat').name}", "!type of data := PET",
             f"imagedata byte order := {'LITTLEENDIAN' if code[0] == '<' else 'BIGENDIAN'}",
             f"!number format := {name}", f"!number of bytes per pixel := {size}",
             f"data offset in bytes[1] := {offset}", *keys, "!END OF INTERFILE :=", "number of time frames := 7"]
    path.write_text("\r\n".join(lines))
    return path


def sinogram_keys(n_views, axial, n_bins, order=("segment", "view", "axial coordinate", "tangential coordinate"),
                  differences=None, n_segments=1):
    differences = differences or [(0, 0)]
    values = {"segment": n_segments, "view": n_views, "axial coordinate": axial, "tangential coordinate": n_bins}
    keys = ["!PET data type := Emission", "applied corrections := {arc correction}", "number of dimensions := 4",
            "effective central bin size (cm) := 0.25", "Distance between rings (cm) := 0.4"]
    for i, label in zip(range(len(order), 0, -1), order, strict=True):
        keys += [f"matrix axis label [{i}] := {label}", f"!matrix size [{i}] := {values[label]}"]
    for which, name in enumerate(("minimum", "maximum")):
        keys.append(f"{name} ring difference per segment := {{ {','.join(str(d[which]) for d in differences)}}}")
    return keys


def image_keys(shape, spacing, *more):
    axes = [line for i, label in enumerate("xyz", 1) for line in (
        f"matrix axis label [{i}] := {label}", f"!matrix size [{i}] := {shape[i - 1]}",
        f"scaling factor (mm/pixel) [{i}] := {spacing[i - 1]}")]
    return ["!PET data type := Image", "number of dimensions := 3", *axes, *more]


def random_numbers(code, shape):
    rng = np.random.default_rng(1)
    if code[1] == "f":
        return rng.standard_normal(shape).astype(code)
    limits = np.iinfo(code[1:])
    return rng.integers(limits.min, limits.max, shape, endpoint=True).astype(code)


def test_a_scanners_file():
    if not SHARED.is_dir():
        pytest.skip("the shared data are not on this machine")
    s = read_interfile_sinogram(SHARED / "smalllong.hs")
    assert s.data.shape == (s.n_planes, s.n_views, s.n_bins) == (27, 64, 75)
    assert s.data.dtype == np.float32
    assert s.data.sum() > 0
    assert (s.bin_mm, s.segments, s.ring_difference, s.arc_corrected) == (3.0, (0,), (-8, 8), True)
    assert s.plane_mm == pytest.approx(6.54 / 2)  # a segment of several ring differences has planes between rings
    assert s.warnings == ()
    g = s.geometry((75, 75), 3.0)
    assert (g.sinogram_shape, g.bin_mm, g.arc) == ((64, 75), 3.0, np.pi)
    # an object's centre of mass moves along x cos(theta) + y sin(theta), whatever the object is
    plane = s.data[13].astype(float)
    centroid = (plane * g.bin_centres).sum(1) / plane.sum(1)
    waves = np.stack([np.cos(g.angles), np.sin(g.angles)], axis=1)
    fit, *_ = np.linalg.lstsq(waves, centroid, rcond=None)
    assert np.abs(waves @ fit - centroid).max() < 0.15 * np.hypot(*fit)


@files
@given(st.integers(1, 4), st.integers(1, 7), st.integers(1, 9), st.sampled_from(["f4", "f8"]), st.booleans())
def test_sinogram_round_trip_is_exact(tmp_path, n_planes, n_angles, n_bins, dtype, flat):
    g = ParallelGeometry(n_angles, n_bins, 1.3, (n_bins, n_bins), 1.3)
    a = np.random.default_rng(0).random((n_planes, n_angles, n_bins)).astype(dtype)
    a = a[0] if flat else a
    write_interfile_sinogram(tmp_path / "a.hs", a, g, plane_mm=2.7, overwrite=True)
    s = read_interfile_sinogram(tmp_path / "a.hs")
    np.testing.assert_array_equal(s.data, a.reshape(s.data.shape))
    assert s.data.dtype == a.dtype
    assert s.plane_mm == pytest.approx(2.7)
    assert s.geometry(g.image_shape, 1.3).sinogram_shape == g.sinogram_shape
    assert s.bin_mm == pytest.approx(1.3, rel=1e-12)
    assert s.warnings == ()


@files
@given(st.permutations(["segment", "view", "axial coordinate", "tangential coordinate"]),
       st.sampled_from(sorted(FORMATS)), st.sampled_from("<>"), st.integers(0, 9), st.sampled_from([1, 0.5]))
def test_every_order_format_and_byte_order_reads_the_same(tmp_path, order, code, endian, offset, scale):
    sizes = {"segment": 1, "view": 4, "axial coordinate": 2, "tangential coordinate": 5}
    numbers = random_numbers(endian + code, [sizes[n] for n in order])
    path = write_by_hand(tmp_path / "a.hs", numbers, [*sinogram_keys(4, 2, 5, order),
                         f"image scaling factor[1] := {scale}"], endian + code, offset)
    s = read_interfile_sinogram(path)
    to_stir = [order.index(n) for n in ("segment", "axial coordinate", "view", "tangential coordinate")]
    stir = numbers.transpose(to_stir)[0].astype(np.float64) * scale
    np.testing.assert_array_equal(sinogram_to_stir(s.data, s.geometry((5, 5), 2.5)), stir)


def test_a_point_source_in_a_viewgram_file_lands_where_it_is(tmp_path):
    # STIR: X = 10 mm to the right, Y = -15 mm (above); here x = 10, y = +15
    n_views, n_bins, w = 12, 31, 2.5
    phi = np.arange(n_views) * np.pi / n_views
    stored = np.zeros((1, n_views, 3, n_bins), np.float32)
    at = np.rint((10 * np.cos(phi) - 15 * np.sin(phi)) / w).astype(int) + n_bins // 2
    stored[0, np.arange(n_views), 2, at] = 1
    s = read_interfile_sinogram(write_by_hand(tmp_path / "p.hs", stored, sinogram_keys(n_views, "{ 3}", n_bins)))
    g = s.geometry((31, 31), w)
    assert not s.data[:2].any()
    assert s.plane_mm == pytest.approx(4)
    np.testing.assert_allclose(g.bin_centres[s.data[2].argmax(1)], 10 * np.cos(g.angles) + 15 * np.sin(g.angles),
                               atol=w / 2 + 1e-6)


def test_even_number_of_bins_of_another_program_gets_its_missing_bin(tmp_path):
    stored = np.ones((1, 4, 1, 6))
    s = read_interfile_sinogram(write_by_hand(tmp_path / "e.hs", stored, sinogram_keys(4, 1, 6)))
    assert s.data.shape == (1, 4, 7)
    np.testing.assert_array_equal(s.data[0, :, 1:-1], 1)
    np.testing.assert_array_equal(s.data.sum(-1), 6)
    assert "a bin of zeros was added" in s.warnings[0]


def test_resampled_even_sinogram_has_bins_where_stir_takes_them_to_be(tmp_path):
    even = ParallelGeometry(16, 60, 1.0, (60, 60), 1.0)
    odd = even.replace(n_bins=61)

    def sinogram(g):
        centre = 7 * np.cos(g.angles) + 4 * np.sin(g.angles)
        return np.exp(-(g.bin_centres - centre[:, None])**2 / 32)

    write_interfile_sinogram(tmp_path / "e.hs", sinogram(even), even, plane_mm=2, resample_even=True)
    assert "radial centre" not in (tmp_path / "e.hs").read_text()
    np.testing.assert_allclose(read_interfile_sinogram(tmp_path / "e.hs").data[0], sinogram(odd), atol=2e-3)


def test_segments_are_selected_by_their_ring_difference(tmp_path):
    planes, n_views, n_bins = (5, 4, 4), 2, 3
    parts = [np.full((n_views, p, n_bins), value) for p, value in zip(planes, (10, 20, 30), strict=True)]
    stored = np.concatenate([p.ravel() for p in parts])
    keys = sinogram_keys(n_views, "{ 5, 4,4 }", n_bins, differences=[(-1, 1), (2, 4), (-4, -2)], n_segments=3)
    path = write_by_hand(tmp_path / "s.hs", stored, keys)
    for segment, n_planes, value in ((0, 5, 10), (1, 4, 20), (-1, 4, 30)):
        s = read_interfile_sinogram(path, segment=segment)
        assert (s.n_planes, s.segment, s.segments) == (n_planes, segment, (0, 1, -1))
        assert (s.data == value).all()
        assert bool(s.warnings) == (segment != 0)
        assert s.plane_mm == pytest.approx(2)  # rings are 4 mm apart, and planes of merged rings lie between them
    with pytest.raises(InputError, match=r"segment must be one of \[-1, 0, 1\].* but was 2"):
        read_interfile_sinogram(path, segment=2)
    with pytest.raises(MetadataError, match="segments of unequal size inside other axes"):
        read_interfile_sinogram(write_by_hand(tmp_path / "t.hs", stored, sinogram_keys(
            n_views, "{5,4,4}", n_bins, ("view", "segment", "axial coordinate", "tangential coordinate"),
            [(-1, 1), (2, 4), (-4, -2)], 3)))


def test_equal_segments_inside_other_axes_are_taken_apart(tmp_path):
    order = ("view", "segment", "axial coordinate", "tangential coordinate")
    stored = np.broadcast_to(np.array([1, 2, 3])[:, None, None], (4, 3, 2, 5))
    keys = sinogram_keys(4, 2, 5, order, [(-1, -1), (0, 0), (1, 1)], 3)
    path = write_by_hand(tmp_path / "v.hs", stored, keys)
    for segment, value in ((-1, 1), (0, 2), (1, 3)):
        assert (read_interfile_sinogram(path, segment=segment).data == value).all()


def test_view_offset_of_whole_steps_is_undone_and_another_is_reported(tmp_path):
    n_views, n_bins, w = 12, 41, 2.5

    def read(offset, *more):
        phi = np.arange(n_views) * np.pi / n_views + offset
        s = (10 * np.cos(phi) - 15 * np.sin(phi))[:, None]
        stored = np.exp(-((np.arange(n_bins) - n_bins // 2) * w - s)**2 / 50)
        keys = [*sinogram_keys(n_views, 1, n_bins), *more]
        return read_interfile_sinogram(write_by_hand(tmp_path / "o.hs", stored, keys))

    def position(s):
        g = s.geometry((41, 41), w)
        centroid = (s.data[0] * g.bin_centres).sum(1) / s.data[0].sum(1)
        return np.linalg.lstsq(np.stack([np.cos(g.angles), np.sin(g.angles)], 1), centroid, rcond=None)[0]

    whole = read(np.radians(-45), "View offset (degrees) := -45")
    np.testing.assert_allclose(position(whole), (10, 15), atol=0.05)
    assert (whole.view_offset, whole.warnings) == (0, ())

    for between in (read(np.radians(5), "View offset (degrees) := 5"),
                    # 48 detectors make 24 views; pairs of them are merged here, and view 0 is the mean of 0 and 7.5
                    read(np.radians(3.75), "Number of detectors per ring := 48")):
        t = between.view_offset
        assert np.degrees(t) in (pytest.approx(5), pytest.approx(3.75))
        turned = np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]]) @ (10, 15)
        np.testing.assert_allclose(position(between), turned, atol=0.05)
        assert "counter-clockwise" in between.warnings[0]


def test_uncorrected_arc_is_reported_with_the_central_bin(tmp_path):
    keys = [k for k in sinogram_keys(4, 1, 5) if "effective" not in k and "applied" not in k]
    scanner = ["Inner ring diameter (cm) := 60", "Average depth of interaction (cm) := 0.7",
               "Number of detectors per ring := 112", "Default bin size (cm) := 0.3"]
    path = write_by_hand(tmp_path / "n.hs", np.ones(20), [*keys, *scanner, "applied corrections := {None}"])
    s = read_interfile_sinogram(path)
    assert not s.arc_corrected
    assert s.bin_mm == pytest.approx(307 * np.pi / 112)  # lines between detectors half a detector apart in angle
    assert any("not arc-corrected" in w for w in s.warnings)
    s = read_interfile_sinogram(write_by_hand(tmp_path / "n.hs", np.ones(20), [*keys, "default_bin_size (cm) := 0.3"]))
    assert (s.arc_corrected, s.bin_mm) == (True, 3.0)
    assert "arc correction is assumed" in s.warnings[0]
    s = read_interfile_sinogram(write_by_hand(tmp_path / "n.hs", np.ones(20), keys))
    with pytest.raises(MetadataError, match="bin size"):
        s.geometry((5, 5), 1.0)


def edited(path, old, new):
    text = path.read_text()
    assert re.search(old, text)
    path.write_text(re.sub(old, new, text))
    return path


@pytest.mark.parametrize(("old", "new", "error", "words"), [
    ("!INTERFILE  :=", "INTERVAL :=", InputError, "must be an Interfile header"),
    ("a.dat", "b.dat", InputError, r"the data file 'b\.dat' that a\.hs names is not in"),
    (r"matrix size \[3\] := 4", "matrix size [3] := 5", InputError,
     r"must hold at least 200 bytes \(50 numbers of 4 bytes from byte 0 on, by a\.hs\), but holds 160"),
    (":= float", ":= ascii", MetadataError, "'number format' in a.hs must be float"),
    ("pixel := 4", "pixel := 3", MetadataError, "but was 'float' of 3 bytes"),
    ("!number of bytes per pixel := 4", "", MetadataError, "must have the key 'number of bytes per pixel'"),
    ("LITTLEENDIAN", "MIDDLEENDIAN", MetadataError, "must be LITTLEENDIAN or BIGENDIAN, but was 'middleendian'"),
    (r"\[3\] := view", "[3] := gantry", MetadataError, r"'matrix axis label\[3\]' .* but was 'gantry'"),
    (r"size \[3\] := 4", "size [3] := four", MetadataError, "must be one number or a list .* but was 'four'"),
    (r"size \[3\] := 4", "size [3] := 4.5", MetadataError, "must hold whole numbers of at least 1, but was '4.5'"),
    (r"difference per segment := \{ 0\}", "difference per segment := { 0, 1}", MetadataError,
     "ring differences in a.hs must list 1 segments"),
    ("data type := Emission", "data type := Image", MetadataError, "try read_interfile_image"),
    ("of data := PET", "of data := Tomographic", MetadataError, "only PET is supported"),
    (r"number of dimensions := 4", "number of dimensions := 5\nmatrix axis label [5] := timing positions\n"
     "matrix size [5] := 3", MetadataError, "time-of-flight"),
])
def test_a_header_that_cannot_be_right_is_refused(tmp_path, old, new, error, words):
    path = write_by_hand(tmp_path / "a.hs", np.ones((1, 4, 2, 5)), sinogram_keys(4, 2, 5))
    assert read_interfile_sinogram(path).data.shape == (2, 4, 5)
    with pytest.raises(error, match=words):
        read_interfile_sinogram(edited(path, old, new))


def test_not_a_number_in_the_data_is_refused(tmp_path):
    path = write_by_hand(tmp_path / "a.hs", np.full((1, 4, 2, 5), np.nan), sinogram_keys(4, 2, 5))
    with pytest.raises(InputError, match=r"the data of a\.hs must be finite"):
        read_interfile_sinogram(path)


def test_frames_are_found_by_their_offset(tmp_path):
    keys = [*sinogram_keys(4, 2, 5), "number of time frames := 2", "data offset in bytes[2] := 160",
            "image scaling factor[2] := 3"]
    path = write_by_hand(tmp_path / "a.hs", np.repeat([1, 2], 40), keys)
    assert (read_interfile_sinogram(path).data == 1).all()
    assert (read_interfile_sinogram(path, frame=2).data == 6).all()
    with pytest.raises(InputError, match="frame must be at most 2"):
        read_interfile_sinogram(path, frame=3)


def test_names_of_patients_stay_in_the_file(tmp_path):
    keys = [*sinogram_keys(4, 2, 5), "patient name := Doe", "!patient ID := 7", "patient orientation := head_in"]
    s = read_interfile_sinogram(write_by_hand(tmp_path / "a.hs", np.ones(40), keys))
    assert [k for k in s.header if "patient" in k] == ["patient orientation"]


def test_nothing_is_overwritten_or_left_half_written(tmp_path, monkeypatch):
    g = ParallelGeometry(4, 5, 1.0, (5, 5), 1.0)
    path = tmp_path / "a.hs"
    write_interfile_sinogram(path, np.ones((1, 4, 5)), g, plane_mm=1)
    with pytest.raises(InputError, match="overwrite=True"):
        write_interfile_sinogram(path, np.zeros((1, 4, 5)), g, plane_mm=1)
    assert (read_interfile_sinogram(path).data == 1).all()
    write_interfile_sinogram(path, np.full((1, 4, 5), 2.0), g, plane_mm=1, overwrite=True)
    assert (read_interfile_sinogram(path).data == 2).all()

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no space"):
        write_interfile_sinogram(path, np.zeros((1, 4, 5)), g, plane_mm=1, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.hs", "a.s"]
    assert (read_interfile_sinogram(path).data == 2).all()


def test_writing_refuses_what_the_format_cannot_hold(tmp_path):
    g = ParallelGeometry(4, 5, 1.0, (5, 5), 1.0)
    with pytest.raises(GeometryError, match=r"geometry\.arc must be pi"):
        write_interfile_sinogram(tmp_path / "a.hs", np.ones((4, 5)), g.replace(arc=2 * np.pi), plane_mm=1)
    with pytest.raises(InputError, match=r"path must end in \.hs"):
        write_interfile_sinogram(tmp_path / "a.s", np.ones((4, 5)), g, plane_mm=1)
    with pytest.raises(InputError, match="sinogram must have shape"):
        write_interfile_sinogram(tmp_path / "a.hs", np.ones((2, 2, 4, 5)), g, plane_mm=1)
    with pytest.raises(InputError, match="existing folder"):
        write_interfile_sinogram(tmp_path / "none" / "a.hs", np.ones((4, 5)), g, plane_mm=1)
    with pytest.raises(GeometryError, match="ring_diameter_mm must be at least"):
        write_interfile_sinogram(tmp_path / "a.hs", np.ones((4, 5)), g, plane_mm=1, ring_diameter_mm=3)
    tilted = np.array([[0.9, 0.1, 0, 0], [-0.1, 0.9, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    with pytest.raises(GeometryError, match="tilted by"):
        write_interfile_image(tmp_path / "a.hv", Volume(np.ones((5, 5, 5)), tilted))
    with pytest.raises(InputError, match="up to 4 bytes, but was int64"):
        write_interfile_image(tmp_path / "a.hv", Volume(np.ones((5, 5, 5), np.int64), np.eye(4)))
    assert not list(tmp_path.iterdir())


@files
@given(st.tuples(*[st.integers(1, 5)] * 3), st.permutations(range(3)), st.tuples(*[st.sampled_from([-1, 1])] * 3),
       st.tuples(*[st.floats(0.3, 5)] * 3), st.sampled_from([*sorted(set(FORMATS)), "?"]), st.sampled_from(
           ["SUVbw", "Bq/ml", "label", "unknown"]))
def test_image_round_trip_is_exact_for_every_orientation(tmp_path, shape, axes, signs, spacing, code, unit):
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[list(axes)] * signs * spacing
    affine[:3, 3] = (-31.5, 12.25, 400.125)
    data = random_numbers("<" + code, shape) if code != "?" else np.arange(np.prod(shape)).reshape(shape) % 2 == 0
    volume = Volume(data, affine, unit)
    write_interfile_image(tmp_path / "v.hv", volume, overwrite=True)
    again = read_interfile_image(tmp_path / "v.hv")
    assert grid_mismatch(volume, again) is None
    assert (again.unit, again.warnings, again.axis_codes) == (unit, (), ("L", "P", "I"))
    assert again.data.dtype == (np.uint8 if code == "?" else np.dtype(code))
    np.testing.assert_array_equal(again.reoriented(volume.axis_codes).data, data)


@pytest.mark.parametrize(("keys", "codes"), [
    ([], "LPI"),
    (["patient orientation := head_in", "patient rotation := supine"], "LPI"),
    (["patient orientation := head_in", "patient rotation := prone"], "RAI"),
    (["patient orientation := feet_in", "patient rotation := supine"], "RPS"),
    (["patient orientation := feet_in", "patient rotation := prone"], "LAS"),
])
def test_image_axes_follow_the_patient(tmp_path, keys, codes):
    stored = np.arange(24).reshape(2, 3, 4)  # z, y, x
    path = write_by_hand(tmp_path / "i.hv", stored, image_keys((4, 3, 2), (2, 3, 5), *keys))
    v = read_interfile_image(path)
    assert "".join(v.axis_codes) == codes
    assert v.data[3, 1, 0] == stored[0, 1, 3]
    # without first pixel offset the scanner's axis passes through voxel (n // 2, n // 2) and z starts at 0
    np.testing.assert_allclose(v.affine @ (2, 1, 0, 1), (0, 0, 0, 1), atol=1e-12)
    np.testing.assert_allclose(v.voxel_mm, (2, 3, 5))
    assert bool(v.warnings) == (not keys)


def test_first_pixel_offset_is_where_the_first_voxel_is(tmp_path):
    keys = image_keys((4, 3, 2), (2, 3, 5), "patient orientation := head_in", "patient rotation := supine",
                      *[f"first pixel offset (mm) [{i}] := {mm}" for i, mm in ((1, -7.5), (2, 4), (3, 100))])
    v = read_interfile_image(write_by_hand(tmp_path / "i.hv", np.ones(24), keys))
    # 7.5 mm to the patient's right, 4 mm posterior, 100 mm towards the feet, in RAS
    np.testing.assert_allclose(v.affine[:3, 3], (7.5, -4, -100))


def test_image_scaled_by_plane_and_by_one_factor(tmp_path):
    stored = np.ones((2, 3, 4))
    for factors, expected in (("{2, 0.5}", (2, 0.5)), ("3", (3, 3))):
        keys = image_keys((4, 3, 2), (1, 1, 1), f"image scaling factor[1] := {factors}")
        v = read_interfile_image(write_by_hand(tmp_path / "i.hv", stored, keys, ">i2"))
        assert v.data.dtype == np.float32
        np.testing.assert_array_equal(v.data[0, 0], expected)
    keys = image_keys((4, 3, 2), (1, 1, 1), "quantification units := 0.25")
    assert (read_interfile_image(write_by_hand(tmp_path / "i.hv", stored, keys)).data == 0.25).all()
    keys = image_keys((4, 3, 2), (1, 1, 1), "quantification units := BQ/ML")
    assert read_interfile_image(write_by_hand(tmp_path / "i.hv", stored, keys)).unit == "Bq/ml"


@pytest.mark.parametrize(("key", "words"), [
    ("patient orientation := head_in\npatient rotation := left", "but was head_in, left"),
    ("matrix axis label [1] := z", "must be x, y and z"),
    ("number of dimensions := 2", "must be 3 for an image"),
    ("image scaling factor[1] := {1, 2, 3}", "must hold one number or 2"),
    ("!PET data type := Emission", "try read_interfile_sinogram"),
])
def test_image_header_that_cannot_be_right_is_refused(tmp_path, key, words):
    path = write_by_hand(tmp_path / "i.hv", np.ones(24), image_keys((4, 3, 2), (1, 1, 1), key))
    with pytest.raises(MetadataError, match=words):
        read_interfile_image(path)


def test_header_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="is not a file"):
        read_interfile_image(tmp_path / "none.hv")
