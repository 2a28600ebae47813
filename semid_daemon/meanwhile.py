"""Long computations in a thread of their own, so that the heartbeat and commands are seen to meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_TICK_S = 0.1


def meanwhile(work: Callable[[], T], tick: Callable[[], None]) -> T:
    """What `work` returns or raises; `tick` is called ten times a second until then, in the caller's thread.

    An exception of `tick` is raised once `work` has come to its end: nothing can be taken from it before.
    """
    done = threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="semid-work") as pool:
        future = pool.submit(work)
        future.add_done_callback(lambda _: done.set())
        while not done.wait(_TICK_S):
            tick()
        return future.result()


def each_meanwhile(steps: Iterator[T], tick: Callable[[], None]) -> Iterator[T]:
    """The items of `steps`, each of them computed as `meanwhile` does."""
    nothing = object()
    while (step := meanwhile(lambda: next(steps, nothing), tick)) is not nothing:
        yield step  # type: ignore[misc]
