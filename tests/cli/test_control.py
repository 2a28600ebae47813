"""`semid retry` and `rescan`, with a daemon and without one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from semid_daemon.base.text import printable
from semid_daemon.cli.control import _dropped_name
from semid_daemon.config import load_config
from tests.catalogues import Rows, drop_npz, ids
from tests.cli.tools import query, semid, start_daemon, wait_until


@pytest.mark.slow
def test_retry_brings_a_rejected_file_back(small: Path, clustered: Rows):
    drop_npz(small / "drop", "a.npz", ids("a", 70), clustered(70, 16))
    (small / "drop" / "sub").mkdir()
    drop_npz(small / "drop" / "sub", "wide.npz", ids("w", 5), clustered(5, 17))
    assert semid("run", "--once", cwd=small).returncode == 3
    assert (small / "rejected" / "sub" / "wide.npz").exists()
    waiting = semid("retry", small / "rejected" / "sub" / "wide.npz", cwd=small)
    assert waiting.returncode == 0
    assert "the daemon does not answer; the command waits" in waiting.stderr
    again = semid("run", "--once", cwd=small)
    assert again.returncode == 3
    assert "wrong dimension" in again.stderr
    assert query(small, "SELECT command, state, answer FROM commands") == [
        ("retry", "done", f"1 to be tried again, 1 of them moved back from {small / 'rejected'}")
    ]
    assert sorted(path.name for path in (small / "rejected" / "sub").iterdir()) == ["wide.npz", "wide.npz.reason.txt"]
    assert semid("retry", cwd=small).returncode == 2


@pytest.mark.slow
def test_commands_to_a_daemon_that_runs(small: Path, clustered: Rows):
    daemon = start_daemon(small)
    try:
        wait_until(lambda: query(small, "SELECT state FROM daemon") == [("idle",)])
        assert semid("rescan", cwd=small).stdout == "scanning\n"
        assert semid("retry", "nobody.npz", cwd=small).stdout == (
            "0 to be tried again; neither deferred nor rejected: nobody.npz\n"
        )
        assert semid("retry", "--all", cwd=small).stdout == "0 to be tried again\n"
    finally:
        daemon.terminate()
        assert daemon.wait(timeout=20) == 0
        daemon.communicate()


def test_names_that_are_not_utf8_are_asked_for_as_the_ledger_shows_them(small: Path):
    config = load_config(small / "semid.toml")
    name = os.fsdecode(b"caf\xe9\n.npy")
    assert _dropped_name(config, name) == printable(Path(name))
    assert _dropped_name(config, str(config.drop_dir / name)) == printable(Path(name))
