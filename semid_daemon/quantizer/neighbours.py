"""Neighbour recall: how many of an item's true nearest neighbours share the beginning of its semantic ID.

A quality score that needs no recommender. Shape suffixes: Q queries, N rows, D dim, L layers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from semid_daemon.base.types import CodeArray, FloatArray
from semid_daemon.quantizer.distance import full_float32_matmul
from semid_daemon.quantizer.magnitude import normalize

NEIGHBOURS = 10
_QUERIES_AT_ONCE = 64


def neighbours(
    embeddings_ND: FloatArray, queries: int, device: torch.device, count: int = NEIGHBOURS
) -> Iterator[np.ndarray[tuple[int, int], np.dtype[np.int64]]]:
    """The `count` nearest other rows by cosine of each of the first `queries` rows, by exact search, some at a time.

    Each array is (query, neighbours) of row numbers; the arrays follow each other. Raises ValueError when there are
    not so many other rows.
    """
    if embeddings_ND.shape[0] <= count:
        raise ValueError(f"{embeddings_ND.shape[0]} rows for {count} neighbours")
    with torch.inference_mode(), full_float32_matmul(device):
        rows_ND, _ = normalize(torch.from_numpy(np.ascontiguousarray(embeddings_ND)).to(device))
        for start in range(0, min(queries, rows_ND.shape[0]), _QUERIES_AT_ONCE):
            stop = min(start + _QUERIES_AT_ONCE, queries, rows_ND.shape[0])
            similar_QN = rows_ND[start:stop] @ rows_ND.T
            similar_QN[torch.arange(stop - start), torch.arange(start, stop)] = -torch.inf
            yield similar_QN.topk(count, dim=1).indices.cpu().numpy()


def shared_prefixes(
    codes_NL: CodeArray, first_query: int, nearest_QC: np.ndarray[tuple[int, int], np.dtype[np.int64]]
) -> list[float]:
    """Per depth 1…L the share of neighbours whose codes begin like their query's; those are Q rows in a row."""
    queries = slice(first_query, first_query + len(nearest_QC))
    same_QCL = codes_NL[nearest_QC] == codes_NL[queries, None, :]
    return [float(value) for value in np.logical_and.accumulate(same_QCL, axis=2).mean(axis=(0, 1))]
