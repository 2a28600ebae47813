"""The default trainer: layer by layer, Lloyd's iterations with split-and-merge moves, on rows in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from semid_daemon.quantizer.clustering import assign, cluster_sums
from semid_daemon.quantizer.seeding import seed_centroids
from semid_daemon.quantizer.splitting import split_and_merge
from semid_daemon.records import Codebooks, FloatArray, TrainingStep

_LLOYD_PER_ROUND = 4
_MAX_ROUNDS = 12
_CHUNK_BYTES = 1 << 26


class LloydTrainer:
    """Residual k-means by Lloyd's algorithm (Lloyd 1982) from k-means++ seeds, with split-and-merge moves.

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
        """At most `iterations` per layer, which is done when its loss falls by less than the share `tolerance`."""
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
                _for_chunks(residual_ND, lambda chunk_ND: torch.nn.functional.normalize(chunk_ND, dim=1))
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + layer)
            run = _LayerRun(residual_ND, self._n_clusters, generator, self._iterations, self._tolerance)
            for layer_step, loss in enumerate(run.losses(), start=1):
                steps += 1
                yield TrainingStep(step=steps, layer=layer, layer_step=layer_step, loss=loss)
            layers.append(run.centroids_KD.cpu().numpy())
            run.subtract()
        self._codebooks = Codebooks(np.stack(layers), self._normalize)


class _LayerRun:
    """One layer's k-means. `losses()` runs it; afterwards `centroids_KD` are the means of their clusters."""

    def __init__(
        self, rows_ND: Tensor, n_clusters: int, generator: torch.Generator, iterations: int, tolerance: float
    ) -> None:
        self._rows_ND = rows_ND
        self._generator = generator
        self._iterations = iterations
        self._tolerance = tolerance
        self._mean_square = _mean_square(rows_ND)
        self.centroids_KD = seed_centroids(rows_ND, n_clusters, generator)

    def losses(self) -> Iterator[float]:
        """The loss of every iteration: Lloyd's, with a round of moves after every few of them while moves pay."""
        n_clusters = self.centroids_KD.shape[0]
        previous, since_moves, rounds = math.inf, 0, 0
        moves_pay = True
        for _ in range(self._iterations):
            labels_N, best_N = assign(self._rows_ND, self.centroids_KD)
            read_loss = _read_later(self._mean_square - 2.0 * best_N.mean(dtype=torch.float64))
            if moves_pay and since_moves >= _LLOYD_PER_ROUND:
                self.centroids_KD, moves = split_and_merge(
                    self._rows_ND, labels_N, self.centroids_KD, self._generator, max(1, n_clusters // 8)
                )
                rounds += 1
                moves_pay = moves > 0 and rounds < _MAX_ROUNDS
                since_moves = 0
            else:
                sums_KD, counts_K = cluster_sums(self._rows_ND, labels_N, n_clusters)
                alive_K1 = counts_K[:, None] > 0
                self.centroids_KD = torch.where(alive_K1, sums_KD / counts_K.clamp_min(1)[:, None], self.centroids_KD)
                since_moves += 1
            loss = max(0.0, read_loss())
            yield loss
            if previous - loss <= self._tolerance * loss:
                if not moves_pay:
                    return
                since_moves = _LLOYD_PER_ROUND  # nothing more to be had without a move
            previous = loss

    def subtract(self) -> None:
        """Turn the rows into what this layer leaves over, in place."""
        labels_N, _ = assign(self._rows_ND, self.centroids_KD)
        step = max(1, _CHUNK_BYTES // (4 * self._rows_ND.shape[1]))
        for start in range(0, self._rows_ND.shape[0], step):
            chunk = slice(start, start + step)
            self._rows_ND[chunk] -= self.centroids_KD[labels_N[chunk]]


def _for_chunks(rows_ND: Tensor, change: Callable[[Tensor], Tensor]) -> None:
    """Replace rows by `change` of them, chunk by chunk, so that no second copy of all of them is made."""
    step = max(1, _CHUNK_BYTES // (4 * rows_ND.shape[1]))
    for start in range(0, rows_ND.shape[0], step):
        rows_ND[start : start + step] = change(rows_ND[start : start + step])


def _mean_square(rows_ND: Tensor) -> Tensor:
    """The mean squared norm of the rows, a float64 scalar on their device."""
    step = max(1, _CHUNK_BYTES // (4 * rows_ND.shape[1]))
    total = torch.zeros((), dtype=torch.float64, device=rows_ND.device)
    for start in range(0, rows_ND.shape[0], step):
        total += rows_ND[start : start + step].square().sum(dtype=torch.float64)
    return total / rows_ND.shape[0]


def _read_later(value: Tensor) -> Callable[[], float]:
    """Start copying a scalar off its device; the function waits for that copy only, not for later work."""
    if value.device.type != "cuda":
        return value.item
    copy = torch.empty((), dtype=value.dtype, pin_memory=True)
    copy.copy_(value, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()

    def read() -> float:
        copied.synchronize()
        return float(copy)

    return read
