"""The database that the daemon writes, one object per subject over one connection."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from semid_daemon.store.write.candidates import Candidates
from semid_daemon.store.write.chunks import Chunks
from semid_daemon.store.write.commands import Commands
from semid_daemon.store.write.comparisons import Comparisons
from semid_daemon.store.write.counts import CatalogueCounts
from semid_daemon.store.write.daemon_status import DaemonStatus
from semid_daemon.store.write.database import Database
from semid_daemon.store.write.deaths import Deaths
from semid_daemon.store.write.files import Files
from semid_daemon.store.write.generations import Generations
from semid_daemon.store.write.items import Items
from semid_daemon.store.write.spool import SpoolIndex
from semid_daemon.store.write.telemetry import Telemetry
from semid_daemon.store.write.upgrade import Alive


class Store:
    """All writing goes through one instance, in the process that holds the state lock.

    Every public method of its parts is one transaction, or part of the one around it: after a kill at any moment the
    database holds all of a call or nothing of it.
    """

    def __init__(self, path: Path, alive: Alive = lambda doing: None) -> None:
        """Open or create the database; see `connect` for the errors, and `upgrade` for `alive`."""
        self.database = Database(path, alive)
        self.telemetry = Telemetry(self.database)
        self.daemon = DaemonStatus(self.database, self.telemetry)
        self.commands = Commands(self.database)
        self.deaths = Deaths(self.database)
        self.files = Files(self.database, self.deaths)
        self.spool = SpoolIndex(self.database)
        self.candidates = Candidates(self.database, self.telemetry)
        self.counts = CatalogueCounts(self.database)
        self.items = Items(self.database, self.counts)
        self.chunks = Chunks(self.database, self.files, self.items, self.candidates, self.telemetry, self.spool)
        self.comparisons = Comparisons(self.database, self.chunks, self.telemetry)
        self.generations = Generations(
            self.database, self.chunks, self.items, self.counts, self.candidates, self.comparisons, self.telemetry
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; see `Database.close`."""
        self.database.close()

    def invalidate(self) -> None:
        """Drop cached state: a batch was rolled back, or another program has written to the database."""
        self.counts.invalidate()
