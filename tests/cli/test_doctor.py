"""`semid doctor`, and its findings on embeddings kept for a refresh. Its other findings are with the faults."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from semid_daemon.cli.doctor import Finding, examine
from semid_daemon.config import Config
from tests.catalogues import Rows, drop_npz, ids
from tests.cli.tools import semid
from tests.faults.tools import trained_catalogue


def of_embeddings(config: Config) -> Finding:
    (finding,) = (finding for finding in examine(config) if finding.check == "embeddings")
    return finding


def test_finished_files_that_are_gone(tmp_path: Path, clustered: Rows):
    config = trained_catalogue(tmp_path, clustered)
    assert of_embeddings(config).level == "ok"
    (kept,) = config.done_dir.iterdir()
    content = kept.read_bytes()

    kept.unlink()
    gone = of_embeddings(config)
    kept.write_bytes(content[:-1])
    shorter = of_embeddings(config)
    kept.rename(config.drop_dir / kept.name)
    (config.drop_dir / kept.name).write_bytes(content)

    assert gone.level == shorter.level == "warning"
    assert kept.name in gone.message
    assert "put them back" in gone.remedy
    assert of_embeddings(config).level == "ok"  # it lies where it was dropped


@pytest.mark.parametrize("what", ["shorter", "missing"])
def test_a_spool_that_has_lost_something(tmp_path: Path, clustered: Rows, what: str):
    config = trained_catalogue(tmp_path, clustered, ("drop", 'on_done = "delete"'))
    assert of_embeddings(config).level == "ok"
    (segment,) = config.spool_dir.iterdir()

    if what == "missing":
        segment.unlink()
    else:
        segment.write_bytes(segment.read_bytes()[:-1])

    finding = of_embeddings(config)
    assert finding.level == "error"
    assert str(segment) in finding.message
    assert finding.remedy == "restore the file from a backup"


def test_where_no_embeddings_are_kept_none_are_missed(tmp_path: Path, clustered: Rows):
    config = trained_catalogue(tmp_path, clustered, ("generations", 'keep_embeddings = "nothing"'))
    (kept,) = config.done_dir.iterdir()
    kept.unlink()

    assert not [finding for finding in examine(config) if finding.check == "embeddings"]


@pytest.mark.slow
def test_doctor(small: Path, clustered: Rows):
    drop_npz(small / "drop", "a.npz", ids("a", 70), clustered(70, 16))
    semid("run", "--once", cwd=small)
    healthy = semid("doctor", "--json", cwd=small)
    assert healthy.returncode == 0, healthy.stdout
    findings = json.loads(healthy.stdout)
    assert {finding["check"] for finding in findings} >= {"database", "codebooks", "directories", "device", "sqlite"}
    assert not [finding for finding in findings if finding["level"] == "error"]
    (codebooks,) = (small / "state" / "codebooks").iterdir()
    codebooks.write_bytes(codebooks.read_bytes()[:-1] + b"x")
    connection = sqlite3.connect(small / "state" / "semid.db")
    connection.execute("UPDATE _generations SET items = items + 1")
    connection.execute("UPDATE _code_usage SET items = items + 1 WHERE layer = 1 AND code = 2")
    connection.commit()
    connection.close()
    ill = semid("doctor", cwd=small)
    assert ill.returncode == 1
    for fault in ("not what its fingerprint says", "items are not counted right: 1", "codes whose use is not"):
        assert fault in ill.stdout
    assert "restore a backup" in ill.stdout
