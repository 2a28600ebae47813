"""Commands to the daemon: confirmed by the user, followed to their answer, refused in read-only mode."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path

import pytest
from textual.widgets import Input

from semid_daemon.config import Config
from semid_daemon.daemon.command_server import CommandFiles, CommandServer
from semid_daemon.store.write.store import Store
from semid_tui.widgets.dialogs import ChoiceScreen
from tests.tui.recorded import AppDriver, drive


def requests(config: Config) -> list[tuple[str, dict]]:
    """The commands that wait for the daemon, and their arguments, the oldest first."""
    asked = [json.loads(path.read_text()) for path in sorted(config.commands_dir.glob("[!.]*.json"))]
    return [(command["command"], command["arguments"]) for command in asked]


def answer_all(config: Config) -> None:
    """What the daemon does with commands."""
    with Store(config.database) as store:
        handlers = {"retry": lambda arguments: "1 file is tried again", "pause": lambda arguments: "paused"}
        CommandServer(CommandFiles(config.commands_dir), store, handlers).poll()


async def answer_what_comes(ui: AppDriver, config: Config) -> None:
    await ui.until(lambda: requests(config))
    answer_all(config)


@pytest.mark.slow
def test_retry_one_filtered_all(recorded: Config):
    async def script(ui: AppDriver) -> None:
        await ui.press("4", *["right_square_bracket"] * 4)
        await ui.sees("2 shown")
        await ui.press("down", "R")
        await ui.sees("Try again?", "1 retry broken.npz", "2 retry the 2 filtered files", "3 retry all deferred")
        await ui.press("escape")
        await ui.until(lambda: "Try again?" not in ui.text)
        assert requests(recorded) == []
        await ui.press("R", "1")
        await ui.until(lambda: requests(recorded))
        assert requests(recorded) == [("retry", {"files": ["broken.npz"]})]
        await ui.sees("retry broken.npz · queued")
        answer_all(recorded)
        await ui.sees("queued → accepted → done after", ": 1 file is tried again")
        await ui.press("R", "2")
        await ui.until(lambda: requests(recorded))
        ((_, arguments),) = requests(recorded)
        assert len(arguments["files"]) == 2
        await ui.press("8")
        await ui.sees("retry the 2 filtered files queued")
        answer_all(recorded)
        await ui.sees('retry {"files": ["', "done")

    drive(recorded, script)


@pytest.mark.slow
def test_pause_and_one_that_fails(recorded: Config):
    async def script(ui: AppDriver) -> None:
        await ui.press("P")
        await ui.sees("Pause the daemon after the chunk or step in hand?")
        await ui.press("y")
        await answer_what_comes(ui, recorded)
        await ui.sees("pause · queued → accepted → done after", ": paused")
        with Store(recorded.database) as store:
            store.daemon.set_paused(True)
            store.daemon.heartbeat("paused", "since now")
        await ui.sees("PAUSED")
        await ui.press("P")
        await ui.sees("Resume the daemon's work?")
        await ui.press("1")
        await answer_what_comes(ui, recorded)
        await ui.sees("failed after", "no such command")

    drive(recorded, script)


def test_train_promote_roll_back_name_their_object(recorded: Config):
    async def script(ui: AppDriver) -> None:
        await ui.press("7")
        await ui.sees("fingerprint")
        await ui.press("T")
        await ui.sees("Prepare the next generation", "3 train anew on the whole catalogue")
        await ui.sees("700 items are encoded with it, beside generation 2.", "n no, change nothing")
        await ui.press("3")
        await ui.until(lambda: requests(recorded))
        await ui.press("B")
        await ui.sees("Go back to generation 1?")
        await ui.press("enter")  # the default is no
        await ui.until(lambda: "Go back" not in ui.text)
        await ui.press("B", "y")
        await ui.until(lambda: len(requests(recorded)) == 2)
        await ui.press("A")
        await ui.sees("no generation is ready")
        assert requests(recorded) == [("train", {"from": "anew"}), ("rollback", {"generation": 1})]

    drive(recorded, script)


def test_a_directory_that_may_not_be_written_to_is_told(recorded: Config):
    recorded.commands_dir.rmdir()

    async def script(ui: AppDriver) -> None:
        await ui.press("S")
        await ui.sees("Look at everything in the drop directory anew?")
        await ui.press("1")
        # The message begins with a path, and is broken into lines wherever that ends.
        await ui.until(lambda: any("a command cannot be put there" in toast.message for toast in ui.app._notifications))

    drive(recorded, script)


def state_of(config: Config) -> str:
    """The database's content, and what lies beside it."""
    with Store(config.database) as store:
        dump = "\n".join(store.database.connection.iterdump())
    names = sorted(str(path.relative_to(config.root)) for path in (config.root / "state" / "commands").rglob("*"))
    return hashlib.sha256("\n".join([dump, *names]).encode()).hexdigest()


