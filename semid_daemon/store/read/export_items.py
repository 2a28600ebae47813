"""The items of one generation for an export: one snapshot, in a fixed order, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from semid_daemon.base.errors import StoreError
from semid_daemon.store.read.status import Reader
from semid_daemon.store.write.database import store_errors

Order = Literal["items", "codes"]
IntArray = npt.NDArray[np.int64]

_CHUNK_ROWS = 20_000
_CACHE_KIB = 32 << 10  # of pages, and of rows being sorted before they go to a temporary file
_WIDEST_CODE = 5  # digits: codebooks have at most 65,536 codes
# By length first: IDs that are numbers come in the order of their numbers, so 0…N-1 keep theirs as rows.
_ORDERS = {"items": "length(i.item_id), i.item_id", "codes": "codes_key(i.semantic_id), i.suffix"}


@dataclass(frozen=True, slots=True)
class Published:
    """One generation, as `generations` shows it; `max_bucket` is the size of its largest bucket.

    `collisions` is its policy (suffix, next-best, shared), `bucket_capacity` what next-best fills buckets up to.
    """

    generation: int
    fingerprint: str
    layers: int
    codebook_size: int
    dim: int
    normalize_residuals: bool
    items: int
    published_at: str | None
    collisions: str
    bucket_capacity: int
    max_bucket: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Which items: those whose codes begin with `prefix` (`12-250`), those assigned at `since` or later."""

    prefix: str | None = None
    since: str | None = None


@dataclass(frozen=True, slots=True)
class Items:
    """Consecutive rows of an export.

    `codes_NL` and `suffixes_N` are int64; `buckets_N` says how many items share the semantic ID in the whole
    generation (None unless asked for); `latest` is the time of the newest of these assignments.
    """

    first_row: int
    item_ids: list[str]
    semantic_ids: list[str]
    codes_NL: IntArray
    suffixes_N: IntArray
    buckets_N: IntArray | None
    latest: str


class Catalogue(Reader):
    """A read-only connection that stays at one moment of the database until it is closed.

    Raises StoreError when the database cannot be read, when nothing is published yet, and for a generation
    that there is not or that does not have its items yet.
    """

    def __init__(self, path: Path, generation: int | None = None) -> None:
        super().__init__(path)
        try:
            with store_errors(path):
                self._connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
                self._connection.create_function("codes_key", 1, _codes_key, deterministic=True)
                self._connection.execute("BEGIN")
                self.published = self._find(generation)
        except BaseException:
            self.close()
            raise

    def _find(self, generation: int | None) -> Published:
        rows = self._connection.execute(
            "SELECT g.generation, g.fingerprint, g.layers, g.codebook_size, g.dim, g.normalize_residuals, g.items,"
            " g.published_at, g.collisions, g.bucket_capacity,"
            " (SELECT max_bucket FROM _generations t WHERE t.generation = g.generation), g.status"
            " FROM generations g ORDER BY g.generation"
        ).fetchall()
        there = [(*found, status) for *found, status in rows if status not in ("deleting", "deleted")]
        for *found, status in there:
            if found[0] == generation and status == "preparing":
                raise StoreError(f"{self._path}: generation {generation} is being prepared: it lacks items still")
            if found[0] == generation or (generation is None and status == "active"):
                found[5] = bool(found[5])
                return Published(*found)
        if generation is None:
            raise StoreError(f"{self._path}: nothing is published yet; there is nothing to export")
        numbers = ", ".join(str(each[0]) for each in there) or "none"
        raise StoreError(f"{self._path}: there is no generation {generation}; there are: {numbers}")

    def count(self, selection: Selection) -> int:
        """How many items are selected."""
        if selection == Selection():
            return self.published.items
        condition, values = self._condition(selection)
        with store_errors(self._path):
            (rows,) = self._connection.execute(f"SELECT count(*) FROM all_semantic_ids i WHERE {condition}", values)
        return int(rows[0])

    def ids_are_integers(self) -> bool:
        """Whether every item ID of the generation is a number as Python prints it, fit for int64."""
        with store_errors(self._path):
            (row,) = self._connection.execute(
                "SELECT NOT EXISTS (SELECT 1 FROM all_semantic_ids WHERE generation = ? AND"
                " (item_id GLOB '*[^0-9]*' OR item_id GLOB '0?*' OR length(item_id) > 18))",
                (self.published.generation,),
            )
        return self.published.items > 0 and bool(row[0])

    def items(self, selection: Selection, *, order: Order = "items", buckets: bool = False) -> Iterator[Items]:
        """The selected items in chunks: ordered by length of the item ID and item ID, or by codes and suffix."""
        condition, values = self._condition(selection)
        bucket = (
            "coalesce((SELECT b.items FROM _buckets b"
            " WHERE b.semantic_id = i.semantic_id AND b.generation = i.generation), 1)"
            if buckets
            else "1"
        )
        sql = (
            f"SELECT i.item_id, i.semantic_id, i.suffix, i.assigned_at, {bucket} FROM all_semantic_ids i"
            f" WHERE {condition} ORDER BY {_ORDERS[order]}"
        )
        first_row = 0
        with store_errors(self._path):
            cursor = self._connection.execute(sql, values)
            while rows := cursor.fetchmany(_CHUNK_ROWS):
                item_ids, semantic_ids, suffixes, assigned_at, bucket_sizes = zip(*rows, strict=True)
                yield Items(
                    first_row=first_row,
                    item_ids=list(item_ids),
                    semantic_ids=list(semantic_ids),
                    codes_NL=_codes(semantic_ids, self.published.layers),
                    suffixes_N=np.array(suffixes, dtype=np.int64),
                    buckets_N=np.array(bucket_sizes, dtype=np.int64) if buckets else None,
                    latest=max(assigned_at),
                )
                first_row += len(rows)

    def _condition(self, selection: Selection) -> tuple[str, tuple[int | str, ...]]:
        condition, values = "i.generation = ?", [self.published.generation]
        texts: list[str] = []
        if selection.prefix is not None:
            # '.' is what follows '-': the ID itself and all that continue it, as one range of the index.
            condition += " AND i.semantic_id >= ? AND i.semantic_id < ?"
            texts += [selection.prefix, f"{selection.prefix}."]
        if selection.since is not None:
            condition += " AND i.assigned_at >= ?"
            texts.append(selection.since)
        return condition, (*values, *texts)


def _codes_key(semantic_id: str) -> str:
    """Text that sorts as the codes do."""
    return "-".join([code.zfill(_WIDEST_CODE) for code in semantic_id.split("-")])


def _codes(semantic_ids: tuple[str, ...], layers: int) -> IntArray:
    flat: IntArray = np.fromstring(" ".join(semantic_ids).replace("-", " "), dtype=np.int64, sep=" ")
    return flat.reshape(len(semantic_ids), layers)
