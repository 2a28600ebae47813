"""The ledger of files: contents by digest, the names they were seen under, their progress and outcome."""

from __future__ import annotations

import json
from dataclasses import dataclass

from semid_daemon.base.clock import utc_now
from semid_daemon.base.errors import StoreError
from semid_daemon.base.failpoints import failpoint
from semid_daemon.base.types import EmbeddingBatch
from semid_daemon.store.write.database import Database
from semid_daemon.store.write.deaths import Deaths


@dataclass(frozen=True, slots=True)
class LedgerFile:
    """The ledger's entry of one distinct content."""

    id: int
    digest: str
    status: str  # pending, loading, done, rejected or deferred
    dim: int | None  # these three: None until the file was opened
    rows: int | None
    rows_usable: int | None  # counted only while there is no generation
    rows_done: int  # rows that are committed: where loading resumes
    chunk_rows: int | None  # rows per chunk and generation, fixed when loading begins
    generation: int | None
    attempts: int  # times that loading began
    failures: int  # times in a row that the machine was at fault
    retry_at: str | None  # when a deferred file is tried again; None when it is gone
    reason: str | None  # why it was rejected or deferred, or why rows of it were


@dataclass(frozen=True, slots=True)
class Sighting:
    """A content, the name it was last seen under, and the identity of the drop directory then."""

    name: str
    root: str
    ledger: LedgerFile


@dataclass(frozen=True, slots=True)
class Content:
    """The identity of a content, and the names it was seen under, in the order of the sightings."""

    digest: str
    size_bytes: int
    names: list[str]


@dataclass(frozen=True, slots=True)
class Tally:
    """Rows by outcome. Every row is assigned, kept, rejected or replaced; the other counts overlap with these."""

    assigned: int  # rows that gave a new item its ID
    kept: int  # rows whose item kept the ID it had
    rejected: int  # rows at fault
    replaced: int = 0  # rows whose item had an ID and follows the newer row
    repeated: int = 0  # rows whose item occurred earlier in the same file
    zero: int = 0  # rows of zeros only
    reason: str | None = None  # rejected rows by reason


_COLUMNS = (
    "f.id, f.digest, f.status, f.dim, f.rows, f.rows_usable, f.rows_done, f.chunk_rows, f.generation,"
    " f.attempts, f.failures, f.retry_at, f.reason"
)
# Of a row of _files: "not finite: 3, empty item ID: 1", or NULL.
_REJECTED_IN_WORDS = (
    "SELECT group_concat(r.reason || ': ' || r.rows, ', ') FROM _rejected_rows r WHERE r.file_id = _files.id"
)
# Stands for the digest of a file that cannot be read: replaced by the real one as soon as it can.
_UNREAD = "unread:"


