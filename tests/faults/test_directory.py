"""Faults 9 to 36: what happens to files and directories while nobody asks the daemon."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import watchfiles

from semid_daemon.base.clock import utc_in
from semid_daemon.config import Config
from semid_daemon.drop import open_file as reading
from semid_daemon.ingest import disposal, intake
from semid_daemon.ingest.register import Register
from semid_daemon.quantizer import Encoder
from semid_daemon.runtime.context import Limits
from semid_daemon.store.write import files as ledger
from tests.catalogues import Rows, drop_npz, ids
from tests.faults.tools import (
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
    start,
    state_of,
    trained_catalogue,
    wait_until,
)


@pytest.fixture
def trained(tmp_path: Path, clustered: Rows) -> Config:
    """A catalogue with a generation and 70 items; looks every 0.2 s."""
    return trained_catalogue(tmp_path, clustered, ("drop", "rescan_s = 0.2"))


def deaf(monkeypatch) -> None:
    """Nothing is heard of the directory any more."""

    def watch(*arguments, stop_event, **options):
        stop_event.wait()
        yield from ()

    monkeypatch.setattr(watchfiles, "watch", watch)


@pytest.mark.slow
def test_fault_09_event_overflow(trained: Config, clustered: Rows):
    """inotify overflow (stopped, 20,000 names made, continued): the scan finds what events lost"""
    config = configured(trained.root, ("drop", "rescan_s = 1"))
    daemon = start(config)
    try:
        wait_until(lambda: state_of(config) == "idle")
        daemon.send_signal(signal.SIGSTOP)
        for number in range(20_000):
            (config.drop_dir / f".{number}.tmp").touch()
        drop_npz(config.drop_dir, "last.npz", ids("last", 10), clustered(10, 16))
        daemon.send_signal(signal.SIGCONT)
        wait_until(lambda: items(config) == 80)
    finally:
        daemon.kill()
        daemon.wait()
    assert_sound_after_restart(config, 80)


@pytest.mark.slow
def test_fault_10_very_many_small_files(trained: Config, clustered: Rows):
    """many small files at once: all, no more than a bounded number of them waiting (100,000: benchmarks)"""
    rows_ND = clustered(1_500, 16)
    for number in range(1_500):
        np.save(trained.drop_dir / f"{number}.npy", rows_ND[number : number + 1])
    most = 0
    take_up = intake.Intake.take_up

    def counting(self, **options):
        nonlocal most
        worked = yield from take_up(self, **options)
        most = max(most, len(self.pending))
        return worked

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intake.Intake, "take_up", counting)
        run(trained, Limits(most_pending=100))
    assert most == 100
    assert_sound(trained, 1_570)


def test_fault_11_watch_limit(trained: Config, clustered: Rows, monkeypatch, caplog):
    """inotify watch limit: polling and a warning"""

    def refused(*arguments, **options):
        raise OSError(28, "OS file watch limit reached")

    monkeypatch.setattr(watchfiles, "watch", refused)
    with live(trained):
        drop_npz(trained.drop_dir, "a.npz", ids("a", 10), clustered(10, 16))
        wait_until(lambda: items(trained) == 80)
    assert "watching failed" in caplog.text


def test_fault_12_files_in_new_directories(trained: Config, clustered: Rows):
    """files in sub-directories created fast"""
    with live(trained):
        for number in range(20):
            directory = trained.drop_dir / f"{number}" / "deeper"
            directory.mkdir(parents=True)
            drop_npz(directory, "a.npz", ids(f"{number}-", 3), clustered(3, 16, seed=number))
        wait_until(lambda: items(trained) == 130)
    assert_sound_after_restart(trained, 130)


def test_fault_13_a_populated_directory_moved_in(trained: Config, clustered: Rows):
    """a populated directory moved in"""
    aside = trained.root / "aside"
    aside.mkdir()
    for number in range(5):
        drop_npz(aside, f"{number}.npz", ids(f"{number}-", 3), clustered(3, 16, seed=number))
    with live(trained):
        aside.rename(trained.drop_dir / "inside")
        wait_until(lambda: items(trained) == 85)
    assert (trained.done_dir / "inside" / "0.npz").exists()


def test_fault_14_root_deleted_and_recreated(tmp_path: Path, clustered: Rows):
    """root deleted and recreated: "source missing", then everything goes on; no file is marked as gone"""
    config = configured(tmp_path, ("drop", "rescan_s = 0.2"))
    drop_npz(config.drop_dir, "a.npz", ids("a", 40), clustered(40, 16))
    with live(config):
        wait_until(lambda: state_of(config) == "gathering" and files_of(config) == {"a.npz": "pending"})
        # All at once: a daemon that looked while only the file was gone would rightly say so.
        shutil.rmtree(config.drop_dir.rename(tmp_path / "deleted"))
        wait_until(lambda: state_of(config) == "source missing")
        assert files_of(config) == {"a.npz": "pending"}
        config.drop_dir.mkdir()
        wait_until(lambda: state_of(config) == "idle")
        assert files_of(config) == {"a.npz": "pending"}
        drop_npz(config.drop_dir, "b.npz", ids("b", 70), clustered(70, 16, seed=3))
        wait_until(lambda: items(config) == 70)
        drop_npz(config.drop_dir, "a.npz", ids("a", 40), clustered(40, 16))
        wait_until(lambda: items(config) == 110)
    assert_sound_after_restart(config, 110)


def test_fault_15_root_unmounted(tmp_path: Path, clustered: Rows):
    """root unmounted: "source missing", ledger kept, also when it is missing at start"""
    config = configured(tmp_path, ("drop", "rescan_s = 0.2"))
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(config.drop_dir)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount here")
    try:
        drop_npz(config.drop_dir, "a.npz", ids("a", 40), clustered(40, 16))
        run(config)
    finally:
        subprocess.run(["umount", str(config.drop_dir)], check=True)
    run(config)
    assert files_of(config) == {"a.npz": "pending"}
    warned = [message for (message,) in query(config, "SELECT message FROM events WHERE level = 'warning'")]
    assert any(message.startswith("source missing: 1 unfinished files") for message in warned)


def test_fault_16_no_events_at_all(trained: Config, clustered: Rows, monkeypatch):
    """network file system, where no event ever comes: polling"""
    deaf(monkeypatch)
    with live(trained):
        drop_npz(trained.drop_dir, "a.npz", ids("a", 10), clustered(10, 16))
        wait_until(lambda: items(trained) == 80)


def npy_bytes(rows_ND: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, rows_ND)
    return buffer.getvalue()


def test_fault_17_slow_writer(trained: Config, clustered: Rows):
    """slow writer stalling past the settle time: read once, when it is whole"""
    config = configured(trained.root, ("drop", "rescan_s = 0.2"), ("drop", "incomplete_grace_s = 3600"))
    content = npy_bytes(clustered(10, 16))
    with live(config):
        with (config.drop_dir / "slow.npy").open("wb") as file:
            for start in range(0, len(content), 200):
                assert "slow.npy" not in files_of(config)
                file.write(content[start : start + 200])
                file.flush()
                time.sleep(0.1)  # several times the settle time
        wait_until(lambda: items(config) == 80)
    assert query(config, "SELECT count(*) FROM _files") == [(2,)]


def test_fault_18_part_then_rename(trained: Config, clustered: Rows):
    """.part then rename: one ingest"""
    content = npy_bytes(clustered(10, 16))
    with live(trained):
        partial = trained.drop_dir / "a.npy.part"
        partial.write_bytes(content[:300])
        time.sleep(0.5)
        assert "a.npy" not in files_of(trained)
        partial.write_bytes(content)
        partial.rename(trained.drop_dir / "a.npy")
        wait_until(lambda: items(trained) == 80)
    assert query(trained, "SELECT attempts FROM files WHERE file = 'a.npy'") == [(1,)]


def test_fault_19_truncated_later_complete(trained: Config, clustered: Rows):
    """truncated file, later complete: the first is rejected, the second is another content"""
    content = npy_bytes(clustered(10, 16))
    path = trained.drop_dir / "a.npy"
    path.write_bytes(content[:-7])
    assert run(trained).rejected in (0, 1)
    wait_until(lambda: run(trained).rejected or files_of(trained).get("a.npy") == "rejected")
    path.write_bytes(content)
    assert_sound_after_restart(trained, 80)
    assert sorted(query(trained, "SELECT status FROM files WHERE file = 'a.npy'")) == [("done",), ("rejected",)]


def test_fault_20_append_after_done(trained: Config, clustered: Rows):
    """append after done: a new digest, only the new rows get IDs"""
    config = configured(trained.root, ("drop", 'on_done = "keep"'))
    rows_ND = clustered(20, 16)
    drop_npz(config.drop_dir, "a.npz", ids("a", 10), rows_ND[:10])
    run(config)
    drop_npz(config.drop_dir, "a.npz", ids("a", 20), rows_ND)
    assert_sound_after_restart(config, 90)
    assert query(config, "SELECT rows, rows_kept FROM files WHERE file = 'a.npz' ORDER BY rows") == [(10, 0), (20, 10)]


def meddle(monkeypatch, meddling) -> None:
    """Once, after a chunk was read and encoded and before it is committed."""
    encode = Encoder.encode
    meddled = []

    def encode_and_meddle(self, embeddings_ND):
        codes_NL = encode(self, embeddings_ND)
        if not meddled:
            meddled.append(True)
            meddling()
        return codes_NL

    monkeypatch.setattr(Encoder, "encode", encode_and_meddle)


def test_fault_21_edited_while_being_read(trained: Config, clustered: Rows, monkeypatch):
    """edit in place while reading: noticed before the commit, read again as what it is now"""
    path = drop_npz(trained.drop_dir, "a.npz", ids("old", 30), clustered(30, 16, seed=1))
    meddle(monkeypatch, lambda: drop_npz(trained.drop_dir, path.name, ids("new", 30), clustered(30, 16, seed=2)))
    run(trained)
    assert_sound_after_restart(trained, 100)
    assert query(trained, "SELECT count(*) FROM semantic_ids WHERE item_id GLOB 'old*'") == [(0,)]


def test_fault_22_truncated_while_being_read(trained: Config, clustered: Rows, monkeypatch):
    """truncated while it is read: no SIGBUS (nothing is mapped), no row of it"""
    path = trained.drop_dir / "a.npy"
    path.write_bytes(npy_bytes(clustered(200, 16)))
    meddle(monkeypatch, lambda: os.truncate(path, 150))
    run(trained)
    assert_sound_after_restart(trained, 70)


def test_fault_23_same_bytes_new_name(trained: Config, clustered: Rows):
    """same bytes, new name: one set of rows, two sightings"""
    drop_npz(trained.drop_dir, "again.npz", ids("base", 70), clustered(70, 16))
    assert_sound_after_restart(trained, 70)
    assert query(trained, "SELECT count(*) FROM _files") == [(1,)]
    assert query(trained, "SELECT file, status, rows_kept FROM files ORDER BY seen_at") == [
        ("base.npz", "done", 0),
        ("again.npz", "done", 70),
    ]


def test_fault_24_same_name_new_bytes(trained: Config, clustered: Rows):
    """same name, new bytes"""
    drop_npz(trained.drop_dir, "base.npz", ids("other", 10), clustered(10, 16, seed=4))
    assert_sound_after_restart(trained, 80)
    assert files_of(trained) == {"base.npz": "done"}
    assert query(trained, "SELECT count(*) FROM files") == [(2,)]


@pytest.mark.parametrize("policy", ["keep", "replace"])
def test_fault_25_same_item_in_two_files(trained: Config, clustered: Rows, policy: str):
    """same item in two files: the configured policy, counted"""
    config = configured(trained.root, ("ingest", f'on_existing = "{policy}"'))
    before = dict(query(config, "SELECT item_id, semantic_id FROM semantic_ids"))
    rows_ND = -clustered(70, 16)
    drop_npz(config.drop_dir, "b.npz", ids("base", 50) + ids("b", 20), rows_ND)
    assert_sound_after_restart(config, 90)
    counts = query(config, "SELECT rows, rows_kept, rows_replaced FROM files WHERE file = 'b.npz'")
    after = dict(query(config, "SELECT item_id, semantic_id FROM semantic_ids"))
    moved = {item for item in before if after[item] != before[item]}
    if policy == "keep":
        assert counts == [(70, 50, 0)]
        assert not moved
    else:
        assert counts == [(70, 0, 50)]
        assert moved
        assert moved <= set(ids("base", 50))


def test_fault_26_inode_reuse(trained: Config, clustered: Rows):
    """inode reuse: the digest decides, not the inode"""
    config = configured(trained.root, ("drop", 'on_done = "delete"'))
    inodes = []
    for number in range(5):
        path = config.drop_dir / "a.npz"
        drop_npz(config.drop_dir, "a.npz", ids(f"{number}-", 10), clustered(10, 16, seed=number))
        inodes.append(path.stat().st_ino)
        run(config)
        assert not path.exists()
    assert_sound(config, 120)
    if len(set(inodes)) == 5:
        pytest.skip("no inode was reused here, though every file was read")


def test_fault_27_same_size_and_mtime(trained: Config, clustered: Rows):
    """same size and mtime, other bytes: seen by the change time"""
    config = configured(trained.root, ("drop", 'on_done = "keep"'))
    path = config.drop_dir / "a.npz"
    for prefix in ("a", "b"):
        with path.open("wb") as file:
            np.savez(file, item_ids=np.array(ids(prefix, 10)), embeddings=clustered(10, 16))
        os.utime(path, ns=(10**18, 10**18))
        run(config)
    assert_sound(config, 90)


@pytest.mark.parametrize("mtime", [0, 4_000_000_000])
def test_fault_28_odd_times(trained: Config, clustered: Rows, mtime: int):
    """mtime in 1970 or the future"""
    os.utime(drop_npz(trained.drop_dir, "a.npz", ids("a", 10), clustered(10, 16)), (mtime, mtime))
    assert_sound_after_restart(trained, 80)


@pytest.mark.parametrize("shift_s", [3600, -3600])
def test_fault_29_wall_clock_set(trained: Config, clustered: Rows, monkeypatch, shift_s: int):
    """wall clock ±1 h: settling and pauses go by the monotonic clock; a persisted retry time is bounded"""
    config = configured(trained.root, ("drop", "rescan_s = 0.2"), ("ingest", "retry_s = 0.2"))
    drop_npz(config.drop_dir, "a.npz", ids("a", 10), clustered(10, 16))
    failing = fail_once(monkeypatch, "a.npz", 5)
    run(config)
    assert failing
    assert files_of(config)["a.npz"] == "deferred"
    monkeypatch.setattr(ledger, "utc_now", lambda: utc_in(shift_s))
    monkeypatch.setattr(disposal, "seconds_until", lambda at: shift_s)
    monkeypatch.setattr(intake.time, "time", lambda: time.monotonic() + shift_s)
    with live(config):
        wait_until(lambda: items(config) == 80)


def fail_once(monkeypatch, name: str, code: int) -> list[str]:
    """The next opening of the file fails. Tests run as root, for whom every file is readable."""
    real_open = os.open
    failed: list[str] = []

    def refusing(path, *arguments, **options):
        if Path(path).name == name and not failed:
            failed.append(name)
            raise OSError(code, os.strerror(code))
        return real_open(path, *arguments, **options)

    monkeypatch.setattr(reading.os, "open", refusing)
    return failed


def test_fault_30_deleted_before_it_is_read(trained: Config, clustered: Rows, monkeypatch):
    """deleted before it is read: no error, not even an entry"""
    drop_npz(trained.drop_dir, "a.npz", ids("a", 10), clustered(10, 16))
    enter = Register.enter

    def delete_first(self, file, is_stable):
        file.path.unlink()
        return enter(self, file, is_stable)

    monkeypatch.setattr(Register, "enter", delete_first)
    outcome = run(trained)
    assert (outcome.rejected, outcome.deferred) == (0, 0)
    assert_sound(trained, 70)


def test_fault_30_deleted_while_it_waits(catalogue: Config, clustered: Rows):
    """deleted while it waits: gone, and taken up again when it is back"""
    path = drop_npz(catalogue.drop_dir, "a.npz", ids("a", 40), clustered(40, 16))
    run(catalogue)
    path.unlink()
    run(catalogue)
    assert files_of(catalogue) == {"a.npz": "deferred"}
    assert reason_of(catalogue, "a.npz").startswith("gone from the drop directory")


def test_fault_31_symbolic_links(trained: Config, clustered: Rows, caplog):
    """symlinks (file, directory, loop, dangling): never followed, shown"""
    outside = trained.root / "outside"
    outside.mkdir()
    drop_npz(outside, "a.npz", ids("a", 10), clustered(10, 16))
    for name, target in {"file.npz": outside / "a.npz", "dir": outside, "loop": trained.drop_dir}.items():
        os.symlink(target, trained.drop_dir / name)
    os.symlink(trained.root / "nothing", trained.drop_dir / "dangling.npz")
    run(trained)
    assert_sound(trained, 70)
    for name in ("file.npz", "dir", "loop", "dangling.npz"):
        assert f"{name}: symbolic link: never read" in caplog.text
    assert query(trained, "SELECT count(*) FROM events WHERE message GLOB '*: symbolic link: *'") == [(4,)]


def test_fault_32_things_that_are_no_files(trained: Config, caplog):
    """FIFO, socket, device: skipped, no hang"""
    os.mkfifo(trained.drop_dir / "pipe.npz")
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.getcwd()
        os.chdir(trained.drop_dir)  # socket paths are short
        try:
            listening.bind("socket.npz")
        finally:
            os.chdir(here)
        if not os.geteuid():
            os.mknod(trained.drop_dir / "device.npz", 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero
        run(trained)
    for name in ["pipe.npz", "socket.npz"] + ([] if os.geteuid() else ["device.npz"]):
        assert f"{name}: not a regular file" in caplog.text


def test_fault_33_names_that_are_not_utf8(trained: Config, clustered: Rows):
    """non-UTF-8 name: read like any other, shown escaped, and the watcher's death costs nothing"""
    with live(trained):
        drop_npz(trained.drop_dir, os.fsdecode(b"\xff\xfe.npz"), ids("a", 10), clustered(10, 16))
        wait_until(lambda: items(trained) == 80)
        drop_npz(trained.drop_dir, "b.npz", ids("b", 10), clustered(10, 16, seed=2))
        wait_until(lambda: items(trained) == 90)
    assert files_of(trained)["\\xff\\xfe.npz"] == "done"


