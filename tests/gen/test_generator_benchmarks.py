"""The scripts that measure a generator run on a small one, and their page says what they found."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from allpet_gen.objectives import noise_schedule
from allpet_gen.pipelines import SinogramGenerationPipeline
from allpet_gen.samplers import SinogramDDIMScheduler
from allpet_gen.settings import read_settings
from allpet_gen.stages import new_autoencoder, new_denoiser, read_sets
from allpet_physics.simulation.cohort import cohort_parameters, write_cohort
from allpet_physics.simulation.cohort_reader import read_cohort

HERE = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def scripts():
    before = list(sys.path)
    sys.path.insert(0, str(HERE))
    import generator_quality
    import generator_report

    yield generator_quality, generator_report
    sys.path[:] = before


@pytest.fixture(scope="module")
def model_and_store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generator")
    write_cohort(folder / "cohort.zarr", cohort_parameters(60, seed=5, size=32, n_slices=3))
    settings = read_settings("tiny")
    autoencoder = new_autoencoder(read_sets(read_cohort(folder / "cohort.zarr"), settings)[0], settings)
    SinogramGenerationPipeline(autoencoder, new_denoiser(autoencoder, settings), SinogramDDIMScheduler.from_config(
        noise_schedule(settings["diffusion"]).config)).save_pretrained(folder / "model")
    return folder / "model", folder / "cohort.zarr"


def test_the_page_is_that_of_its_records(scripts):
    docs = HERE.parent / "docs"
    records = [json.loads((docs / f"generator_{name}.json").read_text()) for name in ("small", "ablations")]
    assert scripts[1].page(*records) == (docs / "generator.md").read_text()


@pytest.mark.slow
def test_an_untrained_generator_is_far_from_real_and_the_page_says_so(scripts, model_and_store, tmp_path, capsys,
                                                                          monkeypatch):
    quality, report = scripts
    monkeypatch.setattr(quality, "SIZES", ("small",))  # the others take half a minute more
    model, store = model_and_store
    record = quality.main([str(model), str(store), "--count", "72", "--steps", "2", "--json",
                           str(tmp_path / "quality.json")])
    assert json.loads((tmp_path / "quality.json").read_text()) == json.loads(json.dumps(record))
    for result in record["distances"].values():
        assert result["kernel_rbf"]["generated"]["low"] > result["kernel_rbf"]["floor"]["value"]
    assert record["autoencoder"]["psnr, osem"]["truth without noise"]["mean"] > record["autoencoder"][
        "psnr, osem"]["decoded"]["mean"]
    assert set(record["prompts"]["generated"]["by class"]) == set(record["prompts"]["real, held out"]["by class"])
    assert record["stronger"]["guidance"] == {"region": 3, "tracer": 7}
    assert set(record["stronger"]["distances"]) == set(record["distances"])
    assert record["stronger"]["distances"] != record["distances"]
    assert np.isfinite(record["consistency"]["generated, range guidance"]["all"]).all()
    assert record["seconds"]["10 steps"] > 0
    page = report.page(record, None)
    assert all(f"## {name}" in page for name in ("Autoencoder", "Distances", "Obedience", "A stronger guidance",
                                                 "Data consistency", "Copies", "Time", "Memory"))
    assert f"{100 * record['stronger']['prompts']['tracer']:.1f} %" in page
    capsys.readouterr()


def test_steps_of_all_trainings_are_timed_beside_the_generators(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(HERE)
    import generator_budgets

    write_cohort(tmp_path / "s", cohort_parameters(60, size=32, n_slices=3, tracers=("FDG",), seed=3))
    record = generator_budgets.main([str(tmp_path / "s"), "--size", "tiny", "--rounds", "1", "--steps", "1", "--json",
                                     str(tmp_path / "budgets.json")])
    found = record["trainings"]
    assert set(found) == {"autoencoder", "denoiser", "vae", "gan", "sgm"}
    assert found["autoencoder"]["share"] + found["denoiser"]["share"] == pytest.approx(1)
    whole = sum(found[name]["steps"] * found[name]["seconds"] for name in ("autoencoder", "denoiser"))
    assert found["gan"]["share"] == pytest.approx(found["gan"]["steps"] * found["gan"]["seconds"] / whole)
    assert json.loads((tmp_path / "budgets.json").read_text()) == record
