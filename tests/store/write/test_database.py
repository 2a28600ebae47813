"""Opening the database, and its transactions: each commits all that is written inside, or nothing."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from semid_daemon.base.errors import MachineError, StoreError
from semid_daemon.store.write import database
from semid_daemon.store.write.store import Store


def names(store: Store) -> list[str]:
    return [name for (name,) in store.database.read("SELECT name FROM _sightings ORDER BY id")]


def test_one_commit_for_all_that_others_see_at_its_end(store: Store, tmp_path: Path):
    statements: list[str] = []
    store.database.connection.set_trace_callback(statements.append)
    with (
        sqlite3.connect(f"file:{tmp_path}/semid.db?mode=ro", uri=True) as reader,
        store.database.batch(savepoints=True),
    ):
        store.files.record_sighting("a", "s", "d1", 1)
        store.files.record_sighting("b", "s", "d2", 1)
        assert reader.execute("SELECT count(*) FROM _files").fetchone() == (0,)
    assert reader.execute("SELECT count(*) FROM _files").fetchone() == (2,)
    reader.close()
    assert statements.count("COMMIT") == 1
    assert names(store) == ["a", "b"]


def test_what_raises_takes_all_back(store: Store):
    def write() -> None:
        with store.database.batch(savepoints=True):
            store.files.record_sighting("a", "s", "d1", 1)
            raise OSError("no")

    with pytest.raises(OSError, match="no"):
        write()
    assert names(store) == []
    store.files.record_sighting("b", "s", "d2", 1)  # and the next one is a transaction of its own again
    assert names(store) == ["b"]


def test_a_part_that_fails_takes_only_itself_back(store: Store):
    with store.database.batch(savepoints=True):
        store.files.record_sighting("a", "s", "d1", 1)
        with pytest.raises(sqlite3.IntegrityError):
            store.telemetry.add_events([("info", "fine"), ("none such", "breaks a rule")])
        store.files.record_sighting("b", "s", "d2", 1)
    assert names(store) == ["a", "b"]
    assert store.database.read("SELECT count(*) FROM _events") == [(0,)]


def test_after_sqlite_has_taken_back_all_nothing_more_is_written(store: Store):
    """As on a full disk: the transaction is gone, and what would follow must not be a transaction of its own."""

    def write() -> None:
        with store.database.batch(savepoints=True):
            store.files.record_sighting("a", "s", "d1", 1)
            store.database.connection.execute("ROLLBACK")
            store.files.record_sighting("b", "s", "d2", 1)

    with pytest.raises(MachineError, match="rolled back"):
        write()
    assert names(store) == []


def test_a_batch_without_savepoints_is_one_transaction(store: Store):
    statements: list[str] = []
    store.database.connection.set_trace_callback(statements.append)
    with store.database.batch():
        store.files.record_sighting("a", "s", "d1", 1)
        store.telemetry.add_events([("info", "fine")])
    transaction = [text.split()[0] for text in statements if text.startswith(("BEGIN", "COMMIT", "SAVEPOINT"))]
    assert transaction == ["BEGIN", "COMMIT"]
    assert names(store) == ["a"]


def test_a_batch_within_a_batch_takes_only_itself_back(store: Store):
    def write() -> None:
        with store.database.batch():
            store.files.record_sighting("b", "s", "d2", 1)
            raise OSError("no")

    with store.database.batch(savepoints=True):
        store.files.record_sighting("a", "s", "d1", 1)
        with pytest.raises(OSError, match="no"):
            write()
        store.files.record_sighting("c", "s", "d3", 1)
    assert names(store) == ["a", "c"]


def test_another_programs_database_is_refused(tmp_path: Path):
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(StoreError, match="another program"):
        Store(path)


def test_a_newer_database_is_refused(tmp_path: Path):
    path = tmp_path / "semid.db"
    Store(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="newer semid"):
        Store(path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path):
    path = tmp_path / "semid.db"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match="backup"):
        Store(path)


def test_a_large_database_is_checked_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is left out at start is what grows with the items."""
    path = tmp_path / "semid.db"
    Store(path).close()
    monkeypatch.setattr(database, "_CHECKED_BYTES", 0)
    opened = sqlite3.connect(path)
    statements: list[str] = []
    opened.set_trace_callback(statements.append)
    database._check_quickly(opened, path)
    opened.close()
    checked = [statement for statement in statements if "quick_check" in statement]
    assert any("_files" in check for check in checked)
    assert not any("_items" in check for check in checked)
