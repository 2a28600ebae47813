"""Trials of suspect files in a process of their own, and the marker that makes a file suspect."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from semid_daemon.base.drop_file import DropFile
from semid_daemon.base.errors import MachineError
from semid_daemon.base.steps import finish
from semid_daemon.drop.open_file import FileChangedError
from semid_daemon.drop.scan import scan
from semid_daemon.ingest import sandbox
from semid_daemon.ingest.crash_marker import CrashMarker
from tests.catalogues import drop_npz


@pytest.fixture
def file(tmp_path: Path) -> DropFile:
    drop_npz(tmp_path, "a.npz", ["x", "y"], np.ones((2, 4), dtype=np.float32))
    return finish(scan(tmp_path, supported=lambda name: True, sidecar_suffixes=())).files["a.npz"]


@pytest.fixture
def child(monkeypatch):
    """Has the trial run this code instead of reading a file; what Popen was given is kept."""
    real, given = subprocess.Popen, {}

    def use(code: str) -> dict:
        def started(command, **options):
            given.update(options)
            given["child"] = real([sys.executable, "-c", code], **options)
            return given["child"]

        monkeypatch.setattr(sandbox.subprocess, "Popen", started)
        return given

    return use


def try_it(file: DropFile, patience_s: float = 120.0) -> str | None:
    return finish(sandbox.crash_reason(file, 50, patience_s))


def test_a_good_file_does_not_kill(file: DropFile):
    assert try_it(file) is None


def test_the_child_is_out_of_reach_of_ctrl_c(file: DropFile, child):
    given = child("import time; time.sleep(60)")
    steps = sandbox.crash_reason(file, 50)
    next(steps)
    assert os.getpgid(given["child"].pid) != os.getpgid(0)
    given["child"].kill()
    assert finish(steps) == "SIGKILL"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ended_from_outside_says_nothing_of_the_file(file: DropFile, child, number: int):
    child(f"import os, signal; signal.signal({number:d}, signal.SIG_DFL); os.kill(os.getpid(), {number:d})")
    with pytest.raises(FileChangedError, match="interrupted"):
        try_it(file)


def test_closing_the_steps_ends_the_child_and_does_not_wait(file: DropFile, child):
    given = child("import time; time.sleep(600)")
    steps = sandbox.crash_reason(file, 50)
    next(steps)
    assert given["child"].poll() is None
    steps.close()
    assert given["child"].poll() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("code", "number"),
    [("import not_there_at_all", errno.ECHILD), (f"raise SystemExit({sandbox._NO_MEMORY})", errno.ENOMEM)],
)
def test_what_cannot_be_tried_is_tried_later(file: DropFile, child, code: str, number: int):
    child(code)
    with pytest.raises(OSError, match="in a process of its own") as raised:
        try_it(file)
    assert raised.value.errno == number


def test_out_of_memory_under_the_limit(file: DropFile):
    code = (
        "import runpy, semid_daemon.formats as formats\n"
        "def no_memory(*arguments, **options): raise MemoryError\n"
        "formats.open_source = no_memory\n"
        "runpy.run_module('semid_daemon.ingest.sandbox', run_name='__main__')"
    )
    given = [str(file.path), sandbox._numbers(file.signature), "", None]
    argument = sandbox.json.dumps([file.name, *given, None, None, str(file.root), 50])
    done = subprocess.run([sys.executable, "-c", code, argument], timeout=60, check=False)
    assert done.returncode == sandbox._NO_MEMORY


def test_too_slow_is_tried_later_but_not_for_ever(file: DropFile, child):
    child("import time; time.sleep(60)")
    for _ in range(sandbox._MOST_TIMEOUTS - 1):
        with pytest.raises(TimeoutError, match="does not come to an end"):
            try_it(file, patience_s=0.0)
    assert try_it(file, patience_s=0.0) == "it does not come to an end"


# -- the marker --------------------------------------------------------------------------------------


def test_in_hand_is_found_again_unless_cleared(tmp_path: Path):
    path = tmp_path / "in-hand"
    long = "n" * 5000
    marker = CrashMarker(path)
    assert marker.left_behind() is None
    for name in ("a.npz", long, "b.npz"):
        marker.set(name, "1:2", 7)
        assert CrashMarker(path).left_behind() == (name, "1:2", 7)
    size_bytes = path.stat().st_size
    marker.clear()
    assert CrashMarker(path).left_behind() is None
    assert path.stat().st_size == size_bytes  # its blocks are never given back


@pytest.mark.parametrize("content", [b"5", b"[1]", b"null", b'["a", "b"', b"\xff"])
def test_in_hand_with_nonsense_in_it(tmp_path: Path, content: bytes):
    (tmp_path / "in-hand").write_bytes(content)
    assert CrashMarker(tmp_path / "in-hand").left_behind() is None


def test_in_hand_on_a_full_disk(tmp_path: Path, monkeypatch):
    marker = CrashMarker(tmp_path / "in-hand")

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("semid_daemon.ingest.crash_marker.os.pwrite", full)
    with pytest.raises(MachineError, match="No space left"):
        marker.set("a.npz", "1:2", 0)
    with pytest.raises(MachineError, match="No space left"):
        marker.clear()
