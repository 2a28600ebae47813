"""Log lines: for the journal, as JSON, for a file; one line per event whatever the text holds."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from semid_daemon.runtime.logs import LineFormatter, form_of_log
from tests.catalogues import SMALL, Rows, drop_npz

SEMID = [sys.executable, "-m", "semid_daemon"]


@pytest.fixture
def small(tmp_path: Path, clustered: Rows) -> Path:
    (tmp_path / "semid.toml").write_text(SMALL)
    (tmp_path / "drop").mkdir()
    drop_npz(tmp_path / "drop", "a.npz", [f"a{row}" for row in range(70)], clustered(70, 16))
    (tmp_path / "drop" / "bad\n.npz").write_text("no archive")
    return tmp_path


def run(root: Path, *options: str, journal: bool = False) -> tuple[int, list[str]]:
    """`semid run --once` with its stderr in a file, which a journal is said to read or not."""
    with (root / "log").open("w+") as log:
        there = os.fstat(log.fileno())
        environment = {**os.environ, "JOURNAL_STREAM": f"{there.st_dev}:{there.st_ino}" if journal else "1:2"}
        command = [*SEMID, "run", "--once", "-c", root / "semid.toml", *options]
        status = subprocess.run(command, stderr=log, env=environment, timeout=120).returncode
        log.seek(0)
        return status, log.read().splitlines()


@pytest.mark.slow
def test_for_the_journal(small: Path):
    status, lines = run(small, journal=True)
    assert status == 3
    assert all(line[0] == "<" and line[2] == ">" for line in lines), lines
    assert [line for line in lines if line.startswith("<4>bad\\n.npz: rejected: ")]
    assert [line for line in lines if line.startswith("<6>a.npz: 70 new IDs")]
    assert lines[-1].startswith("<3>1 file(s) rejected")
    (small / "semid.toml").write_text("[drop]\ncolour = 1\n")
    assert run(small, journal=True) == (
        78,
        [f"<3>{small}/semid.toml: unknown key drop.colour; `semid init` writes a file with every key"],
    )


@pytest.mark.slow
def test_as_json(small: Path):
    status, lines = run(small, "--log-json")
    assert status == 3
    events = [json.loads(line) for line in lines]
    assert all(list(event) == ["at", "level", "message"] for event in events)
    assert {event["level"] for event in events} == {"info", "warning", "error"}
    assert [event for event in events if event["message"].startswith("bad\\n.npz: rejected")]
    assert events[-1]["message"].startswith("1 file(s) rejected")


@pytest.mark.slow
def test_for_a_file(small: Path):
    _, lines = run(small)
    assert [line for line in lines if line.startswith("WARNING bad\\n.npz: rejected")]
    assert "\x1b" not in "".join(lines)
    assert lines[-1].startswith("semid: 1 file(s) rejected")


def test_one_line_for_each_event():
    try:
        raise ValueError("no\x1b[31m way")
    except ValueError:
        record = logging.LogRecord("semid", logging.CRITICAL, "", 0, "it %s", ("broke\nhere",), sys.exc_info())
    line = LineFormatter("journal").format(record)
    assert line.startswith("<2>it broke\\nhere\\nTraceback (most recent call last):\\n")
    assert line.isprintable()
    event = json.loads(LineFormatter("json").format(record))
    assert event["message"] == "it broke\nhere"
    assert event["traceback"].endswith("ValueError: no\x1b[31m way")


def test_what_nobody_caught_is_an_event():
    code = "from semid_daemon.runtime.progress import start_logging\nstart_logging('json')\nraise KeyError('a\\nb')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    (line,) = done.stderr.splitlines()
    assert json.loads(line)["level"] == "critical"


def test_which_form(monkeypatch: pytest.MonkeyPatch):
    assert form_of_log(as_json=True) == "json"
    monkeypatch.setattr(sys, "stderr", None)
    assert form_of_log() == "plain"
