"""The daemon under systemd's notification protocol, the test being the service manager: its socket, its watchdog."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from semid_daemon.daemon.systemd_notify import Notifier
from semid_daemon.store.read.checks import check_database
from semid_daemon.store.read.status import read_status
from tests.catalogues import SMALL, Rows, drop_npz, ids

SEMID = [sys.executable, "-m", "semid_daemon"]


class Manager:
    """What systemd does for a unit of Type=notify: hears messages, and sends SIGABRT when the watchdog starves."""

    def __init__(self, address: str, watchdog_s: float) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1))
        self._watchdog_s = self._limit_s = watchdog_s
        self._fed_at = 0.0
        self.address = address
        self.heard: list[tuple[str, str]] = []

    def start(self, settings: Path, *, failpoint: str = "") -> subprocess.Popen[str]:
        self.heard = []
        environment = {
            **os.environ,
            "NOTIFY_SOCKET": self.address,
            "WATCHDOG_USEC": str(int(self._watchdog_s * 1e6)),
            "SEMID_FAILPOINT": failpoint,
        }
        return subprocess.Popen(
            [*SEMID, "run", "-c", settings],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, name: str, value: str | None = None, timeout_s: float = 60) -> str:
        """Hear messages until one says so; its value."""
        until = time.monotonic() + timeout_s
        while True:
            for said, what in self.hear(until - time.monotonic()):
                if said == name and (value is None or value in what):
                    return what

    def hear(self, timeout_s: float) -> list[tuple[str, str]]:
        self._socket.settimeout(max(0.001, timeout_s))
        said = [line.partition("=")[::2] for line in self._socket.recv(65536).decode().splitlines()]
        self.heard += said
        for name, what in said:
            if name in ("READY", "WATCHDOG"):
                self._fed_at = time.monotonic()
            if name == "WATCHDOG_USEC":
                self._limit_s = int(what) / 1e6
        return said

    def watch(self, daemon: subprocess.Popen[str]) -> float:
        """Until the watchdog starves; then what systemd does. How long it was starved, in seconds."""
        while True:
            try:
                self.hear(self._fed_at + self._limit_s - time.monotonic())
            except TimeoutError:
                daemon.send_signal(signal.SIGABRT)
                return time.monotonic() - self._fed_at

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with contextlib.closing(Manager(str(tmp_path / "notify"), watchdog_s=2)) as made:
        yield made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "semid.toml").write_text(SMALL.replace("[ingest]", "[ingest]\nwatchdog_s = 1"))
    (tmp_path / "drop").mkdir()
    return tmp_path


@pytest.mark.slow
def test_ready_status_watchdog_stopping(manager: Manager, root: Path, clustered: Rows):
    drop_npz(root / "drop", "a.npz", ids("a", 100), clustered(100, 16))
    daemon = manager.start(root / "semid.toml")
    try:
        manager.wait_for("READY", "1")
        # Not before the database is there and up to date; more time is asked for until then.
        assert read_status(root / "state" / "semid.db").state != "never started"
        assert [name for name, _ in manager.heard[:2]] == ["STATUS", "EXTEND_TIMEOUT_USEC"]
        assert ("WATCHDOG_USEC", "3000000") in manager.heard  # the unit's and ingest.watchdog_s
        manager.wait_for("STATUS", "idle, 0 files wait, 1 done")
        manager.wait_for("WATCHDOG", "1")
        manager.wait_for("WATCHDOG", "1")
        daemon.terminate()
        manager.wait_for("STOPPING", "1")
        assert daemon.wait(timeout=20) == 0
    finally:
        daemon.kill()
        daemon.communicate()


@pytest.mark.slow
def test_a_step_that_hangs_starves_the_watchdog_and_the_next_daemon_goes_on(
    manager: Manager, root: Path, clustered: Rows
):
    drop_npz(root / "drop", "a.npz", ids("a", 170), clustered(170, 16))
    hung = manager.start(root / "semid.toml", failpoint="in-hand:4:hang")
    manager.wait_for("READY", "1")
    assert manager.watch(hung) >= 3
    _, errors = hung.communicate(timeout=20)
    assert hung.returncode == -signal.SIGABRT
    assert "failpoints.py" in errors  # where it hung
    daemon = manager.start(root / "semid.toml")
    manager.wait_for("STATUS", "idle, 0 files wait, 1 done")
    daemon.terminate()
    daemon.communicate(timeout=20)
    assert daemon.returncode == 0
    report = check_database(root / "state" / "semid.db")
    assert (report.faults, report.items) == ([], 170)


def test_messages_by_the_clock(tmp_path: Path):
    clock = [0.0]
    manager = Manager("@semid-test-" + tmp_path.name, watchdog_s=0)
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "4000000", "WATCHDOG_PID": str(os.getpid())}
    notifier = Notifier(step_s=6.0, environment=environment, now=lambda: clock[0])

    def said() -> list[str]:
        with contextlib.suppress(TimeoutError):
            while True:
                manager.hear(0.001)
        texts, manager.heard = [f"{name}={value}" for name, value in manager.heard], []
        return texts

    try:
        notifier.alive("starting\nup")
        notifier.alive("starting\nup")
        assert said() == ["STATUS=starting up", "EXTEND_TIMEOUT_USEC=66000000"]
        clock[0] = 20.0
        notifier.alive("starting\nup")
        assert said() == ["EXTEND_TIMEOUT_USEC=66000000"]
        notifier.ready()
        notifier.ready()
        assert said() == ["READY=1", "WATCHDOG_USEC=10000000"]
        for _ in range(11):
            clock[0] += 0.5
            notifier.alive("busy")
        assert said() == ["STATUS=busy", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"]
        notifier.stopping()
        notifier.alive("busy")
        assert said() == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=66000000"]
    finally:
        manager.close()
    notifier.alive("nobody listens")  # and nothing happens
    notifier.close()


def test_without_a_manager_nothing_is_sent_or_opened():
    notifier = Notifier(environment={})
    notifier.alive("x")
    notifier.ready()
    notifier.stopping()
    assert notifier._socket is None
    other = Notifier(environment={"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"})
    other.ready()
    assert other._watchdog_s == 0  # another process's
    other.close()


@pytest.mark.parametrize("usec", ["abc", "", "-5", "1e6"])
def test_a_watchdog_time_that_is_no_number_asks_for_nothing(tmp_path: Path, usec: str):
    manager = Manager("@semid-test-usec-" + tmp_path.name, watchdog_s=0)
    try:
        notifier = Notifier(environment={"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": usec})
        notifier.ready()
        notifier.alive("busy")
        with contextlib.suppress(TimeoutError):
            while True:
                manager.hear(0.001)
        assert ("READY", "1") in manager.heard
        assert not [value for name, value in manager.heard if name == "WATCHDOG"]
        notifier.close()
    finally:
        manager.close()
