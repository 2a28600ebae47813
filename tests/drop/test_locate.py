"""Finding the file again that rows came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from semid_daemon.base.drop_file import DropFile, FieldNames
from semid_daemon.base.text import printable
from semid_daemon.drop import dispose
from semid_daemon.drop.locate import find_source
from tests.drop.files import SIDECARS, placed

DIGEST = "0123456789abcdef"


def found(root: Path, name: str = "a.npy", size_bytes: int = 3) -> list[DropFile]:
    places = (root / "drop", root / "done")
    return list(find_source(name, DIGEST, size_bytes, *places, SIDECARS, FieldNames()))


def moved(root: Path, name: str = "a.npy", sidecar: str | None = None) -> Path:
    target = dispose.move_away(placed(root, name, sidecar), root / "drop", root / "done", DIGEST)
    assert target is not None
    return target


def test_a_file_that_was_kept_in_place(tmp_path: Path):
    file = placed(tmp_path)
    assert [candidate.path for candidate in found(tmp_path)] == [file.path]


def test_a_file_that_was_moved_with_its_sidecar(tmp_path: Path):
    target = moved(tmp_path, sidecar="a.ids.txt")
    (file,) = found(tmp_path)
    assert (file.path, file.name, file.sidecar) == (target, "a.npy", target.with_name("a.ids.txt"))
    assert file.signature.size_bytes == 3


def test_a_file_whose_name_was_taken(tmp_path: Path):
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "a.npy").write_bytes(b"another")
    target = moved(tmp_path)
    assert target.name == "a-0123456789ab.npy"
    assert [file.path for file in found(tmp_path)] == [target]


@pytest.mark.parametrize("name", ["n" * 251 + ".npy", "\U0001f600" * 62 + "abc.npy"])
def test_a_file_whose_name_was_cut(tmp_path: Path, name: str):
    target = moved(tmp_path, name)
    assert target.name != name
    assert [file.path for file in found(tmp_path, name)] == [target]


def test_a_name_that_cannot_be_shown(tmp_path: Path):
    target = moved(tmp_path, "a\n\u202e.npy")
    assert [file.path for file in found(tmp_path, printable(Path("a\n\u202e.npy")))] == [target]


def test_every_candidate_of_that_size(tmp_path: Path):
    target = moved(tmp_path)
    file = placed(tmp_path)
    assert [candidate.path for candidate in found(tmp_path)] == [target, file.path]
    assert found(tmp_path, size_bytes=4) == []


def test_links_and_paths_outside_are_not_followed(tmp_path: Path):
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "a.npy").symlink_to(placed(tmp_path, "b.npy").path)
    assert found(tmp_path) == []
    assert found(tmp_path, "../drop/b.npy") == []
    assert found(tmp_path, str(tmp_path / "drop" / "b.npy")) == []
