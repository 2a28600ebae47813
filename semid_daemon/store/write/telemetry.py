"""Metrics by step, training losses with their rollups, gauges and events."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from semid_daemon.base.clock import utc_now
from semid_daemon.base.types import TrainingStep
from semid_daemon.store.write.database import Database

Gauge = float | str | None  # None removes it

LOSS_SPANS = (10, 100, 1000)  # steps per rollup
_EVENTS_KEPT = 20_000
_ROLL_UP = """
    INSERT INTO _loss_rollups (run, layer, span, step, steps, low, high, total) VALUES (?, ?, ?, ?, 1, ?, ?, ?)
    ON CONFLICT DO UPDATE SET steps = steps + 1, low = min(low, excluded.low), high = max(high, excluded.high),
        total = total + excluded.total
"""


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured value; `layer` is None where it concerns all layers."""

    name: str
    value: float
    layer: int | None = None


class Telemetry:
    """What the daemon measures and reports. No figure undoes a commit: one that is not finite is left out."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def next_training_run(self) -> str:
        """A name for the next training's metrics: train-1, train-2…"""
        (trained,) = self._database.read_one("SELECT count(DISTINCT run) FROM _metrics WHERE run GLOB 'train-*'")
        return f"train-{trained + 1}"

    def add_metrics(self, run: str, step: int, metrics: Sequence[Metric]) -> None:
        """Record the metrics of one step of a run."""
        now = utc_now()
        with self._database.transaction() as connection:
            self.say_left_out(f"{metric.name} of {run}" for metric in metrics if not math.isfinite(metric.value))
            connection.executemany(
                "INSERT INTO _metrics (run, step, layer, name, value, at) VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (run, step, metric.layer, metric.name, metric.value, now)
                    for metric in metrics
                    if math.isfinite(metric.value)
                ],
            )

    def add_training_steps(self, run: str, steps: Sequence[TrainingStep]) -> None:
        """Record the loss of training steps, and its rollups by 10, 100 and 1,000 steps."""
        now = utc_now()
        with self._database.transaction() as connection:
            self.say_left_out(f"loss of {run}" for step in steps if not math.isfinite(step.loss))
            steps = [step for step in steps if math.isfinite(step.loss)]
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
        """Record events for people, as (level, message): info, warning or error. The oldest are deleted in the end."""
        if not events:
            return
        now = utc_now()
        with self._database.transaction() as connection:
            connection.executemany(
                "INSERT INTO _events (at, level, message) VALUES (?, ?, ?)",
                [(now, level, message) for level, message in events],
            )
            connection.execute("DELETE FROM _events WHERE id <= (SELECT max(id) FROM _events) - ?", (_EVENTS_KEPT,))

    def say_left_out(self, figures: Iterable[str]) -> None:
        """Record, once for each figure, the event that it is not a finite number and is left out."""
        for figure in dict.fromkeys(figures):
            message = f"{figure}: not a finite number; such values are left out"
            if not self._database.read_one("SELECT EXISTS (SELECT 1 FROM _events WHERE message = ?)", message)[0]:
                self.add_events([("warning", message)])

    def set_gauges(self, gauges: Mapping[str, Gauge]) -> None:
        """Set values of the `gauges` view, each a number or a text; None, or what is not finite, removes one."""
        now = utc_now()
        with self._database.transaction() as connection:
            infinite = [name for name, gauge in gauges.items() if isinstance(gauge, float) and not math.isfinite(gauge)]
            self.say_left_out(f"gauge {name}" for name in infinite)
            gauges = {**gauges, **dict.fromkeys(infinite)}
            connection.executemany(
                "INSERT OR REPLACE INTO _gauges (name, value, text, at) VALUES (?, ?, ?, ?)",
                [
                    (name, None, gauge, now) if isinstance(gauge, str) else (name, float(gauge), None, now)
                    for name, gauge in gauges.items()
                    if gauge is not None
                ],
            )
            connection.executemany(
                "DELETE FROM _gauges WHERE name = ?", [(name,) for name, gauge in gauges.items() if gauge is None]
            )