class Files:
    """Files by content. A name is only a sighting of a content."""

    def __init__(self, database: Database, deaths: Deaths) -> None:
        self._database = database
        self._deaths = deaths

    def known_digest(self, name: str, signature: str) -> LedgerFile | None:
        """The content last seen under this name with this signature, if any: such a file is not hashed again."""
        row = self._database.read_one(
            f"SELECT {_COLUMNS} FROM _sightings s JOIN _files f ON f.id = s.file_id"
            f" WHERE s.name = ? AND s.signature = ? AND f.digest NOT GLOB '{_UNREAD}*'",
            name,
            signature,
        )
        return LedgerFile(*row) if row else None

    def record_sighting(self, name: str, signature: str, digest: str, size_bytes: int, root: str = "") -> LedgerFile:
        """Record that a content was seen under a name; a content never seen before starts as pending.

        A content that was gone is pending again; one that waits for its retry goes on waiting.
        """
        now = utc_now()
        with self._database.transaction() as connection:
            self.forget_unread(name)
            connection.execute(
                "INSERT INTO _files (digest, size_bytes, seen_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                (digest, size_bytes, now),
            )
            connection.execute(
                "UPDATE _files SET status = 'pending', reason = NULL"
                " WHERE digest = ? AND status = 'deferred' AND retry_at IS NULL",
                (digest,),
            )
            file = self._file_where("f.digest = ?", digest)
            assert file is not None
            self._add_sighting(name, file.id, signature, root, now)
            failpoint("sighting")
        failpoint("sighted")
        return file

    def record_unread(self, name: str, size_bytes: int, root: str, reason: str, retry_at: str) -> LedgerFile:
        """Record a file that the machine cannot read now: deferred, and known by its name until it can be read."""
        now = utc_now()
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO _files (digest, size_bytes, status, seen_at) VALUES (?, ?, 'deferred', ?)"
                " ON CONFLICT DO NOTHING",
                (_UNREAD + name, size_bytes, now),
            )
            connection.execute(
                "UPDATE _files SET reason = ?, failures = failures + 1, retry_at = ? WHERE digest = ?",
                (reason, retry_at, _UNREAD + name),
            )
            file = self._file_where("f.digest = ?", _UNREAD + name)
            assert file is not None
            self._add_sighting(name, file.id, "", root, now)
        return file

    def forget_unread(self, name: str) -> None:
        """Delete the entry of a file that could not be read: it is gone, or can be read now."""
        with self._database.transaction() as connection:
            for (file_id,) in self._database.read("SELECT id FROM _files WHERE digest = ?", _UNREAD + name):
                connection.execute("DELETE FROM _sightings WHERE file_id = ?", (file_id,))
                connection.execute("DELETE FROM _files WHERE id = ?", (file_id,))

    def _add_sighting(self, name: str, file_id: int, signature: str, root: str, now: str) -> None:
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO _sightings (name, file_id, signature, root, seen_at) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (name, file_id) DO UPDATE SET signature = excluded.signature, root = excluded.root",
                (name, file_id, signature, root, now),
            )

    def get(self, file_id: int) -> LedgerFile:
        """The ledger's entry; raises KeyError for an ID it never gave."""
        file = self._file_where("f.id = ?", file_id)
        if file is None:
            raise KeyError(file_id)
        return file

    def _file_where(self, condition: str, value: int | str) -> LedgerFile | None:
        row = self._database.read_one(f"SELECT {_COLUMNS} FROM _files f WHERE {condition}", value)
        return LedgerFile(*row) if row else None

    def content(self, file_id: int) -> Content:
        """The digest, size and names of a content, to find it again."""
        digest, size_bytes = self._database.read_one("SELECT digest, size_bytes FROM _files WHERE id = ?", file_id)
        names = self._database.read("SELECT name FROM _sightings WHERE file_id = ? ORDER BY id", file_id)
        return Content(digest, size_bytes, [name for (name,) in names])

    def unfinished(self) -> list[Sighting]:
        """Contents that are neither done nor rejected, each under the name it was last seen with."""
        return self._sightings("f.status IN ('pending', 'loading', 'deferred')")

    def retriable(self, names: list[str] | None) -> list[Sighting]:
        """Deferred and rejected contents: those ever seen under one of `names`, or all of them."""
        return self._sightings(
            "f.status IN ('deferred', 'rejected') AND (?1 = 'null' OR s.name IN (SELECT value FROM json_each(?1)))",
            json.dumps(names),
        )

    def _sightings(self, condition: str, *values: str) -> list[Sighting]:
        rows = self._database.read(
            f"SELECT s.name, s.root, {_COLUMNS}, max(s.id) FROM _files f JOIN _sightings s ON s.file_id = f.id"
            f" WHERE {condition} GROUP BY f.id ORDER BY f.id",
            *values,
        )
        return [Sighting(name, root, LedgerFile(*row)) for name, root, *row, _ in rows]

    def backlog_bytes(self) -> float:
        """Bytes still to load of the registered files; of a loading file, in proportion to its remaining rows."""
        (left,) = self._database.read_one(
            "SELECT (SELECT size_bytes FROM _file_counts WHERE status = 'pending')"
            " + (SELECT coalesce(sum(size_bytes * (1.0 - 1.0 * rows_done / max(rows, 1))), 0) FROM _files"
            " WHERE status = 'loading')"
        )
        return float(left)

    def tally(self, file_id: int) -> Tally:
        """The outcome of the file's committed rows, and why rows were rejected."""
        row = self._database.read_one(
            "SELECT rows_assigned, rows_kept, rows_rejected, rows_replaced, rows_repeated, rows_zero, reason"
            " FROM _files WHERE id = ?",
            file_id,
        )
        return Tally(*row)

    def set_surveyed(self, file_id: int, *, rows: int, dim: int, rows_usable: int) -> None:
        """Record the rows and dimension of a file that waits for the first generation."""
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE _files SET status = 'pending', rows = ?, dim = ?, rows_usable = ?,"
                " reason = NULL, failures = 0, retry_at = NULL WHERE id = ? AND status IN ('pending', 'deferred')",
                (rows, dim, rows_usable, file_id),
            )

    def begin_loading(self, file_id: int, *, rows: int, dim: int, generation: int, chunk_rows: int) -> LedgerFile:
        """Fix the file's generation and chunk bounds, count the attempt, and return where to resume.

        A file begun before keeps the bounds and the generation it began with. A file without rows is done.
        """
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE _files SET status = 'loading', rows = ?, dim = ?, attempts = attempts + 1, retry_at = NULL,"
                f" reason = ({_REJECTED_IN_WORDS}),"
                " generation = coalesce(generation, ?), chunk_rows = coalesce(chunk_rows, ?)"
                " WHERE id = ? AND status IN ('pending', 'loading', 'deferred')",
                (rows, dim, generation, chunk_rows, file_id),
            )
            connection.execute(
                "UPDATE _files SET status = 'done', finished_at = ? WHERE id = ? AND status = 'loading' AND rows = 0",
                (utc_now(), file_id),
            )
            file = self.get(file_id)
        failpoint("begun")
        return file

    def advance(self, file: LedgerFile, batch: EmbeddingBatch, tally: Tally) -> None:
        """Count a chunk's rows in the file's progress; the last chunk of a file makes it done.

        Raises StoreError when the file is not at the chunk's first row, which another writer would cause.
        """
        rows_done = batch.first_row + batch.rows_read
        finished = rows_done == file.rows
        with self._database.transaction() as connection:
            advanced = connection.execute(
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
                    utc_now() if finished else None,
                    file.id,
                    file.generation,
                    batch.first_row,
                ),
            ).rowcount
            if advanced != 1:
                raise StoreError(
                    f"file {file.id}: the ledger is not at row {batch.first_row}; another writer? nothing was committed"
                )
            self._count_rejected(file.id, batch)

    def _count_rejected(self, file_id: int, batch: EmbeddingBatch) -> None:
        """Add a chunk's rejected rows to the file's counts by reason, and write these out in `reason`."""
        if not batch.rejected:
            return
        with self._database.transaction() as connection:
            connection.executemany(
                "INSERT INTO _rejected_rows (file_id, reason, rows) VALUES (?, ?, ?)"
                " ON CONFLICT (file_id, reason) DO UPDATE SET rows = rows + excluded.rows",
                [(file_id, reason, rows) for reason, rows in batch.rejected.items()],
            )
            connection.execute(f"UPDATE _files SET reason = ({_REJECTED_IN_WORDS}) WHERE id = ?", (file_id,))

    def reject(self, file_id: int, reason: str) -> None:
        """Reject a content for good. Its rows that are committed already stay."""
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE _files SET status = 'rejected', reason = ?, finished_at = ?, retry_at = NULL"
                " WHERE id = ? AND status != 'done'",
                (reason, utc_now(), file_id),
            )

    def defer(self, file_id: int, reason: str, retry_at: str | None = None) -> None:
        """Defer a content. It is retried at `retry_at`; without `retry_at`, the file is gone."""
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE _files SET status = 'deferred', reason = ?, retry_at = ?, failures = failures + ?"
                " WHERE id = ? AND status NOT IN ('done', 'rejected')",
                (reason, retry_at, int(retry_at is not None), file_id),
            )

    def readmit(self, file_id: int) -> None:
        """Make a deferred or rejected content pending again, its failures and deaths forgotten; committed rows stay."""
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE _files SET status = 'pending', reason = NULL, retry_at = NULL, failures = 0, finished_at = NULL"
                " WHERE id = ? AND status IN ('deferred', 'rejected')",
                (file_id,),
            )
            for (name,) in self._database.read("SELECT name FROM _sightings WHERE file_id = ?", file_id):
                self._deaths.clear(name)
