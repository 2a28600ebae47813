"""Embeddings of items that already have an ID, read again from the finished files or from the spool."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from semid_daemon.base.drop_file import DropFile
from semid_daemon.base.errors import BadFileError, StoreError
from semid_daemon.base.row_hash import row_hashes
from semid_daemon.base.types import EmbeddingBatch, FloatArray, SpoolRecord
from semid_daemon.codebooks.spool import Spool
from semid_daemon.config import Config
from semid_daemon.drop.locate import find_source
from semid_daemon.drop.open_file import FileChangedError
from semid_daemon.formats import SIDECAR_SUFFIXES
from semid_daemon.ingest.open_embeddings import open_embeddings
from semid_daemon.store.write.chunks import Chunk
from semid_daemon.store.write.store import Store


class RowsGoneError(Exception):
    """Embeddings that are needed again are not kept, or not where they were; says which and what to do."""


@dataclass(frozen=True, slots=True)
class SourceChunk:
    """The rows of a chunk that are still current in a generation, with the hash of each original embedding.

    The spool rounds embeddings: rows from there have other hashes than `contents`.
    """

    chunk: Chunk
    batch: EmbeddingBatch
    contents: list[int]


class SourceRows:
    """Reads the rows of committed chunks again. A file stays open while its chunks are read one after the other."""

    def __init__(self, config: Config, store: Store, spool: Spool) -> None:
        self._config = config
        self._store = store
        self._spool = spool
        self._open: tuple[int, int, Iterator[EmbeddingBatch]] | None = None  # file, its next row, its further batches
        self._closing = contextlib.ExitStack()

    def close(self) -> None:
        """Close the file that is open."""
        self._open = None
        self._closing.close()

    def catalogue(self, generation: int, through: int) -> Iterator[SourceChunk]:
        """The current rows of a generation from all chunks up to `through`, in the order of their commits.

        Raises RowsGoneError as `read` does.
        """
        after = 0
        while chunks := self._store.chunks.after(after, most=1_000):
            for chunk in chunks:
                if chunk.id > through:
                    return
                yield self.read(chunk, generation)
            after = chunks[-1].id

    def read(self, chunk: Chunk, generation: int) -> SourceChunk:
        """The chunk's rows that are still current in a generation, one for each item; possibly none.

        Raises RowsGoneError when they are not kept any more.
        """
        record = self._store.spool.record(chunk.id)
        if record is not None:
            return self._read_spool(record, chunk, generation)
        failures = []
        for file in self._files(chunk):
            try:
                found = self._read_file(file, chunk, generation)
            except (BadFileError, FileChangedError, OSError) as error:
                self.close()
                failures.append(f"{file.path}: {error}")
                continue
            if found is not None:
                return found
            self.close()
            failures.append(f"{file.path}: not the file that was encoded")
        if self._is_superseded(chunk, generation):
            return _source_chunk(chunk, [], np.empty((0, 1), np.float32), {}, ())
        name = self._store.files.content(chunk.file_id).names[0]
        why = "; ".join(failures) if failures else f"neither in {self._config.done_dir} nor in {self._config.drop_dir}"
        raise RowsGoneError(
            f"{name}: its embeddings are not kept: {why}; put the file back into {self._config.done_dir}"
        )

    def _read_spool(self, record: SpoolRecord, chunk: Chunk, generation: int) -> SourceChunk:
        try:
            item_ids, rows_ND = self._spool.read(record)
        except (StoreError, OSError) as error:
            raise RowsGoneError(str(error)) from error
        contents = self._store.items.hashes_of_chunk(generation, chunk.id, item_ids)
        return _source_chunk(chunk, item_ids, rows_ND, contents, range(len(item_ids)))

    def _read_file(self, file: DropFile, chunk: Chunk, generation: int) -> SourceChunk | None:
        """The chunk's current rows from a file; None where it does not hold all of them."""
        batch = self._batch(file, chunk)
        contents = self._store.items.hashes_of_chunk(generation, chunk.id, batch.item_ids)
        # An item may occur twice in a file, and the file may be another one by now: the hashes tell.
        hashes = row_hashes(batch.embeddings_ND).tolist()
        positions = {
            item_id: position
            for position, item_id in enumerate(batch.item_ids)
            if item_id in contents and hashes[position] == contents[item_id]
        }
        if contents and len(positions) == len(contents):
            return _source_chunk(chunk, batch.item_ids, batch.embeddings_ND, contents, sorted(positions.values()))
        return None

    def _is_superseded(self, chunk: Chunk, generation: int) -> bool:
        """Whether every row of the chunk has been replaced since."""
        return not self._store.items.has_rows_of_chunk(generation, chunk.id)

    def _files(self, chunk: Chunk) -> Iterator[DropFile]:
        content = self._store.files.content(chunk.file_id)
        for name in content.names:
            yield from find_source(
                name,
                content.digest,
                content.size_bytes,
                self._config.drop_dir,
                self._config.done_dir,
                SIDECAR_SUFFIXES,
                self._config.ingest.fields,
            )

    def _batch(self, file: DropFile, chunk: Chunk) -> EmbeddingBatch:
        if self._open is None or self._open[:2] != (chunk.file_id, chunk.first_row):
            self.close()
            content = self._store.files.content(chunk.file_id)
            _, source = self._closing.enter_context(
                open_embeddings(file, content.digest, self._store.files.get(chunk.file_id).dim)
            )
            self._open = chunk.file_id, chunk.first_row, source.batches(chunk.chunk_rows, chunk.first_row)
        batch = next(self._open[2], None)
        if batch is None or (batch.first_row, batch.rows_read) != (chunk.first_row, chunk.rows):
            raise BadFileError("it has other rows than before")
        self._open = chunk.file_id, chunk.first_row + chunk.rows, self._open[2]
        return batch


def _source_chunk(
    chunk: Chunk,
    item_ids: list[str],
    rows_ND: FloatArray,
    contents: dict[str, int],
    positions: range | list[int] | tuple[()],
) -> SourceChunk:
    """The rows at the positions whose item is among `contents`, the hashes by item."""
    chosen = [position for position in positions if item_ids[position] in contents]
    found = [item_ids[position] for position in chosen]
    batch = EmbeddingBatch(chunk.first_row, len(found), found, np.ascontiguousarray(rows_ND[chosen]))
    return SourceChunk(chunk, batch, [contents[item_id] for item_id in found])
