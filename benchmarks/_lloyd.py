"""One iteration of Lloyd's algorithm on rows in CUDA memory.

Shape suffixes: N rows, D dim, K clusters.
"""

from __future__ import annotations

from collections.abc import Callable

import _peers
import numpy as np
import torch
from _data import mixture
from _measure import alternate
from _report import heading, note, progress, table
from torch import Tensor

from semid_daemon.quantizer import Device
from semid_daemon.quantizer.assign import assign, cluster_sums

_SHAPES = [
    (524_288, 2048, 256),
    (1_000_000, 384, 256),
    (1_000_000, 384, 8192),
    (1_000_000, 128, 1024),
    (1_000_000, 64, 256),
]
_QUICK_SHAPES = [(131_072, 384, 256)]
_FEW, _MANY = 2, 6
_TILE_BYTES = 1 << 30

_Run = Callable[[Tensor, Tensor, int], object]
"""(rows N×D, first centroids K×D, iterations)."""


def lloyd_table(device: Device, quick: bool) -> None:
    """Print the table of iterations."""
    shapes = _QUICK_SHAPES if quick else _SHAPES
    contenders: dict[str, _Run] = {"semid": _semid}
    if _peers.HAS_FLASH:
        contenders["flash-kmeans"] = _flash
    contenders["torch, float32"] = lambda *arguments: _torch(*arguments, tf32=False)
    contenders["torch, TF32"] = lambda *arguments: _torch(*arguments, tf32=True)
    columns = [_iteration_ms(contenders, *shape, rounds=3 if quick else 5, device=device) for shape in shapes]
    heading("One Lloyd iteration on cuda: milliseconds")
    table(
        ["method", *(f"N={rows:,} D={dim} K={size}" for rows, dim, size in shapes)],
        [[name, *(f"{column[name]:.2f}" for column in columns)] for name in contenders],
    )
    note(
        f"Medians over alternating rounds of the difference between {_MANY} iterations and {_FEW}, by {_MANY - _FEW}. "
        "float32 rows, assignment and new means; flash-kmeans by batch_kmeans_Euclid."
    )


def _iteration_ms(
    contenders: dict[str, _Run], rows: int, dim: int, size: int, rounds: int, device: Device
) -> dict[str, float]:
    progress(f"lloyd: {rows:,} rows, D={dim}, K={size}")
    rows_ND = mixture(rows, dim, seed=dim, device=device)
    first_KD = rows_ND[:size].clone()
    runs = [
        lambda run=run, iterations=iterations: run(rows_ND, first_KD, iterations)
        for run in contenders.values()
        for iterations in (_FEW, _MANY)
    ]
    for run in runs:
        run()
    elapsed = alternate(runs, rounds, device).reshape(rounds, len(contenders), 2)
    medians = np.median(elapsed[:, :, 1] - elapsed[:, :, 0], axis=0) / (_MANY - _FEW)
    return dict(zip(contenders, (1e3 * medians).tolist(), strict=True))


def _semid(rows_ND: Tensor, centroids_KD: Tensor, iterations: int) -> Tensor:
    for _ in range(iterations):
        labels_N, _ = assign(rows_ND, centroids_KD)
        sums_KD, counts_K = cluster_sums(rows_ND, labels_N, len(centroids_KD))
        centroids_KD = torch.where(counts_K[:, None] > 0, sums_KD / counts_K.clamp_min(1)[:, None], centroids_KD)
    return centroids_KD


def _flash(rows_ND: Tensor, centroids_KD: Tensor, iterations: int) -> object:
    from flash_kmeans import batch_kmeans_Euclid

    return batch_kmeans_Euclid(
        rows_ND[None], len(centroids_KD), max_iters=iterations, tol=-1.0, init_centroids=centroids_KD[None]
    )


def _torch(rows_ND: Tensor, centroids_KD: Tensor, iterations: int, tf32: bool) -> Tensor:
    tile_rows = _TILE_BYTES // (4 * len(centroids_KD))
    with _peers.matmul_precision(tf32):
        for _ in range(iterations):
            squares_K = centroids_KD.square().sum(dim=1)
            labels_N = torch.cat(
                [
                    torch.addmm(squares_K, tile_ND, centroids_KD.T, alpha=-2).argmin(dim=1)
                    for tile_ND in rows_ND.split(tile_rows)
                ]
            )
            sums_KD = torch.zeros_like(centroids_KD).index_add_(0, labels_N, rows_ND)
            counts_K = torch.bincount(labels_N, minlength=len(centroids_KD))
            centroids_KD = torch.where(counts_K[:, None] > 0, sums_KD / counts_K.clamp_min(1)[:, None], centroids_KD)
    return centroids_KD
