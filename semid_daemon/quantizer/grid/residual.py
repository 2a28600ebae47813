"""Residual quantization: layer after layer, each on what the one before left over.

GRID's quantizer (arXiv 2507.22224) without a trainer around it; `training_loop.train` runs it.

Shape suffixes: N rows, D dim, L layers.
"""

from __future__ import annotations

import copy
import logging
import pickle
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from semid_daemon.base.types import FloatArray
from semid_daemon.quantizer.grid.kmeans import DEFAULT_INIT_BUFFER_SIZE, MiniBatchKMeans, OptimizerFactory

logger = logging.getLogger(__name__)

GRID_TRAINING_LOOP = "scale_loss_by_world_size_for_initialization_training_loop"


class Prediction(NamedTuple):
    """Codes N×L int64 and the item IDs of the rows."""

    predictions: Tensor
    item_ids: list[Any]

    def save(self, path: str | Path) -> None:
        """Write the codes as GRID's programs read them: a pickle for .pkl and .pickle, else a tensor.

        The pickle is a list of `{"item_id": id, "cluster_ids": [c0, c1, ...]}`. The tensor (`torch.save`) is
        (L+1)×N int64, a column for each row; the last row is 0 for a row alone with its codes, else its place
        among those that share them, from 1.
        """
        path = Path(path)
        codes_NL = self.predictions.cpu()
        if path.suffix in (".pkl", ".pickle"):
            records = [
                {"item_id": item, "cluster_ids": codes}
                for item, codes in zip(self.item_ids, codes_NL.tolist(), strict=True)
            ]
            path.write_bytes(pickle.dumps(records))
            return
        _, buckets_N, sizes = codes_NL.unique(dim=0, return_inverse=True, return_counts=True)  # type: ignore[no-untyped-call]
        order_N = buckets_N.argsort(stable=True)
        starts = sizes.cumsum(0) - sizes
        places_N = torch.empty_like(buckets_N)
        places_N[order_N] = torch.arange(len(order_N)) - starts[buckets_N[order_N]] + 1
        places_N[sizes[buckets_N] == 1] = 0
        torch.save(torch.cat([codes_NL, places_N[:, None]], dim=1).T.contiguous(), path)


class Quantized(NamedTuple):
    """`forward`'s answer.

    cluster_ids: codes N×L int64. all_residuals: what each layer left over, N×D×L, or None unless
    tracked. quantized_embeddings: the sum of the chosen centroids, N×D. quantization_loss: the
    sum over the layers that learned.
    """

    cluster_ids: Tensor
    all_residuals: Tensor | None
    quantized_embeddings: Tensor
    quantization_loss: Tensor


class ModelStep(NamedTuple):
    """`model_step`'s answer: `forward`'s codes and residuals, and the two parts of the loss."""

    cluster_ids: Tensor
    all_residuals: Tensor | None
    quantization_loss: Tensor
    reconstruction_loss: Tensor


