"""Stages that overlap: each runs in a thread of its own, a few chunks ahead of the next, in order.

    for chunk in prefetch(map(encode, prefetch(read(), "read")), "encode"): commit(chunk)

reads, encodes and commits three chunks at a time. What a stage raises comes out at the end, in its turn.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import TypeVar, overload

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, slots=True)
class _End:
    error: BaseException | None


@dataclass(slots=True)
class Backlog:
    """True if the consumer still had an unused item when the last one was produced."""

    has_item: bool = False


@overload
def prefetch(items: Iterable[T], name: str) -> Generator[T, None, None]: ...
@overload
def prefetch(
    items: Iterable[T], name: str, patience_s: float, backlog: Backlog | None = None
) -> Generator[T | None, None, None]: ...
def prefetch(
    items: Iterable[T], name: str, patience_s: float | None = None, backlog: Backlog | None = None
) -> Generator[T | None, None, None]:
    """The items, made in a thread while those before are being used: one in the making, and one that waits.

    None whenever `patience_s` have passed without an item. What making them raises is raised after the items before.
    Closing the generator ends the thread after the item in the making, and closes `items`. `backlog` is kept up to
    date.
    """
    backlog = backlog or Backlog()
    made: queue.Queue[T | _End] = queue.Queue(maxsize=1)
    closed = threading.Event()

    def work() -> None:
        error = None
        try:
            for item in items:
                backlog.has_item = made.full()
                made.put(item)
                del item  # it may be large
                if closed.is_set():
                    break
        except BaseException as raised:
            error = raised
        finally:
            if isinstance(items, Generator):
                items.close()
        made.put(_End(error))

    thread = threading.Thread(target=work, name=f"semid-{name}", daemon=True)
    thread.start()
    try:
        while True:
            try:
                item = made.get(timeout=patience_s)
            except queue.Empty:
                yield None
                continue
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
            del item
    finally:
        closed.set()
        while thread.is_alive():  # it may wait to hand over what nobody wants any more
            with contextlib.suppress(queue.Empty):
                made.get(timeout=0.01)
        thread.join()


def mapped(work: Callable[[T], U], items: Generator[T, None, None]) -> Generator[U, None, None]:
    """The results of some work on each of the items, which are closed with them."""
    with contextlib.closing(items):
        for item in items:
            done = work(item)
            del item
            yield done
            del done
