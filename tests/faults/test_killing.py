"""Faults 1 to 8 and 60: processes that die, at points named and unnamed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from semid_daemon.base.errors import StateLockedError
from semid_daemon.command_client import send_command
from semid_daemon.config import Config
from semid_daemon.daemon.state_lock import hold_state
from semid_daemon.store.read.checks import check_database
from tests.catalogues import Rows, drop_npz, ids
from tests.faults.tools import (
    assert_sound,
    assert_sound_after_restart,
    configured,
    files_of,
    items,
    live,
    query,
    reason_of,
    run,
    semid,
    start,
    state_of,
    wait_until,
)

pytestmark = pytest.mark.slow

POINTS = [
    "in-hand",
    "parsing",
    "parsing:2",
    "parsing:4",
    "hashed",
    "sighting",
    "sighted",
    "begun",
    "rows-inserted",
    "rows-inserted:2",
    "committing:9",
    "committed",
    "committed:3",
    "moving",
    "moved",
    "codebooks-written",
    "published",
    "command-accepted",
    "command-answered",
]


@pytest.mark.parametrize("point", POINTS)
def test_fault_01_killed_at_every_step(catalogue: Config, clustered: Rows, point: str):
    """kill -9 at every step (failpoints), and at random"""
    drop_npz(catalogue.drop_dir, "a.npz", ids("a", 70), clustered(70, 16))
    drop_npz(catalogue.drop_dir, "b.npz", ids("b", 70), clustered(70, 16, seed=2))
    catalogue.commands_dir.mkdir(parents=True)
    send_command(catalogue.commands_dir, "rescan", {})
    died = semid("run", "--once", "-c", catalogue.root / "semid.toml", failpoint=point)
    assert died.returncode == -signal.SIGKILL, died.stderr
    run(catalogue)
    assert_sound_after_restart(catalogue, 140)
    assert files_of(catalogue) == {"a.npz": "done", "b.npz": "done"}
    assert sorted(path.name for path in catalogue.done_dir.iterdir()) == ["a.npz", "b.npz"]
    assert query(catalogue, "SELECT command, state FROM commands") == [("rescan", "done")]
    assert list(catalogue.commands_dir.iterdir()) == []


COMMITTING = """
import sys
import numpy as np
from pathlib import Path
from semid_daemon.base.types import Codebooks, EmbeddingBatch
from semid_daemon.store.write.generations import NewGeneration
from semid_daemon.store.write.store import Store

with Store(Path(sys.argv[1])) as store:
    if store.generations.active() is None:
        store.generations.publish(NewGeneration("f", Codebooks(np.zeros((2, 4, 3), np.float32), True), trained_rows=1))
    random = np.random.default_rng()
    ledger = store.files.record_sighting("a.npz", "s", "d", 1)
    ledger = store.files.begin_loading(ledger.id, rows=10**6, dim=3, generation=1, chunk_rows=500)
    print("ready", flush=True)
    for row in range(ledger.rows_done, 10**6, 500):
        names = [f"item {number}" for number in range(row, row + 500)]
        batch = EmbeddingBatch(row, 500, names, random.normal(size=(500, 3)).astype(np.float32))
        store.chunks.commit(ledger, batch, random.integers(0, 4, size=(500, 2)).astype(np.int32))
        store.database.checkpoint()
