"""How fast rows are committed, and how long what is left will take, as gauges."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator

from semid_daemon.runtime.progress import Advance, Progress
from semid_daemon.store.write.telemetry import Gauge

_WINDOW_S = 15.0


class Throughput:
    """Told of files and rows as they are encoded, of steps as codebooks are trained; asked once per heartbeat.

    Rates are those of the last 15 s. `bytes_left` returns the bytes still to ingest, including the unread part of
    the current file.
    """

    def __init__(self, bytes_left: Callable[[], float], now: Callable[[], float] = time.monotonic) -> None:
        self._bytes_left = bytes_left
        self._now = now
        self._recent: deque[tuple[float, int, float]] = deque()  # when, rows, bytes
        self._file: str | None = None
        self._rows = self._done = 0
        self._steps: tuple[int, int] | None = None

    def file_at(self, name: str, rows: int, done: int, size_bytes: int) -> None:
        """The file in hand, and how many of its rows are committed by now."""
        if name == self._file:
            fresh = max(0, done - self._done)
            self._recent.append((self._now(), fresh, fresh * size_bytes / max(rows, 1)))
        elif not self._recent:
            self._recent.append((self._now(), 0, 0.0))  # where the first rate counts from
        self._file, self._rows, self._done = name, rows, done

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """While it lasts, a file is in hand."""
        try:
            yield
        finally:
            self._file = None

    @contextlib.contextmanager
    def training(self, most: int) -> Iterator[Callable[[int], None]]:
        """While it lasts, codebooks are trained, by at most so many steps; gives what to tell of steps done."""
        self._steps = (0, most)

        def advance(steps: int) -> None:
            self._steps = (self._steps[0] + steps if self._steps else steps, most)

        try:
            yield advance
        finally:
            self._steps = None

    def gauges(self) -> dict[str, Gauge]:
        now = self._now()
        while self._recent and self._recent[0][0] < now - _WINDOW_S:
            self._recent.popleft()
        rows_per_s = bytes_per_s = 0.0
        if self._recent and now > self._recent[0][0]:
            elapsed_s = now - self._recent[0][0]
            rows_per_s = sum(rows for _, rows, _ in self._recent) / elapsed_s
            bytes_per_s = sum(size for _, _, size in self._recent) / elapsed_s
        bytes_left = self._bytes_left()
        rows_left = max(0, self._rows - self._done)
        in_hand = self._file is not None and self._rows > 0
        steps, most = self._steps or (None, None)
        return {
            "rows_per_s": rows_per_s,
            "bytes_per_s": bytes_per_s,
            "bytes_left": bytes_left,
            "eta_s": bytes_left / bytes_per_s if bytes_per_s and bytes_left else None,
            "file": self._file,
            "file_rows": self._rows if in_hand else None,
            "file_rows_done": self._done if in_hand else None,
            "file_eta_s": rows_left / rows_per_s if rows_per_s and in_hand else None,
            "training_steps": steps,
            "training_steps_most": most,
        }


class StepsTold:
    """Progress that tells the throughput of training steps as well."""

    def __init__(self, progress: Progress, throughput: Throughput) -> None:
        self._progress = progress
        self._throughput = throughput

    @contextlib.contextmanager
    def task(self, title: str, total: int, unit: str = "rows") -> Iterator[Advance]:
        if unit != "steps":
            with self._progress.task(title, total, unit) as shown:
                yield shown
            return
        with self._throughput.training(total) as told, self._progress.task(title, total, unit) as shown:

            def advance(amount: int) -> None:
                shown(amount)
                told(amount)

            yield advance
