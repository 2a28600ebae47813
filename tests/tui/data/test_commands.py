"""The gateway of commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from semid_daemon.base.errors import ConfigError
from semid_daemon.store.read.monitor import CommandState
from semid_tui.data.commands import CommandGateway, ReadOnlyError


def recorded_state(name: str, state: str, answer: str | None = None) -> CommandState:
    return CommandState(name, "retry", "{}", state, "2026-01-01T00:00:00.000Z", None, answer)


def test_a_command_is_followed_from_queued_to_done(tmp_path: Path):
    gateway = CommandGateway(tmp_path, readonly=False)
    sent = gateway.send("retry", {"all": True}, "all files")
    (path,) = tmp_path.glob("[!.]*.json")
    assert json.loads(path.read_text())["arguments"] == {"all": True}
    assert (path.name, sent.state, sent.is_open) == (sent.name, "queued", True)
    assert gateway.update([recorded_state("another.json", "done")]) == ()
    (accepted,) = gateway.update([recorded_state(sent.name, "accepted")])
    assert (accepted.state, accepted.is_open) == ("accepted", True)
    assert gateway.update([recorded_state(sent.name, "accepted")]) == ()
    (done,) = gateway.update([recorded_state(sent.name, "done", "2 files")])
    assert (done.answer, done.is_open, done.sent_s) == ("2 files", False, sent.sent_s)
    assert done.state_s >= sent.sent_s
    assert gateway.sent == (done,)


def test_nothing_is_sent_in_readonly_mode(tmp_path: Path):
    gateway = CommandGateway(tmp_path, readonly=True)
    with pytest.raises(ReadOnlyError, match="read-only"):
        gateway.send("retry", {"all": True})
    assert list(tmp_path.iterdir()) == []
    assert gateway.sent == ()


def test_a_directory_that_cannot_be_written_is_an_error(tmp_path: Path):
    gateway = CommandGateway(tmp_path / "none", readonly=False)
    with pytest.raises(ConfigError, match="a command cannot be put there"):
        gateway.send("retry", {"all": True})
    assert gateway.sent == ()
