"""Arrow IPC files (feather version 2): one record batch at a time, copied and fully validated.

pyarrow tells a batch's size only after reading it whole, so the footer and the head of each batch are
read here first (flatbuffers: https://arrow.apache.org/docs/format/Columnar.html#ipc-file-format).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.ipc as ipc

from semid_daemon.base.errors import BadFileError, IncompleteFileError
from semid_daemon.formats.arrow_columns import Array, Columns, ColumnSource, Pieces, choose_columns, dim_of
from semid_daemon.formats.budget import check_held, check_unfolding
from semid_daemon.formats.byte_ranges import read_at, size_of
from semid_daemon.formats.faults import content_errors
from semid_daemon.formats.id_choice import SAMPLE_ROWS
from semid_daemon.formats.sidecar import IdSource

_MAGIC = b"ARROW1"
# A batch is held in memory as a whole.
_MAX_BATCH_BYTES = 2 << 30
_MAX_METADATA_BYTES = 64 << 20
_SMALLER = "write smaller ones (write_table's max_chunksize, write_feather's chunksize)"
_CONTINUATION = b"\xff\xff\xff\xff"
_RECORD_BATCH = 3


def open_arrow(stream: BinaryIO, id_source: IdSource) -> ColumnSource:
    """Vectors and item IDs from two columns of an arrow file."""
    with content_errors("arrow", pa.ArrowException):
        batch_rows = _batch_rows(stream)
        schema = ipc.open_file(stream).schema
        columns = choose_columns(schema, id_source, lambda name: _sample(stream, name))
        rows = sum(batch_rows)
        dim = dim_of(columns, rows, id_source.dim, lambda: _peek(stream, columns, batch_rows))
    ids, id_name = (None, columns.id_name) if columns.id_name else id_source.for_rows(rows)
    pieces = partial(_pieces, stream, columns, batch_rows)
    return ColumnSource("arrow", rows, dim, columns, ids, id_name, pieces)


def _sample(stream: BinaryIO, name: str) -> Array | None:
    """The first values of a column."""
    index = ipc.open_file(stream).schema.names.index(name)
    file = ipc.open_file(stream, options=ipc.IpcReadOptions(included_fields=[index], use_threads=False))
    if not file.num_record_batches:
        return None
    batch = file.get_batch(0)
    batch.validate(full=True)
    return batch.column(0).slice(0, SAMPLE_ROWS)


def _peek(stream: BinaryIO, columns: Columns, batch_rows: list[int]) -> Any:
    return (vectors for vectors, _ in _pieces(stream, columns, batch_rows, 0, 0))


def _pieces(stream: BinaryIO, columns: Columns, batch_rows: list[int], start_row: int, chunk_rows: int) -> Pieces:
    """The rows from `start_row` on, a record batch each; batches before it are not read."""
    names = ipc.open_file(stream).schema.names
    included = [names.index(name) for name in columns.names]
    file = ipc.open_file(stream, options=ipc.IpcReadOptions(included_fields=included, use_threads=False))
    if file.num_record_batches != len(batch_rows):
        raise BadFileError("has a damaged arrow footer; write it again")
    before = 0
    for index, declared in enumerate(batch_rows):
        skip = max(0, start_row - before)
        before += declared
        if skip >= declared:
            continue
        batch = file.get_batch(index)
        batch.validate(full=True)
        if batch.num_rows != declared:
            raise BadFileError(
                f"record batch {index} declares {declared:,} rows, holds {batch.num_rows:,}; write it again"
            )
        part = batch.slice(skip)
        ids: Array | None = None if columns.id_name is None else part.column(columns.id_name)
        yield part.column(columns.vector_name), ids
        del batch, part, ids  # before the next one is read


@dataclass(frozen=True, slots=True)
class _Table:
    """A flatbuffers table at `at` of `data`."""

    data: bytes
    at: int

    @classmethod
    def root(cls, data: bytes) -> _Table:
        return cls(data, _unpack("<I", data, 0))

    def field(self, number: int) -> int | None:
        """Where a field's value lies; None when it has its default."""
        vtable = self.at - _unpack("<i", self.data, self.at)
        slot = 4 + 2 * number
        if slot >= _unpack("<H", self.data, vtable):
            return None
        offset = _unpack("<H", self.data, vtable + slot)
        return self.at + offset if offset else None

    def follow(self, number: int) -> int:
        """Where the table or vector that a field refers to lies."""
        at = self.field(number)
        if at is None:
            raise ValueError("its metadata lacks a field")
        return at + _unpack("<I", self.data, at)


