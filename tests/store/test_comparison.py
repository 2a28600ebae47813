"""Churn by hand, and the items of two generations page by page."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from semid_daemon.store.comparison import Churn, Move, generation_metrics, moves_after


@pytest.fixture
def query() -> Iterator[Any]:
    connection = sqlite3.connect(":memory:")
    connection.executescript(
        """
        CREATE TABLE _items (item_id TEXT, semantic_id TEXT, generation INTEGER);
        INSERT INTO _items VALUES ('a', '1-2', 1), ('b', '1-3', 1), ('c', '2-2', 1), ('only old', '9-9', 1),
            ('a', '1-2', 2), ('b', '1-4', 2), ('c', '3-4', 2), ('only new', '8-8', 2);
        CREATE TABLE _generations (generation INTEGER, items INTEGER, distinct_ids INTEGER, singletons INTEGER,
            max_bucket INTEGER);
        INSERT INTO _generations VALUES (1, 10, 8, 6, 2), (2, 0, 0, 0, 0);
        CREATE TABLE _layer_health (generation INTEGER, layer INTEGER, dead_codes INTEGER, perplexity REAL);
        INSERT INTO _layer_health VALUES (1, 0, 3, 2.5), (1, 1, 0, 4.0);
        """
    )
    yield lambda sql, *values: connection.execute(sql, values).fetchall()
    connection.close()


def test_pages_hold_the_items_of_both_generations(query: Any):
    moves = [Move("a", "1-2", "1-2"), Move("b", "1-3", "1-4"), Move("c", "2-2", "3-4")]
    assert moves_after(query, 1, 2, most=10) == moves
    assert moves_after(query, 1, 2, most=2) == moves[:2]
    assert moves_after(query, 1, 2, most=2, item_id="b") == moves[2:]
    assert moves_after(query, 1, 2, most=2, item_id="c") == []


def test_churn_counts_items_and_codes_that_change(query: Any):
    churn = Churn()
    churn.add(moves_after(query, 1, 2, most=2))
    assert (churn.items, churn.moved, churn.moved_by_layer) == (2, 1, [0, 1])
    churn.add(moves_after(query, 1, 2, most=2, item_id="b"))
    assert (churn.items, churn.moved, churn.moved_by_layer) == (3, 2, [1, 2])


def test_generations_of_different_depth_are_compared_in_the_layers_of_both():
    churn = Churn()
    churn.add([Move("a", "1-2-3", "1-2"), Move("b", "1-2-3", "4-2")])
    assert (churn.items, churn.moved, churn.moved_by_layer) == (2, 2, [1, 0])


def test_metrics_of_a_generation(query: Any):
    assert generation_metrics(query, 1) == {
        ("items", None): 10,
        ("unique_rate", None): 0.8,
        ("singleton_rate", None): 0.6,
        ("max_bucket", None): 2,
        ("perplexity", 0): 2.5,
        ("dead_codes", 0): 3,
        ("perplexity", 1): 4.0,
        ("dead_codes", 1): 0,
    }
    assert generation_metrics(query, 2)["unique_rate", None] == 0
