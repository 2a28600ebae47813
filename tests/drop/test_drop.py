"""The drop directory: what is seen, what has settled, what is opened, and where files end."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from semid_daemon.base.drop_file import DropFile
from semid_daemon.base.text import path_of, printable
from semid_daemon.drop import dispose as finish
from semid_daemon.drop.open_file import FileChangedError, digest_of, open_drop_file
from semid_daemon.drop.scan import Scan, scan
from semid_daemon.drop.settle import Settling
from semid_daemon.drop.watch import Wakeups

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


@pytest.mark.parametrize("made_anew", [False, True])
def test_scan_of_a_directory_that_goes_meanwhile_raises(tmp_path: Path, made_anew: bool):
    directory = tmp_path / "drop"
    directory.mkdir()
    (directory / "a.npz").write_bytes(b"1")

    def goes(name: str) -> bool:
        directory.rename(tmp_path / "gone")
        if made_anew:
            directory.mkdir()
        return True

    with pytest.raises(FileNotFoundError):
        scan(directory, supported=goes, sidecar_suffixes=SIDECARS)


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
    assert settling.stable_for_s("a.npz", 5.0) == 5.0
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
    assert settling.stable_for_s("a.npz", 9.0) == 9.0
    settling.look(look(tmp_path).files, now=9.0)
    assert settling.stable_for_s("a.npz", 9.0) == 0.0


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


# -- files that change while they are moved -----------------------------------------------------


def placed(tmp_path: Path, name: str = "a.npy", sidecar: str | None = None) -> DropFile:
    drop_dir = tmp_path / "drop"
    drop_dir.mkdir(exist_ok=True)
    (drop_dir / name).write_bytes(b"old")
    if sidecar:
        (drop_dir / sidecar).write_text("ids\n")
    return only(drop_dir)


ENDS = {
    "move": lambda file, root: finish.move_away(file, root / "drop", root / "done", "0123456789abcdef"),
    "reject": lambda file, root: finish.reject(file, root / "drop", root / "rejected", "0123456789abcdef", "bad"),
    "delete": lambda file, root: finish.delete(file),
}


def files_below(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("changed", ["a.npy", "a.ids.txt"])
def test_a_version_that_arrived_since_is_left_alone(tmp_path: Path, end: str, changed: str):
    file = placed(tmp_path, sidecar="a.ids.txt")
    (tmp_path / "new").write_text("new version")
    (tmp_path / "new").rename(tmp_path / "drop" / changed)
    before = files_below(tmp_path)
    with pytest.raises(FileChangedError):
        ENDS[end](file, tmp_path)
    assert files_below(tmp_path) == before
    assert before[f"drop/{changed}"] == "new version"


@pytest.mark.parametrize("end", ENDS)
def test_a_version_that_arrives_at_the_last_moment_is_put_back(tmp_path: Path, end: str, monkeypatch):
    file = placed(tmp_path, sidecar="a.ids.txt")
    before = files_below(tmp_path) | {"drop/a.npy": "new version"}
    check = finish._check_unchanged

    def check_and_replace(checked: DropFile) -> None:
        check(checked)
        (tmp_path / "drop" / "new").write_text("new version")
        (tmp_path / "drop" / "new").rename(file.path)

    monkeypatch.setattr(finish, "_check_unchanged", check_and_replace)
    with pytest.raises(FileChangedError):
        ENDS[end](file, tmp_path)
    assert files_below(tmp_path) == before


def test_deleting_takes_the_sidecar_along(tmp_path: Path):
    finish.delete(placed(tmp_path, sidecar="a.ids.txt"))
    assert files_below(tmp_path) == {}


# -- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["n" * 251 + ".npy", "é" * 125 + "n.npy", "\U0001f600" * 62 + "abc.npy"])
def test_names_as_long_as_they_may_be(tmp_path: Path, name: str):
    assert 250 <= len(os.fsencode(name)) <= 255
    for root, end in ((tmp_path / "rejected", "reject"), (tmp_path / "done", "move")):
        for content in (b"1", b"2"):
            file = placed(tmp_path, name)
            file.path.write_bytes(content)
            target = ENDS[end](only(tmp_path / "drop"), tmp_path)
            assert target is not None
            assert target.suffix == ".npy"
            assert target.read_bytes() == content
            os.fsencode(target.name).decode("utf-8")
        assert len(list(root.glob("*.npy"))) == 2
        assert not list((tmp_path / "drop").iterdir())
    assert len(list((tmp_path / "rejected").glob("*.reason.txt"))) == 2
    assert finish.bring_back(name, "0123456789abcdef", tmp_path / "drop", tmp_path / "rejected", SIDECARS)
    assert (tmp_path / "drop" / name).exists()
    finish.delete(only(tmp_path / "drop"))


def test_a_sidecar_is_never_overwritten(tmp_path: Path):
    done = tmp_path / "done"
    done.mkdir()
    (done / "a.ids.txt").write_text("of another\n")
    target = ENDS["move"](placed(tmp_path, sidecar="a.ids.txt"), tmp_path)
    assert target == done / "a-0123456789ab.npy"
    assert files_below(done) == {
        "a.ids.txt": "of another\n",
        "a-0123456789ab.npy": "old",
        "a-0123456789ab.ids.txt": "ids\n",
    }


def test_two_files_never_share_a_sidecar(tmp_path: Path):
    for name in ("a.npy", "a.npz", "a.ids.txt"):
        (tmp_path / name).write_bytes(b"1")
    found = look(tmp_path)
    assert found.files == {}
    assert found.skipped == {
        "a.npy": "two files share a.ids.txt; name it a.npy.ids.txt",
        "a.npz": "two files share a.ids.txt; name it a.npz.ids.txt",
    }
    (tmp_path / "a.npy.ids.txt").write_bytes(b"2")
    found = look(tmp_path).files
    assert {name: file.sidecar for name, file in found.items()} == {
        "a.npy": tmp_path / "a.npy.ids.txt",
        "a.npz": tmp_path / "a.ids.txt",
    }


def test_no_two_paths_are_shown_alike():
    raws = [
        b"\xff",
        b"\\xff",
        b"\x85",
        b"\xc2\x85",
        b"\\u0085",
        b"\n",
        b"\\n",
        b"\\\\n",
        b"\x1b",
        b"a\\",
        "é\u202e😀\U000e0001".encode(),
    ]
    shown = [printable(Path(os.fsdecode(raw))) for raw in raws]
    assert len(set(shown)) == len(raws)
    assert all(name.isprintable() for name in shown)
    assert [os.fsencode(path_of(name)) for name in shown] == raws


# -- after a crash ------------------------------------------------------------------------------


def tidied(tmp_path: Path) -> None:
    dirs = (tmp_path / "done", tmp_path / "rejected")
    finish.tidy(tmp_path / "drop", dirs, lambda name: name.endswith((".npy", ".npz")), SIDECARS)


def died_at(monkeypatch, point: str) -> None:
    def die(name: str) -> None:
        if name == point:
            raise KeyboardInterrupt

    monkeypatch.setattr(finish, "failpoint", die)


@pytest.mark.parametrize("name", ["a.npy", "taken.npy"])
def test_a_sidecar_left_behind_goes_at_the_next_start(tmp_path: Path, monkeypatch, name: str):
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "taken.npy").write_bytes(b"other")
    file = placed(tmp_path, name, sidecar=name.replace(".npy", ".ids.txt"))
    died_at(monkeypatch, "moved")
    with pytest.raises(KeyboardInterrupt):
        ENDS["move"](file, tmp_path)
    assert [path.name for path in (tmp_path / "drop").iterdir()] == [file.sidecar.name]
    tidied(tmp_path)
    assert list((tmp_path / "drop").iterdir()) == []
    assert len(list((tmp_path / "done").glob("*.ids.txt"))) == 1


def test_a_sidecar_that_waits_for_its_file_stays(tmp_path: Path):
    ENDS["move"](placed(tmp_path, sidecar="a.ids.txt"), tmp_path)
    (tmp_path / "drop" / "a.ids.txt").write_text("ids\n")  # the same item IDs once more, their file still to come
    tidied(tmp_path)
    assert files_below(tmp_path / "drop") == {"a.ids.txt": "ids\n"}


def test_what_was_hidden_to_be_deleted_comes_back(tmp_path: Path):
    file = placed(tmp_path, sidecar="a.ids.txt")
    finish._hide(file.path, file.signature)
    finish._hide(file.sidecar, file.sidecar_signature)
    assert look(tmp_path / "drop").files == {}
    tidied(tmp_path)
    assert files_below(tmp_path / "drop") == {"a.npy": "old", "a.ids.txt": "ids\n"}
    finish._hide(file.sidecar, file.sidecar_signature)
    file.path.unlink()
    tidied(tmp_path)
    assert files_below(tmp_path / "drop") == {}


def test_a_sidecar_where_links_cannot_be_made(tmp_path: Path, monkeypatch):
    def refused(*arguments, **options):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(finish.os, "link", refused)
    ENDS["move"](placed(tmp_path, sidecar="a.ids.txt"), tmp_path)
    assert files_below(tmp_path) == {"done/a.npy": "old", "done/a.ids.txt": "ids\n"}


def test_moving_with_a_sidecar_across_file_systems(tmp_path: Path, monkeypatch):
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    target_dir = shm / f"semid-test-sidecar-{os.getpid()}"
    file = placed(tmp_path, sidecar="a.ids.txt")
    try:
        with monkeypatch.context() as patch:
            copy = shutil.copy2

            def copy_and_replace(source: Path, target: Path) -> None:
                copy(source, target)
                if source == file.path:
                    source.write_bytes(b"new version")

            patch.setattr(shutil, "copy2", copy_and_replace)
            with pytest.raises(FileChangedError):
                finish.move_away(file, tmp_path / "drop", target_dir, "d")
        assert files_below(tmp_path / "drop") == {"a.npy": "new version", "a.ids.txt": "ids\n"}
        assert files_below(target_dir) == {}
        finish.move_away(only(tmp_path / "drop"), tmp_path / "drop", target_dir, "d")
        assert files_below(target_dir) == {"a.npy": "new version", "a.ids.txt": "ids\n"}
        assert files_below(tmp_path / "drop") == {}
    finally:
        for path in target_dir.iterdir():
            path.unlink()
        target_dir.rmdir()
