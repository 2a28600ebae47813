"""GRID's training schedule as a plain loop."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from semid_daemon.base.types import TrainingStep
from semid_daemon.quantizer.grid.kmeans import OptimizerFactory
from semid_daemon.quantizer.grid.residual import ResidualQuantization

logger = logging.getLogger(__name__)

DEFAULT_OPTIMIZER: OptimizerFactory = partial(SGD, lr=0.5)


def train(
    model: ResidualQuantization,
    batches: Iterable[Tensor],
    max_steps: int = 30,
    optimizer: Optimizer | OptimizerFactory | None = None,
) -> Iterator[TrainingStep]:
    """Train `model` on `batches` (N×D each); yields a `TrainingStep` after every batch.

    Each layer takes the batches that fill its buffer and then `max_steps // n_layers` steps;
    if the layers train together (`train_layer_wise=False`), all take `max_steps` after the last
    one is initialized. The loop ends by itself then, or where the batches end, with a warning in the log that
    names the layers not trained; it takes no batch more than it needs. A new model starts at layer 0, one with
    a loaded state goes on where it stood: nothing is reset here. `step` and `layer_step` count every batch, those that
    initialize too.

    `optimizer` is an optimizer of the model's parameters, or a factory `parameters ->
    Optimizer` called for each layer; by default each layer's own factory, else SGD(lr=0.5),
    which is mini-batch k-means. Layers with `update_manually` need none. The model is put in
    training mode before each batch, and each batch on the model's device.

    Raises ValueError, when first advanced, for a `max_steps` that gives a layer no step; and for
    a batch whose loss is not finite, before the centroids follow it.
    """
    least = model.n_layers if model.train_layer_wise else 1
    if max_steps < least:
        raise ValueError(f"max_steps is {max_steps}: at least {least} are needed for every layer to learn")
    optimizers = _optimizers(model, optimizer)
    device = model.layers[0].centroids.device
    remaining = iter(batches)
    while not model.is_trained(max_steps):
        batch_ND = next(remaining, None)
        if batch_ND is None:
            logger.warning("the batches ended before the training did: %s", _untrained(model, max_steps))
            return
        model.train()
        with torch.enable_grad():
            loss = model.loss(model.model_step(batch_ND.to(device)))
            value = loss.item()
            if not math.isfinite(value):
                raise ValueError(f"the loss is {value}: the batch holds values too large or not finite")
            if loss.requires_grad:
                for layer_optimizer in optimizers:
                    layer_optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                for layer_optimizer in optimizers:
                    layer_optimizer.step()
        layer = model.learning_layer
        initializing = model.count_batch(max_steps)
        yield TrainingStep(
            step=sum(model.layer_batches),
            layer=layer,
            layer_step=model.layer_batches[layer],
            loss=value,
            initializing=initializing,
        )


def _untrained(model: ResidualQuantization, max_steps: int) -> str:
    wanted = max_steps // model.n_layers if model.train_layer_wise else max_steps
    return "; ".join(
        f"layer {index} has had {steps} of {wanted} steps"
        if layer.is_set
        else f"layer {index} has no centroids, {layer.missing_rows}"
        for index, (layer, steps) in enumerate(zip(model.layers, model.layer_steps, strict=True))
        if not layer.is_set or (steps < wanted and (model.train_layer_wise or index == model.n_layers - 1))
    )


def _optimizers(model: ResidualQuantization, optimizer: Optimizer | OptimizerFactory | None) -> list[Optimizer]:
    if isinstance(optimizer, Optimizer):
        return [optimizer]
    return [
        (optimizer or layer.optimizer or model.optimizer or DEFAULT_OPTIMIZER)(layer.parameters())
        for layer in model.layers
    ]
