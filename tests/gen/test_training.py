"""The training loop: kills, resumption, processes, precision, adversaries, losses that are not finite."""

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from allpet_gen import checkpoints
from allpet_gen.training import Averages, TrainingError, TrainingSettings, TrainingStopped, train
from allpet_gen.training_log import read_losses
from allpet_physics.errors import InputError

from .training_helpers import Fit, Latents, Points, autoencoder_objective, denoiser_objective, tiny_composites
from .training_helpers import loss_lines as losses

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).resolve().parents[2]
HOW = {"steps": 12, "batch": 4, "learning_rate": 1e-2, "warmup": 3}


def stop_after(n):
    calls = []
    return lambda: calls.append(1) or len(calls) == n


def flip_a_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def begun(out, stops=(4, 4), **changes):
    """Train to step 8 in two runs, so that two checkpoints exist: after steps 4 and 8."""
    how = TrainingSettings(**HOW | changes)
    for n in stops:
        with pytest.raises(TrainingStopped):
            train(Fit(), Points(), how, out, resume=True, stop=stop_after(n))
    return how


@pytest.mark.parametrize("changes", [{}, {"accumulation": 3}, {"schedule": "constant", "precision": "bf16"}])
def test_a_resumed_training_is_the_unbroken_one_bit_for_bit(tmp_path, changes):
    how = TrainingSettings(**HOW | changes)
    whole = train(Fit(), Points(), how, tmp_path / "whole", validation=Points())
    begun(tmp_path / "broken", **changes)
    broken = train(Fit(seed=9), Points(), how, tmp_path / "broken", validation=Points(), resume=True)
    assert losses(tmp_path / "broken") == losses(tmp_path / "whole")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, broken.state_dict()[name]), name
    held = [read_losses(tmp_path / run)["validation"][12] for run in ("whole", "broken")]
    assert held[0] == held[1]


def test_what_worker_processes_make_is_the_same(tmp_path):
    settings, data, composites = tiny_composites()
    for workers in (0, 1):
        how = TrainingSettings(steps=3, batch=2, learning_rate=1e-3, workers=workers)
        train(autoencoder_objective(settings, data), composites, how, tmp_path / str(workers))
    assert losses(tmp_path / "0") == losses(tmp_path / "1")


class ChangesThreads(Points):
    """Its items do what numba does when it starts."""

    def __getitem__(self, key):
        torch.set_num_threads(2)
        return super().__getitem__(key)


def test_the_threads_of_the_networks_are_those_it_was_begun_with(tmp_path):
    seen = []

    class Notes(Fit):
        def forward(self, *arguments):
            seen.append(torch.get_num_threads())
            return super().forward(*arguments)

    train(Notes(), ChangesThreads(), TrainingSettings(**HOW), tmp_path)
    assert set(seen) == {1}


KILLED = """
import sys, time, torch
from pathlib import Path
from tests.gen.training_helpers import Fit, Points
from allpet_gen.training import TrainingSettings, train
torch.set_num_threads(1)
how = TrainingSettings(steps=100000, batch=4, learning_rate=1e-2, checkpoint_minutes=0.0)
train(Fit(), Points(), how, Path(sys.argv[1]))
"""


def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", KILLED, tmp_path], cwd=ROOT, stderr=subprocess.DEVNULL)
    began = time.monotonic()
    while checkpoints.latest_checkpoint(tmp_path) is None and time.monotonic() - began < 120:
        time.sleep(0.02)
    began, states = time.monotonic(), 0
    while time.monotonic() - began < 60 and states < 25:  # stopped at moments that have nothing to do with its writing
        time.sleep(0.011)
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        checkpoints.verify_checkpoint(checkpoints.latest_checkpoint(tmp_path))
        states += 1
        process.send_signal(signal.SIGCONT)
    process.kill()
    process.wait()
    assert states == 25
    (tmp_path / "checkpoints" / ".partial-99999999").mkdir(exist_ok=True)
    last = checkpoints.last_good_checkpoint(tmp_path)
    done = checkpoints.read_card(last)["step"]
    how = TrainingSettings(steps=100000, batch=4, learning_rate=1e-2, checkpoint_minutes=0.0)
    with pytest.raises(TrainingStopped, match=str(done + 2)):
        train(Fit(), Points(), how, tmp_path, resume=True, stop=stop_after(2))
    assert len(read_losses(tmp_path)["loss"]) == done + 2
    assert not list((tmp_path / "checkpoints").glob(".partial-*"))
    assert len(checkpoints.checkpoints(tmp_path)) == checkpoints.KEPT


