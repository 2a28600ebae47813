"""What the daemon records for who watches: gauges, loss rollups, prefix counts, health as the catalogue grew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semid_daemon.base.types import Codebooks, EmbeddingBatch, TrainingStep
from semid_daemon.store.read.checks import check_database
from semid_daemon.store.write.generations import NewGeneration
from semid_daemon.store.write.store import Store


def rows(store: Store, sql: str) -> list[tuple]:
    return store.database.connection.execute(sql).fetchall()


def commit(store: Store, number: int, codes_NL: np.ndarray, on_existing: str = "keep") -> None:
    """A file of its own for these rows, their items named i0, i1…"""
    count = len(codes_NL)
    ledger = store.files.record_sighting(f"{number}.npz", "sig", f"d{number}", 100)
    ledger = store.files.begin_loading(ledger.id, rows=count, dim=2, generation=1, chunk_rows=count)
    embeddings_ND = np.full((count, 2), number + 1, dtype=np.float32)
    batch = EmbeddingBatch(0, count, [f"i{item}" for item in range(count)], embeddings_ND)
    store.chunks.commit(ledger, batch, codes_NL.astype(np.int32), on_existing=on_existing)


def test_gauges_keep_the_last_of_each(store: Store):
    store.telemetry.set_gauges({"rows_per_s": 10, "file": "a.npz", "eta_s": 3.5, "gone": 1})
    store.daemon.heartbeat("encoding", "a.npz", {"rows_per_s": 12.5, "gone": None})
    assert rows(store, "SELECT name, value, text FROM gauges ORDER BY name") == [
        ("eta_s", 3.5, None),
        ("file", None, "a.npz"),
        ("rows_per_s", 12.5, None),
    ]
    assert rows(store, "SELECT count(*) FROM gauges WHERE at GLOB '20*Z'") == [(3,)]


def test_loss_is_rolled_up_by_10_100_and_1000_steps(store: Store):
    losses = np.random.default_rng(3).random(1234)
    steps = [TrainingStep(number + 1, int(number >= 700), number, float(loss)) for number, loss in enumerate(losses)]
    for start in range(0, len(steps), 50):
        store.telemetry.add_training_steps("train-1", steps[start : start + 50])
    for span in (1, 10, 100, 1000):
        for layer, first, end in ((0, 0, 700), (1, 700, 1234)):
            expected = []
            for bucket in range(first // span * span, end, span):
                inside = losses[max(bucket, first) : min(bucket + span, end)]
                expected.append((bucket + 1, len(inside), inside.min(), inside.max(), inside.mean()))
            found = rows(
                store,
                f"SELECT step, steps, low, high, mean FROM loss WHERE run = 'train-1' AND layer = {layer}"
                f" AND span = {span} ORDER BY step",
            )
            assert [row[:2] for row in found] == [row[:2] for row in expected]
            np.testing.assert_allclose([row[2:] for row in found], [row[2:] for row in expected], rtol=1e-12)


def test_prefixes_are_counted_as_items_come_and_move(store: Store, tmp_path: Path):
    store.generations.publish(NewGeneration("f1", Codebooks(np.zeros((3, 4, 2), dtype=np.float32), True), 1))
    random = np.random.default_rng(5)
    commit(store, 0, random.integers(0, 4, size=(60, 3)))
    commit(store, 1, random.integers(0, 4, size=(80, 3)), on_existing="replace")
    counted = dict(rows(store, "SELECT prefix, items FROM prefix_counts WHERE generation = 1"))
    there: dict[str, int] = {}
    for (semantic_id,) in rows(store, "SELECT semantic_id FROM semantic_ids"):
        for codes in (1, 2):
            prefix = "-".join(semantic_id.split("-")[:codes])
            there[prefix] = there.get(prefix, 0) + 1
    assert counted == there
    assert check_database(tmp_path / "semid.db").faults == []
    store.database.connection.execute("UPDATE _prefix_counts SET items = items + 1 WHERE first = 2 AND second = 1")
    store.database.connection.execute("DELETE FROM _prefix_counts WHERE first = 3 AND second = 1")
    faults = check_database(tmp_path / "semid.db").faults
    assert faults == ["beginnings of two codes that are not counted right: 3"]  # wrong, right, missing


def test_one_layer_has_no_prefixes_of_two(store: Store):
    store.generations.publish(NewGeneration("f1", Codebooks(np.zeros((1, 4, 2), dtype=np.float32), True), 1))
    commit(store, 0, np.array([[1], [1], [3]]))
    assert rows(store, "SELECT prefix, items FROM prefix_counts") == [("1", 2), ("3", 1)]


def test_health_is_remembered_as_the_catalogue_grows(store: Store):
    store.generations.publish(NewGeneration("f1", Codebooks(np.zeros((2, 4, 2), dtype=np.float32), True), 1))
    for number, count in enumerate((200, 201, 300)):  # the second grows it by less than a hundredth
        commit(store, number, np.arange(count * 2).reshape(count, 2) % 4)
    history = rows(store, "SELECT items, layer, coverage, dead_codes FROM health_history ORDER BY items, layer")
    assert history == [(200, 0, 0.5, 2), (200, 1, 0.5, 2), (300, 0, 0.5, 2), (300, 1, 0.5, 2)]


def test_files_are_counted_by_status(store: Store, tmp_path: Path):
    for number in range(5):
        store.files.record_sighting(f"{number}.npz", "sig", f"d{number}", 100)
    store.files.reject(2, "broken")
    store.files.defer(3, "no space", "2026-01-01T00:00:00.000Z")
    (revision,) = rows(store, "SELECT revision FROM _revisions WHERE name = 'files'")[0]
    store.files.begin_loading(5, rows=10, dim=2, generation=1, chunk_rows=5) if store.generations.active() else None
    assert rows(store, "SELECT status, files, size_bytes FROM _file_counts WHERE files ORDER BY status") == [
        ("deferred", 1, 100),
        ("pending", 3, 300),
        ("rejected", 1, 100),
    ]
    assert store.files.backlog_bytes() == 300
    store.files.readmit(2)
    assert rows(store, "SELECT revision FROM _revisions WHERE name = 'files'")[0][0] > revision
    assert check_database(tmp_path / "semid.db").faults == []


def test_what_is_left_of_a_begun_file_counts_by_its_rows(store: Store):
    store.generations.publish(NewGeneration("f1", Codebooks(np.zeros((1, 4, 2), dtype=np.float32), True), 1))
    ledger = store.files.record_sighting("a.npz", "sig", "d", 1000)
    ledger = store.files.begin_loading(ledger.id, rows=10, dim=2, generation=1, chunk_rows=4)
    batch = EmbeddingBatch(0, 4, list("abcd"), np.ones((4, 2), dtype=np.float32))
    store.chunks.commit(ledger, batch, np.zeros((4, 1), dtype=np.int32))
    assert store.files.backlog_bytes() == pytest.approx(600)


def test_a_pause_is_kept(store: Store, tmp_path: Path):
    assert store.daemon.paused_at() is None
    store.daemon.set_paused(True)
    since = store.daemon.paused_at()
    store.daemon.set_paused(True)
    assert store.daemon.paused_at() == since
    with Store(tmp_path / "semid.db") as other:
        assert other.daemon.paused_at() == since
    store.daemon.set_paused(False)
    assert store.daemon.paused_at() is None
