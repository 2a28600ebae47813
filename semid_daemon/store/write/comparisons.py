"""How generations compare: their quality on a sample, and the values of two side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence

from semid_daemon.base.clock import utc_now
from semid_daemon.store.comparison import Move, generation_metrics, moves_after
from semid_daemon.store.write.chunks import Chunks
from semid_daemon.store.write.database import Database
from semid_daemon.store.write.telemetry import Metric, Telemetry


class Comparisons:
    """Keeps what measuring and comparing generations gave."""

    def __init__(self, database: Database, chunks: Chunks, telemetry: Telemetry) -> None:
        self._database = database
        self._chunks = chunks
        self._telemetry = telemetry

    def set(self, old: int, new: int, values: Sequence[tuple[str, int | None, float | None, float | None]]) -> None:
        """Keep how two generations compare, as (name, layer, value of the old one, value of the new one).

        A value that is not finite is left out, as one that was not measured.
        """
        now = utc_now()
        with self._database.transaction() as connection:
            self._telemetry.say_left_out(
                f"{name} of generations {old} and {new}" for name, _, *pair in values if _finite(pair) != pair
            )
            connection.execute("DELETE FROM _comparisons WHERE old = ? AND new = ?", (old, new))
            connection.executemany(
                "INSERT INTO _comparisons (old, new, name, layer, old_value, new_value, at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(old, new, name, layer, *_finite(pair), now) for name, layer, *pair in values],
            )

    def delete(self, generation: int) -> None:
        """Delete the comparisons of a generation with any other."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM _comparisons WHERE ? IN (old, new)", (generation,))

    def set_quality(self, generation: int, metrics: Sequence[Metric]) -> None:
        """Record a generation's quality, measured on a sample of its items."""
        self._telemetry.add_metrics(f"quality-{generation}", self._chunks.last_id(), metrics)

    def has_quality(self, generation: int) -> bool:
        """Whether a generation's quality was recorded."""
        run = f"quality-{generation}"
        return bool(self._database.read_one("SELECT EXISTS (SELECT 1 FROM _metrics WHERE run = ?)", run)[0])

    def catalogue_metrics(self, generation: int) -> dict[tuple[str, int | None], float]:
        """Metrics of a generation's whole catalogue, by name and layer."""
        return generation_metrics(self._database.read, generation)

    def moves_after(self, old: int, new: int, most: int, item_id: str = "") -> list[Move]:
        """The next `most` items after `item_id` that both generations have, in the order of item IDs."""
        return moves_after(self._database.read, old, new, most, item_id)


def _finite(values: Sequence[float | None]) -> list[float | None]:
    return [None if value is None or not math.isfinite(value) else value for value in values]
