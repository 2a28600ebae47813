"""The file that the daemon works on at this moment, named in a small marker file that outlives the process.

The marker is set before a file is opened and at every step of it, and cleared at every orderly end. If it is set
at start-up, the previous process died while it handled that file, whatever the cause. It is not synced to disk:
only a process's death counts, and the kernel keeps what that process wrote.
"""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

from semid_daemon.base.errors import MachineError
from semid_daemon.base.failpoints import failpoint

SUSPECT_DEATHS = 3  # from here on a file is tried in a process of its own before it is opened here
MOST_DEATHS = 10  # from here on it is rejected even if that goes well
_BLOCK_BYTES = 4096


class CrashMarker:
    """`set` and `clear` cost one system call, and raise MachineError when the disk does not let them.

    The file keeps its blocks: once there was space for it, a full disk does not keep it from being written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._size_bytes = _whole_blocks(os.fstat(self._descriptor).st_size)

    def close(self) -> None:
        os.close(self._descriptor)

    def left_behind(self) -> tuple[str, str, int] | None:
        """Name, signature and row of what a process that died had in hand."""
        text = os.pread(self._descriptor, self._size_bytes, 0)
        try:
            name, signature, row = json.loads(text)
            return str(name), str(signature), int(row)
        except (ValueError, TypeError):  # blank, or cut off by the death itself
            return None

    def set(self, name: str, signature: str, row: int) -> None:
        self._write(json.dumps([name, signature, row]).encode())
        failpoint("in-hand")

    def clear(self) -> None:
        self._write(b"")

    def _write(self, text: bytes) -> None:
        """Over all that was there, padded with blanks."""
        self._size_bytes = max(self._size_bytes, _whole_blocks(len(text)))
        try:
            if os.pwrite(self._descriptor, text.ljust(self._size_bytes), 0) < self._size_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise MachineError(f"{self._path}: cannot be written: {error.strerror}") from error


def _whole_blocks(size_bytes: int) -> int:
    return max(1, -(-size_bytes // _BLOCK_BYTES)) * _BLOCK_BYTES
