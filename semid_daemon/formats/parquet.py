"""Parquet: only the two columns, row group by row group, page checksums verified where present."""

from __future__ import annotations

from functools import partial
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from semid_daemon.base.errors import BadFileError, IncompleteFileError
from semid_daemon.formats.arrow_columns import Array, Columns, ColumnSource, Pieces, choose_columns, dim_of
from semid_daemon.formats.budget import check_unfolding
from semid_daemon.formats.byte_ranges import read_at, size_of
from semid_daemon.formats.faults import content_errors, quoted_field
from semid_daemon.formats.id_choice import SAMPLE_ROWS
from semid_daemon.formats.parquet_footer import RowGroup, row_groups
from semid_daemon.formats.sidecar import IdSource

_MAGIC = b"PAR1"
_MIN_BYTES = 12
# Names and statistics are short; a damaged length must not become an allocation.
_THRIFT_STRING_BYTES = 64 << 20
_THRIFT_ITEMS = 1_000_000
# Column chunks are read through a buffer instead of whole: a row group may be gigabytes.
_BUFFER_BYTES = 1 << 20
_PIECE_BYTES = 4 << 20
_ITEM_BYTES = {"float16": 2, "float32": 4, "float64": 8}
_PEEK_ROWS = 64


def open_parquet(stream: BinaryIO, id_source: IdSource) -> ColumnSource:
    """Vectors and item IDs from two columns of a parquet file."""
    with content_errors("parquet", pa.ArrowException):
        groups = _read_footer(stream)
        file = _reader(stream)
        schema = file.schema_arrow
        columns = choose_columns(schema, id_source, lambda name: _sample(file, name))
        group_rows = _check_groups(groups, columns, file.metadata.num_columns)
        rows = sum(group_rows)
        if rows != file.metadata.num_rows:
            raise BadFileError(
                f"declares {file.metadata.num_rows:,} rows, its row groups hold {rows:,}; write it again"
            )
        dim = dim_of(columns, rows, id_source.dim, lambda: _peek(stream, columns, len(group_rows)))
    ids, id_name = (None, columns.id_name) if columns.id_name else id_source.for_rows(rows)
    pieces = partial(_pieces, stream, columns, group_rows, dim)
    return ColumnSource("parquet", rows, dim, columns, ids, id_name, pieces)


def _reader(stream: BinaryIO, id_name: str | None = None) -> Any:
    """Text in the column of item IDs stays encoded by its dictionary: rows may name one long text many times."""
    return pq.ParquetFile(
        stream,
        read_dictionary=None if id_name is None else [id_name],
        memory_map=False,
        pre_buffer=False,
        buffer_size=_BUFFER_BYTES,
        thrift_string_size_limit=_THRIFT_STRING_BYTES,
        thrift_container_size_limit=_THRIFT_ITEMS,
        page_checksum_verification=True,
    )


def _read_footer(stream: BinaryIO) -> list[RowGroup]:
    size = size_of(stream)
    tail = read_at(stream, max(0, size - 8), 8)
    if size < _MIN_BYTES or tail[4:] != _MAGIC:
        raise IncompleteFileError("has no parquet footer at its end; perhaps it is still being written")
    footer = int.from_bytes(tail[:4], "little")
    if footer > size - _MIN_BYTES:
        raise IncompleteFileError(
            f"declares a parquet footer of {footer:,} bytes, holds {size - _MIN_BYTES:,};"
            " perhaps it is still being written"
        )
    return row_groups(read_at(stream, size - 8 - footer, footer))


def _check_groups(groups: list[RowGroup], columns: Columns, width: int) -> list[int]:
    """The rows of each row group. Raises BadFileError for sizes that cannot be."""
    for index, group in enumerate(groups):
        if len(group.columns) != width:
            raise BadFileError(f"row group {index} has other columns than the schema; write it again")
        for chunk in group.columns:
            # Run-length encoding makes millions of numbers from a few bytes.
            declared = chunk.values * _ITEM_BYTES[columns.dtype]
            if chunk.field in columns.names:
                remedy = "write it without dictionary and compression"
                check_unfolding(quoted_field(chunk.field), declared, chunk.compressed_bytes, remedy)
    return [group.rows for group in groups]


def _sample(file: Any, name: str) -> Array:
    """The first values of a column."""
    return next((batch.column(0) for batch in file.iter_batches(SAMPLE_ROWS, columns=[name], use_threads=False)), None)


def _peek(stream: BinaryIO, columns: Columns, groups: int) -> Any:
    file = _reader(stream)
    for group in range(groups):
        for batch in file.iter_batches(
            _PEEK_ROWS, row_groups=[group], columns=[columns.vector_name], use_threads=False
        ):
            yield batch.column(columns.vector_name)


def _pieces(
    stream: BinaryIO, columns: Columns, group_rows: list[int], dim: int, start_row: int, chunk_rows: int
) -> Pieces:
    """The rows from `start_row` on; groups before it are not read."""
    with content_errors("parquet", pa.ArrowException):
        file = _reader(stream, columns.id_name)
    piece_rows = max(1, min(chunk_rows, _PIECE_BYTES // (dim * _ITEM_BYTES[columns.dtype])))
    before = 0
    for group, declared in enumerate(group_rows):
        skip = max(0, start_row - before)
        before += declared
        if skip >= declared:
            continue
        read = 0
        for batch in file.iter_batches(piece_rows, row_groups=[group], columns=columns.names, use_threads=False):
            begin = max(0, skip - read)
            read += batch.num_rows
            if read > declared:
                break
            if begin < batch.num_rows:
                part = batch.slice(begin)
                ids: Array | None = None if columns.id_name is None else part.column(columns.id_name)
                yield part.column(columns.vector_name), ids
        if read != declared:
            raise BadFileError(f"row group {group} declares {declared:,} rows, holds {read:,}; write it again")
