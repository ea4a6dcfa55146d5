"""The command line on files: results that equal the library's, one sentence and one exit code per mistake."""

import gzip
import json
import os
import resource
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import click
import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from allpet_physics import cli as cli_module
from allpet_physics.attention import project_roi
from allpet_physics.cli import cli
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.io.interfile import read_interfile_sinogram

from .dicom_series import BQML_PER_SUV, shared_data, write_series

RUN = [sys.executable, "-c", "from allpet_physics.cli import main; main()"]
#: A few angles keep the tests fast.
FEW = ["--n-angles", "12", "--quiet"]


def run(*arguments):
    return CliRunner().invoke(cli, [str(a) for a in arguments])


def asymmetric_suv():
    """[slice, row, col], inferior first: one block at left (high column), anterior (low row), superior."""
    suv = np.full((6, 10, 12), 0.4)
    suv[4, 2:4, 8:11] = 5.0
    suv[3, 3, 8] = 5.0
    return suv


def pet_folder(tmp_path, name="pet", **kwargs):
    write_series(tmp_path / name, asymmetric_suv() * BQML_PER_SUV, pixel_mm=(3.0, 3.0), slice_mm=4.0,
                 origin_lps=(-16.5, -13.5, -10.0), **kwargs)
    return tmp_path / name


def nifti(path, data=None, codes=("L", "P", "S"), dtype=np.float32):
    """The same object as `pet_folder`, stored in any axis order."""
    data = asymmetric_suv() if data is None else data
    affine = np.array([[-3.0, 0, 0, 16.5], [0, -3.0, 0, 13.5], [0, 0, 4.0, -10.0], [0, 0, 0, 1]])
    image = nib.Nifti1Image(np.asarray(data).transpose(2, 1, 0).astype(dtype), affine)
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt(("L", "P", "S")),
                                           nib.orientations.axcodes2ornt(codes))
    nib.save(image.as_reoriented(turn), path)
    return path


def sinogram_of(folder):
    with np.load(folder / "sinogram.npz") as file:
        return {name: file[name] for name in file.files}


def test_the_same_object_in_three_orders_gives_the_same_sinogram(tmp_path):
    sources = [pet_folder(tmp_path), nifti(tmp_path / "ras.nii.gz", codes=("R", "A", "S")),
               nifti(tmp_path / "turned.nii", codes=("S", "R", "P"))]
    found = []
    for i, source in enumerate(sources):
        result = run("roi2sino", source, "--threshold", "fixed:2", "--out", tmp_path / f"o{i}", *FEW)
        assert result.exit_code == 0, result.output
        found.append(sinogram_of(tmp_path / f"o{i}"))
    for other in found[1:]:
        np.testing.assert_array_equal(other["sinogram"], found[0]["sinogram"])
        np.testing.assert_array_equal(other["attention"], found[0]["attention"])
        np.testing.assert_allclose(other["affine"], found[0]["affine"], atol=1e-4)
    geometry = ParallelGeometry(**json.loads(str(found[0]["geometry"])))
    expected = project_roi(asymmetric_suv() > 2, geometry, normalisation="none")
    np.testing.assert_array_equal(found[0]["sinogram"], expected)
    mass = found[0]["sinogram"].sum(axis=(1, 2))
    assert mass.argmax() == 4  # superior slices have the higher index
    s = (found[0]["sinogram"][4, 0] * geometry.bin_centres).sum() / found[0]["sinogram"][4, 0].sum()
    assert s == pytest.approx(3.5 * 3.0, abs=0.3)  # patient left is at positive s


def test_the_record_says_how_it_was_made_and_nothing_of_whom(tmp_path):
    source = pet_folder(tmp_path, "Secret^Name_SECRET-ID_19900101/study")
    mask = nifti(tmp_path / "Secret^Name_SECRET-ID_19900101" / "mask.nii.gz", asymmetric_suv() > 2, dtype=np.uint8)
    from_mask = ["--mask", mask]
    for suffix, options in (("npz", ["--threshold", "fixed:2"]), ("nii.gz", from_mask), ("hs", from_mask)):
        result = run("roi2sino", source, *options, "--out", tmp_path / "out" / f"roi.{suffix}", "--with-activity",
                     "--json", "--overwrite", *FEW)
        assert result.exit_code == 0, result.output
        record = json.loads((tmp_path / "out" / "roi.json").read_text(encoding="utf-8"))
        assert set(record["outputs"]) == set(json.loads(result.stdout)["files"]) - {"roi.json"}
    record = json.loads((tmp_path / "out" / "roi.json").read_text(encoding="utf-8"))
    assert record["inputs"]["image"]["files"] == 6
    assert record["region"]["n_voxels"] == 7
    assert record["region"]["volume_ml"] == pytest.approx(7 * 0.036)
    assert record["projection"]["voxels_per_slice"] == [0, 0, 0, 1, 6, 0]
    assert "--mask mask.nii.gz" in record["command"]
    assert {"numpy", "numba", "pydicom", "allpet"} <= set(record["versions"])
    for file in (tmp_path / "out").iterdir():
        content = file.read_bytes()
        if file.suffix == ".gz":
            content = gzip.decompress(content)
        elif file.suffix == ".npz":
            with zipfile.ZipFile(file) as archive:
                content = b"".join(archive.read(name) for name in archive.namelist())
        for secret in (b"Secret", b"SECRET", b"19900101"):
            assert secret not in content, file.name


