"""Mini-batch k-means as one layer of a residual quantizer.

The algorithm is Sculley's ("Web-scale k-means clustering", WWW 2010) as GRID writes it
(arXiv 2507.22224): a loss whose gradient step of 0.5 is the k-means update.

Shape suffixes: N rows, D dim, K centroids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple, Protocol, overload

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from semid_daemon.quantizer.distance import DistanceFunction, full_float32_matmul, precise
from semid_daemon.quantizer.grid.initializers import Initializer
from semid_daemon.quantizer.grid.losses import WeightedSquaredError

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
LossFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(centroids_PD, means_PD, weights_P) -> loss, over the P clusters present in a batch."""

DEFAULT_INIT_BUFFER_SIZE = 3072


class HasCompute(Protocol):
    """A distance of another program: only what GRID asks of one."""

    def compute(self, x: Tensor, y: Tensor) -> Tensor:
        """Distances N×K of rows N×D and centroids K×D."""


class LayerStep(NamedTuple):
    """What one batch did in a layer: codes N int64, embeddings N×D, and the loss to minimize."""

    assignments: Tensor
    embeddings: Tensor
    loss: Tensor


class MiniBatchKMeans(nn.Module):
    """One codebook of K centroids, trained batch by batch.

    The first `init_buffer_size` rows go to `initializer` (any callable buffer N×D -> centroids
    K×D); the batch that completes them sets the centroids. Every later `model_step` pulls the
    centroids of the clusters in the batch towards the means of their rows, with the weight
    (rows in this batch) / (rows so far): through its loss and an optimizer (SGD with lr=0.5 is
    k-means), or at once if `update_manually`. `optimizer` is a factory `parameters ->
    Optimizer`: the one that `train` uses for this layer if it is given none.

    State, all of it in `state_dict`: `centroids` K×D, `cluster_counts` K int64 (rows so far,
    those of the buffer not counted), `init_buffer`, `is_initial_step` (the centroids are
    set, no step was done yet) and `is_initialized` (a step was done since).

    Rows are taken in the dtype of the centroids. Raises ValueError for a batch that is not
    N×n_features, for training on an empty one, and for sizes that cannot work.
    """

    centroids: nn.Parameter
    cluster_counts: Tensor
    init_buffer: Tensor

    def __init__(
        self,
        n_clusters: int,
        n_features: int,
        distance_function: DistanceFunction | HasCompute,
        initializer: Initializer,
        loss_function: LossFunction | None = None,
        optimizer: OptimizerFactory | None = None,
        init_buffer_size: int = DEFAULT_INIT_BUFFER_SIZE,
        update_manually: bool = False,
    ) -> None:
        super().__init__()
        if n_clusters < 1 or n_features < 1:
            raise ValueError(f"n_clusters ({n_clusters}) and n_features ({n_features}) must be at least 1")
        self.n_clusters = n_clusters
        self.n_features = n_features
        self.distance_function = distance_function
        self.initializer = initializer
        self.loss_function = loss_function if loss_function is not None else WeightedSquaredError()
        self.optimizer = optimizer
        self.init_buffer_size = init_buffer_size
        self.update_manually = update_manually
        self.is_initialized = False
        self.is_initial_step = False
        self.centroids = nn.Parameter(torch.zeros(n_clusters, n_features))
        self.register_buffer("cluster_counts", torch.zeros(n_clusters, dtype=torch.int64))
        self.register_buffer("init_buffer", torch.zeros(0, n_features))

    @property
    def init_buffer_size(self) -> int:
        """Rows to see before the centroids are set; at least `n_clusters`."""
        return self._init_buffer_size

    @init_buffer_size.setter
    def init_buffer_size(self, rows: int) -> None:
        if rows < self.n_clusters:
            raise ValueError(f"init_buffer_size ({rows}) must be at least n_clusters ({self.n_clusters})")
        self._init_buffer_size = rows

    @property
    def is_set(self) -> bool:
        """Whether the layer has centroids: from its buffer, from a file or by hand."""
        return self.is_initialized or self.is_initial_step or bool(self.centroids.detach().any())

    @property
    def missing_rows(self) -> str:
        """How far the buffer is from full, in words."""
        held = len(self.init_buffer)
        return (
            f"its buffer holds {held} of {self.init_buffer_size} rows, {self.init_buffer_size - held} are missing "
            "(train on more rows, or lower init_buffer_size)"
        )

    @property
    def has_started(self) -> bool:
        """Whether the layer has seen any row to train on."""
        return self.is_initialized or self.is_initial_step or len(self.init_buffer) > 0

    def forward(self, batch_ND: Tensor) -> Tensor:
        """The code of every row, N int64. Never trains."""
        rows_ND, centroids_KD = self._rows(batch_ND), self.centroids.detach()
        if isinstance(self.distance_function, DistanceFunction):
            return self.distance_function.nearest(rows_ND, centroids_KD)
        return self.distance_function.compute(rows_ND, centroids_KD).argmin(dim=1)

    def training_step(self, batch_ND: Tensor) -> Tensor:
        """The loss of a `model_step`, to be followed by the caller's optimizer."""
        return self.model_step(batch_ND).loss

    def get_centroids(self) -> nn.Parameter:
        """The centroids, K×D."""
        return self.centroids

    def get_residuals(self, batch_ND: Tensor) -> Tensor:
        """What every row's nearest centroid leaves over, N×D. Raises RuntimeError before the centroids are set."""
        return self._rows(batch_ND) - self.predict_step(batch_ND)[1]

    @overload
    def predict_step(self, batch_ND: Tensor, return_embeddings: Literal[True] = True) -> tuple[Tensor, Tensor]: ...
    @overload
    def predict_step(self, batch_ND: Tensor, return_embeddings: Literal[False]) -> Tensor: ...
    @torch.no_grad()
    def predict_step(self, batch_ND: Tensor, return_embeddings: bool = True) -> Tensor | tuple[Tensor, Tensor]:
        """The code of every row (N int64) and, with `return_embeddings`, its centroid (N×D). Changes no state.

        Raises RuntimeError before the centroids are set.
        """
        batch_ND = self._rows(batch_ND)
        if not self.is_set:
            raise RuntimeError(f"the layer has no centroids yet: {self.missing_rows}")
        assignments_N = self.forward(batch_ND)
        return (assignments_N, self.centroids[assignments_N]) if return_embeddings else assignments_N

    def model_step(self, batch_ND: Tensor) -> LayerStep:
        """Learn from a batch: fill the buffer, or one step of k-means.

        The embeddings are those of the centroids before the step. With an optimizer, the step
        is done when it has followed the gradient of the loss; with `update_manually` it is
        done on return, and the loss has no gradient.
        """
        batch_ND = self._rows(batch_ND).detach()
        if len(batch_ND) == 0:
            raise ValueError("cannot train on an empty batch")
        if self.is_initial_step:
            self.is_initial_step, self.is_initialized = False, True
        if not self.is_initialized:
            return self.initialization_step(batch_ND)

        assignments_N = self.forward(batch_ND)
        present_P, means_PD, weights_P = self._count(batch_ND, assignments_N)
        embeddings_ND = self.centroids[assignments_N]
        if not self.update_manually:
            loss = self.loss_function(self.centroids[present_P], means_PD, weights_P)
            return LayerStep(assignments_N, embeddings_ND, loss)
        with torch.no_grad():
            centroids_PD = self.centroids[present_P]
            loss = self.loss_function(centroids_PD, means_PD, weights_P)
            self.centroids[present_P] = centroids_PD - weights_P[:, None] * (centroids_PD - means_PD)
        return LayerStep(assignments_N, embeddings_ND, loss)

    def initialization_step(self, batch_ND: Tensor) -> LayerStep:
        """Add a batch to the buffer; if that completes it, set the centroids.

        Rows beyond `init_buffer_size` are not learned from. Until the buffer is full the codes
        and embeddings are zero. The loss is ‖centroids - first centroids‖², as in GRID, whose
        optimizer moves the centroids there; here they are set, so that any optimizer does,
        and the gradient of the loss is zero.

        Raises ValueError where the initializer does not give K×D finite centroids.
        """
        batch_ND = self._rows(batch_ND).detach()
        missing = self.init_buffer_size - len(self.init_buffer)
        self.init_buffer = torch.cat([self.init_buffer, batch_ND[:missing]])
        if len(self.init_buffer) < self.init_buffer_size:
            codes_N = torch.zeros(len(batch_ND), dtype=torch.int64, device=batch_ND.device)
            return LayerStep(codes_N, torch.zeros_like(batch_ND), self._still_loss(0.0))

        first_KD = self.initializer(self.init_buffer).to(self.centroids)
        if first_KD.shape != self.centroids.shape:
            raise ValueError(
                f"the initializer gave centroids of shape {tuple(first_KD.shape)}, "
                f"the layer needs {tuple(self.centroids.shape)}"
            )
        if not first_KD.isfinite().all():
            raise ValueError("the initializer gave centroids that are not finite")
        with torch.no_grad():
            moved = (self.centroids - first_KD).square().sum()
            self.centroids.copy_(first_KD)
        self.is_initial_step = True
        self.init_buffer = self.init_buffer.new_zeros(0, self.n_features)
        return LayerStep(*self.predict_step(batch_ND), self._still_loss(moved))

    def _count(self, batch_ND: Tensor, assignments_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Count a batch in; its P clusters, their means P×D and their weights P."""
        counts_K = assignments_N.bincount(minlength=self.n_clusters)
        self.cluster_counts += counts_K
        present_P = counts_K.nonzero()[:, 0]
        sums_KD = self._cluster_sums(batch_ND, assignments_N)
        counts_P = counts_K[present_P].to(batch_ND.dtype)
        weights_P = counts_P / self.cluster_counts[present_P].to(batch_ND.dtype)
        means_PD = sums_KD[present_P] / counts_P[:, None]
        return present_P, means_PD.to(batch_ND.dtype), weights_P

    def _cluster_sums(self, batch_ND: Tensor, assignments_N: Tensor) -> Tensor:
        """The sum of every cluster's rows, K×D: on the CPU by GRID's product, which rounds as GRID does."""
        if batch_ND.device.type == "cpu":
            one_hot_NK = batch_ND.new_zeros(len(batch_ND), self.n_clusters)
            one_hot_NK.scatter_(1, assignments_N[:, None], 1.0)
            with full_float32_matmul(batch_ND.device):
                return torch.mm(one_hot_NK.t(), batch_ND)
        # In float64, so that the order in which a device adds up does not show in the means.
        wide_ND = batch_ND.to(precise(batch_ND.device))
        sums_KD = torch.zeros(self.centroids.shape, dtype=wide_ND.dtype, device=wide_ND.device)
        return sums_KD.index_add_(0, assignments_N, wide_ND)

    def _still_loss(self, value: Tensor | float) -> Tensor:
        """A loss of that value that can be followed like any other, to no effect."""
        still = (self.centroids - self.centroids.detach()).square().sum() + value
        return still.detach() if self.update_manually else still

    def _rows(self, batch_ND: Tensor) -> Tensor:
        if batch_ND.ndim != 2 or batch_ND.shape[1] != self.n_features:
            raise ValueError(f"the layer takes rows of {self.n_features} values, not {tuple(batch_ND.shape)}")
        return batch_ND.to(self.centroids.dtype)

    def get_extra_state(self) -> dict[str, bool]:
        return {"is_initialized": self.is_initialized, "is_initial_step": self.is_initial_step}

    def set_extra_state(self, state: Mapping[str, bool]) -> None:
        self.is_initialized = state["is_initialized"]
        self.is_initial_step = state["is_initial_step"]

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        # The buffer holds as many rows as were seen; torch loads only into a tensor of equal shape.
        saved = state_dict.get(prefix + "init_buffer")
        if saved is not None and saved.shape[1:] == self.init_buffer.shape[1:]:
            self.init_buffer = self.init_buffer.new_zeros(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)
        if prefix + "centroids" in state_dict and prefix + "_extra_state" not in state_dict:
            # GRID's: it holds the centroids only, and says elsewhere in its checkpoint which layers were trained.
            self.is_initialized, self.is_initial_step = bool(self.centroids.detach().any()), False
            self.cluster_counts.zero_()
            self.init_buffer = self.init_buffer.new_zeros(0, self.n_features)
            missing_keys = rest[2]
            for name in ("_extra_state", "cluster_counts", "init_buffer"):
                if prefix + name in missing_keys:
                    missing_keys.remove(prefix + name)
