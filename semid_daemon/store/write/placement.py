"""Where a chunk's rows go: which of them assign, keep or replace an ID, and in which bucket. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from semid_daemon.base.types import CodeArray

OnExisting = Literal["keep", "replace"]
Collisions = Literal["suffix", "next-best", "shared"]
Ranked = Callable[[int], npt.NDArray[np.integer[Any]]]  # all last codes (K) by their distance to the row at a position
Integers = npt.NDArray[np.int64]

# Shape suffixes: N usable rows of a chunk, W rows of it that are written, S distinct semantic IDs, L layers.


@dataclass(frozen=True, slots=True)
class KnownItem:
    """An item that has an ID in a generation."""

    semantic_id: str
    suffix: int
    row_hash: int  # of its embedding
    file_id: int  # the ledger ID of the file that its row came from


@dataclass(frozen=True, slots=True)
class RowPlan:
    """What a chunk's rows do to their items: positions of the rows that are written, and counts of rows."""

    assign: list[int]  # rows that give a new item its ID
    replace: list[int]  # rows that replace the ID of a known item
    kept: int  # rows whose item keeps the ID that it has
    replaced: int  # rows whose item had an ID and follows the newer row
    repeated: int  # rows whose item occurred earlier in the same file


@dataclass(frozen=True, slots=True)
class RowGroups:
    """The written rows of a chunk by their buckets."""

    rows: RowPlan
    before: Mapping[int, KnownItem]  # the items that are replaced, by the position of their row
    codes_NL: CodeArray  # of all rows, as the collision policy leaves them
    written: list[int]  # positions of the rows that are written, ascending
    bucket_names: list[str]  # S semantic IDs that change: those of the rows, sorted by codes, then those only left
    bucket_W: Integers  # the index of each row's bucket
    semantic_ids: list[str]  # of each row
    enters_W: npt.NDArray[np.bool_]  # False where a replaced item stays in its bucket
    old_suffix_W: Integers  # of a replaced item, 0 for a new one
    moving: list[int]  # positions of the rows whose item leaves a bucket for another
    left_S: Integers  # items that leave each bucket


@dataclass(frozen=True, slots=True)
class Buckets:
    """The state of S buckets before a chunk."""

    sizes_S: Integers  # items
    next_S: Integers  # next suffixes, 0 where there never was an item
    is_single_S: npt.NDArray[np.bool_]  # whether it has only ever had one item, and has it still
    hashes_S: Integers  # the row hash of that single item


@dataclass(frozen=True, slots=True)
class BucketPlan:
    """What a chunk does to a generation's buckets. It holds until the next write to that generation."""

    generation: int
    rows: RowPlan
    before: Mapping[int, KnownItem]  # the state of the items that are replaced, by the position of the row
    codes_NL: CodeArray  # of all rows, as the collision policy leaves them
    written: list[int]  # positions of the rows that are written, ascending; all following lists of W are theirs
    in_order: list[int]  # indexes into `written`, sorted by codes
    semantic_ids: list[str]  # W
    suffixes: list[int]  # W
    row_hashes: list[int]  # W
    moving: list[int]  # positions of the rows whose item leaves a bucket for another
    entering: list[int]  # positions of the rows that enter a bucket
    new_embeddings: int  # distinct pairs of a semantic ID and a row hash that are certainly new
    unsure_ids: list[str]  # the semantic IDs of the distinct pairs that an item may have already
    unsure_hashes: list[int]  # the row hashes of these pairs
    stored_buckets: list[str]  # buckets that need a row of their own: all but those with their first item only
    stored_sizes: list[int]  # their items after the chunk
    stored_next: list[int]  # their next suffixes after the chunk
    sizes_before_S: Integers  # items of all buckets that change
    sizes_after_S: Integers
    collisions: int  # new items that share their semantic ID with an earlier one


