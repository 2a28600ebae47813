"""Distances between rows and centroids, by matrix product and in bounded memory.

Shape suffixes: N rows, D dim, K centroids.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from semid_daemon.quantizer.reference import encode_exact

# The most elements of an N×K block that `nearest` holds at once: 16 MiB of float32.
MAX_BLOCK_ELEMENTS = 2**22

_lock = threading.Lock()
_depth = 0  # of callers inside `full_float32_matmul`
_outside = ("", "")


class DistanceFunction(nn.Module, ABC):
    """How far rows are from centroids; smaller is nearer."""

    @abstractmethod
    def compute(self, x_ND: Tensor, y_KD: Tensor) -> Tensor:
        """Distances N×K, not negative, in the dtype of the arguments."""

    def forward(self, x_ND: Tensor, y_KD: Tensor) -> Tensor:
        return self.compute(x_ND, y_KD)

    def nearest(self, x_ND: Tensor, centroids_KD: Tensor) -> Tensor:
        """Index of the nearest centroid of every row, N int64; the lowest index among equals."""
        return torch.cat(
            [self._nearest_block(rows_ND, centroids_KD) for rows_ND in _row_blocks(x_ND, len(centroids_KD))]
        )

    def _nearest_block(self, x_ND: Tensor, centroids_KD: Tensor) -> Tensor:
        return self.compute(x_ND, centroids_KD).argmin(dim=1)


class SquaredEuclideanDistance(DistanceFunction):
    """‖x - y‖² as ‖x‖² - 2 x·y + ‖y‖², never below zero; nothing of size N×K×D is made."""

    def compute(self, x_ND: Tensor, y_KD: Tensor, batch_size: int | None = None) -> Tensor:
        """Squared distances N×K, at most `batch_size` rows at a time (all of them if None).

        Raises ValueError where the two do not have the same D.
        """
        _check_same_dim(x_ND, y_KD)
        if batch_size is not None and batch_size < len(x_ND):
            return torch.cat([self.compute(rows_ND, y_KD) for rows_ND in torch.split(x_ND, batch_size)])
        x_squared_N1 = x_ND.square().sum(dim=1, keepdim=True)
        return (_scores(x_ND, y_KD) + x_squared_N1).clamp_(min=0)

    def _nearest_block(self, x_ND: Tensor, centroids_KD: Tensor) -> Tensor:
        # ‖x‖² is the same for every centroid of a row, so the order does not need it. Rows whose two best
        # are within the rounding of the product are decided as GRID decides them on the CPU, by float32 sums
        # of squared differences; on other devices in float64, so that no way of adding up decides them.
        _check_same_dim(x_ND, centroids_KD)
        scores_NK = _scores(x_ND, centroids_KD)
        if scores_NK.shape[1] == 1:
            return scores_NK.argmin(dim=1)
        best_N2, codes_N2 = scores_NK.topk(2, dim=1, largest=False)
        reach = centroids_KD.norm(dim=1).max()
        rounding = torch.finfo(scores_NK.dtype).eps * max(4.0, x_ND.shape[1] ** 0.5)
        bound_N = 4 * rounding * reach * (x_ND.norm(dim=1) + reach)
        sure_N = best_N2[:, 1] - best_N2[:, 0] > bound_N  # never of NaN, which squares beyond float32 end in
        doubtful = sure_N.logical_not().nonzero()[:, 0]
        codes_N = codes_N2[:, 0]
        if doubtful.numel() and scores_NK.dtype == torch.float32 and x_ND.device.type == "cpu":
            codes_N[doubtful] = _nearest_by_differences(x_ND[doubtful], centroids_KD)
        elif doubtful.numel() and scores_NK.dtype != torch.float64:
            exact_N1 = encode_exact(x_ND[doubtful].double(), centroids_KD[None].double(), normalize_residuals=False)
            codes_N[doubtful] = exact_N1[:, 0].long()
        return codes_N


@contextmanager
def full_float32_matmul(device: torch.device) -> Iterator[None]:
    """Matrix products in full precision of their dtype: no TF32, no bfloat16, no autocast.

    TF32 keeps 10 bits of a mantissa, too few to tell near centroids apart. torch's precision switches belong to
    the process, not to the thread: they are as they were once the last of several threads has left.
    """
    with _ieee_switches(), torch.autocast(device.type, enabled=False):
        yield


@contextmanager
def _ieee_switches() -> Iterator[None]:
    global _depth, _outside
    cuda, cpu = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    with _lock:
        if _depth == 0:
            _outside = cuda.fp32_precision, cpu.fp32_precision
            cuda.fp32_precision = cpu.fp32_precision = "ieee"
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                cuda.fp32_precision, cpu.fp32_precision = _outside


def precise(device: torch.device) -> torch.dtype:
    """The dtype to add up many float32 values in, so that every device rounds to the same sum."""
    return torch.float32 if device.type == "mps" else torch.float64


def _scores(x_ND: Tensor, y_KD: Tensor) -> Tensor:
    """‖y‖² - 2 x·y, N×K: the squared distances less ‖x‖² of each row."""
    with full_float32_matmul(x_ND.device):
        return torch.addmm(y_KD.square().sum(dim=1), x_ND, y_KD.T, alpha=-2)


def _nearest_by_differences(x_ND: Tensor, centroids_KD: Tensor) -> Tensor:
    """Index of the least Σ(x - y)² of every row, N int64: GRID's formula, to the bit."""
    return torch.cat(
        [
            (rows_ND[:, None] - centroids_KD).pow(2).sum(dim=2).argmin(dim=1)
            for rows_ND in _row_blocks(x_ND, centroids_KD.numel())
        ]
    )


def _row_blocks(x_ND: Tensor, columns: int) -> tuple[Tensor, ...]:
    return torch.split(x_ND, max(1, MAX_BLOCK_ELEMENTS // max(1, columns)))


def _check_same_dim(x_ND: Tensor, y_KD: Tensor) -> None:
    if x_ND.ndim != 2 or y_KD.ndim != 2 or x_ND.shape[1] != y_KD.shape[1]:
        raise ValueError(f"distances need two matrices of one width, not {tuple(x_ND.shape)} and {tuple(y_KD.shape)}")
