"""Files that kill: what daemons died with in hand is tried in a process of its own before it is opened again."""

from __future__ import annotations

from collections.abc import Callable

from semid_daemon.base.drop_file import DropFile
from semid_daemon.base.types import Tick
from semid_daemon.drop.open_file import signature_text
from semid_daemon.ingest import sandbox
from semid_daemon.ingest.crash_marker import MOST_DEATHS, SUSPECT_DEATHS, CrashMarker
from semid_daemon.runtime.events import EventLog
from semid_daemon.store.write.store import Store


class Quarantine:
    """How many daemons died with which file. `tick` is called often while a trial takes long, `stopped` ends it."""

    def __init__(
        self,
        store: Store,
        events: EventLog,
        crash_marker: CrashMarker,
        chunk_rows: int,
        tick: Tick,
        stopped: Callable[[], bool],
    ) -> None:
        self._store = store
        self._events = events
        self._crash_marker = crash_marker
        self._chunk_rows = chunk_rows
        self._tick = tick
        self._stopped = stopped
        self._deaths: dict[tuple[str, str], int] = store.deaths.counts()  # by name and signature

    def __contains__(self, file: DropFile) -> bool:
        return (file.name, signature_text(file)) in self._deaths

    def note_death(self) -> None:
        """At start: what a process that died had in hand is held against that file."""
        left = self._crash_marker.left_behind()
        if left is None:
            return
        name, signature, row = left
        deaths = self._store.deaths.add(name, signature, row)
        self._deaths[name, signature] = deaths
        self._crash_marker.clear()
        self._events.warning(f"{name}: was in hand at row {row:,} when the daemon died; that happened {deaths}×")

    def why_quarantined(self, file: DropFile) -> str | None:
        """Why the file must not be opened here; None where it may be."""
        deaths = self._deaths.get((file.name, signature_text(file)), 0)
        if deaths < SUSPECT_DEATHS:
            return None
        how = sandbox.crash_reason(file, self._chunk_rows, self._tick, self._stopped)
        if how is not None:
            return f"kills the process that reads it ({how}); {deaths} daemons died with it in hand"
        return f"{deaths} daemons died with it in hand at the same row" if deaths >= MOST_DEATHS else None

    def clear(self, name: str) -> None:
        """Nothing is held against files of this name any more."""
        known = [key for key in self._deaths if key[0] == name]
        if known:
            self._store.deaths.clear(name)
            for key in known:
                del self._deaths[key]
