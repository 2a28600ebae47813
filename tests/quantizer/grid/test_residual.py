from __future__ import annotations

import copy
import io
import logging
from functools import partial
from itertools import cycle

import pytest
import torch
from torch import Tensor, nn

from semid_daemon.base.types import TrainingStep
from semid_daemon.quantizer import (
    KMeansPlusPlusInitInitializer,
    MiniBatchKMeans,
    ResidualQuantization,
    SquaredEuclideanDistance,
    train,
)

K, D, BUFFER, BATCH = 4, 5, 10, 7  # two batches fill the buffer; the second is truncated


def first_rows(buffer_ND: Tensor) -> Tensor:
    return buffer_ND[:K]


def layer(**options: object) -> MiniBatchKMeans:
    settings = {"initializer": first_rows, "init_buffer_size": BUFFER, **options}
    return MiniBatchKMeans(K, D, SquaredEuclideanDistance(), **settings)


def quantizer(n_layers: int = 3, update_manually: bool = False, **options: object) -> ResidualQuantization:
    return ResidualQuantization(n_layers, layer(update_manually=update_manually), **options)


def rows(n: int, seed: int = 0, dim: int = D) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def batches(n: int = 30) -> list[Tensor]:
    return list(rows(n * BATCH).split(BATCH))


def saved(model: nn.Module) -> bytes:
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.getvalue()


def restored(model: ResidualQuantization, state: bytes) -> ResidualQuantization:
    model.load_state_dict(torch.load(io.BytesIO(state), weights_only=True))
    return model


def assert_same_state(one: nn.Module, other: nn.Module) -> None:
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        same = torch.equal(value, theirs[key]) if isinstance(value, Tensor) else value == theirs[key]
        assert same, key


@pytest.mark.slow
@pytest.mark.parametrize("update_manually", [False, True])
def test_four_points_worked_by_hand(update_manually: bool) -> None:
    points_ND = torch.tensor([[-11.0], [-9.0], [9.0], [11.0]])
    firsts = [torch.tensor([[-11.0], [11.0]]), torch.tensor([[-1.5], [1.0]])]
    layers = nn.ModuleList(
        MiniBatchKMeans(2, 1, SquaredEuclideanDistance(), lambda _, first=first: first, None, None, 4, update_manually)
        for first in firsts
    )
    model = ResidualQuantization(2, quantization_layer_list=layers, normalize_residuals=False)

    steps = list(train(model, cycle([points_ND]), max_steps=2))

    assert steps == [
        TrainingStep(1, 0, 1, 242.0, initializing=True),
        TrainingStep(2, 0, 2, 2.0),
        TrainingStep(3, 1, 1, 3.25, initializing=True),
        TrainingStep(4, 1, 2, 0.25),
    ]
    assert model.layers[0].centroids.tolist() == [[-10], [10]]
    assert model.layers[1].centroids.tolist() == [[-1], [1]]
    codes_NL, residuals_NDL, quantized_ND, loss = model.eval()(points_ND)
    assert codes_NL.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert residuals_NDL[:, 0].tolist() == [[-1, 0], [1, 0], [-1, 0], [1, 0]]
    assert torch.equal(quantized_ND, points_ND)
    assert loss.item() == 0


def test_the_schedule() -> None:
    model = quantizer()
    current_layer = []
    steps = []
    for step in train(model, iter(batches()), max_steps=10):  # 3 steps for each layer
        steps.append(step)
        current_layer.append(model.current_layer)
    assert current_layer == [0] * 4 + [1] * 5 + [2] * 6
    assert [step.step for step in steps] == list(range(1, 16))
    assert [(step.layer, step.layer_step) for step in steps] == [(i, j) for i in range(3) for j in range(1, 6)]
    assert [step.initializing for step in steps] == [True, True, False, False, False] * 3
    assert list(train(model, batches(), max_steps=10)) == []


def test_no_batch_is_taken_beyond_the_last_step() -> None:
    source = iter(batches(30))
    for _ in train(quantizer(), source, max_steps=3):
        pass
    assert len(list(source)) == 30 - 9


