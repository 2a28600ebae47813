"""Files that exist whole or not at all, whatever happens while they are written.

The content goes to a partial file in the same directory, which is then renamed to the final name. The final file
is either the old one or the new one after a kill, a full disk or a power failure.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from semid_daemon.base.failpoints import failpoint
from semid_daemon.base.text import cut_name

_LONGEST_NAME = 255  # bytes, on every file system in common use


@contextmanager
def atomic_write(
    path: Path, *, mode: int | None = None, shared: bool = False, durable: bool = True
) -> Iterator[BinaryIO]:
    """Give a binary stream whose content replaces `path` when the block ends, and is removed when it raises.

    `mode` are the permissions of the file; by default those that the umask allows. `stream.name` is the path of the
    partial file, for libraries that write by path. By default that is `.<name>.tmp`, and the next write to `path`
    takes over what a killed process left there: only one process may write to `path` at a time. With `shared`, several
    may: every partial file has a name of its own, and a kill leaves it behind. Without `durable` nothing waits for
    the disk: after a power failure the file may be empty. Raises OSError.
    """
    partial = partial_path(path, uuid.uuid4().hex[:8] if shared else "")
    if not shared:
        partial.unlink(missing_ok=True)
    stream = open(partial, "xb")  # noqa: SIM115 - a name that exists, also as a link, is refused here, and not removed below
    try:
        with stream:
            if mode is not None:
                os.fchmod(stream.fileno(), mode)
            yield stream
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
        failpoint("file-written")
        os.rename(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to report
            partial.unlink(missing_ok=True)
        raise
    if durable:
        # Whoever may only write to a directory (others' commands) cannot open it: the system flushes it in its time.
        with contextlib.suppress(PermissionError):
            sync_directory(path.parent)


def atomic_write_text(
    path: Path, text: str, *, mode: int | None = None, shared: bool = False, durable: bool = True
) -> None:
    """Write a text in UTF-8 as `atomic_write` does."""
    with atomic_write(path, mode=mode, shared=shared, durable=durable) as stream:
        stream.write(text.encode())


def partial_path(path: Path, unique: str = "") -> Path:
    """Where a file is while it is incomplete: hidden, and never with the final suffix, by which programs find files."""
    ending = f".{unique}.tmp" if unique else ".tmp"
    return path.with_name("." + cut_name(path.name, _LONGEST_NAME - 1 - len(ending)) + ending)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable: files created, renamed and removed. Raises OSError."""
    _sync(directory, os.O_DIRECTORY)


def sync_tree(path: Path) -> None:
    """Make a file durable, or a directory with everything in it. Raises OSError."""
    for inner in path.rglob("*") if path.is_dir() else ():
        _sync(inner)
    _sync(path)


def _sync(path: Path, flags: int = 0) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
