from __future__ import annotations

import pytest
import torch
from torch import Tensor

from semid_daemon.quantizer import MiniBatchKMeans, SquaredEuclideanDistance, WeightedSquaredError

SQUARE = torch.tensor([[0.0, 0.0], [0.0, 2.0], [10.0, 0.0], [10.0, 2.0]])


def two_clusters(**options: object) -> MiniBatchKMeans:
    """Starts from the first and the third row of its buffer."""
    settings = {"init_buffer_size": 4, **options}
    return MiniBatchKMeans(2, 2, SquaredEuclideanDistance(), lambda buffer_ND: buffer_ND[[0, 2]], **settings)


def learn(layer: MiniBatchKMeans, batch_ND: Tensor) -> tuple[list[int], Tensor, float]:
    codes_N, embeddings_ND, loss = layer.model_step(batch_ND)
    if loss.requires_grad:
        layer.zero_grad()
        loss.backward()
        torch.optim.SGD(layer.parameters(), lr=0.5).step()
    return codes_N.tolist(), embeddings_ND.detach(), loss.item()


def test_weighted_squared_error_is_a_weighted_sum() -> None:
    x_KD = torch.tensor([[1.0, 1.0], [0.0, 3.0]], requires_grad=True)
    loss = WeightedSquaredError()(x_KD, torch.zeros(2, 2), torch.tensor([0.5, 2.0]))
    assert loss.item() == 0.5 * 2 + 2 * 9
    (gradient_KD,) = torch.autograd.grad(loss, x_KD)
    assert gradient_KD.tolist() == [[1, 1], [0, 12]]


@pytest.mark.parametrize("update_manually", [False, True])
def test_four_points_worked_by_hand(update_manually: bool) -> None:
    layer = two_clusters(update_manually=update_manually)
    _, _, loss = learn(layer, SQUARE)
    assert layer.centroids.tolist() == [[0, 0], [10, 0]]
    assert loss == 100  # from zero to the first centroids
    assert layer.cluster_counts.tolist() == [0, 0]  # the buffer is not counted

    codes, embeddings_ND, loss = learn(layer, SQUARE)  # weights 2/2
    assert codes == [0, 0, 1, 1]
    assert embeddings_ND.tolist() == [[0, 0], [0, 0], [10, 0], [10, 0]]
    assert loss == 1 + 1
    assert layer.centroids.tolist() == [[0, 1], [10, 1]]

    _, _, loss = learn(layer, torch.tensor([[0.0, 4.0], [0.0, 4.0], [10.0, 1.0], [10.0, 1.0]]))
    assert loss == 0.5 * 3**2  # weights 2/4
    assert layer.centroids.tolist() == [[0, 2.5], [10, 1]]

    _, _, loss = learn(layer, torch.tensor([[0.0, 0.5]] * 4))  # nothing for the second cluster
    assert loss == 0.5 * 2**2
    assert layer.centroids.tolist() == [[0, 1.5], [10, 1]]
    assert layer.cluster_counts.tolist() == [8, 4]


def test_the_buffer_takes_the_first_rows_only_and_codes_are_zero_until_it_is_full() -> None:
    given = []

    def initializer(buffer_ND: Tensor) -> Tensor:
        given.append(buffer_ND.clone())
        return buffer_ND[[0, 2]]

    layer = MiniBatchKMeans(2, 2, SquaredEuclideanDistance(), initializer, init_buffer_size=4)
    codes, embeddings_ND, loss = learn(layer, SQUARE[:3])
    assert (codes, embeddings_ND.tolist(), loss) == ([0, 0, 0], [[0, 0]] * 3, 0)
    assert (layer.is_initial_step, layer.is_initialized) == (False, False)
    assert layer.has_started

    codes, embeddings_ND, loss = learn(layer, SQUARE[[3, 0, 1]])
    assert torch.equal(torch.cat(given), SQUARE)
    assert codes == [1, 0, 0]
    assert embeddings_ND.tolist() == [[10, 0], [0, 0], [0, 0]]
    assert len(layer.init_buffer) == 0
    assert (layer.is_initial_step, layer.is_initialized) == (True, False)

    learn(layer, SQUARE)
    assert (layer.is_initial_step, layer.is_initialized) == (False, True)


