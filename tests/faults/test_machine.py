"""Faults 50 to 64: the machine's. What they stop goes on by itself when the cause is gone."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from semid_daemon.base.errors import DeviceError, StoreError
from semid_daemon.cli.backup import make_backup
from semid_daemon.cli.doctor import examine
from semid_daemon.codebooks.files import collect_orphans
from semid_daemon.config import Config, load_config
from semid_daemon.daemon.service import Service
from semid_daemon.drop import dispose as finish
from semid_daemon.drop import open_file as reading
from semid_daemon.generations import first_training
from semid_daemon.ingest.crash_marker import CrashMarker
from semid_daemon.ingest.file_encoder import FileEncoder
from semid_daemon.quantizer import Encoder
from semid_daemon.runtime.context import Limits, WorkContext
from semid_daemon.runtime.device_watchdog import EXIT_HUNG, Watchdog
from semid_daemon.runtime.progress import PlainProgress
from semid_daemon.store.write import database as connection
from semid_daemon.store.write.store import Store
from tests.catalogues import Rows, drop_npz, ids
from tests.faults.tools import (
    SEMID,
    assert_sound,
    assert_sound_after_restart,
    configured,
    files_of,
    items,
    live,
    query,
    reason_of,
    run,
    semid,
    state_of,
    trained_catalogue,
    wait_until,
)


@pytest.fixture
def trained(tmp_path: Path, clustered: Rows) -> Config:
    """A catalogue with a generation and 70 items; looks every 0.2 s and retries soon."""
    return trained_catalogue(tmp_path, clustered, ("drop", "rescan_s = 0.2"), ("ingest", "retry_s = 0.2"))


@pytest.mark.slow
def test_fault_50_disk_full_at_commit(tmp_path: Path, clustered: Rows, caplog):
    """disk full at commit: nothing of the chunk, everything waits, recovers by itself"""
    config = configured(tmp_path, ("drop", "rescan_s = 0.2"), ("ingest", "retry_s = 0.2"))
    config.state_dir.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=9m", "tmpfs", str(config.state_dir)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount here")
    try:
        drop_npz(config.drop_dir, "a.npz", ids("a", 70), clustered(70, 16))
        with live(config):
            wait_until(lambda: items(config) == 70)
            drop_npz(config.drop_dir, "b.npz", ids("b" * 100, 20_000), clustered(20_000, 16))
            wait_until(lambda: "no space left on the device" in caplog.text)
            assert items(config) < 20_070
            subprocess.run(["mount", "-o", "remount,size=256m", str(config.state_dir)], check=True)
            wait_until(lambda: items(config) == 20_070)
        assert_sound_after_restart(config, 20_070)
    finally:
        subprocess.run(["umount", "-l", str(config.state_dir)], check=True)


def test_fault_51_disk_full_writing_a_codebook(tmp_path: Path, clustered: Rows, monkeypatch):
    """disk full writing a codebook: nothing is published, no second training, published when there is space"""
    config = configured(tmp_path, ("ingest", "retry_s = 0.2"))
    save = first_training.save_codebooks

    def full_once(*arguments):
        monkeypatch.setattr(first_training, "save_codebooks", save)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(first_training, "save_codebooks", full_once)
    drop_npz(config.drop_dir, "a.npz", ids("a", 70), clustered(70, 16))
    with live(config):
        wait_until(lambda: items(config) == 70)
    assert query(config, "SELECT DISTINCT run FROM metrics WHERE run GLOB 'train-*'") == [("train-1",)]
    assert_sound(config, 70)
    assert query(config, "SELECT count(*) FROM events WHERE message GLOB 'training put off: No space*'") == [(1,)]


def test_fault_52_database_corrupt(trained: Config):
    """database corrupt: refuse, say how to restore"""
    content = bytearray(trained.database.read_bytes())
    content[4096 * 3 : 4096 * 12] = os.urandom(4096 * 9)
    trained.database.write_bytes(content)
    with pytest.raises(StoreError, match="damaged: .*restore a backup"):
        run(trained)
    trained.database.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match="restore"):
        run(trained)


def test_fault_53_database_newer(trained: Config):
    """database newer than the code: refuse"""
    with sqlite3.connect(trained.database) as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(StoreError, match="newer semid .*upgrade"):
        run(trained)


@pytest.mark.parametrize("emptied", [False, True])
def test_fault_54_database_gone(trained: Config, emptied: bool):
    """database gone but codebooks there: refuse"""
    trained.database.unlink()
    if emptied:
        trained.database.touch()
    for command in (["run", "--once", "-c", trained.root / "semid.toml"], ["init", trained.root]):
        refused = semid(*command)
        assert refused.returncode == 1
        assert "restore a backup, or remove the codebooks" in refused.stderr
    for path in trained.codebooks_dir.iterdir():
        path.unlink()
    assert semid("init", "--anew", trained.root).returncode == 0
    run(trained)


@pytest.mark.slow
def test_fault_55_reader_holding_a_transaction(trained: Config, clustered: Rows):
    """reader holding a transaction: the write-ahead log is bounded, with a warning; goes on when it ends"""
    config = configured(trained.root, ("drop", "rescan_s = 0.2"), ("ingest", "max_wal_mb = 16"))
    reader = sqlite3.connect(f"{config.database.as_uri()}?mode=ro", uri=True, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM semantic_ids").fetchone()
    wal = config.database.with_name("semid.db-wal")
    try:
        drop_npz(config.drop_dir, "a.npz", ids("a" * 40, 20_000), clustered(20_000, 16))
        with live(config):
            wait_until(lambda: state_of(config) == "waiting", timeout_s=120)
            assert wal.stat().st_size < 32 << 20
            assert items(config) < 20_070
            reader.execute("COMMIT")
            wait_until(lambda: items(config) == 20_070, timeout_s=120)
    finally:
        reader.close()
    assert query(config, "SELECT count(*) FROM events WHERE message GLOB '*some reader holds*'") == [(1,)]
    assert_sound_after_restart(config, 20_070)


def test_fault_56_reader_of_another_user(trained: Config):
    """TUI or status by another user while the daemon is stopped: works, with the right to read and no more"""
    if os.geteuid():
        pytest.skip("only root can become another user")
    for directory in (trained.root, *list(trained.root.parents)[:-1]):
        if directory != Path("/tmp"):
            directory.chmod(0o755)
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from semid_daemon.base.errors import StoreError\n"
        "from semid_daemon.store.read.status import read_status\n"
        "os.setgid(65534), os.setuid(65534)\n"
        "try:\n"
        "    print(read_status(Path(sys.argv[1])).items)\n"
        "except StoreError as error:\n"
        "    print(error)\n"
    )
    other = subprocess.run([sys.executable, "-c", code, trained.database], capture_output=True, text=True, timeout=60)
    assert other.returncode == 0, other.stderr
    assert other.stdout == "70\n"


@pytest.mark.slow
def test_fault_57_foreign_writer(trained: Config, clustered: Rows, monkeypatch):
    """foreign writer on the database: told, and counts are read anew; while it holds the lock everything waits"""
    monkeypatch.setattr(connection, "_BUSY_TIMEOUT_S", 0.1)
    with live(trained):
        foreign = sqlite3.connect(trained.database, isolation_level=None)
        foreign.execute("BEGIN IMMEDIATE")
        drop_npz(trained.drop_dir, "a.npz", ids("a", 10), clustered(10, 16))
        time.sleep(0.5)
        assert items(trained) == 70
        foreign.execute("INSERT INTO _events (at, level, message) VALUES ('now', 'info', 'foreign')")
        foreign.execute("COMMIT")
        foreign.close()
        wait_until(lambda: items(trained) == 80)
        told = "SELECT count(*) FROM events WHERE message GLOB '*another program wrote to it*'"
        wait_until(lambda: query(trained, told) == [(1,)])
    assert_sound_after_restart(trained, 80)


@pytest.mark.slow
def test_fault_58_device_missing(trained: Config):
    """GPU missing: a clear error, never a silent CPU"""
    configured(trained.root, ("quantizer", 'device = "cuda:17"'))
    refused = semid("run", "--once", "-c", trained.root / "semid.toml")
    assert refused.returncode == 78
    assert 'quantizer.device = "cuda:17"' in refused.stderr


def test_fault_59_device_out_of_memory(trained: Config, clustered: Rows, monkeypatch):
    """GPU out of memory: halve the chunk, then defer; recovers by itself"""
    config = configured(
        trained.root,
        ("drop", "rescan_s = 0.2"),
        ("ingest", "retry_s = 0.2"),
        ("ingest", "chunk_rows = 1000"),
    )
    encode, most = Encoder._encode_at_once, [300]

    def small(self, rows_ND):
        if rows_ND.shape[0] > most[0]:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 1 GiB.")
        return encode(self, rows_ND)

    monkeypatch.setattr(Encoder, "_encode_at_once", small)
    drop_npz(config.drop_dir, "a.npz", ids("a", 1000), clustered(1000, 16))
    run(config)
    assert_sound(config, 1070)
    most[0] = 10
    drop_npz(config.drop_dir, "b.npz", ids("b", 1000), clustered(1000, 16, seed=2))
    with live(config):
        wait_until(lambda: files_of(config).get("b.npz") == "deferred")
        assert "out of memory while encoding 1,000 rows" in reason_of(config, "b.npz")
        most[0] = 300
        wait_until(lambda: items(config) == 2070)
    assert_sound_after_restart(config, 2070)


def test_fault_59_device_that_fails(trained: Config, clustered: Rows, monkeypatch):
    """the device fails otherwise: the file is deferred, and the daemon ends to be started anew"""

    def failing(self, embeddings_ND):
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")

    monkeypatch.setattr(Encoder, "encode", failing)
    drop_npz(trained.drop_dir, "a.npz", ids("a", 10), clustered(10, 16))
    with pytest.raises(DeviceError, match="illegal memory access was encountered; start the daemon again"):
        run(trained)
    monkeypatch.undo()
    assert files_of(trained)["a.npz"] == "deferred"
    assert_sound_after_restart(trained, 80)


def test_fault_61_hung_device_call(caplog):
    """hung device call: a watchdog says where, and ends the process"""
    ended = threading.Event()
    statuses = []

    def end(status: int) -> None:
        statuses.append(status)
        ended.set()

    released: list[int] = []
    watchdog = Watchdog(0.2, end, before_end=lambda: released.append(len(statuses)))
    with watchdog.watch("quick"):
        pass
    with watchdog.watch("a.npz: encoding rows from 0"):
        assert ended.wait(30)
    assert statuses == [EXIT_HUNG]
    assert released == [0]  # before the end: the file in hand is not to blame
    assert "a.npz: encoding rows from 0: no end after 0.2 s" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.EMFILE, errno.EIO, errno.ENOMEM])
def test_fault_62_too_many_open_files(trained: Config, clustered: Rows, monkeypatch, code: int):
    """too many open files, I/O errors, no memory: deferred, recovers by itself"""
    real_open, failed = os.open, []

    def refusing(path, *arguments, **options):
        if Path(path).name == "a.npz" and len(failed) < 3:
            failed.append(1)
            raise OSError(code, os.strerror(code))
        return real_open(path, *arguments, **options)

    monkeypatch.setattr(reading.os, "open", refusing)
    drop_npz(trained.drop_dir, "a.npz", ids("a", 10), clustered(10, 16))
    with live(trained):
        wait_until(lambda: items(trained) == 80)
    assert len(failed) == 3
    assert_sound_after_restart(trained, 80)


def test_fault_62_memory_error(trained: Config, clustered: Rows, monkeypatch):
    """no memory while a file is opened: deferred, recovers by itself"""
    run_file, failed = FileEncoder.run, []

    def failing(*arguments):
        if not failed:
            failed.append(1)
            raise MemoryError
        return (yield from run_file(*arguments))

    monkeypatch.setattr(FileEncoder, "run", failing)
    drop_npz(trained.drop_dir, "a.npz", ids("a", 10), clustered(10, 16))
    with live(trained):
        wait_until(lambda: files_of(trained).get("a.npz") == "deferred" or items(trained) == 80)
        wait_until(lambda: items(trained) == 80)
    assert query(trained, "SELECT message FROM events WHERE message GLOB '*out of memory*'")


@pytest.mark.slow
def test_fault_63_output_closed(trained: Config, clustered: Rows):
    """stdout and stderr closed: the daemon works on, and the database is not written to by mistake"""
    drop_npz(trained.drop_dir, "a.npz", ids("a", 10), clustered(10, 16))
    (trained.drop_dir / "bad.npz").write_text("no archive")
    command = " ".join([*SEMID, "run", "--once", "-c", str(trained.root / "semid.toml"), "<&-", ">&-", "2>&-"])
    assert subprocess.run(["bash", "-c", command], timeout=120).returncode == 3
    assert_sound(trained, 80)
    status = subprocess.run(
        ["bash", "-c", " ".join([*SEMID, "status", "-c", str(trained.root / "semid.toml"), "| true"])],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in status.stderr


def test_fault_64_backup_while_running(trained: Config, clustered: Rows, tmp_path: Path):
    """backup while running restores clean, and what came after it is taken in again"""
    config = configured(trained.root, ("ingest", "chunk_rows = 16"), ("drop", "rescan_s = 0.2"))
    drop_npz(config.drop_dir, "a.npz", ids("a", 3000), clustered(3000, 16))
    target = tmp_path / "backup.tar"
    with live(config):
        wait_until(lambda: items(config) > 200)
        make_backup(config, config.root / "semid.toml", target)
        wait_until(lambda: items(config) == 3070)
    restored_root = tmp_path / "restored"
    restored = configured(restored_root_made(restored_root))
    restored.state_dir.mkdir()
    subprocess.run(["tar", "-xf", target, "-C", restored.state_dir], check=True)
    assert load_config(restored.state_dir / "semid.toml").ingest.chunk_rows == 16
    assert 200 < items(restored) <= 3070
    assert not [finding for finding in examine(restored) if finding.level == "error" and finding.check == "database"]
    (config.done_dir / "a.npz").rename(restored.drop_dir / "a.npz")
    assert_sound_after_restart(restored, 3070)
    assert query(restored, "SELECT item_id, semantic_id, suffix FROM semantic_ids ORDER BY 1") == query(
        config, "SELECT item_id, semantic_id, suffix FROM semantic_ids ORDER BY 1"
    )


def restored_root_made(root: Path) -> Path:
    root.mkdir()
    return root


def test_a_move_that_fails_is_made_later(trained: Config, clustered: Rows, monkeypatch):
    """Not numbered: done/ cannot be written to for a while."""
    rename, failed = os.rename, []

    def refusing(source, target, **directories):
        if Path(source).name == "a.npz" and len(failed) < 2:
            failed.append(1)
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return rename(source, target, **directories)

    aside = drop_npz(trained.root, "aside.npz", ids("a", 10), clustered(10, 16))
    aside.rename(trained.drop_dir / "a.npz")
    monkeypatch.setattr(finish.os, "rename", refusing)
    with live(trained):
        wait_until(lambda: (trained.done_dir / "a.npz").exists())
    assert files_of(trained)["a.npz"] == "done"
    assert_sound_after_restart(trained, 80)


def test_a_deferral_is_persisted_with_its_pause(trained: Config, clustered: Rows, monkeypatch):
    """Not numbered: attempts and retry times are in the ledger, and pauses double."""
    config = configured(trained.root, ("ingest", "retry_s = 100"))
    run_file = FileEncoder.run

    def failing(*arguments):
        raise MemoryError
        yield

    monkeypatch.setattr(FileEncoder, "run", failing)
    drop_npz(config.drop_dir, "a.npz", ids("a", 10), clustered(10, 16))
    for failures in (1, 2, 3):
        run(config)
        ((found, pause_s),) = query(
            config,
            "SELECT failures, (julianday(retry_at) - julianday('now')) * 86400 FROM _files WHERE status = 'deferred'",
        )
        assert found == failures
        assert 80 * 2 ** (failures - 1) < pause_s <= 100 * 2 ** (failures - 1)
    monkeypatch.setattr(FileEncoder, "run", run_file)
    assert np.array(query(config, "SELECT retry_at IS NOT NULL FROM files WHERE file = 'a.npz'")).all()
    assert_sound_after_restart(config, 80)


def test_a_device_that_hangs_is_not_held_against_the_file(trained: Config, clustered: Rows, monkeypatch):
    in_hand = []

    def watchdog(limit_s: float, **options) -> Watchdog:
        return Watchdog(0.2, lambda status: in_hand.append(CrashMarker(trained.crash_marker).left_behind()), **options)

    encode = Encoder.encode

    def hang(self, embeddings_ND):
        assert CrashMarker(trained.crash_marker).left_behind() is not None
        wait_until(lambda: in_hand)
        return encode(self, embeddings_ND)

    monkeypatch.setattr("semid_daemon.daemon.service.Watchdog", watchdog)
    monkeypatch.setattr(Encoder, "encode", hang)
    drop_npz(trained.drop_dir, "a.npz", ids("a", 10), clustered(10, 16))
    run(trained)
    assert in_hand == [None]


def test_disk_full_for_the_marker(trained: Config, clustered: Rows, monkeypatch):
    """what is in hand cannot be noted: everything waits, recovers by itself"""
    real, failed = os.pwrite, []

    def full(descriptor, text, offset):
        if text.strip() and len(failed) < 1:
            failed.append(1)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, text, offset)

    drop_npz(trained.drop_dir, "a.npz", ids("a", 10), clustered(10, 16))
    monkeypatch.setattr("semid_daemon.ingest.crash_marker.os.pwrite", full)
    with live(trained, Limits(first_pause_s=0.05)):
        wait_until(lambda: items(trained) == 80)
    assert failed == [1]
    assert_sound_after_restart(trained, 80)


def test_what_lies_among_the_codebooks(tmp_path: Path):
    """directories and links named like codebooks do not keep the daemon from starting"""
    (tmp_path / "directory.safetensors").mkdir()
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "kept.safetensors")
    for name in ("kept.safetensors", "orphan.safetensors", ".orphan.safetensors.tmp"):
        (tmp_path / name).write_text("")
    collected = collect_orphans(tmp_path, {"kept"})
    assert [path.name for path in collected] == [".orphan.safetensors.tmp", "orphan.safetensors"]
    assert len(list(tmp_path.iterdir())) == 3


def test_source_missing_is_told(catalogue: Config):
    """a drop directory that cannot be scanned: what `run --once` leaves behind says so"""
    catalogue.drop_dir.rmdir()
    catalogue.drop_dir.symlink_to(catalogue.root / "nowhere")
    with Store(prepared(catalogue)) as store:
        outcome = Service(catalogue, store, PlainProgress(), WorkContext(once=True)).run()
    assert outcome.source_missing is not None
    assert "No such file" in outcome.source_missing


def prepared(config: Config) -> Path:
    config.commands_dir.mkdir(parents=True)
    return config.database


@pytest.mark.parametrize("early", [True, False], ids=["an event came", "nothing happened"])
def test_the_daemon_attends_while_files_settle(tmp_path: Path, early: bool):
    """a long settle_ms: heartbeats and commands go on, and it is waited for once"""
    config = configured(tmp_path, ("drop", "settle_ms = 3000"))
    time_s, attended = [0.0], []

    class Stop(threading.Event):
        def wait(self, timeout=None):
            time_s[0] += timeout or 0.0
            return self.is_set()

    with Store(prepared(config)) as store:
        service = Service(config, store, PlainProgress(), WorkContext(Stop(), lambda: time_s[0]))
        service._intake._is_unstable = True
        service._changed = Stop()
        if early:
            service._changed.set()
        service._heartbeat.beat = lambda: attended.append(time_s[0])
        service._idle()
        service._marker.close()
    assert time_s[0] == pytest.approx(3.0)
    assert max(after - before for before, after in zip(attended, attended[1:], strict=False)) < 0.3
