"""One drop file on its way through: opened and known by its digest, surveyed, encoded, committed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from semid_daemon.drop.reading import OpenFile, digest_of, open_drop_file, signature_text
from semid_daemon.errors import BadFileError
from semid_daemon.formats import EmbeddingSource, open_source
from semid_daemon.quantizer import Encoder
from semid_daemon.records import DropFile, EmbeddingBatch
from semid_daemon.store.writer import LedgerFile, Metric, Writer


@dataclass(frozen=True, slots=True)
class Waiting:
    """A settled file in the drop directory whose rows are not all committed, and its ledger entry."""

    file: DropFile
    ledger: LedgerFile


@contextlib.contextmanager
def open_embeddings(file: DropFile) -> Iterator[tuple[OpenFile, EmbeddingSource]]:
    """Open a settled file as embeddings.

    Raises BadFileError (IncompleteFileError when it is shorter than it says), FileChangedError, OSError.
    """
    with open_drop_file(file) as opened:
        sidecar_name = file.sidecar.name if file.sidecar else ""
        source = open_source(opened.stream, file.name, sidecar=opened.sidecar, sidecar_name=sidecar_name)
        try:
            yield opened, source
        finally:
            source.close()


def register(writer: Writer, file: DropFile, on_hashed: Callable[[int], None]) -> LedgerFile:
    """Find the file's entry in the ledger by its content, or make one. Hashes only what is not known by sight."""
    signature = signature_text(file)
    known = writer.known_digest(file.name, signature)
    if known is not None:
        return known
    with open_drop_file(file) as opened:
        digest = digest_of(opened, on_hashed)
    return writer.record_sighting(file.name, signature, digest, file.signature.size_bytes)


def survey(writer: Writer, waiting: Waiting, chunk_rows: int, check_dim: Callable[[int], None]) -> Waiting:
    """Read a file through while there are no codebooks yet: is it whole, and how many rows can be used?"""
    with open_embeddings(waiting.file) as (opened, source):
        check_dim(source.dim)
        usable = sum(len(batch.item_ids) for batch in source.batches(chunk_rows))
        opened.check_unchanged()
        writer.set_surveyed(waiting.ledger.id, rows=source.rows, dim=source.dim, rows_usable=usable)
    return Waiting(waiting.file, writer.file(waiting.ledger.id))


def rows_of(waiting: list[Waiting], chunk_rows: int) -> Iterator[EmbeddingBatch]:
    """All usable rows of several files, in order."""
    for each in waiting:
        with open_embeddings(each.file) as (opened, source):
            yield from source.batches(chunk_rows)
            opened.check_unchanged()


def encode_file(
    writer: Writer,
    waiting: Waiting,
    *,
    generation: int,
    encoder: Callable[[int], Encoder],
    chunk_rows: int,
    on_rows: Callable[[int], None],
    stopping: Callable[[], bool],
) -> LedgerFile:
    """Encode and commit a file chunk by chunk, from the row where it stopped before, with the generation it began with.

    Between chunks it looks whether the daemon is stopping, and whether the file is still the one that was hashed.
    """
    with open_embeddings(waiting.file) as (opened, source):
        begun = waiting.ledger.generation or generation
        dim = encoder(begun).codebooks.dim
        if source.dim != dim:
            raise wrong_dimension(source.dim, dim, f"generation {begun}")
        ledger = writer.begin_loading(
            waiting.ledger.id, rows=source.rows, dim=source.dim, generation=begun, chunk_rows=chunk_rows
        )
        on_rows(ledger.rows_done)
        if ledger.status != "loading":
            return ledger
        started = time.monotonic()
        for batch in source.batches(ledger.chunk_rows or chunk_rows, ledger.rows_done):
            codes_NL = encoder(begun).encode(batch.embeddings_ND)
            opened.check_unchanged()
            elapsed_s = time.monotonic() - started
            writer.commit_chunk(ledger, batch, codes_NL, [Metric("rows_per_s", batch.rows_read / max(elapsed_s, 1e-9))])
            on_rows(batch.rows_read)
            if stopping():
                break
            started = time.monotonic()
    return writer.file(ledger.id)


def wrong_dimension(found: int, expected: int, whose: str) -> BadFileError:
    return BadFileError(f"wrong dimension: {found}, expected {expected} ({whose})")
