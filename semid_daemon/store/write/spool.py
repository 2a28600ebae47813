"""Where the embeddings of committed chunks are in the spool."""

from __future__ import annotations

from semid_daemon.base.types import SpoolRecord
from semid_daemon.store.write.database import Database


class SpoolIndex:
    """One record per chunk whose embeddings are kept."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, chunk_id: int, record: SpoolRecord) -> None:
        """Record where a chunk's embeddings are."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO _spool (chunk_id, segment, first_byte, size_bytes) VALUES (?, ?, ?, ?)",
                (chunk_id, record.segment, record.first_byte, record.size_bytes),
            )

    def record(self, chunk_id: int) -> SpoolRecord | None:
        """The record of a chunk's embeddings, None when they are not in the spool."""
        row = self._database.read_one("SELECT segment, first_byte, size_bytes FROM _spool WHERE chunk_id = ?", chunk_id)
        return SpoolRecord(*row) if row else None

    def end(self) -> SpoolRecord | None:
        """The record that ends the spool, None while it is empty."""
        row = self._database.read_one(
            "SELECT segment, first_byte, size_bytes FROM _spool ORDER BY segment DESC, first_byte DESC LIMIT 1"
        )
        return SpoolRecord(*row) if row else None
