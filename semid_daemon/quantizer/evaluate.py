"""Quantization error per row, and the ranking of last codes.

Shape suffixes: N rows, D dim, K codes, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semid_daemon.base.types import CodeArray, Codebooks, FloatArray
from semid_daemon.quantizer.magnitude import out_of_range
from semid_daemon.quantizer.threads import for_each_span

_TILE_BYTES = {"cpu": 1 << 20, "cuda": 1 << 28, "mps": 1 << 27}


def quantization_errors(
    codebooks: Codebooks, embeddings_ND: FloatArray, codes_NL: CodeArray, device: torch.device
) -> npt.NDArray[np.float64]:
    """Squared distance (N float64) of every row to what its codes reconstruct; with normalized residuals over ||x||².

    Without normalization the reconstruction is sum_l c_l. With it, let n_0 = x / ||x||, rho_{l+1} = ||n_l - c_l|| and
    n_{l+1} = (n_l - c_l) / rho_{l+1}: the row of length 1 is reconstructed as sum_l rho_1 … rho_l c_l, which leaves
    rho_1² … rho_L² of it. A row of zeros has no error.
    """
    centroids_LKD = torch.from_numpy(codebooks.centroids_LKD).to(device)
    errors_N = torch.empty(len(embeddings_ND), dtype=torch.float64, device=device)
    rows_ND = torch.from_numpy(np.ascontiguousarray(embeddings_ND)).to(device)
    codes = torch.from_numpy(codes_NL.astype(np.int64)).to(device)
    step = max(1, _TILE_BYTES[device.type] // (4 * codebooks.dim))

    def measure(tiles: Sequence[slice]) -> None:
        for tile in tiles:
            tile_ND, tile_NL = rows_ND[tile], codes[tile]
            left_N, first_N = _residual_norms(tile_ND, tile_NL, centroids_LKD, codebooks.normalize_residuals)
            # Norms near the ends of float32 come from squares beyond them.
            extreme = (out_of_range(first_N) | out_of_range(left_N)).nonzero()[:, 0]
            left_N, first_N = left_N.double(), first_N.double()
            if extreme.numel():
                left_N[extreme], first_N[extreme] = _residual_norms(
                    tile_ND[extreme].double(), tile_NL[extreme], centroids_LKD, codebooks.normalize_residuals
                )
            if codebooks.normalize_residuals:
                left_N = torch.where(first_N > 0, left_N / first_N, 0.0)
            errors_N[tile] = left_N.square()

    for_each_span(device, len(rows_ND), step, measure)
    return errors_N.cpu().numpy()


def _residual_norms(
    rows_ND: Tensor, codes_NL: Tensor, centroids_LKD: Tensor, normalize_residuals: bool
) -> tuple[Tensor, Tensor]:
    """The norms (N) of what all codes leave of rows, and of the rows, in the rows' dtype."""
    # The residual as it is, r = rho n: subtracting rho c leaves the same as normalizing at every layer.
    residual_ND = rows_ND.clone()
    first_N = norms_N = torch.linalg.vector_norm(residual_ND, dim=1)
    for layer, centroids_KD in enumerate(centroids_LKD):
        chosen_ND = centroids_KD.index_select(0, codes_NL[:, layer]).to(rows_ND.dtype)
        if normalize_residuals:
            residual_ND.addcmul_(chosen_ND, norms_N[:, None], value=-1)
        else:
            residual_ND.sub_(chosen_ND)
        norms_N = torch.linalg.vector_norm(residual_ND, dim=1)
    return norms_N, first_N


class LastCodeRanking:
    """Ranks the last layer's codes for a row whose other codes are given."""

    def __init__(self, codebooks: Codebooks) -> None:
        self._codebooks = codebooks
        self._last_KD = codebooks.centroids_LKD[-1].astype(np.float64)
        self._half_squares_K = np.square(self._last_KD).sum(axis=1) / 2
        if codebooks.biases_LK is not None:
            self._half_squares_K = self._half_squares_K + codebooks.biases_LK[-1] / 2

    def rank(self, embedding_D: FloatArray, codes_L: CodeArray) -> npt.NDArray[np.int64]:
        """All last codes (K), the nearest to the row's last residual first; the smaller one among equals."""
        residual_D = self._normalized(embedding_D.astype(np.float64))
        for centroids_KD, code in zip(self._codebooks.centroids_LKD[:-1], codes_L[:-1].tolist(), strict=True):
            residual_D = self._normalized(residual_D - centroids_KD[code])
        return np.argsort(self._half_squares_K - self._last_KD @ residual_D, kind="stable")

    def _normalized(self, row_D: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        if not self._codebooks.normalize_residuals:
            return row_D
        norm = float(np.linalg.norm(row_D))
        return row_D / norm if norm else row_D
