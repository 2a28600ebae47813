"""The items of one generation for an export: one snapshot, in a fixed order, chunk by chunk."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from semid_daemon.base.errors import StoreError
from semid_daemon.store.read.connection import ReadConnection
from semid_daemon.store.read.generations import GenerationQueries, GenerationRow

Order = Literal["assigned", "items", "codes"]
IntArray = npt.NDArray[np.int64]

_CHUNK_ROWS = 20_000
_CACHE_KIB = 32 << 10  # of pages, and of rows being sorted before they go to a temporary file
_WIDEST_CODE = 5  # digits: codebooks have at most 65,536 codes
# Chunks are numbered as they are committed: later items come after all earlier ones. By length first: IDs that are
# numbers come in the order of their numbers.
_ORDERS = {
    "assigned": "i.chunk_id, length(i.item_id), i.item_id",
    "items": "length(i.item_id), i.item_id",
    "codes": "codes_key(i.semantic_id), i.suffix",
}
_SOURCE = "_items i JOIN _chunks c ON c.id = i.chunk_id"


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


class Catalogue:
    """The items of one generation: one moment of the database until it is closed.

    Without a number the active generation. Raises StoreError when the database cannot be read, when nothing is
    published yet, and for a generation that does not exist or lacks items still.
    """

    def __init__(self, path: Path, generation: int | None = None) -> None:
        self._path = path
        with contextlib.ExitStack() as stack:
            self._connection = stack.enter_context(ReadConnection(path))
            self._connection.rows(f"PRAGMA cache_size = -{_CACHE_KIB}")
            self._connection.define("codes_key", _codes_key)
            stack.enter_context(self._connection.snapshot())
            self.published = self._find(generation)
            self._opened = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._opened.close()

    def _find(self, number: int | None) -> GenerationRow:
        kept = [
            row
            for row in GenerationQueries(self._connection).generations()
            if row.status not in ("deleting", "deleted")
        ]
        for row in kept:
            if row.generation == number and row.status == "preparing":
                raise StoreError(f"{self._path}: generation {number} is being prepared: it lacks items still")
            if row.generation == number or (number is None and row.status == "active"):
                return row
        if number is None:
            raise StoreError(f"{self._path}: nothing is published yet; there is nothing to export")
        numbers = ", ".join(str(row.generation) for row in kept) or "none"
        raise StoreError(f"{self._path}: there is no generation {number}; there are: {numbers}")

    def count(self, selection: Selection) -> int:
        """How many items are selected."""
        if selection == Selection():
            return self.published.items
        condition, values = self._condition(selection)
        return int(self._connection.row(f"SELECT count(*) FROM {_SOURCE} WHERE {condition}", *values)[0])

    def ids_are_integers(self) -> bool:
        """Whether every item ID of the generation is a number as Python prints it, fit for int64."""
        (integers,) = self._connection.row(
            "SELECT NOT EXISTS (SELECT 1 FROM all_semantic_ids WHERE generation = ? AND"
            " (item_id GLOB '*[^0-9]*' OR item_id GLOB '0?*' OR length(item_id) > 18))",
            self.published.generation,
        )
        return self.published.items > 0 and bool(integers)

    def items(self, selection: Selection, *, order: Order = "assigned", buckets: bool = False) -> Iterator[Items]:
        """The selected items in chunks.

        "assigned" orders by the chunk that assigned the ID, and within it by length of the item ID and item ID;
        "items" by length of the item ID and item ID; "codes" by codes and suffix.
        """
        condition, values = self._condition(selection)
        bucket = (
            "coalesce((SELECT b.items FROM _buckets b"
            " WHERE b.semantic_id = i.semantic_id AND b.generation = i.generation), 1)"
            if buckets
            else "1"
        )
        sql = (
            f"SELECT i.item_id, i.semantic_id, i.suffix, c.committed_at, {bucket} FROM {_SOURCE}"
            f" WHERE {condition} ORDER BY {_ORDERS[order]}"
        )
        first_row = 0
        for rows in self._connection.iterate(sql, *values, fetched=_CHUNK_ROWS):
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
            condition += " AND c.committed_at >= ?"
            texts.append(selection.since)
        return condition, (*values, *texts)


def _codes_key(semantic_id: str) -> str:
    """Text that sorts as the codes do."""
    return "-".join([code.zfill(_WIDEST_CODE) for code in semantic_id.split("-")])


def _codes(semantic_ids: tuple[str, ...], layers: int) -> IntArray:
    flat: IntArray = np.fromstring(" ".join(semantic_ids).replace("-", " "), dtype=np.int64, sep=" ")
    return flat.reshape(len(semantic_ids), layers)
