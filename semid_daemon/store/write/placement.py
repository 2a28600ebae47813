"""Where a chunk's rows go: which get, keep or change an ID, and in which bucket. Decided here, written later."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from semid_daemon.base.row_hash import content_hashes
from semid_daemon.base.types import CodeArray, EmbeddingBatch, FloatArray
from semid_daemon.store.write.bulk import select_rows
from semid_daemon.store.write.database import Transactions, store_errors

OnExisting = Literal["keep", "replace"]
Collisions = Literal["suffix", "next-best", "shared"]
Ranked = Callable[[int], npt.NDArray[np.integer[Any]]]
Integers = npt.NDArray[np.int64]


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

    `new` are the positions in the chunk of the rows that are written, in order: those whose embeddings are new to the
    catalogue. `semantic_ids`, `suffixes` and `contents` (hash of the embedding) are theirs; `codes_NL` (N×L) all
    rows'. `in_order` are the indexes of `new` in the order of semantic IDs. `comes` are the positions of those that
    enter a bucket, `moves` of those that leave one for it. `embeddings` are the distinct (semantic ID, content) that
    come: how many are new for certain, and those of which the bucket must be asked. `buckets` are how those that
    change are afterwards (semantic IDs, items, next suffixes), without those that come to hold their first item, as
    most do; `sizes` the items of all that change, before and after. `collisions` counts new items that share their
    semantic ID.
    """

    generation: int
    plan: Plan
    known: Mapping[str, Known]
    codes_NL: CodeArray
    new: list[int]
    in_order: list[int]
    semantic_ids: list[str]
    suffixes: list[int]
    contents: list[int]
    moves: list[int]
    comes: list[int]
    embeddings: tuple[int, list[str], list[int]]
    buckets: tuple[list[str], list[int], list[int]]
    sizes: tuple[Integers, Integers]
    collisions: int


@dataclass(frozen=True, slots=True)
class _Buckets:
    """How some buckets are (S each): sizes and next suffixes, 0 where there never was one.

    Most have never had but one item, and have it still: `is_single_S`, with the hash of its embedding.
    """

    sizes_S: Integers
    next_S: Integers
    is_single_S: npt.NDArray[np.bool_]
    contents_S: Integers


_LISTED_AT_ONCE = 50_000


