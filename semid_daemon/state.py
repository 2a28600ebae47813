"""The state directory: made, and held by one daemon at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from semid_daemon.config import Config
from semid_daemon.errors import ConfigError, StateLockedError


def make_directories(config: Config) -> None:
    """Make the drop directory and the state directory. Raises ConfigError when that is not permitted."""
    for key, directory in {"drop": config.drop_dir, "state": config.state_dir}.items():
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"paths.{key}: {directory} cannot be made: {error.strerror}") from error


@contextlib.contextmanager
def hold_state(state_dir: Path) -> Iterator[None]:
    """Hold the state directory's lock; the kernel lets go of it however the process ends.

    Raises StateLockedError, with the holder's process ID, when another daemon has it.
    """
    path = state_dir / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise StateLockedError(
                f"{state_dir}: held by another daemon (process {holder}); stop it first, or use another state directory"
            ) from None
        if os.stat(path).st_ino != os.fstat(descriptor).st_ino:
            raise StateLockedError(f"{path}: was replaced while it was being locked; start again")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
