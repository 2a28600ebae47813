"""Opening a drop file safely, and the digest that is its identity."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from semid_daemon.drop.scan import signature_of
from semid_daemon.failpoints import failpoint
from semid_daemon.records import DropFile, Signature

_HASH_BYTES = 1 << 20


class FileChangedError(Exception):
    """The file is no longer the one that was settled or hashed: changed, replaced, or gone."""


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A drop file held open, with its sidecar if it has one. What is hashed is what is parsed."""

    file: DropFile
    stream: BinaryIO
    sidecar: BinaryIO | None

    def check_unchanged(self) -> None:
        """Raises FileChangedError when the open files are not as they were settled."""
        _expect(self.stream, self.file.signature)
        if self.sidecar is not None and self.file.sidecar_signature is not None:
            _expect(self.sidecar, self.file.sidecar_signature)


@contextlib.contextmanager
def open_drop_file(file: DropFile) -> Iterator[OpenFile]:
    """Open a settled file and its sidecar: no symbolic link followed, nothing but regular files, no waiting.

    Raises FileChangedError when it is not what was settled, OSError when the machine does not let us.
    """
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(_open_regular(file.path))
        sidecar = stack.enter_context(_open_regular(file.sidecar)) if file.sidecar else None
        opened = OpenFile(file, stream, sidecar)
        opened.check_unchanged()
        yield opened


def _open_regular(path: Path) -> BinaryIO:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise FileChangedError("gone before it was read") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FileChangedError("replaced by something that is not a regular file")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _expect(stream: BinaryIO, signature: Signature) -> None:
    if signature_of(os.fstat(stream.fileno())) != signature:
        raise FileChangedError("changed while it was being read")


def digest_of(opened: OpenFile, on_progress: Callable[[int], None] = lambda size_bytes: None) -> str:
    """BLAKE2b-256 of the file's bytes, and of its sidecar's where it has one, in hexadecimal.

    `on_progress` is told of every block's size. Raises FileChangedError when the file changes meanwhile.
    """
    digest = _hash(opened.stream, on_progress)
    if opened.sidecar is not None:
        both = digest.digest() + _hash(opened.sidecar, on_progress).digest()
        digest = hashlib.blake2b(both, digest_size=32, person=b"semid+ids")
    opened.check_unchanged()
    failpoint("hashed")
    return digest.hexdigest()


def _hash(stream: BinaryIO, on_progress: Callable[[int], None]) -> hashlib.blake2b:
    digest = hashlib.blake2b(digest_size=32)
    stream.seek(0)
    while block := stream.read(_HASH_BYTES):
        digest.update(block)
        on_progress(len(block))
    stream.seek(0)
    return digest


def signature_text(file: DropFile) -> str:
    """A settled file's signatures as text, for the ledger's cache of digests."""
    signatures = [file.signature] + ([file.sidecar_signature] if file.sidecar_signature else [])
    return ";".join(f"{s.device}:{s.inode}:{s.size_bytes}:{s.mtime_ns}:{s.ctime_ns}" for s in signatures)
