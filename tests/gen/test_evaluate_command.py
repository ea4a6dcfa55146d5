"""`allpet evaluate`: one page and one record from models and a store, the same ones again, and what it refuses."""

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import allpet_gen
from allpet_gen._pretrained import model_digest
from allpet_gen.baseline_stages import new_objective, save_baseline
from allpet_gen.baselines.unet import UNetPipeline
from allpet_gen.certificate import printed
from allpet_gen.evaluation import generated_table
from allpet_gen.evaluation.generated_table import Drawn, draw_like, held_out
from allpet_gen.evaluation.report import ROWS, TIERS, _pairs, further_features, rounded
from allpet_gen.evaluation.report_join import differing, join_tables, pictures_to_take
from allpet_gen.evaluation.report_page import with_interval
from allpet_gen.evaluation.translation_table import join_rows, remembered
from allpet_gen.settings import read_settings
from allpet_gen.symmetry import mirror_sinogram, rotate_sinogram
from allpet_gen.tasks import TASKS
from allpet_gen.training_card import store_digest, write_card
from allpet_gen.translation_pipelines import SinogramBridgePipeline
from allpet_gen.translator import SinogramTranslator
from allpet_physics._record import digest
from allpet_physics.errors import InputError
from allpet_physics.simulation.cohort import cohort_parameters, write_cohort
from allpet_physics.simulation.cohort_reader import read_cohort

from .baseline_helpers import quick
from .tiny_pipeline import GEOMETRY, tiny_pipeline
from .tiny_translation import WIDTHS, tiny_scheduler
from .translation_store import allpet

SPLIT = {"train": list(range(12)), "validation": [12, 13, 14], "test": list(range(15, 27))}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A store and models of random weights, said to be trained on its training patients."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_cohort(folder / "s", cohort_parameters(27, size=32, n_slices=1, split=SPLIT, seed=3))
    cohort = read_cohort(folder / "s")
    network = SinogramTranslator(GEOMETRY.to_dict(), 2e4, dict.fromkeys(TASKS, 2e4), -0.3, 0.5, **WIDTHS)
    one = SinogramTranslator(GEOMETRY.to_dict(), 2e4, {"attenuation-correction": 2e4}, -0.3, 0.5, **WIDTHS)
    for name, pipe, family, parts in (
            ("generator", tiny_pipeline(), "", ("autoencoder", "denoiser")),
            ("bridge", SinogramBridgePipeline(network, tiny_scheduler()), "translation-", ("bridge",)),
            ("unet", UNetPipeline(network), "translation-", ("unet",)),
            ("one", UNetPipeline(one), "translation-", ("unet",))):
        pipe.save_pretrained(folder / name, card={})
        write_card(folder / name, {
            "format": 1, "settings": read_settings("tiny", {}, family), "stages": {part: {} for part in parts},
            "store": {"sha256": store_digest(cohort), "kind": "cohort", "seed": 3},
            "patients": {"train": SPLIT["train"], "validation": SPLIT["validation"]}})
    settings = quick("gan", **{"cohort.size": 32})
    save_baseline(new_objective("gan", GEOMETRY, settings, 400.0), "gan", settings, folder / "gan", {})
    write_card(folder / "gan", {"format": 1, "settings": settings, "stages": {"gan": {}},
                                "store": {"sha256": store_digest(cohort), "kind": "cohort", "seed": 3},
                                "patients": {"train": SPLIT["train"], "validation": SPLIT["validation"]}})
    return folder


def evaluate(place, out, *names, more=()):
    models = [word for name in names for word in ("--model", name if "=" in name else f"{name}={place / name}")]
    return allpet("evaluate", place / "s", *models, "--tier", "tiny", "--out", out, "--quiet", *more)


@pytest.fixture(scope="module")
def report(place):
    result = evaluate(place, place / "report", "generator", "gan", "bridge", "unet", f"unet+sd={place / 'one'}",
                      more=("--keep", place / "kept"))
    assert result.exit_code == 0, result.output
    return place / "report"


