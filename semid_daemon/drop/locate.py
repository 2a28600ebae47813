"""Finding finished files again: where a file that was moved away, or kept in place, lies by now."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from semid_daemon.base.drop_file import DropFile, FieldNames, Signature
from semid_daemon.base.text import path_of
from semid_daemon.drop.dispose import names_when_moved
from semid_daemon.drop.scan import signature_of


def find_source(
    name: str,
    digest: str,
    size_bytes: int,
    drop_dir: Path,
    done_dir: Path,
    sidecar_suffixes: tuple[str, ...],
    fields: FieldNames,
) -> Iterator[DropFile]:
    """Files that can be the one of this name, digest and size, each under the name that it had when it was dropped.

    Whether it is the one, its rows have to tell.
    """
    relative = path_of(name)
    if relative.is_absolute() or ".." in relative.parts:
        return
    plain = done_dir / relative
    names = dict.fromkeys([plain.name, *names_when_moved(plain.name, digest)])
    for path in [*map(plain.with_name, names), drop_dir / relative]:
        signature = _signature(path)
        if signature is None or signature.size_bytes != size_bytes:
            continue
        beside = (path.with_name(base + suffix) for base in (path.name, path.stem) for suffix in sidecar_suffixes)
        sidecar = next((other for other in beside if _signature(other) is not None), None)
        yield DropFile(path, name, signature, sidecar, _signature(sidecar) if sidecar else None, fields)


def _signature(path: Path) -> Signature | None:
    """Of a regular file, None of anything else."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return signature_of(status) if stat.S_ISREG(status.st_mode) else None