def test_layers_below_are_frozen_and_layers_above_give_zeros() -> None:
    model = quantizer()
    before = [each.centroids.detach().clone() for each in model.layers]
    seen = iter(batches())
    for step in train(model, seen, max_steps=9):
        for index, each in enumerate(model.layers):
            if index != step.layer:
                assert torch.equal(each.centroids, before[index])
            if index > step.layer:
                assert not each.has_started
                assert not each.centroids.any()
        assert not copy.deepcopy(model).eval()(rows(20)).cluster_ids[:, step.layer + 1 :].any()
        before = [each.centroids.detach().clone() for each in model.layers]
    assert all(each.is_initialized for each in model.layers)


@pytest.mark.parametrize("options", [{}, {"update_manually": True}, {"train_layer_wise": False}])
def test_training_goes_on_from_a_checkpoint_bit_for_bit(options: dict[str, bool]) -> None:
    data = batches()
    whole = quantizer(**options)
    steps = list(train(whole, data, max_steps=9))
    assert len(steps) < len(data)
    for stop in range(len(steps) + 1):
        stopped = quantizer(**options)
        before = list(train(stopped, data[:stop], max_steps=9))
        resumed = restored(quantizer(**options), saved(stopped))
        assert_same_state(resumed, stopped)
        after = list(train(resumed, data[stop:], max_steps=9))
        assert before + after == steps
        assert_same_state(resumed, whole)


def test_an_earlier_checkpoint_loads_into_a_model_that_has_gone_on() -> None:
    model = quantizer()
    list(train(model, batches()[:1], max_steps=9))
    early = saved(model)
    list(train(model, batches()[1:], max_steps=9))
    restored(model, early)
    assert len(model.layers[0].init_buffer) == BATCH
    assert (model.current_layer, model.layer_batches, model.layer_steps) == (0, [1, 0, 0], [0, 0, 0])


def test_with_k_means_plus_plus_a_saved_random_state_resumes_too() -> None:
    def build() -> ResidualQuantization:
        initializer = KMeansPlusPlusInitInitializer(K, SquaredEuclideanDistance())
        return ResidualQuantization(3, layer(initializer=initializer))

    with torch.random.fork_rng():
        torch.manual_seed(3)
        whole, stopped = build(), build()
        list(train(whole, batches(), max_steps=9))
        torch.manual_seed(3)
        list(train(stopped, batches()[:6], max_steps=9))
        state, random_state = saved(stopped), torch.get_rng_state()
        torch.manual_seed(99)
        resumed = restored(build(), state)
        torch.set_rng_state(random_state)
        list(train(resumed, batches()[6:], max_steps=9))
    assert_same_state(resumed, whole)


def test_a_state_of_other_sizes_is_refused() -> None:
    other = ResidualQuantization(3, MiniBatchKMeans(K, D + 1, SquaredEuclideanDistance(), first_rows))
    with pytest.raises(RuntimeError, match="size mismatch"):
        other.load_state_dict(quantizer().state_dict())


def test_layers_are_independent_copies_that_share_a_generator() -> None:
    generator = torch.Generator().manual_seed(0)
    template = layer(initializer=KMeansPlusPlusInitInitializer(K, SquaredEuclideanDistance(), False, generator))
    model = ResidualQuantization(2, template)
    one, two = model.layers
    assert one is not template
    assert one.centroids is not two.centroids
    assert one.cluster_counts.data_ptr() != two.cluster_counts.data_ptr()
    assert one.initializer is not two.initializer
    assert one.initializer.generator is generator
    assert two.initializer.generator is generator
    list(train(model, batches()[:4], max_steps=20))
    assert one.is_initialized
    assert not two.has_started
    assert not template.has_started


def test_a_deep_copy_trains_on_its_own() -> None:
    model = quantizer()
    list(train(model, batches()[:3], max_steps=9))
    state = saved(model)
    twin = copy.deepcopy(model)
    list(train(twin, batches()[3:], max_steps=9))
    assert_same_state(model, restored(quantizer(), state))
    list(train(model, batches()[3:], max_steps=9))
    assert_same_state(model, twin)