def test_the_page_stands_alone_and_has_every_section(report):
    assert {path.name for path in report.iterdir()} == {"report.html", "report.json"}
    page = (report / "report.html").read_text()
    assert re.findall(r"<h2>(Figure \d)", page) == [f"Figure {n}" for n in range(2, 8)]
    assert page.count("data:image/png;base64,") == 7  # two belong to figure 4
    assert "Not evaluated" not in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert len(page) < 6_000_000
    assert str(report.parent) not in page + (report / "report.json").read_text()


def test_figures_of_the_page_are_those_of_the_record(report):
    page, tables = (report / "report.html").read_text(), json.loads((report / "report.json").read_text())["tables"]
    assert tuple(tables["translations"]) == ROWS
    for row in tables["translations"].values():
        for method in row["images"]["methods"].values():
            assert f"<td>{with_interval(method['metrics']['psnr'])}</td>" in page
        for method in row["sinograms"]["methods"].values():
            seen = method["metrics"]
            assert (f"<td>{with_interval(seen['deviance'])}</td><td>{with_interval(seen['deviance_expected'])}</td>"
                    f"<td>{with_interval(seen['consistency_0'], 2)}</td>") in page
        truth = with_interval(row["sinograms"]["truth"]["consistency_0"], 2)
        assert f"<td>truth</td><td></td><td></td><td>{truth}</td>" in page
    found = tables["distances"]["image, random-cnn"]["all"]["generator"]["frechet"]
    assert f"<td>{with_interval(found['generated'])}</td><td>{with_interval(found['floor'])}</td>" in page
    assert found["generated"]["value"] > 3 * found["floor"]["value"]  # its weights are random
    # A model of one task is in the row of this task alone.
    assert [row for row, t in tables["translations"].items() if "unet+sd" in t["images"]["methods"]] == [
        "attenuation correction"]
    rows = tables["certificates"]["generator"]["measured"]["rows"]
    assert [row["delta"] for row in rows] == [0.001, 0.005, 0.01, 0.05]
    assert f"<td>{printed(rows[-1]['bound'])}" in page
    assert set(tables["prompts"]) == {"real, held out", "generator", "generator, guidance 1", "gan"}
    assert tables["copies"]["gan"]["n_training"] == 36  # all that the store's training patients have
    made = json.loads((report / "report.json").read_text())["made"]["models"]
    assert made["bridge"]["asked"] == {"steps": 2, "samples": 2}
    assert made["generator"]["asked"] == {"steps": 4, "guidance": 3, "guidance_start": 0.4}


