"""Codebooks as a FAISS index, which gives the same codes."""

from __future__ import annotations

import sys
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch

from semid_daemon.base.errors import SemidError
from semid_daemon.base.types import Codebooks, FloatArray
from semid_daemon.quantizer import Encoder
from semid_daemon.store.read.export_items import Selection
from tests.export.published import K, Published, write


def test_faiss_gives_the_same_codes(packages: Published, tmp_path: Path):
    """FAISS's own `read_index`, and codes from `sa_encode`, which calls ResidualQuantizer::compute_codes."""
    out = tmp_path / "codebooks.faiss"
    write(packages, "faiss", out)
    index = faiss.read_index(str(out))
    assert (type(index).__name__, index.ntotal, index.rq.max_beam_size) == ("IndexResidualQuantizer", 0, 1)
    reader = faiss.unpack_bitstrings(index.sa_encode(packages.embeddings_ND), 3, 5)
    ours = Encoder(packages.codebooks, torch.device("cpu")).encode(packages.embeddings_ND)
    differ = np.flatnonzero((reader != ours).any(axis=1))
    # FAISS decides in float32: where two codes are equally near but for rounding, either may win.
    assert all(margin(packages.codebooks, packages.embeddings_ND[row]) < 1e-5 for row in differ)
    assert len(differ) <= 3


def margin(codebooks: Codebooks, embedding_D: FloatArray) -> float:
    """By how much, at its closest decision, the best code of a row beats the second best (float64)."""
    residual_D, closest = embedding_D.astype(np.float64), np.inf
    for centroids_KD in codebooks.centroids_LKD.astype(np.float64):
        squares_K = ((residual_D - centroids_KD) ** 2).sum(axis=1)
        best, second = np.sort(squares_K)[:2]
        closest = min(closest, float(second - best))
        residual_D = residual_D - centroids_KD[squares_K.argmin()]
    return closest


def test_faiss_that_is_not_installed_is_told(packages: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(SemidError, match=r"pip install 'semid\[faiss\]'"):
        write(packages, "faiss", tmp_path / "x")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"normalize_residuals": True}, "subtracts without normalizing"),
        ({"beam_width": 4}, "greedy"),
        ({"biases_LK": np.ones((3, K), np.float32)}, "greedy"),
        ({"centroids_LKD": np.ones((3, 30, 384), np.float32)}, "2\\^n codes"),
    ],
)
def test_faiss_is_refused_where_it_would_be_another_function(
    packages: Published, tmp_path: Path, change: dict, reason: str
):
    settings = {"centroids_LKD": packages.codebooks.centroids_LKD, "normalize_residuals": False, **change}
    other = Published(packages.database, [], Codebooks(**settings), packages.embeddings_ND)
    with pytest.raises(SemidError, match=reason):
        write(other, "faiss", tmp_path / "x")
    with pytest.raises(SemidError, match="holds no items"):
        write(packages, "faiss", tmp_path / "x", Selection(prefix="1"))
    assert list(tmp_path.iterdir()) == []
