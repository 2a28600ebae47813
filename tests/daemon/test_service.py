"""The daemon on small catalogues of real files, in this process: what is committed, moved, refused, resumed."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from semid_daemon.codebooks.files import load_codebooks
from semid_daemon.config import Config, parse_config
from semid_daemon.daemon.outcome import Outcome
from semid_daemon.daemon.service import Service
from semid_daemon.daemon.state_lock import make_directories
from semid_daemon.drop import open_file as reading
from semid_daemon.quantizer import Encoder, resolve_device
from semid_daemon.runtime.context import WorkContext
from semid_daemon.runtime.progress import Advance, PlainProgress, Progress
from semid_daemon.store.write.chunks import Chunks
from semid_daemon.store.write.store import Store
from tests.catalogues import SMALL, Rows, drop_npz, ids


def run(config: Config, stop: threading.Event | None = None, progress: Progress | None = None) -> Outcome:
    make_directories(config)
    with Store(config.database) as store:
        context = WorkContext(stop or threading.Event(), once=True)
        return Service(config, store, progress or PlainProgress(), context).run()


class StopAtFirstStep(PlainProgress):
    """Stops the daemon once the first step of a training is done."""

    def __init__(self, stop: threading.Event) -> None:
        super().__init__()
        self._stop = stop

    @contextlib.contextmanager
    def task(self, title: str, total: int, unit: str = "rows") -> Iterator[Advance]:
        with super().task(title, total, unit):
            yield lambda _: self._stop.set() if title == "training" else None


def query(config: Config, sql: str) -> list[tuple]:
    connection = sqlite3.connect(config.database)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def test_gather_train_encode_move(catalogue: Config, clustered: Rows):
    drop_npz(catalogue.drop_dir, "a.npz", ids("a", 40), clustered(40, 16, seed=1))
    assert run(catalogue).missing_rows == 24
    assert query(catalogue, "SELECT file, status, rows FROM files") == [("a.npz", "pending", 40)]
    assert query(catalogue, "SELECT count(*) FROM semantic_ids") == [(0,)]
    assert (catalogue.drop_dir / "a.npz").exists()

    drop_npz(catalogue.drop_dir, "b.npz", ids("b", 130), clustered(130, 16, seed=2))
    assert run(catalogue) == Outcome(rejected=0, deferred=0, missing_rows=0)
    assert query(catalogue, "SELECT file, count(*) FROM semantic_ids GROUP BY file") == [("a.npz", 40), ("b.npz", 130)]
    assert query(catalogue, "SELECT generation, trained_rows, items, status FROM generations") == [
        (1, 170, 170, "active")
    ]
    assert query(
        catalogue,
        "SELECT layer, count(*) > 1, min(value) > 0 FROM metrics WHERE run = 'train-1'"
        " AND name = 'loss' GROUP BY layer",
    ) == [(0, 1, 1), (1, 1, 1), (2, 1, 1)]
    assert query(catalogue, "SELECT first_row, rows FROM _chunks WHERE file_id = 2") == [(0, 50), (50, 50), (100, 30)]
    assert sorted(path.name for path in catalogue.done_dir.iterdir()) == ["a.npz", "b.npz"]
    assert list(catalogue.drop_dir.iterdir()) == []

    drop_npz(catalogue.drop_dir, "c.npz", ids("c", 10), clustered(10, 16, seed=3))
    run(catalogue)
    assert query(catalogue, "SELECT count(*), count(DISTINCT generation) FROM semantic_ids") == [(180, 1)]


def test_committed_codes_are_those_of_the_published_codebooks(catalogue: Config, clustered: Rows):
    rows_ND = clustered(130, 16, seed=2)
    drop_npz(catalogue.drop_dir, "b.npz", ids("b", 130), rows_ND)
    run(catalogue)
    ((fingerprint,),) = query(catalogue, "SELECT fingerprint FROM generations")
    codebooks = load_codebooks(catalogue.codebooks_dir, fingerprint)
    codes_NL = Encoder(codebooks, resolve_device("cpu")).encode(rows_ND)
    found = dict(query(catalogue, "SELECT item_id, semantic_id FROM semantic_ids"))
    assert found == {f"b{row}": "-".join(map(str, codes)) for row, codes in enumerate(codes_NL)}


def test_again_adds_nothing(catalogue: Config, clustered: Rows):
    rows_ND = clustered(130, 16)
    drop_npz(catalogue.drop_dir, "a.npz", ids("a", 130), rows_ND)
    run(catalogue)
    everything = "SELECT * FROM all_semantic_ids ORDER BY item_id"
    before = query(catalogue, everything)
    for name in ("a.npz", "copy.npz"):
        drop_npz(catalogue.drop_dir, name, ids("a", 130), rows_ND)
        run(catalogue)
        assert query(catalogue, everything) == before
    assert query(catalogue, "SELECT file, status, rows_kept, reason FROM files ORDER BY file") == [
        ("a.npz", "done", 0, None),
        ("copy.npz", "done", 130, "same bytes as a.npz"),
    ]
    assert sorted(path.name.split("-")[0] for path in catalogue.done_dir.iterdir()) == ["a", "a.npz", "copy.npz"]


def test_bad_files_are_refused_and_the_others_unharmed(catalogue: Config, clustered: Rows):
    rows_ND = clustered(130, 16)
    holes_ND = rows_ND.copy()
    holes_ND[[3, 77]] = np.nan
    drop_npz(catalogue.drop_dir, "a-holes.npz", ids("a", 130), holes_ND)
    drop_npz(catalogue.drop_dir, "b-wide.npz", ids("b", 20), clustered(20, 17))
    whole = drop_npz(catalogue.drop_dir, "c-cut.npz", ids("c", 130), rows_ND)
    whole.write_bytes(whole.read_bytes()[:-500])
    (catalogue.drop_dir / "d-empty.npy").write_bytes(b"")
    (catalogue.drop_dir / "e-text.npz").write_text("not an archive")
    drop_npz(catalogue.drop_dir, "f-good.npz", ids("f", 20), clustered(20, 16, seed=9))
    for name in ("c-cut.npz", "d-empty.npy"):
        os.utime(catalogue.drop_dir / name, (1, 1))  # long ago: nobody is writing it any more
    assert run(catalogue).rejected == 4
    files = {name: rest for name, *rest in query(catalogue, "SELECT file, status, rows_rejected, reason FROM files")}
    assert files["a-holes.npz"] == ["done", 2, "not finite: 2"]
    assert files["f-good.npz"] == ["done", 0, None]
    assert files["b-wide.npz"][0] == "rejected"
    assert "wrong dimension: 17, expected 16 (learnt from a-holes.npz" in files["b-wide.npz"][2]
    for name in ("c-cut.npz", "d-empty.npy", "e-text.npz"):
        assert files[name][0] == "rejected"
        assert (catalogue.rejected_dir / f"{name}.reason.txt").read_text().strip() == files[name][2]
    assert query(catalogue, "SELECT count(*) FROM semantic_ids") == [(128 + 20,)]
    assert query(catalogue, "SELECT item_id FROM semantic_ids WHERE item_id IN ('a3', 'a77', 'a4')") == [("a4",)]

    drop_npz(catalogue.drop_dir, "g-wide.npz", ids("g", 20), clustered(20, 17, seed=4))
    assert run(catalogue).rejected == 1
    assert query(catalogue, "SELECT reason FROM files WHERE file = 'g-wide.npz'") == [
        ("wrong dimension: 17, expected 16 (generation 1)",)
    ]


def test_configured_dimension_decides(catalogue: Config, clustered: Rows):
    config = parse_config(
        (SMALL.replace("[quantizer]", "[quantizer]\ndim = 16")).encode(), source="t", root=catalogue.root
    )
    drop_npz(config.drop_dir, "a.npz", ids("a", 80), clustered(80, 17))
    drop_npz(config.drop_dir, "b.npz", ids("b", 80), clustered(80, 16))
    assert run(config).rejected == 1
    assert query(config, "SELECT file, reason FROM files WHERE status = 'rejected'") == [
        ("a.npz", "wrong dimension: 17, expected 16 (quantizer.dim in semid.toml)")
    ]


def test_stopped_between_chunks_it_goes_on_at_the_right_row(catalogue: Config, clustered: Rows, monkeypatch):
    drop_npz(catalogue.drop_dir, "a.npz", ids("a", 64), clustered(64, 16))
    run(catalogue)
    drop_npz(catalogue.drop_dir, "b.npz", ids("b", 170), clustered(170, 16, seed=2))
    stop = threading.Event()
    commit_chunk = Chunks.commit

    def stop_after_first(*arguments, **options):
        stop.set()
        return commit_chunk(*arguments, **options)

    monkeypatch.setattr(Chunks, "commit", stop_after_first)
    run(catalogue, stop)
    monkeypatch.undo()
    assert query(catalogue, "SELECT status, rows_done FROM _files WHERE id = 2") == [("loading", 50)]
    assert query(catalogue, "SELECT state FROM daemon") == [("stopped",)]
    assert (catalogue.drop_dir / "b.npz").exists()
    run(catalogue)
    assert query(catalogue, "SELECT first_row, rows FROM _chunks WHERE file_id = 2") == [
        (0, 50),
        (50, 50),
        (100, 50),
        (150, 20),
    ]
    assert query(catalogue, "SELECT count(*) FROM semantic_ids") == [(234,)]
    assert query(catalogue, "SELECT attempts FROM files WHERE file = 'b.npz'") == [(2,)]


def test_training_interrupted_starts_anew(catalogue: Config, clustered: Rows):
    drop_npz(catalogue.drop_dir, "a.npz", ids("a", 80), clustered(80, 16))
    stop = threading.Event()
    run(catalogue, stop, StopAtFirstStep(stop))
    assert query(catalogue, "SELECT count(*) FROM generations") == [(0,)]
    assert query(catalogue, "SELECT count(*) FROM metrics WHERE run = 'train-1' AND name = 'loss'") == [(1,)]
    assert query(catalogue, "SELECT count(*) FROM events WHERE message GLOB 'training interrupted*'") == [(1,)]
    run(catalogue)
    assert query(catalogue, "SELECT count(*) FROM semantic_ids") == [(80,)]


def test_the_same_rows_give_the_same_codebooks(tmp_path: Path, clustered: Rows):
    fingerprints = set()
    for name in ("one", "two"):
        root = tmp_path / name
        root.mkdir()
        config = parse_config(SMALL.encode(), source="t", root=root)
        make_directories(config)
        drop_npz(config.drop_dir, "a.npz", ids("a", 80), clustered(80, 16))
        run(config)
        fingerprints |= set(query(config, "SELECT fingerprint FROM generations"))
    assert len(fingerprints) == 1


@pytest.mark.parametrize("policy", ["keep", "delete"])
def test_finished_files_stay_or_go(catalogue: Config, clustered: Rows, policy: str):
    text = SMALL.replace("[drop]", f'[drop]\non_done = "{policy}"')
    config = parse_config(text.encode(), source="t", root=catalogue.root)
    drop_npz(config.drop_dir, "a.npz", ids("a", 80), clustered(80, 16))
    run(config)
    assert (config.drop_dir / "a.npz").exists() == (policy == "keep")
    assert not config.done_dir.exists()
    run(config)
    assert query(config, "SELECT attempts FROM files") == [(1,)]


def test_grid_schedule_is_selectable(catalogue: Config, clustered: Rows):
    text = SMALL.replace("[training]", '[training]\ntrainer = "grid"')
    config = parse_config(text.encode(), source="t", root=catalogue.root)
    drop_npz(config.drop_dir, "a.npz", ids("a", 200), clustered(200, 16))
    run(config)
    assert query(config, "SELECT count(*) FROM semantic_ids") == [(200,)]
    # per layer 1 batch fills the buffer, 10 steps follow
    assert query(config, "SELECT layer, count(*) FROM metrics WHERE name = 'loss' GROUP BY layer") == [
        (0, 11),
        (1, 11),
        (2, 11),
    ]


def test_unreadable_file_is_deferred_and_others_go_on(catalogue: Config, clustered: Rows, monkeypatch):
    """Tests run as root, for whom every file is readable: the one seam is os.open's refusal."""
    drop_npz(catalogue.drop_dir, "a.npz", ids("a", 80), clustered(80, 16))
    drop_npz(catalogue.drop_dir, "locked.npz", ids("l", 10), clustered(10, 16))
    real_open = os.open

    def refusing(path, *arguments, **options):
        if Path(path).name == "locked.npz":
            raise PermissionError(13, "Permission denied")
        return real_open(path, *arguments, **options)

    monkeypatch.setattr(reading.os, "open", refusing)
    outcome = run(catalogue)
    monkeypatch.undo()
    assert (outcome.deferred, outcome.rejected) == (1, 0)
    assert query(catalogue, "SELECT count(*) FROM semantic_ids") == [(80,)]
    assert (catalogue.drop_dir / "locked.npz").exists()
    run(catalogue)
    assert query(catalogue, "SELECT count(*) FROM semantic_ids") == [(90,)]


