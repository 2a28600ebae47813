"""`semid backup`: the database, the codebooks and the settings in one tar file, consistent while the daemon runs."""

from __future__ import annotations

import os
import tarfile
import tempfile
from pathlib import Path

from semid_daemon.base.atomic_file import atomic_write
from semid_daemon.base.errors import CodebookError, ConfigError, MachineError
from semid_daemon.config import DEFAULT_NAME, Config
from semid_daemon.store.read.snapshot import copy_database


def make_backup(config: Config, settings: Path, target: Path) -> int:
    """Write a backup to `target`, which must not exist; its size in bytes.

    The codebooks and the spool are copied after the database: whatever the copy names is there, and never changes.
    Raises StoreError, CodebookError, ConfigError or MachineError.
    """
    if os.path.lexists(target):
        raise ConfigError(f"{target}: is there already; choose another name, or remove it first")
    try:
        with tempfile.TemporaryDirectory(prefix=".semid-backup-", dir=target.absolute().parent) as directory:
            database = Path(directory) / config.database.name
            fingerprints = copy_database(config.database, database)
            with atomic_write(target) as stream, tarfile.open(fileobj=stream, mode="w") as archive:
                archive.add(settings, DEFAULT_NAME)
                archive.add(database, database.name)
                for fingerprint in fingerprints:
                    name = f"{fingerprint}.safetensors"
                    path = config.codebooks_dir / name
                    if not path.is_file():
                        raise CodebookError(f"{path}: missing, though the database names it; run `semid doctor`")
                    archive.add(path, f"{config.codebooks_dir.name}/{name}")
                if config.spool_dir.is_dir():
                    archive.add(config.spool_dir, config.spool_dir.name)
    except OSError as error:
        raise MachineError(f"{target}: cannot be written: {error.strerror or error}") from error
    return target.stat().st_size
