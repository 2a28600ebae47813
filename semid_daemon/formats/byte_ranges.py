"""Exact reads: of a byte range of the file, or of a compressed zip member.

Files are read, never mapped: a mapped file that shrinks kills the process with SIGBUS.
"""

from __future__ import annotations

import io
import zipfile
from typing import BinaryIO, Protocol

from semid_daemon.base.errors import BadFileError, IncompleteFileError

_SKIP_BYTES = 1 << 20
# Columns of a compressed array cannot be sought; up to this size it is decompressed into memory.
_MAX_FORTRAN_BYTES = 256 << 20


class ByteRange(Protocol):
    """`size` consecutive bytes that belong to one array."""

    size: int

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` (bytes, contiguous) from `offset` within the range."""


def size_of(stream: BinaryIO) -> int:
    return stream.seek(0, io.SEEK_END)


def read_at(stream: BinaryIO, offset: int, count: int) -> bytes:
    """`count` bytes at `offset`, fewer only where the file ends."""
    stream.seek(offset)
    pieces = []
    while count > 0 and (piece := stream.read(count)):
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


class FileRange:
    """A byte range of a seekable stream."""

    def __init__(self, stream: BinaryIO, start: int, size: int) -> None:
        self.size = size
        self._stream = stream
        self._start = start

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self._stream.seek(self._start + offset)
        _fill(self._stream, buffer)


class ZipMember:
    """A deflated zip member: read forwards; asking for earlier bytes starts it over."""

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
        self.size = info.file_size
        self._archive = archive
        self._info = info
        self._member: zipfile.ZipExtFile | None = None
        self._position = 0

    def read_into(self, offset: int, buffer: memoryview) -> None:
        if self._member is None or offset < self._position:
            if self._member is not None:
                self._member.close()
            self._member = self._archive.open(self._info)  # type: ignore[assignment]
            self._position = 0
        assert self._member is not None
        skipped = memoryview(bytearray(min(_SKIP_BYTES, offset - self._position)))
        while self._position < offset:
            piece = skipped[: offset - self._position]
            _fill(self._member, piece)
            self._position += len(piece)
        _fill(self._member, buffer)
        self._position += len(buffer)


def in_memory(byte_range: ByteRange, what: str) -> ByteRange:
    """A compressed array in Fortran order, decompressed. Raises BadFileError if it is large."""
    if byte_range.size > _MAX_FORTRAN_BYTES:
        raise BadFileError(
            f"{what} is {byte_range.size:,} bytes, compressed and in Fortran order;"
            " save it in C order (numpy.ascontiguousarray)"
        )
    whole = bytearray(byte_range.size)
    byte_range.read_into(0, memoryview(whole))
    return FileRange(io.BytesIO(whole), 0, byte_range.size)


def _fill(stream: BinaryIO | zipfile.ZipExtFile, buffer: memoryview) -> None:
    filled = 0
    while filled < len(buffer):
        count = stream.readinto(buffer[filled:])  # type: ignore[union-attr]
        if not count:
            raise IncompleteFileError(
                "became shorter while it was read; write it under another name and rename it when complete"
            )
        filled += count
