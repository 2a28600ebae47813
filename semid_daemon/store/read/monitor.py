"""What a monitor reads, again and again: a cheap overview, and snapshots for its screens. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from semid_daemon.store.read.generations import GenerationQueries

_DAEMON = ("state", "detail", "pid", "device", "version", "started_at", "heartbeat_at", "paused_at")
_MOST_POINTS = 2_000  # of a loss curve, per layer


@dataclass(frozen=True, slots=True)
class LayerHealth:
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
class Overview:
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
    health: tuple[LayerHealth, ...]
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


class MonitorReader(GenerationQueries):
    """All that a monitor reads of a database."""

    # -- what is read with every change ----------------------------------------------------------

    def read_overview(self) -> Overview:
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
        return Overview(
            **dict(zip(_DAEMON, daemon, strict=True)),
            active=Active(*active[0]) if active else None,
            health=tuple(LayerHealth(*row) for row in health),
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
            history: dict[int, list[tuple[int, LayerHealth]]] = {layer: [] for layer in by_layer}
            for items, *health in self._rows(
                "SELECT items, layer, coverage, dead_codes, perplexity FROM _health_history"
                " WHERE generation = ? ORDER BY items",
                (generation,),
            ):
                history[health[0]].append((items, LayerHealth(*health)))
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
