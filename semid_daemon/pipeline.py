"""Stages that overlap: each runs in a thread of its own, a few chunks ahead of the next, in order.

    for each in ahead(map(encode, ahead(read()))): commit(each)

reads, encodes and commits three chunks at a time. What a stage raises comes out at the end, in its turn.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar, overload

from semid_daemon.store.writer import Gauge, Metric

T = TypeVar("T")
U = TypeVar("U")

_WINDOW_S = 15.0


@dataclass(frozen=True, slots=True)
class _End:
    error: BaseException | None


@dataclass(slots=True)
class Demand:
    """Whether there was an item left to be used when the last one was made: at first, no."""

    is_met: bool = False


@overload
def ahead(items: Iterable[T], name: str) -> Generator[T, None, None]: ...
@overload
def ahead(
    items: Iterable[T], name: str, patience_s: float, demand: Demand | None = None
) -> Generator[T | None, None, None]: ...
def ahead(
    items: Iterable[T], name: str, patience_s: float | None = None, demand: Demand | None = None
) -> Generator[T | None, None, None]:
    """The items, made in a thread while those before are being used: one in the making, and one that waits.

    None whenever `patience_s` have passed without an item. What making them raises is raised after the items before.
    Closing the generator ends the thread after the item in the making, and closes `items`. `demand` is kept up to
    date.
    """
    demand = demand or Demand()
    made: queue.Queue[T | _End] = queue.Queue(maxsize=1)
    closed = threading.Event()

    def work() -> None:
        error = None
        try:
            for item in items:
                demand.is_met = made.full()
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


STAGES = ("read", "copy", "encode", "learn", "commit")


class Stages:
    """How long each stage works, in a thread of its own. The one that works longest holds up the others."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._total = dict.fromkeys(STAGES, 0.0)
        self._taken = dict(self._total)
        self._taken_at = now()
        self._recent: deque[tuple[float, dict[str, float]]] = deque([(now(), dict(self._total))])

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """The block is work of this stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self._total[stage] += time.perf_counter() - started

    @contextlib.contextmanager
    def waiting(self, stage: str) -> Iterator[None]:
        """The block, within `timed`, is no work of this stage: it waits for another."""
        started = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self._total[stage] -= time.perf_counter() - started

    def seconds(self) -> dict[str, float]:
        """Seconds of work so far, by stage."""
        with self._lock:
            return dict(self._total)

    def metrics(self) -> list[Metric]:
        """Once a second at most: `<stage>_s`, seconds of work since the last time, and `bottleneck_<stage>`.

        The latter's value is the share of the time that the busiest stage worked.
        """
        now = self._now()
        elapsed_s = now - self._taken_at
        if elapsed_s < 1.0:
            return []
        with self._lock:
            worked = {stage: self._total[stage] - self._taken[stage] for stage in STAGES}
            self._taken, self._taken_at = dict(self._total), now
        busiest = bottleneck(worked)
        share = [] if busiest is None else [Metric(f"bottleneck_{busiest}", worked[busiest] / elapsed_s)]
        return [Metric(f"{stage}_s", seconds) for stage, seconds in worked.items() if seconds] + share

    def gauges(self) -> dict[str, Gauge]:
        """`stage_<name>_s`: seconds of work in the last 15 s, and `bottleneck`, the name of the busiest stage."""
        now = self._now()
        with self._lock:
            self._recent.append((now, dict(self._total)))
        while len(self._recent) > 1 and self._recent[1][0] <= now - _WINDOW_S:
            self._recent.popleft()
        before, after = self._recent[0][1], self._recent[-1][1]
        worked = {stage: after[stage] - before[stage] for stage in STAGES}
        figures: dict[str, Gauge] = {f"stage_{stage}_s": seconds or None for stage, seconds in worked.items()}
        return {**figures, "bottleneck": bottleneck(worked)}


def bottleneck(worked: Mapping[str, float]) -> str | None:
    """The stage that holds up the others, by their seconds of work."""
    busiest = max(STAGES, key=lambda stage: worked[stage])
    return busiest if worked[busiest] > 0 else None
