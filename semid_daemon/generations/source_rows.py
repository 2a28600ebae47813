"""Embeddings of items that have their ID already: kept in the finished files, or in the spool, to be encoded again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from semid_daemon.base.drop_file import DropFile
from semid_daemon.base.errors import BadFileError, StoreError
from semid_daemon.base.row_hash import row_hashes
from semid_daemon.base.types import EmbeddingBatch, FloatArray
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
    """The rows of one chunk that are their items' in some generation, with the hashes of the embeddings as they came.

    Of rows from the spool those differ from the hashes of what is in `batch`, which is rounded.
    """

    chunk: Chunk
    batch: EmbeddingBatch
    contents: list[int]


class SourceRows:
    """Reads chunks again. A file stays open for as long as its chunks are asked for one after the other."""

    def __init__(self, config: Config, store: Store, spool: Spool) -> None:
        self._config = config
        self._store = store
        self._spool = spool
        self._open: tuple[int, int, Iterator[EmbeddingBatch]] | None = None  # file, its next row, what is to come
        self._closing = contextlib.ExitStack()

    def close(self) -> None:
        """Let go of the file that is open."""
        self._open = None
        self._closing.close()

    def read(self, chunk: Chunk, generation: int) -> SourceChunk:
        """The chunk's rows that are their items' in a generation, by item once each; perhaps none.

        Raises RowsGoneError when they are not kept any more.
        """
        record = self._store.spool.record(chunk.id)
        if record is not None:
            try:
                item_ids, rows_ND = self._spool.read(record)
            except (StoreError, OSError) as error:
                raise RowsGoneError(str(error)) from error
            contents = self._store.items.hashes_of_chunk(generation, chunk.id, item_ids)
            return _kept(chunk, item_ids, rows_ND, contents, range(len(item_ids)))
        failures = []
        for file in self._files(chunk):
            try:
                batch = self._batch(file, chunk)
            except (BadFileError, FileChangedError, OSError) as error:
                self.close()
                failures.append(f"{file.path}: {error}")
                continue
            contents = self._store.items.hashes_of_chunk(generation, chunk.id, batch.item_ids)
            # The same item may come twice in a file; and the file may be another by now.
            hashes = row_hashes(batch.embeddings_ND).tolist()
            positions = [
                position
                for position, item_id in enumerate(batch.item_ids)
                if item_id in contents and hashes[position] == contents[item_id]
            ]
            found = {batch.item_ids[position]: position for position in positions}
            if len(found) == len(contents) and contents:
                return _kept(chunk, batch.item_ids, batch.embeddings_ND, contents, sorted(found.values()))
            self.close()
            if not contents and self._is_superseded(chunk, generation):
                return _kept(chunk, [], batch.embeddings_ND[:0], {}, ())
            failures.append(f"{file.path}: not the file that was encoded")
        if self._is_superseded(chunk, generation):
            return _kept(chunk, [], np.empty((0, 1), np.float32), {}, ())
        name = self._store.files.content(chunk.file_id).names[0]
        why = "; ".join(failures) if failures else f"neither in {self._config.done_dir} nor in {self._config.drop_dir}"
        raise RowsGoneError(
            f"{name}: its embeddings are not kept: {why}; put the file back into {self._config.done_dir}"
        )

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
            _, source = self._closing.enter_context(open_embeddings(file))
            self._open = chunk.file_id, chunk.first_row, source.batches(chunk.chunk_rows, chunk.first_row)
        batch = next(self._open[2], None)
        if batch is None or (batch.first_row, batch.rows_read) != (chunk.first_row, chunk.rows):
            raise BadFileError("it has other rows than before")
        self._open = chunk.file_id, chunk.first_row + chunk.rows, self._open[2]
        return batch


def _kept(
    chunk: Chunk,
    item_ids: list[str],
    rows_ND: FloatArray,
    contents: dict[str, int],
    positions: range | list[int] | tuple[()],
) -> SourceChunk:
    chosen = [position for position in positions if item_ids[position] in contents]
    names = [item_ids[position] for position in chosen]
    batch = EmbeddingBatch(chunk.first_row, len(names), names, np.ascontiguousarray(rows_ND[chosen]))
    return SourceChunk(chunk, batch, [contents[name] for name in names])
