"""Quantization error per row, and the ranking of last codes.

Shape suffixes: N rows, D dim, K codes, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from semid_daemon.base.types import CodeArray, Codebooks, FloatArray
from semid_daemon.quantizer.threads import for_each_span

_TILE_BYTES = {"cpu": 1 << 20, "cuda": 1 << 28, "mps": 1 << 27}
_SMALLEST_NORM = 1e-30


def quantization_errors(
    codebooks: Codebooks, embeddings_ND: FloatArray, codes_NL: CodeArray, device: torch.device
) -> FloatArray:
    """Squared distance (N float32) of every row to what its codes reconstruct; with normalized residuals over ||x||².

    Without normalization the reconstruction is sum_l c_l. With it, let n_0 = x / ||x||, rho_{l+1} = ||n_l - c_l|| and
    n_{l+1} = (n_l - c_l) / rho_{l+1}: the row of length 1 is reconstructed as sum_l rho_1 … rho_l c_l, which leaves
    rho_1² … rho_L² of it. A row of zeros has no error.
    """
    centroids_LKD = torch.from_numpy(codebooks.centroids_LKD).to(device)
    errors_N = torch.empty(len(embeddings_ND), device=device)
    rows_ND = torch.from_numpy(np.ascontiguousarray(embeddings_ND)).to(device)
    codes = torch.from_numpy(codes_NL.astype(np.int64)).to(device)
    step = max(1, _TILE_BYTES[device.type] // (4 * codebooks.dim))

    def measure(tiles: Sequence[slice]) -> None:
        for tile in tiles:
            # The residual as it is, r = rho n: subtracting rho c leaves the same as normalizing at every layer.
            residual_ND = rows_ND[tile].clone()
            first_N = norms_N = torch.linalg.vector_norm(residual_ND, dim=1)
            for layer, centroids_KD in enumerate(centroids_LKD):
                chosen_ND = centroids_KD.index_select(0, codes[tile, layer])
                if codebooks.normalize_residuals:
                    residual_ND.addcmul_(chosen_ND, norms_N[:, None], value=-1)
                else:
                    residual_ND.sub_(chosen_ND)
                norms_N = torch.linalg.vector_norm(residual_ND, dim=1)
            if codebooks.normalize_residuals:
                norms_N = norms_N / first_N.clamp_min(_SMALLEST_NORM)
            errors_N[tile] = norms_N.square()

    for_each_span(device, len(rows_ND), step, measure)
    return errors_N.cpu().numpy()


class LastCodeRanking:
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
