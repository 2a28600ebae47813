"""Split-and-merge moves between Lloyd iterations: they free k-means from poor local minima, and revive dead codes.

Lloyd's iterations cannot carry a centroid across the data: two in one dense place stay there, one alone in
a wide place stays alone, an empty one stays dead. A move merges the centroid that is missed least into its
nearest neighbour and puts it to use where splitting a cluster in two gains most. Both the gain and an
upper bound of the cost are exact sums of squares, so every move lowers the loss.
"""

from __future__ import annotations

import torch
from torch import Tensor

from semid_daemon.quantizer.assign import cluster_sums

_POWER_ITERATIONS = 2
_CHUNK_BYTES = 1 << 26
_MARGIN = 1.05  # a split must gain this much more than its merge costs


def split_and_merge(
    rows_ND: Tensor, labels_N: Tensor, centroids_KD: Tensor, generator: torch.Generator, max_moves: int
) -> tuple[Tensor, int]:
    """Centroids (K×D) after at most `max_moves` moves, and how many there were. A dead centroid moves first.

    `labels_N` (int64) are the rows' clusters; the centroids returned are means of the clusters that the moves
    make, so the caller goes on with an assignment.
    """
    n_clusters = centroids_KD.shape[0]
    sums_KD, counts_K = cluster_sums(rows_ND, labels_N, n_clusters)
    means_KD = torch.where(counts_K[:, None] > 0, sums_KD / counts_K.clamp_min(1)[:, None], centroids_KD)
    gains_K, halves_K2D = _splits(rows_ND, labels_N, means_KD, generator)
    costs_K, targets_K = _merges(means_KD, counts_K)
    moves = _choose_moves(gains_K.tolist(), costs_K.tolist(), targets_K.tolist(), max_moves)
    if not moves:
        return means_KD, 0
    moved_KD = means_KD.clone()
    merged, into, split = torch.tensor(moves, device=rows_ND.device).T
    weights_M1 = counts_K[merged].float()[:, None], counts_K[into].float()[:, None]
    together_MD = weights_M1[0] * means_KD[merged] + weights_M1[1] * means_KD[into]
    moved_KD[into] = together_MD / (weights_M1[0] + weights_M1[1]).clamp_min(1)
    moved_KD[merged] = means_KD[split] + halves_K2D[split, 0]
    moved_KD[split] = means_KD[split] + halves_K2D[split, 1]
    return moved_KD, len(moves)


def _splits(rows_ND: Tensor, labels_N: Tensor, means_KD: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """By how much the loss falls when a cluster is cut across its main axis (K), and the two halves' means (K×2×D).

    The axis is found by power iteration on the cluster's covariance; the halves' means are relative to its own.
    """
    n_clusters, dim = means_KD.shape
    axes_KD = torch.randn(means_KD.shape, generator=generator).to(means_KD)
    step = max(1, _CHUNK_BYTES // (4 * dim))
    chunks = [slice(start, start + step) for start in range(0, rows_ND.shape[0], step)]
    for _ in range(_POWER_ITERATIONS):
        next_KD = torch.zeros_like(means_KD)
        for chunk in chunks:
            labels = labels_N[chunk]
            offsets = rows_ND[chunk] - means_KD[labels]
            along = (offsets * axes_KD[labels]).sum(dim=1, keepdim=True)
            next_KD += cluster_sums(offsets.mul_(along), labels, n_clusters)[0]
        axes_KD = torch.nn.functional.normalize(next_KD, dim=1)
    sums_SD = means_KD.new_zeros((2 * n_clusters, dim))
    counts_S = torch.zeros(2 * n_clusters, dtype=torch.int64, device=rows_ND.device)
    for chunk in chunks:
        labels = labels_N[chunk]
        offsets = rows_ND[chunk] - means_KD[labels]
        sides = (offsets * axes_KD[labels]).sum(dim=1) > 0
        sums, counts = cluster_sums(offsets, 2 * labels + sides, 2 * n_clusters)
        sums_SD += sums
        counts_S += counts
    halves_SD = sums_SD / counts_S.clamp_min(1)[:, None]
    gains_S = counts_S * halves_SD.square().sum(dim=1)
    return gains_S.view(n_clusters, 2).sum(dim=1), halves_SD.view(n_clusters, 2, dim)


def _merges(means_KD: Tensor, counts_K: Tensor) -> tuple[Tensor, Tensor]:
    """By how much the loss rises at most when a cluster joins its best neighbour (K), and that neighbour (K).

    Merging clusters of n and m rows raises the sum of squares by nm/(n+m) times the squared distance of their
    means (Ward 1963). A dead centroid costs nothing and is its own neighbour; nobody else merges into one.
    """
    n_clusters = means_KD.shape[0]
    counts = counts_K.to(means_KD.dtype)
    squares_K = means_KD.square().sum(dim=1)
    costs_K = torch.empty(n_clusters, dtype=means_KD.dtype, device=means_KD.device)
    targets_K = torch.empty(n_clusters, dtype=torch.int64, device=means_KD.device)
    step = max(1, _CHUNK_BYTES // (4 * n_clusters))
    for start in range(0, n_clusters, step):
        chunk = slice(start, min(start + step, n_clusters))
        distances = squares_K[chunk, None] + squares_K - 2 * means_KD[chunk] @ means_KD.T
        raised = distances.clamp_min_(0) * counts[chunk, None] * counts / (counts[chunk, None] + counts).clamp_min(1)
        raised[:, counts_K == 0] = torch.inf
        own = torch.arange(chunk.start, chunk.stop, device=means_KD.device)
        raised[own - start, own] = torch.inf
        costs_K[chunk], targets_K[chunk] = raised.min(dim=1)
    dead_K = counts_K == 0
    costs_K[dead_K] = 0.0
    targets_K[dead_K] = dead_K.nonzero()[:, 0]
    return costs_K, targets_K


def _choose_moves(
    gains: list[float], costs: list[float], targets: list[int], max_moves: int
) -> list[tuple[int, int, int]]:
    """(merged, into, split) triples of distinct clusters, cheapest merges with most gainful splits, while it pays."""
    moves: list[tuple[int, int, int]] = []
    used: set[int] = set()
    by_gain = iter(sorted(range(len(gains)), key=lambda cluster: -gains[cluster]))
    for merged in sorted(range(len(costs)), key=lambda cluster: costs[cluster]):
        into = targets[merged]
        if merged in used or into in used:
            continue
        split = next((cluster for cluster in by_gain if cluster not in used and cluster not in (merged, into)), None)
        if len(moves) == max_moves or split is None or gains[split] <= _MARGIN * costs[merged]:
            break
        used |= {merged, into, split}
        moves.append((merged, into, split))
    return moves
