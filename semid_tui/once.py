"""`semid-tui --once`: the overview as plain text, for screen readers and scripts."""

from __future__ import annotations

from semid_daemon.config import Config
from semid_daemon.store.read.connection import ReadConnection
from semid_daemon.store.read.monitor import MonitorReader
from semid_tui.context import Marker, Mode
from semid_tui.render.chart import View, loss_lines
from semid_tui.render.overview import (
    all_files_lines,
    codebook_lines,
    event_lines,
    host_lines,
    quality_lines,
    trouble_lines,
    work_lines,
)
from semid_tui.render.spans import Line, plain
from semid_tui.render.status import status_line

_TROUBLED, _EVENTS = 8, 8


def overview_text(config: Config, width: int, marker: Marker) -> str:
    """The overview, one part below the other. Raises StoreError where the database cannot be read."""
    with ReadConnection(config.database) as connection, connection.snapshot():
        reader = MonitorReader(connection)
        overview, curve = reader.read_overview(), reader.losses.curve()
        usage = reader.usage(overview.active.generation) if overview.active else None
        troubled, events = reader.files.troubled(_TROUBLED), reader.events(_EVENTS)
    limits = config.generations
    height = 1 + len(overview.layers)
    parts: list[list[Line]] = [
        [status_line(overview, width, Mode(readonly=True, ascii_only=marker == "ascii"))],
        loss_lines(curve, width, 10, View(marker=marker)),
        work_lines(overview, width, 4, marker),
        all_files_lines(overview, width, marker),
        quality_lines(overview, width, marker, limits.drift_error_ratio, limits.drift_js),
        codebook_lines(overview, usage, width, max(2, height), marker),
        trouble_lines(overview, troubled, width, 2 + len(troubled), marker),
        host_lines(overview, width, 12, marker),
        event_lines(events, width, 1 + max(1, len(events)), marker),
    ]
    return "\n".join(plain(part) for part in parts)
