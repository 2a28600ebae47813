"""What a look at the drop directory finds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from semid_daemon.base.steps import finish
from semid_daemon.base.text import printable
from semid_daemon.drop.scan import scan
from tests.drop.files import SIDECARS, look, only


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
        finish(scan(directory, supported=goes, sidecar_suffixes=SIDECARS))


def test_names_are_printable(tmp_path: Path):
    raw = os.fsencode(tmp_path) + b"/\xff\n\x1b[31m.npz"
    with open(raw, "wb") as file:
        file.write(b"1")
    (name,) = look(tmp_path).files
    assert name == "\\xff\\n\\x1b[31m.npz"
    assert printable(Path("a\u202eb")) == "a\\u202eb"


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
