"""Semantic IDs of files of embeddings, written as parquet. Needs neither a daemon nor a database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from semid_daemon.base.atomic_file import atomic_write
from semid_daemon.base.errors import BadFileError, MachineError
from semid_daemon.cli.named_file import open_named_file
from semid_daemon.codebooks.api import Codebooks, semantic_ids_of
from semid_daemon.config import Ingest
from semid_daemon.export.columns import CODES, code_lists
from semid_daemon.ingest.open_embeddings import usable, wrong_dimension
from semid_daemon.runtime.progress import Advance


def encode_files(
    paths: Sequence[Path],
    out: Path,
    codebooks: Codebooks,
    settings: Ingest,
    on_open: Callable[[Path, int], Advance],
    directories: Sequence[Path] = (),
    on_remark: Callable[[Path, str], None] = lambda path, remark: None,
) -> tuple[int, dict[str, int]]:
    """Write `item_id, semantic_id, codes` of every usable row of the files to a parquet file, whole or not at all.

    Rows keep the order of the files; an item that occurs twice is written twice. `on_open` takes a path and its
    number of rows and returns a callback for progress; `directories` are those of a catalogue's files;
    `on_remark` is told what the producer of a file should know about its item IDs.
    Returns the number of rows written, and the rows left out by
    reason. Raises BadFileError naming the file that cannot be used,
    MachineError when `out` cannot be written, OSError when a file cannot be read.
    """
    written = 0
    left_out: Counter[str] = Counter()
    schema = pa.schema([("item_id", pa.string()), ("semantic_id", pa.string()), ("codes", CODES)])
    schema = schema.with_metadata({"semid.fingerprint": codebooks.fingerprint})
    with _output(out) as partial, pq.ParquetWriter(partial, schema) as writer:
        for path in paths:
            try:
                with open_named_file(path, settings.fields, directories, codebooks.dim) as (_, source):
                    if source.rows and source.dim != codebooks.dim:
                        raise wrong_dimension(source.dim, codebooks.dim, "the codebooks")
                    if source.remark and source.rows:
                        on_remark(path, source.remark)
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
def _output(out: Path) -> Iterator[str]:
    """The path of the partial file, which replaces `out` in the end. Raises MachineError where it cannot be made."""
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(atomic_write(out, shared=True))
        except OSError as error:
            raise MachineError(f"{out}: cannot be written: {error.strerror or error}") from error
        yield stream.name
