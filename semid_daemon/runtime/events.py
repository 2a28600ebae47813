"""What the daemon says of itself: to the log and, for people who look later, to the database."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from semid_daemon.store.write.store import Store
from semid_daemon.store.write.telemetry import Gauge

_log = logging.getLogger("semid")
_HEARTBEAT_S = 1.0


class EventLog:
    """Events and heartbeats, each written to the database as well as to the log.

    What only informs is written with the next heartbeat: very many small files would spend their time on it.
    `gauges` are asked for their figures with every heartbeat, at most once a second.
    """

    def __init__(self, store: Store, now: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._now = now
        self._state = ""
        self._beat_at = -float("inf")
        self._gauged_at = -float("inf")
        self._unwritten: list[tuple[str, str]] = []
        self.gauges: list[Callable[[], Mapping[str, Gauge]]] = []
        self.figures: dict[str, Gauge] = {}  # as last asked

    def info(self, message: str) -> None:
        _log.info("%s", message)
        self._unwritten.append(("info", message))

    def warning(self, message: str) -> None:
        _log.warning("%s", message)
        self._unwritten.append(("warning", message))
        self._write()

    def write_heartbeat(self, state: str, detail: str = "") -> bool:
        """Write that the daemon lives: when its state changes, and once a second. Returns whether that was due."""
        now = self._now()
        due = state != self._state or now - self._beat_at >= _HEARTBEAT_S
        if due:
            self._write()
            self._store.daemon.heartbeat(state, detail, self._figures(now, state))
            self._state, self._beat_at = state, now
        return due

    def _figures(self, now: float, state: str) -> dict[str, Gauge]:
        if now - self._gauged_at < _HEARTBEAT_S and state != "stopped":
            return {}
        self._gauged_at = now
        self.figures = {name: figure for gauges in self.gauges for name, figure in gauges().items()}
        return self.figures

    def _write(self) -> None:
        self._store.telemetry.add_events(self._unwritten)
        self._unwritten.clear()
