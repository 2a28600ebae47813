"""A read-only connection to a database that another process writes, and may replace. Standard library only.

Every method is one short read transaction, its cursor read to the end: nothing pins the write-ahead log between
two calls. `interrupt` ends a call from another thread.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from semid_daemon.base.errors import StoreError
from semid_daemon.store.layout import APPLICATION_ID, SCHEMA_VERSION

Row = tuple[Any, ...]

_FETCHED_ROWS = 1000  # at a time, of a query that is iterated
_STEPS_BETWEEN_LOOKS = 10_000  # of SQLite's virtual machine, at the clock


class UnavailableError(StoreError):
    """The database cannot be read now: a title, what happened to which file, and what to do."""

    def __init__(self, title: str, message: str, remedy: str) -> None:
        super().__init__(f"{message}; {remedy}")
        self.title, self.message, self.remedy = title, message, remedy


class InterruptedReadError(StoreError):
    """A call was ended by `interrupt` or by a time limit."""


def connect_readonly(path: Path, timeout_s: float = 5.0, *, any_version: bool = False) -> sqlite3.Connection:
    """Open a database that can be read only; `timeout_s` is how long a lock of another process is waited for.

    Raises UnavailableError where the file is missing, cannot be read, or was written by another program or, unless
    `any_version`, by another version of semid.
    """
    _find(path)
    with read_errors(path):
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro",
            uri=True,
            isolation_level=None,
            timeout=timeout_s,
            check_same_thread=False,  # `interrupt` comes from another
        )
        try:
            if not any_version:
                _check_version(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def sqlite_version() -> tuple[int, int, int]:
    """The version of the SQLite library that is loaded."""
    return sqlite3.sqlite_version_info


@contextlib.contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into UnavailableError, and an interruption into InterruptedReadError."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_INTERRUPT:
            raise InterruptedReadError(str(error)) from None
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise UnavailableError(
                "The database is locked",
                f"{path}: another program holds its lock ({error})",
                "end that program; only the daemon may write",
            ) from None
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise UnavailableError(
                "The database is damaged", f"{path}: damaged: {error}", "stop the daemon and restore a backup"
            ) from None
        # While no daemon runs, a reader has to make the files beside the database anew.
        raise UnavailableError(
            "The database cannot be read",
            f"{path}: cannot be read: {error}",
            "start the daemon, or share a group that may write to the state directory"
            if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
            else "check the disk, or restore a backup",
        ) from None


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of the file; None where there is none."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def _find(path: Path) -> tuple[int, int]:
    try:
        found = _identity(path)
    except PermissionError:
        raise UnavailableError(
            "The database may not be read",
            f"{path}: permission denied",
            "share a group that may read the state directory",
        ) from None
    if found is None:
        raise UnavailableError(
            "No database yet",
            f"{path}: no database yet (no such file)",
            "make one with `semid init`, or start `semid run`",
        )
    return found


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    read = connection.execute
    application_id, version = (read(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
    if application_id == 0 and version == 0 and not read("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        raise UnavailableError("No database yet", f"{path}: empty", "start `semid run`, which fills it")
    if application_id != APPLICATION_ID:
        raise UnavailableError(
            "A database of another program",
            f"{path}: not written by semid",
            "choose another paths.state in semid.toml",
        )
    if version != SCHEMA_VERSION:
        newer = version > SCHEMA_VERSION
        raise UnavailableError(
            "A database of another version",
            f"{path}: schema {version}, this semid knows {SCHEMA_VERSION}",
            "upgrade semid here and start it again" if newer else "start the new daemon once, which upgrades it",
        )


class ReadConnection:
    """A connection for one thread that reads only.

    Every method that reads raises UnavailableError where the database cannot be read, and InterruptedReadError where
    it was interrupted.
    """

    def __init__(self, path: Path, timeout_s: float = 5.0) -> None:
        self.path = path
        self._identity = _find(path)
        self._connection = connect_readonly(path, timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def interrupt(self) -> None:
        """End the call in progress: it raises InterruptedReadError. From any thread."""
        with contextlib.suppress(sqlite3.ProgrammingError):  # closed meanwhile
            self._connection.interrupt()

    def is_current(self) -> bool:
        """Whether the path still names the file that was opened."""
        return _identity(self.path) == self._identity

    def check_version(self) -> None:
        """Raise UnavailableError where a newer daemon has migrated the database since it was opened."""
        with read_errors(self.path):
            _check_version(self._connection, self.path)

    def data_version(self) -> int:
        """A number that changes with every commit of another connection."""
        return int(self.row("PRAGMA data_version")[0])

    def rows(self, sql: str, *values: Any) -> list[Row]:
        """All rows of a query."""
        with read_errors(self.path):
            return self._connection.execute(sql, values).fetchall()

    def row(self, sql: str, *values: Any) -> Row:
        """The only row of a query that always has one."""
        (row,) = self.rows(sql, *values)
        return row

    def first(self, sql: str, *values: Any) -> Row | None:
        """The first row of a query, or None."""
        with read_errors(self.path):
            cursor = self._connection.execute(sql, values)
            row: Row | None = cursor.fetchone()
            cursor.close()
            return row

    def iterate(self, sql: str, *values: Any, fetched: int = _FETCHED_ROWS) -> Iterator[list[Row]]:
        """The rows of a query in lists of `fetched`. Holds one snapshot until the last row has been read."""
        with read_errors(self.path):
            cursor = self._connection.execute(sql, values)
        with contextlib.closing(cursor):
            while True:
                with read_errors(self.path):
                    rows = cursor.fetchmany(fetched)
                if not rows:
                    return
                yield rows

    def define(self, name: str, function: Callable[[str], str]) -> None:
        """Make a deterministic function of one text known to SQL."""
        with read_errors(self.path):
            self._connection.create_function(name, 1, function, deterministic=True)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """One moment of the database for everything that is read inside; may be nested."""
        if self._connection.in_transaction:
            yield
            return
        with read_errors(self.path):
            self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._end()

    def _end(self) -> None:
        """End the transaction even if `interrupt` hits the ROLLBACK: it would pin an old snapshot for ever."""
        while self._connection.in_transaction:
            with contextlib.suppress(sqlite3.OperationalError):
                self._connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def time_limit(self, seconds: float) -> Iterator[None]:
        """Reading inside raises InterruptedReadError once it has taken so many seconds."""
        until = time.monotonic() + seconds
        self._connection.set_progress_handler(lambda: time.monotonic() > until, _STEPS_BETWEEN_LOOKS)
        try:
            yield
        finally:
            self._connection.set_progress_handler(None, 0)
