"""What codes are worth to single rows: their quantization error, and which last code would be the next best.

Shape suffixes: N rows, D dim, K codes, L layers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from semid_daemon.records import CodeArray, Codebooks, FloatArray

_CHUNK_BYTES = 1 << 26


def quantization_errors(
    codebooks: Codebooks, embeddings_ND: FloatArray, codes_NL: CodeArray, device: torch.device
) -> FloatArray:
    """Squared distance (N float32) of every row to what its codes reconstruct; with normalized residuals over ||x||².

    Without normalization the reconstruction is sum_l c_l. With it, let n_0 = x / ||x||, rho_{l+1} = ||n_l - c_l|| and
    n_{l+1} = (n_l - c_l) / rho_{l+1}: the row of length 1 is reconstructed as sum_l rho_1 … rho_l c_l, which leaves
    rho_1² … rho_L² of it. A row of zeros has the error that its first centroid leaves.
    """
    centroids_LKD = torch.from_numpy(codebooks.centroids_LKD).to(device)
    errors_N = np.empty(len(embeddings_ND), dtype=np.float32)
    step = max(1, _CHUNK_BYTES // (4 * codebooks.dim))
    for start in range(0, len(embeddings_ND), step):
        rows = slice(start, start + step)
        residual_ND = torch.from_numpy(np.ascontiguousarray(embeddings_ND[rows])).to(device)
        codes = torch.from_numpy(codes_NL[rows].astype(np.int64)).to(device)
        errors = torch.ones(residual_ND.shape[0], device=device)
        for layer, centroids_KD in enumerate(centroids_LKD):
            if codebooks.normalize_residuals:
                residual_ND = torch.nn.functional.normalize(residual_ND, dim=1)
            residual_ND = residual_ND - centroids_KD[codes[:, layer]]
            if codebooks.normalize_residuals:
                errors *= residual_ND.square().sum(dim=1)
        if not codebooks.normalize_residuals:
            errors = residual_ND.square().sum(dim=1)
        errors_N[rows] = errors.cpu().numpy()
    return errors_N


class NextBest:
    """Ranks the last layer's codes for a row whose other codes are given."""

    def __init__(self, codebooks: Codebooks) -> None:
        self._codebooks = codebooks
        last_KD = codebooks.centroids_LKD[-1]
        self._half_squares_K = np.square(last_KD, dtype=np.float64).sum(axis=1) / 2
        if codebooks.biases_LK is not None:
            self._half_squares_K = self._half_squares_K + codebooks.biases_LK[-1] / 2

    def rank(self, embedding_D: FloatArray, codes_L: CodeArray) -> npt.NDArray[np.int64]:
        """All last codes (K), the nearest to the row's last residual first; the smaller one among equals."""
        residual_D = self._normalized(embedding_D)
        for centroids_KD, code in zip(self._codebooks.centroids_LKD[:-1], codes_L[:-1].tolist(), strict=True):
            residual_D = self._normalized(residual_D - centroids_KD[code])
        distances_K = self._half_squares_K - self._codebooks.centroids_LKD[-1] @ residual_D
        return np.argsort(distances_K, kind="stable")

    def _normalized(self, row_D: FloatArray) -> FloatArray:
        if not self._codebooks.normalize_residuals:
            return row_D
        norm = float(np.linalg.norm(row_D))
        return row_D / np.float32(norm) if norm else row_D
