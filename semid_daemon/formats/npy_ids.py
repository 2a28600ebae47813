"""Item IDs in an .npy: a plain array of text or integers, or text as Python objects, of which nothing is executed."""

from __future__ import annotations

from semid_daemon.base.errors import BadFileError
from semid_daemon.formats.byte_ranges import ByteRange
from semid_daemon.formats.fields import check_id_count, show_shape
from semid_daemon.formats.item_ids import IDS_WANTED, IdArray, IdColumn, check_id_dtype, listed_ids
from semid_daemon.formats.npy_header import read_npy_header
from semid_daemon.formats.numpy_pickle import read_object_array

_MAX_PICKLE_BYTES = 256 << 20


def read_ids(byte_range: ByteRange, rows: int, what: str) -> IdColumn:
    """The item IDs of an .npy.

    Raises BadFileError unless they are 1-D, one per row, text or integer; IncompleteFileError when it is too short.
    """
    header = read_npy_header(byte_range, what, objects=True)
    if not header.dtype.hasobject:
        check_id_dtype(header.dtype, what)
    if len(header.shape) != 1:
        raise BadFileError(f"{what} has shape {show_shape(header.shape)}; {IDS_WANTED} in a 1-D array")
    check_id_count(header.shape[0], rows, what)
    if not header.dtype.hasobject:
        return IdArray(byte_range, header.offset, header.dtype)
    size = byte_range.size - header.offset
    if size > _MAX_PICKLE_BYTES:
        raise BadFileError(f"{what} holds {size:,} bytes of Python objects; save it as {what.split()[-1]}.astype(str)")
    raw = bytearray(size)
    byte_range.read_into(header.offset, memoryview(raw))
    values = read_object_array(bytes(raw), what)
    check_id_count(len(values), rows, what)
    return listed_ids(values, what)
