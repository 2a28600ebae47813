"""What a person looks for: files page by page, items by ID or codes, the tree of prefixes. Standard library only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from semid_daemon.store.layout import prefix_key
from semid_daemon.store.read.connection import ReadConnection
from semid_daemon.store.read.status import Item

Key = tuple[Any, ...]

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


@dataclass(frozen=True, slots=True)
class Match:
    """An item in a list of findings."""

    item_id: str
    semantic_id: str
    suffix: int


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What was found: the item of exactly this ID, its IDs in every generation, items that match, and whether more."""

    text: str
    item: Item | None
    generations: tuple[tuple[int, str, str, int], ...]  # generation, status, semantic ID, suffix
    matches: tuple[Match, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class Branch:
    """A child of a prefix: its own prefix (or item ID, for a leaf) and how many items it holds."""

    prefix: str
    items: int
    leaf: bool = False


def code_pattern(text: str, layers: int) -> str | None:
    """`12-250-7`, `12-250`, `12-*-7` as a GLOB over whole semantic IDs; None for anything else."""
    parts = text.split("-")
    if len(parts) > layers or not all(re.fullmatch(r"[0-9]{1,6}|\*", part) for part in parts):
        return None
    return "-".join([*parts, *["*"] * (layers - len(parts))])


class SearchQueries(ReadConnection):
    """Searches of a MonitorReader."""

    # -- files -----------------------------------------------------------------------------------

    def files(
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
            (few,) = self._rows("SELECT files <= ? FROM _file_counts WHERE status = ?", (_FEW_FILES, status))[0]
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
            found = self._rows(
                f"SELECT {key}, {_FILE_COLUMNS} FROM _sightings s JOIN _files f ON f.id = s.file_id"
                + (f" WHERE {' AND '.join(where)}" if where else "")
                + f" ORDER BY {', '.join(f'{column} {direction}' for column in columns)} LIMIT ?",
                (*values, *(around or () if beyond else ()), most),
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
        return int(self._rows(sql, tuple(values))[0][0])

    def retriable_files(self, status: str, text: str, most: int = 5_000) -> tuple[str, ...]:
        """Names of the rejected and deferred files among those of a status ("" for all) and with a text."""
        found: list[FileRow] = []
        for each in ("rejected", "deferred"):
            if status in ("", each):
                found += self.files(status=each, text=text, most=most).rows
        return tuple(file.name for file in found[:most])

    def troubled_files(self, most: int) -> tuple[FileRow, ...]:
        """The latest files that were rejected or put off."""
        found = []
        for status in ("rejected", "deferred"):
            found += list(self.files(status=status, most=most).rows)
        return tuple(sorted(found, key=lambda file: file.id, reverse=True)[:most])

    # -- items -----------------------------------------------------------------------------------

    def find(self, text: str, most: int = 100) -> SearchResult:
        """Items by their ID, its beginning, or a pattern of codes like `12-250-7`, `12-250-*` or `12-*-7`."""
        active = self._rows("SELECT generation, layers FROM _generations WHERE status = 'active'")
        if not active or not text:
            return SearchResult(text, None, (), (), False)
        generation, layers = active[0]
        item = self.lookup(text)
        pattern = code_pattern(text, layers) if "-" in text or text == "*" or item is None else None
        matches = self._by_codes(pattern, generation, most + 1) if pattern else []
        if not matches:
            matches = self._by_beginning(text, generation, most + 1)
        try:
            everywhere = self._rows(
                "SELECT i.generation, g.status, i.semantic_id, i.suffix FROM _items i"
                " JOIN _generations g ON g.generation = i.generation WHERE i.item_id = ? ORDER BY i.generation DESC",
                (text,),
            )
        except UnicodeEncodeError:
            everywhere = []
        return SearchResult(text, item, tuple(everywhere), tuple(matches[:most]), len(matches) > most)

    def _by_beginning(self, text: str, generation: int, most: int) -> list[Match]:
        try:
            found = self._rows(
                "SELECT item_id, semantic_id, suffix FROM _items WHERE item_id >= ? AND item_id < ? AND generation = ?"
                " ORDER BY item_id LIMIT ?",
                (text, text + "\U0010ffff", generation, most),
            )
        except UnicodeEncodeError:
            return []
        return [Match(*row) for row in found]

    def _by_codes(self, pattern: str, generation: int, most: int) -> list[Match]:
        parts = pattern.split("-")
        if parts[0] == "*" and len(parts) > 1 and parts[1] != "*":
            # The second code alone: the counts of prefixes say under which first codes there is anything.
            firsts = self._rows(
                "SELECT first FROM _prefix_counts WHERE id >= ? AND id < ? AND second = ? AND items > 0 ORDER BY id",
                (prefix_key(generation), prefix_key(generation + 1), int(parts[1])),
            )
            found: list[Match] = []
            for (first,) in firsts:
                found += self._by_codes("-".join([str(first), *parts[1:]]), generation, most - len(found))
                if len(found) >= most:
                    break
            return found
        # Where the last codes are free the index finds the range, of GLOB's own making.
        rows = self._rows(
            "SELECT item_id, semantic_id, suffix FROM _items"
            f" WHERE semantic_id {'GLOB' if '*' in pattern else '='} ? AND generation = ? ORDER BY semantic_id LIMIT ?",
            (_glob(pattern), generation, most),
        )
        return sorted((Match(*row) for row in rows), key=lambda match: (_codes(match.semantic_id), match.suffix))

    def with_code(self, generation: int, layer: int, code: int, layers: int, most: int = 5) -> tuple[Match, ...]:
        """Some items of a generation that have a code in a layer."""
        pattern = "-".join(str(code) if each == layer else "*" for each in range(layers))
        return tuple(self._by_codes(pattern, generation, most))

    # -- the tree --------------------------------------------------------------------------------

    def children(self, generation: int, prefix: str, layers: int, most: int = 500) -> tuple[tuple[Branch, ...], int]:
        """What continues a prefix ("" for the root), the fullest first: at most `most`, and how many there are."""
        depth = prefix.count("-") + 1 if prefix else 0
        if depth >= layers:
            (count,) = self._rows(
                "SELECT count(*) FROM _items WHERE semantic_id = ? AND generation = ?",
                (prefix, generation),
            )[0]
            rows = self._rows(
                "SELECT item_id, 1, 1 FROM _items WHERE semantic_id = ? AND generation = ? ORDER BY suffix LIMIT ?",
                (prefix, generation, most),
            )
            return tuple(Branch(item_id, 1, True) for item_id, _, _ in rows), int(count)
        if depth == 0:
            rows = self._rows(
                "SELECT code, items FROM _code_usage WHERE generation = ? AND layer = 0 AND items > 0"
                " ORDER BY items DESC, code",
                (generation,),
            )
        elif depth == 1:
            rows = self._rows(
                "SELECT second, items FROM _prefix_counts WHERE id >= ? AND id < ? AND items > 0"
                " ORDER BY items DESC, id",
                (prefix_key(generation, int(prefix)), prefix_key(generation, int(prefix) + 1)),
            )
        else:
            counted: dict[int, int] = {}
            for semantic_id, items in self._rows(
                "SELECT semantic_id, count(*) FROM _items WHERE semantic_id GLOB ? AND generation = ?"
                " GROUP BY semantic_id",
                (f"{prefix}-*", generation),
            ):
                code = int(semantic_id.split("-")[depth])
                counted[code] = counted.get(code, 0) + items
            rows = sorted(counted.items(), key=lambda each: (-each[1], each[0]))
        shown = tuple(Branch(f"{prefix}-{code}" if prefix else str(code), items) for code, items in rows[:most])
        return shown, len(rows)


def _glob(pattern: str) -> str:
    """Trailing free codes as one star, where all before them are fixed: one that matches several codes."""
    fixed = re.sub(r"(-\*)+$", "", pattern)
    return pattern if "*" in fixed else f"{fixed}-*" if fixed != pattern else pattern


def _codes(semantic_id: str) -> tuple[int, ...]:
    return tuple(map(int, semantic_id.split("-")))
