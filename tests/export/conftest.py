"""Catalogues to export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from semid_daemon.base.types import Codebooks, EmbeddingBatch, FloatArray
from semid_daemon.codebooks.files import save_codebooks
from semid_daemon.quantizer import LloydTrainer
from semid_daemon.store.write.generations import NewGeneration
from semid_daemon.store.write.store import Store
from tests.export.published import K, Published, publish, read_back


@pytest.fixture(scope="session")
def packages(popular: tuple[list[str], FloatArray], tmp_path_factory: pytest.TempPathFactory) -> Published:
    """3,618 packages in 3 layers of 32 codes, residuals as they are."""
    item_ids, embeddings_ND = popular
    trainer = LloydTrainer(
        n_layers=3,
        n_clusters=K,
        normalize_residuals=False,
        seed=1,
        device=torch.device("cpu"),
        iterations=4,
        tolerance=0.01,
    )
    for _ in trainer.train(embeddings_ND):
        pass
    published = publish(tmp_path_factory.mktemp("packages"), trainer.codebooks, item_ids, embeddings_ND, 2000)
    assert sum(row.bucket > 1 for row in published.rows) > 100
    return published


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., Published]:
    """Publishes items with the codes given: `small(["a", "b"], [[0, 1], [0, 1]])`."""

    def make(item_ids: list[str], codes: list[list[int]], **policy: object) -> Published:
        random = np.random.default_rng(0)
        codebooks = Codebooks(random.normal(size=(len(codes[0]), 4, 2)).astype(np.float32), False)
        with Store(tmp_path / "semid.db") as store:
            fingerprint = save_codebooks(tmp_path / "codebooks", codebooks, {})
            store.generations.publish(NewGeneration(fingerprint, codebooks, trained_rows=1, **policy))
            ledger = store.files.record_sighting("a.npz", "sig", "digest", 1)
            rows = len(item_ids)
            ledger = store.files.begin_loading(ledger.id, rows=rows, dim=2, generation=1, chunk_rows=rows)
            embeddings_ND = random.normal(size=(rows, 2)).astype(np.float32)
            batch = EmbeddingBatch(0, rows, item_ids, embeddings_ND)
            store.chunks.commit(ledger, batch, np.array(codes, dtype=np.int32))
        return read_back(tmp_path / "semid.db", codebooks, embeddings_ND)

    return make
