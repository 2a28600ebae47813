"""What a monitor reads again and again: a cheap overview, and snapshots for its screens. Standard library only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from semid_daemon.store.read.connection import ReadConnection
from semid_daemon.store.read.files import FileQueries
from semid_daemon.store.read.generations import GenerationQueries
from semid_daemon.store.read.loss import LossQueries
from semid_daemon.store.read.search import SearchQueries
from semid_daemon.store.read.status import Status, StatusQueries
from semid_daemon.store.records import LayerHealth


@dataclass(frozen=True, slots=True)
class Revisions:
    """What has changed since an earlier look: equal numbers say that nothing of that kind has.

    `metrics`, `events`, `chunks` are the last IDs there are; `files`, `commands`, `generations` count changes.
    """

    metrics: int
    events: int
    chunks: int
    files: int
    commands: int
    generations: int


@dataclass(frozen=True, slots=True)
class CatalogueQuality:
    """How good the active generation's IDs are; None where a value was not measured.

    `error`: of a sample of its items. `drift`: error of recent rows over that of rows without drift, so that 1 means
    none; `divergence`: the largest drift_js of a layer, in bits. `next_moved`: share of the IDs that would move to the
    generation prepared beside it.
    """

    error: float | None = None
    drift: float | None = None
    divergence: float | None = None
    next_moved: float | None = None


@dataclass(frozen=True, slots=True)
class Overview(Status):
    """The status with the daemon's gauges by name, the quality of the IDs, and what has changed.

    Read with every change.
    """

    gauges: Mapping[str, float | str]
    quality: CatalogueQuality
    revisions: Revisions


@dataclass(frozen=True, slots=True)
class Usage:
    """Items per code, for each layer in code order, and how health came to be: (items, health) per layer."""

    generation: int
    layers: tuple[tuple[int, ...], ...]
    history: tuple[tuple[tuple[int, LayerHealth], ...], ...]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened."""

    id: int
    at: str
    level: str
    message: str


@dataclass(frozen=True, slots=True)
class CommandState:
    """A command by the name of its file, and what came of it."""

    name: str
    command: str
    arguments: str
    state: str
    requested_at: str
    answered_at: str | None
    answer: str | None


class MonitorReader:
    """Everything that the terminal UI reads, over one connection."""

    def __init__(self, connection: ReadConnection) -> None:
        self.connection = connection
        self.status = StatusQueries(connection)
        self.files = FileQueries(connection)
        self.search = SearchQueries(connection)
        self.generations = GenerationQueries(connection)
        self.losses = LossQueries(connection)

    def read_overview(self) -> Overview:
        """One snapshot, cheap whatever the size of the catalogue."""
        rows = self.connection.rows
        with self.connection.snapshot():
            self.connection.check_version()
            status = self.status.status()
            gauges: dict[str, float | str] = dict(rows("SELECT name, coalesce(value, text) FROM _gauges"))
            quality = self._quality(status)
            changes: dict[str, int] = dict(rows("SELECT name, revision FROM _revisions"))
            metrics, events, chunks = (
                self.connection.row(f"SELECT coalesce(max(id), 0) FROM {table}")[0]
                for table in ("_metrics", "_events", "_chunks")
            )
        return Overview(
            **{field.name: getattr(status, field.name) for field in dataclasses.fields(Status)},
            gauges=gauges,
            quality=quality,
            revisions=Revisions(metrics, events, chunks, changes["files"], changes["commands"], changes["generations"]),
        )

    def _quality(self, status: Status) -> CatalogueQuality:
        """An index finds each value."""
        active = status.active
        if active is None:
            return CatalogueQuality()
        drift, base = self.generations.drift(active, 1), self.generations.drift_base(active)
        ratio = drift.get(("drift_error_ratio", None))
        first, rows = self.connection.first, f"quality-{active.generation}"
        error = first(
            "SELECT value FROM _metrics WHERE run = ? AND name = 'error' AND layer IS NULL ORDER BY step DESC LIMIT 1",
            rows,
        )
        moved = first(
            "SELECT new_value FROM _comparisons WHERE old = ? AND new = ? AND name = 'churn' AND layer IS NULL",
            active.generation,
            status.next_generation,
        )
        return CatalogueQuality(
            error=error[0] if error else None,
            drift=ratio[-1] / base if ratio and base else None,
            divergence=max((values[-1] for (name, _), values in drift.items() if name == "drift_js"), default=None),
            next_moved=moved[0] if moved else None,
        )

    def usage(self, generation: int) -> Usage:
        """How much each code of a generation is used."""
        with self.connection.snapshot():
            by_layer: dict[int, list[int]] = {}
            for layer, items in self.connection.rows(
                "SELECT layer, items FROM _code_usage WHERE generation = ? ORDER BY layer, code", generation
            ):
                by_layer.setdefault(layer, []).append(items)
            history: dict[int, list[tuple[int, LayerHealth]]] = {layer: [] for layer in by_layer}
            for items, *health in self.connection.rows(
                "SELECT items, layer, coverage, dead_codes, perplexity FROM _health_history"
                " WHERE generation = ? ORDER BY items",
                generation,
            ):
                history[health[0]].append((items, LayerHealth(*health)))
        return Usage(generation, tuple(map(tuple, by_layer.values())), tuple(map(tuple, history.values())))

    def events(self, most: int, text: str = "", level: str = "") -> tuple[Event, ...]:
        """The latest events, newest first: those whose message holds a text, of one level or all."""
        found = self.connection.rows(
            "SELECT id, at, level, message FROM _events WHERE (? = '' OR level = ?)"
            " AND (? = '' OR instr(lower(message), lower(?)) > 0) ORDER BY id DESC LIMIT ?",
            level,
            level,
            text,
            text,
            most,
        )
        return tuple(Event(*row) for row in found)

    def commands(self, most: int) -> tuple[CommandState, ...]:
        """The latest commands, newest first."""
        found = self.connection.rows(
            "SELECT name, command, arguments, state, requested_at, answered_at, answer"
            " FROM _commands ORDER BY id DESC LIMIT ?",
            most,
        )
        return tuple(CommandState(*row) for row in found)
