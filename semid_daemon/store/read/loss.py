"""Loss curves of training runs: in single steps while they are few, then in rollups. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from semid_daemon.store.read.connection import ReadConnection

_MOST_POINTS = 2_000  # of a curve, per layer
_SMOOTHING_STEPS = 20  # of the exponential mean, at most: how many steps it takes to forget two thirds


@dataclass(frozen=True, slots=True)
class LossPoint:
    """Training loss over `steps` steps from `step` on."""

    step: int
    steps: int
    low: float
    high: float
    mean: float

    @property
    def last_step(self) -> int:
        return self.step + self.steps - 1


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


def smooth(points: Sequence[LossPoint]) -> list[float]:
    """The exponential mean of a layer's losses, forgetting by steps, whatever the number of steps to a point."""
    if not points:
        return []
    memory_steps = min(_SMOOTHING_STEPS, (points[-1].step + points[-1].steps - points[0].step) / 25)
    smoothed = [points[0].mean]
    for point in points[1:]:
        keep = math.exp(-point.steps / memory_steps)
        smoothed.append(keep * smoothed[-1] + (1 - keep) * point.mean)
    return smoothed


class LossQueries:
    """Training runs and their losses."""

    def __init__(self, connection: ReadConnection) -> None:
        self._connection = connection

    def training_runs(self) -> tuple[str, ...]:
        """The names of all training runs, the latest last."""
        found = self._connection.rows(
            "WITH RECURSIVE runs(run) AS (SELECT min(run) FROM _loss_rollups UNION ALL"
            " SELECT (SELECT min(run) FROM _loss_rollups l WHERE l.run > runs.run) FROM runs WHERE runs.run NOTNULL)"
            " SELECT run FROM runs WHERE run NOTNULL"
            " ORDER BY (SELECT id FROM _metrics m WHERE m.run = runs.run AND m.name = 'loss' LIMIT 1)"
        )
        return tuple(run for (run,) in found)

    def curve(self, run: str | None = None) -> LossCurve | None:
        """The loss of a run, or of the latest training: in single steps while they are few, then in rollups.

        What a generation's candidate goes on learning is the run `candidate-<generation>`.
        """
        with self._connection.snapshot():
            runs = self.training_runs()
            if not runs:
                return None
            trainings = [name for name in runs if not name.startswith("candidate-")]
            run = run if run in runs else (trainings or list(runs))[-1]
            layers = {}
            of_layer = "FROM _loss_rollups WHERE run = ? AND layer = ? AND span = ?"
            found = self._connection.rows("SELECT DISTINCT layer FROM _loss_rollups WHERE run = ?", run)
            numbers = [layer for (layer,) in found]
            most = max(
                self._connection.row(f"SELECT max(step) - min(step) + 10 {of_layer}", run, layer, 10)[0]
                for layer in numbers
            )
            span = next((span for span in (1, 10, 100, 1000) if most <= span * _MOST_POINTS), 1000)
            for layer in numbers:
                if span == 1:
                    rows = self._connection.rows(
                        "SELECT step, 1, value, value, value FROM _metrics"
                        " WHERE run = ? AND name = 'loss' AND layer = ? ORDER BY step",
                        run,
                        layer,
                    )
                else:
                    rows = self._connection.rows(
                        f"SELECT step, steps, low, high, total / steps {of_layer} ORDER BY step", run, layer, span
                    )
                layers[layer] = tuple(LossPoint(*row) for row in rows)
            published = self._published_after(run, trainings, max(numbers)) if run in trainings else None
        return LossCurve(run, runs, span, layers, published)

    def _published_after(self, run: str, trainings: Sequence[str], last_layer: int) -> int | None:
        """The generation made of a run: the first after its last step, unless another training began before."""

        def at(of: str, layer: int, order: str) -> str | None:
            found = self._connection.rows(
                f"SELECT at FROM _metrics WHERE run = ? AND name = 'loss' AND layer = ? ORDER BY step {order} LIMIT 1",
                of,
                layer,
            )
            return found[0][0] if found else None

        following = trainings[trainings.index(run) + 1 :]
        before = at(following[0], 0, "ASC") if following else None
        found = self._connection.rows(
            "SELECT min(generation) FROM _generations WHERE origin != 'candidate' AND created_at >= ?"
            " AND (? IS NULL OR created_at < ?)",
            at(run, last_layer, "DESC"),
            before,
            before,
        )
        return None if found[0][0] is None else int(found[0][0])
