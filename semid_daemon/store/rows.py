"""Rows into the catalogue: which of a chunk's rows get, keep or change an ID, and every count that follows."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from semid_daemon.errors import StoreError
from semid_daemon.failpoints import failpoint
from semid_daemon.records import CodeArray, EmbeddingBatch, FloatArray
from semid_daemon.store.clock import utc_now
from semid_daemon.store.connection import Transactions
from semid_daemon.store.health import layer_health
from semid_daemon.store.ledger import REJECTED_IN_WORDS, LedgerFile, Tally

OnExisting = Literal["keep", "replace"]
ZERO_VECTOR = "zero vector"


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured value; `layer` is None where it concerns all of them."""

    name: str
    value: float
    layer: int | None = None


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


_LISTED_AT_ONCE = 50_000
_HEALTH_GROWTH = 1.01  # of the catalogue, from one remembered state of codebook health to the next


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


def _listed(values: Sequence[Any]) -> Iterator[str]:
    """Values as JSON arrays for json_each, in slices: SQLite takes no text of more than 1,000,000,000 bytes."""
    for start in range(0, len(values), _LISTED_AT_ONCE):
        yield json.dumps(values[start : start + _LISTED_AT_ONCE], ensure_ascii=False)


class Rows(Transactions):
    """Commits chunks. Counters, bucket sizes and code usage always equal what the rows themselves say."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
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
    ) -> Tally:
        """One chunk of a loading file, all of it or nothing: IDs, suffixes, counts, metrics, progress.

        `codes_NL` are the codes (N×L) of the batch's usable rows. An item that has an ID in this
        generation keeps it, or by `on_existing` moves to its new semantic ID. Suffixes continue within
        each semantic ID and are never given again. Raises StoreError when the ledger is not where the
        caller believes (fencing).
        """
        generation = file.generation
        if generation is None or file.rows is None:
            raise StoreError(f"file {file.id}: chunk committed before begin_loading")
        now = utc_now()
        zero = int((~batch.embeddings_ND.any(axis=1)).sum()) + batch.rejected.get(ZERO_VECTOR, 0)
        with self._transaction() as connection:
            known = self._known_items(generation, batch.item_ids)
            plan = plan_rows(batch.item_ids, known, file.id, on_existing)
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
            usage_LK = self._place(generation, chunk_id, batch, codes_NL, known, plan)
            self._count_rejected(file.id, batch)
            self._insert_metrics(f"ingest-{generation}", chunk_id, metrics, now)
            failpoint("rows-inserted")
        self._usage_by_generation[generation] = usage_LK
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

    def _known_items(self, generation: int, item_ids: list[str]) -> dict[str, Known]:
        known: dict[str, Known] = {}
        for listed in _listed(item_ids):
            rows = self._connection.execute(
                "SELECT i.item_id, i.semantic_id, i.suffix, i.content, c.file_id"
                " FROM _items i JOIN _chunks c ON c.id = i.chunk_id"
                " WHERE i.generation = ? AND i.item_id IN (SELECT value FROM json_each(?))",
                (generation, listed),
            )
            known.update((item_id, Known(*rest)) for item_id, *rest in rows)
        return known

    def _place(
        self,
        generation: int,
        chunk_id: int,
        batch: EmbeddingBatch,
        codes_NL: CodeArray,
        known: Mapping[str, Known],
        plan: Plan,
    ) -> npt.NDArray[np.int64]:
        """Write the rows of a plan, with buckets, sizes, duplicates, code usage and health; the new usage (L×K)."""
        usage_LK = self._usage(generation)
        if not plan.assign and not plan.replace:
            return usage_LK
        item_ids = batch.item_ids
        written = plan.assign + plan.replace
        ids = dict(zip(written, ("-".join(map(str, row)) for row in codes_NL[written].tolist()), strict=True))
        contents = {position: content_hash(batch.embeddings_ND[position]) for position in written}
        before = {position: known[item_ids[position]] for position in plan.replace}
        # A replaced item whose semantic ID comes out the same keeps its suffix too.
        moves = [position for position in plan.replace if before[position].semantic_id != ids[position]]
        comes = sorted(plan.assign + moves)
        suffixes = {position: each.suffix for position, each in before.items()}
        buckets = self._buckets(generation, {*ids.values(), *(each.semantic_id for each in before.values())})
        sizes_before = {semantic_id: items for semantic_id, (items, _) in buckets.items()}
        for position in moves:
            size, next_suffix = buckets[before[position].semantic_id]
            buckets[before[position].semantic_id] = (size - 1, next_suffix)
        for position in comes:
            size, next_suffix = buckets[ids[position]]
            buckets[ids[position]] = (size + 1, next_suffix + 1)
            suffixes[position] = next_suffix

        # Distinct embeddings per bucket: those that leave with their last item, those that come new.
        left = {(each.semantic_id, each.content) for each in before.values()}
        came = {(ids[position], contents[position]) for position in written}
        self._connection.executemany(
            "DELETE FROM _items WHERE item_id = ? AND generation = ?",
            [(item_ids[position], generation) for position in plan.replace],
        )
        lost = left - self._present(generation, left)
        new = came - self._present(generation, {pair for pair in came if sizes_before[pair[0]]})
        self._connection.executemany(
            "INSERT INTO _items (generation, item_id, semantic_id, suffix, content, chunk_id)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            sorted(  # in key order: fewer page visits
                (generation, item_ids[position], ids[position], suffixes[position], contents[position], chunk_id)
                for position in written
            ),
        )
        self._connection.executemany(
            "INSERT OR REPLACE INTO _buckets (semantic_id, generation, items, next_suffix) VALUES (?, ?, ?, ?)",
            sorted((semantic_id, generation, *bucket) for semantic_id, bucket in buckets.items()),
        )
        self._count_sizes(generation, sizes_before, {sid: items for sid, (items, _) in buckets.items()})
        items = len(plan.assign)
        self._connection.execute(
            "UPDATE _generations SET items = items + ?, exact_duplicates = exact_duplicates + ? WHERE generation = ?",
            (items, items - len(new) + len(lost), generation),
        )
        usage_LK = self._count_codes(
            generation, usage_LK, codes_NL[comes], [before[position].semantic_id for position in moves]
        )
        self._write_health(generation, usage_LK)
        self._remember_health(generation, usage_LK)
        return usage_LK

    def _buckets(self, generation: int, semantic_ids: set[str]) -> dict[str, tuple[int, int]]:
        """Size and next suffix of each bucket; (0, 0) for one there never was."""
        buckets = dict.fromkeys(semantic_ids, (0, 0))
        for listed in _listed(sorted(semantic_ids)):
            for semantic_id, items, next_suffix in self._connection.execute(
                "SELECT semantic_id, items, next_suffix FROM _buckets"
                " WHERE generation = ? AND semantic_id IN (SELECT value FROM json_each(?))",
                (generation, listed),
            ):
                buckets[semantic_id] = (items, next_suffix)
        return buckets

    def _present(self, generation: int, pairs: set[tuple[str, int]]) -> set[tuple[str, int]]:
        """Those of some (semantic ID, content hash) that an item has."""
        found: set[tuple[str, int]] = set()
        for listed in _listed(sorted(pairs)):
            found.update(
                self._connection.execute(
                    "SELECT json_extract(j.value, '$[0]') AS of_id, json_extract(j.value, '$[1]') AS of_content"
                    " FROM json_each(?) j WHERE EXISTS (SELECT 1 FROM _items i"
                    " WHERE i.semantic_id = of_id AND i.generation = ? AND i.content = of_content)",
                    (listed, generation),
                )
            )
        return found

    def _count_sizes(self, generation: int, before: Mapping[str, int], after: Mapping[str, int]) -> None:
        """Keep the histogram of bucket sizes, and the generation's figures that come from it."""
        changes = Counter(after.values())
        changes.subtract(before.values())
        self._connection.executemany(
            "INSERT INTO _bucket_sizes (generation, size, buckets) VALUES (?, ?, 0) ON CONFLICT DO NOTHING",
            [(generation, size) for size, change in changes.items() if size and change],
        )
        self._connection.executemany(
            "UPDATE _bucket_sizes SET buckets = buckets + ? WHERE generation = ? AND size = ?",
            [(change, generation, size) for size, change in changes.items() if size and change],
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
        self._count_prefixes(generation, come_NL, left_NL)
        return usage_LK + change_LK

    def _count_prefixes(self, generation: int, come_NL: CodeArray, left_NL: npt.NDArray[np.int64]) -> None:
        """Items per beginning of two codes: what a tree shows without counting."""
        if come_NL.shape[1] < 2:
            return
        changes = Counter(map(tuple, come_NL[:, :2].tolist()))
        changes.subtract(map(tuple, left_NL[:, :2].tolist()))
        self._connection.executemany(
            "INSERT INTO _prefix_counts (generation, first, second, items) VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET items = items + excluded.items",
            sorted((generation, first, second, change) for (first, second), change in changes.items() if change),
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

    def _insert_metrics(self, run: str, step: int, metrics: Sequence[Metric], now: str) -> None:
        self._connection.executemany(
            "INSERT INTO _metrics (run, step, layer, name, value, at) VALUES (?, ?, ?, ?, ?, ?)",
            [(run, step, metric.layer, metric.name, metric.value, now) for metric in metrics],
        )
