"""The scripts that measure translations run on small ones, and their page says what they found."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from allpet_gen.baselines.unet import UNetPipeline
from allpet_gen.evaluation.classical import scaled
from allpet_gen.evaluation.item_metrics import paired_metrics
from allpet_gen.evaluation.real_anatomy import real_studies
from allpet_gen.evaluation.translation_items import draw_items
from allpet_gen.evaluation.translation_table import join_rows, read_patients
from allpet_gen.tasks import TASKS
from allpet_gen.translation_pipelines import SinogramBridgePipeline
from allpet_gen.translator import SinogramTranslator
from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.simulation.cohort import cohort_parameters, write_cohort
from allpet_physics.simulation.cohort_reader import read_cohort

from .tiny_translation import WIDTHS, tiny_scheduler

HERE = Path(__file__).resolve().parents[2] / "benchmarks"
DATA = HERE.parents[1] / "shared" / "data"
SPLIT = {"train": [0, 1, 2], "validation": [3, 4, 5], "test": [6, 7, 8, 9]}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def scripts():
    before = list(sys.path)
    sys.path.insert(0, str(HERE))
    import translation_effects
    import translation_quality
    import translation_report

    yield translation_quality, translation_effects, translation_report
    sys.path[:] = before


@pytest.fixture(scope="module")
def model_and_store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("translation")
    parameters = cohort_parameters(10, seed=5, size=32, n_slices=2, lesions=4, split=SPLIT)
    write_cohort(folder / "cohort.zarr", parameters)
    network = SinogramTranslator(ParallelGeometry(**parameters["geometry"]).to_dict(), 2e4,
                                 dict.fromkeys(TASKS, 2e4), -0.3, 0.5, **WIDTHS)
    SinogramBridgePipeline(network, tiny_scheduler()).save_pretrained(folder / "bridge")
    UNetPipeline(network).save_pretrained(folder / "unet")
    return folder / "bridge", folder / "cohort.zarr"


@pytest.fixture(scope="module")
def arguments(model_and_store):
    bridge, store = model_and_store
    return [str(store), "--bridge", str(bridge), "--patients", "4", "--samples", "2"]


def test_classical_methods_beat_an_untrained_bridge_and_the_page_says_so(scripts, arguments, tmp_path, capsys):
    quality, _, report = scripts
    rows = ["low-dose 1/100", "attenuation correction", "tracer separation"]
    arguments = [*arguments, "--steps", "1", "--rows", *rows, "--keep", str(tmp_path / "kept"), "--json",
                 str(tmp_path / "quality.json")]
    record = quality.main(arguments)
    assert json.loads((tmp_path / "quality.json").read_text()) == json.loads(json.dumps(record))
    found = {name: {m: v["metrics"]["psnr"]["mean"] for m, v in row["images"]["methods"].items()}
             for name, row in record["cohort"]["rows"].items()}
    low = found["low-dose 1/100"]
    assert set(low) == {"source", "gaussian", "fbp", "osem", "bsrem", "bsrem, no factors", "bridge",
                        "bridge, one sample", "bridge, mean of samples"}
    assert min(low["osem"], low["bsrem"]) > low["bridge"]
    assert low["osem"] > low["fbp"]
    sinograms = record["cohort"]["rows"]["low-dose 1/100"]["sinograms"]["methods"]
    assert sinograms["gaussian"]["metrics"]["psnr"]["mean"] > sinograms["source"]["metrics"]["psnr"]["mean"] + 1
    assert found["attenuation correction"]["with CT"] > found["attenuation correction"]["source"] + 3
    separated = record["cohort"]["rows"]["tracer separation"]["images"]
    assert (separated["n_items"], separated["n_patients"]) == (8, 4)
    page = report.page(record)
    assert all(f"## {name[0].upper()}{name[1:]}\n" in page for name in rows)
    assert f"{low['bsrem']:.2f} (" in page
    best = max((name for name in low if not name.startswith("bridge")), key=low.get)
    assert f" {low['bridge']:.2f} | {best}, {low[best]:.2f} |" in page  # not ahead, so not in bold
    # What was kept gives the same record, and another model would not be taken from it.
    again = quality.main(arguments)
    assert again == record
    assert len(list((tmp_path / "kept").iterdir())) == 6
    capsys.readouterr()


def test_every_region_is_scanned_with_every_tracer_and_sources_are_scaled_by_its_like(model_and_store):
    studies = [study for split in SPLIT for study in read_patients(model_and_store[1], split, 10)][:9]
    items = draw_items(studies, "attenuation-correction")
    assert len({(tracer, region) for tracer, region, _ in items.said}) == 9
    # With each kind once in the tuning set, its own ratio is found: totals are right one by one, not on average.
    np.testing.assert_allclose(scaled(items, items).sum((1, 2)), items.truth.sum((1, 2)), rtol=1e-4)
    ratio = items.truth.sum((1, 2)) / items.sources.sum((1, 2))
    assert ratio.max() > 1.5 * ratio.min()
    mixed = draw_items(studies, "tracer-separation")
    np.testing.assert_allclose(scaled(mixed, mixed).sum((1, 2)), mixed.truth.sum((1, 2)), rtol=1e-4)


@pytest.mark.parametrize("task", TASKS)
def test_counts_that_judge_an_estimate_are_of_its_target_and_not_of_its_source(task, model_and_store):
    studies = [study for split in SPLIT for study in read_patients(model_and_store[1], split, 10)][:9]
    factor = {"dose_factor": 4} if task == "low-dose" else {}
    items, again = draw_items(studies, task, **factor), draw_items(studies, task, **factor)
    np.testing.assert_array_equal(items.measured, again.measured)
    noise = (items.measured - items.truth) / np.sqrt(np.maximum(items.truth, 1))
    assert abs(noise.mean()) < 0.02
    assert noise[items.truth > 1].std() == pytest.approx(1, abs=0.05)
    if task == "low-dose":
        shared = ((items.sources - items.truth / 4) / np.sqrt(np.maximum(items.truth / 4, 1)))
        assert abs(np.corrcoef(noise.ravel(), shared.ravel())[0, 1]) < 0.02
    found = paired_metrics(items.truth, items.truth + 1, data_range=1, counts=items.measured)
    np.testing.assert_allclose(found["deviance"].mean(), found["deviance_expected"].mean(), rtol=0.05)


def test_samples_enough_for_an_interval_are_covered_or_not(scripts, model_and_store, capsys):
    quality = scripts[0]
    bridge, store = model_and_store
    record = quality.main([str(store), "--bridge", str(bridge), "--patients", "3", "--samples", "19", "--steps", "1",
                           "--rows", "delayed frame"])
    row = record["cohort"]["rows"]["delayed frame"]
    covered = row["sinograms"]["methods"]["bridge"]["coverage"]["bins"]["inside"]["mean"]
    assert 0 <= covered < 0.9
    assert row["regions covered"]["bridge"]["regions"]
    assert "central 90 % interval" in scripts[2].page(record)
    capsys.readouterr()


def test_the_page_is_that_of_its_records(scripts):
    docs = HERE.parent / "docs"
    records = [json.loads((docs / f"translation{name}.json").read_text()) for name in ("", "_effects", "_variants")]
    assert scripts[2].page(*records) == (docs / "translation.md").read_text()


def test_a_model_added_to_a_record_has_the_rows_that_it_would_have_had(scripts, model_and_store, tmp_path, capsys):
    quality, store, unet = scripts[0], str(model_and_store[1]), str(model_and_store[1].parent / "unet")
    bridge, path = str(model_and_store[0]), tmp_path / "quality.json"
    rest = ["--patients", "3", "--samples", "2", "--steps", "1", "--rows", "tracer conversion"]
    together = quality.main([store, "--bridge", bridge, "--cyclegan", unet, *rest])["cohort"]
    quality.main([store, "--bridge", bridge, *rest, "--json", str(path)])
    quality.main([store, "--cyclegan", unet, *rest, "--add", "--json", str(path)])
    added = json.loads(path.read_text())["cohort"]
    assert added["models"] == together["models"]
    assert added["rows"] == json.loads(json.dumps(together["rows"]))
    for other in (["--seed", "2"], ["--rows", "delayed frame"]):
        with pytest.raises(SystemExit):
            quality.main([store, "--cyclegan", unet, *rest, *other, "--add", "--json", str(path)])
    with pytest.raises(InputError, match="of the same slices"):
        join_rows(added["rows"]["tracer conversion"], quality.main(
            [store, "--cyclegan", unet, *rest, "--patients", "2"])["cohort"]["rows"]["tracer conversion"])
    assert json.loads(path.read_text())["cohort"] == added
    assert "needs a record of the same settings" in capsys.readouterr().err


def test_settings_have_effects_and_the_page_shows_them(scripts, arguments, tmp_path, capsys):
    _, effects, report = scripts
    record = effects.main([*arguments, "--most-steps", "6", "--json", str(tmp_path / "effects.json")])
    assert json.loads((tmp_path / "effects.json").read_text()) == json.loads(json.dumps(record))
    assert record["attention"]["off"]["change of its size"]["mean"] == 0
    assert record["attention"]["lesions, 1"]["change of its size"]["mean"] != 0
    deviance = [record["likelihood"][f"1/4, {s:g}"]["deviance over that of noise"]["mean"] for s in effects.STRENGTHS]
    assert (np.diff(deviance) < 0).all()
    assert record["seconds"]["20 samples"] > record["seconds"]["1 sample"] > 0
    # A part that is measured again leaves the others as they were.
    again = effects.main([*arguments, "--only", "seconds", "--json", str(tmp_path / "effects.json")])
    assert again["steps"] == json.loads(json.dumps(record["steps"]))
    head = dict.fromkeys(("date", "machine", "patients", "split", "steps", "samples", "seed"), 1)
    page = report.page({"cohort": {"rows": {}} | head}, again)
    assert all(f"## {name}" in page for name in ("Steps", "Attention", "Guidance", "Time"))
    capsys.readouterr()


def test_a_second_method_joins_what_was_kept_and_real_anatomy_stands_beside(scripts, arguments, model_and_store,
                                                                            tmp_path, capsys):
    quality, _, report = scripts
    how = [*arguments, "--steps", "1", "--rows", "delayed frame", "--keep", str(tmp_path / "kept"), "--json",
           str(tmp_path / "quality.json")]
    alone = quality.main(how)["cohort"]["rows"]["delayed frame"]
    both = quality.main([*how, "--unet", str(model_and_store[0].parent / "unet")])["cohort"]
    assert len(both["models"]) == 2
    row = both["rows"]["delayed frame"]
    assert row["images"]["methods"]["bridge"]["metrics"] == alone["images"]["methods"]["bridge"]["metrics"]
    wanted = (row["images"]["methods"]["bridge"]["metrics"]["psnr"]["mean"]
              - row["images"]["methods"]["unet"]["metrics"]["psnr"]["mean"])
    assert row["images"]["methods"]["bridge"]["difference"]["metrics"]["psnr"]["mean"] == pytest.approx(wanted)
    record = {"cohort": both, "anatomy": both | {"split": "real"}}
    (tmp_path / "both.json").write_text(json.dumps(record))
    report.main([str(tmp_path / "both.json"), "--out", str(tmp_path / "page.md")])
    page = (tmp_path / "page.md").read_text()
    assert "Bridge less U-Net, on the same slices" in page
    assert "# Anatomy that nobody here made" in page
    assert "## Delayed frame, real anatomy" in page
    error = both["rows"]["delayed frame"]["sinograms"]["methods"]["bridge"]["metrics"]["nrmse"]["mean"]
    assert page.count(f"| {100 * error:.1f} % (") == 2  # on both sides of the drop
    # Rows of other settings do not stay beside new ones.
    other = quality.main([*how, "--steps", "2", "--rows", "tracer conversion"])["cohort"]
    assert list(other["rows"]) == ["tracer conversion"]
    capsys.readouterr()


def test_models_that_differ_in_one_thing_stand_beside_one_another(scripts, model_and_store, tmp_path, capsys):
    import translation_variants

    bridge, store = model_and_store
    record = translation_variants.main([
        str(store), "--pair", "bridge for U-Net", str(bridge.parent / "unet"), str(bridge), "--patients", "4",
        "--samples", "2", "--steps", "1", "--row", "delayed frame", "--json", str(tmp_path / "variants.json")])
    assert json.loads((tmp_path / "variants.json").read_text()) == json.loads(json.dumps(record))
    for domain in ("sinograms", "images"):
        row = record["pairs"]["bridge for U-Net"][domain]
        apart = row["with"]["psnr"]["mean"] - row["without"]["psnr"]["mean"]
        assert row["with"]["psnr more"]["mean"] == pytest.approx(apart)
    section = scripts[2].variants_section(record)
    assert f"| bridge for U-Net | {row_mean(record, 'sinograms', 'without')} | " in section
    assert "delayed frame, 4 test patients" in section
    capsys.readouterr()


def row_mean(record, domain, name):
    return f"{record['pairs']['bridge for U-Net'][domain][name]['psnr']['mean']:.2f}"


def test_there_is_a_figure_for_each_task(scripts, model_and_store, tmp_path):
    import translation_figures

    bridge, store = model_and_store
    translation_figures.main([str(store), "--bridge", str(bridge), "--samples", "2", "--steps", "1", "--out",
                              str(tmp_path)])
    drawn = {path.name for path in tmp_path.iterdir()}
    assert drawn == {f"translation-{name}.png" for name in scripts[2].PICTURES.values()}
    assert drawn == {f"translation-{name}.png" for name in TASKS}
    assert all(path.stat().st_size > 20_000 for path in tmp_path.iterdir())


@pytest.mark.skipif(not (DATA / "ct_abdomen").is_dir(), reason="needs ../shared/data with real anatomy")
def test_real_anatomy_is_scanned_like_the_cohort(model_and_store):
    cohort = read_cohort(model_and_store[1])
    for region, organ in (("head", "brain_grey"), ("abdomen", "muscle")):
        studies = real_studies(DATA, cohort, region, 2, seed=1)
        for _, study in studies:
            assert study.geometry == cohort.geometry
            assert study.mask(organ).any()
            assert (study.prompts.sum((-2, -1)) > 1e5).all()
        assert (studies[0][1].labels != studies[1][1].labels).any()
