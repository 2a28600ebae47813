"""`semid backup`, and restoring it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.catalogues import Rows, drop_npz, ids
from tests.cli.tools import items, semid


@pytest.mark.slow
def test_backup_and_restore(small: Path, clustered: Rows, tmp_path: Path):
    drop_npz(small / "drop", "a.npz", ids("a", 70), clustered(70, 16))
    semid("run", "--once", cwd=small)
    target = tmp_path / "catalogue.tar"
    made = semid("backup", target, cwd=small)
    assert made.returncode == 0, made.stderr
    again = semid("backup", target, cwd=small)
    assert again.returncode == 78
    assert "exists already" in again.stderr
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    shutil.rmtree(small / "state")
    (small / "state").mkdir()
    subprocess.run(["tar", "-xf", target, "-C", small / "state"], check=True)
    assert semid("doctor", cwd=small).returncode == 1  # the directory for commands is made by the next run
    assert semid("run", "--once", cwd=small).returncode == 0
    assert semid("doctor", cwd=small).returncode == 0
    assert items(small) == 70
