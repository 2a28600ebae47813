"""Files page by page, items by ID and by codes, the tree: against answers counted by hand from the rows."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from semid_daemon.base.types import Codebooks, EmbeddingBatch
from semid_daemon.store.read.connection import InterruptedReadError, ReadConnection
from semid_daemon.store.read.files import FILE_ORDERS
from semid_daemon.store.read.monitor import MonitorReader
from semid_daemon.store.read.search import code_pattern
from semid_daemon.store.write.generations import NewGeneration
from semid_daemon.store.write.store import Store

LAYERS, CODES, ITEMS = 3, 12, 900


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """900 items in one file, and 300 more files in all states; two of them hold the same bytes."""
    path = tmp_path_factory.mktemp("browsing") / "semid.db"
    random = np.random.default_rng(4)
    with Store(path) as store:
        store.database.connection.execute("PRAGMA synchronous = OFF")
        books = Codebooks(np.zeros((LAYERS, CODES, 2), dtype=np.float32), True)
        store.generations.publish(NewGeneration("f1", books, trained_rows=1))
        file = store.files.record_sighting("items.npz", "s", "items", 5_000)
        file = store.files.begin_loading(file.id, rows=ITEMS, dim=2, generation=1, chunk_rows=ITEMS)
        codes_NL = random.integers(0, CODES, size=(ITEMS, LAYERS)).astype(np.int32)
        ids = [f"item-{number}" for number in range(ITEMS)]
        store.chunks.commit(file, EmbeddingBatch(0, ITEMS, ids, np.ones((ITEMS, 2), dtype=np.float32)), codes_NL)
        for number in range(300):
            name = f"part-{number * 7 % 300:03}.npz"
            other = store.files.record_sighting(name, "s", f"d{number}", 100 + number % 10)
            if number % 10 == 0:
                store.files.reject(other.id, f"broken at {number}")
        store.files.record_sighting("copy.npz", "s", "d5", 105)
    return path


@pytest.fixture
def reader(database: Path):
    with ReadConnection(database) as connection:
        yield MonitorReader(connection)


@pytest.fixture(scope="module")
def items(database: Path) -> dict[str, str]:
    connection = sqlite3.connect(database)
    found = dict(connection.execute("SELECT item_id, semantic_id FROM semantic_ids").fetchall())
    connection.close()
    return found


@pytest.mark.parametrize("order", FILE_ORDERS)
@pytest.mark.parametrize("status", ["", "rejected", "pending"])
def test_pages_join_into_the_whole_in_either_direction(reader: MonitorReader, order: str, status: str):
    whole = reader.files.page(order=order, status=status, most=1000)
    assert whole.total == len(whole.rows) == {"": 302, "rejected": 30, "pending": 271}[status]
    keys = [row.key for row in whole.rows]
    assert len(set(keys)) == len(keys)
    assert sorted(keys, reverse=FILE_ORDERS[order][1]) == keys

    forth = [*reader.files.page(order=order, status=status, most=40).rows]
    while True:
        page = reader.files.page(order=order, status=status, around=forth[-1].key, most=40)
        assert page.rows[page.at] == forth[-1]
        if len(page.rows) == page.at + 1:
            break
        forth += page.rows[page.at + 1 :]
    assert forth == list(whole.rows)

    back = [*reader.files.page(order=order, status=status, from_end=True, most=40).rows]
    while True:
        page = reader.files.page(order=order, status=status, around=back[0].key, most=40)
        if page.at == 0:
            break
        back = [*page.rows[: page.at], *back]
    assert back == list(whole.rows)


def test_a_place_that_is_gone_is_the_next_one(reader: MonitorReader):
    page = reader.files.page(order="name", around=("part-100", 0), most=5)
    assert page.rows[page.at].name == "part-100.npz"
    assert [row.name for row in page.rows[: page.at]] == [f"part-{number:03}.npz" for number in range(95, 100)]


def test_files_by_text(reader: MonitorReader):
    found = reader.files.page(text="PART-01").rows
    assert {row.name for row in found} == {f"part-01{digit}.npz" for digit in range(10)}
    (found,) = reader.files.page(text="broken at 130").rows
    assert found.reason == "broken at 130"
    assert reader.files.page(text="no such").rows == ()
    assert reader.files.page(text="%_").total == 0  # no wildcards


def test_files_that_can_be_tried_again(reader: MonitorReader):
    assert len(reader.files.retriable_names("", "")) == len(reader.files.retriable_names("rejected", "")) == 30
    assert reader.files.retriable_names("deferred", "") == ()
    assert set(reader.files.retriable_names("", "broken at 13")) == {"part-010.npz"}
    assert len(reader.files.retriable_names("rejected", "", most=7)) == 7


def test_troubled_files_are_the_latest(reader: MonitorReader):
    assert [file.reason for file in reader.files.troubled(3)] == ["broken at 290", "broken at 280", "broken at 270"]


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("12-250-7", "12-250-7"),
        ("12-250", "12-250-*"),
        ("12-250-*", "12-250-*"),
        ("12-*-7", "12-*-7"),
        ("*-5", "*-5-*"),
        ("12", "12-*-*"),
        ("a-1", None),
        ("1-2-3-4", None),
        ("1--2", None),
        ("", None),
        ("1-²-3", None),
    ],
)
def test_what_is_a_pattern_of_codes(text: str, pattern: str | None):
    assert code_pattern(text, 3) == pattern


@pytest.mark.parametrize("text", ["3-4-5", "3-4-*", "3-4", "3-*-5", "*-4-5", "*-4-*", "*-*-5", "3"])
def test_items_by_codes(reader: MonitorReader, items: dict[str, str], text: str):
    parts = (text.split("-") + ["*"] * LAYERS)[:LAYERS]
    expected = {
        item
        for item, semantic_id in items.items()
        if all(part in ("*", code) for part, code in zip(parts, semantic_id.split("-"), strict=True))
    }
    found = reader.search.find(text, most=1000)
    assert found.item is None
    assert {match.item_id for match in found.matches} == expected
    first = reader.search.find(text, most=2)
    assert len(first.matches) == min(2, len(expected))
    assert first.more == (len(expected) > 2)


def test_items_by_their_beginning(reader: MonitorReader, items: dict[str, str]):
    found = reader.search.find("item-12")
    assert found.item is not None
    assert found.item.semantic_id == items["item-12"]
    assert [match.item_id for match in found.matches] == sorted(item for item in items if item.startswith("item-12"))
    assert found.generations == ((1, "active", items["item-12"], found.item.suffix),)
    for odd in ("no such", "\udcff", "%", "item-1\x00", "[", "*-x"):
        assert reader.search.find(odd).item is None
        assert reader.search.find(odd).matches == ()


def test_items_of_a_code(reader: MonitorReader, items: dict[str, str]):
    for layer in range(LAYERS):
        found = reader.search.with_code(1, layer, 7, LAYERS, most=4)
        assert len(found) == 4
        assert all(items[match.item_id].split("-")[layer] == "7" for match in found)


def test_the_tree_adds_up(reader: MonitorReader, items: dict[str, str]):
    roots, total = reader.search.children(1, "", LAYERS)
    assert total == len(roots) == CODES
    assert sum(branch.items for branch in roots) == ITEMS
    assert [branch.items for branch in roots] == sorted((branch.items for branch in roots), reverse=True)
    root = roots[0]
    branches, _ = reader.search.children(1, root.prefix, LAYERS)
    assert sum(branch.items for branch in branches) == root.items
    deepest, _ = reader.search.children(1, branches[0].prefix, LAYERS)
    assert sum(branch.items for branch in deepest) == branches[0].items
    leaves, total = reader.search.children(1, deepest[0].prefix, LAYERS)
    assert total == deepest[0].items
    assert {leaf.prefix for leaf in leaves} == {item for item, sid in items.items() if sid == deepest[0].prefix}
    few, total = reader.search.children(1, "", LAYERS, most=3)
    assert (len(few), total) == (3, CODES)


def test_what_takes_too_long_is_ended_and_leaves_nothing_open(reader: MonitorReader):
    with pytest.raises(InterruptedReadError), reader.connection.time_limit(0.0), reader.connection.snapshot():
        reader.connection.rows("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n")
    assert not reader.connection._connection.in_transaction
    assert reader.read_overview().active is not None
