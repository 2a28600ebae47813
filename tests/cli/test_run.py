"""`semid run`: signals, kills, exit statuses."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.catalogues import SMALL, Rows, drop_npz, ids
from tests.cli.tools import environment, items, query, semid, start_daemon, wait_until


@pytest.mark.slow
def test_a_device_that_is_not_there_is_refused(small: Path):
    (small / "semid.toml").write_text('[quantizer]\ndevice = "cuda:17"\n')
    refused = semid("run", "--once", cwd=small)
    assert refused.returncode == 78
    assert 'quantizer.device = "cuda:17"' in refused.stderr


@pytest.mark.slow
def test_a_rejected_file_is_told_by_the_exit_status(small: Path, clustered: Rows):
    (small / "drop" / "bad.npz").write_text("not an archive")
    ran = semid("run", "--once", cwd=small)
    assert ran.returncode == 3
    assert "bad.npz: rejected" in ran.stderr
    assert (small / "rejected" / "bad.npz.reason.txt").exists()


@pytest.mark.slow
def test_once_without_a_drop_directory(small: Path):
    """Gone after the daemon made it: as when it is unmounted."""
    code = (
        "import os, sys; from semid_daemon.daemon import state_lock as state; from semid_daemon.cli.main import main\n"
        "make = state.make_directories\n"
        "def make_then_lose(config): make(config); os.rmdir(config.drop_dir)\n"
        "state.make_directories = make_then_lose\n"
        "main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "run", "--once", "-q", "-c", str(small / "semid.toml")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if line.startswith("semid: ")] == [
        f"semid: source missing: {small / 'drop'}: No such file or directory"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_daemon_works_until_it_is_told_to_stop(small: Path, clustered: Rows, number: int):
    daemon = start_daemon(small)
    try:
        wait_until(lambda: query(small, "SELECT state FROM daemon") == [("idle",)])
        drop_npz(small / "drop", "a.npz", ids("a", 100), clustered(100, 16))
        wait_until(lambda: items(small) == 100)
        drop_npz(small / "drop", "b.npz", ids("b", 30), clustered(30, 16, seed=5))
        wait_until(lambda: items(small) == 130)
        second = semid("run", "--once", cwd=small)
        assert second.returncode == 75
        assert f"process {daemon.pid}" in second.stderr
        daemon.send_signal(number)
        assert daemon.wait(timeout=20) == 0
    finally:
        daemon.kill()
        output, errors = daemon.communicate()
    assert output == ""
    assert "Traceback" not in errors
    assert query(small, "SELECT state FROM daemon") == [("stopped",)]


@pytest.mark.slow
def test_killed_at_any_moment_nothing_is_lost_or_done_twice(small: Path, clustered: Rows):
    """kill -9 again and again while files are being dropped; then everything is there exactly once."""
    (small / "semid.toml").write_text(SMALL.replace("chunk_rows = 50", "chunk_rows = 16"))
    drop_npz(small / "drop", "base.npz", ids("base", 100), clustered(100, 16))
    for round_number in range(8):
        daemon = start_daemon(small)
        drop_npz(
            small / "drop", f"r{round_number}.npz", ids(f"r{round_number}-", 400), clustered(400, 16, seed=round_number)
        )
        # Later and later after the start: in start-up, in training, between chunks, when idle.
        if round_number > 1:
            wait_until(lambda: query(small, "SELECT state FROM daemon")[0][0] in ("encoding", "idle", "training"))
            time.sleep(0.02 * round_number)
        daemon.kill()
        daemon.wait()
        daemon.communicate()
    last = semid("run", "--once", cwd=small)
    assert last.returncode == 0, last.stderr
    assert query(small, "SELECT count(*), count(DISTINCT item_id) FROM semantic_ids") == [(3300, 3300)]
    assert query(small, "SELECT status, count(*) FROM files GROUP BY status") == [("done", 9)]
    assert query(small, "SELECT sum(assigned), sum(rows) FROM _chunks") == [(3300, 3300)]
    assert query(small, "SELECT sum(items) FROM code_usage WHERE layer = 2") == [(3300,)]
    assert query(small, "PRAGMA integrity_check") == [("ok",)]
