"""Generations: what became of each, how they compare, and how far the catalogue has drifted. Standard library only."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from semid_daemon.base.drift_base import expected_error_ratio
from semid_daemon.store.read.connection import ReadConnection
from semid_daemon.store.records import LayerHealth

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

    @property
    def unique_rate(self) -> float | None:
        """Distinct semantic IDs per item; None while it has no items."""
        return self.distinct_ids / self.items if self.items else None

    @property
    def singleton_rate(self) -> float | None:
        """Share of the items that are alone in their bucket; None while it has no items."""
        return self.singletons / self.items if self.items else None


# The fields of a GenerationRow.
_COLUMNS = (
    "g.generation, g.status, g.items, CASE WHEN g.status IN ('preparing', 'ready', 'retired') THEN"
    " max(0, coalesce((SELECT a.items FROM _generations a WHERE a.status = 'active'), 0) - g.items) ELSE 0 END,"
    " g.trained_rows, g.origin, g.based_on, g.collisions, g.bucket_capacity, g.fingerprint, g.created_at,"
    " g.published_at, g.distinct_ids, g.singletons, g.max_bucket, g.exact_duplicates, g.layers, g.codebook_size, g.dim,"
    " g.normalize_residuals"
)


@dataclass(frozen=True, slots=True)
class Difference:
    """One metric of two generations; `layer` is None where it concerns all of them, a value where it is not known."""

    name: str
    layer: int | None
    old: float | None
    new: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two generations compared when the daemon measured them."""

    old: int
    new: int
    at: str
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class GenerationsSnapshot:
    """All generations and comparisons, the latest first. `drift` of the active one: the last values, oldest first.

    `drift_base`: its drift_error_ratio without drift, None where that is not known.
    `candidate`: steps and rows that the active generation's candidate has learned from.
    """

    generations: tuple[GenerationRow, ...]
    comparisons: tuple[Comparison, ...]
    drift: Mapping[tuple[str, int | None], tuple[float, ...]]
    candidate: tuple[int, int] | None
    drift_base: float | None = None


class GenerationQueries:
    """Generations, the health of their codebooks, and how they compared."""

    def __init__(self, connection: ReadConnection) -> None:
        self._connection = connection

    def generations(self) -> list[GenerationRow]:
        """All generations in the order of their numbers, the deleted ones too."""
        return self._generations("TRUE")

    def active(self) -> GenerationRow | None:
        """The generation that new rows are encoded with."""
        found = self._generations("g.status = 'active'")
        return found[0] if found else None

    def _generations(self, condition: str) -> list[GenerationRow]:
        rows = self._connection.rows(f"SELECT {_COLUMNS} FROM _generations g WHERE {condition} ORDER BY g.generation")
        return [GenerationRow(*(*row[:-1], bool(row[-1]))) for row in rows]

    def health(self, generation: int) -> tuple[LayerHealth, ...]:
        """How well the codes of each layer are used."""
        rows = self._connection.rows(
            "SELECT layer, coverage, dead_codes, perplexity FROM _layer_health WHERE generation = ? ORDER BY layer",
            generation,
        )
        return tuple(LayerHealth(*row) for row in rows)

    def comparisons(self) -> tuple[Comparison, ...]:
        """What the daemon measured when it prepared a generation beside another, the latest generation first."""
        found: dict[tuple[int, int, str], list[Difference]] = {}
        for old, new, at, *difference in self._connection.rows(
            "SELECT old, new, at, name, layer, old_value, new_value FROM _comparisons"
            " ORDER BY new DESC, old DESC, rowid"
        ):
            found.setdefault((old, new, at), []).append(Difference(*difference))
        return tuple(Comparison(*key, tuple(differences)) for key, differences in found.items())

    def snapshot(self) -> GenerationsSnapshot:
        """Everything about generations: small, whatever the size of the catalogue."""
        with self._connection.snapshot():
            generations = tuple(reversed(self.generations()))
            active = next((row for row in generations if row.status == "active"), None)
            candidate = active and self._connection.first(
                "SELECT steps, rows FROM _candidates WHERE generation = ?", active.generation
            )
            return GenerationsSnapshot(
                generations=generations,
                comparisons=self.comparisons(),
                drift=self.drift(active, _MOST_DRIFT) if active else {},
                candidate=(candidate[0], candidate[1]) if candidate else None,
                drift_base=self.drift_base(active) if active else None,
            )

    def drift_base(self, generation: GenerationRow) -> float | None:
        """The drift_error_ratio of rows without drift; None where the training rows were not measured."""
        (counts,) = self._connection.row(
            "SELECT trained_counts FROM _generations WHERE generation = ?", generation.generation
        )
        if counts is None:
            return None
        rows = sum(struct.unpack_from(f"<{generation.codebook_size}d", counts))  # of layer 0
        return expected_error_ratio(generation.layers, generation.codebook_size, rows)

    def drift(self, generation: GenerationRow, most: int) -> dict[tuple[str, int | None], tuple[float, ...]]:
        """The last `most` values of each drift metric by its name and layer, oldest first; without a value, no key."""
        wanted: list[tuple[str, int | None]] = [(name, None) for name in _DRIFT]
        wanted += [(name, layer) for name in _DRIFT_BY_LAYER for layer in range(generation.layers)]
        found: dict[tuple[str, int | None], tuple[float, ...]] = {}
        for name, layer in wanted:
            rows = self._connection.rows(
                "SELECT value FROM _metrics WHERE run = ? AND name = ? AND layer IS ? ORDER BY step DESC LIMIT ?",
                f"drift-{generation.generation}",
                name,
                layer,
                most,
            )
            if rows:
                found[name, layer] = tuple(value for (value,) in reversed(rows))
        return found
