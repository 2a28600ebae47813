"""Encoding: rows to codes, fast in float32 and decided in float64 where float32 cannot tell.

A row's code in a layer is the index of the nearest centroid; the residual goes on to the next layer,
L2-normalized first if the codebooks say so. Scores are ||c||² - 2 x·c, one matrix product per layer.
Float32 scores carry a rounding error that is tracked per row; where the two best scores of a layer are
closer than that, the row is flagged and encoded again by a plain float64 loop on the CPU. So codes are
those of the float64 loop, whatever the device, the chunk size, or the rows beside it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from semid_daemon.records import CodeArray, Codebooks, FloatArray

_EPS = float(np.finfo(np.float32).eps)
# Rounding of a float32 dot product of D terms grows like sqrt(D) with random signs; this many times
# that is what a margin must exceed to be believed.
_SIGMAS = 8.0
_TIE = 1e-12
_SCORE_BYTES = {"cpu": 1 << 20, "cuda": 1 << 28, "mps": 1 << 26}


class Encoder:
    """Codebooks on a device, ready to encode. Safe to call from several threads."""

    def __init__(self, codebooks: Codebooks, device: torch.device) -> None:
        self.codebooks = codebooks
        self.device = device
        self._centroids_LKD = torch.from_numpy(np.ascontiguousarray(codebooks.centroids_LKD)).to(device)
        self._norms_LK = self._centroids_LKD.double().square().sum(dim=2).float()
        self._centroids64_LKD = torch.from_numpy(codebooks.centroids_LKD.astype(np.float64))

    def encode(self, embeddings_ND: FloatArray) -> CodeArray:
        """Codes (N×L int32) of embeddings (N×D float32, finite). Raises ValueError for another dimension."""
        if embeddings_ND.ndim != 2 or embeddings_ND.shape[1] != self.codebooks.dim:
            raise ValueError(f"embeddings of shape {embeddings_ND.shape} for codebooks of dim {self.codebooks.dim}")
        rows = embeddings_ND.shape[0]
        codes_NL = np.empty((rows, self.codebooks.layers), dtype=np.int32)
        step = max(1, _SCORE_BYTES[self.device.type] // (4 * self.codebooks.codebook_size))
        for start in range(0, rows, step):
            chunk_ND = torch.from_numpy(embeddings_ND[start : start + step])
            codes, flagged = self._encode_fast(chunk_ND.to(self.device))
            codes_NL[start : start + step] = codes.cpu().numpy()
            doubtful = np.flatnonzero(flagged.cpu().numpy())
            if doubtful.size:
                exact = encode_exact(
                    chunk_ND[doubtful].double(), self._centroids64_LKD, self.codebooks.normalize_residuals
                )
                codes_NL[start + doubtful] = exact.numpy()
        return codes_NL

    def _encode_fast(self, rows_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Codes (N×L int32) in float32, and which rows float32 could not decide (N bool)."""
        residual_ND = rows_ND
        count, dim = rows_ND.shape
        codes_NL = torch.empty((count, self.codebooks.layers), dtype=torch.int32, device=rows_ND.device)
        flagged_N = torch.zeros(count, dtype=torch.bool, device=rows_ND.device)
        # Bound on the norm of what rounding has done to the residual so far, relative to float32's unit.
        error_N = torch.zeros(count, device=rows_ND.device)
        for layer in range(self.codebooks.layers):
            norm_N = torch.linalg.vector_norm(residual_ND, dim=1)
            if self.codebooks.normalize_residuals:
                scale_N = 1.0 / norm_N.clamp_min(1e-12)
                residual_ND = residual_ND * scale_N[:, None]
                error_N = error_N * scale_N + 2.0
                norm_N = norm_N * scale_N
            scores_NK = torch.addmm(
                self._norms_LK[layer], residual_ND, self._centroids_LKD[layer].T, beta=1.0, alpha=-2.0
            )
            best_N2, codes_N2 = scores_NK.topk(min(2, scores_NK.shape[1]), dim=1, largest=False)
            codes_N = codes_N2[:, 0]
            codes_NL[:, layer] = codes_N
            reach_N = self._norms_LK[layer].max().sqrt()
            bound_N = _EPS * (_SIGMAS * norm_N * reach_N * dim**0.5 + 4 * error_N * reach_N + reach_N.square() * 4)
            if best_N2.shape[1] == 2:
                flagged_N |= best_N2[:, 1] - best_N2[:, 0] <= bound_N
            residual_ND = residual_ND - self._centroids_LKD[layer][codes_N]
            error_N = error_N + norm_N + reach_N
        return codes_NL, flagged_N


def encode_exact(rows_ND: Tensor, centroids_LKD: Tensor, normalize_residuals: bool) -> Tensor:
    """Codes (N×L int32) by the plain loop in float64 on the CPU: what every other path must agree with.

    Of centroids whose scores tie within float64 rounding the one with the lowest index is taken. A
    zero row stays zero when it is normalized.
    """
    residual_ND = rows_ND
    layers = []
    for centroids_KD in centroids_LKD:
        if normalize_residuals:
            residual_ND = torch.nn.functional.normalize(residual_ND, dim=1)
        scores_NK = centroids_KD.square().sum(dim=1) - 2.0 * (residual_ND @ centroids_KD.T)
        best_N = scores_NK.amin(dim=1, keepdim=True)
        codes_N = (scores_NK <= best_N + _TIE * (1.0 + best_N.abs())).to(torch.uint8).argmax(dim=1)
        layers.append(codes_N)
        residual_ND = residual_ND - centroids_KD[codes_N]
    return torch.stack(layers, dim=1).int()
