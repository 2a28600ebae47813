"""Incremental training: sums worked by hand, forgetting, revival, and steps that depend on nothing but their state."""

from __future__ import annotations

import numpy as np
import pytest

from semid_daemon.base.types import Codebooks
from semid_daemon.quantizer import CandidateState, ContinualTrainer, continual, resolve_device

CPU = resolve_device("cpu")


def trainer(layers: int = 1, forgetting: float = 0.0, normalize: bool = False, **options) -> ContinualTrainer:
    codebooks = Codebooks(np.zeros((layers, 2, 1), np.float32), normalize, options.pop("biases_LK", None))
    return ContinualTrainer(codebooks, trained_rows=3, forgetting=forgetting, seed=0, device=CPU, **options)


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


def test_a_step_worked_by_hand():
    """Code 0 stands for two rows at 0, code 1 for two at 10; 3 comes to the one, 12 twice to the other."""
    state = CandidateState(np.array([[[0], [10]]], np.float32), np.array([[2.0, 2.0]]))
    step = trainer().learn(state, column(3, 12, 12))
    np.testing.assert_allclose(step.state.centroids_LKD[0, :, 0], [1, 11])  # (0+0+3)/3, (10+10+12+12)/4
    np.testing.assert_allclose(step.state.counts_LK, [[3, 4]])
    assert step.losses == pytest.approx([(9 + 4 + 4) / 3])
    assert (step.state.steps, step.state.rows, step.revived) == (1, 3, [0])
    np.testing.assert_array_equal(state.centroids_LKD[0, :, 0], [0, 10])  # what was given is left as it is


def test_forgetting_halves_what_was_learned_while_as_many_rows_come_again():
    state = CandidateState(np.array([[[0], [10]]], np.float32), np.array([[2.0, 2.0]]))
    step = trainer(forgetting=0.5).learn(state, column(3, 12, 12))
    np.testing.assert_allclose(step.state.counts_LK, [[2, 3]])
    np.testing.assert_allclose(step.state.centroids_LKD[0, :, 0], [1.5, 10 + 4 / 3], rtol=1e-6)


def test_the_second_layer_learns_from_what_the_first_leaves():
    state = CandidateState(np.array([[[0], [10]], [[-1], [1]]], np.float32), np.array([[1.0, 1.0], [1.0, 1.0]]))
    step = trainer(layers=2).learn(state, column(2, 10))
    # Layer 0: 2 pulls 0 to 1, 10 stays. What is left: 2 - 1 = 1, and 0 between -1 and 1, which goes to the first.
    np.testing.assert_allclose(step.state.centroids_LKD[:, :, 0], [[1, 10], [-0.5, 1]])


def test_biases_of_balanced_codebooks_hold():
    state = CandidateState(np.array([[[0], [10]]], np.float32), np.array([[1.0, 1.0]]))
    biases_LK = np.array([[0, 1000]], np.float32)
    step = trainer(biases_LK=biases_LK).learn(state, column(9))
    np.testing.assert_allclose(step.state.centroids_LKD[0, :, 0], [4.5, 10])


def test_a_dead_code_is_put_where_rows_are_badly_served():
    state = CandidateState(np.array([[[0], [1000]]], np.float32), np.array([[100.0, 0.0]]))
    step = trainer().learn(state, column(0, 0, 0, 7))
    assert step.revived == [1]
    assert step.state.centroids_LKD[0, 1, 0] == 7  # the only row with an error
    assert step.state.counts_LK[0, 1] == 1


def test_error_on_rows_to_come_falls(clustered):
    """Rows around centres that the codebooks have never seen."""
    rows_ND = clustered(600, 8, seed=1)
    centroids_LKD = np.random.default_rng(0).normal(size=(2, 16, 8)).astype(np.float32)
    learner = ContinualTrainer(Codebooks(centroids_LKD, True), trained_rows=64, forgetting=0.3, seed=0, device=CPU)
    state = CandidateState(centroids_LKD, np.full((2, 16), 4.0))
    losses = []
    for start in range(0, 600, 100):
        step = learner.learn(state, rows_ND[start : start + 100])
        state = step.state
        losses.append(step.losses[0])
    assert losses[-1] < 0.5 * losses[0]
    assert state.counts_LK.sum(axis=1) == pytest.approx([state.counts_LK[0].sum()] * 2, abs=40)


def test_of_very_many_rows_a_share_is_learned_from_and_counted_for_all(monkeypatch):
    """Every second row is: 3 and 12 as often, and nothing of those between."""
    monkeypatch.setattr(continual, "_LEARNED_VALUES", 8192)
    state = CandidateState(np.array([[[0], [10]]], np.float32), np.array([[2000.0, 2000.0]]))
    rows_ND = np.tile(column(3, 100, 12, 100), (4096, 1))
    step = trainer().learn(state, rows_ND)
    np.testing.assert_allclose(step.state.counts_LK, [[2000 + 8192, 2000 + 8192]])
    np.testing.assert_allclose(step.state.centroids_LKD[0, :, 0], [3 * 8192 / 10192, 10 + 2 * 8192 / 10192], rtol=1e-5)
    assert step.state.rows == rows_ND.shape[0]
