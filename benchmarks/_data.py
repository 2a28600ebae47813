"""The rows that are measured: synthetic mixtures, and real packages from files or from the bundled sample."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from semid_daemon.base.types import FloatArray

_COARSE, _FINE = 400, 2000
_CHUNK_ROWS = 1 << 16


def mixture(rows: int, dim: int, seed: int, device: torch.device | str = "cpu") -> Tensor:
    """Unit rows (N×D float32) that cluster as embeddings do: topics of unequal size, subtopics, and noise.

    Every part's variance falls with the dimension's index as 1/sqrt(index). The random streams differ by device.
    """
    generator = torch.Generator(device).manual_seed(seed)
    spectrum_D = torch.arange(1, dim + 1, device=device).float().pow(-0.25)
    spectrum_D /= torch.linalg.vector_norm(spectrum_D)

    def normal(count: int) -> Tensor:
        return torch.randn((count, dim), generator=generator, device=device) * spectrum_D

    coarse_KD, fine_KD = normal(_COARSE), normal(_FINE)
    weights_K = torch.arange(1, _COARSE + 1, device=device).float().pow(-0.5)
    rows_ND = torch.empty((rows, dim), device=device)
    for start in range(0, rows, _CHUNK_ROWS):
        chunk_ND = rows_ND[start : start + _CHUNK_ROWS]
        count = len(chunk_ND)
        topics_N = torch.multinomial(weights_K, count, replacement=True, generator=generator)
        subtopics_N = torch.randint(_FINE, (count,), generator=generator, device=device)
        chunk_ND.copy_(coarse_KD[topics_N]).add_(fine_KD[subtopics_N], alpha=0.7).add_(normal(count), alpha=0.8)
        chunk_ND.div_(torch.linalg.vector_norm(chunk_ND, dim=1, keepdim=True))
    return rows_ND


def packages(data: Path | None) -> tuple[FloatArray, dict[str, FloatArray]]:
    """Rows to train on, and sets of rows to judge by, each with its name.

    From a directory with `2005-2024.npz` and later months, the base and the newest month; without one, the
    bundled sample, of which the first 80% train and the rest judges.
    """
    if data is None:
        with files("semid_daemon.sample").joinpath("packages-popular.npz").open("rb") as sample:
            rows_ND = _embeddings(sample)
        cut = len(rows_ND) * 4 // 5
        return rows_ND[:cut], {"sample, first 80%": rows_ND[:cut], "sample, last 20%": rows_ND[cut:]}
    base_ND = _embeddings(data / "2005-2024.npz")
    newest = max(data.glob("[0-9][0-9][0-9][0-9]-[0-9][0-9].npz"))
    return base_ND, {"2005-2024": base_ND, newest.stem: _embeddings(newest)}


def _embeddings(source: Path | IO[bytes]) -> FloatArray:
    with np.load(source) as arrays:
        return np.ascontiguousarray(arrays["embeddings"], dtype=np.float32)
