"""Long computations in a thread of their own, so that the loop sees to files, commands and the heartbeat meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_STEP_S = 0.1


def run_in_background(work: Callable[[], T]) -> Generator[None, None, T]:
    """What `work` returns or raises: `result = yield from run_in_background(work)`.

    Yields ten times a second until then. Closing the generator waits for the work to end: nothing can be taken from
    it before.
    """
    with _worker() as pool:
        return (yield from _result(pool, work))


def iterate_in_background(items: Iterator[T]) -> Generator[T | None, None, None]:
    """The items, each of them computed as `run_in_background` does, all in the same thread; None while one takes long.

    A thread has its own team of OpenMP threads: with a new one for every item torch would start the team anew.
    """
    nothing = object()
    with _worker() as pool:
        while True:
            item = yield from _result(pool, lambda: next(items, nothing))
            if item is nothing:
                return
            yield item  # type: ignore[misc]


def _worker() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="semid-work")


def _result(pool: ThreadPoolExecutor, work: Callable[[], T]) -> Generator[None, None, T]:
    done = threading.Event()
    future = pool.submit(work)
    future.add_done_callback(lambda _: done.set())
    while not done.wait(_STEP_S):
        yield
    return future.result()
