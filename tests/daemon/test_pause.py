"""`pause` and `resume`: work is held between chunks, nothing is lost, and a pause outlives the daemon."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from semid_daemon.base.errors import MachineError
from semid_daemon.base.types import FloatArray
from semid_daemon.command_client import send_command, wait_for_answer
from semid_daemon.config import Config
from semid_daemon.daemon.service import Service
from semid_daemon.daemon.state_lock import make_directories
from semid_daemon.runtime.context import WorkContext
from semid_daemon.runtime.progress import PlainProgress
from semid_daemon.store.read.status import Status, read_status
from semid_daemon.store.write.store import Store
from tests.catalogues import Rows, drop_npz


def run_once(config: Config) -> None:
    with Store(config.database) as store:
        Service(config, store, PlainProgress(), WorkContext(once=True)).run()


def status(config: Config) -> Status:
    return read_status(config.database)


def drop(directory: Path, name: str, rows_ND: FloatArray) -> None:
    drop_npz(directory, f"{name}.npz", [f"{name}{number}" for number in range(len(rows_ND))], rows_ND)


def test_a_pause_outlives_the_daemon(catalogue: Config, clustered: Rows):
    make_directories(catalogue)
    drop(catalogue.drop_dir, "a", clustered(200, 16))
    asked = send_command(catalogue.commands_dir, "pause", {})
    with pytest.raises(MachineError, match="paused since .* `semid resume`"):
        run_once(catalogue)
    assert wait_for_answer(catalogue.database, asked) == ("done", "paused; nothing is lost, work goes on with `resume`")
    with pytest.raises(MachineError, match="paused"):
        run_once(catalogue)
    again = send_command(catalogue.commands_dir, "pause", {})
    asked = send_command(catalogue.commands_dir, "resume", {})
    run_once(catalogue)
    assert (wait_for_answer(catalogue.database, again) or ("", ""))[1].startswith("paused since")
    assert wait_for_answer(catalogue.database, asked) == ("done", "work goes on")
    assert status(catalogue).items == 200


@pytest.mark.slow
def test_a_paused_daemon_lives_and_does_nothing(catalogue: Config, clustered: Rows):
    make_directories(catalogue)
    stop = threading.Event()
    raised: list[BaseException] = []

    def work() -> None:
        try:
            with Store(catalogue.database) as store:
                Service(catalogue, store, PlainProgress(), WorkContext(stop)).run()
        except BaseException as error:
            raised.append(error)

    with Store(catalogue.database):
        pass
    daemon = threading.Thread(target=work)
    daemon.start()
    try:
        wait_for_answer(catalogue.database, send_command(catalogue.commands_dir, "pause", {}), timeout_s=30)
        drop(catalogue.drop_dir, "a", clustered(200, 16))
        beats = {status(catalogue).heartbeat_at}
        until = time.monotonic() + 30
        while len(beats) < 3 and time.monotonic() < until:
            beats.add(status(catalogue).heartbeat_at)
            time.sleep(0.02)
        held = status(catalogue)
        assert (held.state, held.items, held.files["done"]) == ("paused", 0, 0)
        assert "semid resume" in held.detail
        asked = send_command(catalogue.commands_dir, "resume", {})
        assert wait_for_answer(catalogue.database, asked, timeout_s=30) == ("done", "work goes on")
        while status(catalogue).items < 200 and time.monotonic() < until:
            time.sleep(0.02)
    finally:
        stop.set()
        daemon.join(timeout=30)
    assert not raised
    assert status(catalogue).items == 200
