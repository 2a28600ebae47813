"""The default trainer: hand-worked cases, moves that free it from bad minima, dead codes revived, hard data."""

from __future__ import annotations

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from semid_daemon.base.types import Codebooks, FloatArray, TrainingStep
from semid_daemon.quantizer import Encoder, LloydTrainer, lloyd
from semid_daemon.quantizer.assign import assign, cluster_sums
from semid_daemon.quantizer.lloyd import RESTARTS
from semid_daemon.quantizer.seeding import greedy_kmeans_plus_plus, kmeans_parallel, seed_centroids
from semid_daemon.quantizer.splitting import split_and_merge
from semid_daemon.store.write.health import layer_health

CPU = torch.device("cpu")
DEVICES = [CPU, *([torch.device("cuda")] if torch.cuda.is_available() else [])]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained(
    rows_ND: FloatArray,
    layers: int,
    size: int,
    normalize: bool,
    device: torch.device = CPU,
    seed: int = 42,
    restarts: int = RESTARTS,
) -> tuple[Codebooks, list[TrainingStep]]:
    trainer = LloydTrainer(
        n_layers=layers,
        n_clusters=size,
        normalize_residuals=normalize,
        seed=seed,
        device=device,
        iterations=100,
        tolerance=1e-4,
        restarts=restarts,
    )
    steps = list(trainer.train(rows_ND))
    return trainer.codebooks, steps


def quick_trainer(normalize: bool, balanced: bool, beam_width: int = 1, layers: int = 2) -> LloydTrainer:
    """Layers of 32 codes, settled roughly."""
    return LloydTrainer(
        n_layers=layers,
        n_clusters=32,
        normalize_residuals=normalize,
        seed=1,
        device=CPU,
        iterations=30,
        tolerance=1e-3,
        balanced=balanced,
        beam_width=beam_width,
    )


def inertia(rows_ND: Tensor, centroids_KD: Tensor) -> float:
    return float(torch.cdist(rows_ND.double(), centroids_KD.double()).square().amin(dim=1).sum())


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_four_points_worked_by_hand(device: torch.device):
    rows_ND = np.array([[-11.0], [-9.0], [9.0], [11.0]], dtype=np.float32)
    codebooks, steps = trained(rows_ND, 2, 2, False, device)
    np.testing.assert_allclose(np.sort(codebooks.centroids_LKD[..., 0], axis=1), [[-10, 10], [-1, 1]], atol=1e-5)
    last = {step.layer: step.loss for step in steps}
    assert last[0] == pytest.approx(1.0, abs=1e-3)
    assert last[1] == pytest.approx(0.0, abs=1e-3)
    assert [step.step for step in steps] == list(range(1, len(steps) + 1))


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_assignment_and_sums(device: torch.device):
    rows_ND = torch.randn(500, 17, generator=generator()).to(device)
    centroids_KD = rows_ND[:23] + 0.1
    labels_N, best_N = assign(rows_ND, centroids_KD)
    distances_NK = torch.cdist(rows_ND.double(), centroids_KD.double()).square()
    tolerance = 1e-4 if device == CPU else 0.05  # float16 products on CUDA
    chosen_N = distances_NK.gather(1, labels_N[:, None])[:, 0]
    assert (chosen_N - distances_NK.amin(dim=1)).max() < tolerance
    torch.testing.assert_close(
        rows_ND.square().sum(dim=1) - 2 * best_N, chosen_N.float(), atol=tolerance, rtol=tolerance
    )
    sums_KD, counts_K = cluster_sums(rows_ND, labels_N, 23)
    expected_KD = torch.zeros(23, 17, dtype=torch.float64, device=device).index_add_(0, labels_N, rows_ND.double())
    torch.testing.assert_close(sums_KD.double(), expected_KD, atol=1e-4, rtol=1e-4)
    assert counts_K.tolist() == torch.bincount(labels_N, minlength=23).tolist()


