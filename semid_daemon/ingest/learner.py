"""Updates a generation's candidate and drift statistics from newly committed rows."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import numpy as np

from semid_daemon.base.types import Baseline, CodeArray, EmbeddingBatch, FloatArray, TrainingStep
from semid_daemon.codebooks.drift import (
    Drift,
    DriftState,
    Thresholds,
    chunk_statistics,
    expected_ratio,
    no_rows,
    update_drift,
)
from semid_daemon.config import Config
from semid_daemon.quantizer import (
    CandidateState,
    ContinualTrainer,
    Device,
    Encoder,
    LastCodeRanking,
    quantization_errors,
    worker_beside_others,
)
from semid_daemon.store.write.candidates import Candidate, CandidateUpdate
from semid_daemon.store.write.generations import Generation
from semid_daemon.store.write.placement import BucketPlan, Ranked
from semid_daemon.store.write.store import Store
from semid_daemon.store.write.telemetry import Metric

_FEWEST_ROWS = 256
_FEW_ROWS = 1024  # which a thread is not worth
# Errors are measured of rows of so many values of a chunk, evenly spaced, but of so many rows at least.
_MEASURED_VALUES, _FEWEST_MEASURED = 4096 * 384, 1024


@dataclass(frozen=True, slots=True)
class GenerationState:
    """What is committed of a generation: its candidate, the rows that wait for the next step, its drift."""

    generation: Generation
    baseline: Baseline
    candidate: CandidateState
    waiting: list[FloatArray]
    drift: DriftState


@dataclass(frozen=True, slots=True)
class ChunkUpdate:
    """What a chunk leaves: `learned` to be committed with it, `state` for the learner to go on from afterwards."""

    learned: CandidateUpdate
    state: GenerationState


class Learner:
    """Learns chunk by chunk, each in the transaction that commits its rows: never a row twice, nor one left out.

    `learn` leaves what is remembered as it is; `adopt` is called once it is committed. `forget` drops what is
    remembered: it is read anew from the database.
    """

    def __init__(self, config: Config, store: Store, device: Device, encoder: Callable[[int], Encoder]) -> None:
        self._settings = config.generations
        self._seed = config.quantizer.seed
        self._store = store
        self._device = device
        self._encoder = encoder
        self._states: dict[int, GenerationState] = {}
        self._rankings: dict[int, LastCodeRanking] = {}
        self._pool = worker_beside_others("semid-learn")
        self._thresholds = Thresholds(
            self._settings.drift_error_ratio, self._settings.drift_js, float(self._settings.drift_window_rows)
        )

    def forget(self) -> None:
        self._states.clear()

    def ranked(self, generation: int, embeddings_ND: FloatArray, codes_NL: CodeArray) -> Ranked:
        """All last codes for the row at a position, the nearest first, as `place` asks for them."""

        def rank(position: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
            if generation not in self._rankings:
                self._rankings = {generation: LastCodeRanking(self._encoder(generation).codebooks)}
            return self._rankings[generation].rank(embeddings_ND[position], codes_NL[position])

        return rank

    def learn(
        self, generation: int, batch: EmbeddingBatch, codes_NL: CodeArray, plan: BucketPlan
    ) -> ChunkUpdate | None:
        """What a chunk's new rows leave, to be committed with them; None where there are none.

        `codes_NL` are the rows' nearest codes. The rows are new to the generation: it was not trained on them.
        """
        new = plan.written
        state = self._state(generation) if new else None
        if state is None:
            return None
        if len(new) == len(codes_NL):
            rows_ND, codes = batch.embeddings_ND, codes_NL
        else:
            rows_ND, codes = batch.embeddings_ND[new], codes_NL[new]
        state, learned = self._measure(state, rows_ND, codes, plan)
        if self._settings.mode == "continual":
            state, learned = self._train(state, learned, rows_ND)
        return ChunkUpdate(learned, state)

    def start(
        self,
        generation: int,
        batch: EmbeddingBatch,
        codes_NL: CodeArray,
        plan: BucketPlan,
        within: Callable[[], AbstractContextManager[None]],
    ) -> Future[ChunkUpdate | None]:
        """`learn` in a thread of its own, or at once from few rows, inside of a context that `within` makes there."""
        self._state(generation)  # read from the database here, where it was opened
        self._encoder(generation)

        def work() -> ChunkUpdate | None:
            with within():
                return self.learn(generation, batch, codes_NL, plan)

        if len(plan.written) > _FEW_ROWS:
            return self._pool.submit(work)
        done: Future[ChunkUpdate | None] = Future()
        done.set_result(work())
        return done

    def adopt(self, update: ChunkUpdate | None) -> None:
        """What `learn` gave is committed."""
        if update is not None:
            self._states[update.state.generation.number] = update.state

    def candidate(self, generation: int) -> CandidateState | None:
        """The candidate as far as it is committed, the rows that wait for its next step learned in."""
        state = self._state(generation)
        if state is None:
            return None
        if not state.waiting:
            return state.candidate
        return self._trainer(state).learn(state.candidate, np.concatenate(state.waiting)).state

    # -- drift -------------------------------------------------------------------------------------

    def _measure(
        self, state: GenerationState, rows_ND: FloatArray, codes_NL: CodeArray, plan: BucketPlan
    ) -> tuple[GenerationState, CandidateUpdate]:
        number = state.generation.number
        most = max(_FEWEST_MEASURED, _MEASURED_VALUES // rows_ND.shape[1])
        measured = slice(None, None, -(-len(rows_ND) // most))
        errors_N = quantization_errors(
            self._encoder(number).codebooks, rows_ND[measured], codes_NL[measured], self._device
        )
        assigned, collided = len(plan.rows.assign), plan.collisions
        statistics = chunk_statistics(errors_N, codes_NL, state.baseline, assigned=assigned, collided=collided)
        change = update_drift(state.drift, statistics, state.baseline, self._thresholds)
        metrics: dict[str, list[Metric]] = {}
        if not statistics.is_finite:
            metrics = {f"ingest-{number}": [Metric("drift_error_ratio", statistics.errors)]}  # left out, which is said
        if change.latest is not None and change.recent is not None:
            metrics = {f"ingest-{number}": _metrics(change.latest), f"drift-{number}": _metrics(change.recent)}
        events = []
        if change.alarm is not None and change.recent is not None:
            events.append(_said(number, change.recent, expected_ratio(state.baseline), change.alarm))
        learned = CandidateUpdate(drift=change.state.to_bytes(), metrics=metrics, events=events)
        return replace(state, drift=change.state), learned

    def alarm(self, generation: int) -> bool:
        """Whether a refresh is recommended."""
        state = self._state(generation)
        return state is not None and state.drift.alarm

    # -- the candidate -------------------------------------------------------------------------------

    def _train(
        self, state: GenerationState, learned: CandidateUpdate, rows_ND: FloatArray
    ) -> tuple[GenerationState, CandidateUpdate]:
        """A step, once rows enough have come: a candidate is written as a whole, which single rows are not worth."""
        generation = state.generation
        waiting = [*state.waiting, rows_ND]
        enough = max(_FEWEST_ROWS, generation.layers * generation.codebook_size)
        if sum(len(waiting_ND) for waiting_ND in waiting) < enough:
            waiting[-1] = rows_ND.copy()  # the chunk's memory is not ours
            return replace(state, waiting=waiting), replace(learned, waiting_ND=rows_ND)
        together_ND = np.concatenate(waiting) if len(waiting) > 1 else rows_ND
        step = self._trainer(state).learn(state.candidate, together_ND)
        candidate = step.state
        revived = [Metric("revived", float(count), layer) for layer, count in enumerate(step.revived) if count]
        metrics = {**learned.metrics, f"candidate-{generation.number}": revived}
        losses = [TrainingStep(candidate.steps, layer, candidate.steps, loss) for layer, loss in enumerate(step.losses)]
        kept = Candidate(
            generation.fingerprint, candidate.centroids_LKD, candidate.counts_LK, candidate.steps, candidate.rows
        )
        return replace(state, candidate=candidate, waiting=[]), replace(
            learned, candidate=kept, losses=losses, metrics=metrics
        )

    def _trainer(self, state: GenerationState) -> ContinualTrainer:
        return ContinualTrainer(
            self._encoder(state.generation.number).codebooks,
            trained_rows=max(1, state.generation.trained_rows),
            forgetting=self._settings.forgetting,
            seed=self._seed,
            device=self._device,
        )

    def _state(self, number: int) -> GenerationState | None:
        """What the database has of a generation; None where nothing is known of its training rows."""
        if number not in self._states:
            generation, baseline = self._store.generations.get(number), self._store.generations.baseline(number)
            if generation is None or baseline is None:
                return None
            kept, drift = self._store.candidates.get(number), self._store.candidates.drift(number)
            shape = generation.layers, generation.codebook_size
            self._states[number] = GenerationState(
                generation=generation,
                baseline=baseline,
                candidate=CandidateState(self._encoder(number).codebooks.centroids_LKD, baseline.counts_LK)
                if kept is None
                else CandidateState(kept.centroids_LKD, kept.counts_LK, kept.steps, kept.rows),
                waiting=self._store.candidates.waiting_rows(number, generation.dim),
                drift=DriftState(no_rows(*shape), no_rows(*shape), alarm=False)
                if drift is None
                else DriftState.from_bytes(drift, *shape),
            )
        return self._states[number]


def _said(number: int, recent: Drift, expected: float, alarm: bool) -> tuple[str, str]:
    """Level and message of an event."""
    figures = (
        f"recent rows have {recent.error_ratio:.3f} times the error of the training rows of generation {number}"
        f" (without drift about {expected:.3f}), and their use of codes differs by {max(recent.divergence_L):.3f} bits"
    )
    if alarm:
        return "warning", f"refresh recommended: {figures}; `semid train` prepares one, and changes no ID"
    return "info", f"refresh no longer recommended: {figures}"


def _metrics(drift: Drift) -> list[Metric]:
    return [
        Metric("drift_error_ratio", drift.error_ratio),
        Metric("drift_tail_share", drift.tail_share),
        Metric("drift_collision_rate", drift.collision_rate),
        *(Metric("drift_js", value, layer) for layer, value in enumerate(drift.divergence_L)),
        *(Metric("drift_dead_alive", float(count), layer) for layer, count in enumerate(drift.newly_used_L)),
    ]
