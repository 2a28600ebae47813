"""torch.save's .pt: a zip of one pickle and one record per storage. Nothing in it is executed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

import numpy as np

from semid_daemon.base.errors import BadFileError
from semid_daemon.base.types import FloatArray
from semid_daemon.formats.archive import Archive, open_archive
from semid_daemon.formats.byte_ranges import ByteRange, ZipMember, in_memory
from semid_daemon.formats.faults import content_errors, quoted_field, show
from semid_daemon.formats.fields import (
    FLOATS_WANTED,
    check_id_count,
    check_vector_shape,
    pick_vectors,
    show_shape,
)
from semid_daemon.formats.id_choice import SAMPLE_ROWS, IdChoice, choose_ids, made_up_remark
from semid_daemon.formats.item_ids import IDS_WANTED, IdArray, IdColumn, listed_ids
from semid_daemon.formats.sidecar import IdSource
from semid_daemon.formats.source import ArraySource
from semid_daemon.formats.torch_pickle import Tensor, read_pickle
from semid_daemon.formats.vectors import BFLOAT16, FloatType, VectorArray

# How the parameters of a model end.
_PARAMETERS = ("weight", "bias", "running_mean", "running_var", "gamma", "beta")
LEGACY_MAGICS = (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19",)

# A pickle holds lists of item IDs, but no tensor's numbers.
_MAX_PICKLE_BYTES = 256 << 20

_FLOATS = {
    "float16": FloatType("float16", np.dtype("<f2")),
    "bfloat16": BFLOAT16,
    "float32": FloatType("float32", np.dtype("<f4")),
    "float64": FloatType("float64", np.dtype("<f8")),
}
_INTEGERS = {
    f"{kind}int{bits}": np.dtype(f"<{kind or 'i'}{bits // 8}") for kind in ("", "u") for bits in (8, 16, 32, 64)
}


@dataclass(frozen=True, slots=True)
class TorchFile:
    """A torch.save archive: its records, and where its tensors lie."""

    archive: Archive
    root: str

    def read(self, record: str) -> bytes:
        byte_range = self.archive.byte_range(f"{self.root}/{record}")
        if byte_range.size > _MAX_PICKLE_BYTES:
            raise BadFileError(
                f"its {record} is {byte_range.size:,} bytes; save item IDs as an integer tensor, or use .parquet"
            )
        raw = bytearray(byte_range.size)
        byte_range.read_into(0, memoryview(raw))
        return bytes(raw)

    def member(self, tensor: Tensor) -> str:
        return f"{self.root}/data/{tensor.storage.key}"

    def byte_range(self, tensor: Tensor, itemsize: int, what: str) -> tuple[ByteRange, int]:
        """The storage of a tensor and the offset of its first number in bytes.

        Raises BadFileError unless the storage is as large as declared and the tensor lies within it.
        """
        name = self.member(tensor)
        if name not in self.archive.members:
            raise BadFileError(f"{what} has no record {show(name)} in the archive; save it again")
        byte_range = self.archive.byte_range(name)
        declared = tensor.storage.size * (1 if tensor.storage.dtype is None else itemsize)
        if byte_range.size != declared:
            raise BadFileError(f"{what} declares {declared:,} bytes, holds {byte_range.size:,}; save it again")
        numbers = np.prod(tensor.shape, dtype=object)
        if (tensor.offset + numbers) * itemsize > byte_range.size:
            raise BadFileError(
                f"{what} has shape {show_shape(tensor.shape)}, more than its {byte_range.size:,} bytes hold;"
                " save tensor.contiguous()"
            )
        return byte_range, tensor.offset * itemsize


def open_pt(stream: BinaryIO, id_source: IdSource) -> ArraySource:
    """A 2-D tensor, a dict of vectors and item IDs, a dict from item to vector, or a list of vectors."""
    file = open_torch(stream)
    content = read_pickle(file.read("data.pkl"))
    vector_name = id_name = None
    values: object = content
    id_values: object = None
    remark = made_up_remark(id_source)
    if isinstance(content, dict) and _is_by_item(content):
        values, id_values, remark = list(content.values()), list(content), None
    elif isinstance(content, dict):
        fields = {name: value for name, value in content.items() if isinstance(name, str)}
        vector_name = pick_vectors(fields, id_source.fields, lambda name: _looks_like_vectors(fields[name]))
        values = fields.pop(vector_name)
        choice = _choose_ids(file, fields, _rows_of(values), id_source)
        id_name, remark = choice.name, choice.remark
        id_values = fields[id_name] if id_name is not None else None
    elif not isinstance(content, Tensor) and not _are_rows(content):
        raise BadFileError(
            f"holds a {type(content).__name__}; save a 2-D tensor (torch.stack of a list of them), or a dict of tensors"
            " and lists"
        )
    what = "the tensor" if vector_name is None else quoted_field(vector_name)
    vectors, used = _vectors(file, values, what)
    ids: IdColumn
    if id_values is None and id_name is None:
        ids, id_name = id_source.for_rows(vectors.rows)
    else:
        ids = _id_column(file, id_values, vectors.rows, "its dict" if id_name is None else quoted_field(id_name))
        id_name = id_name or "keys"
        used += [file.member(id_values)] if isinstance(id_values, Tensor) else []
    used.append(f"{file.root}/data.pkl")
    verify = partial(file.archive.verify, dict.fromkeys(used))
    return ArraySource("pt", vectors, ids, vector_name, id_name, remark, verify, file.archive.zip.close)


@dataclass(frozen=True, slots=True)
class TensorRows:
    """Vectors of which each is a tensor of its own."""

    parts: list[VectorArray]
    rows: int
    dim: int
    stored: FloatType

    def read_into(self, first: int, out_ND: FloatArray) -> None:
        """Fill `out_ND` (N×dim float32, C order) with rows first...first+N-1."""
        for row, part in enumerate(self.parts[first : first + len(out_ND)]):
            part.read_into(0, out_ND[row : row + 1])


def _vectors(file: TorchFile, values: object, what: str) -> tuple[VectorArray | TensorRows, list[str]]:
    """The vectors, and the members of the archive that hold them."""
    if isinstance(values, Tensor):
        return vectors_of(file, values, what), [file.member(values)]
    if not isinstance(values, (list, tuple)) or not _are_rows(values):
        raise BadFileError(f"{what} is a {type(values).__name__}; {FLOATS_WANTED}, in a 2-D tensor")
    rows: list[Tensor] = list(values)
    if len({(row.shape, row.dtype) for row in rows}) > 1:
        raise BadFileError(f"{what} has vectors of different lengths or types; save torch.stack of those that agree")
    flat = [dataclasses.replace(row, shape=(1, *row.shape), stride=(row.shape[0], *row.stride)) for row in rows]
    parts = [vectors_of(file, row, what) for row in flat]
    return TensorRows(parts, len(parts), parts[0].dim, parts[0].stored), [file.member(row) for row in rows]


def _are_rows(values: object) -> bool:
    """Whether it is a list of vectors."""
    return isinstance(values, (list, tuple)) and bool(values) and all(map(_is_row, values))


def _is_row(value: object) -> bool:
    return isinstance(value, Tensor) and value.dtype in _FLOATS and len(value.shape) == 1


def _is_by_item(content: dict[object, object]) -> bool:
    """Whether a dict leads from items to their vectors; the parameters of a model are none."""
    parameters = any(isinstance(name, str) and name.rsplit(".", 1)[-1] in _PARAMETERS for name in content)
    return not parameters and _are_rows(list(content.values()))


def _rows_of(values: object) -> int:
    if isinstance(values, Tensor):
        return values.shape[0] if values.shape else 0
    return len(values) if isinstance(values, (list, tuple)) else 0


def _choose_ids(file: TorchFile, fields: dict[str, object], rows: int, id_source: IdSource) -> IdChoice:
    def column(name: str) -> IdColumn | None:
        try:
            with content_errors("pt"):
                return _id_column(file, fields[name], rows, name)
        except BadFileError:
            return None

    def sample(name: str) -> list[str]:
        found = column(name)
        return [] if found is None else found.read(0, min(rows, SAMPLE_ROWS)).texts

    return choose_ids(fields, id_source, fits=lambda name: column(name) is not None, sample=sample)


def _id_column(file: TorchFile, values: object, rows: int, what: str) -> IdColumn:
    """Item IDs. Raises BadFileError unless they are an integer tensor or a list of text or integers, one per row."""
    if isinstance(values, Tensor):
        return _id_tensor(file, values, rows, what)
    if isinstance(values, (list, tuple)):
        check_id_count(len(values), rows, what)
        return listed_ids(values, what)
    raise BadFileError(f"{what} is a {type(values).__name__}; {IDS_WANTED} in a list")


def open_torch(stream: BinaryIO) -> TorchFile:
    """The archive that torch.save writes. Raises BadFileError when it is another."""
    archive = open_archive(stream)
    pickles = [name for name in archive.members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise BadFileError("is a zip archive without torch's data.pkl; save it with torch.save")
    file = TorchFile(archive, pickles[0].removesuffix("/data.pkl"))
    if f"{file.root}/constants.pkl" in archive.members:
        raise BadFileError("is a TorchScript program; save the embeddings with torch.save")
    if f"{file.root}/byteorder" in archive.members and file.read("byteorder") != b"little":
        raise BadFileError("is not in little-endian byte order; save it on a little-endian machine")
    return file


def _looks_like_vectors(value: object) -> bool:
    return _are_rows(value) or (isinstance(value, Tensor) and value.dtype in _FLOATS and len(value.shape) == 2)


def vectors_of(file: TorchFile, tensor: Tensor, what: str) -> VectorArray:
    """The numbers of a 2-D float tensor. Raises BadFileError for any other."""
    if tensor.dtype not in _FLOATS:
        raise BadFileError(f"{what} is {show(tensor.dtype)}; {FLOATS_WANTED}")
    rows, dim = check_vector_shape(tensor.shape, what)
    stored = _FLOATS[tensor.dtype]
    fortran = not _is_packed(tensor.shape, tensor.stride)
    if fortran and not _is_packed(tensor.shape[::-1], tensor.stride[::-1]):
        raise BadFileError(f"{what} is a view with strides {show_shape(tensor.stride)}; save tensor.contiguous()")
    byte_range, offset = file.byte_range(tensor, stored.raw.itemsize, what)
    if fortran and isinstance(byte_range, ZipMember):
        byte_range = in_memory(byte_range, what)
    return VectorArray(byte_range, offset, rows, dim, stored, fortran)


def _is_packed(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Whether a strided tensor is contiguous; the stride of a dimension of length 1 means nothing."""
    if len(shape) != len(stride):
        return False
    expected = 1
    for length, step in zip(reversed(shape), reversed(stride), strict=True):
        if length > 1 and step != expected:
            return 0 in shape
        expected *= length
    return True


def _id_tensor(file: TorchFile, tensor: Tensor, rows: int, what: str) -> IdArray:
    if tensor.dtype not in _INTEGERS:
        raise BadFileError(f"{what} is {show(tensor.dtype)}; {IDS_WANTED} (text: a list of str)")
    if len(tensor.shape) == 1 and not _is_packed(tensor.shape, tensor.stride):
        raise BadFileError(f"{what} is a view with strides {show_shape(tensor.stride)}; save tensor.contiguous()")
    if len(tensor.shape) != 1:
        raise BadFileError(f"{what} has shape {show_shape(tensor.shape)}; {IDS_WANTED} in a 1-D tensor")
    check_id_count(tensor.shape[0], rows, what)
    dtype = _INTEGERS[tensor.dtype]
    byte_range, offset = file.byte_range(tensor, dtype.itemsize, what)
    return IdArray(byte_range, offset, dtype)
