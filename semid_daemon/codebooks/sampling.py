"""The rows that codebooks are trained on: all of those gathered, or a sample that fits in memory."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from semid_daemon.base.types import EmbeddingBatch, FloatArray


class RowsChangedError(Exception):
    """The files do not hold the rows that were counted in them before."""


def max_sample_rows(dim: int, max_memory_mb: int, beam_width: int) -> int:
    """How many training rows fit: a trainer holds them as they came and as residuals, those twice for a beam.

    Where one residual of a row becomes two, there are both for a moment.
    """
    copies = 2 if beam_width == 1 else 4
    return max(1, max_memory_mb * (1 << 20) // (copies * 4 * dim))


def sample_rows(
    batches: Iterable[EmbeddingBatch], *, total_rows: int, max_rows: int, dim: int, seed: int
) -> FloatArray:
    """min(total_rows, max_rows) rows (×dim float32), every subset equally likely, in their order.

    `batches` must hold `total_rows` usable rows in all. Raises RowsChangedError when they hold another number.
    """
    wanted = np.arange(total_rows)
    if total_rows > max_rows:
        wanted = np.sort(np.random.default_rng(seed).choice(total_rows, size=max_rows, replace=False))
    sample_ND = np.empty((wanted.size, dim), dtype=np.float32)
    seen = 0
    for batch in batches:
        rows = len(batch.item_ids)
        if seen + rows > total_rows:
            break
        low, high = np.searchsorted(wanted, [seen, seen + rows])
        sample_ND[low:high] = batch.embeddings_ND[wanted[low:high] - seen]
        seen += rows
    else:
        if seen == total_rows:
            return sample_ND
    raise RowsChangedError(f"{total_rows} rows were counted before, but not now")
