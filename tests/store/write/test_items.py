"""Row rules: who gets, keeps or changes an ID, with every count equal to what the rows say."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semid_daemon.base.types import Codebooks, EmbeddingBatch
from semid_daemon.store.read.checks import check_database
from semid_daemon.store.write import bulk
from semid_daemon.store.write.generations import NewGeneration
from semid_daemon.store.write.placement import KnownItem, plan_rows
from semid_daemon.store.write.store import Store

CODEBOOKS = Codebooks(np.zeros((2, 3, 2), dtype=np.float32), True)


def known(file_id: int) -> KnownItem:
    return KnownItem("0-0", 0, 0, file_id)


def test_keep_the_first_row_wins():
    plan = plan_rows(["a", "b", "a", "c"], {"c": known(1)}, 2, "keep")
    assert (plan.assign, plan.replace, plan.kept, plan.replaced, plan.repeated) == ([0, 1], [], 2, 0, 1)


def test_replace_the_last_row_wins():
    plan = plan_rows(["a", "b", "a", "c", "c"], {"c": known(1)}, 2, "replace")
    assert (plan.assign, plan.replace, plan.kept, plan.replaced, plan.repeated) == ([2, 1], [4], 0, 3, 2)


def test_an_older_file_never_replaces_a_newer_ones_row():
    plan = plan_rows(["a"], {"a": known(7)}, 2, "replace")
    assert (plan.assign, plan.replace, plan.kept, plan.replaced) == ([], [], 1, 0)


def test_an_item_of_the_same_file_counts_as_repeated():
    assert plan_rows(["a", "a"], {"a": known(2)}, 2, "keep").repeated == 2


def commit(store: Store, digest: str, item_ids: list[str], embeddings_ND, codes_NL, policy: str) -> int:
    ledger = store.files.record_sighting(f"{digest}.npz", "s", digest, 1)
    ledger = store.files.begin_loading(ledger.id, rows=len(item_ids), dim=2, generation=1, chunk_rows=16)
    batch = EmbeddingBatch(0, len(item_ids), item_ids, np.asarray(embeddings_ND, np.float32))
    store.chunks.commit(ledger, batch, np.asarray(codes_NL, np.int32), on_existing=policy)
    return ledger.id


def test_replacing_leaves_others_alone_and_never_gives_a_suffix_again(tmp_path: Path):
    with Store(tmp_path / "semid.db") as store:
        store.generations.publish(NewGeneration("f", CODEBOOKS, trained_rows=1))
        ones = np.ones((3, 2))
        commit(store, "d1", ["a", "b", "c"], ones, [(0, 0)] * 3, "replace")
        read = store.database.read
        assert read("SELECT exact_duplicates, max_bucket FROM _generations") == [(2, 3)]
        commit(store, "d2", ["c", "a"], [[2, 2], [1, 1]], [(1, 1), (0, 0)], "replace")
        rows = "SELECT item_id, semantic_id, suffix, file FROM semantic_ids ORDER BY 1"
        assert read(rows) == [("a", "0-0", 0, "d2.npz"), ("b", "0-0", 1, "d1.npz"), ("c", "1-1", 0, "d2.npz")]
        assert read("SELECT exact_duplicates, distinct_ids, singletons, max_bucket FROM _generations") == [(1, 2, 1, 2)]
        commit(store, "d3", ["d"], [[3, 3]], [(0, 0)], "replace")
        assert read("SELECT suffix FROM semantic_ids WHERE item_id = 'd'") == [(3,)]
        assert read("SELECT rows_replaced FROM files ORDER BY file") == [(0,), (2,), (0,)]
    assert check_database(tmp_path / "semid.db").faults == []


ROW = st.tuples(st.integers(0, 7), st.integers(0, 2), st.integers(0, 2), st.integers(0, 1))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    chunks=st.lists(st.tuples(st.sampled_from(["keep", "replace"]), st.lists(ROW, min_size=1, max_size=12)), max_size=6)
)
def test_counts_equal_rows_whatever_comes(chunks):
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "semid.db"
        expected: dict[str, tuple[str, int]] = {}
        with Store(path) as store:
            store.generations.publish(NewGeneration("f", CODEBOOKS, trained_rows=1))
            for number, (policy, rows) in enumerate(chunks):
                names = [f"i{item}" for item, *_ in rows]
                vectors = np.array([[value + 1.0, 0] for *_, value in rows], np.float32).reshape(-1, 2)
                codes = np.array([(first, second) for _, first, second, _ in rows]).reshape(-1, 2)
                commit(store, f"d{number}", names, vectors, codes, policy)
                for name, code, vector in zip(names, codes.tolist(), vectors.tolist(), strict=True):
                    if policy == "replace" or name not in expected:
                        expected[name] = ("-".join(map(str, code)), vector[0])
        assert check_database(path).faults == []
        connection = sqlite3.connect(path)
        found = dict(connection.execute("SELECT item_id, semantic_id FROM semantic_ids"))
        duplicates = connection.execute("SELECT exact_duplicates FROM _generations").fetchone()[0]
        connection.close()
        assert found == {name: semantic_id for name, (semantic_id, _) in expected.items()}
        assert duplicates == len(expected) - len(set(expected.values()))


def test_items_are_looked_up_in_slices(tmp_path: Path, monkeypatch):
    """However many and long the IDs, no JSON text comes near SQLite's limit."""
    monkeypatch.setattr(bulk, "_LISTED_AT_ONCE", 3)
    item_ids = [f"é{number}" for number in range(10)]
    assert [len(json.loads(text)) for text in bulk.listed(item_ids)] == [3, 3, 3, 1]
    assert next(bulk.listed(item_ids)) == '["é0", "é1", "é2"]'
    embeddings_ND = np.random.default_rng(0).normal(size=(10, 2))
    codes_NL = np.arange(10)[:, None] % 2 * np.ones((1, 2), dtype=np.int64)
    with Store(tmp_path / "semid.db") as store:
        store.generations.publish(NewGeneration("f", CODEBOOKS, trained_rows=1))
        commit(store, "d1", item_ids, embeddings_ND, codes_NL, "keep")
        commit(store, "d2", item_ids, embeddings_ND[::-1], 1 - codes_NL, "replace")
        assert len(store.items.hashes_of_chunk(1, 2, item_ids)) == 10
    assert not check_database(tmp_path / "semid.db").faults
