"""Catalogues that tests of several commands share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semid_daemon.config import Config, load_config
from tests.catalogues import SMALL, Rows, drop_npz, ids
from tests.cli.tools import invoke, semid
from tests.faults.tools import configured, run


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A catalogue made by `semid init`, then configured small."""
    made = semid("init", tmp_path)
    assert made.returncode == 0, made.stderr
    (tmp_path / "semid.toml").write_text(SMALL)
    return tmp_path


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory, clustered: Rows) -> Path:
    """A catalogue of 170 items, all encoded; its daemon stopped."""
    root = tmp_path_factory.mktemp("encoded")
    assert invoke("init", root).exit_code == 0
    (root / "semid.toml").write_text(SMALL)
    drop_npz(root / "drop", "a.npz", ids("a", 170), clustered(170, 16, seed=1))
    run(load_config(root / "semid.toml"))
    return root


@pytest.fixture
def rows(tmp_path: Path, clustered: Rows) -> Path:
    """20 rows with fields of their own names, one of them with a NaN and one of zeros."""
    embeddings_ND = clustered(20, 16, seed=9)
    embeddings_ND[3, 5] = np.nan
    embeddings_ND[4] = 0
    np.savez(tmp_path / "rows.npz", clip=embeddings_ND, sku=np.array(ids("s", 20)))
    return tmp_path / "rows.npz"


@pytest.fixture(scope="module")
def grown(tmp_path_factory, clustered: Rows) -> Config:
    """A catalogue of 500 items with generation 2 ready beside generation 1."""
    config = configured(tmp_path_factory.mktemp("grown"))
    drop_npz(config.drop_dir, "a.npz", ids("a", 200), clustered(200, 16))
    run(config)
    drop_npz(config.drop_dir, "b.npz", ids("b", 300), clustered(300, 16, seed=1) + 0.5)
    run(config)
    asked = invoke("train", "-c", config.root / "semid.toml")
    assert asked.exit_code == 0
    assert "the daemon does not answer; the command waits for it in" in asked.stderr
    run(config)
    return config
