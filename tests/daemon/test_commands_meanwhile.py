"""Commands are answered, and a pause takes hold, in the middle of long work."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from semid_daemon.command_client import send_command, wait_for_answer
from semid_daemon.config import Config
from semid_daemon.drop import open_file
from semid_daemon.ingest import open_embeddings
from semid_daemon.quantizer import Encoder, LloydTrainer
from tests.catalogues import Rows, drop_npz, ids
from tests.faults.tools import configured, items, live, query, state_of, trained_catalogue, wait_until

pytestmark = pytest.mark.slow


def ask(config: Config, command: str) -> tuple[str, str] | None:
    name = send_command(config.commands_dir, command, {})
    return wait_for_answer(config.database, name, timeout_s=60)


def ask_for_a_pause(config: Config, work_goes_on: threading.Event) -> None:
    """Pause in the middle of the work, let that go on, and see that nothing new is begun until `resume`."""
    assert (ask(config, "pause") or ("", ""))[0] == "done"
    wait_until(lambda: state_of(config) == "paused")
    before = items(config)
    work_goes_on.set()
    assert (ask(config, "rescan") or ("", ""))[0] == "done"
    assert (state_of(config), items(config)) == ("paused", before)
    assert ask(config, "resume") == ("done", "work goes on")


@pytest.mark.slow
def test_while_a_step_of_a_training_takes_long(tmp_path: Path, clustered: Rows, monkeypatch: pytest.MonkeyPatch):
    config = configured(tmp_path, ("drop", "rescan_s = 0.2"))
    begun, go_on, train = threading.Event(), threading.Event(), LloydTrainer.train

    def held(self, rows_ND):
        begun.set()
        assert go_on.wait(120)
        yield from train(self, rows_ND)

    monkeypatch.setattr(LloydTrainer, "train", held)
    drop_npz(config.drop_dir, "a.npz", ids("a", 80), clustered(80, 16))
    with live(config):
        assert begun.wait(60)
        ask_for_a_pause(config, go_on)
        wait_until(lambda: items(config) == 80)


@pytest.mark.slow
def test_while_a_chunk_is_encoded(tmp_path: Path, clustered: Rows, monkeypatch: pytest.MonkeyPatch):
    config = trained_catalogue(tmp_path, clustered, ("drop", "rescan_s = 0.2"))
    begun, go_on, encode = threading.Event(), threading.Event(), Encoder.encode

    def held(self, rows_ND):
        begun.set()
        assert go_on.wait(120)
        return encode(self, rows_ND)

    monkeypatch.setattr(Encoder, "encode", held)
    rows_ND = clustered(40_000, 16)
    with live(config):
        drop_npz(config.drop_dir, "a.npz", ids("a", len(rows_ND)), rows_ND)
        assert begun.wait(60)
        ask_for_a_pause(config, go_on)
        wait_until(lambda: items(config) > 70)


def slowly(monkeypatch: pytest.MonkeyPatch, room, name: str) -> threading.Event:
    """Every call of a function takes 0.1 s, until the event that is returned is set."""
    quickly, function = threading.Event(), getattr(room, name)

    def slow(*arguments):
        quickly.wait(0.1)
        return function(*arguments)

    monkeypatch.setattr(room, name, slow)
    return quickly


def test_while_a_file_is_hashed(tmp_path: Path, clustered: Rows, monkeypatch: pytest.MonkeyPatch):
    """Hashing takes half a minute unless the command is answered in the middle of it."""
    config = trained_catalogue(tmp_path, clustered, ("drop", "rescan_s = 0.2"), ("ingest", "chunk_rows = 32768"))
    monkeypatch.setattr(open_file, "_BLOCK_BYTES", 1 << 12)
    monkeypatch.setattr(open_file, "_MOST_THREADS", 1)
    quickly = slowly(monkeypatch, open_file, "_hash_block")
    path = drop_npz(config.root, "aside.npz", ids("a", 20_000), clustered(20_000, 16))
    assert path.stat().st_size > 300 << 12
    with live(config):
        os.rename(path, config.drop_dir / "a.npz")
        wait_until(lambda: not (config.state_dir / "in-hand").read_bytes().isspace())
        assert ask(config, "rescan") == ("done", "scanning")
        assert query(config, "SELECT count(*) FROM files WHERE file = 'a.npz'") == [(0,)]
        quickly.set()
        wait_until(lambda: items(config) == 20_070)


def test_while_a_file_is_surveyed(tmp_path: Path, clustered: Rows, monkeypatch: pytest.MonkeyPatch):
    config = configured(tmp_path, ("drop", "rescan_s = 0.2"), ("training", "min_rows = 100000"))
    quickly = slowly(monkeypatch, open_embeddings, "usable")
    drop_npz(config.drop_dir, "a.npz", ids("a", 20_000), clustered(20_000, 16))  # 400 chunks
    counted = "SELECT rows_usable FROM _files"
    with live(config):
        wait_until(lambda: query(config, counted) == [(None,)])
        assert ask(config, "rescan") == ("done", "scanning")
        assert query(config, counted) == [(None,)]
        quickly.set()
        wait_until(lambda: query(config, counted) == [(20_000,)])


def test_a_stop_does_not_wait_for_a_file_to_be_hashed(tmp_path: Path, clustered: Rows, monkeypatch: pytest.MonkeyPatch):
    config = trained_catalogue(tmp_path, clustered)
    monkeypatch.setattr(open_file, "_BLOCK_BYTES", 1 << 12)
    slowly(monkeypatch, open_file, "_hash_block")
    drop_npz(config.drop_dir, "a.npz", ids("a", 20_000), clustered(20_000, 16))
    with live(config):
        wait_until(lambda: not (config.state_dir / "in-hand").read_bytes().isspace())
        time.sleep(0.3)
    assert query(config, "SELECT count(*) FROM files WHERE file = 'a.npz'") == [(0,)]
    assert (config.state_dir / "in-hand").read_bytes().isspace()
