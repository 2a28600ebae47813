"""torch.save's .pt: a zip of one pickle and one record per storage. Nothing in it is executed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

import numpy as np

from semid_daemon.base.errors import BadFileError
from semid_daemon.formats.archive import Archive, open_archive
from semid_daemon.formats.byte_ranges import ByteRange, ZipMember, in_memory
from semid_daemon.formats.faults import quoted_field, show
from semid_daemon.formats.fields import (
    FLOATS_WANTED,
    check_id_count,
    check_vector_shape,
    pick_ids,
    pick_vectors,
    show_shape,
)
from semid_daemon.formats.item_ids import IDS_WANTED, IdArray, IdColumn, listed_ids
from semid_daemon.formats.sidecar import IdSource
from semid_daemon.formats.source import ArraySource
from semid_daemon.formats.torch_pickle import Tensor, read_pickle
from semid_daemon.formats.vectors import BFLOAT16, FloatType, VectorArray

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
    """A 2-D tensor, or a dict of vectors and item IDs."""
    file = open_torch(stream)
    content = read_pickle(file.read("data.pkl"))
    if isinstance(content, Tensor):
        vector_name, tensor, id_name, id_values = None, content, None, None
        what = "the tensor"
    elif isinstance(content, dict):
        fields = {name: value for name, value in content.items() if isinstance(name, str)}
        vector_name = pick_vectors(fields, id_source.fields, lambda name: _looks_like_vectors(fields[name]))
        what = quoted_field(vector_name)
        tensor = fields[vector_name]
        if not isinstance(tensor, Tensor):
            raise BadFileError(f"{what} is a {type(tensor).__name__}; {FLOATS_WANTED}, in a 2-D tensor")
        id_name = pick_ids(fields, id_source.fields, sidecar=id_source.sidecar is not None)
        id_values = fields[id_name] if id_name is not None else None
    else:
        raise BadFileError(f"holds a {type(content).__name__}; save a 2-D tensor, or a dict of tensors and lists")

    vectors = vectors_of(file, tensor, what)
    used = [file.member(tensor)]
    ids: IdColumn
    if id_name is None:
        ids, id_name = id_source.for_rows(vectors.rows)
    elif isinstance(id_values, Tensor):
        used.append(file.member(id_values))
        ids = _id_tensor(file, id_values, vectors.rows, quoted_field(id_name))
    elif isinstance(id_values, (list, tuple)):
        check_id_count(len(id_values), vectors.rows, quoted_field(id_name))
        ids = listed_ids(id_values, quoted_field(id_name))
    else:
        raise BadFileError(f"{quoted_field(id_name)} is a {type(id_values).__name__}; {IDS_WANTED} in a list")
    used.append(f"{file.root}/data.pkl")
    return ArraySource(
        "pt", vectors, ids, vector_name, id_name, partial(file.archive.verify, used), file.archive.zip.close
    )


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
    return isinstance(value, Tensor) and value.dtype in _FLOATS and len(value.shape) == 2


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
    if len(tensor.shape) != 1 or not _is_packed(tensor.shape, tensor.stride):
        raise BadFileError(f"{what} has shape {show_shape(tensor.shape)}; {IDS_WANTED} in a 1-D tensor")
    check_id_count(tensor.shape[0], rows, what)
    dtype = _INTEGERS[tensor.dtype]
    byte_range, offset = file.byte_range(tensor, dtype.itemsize, what)
    return IdArray(byte_range, offset, dtype)
