"""Small catalogues made of real files, for tests of several rooms."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semid_daemon.base.types import FloatArray

Rows = Callable[..., FloatArray]  # the fixture `clustered`

SMALL = """
[drop]
settle_ms = 20
incomplete_grace_s = 0
[quantizer]
layers = 3
codebook_size = 8
device = "cpu"
[training]
min_rows = 64
iterations = 5
[ingest]
chunk_rows = 50
[generations]
"""


def ids(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def drop_npz(drop_dir: Path, name: str, item_ids: Sequence[str], embeddings_ND: npt.NDArray[np.floating]) -> Path:
    """Drop a file the way producers should: written under a hidden name, then renamed."""
    path = drop_dir / name
    partial = path.with_name(f".{path.name}.tmp")
    with partial.open("wb") as file:
        np.savez(file, item_ids=np.array(item_ids), embeddings=embeddings_ND)
    os.rename(partial, path)
    return path