def test_the_loss_falls_and_the_result_is_its_own_fixed_point(popular):
    """Codebooks are the means of the rows that their own encoding gives them."""
    _, rows_ND = popular
    codebooks, steps = trained(rows_ND, 3, 64, True, restarts=1)  # another run starts from a higher loss
    for layer in range(3):
        losses = [step.loss for step in steps if step.layer == layer]
        assert losses[-1] < losses[0]
        rises = [later - earlier for earlier, later in zip(losses, losses[1:], strict=False)]
        assert max(rises) < 1e-6
    codes_NL = Encoder(codebooks, CPU).encode(rows_ND)
    residual_ND = rows_ND.astype(np.float64)
    for centroids_KD, codes_N in zip(codebooks.centroids_LKD, codes_NL.T, strict=True):
        residual_ND /= np.linalg.norm(residual_ND, axis=1, keepdims=True)
        means_KD = np.stack([residual_ND[codes_N == code].mean(axis=0) for code in range(64)])
        assert np.abs(means_KD - centroids_KD).max() < 0.05  # converged to 1e-4 of the loss, not to the end
        residual_ND -= centroids_KD[codes_N]


@pytest.mark.slow
def test_real_embeddings_use_every_code(popular):
    _, rows_ND = popular
    codebooks, _ = trained(rows_ND, 3, 256, True)
    codes_NL = Encoder(codebooks, CPU).encode(rows_ND)
    health = layer_health(np.stack([np.bincount(codes_N, minlength=256) for codes_N in codes_NL.T]))
    assert [layer.dead_codes for layer in health] == [0, 0, 0]
    assert min(layer.perplexity for layer in health) > 180
    assert len(np.unique(codes_NL, axis=0)) / len(codes_NL) > 0.96


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_the_same_seed_gives_the_same_codebooks(device: torch.device):
    rows_ND = np.random.default_rng(0).normal(size=(3000, 24)).astype(np.float32)
    one, _ = trained(rows_ND, 2, 32, True, device)
    other, _ = trained(rows_ND.copy(), 2, 32, True, device)
    np.testing.assert_array_equal(one.centroids_LKD, other.centroids_LKD)
    another_seed, _ = trained(rows_ND, 2, 32, True, device, seed=7)
    assert not np.array_equal(one.centroids_LKD, another_seed.centroids_LKD)


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_moves_free_a_bad_start(device: torch.device):
    """Three far groups; two centroids share one, one sits between the other two: no Lloyd iteration helps."""
    random = np.random.default_rng(1)
    groups = [[0.0, 0.0], [100.0, 0.0], [110.0, 0.0]]
    rows_ND = torch.from_numpy(
        np.concatenate([np.array(group) + random.normal(size=(50, 2)) for group in groups]).astype(np.float32)
    ).to(device)
    stuck_KD = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [105.0, 0.0]], device=device)
    labels_N, _ = assign(rows_ND, stuck_KD)
    moved_KD, moves = split_and_merge(rows_ND, labels_N, stuck_KD, generator(), 3)
    assert moves == 1
    assert inertia(rows_ND, moved_KD) < 0.1 * inertia(rows_ND, stuck_KD)
    np.testing.assert_allclose(np.sort(moved_KD[:, 0].cpu().numpy()), [0, 100, 110], atol=1)
    labels_N, _ = assign(rows_ND, moved_KD)
    assert split_and_merge(rows_ND, labels_N, moved_KD, generator(), 3)[1] == 0


def test_moves_never_raise_the_loss():
    for seed in range(10):
        rows_ND = torch.randn(400, 6, generator=generator(seed))
        centroids_KD = rows_ND[:40]
        labels_N, _ = assign(rows_ND, centroids_KD)
        sums_KD, counts_K = cluster_sums(rows_ND, labels_N, 40)
        before = inertia(rows_ND, sums_KD / counts_K.clamp_min(1)[:, None])
        moved_KD, moves = split_and_merge(rows_ND, labels_N, centroids_KD, generator(seed), 10)
        assert moves > 0
        assert inertia(rows_ND, moved_KD) < before


