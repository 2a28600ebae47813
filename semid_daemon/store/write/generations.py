"""Generations: published, prepared and backfilled beside the active one, promoted, retired and deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from semid_daemon.base.clock import utc_now
from semid_daemon.base.errors import StoreError
from semid_daemon.base.failpoints import failpoint
from semid_daemon.base.types import Baseline, Codebooks, EmbeddingBatch
from semid_daemon.store.write.candidates import Candidates, CandidateUpdate
from semid_daemon.store.write.chunks import Chunk, Chunks
from semid_daemon.store.write.comparisons import Comparisons
from semid_daemon.store.write.counts import CatalogueCounts
from semid_daemon.store.write.database import Database
from semid_daemon.store.write.items import Items, TableKey
from semid_daemon.store.write.placement import BucketPlan, Collisions
from semid_daemon.store.write.telemetry import Metric, Telemetry

Origin = Literal["first", "candidate", "anew", "imported"]

_COLUMNS = (
    "generation, fingerprint, layers, codebook_size, dim, normalize_residuals, items, status, origin, based_on,"
    " collisions, trained_rows, trained_through, encoded_through, requested_by"
)


@dataclass(frozen=True, slots=True)
class Generation:
    """A set of codebooks with the IDs it assigned, as the database describes it."""

    number: int
    fingerprint: str
    layers: int
    codebook_size: int
    dim: int
    normalize_residuals: int  # 1 where every layer's input is normalized
    items: int
    status: str  # preparing (its rows are being encoded), ready (to be promoted), active, retired, deleting, deleted
    origin: Origin
    based_on: int | None  # the generation that was active when it was prepared
    collisions: Collisions
    trained_rows: int
    trained_through: int  # chunks with greater IDs are new to it
    encoded_through: int  # up to this chunk it has the items of the active generation
    requested_by: str | None


@dataclass(frozen=True, slots=True)
class NewGeneration:
    """What a generation begins as. Its codebooks are already safe on disk under their fingerprint.

    `baseline` is None where its training rows were not measured; `collisions` and `bucket_capacity` as in semid.toml.
    """

    fingerprint: str
    codebooks: Codebooks
    trained_rows: int
    baseline: Baseline | None = None
    origin: Origin = "first"
    collisions: Collisions = "suffix"
    bucket_capacity: int = 1


class Generations:
    """All generations. At most one is active: the one that new files are encoded with."""

    def __init__(
        self,
        database: Database,
        chunks: Chunks,
        items: Items,
        counts: CatalogueCounts,
        candidates: Candidates,
        comparisons: Comparisons,
        telemetry: Telemetry,
    ) -> None:
        self._database = database
        self._chunks = chunks
        self._items = items
        self._counts = counts
        self._candidates = candidates
        self._comparisons = comparisons
        self._telemetry = telemetry

    def active(self) -> Generation | None:
        """The generation that new rows are encoded with."""
        return self._first_where("status = 'active'")

    def get(self, number: int) -> Generation | None:
        """A generation by its number; None where there is none, as of every number beyond SQLite's 64 bits."""
        return self._first_where("generation = ?", number) if number.bit_length() < 64 else None

    def by_status(self, status: str) -> list[Generation]:
        """All generations of a status; the retired ones in the order in which they were active last."""
        return self._where("status = ? ORDER BY retired_at, generation", status)

    def _first_where(self, condition: str, *values: object) -> Generation | None:
        generations = self._where(condition, *values)
        return generations[0] if generations else None

    def _where(self, condition: str, *values: object) -> list[Generation]:
        rows = self._database.read(f"SELECT {_COLUMNS} FROM _generations WHERE {condition}", *values)
        return [Generation(*row) for row in rows]

    def fingerprint(self, generation: int) -> str:
        """The fingerprint of a generation's codebooks; raises KeyError for one there never was."""
        row = self._database.read_one("SELECT fingerprint FROM _generations WHERE generation = ?", generation)
        if row is None:
            raise KeyError(generation)
        return str(row[0])

    def fingerprints(self) -> set[str]:
        """The fingerprints of every generation whose codebooks are kept."""
        return {
            name for (name,) in self._database.read("SELECT fingerprint FROM _generations WHERE status != 'deleted'")
        }

    def baseline(self, generation: int) -> Baseline | None:
        """The errors and code counts of the generation's training rows, None when they were not measured."""
        error, error_p99, counts, layers, codebook_size = self._database.read_one(
            "SELECT trained_error, trained_error_p99, trained_counts, layers, codebook_size"
            " FROM _generations WHERE generation = ?",
            generation,
        )
        if error is None or error_p99 is None or counts is None:
            return None
        return Baseline(error, error_p99, np.frombuffer(counts, "<f8").reshape(layers, codebook_size))

    def was_trained_on(self, generation: int, file_id: int) -> bool:
        """Whether the generation was trained on all rows of this file, which are therefore not new to it."""
        row = self._database.read_one("SELECT trained_in FROM _files WHERE id = ?", file_id)
        return bool(row is not None and row[0] == generation)

    # -- publishing and preparing ----------------------------------------------------------------------------------

    def publish(self, new: NewGeneration, trained_files: Sequence[int] = ()) -> Generation:
        """Make a new generation the active one. `trained_files` are the ledger IDs of the files it was trained on."""
        with self._database.transaction() as connection:
            connection.execute("UPDATE _generations SET status = 'retired' WHERE status = 'active'")
            number = self._insert(new)
            connection.execute(
                "UPDATE _generations SET status = 'active', published_at = created_at WHERE generation = ?", (number,)
            )
            connection.executemany(
                "UPDATE _files SET trained_in = ? WHERE id = ?", [(number, file_id) for file_id in trained_files]
            )
        failpoint("published")
        return self._expect(number)

    def prepare(self, new: NewGeneration, *, based_on: int, trained_through: int, requested_by: str) -> Generation:
        """Add a new generation, without items, beside the active one."""
        with self._database.transaction() as connection:
            number = self._insert(new)
            connection.execute(
                "UPDATE _generations SET based_on = ?, trained_through = ?, requested_by = ? WHERE generation = ?",
                (based_on, trained_through, requested_by, number),
            )
        failpoint("prepared")
        return self._expect(number)

    def _insert(self, new: NewGeneration) -> int:
        codebooks, baseline = new.codebooks, new.baseline
        if baseline is not None and not baseline.is_finite:
            baseline = None
        (number,) = self._database.read_one("SELECT coalesce(max(generation), 0) + 1 FROM _generations")
        with self._database.transaction() as connection:
            if baseline is not new.baseline:
                self._telemetry.say_left_out([f"error of the training rows of generation {number}"])
            connection.execute(
                "INSERT INTO _generations (generation, fingerprint, layers, codebook_size, dim, normalize_residuals,"
                " trained_rows, status, origin, collisions, bucket_capacity, trained_error, trained_error_p99,"
                " trained_counts, created_at) VALUES (?,?,?,?,?,?,?,'preparing',?,?,?,?,?,?,?)",
                (
                    number,
                    new.fingerprint,
                    codebooks.layers,
                    codebooks.codebook_size,
                    codebooks.dim,
                    int(codebooks.normalize_residuals),
                    new.trained_rows,
                    new.origin,
                    new.collisions,
                    new.bucket_capacity,
                    baseline and baseline.error,
                    baseline and baseline.error_p99,
                    baseline and np.ascontiguousarray(baseline.counts_LK, "<f8").tobytes(),
                    utc_now(),
                ),
            )
            self._counts.create(number, codebooks.layers, codebooks.codebook_size)
        return int(number)

    def _expect(self, number: int) -> Generation:
        generation = self.get(number)
        assert generation is not None
        return generation

    # -- backfilling and promoting -----------------------------------------------------------------

    def backfill_chunk(
        self,
        generation: Generation,
        chunk: Chunk,
        batch: EmbeddingBatch,
        plan: BucketPlan,
        update: CandidateUpdate | None,
        metrics: Sequence[Metric] = (),
    ) -> None:
        """Give a chunk's items their IDs in a generation that is not active, and move its `encoded_through` on.

        Raises StoreError when the generation is not at the chunk before, which another writer would cause.
        """
        number = generation.number
        with self._database.transaction() as connection:
            advanced = connection.execute(
                "UPDATE _generations SET encoded_through = ? WHERE generation = ? AND encoded_through = ?"
                " AND status IN ('preparing', 'ready', 'retired')",
                (chunk.id, number, generation.encoded_through),
            ).rowcount
            if advanced != 1:
                raise StoreError(f"generation {number}: not at chunk {generation.encoded_through}; another writer?")
            self._items.write(chunk.id, batch.item_ids, plan)
            self._telemetry.add_metrics(f"ingest-{number}", chunk.id, metrics)
            if update is not None:
                self._candidates.write(number, chunk.id, update)
            failpoint("taking-over")
        failpoint("taken-over")

    def lacking_items(self, generation: int) -> int:
        """How many items of the active generation another generation lacks."""
        active, other = self._database.read_one(
            "SELECT (SELECT items FROM _generations WHERE status = 'active'), items FROM _generations"
            " WHERE generation = ?",
            generation,
        )
        return int(active - other)

    def set_ready(self, generation: int) -> None:
        """Mark a generation that has the whole catalogue as ready to be promoted."""
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE _generations SET status = 'ready' WHERE generation = ? AND status = 'preparing'", (generation,)
            )
        failpoint("ready")

    def switch_to(self, generation: int, requested_by: str) -> None:
        """Make a generation that has the whole catalogue the active one, and retire the former, in one transaction.

        Files that are loading go on with it. Raises StoreError when it lacks items.
        """
        now = utc_now()
        with self._database.transaction() as connection:
            behind = self._chunks.after(self._expect(generation).encoded_through)
            if behind or self.lacking_items(generation):
                raise StoreError(f"generation {generation}: lacks items of the active one; nothing was switched")
            connection.execute(
                "UPDATE _generations SET status = 'retired', retired_at = ?, encoded_through = ?"
                " WHERE status = 'active'",
                (now, self._chunks.last_id()),
            )
            switched = connection.execute(
                "UPDATE _generations SET status = 'active', published_at = coalesce(published_at, ?),"
                " retired_at = NULL, switched_by = ?"
                " WHERE generation = ? AND status IN ('ready', 'retired')",
                (now, requested_by, generation),
            ).rowcount
            if switched != 1:
                raise StoreError(f"generation {generation}: neither ready nor retired; nothing was switched")
            connection.execute(
                "UPDATE _files SET generation = ? WHERE generation IS NOT NULL AND status != 'done'",
                (generation,),
            )
            failpoint("switching")
        failpoint("switched")

    def requested_by(self, requested_by: str) -> Generation | None:
        """The generation that a request prepared, if any."""
        return self._first_where("requested_by = ?", requested_by)

    def switched_by(self, requested_by: str) -> Generation | None:
        """The generation whose last promotion came from a request, if any."""
        return self._first_where("switched_by = ?", requested_by)

    # -- deleting ----------------------------------------------------------------------------------

    def begin_deleting(self, generation: int) -> None:
        """Hide a generation from all views; `delete_rows` then deletes it page by page."""
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE _generations SET status = 'deleting' WHERE generation = ?"
                " AND status IN ('preparing', 'ready', 'retired')",
                (generation,),
            )
        self._counts.invalidate()
        failpoint("deleting")

    def delete_rows(self, generation: int, most: int, after: TableKey | None = None) -> TableKey | None:
        """Delete a generation's rows among the next `most`; returns where to go on, None when nothing of it is left."""
        with self._database.transaction() as connection:
            reached = self._items.delete_page(generation, most, after)
            if reached is not None:
                return reached
            self._counts.delete(generation)
            self._candidates.delete(generation)
            self._comparisons.delete(generation)
            connection.execute(
                "UPDATE _generations SET status = 'deleted', items = 0, distinct_ids = 0, singletons = 0,"
                " max_bucket = 0, exact_duplicates = 0 WHERE generation = ?",
                (generation,),
            )
        return None
