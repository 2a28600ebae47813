"""Opening the database for the one connection that writes, and that connection's transactions."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlite_utils import Database

from semid_daemon.base.errors import MachineError, StoreError
from semid_daemon.base.failpoints import failpoint
from semid_daemon.store.schema import APPLICATION_ID, SCHEMA_VERSION
from semid_daemon.store.write.upgrade import Alive, upgrade

_BUSY_TIMEOUT_S = 10.0
_CHECK_AT_START_S = 1.0
_CHECKED_BYTES = 128 << 20  # of a database that is checked as a whole at start
_LARGE_TABLES = {"_items", "_buckets", "_metrics"}
# Of a new database. Rows go to random pages of two indexes, and a commit costs by the page more than by the byte.
_PAGE_BYTES = 1 << 14
_WAL_KEPT_BYTES = 64 << 20  # what is left of the write-ahead log's file once it has been checkpointed
_WAL_BYTES = 256 << 20  # how far it grows before it is checkpointed: pages that many chunks change are moved once
_CACHE_BYTES = 256 << 20  # of pages; taken as they are read
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
    """Turn SQLite's errors into StoreError (damage) or MachineError (for now); mistakes of ours stay what they are."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # of an extended code, the kind
        if code in _DAMAGE:
            raise StoreError(f"{path}: damaged: {error}; stop the daemon and restore a backup") from error
        if code in _MACHINE:
            raise MachineError(f"{path}: {_MACHINE[code]} ({error})") from error
        raise


def connect_writer(path: Path, alive: Alive) -> Database:
    """Open the database for the one writing connection: WAL, FULL, migrated, checked; see `upgrade` for `alive`.

    Raises StoreError when the file is not a semid database, is damaged, or was written by a newer
    semid; MachineError when the machine does not let us.
    """
    with store_errors(path):
        # isolation_level=None: transactions begin and end only where this room says so.
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
            database = Database(connection, execute_plugins=False)
            if version < SCHEMA_VERSION:
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                upgrade(connection, path, version, alive)
        except BaseException:
            connection.close()
            raise
    return database


def check_version(connection: sqlite3.Connection, path: Path) -> int:
    """The schema's version, 0 for a new database; refuse one that this code must not touch.

    Raises StoreError when it is not a semid database, is damaged, or was written by a newer semid.
    """
    with store_errors(path):
        application_id = int(connection.execute("PRAGMA application_id").fetchone()[0])
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        tables = int(connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0])
    if application_id != APPLICATION_ID and (application_id or version or tables):
        raise StoreError(f"{path}: a database of another program; choose another paths.state")
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path}: written by a newer semid (schema {version}, this one knows {SCHEMA_VERSION});"
            " upgrade semid, or restore a backup made before"
        )
    return version


def _check_quickly(connection: sqlite3.Connection, path: Path) -> None:
    """Look for damage for about a second: all of a small database, of a large one all but the tables that grow most.

    `semid doctor` checks it all.
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


class Transactions:
    """The writing connection. Every public method of its subclasses is one transaction, or part of none."""

    def __init__(self, path: Path, alive: Alive = lambda doing: None) -> None:
        self._path = path
        self._database = connect_writer(path, alive)
        self._connection: sqlite3.Connection = self._database.conn
        self._data_version = self._read_one("PRAGMA data_version")[0]
        self._together = False
        self._at_once = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it, and leave the write-ahead log's files, emptied, where they are.

        Whoever may only read needs them to be there. The last connection to close removes them unless it
        only reads.
        """
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("PRAGMA busy_timeout = 0")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            with contextlib.closing(
                sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
            ) as reader:
                reader.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
                self._connection.close()
        self._connection.close()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """All that is written inside is one transaction: all of it, or nothing when anything raises.

        Very many small writes cost one commit that way. Nothing of it is seen by others before the end, and what is
        remembered of the database must be forgotten when this raises.
        """
        with self._transaction():
            self._together = True
            try:
                yield
            finally:
                self._together = False

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """All that is written inside is one transaction, or one part of what is written together.

        Unlike there, none of it can be taken back by itself: what raises must leave. What is remembered of the
        database must be forgotten then.
        """
        with self._transaction():
            self._at_once = True
            try:
                yield
            finally:
                self._at_once = False
        failpoint("committed")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        if self._at_once:
            yield self._connection
            return
        if self._together:
            with self._part():
                yield self._connection
            return
        with store_errors(self._path):
            # IMMEDIATE: sqlite-utils' atomic() begins deferred, where a read then a write may find the
            # snapshot stale.
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                failpoint("committing")
                self._connection.execute("COMMIT")
            except BaseException:
                # After SQLITE_FULL and its like SQLite has rolled back already.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _part(self) -> Iterator[None]:
        """A transaction that is part of a larger one: what raises inside takes this part back."""
        if not self._connection.in_transaction:
            raise MachineError(f"{self._path}: what was to be written together was taken back")
        with store_errors(self._path):
            self._connection.execute("SAVEPOINT part")
            try:
                yield
                failpoint("committing")
                self._connection.execute("RELEASE part")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK TO part")
                    self._connection.execute("RELEASE part")
                raise

    def _read(self, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        # All at once: a half-read cursor would pin the write-ahead log.
        with store_errors(self._path):
            return self._connection.execute(sql, values).fetchall()

    def _read_one(self, sql: str, values: tuple[Any, ...] = ()) -> Any:
        rows = self._read(sql, values)
        return rows[0] if rows else None

    def written_by_others(self) -> bool:
        """Whether another connection has written to the database since this was last asked."""
        before, self._data_version = self._data_version, self._read_one("PRAGMA data_version")[0]
        return bool(before != self._data_version)

    def limit_wal(self, most_bytes: int) -> None:
        """Have the write-ahead log checkpointed well before it comes to a size."""
        (page_bytes,) = self._read_one("PRAGMA page_size")
        self._read(f"PRAGMA wal_autocheckpoint = {min(_WAL_BYTES, most_bytes // 4) // page_bytes}")

    def wal_bytes(self) -> int:
        """The size of the write-ahead log, which grows while some reader holds an old snapshot."""
        try:
            return self._path.with_name(self._path.name + "-wal").stat().st_size
        except FileNotFoundError:
            return 0

    def checkpoint(self) -> bool:
        """Move the write-ahead log into the database and empty it; False while a reader stands in the way."""
        with store_errors(self._path):
            self._connection.execute("PRAGMA busy_timeout = 0")
            try:
                failpoint("checkpointing")
                busy = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            finally:
                self._connection.execute(f"PRAGMA busy_timeout = {int(_BUSY_TIMEOUT_S * 1000)}")
        return not busy
