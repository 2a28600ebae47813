"""The JSON document of `semid status --json` and `semid-tui --json`. Standard library only."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from semid_daemon.store.read.connection import ReadConnection
from semid_daemon.store.read.loss import LossCurve, smooth
from semid_daemon.store.read.monitor import MonitorReader

_TROUBLED_FILES, _EVENTS = 8, 8


def status_document(path: Path) -> dict[str, Any]:
    """One snapshot of the database at a path, as JSON values. Raises UnavailableError where it cannot be read.

    `active` is the whole record of the active generation, `training` the latest training run with the smoothed loss of
    its last layer; `troubled_files` are the latest that were rejected or deferred. Rates are null while nothing has an
    ID.
    """
    with ReadConnection(path) as connection, connection.snapshot():
        reader = MonitorReader(connection)
        overview = reader.read_overview()
        curve = reader.losses.curve()
        troubled, events = reader.files.troubled(_TROUBLED_FILES), reader.events(_EVENTS)
    age_s = overview.heartbeat_age_s()
    return {
        "state": overview.state,
        "detail": overview.detail,
        "liveness": overview.liveness(),
        "pid": overview.pid,
        "device": overview.device,
        "version": overview.version,
        "started_at": overview.started_at,
        "heartbeat_at": overview.heartbeat_at,
        "heartbeat_age_s": None if age_s is None else round(age_s, 3),
        "paused_at": overview.paused_at,
        "generation": overview.generation,
        "fingerprint": overview.fingerprint,
        "items": overview.items,
        "unique_rate": overview.unique_rate,
        "singleton_rate": overview.singleton_rate,
        "max_bucket": overview.max_bucket,
        "exact_duplicates": overview.exact_duplicates,
        "next_generation": overview.next_generation,
        "next_ready": overview.next_ready,
        "active": dataclasses.asdict(overview.active) if overview.active else None,
        "layers": [dataclasses.asdict(health) for health in overview.layers],
        "files": dict(overview.files),
        "gauges": dict(overview.gauges),
        "training": _training(curve) if curve else None,
        "troubled_files": [
            {"file": file.name, "status": file.status, "reason": file.reason, "retry_at": file.retry_at}
            for file in troubled
        ],
        "events": [{"at": event.at, "level": event.level, "message": event.message} for event in events],
    }


def _training(curve: LossCurve) -> dict[str, Any] | None:
    points = max(curve.layers.values(), key=lambda points: points[-1].step if points else -1, default=())
    if not points:
        return None
    return {"run": curve.run, "step": points[-1].last_step, "smoothed_loss": smooth(points)[-1]}
