"""Whether some process holds a lock file, asked without keeping it. Standard library only."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path


def is_held(path: Path, pid: int | None) -> bool:
    """Whether a process holds the lock file; where it may not be opened, whether the process `pid` exists."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return pid is not None and _exists(pid)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return pid is not None and _exists(pid)
    finally:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    return False


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True
