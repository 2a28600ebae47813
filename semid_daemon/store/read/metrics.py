"""What a monitoring system wants beside the status: rows by outcome, the last loss, the last drift."""

from __future__ import annotations

from dataclasses import dataclass

from semid_daemon.store.read.status import Reader

_DRIFT = ("drift_error_ratio", "drift_js", "drift_tail_share", "drift_dead_alive", "drift_collision_rate")


@dataclass(frozen=True, slots=True)
class Figures:
    """`rows` by outcome, over all files; `loss` by layer; `drift` of the active generation by name and layer."""

    rows: dict[str, int]
    loss: dict[int, float]
    drift: dict[tuple[str, int | None], float]


class FiguresReader(Reader):
    """A reader for `semid_daemon.daemon.prometheus`."""

    def figures(self) -> Figures:
        """Each figure is found by an index, however much was recorded; the rows are a sum over the files."""
        read = self._connection.execute
        rows = read(
            "SELECT sum(rows_assigned), sum(rows_kept), sum(rows_replaced), sum(rows_rejected) FROM _files"
        ).fetchone()
        run = read(
            "SELECT run FROM (SELECT DISTINCT run FROM _metrics WHERE run GLOB 'train-*')"
            " ORDER BY length(run) DESC, run DESC LIMIT 1"
        ).fetchone()
        active = read("SELECT generation, layers FROM _generations WHERE status = 'active'").fetchone()
        number, layers = active or (None, 0)
        # A figure of a whole run, and of each layer.
        places: list[int | None] = [None, *range(layers)]
        drift = {(name, place): self._last(f"drift-{number}", name, place) for name in _DRIFT for place in places}
        loss = {layer: self._last(run[0], "loss", layer) for layer in range(layers)} if run else {}
        return Figures(
            rows=dict(zip(("assigned", "kept", "replaced", "rejected"), (count or 0 for count in rows), strict=True)),
            loss={layer: value for layer, value in loss.items() if value is not None},
            drift={key: value for key, value in drift.items() if value is not None},
        )

    def _last(self, run: str, name: str, layer: int | None) -> float | None:
        row = self._connection.execute(
            "SELECT value FROM _metrics WHERE run = ? AND name = ? AND layer IS ? ORDER BY step DESC LIMIT 1",
            (run, name, layer),
        ).fetchone()
        return None if row is None else float(row[0])
