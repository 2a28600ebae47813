"""Committed chunks seen again: where their embeddings are, which items they gave, how generations compare on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from semid_daemon.base.clock import utc_now
from semid_daemon.base.types import SpoolRecord
from semid_daemon.store.write.candidates import Metric
from semid_daemon.store.write.items import Rows
from semid_daemon.store.write.placement import listed


@dataclass(frozen=True, slots=True)
class Chunk:
    """A committed chunk that brought embeddings into the catalogue: where they came from."""

    id: int
    file_id: int
    first_row: int
    rows: int
    chunk_rows: int


class Chunks(Rows):
    """Reads chunks, in the order of their commits, and keeps what comparing generations on them gave."""

    def last_chunk(self) -> int:
        """The ID of the newest committed chunk, 0 while there is none."""
        return int(self._read_one("SELECT coalesce(max(id), 0) FROM _chunks")[0])

    def chunks_after(self, chunk_id: int, most: int = 1) -> list[Chunk]:
        """The next chunks that brought embeddings into the catalogue, in the order of their commits."""
        rows = self._read(
            "SELECT c.id, c.file_id, c.first_row, c.rows, f.chunk_rows FROM _chunks c JOIN _files f ON f.id = c.file_id"
            " WHERE c.id > ? AND c.assigned + c.replaced > 0 ORDER BY c.id LIMIT ?",
            (chunk_id, most),
        )
        return [Chunk(*row) for row in rows]

    def chunk_sizes(self) -> list[tuple[int, int]]:
        """Every chunk that brought embeddings into the catalogue: its ID and how many."""
        return self._read("SELECT id, assigned + replaced FROM _chunks WHERE assigned + replaced > 0 ORDER BY id")

    def chunks(self, chunk_ids: Sequence[int]) -> list[Chunk]:
        """Chunks by their IDs, in order."""
        found = []
        for some in listed(chunk_ids):
            found += self._read(
                "SELECT c.id, c.file_id, c.first_row, c.rows, f.chunk_rows FROM _chunks c"
                " JOIN _files f ON f.id = c.file_id WHERE c.id IN (SELECT value FROM json_each(?))",
                (some,),
            )
        return sorted((Chunk(*row) for row in found), key=lambda chunk: chunk.id)

    def contents_of(self, generation: int, chunk_id: int, item_ids: Sequence[str]) -> dict[str, int]:
        """Of some items, those whose row in a generation is that of this chunk, with the hash of their embedding."""
        found: dict[str, int] = {}
        for names in listed(item_ids):
            found.update(
                self._read(
                    "SELECT item_id, content FROM _items WHERE generation = ? AND chunk_id = ?"
                    " AND item_id IN (SELECT value FROM json_each(?))",
                    (generation, chunk_id, names),
                )
            )
        return found

    def has_items_of(self, generation: int, chunk_id: int) -> bool:
        """Whether some item's row is that of this chunk. Reads all items: only asked where something is missing."""
        return bool(
            self._read_one(
                "SELECT EXISTS (SELECT 1 FROM _items WHERE generation = ? AND chunk_id = ?)", (generation, chunk_id)
            )[0]
        )

    def spool_record(self, chunk_id: int) -> SpoolRecord | None:
        """Where a chunk's embeddings are in the spool."""
        row = self._read_one("SELECT segment, first_byte, size_bytes FROM _spool WHERE chunk_id = ?", (chunk_id,))
        return SpoolRecord(*row) if row else None

    def spool_end(self) -> SpoolRecord | None:
        """The record that ends the spool."""
        row = self._read_one(
            "SELECT segment, first_byte, size_bytes FROM _spool ORDER BY segment DESC, first_byte DESC LIMIT 1"
        )
        return SpoolRecord(*row) if row else None

    # -- comparing ---------------------------------------------------------------------------------

    def churn_some(self, old: int, new: int, most: int, after: str = "") -> tuple[list[tuple[str, str]], str | None]:
        """Both semantic IDs of the next `most` items that two generations have, and the last item, None at the end."""
        rows = self._read(
            "SELECT a.item_id, a.semantic_id, b.semantic_id FROM _items a JOIN _items b"
            " ON b.item_id = a.item_id AND b.generation = ?"
            " WHERE a.item_id > ? AND a.generation = ? ORDER BY a.item_id LIMIT ?",
            (new, after, old, most),
        )
        return [(before, now) for _, before, now in rows], rows[-1][0] if len(rows) == most else None

    def set_comparison(
        self, old: int, new: int, values: Sequence[tuple[str, int | None, float | None, float | None]]
    ) -> None:
        """Keep how two generations compare: (name, layer, value of the old one, value of the new one) each."""
        now = utc_now()
        with self._transaction() as connection:
            connection.execute("DELETE FROM _comparisons WHERE old = ? AND new = ?", (old, new))
            connection.executemany(
                "INSERT INTO _comparisons (old, new, name, layer, old_value, new_value, at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(old, new, *value, now) for value in values],
            )

    def set_quality(self, generation: int, metrics: Sequence[Metric]) -> None:
        """Record what a generation is worth."""
        with self._transaction():
            self._insert_metrics(f"quality-{generation}", self.last_chunk(), metrics, utc_now())

    def has_quality(self, generation: int) -> bool:
        return bool(
            self._read_one("SELECT EXISTS (SELECT 1 FROM _metrics WHERE run = ?)", (f"quality-{generation}",))[0]
        )

    def figures(self, generation: int) -> list[tuple[str, int | None, float]]:
        """What a generation's items come to: (name, layer, value) each."""
        items, distinct, singletons, max_bucket = self._read_one(
            "SELECT items, distinct_ids, singletons, max_bucket FROM _generations WHERE generation = ?", (generation,)
        )
        found: list[tuple[str, int | None, float]] = [
            ("items", None, items),
            ("unique_rate", None, distinct / max(items, 1)),
            ("singleton_rate", None, singletons / max(items, 1)),
            ("max_bucket", None, max_bucket),
        ]
        for layer, dead_codes, perplexity in self._read(
            "SELECT layer, dead_codes, perplexity FROM _layer_health WHERE generation = ? ORDER BY layer", (generation,)
        ):
            found += [("perplexity", layer, perplexity), ("dead_codes", layer, dead_codes)]
        return found