def test_the_page_of_the_documentation_says_what_the_report_found(place, report, tmp_path, monkeypatch, capsys):
    root = Path(__file__).resolve().parents[2]
    monkeypatch.syspath_prepend(root / "benchmarks")
    import decoded_distances
    import evaluation_report
    from _evaluation_tables import DECODED, SHIPS, cell, verdict

    models = [f"--model={name}={place / 'generator'}" for name in ("ships", "generator")]
    decoded = decoded_distances.main([str(place / "s"), *models, "--count", "36", "--split", "train", "--json",
                                      str(tmp_path / "d.json")])
    assert "generator        Fréchet" in capsys.readouterr().out
    record = json.loads((report / "report.json").read_text())
    tables, shipped = record["tables"], json.loads(json.dumps(record))

    def write():
        (tmp_path / "shipped.json").write_text(json.dumps(shipped))
        evaluation_report.main([str(report), *(str(tmp_path / name) for name in ("shipped.json", "d.json")), "--out",
                                str(tmp_path / "evaluation.md")])

    for spoil in (lambda t: t["consistency"]["real, held out"].__setitem__(1, 0.9),
                  lambda t: t["distances"]["image, statistics"]["all"]["generator"]["frechet"].update(
                      floor={"value": 9})):
        spoil(shipped["tables"])
        with pytest.raises(SystemExit):
            write()
        assert "on the real sinograms of the report and in the same way" in capsys.readouterr().err
        shipped = json.loads(json.dumps(record))
    write()
    page = (tmp_path / "evaluation.md").read_text()
    ours, gan = (tables["distances"]["image, random-cnn"]["all"][name]["frechet"]["generated"]
                 for name in ("generator", "gan"))
    assert f"| GAN | {cell(gan)} | " in page
    there = decoded["distances"]["image, random-cnn"]["all"]
    for name, row in DECODED.items():
        assert f"| {row} | {cell(there[name]['frechet']['generated'])} | " in page
    # What its weights, which are random, decode to is no sinogram.
    assert there["generator"]["frechet"]["generated"]["low"] > there["as they are"]["frechet"]["generated"]["high"]
    other = decoded | {"models": decoded["models"] | {"ships": "0"}}
    assert "run decoded_distances.py anew" in evaluation_report.other_models(record, shipped, other)
    assert f"| {SHIPS} | {cell(ours)} | " in page
    assert f"| image, random-cnn, frechet | {verdict(ours, gan)} |" in page
    assert "draws with guidance 3 from 40% of its steps on" in " ".join(page.split())
    assert "--method gan --config small --store cohort.zarr --out run --set training.gan.steps=" in page
    assert f"| {ROWS[0]} | " in page
    shown = re.findall(r"!\[[^]]+\]\(images/(.*?)\)", page)
    assert shown == [f"evaluation-{name}.png" for name in ("methods", "distances", "translations")]
    for name in shown:
        assert (tmp_path / "images" / name).read_bytes().startswith(b"\x89PNG")


def test_the_committed_page_is_that_of_the_committed_report(monkeypatch):
    docs = Path(__file__).resolve().parents[2] / "docs"
    monkeypatch.syspath_prepend(docs.parent / "benchmarks")
    import evaluation_report

    record, pictures = evaluation_report.read_report(docs / "evaluation")
    shipped, decoded = (json.loads((docs / "evaluation" / f"{name}.json").read_text())
                        for name in ("shipped", "decoded"))
    assert evaluation_report.other_models(record, shipped, decoded) is None
    assert evaluation_report.unfit(record["tables"], shipped["tables"]) is None
    # It is of the generator that ships.
    folder = Path(allpet_gen.__file__).parent / "pretrained" / "small"
    assert shipped["made"]["models"]["generator"]["digest"] == model_digest(folder)
    assert evaluation_report.page(record, shipped, decoded, pictures) == (docs / "evaluation.md").read_text()
    for name in evaluation_report.shown(pictures):
        assert (docs / "images" / f"evaluation-{name}.png").read_bytes() == pictures[name]


@pytest.mark.parametrize(("ours", "other", "said"), [
    ((1, 0, 2), (3, 2.5, 4), "ahead, clearly"), ((1, 0, 3), (2, 1, 4), "ahead, within the intervals"),
    ((5, 4.5, 6), (3, 2, 4), "**behind**, clearly"), ((3.5, 2, 6), (3, 2, 4), "**behind**, within the intervals")])
def test_ahead_is_said_of_what_is_ahead(ours, other, said, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "benchmarks")
    from _evaluation_tables import verdict

    assert verdict(*(dict(zip(("value", "low", "high"), v, strict=True))
                                       for v in (ours, other))) == said


def test_the_same_models_give_the_same_tables(place, report, tmp_path):
    """In another process, with other hashes of strings, and nothing kept."""
    models = [f"{name}={place / name}" for name in ("generator", "gan", "bridge", "unet")]
    models.append(f"unet+sd={place / 'one'}")
    words = ["evaluate", place / "s", *(word for model in models for word in ("--model", model)), "--tier", "tiny",
             "--out", tmp_path / "again", "--quiet"]
    subprocess.run([sys.executable, "-c", "from allpet_physics.cli import main; main()", *map(str, words)], check=True,
                   env=os.environ | {"PYTHONHASHSEED": "5", "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"})
    first, again = (json.loads((folder / "report.json").read_text()) for folder in (report, tmp_path / "again"))
    assert first["tables"] == again["tables"]
    assert first["made"]["models"] == again["made"]["models"]


