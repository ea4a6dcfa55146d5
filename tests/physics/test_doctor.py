"""The doctor must find a healthy installation healthy, and a wrong projector wrong."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from allpet_physics import doctor
from allpet_physics.cli import cli
from allpet_physics.radon import RadonOperator


def test_a_right_installation_passes_with_room_to_spare():
    report = doctor.diagnose()
    assert report["healthy"]
    assert all(test["error"] <= test["limit"] / 2 for test in report["self_test"])
    assert report["threads"]["layer"] in ("omp", "tbb", "workqueue")
    assert report["threads"]["numba_threads"] >= 1
    assert report["versions"]["numpy"]


@pytest.mark.parametrize("factor", [1.02, 0.98])
def test_a_projector_with_a_wrong_scale_is_found(monkeypatch, factor):
    apply = RadonOperator._apply
    monkeypatch.setattr(RadonOperator, "_apply", lambda self, x: factor * apply(self, x))
    failed = {test["name"].split()[0] for test in doctor.self_test() if not test["passed"]}
    assert {"strip", "adjoint"} <= failed
    result = CliRunner().invoke(cli, ["doctor", "--json"])
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert (report["healthy"], report["exit_code"]) == (False, 1)


def test_a_crash_in_a_test_is_reported_not_raised(monkeypatch):
    def crash(self, x):
        raise RuntimeError("no threading layer could be loaded")

    monkeypatch.setattr(RadonOperator, "_apply", crash)
    result = CliRunner().invoke(cli, ["doctor"])
    assert result.exit_code == 1
    assert "FAIL" in result.stdout
    assert "no threading layer" in result.stdout


def test_a_missing_extra_comes_with_its_install_command(monkeypatch):
    monkeypatch.setattr(doctor, "EXTRAS", {"a_package_nobody_has": ("testing", "seg")})
    found = doctor.extras()["a_package_nobody_has"]
    assert not found["present"]
    assert found["install"] == 'pip install ".[seg]" in the source folder of allpet'


def test_every_extra_is_listed_with_packages_that_it_brings():
    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    brings = {extra: {re.match(r"[\w-]+", requirement)[0] for requirement in requirements}
              for extra, requirements in project["project"]["optional-dependencies"].items()}
    assert {extra for _, extra in doctor.EXTRAS.values()} == set(brings) - {"all", "test"}
    for module, (_, extra) in doctor.EXTRAS.items():
        assert doctor._DISTRIBUTIONS.get(module, module) in brings[extra]