def plan_rows(item_ids: Sequence[str], known: Mapping[str, Known], file_id: int, on_existing: OnExisting) -> Plan:
    """Decide by policy. `repeated` counts rows whose item occurred earlier in the same file.

    "keep": the first row of an item wins, for ever. "replace": the last row of the newest file does,
    newest by ledger ID, whatever the order in which files are worked on.
    """
    if not known and len(set(item_ids)) == len(item_ids):
        return Plan(list(range(len(item_ids))), [], 0, 0, 0)
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
    """The hash of one embedding (D float32)."""
    return int(content_hashes(embedding_D[None])[0])


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
        contents: Integers | None = None,
    ) -> Placement:
        """Decide where a file's rows go in a generation, by its collision policy. `codes_NL` are their nearest codes.

        "suffix" and "shared": to the bucket of their nearest codes. "next-best": while that is full, to the nearest
        last code with room, by `ranked(position)`, which gives all last codes (K) in order of their distance to a
        row; where all are full, to their nearest after all. `contents` are the hashes of the embeddings, where they
        are known already.
        """
        known = self._known_items(generation, batch.item_ids)
        plan = plan_rows(batch.item_ids, known, file_id, on_existing)
        return self._placed(generation, batch, codes_NL, known, plan, ranked, contents)

    def place_again(
        self,
        generation: int,
        batch: EmbeddingBatch,
        codes_NL: CodeArray,
        contents: Sequence[int],
        ranked: Ranked | None = None,
    ) -> Placement:
        """The same for rows of a catalogue that another generation takes over: each row is its item's, whatever it had.

        The item IDs of the batch are distinct; `contents` are the hashes of the embeddings as they came.
        """
        known = self._known_items(generation, batch.item_ids)
        assign = [position for position, item_id in enumerate(batch.item_ids) if item_id not in known]
        replace = [position for position, item_id in enumerate(batch.item_ids) if item_id in known]
        plan = Plan(assign, replace, 0, len(replace), 0)
        return self._placed(generation, batch, codes_NL, known, plan, ranked, contents)

    def _placed(
        self,
        generation: int,
        batch: EmbeddingBatch,
        codes_NL: CodeArray,
        known: Mapping[str, Known],
        plan: Plan,
        ranked: Ranked | None,
        contents: Sequence[int] | Integers | None = None,
    ) -> Placement:
        collisions, capacity = self._read_one(
            "SELECT collisions, bucket_capacity FROM _generations WHERE generation = ?", (generation,)
        )
        item_ids = batch.item_ids
        new = sorted(plan.assign + plan.replace) if plan.replace else plan.assign
        before = {position: known[item_ids[position]] for position in plan.replace}
        if collisions == "next-best" and new:
            if ranked is None:
                raise ValueError(f"generation {generation} places rows by their next best codes: `ranked` is needed")
            codes_NL = self._next_best(generation, capacity, codes_NL, new, before, ranked)
        names, of_row = _semantic_ids(codes_NL[new])
        semantic_ids: list[str] = np.array(names, dtype=object)[of_row].tolist()
        suffixes = np.zeros(len(new), np.int64)
        # A replaced item whose semantic ID comes out the same keeps its suffix too.
        enters = np.ones(len(new), bool)
        moves = []
        for index, position in enumerate(new) if before else ():
            if position in before:
                enters[index] = before[position].semantic_id != semantic_ids[index]
                suffixes[index] = before[position].suffix
                moves += [position] if enters[index] else []
        left = Counter(before[position].semantic_id for position in moves)
        only_left = sorted(set(left).difference(names)) if left else []
        changing = names + only_left
        buckets = self._buckets(generation, changing)
        before_S, next_S, was_S = buckets.sizes_S, buckets.next_S, buckets.next_S > 0
        left_S = np.array([left[name] for name in changing], np.int64) if left else np.zeros(len(changing), np.int64)
        # Suffixes go on from the bucket's next one, in the order of the rows that enter it.
        entering = np.flatnonzero(enters)
        rank_N, come_S = _ranks(of_row[entering], len(changing))
        suffixes[entering] = 0 if collisions == "shared" else next_S[of_row[entering]] + rank_N
        crowded_N = (before_S - left_S)[of_row[entering]] + rank_N > 0
        is_assigned = np.array([position not in before for position in new], bool) if before else enters
        after_S, next_S = before_S - left_S + come_S, next_S + come_S
        told = np.flatnonzero((next_S > 1) | (after_S != 1))
        if contents is None:
            contents = content_hashes(batch.embeddings_ND if len(new) == len(item_ids) else batch.embeddings_ND[new])
        else:
            contents = np.asarray(contents, np.int64)[new]
        in_order_N = np.lexsort((contents, of_row))  # stable: equal ones stay in the order of the rows
        distinct_N = _distinct(in_order_N, of_row, contents)
        to_found_N = distinct_N[was_S[of_row[distinct_N]]]
        to_new = len(distinct_N) - len(to_found_N)
        if not before:  # no item leaves its bucket: what is known of a single one holds
            of_found_N = of_row[to_found_N]
            is_known_N = buckets.is_single_S[of_found_N]
            to_new += int(np.count_nonzero(is_known_N & (buckets.contents_S[of_found_N] != contents[to_found_N])))
            to_found_N = to_found_N[~is_known_N]
        return Placement(
            generation=generation,
            plan=plan,
            known=known,
            codes_NL=codes_NL,
            new=new,
            in_order=in_order_N.tolist(),
            semantic_ids=semantic_ids,
            suffixes=suffixes.tolist(),
            contents=contents.tolist(),
            moves=moves,
            comes=[new[index] for index in entering.tolist()] if before else new,
            embeddings=(
                to_new,
                [semantic_ids[index] for index in to_found_N.tolist()],
                contents[to_found_N].tolist(),
            ),
            buckets=([changing[index] for index in told.tolist()], after_S[told].tolist(), next_S[told].tolist()),
            sizes=(before_S, after_S),
            collisions=int(np.count_nonzero(crowded_N & is_assigned[entering])),
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
            "SELECT semantic_id, count(*) FROM _items WHERE semantic_id > ? AND semantic_id < ? AND generation = ?"
            " GROUP BY semantic_id",
            (low, high, generation),
        )
        return {int(semantic_id.rpartition("-")[2]): items for semantic_id, items in rows}

    def _known_items(self, generation: int, item_ids: Sequence[str]) -> dict[str, Known]:
        with store_errors(self._path):
            rows = select_rows(
                self._connection,
                "SELECT i.item_id, i.semantic_id, i.suffix, i.content, c.file_id FROM given CROSS JOIN _items i"
                " CROSS JOIN _chunks c ON c.id = i.chunk_id WHERE i.item_id = c0 AND i.generation = ?",
                [sorted(item_ids)],
                generation,
            )
            return {item_id: Known(*rest) for item_id, *rest in rows}

    def _buckets(self, generation: int, semantic_ids: Sequence[str]) -> _Buckets:
        sizes_S, next_S, contents_S = np.zeros((3, len(semantic_ids)), np.int64)
        with store_errors(self._path):
            for index, items, next_suffix in select_rows(
                self._connection,
                "SELECT c1, b.items, b.next_suffix FROM given CROSS JOIN _buckets b"
                " WHERE b.semantic_id = c0 AND b.generation = ?",
                [semantic_ids, range(len(semantic_ids))],
                generation,
            ):
                sizes_S[index], next_S[index] = items, next_suffix
            others = np.flatnonzero(next_S == 0).tolist()
            singles = select_rows(
                self._connection,
                "SELECT c1, i.content FROM given CROSS JOIN _items i WHERE i.semantic_id = c0 AND i.generation = ?",
                [[semantic_ids[index] for index in others], others],
                generation,
            )
            is_single_S = np.zeros(len(semantic_ids), bool)
            for index, content in singles:
                is_single_S[index], contents_S[index] = True, content
        return _Buckets(sizes_S + is_single_S, next_S + is_single_S, is_single_S, contents_S)


