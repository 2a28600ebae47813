"""Where files end: moved, rejected, deleted, brought back, also after a crash."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import BinaryIO

import pytest

from semid_daemon.base.drop_file import DropFile, Signature
from semid_daemon.drop import dispose
from semid_daemon.drop.open_file import FileChangedError
from semid_daemon.drop.place import Place, open_below
from tests.drop.files import SIDECARS, files_below, look, only, placed


def test_moving_away_never_overwrites(tmp_path: Path):
    drop_dir, done = tmp_path / "drop", tmp_path / "done"
    (drop_dir / "sub").mkdir(parents=True)
    for content in (b"1", b"22"):
        (drop_dir / "sub" / "a.npy").write_bytes(content)
        (drop_dir / "sub" / "a.ids.txt").write_text("x")
        dispose.move_away(only(drop_dir), drop_dir, done, digest="0123456789abcdef")
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
    assert dispose.move_away(file, tmp_path / "drop", tmp_path / "done", "d") is None
    dispose.delete(file)


def test_moving_across_file_systems_copies(tmp_path: Path):
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    (tmp_path / "drop").mkdir()
    (tmp_path / "drop" / "a.npy").write_bytes(b"1")
    target_dir = shm / f"semid-test-{os.getpid()}"
    try:
        target = dispose.move_away(only(tmp_path / "drop"), tmp_path / "drop", target_dir, "d")
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
    dispose.reject(only(tmp_path / "drop"), tmp_path / "drop", tmp_path / "rejected", "d", "too small")
    assert (tmp_path / "rejected" / "a.npy").read_bytes() == b"1"
    assert (tmp_path / "rejected" / "a.npy.reason.txt").read_text() == "too small\n"


ENDS = {
    "move": lambda file, root: dispose.move_away(file, root / "drop", root / "done", "0123456789abcdef"),
    "reject": lambda file, root: dispose.reject(file, root / "drop", root / "rejected", "0123456789abcdef", "bad"),
    "delete": lambda file, root: dispose.delete(file),
}


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
    check = dispose._check_unchanged

    def check_and_replace(checked: object) -> None:
        check(checked)
        (tmp_path / "drop" / "new").write_text("new version")
        (tmp_path / "drop" / "new").rename(file.path)

    monkeypatch.setattr(dispose, "_check_unchanged", check_and_replace)
    with pytest.raises(FileChangedError):
        ENDS[end](file, tmp_path)
    assert files_below(tmp_path) == before


def test_deleting_takes_the_sidecar_along(tmp_path: Path):
    dispose.delete(placed(tmp_path, sidecar="a.ids.txt"))
    assert files_below(tmp_path) == {}


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
    assert dispose.bring_back(name, "0123456789abcdef", tmp_path / "drop", tmp_path / "rejected", SIDECARS)
    assert (tmp_path / "drop" / name).exists()
    dispose.delete(only(tmp_path / "drop"))


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


def tidied(tmp_path: Path) -> None:
    dirs = (tmp_path / "done", tmp_path / "rejected")
    dispose.tidy(tmp_path / "drop", dirs, lambda name: name.endswith((".npy", ".npz")), SIDECARS)


def died_at(monkeypatch, point: str) -> None:
    def die(name: str) -> None:
        if name == point:
            raise KeyboardInterrupt

    monkeypatch.setattr(dispose, "failpoint", die)


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


def hide(file: DropFile, path: Path, signature: Signature) -> None:
    with open_below(file.root, Path()) as directory:
        dispose._hide(Place(directory, path.name), signature)


def test_what_was_hidden_to_be_deleted_comes_back(tmp_path: Path):
    file = placed(tmp_path, sidecar="a.ids.txt")
    hide(file, file.path, file.signature)
    hide(file, file.sidecar, file.sidecar_signature)
    assert look(tmp_path / "drop").files == {}
    tidied(tmp_path)
    assert files_below(tmp_path / "drop") == {"a.npy": "old", "a.ids.txt": "ids\n"}
    hide(file, file.sidecar, file.sidecar_signature)
    file.path.unlink()
    tidied(tmp_path)
    assert files_below(tmp_path / "drop") == {}


def test_a_sidecar_where_links_cannot_be_made(tmp_path: Path, monkeypatch):
    def refused(*arguments, **options):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(dispose.os, "link", refused)
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
            copy = shutil.copyfileobj

            def copy_and_replace(source: BinaryIO, target: BinaryIO, length: int) -> None:
                copy(source, target, length)
                if os.fstat(source.fileno()).st_ino == file.signature.inode:
                    file.path.write_bytes(b"new version")

            patch.setattr(shutil, "copyfileobj", copy_and_replace)
            with pytest.raises(FileChangedError):
                dispose.move_away(file, tmp_path / "drop", target_dir, "d")
        assert files_below(tmp_path / "drop") == {"a.npy": "new version", "a.ids.txt": "ids\n"}
        assert files_below(target_dir) == {}
        dispose.move_away(only(tmp_path / "drop"), tmp_path / "drop", target_dir, "d")
        assert files_below(target_dir) == {"a.npy": "new version", "a.ids.txt": "ids\n"}
        assert files_below(tmp_path / "drop") == {}
    finally:
        for path in target_dir.iterdir():
            path.unlink()
        target_dir.rmdir()
