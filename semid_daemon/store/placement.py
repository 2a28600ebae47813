"""Where a chunk's rows go: which get, keep or change an ID, and in which bucket. Decided here, written later."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from semid_daemon.records import CodeArray, EmbeddingBatch, FloatArray
from semid_daemon.store.connection import Transactions

OnExisting = Literal["keep", "replace"]
Collisions = Literal["suffix", "next-best", "shared"]
Ranked = Callable[[int], npt.NDArray[np.integer[Any]]]


@dataclass(frozen=True, slots=True)
class Known:
    """An item that has an ID: which, and the ledger ID of the file that its row came from."""

    semantic_id: str
    suffix: int
    content: int
    file_id: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a chunk's rows do: positions of rows that assign an ID, or replace that of a known item, and counts."""

    assign: list[int]
    replace: list[int]
    kept: int
    replaced: int
    repeated: int


@dataclass(frozen=True, slots=True)
class Placement:
    """What a chunk does to a generation's buckets. Holds until the next write to that generation.

    By position in the chunk: `ids` (semantic ID), `contents` (hash of the embedding) and `suffixes` of the rows that
    are written; `comes` are those that enter a bucket, `moves` those that leave one for it. `buckets` are (items, next
    suffix) afterwards, `sizes_before` their items before. `collisions` counts new items that share their semantic ID.
    """

    generation: int
    plan: Plan
    known: Mapping[str, Known]
    codes_NL: CodeArray
    ids: dict[int, str]
    contents: dict[int, int]
    moves: list[int]
    comes: list[int]
    suffixes: dict[int, int]
    buckets: dict[str, tuple[int, int]]
    sizes_before: dict[str, int]
    collisions: int

    @property
    def new(self) -> list[int]:
        """Positions of the rows whose embeddings are new to the catalogue, in order."""
        return sorted(self.plan.assign + self.plan.replace)


_LISTED_AT_ONCE = 50_000


def plan_rows(item_ids: Sequence[str], known: Mapping[str, Known], file_id: int, on_existing: OnExisting) -> Plan:
    """Decide by policy. `repeated` counts rows whose item occurred earlier in the same file.

    "keep": the first row of an item wins, for ever. "replace": the last row of the newest file does,
    newest by ledger ID, whatever the order in which files are worked on.
    """
    positions: dict[str, list[int]] = {}
    for position, item_id in enumerate(item_ids):
        positions.setdefault(item_id, []).append(position)
    assign, replace = [], []
    kept = replaced = repeated = 0
    for item_id, where in positions.items():
        before = known.get(item_id)
        repeated += len(where) - 1 + (before is not None and before.file_id == file_id)
        if before is None:
            assign.append(where[0] if on_existing == "keep" else where[-1])
        elif on_existing == "replace" and before.file_id <= file_id:
            replace.append(where[-1])
        others = len(where) - (before is None)
        if on_existing == "replace" and (before is None or before.file_id <= file_id):
            replaced += others
        else:
            kept += others
    return Plan(assign, replace, kept, replaced, repeated)


