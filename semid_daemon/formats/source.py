"""What `open_source` returns, and the source that the array formats share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from semid_daemon.base.types import EmbeddingBatch, FloatArray
from semid_daemon.formats.faults import content_errors
from semid_daemon.formats.item_ids import IdColumn
from semid_daemon.formats.rows import chunk_bounds, make_batch
from semid_daemon.formats.vectors import FloatType

Empty = Callable[[int, int], FloatArray]


def empty_rows(rows: int, dim: int) -> FloatArray:
    """Ordinary memory."""
    return np.empty((rows, dim), np.float32)


class EmbeddingSource(Protocol):
    """An opened drop file whose declarations were checked against its size.

    `rows` is what the file declares, `dim` the length of a vector (0 only when a file without rows
    does not say), `dtype` as stored, `format` one of npy, npz, safetensors, parquet, arrow, pt.
    `vector_name` and `id_name` are the fields used; `id_name` is "sidecar" for a sidecar and None for
    IDs made from the file's path, its content and the row number. `remark` is what its producer should
    know about the item IDs, if anything.
    """

    @property
    def rows(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def dtype(self) -> str: ...
    @property
    def format(self) -> str: ...
    @property
    def vector_name(self) -> str | None: ...
    @property
    def id_name(self) -> str | None: ...
    @property
    def remark(self) -> str | None: ...

    def batches(self, chunk_rows: int, start_row: int = 0, empty: Empty = empty_rows) -> Iterator[EmbeddingBatch]:
        """Every row from `start_row` on; each batch ends at a multiple of `chunk_rows` or at the last row.

        `empty` gives the memory (N×D float32, C order) that a batch is read into.
        Raises BadFileError where the content is damaged, IncompleteFileError where the file shrank,
        OSError where the machine cannot read it.
        """

    def close(self) -> None:
        """Drop what the source holds. The streams stay the caller's to close."""


class Vectors(Protocol):
    """`rows`×`dim` numbers that can be read from any row on."""

    @property
    def rows(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def stored(self) -> FloatType: ...

    def read_into(self, first: int, out_ND: FloatArray) -> None:
        """Fill `out_ND` (N×dim float32, C order) with rows first...first+N-1."""


@dataclass(frozen=True, slots=True)
class ArraySource:
    """A source whose vectors are arrays in byte ranges.

    `verify` runs before the first row is given out: where a checksum covers more than a chunk, no row
    of a damaged file may be used.
    """

    format: str
    vectors: Vectors
    ids: IdColumn
    vector_name: str | None
    id_name: str | None
    remark: str | None = None
    verify: Callable[[], None] | None = None
    on_close: Callable[[], None] | None = None

    @property
    def rows(self) -> int:
        return self.vectors.rows

    @property
    def dim(self) -> int:
        return self.vectors.dim

    @property
    def dtype(self) -> str:
        return self.vectors.stored.name

    def batches(self, chunk_rows: int, start_row: int = 0, empty: Empty = empty_rows) -> Iterator[EmbeddingBatch]:
        if self.verify is not None:
            with content_errors(self.format):
                self.verify()
        for first, count in chunk_bounds(self.rows, chunk_rows, start_row):
            values_ND = empty(count, self.dim)
            with content_errors(self.format):
                self.vectors.read_into(first, values_ND)
                ids = self.ids.read(first, count)
            yield make_batch(first, values_ND, ids)

    def close(self) -> None:
        if self.on_close is not None:
            self.on_close()
