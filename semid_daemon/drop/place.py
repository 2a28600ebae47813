"""Names below a directory, reached by directory handles: below the root no symbolic link is followed.

Whoever may write to the drop directory can replace one of its sub-directories by a link at any time. A path would then
lead anywhere; a handle stays with the directory that was opened.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from semid_daemon.base.atomic_file import partial_path
from semid_daemon.base.failpoints import failpoint

# A handle that only leads to names needs no right to list them.
_SEARCH = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
_COPY_BYTES = 1 << 20


@contextlib.contextmanager
def open_below(root: Path, relative: Path, *, make: bool = False) -> Iterator[int]:
    """Hold the directory `relative` below `root` open; with `make`, what lacks is created.

    Links above `root`, and `root` itself, are followed. Raises NotADirectoryError where a link or a file lies
    below it in the place of a directory, FileNotFoundError where nothing does, OSError otherwise.
    """
    if relative.is_absolute() or ".." in relative.parts:
        raise NotADirectoryError(errno.ENOTDIR, "leads out of the directory", os.fspath(relative))
    if make:
        root.mkdir(parents=True, exist_ok=True)
    directory = os.open(root, _SEARCH)
    try:
        for part in relative.parts:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, dir_fd=directory)
            above, directory = directory, _open_directory(part, directory, root / relative)
            os.close(above)
        yield directory
    finally:
        os.close(directory)


def _open_directory(name: str, above: int, path: Path) -> int:
    try:
        return os.open(name, _SEARCH | os.O_NOFOLLOW, dir_fd=above)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        what = f"{name} is not a directory; a link is not followed"
        raise NotADirectoryError(errno.ENOTDIR, what, os.fspath(path)) from None


@contextlib.contextmanager
def listable(directory: int) -> Iterator[int]:
    """Hold the same directory open for listing. Raises OSError where its names may not be read."""
    descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Place:
    """A name in an open directory. Everything is done to the name itself, never to what a link points to."""

    directory: int
    name: str

    @property
    def stem(self) -> str:
        return Path(self.name).stem

    def with_name(self, name: str) -> Place:
        return Place(self.directory, name)

    def status(self) -> os.stat_result:
        return os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)

    def exists(self) -> bool:
        try:
            self.status()
        except FileNotFoundError:
            return False
        return True

    def rename(self, target: Place) -> None:
        os.rename(self.name, target.name, src_dir_fd=self.directory, dst_dir_fd=target.directory)

    def link(self, target: Place) -> None:
        """Give a file a second name, which must be free: unlike a rename, a link never replaces what is there."""
        os.link(self.name, target.name, src_dir_fd=self.directory, dst_dir_fd=target.directory, follow_symlinks=False)

    def unlink(self, *, missing_ok: bool = False) -> None:
        with contextlib.suppress(*((FileNotFoundError,) if missing_ok else ())):
            os.unlink(self.name, dir_fd=self.directory)

    def open(self) -> BinaryIO:
        """Open for reading without waiting for a writer."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.fdopen(os.open(self.name, flags, dir_fd=self.directory), "rb")

    def create(self) -> BinaryIO:
        """Open a new file for writing, which must not exist."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.fdopen(os.open(self.name, flags, 0o666, dir_fd=self.directory), "wb")


@contextlib.contextmanager
def copy_of(source: Place, target: Place) -> Iterator[None]:
    """Copy a file with its times and permissions. The copy is under its name, and durable, when the block ends."""
    partial = target.with_name(partial_path(Path(target.name)).name)
    partial.unlink(missing_ok=True)
    copy = partial.create()
    try:
        with copy, source.open() as original:
            shutil.copyfileobj(original, copy, _COPY_BYTES)
            copy.flush()
            status = os.fstat(original.fileno())
            os.fchmod(copy.fileno(), status.st_mode & 0o7777)
            os.utime(copy.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
            os.fsync(copy.fileno())
            yield
        failpoint("file-written")
        partial.rename(target)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to report
            partial.unlink(missing_ok=True)
        raise
    with contextlib.suppress(PermissionError), listable(target.directory) as directory:
        os.fsync(directory)
