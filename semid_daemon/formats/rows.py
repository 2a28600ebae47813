"""Rows and item IDs as read -> an EmbeddingBatch without the rows at fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from semid_daemon.base.types import EmbeddingBatch, FloatArray
from semid_daemon.formats.faults import NOT_FINITE
from semid_daemon.formats.item_ids import IdBlock
from semid_daemon.formats.vectors import nonfinite_rows


def chunk_bounds(rows: int, chunk_rows: int, start_row: int) -> Iterator[tuple[int, int]]:
    """(first row, row count) of each chunk; bounds are multiples of `chunk_rows`, wherever it starts."""
    if chunk_rows < 1 or start_row < 0:
        raise ValueError(f"chunk_rows {chunk_rows} must be at least 1, start_row {start_row} at least 0")
    first = start_row
    while first < rows:
        end = min((first // chunk_rows + 1) * chunk_rows, rows)
        yield first, end - first
        first = end


def make_batch(
    first_row: int,
    values_ND: FloatArray,
    ids: IdBlock,
    vector_faults: Mapping[int, str] | None = None,
) -> EmbeddingBatch:
    """Leave out the rows at fault; each counts once: its item ID's fault comes before its vector's.

    `values_ND` is N×D float32; `vector_faults` maps row (0...N-1) to a reason.
    """
    faults = dict.fromkeys(nonfinite_rows(values_ND).tolist(), NOT_FINITE)
    faults.update(vector_faults or {})
    faults.update(ids.faults)
    rows_read = len(values_ND)
    if not faults:
        return EmbeddingBatch(first_row, rows_read, ids.texts, values_ND)
    kept = np.ones(rows_read, bool)
    kept[list(faults)] = False
    item_ids = [text for text, keep in zip(ids.texts, kept.tolist(), strict=True) if keep]
    return EmbeddingBatch(
        first_row, rows_read, item_ids, np.ascontiguousarray(values_ND[kept]), dict(Counter(faults.values()))
    )
