"""The one connection that reads only: what it refuses, what it holds, and how it is interrupted."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from semid_daemon.store.layout import SCHEMA_VERSION
from semid_daemon.store.read.connection import (
    InterruptedReadError,
    ReadConnection,
    UnavailableError,
    connect_readonly,
)
from semid_daemon.store.write.store import Store

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "semid.db"
    Store(path).close()
    return path


def execute(path: Path, sql: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(sql)
    connection.close()


def test_it_cannot_write(database: Path):
    with ReadConnection(database) as connection, pytest.raises(UnavailableError, match="readonly"):
        connection.rows("DELETE FROM _events")


@pytest.mark.parametrize(
    ("sql", "title"),
    [
        ("PRAGMA application_id = 7", "A database of another program"),
        (f"PRAGMA user_version = {SCHEMA_VERSION + 1}", "A database of another version"),
        ("PRAGMA user_version = 0", "A database of another version"),
    ],
)
def test_what_another_wrote_is_refused(database: Path, sql: str, title: str):
    execute(database, sql)
    with pytest.raises(UnavailableError) as raised:
        ReadConnection(database)
    assert raised.value.title == title
    assert str(raised.value) == f"{raised.value.message}; {raised.value.remedy}"
    connect_readonly(database, any_version=True).close()


def test_a_migration_under_an_open_connection_is_noticed(database: Path):
    with ReadConnection(database) as connection:
        connection.check_version()
        execute(database, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        with pytest.raises(UnavailableError, match="upgrade semid here"):
            connection.check_version()


def test_missing_empty_and_damaged(tmp_path: Path):
    path = tmp_path / "semid.db"
    with pytest.raises(UnavailableError, match="no database yet .*`semid init`"):
        ReadConnection(path)
    path.write_bytes(b"")
    with pytest.raises(UnavailableError, match="empty; start `semid run`"):
        ReadConnection(path)
    path.write_bytes(b"no database at all, " * 100)
    with pytest.raises(UnavailableError, match="damaged: .*restore a backup"):
        ReadConnection(path)


def test_a_snapshot_stays_at_one_moment_and_may_be_nested(database: Path):
    add = "INSERT INTO _events (at, level, message) VALUES ('2026-01-01T00:00:00.000Z', 'info', 'x')"
    count = "SELECT count(*) FROM _events"
    with ReadConnection(database) as connection:
        (before,) = connection.row(count)
        with connection.snapshot():
            assert connection.row(count) == (before,)
            version = connection.data_version()
            execute(database, add)
            with connection.snapshot():
                assert connection.row(count) == (before,)
            assert connection.row(count) == (before,)  # the inner one has not ended it
        assert connection.row(count) == (before + 1,)
        assert connection.data_version() != version
        with pytest.raises(ZeroDivisionError), connection.snapshot():
            raise ZeroDivisionError
        execute(database, add)
        assert connection.row(count) == (before + 2,)


def test_rows_come_in_lists_of_the_size_asked_for(database: Path):
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT i FROM n"
    with ReadConnection(database) as connection:
        found = list(connection.iterate(numbers, 7, fetched=3))
        assert [len(rows) for rows in found] == [3, 3, 1]
        assert [number for rows in found for (number,) in rows] == list(range(1, 8))
        assert connection.first("SELECT 1 WHERE ? = 2", 1) is None


def test_it_tells_the_file_that_was_opened_from_another_of_its_name(database: Path):
    with ReadConnection(database) as connection:
        assert connection.is_current()
        database.rename(database.with_name("aside.db"))
        assert not connection.is_current()
        Store(database).close()
        assert not connection.is_current()


def test_a_call_is_interrupted_from_another_thread(database: Path):
    with ReadConnection(database) as connection, connection.snapshot():
        timer = threading.Timer(0.1, connection.interrupt)
        timer.start()
        with pytest.raises(InterruptedReadError):
            connection.rows(ENDLESS)
        timer.join()
        assert connection.row("SELECT 1") == (1,)