def test_a_report_joined_from_two_is_the_report_of_all(place, report, tmp_path):
    kept = ("--keep", place / "kept")
    first = evaluate(place, tmp_path / "first", "gan", "unet", f"unet+sd={place / 'one'}", more=kept)
    assert first.exit_code == 0, first.output
    both = evaluate(place, tmp_path / "both", "generator", "bridge", more=("--join", tmp_path / "first", *kept))
    assert both.exit_code == 0, both.output
    whole, joined = (json.loads((folder / "report.json").read_text()) for folder in (report, tmp_path / "both"))
    for row in (row for r in (whole, joined) for row in r["tables"]["translations"].values()):
        for domain in ("sinograms", "images"):
            row[domain].pop("reference")
            for method in row[domain]["methods"].values():
                method.pop("difference", None)  # of the bridge from a U-Net, which was not there in one run
    assert whole["tables"] == joined["tables"]
    assert list(joined["tables"]["prompts"]) == ["real, held out", "generator", "gan", "generator, guidance 1"]
    assert whole["made"]["models"] == joined["made"]["models"]
    assert joined["made"]["joined"]["command"] != joined["made"]["command"]
    page = (tmp_path / "both" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 9  # two sheets of generators, two of corrections

    def figure(name, text):
        return re.search(f'<figure id="{name}">.*?src="(.*?)"', text)[1]

    before = (tmp_path / "first" / "report.html").read_text()
    assert figure("correction", before) == figure("correction2", page) != figure("correction", page)
    assert figure("methods", before) == figure("methods2", page) != figure("methods", page)
    assert figure("distances", page) == figure("distances", (report / "report.html").read_text())
    assert "Joined to: " in page
    other = evaluate(place, tmp_path / "other", "generator", more=("--join", tmp_path / "first", "--seed", "2"))
    assert "join must be a report of the same seed, 2, but was of 1" in other.stderr
    assert other.exit_code not in (0, 1)
    assert joined["made"]["sheets"] == {"methods": ["generator"], "methods2": ["gan"], "correction": ["bridge"],
                                        "correction2": ["unet", "unet+sd"]}
    for damaged in ("{", "[]", '{"tables": 3, "made": 4}', json.dumps(joined | {"tables": joined["tables"] | {
            "certificates": []}}), json.dumps(joined | {"made": joined["made"] | {"models": []}})):
        (tmp_path / "first" / "report.json").write_text(damaged)
        none = evaluate(place, tmp_path / "other", "generator", more=("--join", tmp_path / "first"))
        assert "join must be the folder of a report" in none.stderr
        assert none.exit_code not in (0, 1)


def test_a_generator_draws_with_the_guidance_that_is_asked_for(place, report, tmp_path):
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(Profile()), str(tmp_path / "judge.pt"))
    for name, more in (("words", ("--guidance", "region=2,tracer=7", "--guidance-start", "0")),
                       ("none", ("--guidance", "1", "--network", tmp_path / "judge.pt"))):
        result = evaluate(place, tmp_path / name, "generator", more=(*more, "--keep", place / "kept"))
        assert result.exit_code == 0, result.output
        found[name] = json.loads((tmp_path / name / "report.json").read_text())
    usual = json.loads((report / "report.json").read_text())["tables"]["distances"]
    of_network = found["none"]["tables"]["distances"]
    name = f"network judge.pt {digest(tmp_path / 'judge.pt')['sha256'][:8]}"
    assert set(of_network) - set(usual) == {f"sinogram, {name}", f"image, {name}"}
    frechet = of_network[f"image, {name}"]["all"]["generator"]["frechet"]
    assert frechet["generated"]["value"] > 2 * frechet["floor"]["value"] > 0  # its weights are random
    asked = found["words"]["made"]["models"]["generator"]["asked"]
    assert asked == {"steps": 4, "guidance": {"region": 2, "tracer": 7}, "guidance_start": 0}
    pages = {name: (tmp_path / name / "report.html").read_text() for name in found}
    assert "steps 4, guidance region=2,tracer=7, guidance_start 0" in pages["words"]
    assert "again without any (guidance 1)" in pages["words"]
    assert "again without" not in pages["none"]
    for key, by_tracer in usual.items():
        words, none = (record["tables"]["distances"][key]["all"] for record in found.values())
        assert words["generator"] != by_tracer["all"]["generator"]
        # Without guidance it is the same whatever guidance it stands beside, and it stands there once.
        assert words["generator, guidance 1"]["frechet"] == by_tracer["all"]["generator, guidance 1"]["frechet"]
        assert list(none) == ["generator"]
        assert none["generator"]["frechet"]["generated"] == pytest.approx(
            words["generator, guidance 1"]["frechet"]["generated"], rel=1e-3)
    for wrong in ("much", "nan", "-1", "dose=3"):
        result = evaluate(place, tmp_path / "wrong", "generator", more=("--guidance", wrong))
        assert result.exit_code == 2, result.output
        assert "guidance" in result.stderr
        assert not (tmp_path / "wrong").exists()
    result = evaluate(place, tmp_path / "wrong", "gan", more=("--guidance-start", "0.2"))
    assert "--guidance-start must be left out where no generator is evaluated, but was given for gan" in result.stderr
    assert result.exit_code == 2
    result = evaluate(place, tmp_path / "wrong", "unet", more=("--network", tmp_path / "judge.pt"))
    assert "--network must be left out where no generator or vae or gan or sgm is evaluated" in result.stderr
    assert result.exit_code == 2


