"""Arrow arrays -> float32 rows and item IDs, and the source that parquet and arrow files share."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from semid_daemon.base.errors import BadFileError
from semid_daemon.base.types import EmbeddingBatch, FloatArray
from semid_daemon.formats.faults import (
    ID_NOT_TEXT,
    ID_TOO_LONG,
    NULL_EMBEDDING,
    WRONG_LENGTH,
    content_errors,
    quoted_field,
    show,
)
from semid_daemon.formats.fields import check_dim, pick_vectors
from semid_daemon.formats.id_choice import choose_ids
from semid_daemon.formats.item_ids import (
    MAX_ID_BYTES,
    IdBlock,
    IdColumn,
    checked,
    listed_ids,
    texts_from_bytes,
)
from semid_daemon.formats.rows import chunk_bounds, make_batch
from semid_daemon.formats.sidecar import IdSource
from semid_daemon.formats.source import Empty, empty_rows

# pyarrow publishes no types.
Array = Any
DataType = Any

# (vectors, item IDs or None) of consecutive rows.
Pieces = Iterator[tuple[Array, Array | None]]

# Vectors looked at to find their length.
_SAMPLE_VECTORS = 4_096
_FLOATS = {"halffloat": "float16", "float": "float32", "double": "float64"}
_ID_TYPES = (
    pt.is_integer,
    pt.is_string,
    pt.is_large_string,
    pt.is_string_view,
    pt.is_binary,
    pt.is_large_binary,
    pt.is_binary_view,
)
_CAST = "save item IDs as text or integers: CAST(id AS VARCHAR) in SQL, astype(str) in pandas"


@dataclass(frozen=True, slots=True)
class Columns:
    """The two columns of a schema: names, the type of one vector number, and a fixed length if any."""

    vector_name: str
    id_name: str | None
    dtype: str
    fixed_dim: int | None
    remark: str | None

    @property
    def names(self) -> list[str]:
        return [self.vector_name] if self.id_name is None else [self.vector_name, self.id_name]


def choose_columns(schema: Any, id_source: IdSource, first_of: Callable[[str], Array | None]) -> Columns:
    """Find the columns of vectors and item IDs; `first_of(name)` gives the first values of a column.

    Raises BadFileError, by name, for types that do not fit.
    """
    names = schema.names
    by_name = dict(zip(names, schema.types, strict=True))
    vector_name = pick_vectors(by_name, id_source.fields, lambda name: _float_list(by_name[name]) is not None)
    choice = choose_ids(
        [name for name in by_name if name != vector_name],
        id_source,
        fits=lambda name: _is_id_type(by_name[name]),
        sample=lambda name: [] if (first := first_of(name)) is None else ids_of(first).texts,
        index=_index_names(schema),
    )
    id_name = choice.name
    for name in (vector_name, id_name):
        if name is not None and names.count(name) > 1:
            raise BadFileError(f"column {show(name)} occurs twice; write each column once")
    dtype = _float_list(by_name[vector_name])
    if dtype is None:
        raise BadFileError(
            f"{quoted_field(vector_name)} is {show(str(by_name[vector_name]))};"
            " save the vectors as list or fixed_size_list of float16, float32 or float64"
        )
    if id_name is not None and not _is_id_type(by_name[id_name]):
        raise BadFileError(f"{quoted_field(id_name)} is {show(str(by_name[id_name]))}; {_CAST}")
    stored = _storage_type(by_name[vector_name])
    fixed_dim = int(stored.list_size) if pt.is_fixed_size_list(stored) else None
    if fixed_dim is not None:
        check_dim(fixed_dim, quoted_field(vector_name))
    return Columns(vector_name, id_name, dtype, fixed_dim, choice.remark)


def _index_names(schema: Any) -> list[str]:
    """The columns that pandas says were the index of the data frame."""
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        described = json.loads((schema.metadata or {}).get(b"pandas", b"{}")).get("index_columns", [])
        return [name for name in described if isinstance(name, str)]
    return []


def _storage_type(type_: DataType) -> DataType:
    return type_.storage_type if isinstance(type_, pa.BaseExtensionType) else type_


def _float_list(type_: DataType) -> str | None:
    """The dtype of the numbers in a list type; None for every other type."""
    type_ = _storage_type(type_)
    if pt.is_list_view(type_) or pt.is_large_list_view(type_):
        return _FLOATS.get(str(type_.value_type))
    if pt.is_list(type_) or pt.is_large_list(type_) or pt.is_fixed_size_list(type_):
        return _FLOATS.get(str(type_.value_type))
    return None


def _is_id_type(type_: DataType) -> bool:
    if pt.is_dictionary(type_):
        type_ = type_.value_type
    return any(is_type(type_) for is_type in _ID_TYPES) or _is_uuid(type_) or _is_whole_decimal(type_)


def _is_uuid(type_: DataType) -> bool:
    return isinstance(type_, pa.UuidType)


def _is_whole_decimal(type_: DataType) -> bool:
    return bool(pt.is_decimal(type_) and type_.scale == 0)


def usual_length(arrays: Iterator[Array], known: int | None) -> int | None:
    """The length that the vectors of a sample have: the known one where some do, else the most frequent.

    Nulls and empty vectors do not count; None when there are no others.
    """
    lengths: Counter[int] = Counter()
    for array in arrays:
        _, found = _starts_and_lengths(array.storage if isinstance(array, pa.ExtensionArray) else array)
        lengths.update(found[found > 0].tolist())
        if lengths.total() >= _SAMPLE_VECTORS:
            break
    if known is not None and known in lengths:
        return known
    return lengths.most_common(1)[0][0] if lengths else None


def _starts_and_lengths(array: Array) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Where each list begins in `array.values`, and its length; -1 for null."""
    if pt.is_fixed_size_list(array.type):
        size = array.type.list_size
        starts = (array.offset + np.arange(len(array))) * size
        lengths = np.full(len(array), size)
    elif pt.is_list_view(array.type) or pt.is_large_list_view(array.type):
        starts = array.offsets.to_numpy().astype(np.int64)
        lengths = array.sizes.to_numpy().astype(np.int64)
    else:
        offsets = array.offsets.to_numpy().astype(np.int64)
        starts, lengths = offsets[:-1], np.diff(offsets)
    if array.null_count:
        lengths[array.is_null().to_numpy(zero_copy_only=False)] = -1
    return starts, lengths