@pytest.mark.parametrize("damage", ["cut", "flip", "card", "gone"])
@pytest.mark.parametrize("name", ["weights.safetensors", "optimisers.pt"])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(tmp_path, damage, name):
    how = begun(tmp_path)
    last = checkpoints.latest_checkpoint(tmp_path)
    assert last.name == "step-00000008"
    if damage == "cut":
        (last / name).write_bytes((last / name).read_bytes()[:-9])
    elif damage == "flip":
        flip_a_byte(last / name)
    elif damage == "card":
        (last / "card.json").write_text('{"format": 1')
    else:
        (last / name).unlink()
    with pytest.warns(UserWarning, match=r"step-00000008.*damaged-00000008.*goes on from step-00000004"):
        train(Fit(), Points(), how, tmp_path, resume=True)
    train(Fit(), Points(), how, tmp_path / "whole")
    assert losses(tmp_path) == losses(tmp_path / "whole")
    assert [folder.name for folder in checkpoints.checkpoints(tmp_path)] == ["step-00000004", "step-00000012"]


def test_where_all_checkpoints_are_damaged_it_says_so(tmp_path):
    how = begun(tmp_path)
    for folder in checkpoints.checkpoints(tmp_path):
        flip_a_byte(folder / "averages.safetensors")
    with pytest.raises(InputError, match="none of its 2 is") as raised:
        train(Fit(), Points(), how, tmp_path, resume=True)
    said = str(raised.value)
    assert "step-00000008 is damaged: averages.safetensors does not hold what was written" in said
    assert "before" not in said  # there is none
    assert said.count(";") == 1
    shutil.rmtree(tmp_path / "checkpoints")  # as it says
    train(Fit(), Points(), how, tmp_path, resume=True)
    train(Fit(), Points(), how, tmp_path / "whole")
    assert losses(tmp_path) == losses(tmp_path / "whole")


@pytest.mark.parametrize("part", ["format", "step", "settings", "bytes"])
def test_a_card_that_lacks_a_part_is_a_damaged_checkpoint(tmp_path, part):
    begun(tmp_path)
    last = checkpoints.latest_checkpoint(tmp_path)
    card = json.loads((last / "card.json").read_text())
    del card[part]
    (last / "card.json").write_text(json.dumps(card))
    with pytest.raises(checkpoints.DamagedCheckpoint, match=r"step-00000008 .*card\.json.*delete the folder, and"):
        checkpoints.read_card(last)
    with pytest.warns(UserWarning, match=r"card\.json.*; it is kept as damaged-00000008, .* goes on from"):
        assert checkpoints.last_good_checkpoint(tmp_path).name == "step-00000004"


def test_a_checkpoint_of_before_digests_is_still_read(tmp_path):
    how = begun(tmp_path)
    for folder in checkpoints.checkpoints(tmp_path):
        card = json.loads((folder / "card.json").read_text())
        card = {name: card[name] for name in ("format", "step", "settings", "bytes")}
        (folder / "card.json").write_text(json.dumps(card))
    train(Fit(), Points(), how, tmp_path, resume=True)
    assert len(read_losses(tmp_path)["loss"]) == 12


def test_other_settings_are_refused_but_a_rate_may_be_changed_with_a_warning(tmp_path):
    begun(tmp_path)
    for change in ({"batch": 2}, {"steps": 13}, {"seed": 1}):
        with pytest.raises(InputError, match=next(iter(change))):
            train(Fit(), Points(), TrainingSettings(**HOW | change), tmp_path, resume=True)
    with pytest.warns(UserWarning, match="learning_rate was 0.01 and is 0.001.*no longer"):
        train(Fit(), Points(), TrainingSettings(**HOW | {"learning_rate": 1e-3}), tmp_path, resume=True)


def test_a_training_of_constant_rate_may_be_prolonged(tmp_path):
    how = HOW | {"schedule": "constant"}
    train(Fit(), Points(), TrainingSettings(**how), tmp_path / "a")
    train(Fit(), Points(), TrainingSettings(**how | {"steps": 15}), tmp_path / "a", resume=True)
    train(Fit(), Points(), TrainingSettings(**how | {"steps": 15}), tmp_path / "b")
    assert losses(tmp_path / "a") == losses(tmp_path / "b")


