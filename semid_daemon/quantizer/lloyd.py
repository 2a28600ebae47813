"""The default trainer: greedy k-means++ and full Lloyd iterations, layer by layer, on gathered rows."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from semid_daemon.records import Codebooks, FloatArray, TrainingStep

_SCORE_BYTES = {"cpu": 1 << 22, "cuda": 1 << 29, "mps": 1 << 27}
_SEEDING_ROWS = 65_536


class LloydTrainer:
    """Residual k-means by Lloyd's algorithm (Lloyd 1982), seeded by greedy k-means++ (Arthur & Vassilvitskii 2007).

    Iterate `train(...)`, one TrainingStep per iteration; afterwards `codebooks` holds the result.
    Everything random comes from `seed`, another stream for every layer.
    """

    def __init__(
        self,
        *,
        n_layers: int,
        n_clusters: int,
        normalize_residuals: bool,
        seed: int,
        device: torch.device,
        iterations: int,
        tolerance: float,
    ) -> None:
        self._n_layers = n_layers
        self._n_clusters = n_clusters
        self._normalize = normalize_residuals
        self._seed = seed
        self._device = device
        self._iterations = iterations
        self._tolerance = tolerance
        self._codebooks: Codebooks | None = None

    @property
    def codebooks(self) -> Codebooks:
        """The trained codebooks. Raises RuntimeError before `train` has been run to its end."""
        if self._codebooks is None:
            raise RuntimeError("train() has not finished")
        return self._codebooks

    def train(self, embeddings_ND: FloatArray) -> Iterator[TrainingStep]:
        """Train on embeddings (N×D float32, finite); the loss is the mean squared distance to the centroid.

        Raises ValueError when there are fewer rows than clusters.
        """
        if embeddings_ND.shape[0] < self._n_clusters:
            raise ValueError(f"{embeddings_ND.shape[0]} rows for {self._n_clusters} clusters")
        residual_ND = torch.from_numpy(np.ascontiguousarray(embeddings_ND)).to(self._device, copy=True)
        layers = []
        steps = 0
        for layer in range(self._n_layers):
            if self._normalize:
                residual_ND = torch.nn.functional.normalize(residual_ND, dim=1)
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + layer)
            centroids_KD = seed_centroids(residual_ND, self._n_clusters, generator)
            previous = math.inf
            for iteration in range(1, self._iterations + 1):
                labels_N, distances_N = assign(residual_ND, centroids_KD)
                loss = float(distances_N.double().mean())
                centroids_KD = mean_centroids(residual_ND, labels_N, distances_N, centroids_KD)
                steps += 1
                yield TrainingStep(step=steps, layer=layer, layer_step=iteration, loss=loss)
                if previous - loss <= self._tolerance * loss:
                    break
                previous = loss
            labels_N, _ = assign(residual_ND, centroids_KD)
            for rows in _row_chunks(residual_ND, centroids_KD.shape[1]):
                residual_ND[rows] -= centroids_KD[labels_N[rows]]
            layers.append(centroids_KD.cpu().numpy())
        self._codebooks = Codebooks(np.stack(layers), self._normalize)


def seed_centroids(rows_ND: Tensor, n_clusters: int, generator: torch.Generator) -> Tensor:
    """K×D centroids drawn from the rows by greedy k-means++: of several D²-sampled candidates per draw
    the one that lowers the potential most (scikit-learn's `_kmeans_plusplus`; 2 + log K trials).

    The draws are made on the CPU, from `generator`. Fewer distinct rows than clusters: the rest are
    repeated rows, with a warning.
    """
    count = rows_ND.shape[0]
    if count > _SEEDING_ROWS:
        picked = torch.randperm(count, generator=generator)[:_SEEDING_ROWS].sort().values
        rows_ND = rows_ND[picked.to(rows_ND.device)]
        count = _SEEDING_ROWS
    norms_N = rows_ND.square().sum(dim=1)
    trials = 2 + int(math.log(n_clusters))
    first = int(torch.randint(count, (1,), generator=generator))
    chosen = [first]
    closest_N = _to_rows(rows_ND, norms_N, torch.tensor([first], device=rows_ND.device))[0]
    for drawn in range(1, n_clusters):
        cumulative_N = closest_N.double().cumsum(0)
        total = float(cumulative_N[-1])
        if total <= 0.0:
            warnings.warn(
                f"only {drawn} distinct rows for {n_clusters} centroids: the rest repeat rows and stay dead codes",
                stacklevel=2,
            )
            chosen += torch.randint(count, (n_clusters - drawn,), generator=generator).tolist()
            break
        targets_T = torch.rand(trials, generator=generator, dtype=torch.float64).to(rows_ND.device) * total
        candidates_T = torch.searchsorted(cumulative_N, targets_T).clamp_max(count - 1)
        closer_TN = torch.minimum(_to_rows(rows_ND, norms_N, candidates_T), closest_N)
        best = int(closer_TN.sum(dim=1).argmin())
        closest_N = closer_TN[best]
        chosen.append(int(candidates_T[best]))
    return rows_ND[torch.tensor(chosen, device=rows_ND.device)].clone()


def _to_rows(rows_ND: Tensor, norms_N: Tensor, candidates_T: Tensor) -> Tensor:
    """Squared distances (T×N) of some of the rows to all rows, exactly 0 to themselves."""
    # rows @ candidates, not the other way round: BLAS is fast at a tall matrix times a thin one.
    distances_TN = norms_N[candidates_T][:, None] + norms_N - 2.0 * (rows_ND @ rows_ND[candidates_T].T).T
    # What rounding leaves between a row and its duplicates must not be drawn as if it were distance.
    return torch.where(distances_TN < 1e-6 * norms_N.clamp_min(1e-30), 0.0, distances_TN)


def assign(rows_ND: Tensor, centroids_KD: Tensor) -> tuple[Tensor, Tensor]:
    """Label (N int64) and squared distance (N float32) of every row's nearest centroid, in bounded memory."""
    norms_K = centroids_KD.square().sum(dim=1)
    labels_N = torch.empty(rows_ND.shape[0], dtype=torch.int64, device=rows_ND.device)
    distances_N = torch.empty(rows_ND.shape[0], device=rows_ND.device)
    for rows in _row_chunks(rows_ND, centroids_KD.shape[0]):
        scores_NK = torch.addmm(norms_K, rows_ND[rows], centroids_KD.T, alpha=-2.0)
        best_N, labels_N[rows] = scores_NK.min(dim=1)
        distances_N[rows] = (best_N + rows_ND[rows].square().sum(dim=1)).clamp_min(0.0)
    return labels_N, distances_N


def mean_centroids(rows_ND: Tensor, labels_N: Tensor, distances_N: Tensor, centroids_KD: Tensor) -> Tensor:
    """The mean of every cluster's rows (K×D); an empty cluster is re-seeded at the row farthest from its centroid."""
    n_clusters = centroids_KD.shape[0]
    counts_K = torch.bincount(labels_N, minlength=n_clusters)
    means_KD = _cluster_sums(rows_ND, labels_N, counts_K) / counts_K.clamp_min(1)[:, None]
    empty = torch.nonzero(counts_K == 0).flatten()
    if empty.numel():
        farthest = distances_N.topk(min(empty.numel(), distances_N.numel())).indices
        means_KD[empty[: farthest.numel()]] = rows_ND[farthest]
    return means_KD


def _cluster_sums(rows_ND: Tensor, labels_N: Tensor, counts_K: Tensor) -> Tensor:
    """Sum of every cluster's rows (K×D), without an N×K one-hot: rows are gathered in cluster order."""
    starts_K = counts_K.cumsum(0) - counts_K
    return torch.nn.functional.embedding_bag(labels_N.argsort(stable=True), rows_ND, starts_K, mode="sum")


def _row_chunks(rows_ND: Tensor, width: int) -> Iterator[slice]:
    """Slices of rows whose N×width float32 scores stay within a device's bound."""
    step = max(1, _SCORE_BYTES[rows_ND.device.type] // (4 * width))
    return (slice(start, start + step) for start in range(0, rows_ND.shape[0], step))