def test_dead_codes_are_revived():
    rows_ND = torch.randn(300, 4, generator=generator())
    dead_KD = torch.full((8, 4), 1000.0)
    centroids_KD = torch.cat([rows_ND[:8], dead_KD])
    labels_N, _ = assign(rows_ND, centroids_KD)
    moved_KD, moves = split_and_merge(rows_ND, labels_N, centroids_KD, generator(), 8)
    labels_N, _ = assign(rows_ND, moved_KD)
    assert moves == 8
    assert len(labels_N.unique()) == 16


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("dim", [1, 5])
def test_fewer_distinct_rows_than_codes_end_with_a_warning(dim: int, normalize: bool):
    rows_ND = np.repeat(np.random.default_rng(0).normal(size=(5, dim)), 20, axis=0).astype(np.float32)
    with pytest.warns(UserWarning, match="distinct rows"):
        codebooks, steps = trained(rows_ND, 2, 8, normalize)
    assert np.isfinite(codebooks.centroids_LKD).all()
    assert len(steps) < 60 * RESTARTS
    codes_NL = Encoder(codebooks, CPU).encode(rows_ND)
    assert len(np.unique(codes_NL, axis=0)) <= 5


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_constant_data(value: float):
    rows_ND = np.full((50, 3), value, dtype=np.float32)
    with pytest.warns(UserWarning, match="only 1 distinct rows"):
        codebooks, _ = trained(rows_ND, 2, 4, True)
    assert np.isfinite(codebooks.centroids_LKD).all()
    assert len(np.unique(Encoder(codebooks, CPU).encode(rows_ND), axis=0)) == 1


def test_too_few_rows():
    with pytest.raises(ValueError, match="3 rows for 4 clusters"):
        trained(np.ones((3, 2), dtype=np.float32), 1, 4, True)


def test_no_codebooks_before_training_has_ended():
    trainer = LloydTrainer(
        n_layers=1, n_clusters=2, normalize_residuals=True, seed=0, device=CPU, iterations=5, tolerance=0.0
    )
    next(iter(trainer.train(np.eye(4, dtype=np.float32))))
    with pytest.raises(RuntimeError):
        _ = trainer.codebooks


def test_seeds_are_rows_and_spread():
    centres_KD = 20 * torch.randn(50, 8, generator=generator(1))
    rows_ND = centres_KD.repeat_interleave(40, dim=0) + torch.randn(2000, 8, generator=generator())
    random_KD = rows_ND[torch.randperm(2000, generator=generator())[:50]]
    for seeds_KD in (
        greedy_kmeans_plus_plus(rows_ND, 50, generator(), 3),
        kmeans_parallel(rows_ND, 50, generator()),
        seed_centroids(rows_ND, 50, generator()),
    ):
        assert seeds_KD.shape == (50, 8)
        assert inertia(seeds_KD, rows_ND) < 1e-6
        assert len(seeds_KD.unique(dim=0)) == 50
        assert inertia(rows_ND, seeds_KD) < 0.5 * inertia(rows_ND, random_KD)


