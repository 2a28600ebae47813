"""Hashes that tell embeddings apart: equal embeddings, byte for byte, have equal hashes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from semid_daemon.base.types import FloatArray

_BLOCK_BYTES = 1 << 21  # of rows that are folded at a time
_FOLD, _UNUSED_BITS = np.uint64(31), 16  # not by 32: two floats whose signs change would hide each other
_GOLDEN, _MIX_1, _MIX_2 = (
    np.uint64(constant) for constant in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


def row_hashes(embeddings_ND: FloatArray) -> npt.NDArray[np.int64]:
    """One hash of 48 bits per row (N int64) of embeddings (N×D float32, C order), which SQLite keeps in six bytes.

    A multilinear hash modulo 2**64 (Lemire and Kaser, "Strongly universal string hashing is fast", 2014): the sum of
    the row's 64-bit words, each times an odd constant of its own, of which the upper bits are taken. Each word's upper
    half is folded into its lower half first, so that a difference in the upper bits alone counts as much.
    """
    rows, dim = embeddings_ND.shape
    words = (dim + 1) // 2
    multipliers_W = _multipliers(words)
    hashes_N = np.empty(rows, np.uint64)
    step = max(1, _BLOCK_BYTES // (8 * max(words, 1)))
    folded_NW = np.empty((min(step, rows), words), np.uint64)
    padded_NW = np.zeros(folded_NW.shape, np.uint64) if dim % 2 else None
    for start in range(0, rows, step):
        block_ND = embeddings_ND[start : start + step]
        folded = folded_NW[: len(block_ND)]
        if padded_NW is None:
            block_NW = block_ND.view(np.uint64)
        else:
            block_NW = padded_NW[: len(block_ND)]
            block_NW.view(np.float32)[:, :dim] = block_ND
        np.right_shift(block_NW, _FOLD, out=folded)
        np.bitwise_xor(folded, block_NW, out=folded)
        np.dot(folded, multipliers_W, out=hashes_N[start : start + step])
    return hashes_N.view(np.int64) >> _UNUSED_BITS


def zero_rows(embeddings_ND: FloatArray) -> npt.NDArray[np.intp]:
    """Numbers of the rows that hold nothing but zeros."""
    if not embeddings_ND.size:
        return np.empty(0, np.intp)
    candidates = np.flatnonzero(embeddings_ND[:, 0] == 0)  # one value tells of most rows that they are none
    return candidates[~embeddings_ND[candidates].any(axis=1)]


def _multipliers(count: int) -> npt.NDArray[np.uint64]:
    """Odd constants, the same for ever: the first numbers of SplitMix64 (Steele, Lea and Flood, 2014)."""
    mixed = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX_1
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX_2
    return (mixed ^ (mixed >> np.uint64(31))) | np.uint64(1)
