"""Bringing a database of an earlier semid up to date: a copy of it first, then the migrations that are missing."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path

from sqlite_utils import Database

from semid_daemon.base.atomic_file import atomic_write
from semid_daemon.base.errors import MachineError
from semid_daemon.base.failpoints import failpoint
from semid_daemon.store.schema import SCHEMA_VERSION, migrations

_log = logging.getLogger("semid")
_OPERATIONS = 200_000  # of SQLite between two signs of life

Alive = Callable[[str], None]


def former_database(path: Path, version: int) -> Path:
    """Where the copy of a database is kept that was of schema `version` before it was upgraded."""
    return path.with_name(f"{path.stem}-schema-{version}{path.suffix}")


def upgrade(connection: sqlite3.Connection, path: Path, version: int, alive: Alive) -> None:
    """Migrate a database of schema `version`, 0 for a new one. `alive` is told now and then that it goes on.

    Each migration is one transaction: after a kill at any moment the database is whole, of the former schema or
    of a later one, and the next start goes on. Raises MachineError when the copy cannot be written.
    """
    doing = f"upgrading the database from schema {version} to {SCHEMA_VERSION}"
    connection.set_progress_handler(lambda: alive(doing), _OPERATIONS)
    try:
        if version:
            former = former_database(path, version)
            _log.info("%s: %s; a copy of what it was comes first: %s", path, doing, former)
            _copy(connection, former)
        failpoint("upgrading")
        migrations.apply(Database(connection, execute_plugins=False))
    finally:
        connection.set_progress_handler(None, 0)
    if version:
        _log.info("%s: upgraded; remove %s when you are sure to stay with this version", path, former.name)


def _copy(connection: sqlite3.Connection, target: Path) -> None:
    """A whole copy or none: also over one that an upgrade left that was interrupted."""
    try:
        with atomic_write(target) as stream:  # empty so far, as VACUUM INTO wants it
            connection.execute("VACUUM INTO ?", (stream.name,))
    except (OSError, sqlite3.OperationalError) as error:
        raise MachineError(
            f"{target}: the copy before an upgrade cannot be written: {error}; it takes as much space as the database"
        ) from error
