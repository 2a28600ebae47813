"""GRID's schedule as the daemon's trainer: codebooks of any size."""

import numpy as np
import pytest
import torch
from torch import Tensor

from semid_daemon.quantizer import GridTrainer, MiniBatchKMeans
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


def test_rows_without_a_residual_are_kept_out_of_the_next_layers() -> None:
    # 40 of the 100 rows are copies of four points far away, which become centroids of the first layer.
    generator = np.random.default_rng(0)
    near_ND = generator.standard_normal((60, 8)).astype(np.float32)
    copies_ND = np.repeat(100 * np.eye(8, dtype=np.float32)[:4], 10, axis=0)
    rows_ND = np.concatenate([near_ND, copies_ND])

    def trained(**options: float) -> tuple[int, np.ndarray]:
        """Rows counted in the second layer, and its centroids."""
        trainer = GridTrainer(
            n_layers=2, n_clusters=8, normalize_residuals=False, seed=0, device=torch.device("cpu"), **options
        )
        counted: list[int] = []
        count = MiniBatchKMeans._count

        def watched(layer: MiniBatchKMeans, batch_ND: Tensor, codes_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            counted.append(len(batch_ND))
            return count(layer, batch_ND, codes_N)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(MiniBatchKMeans, "_count", watched)
            for _ in trainer.train(rows_ND):
                pass
        return counted[-1], trainer.codebooks.centroids_LKD[1]

    rows_of_default, default_KD = trained()
    rows_of_grid, grid_KD = trained(least_residual=0)
    assert (rows_of_default, rows_of_grid) == (60, 100)
    assert not np.array_equal(default_KD, grid_KD)


def test_where_most_rows_have_no_residual_all_are_learned_from() -> None:
    rows_ND = np.ones((50, 4), dtype=np.float32)
    trainer = GridTrainer(n_layers=2, n_clusters=2, normalize_residuals=True, seed=0, device=torch.device("cpu"))
    with pytest.warns(UserWarning, match="distinct rows"):
        steps = list(trainer.train(rows_ND))
    assert len(steps) == trainer.max_steps + 2
