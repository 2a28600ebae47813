"""Stable files that are still to be registered."""

from __future__ import annotations

from collections.abc import Iterable

from semid_daemon.base.drop_file import DropFile


class FileQueue:
    """Files by name, in the order in which they were put in. `size_bytes` is the size of all of them."""

    def __init__(self) -> None:
        self._files: dict[str, DropFile] = {}
        self.size_bytes = 0

    def fill(self, files: Iterable[DropFile]) -> None:
        """These files, and no others."""
        self._files = {file.name: file for file in files}
        self.size_bytes = sum(file.signature.size_bytes for file in self._files.values())

    def clear(self) -> None:
        self.fill(())

    def first(self) -> DropFile | None:
        """The file that is next; it stays in the queue."""
        return next(iter(self._files.values()), None)

    def take(self) -> DropFile:
        """Take the next file out. Raises StopIteration when there is none."""
        file = self._files.pop(next(iter(self._files)))
        self.size_bytes -= file.signature.size_bytes
        return file

    def __len__(self) -> int:
        return len(self._files)
