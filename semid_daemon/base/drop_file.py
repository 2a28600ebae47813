"""A file in the drop directory: its name, what the file system says of it, and which of its fields to read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Signature:
    """What the file system says of a file. Never its identity: only a cache key for the digest."""

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, slots=True)
class FieldNames:
    """The fields of vectors and of item IDs as the configuration names them; None: found by themselves."""

    vectors: str | None = None
    item_ids: str | None = None


@dataclass(frozen=True, slots=True)
class DropFile:
    """A stable file of embeddings in the drop directory.

    `name` is the path below the drop directory as printable text; `sidecar` is the file of
    item IDs that belongs to it, if there is one; `fields` says where in it to look. Below `root` no
    symbolic link is followed; None: `path` is one that a person gave.
    """

    path: Path
    name: str
    signature: Signature
    sidecar: Path | None = None
    sidecar_signature: Signature | None = None
    fields: FieldNames = FieldNames()
    root: Path | None = None
