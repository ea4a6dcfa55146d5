"""Independent tasks in this process, in several, or on a dask cluster: one function, results as they come."""

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from allpet_physics._arrays import as_positive_int
from allpet_physics.errors import InputError

#: How often in a row workers may die before any task is finished.
_DEATHS = 3
#: Seconds to reach a scheduler, and to wait for its first worker.
_PATIENCE_S = 30


def run_tasks(task: Callable, arguments: Iterable, *, workers: int = 1, scheduler: str | None = None) -> Iterator:
    """Yield ``task(argument)`` for each argument, in the order in which they finish.

    A task must bear being run twice: when a worker process dies, what it had not finished is run again by another.
    Close the iterator (``contextlib.closing``) to stop early; local workers then end at once.

    Parameters
    ----------
    task : callable
        A function at the top of a module, or a ``functools.partial`` of one.
    arguments : iterable
    workers : int
        Local processes, each with its share of the processors for compiled loops. 1 runs the tasks in this process.
        More need the ``if __name__ == "__main__":`` of every program that uses processes.
    scheduler : str, optional
        Address of a dask scheduler, to use its workers instead.

    Raises
    ------
    InputError
        Fewer workers than one; a scheduler address that dask does not understand, or dask is missing.
    ConnectionError
        The scheduler cannot be reached, or has no workers.
    ChildProcessError
        Workers died several times in a row.
    """
    workers, arguments = as_positive_int("workers", workers), list(arguments)
    if scheduler is not None:
        return _on_cluster(task, arguments, scheduler)
    workers = min(workers, len(arguments))
    return _in_processes(task, arguments, workers) if workers > 1 else (task(argument) for argument in arguments)


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_processes(task, arguments, workers):
    left, deaths = dict(enumerate(arguments)), 0
    while left:
        with _pool(workers) as pool:
            try:
                futures = {pool.submit(task, argument): i for i, argument in left.items()}
                for future in as_completed(futures):
                    result = future.result()
                    del left[futures[future]]
                    deaths = 0
                    yield result
            except BrokenProcessPool:
                deaths += 1
                if deaths == _DEATHS:
                    raise ChildProcessError(
                        f"worker processes died {_DEATHS} times before any finished a task (out of memory? a program "
                        'without if __name__ == "__main__":?); try fewer workers') from None


@contextlib.contextmanager
def _pool(workers: int):
    """Yield a pool of processes that end when this process does, however it ends.

    Each worker holds the reading end of a pipe, this process alone the writing end: when that is closed, by us or by
    the system after a kill, the workers leave.
    """
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker,
                               initargs=(reader, max(1, processors() // workers)))
    try:
        yield pool
        pool.shutdown()
    finally:
        writer.close()
        pool.shutdown(cancel_futures=True)
        reader.close()


def _start_worker(lifeline, threads: int) -> None:
    # Ctrl-C reaches the whole group of processes; the parent answers it for all.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["NUMBA_NUM_THREADS"] = str(threads)
    if "numba" in sys.modules:  # it has read its environment already
        _use_threads(threads)

    def leave_with_the_parent():
        with contextlib.suppress(EOFError, OSError):
            lifeline.recv()
        os._exit(1)

    threading.Thread(target=leave_with_the_parent, daemon=True).start()


def _use_threads(threads: int) -> None:
    """Limit the threads of compiled loops that this thread starts."""
    import numba

    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))


def check_scheduler(address: str) -> None:
    """Raise unless `address` reads as tcp://HOST:PORT; a client made for another never lets go of its process."""
    protocol, _, rest = address.rpartition("://")
    host, _, port = rest.rpartition(":")
    if protocol not in ("", "tcp", "tls") or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(f"the scheduler must be an address such as tcp://127.0.0.1:8786, but was {address!r}.")


def _on_cluster(task, arguments, address):
    try:
        import distributed
    except ImportError:
        raise InputError('a scheduler address needs the package dask.distributed; install it with: pip install '
                         '".[scale]" in the source folder of allpet.') from None
    check_scheduler(address)
    try:
        client = distributed.Client(address, timeout=_PATIENCE_S, set_as_default=False)
    except OSError as error:
        raise ConnectionError(f"no dask scheduler answers at {address} ({' '.join(str(error).split())}); start one "
                              "with: dask scheduler") from None
    # A lost connection is raised below, in one sentence; dask would log its traceback besides.
    with _level(logging.getLogger("distributed.client"), logging.CRITICAL), client:
        try:
            client.wait_for_workers(1, timeout=_PATIENCE_S)
        except TimeoutError:
            raise ConnectionError(f"the dask scheduler at {address} has no workers; start some with: dask worker "
                                  f"{address}") from None
        futures = client.map(_ClusterTask(task), arguments, key="allpet", pure=False)
        try:
            for future in distributed.as_completed(futures, loop=client.loop):
                yield future.result()
                future.release()
        except distributed.KilledWorker as error:
            raise ChildProcessError(f"workers of the cluster died again and again ({error})") from None
        except CancelledError:
            raise ConnectionError(f"the dask scheduler at {address} went away") from None
        finally:
            client.cancel(futures)


@contextlib.contextmanager
def _level(logger: logging.Logger, level: int):
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


class _ClusterTask:
    """A task that lets compiled loops use as many threads as its dask worker has."""

    def __init__(self, task):
        self.task = task

    def __call__(self, argument):
        import distributed

        with contextlib.suppress(ValueError):
            _use_threads(distributed.get_worker().state.nthreads)
        return self.task(argument)
