"""Collision policies: where rows go when their semantic ID is taken, and counts that still equal the rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semid_daemon.base.types import Codebooks, EmbeddingBatch
from semid_daemon.store.read.checks import check_database
from semid_daemon.store.write.generations import NewGeneration
from semid_daemon.store.write.store import Store

CODEBOOKS = Codebooks(np.zeros((2, 3, 1), dtype=np.float32), True)


def put(store: Store, digest: str, rows: list[tuple[str, int, int]], policy: str = "keep") -> int:
    """Commit one chunk of (item, first code, last code); how many new items shared their semantic ID."""
    codes_NL = np.array([codes for _, *codes in rows], np.int32).reshape(-1, 2)
    batch = EmbeddingBatch(
        0, len(rows), [item for item, *_ in rows], np.arange(1, len(rows) + 1, dtype=np.float32)[:, None]
    )
    ledger = store.files.record_sighting(digest, "s", digest, 1)
    ledger = store.files.begin_loading(ledger.id, rows=len(rows), dim=1, generation=1, chunk_rows=100)
    plan = store.items.assign(
        1, ledger.id, batch, codes_NL, on_existing=policy, ranked=lambda at: (codes_NL[at, 1] + np.arange(3)) % 3
    )
    store.chunks.commit(ledger, batch, codes_NL, plan=plan)
    return plan.collisions


def shown(store: Store) -> dict[str, tuple[str, int]]:
    return {item: rest for item, *rest in store.database.read("SELECT item_id, semantic_id, suffix FROM semantic_ids")}


@pytest.fixture
def store(tmp_path: Path):
    with Store(tmp_path / "semid.db") as store:
        yield store
    assert check_database(tmp_path / "semid.db").faults == []


def publish(store: Store, collisions: str, capacity: int = 1) -> None:
    store.generations.publish(NewGeneration("f", CODEBOOKS, 1, collisions=collisions, bucket_capacity=capacity))


def test_suffix(store: Store):
    publish(store, "suffix")
    assert put(store, "d", [("a", 0, 0), ("b", 0, 0), ("c", 1, 0)]) == 1
    assert put(store, "e", [("d", 0, 0)]) == 1
    assert shown(store) == {"a": ["0-0", 0], "b": ["0-0", 1], "c": ["1-0", 0], "d": ["0-0", 2]}


def test_a_suffix_is_never_given_again_though_the_only_item_that_had_it_moved_away(store: Store):
    publish(store, "suffix")
    put(store, "d", [("a", 0, 0)])
    put(store, "e", [("a", 1, 0)], "replace")
    put(store, "f", [("b", 0, 0)])
    assert shown(store) == {"a": ["1-0", 0], "b": ["0-0", 1]}


def test_shared(store: Store):
    publish(store, "shared")
    assert put(store, "d", [("a", 0, 0), ("b", 0, 0), ("c", 1, 0)]) == 1
    assert shown(store) == {"a": ["0-0", 0], "b": ["0-0", 0], "c": ["1-0", 0]}


def test_next_best_takes_the_nearest_last_code_with_room(store: Store):
    publish(store, "next-best")
    assert put(store, "d", [("a", 0, 1), ("b", 0, 1), ("c", 0, 1), ("other", 1, 1)]) == 0
    assert shown(store) == {"a": ["0-1", 0], "b": ["0-2", 0], "c": ["0-0", 0], "other": ["1-1", 0]}
    # Where all are full, its nearest after all, and a suffix.
    assert put(store, "e", [("late", 0, 2)]) == 1
    assert shown(store)["late"] == ["0-2", 1]


def test_next_best_with_room_for_two(store: Store):
    publish(store, "next-best", capacity=2)
    put(store, "d", [(item, 0, 1) for item in "abcd"])
    assert shown(store) == {"a": ["0-1", 0], "b": ["0-1", 1], "c": ["0-2", 0], "d": ["0-2", 1]}


def test_next_best_stays_where_it_is_when_replaced(store: Store):
    publish(store, "next-best")
    put(store, "d", [("a", 0, 1), ("b", 0, 1)])
    put(store, "e", [("a", 0, 1)], "replace")
    assert shown(store) == {"a": ["0-1", 0], "b": ["0-2", 0]}
    put(store, "f", [("a", 1, 1)], "replace")  # makes room
    put(store, "g", [("b", 0, 1)], "replace")
    assert {item: semantic_id for item, (semantic_id, _) in shown(store).items()} == {"a": "1-1", "b": "0-1"}


@settings(max_examples=25, deadline=None)
@given(
    collisions=st.sampled_from(["suffix", "next-best", "shared"]),
    capacity=st.integers(1, 2),
    chunks=st.lists(
        st.tuples(
            st.sampled_from(["keep", "replace"]),
            st.lists(st.tuples(st.integers(0, 9), st.integers(0, 1), st.integers(0, 2)), min_size=1, max_size=10),
        ),
        max_size=5,
    ),
)
def test_counts_equal_rows_by_every_policy(tmp_path_factory, collisions, capacity, chunks):
    path = tmp_path_factory.mktemp("store") / "semid.db"
    with Store(path) as store:
        publish(store, collisions, capacity)
        for number, (policy, rows) in enumerate(chunks):
            put(store, f"d{number}", [(f"i{item}", *codes) for item, *codes in rows], policy)
    assert check_database(path).faults == []
