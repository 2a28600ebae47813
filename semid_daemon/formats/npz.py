"""numpy's .npz: a zip of .npy members, streamed."""

from __future__ import annotations

from functools import partial
from typing import BinaryIO

from semid_daemon.base.errors import BadFileError
from semid_daemon.formats.archive import Archive, open_archive
from semid_daemon.formats.byte_ranges import ZipMember, in_memory
from semid_daemon.formats.faults import content_errors, quoted_field
from semid_daemon.formats.fields import pick_vectors
from semid_daemon.formats.id_choice import SAMPLE_ROWS, choose_ids
from semid_daemon.formats.item_ids import IdColumn
from semid_daemon.formats.npy import vector_array
from semid_daemon.formats.npy_header import read_npy_header
from semid_daemon.formats.npy_ids import read_ids
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
    choice = choose_ids(
        [name for name in members if name != vector_name],
        id_source,
        fits=lambda name: _ids_of(archive, members[name], name, vectors.rows) is not None,
        sample=lambda name: _sample(_ids_of(archive, members[name], name, vectors.rows), vectors.rows),
    )
    id_name = choice.name
    ids: IdColumn
    if id_name is None:
        ids, id_name = id_source.for_rows(vectors.rows)
    else:
        used.append(members[id_name])
        ids = _id_column(archive, members[id_name], id_name, vectors.rows)
    # A zip's checksum covers a whole member: it is compared before the first row is given out.
    return ArraySource(
        "npz", vectors, ids, vector_name, id_name, choice.remark, partial(archive.verify, used), archive.zip.close
    )


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


def _id_column(archive: Archive, member: str, name: str, rows: int) -> IdColumn:
    """The item IDs of a member. Raises BadFileError unless they are one text or integer per row."""
    byte_range, what = archive.byte_range(member), quoted_field(name)
    return read_ids(byte_range, rows, what)


def _ids_of(archive: Archive, member: str, name: str, rows: int) -> IdColumn | None:
    """The same; None for what is no column of item IDs."""
    try:
        with content_errors("npz"):
            return _id_column(archive, member, name, rows)
    except BadFileError:
        return None


def _sample(ids: IdColumn | None, rows: int) -> list[str]:
    return [] if ids is None else ids.read(0, min(rows, SAMPLE_ROWS)).texts