def plan_rows(
    item_ids: Sequence[str], known: Mapping[str, KnownItem], file_id: int, on_existing: OnExisting
) -> RowPlan:
    """Decide which rows are written.

    "keep": the first row of an item wins, for ever. "replace": the last row of the newest file does,
    newest by ledger ID, whatever the order in which files are worked on.
    """
    if not known and len(set(item_ids)) == len(item_ids):
        return RowPlan(list(range(len(item_ids))), [], 0, 0, 0)
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
    return RowPlan(assign, replace, kept, replaced, repeated)


def next_best_codes(
    codes_NL: CodeArray,
    written: Sequence[int],
    before: Iterable[KnownItem],
    capacity: int,
    ranked: Ranked,
    last_codes: Callable[[str], dict[int, int]],
) -> CodeArray:
    """Codes (N×L) in which crowded rows have another last code, decided row by row in their order.

    `before` are the items that are replaced; `last_codes(prefix)` returns the items per last code below a prefix.
    """
    sizes_by_prefix: dict[str, dict[int, int]] = {}

    def bucket(semantic_id: str) -> tuple[dict[int, int], int]:
        prefix, _, last = semantic_id.rpartition("-")
        if prefix not in sizes_by_prefix:
            sizes_by_prefix[prefix] = last_codes(prefix)
        return sizes_by_prefix[prefix], int(last)

    for item in before:
        sizes, last = bucket(item.semantic_id)
        sizes[last] -= 1
    chosen_NL = codes_NL.copy()
    for position in written:
        sizes, last = bucket("-".join(map(str, codes_NL[position].tolist())))
        if sizes.get(last, 0) >= capacity:
            order = ranked(position).tolist()
            last = next((code for code in order if sizes.get(code, 0) < capacity), last)
            chosen_NL[position, -1] = last
        sizes[last] = sizes.get(last, 0) + 1
    return chosen_NL


def group_rows(rows: RowPlan, before: Mapping[int, KnownItem], codes_NL: CodeArray, written: list[int]) -> RowGroups:
    """Group the written rows by their semantic IDs; the arguments are the fields of the same names."""
    names, bucket_W = _semantic_ids(codes_NL[written])
    semantic_ids: list[str] = np.array(names, dtype=object)[bucket_W].tolist()
    enters_W, old_suffix_W = np.ones(len(written), bool), np.zeros(len(written), np.int64)
    moving = []
    for index, position in enumerate(written) if before else ():
        if position in before:
            enters_W[index] = before[position].semantic_id != semantic_ids[index]
            old_suffix_W[index] = before[position].suffix
            if enters_W[index]:
                moving.append(position)
    left = Counter(before[position].semantic_id for position in moving)
    bucket_names = names + sorted(set(left).difference(names)) if left else names
    left_S = np.array([left[name] for name in bucket_names] if left else np.zeros(len(names)), np.int64)
    return RowGroups(
        rows, before, codes_NL, written, bucket_names, bucket_W, semantic_ids, enters_W, old_suffix_W, moving, left_S
    )


