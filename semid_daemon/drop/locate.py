"""Finding finished files again: where a file that was moved away, or kept in place, lies by now."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from semid_daemon.base.drop_file import DropFile, FieldNames, Signature
from semid_daemon.base.text import path_of
from semid_daemon.drop.dispose import names_when_moved
from semid_daemon.drop.place import Place, open_below
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
    names = dict.fromkeys([relative.name, *names_when_moved(relative.name, digest)])
    for root, candidates in ((done_dir, list(names)), (drop_dir, [relative.name])):
        for candidate in candidates:
            path = root / relative.with_name(candidate)
            signature = _signature(path, root)
            if signature is None or signature.size_bytes != size_bytes:
                continue
            beside = (path.with_name(base + suffix) for base in (path.name, path.stem) for suffix in sidecar_suffixes)
            sidecar = next((other for other in beside if _signature(other, root) is not None), None)
            sidecar_signature = _signature(sidecar, root) if sidecar else None
            yield DropFile(path, name, signature, sidecar, sidecar_signature, fields, root)


def _signature(path: Path, root: Path) -> Signature | None:
    """Of a regular file, None of anything else."""
    try:
        with open_below(root, path.parent.relative_to(root)) as directory:
            status = Place(directory, path.name).status()
    except OSError:
        return None
    return signature_of(status) if stat.S_ISREG(status.st_mode) else None
