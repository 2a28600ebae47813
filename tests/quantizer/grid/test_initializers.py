from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from semid_daemon.quantizer import KMeansPlusPlusInitInitializer, SquaredEuclideanDistance
from semid_daemon.quantizer.distance import DistanceFunction
from semid_daemon.quantizer.grid.initializers import kmeans_plus_plus


class DirectDistance(DistanceFunction):
    """Squared distances by differences; not a SquaredEuclideanDistance, so the general path."""

    def compute(self, x_ND: Tensor, y_KD: Tensor) -> Tensor:
        return (x_ND[:, None] - y_KD[None]).square().sum(dim=2)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def distinct(points_ND: Tensor) -> set[tuple[float, ...]]:
    return {tuple(row) for row in points_ND.tolist()}


def test_rows_are_drawn_in_proportion_to_squared_distances() -> None:
    points_ND = torch.tensor([[0.0], [1.0], [3.0]])
    draws, generator = 3000, seeded()
    seen = Counter(tuple(kmeans_plus_plus(points_ND, 2, generator)[:, 0].tolist()) for _ in range(draws))
    for first, second in itertools.permutations([0.0, 1.0, 3.0], 2):
        total = sum((other - first) ** 2 for other in (0.0, 1.0, 3.0))
        wanted = (second - first) ** 2 / total / 3
        assert abs(seen[first, second] / draws - wanted) < 5 * (wanted / draws) ** 0.5


@given(
    rows=st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=25),
    offset=st.sampled_from([0.0, 0.1, 1000.0]),
    seed=st.integers(0, 9),
    direct=st.booleans(),
)
@settings(deadline=None, max_examples=80)
def test_as_many_clusters_as_distinct_rows_gives_each_of_them(
    rows: list[tuple[int, int]], offset: float, seed: int, direct: bool
) -> None:
    points_ND = torch.tensor(rows, dtype=torch.float32) * 0.3 + offset
    wanted = distinct(points_ND)
    distance = DirectDistance() if direct else SquaredEuclideanDistance()
    centroids_KD = KMeansPlusPlusInitInitializer(len(wanted), distance, generator=seeded(seed))(points_ND)
    assert distinct(centroids_KD) == wanted


def test_fewer_distinct_rows_than_clusters_repeats_some_and_warns() -> None:
    points_ND = torch.tensor([[0.1, 0.7], [5.3, 0.2]]).repeat(10, 1)
    with pytest.warns(UserWarning, match=r"only 2 distinct rows among 20 for 6 clusters: 4 centroids repeat"):
        centroids_KD = kmeans_plus_plus(points_ND, 6, seeded())
    assert centroids_KD.shape == (6, 2)
    assert distinct(centroids_KD) == distinct(points_ND)


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("value", [0.0, 0.1, 12345.678])
def test_constant_rows_in_one_dimension(value: float, direct: bool) -> None:
    distance = DirectDistance() if direct else SquaredEuclideanDistance()
    with pytest.warns(UserWarning, match="only 1 distinct rows"):
        centroids_KD = KMeansPlusPlusInitInitializer(4, distance)(torch.full((9, 1), value))
    assert torch.equal(centroids_KD, torch.full((4, 1), value))


def test_copies_of_wide_rows_count_once_though_products_round() -> None:
    points_ND = torch.randn(3, 999, generator=seeded()).repeat(7, 1) + 10
    with pytest.warns(UserWarning, match="only 3 distinct rows among 21"):
        kmeans_plus_plus(points_ND, 4, seeded())


def test_rows_nearer_than_the_rounding_of_products_still_count_apart() -> None:
    points_ND = torch.ones(2, 8)
    points_ND[1, 0] += 2e-7
    assert distinct(kmeans_plus_plus(torch.cat([points_ND, -points_ND]), 4, seeded())) == distinct(
        torch.cat([points_ND, -points_ND])
    )


@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_both_paths_draw_the_same_rows(offset: float) -> None:
    points_ND = torch.randn(400, 7, generator=seeded()) + offset
    fast_KD = KMeansPlusPlusInitInitializer(40, SquaredEuclideanDistance(), generator=seeded(1))(points_ND)
    direct_KD = KMeansPlusPlusInitInitializer(40, DirectDistance(), generator=seeded(1))(points_ND)
    assert torch.equal(fast_KD, direct_KD)


@pytest.mark.parametrize(("uniform", "wanted"), [(0.0, [0, 2]), (1.0, [4, 2])])
def test_a_row_at_distance_zero_is_not_drawn_even_at_the_ends(
    uniform: float, wanted: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    points_ND = torch.tensor([[0.0], [0.0], [2.0], [4.0], [4.0]])
    if uniform == 1:
        points_ND[0], points_ND[1] = 2.0, 2.0
    monkeypatch.setattr(torch, "rand", lambda n, dtype, **_: torch.full((n,), uniform, dtype=dtype))
    assert kmeans_plus_plus(points_ND, 2)[:, 0].tolist() == wanted


def test_a_generator_or_the_global_state_decides() -> None:
    points_ND = torch.randn(50, 3, generator=seeded())
    assert torch.equal(kmeans_plus_plus(points_ND, 5, seeded(4)), kmeans_plus_plus(points_ND, 5, seeded(4)))
    with torch.random.fork_rng():
        torch.manual_seed(4)
        assert torch.equal(kmeans_plus_plus(points_ND, 5), kmeans_plus_plus(points_ND, 5, seeded(4)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_drawing_on_the_cpu_serves_every_device() -> None:
    points_ND = torch.randn(500, 16, generator=seeded())
    initializer = KMeansPlusPlusInitInitializer(9, SquaredEuclideanDistance(), initialize_on_cpu=True)
    drawn = []
    for device in ("cpu", "cuda"):
        initializer.generator = seeded(2)
        drawn.append(initializer(points_ND.to(device)))
    assert drawn[1].is_cuda
    assert torch.equal(drawn[0], drawn[1].cpu())


@pytest.mark.parametrize("direct", [False, True])
def test_what_cannot_be_drawn_from_is_refused(direct: bool) -> None:
    distance = DirectDistance() if direct else SquaredEuclideanDistance()
    initializer = KMeansPlusPlusInitInitializer(3, distance)
    with pytest.raises(ValueError, match="3 clusters need as many rows to start from, not 2"):
        initializer(torch.randn(2, 4))
    with pytest.raises(ValueError, match="not finite"):
        initializer(torch.tensor([[1.0], [2.0], [torch.nan]]))
    with pytest.raises(ValueError, match="too large to square"):
        initializer(torch.randn(9, 2) * 1e30)
    with pytest.raises(ValueError, match="matrix"):
        initializer(torch.zeros(5))
    with pytest.raises(ValueError, match="at least 1"):
        KMeansPlusPlusInitInitializer(0, distance)(torch.zeros(5, 1))
