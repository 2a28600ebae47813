"""GRID's own training schedule (`rkmeans_train_flat`, arXiv 2507.22224) on gathered rows, for parity."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from semid_daemon.base.types import Codebooks, FloatArray, TrainingStep
from semid_daemon.quantizer.distance import SquaredEuclideanDistance
from semid_daemon.quantizer.grid.initializers import KMeansPlusPlusInitInitializer
from semid_daemon.quantizer.grid.kmeans import DEFAULT_INIT_BUFFER_SIZE, MiniBatchKMeans
from semid_daemon.quantizer.grid.residual import ResidualQuantization
from semid_daemon.quantizer.grid.train import train

MAX_STEPS = 30  # of all layers together, which share them equally
BATCH_ROWS = 2048
LEAST_RESIDUAL = 1e-5  # of a layer's input; below is float32's rounding


class GridTrainer:
    """Mini-batch residual k-means, layer after layer, over consecutive batches of shuffled rows.

    Of GRID's settings only the buffer grows: to `n_clusters` rows, where that is more than GRID's 3,072.
    The interface is LloydTrainer's: iterate `train(...)`, then read `codebooks`. Rows that leave a layer a residual
    of less than `least_residual` (relative) are kept out of the next layer's training. 0 is GRID's own rule: where
    its k-means++ then draws a zero residual, the layer is left with few codes in use.
    """

    def __init__(
        self,
        *,
        n_layers: int,
        n_clusters: int,
        normalize_residuals: bool,
        seed: int,
        device: torch.device,
        least_residual: float = LEAST_RESIDUAL,
    ) -> None:
        self._n_layers = n_layers
        self._n_clusters = n_clusters
        self._normalize = normalize_residuals
        self._seed = seed
        self._device = device
        self._least_residual = least_residual
        self._codebooks: Codebooks | None = None

    @property
    def max_steps(self) -> int:
        """How many steps `train` takes at most, without the batches that initialize a layer."""
        return MAX_STEPS

    @property
    def codebooks(self) -> Codebooks:
        """The trained codebooks. Raises RuntimeError before `train` has been run to its end."""
        if self._codebooks is None:
            raise RuntimeError("train() has not finished")
        return self._codebooks

    def train(self, embeddings_ND: FloatArray) -> Iterator[TrainingStep]:
        """Train on embeddings (N×D float32, finite); the loss is GRID's weighted squared error."""
        rows, dim = embeddings_ND.shape
        buffer_rows = min(max(DEFAULT_INIT_BUFFER_SIZE, self._n_clusters), rows)
        distance = SquaredEuclideanDistance()
        generator = torch.Generator().manual_seed(self._seed)
        model = ResidualQuantization(
            n_layers=self._n_layers,
            quantization_layer=MiniBatchKMeans(
                n_clusters=self._n_clusters,
                n_features=dim,
                distance_function=distance,
                initializer=KMeansPlusPlusInitInitializer(
                    self._n_clusters, distance, initialize_on_cpu=True, generator=generator
                ),
                init_buffer_size=buffer_rows,
            ),
            normalize_residuals=self._normalize,
            track_residuals=False,
            verbose=False,
            least_residual=self._least_residual,
        ).to(self._device)
        model.train()
        yield from train(model, self._batches(embeddings_ND, buffer_rows, generator), max_steps=MAX_STEPS)
        centroids_LKD = torch.stack([layer.centroids.detach() for layer in model.layers])
        self._codebooks = Codebooks(centroids_LKD.cpu().numpy().astype(np.float32), self._normalize)

    def refine(self, batches: Callable[[], Iterable[FloatArray]], epochs: int) -> Iterator[TrainingStep | None]:
        """Nothing: GRID's schedule has its own number of steps, on the rows that it is given."""
        return iter(())

    def _batches(self, embeddings_ND: FloatArray, buffer_rows: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Whole batches of the rows in a shuffled order, again from the first when they run out.

        One batch of all rows where the whole batches hold too few of them to fill the buffer without repeats.
        """
        rows = embeddings_ND.shape[0]
        size = min(BATCH_ROWS, rows)
        if rows - rows % size < buffer_rows:
            size = rows
        order = torch.randperm(rows, generator=generator).numpy()
        while True:
            for start in range(0, rows - size + 1, size):
                yield torch.from_numpy(embeddings_ND[order[start : start + size]]).to(self._device)