class ResidualQuantization(nn.Module):
    """L layers of `MiniBatchKMeans`, each coding the residual of the layers before it.

    The layers are `n_layers` independent copies of `quantization_layer`, or those of
    `quantization_layer_list`; random generators of initializers are shared by the copies.
    `init_buffer_size` may be set here or on the layers: a value other than the default
    (3072) holds for both, and two such values that differ are a ValueError.

    normalize_residuals: every layer's input is L2-normalized, the first layer's too; a zero
        row stays zero.
    train_layer_wise: in training mode only `current_layer` learns; the layers below it are frozen
        and those above give zeros. Otherwise the layers are initialized one after the other,
        then all learn from every batch.
    quantization_loss_weight, reconstruction_loss_weight: the loss is their weighted sum. The
        reconstruction loss is the mean squared error (over all N·D values) between the sum of
        the chosen centroids and the first layer's input, once the last layer learns; it is
        left out at weight 0, and layers that do not learn get no gradient of it either.
    track_residuals: `forward` and `model_step` return what each layer left over.
    least_residual: a layer above the first does not learn from a row of which the layer below left less than
        this share; where most rows of a batch are such, it learns from all. GRID learns from every row (0): where
        the residual is nothing but rounding, normalized, that is a random direction.
    verbose: log what training does (module `logging`, level INFO).

    optimizer: a factory `parameters -> Optimizer`, which `train` uses where it is given none.
    reconstruction_loss_function: takes the place of the mean squared error.
    The other arguments are GRID's. They are taken where they say what holds here anyway: `input_dim` equal to
        n_features, identities, None, and GRID's own `training_loop_function`, which does nothing in one process.
        Anything else is a TypeError that says why.

    A state of GRID's, of centroids alone, loads too: its layers are then initialized, but for those all zero.
    `state_dict` holds everything that training needs to go on in a new object as if it had not
    stopped, except what is the caller's: the state of the optimizer and of the random generators.
    """

    def __init__(
        self,
        n_layers: int = 3,
        quantization_layer: MiniBatchKMeans | None = None,
        quantization_layer_list: nn.ModuleList | Sequence[MiniBatchKMeans] | None = None,
        init_buffer_size: int = DEFAULT_INIT_BUFFER_SIZE,
        quantization_loss_weight: float = 1.0,
        reconstruction_loss_weight: float = 0.0,
        normalize_residuals: bool = True,
        train_layer_wise: bool = True,
        track_residuals: bool = True,
        verbose: bool = True,
        least_residual: float = 0.0,
        *,
        optimizer: OptimizerFactory | None = None,
        reconstruction_loss_function: Callable[[Tensor, Tensor], Tensor] | None = None,
        input_dim: int | None = None,
        normalization_layer: nn.Module | None = None,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        scheduler: object | None = None,
        training_loop_function: Callable[..., Any] | None = None,
        **others: object,
    ) -> None:
        _refuse_what_cannot_be_honoured(
            normalization_layer, encoder, decoder, scheduler, training_loop_function, others
        )
        super().__init__()
        if n_layers < 1:
            raise ValueError(f"n_layers must be at least 1, not {n_layers}")
        if quantization_layer_list is not None:
            layers = cast(list[MiniBatchKMeans], list(quantization_layer_list))
        elif quantization_layer is not None:
            layers = _independent_copies(quantization_layer, n_layers)
        else:
            raise ValueError("give quantization_layer or quantization_layer_list")
        if len(layers) != n_layers:
            raise ValueError(f"quantization_layer_list has {len(layers)} layers, n_layers is {n_layers}")
        if len({layer.n_features for layer in layers}) > 1:
            raise ValueError("the layers of one quantizer must have the same n_features")
        if input_dim is not None and input_dim != layers[0].n_features:
            raise ValueError(f"input_dim is {input_dim}, the layers have n_features {layers[0].n_features}")
        for layer in layers:
            layer.init_buffer_size = _agreed(init_buffer_size, layer.init_buffer_size)

        self.n_layers = n_layers
        self.quantization_layer_list = nn.ModuleList(layers)
        self.quantization_loss_weight = quantization_loss_weight
        self.reconstruction_loss_weight = reconstruction_loss_weight
        self.normalize_residuals = normalize_residuals
        self.train_layer_wise = train_layer_wise
        self.track_residuals = track_residuals
        self.verbose = verbose
        self.least_residual = least_residual
        self.optimizer = optimizer
        self.reconstruction_loss_function = reconstruction_loss_function or F.mse_loss
        self._uncounted = self._warned = False
        self.current_layer = 0
        self.layer_batches = [0] * n_layers
        self.layer_steps = [0] * n_layers

    @property
    def layers(self) -> list[MiniBatchKMeans]:
        return cast(list[MiniBatchKMeans], list(self.quantization_layer_list))

    def forward(self, embeddings_ND: Tensor) -> Quantized:
        """Code the rows; in training mode, let the layers whose turn it is learn from them."""
        return self._quantize(embeddings_ND, learn=self.training)

    def model_step(self, embeddings_ND: Tensor) -> ModelStep:
        """`forward` and the two parts of the loss; `loss` weighs them.

        A loop of one's own calls `count_batch` after each batch, or `training_step`, which does; a
        UserWarning says so where layers train in turn and the batch before was not counted.
        """
        if self.training and self.train_layer_wise and self.n_layers > 1:
            if self._uncounted and not self._warned:
                warnings.warn(
                    f"only layer {self.current_layer} learns: call count_batch(max_steps) after each model_step, "
                    "or use training_step or train(), so that the next layers have their turn",
                    UserWarning,
                    stacklevel=2,
                )
                self._warned = True
            self._uncounted = True
        quantized = self.forward(embeddings_ND)
        reconstruction_loss = quantized.quantization_loss.new_zeros(())
        if self.reconstruction_loss_weight and self.layers[-1].is_initialized:
            target_ND = self._layer_input(embeddings_ND.to(quantized.quantized_embeddings))
            reconstruction_loss = self.reconstruction_loss_function(quantized.quantized_embeddings, target_ND)
        return ModelStep(
            quantized.cluster_ids, quantized.all_residuals, quantized.quantization_loss, reconstruction_loss
        )

    def training_step(self, embeddings_ND: Tensor, max_steps: int = 30) -> Tensor:
        """The loss of a batch, to be followed by the caller's optimizer.

        As in GRID, the next layer's turn comes after `max_steps // n_layers` steps.
        """
        loss = self.loss(self.model_step(embeddings_ND))
        self.count_batch(max_steps)
        return loss

    def loss(self, step: ModelStep) -> Tensor:
        """What training minimizes: the weighted sum of the two losses of a `model_step`."""
        return (
            self.quantization_loss_weight * step.quantization_loss
            + self.reconstruction_loss_weight * step.reconstruction_loss
        )

    @torch.no_grad()
    def predict_step(
        self, embeddings_ND: Tensor | FloatArray, item_ids: Sequence[Any] | Tensor | np.ndarray | None = None
    ) -> Prediction:
        """The codes of the rows (N×D, a tensor or NumPy's), N×L int64, and their item IDs (row numbers if None).

        The IDs come back as a list of what went in; those of a tensor or an array as Python's values.

        Changes no state, in training mode neither. Raises RuntimeError where a layer has no centroids
        yet, and ValueError where the item IDs are not as many as the rows.
        """
        for index, layer in enumerate(self.layers):
            if not layer.is_set:
                raise RuntimeError(f"layer {index} has no centroids yet: {layer.missing_rows}")
        embeddings_ND = torch.as_tensor(embeddings_ND, device=self.layers[0].centroids.device)
        if item_ids is None:
            ids = list(range(len(embeddings_ND)))
        else:
            ids = item_ids.tolist() if isinstance(item_ids, Tensor | np.ndarray) else list(item_ids)
        if len(ids) != len(embeddings_ND):
            raise ValueError(f"{len(ids)} item IDs for {len(embeddings_ND)} rows")
        return Prediction(self._quantize(embeddings_ND, learn=False, track=False).cluster_ids, ids)

    def count_batch(self, max_steps: int) -> bool:
        """Count the batch just learned from, and go on to the next layer when this one is done.

        Layer by layer, each layer takes `max_steps // n_layers` steps; otherwise all layers
        together take `max_steps`. Batches that only initialize are no steps. Returns whether
        this batch was one of those.
        """
        self._uncounted = False
        index = self.learning_layer
        initializing = not self.layers[index if self.train_layer_wise else -1].is_initialized
        self.layer_batches[index] += 1
        self.layer_steps[index] += not initializing
        if self.train_layer_wise and self.layer_steps[index] >= max_steps // self.n_layers:
            if self.verbose:
                logger.info("layer %d: trained in %d steps", index, self.layer_steps[index])
            self.current_layer = min(index + 1, self.n_layers - 1)
        return initializing

    def is_trained(self, max_steps: int) -> bool:
        """Whether the last layer has had all its steps of a training of `max_steps`."""
        wanted = max_steps // self.n_layers if self.train_layer_wise else max_steps
        return self.layer_steps[-1] >= wanted

    @property
    def learning_layer(self) -> int:
        """The layer that learns; if all learn together, the last one that has begun to."""
        if self.train_layer_wise:
            return self.current_layer
        return max((index for index, layer in enumerate(self.layers) if layer.has_started), default=0)

    def _quantize(self, embeddings_ND: Tensor, learn: bool, track: bool | None = None) -> Quantized:
        layers = self.layers
        centroids_KD = layers[0].centroids
        residuals_ND = embeddings_ND.detach().to(centroids_KD.dtype)
        codes: list[Tensor] = []
        residuals: list[Tensor] = []
        quantized_ND = torch.zeros_like(residuals_ND)
        loss = centroids_KD.new_zeros(())
        input_norms_N = centroids_KD.new_zeros(len(residuals_ND))
        for index, layer in enumerate(layers):
            left_ND, residuals_ND = residuals_ND, self._layer_input(residuals_ND)
            if learn and self._learns(index):
                kept_N = None if index == 0 else self._kept(left_ND, input_norms_N)
                codes_N, chosen_ND, layer_loss = _learn(layer, residuals_ND, kept_N)
                loss = loss + layer_loss
                if self.verbose and layer.is_initial_step:
                    logger.info("layer %d: centroids set from %d rows", index, layer.init_buffer_size)
            elif layer.is_set:
                codes_N, chosen_ND = layer.predict_step(residuals_ND)
            else:
                codes_N = torch.zeros(len(residuals_ND), dtype=torch.int64, device=residuals_ND.device)
                chosen_ND = torch.zeros_like(residuals_ND)
            input_norms_N = residuals_ND.norm(dim=1)
            codes.append(codes_N)
            quantized_ND = quantized_ND + chosen_ND
            residuals_ND = residuals_ND - chosen_ND.detach()
            residuals.append(residuals_ND)
        tracked = self.track_residuals if track is None else track
        return Quantized(
            torch.stack(codes, dim=1), torch.stack(residuals, dim=2) if tracked else None, quantized_ND, loss
        )

    def _learns(self, index: int) -> bool:
        if self.train_layer_wise:
            return index == self.current_layer
        layers = self.layers
        if layers[index].is_initialized and not layers[-1].is_initialized:
            return False
        return index == 0 or layers[index - 1].is_initialized or layers[index - 1].is_initial_step

    def _kept(self, left_ND: Tensor, input_norms_N: Tensor) -> Tensor | None:
        """Which rows (N bool) leave enough to learn from; None for all, also where most leave too little."""
        if self.least_residual == 0:
            return None
        kept_N = left_ND.norm(dim=1) >= self.least_residual * input_norms_N
        return None if 2 * int(kept_N.sum()) < len(kept_N) else kept_N

    def _layer_input(self, residuals_ND: Tensor) -> Tensor:
        return F.normalize(residuals_ND, dim=-1) if self.normalize_residuals else residuals_ND

    def get_extra_state(self) -> dict[str, Any]:
        return {
            "current_layer": self.current_layer,
            "layer_batches": list(self.layer_batches),
            "layer_steps": list(self.layer_steps),
        }

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        self.current_layer = state["current_layer"]
        self.layer_batches = list(state["layer_batches"])
        self.layer_steps = list(state["layer_steps"])

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        own, missing_keys = prefix + "_extra_state", rest[2]
        if own in state_dict:
            return
        # GRID's: its schedule stands at the last layer that has centroids.
        keys = [f"{prefix}quantization_layer_list.{index}.centroids" for index in range(self.n_layers)]
        trained = [index for index, key in enumerate(keys) if key in state_dict and bool(state_dict[key].any())]
        if trained:
            self.current_layer = trained[-1]
            self.layer_batches, self.layer_steps = [0] * self.n_layers, [0] * self.n_layers
            if own in missing_keys:
                missing_keys.remove(own)


