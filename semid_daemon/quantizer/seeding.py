"""First centroids for Lloyd's iterations: greedy k-means++, and k-means|| where there are many clusters."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from semid_daemon.quantizer.assign import assign
from semid_daemon.quantizer.distance import full_float32_matmul

# Seeding looks at so many rows per cluster, with so many candidates per draw: more of either does not lower
# the loss that Lloyd's iterations and split-and-merge moves end at.
_ROWS_PER_CLUSTER = 16
_TRIALS = 3
_SEQUENTIAL_CLUSTERS = 1024
_ROUNDS = 5
_DRAWS_PER_LOOK = 64


def seed_centroids(rows_ND: Tensor, n_clusters: int, generator: torch.Generator) -> Tensor:
    """K×D first centroids, by greedy k-means++ on a sample of the rows, or by k-means|| beyond 1,024 clusters."""
    count, wanted = rows_ND.shape[0], _ROWS_PER_CLUSTER * n_clusters
    if count > wanted:
        picked = torch.randint(count, (wanted,), generator=generator).sort().values
        rows_ND = rows_ND[picked.to(rows_ND.device)]
    if n_clusters <= _SEQUENTIAL_CLUSTERS:
        return greedy_kmeans_plus_plus(rows_ND, n_clusters, generator, _TRIALS)
    return kmeans_parallel(rows_ND, n_clusters, generator)


def kmeans_parallel(rows_ND: Tensor, n_clusters: int, generator: torch.Generator) -> Tensor:
    """K×D centroids by k-means|| (Bahmani et al. 2012): a few rounds that each draw many rows by D² sampling.

    Each of five rounds draws about K/2 candidates at once from the distances to those before; k-means++ on
    the candidates, weighted by the rows nearest to them, then leaves K.
    """
    count, device = rows_ND.shape[0], rows_ND.device
    squares_N = rows_ND.square().sum(dim=1)
    candidates_M = torch.randint(count, (1,), generator=generator).to(device)
    nearest_N = torch.full_like(squares_N, torch.inf)
    labels_N = torch.zeros(count, dtype=torch.int64, device=device)
    drawn_M = candidates_M
    for round_number in range(_ROUNDS + 1):
        offset = candidates_M.numel() - drawn_M.numel()
        new_labels_N, best_N = assign(rows_ND, rows_ND[drawn_M])
        distances_N = (squares_N - 2 * best_N).clamp_min_(0)
        nearer_N = distances_N < nearest_N
        labels_N = torch.where(nearer_N, new_labels_N + offset, labels_N)
        nearest_N = torch.where(nearer_N, distances_N, nearest_N)
        nearest_N[drawn_M] = 0.0
        total = nearest_N.sum(dtype=torch.float64)
        if round_number == _ROUNDS or not total > 0:
            break
        shares_N = nearest_N.double() * (n_clusters / 2 / total)
        drawn_M = (torch.rand(count, generator=generator, dtype=torch.float64).to(device) < shares_N).nonzero()[:, 0]
        candidates_M = torch.cat([candidates_M, drawn_M])
    if candidates_M.numel() < n_clusters:
        more = torch.randperm(count, generator=generator)[: n_clusters - candidates_M.numel()].to(device)
        return rows_ND[torch.cat([candidates_M, more])]
    weights_M = torch.bincount(labels_N, minlength=candidates_M.numel()).to(rows_ND.dtype)
    return greedy_kmeans_plus_plus(rows_ND[candidates_M], n_clusters, generator, 1, weights_M)


def greedy_kmeans_plus_plus(
    rows_ND: Tensor, n_clusters: int, generator: torch.Generator, trials: int, weights_N: Tensor | None = None
) -> Tensor:
    """K×D centroids, rows drawn by D² sampling, of `trials` candidates per draw the one that helps most.

    Arthur & Vassilvitskii 2007 ("k-means++"), section 5; scikit-learn draws 2 + log K candidates. The running
    minimum of the squared distances is kept, so the whole takes O(N K D trials). A row counts `weights_N` times
    (once by default). `generator` is on the CPU. Fewer distinct rows than clusters: the rest repeat rows, with
    a UserWarning.
    """
    count, device = rows_ND.shape[0], rows_ND.device
    distances_to = _distances_among(rows_ND)
    uniforms_KT = torch.rand((n_clusters, trials), generator=generator, dtype=torch.float64).to(device)
    anywhere_K = (uniforms_KT[:, 0] * count).long().clamp_max(count - 1)
    chosen_K = anywhere_K.clone()
    totals_K = torch.zeros(n_clusters, dtype=torch.float64, device=device)
    totals_K[0] = 1.0
    drawn_1 = torch.ones(1, dtype=torch.int64, device=device)

    def draw() -> None:
        weighted_N = nearest_N if weights_N is None else nearest_N * weights_N
        cumulative_N = weighted_N.cumsum(0, dtype=torch.float64)
        total_1 = cumulative_N[-1:]
        targets_T = torch.minimum(uniforms_KT.index_select(0, drawn_1)[0] * total_1, total_1.nextafter(zero_1))
        candidates_T = torch.searchsorted(cumulative_N, targets_T, right=True).clamp_max_(count - 1)
        nearer_NT = torch.minimum(distances_to(candidates_T), nearest_N[:, None])
        potentials_T = nearer_NT.sum(dim=0) if weights_N is None else weights_N @ nearer_NT
        best_1 = potentials_T.argmin(dim=0, keepdim=True)
        nearest_N.copy_(nearer_NT.index_select(1, best_1)[:, 0])
        totals_K.index_copy_(0, drawn_1, total_1)
        chosen_K.index_copy_(0, drawn_1, candidates_T.index_select(0, best_1))
        drawn_1.add_(1)

    with full_float32_matmul(device), torch.no_grad():
        zero_1 = totals_K.new_zeros(1)
        nearest_N = distances_to(chosen_K[:1])[:, 0].contiguous()
        draw_again = draw
        for drawn in range(1, n_clusters):
            # Looked at seldom, so that a GPU need not wait for every draw to be read.
            if drawn % _DRAWS_PER_LOOK == 0 and totals_K[drawn - 1] <= 0.0:
                break
            draw_again()
            if drawn == 1:
                draw_again = _replayed(draw, device)
    distinct = int((totals_K > 0.0).sum())
    if distinct < n_clusters:
        warnings.warn(
            f"only {distinct} distinct rows for {n_clusters} centroids: the others repeat rows and stay dead",
            stacklevel=3,
        )
    return rows_ND[torch.where(totals_K > 0.0, chosen_K, anywhere_K)]


def _distances_among(rows_ND: Tensor) -> Callable[[Tensor], Tensor]:
    """A function of T row numbers that returns the squared distances (N×T) of all rows to those; 0 for copies."""
    centred_ND = rows_ND - rows_ND.mean(dim=0)
    squares_N = centred_ND.square().sum(dim=1)
    noise_N = 8 * torch.finfo(rows_ND.dtype).eps * squares_N

    def distances_to(candidates_T: Tensor) -> Tensor:
        # A tall matrix times a thin one, which is what BLAS is fast at.
        products_NT = centred_ND @ centred_ND[candidates_T].T
        distances_NT = squares_N[:, None] + squares_N[candidates_T] - 2 * products_NT
        # What rounding leaves between a row and its copies must not be drawn as if it were distance.
        return torch.where(distances_NT <= noise_N[:, None] + noise_N[candidates_T], 0.0, distances_NT)

    return distances_to


def _replayed(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """A function that repeats `step`, which ran once and works in place: on CUDA as one graph of its kernels.

    The kernels are so small that launching each takes longer than running it. Other threads may use the device
    meanwhile, but for its random numbers.
    """
    if device.type != "cuda":
        return step
    with torch.cuda.device(device):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            step()

    def again() -> None:
        with torch.cuda.device(device):
            graph.replay()

    return again
