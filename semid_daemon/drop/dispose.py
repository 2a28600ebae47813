"""What becomes of a file once the ledger has decided: moved, kept or deleted. Safe to repeat.

A file that is no longer the one that was read is left where it is: FileChangedError says so.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from semid_daemon.base.drop_file import DropFile, Signature
from semid_daemon.base.failpoints import failpoint
from semid_daemon.base.text import cut_name, path_of
from semid_daemon.drop.open_file import FileChangedError
from semid_daemon.drop.place import Place, copy_of, listable, open_below
from semid_daemon.drop.scan import signature_of

# In bytes: leaves room for the names beside a file. It never changes: files are found again by the names it gave them.
_LONGEST_NAME = 241
_DELETING = ".semid-deleting"


def move_away(file: DropFile, drop_dir: Path, target_dir: Path, digest: str) -> Path | None:
    """Move the file, and its sidecar, to the same place below `target_dir`; where it lies then.

    A name that is taken there gets the digest's first digits: no file is ever overwritten. None when
    the file is gone already. The bytes are moved by renaming; across file systems they are copied first.
    """
    relative = file.path.relative_to(drop_dir).parent
    with _held(file) as held:
        if held is None:
            return None
        with open_below(target_dir, relative, make=True) as directory:
            target = _move_to(held, _target(held, directory, digest))
    return target_dir / relative / target.name if target else None


def reject(file: DropFile, drop_dir: Path, rejected_dir: Path, digest: str, reason: str) -> Path | None:
    """Move a rejected file away, with its reason in `<name>.reason.txt` beside it."""
    relative = file.path.relative_to(drop_dir).parent
    with _held(file) as held:
        if held is None:
            return None
        _check_unchanged(held)
        with open_below(rejected_dir, relative, make=True) as directory:
            target = _target(held, directory, digest)
            # The reason first: a file never lies among the rejected ones without it.
            told = _reason_place(target)
            told.unlink(missing_ok=True)
            with told.create() as stream:
                stream.write(f"{reason}\n".encode())
            try:
                moved = _move_to(held, target)
            except FileChangedError:
                told.unlink(missing_ok=True)
                raise
    return rejected_dir / relative / moved.name if moved else None


def _reason_place(target: Place) -> Place:
    return target.with_name(target.name + ".reason.txt")


@dataclass(frozen=True, slots=True)
class _Held:
    """A file and its sidecar in the directory where they were seen, which is held open."""

    file: DropFile
    place: Place
    sidecar: Place | None


@contextlib.contextmanager
def _held(file: DropFile) -> Iterator[_Held | None]:
    """None when the directory is gone. Raises FileChangedError when something else lies in its place."""
    root = file.root or file.path.parent
    with contextlib.ExitStack() as stack:
        held = None
        try:
            directory = stack.enter_context(open_below(root, file.path.parent.relative_to(root)))
            sidecar = Place(directory, file.sidecar.name) if file.sidecar else None
            held = _Held(file, Place(directory, file.path.name), sidecar)
        except FileNotFoundError:
            pass
        except NotADirectoryError:
            raise FileChangedError("its directory was replaced before it was moved") from None
        yield held


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


def _target(held: _Held, directory: int, digest: str) -> Place:
    taken = 1
    for name in names_when_moved(held.place.name, digest):
        if _is_free(held, target := Place(directory, name)):
            return target
    while True:
        taken += 1
        name = _shortened(held.place.name, f"-{digest[:12]}-{taken}", _LONGEST_NAME)
        if _is_free(held, target := Place(directory, name)):
            return target


def _is_free(held: _Held, target: Place) -> bool:
    if target.exists():
        return False
    if held.sidecar is None:
        return True
    beside = _beside(held, held.sidecar, target)
    # Put there by a move that was interrupted, it is no other.
    return not beside.exists() or _is_same(beside, held.sidecar)


def _is_same(place: Place, other: Place) -> bool:
    try:
        one, two = place.status(), other.status()
        if os.path.samestat(one, two):
            return True
        if not (stat.S_ISREG(one.st_mode) and stat.S_ISREG(two.st_mode) and one.st_size == two.st_size):
            return False
        with place.open() as first, other.open() as second:
            return first.read() == second.read()
    except FileNotFoundError:
        return False


def _beside(held: _Held, sidecar: Place, target: Place) -> Place:
    """Where the sidecar goes when its file goes to `target`."""
    if sidecar.name.startswith(held.place.name):
        return target.with_name(target.name + sidecar.name.removeprefix(held.place.name))
    return target.with_name(target.stem + sidecar.name.removeprefix(held.place.stem))


# -- moving --------------------------------------------------------------------------------------


def _check_unchanged(held: _Held) -> None:
    """Raises FileChangedError when something else lies there than what was read; nothing at all is fine."""
    file = held.file
    for place, signature in ((held.place, file.signature), (held.sidecar, file.sidecar_signature)):
        if place is None or signature is None:
            continue
        with contextlib.suppress(FileNotFoundError):
            if signature_of(place.status()) != signature:
                raise FileChangedError("changed before it was moved")


def _is_ours(place: Place, signature: Signature | None) -> bool:
    """Whether it is that file under another name: a new name changes the change time, nothing else."""
    try:
        found = signature_of(place.status())
    except FileNotFoundError:
        return False
    return signature is not None and (found.device, found.inode, found.size_bytes, found.mtime_ns) == (
        signature.device,
        signature.inode,
        signature.size_bytes,
        signature.mtime_ns,
    )


def _put_back(place: Place, where: Place) -> None:
    if not where.exists():
        place.rename(where)


def _hide(place: Place, signature: Signature | None) -> Place:
    """Take a file out of sight, where no writer reaches it; raises FileChangedError when it is not ours."""
    hidden = place.with_name("." + _shortened(place.name, "", 255 - 1 - len(_DELETING)) + _DELETING)
    place.rename(hidden)
    if not _is_ours(hidden, signature):
        _put_back(hidden, place)
        raise FileChangedError("changed while it was being moved or deleted")
    return hidden


def _move_to(held: _Held, target: Place) -> Place | None:
    failpoint("moving")
    _check_unchanged(held)
    if not held.place.exists():
        return None
    signature = held.file.sidecar_signature
    sidecar = held.sidecar if held.sidecar is not None and held.sidecar.exists() else None
    hidden = beside = None
    made = False
    try:
        if sidecar is not None:
            # It is there before its file is, and leaves the drop directory after it: a file without its
            # sidecar would be another content, with made-up item IDs.
            beside = _beside(held, sidecar, target)
            made = not beside.exists()
            if made and not _linked(sidecar, beside):
                with copy_of(sidecar, beside):
                    pass
            if not _is_ours(beside, signature):
                hidden = _hide(sidecar, signature)
        _move_checked(held, target)
    except BaseException as error:
        if hidden is not None and sidecar is not None:
            _put_back(hidden, sidecar)
        if made and beside is not None:
            beside.unlink(missing_ok=True)
        if isinstance(error, FileNotFoundError) and not held.place.exists():
            return None
        raise
    failpoint("moved")
    if hidden is not None:
        hidden.unlink(missing_ok=True)
    elif sidecar is not None and _is_ours(sidecar, signature):
        sidecar.unlink(missing_ok=True)
    return target


def _linked(source: Place, target: Place) -> bool:
    """Give a file a second name, which must be free; False where that cannot be."""
    try:
        source.link(target)
    except FileNotFoundError:
        raise
    except OSError:
        return False  # another file system, or one without links
    return True


def _move_checked(held: _Held, target: Place) -> None:
    place, signature = held.place, held.file.signature
    try:
        place.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    else:
        if not _is_ours(target, signature):
            _put_back(target, place)
            raise FileChangedError("changed while it was being moved")
        return
    hidden = None
    try:
        with copy_of(place, target):
            _check_unchanged(_Held(held.file, place, None))
            hidden = _hide(place, signature)
    except BaseException:
        if hidden is not None and not target.exists():
            _put_back(hidden, place)
        raise
    hidden.unlink()


def delete(file: DropFile) -> None:
    """Delete a finished file and its sidecar."""
    with _held(file) as held:
        if held is None:
            return
        _check_unchanged(held)
        hidden: list[tuple[Place, Place]] = []
        try:
            for place, signature in ((held.place, file.signature), (held.sidecar, file.sidecar_signature)):
                if place is not None:
                    with contextlib.suppress(FileNotFoundError):
                        hidden.append((_hide(place, signature), place))
        except BaseException:
            for was_hidden, place in hidden:
                _put_back(was_hidden, place)
            raise
        for was_hidden, _ in hidden:
            was_hidden.unlink()


def _move(source: Place, target: Place) -> None:
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with copy_of(source, target):
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
    with open_below(drop_dir, Path()) as root:
        for path, _, names, directory in os.fwalk(".", dir_fd=root):
            _tidy_directory(Path(path), names, directory, target_dirs, supported, sidecar_suffixes)


def _tidy_directory(
    relative: Path,
    names: list[str],
    directory: int,
    target_dirs: tuple[Path, ...],
    supported: Callable[[str], bool],
    sidecar_suffixes: tuple[str, ...],
) -> None:
    visible = set(names)
    bases = _bases(names, supported)
    hidden = [name for name in names if name.startswith(".") and name.endswith(_DELETING)]
    for name in sorted(hidden, key=lambda name: _base(name[: -len(_DELETING)], sidecar_suffixes) is not None):
        plain = name[1 : -len(_DELETING)]  # the files first, then what belongs to them
        base = _base(plain, sidecar_suffixes)
        if base is not None and base not in bases:
            Place(directory, name).unlink(missing_ok=True)
        elif plain not in visible:
            _put_back(Place(directory, name), Place(directory, plain))
            visible.add(plain)
            bases |= _bases([plain], supported)
    for name in names:
        base = None if name.startswith(".") else _base(name, sidecar_suffixes)
        if base is not None and base not in bases:
            _drop_if_moved(Place(directory, name), relative, target_dirs, supported, sidecar_suffixes)


def _base(name: str, sidecar_suffixes: tuple[str, ...]) -> str | None:
    """What a sidecar's name begins with; None when it is none."""
    return next((name.removesuffix(suffix) for suffix in sidecar_suffixes if name.endswith(suffix)), None)


