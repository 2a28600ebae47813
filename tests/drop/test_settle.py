"""When a file has stopped changing."""

from __future__ import annotations

import os
import time
from pathlib import Path

from semid_daemon.drop.settle import StableFiles
from tests.drop.files import look, only


def test_settling_needs_two_equal_looks(tmp_path: Path):
    stable_files = StableFiles(settle_s=1.0)
    path = tmp_path / "a.npz"
    path.write_bytes(b"1")
    assert stable_files.look(look(tmp_path).files, now=0.0) == ([], True)
    assert stable_files.look(look(tmp_path).files, now=0.5) == ([], True)
    stable, more = stable_files.look(look(tmp_path).files, now=1.0)
    assert [file.name for file in stable] == ["a.npz"]
    assert not more
    assert stable_files.stable_for_s("a.npz", 5.0) == 5.0
    path.write_bytes(b"12")
    assert stable_files.look(look(tmp_path).files, now=6.0) == ([], True)
    path.unlink()
    assert stable_files.look(look(tmp_path).files, now=7.0) == ([], False)


def test_settling_sees_other_bytes_of_the_same_size_and_mtime(tmp_path: Path):
    stable_files = StableFiles(settle_s=0.0)
    path = tmp_path / "a.npz"
    path.write_bytes(b"1")
    before = path.stat()
    stable_files.look(look(tmp_path).files, now=0.0)
    time.sleep(0.02)
    path.write_bytes(b"2")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    first = only(tmp_path).signature
    assert first.mtime_ns == before.st_mtime_ns
    assert first.ctime_ns != before.st_ctime_ns
    assert stable_files.stable_for_s("a.npz", 9.0) == 9.0
    stable_files.look(look(tmp_path).files, now=9.0)
    assert stable_files.stable_for_s("a.npz", 9.0) == 0.0
