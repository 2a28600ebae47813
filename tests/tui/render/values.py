"""Small values for the pure functions: an overview, files, a usage, a curve. No database, no app."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from semid_daemon.store.read.files import FileRow
from semid_daemon.store.read.generations import GenerationRow
from semid_daemon.store.read.loss import LossCurve, LossPoint
from semid_daemon.store.read.monitor import CatalogueQuality, Overview, Revisions, Usage
from semid_daemon.store.records import LayerHealth

AT = "2026-01-01T00:00:00.000Z"
ACTIVE = GenerationRow(
    generation=2,
    status="active",
    items=100,
    behind=0,
    trained_rows=100,
    origin="candidate",
    based_on=1,
    collisions="suffix",
    bucket_capacity=1,
    fingerprint="1e" * 16,
    created_at=AT,
    published_at=AT,
    distinct_ids=90,
    singletons=80,
    max_bucket=3,
    exact_duplicates=0,
    layers=2,
    codebook_size=4,
    dim=8,
    normalize_residuals=True,
)
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
        layers=(LayerHealth(0, 1.0, 0, 3.6), LayerHealth(1, 0.5, 2, 2.0)),
        files={"done": 3, "rejected": 1, "pending": 2},
        gauges={"file": "b.npz", "file_rows": 1000, "file_rows_done": 250, "rows_per_s": 500, "file_eta_s": 90},
        quality=CatalogueQuality(),
        next_generation=None,
        next_ready=False,
        lock=Path("lock"),
        revisions=Revisions(metrics=1, events=1, chunks=1, files=1, commands=1, generations=1),
    )
    return replace(value, **changes)


def file_row(**changes: Any) -> FileRow:
    """A file that is done."""
    value = FileRow((1,), 1, "a.npz", "done", 1000, 1000, 0, 0, None, 1, 2048, AT, AT, None)
    return replace(value, **changes)


def curve(*losses: float, layer: int = 0) -> LossCurve:
    """A run of one layer, a point to a step."""
    points = tuple(LossPoint(step, 1, loss, loss, loss) for step, loss in enumerate(losses, 1))
    return LossCurve("train-1", ("train-1",), 1, {layer: points})
