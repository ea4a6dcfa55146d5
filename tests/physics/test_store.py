"""Stores: genuine zarr, whole or not counted, the same bytes however often and however they were interrupted."""

import errno
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from allpet_physics.errors import InputError
from allpet_physics.io import store

from .shard_tasks import ARRAYS, ROOT, contents, make_noise, make_ramp, python

PARAMETERS = {"slope": 2, "nested": {"name": "x", "list": [1, 2]}}
N, PER_SHARD = 23, 5


def new(path, parameters=PARAMETERS, n=N, **options):
    return store.create(path, ARRAYS, n, parameters, kind="ramps", samples_per_shard=PER_SHARD, **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("finished") / "s.zarr"
    new(path)
    assert store.fill(path, make_ramp) == {"shards": 5, "made": 5, "kept": 0}
    return path


def check_values(group, n=N, slope=2):
    i = np.arange(n)
    np.testing.assert_array_equal(group["index"][:], i)
    np.testing.assert_array_equal(group["ramp"][:], i[:, None, None] * slope + np.arange(12).reshape(3, 4))


def test_plain_zarr_reads_a_store(finished):
    group = zarr.open(finished, mode="r")
    assert sorted(name for name, _ in group.members()) == ["index", "ramp"]
    assert group["ramp"].metadata.zarr_format == 3
    assert group["ramp"].shards == (PER_SHARD, 3, 4)
    check_values(group)
    assert group.attrs["allpet"] == json.loads((finished / "card.json").read_text())
    check_values({name: zarr.open_array(finished / name, mode="r") for name in ARRAYS})


def test_opening_is_lazy_and_read_only(finished):
    group = store.open_store(finished)
    np.testing.assert_array_equal(group["ramp"][7], 14 + np.arange(12).reshape(3, 4))
    with pytest.raises(ValueError, match="read"):
        group["index"][0] = 1
    assert contents(finished)["manifest.sha256"]


def test_one_sample_is_read_without_its_neighbours(tmp_path):
    """A shard of large samples holds a chunk for each."""
    store.create(tmp_path / "s", {"big": ((600, 600), "float32")}, 4, {}, kind="k", samples_per_shard=4)
    assert zarr.open(tmp_path / "s", mode="r")["big"].chunks == (1, 600, 600)


def test_sha256sum_checks_a_store(finished):
    if shutil.which("sha256sum") is None:
        pytest.skip("no sha256sum here")
    done = subprocess.run(["sha256sum", "--check", "--strict", "manifest.sha256"], cwd=finished, capture_output=True,
                          text=True, check=True)
    assert done.stdout.count(": OK") == len(contents(finished)) - 1


def test_a_store_is_described_before_and_after(tmp_path, finished):
    new(tmp_path / "s")
    empty, full = store.describe(tmp_path / "s"), store.describe(finished)
    assert (empty["shards_done"], empty["complete"], empty["bytes"]) == (0, False, 0)
    assert (full["shards_done"], full["complete"], full["shards"]) == (5, True, 5)
    assert full["bytes_uncompressed"] == N * (12 * 4 + 8)
    assert full["bytes"] == sum(p.stat().st_size for p in finished.glob("*/c/**/*") if p.is_file())
    assert full["parameters"] == PARAMETERS
    assert {problem["problem"] for problem in store.verify(tmp_path / "s")} == {"not done"}
    with pytest.raises(InputError, match="0 of its 5 shards are done"):
        store.open_store(tmp_path / "s")
    assert not store.open_store(tmp_path / "s", incomplete=True)["ramp"][:].any()


@pytest.mark.parametrize("workers", [2, 3])
def test_the_number_of_workers_changes_no_byte(tmp_path, finished, workers, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    new(tmp_path / "s")
    assert store.fill(tmp_path / "s", make_ramp, workers=workers)["made"] == 5
    assert contents(tmp_path / "s") == contents(finished)


KILLED_AT = """
import os
from tests.physics import shard_tasks, test_store
from allpet_physics.io import store
test_store.new(sys.argv[1])
replace, left = os.replace, [int(sys.argv[2])]
def dying(source, target):
    if left[0] == 0 and sys.argv[3] == "before":
        os._exit(9)
    replace(source, target)
    left[0] -= 1
    if left[0] < 0:
        os._exit(9)
os.replace = dying
store.fill(sys.argv[1], shard_tasks.make_ramp)
"""


@pytest.mark.parametrize(("count", "when", "kept"), [(0, "before", 0), (0, "after", 0), (2, "before", 0),
                                                     (2, "after", 1), (15, "before", 5), (15, "after", 5)])
def test_a_run_that_is_killed_between_two_files_is_resumed(tmp_path, finished, count, when, kept):
    """Two arrays and a record per shard are renamed one after the other, then the manifest."""
    path = tmp_path / "s"
    assert subprocess.run(python(KILLED_AT, path, count, when), check=False).returncode == 9
    assert contents(path) != contents(finished)
    new(path, resume=True)
    assert store.fill(path, make_ramp) == {"shards": 5, "made": 5 - kept, "kept": kept}
    assert contents(path) == contents(finished)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_every_damage_to_data_is_found_and_repaired(finished, tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "s"
    shutil.copytree(finished, path)
    files = [name for name in contents(path) if "/c/" in name or name.endswith("zarr.json")]
    chosen = data.draw(st.lists(st.sampled_from(files), unique=True, max_size=4))
    for name in chosen:
        damage(path / name, data.draw)
    found = store.verify(path)
    assert {problem["file"] for problem in found} == set(chosen)
    shards = {int(name.split("/")[2]) for name in chosen if "/c/" in name}
    assert {problem["shard"] for problem in found} - {None} == shards
    new(path, resume=True)
    assert store.fill(path, make_ramp)["made"] == len(shards)
    assert contents(path) == contents(finished)
    assert store.verify(path) == []
    shutil.rmtree(path)


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_damaged_manifest_vouches_for_nothing_wrong(finished, tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "s"
    shutil.copytree(finished, path)
    damage(path / "manifest.sha256", data.draw)
    new(path, resume=True)
    store.fill(path, make_ramp)
    assert contents(path) == contents(finished)
    shutil.rmtree(path)


def damage(file, draw):
    content = file.read_bytes()
    kind = draw(st.sampled_from(["deleted", "flipped", "cut", "empty"]))
    if kind == "deleted":
        file.unlink()
    elif kind == "flipped":
        position = draw(st.integers(0, len(content) - 1))
        changed = bytearray(content)
        changed[position] ^= 1 << draw(st.integers(0, 7))
        file.write_bytes(changed)
    else:
        file.write_bytes(content[:-1] if kind == "cut" else b"")


def test_a_shard_without_a_record_is_made_again(tmp_path, finished):
    """What is on disk is not trusted unless something vouches for it."""
    new(tmp_path / "s")
    target = tmp_path / "s" / "index" / "c" / "1"
    target.parent.mkdir()
    target.write_bytes(b"half a shard")
    store.fill(tmp_path / "s", make_ramp)
    assert contents(tmp_path / "s") == contents(finished)


@pytest.mark.parametrize(("changes", "names"), [
    ({"parameters": {**PARAMETERS, "slope": 3}}, ["slope was 2 and is now 3"]),
    ({"parameters": {**PARAMETERS, "nested": {"name": "y", "list": [1, 2]}}}, ["nested.name was x and is now y"]),
    ({"parameters": {"slope": 2}}, ["nested was", "and is now absent"]),
    ({"n": 24}, ["n_samples was 23 and is now 24"]),
    ({"parameters": {**PARAMETERS, "slope": 2.0}, "n": 4}, ["slope was 2 and is now 2.0", "n_samples"])])
def test_another_configuration_is_refused_by_name(tmp_path, finished, changes, names):
    shutil.copytree(finished, tmp_path / "s")
    with pytest.raises(InputError) as caught:
        new(tmp_path / "s", resume=True, **changes)
    assert all(name in str(caught.value) for name in names)
    assert contents(tmp_path / "s") == contents(finished)


def test_what_is_there_is_not_replaced_unasked(tmp_path, finished):
    shutil.copytree(finished, tmp_path / "s")
    with pytest.raises(InputError, match="exists already"):
        new(tmp_path / "s")
    new(tmp_path / "s", {"slope": 5}, overwrite=True)
    store.fill(tmp_path / "s", make_ramp)
    check_values(store.open_store(tmp_path / "s"), slope=5)
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter1.tex").write_text("precious")
    for options in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(InputError, match=r"card\.json is not there"):
            new(other, **options)
    assert (other / "chapter1.tex").read_text() == "precious"
    (tmp_path / "empty").mkdir()
    new(tmp_path / "empty")
    with pytest.raises(InputError, match="there is none"):
        store.verify(tmp_path / "nowhere")


def test_two_runs_do_not_fill_one_store(tmp_path):
    pytest.importorskip("fcntl")
    new(tmp_path / "s")

    def progress(items, _stage, **_):
        for item in items:
            with pytest.raises(InputError, match="being filled by another run"):
                store.fill(tmp_path / "s", make_ramp)
            yield item

    store.fill(tmp_path / "s", make_ramp, progress=progress)
    assert store.verify(tmp_path / "s") == []


@pytest.mark.parametrize(("arrays", "n", "parameters", "words"), [
    ({}, 1, {}, "at least one array"), ({"a/b": ((2,), "f4")}, 1, {}, "identifier"),
    ({"a": ((0,), "f4")}, 1, {}, "shape of a"), ({"a": ((2,), "U3")}, 1, {}, "dtype of a"),
    ({"a": ((2,), "f4")}, 0, {}, "n_samples"), ({"a": ((2,), "f4")}, 1, {"x": np.nan}, "plain, finite"),
    ({"a": ((2,), "f4")}, 1, {"x": np.ones(2)}, "plain, finite")])
def test_bad_descriptions_are_refused(tmp_path, arrays, n, parameters, words):
    with pytest.raises(InputError, match=words):
        store.create(tmp_path / "s", arrays, n, parameters, kind="k")
    assert not list(tmp_path.iterdir())


def test_a_task_that_breaks_its_promise_leaves_no_shard(tmp_path):
    store.create(tmp_path / "s", {"index": ((), "int32")}, 3, {"slope": 1}, kind="k")
    with pytest.raises(TypeError, match="the samples must be"):
        store.fill(tmp_path / "s", make_ramp)
    assert store.describe(tmp_path / "s")["shards_done"] == 0


def test_without_zarr_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(InputError, match=r'pip install "\.\[scale\]"'):
        new(tmp_path / "s")


def noise_store(path, **options):
    store.create(path, {"noise": ((64, 64), "float64")}, 8, {}, kind="noise", samples_per_shard=2, **options)


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    path = tmp_path_factory.mktemp("noise") / "s"
    noise_store(path)
    store.fill(path, make_noise)
    return path


def fills_up(path, whole, make_room):
    """A shard of noise takes 64 kB; 150 kB hold the layout and the first ones."""
    with pytest.raises(OSError, match="the disk is full") as caught:
        store.fill(path, make_noise)
    assert caught.value.errno in (errno.ENOSPC, errno.EFBIG)
    done = store.describe(path)["shards_done"]
    assert f"{done} of 4 shards are done and kept" in str(caught.value)
    assert not (path / ".partial").exists()
    make_room()
    noise_store(path, resume=True)
    assert store.fill(path, make_noise)["kept"] == done
    assert contents(path) == contents(whole)
    return done


def test_a_full_disk_is_one_sentence_and_costs_nothing(tmp_path, noise):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=150k", "tmpfs", str(disk)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(mount, check=False,
                                                                      capture_output=True).returncode:
        pytest.skip("a small disk can be mounted by root on Linux only")
    try:
        noise_store(disk / "s")
        done = fills_up(disk / "s", noise, lambda: subprocess.run(
            ["mount", "-o", "remount,size=4m", str(disk)], check=True))
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert 0 < done < 4


def test_a_limit_on_file_size_is_a_full_disk(tmp_path, noise):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise_store(tmp_path / "s")
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, before[1]))
    try:
        fills_up(tmp_path / "s", noise, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
