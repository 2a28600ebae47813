"""A small catalogue for the tests of the store: two layers of four codes, three dimensions."""

from __future__ import annotations

import numpy as np

from semid_daemon.base.types import Codebooks, EmbeddingBatch
from semid_daemon.store.write.files import LedgerFile
from semid_daemon.store.write.generations import NewGeneration
from semid_daemon.store.write.store import Store

CODEBOOKS = Codebooks(np.zeros((2, 4, 3), dtype=np.float32), True)


def batch(first_row: int, item_ids: list[str], rejected: dict[str, int] | None = None) -> EmbeddingBatch:
    rejected = rejected or {}
    rows_read = len(item_ids) + sum(rejected.values())
    return EmbeddingBatch(first_row, rows_read, item_ids, np.zeros((len(item_ids), 3), dtype=np.float32), rejected)


def codes(*rows: tuple[int, int]) -> np.ndarray:
    return np.array(rows, dtype=np.int32).reshape(-1, 2)


def begin(store: Store, rows: int, name: str = "a.npz", digest: str = "d1") -> LedgerFile:
    if store.generations.active() is None:
        store.generations.publish(NewGeneration("f1", CODEBOOKS, trained_rows=10))
    ledger = store.files.record_sighting(name, "sig", digest, 100)
    return store.files.begin_loading(ledger.id, rows=rows, dim=3, generation=1, chunk_rows=4)


def rows_of(store: Store, sql: str) -> list[tuple]:
    return store.database.connection.execute(sql).fetchall()
