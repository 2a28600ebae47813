"""What the daemon has in hand at this moment, in a small file that outlives the process.

Written before a file is opened and at every step of it, emptied at every orderly end. What is found
there at start killed the process before, or was in hand when something else did. It is not synced to disk:
only a process's death counts, and the kernel keeps what that process wrote.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from semid_daemon.failpoints import failpoint

SUSPECT_DEATHS = 3  # from here on a file is tried in a process of its own before it is opened here
MOST_DEATHS = 10  # from here on it is rejected even if that goes well


class InHand:
    """`take` and `release` cost one or two system calls."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def close(self) -> None:
        os.close(self._descriptor)

    def left_behind(self) -> tuple[str, str, int] | None:
        """Name, signature and row of what a process that died had in hand."""
        text = os.pread(self._descriptor, 1 << 16, 0)
        try:
            name, signature, row = json.loads(text)
        except ValueError:  # empty, or cut off by the death itself
            return None
        return str(name), str(signature), int(row)

    def take(self, name: str, signature: str, row: int) -> None:
        text = json.dumps([name, signature, row]).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, text, 0)
        failpoint("in-hand")

    def release(self) -> None:
        os.ftruncate(self._descriptor, 0)
