"""`semid status`."""

from __future__ import annotations

import json
from pathlib import Path

from semid_daemon.store.write.store import Store
from tests.cli.tools import semid


def test_status_without_database(tmp_path: Path):
    (tmp_path / "semid.toml").write_text("")
    refused = semid("status", cwd=tmp_path)
    assert refused.returncode == 1
    assert "no database yet" in refused.stderr


def test_status_of_a_daemon_that_died(small: Path):
    with Store(small / "state" / "semid.db") as store:
        store.daemon.started(1, "cpu", "1")
        store.daemon.heartbeat("encoding", "a.npz")
        fresh = semid("status", "-c", small / "semid.toml")
        with store.database.transaction() as connection:
            connection.execute("UPDATE _daemon SET heartbeat_at = '2026-01-01T00:00:00.000Z'")
        silent = semid("status", "-c", small / "semid.toml")
        as_json = json.loads(semid("status", "--json", "-c", small / "semid.toml").stdout)
        with store.database.transaction() as connection:
            connection.execute("UPDATE _daemon SET state = 'stopped'")
        stopped = semid("status", "-c", small / "semid.toml")
    assert "the daemon seems dead or stuck" not in fresh.stdout + stopped.stdout
    assert " s: the daemon seems dead or stuck" in silent.stdout
    assert as_json["heartbeat_age_s"] > 5
