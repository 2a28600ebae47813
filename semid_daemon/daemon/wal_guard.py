"""The write-ahead log grows while some reader holds an old transaction; from a limit on, rows wait."""

from __future__ import annotations

from pathlib import Path

from semid_daemon.runtime.events import EventLog
from semid_daemon.store.write.store import Store

WAL_FULL = (
    "some reader holds an old transaction, and the write-ahead log has grown to ingest.max_wal_mb;"
    " rows wait until that reader ends"
)


class WalLimit:
    """Sets the limit, and tells when it is reached. `told`: that the log was full when it was last looked at."""

    def __init__(self, store: Store, events: EventLog, database: Path, limit_bytes: int) -> None:
        self._store = store
        self._events = events
        self._database = database
        self._limit_bytes = limit_bytes
        self.told = False
        store.database.limit_wal(limit_bytes)

    def is_full(self) -> bool:
        """Whether readers that hold old snapshots keep the write-ahead log from being emptied."""
        if self._store.database.wal_bytes() < self._limit_bytes or self._store.database.checkpoint():
            if self.told:
                self._events.info("the write-ahead log could be emptied; going on")
            self.told = False
            return False
        if not self.told:
            self._events.warning(f"{self._database}: {WAL_FULL}")
        self.told = True
        return True
