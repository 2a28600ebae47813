"""`pause` and `resume`. A pause is kept in the database: it outlives the daemon."""

from __future__ import annotations

from semid_daemon.command_client import Arguments
from semid_daemon.runtime.events import EventLog
from semid_daemon.store.write.store import Store


class Pause:
    """Whether work is paused, and the commands that change it."""

    def __init__(self, store: Store, events: EventLog) -> None:
        self._store = store
        self._events = events
        self._since = store.daemon.paused_at()

    @property
    def reason(self) -> str | None:
        """Since when, and what to do about it; None while work goes on."""
        return None if self._since is None else f"since {self._since}; `semid resume` lets work go on"

    def pause(self, arguments: Arguments) -> str:
        already = self._since
        self._store.daemon.set_paused(True)
        self._since = self._store.daemon.paused_at()
        if already is None:
            self._events.info("paused")
        return f"paused since {self._since}" if already else "paused; nothing is lost, work goes on with `resume`"

    def resume(self, arguments: Arguments) -> str:
        if self._since is None:
            return "not paused"
        self._store.daemon.set_paused(False)
        self._since = None
        self._events.info("resumed")
        return "work goes on"
