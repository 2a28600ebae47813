"""How generations compare, read from the database. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from semid_daemon.base.errors import StoreError
from semid_daemon.store.read.generations import GENERATION_COLUMNS, GenerationRow
from semid_daemon.store.read.status import Reader


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure of two generations; `layer` is None where it concerns all of them, a value where it is not known."""

    name: str
    layer: int | None
    old: float | None
    new: float | None


@dataclass(frozen=True, slots=True)
class Move:
    """An item and its semantic IDs in two generations."""

    item_id: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Churn:
    """What changes for the items that both generations have: how many, and how many move, by layer and as a whole."""

    items: int
    moved: int
    moved_by_layer: list[int]


_MEASURED = ("error", "neighbour_recall")


class Comparing:
    """Reads what a `Reader` is open on."""

    def __init__(self, reader: Reader) -> None:
        self._read = reader.query

    def generations(self) -> list[GenerationRow]:
        """All of them, the deleted ones too."""
        rows = self._read(f"SELECT {GENERATION_COLUMNS} FROM _generations g ORDER BY g.generation")
        return [GenerationRow(*row) for row in rows]

    def default_pair(self) -> tuple[int, int]:
        """The active generation and the one that is ready; where none is, the former one and the active one.

        Raises StoreError when there is only one.
        """
        by_status = {row.status: row.generation for row in self.generations()}
        active, ready = by_status.get("active"), by_status.get("ready", by_status.get("preparing"))
        former = [
            n
            for (n,) in self._read(
                "SELECT generation FROM _generations WHERE status = 'retired'"
                " ORDER BY retired_at DESC, generation DESC LIMIT 1"
            )
        ]
        if active is not None and ready is not None:
            return active, ready
        if active is not None and former:
            return former[0], active
        raise StoreError("there are no two generations to compare; `semid train` prepares another")

    def check(self, *numbers: int) -> None:
        """Raises StoreError when there is no such generation, or its IDs are deleted."""
        status = {row.generation: row.status for row in self.generations()}
        for number in numbers:
            if number not in status:
                raise StoreError(f"there is no generation {number}; `semid generations` lists those there are")
            if status[number] in ("deleting", "deleted"):
                raise StoreError(f"generation {number} was deleted")

    def moves(self, old: int, new: int) -> Iterator[Move]:
        """Every item that both generations have, in the order of item IDs. Reads one snapshot."""
        for row in self._read(
            "SELECT a.item_id, a.semantic_id, b.semantic_id FROM _items a JOIN _items b ON b.item_id = a.item_id"
            " WHERE a.generation = ? AND b.generation = ? ORDER BY a.item_id",
            (old, new),
        ):
            yield Move(*row)

    def churn(self, old: int, new: int) -> Churn:
        """Counted now, over all items that both have."""
        items = moved = 0
        by_layer: list[int] = []
        for move in self.moves(old, new):
            items += 1
            befores, nows = move.old.split("-"), move.new.split("-")
            if not by_layer:
                by_layer = [0] * min(len(befores), len(nows))
            if move.old == move.new:
                continue
            moved += 1
            for layer in range(len(by_layer)):
                by_layer[layer] += befores[layer] != nows[layer]
        return Churn(items, moved, by_layer)

    def quality(self, old: int, new: int) -> list[Difference]:
        """Figures of both: of their items as they are now; error and neighbour recall as they were last measured.

        Measured on the same rows where the one was prepared beside the other, else each on a sample of its own time.
        """
        figures = {number: dict(self._figures(number)) for number in (old, new)}
        names = list(dict.fromkeys([*figures[old], *figures[new]]))
        found = [Difference(*key, figures[old].get(key), figures[new].get(key)) for key in names]
        measured = [
            Difference(*row)
            for row in self._read(
                "SELECT name, layer, old_value, new_value FROM _comparisons"
                " WHERE old = ? AND new = ? AND name IN (?, ?)",
                (old, new, *_MEASURED),
            )
        ]
        return found + (measured or self._measured_apart(old, new))

    def _measured_apart(self, old: int, new: int) -> list[Difference]:
        values: dict[tuple[str, int | None], dict[int, float]] = {}
        for number in (old, new):
            for name, layer, value in self._read(
                "SELECT name, layer, value FROM _metrics WHERE run = ? ORDER BY id", (f"quality-{number}",)
            ):
                values.setdefault((name, layer), {})[number] = value
        return [Difference(*key, sides.get(old), sides.get(new)) for key, sides in values.items()]

    def _figures(self, number: int) -> Iterator[tuple[tuple[str, int | None], float]]:
        items, distinct, singletons, largest = next(
            iter(
                self._read(
                    "SELECT items, distinct_ids, singletons, max_bucket FROM _generations WHERE generation = ?",
                    (number,),
                )
            )
        )
        yield ("items", None), items
        yield ("unique_rate", None), distinct / max(items, 1)
        yield ("singleton_rate", None), singletons / max(items, 1)
        yield ("max_bucket", None), largest
        for layer, dead_codes, perplexity in self._read(
            "SELECT layer, dead_codes, perplexity FROM _layer_health WHERE generation = ? ORDER BY layer", (number,)
        ):
            yield ("perplexity", layer), perplexity
            yield ("dead_codes", layer), dead_codes
