"""Commands to the daemon: files renamed into a directory, carried out once each, recorded, never trusted."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semid_daemon.base.errors import ConfigError, MachineError, SemidError
from semid_daemon.command_client import send_command, wait_for_answer
from semid_daemon.daemon.command_server import MAX_BYTES, CommandError, CommandFiles, CommandServer
from semid_daemon.daemon.service import Service
from semid_daemon.daemon.state_lock import make_directories
from semid_daemon.runtime.context import WorkContext
from semid_daemon.runtime.progress import PlainProgress
from semid_daemon.store.write.store import Store
from tests.faults.tools import configured


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
    with Store(tmp_path / "semid.db") as store:
        desk = CommandServer(CommandFiles(tmp_path / "commands"), store, {"greet": greet})
        desk.asked = asked
        desk.directory = tmp_path / "commands"
        desk.store = store
        yield desk


def recorded(desk) -> list[tuple]:
    return desk.store.database.read(
        "SELECT command, arguments, state, answer FROM commands ORDER BY requested_at, rowid"
    )


def test_asked_carried_out_answered(desk, tmp_path: Path):
    name = send_command(desk.directory, "greet", {"whom": "numpy"})
    assert wait_for_answer(tmp_path / "semid.db", name, timeout_s=0) is None
    desk.poll()
    assert wait_for_answer(tmp_path / "semid.db", name) == ("done", "hello numpy")
    assert recorded(desk) == [("greet", '{"whom": "numpy"}', "done", "hello numpy")]
    assert list(desk.directory.iterdir()) == []
    desk.poll()
    assert len(desk.asked) == 1


def test_refused_by_its_handler(desk):
    send_command(desk.directory, "greet", {})
    desk.poll()
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
    send_command(desk.directory, "greet", {"whom": "others"})
    desk.poll()
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
    desk.poll()
    desk.poll()
    assert sorted(path.name for path in desk.directory.iterdir()) == [".unfinished.json.tmp", "directory.json"]
    assert [state for _, _, state, _ in recorded(desk)] == ["failed"] * 3
    assert desk.asked == []


def test_carried_out_again_after_a_crash_in_between_but_not_after_the_answer(desk):
    name = send_command(desk.directory, "greet", {"whom": "a"})
    content = (desk.directory / name).read_bytes()
    desk.store.commands.accept(name, "greet", "{}", json.loads(content)["requested_at"])  # then the process died
    desk.poll()
    assert len(desk.asked) == 1
    (desk.directory / name).write_bytes(content)  # the process died before it was removed
    desk.poll()
    assert len(desk.asked) == 1
    assert list(desk.directory.iterdir()) == []


def test_a_directory_that_is_not_there(tmp_path: Path, desk):
    with pytest.raises(ConfigError, match="semid init"):
        send_command(tmp_path / "nowhere", "greet", {})
    desk.directory.rmdir()
    desk.poll()


def test_half_characters_are_recorded_and_harm_nobody(desk):
    (desk.directory / "1.json").write_text('{"command": "\\ud800", "requested_at": "1\\udfff"}')
    (desk.directory / "2.json").write_text(
        '{"command": "greet", "arguments": {"whom": "\\udcff.npy", "\\ud800": ["\\ud800"]}, "requested_at": "2"}'
    )
    desk.poll()
    (_, _, state, _), (_, _, greeted, answer) = recorded(desk)
    assert (state, greeted, answer) == ("failed", "done", "hello \\udcff.npy")
    assert desk.store.database.read("SELECT name, requested_at FROM _commands")[0] == ("1.json", "1\\udfff")
    assert list(desk.directory.iterdir()) == []


def test_what_is_recorded_is_bounded(desk):
    send_command(desk.directory, "c" * 1000, {})
    send_command(desk.directory, "greet", {"whom": "w" * 100_000})
    desk.poll()
    lengths = desk.store.database.read(
        "SELECT length(command), length(arguments), length(answer) FROM _commands ORDER BY id"
    )
    assert [lengths[0][0], *lengths[1][1:]] == [100, 10_000, 10_000]


def test_the_machines_errors_are_answers(desk):
    def failing(arguments):
        raise OSError(5, "Input/output error")

    desk._handlers = {"greet": failing}
    send_command(desk.directory, "greet", {"whom": "a"})
    desk.poll()
    ((_, _, state, answer),) = recorded(desk)
    assert state == "failed"
    assert "Input/output error" in answer


def test_what_is_stuck_is_read_once_and_blocks_nobody(desk, caplog):
    for number in range(120):
        (desk.directory / f"0{number:03}.json").mkdir()
    send_command(desk.directory, "greet", {"whom": "numpy"})
    open_before = len(os.listdir("/proc/self/fd"))
    desk.poll()
    desk.poll()
    assert len(os.listdir("/proc/self/fd")) == open_before
    assert desk.asked == [{"whom": "numpy"}]
    desk.poll()
    assert len([record for record in caplog.records if "cannot be removed" in record.message]) == 120
    (desk.directory / "0000.json").rmdir()
    desk.poll()
    assert len(desk._files._stuck) == 119


def test_a_directory_that_cannot_be_read_is_told_once(desk, caplog):
    desk._files._directory = desk.directory / "file"
    desk._files._directory.write_text("")
    desk.poll()
    desk.poll()
    assert [record.message for record in caplog.records if "commands wait" in record.message] == [
        f"{desk._files._directory}: cannot be read: Not a directory; commands wait"
    ]


def test_a_link_to_a_command_is_not_carried_out(desk, tmp_path: Path):
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text('{"command": "greet", "arguments": {"whom": "numpy"}, "requested_at": "1"}')
    os.symlink(elsewhere, desk.directory / "link.json")
    desk.poll()
    assert desk.asked == []
    assert [state for _, _, state, _ in recorded(desk)] == ["failed"]
    assert list(desk.directory.iterdir()) == []
    assert elsewhere.exists()


def test_at_most_a_hundred_are_carried_out_at_once(desk):
    for number in range(120):
        (desk.directory / f"{number:03}.json").write_text(
            f'{{"command": "greet", "arguments": {{"whom": "{number}"}}, "requested_at": "1"}}'
        )
    desk.poll()
    assert [asked["whom"] for asked in desk.asked] == [str(number) for number in range(100)]
    desk.poll()
    assert len(desk.asked) == 120


@pytest.mark.parametrize("error", [OverflowError("too large"), KeyError("x"), RecursionError("deep"), SemidError("no")])
def test_any_exception_of_a_handler_is_the_answer(desk, error: Exception):
    def failing(arguments):
        raise error

    desk._handlers = {"greet": failing}
    send_command(desk.directory, "greet", {"whom": "a"})
    desk.poll()
    ((_, _, state, answer),) = recorded(desk)
    assert state == "failed"
    assert str(error) in answer
    assert list(desk.directory.iterdir()) == []


def test_a_command_waits_while_the_machine_cannot(desk):
    asked = []

    def failing_once(arguments):
        asked.append(arguments)
        if len(asked) == 1:
            raise MachineError("no space left on the device")
        return "done at last"

    desk._handlers = {"greet": failing_once}
    send_command(desk.directory, "greet", {"whom": "a"})
    with pytest.raises(MachineError):
        desk.poll()
    desk.poll()
    assert [(state, answer) for _, _, state, answer in recorded(desk)] == [("done", "done at last")]
    assert list(desk.directory.iterdir()) == []


NUMBERS = st.integers() | st.sampled_from([1 << 62, 1 << 63, -(1 << 64), 10**400, 10**4299]) | st.floats()
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
ARGUMENTS = st.dictionaries(
    st.sampled_from(["generation", "from", "codebooks", "files", "all"]) | st.text(max_size=5), VALUES, max_size=4
)
COMMANDS = st.sampled_from(
    ["promote", "rollback", "train", "import-codebooks", "retry", "rescan", "pause", "resume", "?"]
)
REQUESTS = st.fixed_dictionaries(
    {"command": COMMANDS | VALUES, "arguments": ARGUMENTS | VALUES}, optional={"requested_at": VALUES}
)
NESTED = st.sampled_from(
    [
        b'{"command": "promote", "arguments": {"generation": ' + b"[" * depth + b"]" * depth + b"}}"
        for depth in (90, 300, 450, 490, 900, 980, 5_000)
    ]
)
CONTENTS = REQUESTS.map(lambda request: json.dumps(request).encode()) | NESTED | st.binary(max_size=200)


@given(st.lists(CONTENTS, min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_whatever_command_files_hold_the_daemon_lives_and_consumes_them(contents: list[bytes]):
    with tempfile.TemporaryDirectory() as directory:
        config = configured(Path(directory))
        make_directories(config)
        with Store(config.database) as store:
            service = Service(config, store, PlainProgress(), WorkContext(threading.Event(), once=True))
            for number, content in enumerate(contents):
                (config.commands_dir / f"{number:03}.json").write_bytes(content)
            service._commands.poll()
            assert os.listdir(config.commands_dir) == []
            states = store.database.read("SELECT state, count(*) FROM _commands GROUP BY state")
            assert dict(states).keys() <= {"done", "failed"}
            assert sum(count for _, count in states) == len(contents)
            service._marker.close()
