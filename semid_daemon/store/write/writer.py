"""The one connection that writes: the ledger of files, the items, generations, metrics and events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from semid_daemon.base.clock import utc_now
from semid_daemon.base.failpoints import failpoint
from semid_daemon.base.types import TrainingStep
from semid_daemon.store.write.candidates import Candidate, Learned, Metric
from semid_daemon.store.write.files import Ledger, LedgerFile, Sighting, Tally
from semid_daemon.store.write.generations import Generation, Generations
from semid_daemon.store.write.placement import OnExisting, Placement

__all__ = [
    "Candidate",
    "Gauge",
    "Generation",
    "Learned",
    "LedgerFile",
    "Metric",
    "OnExisting",
    "Placement",
    "Sighting",
    "Tally",
    "Writer",
]

_EVENTS_KEPT = 20_000
_COMMANDS_KEPT = 1_000

Gauge = float | str | None


class Writer(Ledger, Generations):
    """All writing goes through one instance, in the process that holds the state lock.

    Every public method is one transaction, or part of none: after a kill at any moment the database
    holds all of a call or nothing of it.
    """

    # -- what the daemon tells -------------------------------------------------------------------

    def next_training_run(self) -> str:
        """A name for the next training's metrics: train-1, train-2…"""
        (trained,) = self._read_one("SELECT count(DISTINCT run) FROM _metrics WHERE run GLOB 'train-*'")
        return f"train-{trained + 1}"

    def add_training_steps(self, run: str, steps: Sequence[TrainingStep]) -> None:
        """Record the loss of training steps, and its rollups by 10, 100 and 1,000 steps, in one transaction."""
        with self._transaction():
            self._insert_losses(run, steps, utc_now())

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
