"""Databases of earlier versions: each opens, is what it was, and is upgraded after a copy of it is safe."""

from __future__ import annotations

import gzip
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from semid_daemon.base.errors import MachineError
from semid_daemon.store import schema
from semid_daemon.store.layout import SCHEMA_VERSION
from semid_daemon.store.read.checks import check_database
from semid_daemon.store.read.status import read_status
from semid_daemon.store.write import database as opening
from semid_daemon.store.write import upgrade
from semid_daemon.store.write.store import Store
from semid_daemon.store.write.upgrade import former_database

RELEASES = sorted((Path(__file__).parents[2] / "data" / "releases").glob("*.db.gz"))


def unpacked(release: Path, directory: Path) -> Path:
    path = directory / "semid.db"
    path.write_bytes(gzip.decompress(release.read_bytes()))
    return path


def query(path: Path, sql: str) -> list[tuple]:
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def test_every_released_schema_has_its_database():
    assert f"{version('semid')}-schema-{SCHEMA_VERSION}.db.gz" in [path.name for path in RELEASES]
    assert {int(path.name.split("-schema-")[1].split(".")[0]) for path in RELEASES} == set(range(1, SCHEMA_VERSION + 1))


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_a_released_database_is_what_it_was(release: Path, tmp_path: Path):
    path = unpacked(release, tmp_path)
    before = query(path, "SELECT item_id, semantic_id, suffix FROM semantic_ids ORDER BY item_id")
    Store(path).close()
    assert query(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
    assert query(path, "SELECT item_id, semantic_id, suffix FROM semantic_ids ORDER BY item_id") == before
    assert len(before) == 150
    assert check_database(path).faults == []
    assert read_status(path).files == {"pending": 0, "loading": 0, "done": 2, "rejected": 1, "deferred": 0}


def test_the_newest_fixture_is_of_this_schema(tmp_path: Path):
    """A change of the schema without a new version, or without its database made anew, fails here."""
    path = unpacked(RELEASES[-1], tmp_path)
    Store(tmp_path / "new.db").close()
    objects = "SELECT type, name, sql FROM sqlite_schema ORDER BY type, name"
    assert query(path, objects) == query(tmp_path / "new.db", objects), (
        "the schema has changed: write a migration; before its version is released, `python tests/store/releases.py`"
    )


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Database], None]], None]:
    """Makes this code one that knows a further migration, as the next version will."""

    def know(migration: Callable[[Database], None]) -> None:
        migrations = Migrations("semid")
        for name, function in vars(schema).items():
            if name.startswith("m0"):
                migrations()(function)
        migrations()(migration)
        monkeypatch.setattr(upgrade, "migrations", migrations)
        for module in (upgrade, opening):
            monkeypatch.setattr(module, "SCHEMA_VERSION", SCHEMA_VERSION + 1)

    return know


def m999_colour(db: Database) -> None:
    db.execute("ALTER TABLE _chunks ADD COLUMN colour TEXT")
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")


def test_a_copy_is_made_before_an_upgrade(tmp_path: Path, later, caplog: pytest.LogCaptureFixture):
    path = unpacked(RELEASES[-1], tmp_path)
    later(m999_colour)
    told: list[str] = []
    caplog.set_level("INFO")
    Store(path, told.append).close()
    former = former_database(path, SCHEMA_VERSION)
    assert former.name == f"semid-schema-{SCHEMA_VERSION}.db"
    assert query(path, "PRAGMA user_version") == [(SCHEMA_VERSION + 1,)]
    assert query(path, "SELECT count(*) > 0, count(colour) FROM _chunks") == [(1, 0)]
    assert query(former, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
    assert check_database(former).faults == []
    assert f"remove {former.name} when you are sure" in caplog.text
    Store(path).close()  # and no second time
    assert sorted(each.name for each in tmp_path.iterdir() if each.suffix == ".db") == [former.name, "semid.db"]


def test_an_upgrade_that_fails_leaves_what_was(tmp_path: Path, later):
    path = unpacked(RELEASES[-1], tmp_path)

    def m999_half(db: Database) -> None:
        m999_colour(db)
        raise RuntimeError("half way")

    later(m999_half)
    with pytest.raises(RuntimeError, match="half way"):
        Store(path)
    assert query(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
    assert check_database(path).faults == []
    later(m999_colour)
    Store(path).close()
    assert query(path, "SELECT count(*) > 0, count(colour) FROM _chunks") == [(1, 0)]


def test_without_room_for_the_copy_nothing_is_upgraded(tmp_path: Path, later):
    path = unpacked(RELEASES[-1], tmp_path)
    later(m999_colour)
    former_database(path, SCHEMA_VERSION).mkdir()
    with pytest.raises(MachineError, match="the copy before an upgrade cannot be written"):
        Store(path)
    assert query(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_the_fixture_can_be_made_anew(tmp_path: Path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from tests.store import releases; from pathlib import Path\n"
        "releases.make(Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parents[3]), str(tmp_path / "x.db.gz")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert query(unpacked(tmp_path / "x.db.gz", tmp_path), "SELECT count(*) FROM semantic_ids") == [(150,)]
