"""The one thread that reads the database, and its reports."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semid_daemon.store.read.connection import InterruptedReadError, ReadConnection, UnavailableError
from semid_daemon.store.read.monitor import MonitorReader, Overview
from semid_tui.data.queries import Query

_RETRY_S = 1.0
_LOCK_TIMEOUT_S = 1.0  # how long a lock of another process is waited for


@dataclass(frozen=True, slots=True)
class OverviewRead:
    """The database has changed."""

    overview: Overview


@dataclass(frozen=True, slots=True)
class QueryAnswered:
    """The result of the query in a slot, or the error where it failed, and the seconds it took."""

    slot: str
    query: Query
    result: Any
    took_s: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class DatabaseUnavailable:
    """The database cannot be read; it is tried again every second."""

    error: UnavailableError


Report = OverviewRead | QueryAnswered | DatabaseUnavailable
Post = Callable[[Report], object]


class Poller:
    """Looks at `PRAGMA data_version` every `refresh_s`. Reads only when it has changed, and only subscribed queries.

    Between two looks no cursor and no transaction is open. `subscribe` wakes it, and interrupts a query
    that is no longer subscribed.
    """

    def __init__(self, database: Path, post: Post, refresh_s: float = 1.0) -> None:
        self._database = database
        self._post = post
        self.refresh_s = refresh_s
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopped = False
        self._frozen = False
        self._subscribed: dict[str, Query] = {}
        self._reading: tuple[str, Query] | None = None
        self._reader: MonitorReader | None = None
        self._overview: Overview | None = None
        self._version: int | None = None
        self._answered: dict[str, tuple[Query, Hashable]] = {}
        self._thread = threading.Thread(target=self._run, name="semid-poller", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped = True
        self._wake.set()
        if self._reader is not None:
            self._reader.connection.interrupt()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def freeze(self, frozen: bool) -> None:
        """While frozen no overview is read; new subscriptions are still answered."""
        self._frozen = frozen
        self._wake.set()

    def subscribe(self, queries: Mapping[str, Query], again: bool = False) -> None:
        """Read these queries from now on, and no others; with `again` read them though nothing has changed."""
        with self._lock:
            self._subscribed = dict(queries)
            if again:
                self._answered.clear()
            reading, reader = self._reading, self._reader
            if reading is not None and reader is not None and self._subscribed.get(reading[0]) != reading[1]:
                reader.connection.interrupt()
        self._wake.set()

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopped:
            self._wake.clear()
            try:
                self._look()
                pause = self.refresh_s
            except InterruptedReadError:
                pause = 0.0
            except UnavailableError as error:
                self._close()
                self._post(DatabaseUnavailable(error))
                pause = _RETRY_S
            if pause:
                self._wake.wait(pause)
        self._close()

    def _look(self) -> None:
        if self._reader is not None and not self._reader.connection.is_current():
            self._close()  # another file lies there, or none
        if self._reader is None:
            reader = MonitorReader(ReadConnection(self._database, _LOCK_TIMEOUT_S))
            with self._lock:
                self._reader = reader
        if not self._frozen or self._overview is None:
            version = self._reader.connection.data_version()
            if version != self._version or self._overview is None:
                self._overview = self._reader.read_overview()
                self._version = version
                self._post(OverviewRead(self._overview))
        for slot, query in list(self._subscribed.items()):
            if self._stopped:
                return
            self._answer(self._reader, self._overview, slot, query)

    def _answer(self, reader: MonitorReader, overview: Overview, slot: str, query: Query) -> None:
        depends = query.depends(overview)
        if self._answered.get(slot) == (query, depends):
            return
        with self._lock:
            if self._subscribed.get(slot) != query:
                return
            self._reading = (slot, query)
        started = time.perf_counter()
        try:
            with reader.connection.snapshot():
                result, error = query.read(reader, overview), None
        except InterruptedReadError:
            if self._subscribed.get(slot) != query or self._stopped:
                raise  # for something newer
            result, error = None, "took too long"
        finally:
            with self._lock:
                self._reading = None
        self._answered[slot] = (query, depends)
        self._post(QueryAnswered(slot, query, result, time.perf_counter() - started, error))

    def _close(self) -> None:
        with self._lock:
            reader, self._reader = self._reader, None
        self._overview = self._version = None
        self._answered.clear()
        if reader is not None:
            with contextlib.suppress(UnavailableError):
                reader.connection.close()
