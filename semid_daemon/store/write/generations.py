"""Generations: published, prepared beside the active one, taken over from it, switched, retired and deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from semid_daemon.base.clock import utc_now
from semid_daemon.base.errors import StoreError
from semid_daemon.base.failpoints import failpoint
from semid_daemon.base.types import Baseline, Codebooks, EmbeddingBatch
from semid_daemon.store.write.candidates import Learned, Metric
from semid_daemon.store.write.chunks import Chunk, Chunks
from semid_daemon.store.write.placement import Collisions, Placement

Origin = Literal["first", "candidate", "anew", "imported"]

_LARGE = (("_items", "item_id"), ("_buckets", "semantic_id"))
_SMALL = (
    "_bucket_sizes",
    "_prefix_counts",
    "_health_history",
    "_code_usage",
    "_layer_health",
    "_candidate_layers",
    "_candidate_rows",
    "_candidates",
    "_drift",
)

_COLUMNS = (
    "generation, fingerprint, layers, codebook_size, dim, normalize_residuals, items, status, origin, based_on,"
    " collisions, trained_rows, trained_through, encoded_through, requested_by"
)


@dataclass(frozen=True, slots=True)
class Generation:
    """A set of codebooks with the IDs given by it, as the database knows it.

    `status`: preparing (its rows are being encoded), ready (to be promoted), active, retired, deleting, deleted.
    Chunks after `trained_through` are new to it; up to `encoded_through` it has the items of the active generation.
    """

    generation: int
    fingerprint: str
    layers: int
    codebook_size: int
    dim: int
    normalize_residuals: int  # 1 where every layer's input is normalized
    items: int
    status: str
    origin: Origin
    based_on: int | None
    collisions: Collisions
    trained_rows: int
    trained_through: int
    encoded_through: int
    requested_by: str | None


class Generations(Chunks):
    """Which codebooks there are. At most one generation is active: the one that files are encoded with."""

    def active_generation(self) -> Generation | None:
        """The generation that new rows are encoded with."""
        return self._generation_where("status = 'active'", ())

    def generation(self, number: int) -> Generation | None:
        """A generation by its number."""
        return self._generation_where("generation = ?", (number,))

    def generations(self, status: str) -> list[Generation]:
        """All generations of a status; the retired ones in the order in which they were active last."""
        return self._generations_where("status = ? ORDER BY retired_at, generation", (status,))

    def _generation_where(self, condition: str, values: tuple[object, ...]) -> Generation | None:
        found = self._generations_where(condition, values)
        return found[0] if found else None

    def _generations_where(self, condition: str, values: tuple[object, ...]) -> list[Generation]:
        rows = self._read(f"SELECT {_COLUMNS} FROM _generations WHERE {condition}", values)
        return [Generation(*row) for row in rows]

    def fingerprint(self, generation: int) -> str:
        """The fingerprint of a generation's codebooks; raises KeyError for one there never was."""
        row = self._read_one("SELECT fingerprint FROM _generations WHERE generation = ?", (generation,))
        if row is None:
            raise KeyError(generation)
        return str(row[0])

    def fingerprints(self) -> set[str]:
        """The fingerprints of every generation whose codebooks are kept."""
        return {name for (name,) in self._read("SELECT fingerprint FROM _generations WHERE status != 'deleted'")}

    def baseline(self, generation: int) -> Baseline | None:
        """What the generation's training rows came to, if that was measured."""
        error, error_p99, counts, layers, codebook_size = self._read_one(
            "SELECT trained_error, trained_error_p99, trained_counts, layers, codebook_size"
            " FROM _generations WHERE generation = ?",
            (generation,),
        )
        if counts is None:
            return None
        return Baseline(error, error_p99, np.frombuffer(counts, "<f8").reshape(layers, codebook_size))

    def was_trained_on(self, generation: int, file_id: int) -> bool:
        """Whether the first generation was trained on this file, whose rows are not new to it therefore."""
        row = self._read_one("SELECT trained_in FROM _files WHERE id = ?", (file_id,))
        return bool(row is not None and row[0] == generation)

    # -- new ones ----------------------------------------------------------------------------------

    def publish_generation(
        self,
        fingerprint: str,
        codebooks: Codebooks,
        *,
        trained_rows: int,
        baseline: Baseline | None = None,
        trained_files: Sequence[int] = (),
        collisions: Collisions = "suffix",
        bucket_capacity: int = 1,
        origin: Origin = "first",
    ) -> Generation:
        """Make codebooks, already safe on disk under their fingerprint, the active generation.

        `trained_files` are the ledger IDs of the files it was trained on.
        """
        with self._transaction() as connection:
            connection.execute("UPDATE _generations SET status = 'retired' WHERE status = 'active'")
            number = self._insert_generation(
                fingerprint, codebooks, trained_rows, baseline, collisions, bucket_capacity
            )
            connection.execute(
                "UPDATE _generations SET status = 'active', published_at = created_at, origin = ? WHERE generation = ?",
                (origin, number),
            )
            connection.executemany(
                "UPDATE _files SET trained_in = ? WHERE id = ?", [(number, file_id) for file_id in trained_files]
            )
        failpoint("published")
        return self._expect(number)

    def prepare_generation(
        self,
        fingerprint: str,
        codebooks: Codebooks,
        *,
        trained_rows: int,
        baseline: Baseline,
        origin: Origin,
        based_on: int,
        trained_through: int,
        requested_by: str,
        collisions: Collisions,
        bucket_capacity: int,
    ) -> Generation:
        """Add codebooks, already safe on disk, beside the active generation: it has no items yet."""
        with self._transaction() as connection:
            number = self._insert_generation(
                fingerprint, codebooks, trained_rows, baseline, collisions, bucket_capacity
            )
            connection.execute(
                "UPDATE _generations SET origin = ?, based_on = ?, trained_through = ?, requested_by = ?"
                " WHERE generation = ?",
                (origin, based_on, trained_through, requested_by, number),
            )
        failpoint("prepared")
        return self._expect(number)

    def _insert_generation(
        self,
        fingerprint: str,
        codebooks: Codebooks,
        trained_rows: int,
        baseline: Baseline | None,
        collisions: Collisions,
        bucket_capacity: int,
    ) -> int:
        (number,) = self._read_one("SELECT coalesce(max(generation), 0) + 1 FROM _generations")
        self._connection.execute(
            "INSERT INTO _generations (generation, fingerprint, layers, codebook_size, dim, normalize_residuals,"
            " trained_rows, status, collisions, bucket_capacity, trained_error, trained_error_p99, trained_counts,"
            " created_at) VALUES (?,?,?,?,?,?,?,'preparing',?,?,?,?,?,?)",
            (
                number,
                fingerprint,
                codebooks.layers,
                codebooks.codebook_size,
                codebooks.dim,
                int(codebooks.normalize_residuals),
                trained_rows,
                collisions,
                bucket_capacity,
                baseline and baseline.error,
                baseline and baseline.error_p99,
                baseline and np.ascontiguousarray(baseline.counts_LK, "<f8").tobytes(),
                utc_now(),
            ),
        )
        usage_LK = np.zeros((codebooks.layers, codebooks.codebook_size), dtype=np.int64)
        self._connection.executemany(
            "INSERT INTO _code_usage (generation, layer, code, items) VALUES (?, ?, ?, 0)",
            [(number, layer, code) for layer, code in np.ndindex(*usage_LK.shape)],
        )
        self._write_health(number, usage_LK)
        return int(number)

    def _expect(self, number: int) -> Generation:
        generation = self.generation(number)
        assert generation is not None
        return generation

    # -- taking over the catalogue -----------------------------------------------------------------

    def take_over(
        self,
        generation: Generation,
        chunk: Chunk,
        batch: EmbeddingBatch,
        placement: Placement,
        learned: Learned | None,
        metrics: Sequence[Metric] = (),
    ) -> None:
        """Give a chunk's items their IDs in a generation that is not active, and note that it has them.

        Raises StoreError when the generation is not where the caller believes.
        """
        number, now = generation.generation, utc_now()
        with self._transaction() as connection:
            moved_on = connection.execute(
                "UPDATE _generations SET encoded_through = ? WHERE generation = ? AND encoded_through = ?"
                " AND status IN ('preparing', 'ready', 'retired')",
                (chunk.id, number, generation.encoded_through),
            ).rowcount
            if moved_on != 1:
                raise StoreError(f"generation {number}: not at chunk {generation.encoded_through}; another writer?")
            usage_LK = self._write_rows(chunk.id, batch.item_ids, placement)
            self._insert_metrics(f"ingest-{number}", chunk.id, metrics, now)
            if learned is not None:
                self._write_learned(number, chunk.id, learned, now)
            failpoint("taking-over")
        self._usage_by_generation[number] = usage_LK
        failpoint("taken-over")

    def lacks(self, generation: int) -> int:
        """How many of the active generation's items another generation does not have."""
        active, other = self._read_one(
            "SELECT (SELECT items FROM _generations WHERE status = 'active'), items FROM _generations"
            " WHERE generation = ?",
            (generation,),
        )
        return int(active - other)

    def set_ready(self, generation: int) -> None:
        """The generation has the whole catalogue: it may be promoted."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE _generations SET status = 'ready' WHERE generation = ? AND status = 'preparing'", (generation,)
            )
        failpoint("ready")

    def switch_to(self, generation: int, requested_by: str) -> None:
        """Make a generation that has the whole catalogue the active one, and retire the former: all at once.

        Files that were begun go on with it. Raises StoreError when it lacks items.
        """
        now = utc_now()
        with self._transaction() as connection:
            behind = self.chunks_after(self._expect(generation).encoded_through)
            if behind or self.lacks(generation):
                raise StoreError(f"generation {generation}: lacks items of the active one; nothing was switched")
            connection.execute(
                "UPDATE _generations SET status = 'retired', retired_at = ?, encoded_through = ?"
                " WHERE status = 'active'",
                (now, self.last_chunk()),
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

    def requested(self, requested_by: str) -> Generation | None:
        """The generation that a request prepared."""
        return self._generation_where("requested_by = ?", (requested_by,))

    def switched(self, requested_by: str) -> Generation | None:
        """The generation that a request made the active one, the last one that did so with it."""
        return self._generation_where("switched_by = ?", (requested_by,))

    # -- deleting ----------------------------------------------------------------------------------

    def begin_deleting(self, generation: int) -> None:
        """From now on nobody sees the generation; its rows go piece by piece."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE _generations SET status = 'deleting' WHERE generation = ?"
                " AND status IN ('preparing', 'ready', 'retired')",
                (generation,),
            )
        self._usage_by_generation.pop(generation, None)
        failpoint("deleting")

    def delete_some(self, generation: int, most: int, after: tuple[int, str] = (0, "")) -> tuple[int, str] | None:
        """Delete a generation's rows among the next `most`; where to go on, or None when nothing of it is left."""
        which, last = after
        with self._transaction() as connection:
            if which < len(_LARGE):
                table, key = _LARGE[which]
                (reached,) = connection.execute(
                    f"SELECT max({key}) FROM (SELECT {key} FROM {table} WHERE {key} > ? ORDER BY {key} LIMIT ?)",
                    (last, most),
                ).fetchone()
                if reached is None:
                    return which + 1, ""
                connection.execute(
                    f"DELETE FROM {table} WHERE {key} > ? AND {key} <= ? AND generation = ?",
                    (last, reached, generation),
                )
                return which, str(reached)
            for table in _SMALL:
                connection.execute(f"DELETE FROM {table} WHERE generation = ?", (generation,))
            connection.execute("DELETE FROM _comparisons WHERE ? IN (old, new)", (generation,))
            connection.execute(
                "UPDATE _generations SET status = 'deleted', items = 0, distinct_ids = 0, singletons = 0,"
                " max_bucket = 0, exact_duplicates = 0 WHERE generation = ?",
                (generation,),
            )
        return None
