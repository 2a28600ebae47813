"""Files of embeddings without daemon and database: what would be read of one, and its IDs by given codebooks."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from semid_daemon.config import Ingest
from semid_daemon.drop.reading import FileChangedError
from semid_daemon.drop.scan import possible_sidecars, signature_of
from semid_daemon.errors import BadFileError, MachineError
from semid_daemon.export.columns import CODES, code_lists
from semid_daemon.field_names import FieldNames
from semid_daemon.formats import SIDECAR_SUFFIXES, EmbeddingSource
from semid_daemon.generations.codebooks import Codebooks, semantic_ids_of
from semid_daemon.ingest import open_embeddings, usable, wrong_dimension
from semid_daemon.names import printable
from semid_daemon.records import DropFile

_FIRST_IDS = 5

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Inspected:
    """What would be read of a file. `vector_field` and `id_field` are None where the format names none."""

    file: str
    format: str
    rows: int
    dim: int
    dtype: str
    vector_field: str | None
    id_field: str | None
    sidecar: str | None
    first_ids: list[str]
    rows_usable: int
    rows_rejected: int
    rejected: Mapping[str, int] = field(default_factory=dict)


def file_at(path: Path, fields: FieldNames) -> DropFile:
    """The file at a path with the sidecar that belongs to it, as the drop directory would give it.

    Links are followed. Raises OSError, or BadFileError for what is no file.
    """
    named = path.absolute()
    found = named.resolve(strict=True)
    if not found.is_file():
        raise BadFileError("is no regular file; give the files of a directory one by one")
    sidecar = next((each for each in possible_sidecars(named, SIDECAR_SUFFIXES) if each.is_file()), None)
    behind = sidecar.resolve() if sidecar else None
    return DropFile(
        path=found,
        name=printable(Path(named.name)),
        signature=signature_of(os.stat(found)),
        sidecar=behind,
        sidecar_signature=signature_of(os.stat(behind)) if behind else None,
        fields=fields,
    )


@contextmanager
def _opened(path: Path, settings: Ingest) -> Iterator[tuple[DropFile, EmbeddingSource]]:
    """Raises BadFileError for a file that cannot be used, OSError for one that cannot be read."""
    file = file_at(path, settings.fields)
    try:
        with open_embeddings(file) as (opened, source):
            yield file, source
            opened.check_unchanged()
    except FileChangedError as error:
        raise BadFileError(str(error)) from error


def inspect_file(path: Path, settings: Ingest, on_open: Callable[[int], Advance]) -> Inspected:
    """Read a file through as the daemon would. `on_open` is told its rows, and gives whom to tell of those read.

    Raises BadFileError when the daemon would reject it, OSError when it cannot be read.
    """
    rejected: Counter[str] = Counter()
    first_ids: list[str] = []
    rows_usable = 0
    with _opened(path, settings) as (file, source):
        advance = on_open(source.rows)
        for read in source.batches(settings.chunk_rows):
            batch = usable(read, settings)
            rejected.update(batch.rejected)
            rows_usable += len(batch.item_ids)
            first_ids += batch.item_ids[: _FIRST_IDS - len(first_ids)]
            advance(read.rows_read)
        return Inspected(
            file=str(path),
            format=source.format,
            rows=source.rows,
            dim=source.dim,
            dtype=source.dtype,
            vector_field=source.vector_name,
            id_field=None if source.id_name == "sidecar" else source.id_name,
            sidecar=file.sidecar.name if source.id_name == "sidecar" and file.sidecar else None,
            first_ids=first_ids,
            rows_usable=rows_usable,
            rows_rejected=sum(rejected.values()),
            rejected=dict(rejected),
        )


def encode_files(
    paths: Sequence[Path],
    out: Path,
    codebooks: Codebooks,
    settings: Ingest,
    on_open: Callable[[Path, int], Advance],
) -> tuple[int, dict[str, int]]:
    """Write `item_id, semantic_id, codes` of every usable row of some files to a parquet file, whole or not at all.

    Rows come in the order of the files; an item that occurs twice is there twice. Gives the number of rows
    written, and of those left out by reason. Raises BadFileError naming the file that cannot be used,
    MachineError when `out` cannot be written, OSError when a file cannot be read.
    """
    written = 0
    left_out: Counter[str] = Counter()
    schema = pa.schema([("item_id", pa.string()), ("semantic_id", pa.string()), ("codes", CODES)])
    schema = schema.with_metadata({"semid.fingerprint": codebooks.fingerprint})
    with _whole(out) as partial, pq.ParquetWriter(partial, schema) as writer:
        for path in paths:
            try:
                with _opened(path, settings) as (_, source):
                    if source.rows and source.dim != codebooks.dim:
                        raise wrong_dimension(source.dim, codebooks.dim, "the codebooks")
                    advance = on_open(path, source.rows)
                    for read in source.batches(settings.chunk_rows):
                        batch = usable(read, settings)
                        left_out.update(batch.rejected)
                        if batch.item_ids:
                            codes_NL = codebooks.encode(batch.embeddings_ND)
                            columns = {
                                "item_id": batch.item_ids,
                                "semantic_id": semantic_ids_of(codes_NL),
                                "codes": code_lists(codes_NL.astype(np.int64)),
                            }
                            writer.write_table(pa.table(columns, schema=schema))
                        written += len(batch.item_ids)
                        advance(read.rows_read)
            except BadFileError as error:
                raise BadFileError(f"{path}: {error}; nothing was written") from error
    return written, dict(left_out)


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """A file beside `out`, made durable and renamed to it in the end; removed when that is not reached."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{out.name[:100]}.", suffix=".part", dir=out.parent)
        mask = os.umask(0)
        os.umask(mask)
        os.fchmod(descriptor, 0o666 & ~mask)
    except OSError as error:
        raise MachineError(f"{out}: cannot be written: {error.strerror or error}") from error
    partial = Path(name)
    try:
        yield partial
        os.fsync(descriptor)
        os.rename(partial, out)
    finally:
        os.close(descriptor)
        with suppress(OSError):
            partial.unlink(missing_ok=True)
