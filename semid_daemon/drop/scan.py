"""One look at the drop directory: which regular files of a known kind lie there, and their signatures.

The scan is the truth; file system events only say when to look. Symbolic links are never followed,
and nothing is opened here.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

from semid_daemon.base.drop_file import DropFile, FieldNames, Signature
from semid_daemon.base.text import printable
from semid_daemon.drop.place import listable, open_below

UNFINISHED_SUFFIXES = (".part", ".tmp", ".crdownload", ".filepart", "~")
_STEP_NAMES = 5_000
_FOUND_BY_THEMSELVES = FieldNames()


@dataclass(frozen=True, slots=True)
class Scan:
    """What lay in the drop directory: candidates by name, and what was passed over, with the reason.

    `root` identifies the directory itself: another one after it was made anew, unmounted or mounted.
    """

    files: dict[str, DropFile]
    skipped: dict[str, str]
    root: str


def signature_of(status: os.stat_result) -> Signature:
    return Signature(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def possible_sidecars(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Where a file's item IDs may lie: items.npy goes with items.npy.ids.txt or items.ids.txt."""
    return [base.with_name(base.name + suffix) for base in (path, path.with_suffix("")) for suffix in suffixes]


def scan(
    drop_dir: Path,
    *,
    supported: Callable[[str], bool],
    sidecar_suffixes: tuple[str, ...],
    fields: FieldNames = _FOUND_BY_THEMSELVES,
) -> Generator[None, None, Scan]:
    """Walk the drop directory once, in steps of a few thousand names.

    `supported` tells by its name whether a file can be one of embeddings; a file named like one of
    them but ending in one of `sidecar_suffixes` holds its item IDs; `fields` goes with every file.
    Raises OSError when the directory itself cannot be read, or is not there to the end: files that were not found
    then may lie where it went. An unreadable sub-directory is only noted.
    """
    regular: dict[Path, Signature] = {}
    skipped: dict[str, str] = {}
    root = os.stat(drop_dir)
    pending = [drop_dir]
    seen = 0
    while pending:
        directory = pending.pop()
        found: list[tuple[Path, os.stat_result]] = []
        try:
            with (
                open_below(drop_dir, directory.relative_to(drop_dir)) as handle,
                listable(handle) as descriptor,
                os.scandir(descriptor) as listing,
            ):
                for entry in list(listing):
                    seen += 1
                    if seen % _STEP_NAMES == 0:
                        yield
                    if entry.name.startswith(".") or entry.name.endswith(UNFINISHED_SUFFIXES):
                        continue
                    path = directory / entry.name
                    try:
                        found.append((path, entry.stat(follow_symlinks=False)))
                    except FileNotFoundError:
                        continue
                    except OSError as error:
                        skipped[printable(path.relative_to(drop_dir))] = f"cannot be looked at: {error.strerror}"
        except OSError as error:
            if directory == drop_dir:
                raise
            skipped[printable(directory.relative_to(drop_dir))] = f"directory cannot be read: {error.strerror}"
            continue
        for path, status in found:
            if stat.S_ISDIR(status.st_mode):
                pending.append(path)
            elif stat.S_ISREG(status.st_mode):
                regular[path] = signature_of(status)
            else:
                kind = "symbolic link" if stat.S_ISLNK(status.st_mode) else "not a regular file"
                skipped[printable(path.relative_to(drop_dir))] = f"{kind}: never read; put the file itself here"
    files = _pair(drop_dir, regular, skipped, supported, sidecar_suffixes, fields)
    if not os.path.samestat(root, os.stat(drop_dir)):
        raise FileNotFoundError(errno.ENOENT, "made anew, mounted or unmounted while it was looked at")
    return Scan(files, skipped, f"{root.st_dev}:{root.st_ino}")


def _pair(
    drop_dir: Path,
    regular: dict[Path, Signature],
    skipped: dict[str, str],
    supported: Callable[[str], bool],
    sidecar_suffixes: tuple[str, ...],
    fields: FieldNames,
) -> dict[str, DropFile]:
    files: dict[str, DropFile] = {}
    sharing: dict[Path, list[DropFile]] = {}
    sidecars = {path for path in regular if path.name.endswith(sidecar_suffixes)}
    for path in sorted(regular, key=os.fspath):
        if path in sidecars:
            continue
        name = printable(path.relative_to(drop_dir))
        if not supported(path.name):
            skipped[name] = "not a kind of file that is read"
            continue
        sidecar = None
        if sidecars:
            sidecar = next((other for other in possible_sidecars(path, sidecar_suffixes) if other in sidecars), None)
        files[name] = DropFile(
            path=path,
            name=name,
            signature=regular[path],
            sidecar=sidecar,
            sidecar_signature=regular[sidecar] if sidecar else None,
            fields=fields,
            root=drop_dir,
        )
        if sidecar is not None:
            sharing.setdefault(sidecar, []).append(files[name])
    for sidecar, users in sharing.items():
        for file in users if len(users) > 1 else []:
            shared = printable(Path(sidecar.name))
            suffix = next(suffix for suffix in sidecar_suffixes if shared.endswith(suffix))
            skipped[file.name] = f"two files share {shared}; name it {printable(Path(file.path.name + suffix))}"
            del files[file.name]
    return files