def _semantic_ids(codes_NL: CodeArray) -> tuple[list[str], Integers]:
    """The distinct semantic IDs of rows of codes (N×L), sorted by codes, and which of them each row has (N)."""
    if not len(codes_NL):
        return [], np.empty(0, np.int64)
    order_N = np.lexsort(codes_NL.T[::-1])
    sorted_NL = codes_NL[order_N]
    starts_N = np.append(True, (sorted_NL[1:] != sorted_NL[:-1]).any(axis=1))
    of_row_N = np.empty(len(codes_NL), np.int64)
    of_row_N[order_N] = np.cumsum(starts_N) - 1
    texts = _code_texts(int(codes_NL.max()).bit_length())
    columns = [map(texts.__getitem__, codes_S) for codes_S in sorted_NL[starts_N].T.tolist()]
    return list(map("-".join, zip(*columns, strict=True))), of_row_N


@cache
def _code_texts(bits: int) -> list[str]:
    """Every code of so many bits as text."""
    return [str(code) for code in range(1 << bits)]


def _ranks(group_N: Integers, groups: int) -> tuple[Integers, Integers]:
    """The place of each row within its group (N), in the order of the rows, and the size of every group."""
    sizes_S = np.bincount(group_N, minlength=groups)
    order_N = np.argsort(group_N, kind="stable")
    rank_N = np.empty(len(group_N), np.int64)
    rank_N[order_N] = np.arange(len(group_N)) - np.repeat(np.cumsum(sizes_S) - sizes_S, sizes_S)
    return rank_N, sizes_S


def _distinct(order_N: Integers, *columns: Integers) -> Integers:
    """Of rows in an order that sorts them by some columns, those that differ from the one before."""
    is_first_N = np.zeros(len(order_N), bool)
    is_first_N[:1] = True
    for values_N in columns:
        is_first_N[1:] |= np.diff(values_N[order_N]) != 0
    return order_N[is_first_N]
