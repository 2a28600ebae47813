"""The one connection that writes: opening, transactions, reads, and the write-ahead log."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from semid_daemon.base.errors import MachineError, SchemaError, StoreError
from semid_daemon.base.failpoints import failpoint
from semid_daemon.store.read.connection import connect_readonly
from semid_daemon.store.schema import APPLICATION_ID, SCHEMA_VERSION
from semid_daemon.store.write.bulk import select_rows
from semid_daemon.store.write.upgrade import Alive, upgrade

_BUSY_TIMEOUT_S = 10.0
_CHECK_AT_START_S = 1.0
_CHECKED_BYTES = 128 << 20  # a database up to this size is checked as a whole at start
_LARGE_TABLES = {"_items", "_buckets", "_metrics"}  # not checked at start in a larger database
# Page size of a new database. Rows go to random pages of two indexes, and a commit costs more by the page than by the
# byte.
_PAGE_BYTES = 1 << 14
_WAL_KEPT_BYTES = 64 << 20  # size to which the write-ahead log's file is truncated after a checkpoint
# Size at which the write-ahead log is checkpointed: a page that many chunks change is then moved once.
_WAL_BYTES = 256 << 20
_CACHE_BYTES = 256 << 20  # page cache, allocated as pages are read
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_MACHINE = {
    sqlite3.SQLITE_PERM: "permission denied",
    sqlite3.SQLITE_BUSY: "another program holds its write lock; end that program",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_NOMEM: "out of memory",
    sqlite3.SQLITE_READONLY: "it cannot be written to; check permissions and the file system",
    sqlite3.SQLITE_IOERR: "I/O error, or no space left on the device; check the disk",
    sqlite3.SQLITE_FULL: "no space left on the device; free some",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened; check permissions and the number of open files",
    sqlite3.SQLITE_PROTOCOL: "its locks cannot be taken",
}


@contextlib.contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into StoreError (damage) or MachineError (temporary); errors in our SQL pass unchanged."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary code of an extended one
        if code in _DAMAGE:
            raise StoreError(f"{path}: damaged: {error}; stop the daemon and restore a backup") from error
        if code in _MACHINE:
            raise MachineError(f"{path}: {_MACHINE[code]} ({error})") from error
        raise


def connect(path: Path, alive: Alive) -> sqlite3.Connection:
    """Open the database for the one writing connection: WAL, FULL, migrated, checked; see `upgrade` for `alive`.

    Raises StoreError when the file is not a semid database, is damaged, or was written by a newer
    semid; MachineError when the machine prevents it (locks, permissions, space, I/O).
    """
    with store_errors(path):
        # isolation_level=None: transactions begin and end only by the statements below.
        connection = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_TIMEOUT_S)
        try:
            version = check_version(connection, path)
            _check_quickly(connection, path)
            connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute(f"PRAGMA journal_size_limit = {_WAL_KEPT_BYTES}")
            connection.execute(f"PRAGMA cache_size = {-_CACHE_BYTES // 1024}")
            if version < SCHEMA_VERSION:
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                upgrade(connection, path, version, alive)
        except BaseException:
            connection.close()
            raise
    return connection


def check_version(connection: sqlite3.Connection, path: Path) -> int:
    """The schema version of a database, 0 for a new one.

    Raises StoreError when it is not a semid database, is damaged, or was written by a newer semid.
    """
    with store_errors(path):
        application_id = int(connection.execute("PRAGMA application_id").fetchone()[0])
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        tables = int(connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0])
    if application_id != APPLICATION_ID and (application_id or version or tables):
        raise StoreError(f"{path}: a database of another program; choose another paths.state")
    if version > SCHEMA_VERSION:
        raise SchemaError(
            f"{path}: written by a newer semid (schema {version}, this one knows {SCHEMA_VERSION});"
            " upgrade semid, or restore a backup made before"
        )
    return version


def _check_quickly(connection: sqlite3.Connection, path: Path) -> None:
    """Look for damage for about a second, in a large database only in the tables that stay small.

    `semid doctor` checks all tables.
    """
    checks = ["PRAGMA quick_check(1)"]
    if path.stat().st_size > _CHECKED_BYTES:
        tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").fetchall()
        checks = [f"PRAGMA quick_check('{name}')" for (name,) in tables if name not in _LARGE_TABLES]
    until = time.monotonic() + _CHECK_AT_START_S
    for check in checks:
        found = connection.execute(check).fetchone()[0]
        if found != "ok":
            found = " ".join(found.split())
            raise StoreError(f"{path}: damaged: {found}; stop the daemon and restore a backup")
        if time.monotonic() > until:
            return


class Database:
    """One connection that writes. Its transactions nest: an inner one is part of the one around it."""

    def __init__(self, path: Path, alive: Alive = lambda doing: None) -> None:
        """Open or create the database; see `connect` for the errors, and `upgrade` for `alive`."""
        self.path = path
        self.connection = connect(path, alive)
        self._data_version = self.read_one("PRAGMA data_version")[0]
        # How the next transaction begins: by itself, as a savepoint of a batch, or as part of the one around it.
        self._next: Literal["begin", "savepoint", "join"] = "begin"

    def close(self) -> None:
        """Close the connection, and leave the emptied files of the write-ahead log where they are.

        A user who may only read needs these files. The last connection to close removes them unless it only reads.
        """
        with contextlib.suppress(sqlite3.Error, StoreError):
            self.connection.execute("PRAGMA busy_timeout = 0")
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            with contextlib.closing(connect_readonly(self.path, any_version=True)) as reader:
                reader.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
                self.connection.close()
        self.connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit all that is written inside, or nothing when it raises.

        Inside another transaction it is part of that one. It can be rolled back by itself only in a batch with
        savepoints; otherwise an exception must leave the outermost transaction. Raises MachineError or StoreError
        for SQLite's errors.
        """
        if self._next == "join":
            yield self.connection
            return
        with self._savepoint() if self._next == "savepoint" else self._begin(), self._nested("join"):
            yield self.connection

    @contextlib.contextmanager
    def batch(self, *, savepoints: bool = False) -> Iterator[None]:
        """Make one transaction of all transactions inside; others see it at its end, or never when it raises.

        Very many small transactions cost one commit that way. With savepoints, a transaction that raises is rolled
        back by itself and the batch may go on. Without them, after any exception the caller must let the whole batch
        roll back. Either way, cached state must be invalidated when the batch raises.
        """
        with self.transaction(), self._nested("savepoint" if savepoints else "join"):
            yield
        if not savepoints:
            failpoint("committed")

    @property
    def joins(self) -> bool:
        """Whether a transaction that begins now is part of the one around it, without a savepoint of its own."""
        return self._next == "join"

    @contextlib.contextmanager
    def _nested(self, following: Literal["savepoint", "join"]) -> Iterator[None]:
        before, self._next = self._next, following
        try:
            yield
        finally:
            self._next = before

    @contextlib.contextmanager
    def _begin(self) -> Iterator[None]:
        with store_errors(self.path):
            # IMMEDIATE: a deferred transaction that reads and then writes may find its snapshot stale.
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                failpoint("committing")
                self.connection.execute("COMMIT")
            except BaseException:
                # After SQLITE_FULL and its like SQLite has rolled back already.
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _savepoint(self) -> Iterator[None]:
        if not self.connection.in_transaction:
            raise MachineError(f"{self.path}: the batch was rolled back; nothing more is written to it")
        with store_errors(self.path):
            self.connection.execute("SAVEPOINT part")
            try:
                yield
                failpoint("committing")
                self.connection.execute("RELEASE part")
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK TO part")
                    self.connection.execute("RELEASE part")
                raise

    def read(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """All rows of a query. None is left to fetch: a half-read cursor would pin the write-ahead log."""
        with store_errors(self.path):
            return self.connection.execute(sql, values).fetchall()

    def read_one(self, sql: str, *values: Any) -> Any:
        """The first row of a query as a tuple, None when there is none."""
        rows = self.read(sql, *values)
        return rows[0] if rows else None

    def read_joined(self, sql: str, columns: Sequence[Sequence[Any]], *values: Any) -> list[tuple[Any, ...]]:
        """All rows of a query over the rows of `columns`; see `select_rows`."""
        with store_errors(self.path):
            return list(select_rows(self.connection, sql, columns, *values))

    def written_by_others(self) -> bool:
        """Whether another connection has written to the database since the last call."""
        before, self._data_version = self._data_version, self.read_one("PRAGMA data_version")[0]
        return bool(before != self._data_version)

    def limit_wal(self, most_bytes: int) -> None:
        """Checkpoint the write-ahead log automatically, well before it grows to `most_bytes`."""
        (page_bytes,) = self.read_one("PRAGMA page_size")
        self.read(f"PRAGMA wal_autocheckpoint = {min(_WAL_BYTES, most_bytes // 4) // page_bytes}")

    def wal_bytes(self) -> int:
        """The size of the write-ahead log, which grows while a reader holds an old snapshot."""
        try:
            return self.path.with_name(self.path.name + "-wal").stat().st_size
        except FileNotFoundError:
            return 0

    def checkpoint(self) -> bool:
        """Move the write-ahead log into the database and empty it; False while a reader stands in the way."""
        with store_errors(self.path):
            self.connection.execute("PRAGMA busy_timeout = 0")
            try:
                failpoint("checkpointing")
                busy = self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            finally:
                self.connection.execute(f"PRAGMA busy_timeout = {int(_BUSY_TIMEOUT_S * 1000)}")
        return not busy