def plan_buckets(
    generation: int, groups: RowGroups, buckets: Buckets, hashes_W: Integers, *, shared: bool
) -> BucketPlan:
    """Decide suffixes and the new state of the buckets.

    `buckets` are those of `groups.bucket_names`, `hashes_W` the row hashes of the written rows. With `shared`, all
    items of a bucket have suffix 0.
    """
    written, before, bucket_W = groups.written, groups.before, groups.bucket_W
    entering_W = np.flatnonzero(groups.enters_W)
    bucket_of_entering = bucket_W[entering_W]
    # Suffixes go on from the bucket's next one, in the order of the rows that enter it. A replaced item that stays in
    # its bucket keeps its suffix.
    rank, entered_S = _ranks(bucket_of_entering, len(groups.bucket_names))
    suffix_W = groups.old_suffix_W.copy()
    suffix_W[entering_W] = 0 if shared else buckets.next_S[bucket_of_entering] + rank
    after_S, next_S = buckets.sizes_S - groups.left_S + entered_S, buckets.next_S + entered_S
    is_crowded = (buckets.sizes_S - groups.left_S)[bucket_of_entering] + rank > 0
    if before:
        is_crowded &= np.array([written[index] not in before for index in entering_W.tolist()], bool)
    stored_S = np.flatnonzero((next_S > 1) | (after_S != 1))
    in_order_W = np.lexsort((hashes_W, bucket_W))  # stable: equal ones stay in the order of the rows
    distinct_W = _distinct(in_order_W, bucket_W, hashes_W)
    new_embeddings, unsure_W = _new_embeddings(distinct_W, bucket_W, hashes_W, buckets, is_replacing=bool(before))
    return BucketPlan(
        generation=generation,
        rows=groups.rows,
        before=before,
        codes_NL=groups.codes_NL,
        written=written,
        in_order=in_order_W.tolist(),
        semantic_ids=groups.semantic_ids,
        suffixes=suffix_W.tolist(),
        row_hashes=hashes_W.tolist(),
        moving=groups.moving,
        entering=[written[index] for index in entering_W.tolist()] if before else written,
        new_embeddings=new_embeddings,
        unsure_ids=[groups.semantic_ids[index] for index in unsure_W.tolist()],
        unsure_hashes=hashes_W[unsure_W].tolist(),
        stored_buckets=[groups.bucket_names[index] for index in stored_S.tolist()],
        stored_sizes=after_S[stored_S].tolist(),
        stored_next=next_S[stored_S].tolist(),
        sizes_before_S=buckets.sizes_S,
        sizes_after_S=after_S,
        collisions=int(np.count_nonzero(is_crowded)),
    )


def _new_embeddings(
    distinct_W: Integers, bucket_W: Integers, hashes_W: Integers, buckets: Buckets, *, is_replacing: bool
) -> tuple[int, Integers]:
    """The number of distinct embeddings certainly new to their bucket, and the rows whose bucket must be looked up.

    An embedding is new to a bucket that never had an item. A bucket with a single item is compared by that item's
    hash, unless the chunk replaces items: the single one may be among them.
    """
    unsure_W = distinct_W[buckets.next_S[bucket_W[distinct_W]] > 0]
    new = len(distinct_W) - len(unsure_W)
    if not is_replacing:
        bucket_of_unsure = bucket_W[unsure_W]
        is_single = buckets.is_single_S[bucket_of_unsure]
        new += int(np.count_nonzero(is_single & (buckets.hashes_S[bucket_of_unsure] != hashes_W[unsure_W])))
        unsure_W = unsure_W[~is_single]
    return new, unsure_W


def _semantic_ids(codes_NL: CodeArray) -> tuple[list[str], Integers]:
    """The distinct semantic IDs (S) of rows of codes (N×L), sorted by codes, and the index of each row's (N)."""
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
    """All codes below 2**bits as text."""
    return [str(code) for code in range(1 << bits)]


def _ranks(group_N: Integers, groups: int) -> tuple[Integers, Integers]:
    """The rank of each row within its group (N), in the order of the rows, and the size of every group (S)."""
    sizes_S = np.bincount(group_N, minlength=groups)
    order_N = np.argsort(group_N, kind="stable")
    rank_N = np.empty(len(group_N), np.int64)
    rank_N[order_N] = np.arange(len(group_N)) - np.repeat(np.cumsum(sizes_S) - sizes_S, sizes_S)
    return rank_N, sizes_S


def _distinct(order_N: Integers, *columns: Integers) -> Integers:
    """The first of all equal rows; `order_N` sorts the rows by the columns (N)."""
    is_first_N = np.zeros(len(order_N), bool)
    is_first_N[:1] = True
    for values_N in columns:
        is_first_N[1:] |= np.diff(values_N[order_N]) != 0
    return order_N[is_first_N]
