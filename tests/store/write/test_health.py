"""Codebook health against the values that TorchEasyRec's own accumulator gives, and by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from semid_daemon.base.types import Codebooks, EmbeddingBatch
from semid_daemon.store.read.status import read_status
from semid_daemon.store.write.generations import NewGeneration
from semid_daemon.store.write.health import layer_health
from semid_daemon.store.write.store import Store

DATA = Path(__file__).parents[2] / "data"
EXPECTED = json.loads((DATA / "sid_metrics.json").read_text())


def test_by_hand():
    used, dead, empty = layer_health(np.array([[1, 1, 1, 1], [2, 0, 2, 0], [0, 0, 0, 0]]))
    assert (used.coverage, used.dead_codes, used.perplexity) == (1.0, 0, pytest.approx(4.0))
    assert (dead.coverage, dead.dead_codes, dead.perplexity) == (0.5, 2, pytest.approx(2.0))
    assert (empty.coverage, empty.dead_codes, empty.perplexity) == (0.0, 4, 0.0)
    assert layer_health(np.array([[3, 1]]))[0].perplexity == pytest.approx(
        math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    )


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_golden_codes(name: str, tmp_path: Path):
    """The counters that chunks keep up to date give TorchEasyRec's metrics for whole catalogues."""
    with np.load(DATA / "sid_codes.npz") as arrays:
        codes_NL = arrays[name].astype(np.int32)
    expected = EXPECTED[name]
    rows, layers = codes_NL.shape
    codebook_size = expected["layers"][0]["codebook_size"]
    with Store(tmp_path / "semid.db") as store:
        codebooks = Codebooks(np.zeros((layers, codebook_size, 1), dtype=np.float32), True)
        store.generations.publish(NewGeneration("f", codebooks, trained_rows=rows))
        ledger = store.files.record_sighting("a.npz", "s", "d", 1)
        ledger = store.files.begin_loading(ledger.id, rows=rows, dim=1, generation=1, chunk_rows=1000)
        for start in range(0, rows, 1000):
            ids = [f"item {row}" for row in range(start, min(start + 1000, rows))]
            batch = EmbeddingBatch(start, len(ids), ids, np.zeros((len(ids), 1), dtype=np.float32))
            store.chunks.commit(ledger, batch, codes_NL[start : start + 1000])
    status = read_status(tmp_path / "semid.db")
    assert status.items == expected["total"]
    assert status.unique_rate == pytest.approx(expected["no_collision_rate"], rel=1e-12)
    assert status.singleton_rate == pytest.approx(expected["uniquely_identified_item_rate"], rel=1e-12)
    assert status.max_bucket == expected["max_collision"]
    for layer, wanted in zip(status.layers, expected["layers"], strict=True):
        assert layer.coverage == pytest.approx(wanted["coverage"])
        assert layer.dead_codes == wanted["dead_codes"]
        assert layer.perplexity == pytest.approx(wanted["perplexity"], rel=1e-9)
