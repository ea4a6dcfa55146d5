"""Every benchmark runs at a small size, and its report says what was measured."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).resolve().parents[1] / "benchmarks"
SCRIPTS = sorted(path.stem for path in HERE.glob("bench_*.py"))


@pytest.fixture(scope="module")
def benchmark():
    """Return a function that loads a benchmark's module; the benchmarks find each other as when run alone."""
    before = list(sys.path)
    sys.path.insert(0, str(HERE))

    def load(name):
        if name.startswith("_"):
            return importlib.import_module(name)
        spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield load
    sys.path[:] = before


@pytest.mark.parametrize("name", SCRIPTS)
def test_runs_and_reports(name, benchmark, tmp_path, capsys, monkeypatch):
    if name == "bench_fbp":
        pytest.importorskip("skimage")
    astra = pytest.importorskip("astra")
    assert astra.__version__
    monkeypatch.setattr(benchmark("_measure"), "_BURST_S", 0.0)  # one call a round
    target = tmp_path / "out" / "figures.json"
    more = ["--batch", "4"] if name in ("bench_multimask", "bench_batch") else []
    if name == "bench_growth":
        more = ["--png", str(tmp_path / "growth.png")]
    benchmark(name).main(["--size", "32", "--repeats", "1", "--json", str(target), *more])
    record = json.loads(target.read_text())
    assert record["script"] == name
    assert record["machine"]["threads"] >= 1
    assert record["memory"]["fill"] > 0
    assert record["title"] in capsys.readouterr().out
    for row in record["rows"]:
        for timing in (row["ours"], *row["others"].values(), *row["also"].values()):
            assert 0 < timing["fastest"] <= timing["median"] <= timing["slowest"]
        assert row["met"] is None, "claims are stated for 512 px"
        assert row["figure"] > 0
    if name == "bench_growth":
        assert (tmp_path / "growth.png").stat().st_size > 10_000
        assert len(record["panels"]) == 4
    else:
        assert record["rows"]


def test_a_missing_peer_is_left_out_with_a_reason(benchmark, capsys, monkeypatch):
    monkeypatch.setattr(benchmark("_measure"), "_BURST_S", 0.0)
    monkeypatch.setitem(sys.modules, "astra", None)
    record = benchmark("bench_joseph").main(["--size", "32", "--repeats", "1", "--libparallelproj", "/nowhere/lib.so"])
    assert [row["figure"] for row in record["rows"]] == [None, None]
    shown = capsys.readouterr().out
    assert 'pip install ".[astra]"' in shown
    assert "/nowhere/lib.so" in shown
    assert shown.count("no peer to compare with") == 2


@pytest.mark.parametrize(("model", "kernel"), [("strip", "strip"), ("joseph", "linear")])
def test_the_peer_computes_the_same(model, kernel, benchmark):
    """A ratio means something only if both sides project the same image onto the same rays, call after call."""
    astra = pytest.importorskip("astra")
    from allpet_physics import RadonOperator

    measure, projection, peers = (benchmark(name) for name in ("_measure", "_projection", "_peers"))
    geometry = measure.standard_geometry(48)
    image = projection.smooth_image(48)
    operator = RadonOperator(geometry, model)
    sinogram = operator(image)
    calls = peers.AstraCalls(astra, geometry, kernel, image, sinogram)
    for _ in range(2):
        assert measure.difference(sinogram, calls.forward()) < 1e-3
        assert measure.difference(operator.T(sinogram), calls.back()) < 1e-3
    assert measure.difference(calls.fbp()[image > 0], image[image > 0]) < 0.15


def test_plain_osem_is_the_same_algorithm(benchmark):
    from allpet_physics import AcquisitionModel, RadonOperator, osem

    bench, measure, projection = (benchmark(name) for name in ("bench_osem", "_measure", "_projection"))
    operator = RadonOperator(measure.standard_geometry(32))
    counts = np.random.default_rng(0).poisson(operator(projection.smooth_image(32))).astype(np.float32)
    ours = osem(AcquisitionModel(operator), counts, bench.ITERATIONS, bench.SUBSETS)
    assert measure.difference(bench.plain_osem(operator, counts), ours) < 1e-4


