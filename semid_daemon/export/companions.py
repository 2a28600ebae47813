"""What lies beside an export: the map from row to item ID, and where it came from, with the digests of both."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from semid_daemon.base.atomic_file import sync_directory, sync_tree
from semid_daemon.base.failpoints import failpoint
from semid_daemon.export.job import ExportError

MAP_SUFFIX = ".ids.json"
ORIGIN_SUFFIX = ".semid.json"


def map_of(out: Path) -> Path:
    """The file that lists the item ID of every row of a dense export."""
    return out.with_name(out.name + MAP_SUFFIX)


def origin_of(out: Path) -> Path:
    """The file that says where an export came from."""
    return out.with_name(out.name + ORIGIN_SUFFIX)


def digest_of(path: Path) -> str:
    """SHA-256 of a file, or of a directory's relative paths and their files' digests, as hexadecimal digits."""
    if not path.is_dir():
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for file_path in sorted(file_path for file_path in path.rglob("*") if file_path.is_file()):
        digest.update(f"{file_path.relative_to(path)}\0{digest_of(file_path)}\n".encode())
    return digest.hexdigest()


def publish(staged: Path, staged_map: Path | None, origin: dict[str, Any], out: Path) -> list[Path]:
    """Move a complete export and its companions to their places; `out` is the last of the paths.

    Old companions go first and the companion with the digests comes last: at every moment in between an export has
    no companion that belongs to another. Two exports to one name follow each other.
    """
    digests = {"export": digest_of(staged)} | ({"ids": digest_of(staged_map)} if staged_map else {})
    staged_origin = staged.with_name("origin")
    staged_origin.write_text(json.dumps({**origin, "sha256": digests}, indent=1) + "\n", encoding="utf-8")
    steps = [(staged, out), *([(staged_map, map_of(out))] if staged_map else []), (staged_origin, origin_of(out))]
    for path, _ in steps:
        sync_tree(path)
    failpoint("export-written")
    with _one_at_a_time(out.parent):
        origin_of(out).unlink(missing_ok=True)
        map_of(out).unlink(missing_ok=True)
        sync_directory(out.parent)
        failpoint("export-publishing")
        for path, final in steps:
            os.rename(path, final)
            failpoint("export-publishing")
        sync_directory(out.parent)
    return [*(final for _, final in steps[1:]), out]


def check_export(out: Path) -> dict[str, Any]:
    """What `OUT.semid.json` says, once the export and its map are those that it belongs to.

    Raises ExportError when a file is missing or cannot be read, and when a digest is another.
    """
    origin = _loaded(origin_of(out))
    digests = origin.get("sha256") if isinstance(origin, dict) else None
    if not isinstance(digests, dict) or "export" not in digests:
        raise ExportError(f"{origin_of(out)}: says no digests; export again")
    paths = {"export": out, "ids": map_of(out)}
    for name, expected in digests.items():
        path = paths.get(name)
        try:
            found = digest_of(path) if path else ""
        except OSError as error:
            raise ExportError(f"{path}: cannot be read: {error.strerror or error}; export again") from error
        if found != expected:
            raise ExportError(f"{path or name}: does not belong to {origin_of(out).name}; export again")
    return dict(origin)


def row_items(out: Path) -> list[str]:
    """The item ID of every row of a dense export. Raises ExportError as `check_export`, and for other forms."""
    if "ids" not in check_export(out)["sha256"]:
        raise ExportError(f"{out}: names its items itself; only grid, npy and index-json have a map of their rows")
    return list(_loaded(map_of(out)))


def _loaded(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise ExportError(f"{path}: cannot be read: {error.strerror or error}; export again") from error
    except ValueError as error:
        raise ExportError(f"{path}: is no JSON: {error}; export again") from error


@contextmanager
def _one_at_a_time(directory: Path) -> Iterator[None]:
    """Holds the directory's lock, where its file system has locks."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
