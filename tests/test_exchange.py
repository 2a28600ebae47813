"""Commands that exchange with other programs, as users run them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import SMALL, drop_npz
from test_cli import SEMID, environment, ids, query, semid

from semid_daemon.cli import main
from semid_daemon.records import FloatArray

Rows = Callable[..., FloatArray]


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory, clustered: Rows) -> Path:
    """A catalogue of 170 items, all encoded; its daemon stopped."""
    root = tmp_path_factory.mktemp("encoded")
    assert semid("init", root).returncode == 0
    (root / "semid.toml").write_text(SMALL)
    drop_npz(root / "drop", "a.npz", ids("a", 170), clustered(170, 16, seed=1))
    assert semid("run", "--once", "-c", root / "semid.toml").returncode == 0
    return root


def test_export(encoded: Path, tmp_path: Path):
    done = semid("export", "-c", encoded / "semid.toml", "--format", "npy", tmp_path / "sids.npy")
    assert (done.returncode, done.stdout) == (0, "")
    assert "170 items of generation 1, npy; beside it sids.npy.ids.json, sids.npy.semid.json" in done.stderr
    item_ids = json.loads((tmp_path / "sids.npy.ids.json").read_text())
    found = [
        (item_id, "-".join(map(str, row[:-1])), row[-1])
        for item_id, row in zip(item_ids, np.load(tmp_path / "sids.npy").tolist(), strict=True)
    ]
    assert sorted(found) == query(encoded, "SELECT item_id, semantic_id, suffix FROM semantic_ids ORDER BY item_id")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--format", "csv", "--since", "soon", "x"], "no time like"),
        (["--format", "csv", "--prefix", "1-", "x"], "is not codes"),
        (["--format", "xml", "x"], "'xml' is not one of 'grid'"),
        (["--format", "csv", "--generation", "4", "x"], "there is no generation 4; there are: 1"),
        (["--format", "csv", "nowhere/x"], "no such directory"),
        (["--format", "parquet", "DROP/x.parquet"], "lies in the drop directory"),
        (["--format", "faiss", "x"], "subtracts without normalizing"),
    ],
)
def test_export_refuses_in_one_line(encoded: Path, tmp_path: Path, monkeypatch, arguments: list[str], says: str):
    arguments = [argument.replace("DROP", str(encoded / "drop")) for argument in arguments]
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["export", "-c", str(encoded / "semid.toml"), *arguments])
    assert done.exit_code in (1, 2, 78)
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_export_killed_before_its_end_leaves_the_old_one(encoded: Path, tmp_path: Path):
    (tmp_path / "ids.csv").write_text("old")
    command = [*SEMID, "export", "-c", encoded / "semid.toml", "--format", "csv", tmp_path / "ids.csv"]
    killed = subprocess.run(
        command, env={**environment(), "SEMID_FAILPOINT": "export-written"}, capture_output=True, timeout=60
    )
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "ids.csv").read_text() == "old"
    left = [name for name in os.listdir(tmp_path) if name != "ids.csv"]
    assert all(name.startswith(".ids.csv.") and name.endswith(".part") for name in left)
