"""How two generations compare: the items that both have, and the metrics of each. Standard library only.

The daemon asks this on the connection that writes, the commands on one that only reads: every function takes what
runs a query there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol


class Query(Protocol):
    """Runs one query with its values and returns all rows."""

    def __call__(self, sql: str, /, *values: Any) -> list[tuple[Any, ...]]: ...


@dataclass(frozen=True, slots=True)
class Move:
    """An item and its semantic IDs in two generations."""

    item_id: str
    old: str
    new: str


@dataclass(slots=True)
class Churn:
    """Counts, over the items that both generations have, how many move: as a whole, and by layer."""

    items: int = 0
    moved: int = 0
    moved_by_layer: list[int] = field(default_factory=list)

    def add(self, moves: Iterable[Move]) -> None:
        for move in moves:
            if not self.items:
                self.moved_by_layer = [0] * (1 + min(move.old.count("-"), move.new.count("-")))
            self.items += 1
            if move.old == move.new:
                continue
            self.moved += 1
            codes = zip(self.moved_by_layer, move.old.split("-"), move.new.split("-"), strict=False)
            self.moved_by_layer = [count + (old != new) for count, old, new in codes]


def moves_after(query: Query, old: int, new: int, most: int, item_id: str = "") -> list[Move]:
    """The next `most` items after `item_id` that both generations have, in the order of item IDs."""
    rows = query(
        "SELECT a.item_id, a.semantic_id, b.semantic_id FROM _items a JOIN _items b"
        " ON b.item_id = a.item_id AND b.generation = ?"
        " WHERE a.item_id > ? AND a.generation = ? ORDER BY a.item_id LIMIT ?",
        new,
        item_id,
        old,
        most,
    )
    return [Move(*row) for row in rows]


def generation_metrics(query: Query, generation: int) -> dict[tuple[str, int | None], float]:
    """Metrics of a generation's items as they are now, by name and layer (None: of the whole)."""
    ((items, distinct, singletons, max_bucket),) = query(
        "SELECT items, distinct_ids, singletons, max_bucket FROM _generations WHERE generation = ?", generation
    )
    metrics: dict[tuple[str, int | None], float] = {
        ("items", None): items,
        ("unique_rate", None): distinct / max(items, 1),
        ("singleton_rate", None): singletons / max(items, 1),
        ("max_bucket", None): max_bucket,
    }
    for layer, dead_codes, perplexity in query(
        "SELECT layer, dead_codes, perplexity FROM _layer_health WHERE generation = ? ORDER BY layer", generation
    ):
        metrics["perplexity", layer] = perplexity
        metrics["dead_codes", layer] = dead_codes
    return metrics
