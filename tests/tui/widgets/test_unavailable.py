"""A database that cannot be read: a screen that explains it, and goes on by itself."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from semid_daemon.config import Config
from semid_daemon.store.layout import SCHEMA_VERSION
from semid_daemon.store.write.store import Store
from tests.tui.recorded import AppDriver, alive, drive, execute


def move(source: Path, target: Path) -> None:
    """A database with what belongs to it."""
    for suffix in ("", "-wal", "-shm"):
        path = source.with_name(source.name + suffix)
        if path.exists():
            shutil.move(path, target.with_name(target.name + suffix))


@pytest.mark.slow
def test_none_yet_then_there_then_gone_then_another(recorded: Config):
    aside = recorded.root / "aside.db"
    move(recorded.database, aside)

    async def script(ui: AppDriver) -> None:
        await ui.sees("No database yet", "no such file", "semid init", "Tried again every second")
        assert "✗ No database yet" in ui.text.splitlines()[0]
        move(aside, recorded.database)
        await ui.sees("codebooks g2")
        move(recorded.database, aside)
        await ui.sees("The database is gone", "was read before")
        for key in "12345678":
            await ui.press("escape", key)
        await ui.press("1")
        assert "The database is gone" in ui.text
        with Store(recorded.database) as store:  # begun anew
            alive(store, "idle")
        await ui.sees("none yet: they come with the first training", "IDLE")

    drive(recorded, script)


def test_locked_then_free(recorded: Config):
    with sqlite3.connect(recorded.database) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    holder = sqlite3.connect(recorded.database, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")

    async def script(ui: AppDriver) -> None:
        await ui.until(lambda: "another program holds its lock" in " ".join(ui.text.split()))
        assert "The database is locked" in ui.text
        holder.execute("ROLLBACK")
        await ui.sees("codebooks g2")

    drive(recorded, script)
    holder.close()


@pytest.mark.parametrize(("version", "says"), [(SCHEMA_VERSION + 1, "upgrade semid here"), (0, "start the new daemon")])
def test_of_another_version(recorded: Config, version: int, says: str):
    execute(recorded, f"PRAGMA user_version = {version}")

    async def script(ui: AppDriver) -> None:
        await ui.sees("A database of another version", f"schema {version}", says)
        execute(recorded, f"PRAGMA user_version = {SCHEMA_VERSION}")
        await ui.sees("codebooks g2")

    drive(recorded, script)


def test_upgraded_while_it_is_open(recorded: Config):
    """A new daemon migrates the database under an old UI."""

    async def script(ui: AppDriver) -> None:
        await ui.sees("codebooks g2")
        execute(recorded, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        await ui.sees("A database of another version")

    drive(recorded, script)


def test_of_another_program(recorded: Config):
    execute(recorded, "PRAGMA application_id = 7")

    async def script(ui: AppDriver) -> None:
        await ui.sees("A database of another program", "paths.state")

    drive(recorded, script)


@pytest.mark.parametrize("content", [b"no database at all, " * 100, b""], ids=["text", "empty"])
def test_damaged(recorded: Config, content: bytes):
    move(recorded.database, recorded.root / "aside.db")
    recorded.database.write_bytes(content)

    async def script(ui: AppDriver) -> None:
        await ui.sees("The database is damaged" if content else "No database yet")

    drive(recorded, script)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_may_not_be_read(recorded: Config):
    recorded.database.chmod(0)

    async def script(ui: AppDriver) -> None:
        await ui.sees("The database cannot be read")
        recorded.database.chmod(0o644)
        await ui.sees("codebooks g2")

    drive(recorded, script)