def _unpack(form: str, data: bytes, at: int) -> int:
    if at < 0:  # struct would count from the end
        raise ValueError("its metadata points before its beginning")
    return int(struct.unpack_from(form, data, at)[0])


def _batch_rows(stream: BinaryIO) -> list[int]:
    """The rows of each record batch, by footer and batch heads, whose sizes are checked on the way."""
    size = size_of(stream)
    tail = read_at(stream, max(0, size - 10), 10)
    if size < 20 or tail[4:] != _MAGIC:
        raise IncompleteFileError("has no arrow footer at its end; perhaps it is still being written")
    length = _unpack("<i", tail, 0)
    if not 0 < length <= min(size - 18, _MAX_METADATA_BYTES):
        raise BadFileError(f"has an arrow footer of {length:,} bytes in a file of {size:,}; write it again")
    footer = _Table.root(read_at(stream, size - 10 - length, length))
    if footer.field(3) is None:
        return []
    vector = footer.follow(3)
    rows = []
    for index in range(_unpack("<I", footer.data, vector)):
        at = vector + 4 + 24 * index
        offset, body = _unpack("<q", footer.data, at), _unpack("<q", footer.data, at + 16)
        rows.append(_rows_of(stream, index, offset, _unpack("<i", footer.data, at + 8), body, size))
    return rows


def _check_decoded(stream: BinaryIO, index: int, header: _Table, start: int, body: int) -> None:
    """Each compressed buffer begins with its decoded size; a batch is decoded whole."""
    if header.field(3) is None or header.field(2) is None:
        return
    vector = header.follow(2)
    decoded = 0
    for number in range(_unpack("<I", header.data, vector)):
        offset = _unpack("<q", header.data, vector + 4 + 16 * number)
        length = _unpack("<q", header.data, vector + 12 + 16 * number)
        if not 0 <= offset <= body or not 0 <= length <= body - offset:
            raise BadFileError(f"record batch {index} has a buffer outside of it; write it again")
        if length >= 8:
            size = _unpack("<q", read_at(stream, start + offset, 8), 0)
            decoded += max(size, length - 8 if size == -1 else 0)
    check_unfolding(f"record batch {index}", decoded, body, "write it without compression")
    check_held(f"record batch {index}", decoded, _SMALLER)


def _rows_of(stream: BinaryIO, index: int, offset: int, metadata: int, body: int, size: int) -> int:
    if min(offset, metadata, body) < 0 or offset + metadata + body > size:
        raise BadFileError(f"record batch {index} lies outside the file; write it again")
    if body > _MAX_BATCH_BYTES:
        raise BadFileError(f"record batch {index} has {body:,} bytes, more than {_MAX_BATCH_BYTES:,}; {_SMALLER}")
    if metadata > _MAX_METADATA_BYTES:
        raise BadFileError(f"record batch {index} has metadata of {metadata:,} bytes; write it again")
    head = read_at(stream, offset, metadata)
    message = _Table.root(head[8:] if head.startswith(_CONTINUATION) else head[4:])
    kind = message.field(1)
    if kind is None or message.data[kind] != _RECORD_BATCH:
        raise BadFileError(f"record batch {index} is of another kind; write it again")
    header = _Table(message.data, message.follow(2))
    _check_decoded(stream, index, header, offset + metadata, body)
    length = header.field(0)
    rows = 0 if length is None else _unpack("<q", message.data, length)
    if rows < 0:
        raise BadFileError(f"record batch {index} has a negative number of rows; write it again")
    return rows
