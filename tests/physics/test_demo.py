"""The demonstration is a scan whose numbers must add up, not a picture alone."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from allpet_physics import InputError, RadonOperator
from allpet_physics.cli import cli
from allpet_physics.demo import (
    LESIONS,
    RANDOMS_FRACTION,
    SCATTER_FRACTION,
    report,
    run_demo,
    simulate_scan,
)


@pytest.fixture(scope="module")
def demo():
    return run_demo()


def test_counts_are_what_was_asked_for(demo):
    model, n_trues = demo.scan.model, demo.scan.n_trues
    expected = n_trues / (1 - SCATTER_FRACTION) / (1 - RANDOMS_FRACTION)
    assert model.additive.sum() == pytest.approx(expected - n_trues, rel=1e-6)
    # Poisson: five standard deviations.
    assert demo.scan.counts.sum() == pytest.approx(expected, abs=5 * np.sqrt(expected))


def test_the_scan_is_not_made_with_the_projector_but_agrees_with_it(demo):
    """Projecting the true image through the model explains the counts up to the resolution that it leaves out."""
    mean = demo.scan.model.expected(demo.scan.activity)
    assert mean.sum() == pytest.approx(demo.scan.counts.sum(), rel=3e-3)
    # Chi squared per bin is 1 for the exact mean, and a little more for a model without the blur.
    chi2 = ((demo.scan.counts - mean) ** 2 / mean).mean()
    assert 1 - 5 * np.sqrt(2 / mean.size) < chi2 < 1.1


def test_attenuation_is_that_of_a_thorax(demo):
    survival = demo.scan.model.multiplicative / demo.scan.model.multiplicative.max()
    assert 0.02 < survival.min() < 0.06


def test_images_are_quantitative(demo):
    suv = report(demo)["suv"]
    for method in ("fbp", "osem"):
        assert suv["liver (median)"][method] == pytest.approx(suv["liver (median)"]["true"], rel=0.15)
        for hot in ("lung lesion", "lymph node"):
            assert 0.6 < suv[hot][method] / suv[hot]["true"] < 1.05
        assert suv["liver cyst"][method] < 0.6 * suv["liver (median)"]["true"]


def test_osem_is_less_noisy_than_fbp_in_the_background(demo):
    lung = demo.scan.organs["left lung"]
    assert demo.osem[lung].std() < demo.fbp[lung].std()
    assert demo.osem.min() >= 0


def test_regions_are_the_lesions(demo):
    for region in report(demo)["regions"].values():
        assert region["dice"] > 0.8
    assert not (demo.regions["hot"] & demo.scan.organs["heart"]).any()
    (edit,) = demo.edits
    assert edit.action == "remove"
    assert edit.n_changed > 100


def test_attention_lies_where_the_lesions_are_seen(demo):
    for name, organs in (("hot", LESIONS[:2]), ("cold", LESIONS[2:])):
        attention = demo.attention[name]
        assert attention.max() == 1
        assert attention.min() >= 0
        truth = sum(demo.scan.organs[organ] for organ in organs)
        seen = RadonOperator(demo.scan.geometry)(truth)
        assert np.corrcoef(attention.ravel(), seen.ravel())[0, 1] > 0.95


def test_noise_follows_the_seed_alone():
    first, again, other = (simulate_scan(1e4, seed).counts for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(("arguments", "name"), [((0,), "n_trues"), ((-1e6,), "n_trues"), ((1e5, -1), "seed"),
                                                 ((np.nan,), "n_trues")])
def test_impossible_settings_are_named(arguments, name):
    with pytest.raises(InputError, match=name):
        simulate_scan(*arguments)


def test_command_writes_a_picture_and_a_record(tmp_path):
    from matplotlib.image import imread

    out = tmp_path / "made" / "here"
    first = CliRunner().invoke(cli, ["demo", "--out", str(out), "--json", "--quiet"])
    assert first.exit_code == 0, first.output
    files = json.loads(first.stdout)["files"]
    assert [name for name in files if name != "generated.png"] == ["demo.png", "demo.json"]
    assert sorted(p.name for p in out.iterdir()) == sorted(files)
    record = json.loads((out / "demo.json").read_text(encoding="utf-8"))
    assert record["counts"]["prompts"] > 5e6
    assert str(tmp_path) not in json.dumps(record)
    picture = imread(out / "demo.png")
    assert min(picture.shape[:2]) > 900
    # The colours of the regions are in it.
    red, blue = picture[..., 0], picture[..., 2]
    assert (red - blue > 0.6).sum() > 1000
    assert (blue - red > 0.5).sum() > 1000

    second = CliRunner().invoke(cli, ["demo", "--out", str(out), "--quiet"])
    assert second.exit_code == 2
    assert "--overwrite" in second.output