@pytest.mark.parametrize("size", [(60, 18), (80, 24), (160, 45)], ids="{0[0]}x{0[1]}".format)
def test_a_switch_says_how_many_ids_move(recorded: Config, size: tuple[int, int]):
    with Store(recorded.database) as store:
        values = [("churn", 0, None, 0.5), ("churn", 1, None, 0.25), ("churn", None, None, 0.625)]
        store.comparisons.set(1, 2, [*values, ("error", None, 0.5, 0.4), ("neighbour_recall", 0, 0.9, 0.8)])

    async def script(ui: AppDriver) -> None:
        await ui.press("7")
        await ui.sees("fingerprint")
        await ui.press("B")
        await ui.sees(
            "Go back to generation 1? Every item gets the ID again",
            "62.5% of the IDs move: 40 of 64.",
            "L0 50.0%",
            "L1 25.0%.",
            "On the same rows: error 0.4 → 0.5",
            "L0 0.8 → 0.9.",
            "1 roll back to generation 1",
            "n no, change nothing",
        )
        assert "…" not in "".join(line for line in ui.text.splitlines() if "│" in line)

    drive(recorded, script, size)


KEYS = [
    *"abcdefghijklmnoprstuvwxyz",  # all but q
    *"ABCDEFGHIJKLMNOPRSTUVWXYZ",
    *"0123456789",
    *["slash", "plus", "minus", "question_mark", "left_square_bracket", "right_square_bracket", "less_than_sign"],
    *["greater_than_sign", "space", "enter", "tab", "shift+tab", "up", "down", "left", "right", "home", "end"],
    *["pageup", "pagedown", "delete", "backspace", "colon", "ctrl+p", "f1", "f5"],
]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(1, 9))
def test_no_key_on_any_screen_changes_anything_in_readonly_mode(
    recorded: Config, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Keys that could ask something are followed by enter, which would say yes."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    before = state_of(recorded)

    async def script(ui: AppDriver) -> None:
        app = ui.app
        monkeypatch.setattr(app, "exit", lambda *_: None)
        await ui.sees("codebooks g2")

        async def strike(key: str) -> None:
            app.simulate_key(key)
            await asyncio.sleep(0.004)
            assert not isinstance(app.screen, ChoiceScreen), key

        async def leave_dialogs() -> None:
            await ui.until(lambda: app.screen.is_mounted)
            while len(app.screen_stack) > 1:
                await ui.press("escape")

        for key in KEYS:
            await leave_dialogs()
            if app.shown != number or isinstance(app.focused, Input):
                await app.action_show(number)
                await strike("escape")
            await strike(key)
            if not key.islower() or len(key) > 1:
                await strike("enter")
        await leave_dialogs()
        for action in ("pause", "retry", "rescan", "train", "write", "screenshot"):  # called by name, past the keys
            await app.run_action(action)
            await ui.pilot.pause()
            assert not isinstance(app.screen, ChoiceScreen)
        assert app.gateway.sent == ()

    drive(recorded, script, readonly=True)
    assert state_of(recorded) == before
    assert list((tmp_path / "here").iterdir()) == []
