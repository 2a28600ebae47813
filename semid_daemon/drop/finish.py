"""What becomes of a file once the ledger has decided: moved, kept or deleted. Safe to repeat."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path

from semid_daemon.records import DropFile


def move_away(file: DropFile, drop_dir: Path, target_dir: Path, digest: str) -> Path | None:
    """Move the file, and its sidecar, to the same place below `target_dir`; where it lies then.

    A name that is taken there gets the digest's first digits: no file is ever overwritten. None when
    the file is gone already. The bytes are moved by renaming; across file systems they are copied first.
    """
    relative = file.path.relative_to(drop_dir)
    target = target_dir / relative
    target.parent.mkdir(parents=True, exist_ok=True)
    sidecar = file.sidecar
    if os.path.lexists(target):
        target = target.with_name(f"{target.stem}-{digest[:12]}{target.suffix}")
    try:
        _move(file.path, target)
    except FileNotFoundError:
        return None
    if sidecar is not None:
        # The sidecar goes last: left behind alone it means nothing, whereas the file without it would
        # be another content, with made-up item IDs.
        suffix = sidecar.name.removeprefix(file.path.name).removeprefix(file.path.stem)
        base = target.name if sidecar.name.startswith(file.path.name) else target.stem
        with contextlib.suppress(FileNotFoundError):
            _move(sidecar, target.with_name(base + suffix))
    return target


def reject(file: DropFile, drop_dir: Path, rejected_dir: Path, digest: str, reason: str) -> Path | None:
    """Move a rejected file away, with its reason in `<name>.reason.txt` beside it."""
    target = move_away(file, drop_dir, rejected_dir, digest)
    if target is not None:
        target.with_name(target.name + ".reason.txt").write_text(reason + "\n", encoding="utf-8")
    return target


def delete(file: DropFile) -> None:
    """Delete a finished file and its sidecar."""
    for path in (file.path, file.sidecar):
        if path is not None:
            path.unlink(missing_ok=True)


def _move(source: Path, target: Path) -> None:
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        partial = target.with_name(f".{target.name}.part")
        shutil.copy2(source, partial)
        with open(partial, "rb") as copy:
            os.fsync(copy.fileno())
        os.rename(partial, target)
        source.unlink()
