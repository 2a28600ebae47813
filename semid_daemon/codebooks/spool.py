"""The spool: processed embeddings in float16, in files of the state directory that only grow.

A chunk's record is durable before the transaction that names it. What a process that died wrote beyond the last
committed record is cut off before the next one.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from semid_daemon.base.atomic_file import sync_directory
from semid_daemon.base.errors import StoreError
from semid_daemon.base.failpoints import failpoint
from semid_daemon.base.types import FloatArray, SpoolRecord

_HEAD = struct.Struct("<8s16sIIIB3x")  # magic, digest of the rest, rows, values per row, bytes of item IDs, bytes each
_MAGIC = b"semidsp1"
SEGMENT_BYTES = 256 << 20
_SMALLEST = 2.0**-10  # of a row's largest value: below it float16 loses too many bits


class Spool:
    """Appends and reads records in a directory, from behind the last committed one on."""

    def __init__(self, directory: Path, end: SpoolRecord | None, segment_bytes: int = SEGMENT_BYTES) -> None:
        """`end` is the last committed record; a new file is begun once one has `segment_bytes`."""
        self._directory = directory
        self._segment_bytes = segment_bytes
        self.reset(end)

    def reset(self, end: SpoolRecord | None) -> None:
        """Begin again behind the last committed record."""
        self._segment = end.segment if end else 0
        self._size_bytes = end.first_byte + end.size_bytes if end else 0

    @property
    def end(self) -> SpoolRecord:
        """Where the next record begins, as an empty record to `reset` to."""
        return SpoolRecord(self._segment, self._size_bytes, 0)

    def append(self, item_ids: Sequence[str], embeddings_ND: FloatArray) -> SpoolRecord:
        """Write rows (N×D float32) durably and return where they are. A record that is not `committed` is overwritten.

        Raises OSError, and StoreError when a file is shorter than what was committed to it.
        """
        if self._size_bytes >= self._segment_bytes:
            self._segment, self._size_bytes = self._segment + 1, 0
        record = _pack(item_ids, embeddings_ND)
        path = segment_path(self._directory, self._segment)
        new = not path.exists()
        if new:
            self._directory.mkdir(parents=True, exist_ok=True)
        with open(path, "r+b" if not new else "x+b") as file:
            if file.seek(0, os.SEEK_END) < self._size_bytes:
                raise StoreError(f"{path}: shorter than what was committed to it; restore it from a backup")
            file.truncate(self._size_bytes)
            file.seek(self._size_bytes)
            file.write(record)
            file.flush()
            os.fsync(file.fileno())
        if new:
            sync_directory(self._directory)
        failpoint("spooled")
        return SpoolRecord(self._segment, self._size_bytes, len(record))

    def committed(self, record: SpoolRecord) -> None:
        """The database names the record: the next one is appended behind it."""
        self._segment, self._size_bytes = record.segment, record.first_byte + record.size_bytes

    def read(self, record: SpoolRecord) -> tuple[list[str], FloatArray]:
        """Item IDs and rows (N×D float32) of a record. Raises StoreError when it is missing or damaged."""
        path = segment_path(self._directory, record.segment)
        try:
            with open(path, "rb") as file:
                file.seek(record.first_byte)
                content = file.read(record.size_bytes)
        except FileNotFoundError:
            raise StoreError(f"{path}: missing; restore it from a backup") from None
        if len(content) < max(record.size_bytes, _HEAD.size):
            raise StoreError(f"{path}: damaged at byte {record.first_byte:,}: too short; restore it from a backup")
        magic, digest, rows, dim, id_bytes, width = _HEAD.unpack_from(content)
        body = content[_HEAD.size :]
        if magic != _MAGIC or digest != hashlib.blake2b(body, digest_size=16).digest():
            raise StoreError(f"{path}: damaged at byte {record.first_byte:,}; restore it from a backup")
        values = np.frombuffer(body, "<f2" if width == 2 else "<f4", count=rows * dim, offset=id_bytes)
        return json.loads(body[:id_bytes]), values.reshape(rows, dim).astype(np.float32)


def segment_path(directory: Path, segment: int) -> Path:
    """The file of a segment of the spool in a directory."""
    return directory / f"{segment:06}.rows"


def _pack(item_ids: Sequence[str], embeddings_ND: FloatArray) -> bytes:
    """A record: float16, or float32 where some row's values do not fit."""
    largest_N = np.abs(embeddings_ND).max(axis=1, initial=0.0)
    fits = bool(((largest_N <= np.finfo(np.float16).max) & ((largest_N >= _SMALLEST) | (largest_N == 0))).all())
    names = json.dumps(list(item_ids), ensure_ascii=False).encode()
    body = names + np.ascontiguousarray(embeddings_ND, dtype="<f2" if fits else "<f4").tobytes()
    digest = hashlib.blake2b(body, digest_size=16).digest()
    rows, dim = embeddings_ND.shape
    return _HEAD.pack(_MAGIC, digest, rows, dim, len(names), 2 if fits else 4) + body
