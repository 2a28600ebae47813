"""Codebooks on disk: `codebooks/<fingerprint>.safetensors`, written so that a crash leaves all of it or none."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from semid_daemon.base.atomic_file import atomic_write
from semid_daemon.base.errors import CodebookError, ConfigError
from semid_daemon.base.failpoints import failpoint
from semid_daemon.base.types import Codebooks, FloatArray
from semid_daemon.config import Config

_TENSOR = "codebooks"
_BIASES = "biases"
_FORMAT = "semid-codebooks-1"


def fingerprint(codebooks: Codebooks) -> str:
    """BLAKE2b-128 of the centroids and of everything that changes an encoding, in hexadecimal."""
    settings = {
        "format": _FORMAT,
        "shape": codebooks.centroids_LKD.shape,
        "normalize_residuals": codebooks.normalize_residuals,
        "beam_width": codebooks.beam_width,
        "biased": codebooks.biases_LK is not None,
    }
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16)
    for array in _tensors(codebooks).values():
        digest.update(np.ascontiguousarray(array, dtype="<f4").tobytes())
    return digest.hexdigest()


def _tensors(codebooks: Codebooks) -> dict[str, FloatArray]:
    tensors = {_TENSOR: codebooks.centroids_LKD}
    if codebooks.biases_LK is not None:
        tensors[_BIASES] = codebooks.biases_LK
    return tensors


def save_codebooks(directory: Path, codebooks: Codebooks, settings: Mapping[str, str]) -> str:
    """Write codebooks under their fingerprint, durably, and return it. `settings` tell how they were trained."""
    name = fingerprint(codebooks)
    directory.mkdir(parents=True, exist_ok=True)
    write_codebooks(codebook_path(directory, name), codebooks, settings)
    failpoint("codebooks-renamed")
    return name


def write_codebooks(
    path: Path, codebooks: Codebooks, settings: Mapping[str, str], *, mode: int | None = None, shared: bool = False
) -> None:
    """Write codebooks to any path, durably and whole or not at all; `mode` and `shared` as in `atomic_write`."""
    metadata = {
        **settings,
        "format": _FORMAT,
        "fingerprint": fingerprint(codebooks),
        "dim": str(codebooks.dim),
        "normalize_residuals": str(codebooks.normalize_residuals).lower(),
        "beam_width": str(codebooks.beam_width),
    }
    content = safetensors.numpy.save(_tensors(codebooks), metadata=metadata)
    with atomic_write(path, mode=mode, shared=shared) as stream:
        stream.write(content)
        failpoint("codebooks-written")


def load_codebooks(directory: Path, name: str) -> Codebooks:
    """Read the codebooks of a fingerprint. Raises CodebookError when they are missing, damaged, or others."""
    path = codebook_path(directory, name)
    advice = "restore it from a backup of the state directory"
    try:
        codebooks, _ = read_codebooks(path)
    except FileNotFoundError:
        raise CodebookError(f"{path}: missing, though the database encodes with it; {advice}") from None
    except CodebookError as error:
        raise CodebookError(f"{error}; {advice}") from error
    if fingerprint(codebooks) != name:
        raise CodebookError(f"{path}: its content is not what its name says; {advice}")
    return codebooks


def read_codebooks(path: Path) -> tuple[Codebooks, dict[str, str]]:
    """Read a codebook file wherever it lies: the codebooks, and how they came about.

    Raises CodebookError when it is damaged, when it holds something else, or where the fingerprint in it is not
    that of its content; OSError when it cannot be read.
    """
    content = path.read_bytes()
    try:
        tensors = safetensors.numpy.load(content)
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
        centroids_LKD, beam_width = tensors[_TENSOR], int(metadata["beam_width"])
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise CodebookError(f"{path}: damaged, or no codebooks of semid: {error}") from error
    if centroids_LKD.ndim != 3 or centroids_LKD.dtype != np.float32:
        raise CodebookError(f"{path}: holds {centroids_LKD.dtype} {centroids_LKD.shape}")
    normalize = metadata.get("normalize_residuals") == "true"
    codebooks = Codebooks(centroids_LKD, normalize, tensors.get(_BIASES), beam_width)
    found = fingerprint(codebooks)
    if metadata.get("fingerprint", found) != found:
        raise CodebookError(f"{path}: its content is not what its fingerprint says")
    return codebooks, metadata


def collect_orphans(directory: Path, keep: set[str]) -> list[Path]:
    """Delete codebook files that no generation names: left by a crash between writing and publishing."""
    if not directory.is_dir():
        return []
    wanted = {codebook_path(directory, name) for name in keep}
    collected = []
    for path in sorted(directory.iterdir()):
        if path in wanted or not path.name.endswith((".safetensors", ".safetensors.tmp")):
            continue
        # What is no file of ours, or may not be deleted, is in nobody's way.
        with contextlib.suppress(OSError):
            if stat.S_ISREG(path.lstat().st_mode):
                path.unlink()
                collected.append(path)
    return collected


def codebook_path(directory: Path, name: str) -> Path:
    return directory / f"{name}.safetensors"


_FINGERPRINT = re.compile(r"[0-9a-f]{32}")


def stage_codebooks(config: Config, codebooks: Codebooks, settings: Mapping[str, str]) -> str:
    """Put codebooks where the daemon finds them; the fingerprint by which to ask for them.

    Raises ConfigError when the directory is not there or may not be written to.
    """
    name = fingerprint(codebooks)
    path = _path(config, name)
    try:
        # The daemon may be another user, and two users may stage the same codebooks.
        write_codebooks(path, codebooks, settings, mode=0o644, shared=True)
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
