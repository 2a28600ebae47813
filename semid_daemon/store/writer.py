"""The one connection that writes: the ledger of files, the items, generations, metrics and events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from semid_daemon.failpoints import failpoint
from semid_daemon.records import Codebooks, TrainingStep
from semid_daemon.store.clock import utc_now
from semid_daemon.store.ledger import Ledger, LedgerFile, Sighting, Tally
from semid_daemon.store.rows import Metric, OnExisting, Rows

__all__ = ["Gauge", "Generation", "LedgerFile", "Metric", "OnExisting", "Sighting", "Tally", "Writer"]

_EVENTS_KEPT = 20_000
_COMMANDS_KEPT = 1_000

Gauge = float | str | None
LOSS_SPANS = (10, 100, 1000)
_ROLL_UP = """
    INSERT INTO _loss_rollups (run, layer, span, step, steps, low, high, total) VALUES (?, ?, ?, ?, 1, ?, ?, ?)
    ON CONFLICT DO UPDATE SET steps = steps + 1, low = min(low, excluded.low), high = max(high, excluded.high),
        total = total + excluded.total
"""


@dataclass(frozen=True, slots=True)
class Generation:
    """A published set of codebooks, as the ledger knows it."""

    generation: int
    fingerprint: str
    layers: int
    codebook_size: int
    dim: int
    normalize_residuals: bool
    items: int


class Writer(Ledger, Rows):
    """All writing goes through one instance, in the process that holds the state lock.

    Every public method is one transaction, or part of none: after a kill at any moment the database
    holds all of a call or nothing of it.
    """

    # -- generations -----------------------------------------------------------------------------

    def active_generation(self) -> Generation | None:
        """The generation that new rows are encoded with."""
        row = self._read_one(
            "SELECT generation, fingerprint, layers, codebook_size, dim, normalize_residuals, items"
            " FROM _generations WHERE status = 'active'"
        )
        if row is None:
            return None
        number, fingerprint, layers, codebook_size, dim, normalize_residuals, items = row
        return Generation(number, fingerprint, layers, codebook_size, dim, bool(normalize_residuals), items)

    def fingerprint(self, generation: int) -> str:
        """The fingerprint of a generation's codebooks; raises KeyError for one there never was."""
        row = self._read_one("SELECT fingerprint FROM _generations WHERE generation = ?", (generation,))
        if row is None:
            raise KeyError(generation)
        return str(row[0])

    def fingerprints(self) -> set[str]:
        """The fingerprints of every generation."""
        return {name for (name,) in self._read("SELECT fingerprint FROM _generations")}

    def publish_generation(self, fingerprint: str, codebooks: Codebooks, *, trained_rows: int) -> Generation:
        """Make codebooks, already safe on disk under their fingerprint, the active generation."""
        with self._transaction() as connection:
            connection.execute("UPDATE _generations SET status = 'retired' WHERE status = 'active'")
            number = connection.execute("SELECT coalesce(max(generation), 0) + 1 FROM _generations").fetchone()[0]
            connection.execute(
                "INSERT INTO _generations (generation, fingerprint, layers, codebook_size, dim,"
                " normalize_residuals, trained_rows, status, published_at) VALUES (?,?,?,?,?,?,?,'active',?)",
                (
                    number,
                    fingerprint,
                    codebooks.layers,
                    codebooks.codebook_size,
                    codebooks.dim,
                    int(codebooks.normalize_residuals),
                    trained_rows,
                    utc_now(),
                ),
            )
            usage_LK = np.zeros((codebooks.layers, codebooks.codebook_size), dtype=np.int64)
            connection.executemany(
                "INSERT INTO _code_usage (generation, layer, code, items) VALUES (?, ?, ?, 0)",
                [(number, layer, code) for layer, code in np.ndindex(*usage_LK.shape)],
            )
            self._write_health(number, usage_LK)
        failpoint("published")
        generation = self.active_generation()
        assert generation is not None
        return generation

    # -- what the daemon tells -------------------------------------------------------------------

    def next_training_run(self) -> str:
        """A name for the next training's metrics: train-1, train-2…"""
        (trained,) = self._read_one("SELECT count(DISTINCT run) FROM _metrics WHERE run GLOB 'train-*'")
        return f"train-{trained + 1}"

    def add_training_steps(self, run: str, steps: Sequence[TrainingStep]) -> None:
        """Record the loss of training steps, and its rollups by 10, 100 and 1,000 steps, in one transaction."""
        now = utc_now()
        with self._transaction() as connection:
            connection.executemany(
                _ROLL_UP,
                [
                    (run, step.layer, span, (step.step - 1) // span * span + 1, step.loss, step.loss, step.loss)
                    for span in LOSS_SPANS
                    for step in steps
                ],
            )
            connection.executemany(
                "INSERT INTO _metrics (run, step, layer, name, value, at) VALUES (?, ?, ?, 'loss', ?, ?)",
                [(run, step.step, step.layer, step.loss, now) for step in steps],
            )

    def add_events(self, events: Sequence[tuple[str, str]]) -> None:
        """Record what happened, for people, as (level, message): info, warning or error. The oldest go in the end."""
        if not events:
            return
        now = utc_now()
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO _events (at, level, message) VALUES (?, ?, ?)",
                [(now, level, message) for level, message in events],
            )
            connection.execute("DELETE FROM _events WHERE id <= (SELECT max(id) FROM _events) - ?", (_EVENTS_KEPT,))

    def daemon_started(self, pid: int, device: str, version: str) -> None:
        """A daemon took over this database."""
        now = utc_now()
        with self._transaction() as connection:
            connection.execute(
                "UPDATE _daemon SET pid = ?, state = 'starting', detail = '', device = ?, version = ?,"
                " started_at = ?, heartbeat_at = ?",
                (pid, device, version, now, now),
            )

    def heartbeat(self, state: str, detail: str = "", gauges: Mapping[str, Gauge] | None = None) -> None:
        """The daemon lives, and is in this state: idle, gathering, training, encoding, paused, stopped."""
        with self._transaction() as connection:
            connection.execute("UPDATE _daemon SET state = ?, detail = ?, heartbeat_at = ?", (state, detail, utc_now()))
            self._set_gauges(gauges or {})

    def set_gauges(self, gauges: Mapping[str, Gauge]) -> None:
        """Set figures of the `gauges` view, each a number or a text; None takes one away."""
        with self._transaction():
            self._set_gauges(gauges)

    def _set_gauges(self, gauges: Mapping[str, Gauge]) -> None:
        now = utc_now()
        self._connection.executemany(
            "INSERT OR REPLACE INTO _gauges (name, value, text, at) VALUES (?, ?, ?, ?)",
            [
                (name, None, gauge, now) if isinstance(gauge, str) else (name, float(gauge), None, now)
                for name, gauge in gauges.items()
                if gauge is not None
            ],
        )
        self._connection.executemany(
            "DELETE FROM _gauges WHERE name = ?", [(name,) for name, gauge in gauges.items() if gauge is None]
        )

    def paused_at(self) -> str | None:
        """Since when work is paused; None when it is not."""
        (at,) = self._read_one("SELECT paused_at FROM _daemon")
        return None if at is None else str(at)

    def set_paused(self, paused: bool) -> None:
        """Pause work, or resume it. A pause outlives the process."""
        with self._transaction() as connection:
            if paused:
                connection.execute("UPDATE _daemon SET paused_at = coalesce(paused_at, ?)", (utc_now(),))
            else:
                connection.execute("UPDATE _daemon SET paused_at = NULL")

    # -- commands --------------------------------------------------------------------------------

    def accept_command(self, name: str, command: str, arguments: str, requested_at: str) -> str:
        """Note a command under the name of its file, once; the state it is in: accepted, done or failed."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO _commands (name, command, arguments, state, requested_at) VALUES (?, ?, ?, 'accepted', ?)"
                " ON CONFLICT DO NOTHING",
                (name, command, arguments, requested_at),
            )
            connection.execute(
                "DELETE FROM _commands WHERE id <= (SELECT max(id) FROM _commands) - ? AND name != ?",
                (_COMMANDS_KEPT, name),
            )
        failpoint("command-accepted")
        (state,) = self._read_one("SELECT state FROM _commands WHERE name = ?", (name,))
        return str(state)

    def answer_command(self, name: str, state: str, answer: str) -> None:
        """How a command ended: done or failed, and what to tell who asked."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE _commands SET state = ?, answered_at = ?, answer = ? WHERE name = ?",
                (state, utc_now(), answer, name),
            )
        failpoint("command-answered")
