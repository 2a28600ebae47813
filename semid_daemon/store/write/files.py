"""The ledger of files: what was seen under which name, how far it is, and how it ended."""

from __future__ import annotations

import json
from dataclasses import dataclass

from semid_daemon.base.clock import utc_now
from semid_daemon.base.failpoints import failpoint
from semid_daemon.store.write.database import Transactions


@dataclass(frozen=True, slots=True)
class LedgerFile:
    """What the ledger says of one distinct content.

    `attempts` counts how often its rows were begun, `failures` how often in a row the machine was
    at fault; `retry_at` is when it is tried again.
    """

    id: int
    digest: str
    status: str
    dim: int | None
    rows: int | None
    rows_usable: int | None
    rows_done: int
    chunk_rows: int | None
    generation: int | None
    attempts: int
    failures: int
    retry_at: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Sighting:
    """A content, the name it was last seen under, and the identity of the drop directory then."""

    name: str
    root: str
    ledger: LedgerFile


@dataclass(frozen=True, slots=True)
class Content:
    """What identifies a content, and the names it was seen under, the first one first."""

    digest: str
    size_bytes: int
    names: list[str]


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of rows. `repeated` and `zero` are counted within the others, not beside them."""

    assigned: int
    kept: int
    rejected: int
    replaced: int = 0
    repeated: int = 0
    zero: int = 0
    reason: str | None = None


_COLUMNS = (
    "f.id, f.digest, f.status, f.dim, f.rows, f.rows_usable, f.rows_done, f.chunk_rows, f.generation,"
    " f.attempts, f.failures, f.retry_at, f.reason"
)
# Of a row of _files: "not finite: 3, empty item ID: 1", or NULL.
REJECTED_IN_WORDS = (
    "SELECT group_concat(r.reason || ': ' || r.rows, ', ') FROM _rejected_rows r WHERE r.file_id = _files.id"
)
# Stands for the digest of a file that cannot be read: replaced by the real one as soon as it can.
_UNREAD = "unread:"
_SUSPECTS = "SELECT name, signature, deaths FROM _suspects"


class Ledger(Transactions):
    """Files by content. Names are only sightings of it."""

    def known_digest(self, name: str, signature: str) -> LedgerFile | None:
        """The content last seen under this name with this very signature, if any: saves hashing."""
        row = self._read_one(
            f"SELECT {_COLUMNS} FROM _sightings s JOIN _files f ON f.id = s.file_id"
            f" WHERE s.name = ? AND s.signature = ? AND f.digest NOT GLOB '{_UNREAD}*'",
            (name, signature),
        )
        return LedgerFile(*row) if row else None

    def record_sighting(self, name: str, signature: str, digest: str, size_bytes: int, root: str = "") -> LedgerFile:
        """Note that a content was seen under a name; a content never seen before starts as pending.

        One that was gone is pending again; one that waits for its retry goes on waiting.
        """
        now = utc_now()
        with self._transaction() as connection:
            self._forget_unread(name)
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
        """Note a file that the machine does not let us read: deferred, known by its name until it can be read."""
        now = utc_now()
        with self._transaction() as connection:
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
        """A file that could not be read is not there any more."""
        with self._transaction():
            self._forget_unread(name)

    def _forget_unread(self, name: str) -> None:
        for (file_id,) in self._read("SELECT id FROM _files WHERE digest = ?", (_UNREAD + name,)):
            self._connection.execute("DELETE FROM _sightings WHERE file_id = ?", (file_id,))
            self._connection.execute("DELETE FROM _files WHERE id = ?", (file_id,))

    def _add_sighting(self, name: str, file_id: int, signature: str, root: str, now: str) -> None:
        self._connection.execute(
            "INSERT INTO _sightings (name, file_id, signature, root, seen_at) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (name, file_id) DO UPDATE SET signature = excluded.signature, root = excluded.root",
            (name, file_id, signature, root, now),
        )

    def file(self, file_id: int) -> LedgerFile:
        """The ledger's entry; raises KeyError for an ID it never gave."""
        file = self._file_where("f.id = ?", file_id)
        if file is None:
            raise KeyError(file_id)
        return file

    def _file_where(self, condition: str, value: int | str) -> LedgerFile | None:
        row = self._read_one(f"SELECT {_COLUMNS} FROM _files f WHERE {condition}", (value,))
        return LedgerFile(*row) if row else None

    def content(self, file_id: int) -> Content:
        """Where to look for a content again."""
        digest, size_bytes = self._read_one("SELECT digest, size_bytes FROM _files WHERE id = ?", (file_id,))
        names = self._read("SELECT name FROM _sightings WHERE file_id = ? ORDER BY id", (file_id,))
        return Content(digest, size_bytes, [name for (name,) in names])

    def unfinished_files(self) -> list[Sighting]:
        """Contents that are neither done nor rejected, each under the name it was last seen with."""
        return self._sightings("f.status IN ('pending', 'loading', 'deferred')", "")

    def retriable(self, names: list[str] | None) -> list[Sighting]:
        """Deferred and rejected contents: those ever seen under one of `names`, or all of them."""
        return self._sightings(
            "f.status IN ('deferred', 'rejected') AND (?1 = 'null' OR s.name IN (SELECT value FROM json_each(?1)))",
            json.dumps(names),
        )

    def _sightings(self, condition: str, value: str) -> list[Sighting]:
        rows = self._read(
            f"SELECT s.name, s.root, {_COLUMNS}, max(s.id) FROM _files f JOIN _sightings s ON s.file_id = f.id"
            f" WHERE {condition} GROUP BY f.id ORDER BY f.id",
            (value,) if "?" in condition else (),
        )
        return [Sighting(name, root, LedgerFile(*row)) for name, root, *row, _ in rows]

    def backlog_bytes(self) -> float:
        """What is left of the registered files, in bytes: of one begun, by the share of its rows."""
        (left,) = self._read_one(
            "SELECT (SELECT size_bytes FROM _file_counts WHERE status = 'pending')"
            " + (SELECT coalesce(sum(size_bytes * (1.0 - 1.0 * rows_done / max(rows, 1))), 0) FROM _files"
            " WHERE status = 'loading')"
        )
        return float(left)

    def tally(self, file_id: int) -> Tally:
        """What the file's committed rows came to, and why some were left out."""
        row = self._read_one(
            "SELECT rows_assigned, rows_kept, rows_rejected, rows_replaced, rows_repeated, rows_zero, reason"
            " FROM _files WHERE id = ?",
            (file_id,),
        )
        return Tally(*row)

    def set_surveyed(self, file_id: int, *, rows: int, dim: int, rows_usable: int) -> None:
        """Note what a file waiting for the first generation holds."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE _files SET status = 'pending', rows = ?, dim = ?, rows_usable = ?,"
                " reason = NULL, failures = 0, retry_at = NULL WHERE id = ? AND status IN ('pending', 'deferred')",
                (rows, dim, rows_usable, file_id),
            )

    def begin_loading(self, file_id: int, *, rows: int, dim: int, generation: int, chunk_rows: int) -> LedgerFile:
        """Fix the file's generation and chunk bounds, count the attempt, and return where to resume.

        A file begun before keeps the bounds and the generation it began with. A file without rows is done.
        """
        with self._transaction() as connection:
            connection.execute(
                "UPDATE _files SET status = 'loading', rows = ?, dim = ?, attempts = attempts + 1, retry_at = NULL,"
                f" reason = ({REJECTED_IN_WORDS}),"
                " generation = coalesce(generation, ?), chunk_rows = coalesce(chunk_rows, ?)"
                " WHERE id = ? AND status IN ('pending', 'loading', 'deferred')",
                (rows, dim, generation, chunk_rows, file_id),
            )
            connection.execute(
                "UPDATE _files SET status = 'done', finished_at = ? WHERE id = ? AND status = 'loading' AND rows = 0",
                (utc_now(), file_id),
            )
            file = self.file(file_id)
        failpoint("begun")
        return file

    def reject(self, file_id: int, reason: str) -> None:
        """This content will never be usable. Rows of it that are committed already stay."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE _files SET status = 'rejected', reason = ?, finished_at = ?, retry_at = NULL"
                " WHERE id = ? AND status != 'done'",
                (reason, utc_now(), file_id),
            )

    def defer(self, file_id: int, reason: str, retry_at: str | None = None) -> None:
        """Not now: the machine's fault, tried again at `retry_at`; or, without it, the file went away."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE _files SET status = 'deferred', reason = ?, retry_at = ?, failures = failures + ?"
                " WHERE id = ? AND status NOT IN ('done', 'rejected')",
                (reason, retry_at, int(retry_at is not None), file_id),
            )

    def readmit(self, file_id: int) -> None:
        """Try a deferred or rejected content again as if nothing had happened; rows committed already stay."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE _files SET status = 'pending', reason = NULL, retry_at = NULL, failures = 0, finished_at = NULL"
                " WHERE id = ? AND status IN ('deferred', 'rejected')",
                (file_id,),
            )
            connection.execute(
                "DELETE FROM _suspects WHERE name IN (SELECT name FROM _sightings WHERE file_id = ?)", (file_id,)
            )

    # -- files that a process had in hand when it died -------------------------------------------

    def add_death(self, name: str, signature: str, first_row: int) -> int:
        """A process died with this file in hand, at this row: how often that has happened by now."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO _suspects (name, signature, first_row, deaths) VALUES (?, ?, ?, 1)"
                " ON CONFLICT DO UPDATE SET first_row = excluded.first_row,"
                " deaths = CASE WHEN first_row = excluded.first_row THEN deaths + 1 ELSE 1 END",
                (name, signature, first_row),
            )
        return self.suspects()[name, signature]

    def suspects(self) -> dict[tuple[str, str], int]:
        """Deaths by name and signature."""
        return {(name, signature): deaths for name, signature, deaths in self._read(_SUSPECTS)}

    def clear_deaths(self, name: str) -> None:
        """The file under this name ended in an orderly way."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM _suspects WHERE name = ?", (name,))
