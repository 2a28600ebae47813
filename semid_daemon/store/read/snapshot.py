"""A consistent copy of the database, made while the daemon writes. Standard library only."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from semid_daemon.base.errors import MachineError, StoreError
from semid_daemon.store.read.checks import KEPT


def copy_database(source: Path, target: Path) -> list[str]:
    """Write a compact copy of one moment of the database to `target`; the fingerprints that it needs.

    `VACUUM INTO` reads one snapshot: the daemon goes on meanwhile, and the copy never starts over.
    Raises StoreError when the database is missing or damaged, MachineError when the copy cannot be written.
    """
    if not source.exists():
        raise StoreError(f"{source}: no database; there is nothing to back up")
    try:
        with contextlib.closing(
            sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=10)
        ) as connection:
            connection.execute("VACUUM INTO ?", (str(target),))
        with contextlib.closing(sqlite3.connect(f"{target.absolute().as_uri()}?mode=ro", uri=True)) as copy:
            found = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise StoreError(f"{source}: damaged: {found}; run `semid doctor`")
            return [name for (name,) in copy.execute(f"SELECT fingerprint FROM _generations WHERE {KEPT}")]
    except sqlite3.OperationalError as error:
        raise MachineError(f"{source}: cannot be copied: {error}") from error
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{source}: damaged: {error}; run `semid doctor`") from error
