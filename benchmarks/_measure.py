"""What every benchmark shares: interleaved timing, the machine, the printed report and its JSON."""

import argparse
import datetime
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

# The source tree beside the benchmarks is measured, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _record import write_record

#: The image size for which the claims are stated.
CLAIMED_SIZE = 512

#: Fast calls are repeated within a round for this long, and at most so often, so that their median means something.
_BURST_S, _BURST_CALLS = 0.3, 100

#: Share of a core in the hands of other processes beyond which threads wait for each other and times mean little.
_BUSY = 0.15

_PACKAGES = ("allpet", "numpy", "scipy", "numba", "astra-toolbox", "scikit-image")


@dataclass(frozen=True)
class Timing:
    """Seconds per call: median, fastest and slowest of a number of calls."""

    median: float
    fastest: float
    slowest: float
    calls: int

    @classmethod
    def of(cls, seconds, divisor: float = 1.0) -> "Timing":
        """Return the timing of calls, each divided by the number of items that it handled."""
        s = np.asarray(seconds) / divisor
        return cls(float(np.median(s)), float(s.min()), float(s.max()), s.size)


def parse(description: str, argv=None, *, repeats: int, extra: Callable | None = None) -> argparse.Namespace:
    """Return the arguments that all benchmarks take, and those that `extra(parser)` adds."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--size", type=_at_least(16), default=CLAIMED_SIZE,
                        help="rows, columns, angles and bins (default %(default)s; the claims are stated for that)")
    parser.add_argument("--repeats", type=_at_least(1), default=repeats, help="rounds (default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.add_argument("--libparallelproj", type=Path, metavar="PATH",
                        help="the shared library, version 1 or 2, to be measured where it is a peer")
    if extra is not None:
        extra(parser)
    arguments = parser.parse_args(argv)
    arguments.started = _processor_seconds()
    return arguments


def _at_least(low: int):
    def convert(text):
        value = int(text)
        if value < low:
            raise argparse.ArgumentTypeError(f"must be at least {low}, but was {value}")
        return value
    convert.__name__ = "integer"
    return convert


def standard_geometry(size: int):
    """Return the square geometry of the claims: as many angles and bins as rows, over 180 degrees."""
    from allpet_physics import ParallelGeometry

    mm = 666.0 / size
    return ParallelGeometry(n_angles=size, n_bins=size, bin_mm=mm, image_shape=(size, size), pixel_mm=mm)


def interleave(contenders: dict[str, Callable], repeats: int,
               items: dict[str, float] | None = None) -> tuple[dict[str, Timing], dict[str, object]]:
    """Time functions in turns, so that noise of the machine hits all of them.

    Each round calls every contender, in forward order and in backward order by turns; a fast one is called several
    times in its turn. One call each comes first and is not timed: it compiles, and its result is returned.

    Parameters
    ----------
    contenders : dict of name to function without arguments
        None stands for a peer that is not there, and is left out.
    repeats : int
        Number of rounds.
    items : dict of name to float, optional
        What a contender's time is divided by, such as its number of slices.

    Returns
    -------
    timings, results : dict of name to Timing, dict of name to what the function returned
    """
    contenders = {name: call for name, call in contenders.items() if call is not None}
    results = {name: call() for name, call in contenders.items()}
    seconds = {name: [] for name in contenders}
    for turn in range(repeats):
        for name, call in list(contenders.items())[::1 if turn % 2 == 0 else -1]:
            start = time.perf_counter()
            for _ in range(_BURST_CALLS):
                before = time.perf_counter()
                call()
                now = time.perf_counter()
                seconds[name].append(now - before)
                if now - start > _BURST_S:
                    break
    return {name: Timing.of(s, (items or {}).get(name, 1.0)) for name, s in seconds.items()}, results


def faster_than(what: str, ours: Timing, peers: dict[str, Timing], at_least: float | None = None, *, size: int,
                also: dict[str, Timing] | None = None) -> dict:
    """Return a row of the report: how many times faster than the best of the peers, and what is claimed.

    The claim is judged at the claimed size alone. `also` holds timings that are shown but not compared.
    """
    best = min(peers, key=lambda name: peers[name].median, default=None)
    ratio = peers[best].median / ours.median if best else None
    fastest = peers[best].fastest / ours.fastest if best else None
    return _row(what, ours, peers, also, best, ratio, fastest, "×", at_least, True, size)


def within(what: str, ours: Timing, floors: dict[str, Timing], at_most: float | None = None, *, size: int,
           also: dict[str, Timing] | None = None) -> dict:
    """Return a row: how many times the least time that the memory needs (the first floor)."""
    first = next(iter(floors))
    ratio, fastest = ours.median / floors[first].median, ours.fastest / floors[first].fastest
    return _row(what, ours, floors, also, first, ratio, fastest, "×", at_most, False, size)


def no_longer_than(what: str, ours: Timing, seconds: float, *, size: int) -> dict:
    """Return a row: a time against a limit in seconds."""
    return _row(what, ours, {}, None, None, ours.median, ours.fastest, "s", seconds, False, size)


def _row(what, ours, others, also, against, figure, figure_of_fastest, unit, limit, more_is_better, size):
    judged = limit is not None and figure is not None and size == CLAIMED_SIZE
    return {
        "what": what, "ours": asdict(ours), "others": {name: asdict(t) for name, t in others.items()},
        "also": {name: asdict(t) for name, t in (also or {}).items()}, "against": against, "figure": figure,
        "figure_of_fastest": figure_of_fastest, "unit": unit, "limit": limit, "more_is_better": more_is_better,
        "met": bool(figure >= limit if more_is_better else figure <= limit) if judged else None,
    }


def report(script: str, title: str, rows: list[dict], arguments: argparse.Namespace, *, remarks=(), **more) -> dict:
    """Print the rows with the machine and its memory's speed, write them as JSON where asked, and return all."""
    record = {"script": Path(script).stem, "title": title, "size": arguments.size, "repeats": arguments.repeats,
              "machine": machine(), "others": others_share(arguments.started),
              "memory": memory_speed(256 if arguments.size >= CLAIMED_SIZE else 16), "rows": rows,
              "remarks": list(remarks), **more}
    m = record["machine"]
    print(f"\n{title}")
    print(f"{m['cpu']}, {m['cores']} cores, {m['threads']} threads, {m['system']}, Python {m['python']}; "
          + ", ".join(f"{name} {version}" for name, version in m["versions"].items()))
    print(f"{show_memory(record)}; load {m['load']:.2f}, {show_others(record)}")
    for row in rows:
        print(f"  {row['what']}")
        for name, t in {"allpet": row["ours"], **row["also"], **row["others"]}.items():
            print(f"    {name:34s} {show_time(t['median']):>9s}   {show_time(t['fastest'])} to "
                  f"{show_time(t['slowest'])}, {t['calls']} calls")
        print(f"    {verdict(row)}")
    for remark in remarks:
        print(f"  {remark}")
    write_record(arguments.json, record)
    return record


