"""Codebooks on their way to the daemon: a hidden file in the commands directory, named by its fingerprint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from semid_daemon.config import Config
from semid_daemon.errors import CodebookError, ConfigError
from semid_daemon.generations.codebook_files import fingerprint, read_codebooks, write_codebooks
from semid_daemon.records import Codebooks

_FINGERPRINT = re.compile(r"[0-9a-f]{32}")


def stage_codebooks(config: Config, codebooks: Codebooks, settings: Mapping[str, str]) -> str:
    """Put codebooks where the daemon finds them; the fingerprint by which to ask for them.

    Raises ConfigError when the directory is not there or may not be written to.
    """
    name = fingerprint(codebooks)
    path = _path(config, name)
    try:
        write_codebooks(path, codebooks, settings)
        path.chmod(0o644)
    except OSError as error:
        raise ConfigError(
            f"{config.commands_dir}: codebooks cannot be put there: {error.strerror}; the directory is made by"
            " `semid init` or `semid run`, and must be writable to who asks"
        ) from error
    return name


def staged_codebooks(config: Config, name: object) -> tuple[Codebooks, dict[str, str]]:
    """The staged codebooks of a fingerprint, and how they came about.

    Raises CodebookError when that is no fingerprint, or the file is missing, damaged or another.
    """
    if not isinstance(name, str) or not _FINGERPRINT.fullmatch(name):
        raise CodebookError('"codebooks": give the fingerprint of staged codebooks')
    path = _path(config, name)
    try:
        codebooks, settings = read_codebooks(path)
    except OSError as error:
        raise CodebookError(f"{path}: cannot be read: {error.strerror or error}") from error
    if fingerprint(codebooks) != name:
        raise CodebookError(f"{path}: its content is not what its name says")
    return codebooks, settings


def unstage_codebooks(config: Config, name: object) -> None:
    """They have been taken over, or refused."""
    if isinstance(name, str) and _FINGERPRINT.fullmatch(name):
        with suppress(OSError):  # in nobody's way
            _path(config, name).unlink(missing_ok=True)


def _path(config: Config, name: str) -> Path:
    return config.commands_dir / f".{name}.safetensors"