def test_a_network_that_cannot_see_the_pictures_is_refused_before_anything_is_drawn(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(Picky()), str(tmp_path / "picky.pt"))
    for path in (tmp_path / "picky.pt", tmp_path / "none.pt"):
        with pytest.raises(InputError, match=r"^network must be a "):
            further_features(path, GEOMETRY)


class Picky(torch.nn.Module):
    """Stands for a network of pictures of one size."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.float().reshape(x.shape[0], 3 * 299 * 299)


class Profile(torch.nn.Module):
    """Stands for a trained network: grey values to their means over rows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.float().mean((1, 2))


def test_tables_see_what_was_drawn(place, monkeypatch):
    cohort = read_cohort(place / "s")
    data, train = held_out(cohort, "test"), held_out(cohort, "train")
    truth, patients = generated_table.real(data), set(SPLIT["train"])
    turned = rotate_sinogram(mirror_sinogram(np.asarray(train.counts[:], np.float32), GEOMETRY.arc), 5, GEOMETRY.arc)
    drawn = {"copier": Drawn(turned, train.labels, turned), "honest": truth}
    found = generated_table.copies(drawn, truth, data, train, dict.fromkeys(drawn, patients))
    for by in (dict, lambda f: f["in features"]):
        copier, honest = (by(found[name])["copies"]["generated"]["value"] for name in drawn)
        assert copier > 0.7 > 0.1 > honest
        assert by(found["copier"])["authenticity"]["generated"]["value"] < 0.3

    regions, tracers = map(np.array, generated_table.class_words(data))
    monkeypatch.setattr(generated_table.names, "predict", lambda _, counts: SimpleNamespace(
        tracer=tracers[truth.labels], region=regions[truth.labels], joint=np.eye(len(regions))[truth.labels]))
    other = (truth.labels + 1) % len(regions)  # the same sinograms, asked for by another prompt
    said = generated_table.obedience({"deaf": Drawn(truth.counts, other, truth.images)}, truth, data, None)
    assert said["real, held out"]["both"] == 1
    assert said["deaf"]["both"] == 0
    assert said["deaf"]["tracer"] == np.mean(tracers[other] == tracers[truth.labels])

    uneven = truth.counts * np.where(np.arange(GEOMETRY.n_angles) % 2, 1.0, 2.0)[:, None]
    said = generated_table.consistency({"uneven": Drawn(uneven, truth.labels, truth.images)}, truth, data)
    assert said["uneven"][0] > said["real, held out"][0] + 0.1
    # Of one sinogram many times the mean may be right, and the range is not.
    same = Drawn(np.repeat(truth.counts[:1], 20, axis=0), truth.labels[:20], truth.images[:20])
    within = generated_table.consistency_range({"same": same}, truth, data)
    assert all(low == pytest.approx(high) for low, high in within["same"])
    assert all(high > 1.2 * low for low, high in within["real, held out"])


