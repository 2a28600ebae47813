"""A monitor's own connection to a database that others write, and may replace. Standard library only.

Every method is one short read transaction, its cursors read to their end: nothing pins the write-ahead log
between two calls. `interrupt` ends a call from another thread.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from semid_daemon.base.errors import StoreError
from semid_daemon.store.layout import APPLICATION_ID, SCHEMA_VERSION
from semid_daemon.store.read.status import Reader


class UnavailableError(StoreError):
    """The database cannot be read just now: what it is, why, and what to do about it."""

    def __init__(self, title: str, message: str, remedy: str) -> None:
        super().__init__(f"{message}; {remedy}")
        self.title, self.message, self.remedy = title, message, remedy


class InterruptedReadError(StoreError):
    """A call was ended by `interrupt`."""


def identity(path: Path) -> tuple[int, int] | None:
    """Which file lies there; None when there is none."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


class ReadConnection(Reader):
    """A read-only connection for one thread. Raises UnavailableError where the database cannot be read."""

    def __init__(self, path: Path, timeout_s: float = 1.0) -> None:
        self._path = path
        self._identity = self._find()
        with self._explained():
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro",
                uri=True,
                isolation_level=None,
                timeout=timeout_s,
                check_same_thread=False,  # `interrupt` comes from another
            )
            try:
                self._check_version()
            except BaseException:
                self._connection.close()
                raise

    def _find(self) -> tuple[int, int]:
        try:
            found = identity(self._path)
        except PermissionError:
            raise UnavailableError(
                "The database may not be read",
                f"{self._path}: permission denied",
                "share a group that may read the state directory",
            ) from None
        if found is None:
            raise UnavailableError(
                "No database yet", f"{self._path}: no such file", "make it with `semid init`, or start `semid run`"
            )
        return found

    def _check_version(self) -> None:
        read = self._connection.execute
        application_id, version = (read(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
        if application_id == 0 and version == 0 and not read("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            raise UnavailableError("No database yet", f"{self._path}: empty", "start `semid run`, which fills it")
        if application_id != APPLICATION_ID:
            raise UnavailableError(
                "A database of another program",
                f"{self._path}: not written by semid",
                "choose another paths.state in semid.toml",
            )
        if version != SCHEMA_VERSION:
            newer = version > SCHEMA_VERSION
            raise UnavailableError(
                "A database of another version",
                f"{self._path}: schema {version}, this semid-tui knows {SCHEMA_VERSION}",
                "upgrade semid here and start the UI again"
                if newer
                else "start the new daemon once, which upgrades it",
            )

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """SQLite's errors in words."""
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code == sqlite3.SQLITE_INTERRUPT:
                raise InterruptedReadError(str(error)) from None
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise UnavailableError(
                    "The database is locked",
                    f"{self._path}: another program holds its lock ({error})",
                    "end that program; only the daemon may write",
                ) from None
            if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise UnavailableError(
                    "The database is damaged",
                    f"{self._path}: {error}",
                    "run `semid doctor`; stop the daemon and restore a backup",
                ) from None
            raise UnavailableError(
                "The database cannot be read",
                f"{self._path}: {error}",
                "start the daemon, or share a group that may write to the state directory"
                if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
                else "run `semid doctor`",
            ) from None

    def close(self) -> None:
        self._connection.close()

    def interrupt(self) -> None:
        """End the call in progress: it raises InterruptedReadError. From any thread."""
        with contextlib.suppress(sqlite3.ProgrammingError):  # closed meanwhile
            self._connection.interrupt()

    def is_current(self) -> bool:
        """Whether the file under this path is still the one that was opened."""
        return identity(self._path) == self._identity

    def data_version(self) -> int:
        """Changes with every commit of others."""
        with self._explained():
            return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """One moment of the database for all that is read inside."""
        if self._connection.in_transaction:
            yield
            return
        with self._explained():
            self._connection.execute("BEGIN")
            try:
                yield
            finally:
                self._end()

    def _end(self) -> None:
        """End the transaction, even where `interrupt` comes just now: it would pin an old snapshot for ever."""
        while self._connection.in_transaction:
            with contextlib.suppress(sqlite3.OperationalError):
                self._connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def at_most(self, seconds: float) -> Iterator[None]:
        """Raises InterruptedReadError where reading takes longer."""
        until = time.monotonic() + seconds
        self._connection.set_progress_handler(lambda: time.monotonic() > until, 10_000)
        try:
            with self._explained():
                yield
        finally:
            self._connection.set_progress_handler(None, 0)

    def _rows(self, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._explained():
            return self._connection.execute(sql, values).fetchall()
