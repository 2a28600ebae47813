"""Below the drop directory and its companions no link is followed, wherever a producer puts one."""

from __future__ import annotations

from pathlib import Path

import pytest

from semid_daemon.base.drop_file import DropFile, FieldNames
from semid_daemon.drop import dispose
from semid_daemon.drop.locate import find_source
from semid_daemon.drop.open_file import FileChangedError, open_drop_file
from semid_daemon.drop.place import open_below
from tests.drop.files import SIDECARS, files_below, look, only

DIGEST = "0123456789abcdef"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory that no file may reach, with a file of the same name."""
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "a.npy").write_bytes(b"its")
    return directory


def dropped(tmp_path: Path) -> DropFile:
    (tmp_path / "drop" / "sub").mkdir(parents=True)
    (tmp_path / "drop" / "sub" / "a.npy").write_bytes(b"old")
    return only(tmp_path / "drop")


def linked(place: Path, outside: Path) -> None:
    """What lay at `place` goes aside, and a link to `outside` takes its place."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        place.rename(place.parent.parent / "aside")
    place.symlink_to(outside)


ENDS = {
    "move": lambda file, root: dispose.move_away(file, root / "drop", root / "done", DIGEST),
    "reject": lambda file, root: dispose.reject(file, root / "drop", root / "rejected", DIGEST, "bad"),
    "delete": lambda file, root: dispose.delete(file),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_file_whose_directory_became_a_link(tmp_path: Path, outside: Path, end: str):
    file = dropped(tmp_path)
    linked(tmp_path / "drop" / "sub", outside)
    with pytest.raises(FileChangedError, match="directory was replaced"):
        ENDS[end](file, tmp_path)
    with pytest.raises(FileChangedError, match="directory was replaced"), open_drop_file(file):
        pass
    assert files_below(outside) == {"a.npy": "its"}
    assert look(tmp_path / "drop").files == {}


@pytest.mark.parametrize(("end", "place"), [("move", "done"), ("reject", "rejected")])
def test_a_link_where_a_file_is_to_go(tmp_path: Path, outside: Path, end: str, place: str):
    file = dropped(tmp_path)
    linked(tmp_path / place / "sub", outside)
    with pytest.raises(NotADirectoryError, match="a link is not followed"):
        ENDS[end](file, tmp_path)
    assert files_below(outside) == {"a.npy": "its"}
    assert file.path.read_bytes() == b"old"


@pytest.mark.parametrize("place", ["drop", "rejected"])
def test_a_link_where_a_file_is_brought_back(tmp_path: Path, outside: Path, place: str):
    file = dropped(tmp_path)
    ENDS["reject"](file, tmp_path)
    (outside / "a.npy").unlink()
    (outside / "b.npy").write_bytes(b"its")
    linked(tmp_path / place / "sub", outside)
    for name in ("sub/a.npy", "sub/b.npy"):
        if place == "drop" and name == "sub/b.npy":
            continue
        with pytest.raises(NotADirectoryError, match="a link is not followed"):
            dispose.bring_back(name, DIGEST, tmp_path / "drop", tmp_path / "rejected", SIDECARS)
    assert files_below(outside) == {"b.npy": "its"}
    assert not dispose.lies_in(tmp_path / "drop", "sub/b.npy")


@pytest.mark.parametrize("place", ["drop", "done"])
def test_a_source_behind_a_link_is_not_found(tmp_path: Path, outside: Path, place: str):
    linked(tmp_path / place / "sub", outside)
    places = (tmp_path / "drop", tmp_path / "done")
    assert list(find_source("sub/a.npy", DIGEST, 3, *places, SIDECARS, FieldNames())) == []


def test_the_reason_of_a_rejection_never_goes_through_a_link(tmp_path: Path, outside: Path):
    file = dropped(tmp_path)
    (tmp_path / "rejected" / "sub").mkdir(parents=True)
    (tmp_path / "rejected" / "sub" / "a.npy.reason.txt").symlink_to(outside / "a.npy")
    ENDS["reject"](file, tmp_path)
    assert files_below(outside) == {"a.npy": "its"}
    assert (tmp_path / "rejected" / "sub" / "a.npy.reason.txt").read_text() == "bad\n"


def test_the_root_itself_may_be_a_link(tmp_path: Path):
    file = dropped(tmp_path)
    (tmp_path / "disk").mkdir()
    (tmp_path / "done").symlink_to(tmp_path / "disk")
    assert ENDS["move"](file, tmp_path) == tmp_path / "done" / "sub" / "a.npy"
    assert files_below(tmp_path / "disk") == {"sub/a.npy": "old"}


@pytest.mark.parametrize("relative", ["..", "sub/../..", "/"])
def test_nothing_leads_out(tmp_path: Path, relative: str):
    dropped(tmp_path)
    with pytest.raises(NotADirectoryError), open_below(tmp_path / "drop", Path(relative)):
        pass
