"""The header of an .npy file, read without NumPy's own parser of it."""

from __future__ import annotations

import ast
import re
import struct
from dataclasses import dataclass
from math import prod

import numpy as np

from semid_daemon.base.errors import BadFileError, IncompleteFileError
from semid_daemon.formats.byte_ranges import ByteRange
from semid_daemon.formats.faults import show
from semid_daemon.formats.fields import FLOATS_WANTED, check_id_count, show_shape
from semid_daemon.formats.item_ids import IDS_WANTED, IdArray, check_id_dtype

MAGIC = b"\x93NUMPY"
# numpy's own limit for headers that are not trusted.
_MAX_HEADER_BYTES = 10_000
# Plain dtypes only: structures, sub-arrays and dates carry more than a letter and a size.
_DESCR = re.compile(r"[<>|=]?([?bBhHiIlLqQefdgFDGSUO]|[biufcSUOV]\d{1,10})")


@dataclass(frozen=True, slots=True)
class NpyHeader:
    """What an .npy declares; `offset` is where its data begins."""

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    fortran: bool
    offset: int


def read_npy_header(byte_range: ByteRange, what: str) -> NpyHeader:
    """Parse the header at the start of a byte range and check that the range holds what it declares.

    Raises IncompleteFileError when the range is too short, BadFileError when the header is not that
    of a plain array or bytes follow the data.
    """
    prefix = _head(byte_range, 0, 12, what)
    if prefix[:6] != MAGIC:
        raise BadFileError(f"{what} does not begin as .npy does; save it again with numpy.save")
    major = prefix[6]
    if major not in (1, 2, 3) or prefix[7] != 0:
        raise BadFileError(f"{what} has .npy version {major}.{prefix[7]}; save it with numpy.save (version 1 to 3)")
    start = 10 if major == 1 else 12
    (length,) = struct.unpack_from("<H" if major == 1 else "<I", prefix, 8)
    if length > _MAX_HEADER_BYTES:
        raise BadFileError(
            f"{what} has an .npy header of {length:,} bytes, more than {_MAX_HEADER_BYTES:,}; save a plain array"
        )
    text = _head(byte_range, start, length, what).decode("utf-8" if major == 3 else "latin-1")
    dtype, shape, fortran = _parse(text, what)
    header = NpyHeader(dtype, shape, fortran, start + length)
    _check_size(header, byte_range.size, what)
    return header


def _head(byte_range: ByteRange, offset: int, count: int, what: str) -> bytes:
    if offset + count > byte_range.size:
        raise IncompleteFileError(
            f"{what} ends within its .npy header, at {byte_range.size:,} bytes; perhaps it is still being written"
        )
    buffer = bytearray(count)
    if count:
        byte_range.read_into(offset, memoryview(buffer))
    return bytes(buffer)


def _parse(text: str, what: str) -> tuple[np.dtype[np.generic], tuple[int, ...], bool]:
    # A backslash occurs in no header that numpy writes, and would make the compiler print warnings.
    fields = None if "\\" in text else ast.literal_eval(text.strip(" \n\0"))
    if not isinstance(fields, dict) or set(fields) != {"descr", "fortran_order", "shape"}:
        raise BadFileError(f"{what} has a damaged .npy header; save it again with numpy.save")
    descr, fortran, shape = fields["descr"], fields["fortran_order"], fields["shape"]
    if not isinstance(fortran, bool) or not isinstance(shape, tuple):
        raise BadFileError(f"{what} has a damaged .npy header; save it again with numpy.save")
    if not all(type(length) is int and 0 <= length < 2**63 for length in shape):
        raise BadFileError(f"{what} has the impossible shape {show_shape(shape)}; save it again")
    if not isinstance(descr, str):
        raise BadFileError(f"{what} is a structured array; save the vectors and the item IDs as plain arrays")
    if descr.lstrip("<>|=").startswith("O"):
        raise BadFileError(
            f"{what} is an array of Python objects (a pickle), which is never loaded;"
            f" {FLOATS_WANTED}, item IDs with dtype=str"
        )
    if not _DESCR.fullmatch(descr):
        raise BadFileError(f"{what} has dtype {show(descr)}; {FLOATS_WANTED}, item IDs as text or integers")
    return np.dtype(descr), shape, fortran


def _check_size(header: NpyHeader, held: int, what: str) -> None:
    declared = header.offset + prod(header.shape) * header.dtype.itemsize
    if held < declared:
        raise IncompleteFileError(
            f"{what} declares {declared:,} bytes, holds {held:,}; perhaps it is still being written"
        )
    if held > declared:
        raise BadFileError(
            f"{what} declares {declared:,} bytes, holds {held:,}: {held - declared:,} bytes follow the array;"
            " save it again"
        )


def id_array(byte_range: ByteRange, header: NpyHeader, rows: int, what: str) -> IdArray:
    """The item IDs of a checked .npy.

    Raises BadFileError unless they are 1-D, one per row, text or integer.
    """
    check_id_dtype(header.dtype, what)
    if len(header.shape) != 1:
        raise BadFileError(f"{what} has shape {show_shape(header.shape)}; {IDS_WANTED} in a 1-D array")
    check_id_count(header.shape[0], rows, what)
    return IdArray(byte_range, header.offset, header.dtype)
