"""Work on tiles of rows with one thread per core, each doing whole operations alone.

torch's own threads split every operation and meet after each; over hundreds of small operations a tile
that costs more than it gives, the more so where NumPy, which has no such threads, does some of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from threadpoolctl import ThreadpoolController

_lock = threading.Lock()
_depth = 0
_blas_limits: list[Any] = []


def for_each_span(device: torch.device, rows: int, step: int, work: Callable[[Sequence[slice]], None]) -> None:
    """Call `work` with all slices of `step` rows: at once, or on the CPU in runs of neighbours, a thread each.

    The slices are the same however many threads there are. A single slice is left to torch's threads. An
    exception of any thread is raised here.
    """
    tiles = [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
    # Each thread has a number of its own, as many as the process's unless it was told otherwise.
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    if device.type != "cpu" or (len(tiles) == 1 and threads > 1):
        work(tiles)
        return
    with _openblas_alone():
        if threads == 1:
            work(tiles)
            return
        with _lock:
            pool = _pool(threads)
        threads = min(threads, len(tiles))
        bounds = [len(tiles) * index // threads for index in range(threads + 1)]
        spans = [tiles[low:high] for low, high in zip(bounds, bounds[1:], strict=False)]
        list(pool.map(work, spans))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads in each of which torch's operations have but one."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="semid-tiles")
    all_there = threading.Barrier(threads)

    def begin() -> None:
        # The first question settles a thread's number; after that it is the thread's own.
        torch.get_num_threads()
        torch.set_num_threads(1)
        all_there.wait()

    list(pool.map(lambda _: begin(), range(threads)))
    torch.set_num_threads(threads)  # what threads to come begin with
    return pool


@contextmanager
def _openblas_alone() -> Iterator[None]:
    """OpenBLAS's number of threads is the process's: set aside while any caller is inside, then put back."""
    global _depth
    with _lock:
        if _depth == 0:
            _blas_limits.append(_blas().limit(limits=1))
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _blas_limits.pop().restore_original_limits()


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(internal_api="openblas")