def verdict(row: dict) -> str:
    """Return the sentence that compares a row with its claim."""
    if row["figure"] is None:
        return "no peer to compare with"
    text = f"{show_figure(row['figure'], row['unit'])}"
    if row["against"]:
        text += f" {'faster than' if row['more_is_better'] else 'the time of'} {row['against']}"
        text += f" (fastest against fastest {show_figure(row['figure_of_fastest'], row['unit'])})"
    if row["limit"] is not None:
        text += f"; claimed: {claim(row)}"
        text += {True: ", met", False: ", NOT MET", None: f", judged at --size {CLAIMED_SIZE} only"}[row["met"]]
    return text


def claim(row: dict) -> str:
    """Return what is claimed, such as "≥ 8 ×"."""
    return f"{'≥' if row['more_is_better'] else '≤'} {row['limit']:,.10g} {row['unit']}"


def show_figure(value: float, unit: str) -> str:
    """Return a number with three digits and its unit."""
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def show_time(seconds: float) -> str:
    """Return a time with three digits in µs, ms or s."""
    for factor, unit in ((1e6, "µs"), (1e3, "ms"), (1.0, "s")):
        if seconds * factor < 999.5 or unit == "s":
            return f"{seconds * factor:.3g} {unit}" if seconds * factor < 100 else f"{seconds * factor:.0f} {unit}"
    raise AssertionError


def show_memory(record: dict) -> str:
    """Return the memory's speed in words."""
    return "memory, one thread: " + ", ".join(f"{name} {speed:.0f} GB/s" for name, speed in record["memory"].items())


def show_others(record: dict) -> str:
    """Return in words how much other processes took, with a warning where that was enough to spoil the figures."""
    if record["others"] is None:
        return "other processes: unknown"
    warning = ": too much, run again on a quiet machine" if record["others"] > _BUSY else ""
    return f"other processes used {record['others']:.0%} of one core{warning}"


def _processor_seconds() -> tuple[float, float, float] | None:
    """Return wall time, the time that all processes have used and what this one has, in s; None if unknown."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return None
    user, nice, system, _, _, *interrupts = (int(field) for field in fields[:8])
    ticks = user + nice + system + sum(interrupts)
    return time.perf_counter(), ticks / os.sysconf("SC_CLK_TCK"), time.process_time()


def others_share(started) -> float | None:
    """Return the cores that processes other than this one kept busy since `started`, None where it is unknown."""
    now = _processor_seconds()
    if started is None or now is None:
        return None
    wall, busy, own = (b - a for a, b in zip(started, now, strict=True))
    return max(0.0, (busy - own) / wall)


def machine() -> dict:
    """Return what the figures depend on: processor, cores, threads, load and versions."""
    import numba

    cpu = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": cpu, "cores": cores, "threads": numba.get_num_threads(),
            "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan"),
            "system": f"{platform.system()} {platform.machine()}", "python": platform.python_version(),
            "versions": versions, "date": datetime.date.today().isoformat()}


def memory_speed(megabytes: int, repeats: int = 5) -> dict[str, float]:
    """Return GB/s of filling and of copying (read plus write) an array too large for the cache, by one thread."""
    a = np.zeros(megabytes * 2**17)
    b = np.ones_like(a)
    timings, _ = interleave({"fill": lambda: a.fill(0), "copy": lambda: np.copyto(a, b)}, repeats)
    return {"fill": a.nbytes / timings["fill"].median / 1e9, "copy": 2 * a.nbytes / timings["copy"].median / 1e9}


def all_threads_fill(buffer: np.ndarray) -> Callable:
    """Return a function that fills a buffer with zeros using as many threads as the kernels have."""
    import numba

    flat, n, fill = buffer.reshape(-1), numba.get_num_threads(), _compiled_fill()
    return lambda: fill(flat, n)


@lru_cache
def _compiled_fill():
    import numba

    @numba.njit(parallel=True)
    def fill(flat, n):
        for k in numba.prange(n):
            flat[k * flat.size // n:(k + 1) * flat.size // n] = 0

    return fill


def one_thread(call: Callable) -> Callable:
    """Return the same call restricted to one thread."""
    import numba

    def restricted():
        n = numba.get_num_threads()
        numba.set_num_threads(1)
        try:
            return call()
        finally:
            numba.set_num_threads(n)

    return restricted


def difference(ours, theirs) -> float:
    """Return the norm of the difference over the norm of theirs: whether both computed the same thing."""
    theirs = np.asarray(theirs, np.float64)
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
