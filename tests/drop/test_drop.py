"""The drop directory: what is seen, what has settled, what is opened, and where files end."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from semid_daemon.drop import finish
from semid_daemon.drop.reading import FileChangedError, digest_of, open_drop_file
from semid_daemon.drop.scan import Scan, printable, scan
from semid_daemon.drop.settling import Settling
from semid_daemon.drop.wakeups import Wakeups
from semid_daemon.records import DropFile

SIDECARS = (".ids.txt", ".ids.npy")


def look(directory: Path) -> Scan:
    return scan(directory, supported=lambda name: name.endswith((".npy", ".npz")), sidecar_suffixes=SIDECARS)


def only(directory: Path) -> DropFile:
    (file,) = look(directory).files.values()
    return file


def test_scan_sees_files_below_and_passes_over_the_rest(tmp_path: Path):
    (tmp_path / "a.npz").write_bytes(b"1")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "b.npy").write_bytes(b"22")
    (tmp_path / ".hidden.npz").write_bytes(b"")
    for name in ("c.npz.part", "d.npz.tmp", "e.npz~", "f.npz.crdownload", "g.npz.filepart"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "notes.txt").write_bytes(b"")
    os.symlink(tmp_path / "a.npz", tmp_path / "link.npz")
    os.symlink(tmp_path, tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe.npz")
    found = look(tmp_path)
    assert set(found.files) == {"a.npz", "deep/er/b.npy"}
    assert found.files["deep/er/b.npy"].signature.size_bytes == 2
    assert set(found.skipped) == {"notes.txt", "link.npz", "loop", "pipe.npz"}
    assert found.skipped["link.npz"].startswith("symbolic link")
    assert found.skipped["pipe.npz"].startswith("not a regular file")


@pytest.mark.parametrize("sidecar", ["a.ids.txt", "a.ids.npy", "a.npy.ids.txt", "a.npy.ids.npy"])
def test_scan_pairs_sidecars(tmp_path: Path, sidecar: str):
    (tmp_path / "a.npy").write_bytes(b"1")
    (tmp_path / sidecar).write_bytes(b"x")
    assert only(tmp_path).sidecar == tmp_path / sidecar


def test_scan_of_a_missing_directory_raises(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        look(tmp_path / "missing")


def test_names_are_printable(tmp_path: Path):
    raw = os.fsencode(tmp_path) + b"/\xff\n\x1b[31m.npz"
    with open(raw, "wb") as file:
        file.write(b"1")
    (name,) = look(tmp_path).files
    assert name == "\\xff\\n\\x1b[31m.npz"
    assert printable(Path("a\u202eb")) == "a\\u202eb"


def test_settling_needs_two_equal_looks(tmp_path: Path):
    settling = Settling(settle_s=1.0)
    path = tmp_path / "a.npz"
    path.write_bytes(b"1")
    assert settling.look(look(tmp_path).files, now=0.0) == ([], True)
    assert settling.look(look(tmp_path).files, now=0.5) == ([], True)
    settled, more = settling.look(look(tmp_path).files, now=1.0)
    assert [file.name for file in settled] == ["a.npz"]
    assert not more
    assert settling.resting_s("a.npz", 5.0) == 5.0
    path.write_bytes(b"12")
    assert settling.look(look(tmp_path).files, now=6.0) == ([], True)
    path.unlink()
    assert settling.look(look(tmp_path).files, now=7.0) == ([], False)


def test_settling_sees_other_bytes_of_the_same_size_and_mtime(tmp_path: Path):
    settling = Settling(settle_s=0.0)
    path = tmp_path / "a.npz"
    path.write_bytes(b"1")
    before = path.stat()
    settling.look(look(tmp_path).files, now=0.0)
    time.sleep(0.02)
    path.write_bytes(b"2")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    first = only(tmp_path).signature
    assert first.mtime_ns == before.st_mtime_ns
    assert first.ctime_ns != before.st_ctime_ns
    assert settling.resting_s("a.npz", 9.0) == 9.0
    settling.look(look(tmp_path).files, now=9.0)
    assert settling.resting_s("a.npz", 9.0) == 0.0


def test_digest_is_of_bytes_and_sidecar(tmp_path: Path):
    def digest() -> str:
        with open_drop_file(only(tmp_path)) as opened:
            return digest_of(opened)

    path = tmp_path / "a.npy"
    path.write_bytes(b"1" * 3_000_000)
    alone = digest()
    path.rename(tmp_path / "b.npy")
    assert digest() == alone
    (tmp_path / "b.ids.txt").write_text("x\n")
    with_ids = digest()
    (tmp_path / "b.ids.txt").write_text("y\n")
    assert len({alone, with_ids, digest()}) == 3


def test_opening_what_is_no_longer_there(tmp_path: Path):
    path = tmp_path / "a.npz"
    path.write_bytes(b"1")
    file = only(tmp_path)
    path.write_bytes(b"22")
    with pytest.raises(FileChangedError, match="changed"), open_drop_file(file):
        pass
    path.unlink()
    with pytest.raises(FileChangedError, match="gone"), open_drop_file(file):
        pass
    os.mkfifo(path)
    with pytest.raises(FileChangedError, match="not a regular file"), open_drop_file(file):
        pass
    path.unlink()
    os.symlink("/etc/hostname", path)
    with pytest.raises(OSError, match="symbolic") as refused, open_drop_file(file):
        pass
    assert refused.value.errno == errno.ELOOP


def test_change_while_open_is_noticed(tmp_path: Path):
    path = tmp_path / "a.npz"
    path.write_bytes(b"1")
    with open_drop_file(only(tmp_path)) as opened:
        opened.check_unchanged()
        with path.open("ab") as file:
            file.write(b"2")
        with pytest.raises(FileChangedError):
            opened.check_unchanged()


def test_moving_away_never_overwrites(tmp_path: Path):
    drop_dir, done = tmp_path / "drop", tmp_path / "done"
    (drop_dir / "sub").mkdir(parents=True)
    for content in (b"1", b"22"):
        (drop_dir / "sub" / "a.npy").write_bytes(content)
        (drop_dir / "sub" / "a.ids.txt").write_text("x")
        finish.move_away(only(drop_dir), drop_dir, done, digest="0123456789abcdef")
    assert sorted(path.name for path in (done / "sub").iterdir()) == [
        "a-0123456789ab.ids.txt",
        "a-0123456789ab.npy",
        "a.ids.txt",
        "a.npy",
    ]
    assert (done / "sub" / "a.npy").read_bytes() == b"1"
    assert list((drop_dir / "sub").iterdir()) == []


def test_moving_a_file_that_is_gone(tmp_path: Path):
    (tmp_path / "drop").mkdir()
    (tmp_path / "drop" / "a.npy").write_bytes(b"1")
    file = only(tmp_path / "drop")
    file.path.unlink()
    assert finish.move_away(file, tmp_path / "drop", tmp_path / "done", "d") is None
    finish.delete(file)


def test_moving_across_file_systems_copies(tmp_path: Path):
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    (tmp_path / "drop").mkdir()
    (tmp_path / "drop" / "a.npy").write_bytes(b"1")
    target_dir = shm / f"semid-test-{os.getpid()}"
    try:
        target = finish.move_away(only(tmp_path / "drop"), tmp_path / "drop", target_dir, "d")
        assert target is not None
        assert target.read_bytes() == b"1"
        assert [path.name for path in target_dir.iterdir()] == ["a.npy"]
        assert list((tmp_path / "drop").iterdir()) == []
    finally:
        for path in target_dir.iterdir():
            path.unlink()
        target_dir.rmdir()


def test_a_rejected_file_has_its_reason_beside_it(tmp_path: Path):
    (tmp_path / "drop").mkdir()
    (tmp_path / "drop" / "a.npy").write_bytes(b"1")
    finish.reject(only(tmp_path / "drop"), tmp_path / "drop", tmp_path / "rejected", "d", "too small")
    assert (tmp_path / "rejected" / "a.npy").read_bytes() == b"1"
    assert (tmp_path / "rejected" / "a.npy.reason.txt").read_text() == "too small\n"


def test_events_wake(tmp_path: Path):
    changed = threading.Event()
    with Wakeups(tmp_path, changed):
        for attempt in range(50):  # the watcher needs a moment before it hears anything
            (tmp_path / f"{attempt}.npz").write_bytes(b"1")
            if changed.wait(0.1):
                break
        assert changed.is_set()


def test_watching_survives_a_name_that_is_not_utf8(tmp_path: Path):
    changed = threading.Event()
    with Wakeups(tmp_path, changed):
        time.sleep(0.3)
        with open(os.fsencode(tmp_path) + b"/\xff.npz", "wb") as file:
            file.write(b"1")
        time.sleep(1.5)
        changed.clear()
        (tmp_path / "a.npz").write_bytes(b"1")
        assert changed.wait(5)


def test_watching_a_directory_that_appears_later(tmp_path: Path):
    changed = threading.Event()
    with Wakeups(tmp_path / "later", changed):
        assert changed.wait(5)
        (tmp_path / "later").mkdir()
        time.sleep(1.5)
        changed.clear()
        (tmp_path / "later" / "a.npz").write_bytes(b"1")
        assert changed.wait(5)
