"""The app around the screens: freezing, help, palette, copying and saving, badges."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from semid_daemon.config import Config
from semid_daemon.store.write.store import Store
from tests.tui.recorded import ITEMS, AppDriver, drive


def test_badge_and_age_come_first_down_to_60_columns(recorded: Config):
    async def script(ui: AppDriver) -> None:
        await ui.sees("codebooks")
        assert re.match(r"semid RO ● \d\.\ds ENCODE g2 48\.1k/s ETA 38m10s", ui.text)
        await ui.press("p")
        await ui.sees("semid RO FROZEN ●")

    drive(recorded, script, (60, 18), readonly=True)


def test_what_changes_appears(recorded: Config):
    async def script(ui: AppDriver) -> None:
        await ui.sees("rejected 2")
        with Store(recorded.database) as store:
            store.files.reject(store.files.record_sighting("worse.npz", "sig", "x", 10).id, "no vectors")
            store.telemetry.add_events([("info", "something new")])
            await ui.sees("rejected 3", "worse.npz", "something new")
            await ui.press("p")
            await ui.sees("FROZEN")
            store.telemetry.add_events([("info", "something newer")])
            await ui.pilot.pause(0.3)
            assert "something newer" not in ui.text
            await ui.press("p")
            await ui.sees("something newer")

    drive(recorded, script)


def test_help_is_made_of_the_bindings(recorded: Config):
    async def script(ui: AppDriver) -> None:
        await ui.press("4", "question_mark")
        await ui.sees("on this screen", "Order", "[ ]  Status", "space  Follow", "everywhere", "R  Retry", "?  Help")
        lines = [line.strip("│ ") for line in ui.text.splitlines()]
        screens, commands = lines.index("screens"), lines.index("to the daemon, after a question")
        assert "2  Train" in lines[screens:]
        assert "5  Lookup" in lines[screens:]
        assert "T  Train the next generation" in lines[commands : lines.index("everywhere")]
        assert "tab  Next part" in lines
        assert "^q" not in ui.text
        await ui.press("escape")
        await ui.until(lambda: "everywhere" not in ui.text)

    drive(recorded, script, (80, 60))


def test_every_action_is_in_the_palette(recorded: Config):
    async def script(ui: AppDriver) -> None:
        await ui.sees("codebooks")
        names = {command.title for command in ui.app.get_system_commands(ui.app.screen)}
        assert {
            "Overview",
            "Files",
            "Lookup",
            "Pause/resume",
            "Retry",
            "Freeze",
            "Screenshot",
            "Theme",
            "Help",
        } <= names
        await ui.press("ctrl+p")
        await ui.until(lambda: "Search" in ui.text)
        await ui.press(*"Generations")
        await ui.sees("key 7")
        await ui.press("enter")
        await ui.sees("fingerprint")

    drive(recorded, script)


def test_copy_write_screenshot_maximize(recorded: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMUX", "/tmp/tmux-0/default,1,0")

    async def script(ui: AppDriver) -> None:
        await ui.press("slash", *"item-7", "escape", "y")
        await ui.sees("copied", "set-clipboard on")
        assert re.fullmatch(r"\d+-\d+-\d+", ui.app.clipboard)
        await ui.press("4", "w")
        await ui.until(lambda: list(tmp_path.glob("semid-files-*.tsv")))
        (written,) = tmp_path.glob("semid-files-*.tsv")
        assert f"items-a.parquet\tdone\t{ITEMS}" in written.read_text()
        assert "\x1b" not in written.read_text()
        await ui.press("s")
        await ui.until(lambda: list(tmp_path.glob("semid-*.svg")))
        await ui.press("1", "tab", "m")
        await ui.until(lambda: ui.app.screen.maximized is not None)
        await ui.press("m")
        await ui.until(lambda: ui.app.screen.maximized is None)

    drive(recorded, script)
