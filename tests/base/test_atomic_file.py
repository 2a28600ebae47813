"""Atomic writes: killed, on a full disk, over links, by several processes."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from semid_daemon.base.atomic_file import atomic_write, atomic_write_text, partial_path, sync_directory, sync_tree

WRITE = """
import os, signal, sys
from pathlib import Path
from semid_daemon.base.atomic_file import atomic_write
with atomic_write(Path(sys.argv[1])) as stream:
    stream.write(b"new " * 100_000)
    stream.flush()
    if sys.argv[2] == "within":
        os.kill(os.getpid(), signal.SIGKILL)
"""


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def test_replaces_a_file_when_the_block_ends(tmp_path: Path):
    path = tmp_path / "a"
    path.write_text("old")
    with atomic_write(path) as stream:
        stream.write(b"new")
        stream.flush()
        assert path.read_text() == "old"
        assert Path(stream.name).read_text() == "new"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("shared", [False, True])
def test_an_error_leaves_the_old_file_and_no_partial_one(tmp_path: Path, shared: bool):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_write(path, shared=shared) as stream:
        stream.writelines(b"%d" % (1 / number) for number in (1, 0))
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_an_error_before_there_was_a_file(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "a"):
        raise KeyboardInterrupt
    assert names(tmp_path) == []


@pytest.mark.parametrize("moment", ["within", "before the rename"])
def test_a_kill_leaves_the_old_file_and_the_next_write_takes_over(tmp_path: Path, moment: str):
    path = tmp_path / "a"
    path.write_text("old")
    environment = {**os.environ, "SEMID_FAILPOINT": "file-written"}
    killed = subprocess.run([sys.executable, "-c", WRITE, path, moment], env=environment, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    assert names(tmp_path) == [".a.tmp", "a"]
    assert (tmp_path / ".a.tmp").stat().st_size == 400_000
    atomic_write_text(path, "ne\u0175")
    assert path.read_bytes() == b"ne\xc5\xb5"
    assert names(tmp_path) == ["a"]


def test_what_a_killed_writer_left_is_not_mistaken_for_the_next_content(tmp_path: Path):
    (tmp_path / ".a.tmp").write_text("much longer than what is written next")
    atomic_write_text(tmp_path / "a", "short")
    assert (tmp_path / "a").read_text() == "short"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_a_full_disk_leaves_the_old_file(tmp_path: Path):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("may not mount")
    try:
        path = tmp_path / "a"
        path.write_bytes(b"old" * 100_000)
        with pytest.raises(OSError, match="No space left"):
            atomic_write_text(path, "new" * 1_000_000)
        assert names(tmp_path) == ["a"]
        assert path.read_bytes() == b"old" * 100_000
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_the_directory_must_be_there(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        atomic_write_text(tmp_path / "no" / "a", "new")


def test_a_directory_is_not_replaced(tmp_path: Path):
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError):
        atomic_write_text(tmp_path / "a", "new")
    assert names(tmp_path) == ["a"]


def test_permissions(tmp_path: Path):
    before = os.umask(0o027)
    try:
        atomic_write_text(tmp_path / "by umask", "")
        atomic_write_text(tmp_path / "as said", "", mode=0o604)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "by umask").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "as said").stat().st_mode) == 0o604


def test_links_are_replaced_and_never_followed(tmp_path: Path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "a").symlink_to(victim)
    (tmp_path / ".a.tmp").symlink_to(victim)
    atomic_write_text(tmp_path / "a", "new")
    assert victim.read_text() == "precious"
    assert not (tmp_path / "a").is_symlink()
    assert (tmp_path / "a").read_text() == "new"


def test_several_writers_at_a_time_leave_one_whole_file(tmp_path: Path):
    path = tmp_path / "a"
    contents = [bytes([65 + number]) * 300_000 for number in range(8)]
    barrier = threading.Barrier(len(contents))

    def write(content: bytes) -> None:
        with atomic_write(path, shared=True) as stream:
            stream.write(content[:1000])
            barrier.wait()
            stream.write(content[1000:])

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("name", ["a" * 255, "\u0175" * 127, "\u4e09" * 85, "x" * 250 + ".prom"])
def test_names_as_long_as_they_may_be(tmp_path: Path, name: str):
    atomic_write_text(tmp_path / name, "new")
    atomic_write_text(tmp_path / name, "newer", shared=True)
    assert names(tmp_path) == [name]


def test_a_partial_file_is_hidden_and_has_no_suffix_that_programs_look_for():
    assert partial_path(Path("/run/semid.prom")) == Path("/run/.semid.prom.tmp")
    assert partial_path(Path("/run/semid.prom"), "1f") == Path("/run/.semid.prom.1f.tmp")


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_directory_that_may_be_written_but_not_read():
    """As others' commands are put: the directory cannot be opened to be made durable."""
    with tempfile.TemporaryDirectory() as outer:
        os.chmod(outer, 0o755)
        directory = Path(outer) / "box"
        directory.mkdir()
        os.chmod(directory, 0o733)
        other = WRITE.replace(
            "with atomic_write", "os.setgroups([]); os.setgid(65534); os.setuid(65534)\nwith atomic_write"
        )
        written = subprocess.run([sys.executable, "-c", other, directory / "a", ""], capture_output=True, timeout=60)
        assert written.returncode == 0, written.stderr
        assert names(directory) == ["a"]
        assert (directory / "a").stat().st_uid == 65534


def test_sync(tmp_path: Path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a").write_text("a")
    sync_tree(tmp_path)
    sync_tree(tmp_path / "inner" / "a")
    sync_directory(tmp_path)
    with pytest.raises(NotADirectoryError):
        sync_directory(tmp_path / "inner" / "a")
    with pytest.raises(FileNotFoundError):
        sync_tree(tmp_path / "gone")