@pytest.mark.parametrize("seed", [None, 3])
def test_regions_cover_one_percent(seed, benchmark):
    region = benchmark("bench_roi").region(256, seed)
    assert region.mean() == pytest.approx(0.01, rel=0.01)
    assert not region[[0, -1]].any()
    assert not region[:, [0, -1]].any()


def test_contenders_take_turns_and_divide_by_items(benchmark):
    measure, order = benchmark("_measure"), []
    slow = {name: lambda name=name: (order.append(name), measure.time.sleep(0.31)) for name in "ab"}
    timings, results = measure.interleave({**slow, "absent": None}, 2, {"a": 31})
    assert order == ["a", "b", "a", "b", "b", "a"]
    assert set(results) == {"a", "b"}
    assert timings["a"].calls == 2
    assert 0.009 < timings["a"].fastest < timings["b"].fastest / 10


def test_verdicts_and_pages(benchmark, tmp_path):
    measure, run_all = benchmark("_measure"), benchmark("run_all")
    fast, slow = measure.Timing(0.001, 0.001, 0.002, 3), measure.Timing(1.0, 0.9, 1.1, 3)
    rows = [measure.faster_than("one", fast, {"x": slow}, 900, size=512),
            measure.faster_than("two", fast, {"x": slow}, 1100, size=512),
            measure.faster_than("no peer", fast, {}, 8, size=512),
            measure.within("floor", slow, {"fill": fast}, 3, size=512),
            measure.no_longer_than("limit", fast, 60, size=512),
            measure.faster_than("other size", fast, {"x": slow}, 900, size=64)]
    assert [row["met"] for row in rows] == [True, False, None, False, True, None]
    record = {"script": "bench_x", "title": "X", "repeats": 1, "machine": measure.machine(), "others": 0.5,
              "memory": {"fill": 30.0}, "rows": rows, "remarks": ["A remark."]}
    readme = tmp_path / "README.md"
    readme.write_text(f"above\n{run_all.BEGIN}\nold\n{run_all.END}\nbelow\n")
    run_all.write([record], tmp_path, tmp_path / "absent.png")
    text = readme.read_text()
    assert text.startswith("above\n")
    assert text.endswith("below\n")
    assert "old" not in text
    assert "| one | 1 ms | x, 1 s | 1,000 × | ≥ 900 × | met |" in text
    assert text.count("**not met**") == 2
    page = (tmp_path / "docs" / "benchmarks.md").read_text()
    assert "quiet machine" in page
    assert "A remark." in page
    assert "absent.png" not in page


def test_a_script_runs_alone(tmp_path):
    done = subprocess.run([sys.executable, str(HERE / "bench_block.py"), "--size", "8"], cwd=tmp_path,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "must be at least 16" in done.stderr


# Records

REPORTS = {"certificate_report": ["RECORD"], "generator_report": ["RECORD"], "translation_report": ["RECORD"],
           "evaluation_report": [str(HERE.parent / "docs" / "evaluation"), "RECORD", "RECORD"]}


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("text", [None, "", '{"seed": 1', "[1, 2]"])
def test_a_record_that_cannot_be_read_is_named_in_one_sentence(name, text, benchmark, tmp_path, capsys):
    path = tmp_path / "record.json"
    if text is not None:
        path.write_text(text)
    arguments = [word.replace("RECORD", str(path)) for word in REPORTS[name]]
    with pytest.raises(SystemExit):
        benchmark(name).main([*arguments, "--out", str(tmp_path / "page.md")])
    assert re.search(r"error: \w+ must be a record of a benchmark, but .*record.json", capsys.readouterr().err)
    assert not (tmp_path / "page.md").exists()


def test_a_record_is_written_whole_or_stays_as_it_was(benchmark, tmp_path):
    records, path = benchmark("_record"), tmp_path / "new" / "record.json"
    records.write_record(path, {"seed": 1})
    with pytest.raises(TypeError):
        records.write_record(path, {"seed": 2, "machine": object()})
    assert records.record_to_renew(None, "--json", path) == {"seed": 1}
    assert records.record_to_renew(None, "--json", tmp_path / "none.json") == {}
    assert [file.name for file in path.parent.iterdir()] == ["record.json"]
    records.write_record(None, {"seed": 3})


@pytest.mark.parametrize("place", ["file.txt/images/page.md", "file.txt"])
def test_a_page_of_the_report_that_cannot_be_written_is_named(place, benchmark, tmp_path, capsys):
    (tmp_path / "file.txt").mkdir() if place == "file.txt" else (tmp_path / "file.txt").touch()
    docs = HERE.parent / "docs"
    with pytest.raises(SystemExit):
        benchmark("evaluation_report").main([str(docs / "evaluation"), *(
            str(docs / "evaluation" / f"{name}.json") for name in ("shipped", "decoded")), "--out",
            str(tmp_path / place)])
    assert "error: out must be a file that can be written" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]  # no part of it is left


