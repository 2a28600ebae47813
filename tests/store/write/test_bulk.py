"""Statements over very many rows, and hashes of embeddings."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest

from semid_daemon.base.row_hash import row_hashes
from semid_daemon.store.write.bulk import insert_rows, select_rows


@pytest.mark.parametrize("rows", [0, 1, 127, 128, 129, 300])
def test_all_rows_go_in_and_are_found(rows: int):
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (a TEXT PRIMARY KEY, b INTEGER)")
    names = [f"i{number}" for number in range(rows)]
    insert_rows(connection, "INSERT INTO t (a, b) VALUES {}", [names, range(rows)])
    assert connection.execute("SELECT a, b FROM t ORDER BY b").fetchall() == list(zip(names, range(rows), strict=True))
    sql = "SELECT c0, t.b + ? FROM given JOIN t ON t.a = c0 AND t.b = c1"
    found = list(select_rows(connection, sql, [[*names, "not there"], [*range(rows), 7]], 10))
    assert sorted(found) == sorted((name, number + 10) for number, name in enumerate(names))
    connection.close()


@pytest.mark.parametrize("dim", [1, 2, 3, 384, 385])
def test_hashes_tell_embeddings_apart(dim: int):
    """Alike where the bytes are, whatever the rows beside them; different for any bit that differs."""
    row_D = np.random.default_rng(dim).normal(size=dim).astype(np.float16).astype(np.float32)
    rows = []
    for place in {0, dim // 2, dim - 1}:
        for bit in (31, 30, 23, 22, 13, 0):
            bits_D = row_D.view(np.uint32).copy()
            bits_D[place] ^= np.uint32(1 << bit)
            rows.append(bits_D.view(np.float32))
    rows += [row_D, np.zeros(dim, np.float32), -row_D]
    rows_ND = np.array(rows)
    hashes_N = row_hashes(rows_ND)
    assert len(set(hashes_N.tolist())) == len(set(map(bytes, rows_ND)))
    assert np.abs(hashes_N).max() < 2**47
    many_ND = np.repeat(rows_ND, 3000 // len(rows_ND), axis=0)  # more than one block of them
    assert np.array_equal(row_hashes(many_ND), np.repeat(hashes_N, 3000 // len(rows_ND)))


def test_hashes_stay_what_they_were():
    """They are kept in databases."""
    assert row_hashes(np.arange(6, dtype=np.float32).reshape(2, 3)).tolist() == [23098913394944, -98115627428896]
