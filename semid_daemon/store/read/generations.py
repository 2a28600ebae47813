"""Generations one after the other: how they compare, and how far the catalogue has drifted. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from semid_daemon.store.read.search import SearchQueries

_DRIFT = ("drift_error_ratio", "drift_tail_share", "drift_collision_rate")
_DRIFT_BY_LAYER = ("drift_js", "drift_dead_alive")
_MOST_DRIFT = 200


@dataclass(frozen=True, slots=True)
class GenerationRow:
    """A generation with the metrics of its items. `behind`: items of the active one that it does not have yet.

    `collisions` is its policy (suffix, next-best, shared), `bucket_capacity` what next-best fills buckets up to;
    `max_bucket` is the size of its largest bucket. `exact_duplicates`: items with the embedding of another item.
    """

    generation: int
    status: str
    items: int
    behind: int
    trained_rows: int
    origin: str
    based_on: int | None
    collisions: str
    bucket_capacity: int
    fingerprint: str
    created_at: str
    published_at: str | None
    distinct_ids: int
    singletons: int
    max_bucket: int
    exact_duplicates: int
    layers: int
    codebook_size: int
    dim: int
    normalize_residuals: bool


# The fields of a GenerationRow, of `_generations g`.
GENERATION_COLUMNS = (
    "g.generation, g.status, g.items, CASE WHEN g.status IN ('preparing', 'ready', 'retired') THEN"
    " max(0, coalesce((SELECT a.items FROM _generations a WHERE a.status = 'active'), 0) - g.items) ELSE 0 END,"
    " g.trained_rows, g.origin, g.based_on, g.collisions, g.bucket_capacity, g.fingerprint, g.created_at,"
    " g.published_at, g.distinct_ids, g.singletons, g.max_bucket, g.exact_duplicates, g.layers, g.codebook_size, g.dim,"
    " g.normalize_residuals"
)


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
class GenerationsSnapshot:
    """All generations, the latest first. `drift` of the active one: the last values, oldest first.

    `candidate`: steps and rows that the active generation's candidate has learned from.
    """

    generations: tuple[GenerationRow, ...]
    differences: tuple[Difference, ...]
    drift: Mapping[tuple[str, int | None], tuple[float, ...]]
    candidate: tuple[int, int] | None


class GenerationQueries(SearchQueries):
    """What is asked of a MonitorReader about generations."""

    def read_generations(self) -> GenerationsSnapshot:
        """One snapshot of it all: small, whatever the size of the catalogue."""
        lines = tuple(
            GenerationRow(*row)
            for row in self._rows(f"SELECT {GENERATION_COLUMNS} FROM _generations g ORDER BY g.generation DESC")
        )
        active = next((line.generation for line in lines if line.status == "active"), None)
        differences = self._rows(
            "SELECT old, new, name, layer, old_value, new_value, at FROM _comparisons"
            " ORDER BY new DESC, old DESC, rowid"
        )
        candidate = self._rows("SELECT steps, rows FROM _candidates WHERE generation = ?", (active,))
        return GenerationsSnapshot(
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