def _refuse_what_cannot_be_honoured(
    normalization_layer: nn.Module | None,
    encoder: nn.Module | None,
    decoder: nn.Module | None,
    scheduler: object | None,
    training_loop_function: Callable[..., Any] | None,
    others: Mapping[str, object],
) -> None:
    for name, module in (("normalization_layer", normalization_layer), ("encoder", encoder), ("decoder", decoder)):
        if module is not None and not isinstance(module, nn.Identity):
            raise TypeError(f"{name} must be None or nn.Identity: only centroids learn here; transform the rows before")
    if scheduler is not None:
        raise TypeError("scheduler must be None: an update's weight is its share of the rows, at a constant rate")
    function = getattr(training_loop_function, "func", training_loop_function)
    if function is not None and getattr(function, "__name__", "") != GRID_TRAINING_LOOP:
        raise TypeError(
            f"training_loop_function must be None or GRID's {GRID_TRAINING_LOOP}: write a loop over training_step"
        )
    if unknown := sorted(name for name, value in others.items() if value is not None):
        raise TypeError(f"ResidualQuantization does not know {', '.join(unknown)}")


def _learn(layer: MiniBatchKMeans, rows_ND: Tensor, kept_N: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """A layer's step on the rows kept; the others have code 0 and add nothing to the embeddings."""
    if kept_N is None or bool(kept_N.all()):
        return layer.model_step(rows_ND)
    kept_codes, kept_chosen, loss = layer.model_step(rows_ND[kept_N])
    codes_N = kept_codes.new_zeros(len(rows_ND))
    codes_N[kept_N] = kept_codes
    chosen_ND = torch.zeros_like(rows_ND)
    chosen_ND[kept_N] = kept_chosen
    return codes_N, chosen_ND, loss


def _independent_copies(layer: MiniBatchKMeans, n: int) -> list[MiniBatchKMeans]:
    # A copied random generator would draw the same numbers again in every layer.
    generator = getattr(layer.initializer, "generator", None)
    shared = {} if generator is None else {id(generator): generator}
    return [copy.deepcopy(layer, dict(shared)) for _ in range(n)]


def _agreed(ours: int, layers: int) -> int:
    named = {ours, layers} - {DEFAULT_INIT_BUFFER_SIZE}
    if len(named) > 1:
        raise ValueError(f"init_buffer_size is {ours} here and {layers} on the layer: name one")
    return named.pop() if named else DEFAULT_INIT_BUFFER_SIZE