def test_the_threshold_is_recorded_in_suv_and_in_the_files_unit(tmp_path):
    run("roi2sino", pet_folder(tmp_path), "--threshold", "fixed:2", "--out", tmp_path / "o", *FEW)
    region = json.loads((tmp_path / "o" / "record.json").read_text(encoding="utf-8"))["region"]
    assert region["thresholds"]["hot"]["SUVbw"] == 2.0
    assert region["thresholds"]["hot"]["Bq/ml"] == pytest.approx(2 * BQML_PER_SUV, rel=1e-6)
    assert region["values"]["maximum"] == pytest.approx(5.0, rel=1e-4)


@pytest.mark.parametrize("options", [
    ["relative"], ["relative:0.5", "--floor", "1"], ["otsu", "--largest-only"], ["percentile:98"],
    ["local:1.5", "--window-mm", "30", "--offset", "0.1"],
    ["fixed:2", "--min-volume-ml", "0.05", "--connectivity", "3"],
    ["fixed:0.2,2", "--polarity", "both", "--rim-mm", "3"]])
def test_every_threshold_method_runs(tmp_path, options):
    result = run("roi2sino", nifti(tmp_path / "pet.nii.gz"), "--unit", "SUVbw", "--threshold", *options, "--out",
                 tmp_path / "o", "--no-preview", *FEW)
    assert result.exit_code == 0, result.output
    roi = nib.load(tmp_path / "o" / "roi.nii.gz")
    assert np.asarray(roi.dataobj)[9, 2, 4] == 1
    assert "preview.png" not in os.listdir(tmp_path / "o")


def test_formats_hold_the_same_stack(tmp_path):
    image = nifti(tmp_path / "pet.nii.gz")
    for name in ("a.npz", "a.nii.gz", "a.hs"):
        assert run("roi2sino", image, "--threshold", "fixed:2", "--out", tmp_path / "o" / name, "--overwrite",
                   *FEW).exit_code == 0
    with np.load(tmp_path / "o" / "a.npz") as file:
        stack, attention = file["sinogram"], file["attention"]
    as_nifti = np.asarray(nib.load(tmp_path / "o" / "a.nii.gz").dataobj)
    np.testing.assert_array_equal(as_nifti.transpose(2, 1, 0), stack)
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "o" / "a_attention.nii.gz").dataobj).T, attention)
    # STIR's planes start at the superior end.
    np.testing.assert_array_equal(read_interfile_sinogram(tmp_path / "o" / "a.hs").data, stack[::-1])


def test_regions_by_label_by_name_and_their_union(tmp_path):
    image = nifti(tmp_path / "pet.nii.gz")
    labels = np.zeros((6, 10, 12))
    labels[1, 2, 3], labels[2, 5:7, 6] = 3, 8
    nifti(tmp_path / "labels.nii.gz", labels, dtype=np.uint8)
    (tmp_path / "labels.json").write_text('{"3": "spleen", "8": "liver"}')
    union = ["--roi-name", "Liver", "--label", 3]
    for options, voxels in ((["--label", "3"], 1), (["--label", "liver"], 2), (union, 3)):
        result = run("roi2sino", image, "--mask", tmp_path / "labels.nii.gz", *options, "--out", tmp_path / "o",
                     "--dry-run", "--json", *FEW)
        assert json.loads(result.stdout)["region"]["n_voxels"] == voxels, result.output
    assert not (tmp_path / "o").exists()
    result = run("roi2sino", image, "--mask", tmp_path / "labels.nii.gz", "--label", "lung", "--out", tmp_path / "o")
    assert result.exit_code == 2
    assert "3 (spleen), 8 (liver)" in result.stderr


def test_an_empty_region_is_exit_5_with_a_record_and_no_sinogram(tmp_path):
    image = nifti(tmp_path / "pet.nii.gz")
    result = run("roi2sino", image, "--threshold", "fixed:99", "--out", tmp_path / "o", "--json", *FEW)
    assert result.exit_code == 5
    assert os.listdir(tmp_path / "o") == ["record.json"]
    assert json.loads(result.stdout)["result"] == "empty"
    assert "no sinogram was made" in result.stderr
    # With --overwrite an earlier sinogram must not stay beside a record that says "empty".
    run("roi2sino", image, "--threshold", "fixed:2", "--out", tmp_path / "o", "--overwrite", *FEW)
    assert (tmp_path / "o" / "sinogram.npz").exists()
    run("roi2sino", image, "--threshold", "fixed:2", "--slices", "0", "--out", tmp_path / "o", "--overwrite", *FEW)
    assert os.listdir(tmp_path / "o") == ["record.json"]


def test_nothing_is_overwritten_unasked(tmp_path):
    image = nifti(tmp_path / "pet.nii.gz")
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "preview.png").write_text("mine")
    result = run("roi2sino", image, "--threshold", "fixed:2", "--out", tmp_path / "o", *FEW)
    assert result.exit_code == 2
    assert "preview.png" in result.stderr
    assert "--overwrite" in result.stderr
    assert os.listdir(tmp_path / "o") == ["preview.png"]


def spoil_nan(tmp_path):
    data = asymmetric_suv()
    data[0, 0, 0] = np.nan
    return nifti(tmp_path / "nan.nii.gz", data)


def spoil_truncated(tmp_path):
    path = nifti(tmp_path / "cut.nii.gz", np.random.default_rng(0).random((6, 10, 12)))
    path.write_bytes(path.read_bytes()[:-900])
    return path


def two_series(tmp_path):
    pet_folder(tmp_path, prefix="a", seed=1)
    return pet_folder(tmp_path, prefix="b", seed=2)


def missing_slice(tmp_path):
    files = write_series(tmp_path / "gap", asymmetric_suv() * BQML_PER_SUV)
    files[2].unlink()
    return tmp_path / "gap"


