"""The state directory: made, and held by one daemon at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from semid_daemon.base.errors import ConfigError, StateLockedError, StoreError
from semid_daemon.config import Config


def make_directories(config: Config) -> None:
    """Make the drop directory, the state directory and that for commands.

    Raises ConfigError when that is not permitted, StoreError when codebooks lie there without the database.
    """
    directories = {"drop": config.drop_dir, "state": config.state_dir}
    for key, directory in (*directories.items(), ("state", config.commands_dir)):
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"paths.{key}: {directory} cannot be made: {error.strerror}") from error
    refuse_lost_database(config)


def refuse_lost_database(config: Config) -> None:
    """Raises StoreError when there are codebooks but no database: begun anew, it would give every item another ID."""
    try:
        size_bytes = config.database.stat().st_size
    except FileNotFoundError:
        size_bytes = 0
    if not size_bytes and any(config.codebooks_dir.glob("*.safetensors")):
        raise StoreError(
            f"{config.database}: missing or empty, though {config.codebooks_dir} holds codebooks; restore a backup,"
            " or remove the codebooks to give every item a new ID"
        )


class Lock:
    """The lock file as it was locked."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def check(self) -> None:
        """Raises StateLockedError when the file was removed or replaced: another daemon could lock the new one."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            found = None
        ours = os.fstat(self._descriptor)
        if found is None or (found.st_dev, found.st_ino) != (ours.st_dev, ours.st_ino):
            raise StateLockedError(
                f"{self._path}: was removed or replaced while this daemon held it; start again,"
                " and leave the state directory to the daemon"
            )


@contextlib.contextmanager
def hold_state(state_dir: Path) -> Iterator[Lock]:
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
        lock = Lock(path, descriptor)
        lock.check()
        # Who holds it is told as a courtesy: a full disk must not keep the daemon from starting.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield lock
    finally:
        os.close(descriptor)
