"""kill -9 while a candidate learns, while a generation is prepared, promoted and deleted: exact afterwards."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from semid_daemon.command_client import send_command
from semid_daemon.config import Config
from semid_daemon.store.read.checks import check_database
from tests.catalogues import Rows, drop_npz, ids
from tests.faults.tools import configured, query, run, semid

LEARNED = """
    SELECT 'candidate', generation, layer, steps, rows, centroids, counts
        FROM _candidates JOIN _candidate_layers USING (generation)
    UNION ALL SELECT 'waiting', generation, chunk_id, NULL, NULL, embeddings, NULL FROM _candidate_rows
    UNION ALL SELECT 'drift', generation, NULL, NULL, NULL, state, NULL FROM _drift ORDER BY 1, 2, 3
"""
MEASURED = """
    SELECT run, step, layer, name, value FROM metrics
    WHERE run GLOB 'candidate-*' OR name GLOB 'drift_*' ORDER BY run, step, name, layer
"""
GIVEN = """
    SELECT generation, item_id, semantic_id, suffix FROM all_semantic_ids ORDER BY generation, item_id
"""
STATUSES = "SELECT generation, fingerprint, items, status, origin, based_on FROM generations ORDER BY generation"


def everything(config: Config) -> list[list[tuple]]:
    return [query(config, sql) for sql in (LEARNED, MEASURED, GIVEN, STATUSES)]


def config_of(root: Path) -> Config:
    return configured(root, ("drop", 'on_done = "delete"'), ("generations", "keep_retired = 0"))


@pytest.fixture(scope="module")
def begun(tmp_path_factory, clustered: Rows) -> Path:
    """A catalogue with a generation, and a file still to be learned from."""
    root = tmp_path_factory.mktemp("begun")
    config = config_of(root)
    drop_npz(config.drop_dir, "a.npz", ids("a", 200), clustered(200, 16))
    run(config)
    drop_npz(config.drop_dir, "b.npz", ids("b", 660), clustered(660, 16, seed=1) + 0.5)
    return root


@pytest.fixture(scope="module")
def undisturbed(begun: Path, tmp_path_factory) -> list[list[tuple]]:
    """What an uninterrupted run leaves, learning first, then refreshing."""
    config = config_of(shutil.copytree(begun, tmp_path_factory.mktemp("undisturbed") / "c"))
    run(config)
    for command in ("train", "promote"):
        send_command(config.commands_dir, command, {})
        run(config)
    return everything(config)


POINTS = {
    "learn": ["rows-inserted:2", "spooled:5"],
    "train": ["codebooks-renamed", "taking-over:3", "taken-over:4", "ready"],
    "promote": ["switching", "switched", "deleting"],
}


@pytest.mark.slow
@pytest.mark.parametrize("when", POINTS)
def test_killed_on_the_way_to_the_next_generation(
    begun: Path, undisturbed: list[list[tuple]], tmp_path: Path, when: str
):
    """kill -9 during continual training, refresh and promotion: afterwards all is as without it, bit for bit"""
    config = config_of(shutil.copytree(begun, tmp_path / "c"))
    for step in POINTS:
        if step != "learn":
            send_command(config.commands_dir, step, {})
        for point in POINTS[step] if step == when else ():
            died = semid("run", "--once", "-c", config.root / "semid.toml", failpoint=point)
            assert died.returncode == -signal.SIGKILL, died.stderr
            assert check_database(config.database).faults == []
            active = query(config, "SELECT generation, count(*) FROM semantic_ids GROUP BY 1")
            if step == "promote":  # one or the other, never some of both
                assert active == ([(1, 860)] if point == "switching" else [(2, 860)])
            elif step == "train":
                assert active == [(1, 860)]
        run(config)
    assert check_database(config.database).faults == []
    assert everything(config) == undisturbed
    commands = query(config, "SELECT command, state FROM commands ORDER BY requested_at")
    assert commands == [("train", "done"), ("promote", "done")]
    assert len(list(config.codebooks_dir.iterdir())) == 1
