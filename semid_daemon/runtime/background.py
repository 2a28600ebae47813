"""Long computations in a thread of their own, so that the heartbeat and commands are seen to meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_TICK_S = 0.1


def run_in_background(work: Callable[[], T], tick: Callable[[], None]) -> T:
    """What `work` returns or raises; `tick` is called ten times a second until then, in the caller's thread.

    An exception of `tick` is raised once `work` has come to its end: nothing can be taken from it before.
    """
    with _worker() as pool:
        return _result(pool, work, tick)


def iterate_in_background(steps: Iterator[T], tick: Callable[[], None]) -> Iterator[T]:
    """The items of `steps`, each of them computed as `run_in_background` does, all in the same thread.

    A thread has its own team of OpenMP threads: with a new one for every step torch would start the team anew.
    """
    nothing = object()
    with _worker() as pool:
        while (step := _result(pool, lambda: next(steps, nothing), tick)) is not nothing:
            yield step  # type: ignore[misc]


def _worker() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="semid-work")


def _result(pool: ThreadPoolExecutor, work: Callable[[], T], tick: Callable[[], None]) -> T:
    done = threading.Event()
    future = pool.submit(work)
    future.add_done_callback(lambda _: done.set())
    while not done.wait(_TICK_S):
        tick()
    return future.result()
