"""safetensors: an 8-byte length, a JSON header, then the tensors without a gap."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO

import numpy as np

from semid_daemon.base.errors import BadFileError, IncompleteFileError
from semid_daemon.formats.budget import check_metadata, json_cost
from semid_daemon.formats.byte_ranges import FileRange, read_at, size_of
from semid_daemon.formats.faults import content_errors, quoted_field, show
from semid_daemon.formats.fields import (
    FLOATS_WANTED,
    check_id_count,
    check_vector_shape,
    pick_vectors,
    show_shape,
)
from semid_daemon.formats.id_choice import SAMPLE_ROWS, choose_ids, plain_name
from semid_daemon.formats.item_ids import IDS_WANTED, IdArray, IdColumn, listed_ids
from semid_daemon.formats.sidecar import IdSource
from semid_daemon.formats.source import ArraySource
from semid_daemon.formats.vectors import BFLOAT16, FloatType, VectorArray

# The limit of the reference implementation.
_MAX_HEADER_BYTES = 100_000_000
_METADATA = "__metadata__"

_FLOATS = {
    "F16": FloatType("float16", np.dtype("<f2")),
    "BF16": BFLOAT16,
    "F32": FloatType("float32", np.dtype("<f4")),
    "F64": FloatType("float64", np.dtype("<f8")),
}
_INTEGERS = {f"{kind}{bits}": np.dtype(f"<{kind.lower()}{bits // 8}") for kind in "IU" for bits in (8, 16, 32, 64)}
_SIZES = {name: stored.raw.itemsize for name, stored in _FLOATS.items()} | {
    name: dtype.itemsize for name, dtype in _INTEGERS.items()
}


@dataclass(frozen=True, slots=True)
class _Tensor:
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def open_safetensors(stream: BinaryIO, id_source: IdSource) -> ArraySource:
    """Vectors from a tensor; item IDs from an integer tensor, or a JSON list in the metadata."""
    tensors, metadata, byte_range = _read_header(stream)
    vector_name = pick_vectors(tensors, id_source.fields, lambda name: _looks_like_vectors(tensors[name]))
    what = quoted_field(vector_name)
    vectors = tensors[vector_name]
    if vectors.dtype not in _FLOATS:
        raise BadFileError(f"{what} is {show(vectors.dtype)}; {FLOATS_WANTED}")
    rows, dim = check_vector_shape(vectors.shape, what)
    array = VectorArray(byte_range, vectors.begin, rows, dim, _FLOATS[vectors.dtype])

    # Text has no tensor: item IDs of text are a JSON list in the metadata, under the same name.
    listed = {name: text for name, text in metadata.items() if name not in tensors and _may_be_ids(name, text)}

    def column(name: str) -> IdColumn:
        if name in listed:
            return _metadata_ids(name, listed[name], rows)
        return _id_tensor(tensors[name], byte_range, rows, quoted_field(name))

    choice = choose_ids(
        [name for name in (*tensors, *listed) if name != vector_name],
        id_source,
        fits=lambda name: _is_column(column, name),
        sample=lambda name: column(name).read(0, min(rows, SAMPLE_ROWS)).texts,
    )
    id_name = choice.name
    ids: IdColumn
    if id_name is None:
        ids, id_name = id_source.for_rows(rows)
    else:
        ids = column(id_name)
    return ArraySource("safetensors", array, ids, vector_name, id_name, choice.remark)


def _may_be_ids(name: str, text: str) -> bool:
    return text.lstrip().startswith("[") or plain_name(name) in ("itemids", "itemid", "ids")


def _is_column(column: Callable[[str], IdColumn], name: str) -> bool:
    try:
        with content_errors("safetensors"):
            column(name)
    except BadFileError:
        return False
    return True


def _read_header(stream: BinaryIO) -> tuple[dict[str, _Tensor], dict[str, str], FileRange]:
    size = size_of(stream)
    if size < 8:
        raise IncompleteFileError(f"holds {size} bytes, fewer than a header; perhaps it is still being written")
    (length,) = struct.unpack("<Q", read_at(stream, 0, 8))
    if length > _MAX_HEADER_BYTES:
        raise BadFileError(f"declares a header of {length:,} bytes, more than {_MAX_HEADER_BYTES:,}")
    if 8 + length > size:
        raise IncompleteFileError(
            f"declares a header of {length:,} bytes, holds {size - 8:,}; perhaps it is still being written"
        )
    raw = read_at(stream, 8, length)
    if not raw.startswith(b"{"):
        raise BadFileError("has no safetensors header; save it again with safetensors")
    check_metadata("its header", json_cost(raw), "write item IDs as an integer tensor, or in a sidecar")
    header = json.loads(raw.decode(), object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise BadFileError("has safetensors metadata that is not text; save it again with safetensors")
    byte_range = FileRange(stream, 8 + length, size - 8 - length)
    tensors = {name: _tensor(name, entry) for name, entry in header.items()}
    _check_layout(tensors, byte_range.size)
    return tensors, metadata, byte_range


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise BadFileError(f"its header names {show(twice)} twice; write each tensor once")
    return found


def _no_constant(name: str) -> None:
    raise BadFileError(f"has {name} in its header; save it again with safetensors")


def _tensor(name: str, entry: object) -> _Tensor:
    damaged = BadFileError(f"its header describes {show(name)} wrongly; save it again with safetensors")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise damaged
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or not _is_counts(shape) or not _is_counts(offsets) or len(offsets) != 2:
        raise damaged
    begin, end = offsets
    if end < begin or (dtype in _SIZES and end - begin != prod(shape) * _SIZES[dtype]):
        raise BadFileError(
            f"its header gives {show(name)} {end - begin:,} bytes"
            f" for {show(dtype)} {show_shape(tuple(shape))};"
            " save it again with safetensors"
        )
    return _Tensor(dtype, tuple(shape), begin, end)


def _is_counts(value: object) -> bool:
    return isinstance(value, list) and all(type(number) is int and 0 <= number < 2**63 for number in value)


def _check_layout(tensors: dict[str, _Tensor], held: int) -> None:
    """The tensors must cover the bytes after the header once, without a hole."""
    at = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != at:
            fault = "overlaps another tensor" if tensor.begin < at else "leaves a hole before it"
            raise BadFileError(f"tensor {show(name)} {fault}; save it again with safetensors")
        at = tensor.end
    if at > held:
        raise IncompleteFileError(
            f"declares {at:,} bytes of tensors, holds {held:,}; perhaps it is still being written"
        )
    if at < held:
        raise BadFileError(f"{held - at:,} bytes follow the tensors; save it again with safetensors")


def _looks_like_vectors(tensor: _Tensor) -> bool:
    return tensor.dtype in _FLOATS and len(tensor.shape) == 2


def _id_tensor(tensor: _Tensor, byte_range: FileRange, rows: int, what: str) -> IdArray:
    if tensor.dtype not in _INTEGERS:
        raise BadFileError(f"{what} is {show(tensor.dtype)}; {IDS_WANTED} (text: a JSON list in metadata item_ids)")
    if len(tensor.shape) != 1:
        raise BadFileError(f"{what} has shape {show_shape(tensor.shape)}; {IDS_WANTED} in a 1-D tensor")
    if tensor.dtype == "U8" and tensor.shape[0] != rows:
        raise BadFileError(f"{what} holds {tensor.shape[0]:,} bytes; write text as a JSON list in metadata item_ids")
    check_id_count(tensor.shape[0], rows, what)
    return IdArray(byte_range, tensor.begin, _INTEGERS[tensor.dtype])


def _metadata_ids(name: str, text: str, rows: int) -> IdColumn:
    what = f"metadata {show(name)}"
    check_metadata(what, json_cost(text.encode()), "write item IDs as an integer tensor, or in a sidecar")
    no_list = BadFileError(f'{what} is no JSON list; write one item ID per row: ["a", "b"]')
    try:
        values = json.loads(text, parse_constant=_no_constant)
    except ValueError as error:
        raise no_list from error
    if not isinstance(values, list):
        raise no_list
    check_id_count(len(values), rows, what)
    return listed_ids(values, what)
