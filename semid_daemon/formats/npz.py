"""numpy's .npz: a zip of .npy members, streamed."""

from __future__ import annotations

import io
from functools import partial
from typing import BinaryIO

from semid_daemon.base.errors import BadFileError
from semid_daemon.formats.archive import Archive, open_archive
from semid_daemon.formats.byte_ranges import CompressedMember, FileRegion, Region
from semid_daemon.formats.faults import content_errors, quoted_field
from semid_daemon.formats.fields import pick_ids, pick_vectors
from semid_daemon.formats.item_ids import IdColumn
from semid_daemon.formats.npy import vector_array
from semid_daemon.formats.npy_header import id_array, read_npy_header
from semid_daemon.formats.sidecar import OutsideIds
from semid_daemon.formats.source import ArraySource

# Columns of a compressed array cannot be sought; up to this size it is decompressed into memory.
_MAX_FORTRAN_BYTES = 256 << 20


def open_npz(stream: BinaryIO, outside: OutsideIds) -> ArraySource:
    """Vectors and item IDs from the members of an .npz."""
    archive = open_archive(stream)
    members = _arrays(archive)
    vector_name = pick_vectors(members, outside.fields, partial(_looks_like_vectors, archive, members))
    what = quoted_field(vector_name)
    region = archive.region(members[vector_name])
    header = read_npy_header(region, what)
    vectors = vector_array(region, header, what)
    if header.fortran and isinstance(region, CompressedMember):
        vectors = vector_array(_in_memory(region, what), header, what)

    used = [members[vector_name]]
    id_name = pick_ids(members, outside.fields, sidecar=outside.sidecar is not None)
    ids: IdColumn
    if id_name is None:
        ids, id_name = outside.for_rows(vectors.rows)
    else:
        used.append(members[id_name])
        id_region = archive.region(members[id_name])
        id_what = quoted_field(id_name)
        ids = id_array(id_region, read_npy_header(id_region, id_what), vectors.rows, id_what)
    # A zip's checksum covers a whole member: it is compared before the first row is given out.
    return ArraySource("npz", vectors, ids, vector_name, id_name, partial(archive.verify, used), archive.zip.close)


def _arrays(archive: Archive) -> dict[str, str]:
    """Array name -> member name."""
    arrays: dict[str, str] = {}
    for member in archive.members:
        name = member.removesuffix(".npy")
        if name == member:
            continue
        arrays[name] = member
    return arrays


def _looks_like_vectors(archive: Archive, members: dict[str, str], name: str) -> bool:
    try:
        with content_errors("npz"):
            header = read_npy_header(archive.region(members[name]), name)
    except BadFileError:
        return False
    return header.dtype.kind == "f" and len(header.shape) == 2


def _in_memory(region: Region, what: str) -> Region:
    if region.size > _MAX_FORTRAN_BYTES:
        raise BadFileError(
            f"{what} is {region.size:,} bytes, compressed and in Fortran order;"
            " save it in C order (numpy.ascontiguousarray)"
        )
    whole = bytearray(region.size)
    region.read_into(0, memoryview(whole))
    return FileRegion(io.BytesIO(whole), 0, region.size)