def not_dicom(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("no image")
    return tmp_path / "texts"


def without(**header):
    return lambda tmp_path: pet_folder(tmp_path, **header)


BAD_IMAGES = {
    "absent": (lambda tmp_path: tmp_path / "none.nii.gz", 2, "does not exist"),
    "not dicom": (not_dicom, 2, "DICOM"),
    "two series": (two_series, 4, "2 PT series"),
    "missing slice": (missing_slice, 4, "slices are missing"),
    "no weight": (without(header={"PatientWeight": None}), 4, "--weight-kg"),
    "no dose": (without(radiopharmaceutical={"RadionuclideTotalDose": None}), 4, "--dose-bq"),
    "no times": (without(radiopharmaceutical={"RadiopharmaceuticalStartTime": None,
                                              "RadiopharmaceuticalStartDateTime": None}), 4, "--injection-time"),
    "nan": (spoil_nan, 4, "NaN"),
    "truncated": (spoil_truncated, 4, "truncated"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_images_end_with_a_sentence_and_leave_nothing(tmp_path, case):
    make, code, words = BAD_IMAGES[case]
    image = make(tmp_path)
    result = run("roi2sino", image, "--threshold", "fixed:2", "--out", tmp_path / "o", "--json", *FEW)
    assert result.exit_code == code, result.output
    assert words in result.stderr
    assert "Traceback" not in result.output
    assert json.loads(result.stdout)["exit_code"] == code
    assert not (tmp_path / "o").exists()


def test_overrides_replace_what_the_header_lacks(tmp_path):
    image = pet_folder(tmp_path, header={"PatientWeight": None})
    result = run("roi2sino", image, "--threshold", "fixed:2", "--weight-kg", "70", "--out", tmp_path / "o", *FEW)
    assert result.exit_code == 0, result.output
    result = run("roi2sino", image, "--threshold", f"fixed:{2 * BQML_PER_SUV}", "--unit", "Bq/ml", "--out",
                 tmp_path / "p", *FEW)
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(sinogram_of(tmp_path / "o")["sinogram"], sinogram_of(tmp_path / "p")["sinogram"])


def test_a_mask_on_another_grid_says_by_how_much_and_resample_accepts_it(tmp_path):
    image, mask = nifti(tmp_path / "pet.nii.gz"), tmp_path / "moved.nii.gz"
    nifti(mask, asymmetric_suv() > 2, dtype=np.uint8)
    moved = nib.load(mask)
    affine = moved.affine.copy()
    affine[0, 3] += 1.2
    nib.save(nib.Nifti1Image(np.asarray(moved.dataobj), affine), mask)
    result = run("roi2sino", image, "--mask", mask, "--out", tmp_path / "o", *FEW)
    assert result.exit_code == 3
    assert "1.2 mm" in result.stderr
    result = run("roi2sino", image, "--mask", mask, "--resample", "--out", tmp_path / "o", *FEW)
    assert result.exit_code == 0
    assert "resampled" in result.stderr


USAGE = {
    "no region": ([], "neither"), "two regions": (["--mask", "m.nii", "--threshold", "otsu"], "both"),
    "label without mask": (["--threshold", "otsu", "--label", "3"], "--label"),
    "polarity with mask": (["--mask", "m.nii", "--polarity", "cold"], "--polarity"),
    "method": (["--threshold", "best"], "relative, fixed"), "value": (["--threshold", "fixed:a"], "numbers"),
    "no value": (["--threshold", "fixed"], "fixed"),
    "preset": (["--threshold", "fixed:2", "--preset", "x"], "network-"),
    "bins": (["--threshold", "fixed:2", "--n-bins", "0"], "--n-bins"),
    "slices": (["--threshold", "fixed:2", "--slices", "7"], "0 (most inferior) to 5"),
    "format": (["--threshold", "fixed:2", "--format", "gif"], "npz"),
    "weight of a nifti": (["--threshold", "fixed:2", "--weight-kg", "70"], "--weight-kg"),
}


@pytest.mark.parametrize("case", USAGE)
def test_usage_mistakes_are_exit_2(tmp_path, case):
    options, words = USAGE[case]
    result = run("roi2sino", nifti(tmp_path / "pet.nii.gz"), *options, "--out", tmp_path / "o")
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("out", ["file/below", "/proc/nowhere/o", "file"])
def test_a_folder_that_cannot_be_written_is_exit_1(tmp_path, out):
    (tmp_path / "file").write_text("in the way")
    image = nifti(tmp_path / "pet.nii.gz")
    result = run("roi2sino", image, "--threshold", "fixed:2", "--out", tmp_path / out, *FEW)
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("error: ")
    assert sorted(os.listdir(tmp_path)) == ["file", "pet.nii.gz"]
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_full_disk_is_exit_1_and_leaves_nothing(tmp_path):
    image = nifti(tmp_path / "pet.nii.gz")
    # A limit on the size of files fails writes as a full disk does, without needing one.
    process = subprocess.run([*RUN, "roi2sino", image, "--threshold", "fixed:2", "--out", tmp_path / "o",
                              "--with-activity", "--n-angles", "400", "--quiet"],
                             capture_output=True, text=True, timeout=120,
                             preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)))
    assert process.returncode == 1, process.stderr
    assert "error: File too large" in process.stderr
    assert "Traceback" not in process.stderr
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(("kill", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_leaves_nothing(tmp_path, kill, code):
    image = tmp_path / "big.nii"
    data = np.random.default_rng(0).random((160, 160, 120)).astype(np.float32)
    nib.save(nib.Nifti1Image(data, np.diag([4.0, 4.0, 4.0, 1.0])), image)
    process = subprocess.Popen([*RUN, "roi2sino", image, "--threshold", "fixed:0.5", "--out", tmp_path / "deep" / "o",
                                "--n-angles", "3000"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for text in process.stderr:
        if text.startswith("projecting"):
            time.sleep(0.3)
            assert (tmp_path / "deep" / "o").exists()
            process.send_signal(kill)
            break
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    assert not stdout
    assert os.listdir(tmp_path) == ["big.nii"]


def test_json_is_one_object_and_progress_goes_to_stderr(tmp_path):
    image = nifti(tmp_path / "pet.nii.gz")
    process = subprocess.run([*RUN, "roi2sino", image, "--threshold", "fixed:2", "--out", tmp_path / "o", "--json",
                              "--n-angles", "12"], capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(process.stdout)["result"] == "done"
    assert process.stdout.count("\n") == 1
    assert "projecting" in process.stderr
    process = subprocess.run([*RUN, "roi2sino", image, "--json"], capture_output=True, text=True, timeout=120)
    assert process.returncode == 2
    assert json.loads(process.stdout)["error"] == "UsageError"


def test_a_dry_run_reports_and_writes_nothing(tmp_path):
    result = run("roi2sino", nifti(tmp_path / "pet.nii.gz"), "--threshold", "fixed:2", "--out", tmp_path / "o",
                 "--json", "--dry-run", *FEW)
    report = json.loads(result.stdout)
    assert (result.exit_code, report["result"], report["region"]["n_voxels"]) == (0, "dry run", 7)
    assert report["projection"]["geometry"]["n_angles"] == 12
    assert os.listdir(tmp_path) == ["pet.nii.gz"]


def test_help_needs_none_of_the_heavy_packages():
    code = ("import sys; from click.testing import CliRunner; from allpet_physics.cli import cli\n"
            "for a in ([], ['roi2sino'], ['project'], ['reconstruct'], ['doctor']):\n"
            "    r = CliRunner().invoke(cli, [*a, '--help']); assert r.exit_code == 0, r.output\n"
            "    assert 'Example:' in r.output, r.output\n"
            "print({'numba', 'astra', 'matplotlib', 'pydicom', 'nibabel', 'scipy.ndimage'} & set(sys.modules))")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_a_broken_plugin_does_not_break_the_others(monkeypatch):
    class Point:
        def __init__(self, name, found):
            self.name, self.value, self.found = name, f"{name}:command", found

        def load(self):
            if isinstance(self.found, Exception):
                raise self.found
            return self.found

    points = [Point("broken", ImportError("no module named torch")), Point("wrong", 3),
              Point("good", click.Command("good", callback=lambda: click.echo("hello"), help="A good command."))]
    monkeypatch.setattr(cli_module, "_plugins", lambda: {point.name: point for point in points})
    listing = run("--help")
    assert listing.exit_code == 0
    assert "A good command." in listing.stdout
    assert run("good").stdout == "hello\n"
    for name in ("broken", "wrong"):
        result = run(name, "--any", "thing")
        assert result.exit_code == 1
        assert "could not be loaded" in result.stderr
    assert run("nonsense").exit_code == 2


def test_standalone_and_version(tmp_path):
    version = subprocess.run([*RUN, "--version"], capture_output=True, text=True, check=True).stdout
    alone = [sys.executable, "-c", "from allpet_physics.cli import roi2sino_main; roi2sino_main()"]
    assert subprocess.run([*alone, "--version"], capture_output=True, text=True, check=True).stdout == version
    image = nifti(tmp_path / "pet.nii.gz")
    done = subprocess.run([*alone, image, "--threshold", "fixed:2", "--out", tmp_path / "o", *FEW],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "o" / "record.json").read_text(encoding="utf-8"))
    assert record["command"].startswith("allpet-roi2sino pet.nii.gz --threshold fixed:2 --out o")


def test_project_then_reconstruct_returns_the_image_in_its_place(tmp_path):
    suv = np.zeros((4, 40, 44))
    suv[1:3, 8:20, 20:36] = 3.0
    image = nifti(tmp_path / "pet.nii.gz", suv, codes=("R", "A", "S"))
    for suffix in (".npz", ".nii.gz"):
        assert run("project", image, "--unit", "SUVbw", "--slices", "1:4", "--out", tmp_path / f"s{suffix}",
                   "--quiet").exit_code == 0
        result = run("reconstruct", tmp_path / f"s{suffix}", "--method", "fbp", "--out", tmp_path / "fbp.nii.gz",
                     "--overwrite", "--quiet", "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["unit"] == "SUVbw"
        found, source = nib.load(tmp_path / "fbp.nii.gz"), nib.load(image)
        to_source = np.linalg.inv(source.affine) @ found.affine
        inside = np.asarray(found.dataobj)[24:32, 11:17, 0]
        assert inside.mean() == pytest.approx(3.0, rel=0.01)
        assert np.asarray(source.dataobj)[tuple(np.round(to_source @ [28, 14, 0, 1]).astype(int)[:3])] == 3.0
        assert abs(np.asarray(found.dataobj)[..., 2]).max() == 0


@pytest.mark.parametrize(("method", "options"), [("osem", ["--iterations", 4, "--subsets", 4]),
                                                 ("mlem", ["--iterations", 16])])
def test_counts_are_drawn_reproducibly_and_reconstruct_to_suv(tmp_path, method, options):
    suv = np.zeros((2, 32, 32))
    suv[:, 8:24, 8:24] = 2.0
    image = nifti(tmp_path / "pet.nii.gz", suv)
    for name in ("a.npz", "b.npz"):
        assert run("project", image, "--unit", "SUVbw", "--counts", "4e6", "--seed", "3", "--n-angles", "64", "--out",
                   tmp_path / name, "--quiet").exit_code == 0
    with np.load(tmp_path / "a.npz") as a, np.load(tmp_path / "b.npz") as b:
        np.testing.assert_array_equal(a["sinogram"], b["sinogram"])
        assert a["sinogram"].sum() == pytest.approx(4e6, rel=5 / np.sqrt(4e6))
    result = run("reconstruct", tmp_path / "a.npz", "--method", method, *options, "--out", tmp_path / "i.nii.gz",
                 "--quiet")
    assert result.exit_code == 0, result.output
    found = np.asarray(nib.load(tmp_path / "i.nii.gz").dataobj)
    assert found[12:20, 12:20].mean() == pytest.approx(2.0, rel=0.01)


RECONSTRUCT = {
    "no file": (["none.npz"], 2, "none at"), "fbp with subsets": (["s.npz", "--subsets", "4"], 2, "--subsets"),
    "osem with filter": (["s.npz", "--method", "osem", "--filter", "hann"], 2, "--filter"),
    "negative counts": (["n.npz", "--method", "mlem"], 2, "negative"),
    "no geometry": (["bare.npy"], 4, "--bin-mm"), "suffix": (["s.dat"], 2, ".npz"),
    "too many subsets": (["s.npz", "--method", "osem", "--subsets", "99"], 2, "--subsets"),
    "other shape": (["s.npz", "--method", "osem", "--additive", "wide.npz"], 3, "--additive"),
}


@pytest.mark.parametrize("case", RECONSTRUCT)
def test_reconstruct_names_mistakes(tmp_path, case):
    from allpet_physics.io.sinogram_files import SinogramStack, write_sinogram

    geometry = ParallelGeometry(8, 9, 2.5, (7, 6), 2.0)
    for name, data, g in (("s", np.ones((1, 8, 9)), geometry), ("n", -np.ones((1, 8, 9)), geometry),
                          ("wide", np.ones((1, 8, 11)), geometry.replace(n_bins=11))):
        write_sinogram(tmp_path / f"{name}.npz", SinogramStack(data, g, "counts"))
    np.save(tmp_path / "bare.npy", np.ones((8, 9)))
    (file, *options), code, words = RECONSTRUCT[case]
    options = [tmp_path / o if o.endswith(".npz") else o for o in options]
    result = run("reconstruct", tmp_path / file, *options, "--out", tmp_path / "i.nii.gz", "--quiet")
    assert result.exit_code == code, result.output
    assert words in result.stderr
    assert not (tmp_path / "i.nii.gz").exists()


def test_project_takes_arrays_with_a_pixel_size(tmp_path):
    image = np.zeros((2, 10, 12), np.float32)
    image[1, 2:5, 6:9] = 1.0
    np.savez(tmp_path / "x.npz", image=image)
    assert run("project", tmp_path / "x.npz", "--out", tmp_path / "s.npz", "--quiet").exit_code == 2
    result = run("project", tmp_path / "x.npz", "--pixel-mm", "2", "--out", tmp_path / "s.npz", "--quiet")
    assert result.exit_code == 0, result.output
    with np.load(tmp_path / "s.npz") as file:
        geometry = ParallelGeometry(**json.loads(str(file["geometry"])))
        np.testing.assert_allclose(file["sinogram"].sum(axis=2) * geometry.bin_mm, [[0.0], [36.0]] * np.ones(
            geometry.n_angles), rtol=1e-5)


@pytest.mark.skipif(not shared_data("interfile", "smalllong.hs").exists(), reason="shared data are not here")
def test_reconstruct_reads_an_interfile_of_stir(tmp_path):
    osem = ["reconstruct", shared_data("interfile", "smalllong.hs"), "--method", "osem", "--subsets", "8", "--quiet"]
    result = run(*osem, "--out", tmp_path / "i.nii.gz")
    assert result.exit_code == 2
    assert "--clip-negative" in result.stderr
    result = run(*osem, "--clip-negative", "--out", tmp_path / "i.nii.gz")
    assert result.exit_code == 0, result.output
    assert "negative values" in result.stderr
    image = nib.load(tmp_path / "i.nii.gz")
    assert image.shape == (75, 75, 27)
    assert np.asarray(image.dataobj).min() >= 0


@pytest.mark.skipif(not shared_data("ct_abdomen", "ct.nii.gz").exists(), reason="shared data are not here")
def test_the_liver_of_a_real_ct_equals_its_projection(tmp_path):
    folder = shared_data("ct_abdomen")
    result = run("roi2sino", folder / "ct.nii.gz", "--mask", folder / "labels.nii.gz", "--label", "liver", "--out",
                 tmp_path / "liver", "--slices", "roi", "--quiet")
    assert result.exit_code == 0, result.output
    found = sinogram_of(tmp_path / "liver")
    names = {name: int(n) for n, name in json.loads((folder / "labels.json").read_text()).items()}
    labels = nib.load(folder / "labels.nii.gz")
    assert nib.aff2axcodes(labels.affine) == ("R", "A", "S")
    mask = (np.asarray(labels.dataobj) == names["liver"])[::-1, ::-1].transpose(2, 1, 0)[found["slices"]]
    geometry = ParallelGeometry(**json.loads(str(found["geometry"])))
    np.testing.assert_array_equal(found["sinogram"], project_roi(mask, geometry, normalisation="none"))
    np.testing.assert_array_equal(found["attention"], project_roi(mask, geometry))
    right = found["sinogram"][:, 0] @ geometry.bin_centres
    assert right.sum() < 0  # the liver lies on the patient's right, at negative s


@pytest.mark.skipif(not shared_data("suv_dro", "DRO_0_0").exists(), reason="shared data are not here")
def test_a_reference_object_by_threshold_equals_its_projection(tmp_path):
    folder = shared_data("suv_dro", "DRO_0_0", "PT")
    result = run("roi2sino", folder, "--threshold", "fixed:2", "--out", tmp_path / "hot", "--n-angles", "90",
                 "--slices", "roi", "--quiet")
    assert result.exit_code == 0, result.output
    found = sinogram_of(tmp_path / "hot")
    record = json.loads((tmp_path / "hot" / "record.json").read_text(encoding="utf-8"))
    assert record["region"]["values"]["maximum"] == pytest.approx(4.0, abs=0.01)
    roi = nib.load(tmp_path / "hot" / "roi.nii.gz")
    axial = nib.as_closest_canonical(roi)
    mask = np.asarray(axial.dataobj)[::-1, ::-1].transpose(2, 1, 0)[found["slices"]] > 0
    geometry = ParallelGeometry(**json.loads(str(found["geometry"])))
    np.testing.assert_array_equal(found["sinogram"], project_roi(mask, geometry, normalisation="none"))
    mass_ml = found["sinogram"].sum(axis=(0, 2)) * geometry.bin_mm * float(found["slice_mm"]) / 1000
    np.testing.assert_allclose(mass_ml, record["region"]["volume_ml"], rtol=1e-5)


@pytest.mark.skipif(not shared_data("suv_dro", "DRO_0_0").exists(), reason="shared data are not here")
def test_a_structure_of_a_reference_object_holds_its_stated_suv(tmp_path):
    folder = shared_data("suv_dro", "DRO_0_0")
    result = run("roi2sino", folder / "PT", "--mask", folder / "RS", "--out", tmp_path / "o", "--slices", "roi",
                 "--n-angles", "30", "--json", "--quiet")
    assert result.exit_code == 0, result.output
    region = json.loads(result.stdout)["region"]
    found = [region["values"][name] for name in ("minimum", "median", "maximum")]
    np.testing.assert_allclose(found, [0.2, 1.0, 4.0], atol=0.01)
    assert region["format"] == "RTSTRUCT"


def test_paths_in_messages_of_the_record_are_cut():
    from allpet_physics.commands._roi2sino_results import without_paths

    path = Path("/data/Doe^John/pet")
    assert without_paths(["/data/Doe^John/pet/a.dcm is odd", "x", "x"], path) == ["pet/a.dcm is odd", "x"]


def one_json_object(result):
    """The only line on standard output, which must agree with the exit code."""
    assert result.stdout.count("\n") == 1, result.output
    found = json.loads(result.stdout)
    assert found["exit_code"] == result.exit_code
    return found


def same_file(tmp_path, kind):
    """A file, and another path to it."""
    source = nifti(tmp_path / "pet.nii.gz")
    other = tmp_path / "other.nii.gz"
    {"itself": lambda: None, "link": lambda: other.symlink_to(source), "hard link": lambda: other.hardlink_to(source)
     }[kind]()
    return source, source if kind == "itself" else other


@pytest.mark.parametrize("kind", ["itself", "link", "hard link"])
def test_an_input_is_never_replaced_even_with_overwrite(tmp_path, kind):
    image, other = same_file(tmp_path, kind)
    before = image.read_bytes()
    result = run("project", image, "--out", other, "--overwrite", *FEW)
    assert result.exit_code == 2
    assert "IMAGE itself" in result.stderr
    assert "another --out" in result.stderr
    assert image.read_bytes() == before
    assert other.exists()


@pytest.mark.parametrize(("option", "written"), [("--mask", "roi.nii.gz"), ("--body", "roi.nii.gz"),
                                                 ("--label-names", "record.json")])
def test_no_file_that_roi2sino_reads_is_replaced(tmp_path, option, written):
    image, place = nifti(tmp_path / "pet.nii.gz"), tmp_path / "o" / written
    place.parent.mkdir()
    mask = nifti(tmp_path / "mask.nii.gz", asymmetric_suv() > 2, dtype=np.uint8)
    place.write_bytes(mask.read_bytes() if written.endswith("gz") else b'{"1": "liver"}')
    before = place.read_bytes()
    options = {"--mask": [], "--body": ["--threshold", "fixed:2"], "--label-names": ["--mask", mask]}[option]
    result = run("roi2sino", image, option, place, *options, "--out", tmp_path / "o", "--overwrite", *FEW)
    assert result.exit_code == 2, result.output
    assert f"{option} itself" in result.stderr
    assert place.read_bytes() == before


def test_sidecar_and_sinogram_are_inputs_too(tmp_path):
    image = nifti(tmp_path / "pet.nii.gz")
    (tmp_path / "pet.json").write_text('{"Units": "g/ml"}')
    result = run("roi2sino", image, "--threshold", "fixed:2", "--out", tmp_path / "pet.npz", "--overwrite", *FEW)
    assert (result.exit_code, "sidecar" in result.stderr) == (2, True)
    assert (tmp_path / "pet.json").read_text() == '{"Units": "g/ml"}'
    assert run("project", image, "--out", tmp_path / "s.nii.gz", *FEW).exit_code == 0
    factors = ["--method", "osem", "--multiplicative", tmp_path / "f.nii.gz"]
    (tmp_path / "f.nii.gz").write_bytes((tmp_path / "s.nii.gz").read_bytes())
    for out, words, options in (("s.nii.gz", "SINOGRAM itself", []), ("f.nii.gz", "--multiplicative itself", factors)):
        before = (tmp_path / out).read_bytes()
        result = run("reconstruct", tmp_path / "s.nii.gz", *options, "--out", tmp_path / out, "--overwrite", "--quiet")
        assert result.exit_code == 2
        assert words in result.stderr
        assert (tmp_path / out).read_bytes() == before


@pytest.mark.parametrize("suffix", [".npz", ".nii.gz", ".hs"])
def test_a_stated_geometry_must_agree_with_the_files(tmp_path, suffix):
    file = tmp_path / f"s{suffix}"
    assert run("project", nifti(tmp_path / "pet.nii.gz"), "--bin-mm", "2.1306", "--out", file, *FEW).exit_code == 0
    for options, code, words in ((["--bin-mm", "5"], 3, ("2.1306", "5")), (["--arc", "2pi"], 3, ("3.14", "6.28")),
                                 (["--bin-mm", "2.131", "--arc", "pi"], 0, ())):
        result = run("reconstruct", file, *options, "--out", tmp_path / "i.nii.gz", "--quiet")
        assert result.exit_code == code, result.output
        assert all(word in result.stderr for word in words)


@pytest.mark.parametrize("command", ["project", "roi2sino"])
@pytest.mark.parametrize("options", [["--n-bins", "2000000000"], ["--bin-mm", "1e-9"], ["--bin-mm", "1e-320"],
                                     ["--n-angles", "2000000000"]])
def test_numbers_beyond_memory_are_refused_before_anything_is_made(tmp_path, command, options):
    region = ["--threshold", "fixed:2"] if command == "roi2sino" else []
    for dry in ([], ["--dry-run"]):
        result = run(command, nifti(tmp_path / "pet.nii.gz"), *region, *options, "--out", tmp_path / "o.npz", "--json",
                     *dry)
        assert result.exit_code == 3, result.output
        assert options[0] in one_json_object(result)["message"]
        assert os.listdir(tmp_path) == ["pet.nii.gz"]


def test_what_numpy_cannot_hold_ends_with_a_sentence(tmp_path, monkeypatch):
    def too_big(*_args, **_kwargs):
        return np.empty((2**40, 2**40))

    monkeypatch.setattr("allpet_physics.axial_grid.geometry_for", too_big)
    result = run("project", nifti(tmp_path / "pet.nii.gz"), "--out", tmp_path / "o.npz", "--json", *FEW)
    assert result.exit_code == 1
    assert "not enough memory" in one_json_object(result)["message"]


@pytest.mark.parametrize("arguments", [
    ["roi2sino", "IMAGE", "--out", "o", "--json"], ["nonsense", "--json"], ["--nonsense", "doctor", "--json"],
    ["project", "IMAGE", "--json", "--seed", "3", "--out", "o.npz"], ["doctor", "--json", "--bogus"],
    ["reconstruct", "none.npz", "--out", "i.nii.gz", "--filter", "hann", "--method", "osem", "--json"],
    ["masks", "--out", "m.zarr", "--json"], ["demo", "--out", "", "--json"], ["project", "", "--out", "x", "--json"]])
def test_every_usage_error_is_one_json_object(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    image = nifti(tmp_path / "pet.nii.gz")
    result = run(*(image if a == "IMAGE" else a for a in arguments))
    assert result.exit_code == 2
    assert one_json_object(result)["error"] == "UsageError"
    assert os.listdir(tmp_path) == ["pet.nii.gz"]


def test_every_result_carries_its_exit_code(tmp_path):
    image = nifti(tmp_path / "pet.nii.gz")
    for arguments in (["project", image, "--out", tmp_path / "s.npz", *FEW],
                      ["reconstruct", tmp_path / "s.npz", "--out", tmp_path / "i.nii.gz", "--quiet"],
                      ["masks", "--dmm", "--samples", "9", "--out", tmp_path / "m", "--dry-run"]):
        assert one_json_object(run(*arguments, "--json"))["exit_code"] == 0


@pytest.mark.parametrize(("command", "options", "words"), [
    ("project", ["--counts", "-5"], "--counts"), ("project", ["--counts", "nan"], "--counts"),
    ("roi2sino", ["--normalisation", "clip", "--scale-mm", "-4"], "--scale-mm"),
    ("roi2sino", ["--scale-mm", "4"], "--normalisation clip"), ("roi2sino", ["--n-bins", "0"], "--n-bins")])
def test_a_dry_run_finds_what_the_run_finds(tmp_path, command, options, words):
    region = ["--threshold", "fixed:2"] if command == "roi2sino" else []
    for dry in (["--dry-run"], []):
        result = run(command, nifti(tmp_path / "pet.nii.gz"), *region, *options, "--out", tmp_path / "o.npz", *dry,
                     "--quiet")
        assert result.exit_code == 2, result.output
        assert words in result.stderr
    assert os.listdir(tmp_path) == ["pet.nii.gz"]


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_place_that_takes_no_files_is_named_itself(tmp_path, dry):
    image = nifti(tmp_path / "pet.nii.gz")
    result = run("project", image, "--out", "/proc/x.npz", *dry, *FEW)
    assert result.exit_code == 1
    assert result.stderr.rstrip().endswith(": /proc.")
    assert ".allpet-" not in result.stderr


def test_a_mask_with_nan_is_told_what_helps(tmp_path):
    mask = (asymmetric_suv() > 2).astype(np.float32)
    mask[0, 0, 0] = np.nan
    result = run("roi2sino", nifti(tmp_path / "pet.nii.gz"), "--mask", nifti(tmp_path / "mask.nii.gz", mask), "--out",
                 tmp_path / "o", *FEW)
    assert result.exit_code == 4
    assert "1 of its 720 voxels" in result.stderr
    assert "nonfinite" not in result.stderr


@pytest.mark.parametrize(("message", "expected"), [
    ("PatientWeight is missing; pass weight_kg, or read the image with unit=\"Bq/ml\".",
     "PatientWeight is missing; pass --weight-kg, or read the image with --unit Bq/ml."),
    ("label must be 1; give label, or label_names.", "--label must be 1; give --label, or --label-names."),
    ("m.nii must hold one region unless label or name says which.",
     "m.nii must hold one region unless --label or --roi-name says which."),
    ("/data/weight_kg/dose_bq.nii and weight_kg-2 hold no label.",
     "/data/weight_kg/dose_bq.nii and weight_kg-2 hold no label."),
    ("pass resample=True (--resample) to bring it over.", "pass --resample to bring it over."),
    ("it holds 4 frames; choose one with frame=0 to 3.", "it holds 4 frames; choose one with --frame 0 to 3."),
    ('declare it with read_nifti(path, unit="SUVbw").', "declare it with --unit SUVbw."),
    ("an unknown_word=3 stays.", "an unknown_word=3 stays.")])
def test_messages_name_options(message, expected):
    from allpet_physics._option_names import at_the_shell
    from allpet_physics.commands.roi2sino import command

    assert at_the_shell(message, command) == expected


def test_an_interfile_keeps_unit_grid_and_place_and_others_are_said_to_lack_them(tmp_path):
    image = nifti(tmp_path / "pet.nii.gz")
    assert run("project", image, "--unit", "SUVbw", "--out", tmp_path / "s.hs", *FEW).exit_code == 0
    result = run("reconstruct", tmp_path / "s.hs", "--out", tmp_path / "i.nii.gz", "--quiet", "--json")
    report = one_json_object(result)
    assert (report["unit"], report["warnings"]) == ("SUVbw", [])
    found, source = nib.load(tmp_path / "i.nii.gz"), nib.load(image)
    assert found.shape == source.shape
    np.testing.assert_allclose(found.affine, source.affine, atol=1e-5)
    bare = [text for text in (tmp_path / "s.hs").read_text().splitlines() if not text.startswith(";")]
    (tmp_path / "s.hs").write_text("\n".join(bare))
    result = run("reconstruct", tmp_path / "s.hs", "--out", tmp_path / "j.nii.gz", "--quiet", "--json")
    assert one_json_object(result)["geometry"]["image_shape"] == [report["geometry"]["n_bins"]] * 2
    assert "--image-size and --pixel-mm" in result.stderr


def test_nothing_seen_is_an_empty_result(tmp_path):
    assert run("project", nifti(tmp_path / "pet.nii.gz"), "--out", tmp_path / "s.npz", *FEW).exit_code == 0
    with np.load(tmp_path / "s.npz") as file:
        np.savez(tmp_path / "zero.npz", **{**file, "sinogram": 0 * file["sinogram"]})
    osem = ["--method", "osem", "--subsets", "4"]
    for arguments in (["zero.npz"], ["zero.npz", *osem], ["s.npz", *osem, "--multiplicative", tmp_path / "zero.npz"]):
        result = run("reconstruct", tmp_path / arguments[0], *arguments[1:], "--out", tmp_path / "i.nii.gz", "--json")
        assert result.exit_code == 5, result.output
        assert "zero everywhere" in one_json_object(result)["message"]
        assert not (tmp_path / "i.nii.gz").exists()


def test_a_sinogram_or_a_folder_is_no_image(tmp_path):
    assert run("project", nifti(tmp_path / "pet.nii.gz"), "--out", tmp_path / "s.nii.gz", *FEW).exit_code == 0
    (tmp_path / "dir.nii.gz").mkdir()
    for name, words in (("s.nii.gz", "allpet reconstruct"), ("dir.nii.gz", "is a folder")):
        result = run("project", tmp_path / name, "--out", tmp_path / "t.npz", *FEW)
        assert result.exit_code == 2
        assert words in result.stderr


def test_an_empty_region_is_said_once(tmp_path):
    empty = nifti(tmp_path / "mask.nii.gz", 0 * asymmetric_suv(), dtype=np.uint8)
    result = run("roi2sino", nifti(tmp_path / "pet.nii.gz"), "--mask", empty, "--out", tmp_path / "o", *FEW)
    assert result.exit_code == 5
    assert result.stderr.count("warning:") == 1, result.stderr


def test_quiet_prints_nothing_when_all_is_well(tmp_path):
    image = nifti(tmp_path / "pet.nii.gz")
    assert run("project", image, "--unit", "SUVbw", "--out", tmp_path / "s.npz", *FEW).output == ""
    assert "would be written" in run("project", image, "--out", tmp_path / "t.npz", "--dry-run", *FEW).stdout


def test_ctrl_c_while_packages_are_imported_is_exit_130():
    code = ("import os, signal, sys\n"
            "from allpet_physics import cli\n"
            "def slow(name):\n"
            "    os.kill(os.getpid(), signal.SIGINT)\n"
            "cli.import_module = slow\n"
            "cli.{}()")
    for door in ("main", "roi2sino_main"):
        process = subprocess.run([sys.executable, "-c", code.format(door), "doctor", "--json"], capture_output=True,
                                 text=True, check=False)
        assert process.returncode == 130
        assert process.stderr == "error: interrupted; nothing was written.\n"
        assert json.loads(process.stdout)["exit_code"] == 130


@pytest.mark.parametrize(("command", "file", "reader"), [
    ("reconstruct", "s.npz", "allpet_physics.io.sinogram_files._read_npz"),
    ("project", "s.npz", "allpet_physics.commands.project._array"),
    ("project", "pet.nii.gz", "nibabel.load")])
def test_an_input_that_must_not_be_read_is_exit_1(tmp_path, monkeypatch, command, file, reader):
    image = nifti(tmp_path / "pet.nii.gz")
    run("project", image, "--out", tmp_path / "s.npz", *FEW)

    def denied(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied", file)

    monkeypatch.setattr(reader, denied)
    result = run(command, tmp_path / file, "--out", tmp_path / "o.nii.gz", "--quiet")
    assert result.exit_code == 1
    assert result.stderr == f"error: Permission denied: {file}.\n"
