"""Drop files as the ledger knows them, page by page. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from semid_daemon.store.read.connection import ReadConnection

Key = tuple[Any, ...]

_RETRIABLE = ("rejected", "deferred")
_FEW_FILES = 20_000  # of one status: then its index finds them, otherwise the order's index
_FILE_COLUMNS = (
    "s.id, s.name, f.status, f.rows, f.rows_done, f.rows_rejected, f.rows_kept, f.reason, f.attempts, f.size_bytes,"
    " s.seen_at, f.finished_at, f.retry_at"
)
# What files can be sorted by: the columns of a key that is unique, and whether the greatest comes first.
FILE_ORDERS: dict[str, tuple[tuple[str, ...], bool]] = {
    "newest": (("s.id",), True),
    "name": (("s.name", "s.file_id"), False),
    "rows": (("coalesce(f.rows, -1)", "f.id", "s.id"), True),
    "size": (("f.size_bytes", "f.id", "s.id"), True),
    "finished": (("coalesce(f.finished_at, '')", "f.id", "s.id"), True),
}


@dataclass(frozen=True, slots=True)
class FileRow:
    """One file as the ledger knows it; `key` is its place in the order it was read in."""

    key: Key
    id: int
    name: str
    status: str
    rows: int | None
    rows_done: int
    rows_rejected: int
    rows_kept: int
    reason: str | None
    attempts: int
    size_bytes: int
    seen_at: str
    finished_at: str | None
    retry_at: str | None


@dataclass(frozen=True, slots=True)
class FilesPage:
    """Files around a place: `rows[at]` is the first at or after it. `total` counts all that were asked for."""

    rows: tuple[FileRow, ...]
    at: int
    total: int


class FileQueries:
    """Files by page, and those that were rejected or deferred."""

    def __init__(self, connection: ReadConnection) -> None:
        self._connection = connection

    def page(
        self,
        *,
        order: str = "newest",
        status: str = "",
        text: str = "",
        around: Key | None = None,
        from_end: bool = False,
        most: int = 100,
    ) -> FilesPage:
        """A page of files: `most` before and `most` from `around` on (a key of this order), or the first or last.

        By keyset: the cost does not grow with the place. `text` is looked for in names and reasons.
        """
        columns, descending = FILE_ORDERS[order]
        conditions, values = [], []
        if status:
            (few,) = self._connection.row("SELECT files <= ? FROM _file_counts WHERE status = ?", _FEW_FILES, status)
            if few and order == "newest":
                columns = ("f.id", "s.id")
            conditions.append("f.status = ?" if few else "+f.status = ?")
            values.append(status)
        if text:
            conditions.append("(instr(lower(s.name), lower(?)) OR instr(lower(coalesce(f.reason, '')), lower(?)))")
            values += [text, text]
        key = ", ".join(columns)

        def read(beyond: str | None, forward: bool) -> list[FileRow]:
            where = [*conditions, *([f"({key}) {beyond} ({', '.join('?' * len(columns))})"] if beyond else [])]
            direction = "DESC" if descending == forward else "ASC"
            found = self._connection.rows(
                f"SELECT {key}, {_FILE_COLUMNS} FROM _sightings s JOIN _files f ON f.id = s.file_id"
                + (f" WHERE {' AND '.join(where)}" if where else "")
                + f" ORDER BY {', '.join(f'{column} {direction}' for column in columns)} LIMIT ?",
                *values,
                *(around or () if beyond else ()),
                most,
            )
            return [FileRow(row[: len(columns)], *row[len(columns) :]) for row in found]

        if around is not None and len(around) != len(columns):
            around = None
        if around is None:
            rows = read(None, not from_end)
            before, after = (rows[::-1], []) if from_end else ([], rows)
        else:
            before = read(">" if descending else "<", forward=False)[::-1]
            after = read("<=" if descending else ">=", forward=True)
        return FilesPage((*before, *after), len(before), self._count_files(conditions, values))

    def _count_files(self, conditions: list[str], values: list[Any]) -> int:
        sql = "SELECT count(*) FROM _sightings"
        if conditions:
            sql += f" s JOIN _files f ON f.id = s.file_id WHERE {' AND '.join(conditions)}"
        return int(self._connection.row(sql, *values)[0])

    def retriable_names(self, status: str, text: str, most: int = 5_000) -> tuple[str, ...]:
        """Names of the rejected and deferred files among those of a status ("" for all) and with a text."""
        found: list[FileRow] = []
        for retriable in _RETRIABLE:
            if status in ("", retriable):
                found += self.page(status=retriable, text=text, most=most).rows
        return tuple(file.name for file in found[:most])

    def troubled(self, most: int) -> tuple[FileRow, ...]:
        """The latest files that were rejected or deferred."""
        found: list[FileRow] = []
        for status in _RETRIABLE:
            found += self.page(status=status, most=most).rows
        return tuple(sorted(found, key=lambda file: file.id, reverse=True)[:most])
