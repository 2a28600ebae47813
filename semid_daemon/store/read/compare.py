"""How generations compare, counted now or as the daemon measured it. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator

from semid_daemon.base.errors import StoreError
from semid_daemon.store.comparison import Churn, Move, generation_metrics, moves_after
from semid_daemon.store.read.connection import ReadConnection
from semid_daemon.store.read.generations import Difference, GenerationQueries

_MEASURED = ("error", "neighbour_recall")
_MOVES = 10_000  # read at a time


class ComparisonQueries:
    """Which items move between two generations, and what each generation is worth."""

    def __init__(self, connection: ReadConnection) -> None:
        self._connection = connection
        self._generations = GenerationQueries(connection)

    def default_pair(self) -> tuple[int, int]:
        """The active generation and the one that is ready; where none is, the former one and the active one.

        Raises StoreError when there is only one.
        """
        by_status = {row.status: row.generation for row in self._generations.generations()}
        active, ready = by_status.get("active"), by_status.get("ready", by_status.get("preparing"))
        former = self._connection.first(
            "SELECT generation FROM _generations WHERE status = 'retired'"
            " ORDER BY retired_at DESC, generation DESC LIMIT 1"
        )
        if active is not None and ready is not None:
            return active, ready
        if active is not None and former is not None:
            return former[0], active
        raise StoreError("there are no two generations to compare; `semid train` prepares another")

    def check(self, *numbers: int) -> None:
        """Raises StoreError when there is no such generation, or its IDs are deleted."""
        status = {row.generation: row.status for row in self._generations.generations()}
        for number in numbers:
            if number not in status:
                raise StoreError(f"there is no generation {number}; `semid generations` lists those there are")
            if status[number] in ("deleting", "deleted"):
                raise StoreError(f"generation {number} was deleted")

    def moves(self, old: int, new: int) -> Iterator[Move]:
        """Every item that both generations have, in the order of item IDs. Reads one snapshot."""
        with self._connection.snapshot():
            item_id = ""
            while moves := moves_after(self._connection.rows, old, new, _MOVES, item_id):
                yield from moves
                item_id = moves[-1].item_id

    def churn(self, old: int, new: int) -> Churn:
        """Counted now, over all items that both have."""
        churn = Churn()
        churn.add(self.moves(old, new))
        return churn

    def quality(self, old: int, new: int) -> list[Difference]:
        """Metrics of both: of their items as they are now; error and neighbour recall as they were last measured.

        Measured on the same rows where the one was prepared beside the other, else each on a sample of its own time.
        """
        with self._connection.snapshot():
            before, after = (generation_metrics(self._connection.rows, number) for number in (old, new))
            counted = [Difference(*key, before.get(key), after.get(key)) for key in before | after]
            measured = [
                difference
                for comparison in self._generations.comparisons()
                if (comparison.old, comparison.new) == (old, new)
                for difference in comparison.differences
                if difference.name in _MEASURED
            ]
            return counted + (measured or self._measured_apart(old, new))

    def _measured_apart(self, old: int, new: int) -> list[Difference]:
        values: dict[tuple[str, int | None], dict[int, float]] = {}
        for number in (old, new):
            for name, layer, value in self._connection.rows(
                "SELECT name, layer, value FROM _metrics WHERE run = ? ORDER BY id", f"quality-{number}"
            ):
                values.setdefault((name, layer), {})[number] = value
        return [Difference(*key, sides.get(old), sides.get(new)) for key, sides in values.items()]
