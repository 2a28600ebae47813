"""The writer: one transaction per chunk, suffixes that continue, counters that equal the rows."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from semid_daemon.base.errors import StoreError
from semid_daemon.base.types import Codebooks, EmbeddingBatch
from semid_daemon.store.read.status import Reader
from semid_daemon.store.write.files import LedgerFile
from semid_daemon.store.write.store import Store
from semid_daemon.store.write.telemetry import Metric

CODEBOOKS = Codebooks(np.zeros((2, 4, 3), dtype=np.float32), True)


@pytest.fixture
def store(tmp_path: Path):
    with Store(tmp_path / "semid.db") as store:
        yield store


def batch(first_row: int, item_ids: list[str], rejected: dict[str, int] | None = None) -> EmbeddingBatch:
    rejected = rejected or {}
    rows_read = len(item_ids) + sum(rejected.values())
    return EmbeddingBatch(first_row, rows_read, item_ids, np.zeros((len(item_ids), 3), dtype=np.float32), rejected)


def codes(*rows: tuple[int, int]) -> np.ndarray:
    return np.array(rows, dtype=np.int32).reshape(-1, 2)


def begin(store: Store, rows: int, name: str = "a.npz", digest: str = "d1") -> LedgerFile:
    if store.generations.active() is None:
        store.generations.publish("f1", CODEBOOKS, trained_rows=10)
    ledger = store.files.record_sighting(name, "sig", digest, 100)
    return store.files.begin_loading(ledger.id, rows=rows, dim=3, generation=1, chunk_rows=4)


def rows_of(store: Store, sql: str) -> list[tuple]:
    return store.database.connection.execute(sql).fetchall()


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
    """The very last statement of the transaction fails: nothing of the chunk stays, the next one is whole."""
    ledger = begin(store, rows=2)
    with pytest.raises(sqlite3.IntegrityError):
        store.chunks.commit(ledger, batch(0, ["a"]), codes((0, 0)), [Metric("loss", float("nan"))])
    assert rows_of(store, "SELECT count(*) FROM _items") == [(0,)]
    assert rows_of(store, "SELECT count(*) FROM _chunks") == [(0,)]
    store.chunks.commit(ledger, batch(0, ["a", "b"]), codes((0, 0), (0, 0)))
    assert rows_of(store, "SELECT max(items) FROM code_usage") == [(2,)]


def test_same_bytes_under_another_name_add_nothing(store: Store):
    ledger = begin(store, rows=1)
    store.chunks.commit(ledger, batch(0, ["a"]), codes((0, 0)))
    again = store.files.record_sighting("copy.npz", "sig2", "d1", 100)
    assert again.status == "done"
    assert rows_of(store, "SELECT file, status, rows, rows_kept, reason FROM files ORDER BY file") == [
        ("a.npz", "done", 1, 0, None),
        ("copy.npz", "done", 1, 1, "same bytes as a.npz"),
    ]


def test_known_by_sight(store: Store):
    ledger = begin(store, rows=1)
    assert store.files.known_digest("a.npz", "sig") == ledger
    assert store.files.known_digest("a.npz", "another") is None
    assert store.files.known_digest("b.npz", "sig") is None


def test_a_begun_file_keeps_its_generation_and_bounds(store: Store):
    ledger = begin(store, rows=8)
    store.chunks.commit(ledger, batch(0, ["a", "b"], {"not finite": 2}), codes((0, 0), (0, 0)))
    store.generations.publish("f2", CODEBOOKS, trained_rows=5)
    resumed = store.files.begin_loading(ledger.id, rows=8, dim=3, generation=2, chunk_rows=99)
    assert (resumed.generation, resumed.chunk_rows, resumed.rows_done, resumed.attempts) == (1, 4, 4, 2)
    assert resumed.reason == "not finite: 2"


def test_a_file_without_rows_is_done(store: Store):
    assert begin(store, rows=0).status == "done"


def test_done_is_final(store: Store):
    ledger = begin(store, rows=1)
    store.chunks.commit(ledger, batch(0, ["a"]), codes((0, 0)))
    store.files.reject(ledger.id, "no")
    store.files.defer(ledger.id, "no")
    assert store.files.get(ledger.id).status == "done"


def test_wal_full_strict(tmp_path: Path, store: Store):
    assert rows_of(store, "PRAGMA journal_mode") == [("wal",)]
    assert rows_of(store, "PRAGMA synchronous") == [(2,)]
    tables = rows_of(store, "SELECT name, strict FROM pragma_table_list WHERE name GLOB '_[a-z]*' AND type = 'table'")
    assert all(strict for name, strict in tables if name != "_sqlite_migrations")
    assert len(tables) > 10


@pytest.mark.parametrize(
    ("sql", "index"),
    [
        ("SELECT * FROM semantic_ids WHERE item_id = 'a'", "_items_by_item_id (item_id=? AND generation=?)"),
        ("SELECT * FROM semantic_ids WHERE semantic_id GLOB '12-250-*'", "semantic_id>? AND semantic_id<?"),
        ("SELECT * FROM semantic_ids WHERE semantic_id = '12-250-7'", "semantic_id=?"),
        ("SELECT * FROM all_semantic_ids WHERE generation = 1 AND item_id = 'a'", "_items_by_item_id"),
    ],
)
def test_lookups_use_an_index(store: Store, sql: str, index: str):
    plan = [row[3] for row in rows_of(store, f"EXPLAIN QUERY PLAN {sql}")]
    assert any(step.startswith("SEARCH i ") and index in step for step in plan), plan
    assert not any(step.startswith("SCAN i") for step in plan), plan


def test_views_have_the_promised_columns(store: Store):
    promised = {
        "semantic_ids": "item_id semantic_id suffix generation file assigned_at",
        "all_semantic_ids": "item_id semantic_id suffix generation file assigned_at",
        "files": "file status rows rows_rejected rows_kept reason attempts seen_at finished_at"
        " rows_replaced rows_repeated rows_zero retry_at",
        "generations": "generation fingerprint layers codebook_size dim normalize_residuals items trained_rows"
        " status published_at origin based_on collisions bucket_capacity created_at",
        "code_usage": "generation layer code items",
        "layer_health": "generation layer coverage dead_codes perplexity",
        "metrics": "run step layer name value at",
        "events": "at level message",
        "comparisons": "old new name layer old_value new_value at",
        "commands": "command arguments state requested_at answered_at answer",
    }
    for view, columns in promised.items():
        assert [row[1] for row in rows_of(store, f"PRAGMA table_info({view})")] == columns.split()


def test_another_programs_database_is_refused(tmp_path: Path):
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(StoreError, match="another program"):
        Store(path)


def test_a_newer_database_is_refused(tmp_path: Path):
    path = tmp_path / "semid.db"
    Store(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="newer semid"):
        Store(path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path):
    path = tmp_path / "semid.db"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match="backup"):
        Store(path)


def test_reader_sees_what_the_writer_wrote(tmp_path: Path, store: Store):
    ledger = begin(store, rows=5)
    store.chunks.commit(ledger, batch(0, ["a", "b", "c", "d", "e"]), codes((0, 1), (0, 1), (0, 2), (1, 1), (0, 3)))
    with Reader(tmp_path / "semid.db") as reader:
        item = reader.lookup("a")
        assert item is not None
        assert (item.semantic_id, item.codes, item.suffix, item.file) == ("0-1", [0, 1], 0, "a.npz")
        assert item.siblings == ["b", "c", "e"]  # the same bucket first, then the shared prefix
        assert reader.lookup("nobody") is None
        assert [item.item_id for item in reader.with_prefix("0")] == ["a", "b", "c", "e"]
        assert [item.item_id for item in reader.with_prefix("0-1")] == ["a", "b"]
        status = reader.status()
    assert status.items == 5
    assert status.unique_rate == pytest.approx(4 / 5)
    assert status.singleton_rate == pytest.approx(3 / 5)
    assert status.max_bucket == 2
    assert [layer.dead_codes for layer in status.layers] == [2, 1]


def test_reader_without_database(tmp_path: Path):
    with pytest.raises(StoreError, match="no database yet"):
        Reader(tmp_path / "semid.db")


def test_a_command_seen_again_after_many_events_keeps_its_answer(store: Store):
    store.commands.accept("a", "rescan", "{}", "")
    store.commands.answer("a", "done", "scanning")
    store.telemetry.add_events([("info", "x")] * 1_500)
    assert store.commands.accept("a", "rescan", "{}", "") == "done"
    assert rows_of(store, "SELECT name FROM _commands") == [("a",)]


def test_no_item_is_called_what_cannot_be_encoded(tmp_path: Path, store: Store):
    with Reader(tmp_path / "semid.db") as reader:
        assert reader.lookup("\udcff") is None