def vectors_into(array: Array, out_ND: FloatArray) -> dict[int, str]:
    """Fill `out_ND` from a list array of N rows; rows at fault are zero and returned with their reason."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    rows, dim = out_ND.shape
    starts, lengths = _starts_and_lengths(array)
    values = array.values
    wrong = np.flatnonzero(lengths != dim)
    with np.errstate(over="ignore", invalid="ignore"):
        if not wrong.size:
            # Lists that all have the same length and no null lie one after the other.
            part = values.slice(int(starts[0]), rows * dim)
            np.copyto(out_ND, _numbers(part).reshape(rows, dim), casting="unsafe")
            return {}
        out_ND[wrong] = 0
        right = np.flatnonzero(lengths == dim)
        if right.size:
            first, last = int(starts[right[0]]), int(starts[right[-1]]) + dim
            numbers = _numbers(values.slice(first, last - first))
            out_ND[right] = numbers[(starts[right] - first)[:, None] + np.arange(dim)]
    return {int(row): NULL_EMBEDDING if lengths[row] < 0 else WRONG_LENGTH for row in wrong}


def _numbers(values: Array) -> np.ndarray[Any, Any]:
    numbers: np.ndarray[Any, Any] = values.to_numpy(zero_copy_only=False)  # a null number becomes NaN
    return numbers


def ids_of(array: Array) -> IdBlock:
    """Item IDs of an array of text, bytes, integers, UUIDs or whole decimals, plain or dictionary-encoded."""
    if pt.is_dictionary(array.type):
        return _ids_of_dictionary(array)
    if _is_uuid(array.type) or _is_whole_decimal(array.type):
        return listed_ids([None if value is None else str(value) for value in array.to_pylist()], "item IDs").read(
            0, len(array)
        )
    if pt.is_integer(array.type):
        if array.null_count:
            return listed_ids(array.to_pylist(), "item IDs").read(0, len(array))
        return checked(list(map(str, array.to_numpy().tolist())))
    # As bytes, so that text that is not UTF-8 is a fault of its row and not of the file.
    if pt.is_string_view(array.type) or pt.is_binary_view(array.type):
        return _ids_of_views(array)
    array = array.cast(pa.large_binary())
    return texts_from_bytes(array.to_numpy(zero_copy_only=False).tolist())


def _ids_of_views(array: Array) -> IdBlock:
    """A view is 16 bytes that begin with a length; many of them may show the same long text, which is left out."""
    views = np.frombuffer(array.buffers()[1], np.int32)[4 * array.offset : 4 * (array.offset + len(array)) : 4]
    nulls = array.is_null().to_numpy(zero_copy_only=False)
    long = np.flatnonzero((views > MAX_ID_BYTES) & ~nulls).tolist()
    if long:
        left_out, as_bytes = set(long), array.cast(pa.binary_view())
        values = [None if row in left_out else as_bytes[row].as_py() for row in range(len(array))]
        block = texts_from_bytes(values)
        return IdBlock(block.texts, block.faults | dict.fromkeys(long, ID_TOO_LONG))
    return ids_of(array.cast(pa.binary_view()).cast(pa.large_binary()))


def _ids_of_dictionary(array: Array) -> IdBlock:
    """Each text that occurs is made once, however many rows name it."""
    rows, values = array.indices, array.dictionary
    if pt.is_string_view(values.type) or pt.is_binary_view(values.type):  # arrow takes no elements of views
        named, found_at = ids_of(values), rows
    else:
        used = rows.unique().drop_null()
        named, found_at = ids_of(values.take(used)), pc.index_in(rows, used)
    texts = [*named.texts, ""]
    places = pc.fill_null(found_at.cast(pa.int64()), len(named.texts)).to_numpy().tolist()
    faults = named.faults | {len(named.texts): ID_NOT_TEXT}
    found = {row: faults[place] for row, place in enumerate(places) if place in faults}
    return IdBlock([texts[place] for place in places], found)


@dataclass(frozen=True, slots=True)
class ColumnSource:
    """A source whose rows come as arrow arrays; `pieces(start_row, chunk_rows)` yields them in order."""

    format: str
    rows: int
    dim: int
    columns: Columns
    outside_ids: IdColumn | None
    id_name: str | None
    pieces: Callable[[int, int], Pieces]

    @property
    def dtype(self) -> str:
        return self.columns.dtype

    @property
    def remark(self) -> str | None:
        return self.columns.remark

    @property
    def vector_name(self) -> str | None:
        return self.columns.vector_name

    def batches(self, chunk_rows: int, start_row: int = 0, empty: Empty = empty_rows) -> Iterator[EmbeddingBatch]:
        pieces = self.pieces(start_row, chunk_rows)
        vectors: Array = None
        ids: Array | None = None
        for first, count in chunk_bounds(self.rows, chunk_rows, start_row):
            values_ND = empty(count, self.dim)
            faults: dict[int, str] = {}
            texts: list[str] = []
            id_faults: dict[int, str] = {}
            filled = 0
            while filled < count:
                with content_errors(self.format, pa.ArrowException):
                    if vectors is None or not len(vectors):
                        vectors = ids = None  # before the next ones are read
                        vectors, ids = self._next(pieces, first + filled)
                    taken = min(count - filled, len(vectors))
                    found = vectors_into(vectors.slice(0, taken), values_ND[filled : filled + taken])
                    faults.update({filled + row: reason for row, reason in found.items()})
                    vectors = vectors.slice(taken)
                    if ids is not None:
                        block = ids_of(ids.slice(0, taken))
                        texts += block.texts
                        id_faults.update({filled + row: reason for row, reason in block.faults.items()})
                        ids = ids.slice(taken)
                    filled += taken
            with content_errors(self.format):
                made = self.outside_ids.read(first, count) if self.outside_ids else IdBlock(texts, id_faults)
            yield make_batch(first, values_ND, made, faults)

    def _next(self, pieces: Pieces, row: int) -> tuple[Array, Array | None]:
        for vectors, ids in pieces:
            if len(vectors):
                return vectors, ids
        raise BadFileError(f"declares {self.rows:,} rows, ends after {row:,}; write it again")

    def close(self) -> None:
        """Nothing is held between reads."""


def dim_of(columns: Columns, rows: int, known: int | None, arrays: Callable[[], Iterator[Array]]) -> int:
    """The length of the vectors: of the type where it says, else of most vectors of a sample (see `usual_length`).

    0 when there are no rows. Raises BadFileError when every vector is null or empty.
    """
    if columns.fixed_dim is not None:
        return columns.fixed_dim
    if not rows:
        return 0
    dim = usual_length(arrays(), known)
    what = quoted_field(columns.vector_name)
    if dim is None:
        raise BadFileError(f"{what} has only null or empty vectors; write at least one vector")
    check_dim(dim, what)
    return dim
