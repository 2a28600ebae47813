"""Fixtures that tests of several rooms share."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from semid_daemon.base.types import FloatArray
from semid_daemon.config import Config, load_config
from tests.catalogues import SMALL, Rows


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


@pytest.fixture
def catalogue(tmp_path: Path) -> Config:
    """A configured catalogue for small files: 3 layers of 8 codes, trained from 64 rows, chunks of 50."""
    (tmp_path / "semid.toml").write_text(SMALL)
    (tmp_path / "drop").mkdir()
    return load_config(tmp_path / "semid.toml")