@pytest.mark.parametrize("train_layer_wise", [False, True])
def test_without_training_nothing_changes(train_layer_wise: bool) -> None:
    model = quantizer(train_layer_wise=train_layer_wise)
    for stop in (0, 1, 2, 3, 8):
        list(train(model, batches()[:stop], max_steps=9))
        before = copy.deepcopy(model)
        if all(each.is_set for each in model.layers):
            predicted_NL, ids = model.train().predict_step(rows(20))
            assert_same_state(model, before)
            assert torch.equal(model.eval()(rows(20)).cluster_ids, predicted_NL)
            assert ids == list(range(20))
        model.eval()
        model(rows(20))
        assert not model.loss(model.model_step(rows(20))).requires_grad
        assert_same_state(model, before)
    if train_layer_wise:
        list(train(model, batches(), max_steps=9))
        assert model.train().predict_step(rows(20)).item_ids == list(range(20))


def test_predictions_carry_item_ids() -> None:
    model = quantizer()
    list(train(model, batches(), max_steps=3))
    codes_NL, ids = model.predict_step(rows(2), item_ids=("numpy", "torch"))
    assert (codes_NL.dtype, codes_NL.shape, ids) == (torch.int64, (2, 3), ["numpy", "torch"])
    assert model.predict_step(rows(0)).predictions.shape == (0, 3)
    with pytest.raises(ValueError, match="1 item IDs for 2 rows"):
        model.predict_step(rows(2), item_ids=["numpy"])


def test_a_layer_without_centroids_predicts_nothing(caplog: pytest.LogCaptureFixture) -> None:
    template = MiniBatchKMeans(K, D, SquaredEuclideanDistance(), first_rows)
    model = ResidualQuantization(3, template)
    list(train(model, [rows(1000)] * 3))  # a buffer of 3,072
    assert "layer 0 has no centroids, its buffer holds 3000 of 3072 rows, 72 are missing" in caplog.text
    assert "layer 2 has no centroids, its buffer holds 0 of 3072 rows" in caplog.text
    with pytest.raises(RuntimeError, match="layer 0 has no centroids yet: .* 72 are missing"):
        model.predict_step(rows(10))
    with pytest.raises(RuntimeError, match="the layer has no centroids yet: .* 72 are missing"):
        model.layers[0].predict_step(rows(10))


def test_batches_that_end_early_are_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    list(train(quantizer(verbose=False), batches(7), max_steps=9))
    (message,) = caplog.messages
    assert "layer 0" not in message
    assert "layer 1 has no centroids" not in message
    assert "layer 1 has had 0 of 3 steps" in message
    assert "layer 2 has no centroids" in message


def test_a_loop_of_ones_own_is_told_what_to_call() -> None:
    model = quantizer().train()
    model.model_step(batches()[0])
    with pytest.warns(UserWarning, match="only layer 0 learns: call count_batch"):
        model.model_step(batches()[1])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:only .* distinct rows")  # rows that became centroids leave nothing
def test_training_step_gives_the_layers_their_turns_at_the_sizes_of_the_documents() -> None:
    items_ND = rows(1000, dim=2048)
    initializer = KMeansPlusPlusInitInitializer(256, SquaredEuclideanDistance())
    template = MiniBatchKMeans(256, 2048, SquaredEuclideanDistance(), initializer, init_buffer_size=512)
    model = ResidualQuantization(3, template).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(3):  # epochs
        for batch_ND in items_ND.split(256):
            loss = model.training_step(batch_ND, max_steps=6)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert model.is_trained(6)
    assert model.predict_step(items_ND).predictions.unique(dim=0).shape[0] > 500