_EMPTY = {"prompts": {"generator": 1}, "consistency": {"real, held out": [1]}}


@pytest.mark.parametrize(("name", "text"), [
    *((name, "{}") for name in REPORTS),
    ("evaluation_report", json.dumps({"tables": {"prompts": {"generator": 1}, "consistency": 2}})),
    ("evaluation_report", json.dumps({"tables": _EMPTY | {"distances": {
        f"{domain}, {kind}": {"all": {}} for domain in ("sinogram", "image")
        for kind in ("random-cnn", "statistics")}}}))])
def test_a_record_without_a_part_is_named(name, text, benchmark, tmp_path, capsys):
    (tmp_path / "record.json").write_text(text)
    arguments = [word.replace("RECORD", str(tmp_path / "record.json")) for word in REPORTS[name]]
    with pytest.raises(SystemExit):
        benchmark(name).main([*arguments, "--out", str(tmp_path / "page.md")])
    assert "error: records must be whole and of one version" in capsys.readouterr().err
    assert not (tmp_path / "page.md").exists()


def test_what_is_no_report_or_was_measured_by_other_features_is_named(benchmark, tmp_path, capsys):
    script = benchmark("evaluation_report")
    (tmp_path / "record.json").write_text("{}")
    with pytest.raises(SystemExit):
        script.main([str(tmp_path), *[str(tmp_path / "record.json")] * 2])
    assert "error: report must be the folder of a report" in capsys.readouterr().err
    ours, other = ({"distances": {f"sinogram, {kind}": {}}} for kind in ("statistics", "network a.pt 12345678"))
    assert "run both with the same --network" in script.unfit(_EMPTY | ours, _EMPTY | other)


# The page of the report

def test_long_commands_go_on_in_the_next_line(benchmark):
    words = ["allpet evaluate cohort.zarr", *(f"--model unet+sd=a/rather/long/folder/{k}" for k in range(9)), "--out x"]
    lines = benchmark("evaluation_report").continued(" ".join(words)).split("\n")
    assert max(map(len, lines)) <= 120 < 2 * min(map(len, lines[:-1])) + 40
    assert all(line.endswith(" \\") for line in lines[:-1])
    assert " ".join(line.removesuffix(" \\").strip() for line in lines) == " ".join(words)


def test_commands_of_joined_reports_stand_one_below_the_other_with_the_paths_of_the_trainings(benchmark):
    script = benchmark("evaluation_report")
    first = {"command": "allpet evaluate s --model generator=old --model vae=vae --out a", "date": "2026-01-01",
             "hardware": "one"}
    last = {"command": "allpet evaluate s --model gan=x --model generator=small --model unet=u --join a --out b",
            "date": "2026-01-02", "hardware": "other", "joined": first}
    assert script.evaluation_commands(last).split("\n") == [
        "allpet evaluate s --model generator=run --model vae=run/vae --out a",
        "allpet evaluate s --model gan=run/gan --model generator=small --model unet=u --join a --out b"]
    assert script.when_and_where(last) == "2026-01-01 (one), and on 2026-01-02 (other)"


def test_paragraphs_are_wrapped_and_tables_are_not(benchmark):
    wrapped = benchmark("evaluation_report").wrapped
    text = "word " * 60
    assert max(map(len, wrapped(text).split("\n"))) <= 120
    assert wrapped(text).split() == text.split()
    for kept in ("| " + text, "- " + text, "```\n" + text, "# " + text):
        assert wrapped(kept) == kept
