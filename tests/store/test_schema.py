"""Tables, indexes and the columns of the views."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from semid_daemon.store.write.store import Store
from tests.store.catalogue import batch, begin, codes, rows_of


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


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT m.id, s.* FROM mine m LEFT JOIN semantic_ids s ON s.item_id = m.id",
        "SELECT m.id FROM mine m LEFT JOIN semantic_ids s ON s.item_id = m.id WHERE s.item_id IS NULL",
        "SELECT id FROM mine WHERE NOT EXISTS (SELECT 1 FROM semantic_ids s WHERE s.item_id = mine.id)",
        "SELECT m.id, s.semantic_id FROM mine m JOIN semantic_ids s ON s.item_id = m.id",
        "SELECT m.number, s.semantic_id FROM mine m LEFT JOIN semantic_ids s ON s.item_id = CAST(m.number AS TEXT)",
        "SELECT * FROM semantic_ids WHERE item_id IN ('a', 'b')",
        "SELECT * FROM semantic_ids WHERE item_id IN (SELECT id FROM mine)",
        "SELECT a.item_id, b.item_id FROM semantic_ids a JOIN semantic_ids b USING (semantic_id) WHERE a.item_id = 'a'",
    ],
)
def test_joins_with_the_views_use_an_index(store: Store, sql: str):
    store.database.connection.execute("CREATE TEMP TABLE mine (id TEXT, number INTEGER)")
    plan = [row[3] for row in rows_of(store, f"EXPLAIN QUERY PLAN {sql}")]
    assert not any(re.match(r"SCAN (i|[abs])\b|MATERIALIZE|CO-ROUTINE", step) for step in plan), plan
    assert not any("AUTOMATIC" in step for step in plan), plan


def steps_of(store: Store, sql: str) -> int:
    """Instructions of SQLite's machine that a query takes: work, whatever the speed of this machine."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    store.database.connection.set_progress_handler(count, 1)
    rows_of(store, sql)
    store.database.connection.set_progress_handler(None, 0)
    return steps


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT m.id, s.* FROM mine m LEFT JOIN semantic_ids s ON s.item_id = m.id",
        "SELECT m.id, s.* FROM mine m LEFT JOIN all_semantic_ids s ON s.item_id = m.id AND s.generation = 1",
        "SELECT m.id FROM mine m LEFT JOIN semantic_ids s ON s.item_id = m.id WHERE s.item_id IS NULL",
        "SELECT id FROM mine WHERE NOT EXISTS (SELECT 1 FROM semantic_ids s WHERE s.item_id = mine.id)",
        "SELECT m.id, s.* FROM mine m JOIN semantic_ids s ON s.item_id = m.id",
        "SELECT * FROM semantic_ids WHERE item_id IN (SELECT id FROM mine)",
        "SELECT * FROM semantic_ids ORDER BY item_id LIMIT 2",
        "SELECT * FROM semantic_ids ORDER BY semantic_id LIMIT 2",
    ],
)
def test_few_rows_cost_the_same_in_a_large_catalogue(store: Store, sql: str):
    store.database.connection.execute('CREATE TEMP TABLE mine AS SELECT value AS id FROM json_each(\'["i1", "x"]\')')
    ledger = begin(store, rows=2_010)
    store.chunks.commit(ledger, batch(0, [f"i{number}" for number in range(10)]), codes(*[(0, 1)] * 10))
    small = steps_of(store, sql)
    store.chunks.commit(ledger, batch(10, [f"i{number}" for number in range(10, 2_010)]), codes(*[(2, 3)] * 2_000))
    assert steps_of(store, sql) <= 1.1 * small


def test_an_integer_key_joins_from_its_own_table(store: Store):
    """Its comparison with text is one of numbers, which no index of texts answers; the user's own index does."""
    store.database.connection.execute("CREATE TEMP TABLE mine (number INTEGER PRIMARY KEY)")
    sql = "SELECT m.number, s.semantic_id FROM mine m JOIN semantic_ids s ON s.item_id = m.number"
    plan = [row[3] for row in rows_of(store, f"EXPLAIN QUERY PLAN {sql}")]
    assert "SEARCH m USING INTEGER PRIMARY KEY (rowid=?)" in plan, plan


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
