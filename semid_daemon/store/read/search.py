"""Items by their IDs or codes, and the tree of prefixes. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from semid_daemon.store.layout import prefix_key
from semid_daemon.store.read.connection import ReadConnection, Row

MAX_SIBLINGS = 20


@dataclass(frozen=True, slots=True)
class Item:
    """One item's semantic ID in the active generation, and its nearest by prefix."""

    item_id: str
    semantic_id: str
    suffix: int
    codes: list[int]
    generation: int
    file: str
    assigned_at: str
    siblings: list[str]


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


class SearchQueries:
    """Items by ID, by its beginning, by prefix or by a pattern of codes, and the tree of prefixes."""

    def __init__(self, connection: ReadConnection) -> None:
        self._connection = connection

    def lookup(self, item_id: str) -> Item | None:
        """The item's semantic ID in the active generation, or None."""
        try:
            item_id.encode()
        except UnicodeEncodeError:  # what a terminal's bytes that are not UTF-8 become; no item is called so
            return None
        row = self._connection.first(
            "SELECT item_id, semantic_id, suffix, generation, file, assigned_at FROM semantic_ids WHERE item_id = ?",
            item_id,
        )
        return self._item(row) if row else None

    def with_prefix(self, prefix: str) -> Iterator[Item]:
        """Items whose semantic ID is `prefix` or continues it (`12-250`), by semantic ID and suffix."""
        # Two searches: of "= OR GLOB" SQLite would make a scan.
        for condition, value in (("semantic_id = ?", prefix), ("semantic_id GLOB ?", f"{prefix}-*")):
            for rows in self._connection.iterate(
                "SELECT item_id, semantic_id, suffix, generation, file, assigned_at FROM semantic_ids"
                f" WHERE {condition} ORDER BY semantic_id, suffix",
                value,
            ):
                for row in rows:
                    yield self._item(row, siblings=False)

    def find(self, text: str, most: int = 100) -> SearchResult:
        """Items by their ID, its beginning, or a pattern of codes like `12-250-7`, `12-250-*` or `12-*-7`."""
        active = self._connection.rows("SELECT generation, layers FROM _generations WHERE status = 'active'")
        if not active or not text:
            return SearchResult(text, None, (), (), False)
        generation, layers = active[0]
        item = self.lookup(text)
        pattern = code_pattern(text, layers) if "-" in text or text == "*" or item is None else None
        matches = self._by_codes(pattern, generation, most + 1) if pattern else []
        if not matches:
            matches = self._by_beginning(text, generation, most + 1)
        try:
            everywhere = self._connection.rows(
                "SELECT i.generation, g.status, i.semantic_id, i.suffix FROM _items i"
                " JOIN _generations g ON g.generation = i.generation WHERE i.item_id = ? ORDER BY i.generation DESC",
                text,
            )
        except UnicodeEncodeError:
            everywhere = []
        return SearchResult(text, item, tuple(everywhere), tuple(matches[:most]), len(matches) > most)

    def _by_beginning(self, text: str, generation: int, most: int) -> list[Match]:
        try:
            found = self._connection.rows(
                "SELECT item_id, semantic_id, suffix FROM _items WHERE item_id >= ? AND item_id < ? AND generation = ?"
                " ORDER BY item_id LIMIT ?",
                text,
                text + "\U0010ffff",
                generation,
                most,
            )
        except UnicodeEncodeError:
            return []
        return [Match(*row) for row in found]

    def _by_codes(self, pattern: str, generation: int, most: int) -> list[Match]:
        parts = pattern.split("-")
        if parts[0] == "*" and len(parts) > 1 and parts[1] != "*":
            # The second code alone: the counts of prefixes say which first codes have items with it.
            firsts = self._connection.rows(
                "SELECT first FROM _prefix_counts WHERE id >= ? AND id < ? AND second = ? AND items > 0 ORDER BY id",
                prefix_key(generation),
                prefix_key(generation + 1),
                int(parts[1]),
            )
            found: list[Match] = []
            for (first,) in firsts:
                found += self._by_codes("-".join([str(first), *parts[1:]]), generation, most - len(found))
                if len(found) >= most:
                    break
            return found
        # Where the last codes are free the index finds the range, of GLOB's own making.
        rows = self._connection.rows(
            "SELECT item_id, semantic_id, suffix FROM _items"
            f" WHERE semantic_id {'GLOB' if '*' in pattern else '='} ? AND generation = ? ORDER BY semantic_id LIMIT ?",
            _glob(pattern),
            generation,
            most,
        )
        return sorted((Match(*row) for row in rows), key=lambda match: (_codes(match.semantic_id), match.suffix))

    def with_code(self, generation: int, layer: int, code: int, layers: int, most: int = 5) -> tuple[Match, ...]:
        """Some items of a generation that have a code in a layer."""
        pattern = "-".join(str(code) if number == layer else "*" for number in range(layers))
        return tuple(self._by_codes(pattern, generation, most))

    # -- the tree --------------------------------------------------------------------------------

    def children(self, generation: int, prefix: str, layers: int, most: int = 500) -> tuple[tuple[Branch, ...], int]:
        """What continues a prefix ("" for the root), the fullest first: at most `most`, and how many there are."""
        depth = prefix.count("-") + 1 if prefix else 0
        if depth >= layers:
            (count,) = self._connection.rows(
                "SELECT count(*) FROM _items WHERE semantic_id = ? AND generation = ?",
                prefix,
                generation,
            )[0]
            rows = self._connection.rows(
                "SELECT item_id, 1, 1 FROM _items WHERE semantic_id = ? AND generation = ? ORDER BY suffix LIMIT ?",
                prefix,
                generation,
                most,
            )
            return tuple(Branch(item_id, 1, True) for item_id, _, _ in rows), int(count)
        if depth == 0:
            rows = self._connection.rows(
                "SELECT code, items FROM _code_usage WHERE generation = ? AND layer = 0 AND items > 0"
                " ORDER BY items DESC, code",
                generation,
            )
        elif depth == 1:
            rows = self._connection.rows(
                "SELECT second, items FROM _prefix_counts WHERE id >= ? AND id < ? AND items > 0"
                " ORDER BY items DESC, id",
                prefix_key(generation, int(prefix)),
                prefix_key(generation, int(prefix) + 1),
            )
        else:
            counted: dict[int, int] = {}
            for semantic_id, items in self._connection.rows(
                "SELECT semantic_id, count(*) FROM _items WHERE semantic_id GLOB ? AND generation = ?"
                " GROUP BY semantic_id",
                f"{prefix}-*",
                generation,
            ):
                code = int(semantic_id.split("-")[depth])
                counted[code] = counted.get(code, 0) + items
            rows = sorted(counted.items(), key=lambda counted_code: (-counted_code[1], counted_code[0]))
        shown = tuple(Branch(f"{prefix}-{code}" if prefix else str(code), items) for code, items in rows[:most])
        return shown, len(rows)

    def _item(self, row: Row, *, siblings: bool = True) -> Item:
        item_id, semantic_id, suffix, generation, file, assigned_at = row
        return Item(
            item_id=item_id,
            semantic_id=semantic_id,
            suffix=suffix,
            codes=list(_codes(semantic_id)),
            generation=generation,
            file=file,
            assigned_at=assigned_at,
            siblings=self._siblings(item_id, semantic_id, generation) if siblings else [],
        )

    def _siblings(self, item_id: str, semantic_id: str, generation: int) -> list[str]:
        """Item IDs of the same bucket, then of the longest shared prefixes, at most MAX_SIBLINGS."""
        rows = self._connection.rows(
            "SELECT item_id FROM _items WHERE generation = ? AND semantic_id = ? AND item_id != ?"
            " ORDER BY suffix LIMIT ?",
            generation,
            semantic_id,
            item_id,
            MAX_SIBLINGS,
        )
        longer = semantic_id
        while "-" in longer and len(rows) < MAX_SIBLINGS:
            prefix = longer.rpartition("-")[0]
            rows += self._connection.rows(
                "SELECT item_id FROM _items WHERE generation = ? AND semantic_id GLOB ?"
                " AND semantic_id != ? AND semantic_id NOT GLOB ? ORDER BY semantic_id, suffix LIMIT ?",
                generation,
                f"{prefix}-*",
                longer,
                f"{longer}-*",
                MAX_SIBLINGS - len(rows),
            )
            longer = prefix
        return [sibling for (sibling,) in rows]


def _glob(pattern: str) -> str:
    """Trailing free codes as one star, where all before them are fixed: one that matches several codes."""
    fixed = re.sub(r"(-\*)+$", "", pattern)
    return pattern if "*" in fixed else f"{fixed}-*" if fixed != pattern else pattern


def _codes(semantic_id: str) -> tuple[int, ...]:
    return tuple(map(int, semantic_id.split("-")))
