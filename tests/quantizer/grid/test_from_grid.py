"""What code written for GRID passes and calls, and the files that it reads."""

from __future__ import annotations

import pickle
from functools import partial
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from semid_daemon.quantizer import (
    KMeansPlusPlusInitInitializer,
    MiniBatchKMeans,
    ResidualQuantization,
    SquaredEuclideanDistance,
    WeightedSquaredError,
    train,
)

ROWS = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))


class GridDistance:
    """As GRID's: only `compute`."""

    def compute(self, x: Tensor, y: Tensor) -> Tensor:
        return (x[:, None] - y).pow(2).sum(dim=2)


def scale_loss_by_world_size_for_initialization_training_loop() -> None:
    """Has the name of GRID's."""


def quantizer(distance: object = None, **options: object) -> ResidualQuantization:
    distance = distance or SquaredEuclideanDistance()
    layer = MiniBatchKMeans(4, 4, distance, lambda buffer_ND: buffer_ND[:4], init_buffer_size=16)
    return ResidualQuantization(n_layers=2, quantization_layer=layer, **options)


def trained(**options: object) -> ResidualQuantization:
    model = quantizer(**options)
    list(train(model, cycle(ROWS.split(32)), max_steps=4))
    return model


def test_the_arguments_of_grids_experiment_are_taken() -> None:
    model = trained(
        distance=GridDistance(),
        input_dim=4,
        optimizer=partial(torch.optim.SGD, lr=0.5),
        scheduler=None,
        normalization_layer=nn.Identity(),
        encoder=nn.Identity(),
        decoder=nn.Identity(),
        reconstruction_loss_function=nn.MSELoss(),
        training_loop_function=partial(scale_loss_by_world_size_for_initialization_training_loop),
        loss_function=None,
        evaluator=None,
    )
    assert torch.equal(model.predict_step(ROWS).predictions, trained().predict_step(ROWS).predictions)


def test_the_optimizer_of_the_quantizer_is_used() -> None:
    still = trained(optimizer=partial(torch.optim.SGD, lr=0.0))
    assert torch.equal(still.layers[0].centroids, nn.functional.normalize(ROWS[:4], dim=1))


def test_the_reconstruction_loss_function_is_used() -> None:
    model = trained(reconstruction_loss_function=lambda x, y: (x - y).abs().sum(), reconstruction_loss_weight=1e-9)
    step = model.model_step(ROWS)
    quantized_ND = model.eval()(ROWS).quantized_embeddings
    torch.testing.assert_close(
        step.reconstruction_loss, (quantized_ND - nn.functional.normalize(ROWS, dim=1)).abs().sum()
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": nn.Linear(4, 4)}, "encoder must be None or nn.Identity: only centroids learn"),
        ({"normalization_layer": nn.LayerNorm(4)}, "normalization_layer must be None"),
        ({"scheduler": torch.optim.lr_scheduler.ConstantLR}, "scheduler must be None: an update's weight"),
        ({"training_loop_function": print}, "write a loop over training_step"),
        ({"evaluator": object()}, "does not know evaluator"),
    ],
)
def test_what_cannot_be_honoured_is_a_type_error(options: dict[str, object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        quantizer(**options)


def test_another_input_dim_is_refused() -> None:
    with pytest.raises(ValueError, match="input_dim is 5, the layers have n_features 4"):
        quantizer(input_dim=5)


def test_the_calls_of_grids_layers() -> None:
    layer = trained().layers[0]
    codes_N, chosen_ND = layer.predict_step(ROWS)
    assert torch.equal(layer.predict_step(ROWS, return_embeddings=False), codes_N)
    assert layer.get_centroids() is layer.centroids
    assert torch.equal(layer.get_residuals(ROWS), ROWS - chosen_ND)
    assert layer.training_step(ROWS).requires_grad
    distance = SquaredEuclideanDistance()
    torch.testing.assert_close(distance.compute(ROWS, ROWS[:3], batch_size=7), distance.compute(ROWS, ROWS[:3]))
    initializer = KMeansPlusPlusInitInitializer(4, distance, generator=torch.Generator().manual_seed(1))
    assert initializer.forward(ROWS).shape == (4, 4)
    assert WeightedSquaredError()(ROWS, torch.zeros_like(ROWS)).item() == pytest.approx(ROWS.square().sum().item())


def test_a_state_of_grid_marks_its_layers_initialized() -> None:
    source = trained()
    state = {key: value for key, value in source.state_dict().items() if key.endswith("centroids")}
    model = quantizer()
    model.load_state_dict(state)
    assert [layer.is_initialized for layer in model.layers] == [True, True]
    assert torch.equal(model.predict_step(ROWS).predictions, source.predict_step(ROWS).predictions)

    state["quantization_layer_list.1.centroids"] = torch.zeros(4, 4)
    model.load_state_dict(state)
    assert [layer.is_initialized for layer in model.layers] == [True, False]
    assert model.current_layer == 0
    with pytest.raises(RuntimeError, match="layer 1 has no centroids"):
        model.predict_step(ROWS)


def test_numpy_goes_in_and_item_ids_come_back() -> None:
    model = trained()
    wanted_NL = model.predict_step(ROWS).predictions
    for ids in (torch.arange(64) * 3, np.arange(64) * 3, list(range(0, 192, 3))):
        codes_NL, item_ids = model.predict_step(ROWS.numpy(), ids)
        assert torch.equal(codes_NL, wanted_NL)
        assert item_ids == list(range(0, 192, 3))
        assert type(item_ids[0]) is int
    assert model.predict_step(ROWS[:2], ["a", ("b", 1)]).item_ids == ["a", ("b", 1)]


def test_predictions_are_saved_as_grid_reads_them(tmp_path: Path) -> None:
    prediction = trained().predict_step(torch.cat([ROWS[:3], ROWS[:1]]), ["a", "b", "c", "d"])
    prediction.save(tmp_path / "sids.pkl")
    codes = prediction.predictions.tolist()
    assert pickle.loads((tmp_path / "sids.pkl").read_bytes()) == [
        {"item_id": item, "cluster_ids": code} for item, code in zip("abcd", codes, strict=True)
    ]
    prediction.save(tmp_path / "sids.pt")
    saved = torch.load(tmp_path / "sids.pt", weights_only=True)
    assert saved.dtype == torch.int64
    assert torch.equal(saved[:2].T, prediction.predictions)
    wanted = []
    for row, code in enumerate(codes):
        wanted.append(codes[: row + 1].count(code) if codes.count(code) > 1 else 0)
    assert saved[2].tolist() == wanted
    assert wanted[3] > 1