def test_orphan_codebooks_are_collected(catalogue: Config, clustered: Rows):
    run(catalogue)
    catalogue.codebooks_dir.mkdir(parents=True)
    for name in ("0123.safetensors", ".4567.safetensors.tmp"):
        (catalogue.codebooks_dir / name).write_bytes(b"left by a crash")
    drop_npz(catalogue.drop_dir, "a.npz", ids("a", 80), clustered(80, 16))
    run(catalogue)
    ((fingerprint,),) = query(catalogue, "SELECT fingerprint FROM generations")
    assert [path.name for path in catalogue.codebooks_dir.iterdir()] == [f"{fingerprint}.safetensors"]


def test_files_that_vanish_are_taken_up_again_when_back(catalogue: Config, clustered: Rows):
    path = drop_npz(catalogue.drop_dir, "a.npz", ids("a", 40), clustered(40, 16))
    run(catalogue)
    aside = catalogue.root / "aside.npz"
    path.rename(aside)
    run(catalogue)
    assert query(catalogue, "SELECT status FROM files") == [("deferred",)]
    aside.rename(path)
    drop_npz(catalogue.drop_dir, "b.npz", ids("b", 40), clustered(40, 16, seed=2))
    run(catalogue)
    assert query(catalogue, "SELECT count(*) FROM semantic_ids") == [(80,)]


