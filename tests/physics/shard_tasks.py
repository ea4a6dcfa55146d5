"""Tasks that other processes import by name, and what the tests of stores and of parallel runs share."""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
ARRAYS = {"ramp": ((3, 4), "float32"), "index": ((), "int64")}


def make_ramp(parameters, samples):
    """Values that tell which sample they are; `seconds` makes a shard slow enough to be caught in the middle."""
    time.sleep(parameters.get("seconds", 0))
    ramp = samples[:, None, None] * parameters["slope"] + np.arange(12).reshape(3, 4)
    return {"ramp": ramp.astype(np.float32), "index": samples.astype(np.int64)}


def make_ramp_dying_once(parameters, samples):
    """Die without a word in the first attempt at the third shard; the marker remembers it."""
    if samples[0] == 2 * parameters["per_shard"]:
        die_once(parameters["marker"])
    return make_ramp(parameters, samples)


def make_noise(parameters, samples):
    """Values that do not compress."""
    return {"noise": np.stack([np.random.default_rng(s).random((64, 64)) for s in samples])}


def square(x):
    return x * x


def process_and_threads(x):
    import numba

    time.sleep(0.2)  # so that every worker gets a task
    return os.getpid(), numba.get_num_threads()


def die_once(marker):
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def square_dying_once(marker, x):
    if x == 3:
        die_once(marker)
    return x * x


def die(_):
    os._exit(1)


def fail_at_three(x):
    if x == 3:
        raise OSError(28, "No space left on device")
    return x


def sleep_long(folder, x):
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(60)
    return x


def contents(store):
    """Every file of a store but its log, byte for byte."""
    store = Path(store)
    return {str(p.relative_to(store)): p.read_bytes() for p in sorted(store.rglob("*"))
            if p.is_file() and p.name != "log.jsonl"}


def wait_for(condition, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.01)


def alive(pid):
    """Whether a process runs; one that has ended and waits for its parent to notice does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def python(code, *arguments):
    """The command line of a fresh interpreter with the repository on its path."""
    start = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    return [sys.executable, "-W", "error", "-c", start + code, *map(str, arguments)]