def content_hash(embedding_D: FloatArray) -> int:
    """64 bits that tell embeddings apart, as SQLite keeps integers."""
    digest = hashlib.blake2b(embedding_D.data, digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def listed(values: Sequence[Any]) -> Iterator[str]:
    """Values as JSON arrays for json_each, in slices: SQLite takes no text of more than 1,000,000,000 bytes."""
    for start in range(0, len(values), _LISTED_AT_ONCE):
        yield json.dumps(values[start : start + _LISTED_AT_ONCE], ensure_ascii=False)


class Placements(Transactions):
    """Reads what is where, and decides where rows go."""

    def place(
        self,
        generation: int,
        file_id: int,
        batch: EmbeddingBatch,
        codes_NL: CodeArray,
        *,
        on_existing: OnExisting = "keep",
        ranked: Ranked | None = None,
    ) -> Placement:
        """Decide where a file's rows go in a generation, by its collision policy. `codes_NL` are their nearest codes.

        "suffix" and "shared": to the bucket of their nearest codes. "next-best": while that is full, to the nearest
        last code with room, by `ranked(position)`, which gives all last codes (K) in order of their distance to a
        row; where all are full, to their nearest after all.
        """
        known = self._known_items(generation, batch.item_ids)
        return self._placed(
            generation, batch, codes_NL, known, plan_rows(batch.item_ids, known, file_id, on_existing), ranked
        )

    def place_again(
        self, generation: int, batch: EmbeddingBatch, codes_NL: CodeArray, ranked: Ranked | None = None
    ) -> Placement:
        """The same for rows of a catalogue that another generation takes over: each row is its item's, whatever it had.

        The item IDs of the batch are distinct.
        """
        known = self._known_items(generation, batch.item_ids)
        assign = [position for position, item_id in enumerate(batch.item_ids) if item_id not in known]
        replace = [position for position, item_id in enumerate(batch.item_ids) if item_id in known]
        return self._placed(generation, batch, codes_NL, known, Plan(assign, replace, 0, len(replace), 0), ranked)

    def _placed(
        self,
        generation: int,
        batch: EmbeddingBatch,
        codes_NL: CodeArray,
        known: Mapping[str, Known],
        plan: Plan,
        ranked: Ranked | None,
    ) -> Placement:
        collisions, capacity = self._read_one(
            "SELECT collisions, bucket_capacity FROM _generations WHERE generation = ?", (generation,)
        )
        written = sorted(plan.assign + plan.replace)
        before = {position: known[batch.item_ids[position]] for position in plan.replace}
        if collisions == "next-best" and written:
            if ranked is None:
                raise ValueError(f"generation {generation} places rows by their next best codes: `ranked` is needed")
            codes_NL = self._next_best(generation, capacity, codes_NL, written, before, ranked)
        ids = dict(zip(written, ("-".join(map(str, row)) for row in codes_NL[written].tolist()), strict=True))
        # A replaced item whose semantic ID comes out the same keeps its suffix too.
        moves = [position for position in plan.replace if before[position].semantic_id != ids[position]]
        comes = sorted(plan.assign + moves)
        suffixes = {position: each.suffix for position, each in before.items()}
        buckets = self._buckets(generation, {*ids.values(), *(each.semantic_id for each in before.values())})
        sizes_before = {semantic_id: items for semantic_id, (items, _) in buckets.items()}
        for position in moves:
            size, next_suffix = buckets[before[position].semantic_id]
            buckets[before[position].semantic_id] = (size - 1, next_suffix)
        assigned = set(plan.assign)
        collided = 0
        for position in comes:
            size, next_suffix = buckets[ids[position]]
            buckets[ids[position]] = (size + 1, next_suffix + 1)
            suffixes[position] = 0 if collisions == "shared" else next_suffix
            collided += size > 0 and position in assigned
        return Placement(
            generation=generation,
            plan=plan,
            known=known,
            codes_NL=codes_NL,
            ids=ids,
            contents={position: content_hash(batch.embeddings_ND[position]) for position in written},
            moves=moves,
            comes=comes,
            suffixes=suffixes,
            buckets=buckets,
            sizes_before=sizes_before,
            collisions=collided,
        )

    def _next_best(
        self,
        generation: int,
        capacity: int,
        codes_NL: CodeArray,
        written: list[int],
        before: Mapping[int, Known],
        ranked: Ranked,
    ) -> CodeArray:
        """Codes (N×L) with the last one of crowded rows changed, row by row in their order."""
        taken: dict[str, dict[int, int]] = {}  # by prefix: items per last code

        def bucket(semantic_id: str) -> tuple[dict[int, int], int]:
            prefix, _, last = semantic_id.rpartition("-")
            if prefix not in taken:
                taken[prefix] = self._last_codes(generation, prefix)
            return taken[prefix], int(last)

        for known in before.values():
            sizes, last = bucket(known.semantic_id)
            sizes[last] -= 1
        placed_NL = codes_NL.copy()
        for position in written:
            sizes, last = bucket("-".join(map(str, codes_NL[position].tolist())))
            if sizes.get(last, 0) >= capacity:
                order = ranked(position).tolist()
                last = next((code for code in order if sizes.get(code, 0) < capacity), last)
                placed_NL[position, -1] = last
            sizes[last] = sizes.get(last, 0) + 1
        return placed_NL

    def _last_codes(self, generation: int, prefix: str) -> dict[int, int]:
        """Items per last code of the semantic IDs that continue a prefix by one code."""
        low, high = (f"{prefix}-", f"{prefix}.") if prefix else ("", ":")  # "." follows "-", and ":" the digits
        rows = self._read(
            "SELECT semantic_id, items FROM _buckets WHERE semantic_id > ? AND semantic_id < ? AND generation = ?",
            (low, high, generation),
        )
        return {int(semantic_id.rpartition("-")[2]): items for semantic_id, items in rows}

    def _known_items(self, generation: int, item_ids: list[str]) -> dict[str, Known]:
        known: dict[str, Known] = {}
        for names in listed(item_ids):
            rows = self._read(
                "SELECT i.item_id, i.semantic_id, i.suffix, i.content, c.file_id"
                " FROM _items i JOIN _chunks c ON c.id = i.chunk_id"
                " WHERE i.generation = ? AND i.item_id IN (SELECT value FROM json_each(?))",
                (generation, names),
            )
            known.update((item_id, Known(*rest)) for item_id, *rest in rows)
        return known

    def _buckets(self, generation: int, semantic_ids: set[str]) -> dict[str, tuple[int, int]]:
        """Size and next suffix of each bucket; (0, 0) for one there never was."""
        buckets = dict.fromkeys(semantic_ids, (0, 0))
        for some in listed(sorted(semantic_ids)):
            for semantic_id, items, next_suffix in self._read(
                "SELECT semantic_id, items, next_suffix FROM _buckets"
                " WHERE generation = ? AND semantic_id IN (SELECT value FROM json_each(?))",
                (generation, some),
            ):
                buckets[semantic_id] = (items, next_suffix)
        return buckets
