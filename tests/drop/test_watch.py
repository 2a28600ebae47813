"""Events of the file system wake whoever waits."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from semid_daemon.drop.watch import Wakeups


def test_events_wake(tmp_path: Path):
    changed = threading.Event()
    with Wakeups(tmp_path, changed):
        for attempt in range(50):  # the watcher needs a moment before it hears anything
            (tmp_path / f"{attempt}.npz").write_bytes(b"1")
            if changed.wait(0.1):
                break
        assert changed.is_set()


@pytest.mark.slow
def test_watching_survives_a_name_that_is_not_utf8(tmp_path: Path):
    changed = threading.Event()
    with Wakeups(tmp_path, changed):
        time.sleep(0.3)
        with open(os.fsencode(tmp_path) + b"/\xff.npz", "wb") as file:
            file.write(b"1")
        time.sleep(1.5)
        changed.clear()
        (tmp_path / "a.npz").write_bytes(b"1")
        assert changed.wait(5)


@pytest.mark.slow
def test_watching_a_directory_that_appears_later(tmp_path: Path):
    changed = threading.Event()
    with Wakeups(tmp_path / "later", changed):
        assert changed.wait(5)
        (tmp_path / "later").mkdir()
        time.sleep(1.5)
        changed.clear()
        (tmp_path / "later" / "a.npz").write_bytes(b"1")
        assert changed.wait(5)
