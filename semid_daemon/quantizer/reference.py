"""Plain loops in float64: the reference that fast encoding must agree with, and the search for options beyond it."""

from __future__ import annotations

import torch
from torch import Tensor

from semid_daemon.quantizer.magnitude import offset_of

# Scores that differ by less than this, relative to the numbers that they were added up from, are a tie in float64.
_TIE = 1e-12
_MAX_SCORES = 1 << 22
_SMALLEST = 1e-300


def encode_exact(rows_ND: Tensor, centroids_LKD: Tensor, normalize_residuals: bool) -> Tensor:
    """Codes (N×L int32) of rows by centroids, both float64 and on one device; see `ExactCodebooks.encode`."""
    return ExactCodebooks(centroids_LKD).encode(rows_ND, normalize_residuals)


class ExactCodebooks:
    """Codebooks in float64 (L×K×D, of float32 values). An offset common to a layer's centroids is kept apart.

    Distances do not change when it is subtracted from rows and centroids alike, and scores keep their precision.
    """

    def __init__(self, centroids_LKD: Tensor) -> None:
        self._centroids_LKD = self._near_LKD = centroids_LKD
        self.offsets = [offset_of(centroids_KD) for centroids_KD in centroids_LKD]
        if any(offset_D is not None for offset_D in self.offsets):
            self._near_LKD = torch.stack(
                [
                    centroids_KD if offset_D is None else centroids_KD - offset_D
                    for centroids_KD, offset_D in zip(centroids_LKD, self.offsets, strict=True)
                ]
            )
        self._squares_LK = self._near_LKD.square().sum(dim=2)
        self._reach_L = self._squares_LK.amax(dim=1).sqrt()

    def encode(self, rows_ND: Tensor, normalize_residuals: bool) -> Tensor:
        """Codes (N×L int32) of rows (N×D float64, on the same device, of float32 values).

        The code of a layer is the index of the nearest centroid; of those that tie within float64 rounding
        the lowest, so that the codes are the same on every device. A zero row stays zero when normalized.
        """
        chunks = torch.split(rows_ND, max(1, _MAX_SCORES // self._centroids_LKD.shape[1]))
        return torch.cat([self._encode_chunk(chunk_ND, normalize_residuals) for chunk_ND in chunks])

    def _encode_chunk(self, rows_ND: Tensor, normalize_residuals: bool) -> Tensor:
        residual_ND = rows_ND
        layers = []
        for layer, (centroids_KD, squares_K) in enumerate(zip(self._centroids_LKD, self._squares_LK, strict=True)):
            if normalize_residuals:
                residual_ND = torch.nn.functional.normalize(residual_ND, dim=1, eps=_SMALLEST)
            near_ND = self._without_offset(residual_ND, layer)
            scores_NK = squares_K - 2.0 * (near_ND @ self._near_LKD[layer].T)
            best_N1, first_N1 = scores_NK.min(dim=1, keepdim=True)
            norms_N1 = torch.linalg.vector_norm(near_ND, dim=1, keepdim=True)
            # A centroid that ties with the best one is no longer than this: far ones do not blur the others.
            reach_N1 = torch.minimum(3 * (norms_N1 + squares_K[first_N1].sqrt()), self._reach_L[layer])
            tied_NK = scores_NK <= best_N1 + _TIE * reach_N1 * (norms_N1 + reach_N1)
            codes_N = tied_NK.to(torch.uint8).argmax(dim=1)
            layers.append(codes_N)
            residual_ND = residual_ND - centroids_KD[codes_N]
        return torch.stack(layers, dim=1).int()

    def search(self, rows_ND: Tensor, biases_LK: Tensor, normalize_residuals: bool, beam_width: int) -> Tensor:
        """Codes (N×L int32) with biases on the squared distances and a beam of partial codes, all float64.

        Of every row's partial codes the `beam_width` with the least squared residual, plus biases, go on from
        layer to layer (as in FAISS's ResidualQuantizer); the codes are those of the least at the end. Residuals
        are compared, and biases weighed, in the row's own scale: the row is normalized first, what its residuals
        are normalized by is kept. Equals go to the lower codes. Width 1 without biases is `encode`.
        """
        size = max(1, _MAX_SCORES // (self._centroids_LKD.shape[1] * beam_width))
        return torch.cat(
            [
                self._search_chunk(chunk_ND, biases_LK, normalize_residuals, beam_width)
                for chunk_ND in torch.split(rows_ND, size)
            ]
        )

    def _search_chunk(self, rows_ND: Tensor, biases_LK: Tensor, normalize_residuals: bool, beam_width: int) -> Tensor:
        count, dim = rows_ND.shape
        residual_NBD = (
            torch.nn.functional.normalize(rows_ND, dim=1, eps=_SMALLEST) if normalize_residuals else rows_ND
        )[:, None]
        codes_NBL = torch.empty((count, 1, 0), dtype=torch.int64, device=rows_ND.device)
        # Squared residuals with biases, less that of the best partial code: beside the square of a row that is far
        # away, differences between codes would be lost.
        cost_NB = torch.zeros((count, 1), dtype=rows_ND.dtype, device=rows_ND.device)
        for layer, (centroids_KD, biases_K) in enumerate(zip(self._centroids_LKD, biases_LK, strict=True)):
            # With scale s of the residual, ||r - s c||² = ||r||² - 2 s r·c + s² ||c||² where r is not normalized.
            norm_NB = torch.linalg.vector_norm(residual_NBD, dim=2)
            scale_NB = norm_NB if normalize_residuals else torch.ones_like(norm_NB)
            near_NBD = self._without_offset(residual_NBD, layer, scale_NB[..., None])
            near_NB = torch.linalg.vector_norm(near_NBD, dim=2)
            if self.offsets[layer] is not None:
                squares_NB = (near_NB - norm_NB) * (near_NB + norm_NB)
                cost_NB = cost_NB + (squares_NB - squares_NB[:, :1])
            near_KD, squares_K = self._near_LKD[layer], self._squares_LK[layer]
            steps_NBK = scale_NB[..., None].square() * (squares_K + biases_K)
            costs_NBK = cost_NB[..., None] - 2 * scale_NB[..., None] * (near_NBD @ near_KD.T) + steps_NBK
            costs_NC = costs_NBK.flatten(1)
            first_N = costs_NC.argmin(dim=1) % len(centroids_KD)
            length_N = near_NB.amax(dim=1) + scale_NB.amax(dim=1) * squares_K[first_N].sqrt()
            size_N1 = torch.minimum(costs_NC.abs().amax(dim=1), 16 * length_N.square())[:, None].clamp_min(_SMALLEST)
            # A stable sort of rounded costs: equals within float64's rounding go to the lower codes everywhere.
            ranked_NC = (costs_NC / (size_N1 * _TIE)).round().sort(dim=1, stable=True).indices[:, :beam_width]
            parents_NB, chosen_NB = ranked_NC // len(centroids_KD), ranked_NC % len(centroids_KD)
            codes_NBL = torch.cat(
                [codes_NBL.gather(1, parents_NB[..., None].expand(-1, -1, codes_NBL.shape[2])), chosen_NB[..., None]],
                dim=2,
            )
            cost_NB = costs_NC.gather(1, ranked_NC)
            cost_NB = cost_NB - cost_NB[:, :1]
            scale_NB = scale_NB.gather(1, parents_NB)
            residual_NBD = residual_NBD.gather(1, parents_NB[..., None].expand(-1, -1, dim))
            residual_NBD = residual_NBD - scale_NB[..., None] * centroids_KD[chosen_NB]
        return codes_NBL[:, 0].int()

    def _without_offset(self, residual: Tensor, layer: int, scale: Tensor | float = 1.0) -> Tensor:
        offset_D = self.offsets[layer]
        return residual if offset_D is None else residual - scale * offset_D
