"""How long each stage of the pipeline works, and which one holds up the others."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping

from semid_daemon.store.write.telemetry import Gauge, Metric

_WINDOW_S = 15.0
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
