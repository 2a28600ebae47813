"""`semid-tui --once` and `--json`: the overview as plain text for screen readers and scripts, or as data."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path

from semid_daemon.store.read.monitor import MonitorReader
from semid_tui.context import Marker, Mode
from semid_tui.render.chart import View, last_smoothed, loss_lines
from semid_tui.render.overview import (
    all_files_lines,
    codebook_lines,
    event_lines,
    host_lines,
    trouble_lines,
    work_lines,
)
from semid_tui.render.spans import Line, plain
from semid_tui.render.status import liveness, status_line
from semid_tui.render.text import age_s

_TROUBLED, _EVENTS = 8, 8


def overview_text(database: Path, width: int, marker: Marker) -> str:
    """The overview, one part below the other. Raises StoreError where the database cannot be read."""
    reader = MonitorReader(database)
    try:
        overview = reader.read_overview()
        with reader.snapshot():
            curve = reader.loss()
            usage = reader.usage(overview.active.generation) if overview.active else None
            troubled, events = reader.troubled_files(_TROUBLED), reader.events(_EVENTS)
    finally:
        reader.close()
    height = 1 + len(overview.health)
    parts: list[list[Line]] = [
        [status_line(overview, width, Mode(readonly=True, ascii_only=marker == "ascii"))],
        loss_lines(curve, width, 10, View(marker=marker)),
        work_lines(overview, width, 4, marker),
        all_files_lines(overview, width, marker),
        codebook_lines(overview, usage, width, max(2, height), marker),
        trouble_lines(overview, troubled, width, 2 + len(troubled), marker),
        host_lines(overview, width, 12, marker),
        event_lines(events, width, 1 + max(1, len(events)), marker),
    ]
    return "\n".join(plain(part) for part in parts)


def overview_json(database: Path) -> str:
    """The same as one JSON object. Raises StoreError where the database cannot be read."""
    reader = MonitorReader(database)
    try:
        overview = reader.read_overview()
        with reader.snapshot():
            curve = reader.loss()
            troubled, events = reader.troubled_files(_TROUBLED), reader.events(_EVENTS)
    finally:
        reader.close()
    trend = last_smoothed(curve) if curve else None
    training = None
    if curve is not None and trend is not None:
        training = {"run": curve.run, "step": trend[0], "smoothed_loss": trend[1]}
    return json.dumps(
        {
            "state": overview.state,
            "detail": overview.detail,
            "liveness": liveness(overview),
            "heartbeat_at": overview.heartbeat_at,
            "heartbeat_age_s": age_s(overview.heartbeat_at, datetime.now(UTC)),
            "paused_at": overview.paused_at,
            "pid": overview.pid,
            "device": overview.device,
            "version": overview.version,
            "generation": dataclasses.asdict(overview.active) if overview.active else None,
            "layers": [dataclasses.asdict(health) for health in overview.health],
            "files": dict(overview.file_counts),
            "gauges": dict(overview.gauges),
            "training": training,
            "troubled_files": [
                {"file": file.name, "status": file.status, "reason": file.reason, "retry_at": file.retry_at}
                for file in troubled
            ],
            "events": [{"at": event.at, "level": event.level, "message": event.message} for event in events],
        }
    )