"""


def test_fault_02_killed_during_commit_and_checkpoint(tmp_path: Path):
    """kill during COMMIT and checkpoint: a process that does nothing else, killed again and again"""
    database = tmp_path / "semid.db"
    done = []
    for round_number in range(8):
        child = subprocess.Popen([sys.executable, "-c", COMMITTING, str(database)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        time.sleep(0.05 + random.Random(round_number).random() / 5)
        child.kill()
        child.communicate()
        report = check_database(database)
        assert report.faults == []
        done.append(report.items)
    assert done == sorted(done)
    assert done[-1] > done[0]


def test_fault_03_killed_in_a_migration(catalogue: Config, clustered: Rows):
    """kill in a migration"""
    settings = catalogue.root / "semid.toml"
    assert semid("init", catalogue.root, failpoint="migrating").returncode == -signal.SIGKILL
    drop_npz(catalogue.drop_dir, "a.npz", ids("a", 70), clustered(70, 16))
    assert semid("run", "--once", "-c", settings).returncode == 0
    assert_sound(catalogue, 70)


def test_fault_04_killed_between_codebook_rename_and_commit(catalogue: Config, clustered: Rows):
    """kill between codebook rename and commit: the orphan is collected, training starts anew"""
    drop_npz(catalogue.drop_dir, "a.npz", ids("a", 70), clustered(70, 16))
    settings = catalogue.root / "semid.toml"
    assert semid("run", "--once", "-c", settings, failpoint="codebooks-renamed").returncode == -signal.SIGKILL
    assert len(list(catalogue.codebooks_dir.iterdir())) == 1
    assert query(catalogue, "SELECT count(*) FROM generations") == [(0,)]
    assert_sound_after_restart(catalogue, 70)
    ((fingerprint,),) = query(catalogue, "SELECT fingerprint FROM generations")
    assert [path.stem for path in catalogue.codebooks_dir.iterdir()] == [fingerprint]


def test_fault_05_sigterm_mid_chunk(catalogue: Config, clustered: Rows):
    """SIGTERM mid-chunk: the chunk is finished or rolled back, exit 0"""
    config = configured(catalogue.root, ("ingest", "chunk_rows = 16"))
    drop_npz(config.drop_dir, "a.npz", ids("a", 30_000), clustered(30_000, 16))
    daemon = start(config)
    try:
        wait_until(lambda: state_of(config) == "encoding" and items(config) > 0)
        daemon.terminate()
        assert daemon.wait(timeout=60) == 0
    finally:
        daemon.kill()
        daemon.wait()
    some = items(config)
    assert 0 < some < 30_000
    assert some % 16 == 0
    assert_sound_after_restart(config, 30_000)


HOLDING = """
import subprocess, sys, time
from pathlib import Path
from semid_daemon.daemon.state_lock import hold_state

with hold_state(Path(sys.argv[1])):
    child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL)
    print(child.pid, flush=True)
    time.sleep(60)
"""


def test_fault_06_killed_with_a_live_child(tmp_path: Path):
    """SIGKILL with a live child: the lock is free"""
    holder = subprocess.Popen([sys.executable, "-c", HOLDING, tmp_path], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    try:
        with pytest.raises(StateLockedError), hold_state(tmp_path):
            pass
        holder.kill()
        holder.communicate()
        with hold_state(tmp_path):
            pass
    finally:
        subprocess.run(["kill", str(child)], check=True)


def test_fault_07_two_daemons(catalogue: Config):
    """two daemons: the second exits 75"""
    run(catalogue)
    with hold_state(catalogue.state_dir):
        second = semid("run", "--once", "-c", catalogue.root / "semid.toml")
    assert second.returncode == 75
    assert "held by another daemon" in second.stderr


def test_fault_08_lock_file_unlinked(catalogue: Config):
    """lock file unlinked: noticed within a second, and the daemon ends"""
    with pytest.raises(StateLockedError, match="was removed or replaced"), live(catalogue) as thread:  # noqa: PT012
        (catalogue.state_dir / "lock").unlink()
        wait_until(lambda: not thread.is_alive())


def test_fault_60_a_file_that_kills_the_process(catalogue: Config, clustered: Rows):
    """a file that kills the process: tried in a process of its own after 3 deaths, and quarantined"""
    drop_npz(catalogue.drop_dir, "a.npz", ids("a", 70), clustered(70, 16))
    run(catalogue)
    drop_npz(catalogue.drop_dir, "killer.npz", ids("k", 10), clustered(10, 16))
    settings = catalogue.root / "semid.toml"
    for _ in range(3):
        assert semid("run", "--once", "-c", settings, failpoint="parsing").returncode == -signal.SIGKILL
    fourth = semid("run", "--once", "-c", settings, failpoint="parsing")
    assert fourth.returncode == 3, fourth.stderr
    assert reason_of(catalogue, "killer.npz").startswith("kills the process that reads it (SIGKILL); 3 daemons died")
    assert (catalogue.rejected_dir / "killer.npz").exists()
    assert_sound(catalogue, 70)
    # What was to blame has gone: it is tried again, and is as good as any.
    send_command(catalogue.commands_dir, "retry", {"files": ["killer.npz"]})
    run(catalogue)
    assert_sound_after_restart(catalogue, 80)


def test_fault_60_an_innocent_file_is_not_quarantined(catalogue: Config, clustered: Rows):
    """a file in hand while the process is killed from outside: its trial goes well, it is taken"""
    drop_npz(catalogue.drop_dir, "a.npz", ids("a", 70), clustered(70, 16))
    settings = catalogue.root / "semid.toml"
    for _ in range(4):
        assert semid("run", "--once", "-c", settings, failpoint="hashed").returncode == -signal.SIGKILL
    assert_sound_after_restart(catalogue, 70)