def test_pairs_of_drawn_sinograms_are_of_the_generator_as_it_is_asked(place):
    cohort, seen = read_cohort(place / "s"), []

    class Spy:
        """Stops where the first sinogram is drawn."""

        def __call__(self, prompt, **options):
            seen.append(options)
            raise StopIteration

    with pytest.raises(StopIteration):
        _pairs(Spy(), None, cohort, TIERS["tiny"], 3, {"guidance": 5.0, "guidance_start": 0.1})
    assert seen[0]["guidance"] == 5
    assert seen[0]["guidance_start"] == 0.1
    assert seen[0]["steps"] == 4


def of_generator(value, *names):
    """Return tables in which each of some generators has a value everywhere, real sinograms beside them."""
    found = dict.fromkeys(names, value)
    return {"left out": found, "prompts": {"real, held out": 0} | found, "copies": found,
            "consistency": {"real, held out": 0} | found, "classes": ["one"],
            "distances": {"image": {"all": found, "FDG": found}}, "certificates": {}}


def test_what_was_measured_anew_leaves_nothing_of_the_old_behind():
    earlier = of_generator("old", "generator", "generator, guidance 1", "gan")
    empty = {"left out": {"generator": 500, "generator, guidance 1": 500}, "certificates": {}}  # all draws were empty
    joined = join_tables(empty, earlier, {"generator"})
    assert joined["left out"] == empty["left out"] | {"gan": "old"}
    assert joined["prompts"] == {"real, held out": 0, "gan": "old"}
    assert joined["copies"] == joined["distances"]["image"]["FDG"] == {"gan": "old"}
    anew = of_generator("new", "gan")
    anew["distances"]["image"].pop("FDG")  # too few were drawn of one tracer
    joined = join_tables(anew, earlier, {"gan"})
    assert list(joined["prompts"]) == ["real, held out", "generator", "gan", "generator, guidance 1"]
    assert joined["copies"]["gan"] == "new"
    assert set(joined["distances"]["image"]["FDG"]) == {"generator", "generator, guidance 1"}
    assert earlier == of_generator("old", "generator", "generator, guidance 1", "gan")
    joined = join_tables({"certificates": {}}, earlier, {"bridge"})  # into a report without generators
    assert joined == earlier


def test_reports_that_saw_real_sinograms_otherwise_are_told_apart():
    first, other = of_generator(1, "gan"), of_generator(2, "vae")
    assert differing(first, other) == []
    other["prompts"]["real, held out"] = 0.5
    assert "(prompts)" in differing(first, other)[0]
    assert differing({"certificates": {}}, other) == []


def test_a_model_that_translates_fewer_tasks_now_loses_its_other_rows():
    def row(*names):
        return {"data_range": 1, "n_items": 2, "n_patients": 2, "methods": dict.fromkeys(names, 1)}

    def table(*names):
        return {"sinograms": row(*names), "images": row(*names), "regions covered": dict.fromkeys(names, 1)}

    earlier = {"translations": {"a": table("osem", "unet", "unet, views", "unet+sd"), "b": table("unet", "bridge")},
               "certificates": {"bridge": 1}}
    joined = join_tables({"translations": {"a": table("osem", "unet")}, "certificates": {}}, earlier, {"unet"})
    assert set(joined["translations"]["a"]["images"]["methods"]) == {"osem", "unet", "unet+sd"}
    assert set(joined["translations"]["b"]["sinograms"]["methods"]) == {"bridge"}
    assert joined["certificates"] == {"bridge": 1}