def test_a_zero_row_stays_zero_and_other_inputs_are_normalized() -> None:
    model = quantizer().eval()  # untrained: all centroids are zero, so residuals are the layers' inputs
    batch_ND = rows(6)
    batch_ND[2] = 0
    residuals_NDL = model(batch_ND).all_residuals
    norms_NL = residuals_NDL.norm(dim=1)
    assert not residuals_NDL[2].any()
    torch.testing.assert_close(norms_NL[[0, 1, 3, 4, 5]], torch.ones(5, 3))
    assert model(batch_ND).quantized_embeddings.isfinite().all()
    assert quantizer(track_residuals=False)(batch_ND).all_residuals is None


@pytest.mark.parametrize("normalize_residuals", [False, True])
@pytest.mark.parametrize("dim", [1, D])
def test_constant_and_zero_data_train_to_finite_centroids(dim: int, normalize_residuals: bool) -> None:
    for value in (0.0, 0.3):
        initializer = KMeansPlusPlusInitInitializer(3, SquaredEuclideanDistance())
        template = MiniBatchKMeans(3, dim, SquaredEuclideanDistance(), initializer, init_buffer_size=8)
        model = ResidualQuantization(2, template, normalize_residuals=normalize_residuals)
        with pytest.warns(UserWarning, match="distinct rows"):
            steps = list(train(model, cycle([torch.full((6, dim), value)]), max_steps=4))
        assert len(steps) == 8
        assert all(each.centroids.isfinite().all() for each in model.layers)
        assert len(model.predict_step(torch.full((6, dim), value)).predictions.unique(dim=0)) == 1


