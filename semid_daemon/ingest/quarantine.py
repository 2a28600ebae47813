"""Files that kill: a file that daemons died with is tried in a process of its own before it is opened again."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator

from semid_daemon.base.drop_file import DropFile
from semid_daemon.drop.open_file import signature_text
from semid_daemon.ingest import sandbox
from semid_daemon.ingest.crash_marker import MOST_DEATHS, SUSPECT_DEATHS, CrashMarker
from semid_daemon.runtime.events import EventLog
from semid_daemon.store.write.store import Store


class Quarantine:
    """How many daemons died with which file."""

    def __init__(self, store: Store, events: EventLog, marker: CrashMarker, chunk_rows: int) -> None:
        self._store = store
        self._events = events
        self._marker = marker
        self._chunk_rows = chunk_rows
        self._deaths: dict[tuple[str, str], int] = store.deaths.counts()  # by name and signature

    def __contains__(self, file: DropFile) -> bool:
        return (file.name, signature_text(file)) in self._deaths

    @contextlib.contextmanager
    def marked(self, file: DropFile, row: int) -> Iterator[None]:
        """The block works on this file, from that row on: if the process dies in it, that is counted.

        The marker stays when the block raises or is given up: whoever ends the process in order clears it.
        """
        self._marker.set(file.name, signature_text(file), row)
        yield
        self._marker.clear()

    def note_death(self) -> None:
        """At start: count the death of the previous process, if it left the marker set."""
        left = self._marker.left_behind()
        if left is None:
            return
        name, signature, row = left
        deaths = self._store.deaths.add(name, signature, row)
        self._deaths[name, signature] = deaths
        self._marker.clear()
        self._events.warning(f"{name}: was in hand at row {row:,} when the daemon died; that happened {deaths}×")

    def why_quarantined(self, file: DropFile) -> Generator[None, None, str | None]:
        """Why the file must not be opened here; None where it may be. Raises as `sandbox.crash_reason`."""
        deaths = self._deaths.get((file.name, signature_text(file)), 0)
        if deaths < SUSPECT_DEATHS:
            return None
        reason = yield from sandbox.crash_reason(file, self._chunk_rows)
        if reason is not None:
            return f"kills the process that reads it ({reason}); {deaths} daemons died with it in hand"
        return f"{deaths} daemons died with it in hand at the same row" if deaths >= MOST_DEATHS else None

    def clear(self, name: str) -> None:
        """Nothing is held against files of this name any more."""
        known = [key for key in self._deaths if key[0] == name]
        if known:
            self._store.deaths.clear(name)
            for key in known:
                del self._deaths[key]
