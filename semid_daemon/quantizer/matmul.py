"""Matrix products of rows with centroids, by the faster of the BLAS libraries at hand."""

from __future__ import annotations

import platform

import numpy as np
import torch
from torch import Tensor


def products(rows_ND: Tensor, centroids_KD: Tensor, out_NK: Tensor) -> Tensor:
    """x·c of every row with every centroid, written to `out_NK`, which is returned.

    On one thread of the CPU by NumPy: its OpenBLAS is as fast as torch's MKL on Intel's processors, and up to
    twice as fast on AMD's. Never on several: OpenBLAS's threads go on spinning after a product, and take the
    cores from torch's, which do the next operation.
    """
    if rows_ND.device.type == "cpu" and torch.get_num_threads() == 1:
        with np.errstate(all="ignore"):  # values out of range become infinite, as they do in torch
            np.matmul(rows_ND.numpy(), centroids_KD.numpy().T, out=out_NK.numpy())
        return out_NK
    return torch.mm(rows_ND, centroids_KD.T, out=out_NK)


class PackedCentroids:
    """Centroids (K×D float32, on the CPU) laid out once for all the products with them that follow.

    oneDNN's, which torch brings. Any other library packs them anew for every product, which only many rows and many
    centroids make up for: with these, a layer's product is small enough for its scores to be in the cache afterwards.
    """

    def __init__(self, centroids_KD: Tensor) -> None:
        self._packed = torch.ops.mkldnn._reorder_linear_weight(centroids_KD, None)

    def products(self, rows_ND: Tensor) -> Tensor:
        """x·c of every row with every centroid, N×K of new memory."""
        scores_NK: Tensor = torch.ops.mkldnn._linear_pointwise(rows_ND, self._packed, None, "none", [], "")
        return scores_NK


def can_pack(device: torch.device) -> bool:
    """Whether centroids can be packed for a device: torch has no public name for it, and not every build has it."""
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    operations = ("_reorder_linear_weight", "_linear_pointwise")
    return (
        device.type == "cpu"
        and is_x86
        and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
        and all(hasattr(torch.ops.mkldnn, name) for name in operations)
    )
