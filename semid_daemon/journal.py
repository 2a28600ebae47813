"""What the daemon says of itself: to the log and, for people who look later, to the database."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from semid_daemon.store.writer import Writer

_log = logging.getLogger("semid")
_HEARTBEAT_S = 1.0


class Journal:
    """Events and heartbeats, each written to the database as well as to the log."""

    def __init__(self, writer: Writer, now: Callable[[], float] = time.monotonic) -> None:
        self._writer = writer
        self._now = now
        self._state = ""
        self._beat_at = -float("inf")

    def info(self, message: str) -> None:
        _log.info("%s", message)
        self._writer.add_event("info", message)

    def warning(self, message: str) -> None:
        _log.warning("%s", message)
        self._writer.add_event("warning", message)

    def beat(self, state: str, detail: str = "") -> None:
        """The daemon lives: written when its state changes, and once a second otherwise."""
        now = self._now()
        if state != self._state or now - self._beat_at >= _HEARTBEAT_S:
            self._state, self._beat_at = state, now
            self._writer.heartbeat(state, detail)
