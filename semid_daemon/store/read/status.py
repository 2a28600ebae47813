"""Reading the database: `semid status`, `semid lookup` and the terminal UI. Standard library only."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from semid_daemon.base.errors import StoreError

MAX_SIBLINGS = 20


@dataclass(frozen=True, slots=True)
class LayerStatus:
    """Health of one layer of the active generation."""

    layer: int
    coverage: float
    dead_codes: int
    perplexity: float


@dataclass(frozen=True, slots=True)
class Status:
    """What `semid status` tells. Rates are None while nothing has an ID."""

    state: str
    detail: str
    pid: int | None
    device: str | None
    generation: int | None
    fingerprint: str | None
    items: int
    unique_rate: float | None
    singleton_rate: float | None
    max_bucket: int
    exact_duplicates: int
    layers: list[LayerStatus]
    files: dict[str, int]
    heartbeat_at: str | None
    next_generation: int | None = None  # prepared beside the active one
    next_ready: bool = False


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


class Reader:
    """A read-only connection. Raises StoreError when there is no database that it can read."""

    def __init__(self, path: Path) -> None:
        try:
            there = path.exists()
        except PermissionError:
            raise StoreError(f"{path}: may not be read; share a group that may") from None
        if not there:
            raise StoreError(f"{path}: no database yet; make one with `semid init` or start `semid run`")
        self._path = path
        try:
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=5
            )
            self._connection.execute("SELECT 1 FROM semantic_ids LIMIT 0")
        except sqlite3.DatabaseError as error:
            # While no daemon runs, reading takes the right to make the files beside the database anew.
            hint = (
                "" if os.access(path.parent, os.W_OK) else "; start the daemon, or share a group that may write there"
            )
            raise StoreError(f"{path}: cannot be read: {error}{hint}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def query(self, sql: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        """For the other readers of this room: a query's rows."""
        return self._connection.execute(sql, values)

    def status(self) -> Status:
        """One consistent snapshot of the whole catalogue."""
        read = self._connection.execute
        read("BEGIN")
        try:
            state, detail, pid, device, heartbeat_at = read(
                "SELECT state, detail, pid, device, heartbeat_at FROM daemon"
            ).fetchone()
            active = read(
                "SELECT generation, fingerprint, items, distinct_ids, singletons, max_bucket, exact_duplicates"
                " FROM _generations WHERE status = 'active'"
            ).fetchone()
            generation, fingerprint, items, distinct, singletons, max_bucket, exact_duplicates = active or (
                None,
                None,
                0,
                0,
                0,
                0,
                0,
            )
            layers = read(
                "SELECT layer, coverage, dead_codes, perplexity FROM layer_health WHERE generation = ? ORDER BY layer",
                (generation,),
            ).fetchall()
            following = read(
                "SELECT generation, status = 'ready' FROM _generations WHERE status IN ('preparing', 'ready')"
                " ORDER BY generation DESC LIMIT 1"
            ).fetchone()
            files = dict.fromkeys(("pending", "loading", "done", "rejected", "deferred"), 0)
            files.update(read("SELECT status, files FROM _file_counts").fetchall())
        finally:
            read("COMMIT")
        return Status(
            state=state,
            detail=detail,
            pid=pid,
            device=device,
            generation=generation,
            fingerprint=fingerprint,
            items=items,
            unique_rate=distinct / items if items else None,
            singleton_rate=singletons / items if items else None,
            max_bucket=max_bucket,
            exact_duplicates=exact_duplicates,
            layers=[LayerStatus(*row) for row in layers],
            files=files,
            heartbeat_at=heartbeat_at,
            next_generation=following[0] if following else None,
            next_ready=bool(following and following[1]),
        )

    def lookup(self, item_id: str) -> Item | None:
        """The item's semantic ID in the active generation, or None."""
        try:
            item_id.encode()
        except UnicodeEncodeError:  # what a terminal's bytes that are not UTF-8 become; no item is called so
            return None
        row = self._connection.execute(
            "SELECT item_id, semantic_id, suffix, generation, file, assigned_at FROM semantic_ids WHERE item_id = ?",
            (item_id,),
        ).fetchone()
        return self._item(row) if row else None

    def with_prefix(self, prefix: str) -> Iterator[Item]:
        """Items whose semantic ID is `prefix` or continues it (`12-250`), by semantic ID and suffix."""
        # Two searches: of "= OR GLOB" SQLite would make a scan.
        for condition, value in (("semantic_id = ?", prefix), ("semantic_id GLOB ?", f"{prefix}-*")):
            for row in self._connection.execute(
                "SELECT item_id, semantic_id, suffix, generation, file, assigned_at FROM semantic_ids"
                f" WHERE {condition} ORDER BY semantic_id, suffix",
                (value,),
            ):
                yield self._item(row, siblings=False)

    def command(self, name: str) -> tuple[str, str] | None:
        """State and answer of the command in a command file of this name; None while nobody has seen it."""
        row = self._connection.execute("SELECT state, coalesce(answer, '') FROM _commands WHERE name = ?", (name,))
        found: tuple[str, str] | None = row.fetchone()
        return found

    def _item(self, row: tuple[str, str, int, int, str, str], *, siblings: bool = True) -> Item:
        item_id, semantic_id, suffix, generation, file, assigned_at = row
        return Item(
            item_id=item_id,
            semantic_id=semantic_id,
            suffix=suffix,
            codes=[int(code) for code in semantic_id.split("-")],
            generation=generation,
            file=file,
            assigned_at=assigned_at,
            siblings=self._siblings(item_id, semantic_id, generation) if siblings else [],
        )

    def _siblings(self, item_id: str, semantic_id: str, generation: int) -> list[str]:
        """Item IDs of the same bucket, then of the longest shared prefixes, at most MAX_SIBLINGS."""
        found = [
            other
            for (other,) in self._connection.execute(
                "SELECT item_id FROM _items WHERE generation = ? AND semantic_id = ? AND item_id != ?"
                " ORDER BY suffix LIMIT ?",
                (generation, semantic_id, item_id, MAX_SIBLINGS),
            )
        ]
        longer = semantic_id
        while "-" in longer and len(found) < MAX_SIBLINGS:
            prefix = longer.rpartition("-")[0]
            found += [
                other
                for (other,) in self._connection.execute(
                    "SELECT item_id FROM _items WHERE generation = ? AND semantic_id GLOB ?"
                    " AND semantic_id != ? AND semantic_id NOT GLOB ? ORDER BY semantic_id, suffix LIMIT ?",
                    (generation, f"{prefix}-*", longer, f"{longer}-*", MAX_SIBLINGS - len(found)),
                )
            ]
            longer = prefix
        return found