@pytest.mark.slow
def test_fault_34_names_that_attack_a_terminal(trained: Config, clustered: Rows):
    """newline, bidi, markup in names: escaped everywhere"""
    name = "a\n\x1b[31m\u202e[bold].npz"
    drop_npz(trained.drop_dir, name, ["item\x1b[31m\u202e"], clustered(1, 16))
    ran = semid("run", "--once", "-c", trained.root / "semid.toml")
    assert ran.returncode == 0
    shown = semid("lookup", "-c", trained.root / "semid.toml", "item\x1b[31m\u202e")
    for text in (ran.stderr, shown.stdout, *files_of(trained)):
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "a\\n\\x1b[31m\\u202e[bold].npz" in files_of(trained)
    (found,) = json.loads(semid("lookup", "--json", "-c", trained.root / "semid.toml", "item\x1b[31m\u202e").stdout)
    assert found["item_id"] == "item\x1b[31m\u202e"


def test_fault_35_unreadable_file(trained: Config, clustered: Rows, monkeypatch):
    """unreadable file: deferred and shown, others go on; it recovers by itself"""
    config = configured(trained.root, ("drop", "rescan_s = 0.2"), ("ingest", "retry_s = 0.5"))
    drop_npz(config.drop_dir, "a.npz", ids("a", 10), clustered(10, 16))
    drop_npz(config.drop_dir, "locked.npz", ids("l", 10), clustered(10, 16, seed=2))
    fail_once(monkeypatch, "locked.npz", 13)
    with live(config):
        wait_until(lambda: files_of(config).get("locked.npz") == "deferred")
        wait_until(lambda: items(config) >= 80)
        wait_until(lambda: items(config) == 90)
    assert_sound_after_restart(config, 90)
    assert query(config, "SELECT count(*) FROM files") == [(3,)]


def test_fault_35_unreadable_directory(trained: Config, clustered: Rows, monkeypatch, caplog):
    """unreadable directory: noted, others go on"""
    drop_npz(trained.drop_dir, "a.npz", ids("a", 10), clustered(10, 16))
    (trained.drop_dir / "closed").mkdir()
    scandir = os.scandir

    def refusing(path):
        if Path(f"/proc/self/fd/{path}").readlink().name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("semid_daemon.drop.scan.os.scandir", refusing)
    run(trained)
    assert "closed: directory cannot be read: Permission denied" in caplog.text
    assert_sound(trained, 80)


def test_fault_36_empty_files(trained: Config):
    """0 bytes: rejected; 0 rows: done with nothing"""
    (trained.drop_dir / "empty.npy").write_bytes(b"")
    os.utime(trained.drop_dir / "empty.npy", (1, 1))
    np.save(trained.drop_dir / "rowless.npy", np.zeros((0, 16), np.float32))
    assert run(trained).rejected == 1
    assert {**files_of(trained), "base.npz": ""} == {"base.npz": "", "empty.npy": "rejected", "rowless.npy": "done"}
    assert_sound(trained, 70)
