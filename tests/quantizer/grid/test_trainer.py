"""GRID's schedule as the daemon's trainer: codebooks of any size."""

import numpy as np
import pytest
import torch

from semid_daemon.quantizer import GridTrainer
from semid_daemon.quantizer.grid.kmeans import DEFAULT_INIT_BUFFER_SIZE


@pytest.mark.slow
def test_more_codes_than_grids_own_buffer_holds() -> None:
    codes = DEFAULT_INIT_BUFFER_SIZE + 128
    trainer = GridTrainer(
        n_layers=1,
        n_clusters=codes,
        normalize_residuals=True,
        seed=0,
        device=torch.device("cpu"),
    )
    rows_ND = np.random.default_rng(0).standard_normal((codes, 4)).astype(np.float32)

    for _ in trainer.train(rows_ND):
        pass

    assert trainer.codebooks.centroids_LKD.shape == (1, codes, 4)
    first_KD = trainer.codebooks.centroids_LKD[0]
    assert len(np.unique(first_KD, axis=0)) == codes  # every row became a centroid of its own
