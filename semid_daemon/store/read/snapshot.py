"""A consistent copy of the database, made while the daemon writes. Standard library only."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from semid_daemon.base.errors import MachineError, StoreError
from semid_daemon.store.read.checks import KEPT
from semid_daemon.store.read.connection import connect_readonly, read_errors

_TIMEOUT_S = 10.0


def copy_database(source: Path, target: Path) -> list[str]:
    """Write a compact copy of one moment of the database to `target`; the fingerprints that it needs.

    `VACUUM INTO` reads one snapshot: the daemon goes on meanwhile, and the copy never starts over. A database of
    another version of semid is copied too. Raises StoreError when the database is missing or damaged, MachineError
    when the copy cannot be written.
    """
    if not source.exists():
        raise StoreError(f"{source}: no database; there is nothing to back up")
    with contextlib.closing(connect_readonly(source, _TIMEOUT_S, any_version=True)) as connection:
        try:
            connection.execute("VACUUM INTO ?", (str(target),))
        except sqlite3.OperationalError as error:
            raise MachineError(f"{source}: cannot be copied: {error}") from error
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{source}: damaged: {error}; run `semid doctor`") from error
    with read_errors(target), contextlib.closing(connect_readonly(target, any_version=True)) as copy:
        found = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise StoreError(f"{source}: damaged: {found}; run `semid doctor`")
        return [name for (name,) in copy.execute(f"SELECT fingerprint FROM _generations WHERE {KEPT}")]
