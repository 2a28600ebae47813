"""The items of every generation and their buckets: all SQL that reads and writes these two tables here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from semid_daemon.base.row_hash import row_hashes
from semid_daemon.base.types import CodeArray, EmbeddingBatch
from semid_daemon.store.write.bulk import insert_rows, listed
from semid_daemon.store.write.counts import CatalogueCounts
from semid_daemon.store.write.database import Database
from semid_daemon.store.write.placement import (
    BucketPlan,
    Buckets,
    Integers,
    KnownItem,
    OnExisting,
    Ranked,
    RowPlan,
    group_rows,
    next_best_codes,
    plan_buckets,
    plan_rows,
)

TableKey = tuple[int, str]  # a table, and a key of it up to which rows were looked at
_TABLES = (("_items", "item_id"), ("_buckets", "semantic_id"))


class Items:
    """Decides where a chunk's rows go, and writes them with their buckets and every count that follows."""

    def __init__(self, database: Database, counts: CatalogueCounts) -> None:
        self._database = database
        self._counts = counts

    # -- deciding ----------------------------------------------------------------------------------

    def assign(
        self,
        generation: int,
        file_id: int,
        batch: EmbeddingBatch,
        codes_NL: CodeArray,
        *,
        on_existing: OnExisting = "keep",
        ranked: Ranked | None = None,
        hashes_N: Integers | None = None,
    ) -> BucketPlan:
        """Decide the buckets of a file's rows in a generation, by its collision policy.

        `codes_NL` (N×L) are the nearest codes of the rows; `hashes_N` their row hashes, where they are known. With the
        policies "suffix" and "shared" a row goes to the bucket of its nearest codes. With "next-best", while that
        bucket is full, it goes to the nearest last code with room; where all are full, to its nearest after all.
        `ranked(position)` returns all last codes (K) in the order of their distance to a row.

        Raises ValueError when the policy is "next-best" and `ranked` is missing.
        """
        known = self._known_items(generation, batch.item_ids)
        rows = plan_rows(batch.item_ids, known, file_id, on_existing)
        return self._plan(generation, batch, codes_NL, known, rows, ranked, hashes_N)

    def reassign(
        self,
        generation: int,
        batch: EmbeddingBatch,
        codes_NL: CodeArray,
        hashes_N: Sequence[int],
        ranked: Ranked | None = None,
    ) -> BucketPlan:
        """Decide the buckets of rows that are their items' current ones in another generation.

        Each row replaces what its item has in this generation. The item IDs of the batch are distinct; `hashes_N` are
        the hashes of the original embeddings. The other arguments and errors are those of `assign`.
        """
        known = self._known_items(generation, batch.item_ids)
        new = [position for position, item_id in enumerate(batch.item_ids) if item_id not in known]
        replace = [position for position, item_id in enumerate(batch.item_ids) if item_id in known]
        rows = RowPlan(new, replace, 0, len(replace), 0)
        return self._plan(generation, batch, codes_NL, known, rows, ranked, np.asarray(hashes_N, np.int64))

    def _plan(
        self,
        generation: int,
        batch: EmbeddingBatch,
        codes_NL: CodeArray,
        known: dict[str, KnownItem],
        rows: RowPlan,
        ranked: Ranked | None,
        hashes_N: Integers | None,
    ) -> BucketPlan:
        collisions, capacity = self._database.read_one(
            "SELECT collisions, bucket_capacity FROM _generations WHERE generation = ?", generation
        )
        written = sorted(rows.assign + rows.replace) if rows.replace else rows.assign
        before = {position: known[batch.item_ids[position]] for position in rows.replace}
        if collisions == "next-best" and written:
            if ranked is None:
                raise ValueError(f"generation {generation} places rows by their next best codes: `ranked` is needed")
            last_codes = partial(self._last_codes, generation)
            codes_NL = next_best_codes(codes_NL, written, before.values(), capacity, ranked, last_codes)
        groups = group_rows(rows, before, codes_NL, written)
        if hashes_N is None:
            all_written = len(written) == len(batch.item_ids)
            hashes_W = row_hashes(batch.embeddings_ND if all_written else batch.embeddings_ND[written])
        else:
            hashes_W = hashes_N[written]
        buckets = self._buckets(generation, groups.bucket_names)
        return plan_buckets(generation, groups, buckets, hashes_W, shared=collisions == "shared")

    def _known_items(self, generation: int, item_ids: Sequence[str]) -> dict[str, KnownItem]:
        """The items that have an ID in a generation, by item ID."""
        rows = self._database.read_joined(
            "SELECT i.item_id, i.semantic_id, i.suffix, i.content, c.file_id FROM given CROSS JOIN _items i"
            " CROSS JOIN _chunks c ON c.id = i.chunk_id WHERE i.item_id = c0 AND i.generation = ?",
            [sorted(item_ids)],
            generation,
        )
        return {item_id: KnownItem(*values) for item_id, *values in rows}

    def _buckets(self, generation: int, semantic_ids: Sequence[str]) -> Buckets:
        """The buckets of semantic IDs (S). A bucket that only ever had one item, and has it still, has no row."""
        sizes_S, next_S, hashes_S = np.zeros((3, len(semantic_ids)), np.int64)
        for index, items, next_suffix in self._database.read_joined(
            "SELECT c1, b.items, b.next_suffix FROM given CROSS JOIN _buckets b"
            " WHERE b.semantic_id = c0 AND b.generation = ?",
            [semantic_ids, range(len(semantic_ids))],
            generation,
        ):
            sizes_S[index], next_S[index] = items, next_suffix
        others = np.flatnonzero(next_S == 0).tolist()
        is_single_S = np.zeros(len(semantic_ids), bool)
        for index, row_hash in self._database.read_joined(
            "SELECT c1, i.content FROM given CROSS JOIN _items i WHERE i.semantic_id = c0 AND i.generation = ?",
            [[semantic_ids[index] for index in others], others],
            generation,
        ):
            is_single_S[index], hashes_S[index] = True, row_hash
        return Buckets(sizes_S + is_single_S, next_S + is_single_S, is_single_S, hashes_S)

    def _last_codes(self, generation: int, prefix: str) -> dict[int, int]:
        """Items per last code of the semantic IDs that continue a prefix by one code."""
        low, high = (f"{prefix}-", f"{prefix}.") if prefix else ("", ":")  # "." follows "-", and ":" the digits
        rows = self._database.read(
            "SELECT semantic_id, count(*) FROM _items WHERE semantic_id > ? AND semantic_id < ? AND generation = ?"
            " GROUP BY semantic_id",
            low,
            high,
            generation,
        )
        return {int(semantic_id.rpartition("-")[2]): items for semantic_id, items in rows}

    # -- writing -----------------------------------------------------------------------------------

    def write(self, chunk_id: int, item_ids: Sequence[str], plan: BucketPlan) -> None:
        """Write the rows of a plan with their buckets and counts. `item_ids` are those of the chunk's usable rows.

        Raises sqlite3.IntegrityError when a new item is there already: the transaction must roll back.
        """
        if not plan.written:
            return
        generation = plan.generation
        with self._database.transaction():
            lost = self._delete_replaced(item_ids, plan)
            gained = plan.new_embeddings + len(plan.unsure_ids)
            gained -= self._count_present(generation, plan.unsure_ids, plan.unsure_hashes)
            self._insert(chunk_id, item_ids, plan)
            self._write_buckets(plan)
            items = len(plan.rows.assign)
            self._counts.count_items(generation, items, items - gained + lost)
            self._counts.count_sizes(generation, plan.sizes_before_S, plan.sizes_after_S)
            self._counts.count_codes(
                generation,
                plan.codes_NL[plan.entering],
                [plan.before[position].semantic_id for position in plan.moving],
            )

    def _delete_replaced(self, item_ids: Sequence[str], plan: BucketPlan) -> int:
        """Delete the rows that the plan replaces; how many distinct embeddings their buckets lose."""
        with self._database.transaction() as connection:
            connection.executemany(
                "DELETE FROM _items WHERE item_id = ? AND generation = ?",
                [(item_ids[position], plan.generation) for position in plan.rows.replace],
            )
        deleted = sorted({(item.semantic_id, item.row_hash) for item in plan.before.values()})
        names, hashes = [name for name, _ in deleted], [row_hash for _, row_hash in deleted]
        return len(deleted) - self._count_present(plan.generation, names, hashes)

    def _insert(self, chunk_id: int, item_ids: Sequence[str], plan: BucketPlan) -> None:
        """Insert in the order of semantic IDs: the pages of that index are visited one after the other, each once."""
        written, order = plan.written, plan.in_order
        with self._database.transaction() as connection:
            # OR FAIL: an item that is there already raises all the same, and rolls the transaction back. By default
            # SQLite would copy every page that a statement changes, to be able to roll back that statement alone.
            insert_rows(
                connection,
                "INSERT OR FAIL INTO _items (generation, item_id, semantic_id, suffix, content, chunk_id) VALUES {}",
                [
                    [item_ids[written[index]] for index in order],
                    [plan.semantic_ids[index] for index in order],
                    [plan.suffixes[index] for index in order],
                    [plan.row_hashes[index] for index in order],
                ],
                f"({plan.generation}, ?, ?, ?, ?, {chunk_id})",
            )

    def _write_buckets(self, plan: BucketPlan) -> None:
        names = plan.stored_buckets
        with self._database.transaction() as connection:
            insert_rows(
                connection,
                "INSERT OR REPLACE INTO _buckets (semantic_id, generation, items, next_suffix) VALUES {}",
                [names, [plan.generation] * len(names), plan.stored_sizes, plan.stored_next],
            )

    def _count_present(self, generation: int, semantic_ids: Sequence[str], hashes: Sequence[int]) -> int:
        """How many of the distinct pairs of a semantic ID and a row hash an item has."""
        rows = self._database.read_joined(
            "SELECT 1 FROM given WHERE EXISTS (SELECT 1 FROM _items i"
            " WHERE i.semantic_id = c0 AND i.generation = ? AND i.content = c1)",
            [semantic_ids, hashes],
            generation,
        )
        return len(rows)

    def delete_page(self, generation: int, most: int, after: TableKey | None = None) -> TableKey | None:
        """Delete a generation's items and buckets among the next `most` rows; where to go on, None at the end."""
        which, last = after or (0, "")
        if which == len(_TABLES):
            return None
        table, key = _TABLES[which]
        with self._database.transaction() as connection:
            (reached,) = self._database.read_one(
                f"SELECT max({key}) FROM (SELECT {key} FROM {table} WHERE {key} > ? ORDER BY {key} LIMIT ?)", last, most
            )
            if reached is None:
                return which + 1, ""
            connection.execute(
                f"DELETE FROM {table} WHERE {key} > ? AND {key} <= ? AND generation = ?", (last, reached, generation)
            )
        return which, str(reached)

    # -- reading -----------------------------------------------------------------------------------

    def hashes_of_chunk(self, generation: int, chunk_id: int, item_ids: Sequence[str]) -> dict[str, int]:
        """The row hashes of those of the items whose row in a generation is that of this chunk."""
        hashes: dict[str, int] = {}
        for names in listed(item_ids):
            hashes.update(
                self._database.read(
                    "SELECT item_id, content FROM _items WHERE generation = ? AND chunk_id = ?"
                    " AND item_id IN (SELECT value FROM json_each(?))",
                    generation,
                    chunk_id,
                    names,
                )
            )
        return hashes

    def has_rows_of_chunk(self, generation: int, chunk_id: int) -> bool:
        """Whether the row of any item is that of this chunk. Reads all items: only called where rows are missing."""
        return bool(
            self._database.read_one(
                "SELECT EXISTS (SELECT 1 FROM _items WHERE generation = ? AND chunk_id = ?)", generation, chunk_id
            )[0]
        )