def _bases(names: Iterable[str], supported: Callable[[str], bool]) -> set[str]:
    """What the names of the sidecars of these files can begin with."""
    files = [name for name in names if not name.startswith(".") and supported(name)]
    return {base for name in files for base in (name, os.path.splitext(name)[0])}


def _drop_if_moved(
    sidecar: Place,
    relative: Path,
    target_dirs: tuple[Path, ...],
    supported: Callable[[str], bool],
    sidecar_suffixes: tuple[str, ...],
) -> None:
    status = sidecar.status()
    if status.st_nlink < 2:
        return
    for target_dir in target_dirs:
        try:
            with open_below(target_dir, relative) as handle, listable(handle) as directory:
                names = os.listdir(directory)
                bases = _bases(names, supported)
                beside = [Place(directory, name) for name in names if _base(name, sidecar_suffixes) in bases]
                moved = any(os.path.samestat(status, place.status()) for place in beside)
        except OSError:
            continue
        if moved:
            sidecar.unlink(missing_ok=True)
            return


def bring_back(name: str, digest: str, drop_dir: Path, rejected_dir: Path, sidecar_suffixes: tuple[str, ...]) -> bool:
    """Move a rejected file back to the drop directory, its sidecars first; False when it is not among the rejected.

    `name` is the path it had below the drop directory, as printable text. A name that is taken there is left alone.
    """
    relative = path_of(name)
    if relative.is_absolute() or ".." in relative.parts:
        return False
    with contextlib.ExitStack() as stack:
        try:
            rejected = stack.enter_context(open_below(rejected_dir, relative.parent))
        except FileNotFoundError:
            return False
        # The digest tells for sure; names as long as they may be were not cut by earlier versions.
        names = [*names_when_moved(relative.name, digest, 255), *names_when_moved(relative.name, digest)]
        source = next((place for name in reversed(names) if _is_regular(place := Place(rejected, name))), None)
        if source is None:
            return False
        target = Place(stack.enter_context(open_below(drop_dir, relative.parent, make=True)), relative.name)
        if target.exists():
            return False
        for suffix in sidecar_suffixes:
            for of, to in ((source.stem, target.stem), (source.name, target.name)):
                if source.with_name(of + suffix).exists():
                    _move(source.with_name(of + suffix), target.with_name(to + suffix))
        _move(source, target)
        with contextlib.suppress(OSError):
            _reason_place(source).unlink(missing_ok=True)
        return True


def _is_regular(place: Place) -> bool:
    try:
        return stat.S_ISREG(place.status().st_mode)
    except OSError:
        return False


def lies_in(drop_dir: Path, name: str) -> bool:
    """Whether a file of that name, as printable text, lies in the drop directory itself, not behind a link."""
    relative = path_of(name)
    try:
        with open_below(drop_dir, relative.parent) as directory:
            return Place(directory, relative.name).exists()
    except (FileNotFoundError, NotADirectoryError):
        return False
