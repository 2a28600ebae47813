"""The status of a catalogue and its items, as the readers show what the store wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from semid_daemon.base.errors import StoreError
from semid_daemon.store.read.connection import ReadConnection
from semid_daemon.store.read.search import SearchQueries
from semid_daemon.store.read.status import StatusQueries
from semid_daemon.store.write.store import Store
from tests.store.catalogue import batch, begin, codes


def test_reader_sees_what_the_writer_wrote(tmp_path: Path, store: Store):
    ledger = begin(store, rows=5)
    store.chunks.commit(ledger, batch(0, ["a", "b", "c", "d", "e"]), codes((0, 1), (0, 1), (0, 2), (1, 1), (0, 3)))
    with ReadConnection(tmp_path / "semid.db") as connection:
        search = SearchQueries(connection)
        item = search.lookup("a")
        assert item is not None
        assert (item.semantic_id, item.codes, item.suffix, item.file) == ("0-1", [0, 1], 0, "a.npz")
        assert item.siblings == ["b", "c", "e"]  # the same bucket first, then the shared prefix
        assert search.lookup("nobody") is None
        assert [item.item_id for item in search.with_prefix("0")] == ["a", "b", "c", "e"]
        assert [item.item_id for item in search.with_prefix("0-1")] == ["a", "b"]
        status = StatusQueries(connection).status()
    assert status.items == 5
    assert status.unique_rate == pytest.approx(4 / 5)
    assert status.singleton_rate == pytest.approx(3 / 5)
    assert status.max_bucket == 2
    assert [layer.dead_codes for layer in status.layers] == [2, 1]


def test_reader_without_database(tmp_path: Path):
    with pytest.raises(StoreError, match="no database yet"):
        ReadConnection(tmp_path / "semid.db")


def test_no_item_is_called_what_cannot_be_encoded(tmp_path: Path, store: Store):
    with ReadConnection(tmp_path / "semid.db") as connection:
        assert SearchQueries(connection).lookup("\udcff") is None
