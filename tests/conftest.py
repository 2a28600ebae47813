"""What tests of several rooms share: small catalogues made of real files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from semid_daemon.config import Config, load_config
from semid_daemon.records import FloatArray

Rows = Callable[..., FloatArray]  # `clustered`, below


@pytest.fixture(scope="session")
def popular() -> tuple[list[str], FloatArray]:
    """The bundled sample: 3,618 names of packages and their embeddings (×384 float32)."""
    with files("semid_daemon.sample").joinpath("packages-popular.npz").open("rb") as file, np.load(file) as arrays:
        return arrays["item_ids"].tolist(), arrays["embeddings"].astype(np.float32)


@pytest.fixture(scope="session")
def clustered() -> Rows:
    """Rows around random centres: `clustered(rows, dim, seed)`."""

    def make(rows: int, dim: int, seed: int = 0, centres: int = 24) -> FloatArray:
        random = np.random.default_rng(seed)
        centres_KD = np.random.default_rng(99).normal(size=(centres, dim))
        rows_ND = centres_KD[random.integers(centres, size=rows)] + 0.3 * random.normal(size=(rows, dim))
        return rows_ND.astype(np.float32)

    return make


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


@pytest.fixture
def catalogue(tmp_path: Path) -> Config:
    """A configured catalogue for small files: 3 layers of 8 codes, trained from 64 rows, chunks of 50."""
    (tmp_path / "semid.toml").write_text(SMALL)
    (tmp_path / "drop").mkdir()
    return load_config(tmp_path / "semid.toml")


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
