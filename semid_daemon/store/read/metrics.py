"""Metrics for a monitoring system beside the status: rows by outcome, last loss, last drift. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

from semid_daemon.store.read.connection import ReadConnection
from semid_daemon.store.read.generations import GenerationQueries


@dataclass(frozen=True, slots=True)
class Metrics:
    """`rows` by outcome, over all files; `loss` by layer; `drift` of the active generation by name and layer."""

    rows: dict[str, int]
    loss: dict[int, float]
    drift: dict[tuple[str, int | None], float]


class MetricsReader:
    """The metrics that `semid_daemon.daemon.prometheus` writes."""

    def __init__(self, connection: ReadConnection) -> None:
        self._connection = connection
        self._generations = GenerationQueries(connection)

    def read_metrics(self) -> Metrics:
        """An index finds each value, however many were recorded; the rows are a sum over the files."""
        with self._connection.snapshot():
            rows = self._connection.row(
                "SELECT sum(rows_assigned), sum(rows_kept), sum(rows_replaced), sum(rows_rejected) FROM _files"
            )
            active = self._generations.active()
            drift = {key: values[-1] for key, values in self._generations.drift(active, 1).items()} if active else {}
            base = self._generations.drift_base(active) if active else None
            if base is not None and ("drift_error_ratio", None) in drift:
                drift["drift_error_over_base", None] = drift["drift_error_ratio", None] / base
            return Metrics(
                rows={
                    outcome: count or 0
                    for outcome, count in zip(("assigned", "kept", "replaced", "rejected"), rows, strict=True)
                },
                loss=self._loss(active.layers) if active else {},
                drift=drift,
            )

    def _loss(self, layers: int) -> dict[int, float]:
        """The last loss of each layer in the latest training."""
        run = self._connection.first(
            "SELECT run FROM (SELECT DISTINCT run FROM _metrics WHERE run GLOB 'train-*')"
            " ORDER BY length(run) DESC, run DESC LIMIT 1"
        )
        if run is None:
            return {}
        loss = {}
        for layer in range(layers):
            last = self._connection.first(
                "SELECT value FROM _metrics WHERE run = ? AND name = 'loss' AND layer IS ? ORDER BY step DESC LIMIT 1",
                run[0],
                layer,
            )
            if last is not None:
                loss[layer] = float(last[0])
        return loss
