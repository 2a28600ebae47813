"""Incremental training: codebooks that go on learning from every chunk of rows, by mini-batch k-means.

A chunk pulls every centroid towards the mean of its rows there by their share of all the rows that the
centroid stands for (Sculley 2010, with true counts); what was learned before is forgotten at a steady rate,
so that the pull does not fade away as a catalogue grows. A step is a function of the state, the rows and
nothing else: a state that is loaded again goes on as if it had never been put down, on the CPU bit for bit.

`LloydTrainer.refine` makes the same step without weights and forgetting. The two stay apart because their operations
round differently, and each must give the same bits as before.

Shape suffixes: N rows, D dim, K codes, L layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from semid_daemon.base.types import Codebooks, CountArray, FloatArray
from semid_daemon.quantizer.assign import assign, cluster_sums, subtract_centroids
from semid_daemon.quantizer.magnitude import Frame, normalize

_DEAD_SHARE = 0.01  # of an even share of the rows: a code that stands for less is put to use elsewhere
_LEARNED_VALUES = 4096 * 384  # of the rows of a chunk that are learned from, unless those are fewer than:
_FEWEST_LEARNED, _LEARNED_PER_CODE = 2048, 8
_MOST_REVIVED = 1 / 32  # of the codes, per layer and chunk


@dataclass(frozen=True, slots=True)
class CandidateState:
    """Codebooks being trained: `centroids_LKD` float32, and the rows each stands for (`counts_LK` float64).

    `steps` counts the chunks that were learned from, `rows` their rows.
    """

    centroids_LKD: FloatArray
    counts_LK: CountArray
    steps: int = 0
    rows: int = 0


@dataclass(frozen=True, slots=True)
class CandidateStep:
    """What one chunk made of a candidate. `losses` and `revived` have a value per layer.

    A layer's loss is the mean squared distance of its inputs to their centroids as they were before the step, with the
    biases of balanced codebooks.
    """

    state: CandidateState
    losses: list[float]
    revived: list[int]


class ContinualTrainer:
    """Learns from chunks: `learn(state, rows)` gives the next state, and leaves the one given as it is."""

    def __init__(
        self, codebooks: Codebooks, *, trained_rows: int, forgetting: float, seed: int, device: torch.device
    ) -> None:
        """For candidates that started from `codebooks`, which were trained on `trained_rows` rows.

        `forgetting` (0 to less than 1) is the share of what was learned that is forgotten while as many rows come
        once more.
        """
        self._normalize = codebooks.normalize_residuals
        self._biases_L: list[Tensor | None] = [None] * codebooks.layers
        if codebooks.biases_LK is not None:
            self._biases_L = [torch.from_numpy(biases_K).to(device) for biases_K in codebooks.biases_LK]
        self._kept_per_row = (1.0 - forgetting) ** (1.0 / trained_rows)
        self._seed = seed
        self._device = device

    def learn(self, state: CandidateState, embeddings_ND: FloatArray) -> CandidateStep:
        """One step on the rows (N×D float32, finite), of which there must be one at least.

        Of very many rows an even share is learned from, and counted for all: learning takes less time than encoding.
        """
        rows = embeddings_ND.shape[0]
        clusters, dim = state.centroids_LKD.shape[1:]
        most = max(_LEARNED_VALUES // dim, _FEWEST_LEARNED, _LEARNED_PER_CODE * clusters)
        sample_ND = embeddings_ND[:: -(-rows // most)]
        weight = rows / sample_ND.shape[0]  # of the rows that each of these stands for
        residual_ND = torch.from_numpy(np.array(sample_ND)).to(self._device)
        kept = self._kept_per_row**rows
        layers, all_counts, losses, revived = [], [], [], []
        frame: Frame | None = None
        for layer, (before_KD, counts_K) in enumerate(zip(state.centroids_LKD, state.counts_LK, strict=True)):
            if self._normalize:
                residual_ND, _ = normalize(residual_ND)
            outside_KD = torch.from_numpy(before_KD).to(self._device)
            if frame is None:
                frame = Frame.of(residual_ND, self._normalize, outside_KD)
                frame.enter(residual_ND)
            square, biases_K = frame.square(layer), self._biases_L[layer]
            centroids_KD = inside_KD = frame.centroids_inside(outside_KD, layer)
            labels_N, best_N = assign(residual_ND, centroids_KD, None if biases_K is None else biases_K / square)
            squares_N = torch.linalg.vector_norm(residual_ND, dim=1).square_()
            errors_N = squares_N.sub_(best_N, alpha=2)  # with the bias of its code, where there are biases
            losses.append(max(0.0, float(errors_N.mean(dtype=torch.float64)) * square))
            sums_KD, came_K = cluster_sums(residual_ND, labels_N, centroids_KD.shape[0])
            weighted_K = came_K * weight
            counts64_K = torch.from_numpy(counts_K * kept).to(self._device) + weighted_K
            share_K = (weighted_K / counts64_K.clamp_min(1e-12)).float()
            means_KD = sums_KD / came_K.clamp_min(1)[:, None]
            centroids_KD = torch.lerp(centroids_KD, means_KD, share_K[:, None])
            chosen_KD = centroids_KD.clone()
            revived.append(self._revive(centroids_KD, counts64_K, residual_ND, errors_N, state.steps, layer))
            if layer + 1 < len(state.centroids_LKD):
                subtract_centroids(residual_ND, chosen_KD, labels_N)
            # Those that did not move keep their bits, whatever the frame.
            moved_K1 = (centroids_KD != inside_KD).any(dim=1, keepdim=True)
            centroids_KD = torch.where(moved_K1, frame.centroids_outside(centroids_KD, layer), outside_KD)
            layers.append(centroids_KD.cpu().numpy())
            all_counts.append(counts64_K.cpu().numpy())
        following = CandidateState(np.stack(layers), np.stack(all_counts), state.steps + 1, state.rows + rows)
        return CandidateStep(following, losses, revived)

    def _revive(
        self, centroids_KD: Tensor, counts_K: Tensor, rows_ND: Tensor, errors_N: Tensor, step: int, layer: int
    ) -> int:
        """Put dead codes, in place, where rows are badly served; how many.

        They take rows drawn by their squared error, as k-means++ draws seeds (Arthur & Vassilvitskii 2007),
        and stand for that row alone.
        """
        n_clusters = counts_K.numel()
        threshold = _DEAD_SHARE * float(counts_K.sum()) / n_clusters
        dead_C = (counts_K < threshold).nonzero()[:, 0][: max(1, int(_MOST_REVIVED * n_clusters))]
        if not dead_C.numel():
            return 0
        weights = errors_N.double().clamp_min(0).cpu().numpy()
        dead_C = dead_C[: int(np.count_nonzero(weights))]
        if not dead_C.numel():
            return 0
        random = np.random.default_rng([self._seed, step, layer])
        drawn = random.choice(weights.size, size=dead_C.numel(), replace=False, p=weights / weights.sum())
        centroids_KD[dead_C] = rows_ND[torch.from_numpy(drawn).to(rows_ND.device)]
        counts_K[dead_C] = 1.0
        return int(dead_C.numel())
