"""Work on tiles of rows with one thread per core, each doing whole operations alone.

torch's own threads split every operation and meet after each; over hundreds of small operations a tile
that costs more than it gives, the more so where NumPy, which has no such threads, does some of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache

import torch
from threadpoolctl import ThreadpoolController


class _Calling(threading.local):
    """Of each thread: how many cores it leaves to others."""

    left = 0


_calling = _Calling()
_lock = threading.Lock()
_depth = 0
_limits = ExitStack()
# threadpoolctl lets one thread alone set the limit, and does nothing, without a word, for any other until that is done.
_keeper = ThreadPoolExecutor(1, thread_name_prefix="semid-openblas")


def for_each_span(device: torch.device, rows: int, step: int, work: Callable[[Sequence[slice]], None]) -> None:
    """Call `work` with all slices of `step` rows: at once, or on the CPU in runs of neighbours, a thread each.

    The slices are the same however many threads there are. A single slice is left to torch's threads. An
    exception of any thread is raised here.
    """
    tiles = [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
    threads = threads_for(device)
    if device.type != "cpu" or (len(tiles) == 1 and threads > 1):
        work(tiles)
        return
    with _openblas_alone():
        if torch.get_num_threads() == 1:
            work(tiles)
            return
        with _lock:
            pool = _pool(threads)
        threads = min(threads, len(tiles))
        bounds = [len(tiles) * index // threads for index in range(threads + 1)]
        spans = [tiles[low:high] for low, high in zip(bounds, bounds[1:], strict=False)]
        list(pool.map(work, spans))


def threads_for(device: torch.device) -> int:
    """How many threads share the work of the calling one on a device."""
    # Each thread has a number of its own, as many as the process's unless it was told otherwise.
    return max(1, torch.get_num_threads() - _calling.left) if device.type == "cpu" else 1


@contextmanager
def reserve_core() -> Iterator[None]:
    """What the calling thread does inside takes one thread less: beside other work, all would take longer."""
    _calling.left += 1
    try:
        yield
    finally:
        _calling.left -= 1


def worker_beside_others(name: str) -> ThreadPoolExecutor:
    """A thread of its own, in which torch's operations take one thread less than in the calling one."""
    return _workers(name, 1, max(1, torch.get_num_threads() - 1))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return _workers("semid-tiles", threads, 1)


def _workers(name: str, count: int, threads_each: int) -> ThreadPoolExecutor:
    """Threads in each of which torch's operations have so many; everywhere else they have as many as before."""
    of_caller = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, thread_name_prefix=name)
    all_there = threading.Barrier(count)

    def begin() -> None:
        # The first question settles a thread's number; after that it is the thread's own.
        torch.get_num_threads()
        torch.set_num_threads(threads_each)
        all_there.wait()

    list(pool.map(lambda _: begin(), range(count)))
    torch.set_num_threads(of_caller)  # what threads to come begin with
    return pool


@contextmanager
def _openblas_alone() -> Iterator[None]:
    """OpenBLAS's number of threads is the process's: one while any caller is inside, then what it was."""
    global _depth
    with _lock:
        if _depth == 0:
            _keeper.submit(_limit).result()
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _keeper.submit(_limits.close).result()


def _limit() -> None:
    _limits.enter_context(_blas().limit(limits=1))


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(internal_api="openblas")