def test_copies_are_not_drawn_while_other_rows_remain():
    """Distances between copies are rounding noise; drawn as if real they would waste centroids."""
    distinct_ND = 1000 + torch.randn(20, 64, generator=generator())
    rows_ND = distinct_ND.repeat(50, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seeds_KD = greedy_kmeans_plus_plus(rows_ND, 20, generator(), 3)
    assert len(seeds_KD.unique(dim=0)) == 20


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_every_draw_is_that_of_the_textbook(device: torch.device, weighted: bool):
    """Whole coordinates about zero, whose distances are exact in float32 as well, against a loop in float64."""
    clusters, trials = 200, 3
    half_ND = torch.randint(-20, 21, (300, 6), generator=generator(2)).float()
    rows_ND = torch.cat([half_ND, -half_ND])
    weights_N = torch.randint(1, 9, (600,), generator=generator(3)).float() if weighted else torch.ones(600)
    uniforms_KT = torch.rand((clusters, trials), generator=generator(), dtype=torch.float64)
    squares_NN = (rows_ND.double()[:, None] - rows_ND.double()).square().sum(dim=2)
    chosen = [int(uniforms_KT[0, 0] * 600)]
    for drawn in range(1, clusters):
        nearest_N = squares_NN[:, chosen].amin(dim=1)
        cumulative_N = (nearest_N * weights_N).cumsum(0)
        candidates = torch.searchsorted(cumulative_N, uniforms_KT[drawn] * cumulative_N[-1], right=True).tolist()
        costs = [float(weights_N.double() @ torch.minimum(nearest_N, squares_NN[:, each])) for each in candidates]
        chosen.append(candidates[costs.index(min(costs))])

    seeds_KD = greedy_kmeans_plus_plus(
        rows_ND.to(device), clusters, generator(), trials, weights_N.to(device) if weighted else None
    )

    assert torch.equal(seeds_KD.cpu(), rows_ND[chosen])


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("distinct", [30, 100])
def test_draws_end_with_the_distinct_rows(device: torch.device, distinct: int):
    rows_ND = torch.randn(distinct, 6, generator=generator()).repeat(5, 1).to(device)
    with pytest.warns(UserWarning, match=f"only {distinct} distinct rows for 250 centroids"):
        seeds_KD = greedy_kmeans_plus_plus(rows_ND, 250, generator(), 3)
    assert len(seeds_KD[:distinct].unique(dim=0)) == distinct
    assert len(torch.cat([seeds_KD, rows_ND]).unique(dim=0)) == distinct


@pytest.mark.skipif(len(DEVICES) == 1, reason="no GPU")
def test_draws_beside_another_thread_on_the_device():
    """The draws are recorded once and replayed; what others allocate and compute meanwhile is not recorded."""
    rows_ND = torch.randn(4096, 64, generator=generator()).to("cuda")
    alone_KD = greedy_kmeans_plus_plus(rows_ND, 256, generator(), 3)
    ended = threading.Event()

    def work() -> int:
        rounds = 0
        while not ended.is_set():
            more_ND = torch.ones(50_000 + 1000 * (rounds % 50), 64, device="cuda")
            assert bool((more_ND @ more_ND[:8].T == 64.0).all())
            torch.cuda.empty_cache()
            rounds += 1
        return rounds

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        try:
            for _ in range(20):
                assert torch.equal(greedy_kmeans_plus_plus(rows_ND, 256, generator(), 3), alone_KD)
        finally:
            ended.set()
        assert working.result() > 20


def test_many_clusters_start_from_kmeans_parallel():
    rows_ND = torch.randn(20_000, 4, generator=generator())
    seeds_KD = seed_centroids(rows_ND, 1500, generator())
    assert len(seeds_KD.unique(dim=0)) == 1500
    random_KD = rows_ND[torch.randperm(20_000, generator=generator())[:1500]]
    assert inertia(rows_ND, seeds_KD) < 0.9 * inertia(rows_ND, random_KD)


@pytest.mark.slow
@pytest.mark.parametrize("normalize", [True, False])
def test_balanced_codes_share_the_rows_evenly(normalize: bool, popular):
    _, rows_ND = popular
    usage = {}
    for balanced in (False, True):
        trainer = quick_trainer(normalize, balanced)
        list(trainer.train(rows_ND))
        codes_NL = Encoder(trainer.codebooks, CPU).encode(rows_ND)
        usage[balanced] = np.stack([np.bincount(codes_N, minlength=32) for codes_N in codes_NL.T])
    share = len(rows_ND) / 32
    assert usage[False].max() > 1.5 * share
    assert usage[True].max() <= 1.2 * share


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_two_choices_worked_by_hand(device: torch.device):
    """The centroids of layer 0 are 0, 4 and 10; of 1 they leave 1, -3 and -9, so the two best go on."""
    rows = lloyd._Hypotheses(torch.tensor([[1.0], [9.0]], device=device))
    layer = lloyd._LayerRun(rows.residuals_HD, 2, generator(), 0, 0.0)
    layer.centroids_KD = torch.tensor([[0.0], [4.0], [10.0]], device=device)
    layer.biases_K = torch.zeros(3, device=device)
    assert rows.choose(layer, 2).tolist() == [1, 0, 1]
    assert rows.residuals_HD.flatten().tolist() == [1, -3, -1, 5]
    # Of 1 and -3 the second codes 0 and 3 leave (1, -2) and (-3, -6); of -1 and 5 they leave (-1, -4) and (5, 2).
    layer.centroids_KD = torch.tensor([[0.0], [3.0]], device=device)
    layer.biases_K = torch.zeros(2, device=device)
    rows.choose(layer, 2)
    assert rows.residuals_HD.flatten().tolist() == [1, -2, -1, 2]


def test_choices_weigh_by_the_scale_of_the_row():
    """Of 3 and 8, left of two rows, the unit vectors are the same; what is left of them is not."""
    rows = lloyd._Hypotheses(torch.tensor([[3.0, 0.0], [0.0, 8.0]]))
    rows.normalize()
    assert rows._scales_H.tolist() == [3, 8]
    layer = lloyd._LayerRun(rows.residuals_HD, 2, generator(), 0, 0.0)
    layer.centroids_KD = torch.tensor([[0.5, 0.0], [0.0, 0.5]])
    rows.choose(layer, 2)
    rows.normalize()
    assert torch.allclose(rows._scales_H, torch.tensor([1.5, 3 * 1.25**0.5, 4.0, 8 * 1.25**0.5]))


@pytest.mark.slow
@pytest.mark.parametrize("normalize", [True, False])
def test_a_search_does_better_with_codebooks_trained_for_it(normalize: bool, popular):
    """On rows that they were not trained on; the searching encoder is the same."""
    _, rows_ND = popular
    errors = {}
    for beam_width in (1, 5):
        trainer = quick_trainer(normalize, balanced=False, beam_width=beam_width, layers=3)
        list(trainer.train(rows_ND[:2800]))
        held_out_ND = rows_ND[2800:]
        codebooks = replace(trainer.codebooks, beam_width=5)
        codes_NL = Encoder(codebooks, CPU).encode(held_out_ND)
        residual_ND, scale_N = held_out_ND.astype(np.float64), np.ones(len(held_out_ND))
        for layer, codes_N in enumerate(codes_NL.T):
            if normalize:
                norms_N = np.linalg.norm(residual_ND, axis=1)
                residual_ND, scale_N = residual_ND / norms_N[:, None], scale_N * norms_N
            residual_ND = residual_ND - codebooks.centroids_LKD[layer, codes_N]
        errors[beam_width] = float(((residual_ND * scale_N[:, None]) ** 2).sum(axis=1).mean())
    assert errors[5] < errors[1]


def test_cheap_training_keeps_the_best_of_several_runs():
    rows_ND = np.random.default_rng(4).normal(size=(400, 6)).astype(np.float32)
    losses = {}
    for restarts in (1, 6):
        codebooks, _ = trained(rows_ND, 1, 20, False, restarts=restarts)
        losses[restarts] = inertia(torch.from_numpy(rows_ND), torch.from_numpy(codebooks.centroids_LKD[0]))
    assert losses[6] < losses[1]


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
def test_going_over_all_rows_betters_what_a_sample_gave(normalize: bool, balanced: bool, popular):
    _, rows_ND = popular
    trainer = quick_trainer(normalize, balanced)
    steps = list(trainer.train(rows_ND[::12]))
    of_sample = trainer.codebooks
    refined = list(trainer.refine(lambda: np.array_split(rows_ND, 7), epochs=2))
    assert len(refined) == 2 * 2 * 7  # control comes back after every batch of every pass
    more = [step for step in refined if step is not None]
    assert [step.step for step in more] == list(range(len(steps) + 1, len(steps) + 1 + len(more)))
    assert {step.layer for step in more} == {0, 1}
    unit_ND = torch.from_numpy(rows_ND)
    if normalize:
        unit_ND = torch.nn.functional.normalize(unit_ND, dim=1)
    before, after = (inertia(unit_ND, torch.from_numpy(c.centroids_LKD[0])) for c in (of_sample, trainer.codebooks))
    assert after < 0.99 * before
    assert (trainer.codebooks.biases_LK is None) == (not balanced)


def test_going_over_the_same_rows_again_changes_little():
    """Rows that are already means of their clusters, counted truly, stay where they are."""
    rows_ND = np.array([[-11.0], [-9.0], [9.0], [11.0]], dtype=np.float32)
    trainer = LloydTrainer(
        n_layers=1, n_clusters=2, normalize_residuals=False, seed=0, device=CPU, iterations=9, tolerance=0.0
    )
    list(trainer.train(rows_ND))
    (step,) = filter(None, trainer.refine(lambda: [rows_ND[:0], rows_ND], epochs=1))
    assert step.loss == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_allclose(np.sort(trainer.codebooks.centroids_LKD[0, :, 0]), [-10, 10], atol=1e-5)


def test_too_little_device_memory_is_a_memory_error(monkeypatch: pytest.MonkeyPatch):
    def none_left(*_: object) -> None:
        raise torch.OutOfMemoryError("none left")

    monkeypatch.setattr(lloyd, "assign", none_left)
    with pytest.raises(MemoryError, match="none left"):
        trained(np.eye(8, dtype=np.float32), 1, 2, True)