def test_any_optimizer_starts_at_the_first_centroids() -> None:
    layer = two_clusters()
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    layer.model_step(SQUARE).loss.backward()
    optimizer.step()
    assert layer.centroids.tolist() == [[0, 0], [10, 0]]


def test_predicting_changes_nothing_and_has_no_gradient() -> None:
    layer = two_clusters()
    assert layer(SQUARE).tolist() == [0, 0, 0, 0]
    assert not layer.has_started
    learn(layer, SQUARE)
    before = {key: str(value) for key, value in layer.state_dict().items()}
    codes_N, embeddings_ND = layer.predict_step(SQUARE)
    assert not embeddings_ND.requires_grad
    assert codes_N.dtype == torch.int64
    assert torch.equal(layer(SQUARE), codes_N)
    assert layer(SQUARE[:0]).shape == (0,)
    assert {key: str(value) for key, value in layer.state_dict().items()} == before


def test_the_update_is_the_same_by_hand_and_by_optimizer() -> None:
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(64, 5, generator=generator) for _ in range(12)]
    layers = [
        MiniBatchKMeans(8, 5, SquaredEuclideanDistance(), lambda rows_ND: rows_ND[:8], None, None, 100, update_manually)
        for update_manually in (False, True)
    ]
    for batch_ND in batches:
        losses = [learn(layer, batch_ND)[2] for layer in layers]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    torch.testing.assert_close(layers[0].centroids, layers[1].centroids, rtol=0, atol=1e-6)
    assert torch.equal(layers[0].cluster_counts, layers[1].cluster_counts)


def test_rows_get_no_gradient() -> None:
    layer = two_clusters()
    batch_ND = SQUARE.clone().requires_grad_()
    for _ in range(2):
        layer.model_step(batch_ND).loss.backward()
    assert batch_ND.grad is None
    assert not layer.init_buffer.requires_grad


def test_rows_are_taken_in_the_dtype_of_the_centroids() -> None:
    layer = two_clusters()
    for dtype in (torch.float16, torch.float64, torch.int64):
        learn(layer, SQUARE.to(dtype))
        assert layer.predict_step(SQUARE.to(dtype))[1].dtype == torch.float32
    assert layer.centroids.tolist() == [[0, 1], [10, 1]]


def test_counts_are_exact_where_floats_are_not() -> None:
    layer = two_clusters()
    learn(layer, SQUARE)
    layer.cluster_counts.fill_(2**24)
    learn(layer, torch.tensor([[0.0, 0.0]]))
    assert layer.double().cluster_counts.tolist() == [2**24 + 1, 2**24]


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ValueError, match=r"init_buffer_size \(1\) must be at least n_clusters \(2\)"):
        two_clusters(init_buffer_size=1)
    with pytest.raises(ValueError, match="at least 1"):
        MiniBatchKMeans(0, 2, SquaredEuclideanDistance(), lambda rows_ND: rows_ND)
    layer = two_clusters()
    with pytest.raises(ValueError, match=r"rows of 2 values, not \(4, 3\)"):
        layer.model_step(torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r"rows of 2 values, not \(2,\)"):
        layer.predict_step(torch.zeros(2))
    with pytest.raises(ValueError, match="empty"):
        layer.model_step(SQUARE[:0])
    layer.initializer = lambda rows_ND: rows_ND
    with pytest.raises(ValueError, match=r"gave centroids of shape \(4, 2\)"):
        layer.model_step(SQUARE)
    layer = two_clusters()
    with pytest.raises(ValueError, match="not finite"):
        layer.model_step(SQUARE * torch.nan)
