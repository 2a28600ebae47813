"""Chunks: the commit of one, and the committed ones in their order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from semid_daemon.base.clock import utc_now
from semid_daemon.base.errors import StoreError
from semid_daemon.base.failpoints import failpoint
from semid_daemon.base.row_hash import zero_rows
from semid_daemon.base.types import CodeArray, EmbeddingBatch, SpoolRecord
from semid_daemon.store.write.bulk import listed
from semid_daemon.store.write.candidates import Candidates, CandidateUpdate
from semid_daemon.store.write.database import Database
from semid_daemon.store.write.files import Files, LedgerFile, Tally
from semid_daemon.store.write.items import Items
from semid_daemon.store.write.placement import BucketPlan, OnExisting
from semid_daemon.store.write.spool import SpoolIndex
from semid_daemon.store.write.telemetry import Metric, Telemetry

ZERO_VECTOR = "zero vector"


@dataclass(frozen=True, slots=True)
class Chunk:
    """A committed chunk that brought embeddings into the catalogue, and the rows of the file that it holds."""

    id: int
    file_id: int
    first_row: int
    rows: int
    chunk_rows: int  # rows per chunk of its file


class Chunks:
    """Commits chunks, and reads them in the order of their commits."""

    def __init__(
        self,
        database: Database,
        files: Files,
        items: Items,
        candidates: Candidates,
        telemetry: Telemetry,
        spool: SpoolIndex,
    ) -> None:
        self._database = database
        self._files = files
        self._items = items
        self._candidates = candidates
        self._telemetry = telemetry
        self._spool = spool

    def commit(
        self,
        file: LedgerFile,
        batch: EmbeddingBatch,
        codes_NL: CodeArray,
        metrics: Sequence[Metric] = (),
        *,
        on_existing: OnExisting = "keep",
        plan: BucketPlan | None = None,
        update: Callable[[], CandidateUpdate | None] = lambda: None,
        spooled: SpoolRecord | None = None,
    ) -> Tally:
        """Commit one chunk of a loading file, all of it or nothing: IDs, suffixes, counts, metrics, progress.

        `codes_NL` (N×L) are the codes of the batch's usable rows. An item that has an ID in this generation keeps it,
        or by `on_existing` moves to its new semantic ID. Suffixes continue within each semantic ID and are never
        given again. `plan` is the result of `Items.assign`, where it was called before; `update` returns the change
        of the generation's candidate and drift, and is called last; `spooled` is where the embeddings are kept.

        Raises StoreError when the file is not at the chunk's first row, which another writer would cause.
        """
        generation = file.generation
        if generation is None or file.rows is None:
            raise StoreError(f"file {file.id}: chunk committed before begin_loading")
        with self._database.transaction():
            if plan is None:
                plan = self._items.assign(generation, file.id, batch, codes_NL, on_existing=on_existing)
            tally = _tally(plan, batch)
            self._files.advance(file, batch, tally)
            chunk_id = self._insert(file.id, generation, batch, tally)
            self._items.write(chunk_id, batch.item_ids, plan)
            self._telemetry.add_metrics(f"ingest-{generation}", chunk_id, metrics)
            if spooled is not None:
                self._spool.add(chunk_id, spooled)
            change = update()
            if change is not None:
                self._candidates.write(generation, chunk_id, change)
            failpoint("rows-inserted")
        if not self._database.joins:
            failpoint("committed")
        return tally

    def _insert(self, file_id: int, generation: int, batch: EmbeddingBatch, tally: Tally) -> int:
        with self._database.transaction() as connection:
            chunk_id = connection.execute(
                "INSERT INTO _chunks (file_id, generation, first_row, rows, assigned, rejected, kept, replaced,"
                " committed_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    file_id,
                    generation,
                    batch.first_row,
                    batch.rows_read,
                    tally.assigned,
                    tally.rejected,
                    tally.kept,
                    tally.replaced,
                    utc_now(),
                ),
            ).lastrowid
        assert chunk_id is not None
        return chunk_id

    def last_id(self) -> int:
        """The ID of the newest committed chunk, 0 while there is none."""
        return int(self._database.read_one("SELECT coalesce(max(id), 0) FROM _chunks")[0])

    def after(self, chunk_id: int, most: int = 1) -> list[Chunk]:
        """The next chunks that brought embeddings into the catalogue, in the order of their commits."""
        rows = self._database.read(
            "SELECT c.id, c.file_id, c.first_row, c.rows, f.chunk_rows FROM _chunks c JOIN _files f ON f.id = c.file_id"
            " WHERE c.id > ? AND c.assigned + c.replaced > 0 ORDER BY c.id LIMIT ?",
            chunk_id,
            most,
        )
        return [Chunk(*row) for row in rows]

    def sizes(self) -> list[tuple[int, int]]:
        """The ID and number of embeddings of every chunk that brought any into the catalogue."""
        return self._database.read(
            "SELECT id, assigned + replaced FROM _chunks WHERE assigned + replaced > 0 ORDER BY id"
        )

    def by_ids(self, chunk_ids: Sequence[int]) -> list[Chunk]:
        """Chunks by their IDs, in the order of the IDs."""
        chunks: list[Chunk] = []
        for ids in listed(chunk_ids):
            rows = self._database.read(
                "SELECT c.id, c.file_id, c.first_row, c.rows, f.chunk_rows FROM _chunks c"
                " JOIN _files f ON f.id = c.file_id WHERE c.id IN (SELECT value FROM json_each(?))",
                ids,
            )
            chunks += [Chunk(*row) for row in rows]
        return sorted(chunks, key=lambda chunk: chunk.id)


def _tally(plan: BucketPlan, batch: EmbeddingBatch) -> Tally:
    rows = plan.rows
    zero = len(zero_rows(batch.embeddings_ND)) + batch.rejected.get(ZERO_VECTOR, 0)
    return Tally(len(rows.assign), rows.kept, batch.rows_rejected, rows.replaced, rows.repeated, zero)
