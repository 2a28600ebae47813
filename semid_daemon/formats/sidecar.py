"""Item IDs of a file that brings none: a sidecar, or the file's path and content and the row number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import BinaryIO

from semid_daemon.base.drop_file import FieldNames
from semid_daemon.base.errors import BadFileError, IncompleteFileError
from semid_daemon.formats.byte_ranges import FileRange, size_of
from semid_daemon.formats.faults import ID_NOT_TEXT, ID_TOO_LONG, content_errors
from semid_daemon.formats.fields import check_id_count
from semid_daemon.formats.item_ids import MAX_ID_BYTES, IdBlock, IdColumn, RowNumbers, checked
from semid_daemon.formats.npy_ids import read_ids

SIDECAR_SUFFIXES = (".ids.txt", ".ids.npy")

_BLOCK_BYTES = 1 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class IdSource:
    """What is known of a file besides its bytes: where item IDs come from when it has none, and its fields' names."""

    name: str
    sidecar: BinaryIO | None = None
    sidecar_name: str = ""
    fields: FieldNames = FieldNames()
    content: Callable[[], str] = str  # the digest of the file's bytes
    dim: int | None = None  # the length of the catalogue's vectors, where there are some

    @property
    def sidecar_wanted(self) -> str:
        """The name that a sidecar of this file may have."""
        return f"{PurePosixPath(self.name).name}.ids.txt"

    def for_rows(self, rows: int) -> tuple[IdColumn, str | None]:
        """The column and its `id_name`. Raises BadFileError when the sidecar does not fit."""
        if self.sidecar is None:
            return RowNumbers(self.name, self.content), None
        with content_errors("sidecar"):
            if self.sidecar_name.endswith(".npy"):
                return _npy_ids(self.sidecar, rows), "sidecar"
            if not self.sidecar_name.endswith(".txt"):
                raise BadFileError(f"a sidecar of item IDs ends with {' or '.join(SIDECAR_SUFFIXES)}")
            lines = _count_lines(self.sidecar)
        check_id_count(lines, rows, "the sidecar")
        return IdLines(self.sidecar), "sidecar"


def _npy_ids(stream: BinaryIO, rows: int) -> IdColumn:
    size = size_of(stream)
    if not size and rows:
        raise IncompleteFileError("the sidecar is empty (0 bytes); perhaps it is still being written")
    byte_range = FileRange(stream, 0, size)
    return read_ids(byte_range, rows, "the sidecar")


def _count_lines(stream: BinaryIO) -> int:
    stream.seek(0)
    lines = 0
    last = b"\n"
    while block := stream.read(_BLOCK_BYTES):
        lines += block.count(b"\n")
        last = block[-1:]
    return lines + (last != b"\n")


@dataclass(slots=True)
class IdLines:
    """One UTF-8 item ID per line; read forwards, started over when asked for an earlier row."""

    stream: BinaryIO
    _row: int = 0
    _offset: int = 0
    _tail: bytes = b""
    _lines: list[bytes] = field(default_factory=list)

    def read(self, first: int, count: int) -> IdBlock:
        if first < self._row:
            self._row, self._offset, self._tail, self._lines = 0, 0, b"", []
        texts: list[str] = []
        faults: dict[int, str] = {}
        while len(texts) < count:
            if not self._lines:
                self._read_block()
            skipped = min(first - self._row, len(self._lines)) if self._row < first else 0
            taken = self._lines[skipped : skipped + count - len(texts)]
            del self._lines[: skipped + len(taken)]
            self._row += skipped + len(taken)
            for line in taken:
                text, reason = _decode(line)
                if reason:
                    faults[len(texts)] = reason
                texts.append(text)
        return checked(texts, faults)

    def _read_block(self) -> None:
        self.stream.seek(self._offset)
        block = self.stream.read(_BLOCK_BYTES)
        if not block and not self._tail:
            raise IncompleteFileError("the sidecar became shorter while it was read; write it again")
        if not self._offset:
            self._offset = len(block)
            block = block.removeprefix(_BYTE_ORDER_MARK)
        else:
            self._offset += len(block)
        self._lines = (self._tail + block).split(b"\n")
        # Without a block this is the end: the last line has no newline. A line that goes on past
        # the limit stays too long when it is cut, so the tail is bounded.
        self._tail = self._lines.pop()[: 4 * MAX_ID_BYTES] if block else b""


def _decode(line: bytes) -> tuple[str, str | None]:
    line = line.removesuffix(b"\r")
    if len(line) > MAX_ID_BYTES:
        return "", ID_TOO_LONG
    try:
        return line.decode(), None
    except UnicodeDecodeError:
        return "", ID_NOT_TEXT
