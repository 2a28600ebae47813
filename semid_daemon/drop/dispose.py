"""What becomes of a file once the ledger has decided: moved, kept or deleted. Safe to repeat.

A file that is no longer the one that was read is left where it is: FileChangedError says so.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from semid_daemon.base.atomic_file import atomic_write
from semid_daemon.base.drop_file import DropFile, Signature
from semid_daemon.base.failpoints import failpoint
from semid_daemon.base.text import cut_name, path_of
from semid_daemon.drop.open_file import FileChangedError
from semid_daemon.drop.scan import signature_of

# In bytes: leaves room for the names beside a file. It never changes: files are found again by the names it gave them.
_LONGEST_NAME = 241
_DELETING = ".semid-deleting"


def move_away(file: DropFile, drop_dir: Path, target_dir: Path, digest: str) -> Path | None:
    """Move the file, and its sidecar, to the same place below `target_dir`; where it lies then.

    A name that is taken there gets the digest's first digits: no file is ever overwritten. None when
    the file is gone already. The bytes are moved by renaming; across file systems they are copied first.
    """
    return _move_to(file, _target(file, drop_dir, target_dir, digest))


def reject(file: DropFile, drop_dir: Path, rejected_dir: Path, digest: str, reason: str) -> Path | None:
    """Move a rejected file away, with its reason in `<name>.reason.txt` beside it."""
    _check_unchanged(file)
    target = _target(file, drop_dir, rejected_dir, digest)
    # The reason first: a file never lies among the rejected ones without it.
    _reason_path(target).write_text(reason + "\n", encoding="utf-8")
    try:
        moved = _move_to(file, target)
    except FileChangedError:
        _reason_path(target).unlink(missing_ok=True)
        raise
    return moved


def _reason_path(target: Path) -> Path:
    return target.with_name(target.name + ".reason.txt")


# -- names ---------------------------------------------------------------------------------------


def _shortened(name: str, addition: str, room: int) -> str:
    """The name with something added to its stem, which is cut until all fits."""
    stem, suffix = os.path.splitext(name)
    addition += suffix
    return cut_name(stem, room - len(os.fsencode(addition))) + addition


def names_when_moved(name: str, digest: str, longest: int = _LONGEST_NAME) -> Iterator[str]:
    """The names that a file may get where it is moved to. One that had to be cut always has its digest."""
    if len(os.fsencode(name)) <= longest:
        yield name
    yield _shortened(name, f"-{digest[:12]}", longest)


def _target(file: DropFile, drop_dir: Path, target_dir: Path, digest: str) -> Path:
    place = (target_dir / file.path.relative_to(drop_dir)).parent
    place.mkdir(parents=True, exist_ok=True)
    taken = 1
    for name in names_when_moved(file.path.name, digest):
        if _is_free(file, target := place / name):
            return target
    while True:
        taken += 1
        name = _shortened(file.path.name, f"-{digest[:12]}-{taken}", _LONGEST_NAME)
        if _is_free(file, target := place / name):
            return target


def _is_free(file: DropFile, target: Path) -> bool:
    if os.path.lexists(target):
        return False
    if file.sidecar is None:
        return True
    beside = _beside(file, target)
    # Put there by a move that was interrupted, it is no other.
    return not os.path.lexists(beside) or _is_same(beside, file.sidecar)


def _is_same(path: Path, other: Path) -> bool:
    try:
        one, two = path.lstat(), other.lstat()
        if (one.st_dev, one.st_ino) == (two.st_dev, two.st_ino):
            return True
        regular = stat.S_ISREG(one.st_mode) and stat.S_ISREG(two.st_mode)
        return regular and one.st_size == two.st_size and path.read_bytes() == other.read_bytes()
    except FileNotFoundError:
        return False


def _beside(file: DropFile, target: Path) -> Path:
    """Where the sidecar goes when its file goes to `target`."""
    assert file.sidecar is not None
    name = file.sidecar.name
    if name.startswith(file.path.name):
        return target.with_name(target.name + name.removeprefix(file.path.name))
    return target.with_name(target.stem + name.removeprefix(file.path.stem))


# -- moving --------------------------------------------------------------------------------------


def _check_unchanged(file: DropFile) -> None:
    """Raises FileChangedError when something else lies there than what was read; nothing at all is fine."""
    for path, signature in ((file.path, file.signature), (file.sidecar, file.sidecar_signature)):
        if path is None or signature is None:
            continue
        with contextlib.suppress(FileNotFoundError):
            if signature_of(path.lstat()) != signature:
                raise FileChangedError("changed before it was moved")


def _is_ours(path: Path, signature: Signature | None) -> bool:
    """Whether it is that file under another name: a new name changes the change time, nothing else."""
    try:
        found = signature_of(path.lstat())
    except FileNotFoundError:
        return False
    return signature is not None and (found.device, found.inode, found.size_bytes, found.mtime_ns) == (
        signature.device,
        signature.inode,
        signature.size_bytes,
        signature.mtime_ns,
    )


def _put_back(path: Path, where: Path) -> None:
    if not os.path.lexists(where):
        os.rename(path, where)


def _hide(path: Path, signature: Signature | None) -> Path:
    """Take a file out of sight, where no writer reaches it; raises FileChangedError when it is not ours."""
    hidden = path.with_name("." + _shortened(path.name, "", 255 - 1 - len(_DELETING)) + _DELETING)
    os.rename(path, hidden)
    if not _is_ours(hidden, signature):
        _put_back(hidden, path)
        raise FileChangedError("changed while it was being moved or deleted")
    return hidden


def _move_to(file: DropFile, target: Path) -> Path | None:
    failpoint("moving")
    _check_unchanged(file)
    if not os.path.lexists(file.path):
        return None
    sidecar = file.sidecar if file.sidecar is not None and os.path.lexists(file.sidecar) else None
    hidden = beside = None
    made = False
    try:
        if sidecar is not None:
            # It is there before its file is, and leaves the drop directory after it: a file without its
            # sidecar would be another content, with made-up item IDs.
            beside = _beside(file, target)
            made = not os.path.lexists(beside)
            if made and not _linked(sidecar, beside):
                with _copy_of(sidecar, beside):
                    pass
            if not _is_ours(beside, file.sidecar_signature):
                hidden = _hide(sidecar, file.sidecar_signature)
        _move_checked(file, target)
    except BaseException as error:
        if hidden is not None and sidecar is not None:
            _put_back(hidden, sidecar)
        if made and beside is not None:
            beside.unlink(missing_ok=True)
        if isinstance(error, FileNotFoundError) and not os.path.lexists(file.path):
            return None
        raise
    failpoint("moved")
    if hidden is not None:
        hidden.unlink(missing_ok=True)
    elif sidecar is not None and _is_ours(sidecar, file.sidecar_signature):
        sidecar.unlink(missing_ok=True)
    return target


def _linked(source: Path, target: Path) -> bool:
    """Give a file a second name, which must be free: unlike a rename, a link never replaces what is there."""
    try:
        os.link(source, target, follow_symlinks=False)
    except FileNotFoundError:
        raise
    except OSError:
        return False  # another file system, or one without links
    return True


def _move_checked(file: DropFile, target: Path) -> None:
    try:
        os.rename(file.path, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    else:
        if not _is_ours(target, file.signature):
            _put_back(target, file.path)
            raise FileChangedError("changed while it was being moved")
        return
    hidden = None
    try:
        with _copy_of(file.path, target):
            _check_unchanged(DropFile(file.path, file.name, file.signature))
            hidden = _hide(file.path, file.signature)
    except BaseException:
        if hidden is not None and not os.path.lexists(target):
            _put_back(hidden, file.path)
        raise
    hidden.unlink()


def delete(file: DropFile) -> None:
    """Delete a finished file and its sidecar."""
    _check_unchanged(file)
    hidden: list[tuple[Path, Path]] = []
    try:
        for path, signature in ((file.path, file.signature), (file.sidecar, file.sidecar_signature)):
            if path is not None:
                with contextlib.suppress(FileNotFoundError):
                    hidden.append((_hide(path, signature), path))
    except BaseException:
        for was_hidden, path in hidden:
            _put_back(was_hidden, path)
        raise
    for was_hidden, _ in hidden:
        was_hidden.unlink()


@contextlib.contextmanager
def _copy_of(source: Path, target: Path) -> Iterator[None]:
    """Copy a file with its times and permissions. The copy is under its name, and durable, when the block ends."""
    with atomic_write(target) as stream:
        shutil.copy2(source, stream.name)
        yield


def _move(source: Path, target: Path) -> None:
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with _copy_of(source, target):
            pass
        source.unlink()


# -- after a crash, and on request ---------------------------------------------------------------


def tidy(
    drop_dir: Path, target_dirs: tuple[Path, ...], supported: Callable[[str], bool], sidecar_suffixes: tuple[str, ...]
) -> None:
    """At start: undo or complete what a process that died was moving or deleting.

    What it hid comes back, to be decided anew. A sidecar whose file has gone goes too when it is the very
    one (by inode, not by its bytes: the same item IDs may have been dropped again) beside a moved file.
    """
    for path, _, names in os.walk(drop_dir):
        directory = Path(path)
        visible = set(names)
        bases = _bases(names, supported)
        hidden = [name for name in names if name.startswith(".") and name.endswith(_DELETING)]
        for name in sorted(hidden, key=lambda name: _base(name[: -len(_DELETING)], sidecar_suffixes) is not None):
            plain = name[1 : -len(_DELETING)]  # the files first, then what belongs to them
            base = _base(plain, sidecar_suffixes)
            if base is not None and base not in bases:
                (directory / name).unlink(missing_ok=True)
            elif plain not in visible:
                _put_back(directory / name, directory / plain)
                visible.add(plain)
                bases |= _bases([plain], supported)
        for name in names:
            base = None if name.startswith(".") else _base(name, sidecar_suffixes)
            if base is not None and base not in bases:
                elsewhere = [target_dir / directory.relative_to(drop_dir) for target_dir in target_dirs]
                _drop_if_moved(directory / name, elsewhere, supported, sidecar_suffixes)


def _base(name: str, sidecar_suffixes: tuple[str, ...]) -> str | None:
    """What a sidecar's name begins with; None when it is none."""
    return next((name.removesuffix(suffix) for suffix in sidecar_suffixes if name.endswith(suffix)), None)


