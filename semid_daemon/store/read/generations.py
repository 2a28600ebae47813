"""Generations one after the other: how they compare, and how far the catalogue has drifted. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from semid_daemon.store.read.search import Browsing

_DRIFT = ("drift_error_ratio", "drift_tail_share", "drift_collision_rate")
_DRIFT_BY_LAYER = ("drift_js", "drift_dead_alive")
_MOST_DRIFT = 200


@dataclass(frozen=True, slots=True)
class GenerationRow:
    """A generation as `semid generations` lists it. `behind`: items of the active one that it does not have yet."""

    generation: int
    status: str
    items: int
    behind: int
    trained_rows: int
    origin: str
    based_on: int | None
    collisions: str
    fingerprint: str
    created_at: str
    published_at: str | None


# The fields of a GenerationRow, of `_generations g`.
GENERATION_COLUMNS = (
    "g.generation, g.status, g.items, CASE WHEN g.status IN ('preparing', 'ready', 'retired') THEN"
    " max(0, coalesce((SELECT a.items FROM _generations a WHERE a.status = 'active'), 0) - g.items) ELSE 0 END,"
    " g.trained_rows, g.origin, g.based_on, g.collisions, g.fingerprint, g.created_at, g.published_at"
)


@dataclass(frozen=True, slots=True)
class GenerationLine(GenerationRow):
    """A generation with the figures of its items and codebooks."""

    distinct_ids: int
    singletons: int
    max_bucket: int
    layers: int
    codebook_size: int


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure of two generations; `layer` is None where it concerns all of them."""

    old: int
    new: int
    name: str
    layer: int | None
    old_value: float | None
    new_value: float | None
    at: str


@dataclass(frozen=True, slots=True)
class Lineage:
    """Everything about generations: the latest first. `drift` of the active one: the last values, oldest first.

    `candidate`: steps and rows that the active generation's candidate has learned from.
    """

    generations: tuple[GenerationLine, ...]
    differences: tuple[Difference, ...]
    drift: Mapping[tuple[str, int | None], tuple[float, ...]]
    candidate: tuple[int, int] | None


class Genealogy(Browsing):
    """What is asked of a Watch about generations."""

    def lineage(self) -> Lineage:
        """One snapshot of it all: small, whatever the size of the catalogue."""
        lines = tuple(
            GenerationLine(*row)
            for row in self._rows(
                f"SELECT {GENERATION_COLUMNS},"
                " g.distinct_ids, g.singletons, g.max_bucket, g.layers, g.codebook_size"
                " FROM _generations g ORDER BY g.generation DESC"
            )
        )
        active = next((line.generation for line in lines if line.status == "active"), None)
        differences = self._rows(
            "SELECT old, new, name, layer, old_value, new_value, at FROM _comparisons"
            " ORDER BY new DESC, old DESC, rowid"
        )
        candidate = self._rows("SELECT steps, rows FROM _candidates WHERE generation = ?", (active,))
        return Lineage(
            lines,
            tuple(Difference(*row) for row in differences),
            {} if active is None else self._drift(active),
            tuple(candidate[0]) if candidate else None,
        )

    def _drift(self, generation: int) -> dict[tuple[str, int | None], tuple[float, ...]]:
        run = f"drift-{generation}"
        layers = self._rows("SELECT layers FROM _generations WHERE generation = ?", (generation,))[0][0]
        wanted: list[tuple[str, int | None]] = [(name, None) for name in _DRIFT]
        wanted += [(name, layer) for name in _DRIFT_BY_LAYER for layer in range(layers)]
        found: dict[tuple[str, int | None], tuple[float, ...]] = {}
        for name, layer in wanted:
            rows: list[tuple[Any, ...]] = self._rows(
                "SELECT value FROM _metrics WHERE run = ? AND name = ? AND layer IS ? ORDER BY step DESC LIMIT ?",
                (run, name, layer, _MOST_DRIFT),
            )
            if rows:
                found[name, layer] = tuple(value for (value,) in reversed(rows))
        return found
