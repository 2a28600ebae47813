"""`semid demo`, whole and ended early."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from semid_daemon.config import load_config
from tests.cli import tools
from tests.faults.tools import SEMID, query, state_of, wait_until


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_stopped_while_it_trains_ends_in_one_line(tmp_path: Path, number: int):
    root = tmp_path / "demo"
    with (tmp_path / "stderr").open("w") as stderr:
        demo = subprocess.Popen(
            [*SEMID, "demo", "--dir", root, "--device", "cpu"], stdout=subprocess.DEVNULL, stderr=stderr
        )
        try:
            wait_until((root / "semid.toml").exists)
            config = load_config(root / "semid.toml")
            wait_until(lambda: config.database.exists() and state_of(config) == "training", timeout_s=1500)
            demo.send_signal(number)
            assert demo.wait() == 1
        finally:
            demo.kill()
            demo.wait()
    said = (tmp_path / "stderr").read_text()
    assert "Traceback" not in said
    assert said.splitlines()[-1] == f"semid: the demo was stopped; `semid run -c {root / 'semid.toml'}` goes on with it"
    assert query(config, "SELECT state FROM daemon") == [("stopped",)]
    assert query(config, "SELECT count(*) FROM generations") == [(0,)]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_demo(tmp_path: Path):
    ran = tools.semid("demo", "--dir", tmp_path / "demo", "--device", "cpu")
    assert ran.returncode == 0, ran.stderr
    assert "3,618 items have a semantic ID" in ran.stdout
    assert "numpy\t" in ran.stdout
    assert tools.items(tmp_path / "demo") == 3618
    assert tools.query(tmp_path / "demo", "SELECT file, status, rows FROM files") == [
        ("packages-1.npz", "done", 1809),
        ("packages-2.parquet", "done", 1809),
    ]
    again = tools.semid("demo", "--dir", tmp_path / "demo")
    assert again.returncode == 78
    assert "holds a catalogue already" in again.stderr
