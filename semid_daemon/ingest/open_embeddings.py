"""Drop files opened as embeddings, and their usable rows. Imports no torch: `semid inspect` answers at once."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping

import numpy as np

from semid_daemon.base.drop_file import DropFile
from semid_daemon.base.errors import BadFileError
from semid_daemon.base.failpoints import failpoint
from semid_daemon.base.row_hash import zero_rows
from semid_daemon.base.steps import finish
from semid_daemon.base.types import EmbeddingBatch
from semid_daemon.config import Ingest
from semid_daemon.drop.open_file import OpenFile, digest_of, open_drop_file
from semid_daemon.formats import EmbeddingSource, open_source
from semid_daemon.ingest.pending import PendingFile
from semid_daemon.runtime.background import iterate_in_background
from semid_daemon.runtime.context import Limits
from semid_daemon.store.write.chunks import ZERO_VECTOR
from semid_daemon.store.write.store import Store

CHUNK_BYTES = Limits().chunk_bytes
_FEWEST_ROWS = 64  # in a chunk, however long they are


@contextlib.contextmanager
def open_embeddings(
    file: DropFile, digest: str | None = None, dim: int | None = None
) -> Iterator[tuple[OpenFile, EmbeddingSource]]:
    """Open a stable file as embeddings. `digest` is that of its content, where it is known, and `dim` the catalogue's.

    Raises BadFileError (IncompleteFileError when it is shorter than it says), FileChangedError, OSError.
    """
    with open_drop_file(file) as opened, source_of(opened, digest, dim) as source:
        yield opened, source


@contextlib.contextmanager
def source_of(opened: OpenFile, digest: str | None = None, dim: int | None = None) -> Iterator[EmbeddingSource]:
    """The embeddings of a file that is open. Raises as `open_embeddings`."""
    failpoint("parsing")
    file = opened.file
    sidecar_name = file.sidecar.name if file.sidecar else ""

    @functools.cache
    def content() -> str:
        return digest or finish(digest_of(opened))

    source = open_source(
        opened.stream,
        file.name,
        sidecar=opened.sidecar,
        sidecar_name=sidecar_name,
        fields=file.fields,
        content=content,
        dim=dim,
    )
    with contextlib.closing(source):
        yield source


def usable(batch: EmbeddingBatch, settings: Ingest) -> EmbeddingBatch:
    """The batch by the configured policy for vectors of zeros."""
    if settings.on_zero == "encode":
        return batch
    zeros = zero_rows(batch.embeddings_ND)
    if not zeros.size:
        return batch
    keep = np.ones(len(batch.item_ids), bool)
    keep[zeros] = False
    return dataclasses.replace(
        batch,
        item_ids=[item_id for item_id, kept in zip(batch.item_ids, keep.tolist(), strict=True) if kept],
        embeddings_ND=np.ascontiguousarray(batch.embeddings_ND[keep]),
        rejected={**batch.rejected, ZERO_VECTOR: zeros.size},
    )


def rows_at_once(settings: Ingest, dim: int, chunk_bytes: int = CHUNK_BYTES) -> int:
    """How many rows make a chunk: as many as configured, unless they take more memory than a chunk may."""
    return min(settings.chunk_rows, max(_FEWEST_ROWS, chunk_bytes // (4 * max(dim, 1))))


def survey(
    store: Store, pending: PendingFile, settings: Ingest, check_dim: Callable[[int], None], dim: int | None = None
) -> Generator[None, None, PendingFile]:
    """Read a file through while there are no codebooks yet: is it whole, and how many rows can be used?

    `dim` is the length of vectors that is expected. Raises BadFileError where no row can be used.
    """
    with open_embeddings(pending.file, pending.ledger.digest, dim) as (opened, source):
        if source.rows:
            check_dim(source.dim)
        rows = 0
        rejected: Counter[str] = Counter()
        # A chunk of a file that unfolds takes long, and so does the checksum of a whole file before its first chunk.
        for read in iterate_in_background(source.batches(rows_at_once(settings, source.dim))):
            if read is not None:
                batch = usable(read, settings)
                rows += len(batch.item_ids)
                rejected.update(batch.rejected)
            yield
        check_usable(source.rows, rejected, settings)
        opened.check_unchanged()
        store.files.set_surveyed(pending.ledger.id, rows=source.rows, dim=source.dim, rows_usable=rows)
    return PendingFile(pending.file, store.files.get(pending.ledger.id))


def rows_of(files: list[PendingFile], settings: Ingest) -> Iterator[EmbeddingBatch]:
    """All usable rows of several files, in order."""
    for pending in files:
        with open_embeddings(pending.file, pending.ledger.digest, pending.ledger.dim) as (opened, source):
            for batch in source.batches(rows_at_once(settings, source.dim)):
                yield usable(batch, settings)
            opened.check_unchanged()


def check_usable(rows: int, rejected: Mapping[str, int], settings: Ingest) -> None:
    """Raise BadFileError where none of a file's rows can be used, or fewer than `ingest.max_rejected_share` allows."""
    count = sum(rejected.values())
    reasons = ", ".join(f"{reason}: {rows:,}" for reason, rows in rejected.items())
    if rows and count == rows:
        raise BadFileError(f"none of its {rows:,} rows can be used ({reasons})")
    if count > settings.max_rejected_share * rows:
        raise BadFileError(
            f"{count:,} of its {rows:,} rows cannot be used ({reasons}), more than ingest.max_rejected_share ="
            f" {settings.max_rejected_share:g} allows"
        )


def wrong_dimension(found: int, expected: int, whose: str) -> BadFileError:
    return BadFileError(f"wrong dimension: {found}, expected {expected} ({whose})")
