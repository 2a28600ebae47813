"""numpy's .npz: a zip of .npy members, streamed."""

from __future__ import annotations

from functools import partial
from typing import BinaryIO

from semid_daemon.base.errors import BadFileError
from semid_daemon.formats.archive import Archive, open_archive
from semid_daemon.formats.byte_ranges import ZipMember, in_memory
from semid_daemon.formats.faults import content_errors, quoted_field
from semid_daemon.formats.fields import pick_ids, pick_vectors
from semid_daemon.formats.item_ids import IdColumn
from semid_daemon.formats.npy import vector_array
from semid_daemon.formats.npy_header import id_array, read_npy_header
from semid_daemon.formats.sidecar import IdSource
from semid_daemon.formats.source import ArraySource


def open_npz(stream: BinaryIO, id_source: IdSource) -> ArraySource:
    """Vectors and item IDs from the members of an .npz."""
    archive = open_archive(stream)
    members = _arrays(archive)
    vector_name = pick_vectors(members, id_source.fields, partial(_looks_like_vectors, archive, members))
    what = quoted_field(vector_name)
    byte_range = archive.byte_range(members[vector_name])
    header = read_npy_header(byte_range, what)
    vectors = vector_array(byte_range, header, what)
    if header.fortran and isinstance(byte_range, ZipMember):
        vectors = vector_array(in_memory(byte_range, what), header, what)

    used = [members[vector_name]]
    id_name = pick_ids(members, id_source.fields, sidecar=id_source.sidecar is not None)
    ids: IdColumn
    if id_name is None:
        ids, id_name = id_source.for_rows(vectors.rows)
    else:
        used.append(members[id_name])
        id_range = archive.byte_range(members[id_name])
        id_what = quoted_field(id_name)
        ids = id_array(id_range, read_npy_header(id_range, id_what), vectors.rows, id_what)
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
            header = read_npy_header(archive.byte_range(members[name]), name)
    except BadFileError:
        return False
    return header.dtype.kind == "f" and len(header.shape) == 2
