"""Files whose rows cannot be used, and files without item IDs, from the drop directory to the ledger."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow


def semid(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "semid_daemon", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "semid.toml").write_text(
        '[quantizer]\nlayers = 2\ncodebook_size = 16\ndevice = "cpu"\n'
        "[training]\nmin_rows = 64\n[ingest]\nmax_rejected_share = 0.5\n"
    )
    (tmp_path / "drop").mkdir()
    return tmp_path


def vectors(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(64, 8)).astype(np.float32)


def ask(root: Path, sql: str) -> list[tuple]:
    with sqlite3.connect(root / "state" / "semid.db") as database:
        return database.execute(sql).fetchall()


def test_unusable_files_are_rejected_and_no_two_files_share_made_up_ids(root: Path) -> None:
    for seed, day in enumerate(("day=1", "day=2")):
        (root / "drop" / day).mkdir()
        np.save(root / "drop" / day / "part-0.npy", vectors(seed))
    assert semid("run", "--once", "-c", root / "semid.toml").returncode == 0
    assert ask(root, "SELECT count(DISTINCT item_id) FROM semantic_ids") == [(128,)]
    published = {row[0] for row in ask(root, "SELECT item_id FROM semantic_ids WHERE file LIKE 'day=1%'")}
    looked = semid("inspect", root / "done" / "day=1" / "part-0.npy", "-c", root / "semid.toml", "--json")
    assert looked.returncode == 0
    assert all(item_id in looked.stdout for item_id in sorted(published)[:1])

    nan, half, wrong = np.full((64, 8), np.nan, np.float32), vectors(5), np.ones((4, 9), np.float32)
    half[:40] = np.nan
    for name, rows in (("nan", nan), ("half", half)):
        np.save(root / "drop" / f"{name}.npy", rows)
        assert semid("inspect", root / "drop" / f"{name}.npy", "-c", root / "semid.toml").returncode == 3
    np.save(root / "wrong.npy", wrong)
    assert semid("inspect", root / "wrong.npy", "-c", root / "semid.toml").returncode == 3
    run = semid("run", "--once", "-c", root / "semid.toml")
    assert run.returncode == 3
    reasons = dict(ask(root, "SELECT file, reason FROM files WHERE status = 'rejected'"))
    assert "none of its 64 rows can be used (not finite: 64)" in reasons["nan.npy"]
    assert "40 of its 64 rows cannot be used" in reasons["half.npy"]
    assert ask(root, "SELECT count(*) FROM semantic_ids") == [(128,)]
