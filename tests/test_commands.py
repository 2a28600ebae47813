"""Commands to the daemon: files renamed into a directory, carried out once each, recorded, never trusted."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from semid_daemon.commands import MAX_BYTES, CommandDesk, CommandError, answer_of, submit
from semid_daemon.errors import ConfigError
from semid_daemon.store.writer import Writer


@pytest.fixture
def desk(tmp_path: Path):
    """A desk that knows `greet`, and what it was asked."""
    asked: list[object] = []

    def greet(arguments):
        asked.append(arguments)
        if "whom" not in arguments:
            raise CommandError("whom?")
        return f"hello {arguments['whom']}"

    (tmp_path / "commands").mkdir()
    with Writer(tmp_path / "semid.db") as writer:
        desk = CommandDesk(tmp_path / "commands", writer, {"greet": greet})
        desk.asked = asked
        desk.directory = tmp_path / "commands"
        desk.writer = writer
        yield desk


def recorded(desk) -> list[tuple]:
    return desk.writer._read("SELECT command, arguments, state, answer FROM commands ORDER BY requested_at, rowid")


def test_asked_carried_out_answered(desk, tmp_path: Path):
    name = submit(desk.directory, "greet", {"whom": "numpy"})
    assert answer_of(tmp_path / "semid.db", name, timeout_s=0) is None
    desk.serve()
    assert answer_of(tmp_path / "semid.db", name) == ("done", "hello numpy")
    assert recorded(desk) == [("greet", '{"whom": "numpy"}', "done", "hello numpy")]
    assert list(desk.directory.iterdir()) == []
    desk.serve()
    assert len(desk.asked) == 1


def test_refused_by_its_handler(desk):
    submit(desk.directory, "greet", {})
    desk.serve()
    assert recorded(desk) == [("greet", "{}", "failed", "whom?")]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting"),
        (b"[1]", "not an object"),
        (b'{"command": 7}', "not an object like"),
        (b'{"command": "greet", "arguments": [1]}', "arguments: not an object"),
        (b'{"command": "dance", "arguments": {}}', "no such command; there are greet"),
        (b"\xff\xfe{", "decode"),
        (b"[" * 100_000, "recursion"),
        (b" " * (MAX_BYTES + 1), "larger than"),
    ],
    ids=["empty", "cut", "list", "number", "arguments", "unknown", "bytes", "deep", "large"],
)
def test_nonsense_is_recorded_and_removed(desk, content: bytes, says: str):
    (desk.directory / "nonsense.json").write_bytes(content)
    submit(desk.directory, "greet", {"whom": "others"})
    desk.serve()
    answers = recorded(desk)
    assert [answer for _, _, state, answer in answers if state == "done"] == ["hello others"]
    (failed,) = [answer for _, _, state, answer in answers if state == "failed"]
    assert says in failed
    assert list(desk.directory.iterdir()) == []


def test_things_that_are_no_files(desk):
    os.mkfifo(desk.directory / "pipe.json")
    os.symlink("/etc/hostname", desk.directory / "link.json")
    (desk.directory / "directory.json").mkdir()
    (desk.directory / ".unfinished.json.tmp").write_text("{")
    desk.serve()
    desk.serve()
    assert sorted(path.name for path in desk.directory.iterdir()) == [".unfinished.json.tmp", "directory.json"]
    assert [state for _, _, state, _ in recorded(desk)] == ["failed"] * 3
    assert desk.asked == []


def test_carried_out_again_after_a_crash_in_between_but_not_after_the_answer(desk):
    name = submit(desk.directory, "greet", {"whom": "a"})
    content = (desk.directory / name).read_bytes()
    desk.writer.accept_command(name, "greet", "{}", json.loads(content)["requested_at"])  # then the process died
    desk.serve()
    assert len(desk.asked) == 1
    (desk.directory / name).write_bytes(content)  # the process died before it was removed
    desk.serve()
    assert len(desk.asked) == 1
    assert list(desk.directory.iterdir()) == []


def test_a_directory_that_is_not_there(tmp_path: Path, desk):
    with pytest.raises(ConfigError, match="semid init"):
        submit(tmp_path / "nowhere", "greet", {})
    desk.directory.rmdir()
    desk.serve()
