"""What a monitor reads, again and again: a connection of its own, a cheap pulse, and snapshots. Standard library only.

Every method is one short read transaction, its cursors read to their end: nothing pins the write-ahead log
between two calls. `interrupt` ends a call from another thread.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semid_daemon.errors import StoreError
from semid_daemon.store.lineage import Genealogy
from semid_daemon.store.version import APPLICATION_ID, SCHEMA_VERSION

_DAEMON = ("state", "detail", "pid", "device", "version", "started_at", "heartbeat_at", "paused_at")
_MOST_POINTS = 2_000  # of a loss curve, per layer


class UnavailableError(StoreError):
    """The database cannot be read just now: what it is, why, and what to do about it."""

    def __init__(self, title: str, message: str, remedy: str) -> None:
        super().__init__(f"{message}; {remedy}")
        self.title, self.message, self.remedy = title, message, remedy


class InterruptedReadError(StoreError):
    """A call was ended by `interrupt`."""


@dataclass(frozen=True, slots=True)
class Health:
    """One layer of a generation; `items` of the catalogue when it was so."""

    layer: int
    coverage: float
    dead_codes: int
    perplexity: float


@dataclass(frozen=True, slots=True)
class Active:
    """The active generation."""

    generation: int
    fingerprint: str
    layers: int
    codebook_size: int
    dim: int
    items: int
    distinct_ids: int
    singletons: int
    max_bucket: int
    exact_duplicates: int
    trained_rows: int
    published_at: str


@dataclass(frozen=True, slots=True)
class Pulse:
    """What is read with every change: the daemon, its gauges, the catalogue's figures, and what else has changed.

    `metrics`, `events`, `chunks` are the last IDs there are; `files`, `commands`, `generations` count changes.
    """

    state: str
    detail: str
    pid: int | None
    device: str | None
    version: str | None
    started_at: str | None
    heartbeat_at: str | None
    paused_at: str | None
    active: Active | None
    health: tuple[Health, ...]
    file_counts: Mapping[str, int]
    gauges: Mapping[str, float | str]
    metrics: int
    events: int
    chunks: int
    files: int
    commands: int
    generations: int


@dataclass(frozen=True, slots=True)
class LossPoint:
    """Training loss over `steps` steps from `step` on."""

    step: int
    steps: int
    low: float
    high: float
    mean: float


@dataclass(frozen=True, slots=True)
class LossCurve:
    """One training run: the points of each layer, at one span. `runs` are all there were, the latest last.

    `published` is the generation that came of it, if one has.
    """

    run: str
    runs: tuple[str, ...]
    span: int
    layers: Mapping[int, tuple[LossPoint, ...]]
    published: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Items per code, for each layer in code order, and how health came to be: (items, health) per layer."""

    generation: int
    layers: tuple[tuple[int, ...], ...]
    history: tuple[tuple[tuple[int, Health], ...], ...]


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


