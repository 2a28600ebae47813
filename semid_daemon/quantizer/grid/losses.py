"""What a mini-batch k-means step minimizes."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WeightedSquaredError(nn.Module):
    """Σ_k w_k ‖x_k - y_k‖², a sum and not a mean.

    Its gradient in x_k is 2 w_k (x_k - y_k), so a gradient step of 0.5 moves x_k by the
    fraction w_k of its way to y_k: the update of mini-batch k-means (Sculley, "Web-scale
    k-means clustering", WWW 2010).
    """

    def forward(self, x_KD: Tensor, y_KD: Tensor, weights_K: Tensor | None = None) -> Tensor:
        errors_K = (x_KD - y_KD).square().sum(dim=-1)
        return torch.sum(errors_K if weights_K is None else weights_K * errors_K)
