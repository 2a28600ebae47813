"""From a stream and its name to a source: the extension and the first bytes must agree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import BinaryIO

from semid_daemon.base.drop_file import FieldNames
from semid_daemon.base.errors import BadFileError, IncompleteFileError
from semid_daemon.formats import archive, npy, npy_header, pt
from semid_daemon.formats.byte_ranges import read_at, size_of
from semid_daemon.formats.faults import content_errors, show
from semid_daemon.formats.sidecar import SIDECAR_SUFFIXES, IdSource
from semid_daemon.formats.source import EmbeddingSource

__all__ = ["SIDECAR_SUFFIXES", "is_supported", "open_source"]

_FORMATS = {
    ".npy": "npy",
    ".npz": "npz",
    ".safetensors": "safetensors",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".pt": "pt",
    ".pth": "pt",
}
_PARQUET_MAGIC = b"PAR1"
_ARROW_MAGIC = b"ARROW1"
_MAGICS: dict[str, tuple[bytes, ...]] = {
    "npy": (npy_header.MAGIC,),
    "npz": archive.MAGICS,
    "pt": archive.MAGICS,
    "parquet": (_PARQUET_MAGIC,),
    "arrow": (_ARROW_MAGIC,),
}
# First bytes that are no format of ours, or an old form of one: (bytes, what they are, what to do).
_KNOWN = (
    (npy_header.MAGIC, "numpy array (.npy)", "name it .npy"),
    (archive.MAGICS[0], "zip archive (.npz or .pt)", "name it by its format"),
    (archive.MAGICS[1], "zip archive (.npz or .pt)", "name it by its format"),
    (_PARQUET_MAGIC, "parquet file", "name it .parquet"),
    (b"PARE", "encrypted parquet file", "write it unencrypted"),
    (_ARROW_MAGIC, "arrow file", "name it .arrow"),
    (b"FEA1", "feather version 1 file", "write it as feather version 2"),
    (b"\xff\xff\xff\xff", "arrow stream", "write it in the arrow file format (pyarrow.ipc.new_file)"),
    (pt.LEGACY_MAGICS[0], "legacy torch pickle", "save it again with torch.save of PyTorch 1.6 or newer"),
    *((b"\x80" + protocol, "pickle", "pickles are never loaded") for protocol in (b"\2", b"\3", b"\4", b"\5")),
    (b"\x1f\x8b", "gzip file", "decompress it"),
    (b"\x28\xb5\x2f\xfd", "zstd file", "decompress it"),
)
_HEAD_BYTES = 16
_FOUND_BY_THEMSELVES = FieldNames()


def is_supported(name: str) -> bool:
    """Whether the extension is that of a format; sidecars of item IDs are none."""
    return not name.endswith(SIDECAR_SUFFIXES) and PurePosixPath(name).suffix in _FORMATS


def open_source(
    stream: BinaryIO,
    name: str,
    *,
    sidecar: BinaryIO | None = None,
    sidecar_name: str = "",
    fields: FieldNames = _FOUND_BY_THEMSELVES,
    content: Callable[[], str] = str,
    dim: int | None = None,
) -> EmbeddingSource:
    """Check an opened drop file and make it ready to be read.

    `stream` is a seekable regular file and stays the caller's to close, like `sidecar`; `name` gives
    the format; `fields` names those to use. Where there are no item IDs, they are made of `name`, what `content`
    returns (the digest of the file) and the row. `dim` is the length that the catalogue's vectors have. Raises
    BadFileError with a one-line reason, IncompleteFileError where the file is shorter than it declares; OSError
    propagates.
    """
    format_name = _FORMATS.get(PurePosixPath(name).suffix)
    if format_name is None:
        raise BadFileError(f"its extension is none of {' '.join(_FORMATS)}; name it by its format")
    id_source = IdSource(name, sidecar, sidecar_name, fields, content, dim)
    with content_errors(format_name):
        _check_magic(stream, PurePosixPath(name).suffix, format_name)
        return _open(format_name, stream, id_source)


def _open(format_name: str, stream: BinaryIO, id_source: IdSource) -> EmbeddingSource:
    match format_name:
        case "npy":
            return npy.open_npy(stream, id_source)
        case "npz":
            from semid_daemon.formats.npz import open_npz

            return open_npz(stream, id_source)
        case "pt":
            return pt.open_pt(stream, id_source)
        case "safetensors":
            from semid_daemon.formats.safetensors import open_safetensors

            return open_safetensors(stream, id_source)
        case "parquet":
            from semid_daemon.formats.parquet import open_parquet

            return open_parquet(stream, id_source)
        case _:
            from semid_daemon.formats.arrow import open_arrow

            return open_arrow(stream, id_source)


def _check_magic(stream: BinaryIO, extension: str, format_name: str) -> None:
    if not size_of(stream):
        raise IncompleteFileError("is empty (0 bytes); perhaps it is still being written")
    head = read_at(stream, 0, _HEAD_BYTES)
    wanted = _MAGICS.get(format_name)
    if wanted is None:  # safetensors begins with a length, then an object
        agrees, cut = head[8:9] == b"{", len(head) < 9
    else:
        agrees = head.startswith(wanted)
        cut = any(len(head) < len(magic) and magic.startswith(head) for magic in wanted)
    if agrees:
        return
    for magic, what, remedy in _KNOWN:
        if head.startswith(magic):
            raise BadFileError(f"is named {extension} but its bytes are those of a {what}; {remedy}")
    if cut:
        raise IncompleteFileError(f"holds only {len(head)} bytes; perhaps it is still being written")
    begins = show(head[:8].decode("latin-1"))
    raise BadFileError(f'is named {extension} but begins with "{begins}"; save it as {format_name}')
