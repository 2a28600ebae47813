"""The header of an .npy file: parsed by NumPy, which evaluates literals only, then checked."""

from __future__ import annotations

import io
import re
import struct
import tokenize
from dataclasses import dataclass
from math import prod

import numpy as np

from semid_daemon.base.errors import BadFileError, IncompleteFileError
from semid_daemon.formats.byte_ranges import ByteRange
from semid_daemon.formats.faults import CONTENT_FAULTS, show
from semid_daemon.formats.fields import FLOATS_WANTED, show_shape

MAGIC = b"\x93NUMPY"
# numpy's own limit for headers that are not trusted.
_MAX_HEADER_BYTES = 10_000
# No header of numpy's in Python 3 has a backslash or a long integer; NumPy and the compiler would print warnings.
_WARNED_OF = re.compile(rb"\\|\d[lL]")
_PLAIN_KINDS = "biufcSUV"


@dataclass(frozen=True, slots=True)
class NpyHeader:
    """What an .npy declares; `offset` is where its data begins."""

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    fortran: bool
    offset: int


def read_npy_header(byte_range: ByteRange, what: str, *, objects: bool = False) -> NpyHeader:
    """Parse the header at the start of a byte range and check that the range holds what it declares.

    Raises IncompleteFileError when the range is too short, BadFileError when the header is not that
    of a plain array or bytes follow the data. With `objects` a header may declare an array of Python objects, whose
    bytes are a pickle of any size.
    """
    prefix = _head(byte_range, 12, what)
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
    dtype, shape, fortran = _parse(_head(byte_range, start + length, what), what, objects)
    header = NpyHeader(dtype, shape, fortran, start + length)
    if not dtype.hasobject:
        _check_size(header, byte_range.size, what)
    return header


def _head(byte_range: ByteRange, count: int, what: str) -> bytes:
    if count > byte_range.size:
        raise IncompleteFileError(
            f"{what} ends within its .npy header, at {byte_range.size:,} bytes; perhaps it is still being written"
        )
    buffer = bytearray(count)
    byte_range.read_into(0, memoryview(buffer))
    return bytes(buffer)


def _parse(head: bytes, what: str, objects: bool) -> tuple[np.dtype[np.generic], tuple[int, ...], bool]:
    damaged = BadFileError(f"{what} has a damaged .npy header; save it again with numpy.save")
    if _WARNED_OF.search(head, len(MAGIC) + 6):
        raise damaged
    stream = io.BytesIO(head)
    major, _ = np.lib.format.read_magic(stream)
    # Version 3 is version 2 whose names of fields are UTF-8, and an array with fields is refused.
    read_header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    try:
        shape, fortran, dtype = read_header(stream, max_header_size=_MAX_HEADER_BYTES)
    except (*CONTENT_FAULTS, AttributeError, tokenize.TokenError) as error:
        raise damaged from error
    if not all(type(length) is int and 0 <= length < 2**63 for length in shape):
        raise BadFileError(f"{what} has the impossible shape {show_shape(shape)}; save it again")
    if dtype.names is not None:
        raise BadFileError(f"{what} is a structured array; save the vectors and the item IDs as plain arrays")
    if dtype.hasobject and objects and dtype.kind == "O":
        return dtype, shape, fortran
    if dtype.hasobject:
        raise BadFileError(
            f"{what} is an array of Python objects (a pickle), which is never loaded; save the vectors as"
            " np.stack(column), item IDs with astype(str)"
        )
    if dtype.kind not in _PLAIN_KINDS or dtype.subdtype is not None:
        raise BadFileError(f"{what} has dtype {show(dtype.str)}; {FLOATS_WANTED}, item IDs as text or integers")
    return dtype, shape, fortran


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
