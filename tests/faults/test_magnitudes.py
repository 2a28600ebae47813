"""Fault 66: finite rows of any magnitude are committed, and no figure undoes a commit."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from semid_daemon.base.types import TrainingStep
from semid_daemon.store.write.store import Store
from semid_daemon.store.write.telemetry import Metric
from tests.catalogues import Rows, drop_npz, ids
from tests.faults.tools import configured, query, run, trained_catalogue


@pytest.mark.parametrize("normalize", ["true", "false"])
def test_huge_rows_are_committed(normalize: str, tmp_path: Path, clustered: Rows):
    """In the first training file, and in one that comes later: nothing is rejected, no figure is missing."""
    config = configured(tmp_path, ("quantizer", f"normalize_residuals = {normalize}"))
    for name, magnitude in (("a", 1e20), ("b", 3e38), ("c", 1.0)):
        rows_ND = clustered(300, 16)
        rows_ND[7] *= magnitude / abs(rows_ND[7]).max()
        drop_npz(config.drop_dir, f"{name}.npz", ids(name, 300), rows_ND)
        run(config)
    assert query(config, "SELECT count(*) FROM semantic_ids") == [(900,)]
    assert query(config, "SELECT status, count(*) FROM files GROUP BY 1") == [("done", 3)]
    ((error, error_p99),) = query(config, "SELECT trained_error, trained_error_p99 FROM _generations")
    assert error is not None
    assert error_p99 is not None
    assert query(config, "SELECT count(*) FROM events WHERE message LIKE '%not a finite%'") == [(0,)]


def test_a_figure_that_is_not_finite_is_left_out_and_said_once(tmp_path: Path, clustered: Rows):
    config = trained_catalogue(tmp_path, clustered)
    with Store(config.database) as store:
        for value in (math.nan, math.inf, 1.5):
            store.telemetry.add_metrics("x", 1, [Metric("figure", value)])
            store.telemetry.add_training_steps("y", [TrainingStep(1, 0, 1, value)])
            store.telemetry.set_gauges({"z": value})
            store.comparisons.set(1, 1, [("w", None, value, 2.0)])
    assert query(config, "SELECT value FROM metrics WHERE run IN ('x', 'y')") == [(1.5,), (1.5,)]
    assert query(config, "SELECT value FROM gauges WHERE name = 'z'") == [(1.5,)]
    said = query(config, "SELECT message FROM _events WHERE message LIKE '%not a finite%' ORDER BY id")
    assert [message.split(":")[0] for (message,) in said] == [
        "figure of x",
        "loss of y",
        "gauge z",
        "w of generations 1 and 1",
    ]


def test_a_generation_without_its_p99_does_not_stop_the_next_file(tmp_path: Path, clustered: Rows):
    config = trained_catalogue(tmp_path, clustered)
    with Store(config.database) as store, store.database.transaction() as connection:
        connection.execute("UPDATE _generations SET trained_error_p99 = NULL")
    drop_npz(config.drop_dir, "next.npz", ids("next", 30), clustered(30, 16, 5))
    run(config)
    assert query(config, "SELECT count(*) FROM semantic_ids") == [(100,)]
