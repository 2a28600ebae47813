"""Rows into the catalogue: which of a chunk's rows get, keep or change an ID, and every count that follows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semid_daemon.base.clock import utc_now
from semid_daemon.base.errors import StoreError
from semid_daemon.base.failpoints import failpoint
from semid_daemon.base.row_hash import zero_rows
from semid_daemon.base.types import CodeArray, EmbeddingBatch, SpoolRecord
from semid_daemon.store.layout import BITS, prefix_key
from semid_daemon.store.write.bulk import insert_rows, select_rows
from semid_daemon.store.write.candidates import Learned, LearnedState, Metric
from semid_daemon.store.write.files import REJECTED_IN_WORDS, LedgerFile, Tally
from semid_daemon.store.write.health import layer_health
from semid_daemon.store.write.placement import Integers, OnExisting, Placement, Placements
from semid_daemon.store.write.upgrade import Alive

ZERO_VECTOR = "zero vector"
_HEALTH_GROWTH = 1.01  # of the catalogue, from one remembered state of codebook health to the next


class Rows(LearnedState, Placements):
    """Commits chunks. Counters, bucket sizes and code usage always equal what the rows themselves say."""

    def __init__(self, path: Path, alive: Alive = lambda doing: None) -> None:
        super().__init__(path, alive)
        self._usage_by_generation: dict[int, npt.NDArray[np.int64]] = {}

    def forget_cached(self) -> None:
        """Read counts anew: another program may have changed them."""
        self._usage_by_generation.clear()

    def commit_chunk(
        self,
        file: LedgerFile,
        batch: EmbeddingBatch,
        codes_NL: CodeArray,
        metrics: Sequence[Metric] = (),
        *,
        on_existing: OnExisting = "keep",
        placement: Placement | None = None,
        learned: Callable[[], Learned | None] = lambda: None,
        spooled: SpoolRecord | None = None,
    ) -> Tally:
        """One chunk of a loading file, all of it or nothing: IDs, suffixes, counts, metrics, progress.

        `codes_NL` are the codes (N×L) of the batch's usable rows. An item that has an ID in this
        generation keeps it, or by `on_existing` moves to its new semantic ID. Suffixes continue within
        each semantic ID and are never given again. `placement` is what `place` decided, if it was asked
        before; `learned` gives what the rows leave with the generation's candidate and its drift, and is asked last;
        `spooled` where their embeddings are kept. Raises StoreError when the ledger is not where the caller believes
        (fencing).
        """
        generation = file.generation
        if generation is None or file.rows is None:
            raise StoreError(f"file {file.id}: chunk committed before begin_loading")
        now = utc_now()
        zero = len(zero_rows(batch.embeddings_ND)) + batch.rejected.get(ZERO_VECTOR, 0)
        with self._transaction() as connection:
            if placement is None:
                placement = self.place(generation, file.id, batch, codes_NL, on_existing=on_existing)
            plan = placement.plan
            tally = Tally(len(plan.assign), plan.kept, batch.rows_rejected, plan.replaced, plan.repeated, zero)
            self._move_on(file, batch, tally, now)
            chunk_id = connection.execute(
                "INSERT INTO _chunks (file_id, generation, first_row, rows, assigned, rejected, kept, replaced,"
                " committed_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    file.id,
                    generation,
                    batch.first_row,
                    batch.rows_read,
                    tally.assigned,
                    tally.rejected,
                    tally.kept,
                    tally.replaced,
                    now,
                ),
            ).lastrowid
            assert chunk_id is not None
            usage_LK = self._write_rows(chunk_id, batch.item_ids, placement)
            self._count_rejected(file.id, batch)
            self._insert_metrics(f"ingest-{generation}", chunk_id, metrics, now)
            if spooled is not None:
                connection.execute(
                    "INSERT INTO _spool (chunk_id, segment, first_byte, size_bytes) VALUES (?, ?, ?, ?)",
                    (chunk_id, spooled.segment, spooled.first_byte, spooled.size_bytes),
                )
            leaves = learned()
            if leaves is not None:
                self._write_learned(generation, chunk_id, leaves, now)
            failpoint("rows-inserted")
        self._usage_by_generation[generation] = usage_LK
        if not self._at_once:
            failpoint("committed")
        return tally

    def _move_on(self, file: LedgerFile, batch: EmbeddingBatch, tally: Tally, now: str) -> None:
        """The ledger's progress, which must be where the caller believes."""
        rows_done = batch.first_row + batch.rows_read
        finished = rows_done == file.rows
        moved_on = self._connection.execute(
            "UPDATE _files SET rows_done = ?, rows_assigned = rows_assigned + ?, rows_rejected = rows_rejected + ?,"
            " rows_kept = rows_kept + ?, rows_replaced = rows_replaced + ?, rows_repeated = rows_repeated + ?,"
            " rows_zero = rows_zero + ?, status = ?, finished_at = ?, failures = 0"
            " WHERE id = ? AND status = 'loading' AND generation = ? AND rows_done = ?",
            (
                rows_done,
                tally.assigned,
                tally.rejected,
                tally.kept,
                tally.replaced,
                tally.repeated,
                tally.zero,
                "done" if finished else "loading",
                now if finished else None,
                file.id,
                file.generation,
                batch.first_row,
            ),
        ).rowcount
        if moved_on != 1:
            raise StoreError(
                f"file {file.id}: the ledger is not at row {batch.first_row}; another writer? nothing was committed"
            )

    def _count_rejected(self, file_id: int, batch: EmbeddingBatch) -> None:
        """Add a chunk's rows at fault to the file's counts by reason, and put those into words in `reason`."""
        if not batch.rejected:
            return
        self._connection.executemany(
            "INSERT INTO _rejected_rows (file_id, reason, rows) VALUES (?, ?, ?)"
            " ON CONFLICT (file_id, reason) DO UPDATE SET rows = rows + excluded.rows",
            [(file_id, reason, rows) for reason, rows in batch.rejected.items()],
        )
        self._connection.execute(f"UPDATE _files SET reason = ({REJECTED_IN_WORDS}) WHERE id = ?", (file_id,))

    def _write_rows(self, chunk_id: int, item_ids: Sequence[str], placement: Placement) -> npt.NDArray[np.int64]:
        """Write a placement's rows, with buckets, sizes, duplicates, code usage and health; the new usage (L×K)."""
        generation, plan = placement.generation, placement.plan
        usage_LK = self._usage(generation)
        if not placement.new:
            return usage_LK
        before = {position: placement.known[item_ids[position]] for position in plan.replace}
        # Distinct embeddings per bucket: those that leave with their last item, those that come new.
        left = {(each.semantic_id, each.content) for each in before.values()}
        self._connection.executemany(
            "DELETE FROM _items WHERE item_id = ? AND generation = ?",
            [(item_ids[position], generation) for position in plan.replace],
        )
        leaving = sorted(left)
        lost = len(left) - self._present(generation, [name for name, _ in leaving], [content for _, content in leaving])
        to_new, found_ids, found_contents = placement.embeddings
        new = to_new + len(found_ids) - self._present(generation, found_ids, found_contents)
        self._insert_items(chunk_id, item_ids, placement)
        names, sizes, next_suffixes = placement.buckets
        insert_rows(
            self._connection,
            "INSERT OR REPLACE INTO _buckets (semantic_id, generation, items, next_suffix) VALUES {}",
            [names, [generation] * len(names), sizes, next_suffixes],
        )
        self._count_sizes(generation, *placement.sizes)
        items = len(plan.assign)
        self._connection.execute(
            "UPDATE _generations SET items = items + ?, exact_duplicates = exact_duplicates + ? WHERE generation = ?",
            (items, items - new + lost, generation),
        )
        usage_LK = self._count_codes(
            generation,
            usage_LK,
            placement.codes_NL[placement.comes],
            [before[position].semantic_id for position in placement.moves],
        )
        self._write_health(generation, usage_LK)
        self._remember_health(generation, usage_LK)
        return usage_LK

    def _insert_items(self, chunk_id: int, item_ids: Sequence[str], placement: Placement) -> None:
        """In the order of semantic IDs: the pages of that index are visited one after the other, each once."""
        new, order = placement.new, placement.in_order
        semantic_ids, suffixes, contents = placement.semantic_ids, placement.suffixes, placement.contents
        # OR FAIL: an item that is there already raises all the same, and takes the transaction back. By default
        # SQLite would copy every page that a statement changes, to be able to take back that statement alone.
        insert_rows(
            self._connection,
            "INSERT OR FAIL INTO _items (generation, item_id, semantic_id, suffix, content, chunk_id) VALUES {}",
            [
                [item_ids[new[index]] for index in order],
                [semantic_ids[index] for index in order],
                [suffixes[index] for index in order],
                [contents[index] for index in order],
            ],
            f"({placement.generation}, ?, ?, ?, ?, {chunk_id})",
        )

    def _present(self, generation: int, semantic_ids: Sequence[str], contents: Sequence[int]) -> int:
        """How many of some distinct (semantic ID, content hash) an item has."""
        found = select_rows(
            self._connection,
            "SELECT 1 FROM given WHERE EXISTS (SELECT 1 FROM _items i"
            " WHERE i.semantic_id = c0 AND i.generation = ? AND i.content = c1)",
            [semantic_ids, contents],
            generation,
        )
        return sum(1 for _ in found)

    def _count_sizes(self, generation: int, before: Integers, after: Integers) -> None:
        """Keep the histogram of bucket sizes, and the generation's figures that come from it."""
        sizes, where = np.unique(np.concatenate([before, after]), return_inverse=True)
        change = np.bincount(where, np.repeat([-1, 1], [len(before), len(after)]))
        changes = [(int(size), int(by)) for size, by in zip(sizes, change, strict=True) if size and by]
        self._connection.executemany(
            "INSERT INTO _bucket_sizes (generation, size, buckets) VALUES (?, ?, 0) ON CONFLICT DO NOTHING",
            [(generation, size) for size, _ in changes],
        )
        self._connection.executemany(
            "UPDATE _bucket_sizes SET buckets = buckets + ? WHERE generation = ? AND size = ?",
            [(by, generation, size) for size, by in changes],
        )
        self._connection.execute("DELETE FROM _bucket_sizes WHERE generation = ? AND buckets = 0", (generation,))
        self._connection.execute(
            "UPDATE _generations SET (distinct_ids, singletons, max_bucket) ="
            " (SELECT coalesce(sum(buckets), 0), coalesce(sum(buckets) FILTER (WHERE size = 1), 0),"
            " coalesce(max(size), 0) FROM _bucket_sizes b WHERE b.generation = _generations.generation)"
            " WHERE generation = ?",
            (generation,),
        )

    def _count_codes(
        self, generation: int, usage_LK: npt.NDArray[np.int64], come_NL: CodeArray, left: list[str]
    ) -> npt.NDArray[np.int64]:
        """Add the codes of rows that came and take away those of semantic IDs that were left."""
        layers, codebook_size = usage_LK.shape
        left_NL = np.array([semantic_id.split("-") for semantic_id in left], dtype=np.int64).reshape(-1, layers)
        change_LK = np.stack(
            [
                np.bincount(come_NL[:, layer], minlength=codebook_size)
                - np.bincount(left_NL[:, layer], minlength=codebook_size)
                for layer in range(layers)
            ]
        )
        self._connection.executemany(
            "UPDATE _code_usage SET items = items + ? WHERE generation = ? AND layer = ? AND code = ?",
            [
                (int(change_LK[layer, code]), generation, int(layer), int(code))
                for layer, code in np.argwhere(change_LK)
            ],
        )
        self._count_prefixes(generation, codebook_size, come_NL, left_NL)
        return usage_LK + change_LK

    def _count_prefixes(self, generation: int, codebook_size: int, come_NL: CodeArray, left_NL: Integers) -> None:
        """Items per beginning of two codes: what a tree shows without counting."""
        if come_NL.shape[1] < 2:
            return
        codes_N2 = np.concatenate([come_NL[:, :2], left_NL[:, :2]]).astype(np.int64)
        pairs, where = np.unique(codes_N2[:, 0] * codebook_size + codes_N2[:, 1], return_inverse=True)
        change = np.bincount(where, np.repeat([1, -1], [len(come_NL), len(left_NL)])).astype(np.int64)
        changed = np.flatnonzero(change)
        firsts, seconds = np.divmod(pairs[changed], codebook_size)
        keys = prefix_key(generation) | firsts << BITS | seconds
        insert_rows(
            self._connection,
            "INSERT INTO _prefix_counts (id, items) VALUES {} ON CONFLICT DO UPDATE SET items = items + excluded.items",
            [keys.tolist(), change[changed].tolist()],
        )

    def _usage(self, generation: int) -> npt.NDArray[np.int64]:
        """Items per code (L×K), kept in memory between chunks: this connection is the only writer."""
        if generation not in self._usage_by_generation:
            shape = self._read_one("SELECT layers, codebook_size FROM _generations WHERE generation = ?", (generation,))
            usage_LK = np.zeros(shape, dtype=np.int64)
            for layer, code, items in self._read(
                "SELECT layer, code, items FROM _code_usage WHERE generation = ?", (generation,)
            ):
                usage_LK[layer, code] = items
            self._usage_by_generation[generation] = usage_LK
        return self._usage_by_generation[generation]

    def _write_health(self, generation: int, usage_LK: npt.NDArray[np.int64]) -> None:
        self._connection.executemany(
            "INSERT OR REPLACE INTO _layer_health (generation, layer, coverage, dead_codes, perplexity)"
            " VALUES (?, ?, ?, ?, ?)",
            [
                (generation, health.layer, health.coverage, health.dead_codes, health.perplexity)
                for health in layer_health(usage_LK)
            ],
        )

    def _remember_health(self, generation: int, usage_LK: npt.NDArray[np.int64]) -> None:
        """Keep how health was at this size of the catalogue, if it has grown by a hundredth since the last time."""
        items = int(usage_LK[0].sum())
        last = self._read_one("SELECT max(items) FROM _health_history WHERE generation = ?", (generation,))[0] or 0
        if items <= last * _HEALTH_GROWTH:
            return
        self._connection.execute(
            "INSERT INTO _health_history (generation, items, layer, coverage, dead_codes, perplexity, at)"
            " SELECT generation, ?, layer, coverage, dead_codes, perplexity, ? FROM _layer_health WHERE generation = ?",
            (items, utc_now(), generation),
        )
