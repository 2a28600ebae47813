"""The rows that codebooks are trained on: all of a known number of rows, or a uniform sample that fits in memory."""

from __future__ import annotations

import numpy as np

from semid_daemon.base.types import FloatArray


class RowsChangedError(Exception):
    """The files do not hold the rows that were counted in them before."""


def max_sample_rows(dim: int, max_memory_mb: int, beam_width: int) -> int:
    """How many training rows of `dim` float32 values fit into `max_memory_mb` MiB, at least 1.

    A trainer holds the original rows and their residuals. A beam of several codes doubles both for a moment, when one
    residual of a row becomes two.
    """
    copies = 2 if beam_width == 1 else 4
    return max(1, max_memory_mb * (1 << 20) // (copies * 4 * dim))


class RowSample:
    """Draws min(`total_rows`, `max_rows`) rows of `dim` float32 values, every subset equally likely, in their order.

    The positions are drawn from `seed` beforehand, so that rows can be added in batches of any size.
    """

    def __init__(self, *, total_rows: int, max_rows: int, dim: int, seed: int) -> None:
        self._positions = np.arange(total_rows)
        if total_rows > max_rows:
            drawn = np.random.default_rng(seed).choice(total_rows, size=max_rows, replace=False)
            self._positions = np.sort(drawn)
        self._sample_ND = np.empty((self._positions.size, dim), dtype=np.float32)
        self._filled = 0
        self.rows_seen = 0

    def add(self, embeddings_ND: FloatArray) -> None:
        """Take the drawn rows out of the next batch (N×D float32). Rows beyond `total_rows` are counted only."""
        first, end = self.rows_seen, self.rows_seen + len(embeddings_ND)
        low, high = np.searchsorted(self._positions, [first, end])
        self._sample_ND[low:high] = embeddings_ND[self._positions[low:high] - first]
        self._filled, self.rows_seen = int(high), end

    def rows(self) -> FloatArray:
        """The rows drawn from all batches so far (N×D float32)."""
        return self._sample_ND[: self._filled]
