"""Small values for the pure functions: an overview, files, a usage, a curve. No database, no app."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from semid_daemon.store.read.monitor import Active, LayerHealth, LossCurve, LossPoint, Overview, Usage
from semid_daemon.store.read.search import FileRow

ACTIVE = Active(2, "1e" * 16, 2, 4, 8, 100, 90, 80, 3, 0, 100, "2026-01-01T00:00:00.000Z")
USAGE = Usage(2, ((40, 30, 20, 10), (50, 50, 0, 0)), ((), ()))


def overview(**changes: Any) -> Overview:
    """A live daemon that encodes, with two layers of four codes, two of them dead."""
    value = Overview(
        state="encoding",
        detail="b.npz",
        pid=1,
        device="cpu",
        version="0.1.0",
        started_at=None,
        heartbeat_at=datetime.now(UTC).isoformat(),
        paused_at=None,
        active=ACTIVE,
        health=(LayerHealth(0, 1.0, 0, 3.6), LayerHealth(1, 0.5, 2, 2.0)),
        file_counts={"done": 3, "rejected": 1, "pending": 2},
        gauges={"file": "b.npz", "file_rows": 1000, "file_rows_done": 250, "rows_per_s": 500, "file_eta_s": 90},
        metrics=1,
        events=1,
        chunks=1,
        files=1,
        commands=1,
        generations=1,
    )
    return replace(value, **changes)


def file_row(**changes: Any) -> FileRow:
    """A file that is done."""
    at = "2026-01-01T00:00:00.000Z"
    value = FileRow((1,), 1, "a.npz", "done", 1000, 1000, 0, 0, None, 1, 2048, at, at, None)
    return replace(value, **changes)


def curve(*losses: float, layer: int = 0) -> LossCurve:
    """A run of one layer, a point to a step."""
    points = tuple(LossPoint(step, 1, loss, loss, loss) for step, loss in enumerate(losses, 1))
    return LossCurve("train-1", ("train-1",), 1, {layer: points})