def test_layers_that_train_together_start_in_turn() -> None:
    model = quantizer(train_layer_wise=False)
    seen = []
    counted = []
    for step in train(model, cycle(rows(40).split(4)), max_steps=20):  # three batches fill a buffer
        seen.append((step.layer, step.layer_step, step.initializing))
        counted.append([int(each.cluster_counts.sum()) // 4 for each in model.layers])
    # The batch that sets a layer's centroids is the first that the next layer sees.
    assert seen[:8] == [(0, 1, True), (0, 2, True)] + [(1, i, True) for i in (1, 2)] + [
        (2, i, i < 4) for i in (1, 2, 3, 4)
    ]
    # A layer takes one step, then waits until the last one has taken its first.
    assert counted[:9] == [[0, 0, 0]] * 3 + [[1, 0, 0]] * 2 + [[1, 1, 0]] * 2 + [[1, 1, 1], [2, 2, 2]]
    assert len(seen) == 7 + 20
    assert counted[-1] == [20, 20, 20]


def test_layers_that_train_together_lower_the_loss() -> None:
    model = quantizer(train_layer_wise=False)
    steps = list(train(model, cycle(rows(200).split(50)), max_steps=20))
    losses = [step.loss for step in steps if not step.initializing]
    assert len(losses) == 20
    assert losses[-1] < 0.5 * max(losses[:3])


def test_no_gradient_leads_to_the_rows_or_between_layers() -> None:
    model = quantizer(train_layer_wise=False)
    list(train(model, cycle(rows(200).split(50)), max_steps=2))
    batch_ND = rows(20).requires_grad_()
    step = model.model_step(batch_ND)
    assert model.loss(step).requires_grad
    assert not step.all_residuals.requires_grad
    model.loss(step).backward()
    assert batch_ND.grad is None


@pytest.mark.parametrize("train_layer_wise", [False, True])
def test_the_reconstruction_loss_is_lowered_when_weighted(train_layer_wise: bool) -> None:
    data = rows(64)
    model = quantizer(
        train_layer_wise=train_layer_wise,
        normalize_residuals=False,
        quantization_loss_weight=0.0,
        reconstruction_loss_weight=1.0,
    )
    losses = [step.loss for step in train(model, cycle([data]), max_steps=30)]
    last = losses[-8:]
    assert last == sorted(last, reverse=True)
    assert last[0] > last[-1] > 0
    result = model.model_step(data)
    wanted = (model(data).quantized_embeddings - data).square().mean()
    torch.testing.assert_close(result.reconstruction_loss, wanted)
    torch.testing.assert_close(model.loss(result), wanted)


def test_where_the_optimizer_comes_from() -> None:
    def trained(model: ResidualQuantization, optimizer: object = None) -> ResidualQuantization:
        list(train(model, batches(), 9, optimizer))
        return model

    default = trained(quantizer())
    half = partial(torch.optim.SGD, lr=0.5)
    tenth = partial(torch.optim.SGD, lr=0.1)
    own_tenth = ResidualQuantization(3, layer(optimizer=tenth))
    given = quantizer()
    assert_same_state(trained(given, half(given.parameters())), default)
    assert_same_state(trained(quantizer(), half), default)
    assert_same_state(trained(own_tenth), trained(quantizer(), tenth))
    assert not torch.equal(own_tenth.layers[0].centroids, default.layers[0].centroids)
    momentum = trained(quantizer(), partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.1))
    assert all(each.centroids.isfinite().all() for each in momentum.layers)


def test_training_works_where_gradients_are_off() -> None:
    model = quantizer().eval()
    wanted = quantizer()
    list(train(wanted, batches(), max_steps=9))
    with torch.no_grad():
        list(train(model, batches(), max_steps=9))
    assert model.training
    assert_same_state(model, wanted)


def test_the_buffer_size_may_be_named_on_either() -> None:
    def size(ours: int, layers: int) -> int:
        model = ResidualQuantization(1, layer(init_buffer_size=layers), init_buffer_size=ours)
        return model.layers[0].init_buffer_size

    assert [size(3072, 3072), size(20, 3072), size(3072, 20), size(20, 20)] == [3072, 20, 20, 20]
    with pytest.raises(ValueError, match="20 here and 30 on the layer"):
        size(20, 30)


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ValueError, match="n_layers must be at least 1"):
        quantizer(n_layers=0)
    with pytest.raises(ValueError, match="give quantization_layer"):
        ResidualQuantization()
    with pytest.raises(ValueError, match="has 2 layers, n_layers is 3"):
        ResidualQuantization(quantization_layer_list=[layer(), layer()])
    other = MiniBatchKMeans(K, D + 1, SquaredEuclideanDistance(), first_rows)
    with pytest.raises(ValueError, match="same n_features"):
        ResidualQuantization(2, quantization_layer_list=[layer(), other])
    with pytest.raises(ValueError, match="max_steps is 2: at least 3"):
        list(train(quantizer(), batches(), max_steps=2))
    for bad_ND in (rows(7, dim=D + 1), rows(7)[0]):
        with pytest.raises(ValueError, match="rows of 5 values"):
            list(train(quantizer(), [bad_ND]))
    with pytest.raises(ValueError, match="empty"):
        list(train(quantizer(), [rows(0)]))


def test_a_batch_that_is_not_finite_leaves_the_centroids_alone() -> None:
    model = quantizer()
    list(train(model, batches()[:4], max_steps=30))
    before = model.layers[0].centroids.detach().clone()
    with pytest.raises(ValueError, match="loss is nan"):
        list(train(model, [rows(7) * torch.nan], max_steps=30))
    assert torch.equal(model.layers[0].centroids, before)


def test_verbose_logs_what_training_does(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        list(train(quantizer(n_layers=1, verbose=False), batches(), max_steps=2))
        assert caplog.messages == []
        list(train(quantizer(n_layers=1), batches(), max_steps=2))
    assert caplog.messages == ["layer 0: centroids set from 10 rows", "layer 0: trained in 2 steps"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_all_state_moves_with_the_model() -> None:
    model = quantizer()
    list(train(model, batches()[:1], max_steps=9))
    model.to("cuda")
    list(train(model, batches()[1:], max_steps=9))
    wanted = quantizer()
    list(train(wanted, batches(), max_steps=9))
    for ours, theirs in zip(model.layers, wanted.layers, strict=True):
        assert ours.centroids.is_cuda
        torch.testing.assert_close(ours.centroids.cpu(), theirs.centroids, rtol=0, atol=1e-5)