def test_where_only_a_sample_fits_all_rows_are_gone_over(catalogue: Config, clustered: Rows):
    text = SMALL.replace("[training]", "[training]\nmax_memory_mb = 16").replace("chunk_rows = 50", "chunk_rows = 500")
    config = parse_config(text.encode(), source="t", root=catalogue.root)
    rows = 2_200  # 2,048 rows of 1,024 values fit, as they came and as residuals
    drop_npz(config.drop_dir, "a.npz", ids("a", rows), clustered(rows, 1024))
    run(config)
    assert query(config, "SELECT trained_rows FROM generations") == [(2_048,)]
    assert query(config, "SELECT count(*) FROM semantic_ids") == [(rows,)]
    last = "SELECT layer FROM metrics WHERE run = 'train-1' AND name = 'loss' ORDER BY step DESC LIMIT 3"
    assert sorted(query(catalogue, last)) == [(0,), (1,), (2,)]


def test_content_that_was_replaced_between_two_runs_is_gone(catalogue: Config, clustered: Rows):
    drop_npz(catalogue.drop_dir, "a.npz", ids("a", 10), clustered(10, 16))
    run(catalogue)
    drop_npz(catalogue.drop_dir, "a.npz", ids("b", 10), clustered(10, 16, seed=2))
    run(catalogue)
    states = "SELECT s.name, f.status FROM _files f JOIN _sightings s ON s.file_id = f.id ORDER BY f.id, s.id"
    assert query(catalogue, states) == [("a.npz", "deferred"), ("a.npz", "pending")]


# -- what files without rows decide -------------------------------------------------------------


def test_files_without_usable_rows_decide_nothing(catalogue: Config, clustered: Rows):
    np.save(catalogue.drop_dir / "a-empty.npy", np.zeros((0, 5), np.float32))
    np.save(catalogue.drop_dir / "b-holes.npy", np.full((3, 9), np.nan, np.float32))
    run(catalogue)
    drop_npz(catalogue.drop_dir, "c.npz", ids("c", 70), clustered(70, 16))
    np.save(catalogue.drop_dir / "d-empty.npy", np.zeros((0, 7), np.float32))
    outcome = run(catalogue)
    assert dict(query(catalogue, "SELECT file, status FROM files")) == {
        "a-empty.npy": "done",
        "b-holes.npy": "rejected",  # once there are codebooks, for its dimension
        "c.npz": "done",
        "d-empty.npy": "done",
    }
    assert outcome.missing_rows == 0
    assert query(catalogue, "SELECT count(*) FROM semantic_ids") == [(70,)]
