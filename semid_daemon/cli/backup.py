"""`semid backup`: the database, the codebooks and the settings in one tar file, consistent while the daemon runs."""

from __future__ import annotations

import os
import tarfile
import tempfile
from pathlib import Path

import click

from semid_daemon.base.atomic_file import atomic_write
from semid_daemon.base.errors import CodebookError, ConfigError, MachineError
from semid_daemon.cli.options import config_option
from semid_daemon.cli.signals import exit_on_sigterm
from semid_daemon.config import DEFAULT_NAME, Config, find_config, load_config
from semid_daemon.store.read.snapshot import copy_database


@click.command()
@config_option
@click.argument("target", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
def backup(config_path: Path | None, target: Path) -> None:
    """Write the database, the codebooks and semid.toml to FILE, a tar archive, while the daemon runs.

    \b
    semid backup catalogue.tar

    \b
    To restore: stop the daemon, empty the state directory, then
      tar -xf FILE -C STATE_DIRECTORY
    Move files that were finished after the backup from done/ back to the drop directory.
    """
    path = find_config(config_path)
    with exit_on_sigterm():
        size_bytes = make_backup(load_config(path), path, target)
    click.echo(f"{target}: {size_bytes / 2**20:,.1f} MB", err=True)


def make_backup(config: Config, settings: Path, target: Path) -> int:
    """Write a backup to `target`, which must not exist. Returns its size in bytes. Others may never read it.

    The database is copied first: the codebooks and the spooled rows that the copy names exist then, and never change.
    Raises StoreError, CodebookError, ConfigError or MachineError.
    """
    if os.path.lexists(target):
        raise ConfigError(f"{target}: exists already; choose another name, or remove it first")
    try:
        with tempfile.TemporaryDirectory(prefix=".semid-backup-", dir=target.absolute().parent) as directory:
            database = Path(directory) / config.database.name
            fingerprints = copy_database(config.database, database)
            with atomic_write(target, mode=0o640) as stream, tarfile.open(fileobj=stream, mode="w") as archive:
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
