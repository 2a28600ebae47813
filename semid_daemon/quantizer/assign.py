"""The two halves of a Lloyd iteration (Lloyd 1982) on rows in memory: nearest centroids, and means.

Both take bounded memory beside the rows: no N×K scores, no N×K one-hot. On CUDA nothing here waits for
the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from semid_daemon.quantizer.device import has_triton
from semid_daemon.quantizer.distance import full_float32_matmul
from semid_daemon.quantizer.matmul import products
from semid_daemon.quantizer.threads import for_each_span

_TILE_BYTES = {"cpu": 8 << 20, "cuda": 1 << 28, "mps": 1 << 27}
_SUBTRACTED_BYTES = {"cpu": 1 << 20, "cuda": 1 << 28, "mps": 1 << 27}


def assign(rows_ND: Tensor, centroids_KD: Tensor, biases_K: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Label (N int64) of every row's nearest centroid, and x·c - ||c||²/2 of the two (N float32).

    The squared distance is ||x||² less twice that. `biases_K` are added to squared distances. On CUDA the
    products are float16's: near ties may go either way there, which is as good for training; codes come from
    `encoding.Encoder`.
    """
    if rows_ND.device.type == "cuda" and has_triton():
        from semid_daemon.quantizer.cuda_kernels import assign_fused

        labels_N, best_N = assign_fused(rows_ND, centroids_KD, _half_squares(centroids_KD, biases_K))
        return labels_N.long(), best_N
    labels_N = torch.empty(rows_ND.shape[0], dtype=torch.int64, device=rows_ND.device)
    best_N = torch.empty(rows_ND.shape[0], dtype=rows_ND.dtype, device=rows_ND.device)
    half_squares_K = _half_squares(centroids_KD, biases_K)
    step = min(rows_ND.shape[0], max(64, _TILE_BYTES[rows_ND.device.type] // (4 * centroids_KD.shape[0])))

    def assign_tiles(tiles: Sequence[slice]) -> None:
        scores_NK = torch.empty((step, centroids_KD.shape[0]), dtype=rows_ND.dtype, device=rows_ND.device)
        for tile in tiles:
            scores = scores_NK[: tile.stop - tile.start]
            products(rows_ND[tile], centroids_KD, scores).sub_(half_squares_K)
            labels_N[tile] = row_argmax(scores)
            best_N[tile] = scores.gather(1, labels_N[tile][:, None])[:, 0]

    with full_float32_matmul(rows_ND.device):
        for_each_span(rows_ND.device, rows_ND.shape[0], step, assign_tiles)
    return labels_N, best_N


def assign_two(rows_ND: Tensor, centroids_KD: Tensor, biases_K: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `assign`, by float32 products everywhere, and the second-best value too."""
    labels_N = torch.empty(rows_ND.shape[0], dtype=torch.int64, device=rows_ND.device)
    best_N, second_N = torch.empty((2, rows_ND.shape[0]), dtype=rows_ND.dtype, device=rows_ND.device)
    half_squares_K = _half_squares(centroids_KD, biases_K)
    step = min(rows_ND.shape[0], max(64, _TILE_BYTES[rows_ND.device.type] // (4 * centroids_KD.shape[0])))

    def assign_tiles(tiles: Sequence[slice]) -> None:
        for tile in tiles:
            scores_NK = rows_ND.new_empty((tile.stop - tile.start, centroids_KD.shape[0]))
            products(rows_ND[tile], centroids_KD, scores_NK).sub_(half_squares_K)
            labels_N[tile], best_N[tile], second_N[tile] = best_two(scores_NK)

    with full_float32_matmul(rows_ND.device):
        for_each_span(rows_ND.device, rows_ND.shape[0], step, assign_tiles)
    return labels_N, best_N, second_N


def subtract_centroids(rows_ND: Tensor, centroids_KD: Tensor, labels_N: Tensor) -> None:
    """Subtract from every row, in place, the centroid that its label (N int64) names."""
    step = max(64, _SUBTRACTED_BYTES[rows_ND.device.type] // (4 * rows_ND.shape[1]))

    def subtract_tiles(tiles: Sequence[slice]) -> None:
        for tile in tiles:
            rows_ND[tile].sub_(centroids_KD.index_select(0, labels_N[tile]))

    for_each_span(rows_ND.device, rows_ND.shape[0], step, subtract_tiles)


def best_two(scores_NK: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Index (N int64) and value of every row's greatest score, and the next value. The scores are used up."""
    codes_N = row_argmax(scores_NK)
    best_N = scores_NK.gather(1, codes_N[:, None])[:, 0]
    scores_NK.scatter_(1, codes_N[:, None], -torch.inf)
    return codes_N, best_N, scores_NK.amax(dim=1)


def _half_squares(centroids_KD: Tensor, biases_K: Tensor | None) -> Tensor:
    squares_K = centroids_KD.square().sum(dim=1)
    return (squares_K if biases_K is None else squares_K + biases_K) / 2


def row_argmax(scores_NK: Tensor) -> Tensor:
    """Index (N int64) of every row's greatest value, the first among equals."""
    if scores_NK.device.type == "cpu":
        # NumPy's argmax is vectorized along a row, which torch's is not: ten times as fast.
        return torch.from_numpy(scores_NK.numpy().argmax(axis=1))
    return scores_NK.argmax(dim=1)


def cluster_sums(rows_ND: Tensor, labels_N: Tensor, n_clusters: int) -> tuple[Tensor, Tensor]:
    """Sum of every cluster's rows (K×D) and their number (K int64), added up in row order: the same every time."""
    # Gathered in cluster order: an index_add_ of rows is twenty times slower on the CPU, and on CUDA
    # its atomic additions come in any order.
    narrow_N = labels_N.to(torch.int16) if n_clusters <= 1 << 15 else labels_N  # a radix sort of fewer bytes
    sorted_N, order_N = narrow_N.sort(stable=True)
    # torch.bincount would ask the device for the greatest label, and wait for the answer.
    clusters_K = torch.arange(n_clusters, dtype=sorted_N.dtype, device=sorted_N.device)
    starts_K = torch.searchsorted(sorted_N, clusters_K)
    counts_K = torch.diff(starts_K, append=starts_K.new_full((1,), labels_N.numel()))
    if rows_ND.device.type == "cuda" and has_triton():
        from semid_daemon.quantizer.cuda_kernels import sums_in_order

        return sums_in_order(rows_ND, order_N, starts_K, counts_K), counts_K
    return torch.nn.functional.embedding_bag(order_N, rows_ND, starts_K, mode="sum"), counts_K
