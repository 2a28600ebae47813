"""The status of a catalogue and its items, as the readers show what the store wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from semid_daemon.base.clock import utc_in
from semid_daemon.base.errors import StoreError
from semid_daemon.store.read.connection import ReadConnection
from semid_daemon.store.read.search import SearchQueries
from semid_daemon.store.read.status import StatusQueries, read_status
from semid_daemon.store.read.status_document import status_document
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


@pytest.mark.parametrize(
    ("state", "age_s", "liveness"),
    [
        ("idle", 0.0, "live"),
        ("idle", 10.0, "stale"),
        ("idle", 600.0, "silent"),
        ("stopped", 600.0, "off"),
        ("never started", None, "off"),
        ("idle", -3.0, "live"),  # of a clock that is a little behind
        ("idle", -600.0, "silent"),  # of a clock that was set back: nobody holds the lock
    ],
)
def test_liveness_by_the_age_of_the_heartbeat(
    tmp_path: Path, store: Store, state: str, age_s: float | None, liveness: str
):
    heartbeat_at = None if age_s is None else utc_in(-age_s)
    with store.database.transaction() as connection:
        connection.execute("UPDATE _daemon SET state = ?, heartbeat_at = ?", (state, heartbeat_at))
    assert read_status(tmp_path / "semid.db").liveness() == liveness


def test_the_document_of_an_empty_catalogue(tmp_path: Path, store: Store):
    document = status_document(tmp_path / "semid.db")
    assert {document[name] for name in ("generation", "fingerprint", "unique_rate", "active", "training")} == {None}
    assert (document["state"], document["liveness"], document["heartbeat_age_s"]) == ("never started", "off", None)
    assert document["files"] == {"pending": 0, "loading": 0, "done": 0, "rejected": 0, "deferred": 0}
    assert (document["items"], document["layers"], document["next_ready"]) == (0, [], False)


def test_the_document_has_what_the_status_has(tmp_path: Path, store: Store):
    ledger = begin(store, rows=5)
    store.chunks.commit(ledger, batch(0, ["a", "b", "c", "d", "e"]), codes((0, 1), (0, 1), (0, 2), (1, 1), (0, 3)))
    store.files.reject(store.files.record_sighting("bad.npz", "s", "d2", 5).id, "no archive")
    document, status = status_document(tmp_path / "semid.db"), read_status(tmp_path / "semid.db")
    for name in (
        *("state", "detail", "pid", "device", "generation", "fingerprint", "items", "unique_rate", "singleton_rate"),
        *("max_bucket", "exact_duplicates", "files", "heartbeat_at", "next_generation", "next_ready"),
    ):
        assert document[name] == getattr(status, name), name
    assert (document["generation"], document["items"], document["active"]["codebook_size"]) == (1, 5, 4)
    assert document["layers"][0] == {
        "layer": 0,
        "coverage": 0.5,
        "dead_codes": 2,
        "perplexity": pytest.approx(status.layers[0].perplexity),
    }
    assert [file["reason"] for file in document["troubled_files"]] == ["no archive"]
    json.dumps(document)