def identity(path: Path) -> tuple[int, int] | None:
    """Which file lies there; None when there is none."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


class Watch(Genealogy):
    """A read-only connection for one thread. Raises UnavailableError where the database cannot be read."""

    def __init__(self, path: Path, timeout_s: float = 1.0) -> None:
        self._path = path
        self._identity = self._find()
        with self._explained():
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro",
                uri=True,
                isolation_level=None,
                timeout=timeout_s,
                check_same_thread=False,  # `interrupt` comes from another
            )
            try:
                self._check_version()
            except BaseException:
                self._connection.close()
                raise

    def _find(self) -> tuple[int, int]:
        try:
            found = identity(self._path)
        except PermissionError:
            raise UnavailableError(
                "The database may not be read",
                f"{self._path}: permission denied",
                "share a group that may read the state directory",
            ) from None
        if found is None:
            raise UnavailableError(
                "No database yet", f"{self._path}: no such file", "make it with `semid init`, or start `semid run`"
            )
        return found

    def _check_version(self) -> None:
        read = self._connection.execute
        application_id, version = (read(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
        if application_id == 0 and version == 0 and not read("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            raise UnavailableError("No database yet", f"{self._path}: empty", "start `semid run`, which fills it")
        if application_id != APPLICATION_ID:
            raise UnavailableError(
                "A database of another program",
                f"{self._path}: not written by semid",
                "choose another paths.state in semid.toml",
            )
        if version != SCHEMA_VERSION:
            newer = version > SCHEMA_VERSION
            raise UnavailableError(
                "A database of another version",
                f"{self._path}: schema {version}, this semid-tui knows {SCHEMA_VERSION}",
                "upgrade semid here and start the UI again"
                if newer
                else "start the new daemon once, which upgrades it",
            )

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """SQLite's errors in words."""
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code == sqlite3.SQLITE_INTERRUPT:
                raise InterruptedReadError(str(error)) from None
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise UnavailableError(
                    "The database is locked",
                    f"{self._path}: another program holds its lock ({error})",
                    "end that program; only the daemon may write",
                ) from None
            if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise UnavailableError(
                    "The database is damaged",
                    f"{self._path}: {error}",
                    "run `semid doctor`; stop the daemon and restore a backup",
                ) from None
            raise UnavailableError(
                "The database cannot be read",
                f"{self._path}: {error}",
                "start the daemon, or share a group that may write to the state directory"
                if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
                else "run `semid doctor`",
            ) from None

    def close(self) -> None:
        self._connection.close()

    def interrupt(self) -> None:
        """End the call in progress: it raises InterruptedReadError. From any thread."""
        with contextlib.suppress(sqlite3.ProgrammingError):  # closed meanwhile
            self._connection.interrupt()

    def is_current(self) -> bool:
        """Whether the file under this path is still the one that was opened."""
        return identity(self._path) == self._identity

    def data_version(self) -> int:
        """Changes with every commit of others."""
        with self._explained():
            return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """One moment of the database for all that is read inside."""
        if self._connection.in_transaction:
            yield
            return
        with self._explained():
            self._connection.execute("BEGIN")
            try:
                yield
            finally:
                self._end()

    def _end(self) -> None:
        """End the transaction, even where `interrupt` comes just now: it would pin an old snapshot for ever."""
        while self._connection.in_transaction:
            with contextlib.suppress(sqlite3.OperationalError):
                self._connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def at_most(self, seconds: float) -> Iterator[None]:
        """Raises InterruptedReadError where reading takes longer."""
        until = time.monotonic() + seconds
        self._connection.set_progress_handler(lambda: time.monotonic() > until, 10_000)
        try:
            with self._explained():
                yield
        finally:
            self._connection.set_progress_handler(None, 0)

    def _rows(self, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._explained():
            return self._connection.execute(sql, values).fetchall()

    # -- what is read with every change ----------------------------------------------------------

    def pulse(self) -> Pulse:
        """Cheap whatever the size of the catalogue."""
        with self.snapshot():
            self._check_version()  # a newer daemon may have migrated it
            (daemon,) = self._rows(f"SELECT {', '.join(_DAEMON)} FROM daemon")
            active = self._rows(
                "SELECT generation, fingerprint, layers, codebook_size, dim, items, distinct_ids, singletons,"
                " max_bucket, exact_duplicates, trained_rows, published_at FROM _generations WHERE status = 'active'"
            )
            health = self._rows(
                "SELECT layer, coverage, dead_codes, perplexity FROM _layer_health WHERE generation = ? ORDER BY layer",
                (active[0][0] if active else -1,),
            )
            counts = self._rows("SELECT status, files FROM _file_counts")
            gauges = self._rows("SELECT name, coalesce(value, text) FROM _gauges")
            revisions = dict(self._rows("SELECT name, revision FROM _revisions"))
            metrics, events, chunks = (
                self._rows(f"SELECT coalesce(max(id), 0) FROM {table}")[0][0]
                for table in ("_metrics", "_events", "_chunks")
            )
        return Pulse(
            **dict(zip(_DAEMON, daemon, strict=True)),
            active=Active(*active[0]) if active else None,
            health=tuple(Health(*row) for row in health),
            file_counts=dict(counts),
            gauges=dict(gauges),
            metrics=metrics,
            events=events,
            chunks=chunks,
            files=revisions["files"],
            commands=revisions["commands"],
            generations=revisions["generations"],
        )

    # -- snapshots for one screen or another -----------------------------------------------------

    def training_runs(self) -> tuple[str, ...]:
        """The names of all training runs, the latest last."""
        found = self._rows(
            "WITH RECURSIVE runs(run) AS (SELECT min(run) FROM _loss_rollups UNION ALL"
            " SELECT (SELECT min(run) FROM _loss_rollups l WHERE l.run > runs.run) FROM runs WHERE runs.run NOTNULL)"
            " SELECT run FROM runs WHERE run NOTNULL"
            " ORDER BY (SELECT id FROM _metrics m WHERE m.run = runs.run AND m.name = 'loss' LIMIT 1)"
        )
        return tuple(run for (run,) in found)

    def loss(self, run: str | None = None) -> LossCurve | None:
        """The loss of a run, or of the latest training: in single steps while they are few, then in rollups.

        What a generation's candidate goes on learning is the run `candidate-<generation>`.
        """
        with self.snapshot():
            runs = self.training_runs()
            if not runs:
                return None
            trainings = [each for each in runs if not each.startswith("candidate-")]
            run = run if run in runs else (trainings or list(runs))[-1]
            layers = {}
            of_layer = "FROM _loss_rollups WHERE run = ? AND layer = ? AND span = ?"
            numbers = [
                layer for (layer,) in self._rows("SELECT DISTINCT layer FROM _loss_rollups WHERE run = ?", (run,))
            ]
            most = max(
                self._rows(f"SELECT max(step) - min(step) + 10 {of_layer}", (run, layer, 10))[0][0] for layer in numbers
            )
            span = next((span for span in (1, 10, 100, 1000) if most <= span * _MOST_POINTS), 1000)
            for layer in numbers:
                if span == 1:
                    rows = self._rows(
                        "SELECT step, 1, value, value, value FROM _metrics"
                        " WHERE run = ? AND name = 'loss' AND layer = ? ORDER BY step",
                        (run, layer),
                    )
                else:
                    rows = self._rows(
                        f"SELECT step, steps, low, high, total / steps {of_layer} ORDER BY step", (run, layer, span)
                    )
                layers[layer] = tuple(LossPoint(*row) for row in rows)
            published = self._published_after(run, trainings, max(numbers)) if run in trainings else None
        return LossCurve(run, runs, span, layers, published)

    def _published_after(self, run: str, trainings: Sequence[str], last_layer: int) -> int | None:
        """The generation made of a run: the first after its last step, unless another training began before."""

        def at(of: str, layer: int, order: str) -> str | None:
            found = self._rows(
                f"SELECT at FROM _metrics WHERE run = ? AND name = 'loss' AND layer = ? ORDER BY step {order} LIMIT 1",
                (of, layer),
            )
            return found[0][0] if found else None

        following = trainings[trainings.index(run) + 1 :]
        before = at(following[0], 0, "ASC") if following else None
        found = self._rows(
            "SELECT min(generation) FROM _generations WHERE origin != 'candidate' AND created_at >= ?"
            " AND (? IS NULL OR created_at < ?)",
            (at(run, last_layer, "DESC"), before, before),
        )
        return None if found[0][0] is None else int(found[0][0])

    def usage(self, generation: int) -> Usage:
        """How much each code of a generation is used."""
        with self.snapshot():
            by_layer: dict[int, list[int]] = {}
            for layer, items in self._rows(
                "SELECT layer, items FROM _code_usage WHERE generation = ? ORDER BY layer, code", (generation,)
            ):
                by_layer.setdefault(layer, []).append(items)
            history: dict[int, list[tuple[int, Health]]] = {layer: [] for layer in by_layer}
            for items, *health in self._rows(
                "SELECT items, layer, coverage, dead_codes, perplexity FROM _health_history"
                " WHERE generation = ? ORDER BY items",
                (generation,),
            ):
                history[health[0]].append((items, Health(*health)))
        return Usage(generation, tuple(map(tuple, by_layer.values())), tuple(map(tuple, history.values())))

    def events(self, most: int, text: str = "", level: str = "") -> tuple[Event, ...]:
        """The latest events, newest first: those whose message holds a text, of one level or all."""
        found = self._rows(
            "SELECT id, at, level, message FROM _events WHERE (? = '' OR level = ?)"
            " AND (? = '' OR instr(lower(message), lower(?)) > 0) ORDER BY id DESC LIMIT ?",
            (level, level, text, text, most),
        )
        return tuple(Event(*row) for row in found)

    def commands(self, most: int) -> tuple[CommandState, ...]:
        """The latest commands, newest first."""
        found = self._rows(
            "SELECT name, command, arguments, state, requested_at, answered_at, answer"
            " FROM _commands ORDER BY id DESC LIMIT ?",
            (most,),
        )
        return tuple(CommandState(*row) for row in found)
