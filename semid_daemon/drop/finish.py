"""What becomes of a file once the ledger has decided: moved, kept or deleted. Safe to repeat."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path

from semid_daemon.failpoints import failpoint
from semid_daemon.records import DropFile


def move_away(file: DropFile, drop_dir: Path, target_dir: Path, digest: str) -> Path | None:
    """Move the file, and its sidecar, to the same place below `target_dir`; where it lies then.

    A name that is taken there gets the digest's first digits: no file is ever overwritten. None when
    the file is gone already. The bytes are moved by renaming; across file systems they are copied first.
    """
    return _move_to(file, _target(file, drop_dir, target_dir, digest))


def _target(file: DropFile, drop_dir: Path, target_dir: Path, digest: str) -> Path:
    target = target_dir / file.path.relative_to(drop_dir)
    target.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(target):
        target = target.with_name(f"{target.stem}-{digest[:12]}{target.suffix}")
    return target


def _move_to(file: DropFile, target: Path) -> Path | None:
    sidecar = file.sidecar
    failpoint("moving")
    try:
        _move(file.path, target)
    except FileNotFoundError:
        return None
    failpoint("moved")
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
    target = _target(file, drop_dir, rejected_dir, digest)
    # The reason first: a file never lies among the rejected ones without it.
    _reason_path(target).write_text(reason + "\n", encoding="utf-8")
    return _move_to(file, target)


def _reason_path(target: Path) -> Path:
    return target.with_name(target.name + ".reason.txt")


def bring_back(name: str, digest: str, drop_dir: Path, rejected_dir: Path, sidecar_suffixes: tuple[str, ...]) -> bool:
    """Move a rejected file back to the drop directory, its sidecars first; False when it is not among the rejected.

    `name` is the path it had below the drop directory. A name that is taken there is left alone.
    """
    relative = Path(name)
    if relative.is_absolute() or ".." in relative.parts:
        return False
    target = drop_dir / relative
    plain = rejected_dir / relative
    for source in (plain.with_name(f"{plain.stem}-{digest[:12]}{plain.suffix}"), plain):
        if not source.is_file() or source.is_symlink() or os.path.lexists(target):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        for suffix in sidecar_suffixes:
            for of, to in ((source.stem, target.stem), (source.name, target.name)):
                with contextlib.suppress(FileNotFoundError):
                    _move(source.with_name(of + suffix), target.with_name(to + suffix))
        _move(source, target)
        _reason_path(source).unlink(missing_ok=True)
        return True
    return False


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
        sync_directory(target.parent)
        source.unlink()


def sync_directory(directory: Path) -> None:
    """Make renames in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
