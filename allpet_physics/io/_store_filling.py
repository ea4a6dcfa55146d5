"""Filling a store: one task per shard, in any number of processes, and what holds when a run ends in any way."""

import contextlib
import errno
import functools
import json
import platform
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np

from allpet_physics.errors import InputError
from allpet_physics.io import _shards
from allpet_physics.io._card import layout_files, n_shards, read_card, shard_files, shard_samples

LOG = "log.jsonl"
_FULL_DISK = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}

#: Compiled loops use threads of their own, and not every threading layer of numba bears two callers at once.
_one_at_a_time = threading.Lock()


def fill(path, make: Callable[[dict, np.ndarray], Mapping[str, np.ndarray]], *, workers: int = 1,
         scheduler: str | None = None, progress: Callable | None = None) -> dict:
    """Compute the shards that a store lacks, or that are damaged, in this process, in several, or on a dask cluster.

    Parameters
    ----------
    path : path-like
        A store that `create` made. A cluster's workers must see it under this path.
    make : callable
        ``make(parameters, samples)`` returns the arrays of some samples (int64, shape (n,)) by name, each of shape
        ``(n, *shape)`` and of the dtype that the card says. It must be a function at the top of a module, and depend
        on its arguments alone.
    workers : int
        Local processes; 1 computes in this process.
    scheduler : str, optional
        The address of a dask scheduler, such as "tcp://127.0.0.1:8786", instead of local processes.
    progress : callable, optional
        ``progress(items, stage, total=..., unit=...)`` yields from `items`.

    Returns
    -------
    dict
        "shards", and how many of them were "made" and how many "kept".

    Raises
    ------
    InputError
        What `make` raises; another run is filling this store; an unknown scheduler address.
    OSError
        A full disk, a cluster that cannot be reached, workers that die again and again. What was finished is kept, and
        the next call goes on from there.
    """
    from allpet_physics.parallel import run_tasks

    path = Path(path).absolute()
    card = read_card(path)
    total = n_shards(card)
    progress = progress or (lambda items, _stage, **_: items)
    report = {"shards": total, "made": 0, "kept": 0}
    with _logged(path, {"workers": workers, "scheduler": scheduler}, report):
        for folder in (_shards.RECORDS, _shards.PARTIAL):
            (path / folder).mkdir(exist_ok=True)
        tasks = run_tasks(functools.partial(complete_shard, path, make), range(total), workers=workers,
                          scheduler=scheduler)
        with contextlib.closing(tasks):
            for made in progress(tasks, "writing shards", total=total, unit="shard"):
                report["made" if made else "kept"] += 1
        _finish(path, card)
    return report


def complete_shard(path: Path, make: Callable, index: int) -> bool:
    """Make one shard of every array unless it is there and whole; tell whether it was made. The task of `fill`."""
    if not path.is_dir():
        raise InputError(f"the worker on {platform.node()} sees no store at {path}; put it on a file system that all "
                         "workers share.")
    card = read_card(path)
    names = shard_files(card, index)
    record = _shards.read_digests(path / _shards.record_name(index))
    vouched = record if set(record) == set(names) else _shards.read_digests(path / _shards.MANIFEST)
    if all(name in vouched and _shards.file_digest(path / name) == vouched[name] for name in names):
        return False
    samples = np.array(shard_samples(card, index), np.int64)
    with _one_at_a_time:
        made = make(card["parameters"], samples)
    _check_made(card, made, len(samples))
    digests = {file: _shards.write_file(path, file, _shards.encode_shard(made[name], card["samples_per_shard"]))
               for name, file in zip(card["arrays"], names, strict=True)}
    _shards.write_file(path, _shards.record_name(index), _shards.digest_lines(digests))
    return True


def _check_made(card: Mapping, made: Mapping, n: int) -> None:
    """Raise TypeError, for it is no user's mistake, when a task made other arrays than the card promises."""
    wanted = {name: ((n, *array["shape"]), array["dtype"]) for name, array in card["arrays"].items()}
    found = {name: (np.shape(data), np.asarray(data).dtype.name) for name, data in made.items()}
    if found != wanted:
        raise TypeError(f"the samples must be {wanted}, but were {found}")


def _finish(path: Path, card: Mapping) -> None:
    """Put the digests of all files into the manifest; then the records have done their duty."""
    vouched = _shards.recorded(path)
    digests = {file: _shards.file_digest(path / file) for file in layout_files(card)}
    digests |= {file: vouched[file] for index in range(n_shards(card)) for file in shard_files(card, index)}
    _shards.write_file(path, _shards.MANIFEST, _shards.digest_lines(digests))
    shutil.rmtree(path / _shards.RECORDS)


@contextlib.contextmanager
def _logged(path: Path, facts: dict, report: dict):
    """Hold the store's log, so that no second run fills it at once; write how it began and ended; leave no rubbish."""
    from allpet_physics._record import versions

    start = time.monotonic()
    with (path / LOG).open("a", encoding="utf-8") as log:
        _lock(log, path)

        def say(event: str, **more):
            # The disk may be full: the log must not hide that.
            with contextlib.suppress(OSError):
                log.write(json.dumps({"event": event, "at": datetime.now(UTC).isoformat(timespec="seconds"), **more})
                          + "\n")
                log.flush()

        shutil.rmtree(path / _shards.PARTIAL, ignore_errors=True)
        say("begun", machine=platform.node(), system=platform.platform(), versions=versions() | _codec_versions(),
            **facts)
        try:
            yield
        except BaseException as error:
            say("interrupted" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed",
                error=type(error).__name__, seconds=round(time.monotonic() - start, 3), **report)
            if isinstance(error, OSError) and error.errno in _FULL_DISK:
                done = report["made"] + report["kept"]
                raise OSError(error.errno, f"the disk is full ({error.strerror}): {done} of {report['shards']} shards "
                              "are done and kept; make room and go on with --resume", str(path)) from error
            raise
        finally:
            shutil.rmtree(path / _shards.PARTIAL, ignore_errors=True)
        say("complete", seconds=round(time.monotonic() - start, 3), **report)


def _lock(log, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: a second run would only do the same work twice
        return
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"{path.name} is being filled by another run; wait for it, or stop it.") from None
    except OSError:  # a file system without locks
        return


def _codec_versions() -> dict[str, str]:
    """Return the versions that may change how the same data are compressed."""
    return {name: metadata.version(name) for name in ("zarr", "numcodecs")}
