"""numpy's .npy: header checks and the byte range of the array. Pickled arrays are refused, never loaded."""

from __future__ import annotations

from typing import BinaryIO

from semid_daemon.base.errors import BadFileError
from semid_daemon.formats.byte_ranges import ByteRange, FileRange, size_of
from semid_daemon.formats.fields import check_vector_shape
from semid_daemon.formats.id_choice import made_up_remark
from semid_daemon.formats.npy_header import NpyHeader, read_npy_header
from semid_daemon.formats.sidecar import IdSource
from semid_daemon.formats.source import ArraySource
from semid_daemon.formats.vectors import VectorArray, float_type


def vector_array(byte_range: ByteRange, header: NpyHeader, what: str) -> VectorArray:
    """The vectors of a checked .npy. Raises BadFileError for other shapes and dtypes than vectors have."""
    if header.dtype.kind == "V":
        raise BadFileError(
            f"{what} is {header.dtype.name}, bytes without a type (numpy keeps no bfloat16);"
            " save the vectors as float16, float32 or float64"
        )
    stored = float_type(header.dtype, what)
    rows, dim = check_vector_shape(header.shape, what)
    return VectorArray(byte_range, header.offset, rows, dim, stored, header.fortran)


def open_npy(stream: BinaryIO, id_source: IdSource) -> ArraySource:
    """One N×D array; item IDs from the sidecar, or made up."""
    byte_range = FileRange(stream, 0, size_of(stream))
    vectors = vector_array(byte_range, read_npy_header(byte_range, "the array"), "the array")
    ids, id_name = id_source.for_rows(vectors.rows)
    return ArraySource("npy", vectors, ids, None, id_name, made_up_remark(id_source))
