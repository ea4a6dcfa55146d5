"""Tasks in processes and on a dask cluster of two worker processes: workers die, and every result comes once."""

import contextlib
import functools
import os
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

from allpet_physics.cli import cli
from allpet_physics.errors import InputError
from allpet_physics.io import store
from allpet_physics.mask_dataset import make_masks, mask_arrays, mask_parameters
from allpet_physics.masks import DynamicMultiMask
from allpet_physics.parallel import processors, run_tasks

from .shard_tasks import (
    ARRAYS,
    ROOT,
    alive,
    contents,
    die,
    fail_at_three,
    make_ramp,
    make_ramp_dying_once,
    process_and_threads,
    python,
    square,
    square_dying_once,
    wait_for,
)

SQUARES = [x * x for x in range(7)]


@pytest.fixture(scope="module", autouse=True)
def _importable_tasks():
    """Workers get this process's path, and import the tasks by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        yield


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1",
                                  dashboard_address=None) as made:
        yield made


@pytest.mark.parametrize("workers", [1, 2])
def test_every_result_comes_once(workers):
    assert sorted(run_tasks(square, range(7), workers=workers)) == SQUARES
    assert list(run_tasks(square, [], workers=workers)) == []


def test_workers_share_the_processors():
    used = set(run_tasks(process_and_threads, range(6), workers=2))
    assert os.getpid() not in {pid for pid, _ in used}
    assert {threads for _, threads in used} == {max(1, processors() // 2)}


def test_one_worker_is_this_process():
    ((pid, _),) = run_tasks(process_and_threads, [0])
    assert pid == os.getpid()


def test_the_work_of_a_worker_that_dies_is_done_by_another(tmp_path):
    task = functools.partial(square_dying_once, tmp_path / "died")
    assert sorted(run_tasks(task, range(7), workers=2)) == SQUARES
    assert (tmp_path / "died").exists()


def test_workers_that_always_die_end_the_run():
    with pytest.raises(ChildProcessError, match="died 3 times"):
        list(run_tasks(die, range(4), workers=2))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_task_is_raised_here(workers):
    with pytest.raises(OSError, match="No space") as caught:
        list(run_tasks(fail_at_three, range(20), workers=workers))
    assert caught.value.errno == 28


def test_bad_settings_are_refused(monkeypatch):
    with pytest.raises(InputError, match="workers"):
        run_tasks(square, [1], workers=0)
    with pytest.raises(InputError, match="scheduler must be an address"):
        list(run_tasks(square, [1], scheduler="nonsense://x:1"))
    monkeypatch.setattr("allpet_physics.parallel._PATIENCE_S", 1)
    with pytest.raises(ConnectionError, match=r"no dask scheduler answers at tcp://127\.0\.0\.1:1 "):
        list(run_tasks(square, [1], scheduler="tcp://127.0.0.1:1"))
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r'pip install "\.\[scale\]"'):
        list(run_tasks(square, [1], scheduler="tcp://127.0.0.1:1"))


SLOW = """
import functools
from tests.physics.shard_tasks import sleep_long
from allpet_physics.parallel import run_tasks
if __name__ == "__main__":
    list(run_tasks(functools.partial(sleep_long, sys.argv[1]), range(4), workers=2))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_workers_leave_with_their_parent(tmp_path, how):
    parent = subprocess.Popen(python(SLOW, tmp_path), stderr=subprocess.PIPE, start_new_session=True)
    wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
    workers = [int(p.name) for p in tmp_path.iterdir()]
    assert all(alive(pid) for pid in workers)
    if how == signal.SIGINT:
        os.killpg(parent.pid, how)  # as a terminal does
    else:
        parent.kill()
    stderr = parent.communicate(timeout=20)[1].decode()
    wait_for(lambda: not any(alive(pid) for pid in workers))
    if how == signal.SIGINT:
        assert parent.returncode in (130, -signal.SIGINT)
        assert stderr.count("Traceback") == 1, stderr


def test_a_cluster_gives_every_result_once(cluster):
    used = set(run_tasks(process_and_threads, range(6), scheduler=cluster.scheduler_address))
    assert len({pid for pid, _ in used}) == 2
    assert {threads for _, threads in used} == {1}
    assert sorted(run_tasks(square, range(7), scheduler=cluster.scheduler_address)) == SQUARES
    with pytest.raises(OSError, match="No space"):
        list(run_tasks(fail_at_three, range(20), scheduler=cluster.scheduler_address))


def test_a_cluster_fills_a_store_with_the_same_bytes(tmp_path, cluster):
    parameters = mask_parameters(DynamicMultiMask((64, 64), (1, 4), (4, 12), seed=3))
    for name, how in (("local", {}), ("cluster", {"scheduler": cluster.scheduler_address})):
        store.create(tmp_path / name, mask_arrays(parameters), 500, parameters, kind="masks", samples_per_shard=64)
        assert store.fill(tmp_path / name, make_masks, **how)["made"] == 8
    assert contents(tmp_path / "cluster") == contents(tmp_path / "local")
    again = store.fill(tmp_path / "cluster", make_masks, scheduler=cluster.scheduler_address)
    assert again == {"shards": 8, "made": 0, "kept": 8}


def test_the_command_fills_a_store_on_a_cluster(tmp_path, cluster):
    for name, how in (("local", []), ("cluster", ["--scheduler", cluster.scheduler_address])):
        result = CliRunner().invoke(cli, ["masks", "--out", str(tmp_path / name), "--catalogue", "--size", "64",
                                          "--sinograms", "--block", "20", "--stride", "2", *how])
        assert result.exit_code == 0, result.output
    assert contents(tmp_path / "cluster") == contents(tmp_path / "local")


@pytest.mark.parametrize("where", ["cluster", "processes"])
def test_a_store_is_complete_and_identical_though_a_worker_dies(tmp_path, cluster, where):
    how = {"scheduler": cluster.scheduler_address} if where == "cluster" else {"workers": 2}
    made = {}
    for name, make in (("dying", make_ramp_dying_once), ("quiet", make_ramp)):
        parameters = {"slope": 3, "per_shard": 4, "marker": str(tmp_path / "died"), "seconds": 0.05}
        store.create(tmp_path / name, ARRAYS, 30, parameters, kind="ramps", samples_per_shard=4)
        store.fill(tmp_path / name, make, **(how if name == "dying" else {}))
        assert store.verify(tmp_path / name) == []
        made[name] = contents(tmp_path / name)
    assert (tmp_path / "died").exists()
    assert made["dying"] == made["quiet"]


def test_a_cluster_that_does_not_see_the_store_says_so(tmp_path, cluster):
    from allpet_physics.io._store_filling import complete_shard

    task = functools.partial(complete_shard, tmp_path / "elsewhere", make_ramp)
    with (pytest.raises(InputError, match="file system that all workers share"),
          contextlib.closing(run_tasks(task, [0], scheduler=cluster.scheduler_address)) as results):
        next(results)


@pytest.mark.parametrize("address", ["nonsense", "localhost:abc", "foo://127.0.0.1:8786", "tcp://:8786", "tcp://h:99999"])
def test_what_is_no_address_is_refused_at_once(address):
    """In a process of its own: a client made for such an address used to keep the process from ending."""
    code = f"from allpet_physics.parallel import run_tasks\nlist(run_tasks(abs, [1], scheduler={address!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "the scheduler must be an address such as tcp://127.0.0.1:8786" in done.stderr
