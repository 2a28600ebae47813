"""Plain loops in float64: the reference that fast encoding must agree with, and the search for options beyond it."""

from __future__ import annotations

import torch
from torch import Tensor

# Scores that differ by less than this, relative to the row and the centroids, are a tie in float64.
_TIE = 1e-12
_MAX_SCORES = 1 << 22


def encode_exact(
    rows_ND: Tensor, centroids_LKD: Tensor, normalize_residuals: bool, squares_LK: Tensor | None = None
) -> Tensor:
    """Codes (N×L int32) of rows by centroids, both float64 and on one device; `squares_LK` are their ||c||², if known.

    The code of a layer is the index of the nearest centroid; of those that tie within float64 rounding
    the lowest, so that the codes are the same on every device. A zero row stays zero when normalized.
    """
    chunks = torch.split(rows_ND, max(1, _MAX_SCORES // centroids_LKD.shape[1]))
    if squares_LK is None:
        squares_LK = centroids_LKD.square().sum(dim=2)
    return torch.cat([_encode_chunk(chunk_ND, centroids_LKD, squares_LK, normalize_residuals) for chunk_ND in chunks])


def _encode_chunk(rows_ND: Tensor, centroids_LKD: Tensor, squares_LK: Tensor, normalize_residuals: bool) -> Tensor:
    residual_ND = rows_ND
    layers = []
    for centroids_KD, squares_K in zip(centroids_LKD, squares_LK, strict=True):
        if normalize_residuals:
            residual_ND = torch.nn.functional.normalize(residual_ND, dim=1, eps=1e-300)
        scores_NK = squares_K - 2.0 * (residual_ND @ centroids_KD.T)
        best_N1 = scores_NK.amin(dim=1, keepdim=True)
        size_N1 = residual_ND.square().sum(dim=1, keepdim=True) + squares_K.max()
        tied_NK = scores_NK <= best_N1 + _TIE * size_N1
        codes_N = tied_NK.to(torch.uint8).argmax(dim=1)
        layers.append(codes_N)
        residual_ND = residual_ND - centroids_KD[codes_N]
    return torch.stack(layers, dim=1).int()


def encode_searching(
    rows_ND: Tensor, centroids_LKD: Tensor, biases_LK: Tensor, normalize_residuals: bool, beam_width: int
) -> Tensor:
    """Codes (N×L int32) with biases on the squared distances and a beam of partial codes, all float64.

    Of every row's partial codes the `beam_width` with the least squared residual, plus biases, go on from
    layer to layer (as in FAISS's ResidualQuantizer); the codes are those of the least at the end. Residuals
    are compared, and biases weighed, in the row's own scale: the row is normalized first, what its residuals
    are normalized by is kept. Equals go to the lower codes. Width 1 without biases is `encode_exact`.
    """
    size = max(1, _MAX_SCORES // (centroids_LKD.shape[1] * beam_width))
    return torch.cat(
        [
            _search_chunk(chunk_ND, centroids_LKD, biases_LK, normalize_residuals, beam_width)
            for chunk_ND in torch.split(rows_ND, size)
        ]
    )


def _search_chunk(
    rows_ND: Tensor, centroids_LKD: Tensor, biases_LK: Tensor, normalize_residuals: bool, beam_width: int
) -> Tensor:
    count, dim = rows_ND.shape
    residual_NBD = (torch.nn.functional.normalize(rows_ND, dim=1, eps=1e-300) if normalize_residuals else rows_ND)[
        :, None
    ]
    codes_NBL = torch.empty((count, 1, 0), dtype=torch.int64, device=rows_ND.device)
    penalty_NB = torch.zeros((count, 1), dtype=rows_ND.dtype, device=rows_ND.device)
    for centroids_KD, biases_K in zip(centroids_LKD, biases_LK, strict=True):
        # With scale s of the residual, ||r - s c||² = ||r||² - 2 s r·c + s² ||c||² where r is not normalized.
        square_NB = residual_NBD.square().sum(dim=2)
        scale_NB = square_NB.sqrt() if normalize_residuals else torch.ones_like(square_NB)
        products_NBK = residual_NBD @ centroids_KD.T
        steps_NBK = scale_NB[..., None].square() * (centroids_KD.square().sum(dim=1) + biases_K)
        costs_NBK = (penalty_NB + square_NB)[..., None] - 2 * scale_NB[..., None] * products_NBK + steps_NBK
        costs_NC = costs_NBK.flatten(1)
        size_N1 = costs_NC.abs().amax(dim=1, keepdim=True).clamp_min(1e-300)
        # A stable sort of rounded costs: equals within float64's rounding go to the lower codes everywhere.
        ranked_NC = (costs_NC / (size_N1 * _TIE)).round().sort(dim=1, stable=True).indices[:, :beam_width]
        parents_NB, chosen_NB = ranked_NC // len(centroids_KD), ranked_NC % len(centroids_KD)
        codes_NBL = torch.cat(
            [codes_NBL.gather(1, parents_NB[..., None].expand(-1, -1, codes_NBL.shape[2])), chosen_NB[..., None]], dim=2
        )
        scale_NB = scale_NB.gather(1, parents_NB)
        penalty_NB = penalty_NB.gather(1, parents_NB) + scale_NB.square() * biases_K[chosen_NB]
        residual_NBD = residual_NBD.gather(1, parents_NB[..., None].expand(-1, -1, dim))
        residual_NBD = residual_NBD - scale_NB[..., None] * centroids_KD[chosen_NB]
    return codes_NBL[:, 0].int()
