"""The reference that every way of encoding must agree with: a plain loop over the layers in float64."""

from __future__ import annotations

import torch
from torch import Tensor

# Scores that differ by less than this, relative to the row and the centroids, are a tie in float64.
_TIE = 1e-12
_MAX_SCORES = 1 << 22


def encode_exact(rows_ND: Tensor, centroids_LKD: Tensor, normalize_residuals: bool) -> Tensor:
    """Codes (N×L int32) of rows by centroids, both float64 and on one device.

    The code of a layer is the index of the nearest centroid; of those that tie within float64 rounding
    the lowest, so that the codes are the same on every device. A zero row stays zero when normalized.
    """
    chunks = torch.split(rows_ND, max(1, _MAX_SCORES // centroids_LKD.shape[1]))
    return torch.cat([_encode_chunk(chunk_ND, centroids_LKD, normalize_residuals) for chunk_ND in chunks])


def _encode_chunk(rows_ND: Tensor, centroids_LKD: Tensor, normalize_residuals: bool) -> Tensor:
    residual_ND = rows_ND
    layers = []
    for centroids_KD in centroids_LKD:
        if normalize_residuals:
            residual_ND = torch.nn.functional.normalize(residual_ND, dim=1, eps=1e-300)
        norms_K = centroids_KD.square().sum(dim=1)
        scores_NK = norms_K - 2.0 * (residual_ND @ centroids_KD.T)
        best_N1 = scores_NK.amin(dim=1, keepdim=True)
        size_N1 = residual_ND.square().sum(dim=1, keepdim=True) + norms_K.max()
        tied_NK = scores_NK <= best_N1 + _TIE * size_N1
        codes_N = tied_NK.to(torch.uint8).argmax(dim=1)
        layers.append(codes_N)
        residual_ND = residual_ND - centroids_KD[codes_N]
    return torch.stack(layers, dim=1).int()
