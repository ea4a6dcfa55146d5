"""From a store to a trained translation: pairs that are kept, networks that are standardised, trainings that resume."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from allpet_gen.baselines.cyclegan import CycleGANObjective
from allpet_gen.pairs import load_pair_set, save_pair_set
from allpet_gen.settings import read_settings
from allpet_gen.tasks import TASKS
from allpet_gen.training import TrainingSettings, TrainingStopped
from allpet_gen.training_log import read_losses
from allpet_gen.translation_objectives import BridgeObjective, RegressionObjective
from allpet_gen.translation_stages import (
    METHODS,
    new_objective,
    new_scheduler,
    new_translator,
    read_pair_sets,
    train_translation,
)
from allpet_physics.errors import InputError
from allpet_physics.simulation.cohort import cohort_parameters, write_cohort
from allpet_physics.simulation.cohort_reader import read_cohort

from .translation_helpers import batch_of, pair_dataset

SMALL = {"data.per_region": 3, "training.validation": 15, "network.block_out_channels": [16, 16],
         "network.norm_num_groups": 4, "network.token_dim": 8}
SMALL |= {f"training.{method}.{name}": value for method in METHODS
          for name, value in {"steps": 30, "batch": 3, "warmup": 3, "learning_rate": 3e-3, "ema_decay": 0.8}.items()}

pytestmark = pytest.mark.usefixtures("one_thread")


def small(**changes):
    return read_settings("tiny", SMALL | changes, family="translation-")


def made_cohort(path, **changes):
    write_cohort(path, cohort_parameters(6, size=32, n_slices=2, tracers=("FDG", "PSMA"), **{
        "regions": ("head", "chest"), "split": {"train": [0, 1, 2, 3], "validation": [4, 5], "test": []}} | changes))
    return read_cohort(path)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return made_cohort(tmp_path_factory.mktemp("cohort") / "store")


@pytest.fixture(scope="module")
def sets(cohort, tmp_path_factory):
    return read_pair_sets(cohort, small(), tmp_path_factory.mktemp("pairs"))


# Pairs

class Counts:
    """A progress that tells how often pairs were made."""

    made = 0

    def __call__(self, patients):
        self.made += 1
        return patients


def test_pairs_are_made_once_and_again_for_other_settings_or_another_store(cohort, tmp_path, tmp_path_factory):
    progress = Counts()
    first = read_pair_sets(cohort, small(), tmp_path, progress)
    assert progress.made == 2
    again = read_pair_sets(cohort, small(), tmp_path, progress)
    assert progress.made == 2
    assert [len(pairs) for pairs in again] == [len(pairs) for pairs in first] == [6, 2]
    np.testing.assert_array_equal(again[0].counts, first[0].counts)
    fewer = read_pair_sets(cohort, small(**{"data.per_region": 2}), tmp_path, progress)
    assert progress.made == 3  # those for validation are as before
    assert len(fewer[0]) == 4
    other = made_cohort(tmp_path_factory.mktemp("other") / "store", seed=1)
    moved = read_pair_sets(other, small(**{"data.per_region": 2}), tmp_path, progress)
    assert progress.made == 5
    assert not np.array_equal(moved[0].counts, fewer[0].counts)
    np.testing.assert_array_equal(load_pair_set(tmp_path / "pairs-train.npz").counts, moved[0].counts)


def test_pairs_of_an_unknown_store_are_made_again_and_damaged_ones_refused(cohort, sets, tmp_path):
    path = tmp_path / "pairs-train.npz"
    save_pair_set(dataclasses.replace(sets[0], counts=sets[0].counts * 0, origin=""), path)
    found = read_pair_sets(cohort, small(), tmp_path)
    np.testing.assert_array_equal(found[0].counts, sets[0].counts)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"pairs-train.npz' must be a file of pairs, but cannot be read .*delete it"):
        read_pair_sets(cohort, small(), tmp_path)


def test_patients_for_validation_are_others(sets):
    assert not set(sets[0].patients) & set(sets[1].patients)
    assert set(sets[1].patients) == {4, 5}


# Networks and what they minimise

def test_targets_are_standard_for_the_network(sets):
    network = new_translator(sets[0], TASKS, small())
    assert network.tasks == tuple(TASKS)
    batch = batch_of(pair_dataset(sets[0], network, small()["augmentation"]))
    z = network.encode_target(batch["targets"], batch["scale"], batch["used"])
    kept = z[batch["used"].bool().repeat_interleave(4, dim=1)]
    assert kept.mean().item() == pytest.approx(0, abs=0.02)
    assert kept.std().item() == pytest.approx(1, abs=0.02)


def test_weights_follow_from_the_seed(sets):
    first, again = (new_translator(sets[0], ["low-dose"], small()).state_dict() for _ in range(2))
    other = new_translator(sets[0], ["low-dose"], small(**{"training.seed": 1})).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not all(torch.equal(value, other[name]) for name, value in first.items())


def test_the_bridge_is_preconditioned_by_the_pairs(sets):
    network = new_translator(sets[0], TASKS, small())
    scheduler = new_scheduler(network, sets[0], small(**{"bridge.beta_d": 3.0}))
    config = scheduler.config
    assert config.beta_d == 3.0
    assert config.sigma_0 == pytest.approx(1, abs=0.05)
    assert 0.3 < config.covariance / (config.sigma_0 * config.sigma_T) < 1


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_every_method_has_settings_and_an_objective(sets, size):
    settings = read_settings(size, {name: value for name, value in SMALL.items() if name.startswith("network")} | {
        "network.attention_levels": [False, True], "network.patch": 2, "network.attention_head_dim": 2},
        family="translation-")
    kinds = {"bridge": BridgeObjective, "unet": RegressionObjective, "cyclegan": CycleGANObjective}
    assert set(kinds) <= set(METHODS)
    network = new_translator(sets[0], ["low-dose"], settings)
    for method, kind in kinds.items():
        assert TrainingSettings.of(settings["training"], method).steps > 1
        objective = new_objective(method, network, sets[0], settings)
        assert type(objective) is kind
        assert objective.network is network


def test_unknown_methods_and_tasks_are_refused(sets, tmp_path):
    network = new_translator(sets[0], ["low-dose"], small())
    for call in (lambda: new_objective("flow", network, sets[0], small()),
                 lambda: train_translation("flow", sets, ["low-dose"], small(), tmp_path)):
        with pytest.raises(InputError, match=r"method must be one of bridge, unet, .*but was 'flow'"):
            call()
    with pytest.raises(InputError, match="task must be one of low-dose"):
        train_translation("bridge", sets, ["sharpen"], small(), tmp_path)
    assert not list(tmp_path.iterdir())


# Training

def stop_after(n):
    calls = []
    return lambda: calls.append(1) or len(calls) == n


def rows(folder):
    lines = (folder / "losses.csv").read_text().splitlines()
    return [line for line in lines if ",validation," not in line]


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_training_is_the_unbroken_one_bit_for_bit(sets, tmp_path, method):
    tasks, settings = ("low-dose", "tracer-separation"), small(**{f"training.{method}.steps": 8})
    whole = train_translation(method, sets, tasks, settings, tmp_path / "whole")
    with pytest.raises(TrainingStopped):
        train_translation(method, sets, tasks, settings, tmp_path / "broken", stop=stop_after(3))
    broken = train_translation(method, sets, tasks, settings, tmp_path / "broken", resume=True)
    folders = [tmp_path / run / f"{method}-training" for run in ("whole", "broken")]
    assert len(rows(folders[0])) > 8
    assert rows(folders[0]) == rows(folders[1])
    for name, value in whole.state_dict().items():
        assert torch.equal(value, broken.state_dict()[name]), name
    held = [read_losses(folder)["validation"][8] for folder in folders]
    assert held[0] == held[1]
    assert math.isfinite(held[0])


@pytest.mark.parametrize("method", ["bridge", "unet"])
def test_losses_fall_in_thirty_steps(sets, tmp_path, method):
    # From the source itself there is more to learn than in so few steps from the fitted start.
    settings = small(**{"data.start": "source"})
    objective = train_translation(method, sets, ("low-dose", "tracer-separation"), settings, tmp_path)
    losses = list(read_losses(tmp_path / f"{method}-training")["loss"].values())
    assert len(losses) == 30
    assert np.mean(losses[-10:]) < 0.85 * np.mean(losses[:3])
    assert objective.network.tasks == ("low-dose", "tracer-separation")
    assert not objective.training
