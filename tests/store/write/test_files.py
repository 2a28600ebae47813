"""The ledger of files: sightings, progress and outcome."""

from __future__ import annotations

from semid_daemon.store.write.generations import NewGeneration
from semid_daemon.store.write.store import Store
from tests.store.catalogue import CODEBOOKS, batch, begin, codes, rows_of


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
    store.generations.publish(NewGeneration("f2", CODEBOOKS, trained_rows=5))
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