def _bases(names: Iterable[str], supported: Callable[[str], bool]) -> set[str]:
    """What the names of the sidecars of these files can begin with."""
    files = [name for name in names if not name.startswith(".") and supported(name)]
    return {base for name in files for base in (name, os.path.splitext(name)[0])}


def _drop_if_moved(
    sidecar: Path, places: list[Path], supported: Callable[[str], bool], sidecar_suffixes: tuple[str, ...]
) -> None:
    status = sidecar.lstat()
    if status.st_nlink < 2:
        return
    for place in places:
        try:
            names = os.listdir(place)
        except OSError:
            continue
        bases = _bases(names, supported)
        for name in names:
            if _base(name, sidecar_suffixes) in bases and os.path.samestat(status, (place / name).lstat()):
                sidecar.unlink(missing_ok=True)
                return


def bring_back(name: str, digest: str, drop_dir: Path, rejected_dir: Path, sidecar_suffixes: tuple[str, ...]) -> bool:
    """Move a rejected file back to the drop directory, its sidecars first; False when it is not among the rejected.

    `name` is the path it had below the drop directory, as printable text. A name that is taken there is left alone.
    """
    relative = path_of(name)
    if relative.is_absolute() or ".." in relative.parts:
        return False
    target = drop_dir / relative
    plain = rejected_dir / relative
    # The digest tells for sure; names as long as they may be were not cut by earlier versions.
    for candidate in reversed([*names_when_moved(plain.name, digest, 255), *names_when_moved(plain.name, digest)]):
        source = plain.with_name(candidate)
        if not source.is_file() or source.is_symlink() or os.path.lexists(target):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        for suffix in sidecar_suffixes:
            for of, to in ((source.stem, target.stem), (source.name, target.name)):
                if os.path.lexists(source.with_name(of + suffix)):
                    _move(source.with_name(of + suffix), target.with_name(to + suffix))
        _move(source, target)
        with contextlib.suppress(OSError):
            _reason_path(source).unlink(missing_ok=True)
        return True
    return False
