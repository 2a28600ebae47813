"""Opening a drop file safely, and the digest that is its identity."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from semid_daemon.base.drop_file import DropFile, Signature
from semid_daemon.base.failpoints import failpoint
from semid_daemon.drop.place import Place, open_below
from semid_daemon.drop.scan import signature_of

_BLOCK_BYTES = 4 << 20
_READ_BYTES = 1 << 20
_MOST_THREADS = 8


class FileChangedError(Exception):
    """The file is no longer the one that was scanned or hashed: changed, replaced, or gone."""


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A drop file held open, with its sidecar if it has one. What is hashed is what is parsed."""

    file: DropFile
    stream: BinaryIO
    sidecar: BinaryIO | None

    def check_unchanged(self) -> None:
        """Raises FileChangedError when the open files are not those that were scanned."""
        _expect(self.stream, self.file.signature)
        if self.sidecar is not None and self.file.sidecar_signature is not None:
            _expect(self.sidecar, self.file.sidecar_signature)


@contextlib.contextmanager
def open_drop_file(file: DropFile) -> Iterator[OpenFile]:
    """Open a stable file and its sidecar: no symbolic link followed, nothing but regular files, no waiting.

    Raises FileChangedError when it is not what was scanned, OSError when the machine does not let us.
    """
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(_open_regular(file.path, file.root))
        sidecar = stack.enter_context(_open_regular(file.sidecar, file.root)) if file.sidecar else None
        opened = OpenFile(file, stream, sidecar)
        opened.check_unchanged()
        yield opened


def _open_regular(path: Path, root: Path | None) -> BinaryIO:
    above = root or path.parent
    try:
        with open_below(above, path.parent.relative_to(above)) as directory:
            stream = Place(directory, path.name).open()
    except FileNotFoundError:
        raise FileChangedError("gone before it was read") from None
    except NotADirectoryError:
        raise FileChangedError("its directory was replaced before it was read") from None
    except IsADirectoryError:
        raise FileChangedError("replaced by something that is not a regular file") from None
    try:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise FileChangedError("replaced by something that is not a regular file")
    except BaseException:
        stream.close()
        raise
    return stream


def _expect(stream: BinaryIO, signature: Signature) -> None:
    if signature_of(os.fstat(stream.fileno())) != signature:
        raise FileChangedError("changed while it was being read")


def digest_of(opened: OpenFile) -> Generator[int, None, str]:
    """SHA-256 of the SHA-256 of each 4 MiB of the file, and of its sidecar where it has one, in hexadecimal.

    In blocks, so that every core can hash. Yields the size of every block once it is hashed. Raises FileChangedError
    when the file changes meanwhile.
    """
    digest = hashlib.sha256((yield from _hashes(opened.stream)))
    if opened.sidecar is not None:
        digest.update(b"semid+ids" + (yield from _hashes(opened.sidecar)))
    opened.check_unchanged()
    failpoint("hashed")
    return digest.hexdigest()


def _hashes(stream: BinaryIO) -> Generator[int, None, bytes]:
    """The SHA-256 of each block, one after the other. Yields the size of every block once it is hashed."""
    descriptor = stream.fileno()
    starts = range(0, os.fstat(descriptor).st_size, _BLOCK_BYTES)
    if len(starts) < 2:
        size_bytes, digest = _hash_block(descriptor, 0)
        yield size_bytes
        return digest
    digests = []
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads, thread_name_prefix="semid-hash") as pool:
        # A few at a time: one who is interrupted does not wait for all of them.
        pending: deque[Future[tuple[int, bytes]]] = deque()
        for start in starts:
            if len(pending) == 2 * threads:
                size_bytes, digest = pending.popleft().result()
                digests.append(digest)
                yield size_bytes
            pending.append(pool.submit(_hash_block, descriptor, start))
        for future in pending:
            size_bytes, digest = future.result()
            digests.append(digest)
            yield size_bytes
    return b"".join(digests)


def _hash_block(descriptor: int, start: int) -> tuple[int, bytes]:
    """How many bytes of the block there are, and their SHA-256. Leaves the file's position as it is."""
    digest = hashlib.sha256()
    end, at = start + _BLOCK_BYTES, start
    while at < end and (piece := os.pread(descriptor, min(_READ_BYTES, end - at), at)):
        digest.update(piece)
        at += len(piece)
    return at - start, digest.digest()


def signature_text(file: DropFile) -> str:
    """A file's signatures as text, for the ledger's cache of digests."""
    signatures = [file.signature] + ([file.sidecar_signature] if file.sidecar_signature else [])
    return ";".join(f"{s.device}:{s.inode}:{s.size_bytes}:{s.mtime_ns}:{s.ctime_ns}" for s in signatures)
