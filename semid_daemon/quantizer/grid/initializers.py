"""First centroids of a layer: k-means++ (Arthur & Vassilvitskii, SODA 2007).

Shape suffixes: N rows, D dim, K centroids.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from semid_daemon.quantizer.distance import (
    DistanceFunction,
    SquaredEuclideanDistance,
    full_float32_matmul,
)

Initializer = Callable[[Tensor], Tensor]
"""buffer N×D -> first centroids K×D."""


class KMeansPlusPlusInitInitializer:
    """Draws `n_clusters` rows of a buffer as first centroids, each far from those before it.

    A row is drawn with a probability proportional to its distance to the nearest centroid
    drawn so far. `initialize_on_cpu` draws on the CPU whatever the buffer's device, so that
    every device gets the same centroids from one random state; a device without float64 needs it.
    `generator` is the source of
    the random numbers, torch's default one if None.
    """

    def __init__(
        self,
        n_clusters: int,
        distance_function: DistanceFunction,
        initialize_on_cpu: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.distance_function = distance_function
        self.initialize_on_cpu = initialize_on_cpu
        self.generator = generator

    def __call__(self, buffer_ND: Tensor) -> Tensor:
        """Centroids K×D, rows of the buffer, on its device and in its dtype.

        Raises ValueError for fewer rows than `n_clusters`, and values that are not finite or too
        large to square; warns (UserWarning) where the buffer has fewer distinct rows than `n_clusters`.
        """
        points_ND = buffer_ND.cpu() if self.initialize_on_cpu else buffer_ND
        if isinstance(self.distance_function, SquaredEuclideanDistance):
            centroids_KD = kmeans_plus_plus(points_ND, self.n_clusters, self.generator)
        else:
            _check_points(points_ND, self.n_clusters)

            def distances_to(row: Tensor, nearest_N: Tensor) -> Tensor:
                return self.distance_function.compute(points_ND, points_ND[row, None])[:, 0]

            rows_K = _draw_rows(points_ND, self.n_clusters, distances_to, self.generator)
            centroids_KD = points_ND[rows_K]
        return centroids_KD.to(buffer_ND.device)

    forward = __call__


def kmeans_plus_plus(points_ND: Tensor, n_clusters: int, generator: torch.Generator | None = None) -> Tensor:
    """Centroids K×D: rows of `points_ND` drawn by k-means++ on squared Euclidean distances.

    A row's distance to its nearest centroid is kept and lowered as centroids are drawn, so the
    whole takes O(N·K·D). Where every row coincides with a centroid already drawn (fewer
    distinct rows than `n_clusters`), the remaining ones are drawn uniformly, with a UserWarning.

    Raises ValueError for fewer rows than `n_clusters`, and values that are not finite or too large
    to square.
    """
    _check_points(points_ND, n_clusters)
    # Distances do not change with the origin, but the products below lose less near it.
    centred_ND = points_ND - points_ND.mean(dim=0)
    squares_N = centred_ND.square().sum(dim=1)
    rounding = 4 * torch.finfo(points_ND.dtype).eps

    def distances_to(row: Tensor, nearest_N: Tensor) -> Tensor:
        centroid_D = centred_ND[row]
        with full_float32_matmul(points_ND.device):
            products_N = centred_ND @ centroid_D
        bound_N = squares_N + squares_N[row]
        distances_N = bound_N - 2 * products_N
        # Below the rounding of the products only the differences tell a copy (exactly zero)
        # from a near row. Rows already at zero stay there whatever comes out.
        unsure = ((distances_N <= rounding * bound_N) & (nearest_N > 0)).nonzero()[:, 0]
        distances_N[unsure] = (centred_ND[unsure] - centroid_D).square().sum(dim=1)
        return distances_N.clamp_(min=0)

    return points_ND[_draw_rows(points_ND, n_clusters, distances_to, generator)]


def _draw_rows(
    points_ND: Tensor,
    n_clusters: int,
    distances_to: Callable[[Tensor, Tensor], Tensor],
    generator: torch.Generator | None,
) -> Tensor:
    """K row numbers (int64), each drawn in proportion to its distance to the nearest before it.

    `distances_to(row, nearest_N)` gives the distance of every row to the row just drawn;
    nearest_N are the distances to the nearest row drawn before.
    """
    n_rows, device = len(points_ND), points_ND.device
    source = device if generator is None else generator.device
    uniform_K = torch.rand(n_clusters, dtype=torch.float64, generator=generator, device=source)
    rows_K = (uniform_K * n_rows).long().clamp_(max=n_rows - 1).to(device)

    nearest_N = torch.full((n_rows,), torch.inf, dtype=points_ND.dtype, device=device)
    for k, uniform in enumerate(uniform_K.tolist()[1:], start=1):
        nearest_N = torch.minimum(nearest_N, distances_to(rows_K[k - 1], nearest_N))
        # Not torch.multinomial: it takes at most 2**24 categories and fails when all are zero.
        cumulative_N = nearest_N.cumsum(dim=0, dtype=torch.float64)
        total = cumulative_N[-1].item()
        if not math.isfinite(total):
            raise ValueError(f"the rows to start from are too large to square in {points_ND.dtype}")
        if total == 0:
            warnings.warn(
                f"only {k} distinct rows among {n_rows} for {n_clusters} clusters: "
                f"{n_clusters - k} centroids repeat others",
                UserWarning,
                stacklevel=4,
            )
            break
        # Kept below the total, so that the first row whose sum exceeds it has a weight of its own.
        threshold = min(uniform * total, math.nextafter(total, 0))
        rows_K[k] = torch.searchsorted(cumulative_N, threshold, right=True)
    return rows_K


def _check_points(points_ND: Tensor, n_clusters: int) -> None:
    if points_ND.ndim != 2:
        raise ValueError(f"k-means++ needs a matrix of rows, not shape {tuple(points_ND.shape)}")
    if n_clusters < 1:
        raise ValueError(f"n_clusters must be at least 1, not {n_clusters}")
    if len(points_ND) < n_clusters:
        raise ValueError(f"{n_clusters} clusters need as many rows to start from, not {len(points_ND)}")
    if not points_ND.isfinite().all():
        raise ValueError("the rows to start from hold values that are not finite: leave those rows out")