def test_what_an_earlier_row_lacks_comes_from_the_later_one():
    def row(**more):
        return {"data_range": 1, "n_items": 2, "n_patients": 2, "methods": {}, **more}

    earlier = {"sinograms": row(reference=None), "images": row(), "regions covered": {}}
    later = {"sinograms": row(reference="unet", truth=0.1), "images": row(), "regions covered": {}}
    assert join_rows(earlier, later)["sinograms"] == row(reference=None, truth=0.1)


def test_sheets_of_earlier_reports_follow_in_their_order_and_old_ones_of_a_model_go():
    def drawn(*names):
        return {"drawn": dict.fromkeys(("real, held out", *names))}

    first, models = pictures_to_take(drawn("vae"), {"methods": ["gan"]}, {"methods": b"gan", "drawn": b"g"}, {"vae"})
    assert first == {"methods2": b"gan", "drawn": b"g"}
    assert models == {"methods2": ["gan"]}
    earlier = {"methods": ["vae"], "methods2": ["gan"], "methods10": ["sgm"]}
    pages = {name: name.encode() for name in earlier}
    then, models = pictures_to_take(drawn("generator"), earlier, pages, {"generator"})
    assert then == {"methods2": b"methods", "methods3": b"methods2", "methods4": b"methods10"}
    assert models == {"methods2": ["vae"], "methods3": ["gan"], "methods4": ["sgm"]}
    then, _ = pictures_to_take(drawn("gan"), earlier, pages, {"gan"})
    assert then == {"methods2": b"methods", "methods3": b"methods10"}
    assert pictures_to_take({}, earlier, pages, {"bridge"})[0] == {"methods": b"methods", "methods2": b"methods2",
                                                                   "methods3": b"methods10"}
    both = {"pairs": b"p", "correction": b"c"}
    assert pictures_to_take({}, {"correction": ["unet"]}, both, {"gan"})[0] == both
    assert pictures_to_take({}, {"correction": ["bridge"]}, both, {"bridge"})[0] == {}


def test_what_was_not_given_is_said_to_be_absent(place, tmp_path):
    result = evaluate(place, tmp_path / "one", f"unet={place / 'one'}")
    assert result.exit_code == 0, result.output
    page = (tmp_path / "one" / "report.html").read_text()
    assert page.count("Not evaluated") == 4
    assert page.count("data:image/png") == 2


@pytest.mark.parametrize(("names", "said"), [
    (("encoder=x",), "NAME=DIR"), (("generator",) * 2, "was named twice"), (("bridge=",), "NAME=DIR"),
    (("generator=nowhere",), "must be"), (("bridge=one",), "must be one for SinogramBridgePipeline"),
    (("unet=bridge",), "must be one for UNetPipeline"),
    (("vae=gan",), "must be one for VAEPipeline"), (("generator=small",), "must have the store's geometry"),
])
def test_what_it_refuses(place, tmp_path, names, said):
    names = [name if "=" not in name or not (place / name.partition("=")[2]).is_dir() or name.endswith("=")
             else f"{name.partition('=')[0]}={place / name.partition('=')[2]}" for name in names]
    result = evaluate(place, tmp_path / "out", *names)
    assert result.exit_code not in (0, 1), result.output
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_models_that_saw_test_patients_are_refused(place, tmp_path):
    card = json.loads((place / "unet" / "training.json").read_text())
    seen = {"patients": card["patients"] | {"train": [0, 15, 16]}}
    for change, said in ((seen, "2 of the test part were trained on"), (None, "must come with training.json")):
        folder = tmp_path / ("none" if change is None else "seen")
        folder.mkdir()
        for path in (place / "unet").rglob("*"):
            target = folder / path.relative_to(place / "unet")
            target.mkdir(exist_ok=True) if path.is_dir() else target.write_bytes(path.read_bytes())
        (folder / "training.json").unlink()
        if change is not None:
            write_card(folder, card | change)
        result = evaluate(place, tmp_path / "out", f"unet={folder}")
        assert result.exit_code not in (0, 1)
        assert said in result.stderr