def test_a_folder_with_a_training_is_not_begun_again(tmp_path):
    how = begun(tmp_path)
    with pytest.raises(InputError, match="step-00000008; resume it"):
        train(Fit(), Points(), how, tmp_path)


class Diverges(Fit):
    """A loss, or only its gradient, that is not finite at the sixth step."""

    def __init__(self, of):
        super().__init__()
        self.of, self.calls = of, 0

    def forward(self, batch, generator, part="model"):
        loss, terms = super().forward(batch, generator, part)
        self.calls += 1
        if self.calls == 6:
            # The root of zero has an infinite slope.
            loss = loss * float("nan") if self.of == "loss" else loss + (loss - loss).sqrt()
        return loss, terms


@pytest.mark.parametrize("of", ["loss", "norm"])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path, of):
    how = TrainingSettings(**HOW)
    with pytest.raises(TrainingStopped):
        train(Fit(), Points(), how, tmp_path, stop=stop_after(2))
    with pytest.raises(TrainingError, match=rf"at step 8 these were not: .*{of}.*step-00000002; resume"):
        train(Diverges(of), Points(), how, tmp_path, resume=True)
    assert checkpoints.verify_checkpoint(checkpoints.latest_checkpoint(tmp_path))["step"] == 2
    assert set(read_losses(tmp_path)["loss"]) == set(range(1, 8))


def test_accumulated_passes_are_one_batch(tmp_path):
    """Without noise, three passes of 4 give the weights of one pass of 12."""
    found = []
    for name, batch, accumulation in (("one", 12, 1), ("three", 4, 3)):
        how = TrainingSettings(steps=10, batch=batch, accumulation=accumulation, learning_rate=1e-2)
        found.append(train(Fit(noise=0.0), Points(), how, tmp_path / name).state_dict())
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-4, atol=1e-6)


def test_the_average_lags_behind_the_weights_and_forgets_their_start():
    net = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        net.weight.fill_(1.0)
        averages = Averages(net, decay=0.9)
        net.weight.fill_(3.0)
        seen = []
        for step in range(200):
            averages.update(net, step)
            seen.append(float(averages.weights["weight"]))
    assert 1 < seen[0] < seen[1] < seen[2] < 3
    assert seen[-1] == pytest.approx(3, abs=1e-6)


def test_what_is_returned_is_the_average_which_lags_more_than_a_step(tmp_path):
    objective, seen = Fit(), []

    def report(*_):
        seen.append(objective.net[0].weight.detach().clone())

    how = TrainingSettings(steps=20, batch=4, learning_rate=1e-2, schedule="constant")
    averaged = train(objective, Points(), how, tmp_path, report=report).net[0].weight
    lag, step = (seen[-1] - averaged).norm(), (seen[-1] - seen[-2]).norm()
    assert step < lag < (seen[-1] - seen[0]).norm()


