"""Timing in alternating rounds, and what codes are worth.

Shape suffixes: N rows, D dim, K codes, L layers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from semid_daemon.base.types import CodeArray, Codebooks, FloatArray
from semid_daemon.store.write.health import layer_health

_CHUNK_ROWS = 8192


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """How long one call takes: by the clock, or on CUDA by the device's events."""
    if device.type != "cuda":
        started = time.perf_counter()
        run()
        return time.perf_counter() - started
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3


def alternate(runs: Sequence[Callable[[], object]], rounds: int, device: torch.device) -> np.ndarray:
    """Seconds of every run in every round (rounds × runs), taken A B C A B C… so that all share the bad moments.

    On the CPU each is run twice and the second time counts: in the first, threads of the library before may still spin.
    """

    def timed(run: Callable[[], object]) -> float:
        if device.type == "cpu":
            run()
        return seconds(run, device)

    return np.array([[timed(run) for run in runs] for _ in range(rounds)])


@dataclass(frozen=True)
class Quality:
    """What codes of some rows are worth; the words are those of docs/design.md."""

    error: float
    unique_rate: float
    singleton_rate: float
    max_bucket: int
    perplexities: list[float]

    def cells(self) -> list[str]:
        """The values as table cells, for the columns `Quality.COLUMNS`."""
        return [
            f"{self.error:.4f}",
            f"{self.unique_rate:.4f}",
            f"{self.singleton_rate:.4f}",
            str(self.max_bucket),
            " / ".join(f"{value:.0f}" for value in self.perplexities),
        ]


QUALITY_COLUMNS = ["error", "unique", "singleton", "max bucket", "perplexities"]


def judge(rows_ND: FloatArray, codes_NL: CodeArray, codebooks: Codebooks) -> Quality:
    """The quality of the codes (N×L) that some encoder gave the rows with these codebooks."""
    buckets = np.unique(codes_NL, axis=0, return_counts=True)[1]
    usage_LK = np.stack([np.bincount(codes_N, minlength=codebooks.codebook_size) for codes_N in codes_NL.T])
    return Quality(
        error=reconstruction_error(rows_ND, codes_NL, codebooks),
        unique_rate=len(buckets) / len(codes_NL),
        singleton_rate=float((buckets == 1).sum()) / len(codes_NL),
        max_bucket=int(buckets.max()),
        perplexities=[health.perplexity for health in layer_health(usage_LK)],
    )


def reconstruction_error(rows_ND: FloatArray, codes_NL: CodeArray, codebooks: Codebooks) -> float:
    """Mean squared distance between a row and its reconstruction, over the rows' mean squared norm.

    Without normalization the reconstruction is sum_l c_l. With it, let n_0 = x / ||x||, and
    rho_{l+1} = ||n_l - c_l||, n_{l+1} = (n_l - c_l) / rho_{l+1}. Then x is reconstructed as

        ||x|| * sum_l (rho_1 * … * rho_l) c_l,

    which leaves ||x|| * rho_1 * … * rho_L of it. The norms are those of the row itself and no part of its
    codes, so errors with normalization compare among each other and not with errors without.
    """
    left, total = 0.0, 0.0
    for start in range(0, len(rows_ND), _CHUNK_ROWS):
        residual_ND = rows_ND[start : start + _CHUNK_ROWS].astype(np.float64)
        scale_N1 = np.ones((len(residual_ND), 1))
        total += float(np.square(residual_ND).sum())
        for layer, centroids_KD in enumerate(codebooks.centroids_LKD):
            if codebooks.normalize_residuals:
                norms_N1 = np.linalg.norm(residual_ND, axis=1, keepdims=True)
                residual_ND = residual_ND / np.maximum(norms_N1, np.finfo(np.float64).tiny)
                scale_N1 = scale_N1 * norms_N1
            residual_ND = residual_ND - centroids_KD[codes_NL[start : start + _CHUNK_ROWS, layer]]
        left += float(np.square(scale_N1 * residual_ND).sum())
    return left / total