def with_card(place, source, folder, **changes):
    """Copy a model to a folder and change the card of its training."""
    shutil.copytree(place / source, folder)
    write_card(folder, json.loads((folder / "training.json").read_text()) | changes)
    return folder


@pytest.mark.parametrize(("name", "changes", "said"), [
    ("cyclegan", {"method": "unet"}, "must have been trained as cyclegan, but its card says unet"),
    ("unet+sd", {"sinograms": {"drawn": 0}}, "must have been trained with drawn pairs, but its card says without"),
    ("unet", {"sinograms": {"drawn": 5}, "store": {"seed": 1}}, "name it unet\\+sd"),
])
def test_a_model_is_what_its_card_says(place, tmp_path, name, changes, said):
    folder = with_card(place, "unet", tmp_path / "m", **changes)
    result = evaluate(place, tmp_path / "out", f"{name}={folder}")
    assert result.exit_code not in (0, 1)
    assert re.search(said, result.stderr)


def test_what_can_be_known_first_is_said_first(place, tmp_path):
    write_cohort(tmp_path / "one", cohort_parameters(9, size=32, n_slices=1, tracers=("FDG",), split={
        "train": [0, 1, 2], "validation": [3, 4, 5], "test": [6, 7, 8]}, seed=4))
    write_cohort(tmp_path / "none", cohort_parameters(6, size=32, n_slices=1, split={
        "train": [0, 1, 2], "test": [3, 4, 5]}, seed=4))
    (tmp_path / "file").write_text("")
    for store, more, said in ((tmp_path / "one", (), "two tracers"), (tmp_path / "none", (), "validation"),
                              (place / "s", ("--keep", tmp_path / "file"), "file")):
        result = allpet("evaluate", store, "--model", f"unet={place / 'unet'}", "--tier", "tiny", "--out",
                        tmp_path / "out", "--quiet", *more)
        assert result.exit_code, result.output
        assert len(result.stderr.strip().splitlines()) == 1
        assert said in result.stderr


def test_generators_want_test_patients_enough(place, tmp_path):
    write_cohort(tmp_path / "few", cohort_parameters(13, size=32, n_slices=1, split={
        "train": [0, 1, 2], "validation": [3, 4, 5], "test": list(range(6, 13))}, seed=4))
    result = allpet("evaluate", tmp_path / "few", "--model", f"generator={place / 'generator'}", "--tier", "tiny",
                    "--out", tmp_path / "out", "--quiet")
    assert result.exit_code not in (0, 1)
    assert "at least 8 test patients for generators, but has 7" in result.stderr


def test_empty_draws_are_counted_and_left_out(place):
    class Silent:
        """Draws nothing but zeros for every second seed."""

        def __call__(self, prompts, *, count, seed, **_):
            counts = np.ones((count * len(prompts), 32, 32), np.int64)
            counts[::2, 8:20, 8:20] = 50
            counts[1::2] = 0
            return _Out(counts)

    data = held_out(read_cohort(place / "s"), "test")
    drawn = draw_like(Silent(), data, 36, seed=0)
    assert (len(drawn.counts), drawn.empty) == (18, 18)
    assert (drawn.counts.max((1, 2)) == 50).all()


class _Out:
    """What a pipeline returns, as far as it is looked at."""

    def __init__(self, sinograms):
        self.sinograms = sinograms

    def __len__(self):
        return len(self.sinograms)


def test_a_kept_file_that_was_cut_off_is_made_again(tmp_path):
    assert remembered(tmp_path, "a", lambda: 1) == 1
    assert remembered(tmp_path, "a", lambda: 2) == 1
    path = tmp_path / "a.pickle"
    path.write_bytes(path.read_bytes()[:-2])
    assert remembered(tmp_path, "a", lambda: 3) == 3


def test_rounding_keeps_six_digits_and_what_json_can_hold():
    assert rounded({"a": [1.23456789, float("inf")], 1: (True, 3)}) == {"a": [1.23457, None], "1": [True, 3]}
