"""The few facts of a parquet footer that pyarrow cannot be asked for safely.

pyarrow ends the process, instead of raising, when the metadata of a column is damaged in certain ways
and Python asks for it. The footer is therefore read here too
(https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift, Thrift's compact
protocol); reading the pages stays pyarrow's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from semid_daemon.formats.budget import check_metadata

_MAX_DEPTH = 32
_STRUCT = 12
# What a struct (the smallest takes one byte) and another value of a list take in memory.
_STRUCT_BYTES = 256
_VALUE_BYTES = 64
_Kind = TypeVar("_Kind")


@dataclass(frozen=True, slots=True)
class ColumnChunk:
    """One column of a row group: the name of its top-level field, and its declared sizes."""

    field: str
    values: int
    compressed_bytes: int


@dataclass(frozen=True, slots=True)
class RowGroup:
    rows: int
    columns: list[ColumnChunk]


def row_groups(footer: bytes) -> list[RowGroup]:
    """The row groups of a footer (FileMetaData). Raises LookupError, TypeError or ValueError for damage."""
    groups = []
    for group in _as(list, _Compact(footer).struct()[4]):
        chunks = []
        for column in _as(list, _as(dict, group)[1]):
            # A column's metadata: path in the schema 3, values 5, compressed size 7.
            metadata = _as(dict, _as(dict, column)[3])
            field = _as(bytes, _as(list, metadata[3])[0]).decode()
            chunks.append(ColumnChunk(field, _count(metadata[5]), _count(metadata[7])))
        groups.append(RowGroup(_count(group[3]), chunks))
    return groups


def _as(kind: type[_Kind], value: object) -> _Kind:
    if not isinstance(value, kind):
        raise TypeError(f"metadata has a {type(value).__name__} in place of a {kind.__name__}")
    return value


def _count(value: object) -> int:
    if _as(int, value) < 0:
        raise ValueError("metadata has a negative size")
    return _as(int, value)


class _Compact:
    """A reader of the compact protocol of Thrift, in which footers are written: structs as {field number: value}."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._cost_bytes = 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        if depth > _MAX_DEPTH:
            raise ValueError("metadata is nested too deeply")
        self._count(1, _STRUCT_BYTES)
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._signed()
            kind = head & 0x0F
            fields[number] = kind == 1 if kind in (1, 2) else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        match kind:
            case 1 | 2 | 3:  # in lists, a boolean takes a byte
                return self._byte()
            case 4 | 5 | 6:
                return self._signed()
            case 7:
                return self._take(8)
            case 8:
                return self._take(self._unsigned())
            case 9 | 10:
                return self._list(depth)
            case 12:  # _STRUCT
                return self.struct(depth + 1)
        raise ValueError(f"metadata has a value of unknown type {kind}")

    def _list(self, depth: int) -> list[Any]:
        if depth > _MAX_DEPTH:
            raise ValueError("metadata is nested too deeply")
        head = self._byte()
        count = head >> 4 if head >> 4 != 15 else self._unsigned()
        if count > len(self._data) - self._at:  # every value takes a byte at least
            raise ValueError("metadata has a list longer than itself")
        self._count(count, _STRUCT_BYTES if head & 0x0F == _STRUCT else _VALUE_BYTES)
        return [self._value(head & 0x0F, depth + 1) for _ in range(count)]

    def _count(self, values: int, size_bytes: int) -> None:
        """Before they are made: here, and once more in pyarrow."""
        self._cost_bytes += values * size_bytes
        check_metadata("its footer", self._cost_bytes, "write fewer columns and row groups")

    def _byte(self) -> int:
        value = self._data[self._at]
        self._at += 1
        return value

    def _take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise ValueError("metadata ends too early")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def _unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("metadata has a number of more than 64 bits")

    def _signed(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)
