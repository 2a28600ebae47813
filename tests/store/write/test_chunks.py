"""Commits of chunks: one transaction each, suffixes that continue, counters that equal the rows."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest

from semid_daemon.base.errors import StoreError
from semid_daemon.store.write.store import Store
from semid_daemon.store.write.telemetry import Metric
from tests.store.catalogue import batch, begin, codes, rows_of


def test_a_chunk_commits_everything_together(store: Store):
    ledger = begin(store, rows=5)
    tally = store.chunks.commit(
        ledger,
        batch(0, ["a", "b", "c"], {"not finite": 1}),
        codes((0, 1), (0, 1), (3, 2)),
        [Metric("rows_per_s", 10.0)],
    )
    assert (tally.assigned, tally.kept, tally.rejected) == (3, 0, 1)
    assert rows_of(store, "SELECT item_id, semantic_id, suffix, generation, file FROM semantic_ids ORDER BY 1") == [
        ("a", "0-1", 0, 1, "a.npz"),
        ("b", "0-1", 1, 1, "a.npz"),
        ("c", "3-2", 0, 1, "a.npz"),
    ]
    assert rows_of(store, "SELECT layer, code, items FROM code_usage WHERE items > 0") == [
        (0, 0, 2),
        (0, 3, 1),
        (1, 1, 2),
        (1, 2, 1),
    ]
    assert rows_of(store, "SELECT file, status, rows, rows_rejected, rows_kept, reason FROM files") == [
        ("a.npz", "loading", 5, 1, 0, "not finite: 1")
    ]
    assert rows_of(store, "SELECT run, step, name, value FROM metrics") == [("ingest-1", 1, "rows_per_s", 10.0)]
    store.chunks.commit(ledger, batch(4, ["d"]), codes((0, 1)))
    assert rows_of(store, "SELECT status, finished_at IS NOT NULL FROM files") == [("done", 1)]
    assert rows_of(store, "SELECT suffix FROM semantic_ids WHERE item_id = 'd'") == [(2,)]


def test_counters_equal_the_rows(store: Store):
    """Against counts taken from the rows themselves, over many chunks of random codes."""
    random = np.random.default_rng(1)
    ledger = begin(store, rows=400)
    for first_row in range(0, 400, 20):
        ids = [f"i{number}" for number in random.integers(0, 300, size=20)]
        store.chunks.commit(ledger, batch(first_row, ids), random.integers(0, 4, size=(20, 2)).astype(np.int32))
    items, distinct, singletons, largest = rows_of(
        store,
        "SELECT sum(n), count(*), sum(n = 1), max(n) FROM"
        " (SELECT count(*) AS n FROM semantic_ids GROUP BY semantic_id)",
    )[0]
    assert rows_of(store, "SELECT items, distinct_ids, singletons, max_bucket FROM _generations") == [
        (items, distinct, singletons, largest)
    ]
    for layer in range(2):
        used = rows_of(
            store,
            f"SELECT c.code, count(*) FROM semantic_ids s, code_usage c WHERE c.layer = {layer} AND"
            f" c.code = CAST(substr(s.semantic_id, {1 + 2 * layer}, 1) AS INTEGER) GROUP BY 1",
        )
        assert used == rows_of(store, f"SELECT code, items FROM code_usage WHERE layer = {layer} AND items > 0")
    suffixes = rows_of(store, "SELECT count(*), max(suffix) + 1 FROM semantic_ids GROUP BY semantic_id")
    assert all(count == next_suffix for count, next_suffix in suffixes)
    assert rows_of(store, "SELECT sum(assigned), sum(kept), sum(rows) FROM _chunks") == [(items, 400 - items, 400)]


def test_an_item_keeps_its_id(store: Store):
    ledger = begin(store, rows=3)
    store.chunks.commit(ledger, batch(0, ["a", "a", "b"]), codes((0, 0), (1, 1), (2, 2)))
    again = begin(store, rows=2, name="b.npz", digest="d2")
    tally = store.chunks.commit(again, batch(0, ["a", "c"]), codes((3, 3), (3, 3)))
    assert (tally.assigned, tally.kept) == (1, 1)
    assert rows_of(store, "SELECT item_id, semantic_id FROM semantic_ids ORDER BY 1") == [
        ("a", "0-0"),
        ("b", "2-2"),
        ("c", "3-3"),
    ]
    assert rows_of(store, "SELECT file, rows_kept FROM files ORDER BY 1") == [("a.npz", 1), ("b.npz", 1)]


def test_a_chunk_at_another_row_is_fenced_off(store: Store):
    ledger = begin(store, rows=4)
    store.chunks.commit(ledger, batch(0, ["a", "b"]), codes((0, 0), (0, 0)))
    with pytest.raises(StoreError, match="not at row 0"):
        store.chunks.commit(ledger, batch(0, ["c", "d"]), codes((0, 0), (0, 0)))
    assert rows_of(store, "SELECT count(*) FROM semantic_ids") == [(2,)]
    assert rows_of(store, "SELECT items FROM _generations") == [(2,)]


def test_a_failure_inside_leaves_nothing(store: Store):
    """The last thing that the transaction waits for fails: nothing of the chunk stays, the next one is whole."""
    ledger = begin(store, rows=2)

    def failing() -> None:
        raise MemoryError("while learning")

    with pytest.raises(MemoryError):
        store.chunks.commit(ledger, batch(0, ["a"]), codes((0, 0)), [Metric("loss", 1.0)], update=failing)
    assert rows_of(store, "SELECT count(*) FROM metrics WHERE name = 'loss'") == [(0,)]
    assert rows_of(store, "SELECT count(*) FROM _items") == [(0,)]
    assert rows_of(store, "SELECT count(*) FROM _chunks") == [(0,)]
    store.chunks.commit(ledger, batch(0, ["a", "b"]), codes((0, 0), (0, 0)))
    assert rows_of(store, "SELECT max(items) FROM code_usage") == [(2,)]


def test_a_figure_that_is_not_finite_does_not_undo_a_commit(store: Store):
    ledger = begin(store, rows=2)
    figures = [Metric("loss", float("nan")), Metric("error", float("inf")), Metric("rows_per_s", 7.0)]
    store.chunks.commit(ledger, batch(0, ["a"]), codes((0, 0)), figures)
    store.chunks.commit(store.files.get(ledger.id), batch(1, ["b"]), codes((0, 0)), figures)
    assert rows_of(store, "SELECT count(*) FROM semantic_ids") == [(2,)]
    assert rows_of(store, "SELECT name, value FROM metrics ORDER BY step") == [("rows_per_s", 7.0)] * 2
    said = rows_of(store, "SELECT message FROM events WHERE message LIKE '%not a finite number%' ORDER BY message")
    assert [message.split(" of ")[0] for (message,) in said] == ["error", "loss"]


def test_an_item_that_is_there_already_makes_the_commit_raise(store: Store):
    """Should a plan be out of date, its chunk is not committed, and no item loses its ID."""
    ledger = begin(store, rows=3)
    other = begin(store, rows=1, name="b.npz", digest="d2")
    stale = store.items.assign(1, ledger.id, batch(0, ["a", "b", "c"]), codes((0, 0), (1, 1), (3, 3)))
    store.chunks.commit(other, batch(0, ["c"]), codes((2, 2)))
    tables = ["_items", "_buckets", "_chunks", "_code_usage", "_bucket_sizes", "_prefix_counts", "_generations"]
    before = {table: rows_of(store, f"SELECT * FROM {table}") for table in tables}
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        store.chunks.commit(ledger, batch(0, ["a", "b", "c"]), codes((0, 0), (1, 1), (3, 3)), plan=stale)
    assert {table: rows_of(store, f"SELECT * FROM {table}") for table in tables} == before
    assert store.files.get(ledger.id).rows_done == 0
    assert rows_of(store, "SELECT item_id, semantic_id, file FROM semantic_ids") == [("c", "2-2", "b.npz")]
