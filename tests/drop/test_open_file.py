"""Opening exactly the file that was seen, and its digest."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from semid_daemon.base.steps import finish
from semid_daemon.drop.open_file import FileChangedError, digest_of, open_drop_file
from tests.drop.files import only


def test_digest_is_of_bytes_and_sidecar(tmp_path: Path):
    def digest() -> str:
        with open_drop_file(only(tmp_path)) as opened:
            return finish(digest_of(opened))

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
