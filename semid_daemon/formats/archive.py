"""Zip archives, checked before anything in them is read (.npz and .pt are both zips)."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from semid_daemon.base.errors import BadFileError, IncompleteFileError
from semid_daemon.formats.budget import check_unfolding
from semid_daemon.formats.byte_ranges import ByteRange, FileRange, ZipMember, read_at, size_of
from semid_daemon.formats.faults import show

MAGICS = (b"PK\x03\x04", b"PK\x05\x06")

_END = b"PK\x05\x06"
_END_SIZE = 22
_END64_LOCATOR = b"PK\x06\x07"
_END64 = b"PK\x06\x06"
_MAX_COMMENT = 0xFFFF
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
# A central directory of an archive of arrays has one short entry per array.
_MAX_DIRECTORY_BYTES = 4 << 20
_ENCRYPTED = 0x1
_UNSAFE_NAME = re.compile(r"^([/\\]|[A-Za-z]:)|(^|[/\\])\.\.([/\\]|$)|\0")
_VERIFY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Archive:
    """An open zip whose directory was checked."""

    stream: BinaryIO
    zip: zipfile.ZipFile
    members: dict[str, zipfile.ZipInfo]

    def byte_range(self, name: str) -> ByteRange:
        """The bytes of a member: a range of the file when stored, else decompressed while it is read."""
        info = self.members[name]
        if info.compress_type == zipfile.ZIP_STORED:
            return FileRange(self.stream, self._data_offset(info), info.file_size)
        if info.compress_type == zipfile.ZIP_DEFLATED:
            return ZipMember(self.zip, info)
        raise BadFileError(
            f"zip member {show(name)} is compressed by method {info.compress_type};"
            " only stored and deflated members are read"
        )

    def verify(self, names: Iterable[str]) -> None:
        """Read members through and compare their checksums. Raises BadFileError where they differ."""
        buffer = np.empty(_VERIFY_BYTES, np.uint8).data
        for name in names:
            info, byte_range, crc = self.members[name], self.byte_range(name), 0
            for at in range(0, byte_range.size, _VERIFY_BYTES):
                part = buffer[: byte_range.size - at]
                byte_range.read_into(at, part)
                crc = zlib.crc32(part, crc)
            if crc != info.CRC:
                raise BadFileError(f"zip member {show(name)} fails its checksum; copy or write the file again")

    def _data_offset(self, info: zipfile.ZipInfo) -> int:
        # The local header repeats the name, and its extra field may differ from the directory's.
        raw = read_at(self.stream, info.header_offset, _LOCAL_HEADER.size)
        fields = _LOCAL_HEADER.unpack(raw) if len(raw) == _LOCAL_HEADER.size else (b"",)
        if fields[0] != b"PK\x03\x04":
            raise BadFileError(f"zip member {show(info.filename)} is not where the directory says; write it again")
        offset = info.header_offset + _LOCAL_HEADER.size + int(fields[9]) + int(fields[10])
        if info.compress_size != info.file_size or offset + info.file_size > self.zip.start_dir:
            raise BadFileError(f"zip member {show(info.filename)} has impossible sizes; write the file again")
        return offset


def open_archive(stream: BinaryIO) -> Archive:
    """Open a zip and check its directory.

    Raises IncompleteFileError when the end of the zip is missing; BadFileError for trailing bytes,
    duplicate or unsafe names, encrypted members and members that decompress to absurd sizes.
    """
    _check_end(stream)
    archive = zipfile.ZipFile(stream)
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.orig_filename
        if _UNSAFE_NAME.search(name):
            raise BadFileError(f"zip member {show(name)} has an unsafe name; name members without / or ..")
        if name in members:
            raise BadFileError(f"zip member {show(name)} occurs twice; write each array once")
        if info.flag_bits & _ENCRYPTED:
            raise BadFileError(f"zip member {show(name)} is encrypted; write it without a password")
        check_unfolding(f"zip member {show(name)}", info.file_size, info.compress_size, "save it uncompressed")
        members[name] = info
    return Archive(stream, archive, members)


def _check_end(stream: BinaryIO) -> None:
    size = size_of(stream)
    start = max(0, size - _END_SIZE - _MAX_COMMENT)
    tail = read_at(stream, start, size - start)
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < _END_SIZE:
        raise IncompleteFileError("has no end of a zip archive; perhaps it is still being written")
    _, _, _, _, _, directory_size, _, comment = struct.unpack_from("<4s4H2IH", tail, at)
    beyond = len(tail) - at - _END_SIZE - comment
    if beyond > 0:
        raise BadFileError(f"{beyond:,} bytes follow the zip archive; write it again")
    if beyond < 0:
        raise IncompleteFileError("ends within the zip archive's comment; perhaps it is still being written")
    if directory_size == 0xFFFFFFFF:
        directory_size = _directory_size64(stream, start + at)
    if directory_size > _MAX_DIRECTORY_BYTES:
        raise BadFileError(f"has a zip directory of {directory_size:,} bytes; save one file with few arrays in it")


def _directory_size64(stream: BinaryIO, end: int) -> int:
    locator = read_at(stream, max(0, end - 20), 20)
    if len(locator) < 20 or locator[:4] != _END64_LOCATOR:
        raise BadFileError("has a damaged zip directory; write it again")
    record = read_at(stream, int(struct.unpack_from("<Q", locator, 8)[0]), 56)
    if len(record) < 56 or record[:4] != _END64:
        raise BadFileError("has a damaged zip directory; write it again")
    return int(struct.unpack_from("<Q", record, 40)[0])