def test_rates_rise_fall_and_stay():
    cosine = TrainingSettings(steps=100, batch=1, learning_rate=1.0, warmup=10)
    rates = [cosine.rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert all(a >= b for a, b in itertools.pairwise(rates[9:]))
    assert 0 < rates[-1] < 0.02
    constant = TrainingSettings(steps=100, batch=1, learning_rate=1.0, warmup=10, schedule="constant")
    assert {constant.rate(step) for step in range(10, 100)} == {1.0}


@pytest.mark.parametrize(("name", "value"), [("steps", 0), ("batch", 0), ("accumulation", 0), ("learning_rate", 0.0),
                                             ("learning_rate", float("nan")), ("clip", -1.0), ("ema_decay", 1.0),
                                             ("precision", "fp8"), ("schedule", "linear"), ("seed", -1),
                                             ("workers", -1)])
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(InputError, match=f"{name}.*must be.*but was"):
        TrainingSettings(**HOW | {name: value})


def test_float16_without_a_gpu_is_refused(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InputError, match='must be "bf16" or "no" without a GPU'):
        train(Fit(), Points(), TrainingSettings(**HOW | {"precision": "fp16"}), tmp_path)


def test_the_networks_learn_with_checkpointing_as_without(tmp_path):
    """Both objectives; gradient checkpointing computes again what it did not keep, so losses are the same."""
    settings, data, composites = tiny_composites()
    for objective, dataset, name in ((autoencoder_objective, composites, "a"), (denoiser_objective, Latents(), "d")):
        for checkpointing in (False, True):
            how = TrainingSettings(steps=8, batch=4, learning_rate=3e-3, gradient_checkpointing=checkpointing)
            arguments = (settings, data) if name == "a" else (settings,)
            train(objective(*arguments), dataset, how, tmp_path / f"{name}{checkpointing}")
        first, second = (list(read_losses(tmp_path / f"{name}{c}")["loss"].values()) for c in (False, True))
        assert first == pytest.approx(second, rel=1e-5)
        assert first[-1] < first[0]


def test_an_adversarial_term_trains_both_parts_and_resumes(tmp_path):
    settings, data, composites = tiny_composites(**{"autoencoder_loss.adversarial": 0.5})
    how = TrainingSettings(steps=4, batch=2, learning_rate=1e-3, accumulation=2)

    def run(out, **options):
        objective = autoencoder_objective(settings, data)
        start = {name: value.clone() for name, value in objective.named_parameters()}
        return objective, start, lambda: train(objective, composites, how, out, **options)

    objective, start, go = run(tmp_path / "whole", validation=composites)
    go()
    for part in ("autoencoder", "discriminator"):
        assert any(not torch.equal(value, start[name]) for name, value in objective.named_parameters()
                   if name.startswith(part)), part
    assert all(parameter.requires_grad for parameter in objective.parameters())
    assert {"loss_discriminator", "norm_discriminator", "adversarial"} <= set(read_losses(tmp_path / "whole"))
    with pytest.raises(TrainingStopped):
        run(tmp_path / "broken", stop=stop_after(2))[2]()
    run(tmp_path / "broken", resume=True)[2]()
    assert losses(tmp_path / "broken") == losses(tmp_path / "whole")


def test_tensorboard_has_every_loss(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):
        how = begun(tmp_path, stops=[4])
        time.sleep(1.1)  # TensorBoard reads files in the order of the seconds in their names
    train(Fit(), Points(), how, tmp_path, resume=True)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    found = {event.step: event.value for event in events.Scalars("loss")}
    assert found == pytest.approx(read_losses(tmp_path)["loss"], rel=1e-6)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Two processes on this machine's CPU train together, as under ``torchrun``."""
    out = tmp_path_factory.mktemp("shared")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(2):
        environment = os.environ | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
                                    "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                                    "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        processes.append(subprocess.Popen([sys.executable, "-m", "tests.gen.shared_training", str(out)], cwd=ROOT,
                                          env=environment, stderr=subprocess.PIPE, text=True))
    try:
        for process in processes:
            _, errors = process.communicate(timeout=180)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
    return out


def test_two_processes_are_one_of_twice_the_batch(shared, tmp_path):
    first, second = (torch.load(shared / f"fit-{rank}.pt") for rank in range(2))
    how = TrainingSettings(steps=6, batch=6, learning_rate=1e-2, accumulation=2)
    alone = train(Fit(noise=0.0, seed=0), Points(), how, tmp_path, validation=Points()).state_dict()
    for name, value in alone.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-6)
    assert list(read_losses(shared / "fit")["loss"].values()) == pytest.approx(
        list(read_losses(tmp_path)["loss"].values()), rel=1e-4)


def test_both_networks_train_in_two_processes(shared):
    for name in ("autoencoder", "denoiser"):
        assert set(read_losses(shared / name)["loss"]) == {1, 2}


def test_processes_stop_together(shared):
    """Though one alone was asked to stop, and one alone had a loss that is not finite."""
    for rank in range(2):
        said = json.loads((shared / f"said-{rank}.json").read_text())
        assert said["stopped"] == 1
        assert "must stay finite, but at step 2" in said["diverged"]


def test_another_number_of_processes_is_refused(shared, tmp_path):
    shutil.copytree(shared / "stopped", tmp_path / "stopped")
    how = TrainingSettings(steps=6, batch=3, learning_rate=1e-2, accumulation=2)
    with pytest.raises(InputError, match="as many processes as it was begun with, 2, but has 1"):
        train(Fit(seed=0), Points(), how, tmp_path / "stopped", resume=True)
