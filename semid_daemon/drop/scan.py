"""One look at the drop directory: which regular files of a known kind lie there, and their signatures.

The scan is the truth; file system events only say when to look. Symbolic links are never followed,
and nothing is opened here.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from semid_daemon.records import DropFile, Signature

UNFINISHED_SUFFIXES = (".part", ".tmp", ".crdownload", ".filepart", "~")
_TICK_NAMES = 5_000
_ESCAPE = re.compile(r"\\(\\|[nrt]|x[0-9a-f]{2}|u[0-9a-f]{4}|U000[0-9a-f]{5})")


@dataclass(frozen=True, slots=True)
class Scan:
    """What lay in the drop directory: candidates by name, and what was passed over, with the reason.

    `root` identifies the directory itself: another one after it was made anew, unmounted or mounted.
    """

    files: dict[str, DropFile]
    skipped: dict[str, str]
    root: str


def printable(path: Path) -> str:
    """A path as text that any terminal, database and JSON can hold; no two paths have the same.

    Bytes that are not UTF-8, characters that cannot be shown and backslashes are escaped; see `path_of`.
    """
    text = os.fsencode(path).decode("utf-8", errors="surrogateescape")
    return text if text.isprintable() and "\\" not in text else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    if "\x80" <= character <= "\xff" and not character.isprintable():
        return f"\\u{ord(character):04x}"  # unlike the byte of that number
    if character == "\\" or not character.isprintable():
        return character.encode("unicode_escape").decode("ascii")
    return character


def path_of(name: str) -> Path:
    """The path that `printable` made this text of."""

    def unescaped(match: re.Match[str]) -> str:
        code = match[1]
        if code[0] not in "xuU":
            return {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}[code]
        number = int(code[1:], 16)
        return chr(0xDC00 + number if code[0] == "x" and number >= 0x80 else number)

    return Path(os.fsdecode(_ESCAPE.sub(unescaped, name).encode("utf-8", errors="surrogateescape")))


def signature_of(status: os.stat_result) -> Signature:
    return Signature(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def scan(
    drop_dir: Path,
    *,
    supported: Callable[[str], bool],
    sidecar_suffixes: tuple[str, ...],
    tick: Callable[[], None] = lambda: None,
) -> Scan:
    """Walk the drop directory once; `tick` is called every few thousand names.

    `supported` tells by its name whether a file can be one of embeddings; a file named like one of
    them but ending in one of `sidecar_suffixes` holds its item IDs. Raises OSError when the
    directory itself cannot be read; an unreadable sub-directory is only noted.
    """
    regular: dict[Path, Signature] = {}
    skipped: dict[str, str] = {}
    root = os.stat(drop_dir)
    pending = [drop_dir]
    seen = 0
    while pending:
        directory = pending.pop()
        try:
            with os.scandir(directory) as listing:
                entries = list(listing)
        except OSError as error:
            if directory == drop_dir:
                raise
            skipped[printable(directory.relative_to(drop_dir))] = f"directory cannot be read: {error.strerror}"
            continue
        for entry in entries:
            seen += 1
            if seen % _TICK_NAMES == 0:
                tick()
            if entry.name.startswith(".") or entry.name.endswith(UNFINISHED_SUFFIXES):
                continue
            path = directory / entry.name
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError as error:
                skipped[printable(path.relative_to(drop_dir))] = f"cannot be looked at: {error.strerror}"
                continue
            if stat.S_ISDIR(status.st_mode):
                pending.append(path)
            elif stat.S_ISREG(status.st_mode):
                regular[path] = signature_of(status)
            else:
                kind = "symbolic link" if stat.S_ISLNK(status.st_mode) else "not a regular file"
                skipped[printable(path.relative_to(drop_dir))] = f"{kind}: never read; put the file itself here"
    files = _pair(drop_dir, regular, skipped, supported, sidecar_suffixes)
    return Scan(files, skipped, f"{root.st_dev}:{root.st_ino}")


def _pair(
    drop_dir: Path,
    regular: dict[Path, Signature],
    skipped: dict[str, str],
    supported: Callable[[str], bool],
    sidecar_suffixes: tuple[str, ...],
) -> dict[str, DropFile]:
    files: dict[str, DropFile] = {}
    sharing: dict[Path, list[DropFile]] = {}
    for path in sorted(regular):
        name = printable(path.relative_to(drop_dir))
        if path.name.endswith(sidecar_suffixes):
            continue
        if not supported(path.name):
            skipped[name] = "not a kind of file that is read"
            continue
        # items.npy goes with items.npy.ids.txt or items.ids.txt
        sidecar = next(
            (
                candidate
                for base in (path, path.with_suffix(""))
                for suffix in sidecar_suffixes
                if (candidate := base.with_name(base.name + suffix)) in regular
            ),
            None,
        )
        files[name] = DropFile(
            path=path,
            name=name,
            signature=regular[path],
            sidecar=sidecar,
            sidecar_signature=regular[sidecar] if sidecar else None,
        )
        if sidecar is not None:
            sharing.setdefault(sidecar, []).append(files[name])
    for sidecar, users in sharing.items():
        for file in users if len(users) > 1 else []:
            shown = printable(Path(sidecar.name))
            own = printable(Path(file.path.name + next(each for each in sidecar_suffixes if shown.endswith(each))))
            skipped[file.name] = f"two files share {shown}; name it {own}"
            del files[file.name]
    return files
