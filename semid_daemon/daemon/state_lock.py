"""The state directory: made, and held by one daemon at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import time
from collections.abc import Iterator
from pathlib import Path

from semid_daemon.base.errors import ConfigError, OwnerError, StateLockedError, StoreError
from semid_daemon.config import Config
from semid_daemon.formats import is_supported

_ASKED_S = 0.5  # a process that asks whether the lock is held has it for less


def make_directories(config: Config, *, anew: bool = False) -> None:
    """Make the drop directory, the state directory and that for commands.

    Raises ConfigError when that is not permitted, OwnerError when the state directory belongs to another user,
    StoreError when a database was there before; `anew` lets finished files of a former one lie in paths.done.
    """
    refuse_other_user(config.state_dir)
    refuse_lost_database(config, anew=anew)
    directories = {"drop": config.drop_dir, "state": config.state_dir}
    for key, directory in (*directories.items(), ("state", config.commands_dir)):
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"paths.{key}: {directory} cannot be made: {error.strerror}") from error


def user_name(number: int) -> str:
    """The name of a user, or the number where it has none here."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def refuse_other_user(state_dir: Path) -> None:
    """Raises OwnerError when the state directory, or what lies in it and cannot be written, is another user's.

    Files that this user makes there would lock its owner out.
    """
    user = os.geteuid()
    try:
        owner = state_dir.stat().st_uid
    except OSError:
        return  # not there yet, or refused with its own message
    if owner != user:
        raise OwnerError(
            f"{state_dir}: belongs to {user_name(owner)}, and files of {user_name(user)} in it would lock the daemon"
            f" out; run this as {user_name(owner)}: `runuser -u {user_name(owner)} -- semid ...`"
        )
    for path in sorted(state_dir.iterdir()):
        status = path.lstat()
        if status.st_uid != user and not os.access(path, os.W_OK):
            raise OwnerError(
                f"{path}: belongs to {user_name(status.st_uid)}, and {user_name(user)} may not write to it;"
                f" `chown -R {user_name(user)} {state_dir}` as root"
            )


def refuse_lost_database(config: Config, *, anew: bool = False) -> None:
    """Raises StoreError when a database was here before: begun anew, it would give every item another ID.

    Codebooks without a database tell so, and finished files in paths.done, unless `anew`.
    """
    try:
        size_bytes = config.database.stat().st_size
    except FileNotFoundError:
        size_bytes = 0
    if not size_bytes and any(config.codebooks_dir.glob("*.safetensors")):
        raise StoreError(
            f"{config.database}: missing or empty, though {config.codebooks_dir} holds codebooks; restore a backup,"
            " or remove the codebooks to give every item a new ID"
        )
    finished = None if size_bytes or anew else _first_file(config.done_dir)
    if finished is not None:
        raise StoreError(
            f"{config.database}: missing or empty, though {config.done_dir} holds finished files ({finished.name});"
            " mount the disk of the state directory or restore a backup, or begin anew on purpose, with new IDs:"
            " `semid init --anew DIRECTORY`"
        )


def _first_file(directory: Path) -> Path | None:
    """Some file of embeddings below a directory."""
    for path, _, names in os.walk(directory):
        for name in names:
            if is_supported(name) and not name.startswith("."):
                return Path(path, name)
    return None


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


def _lock(descriptor: int) -> bool:
    """Take the lock; one that only asks whether it is held has it for a moment."""
    until = time.monotonic() + _ASKED_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(_ASKED_S / 20)
        else:
            return True


@contextlib.contextmanager
def hold_state(state_dir: Path) -> Iterator[Lock]:
    """Hold the state directory's lock; the kernel lets go of it however the process ends.

    Raises StateLockedError, with the holder's process ID, when another daemon has it.
    """
    path = state_dir / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if not _lock(descriptor):
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise StateLockedError(
                f"{state_dir}: held by another daemon (process {holder}); stop it first, or use another state directory"
            )
        lock = Lock(path, descriptor)
        lock.check()
        # Who holds it is told as a courtesy: a full disk must not keep the daemon from starting.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield lock
    finally:
        os.close(descriptor)
