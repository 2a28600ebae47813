"""What chunks leave behind beside their rows: metrics, a generation's candidate, and its drift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from semid_daemon.base.errors import StoreError
from semid_daemon.base.types import CountArray, FloatArray, TrainingStep
from semid_daemon.store.write.database import Transactions

LOSS_SPANS = (10, 100, 1000)
_ROLL_UP = """
    INSERT INTO _loss_rollups (run, layer, span, step, steps, low, high, total) VALUES (?, ?, ?, ?, 1, ?, ?, ?)
    ON CONFLICT DO UPDATE SET steps = steps + 1, low = min(low, excluded.low), high = max(high, excluded.high),
        total = total + excluded.total
"""


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured value; `layer` is None where it concerns all of them."""

    name: str
    value: float
    layer: int | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A candidate as it is kept: centroids (L×K×D float32), the rows each stands for (L×K float64), and progress."""

    fingerprint: str  # of the generation that it started from
    centroids_LKD: FloatArray
    counts_LK: CountArray
    steps: int
    rows: int


@dataclass(frozen=True, slots=True)
class Learned:
    """What one chunk's rows leave with their generation: written with them, or not at all.

    `candidate` is the candidate after a step, which used up all waiting rows; without a step, `waiting_ND` are rows
    to be kept for the next one; `losses` are the step's, layer by layer. `drift` is the drift's state. `metrics` go by
    the name of their run.
    """

    candidate: Candidate | None = None
    waiting_ND: FloatArray | None = None
    losses: list[TrainingStep] = field(default_factory=list)
    drift: bytes | None = None
    metrics: dict[str, list[Metric]] = field(default_factory=dict)
    events: list[tuple[str, str]] = field(default_factory=list)


class LearnedState(Transactions):
    """Candidates and drift by generation."""

    def candidate(self, generation: int) -> Candidate | None:
        """A generation's candidate. Raises StoreError when it started from other codebooks."""
        row = self._read_one(
            "SELECT c.fingerprint, c.steps, c.rows, g.layers, g.codebook_size, g.dim, g.fingerprint"
            " FROM _candidates c JOIN _generations g USING (generation) WHERE generation = ?",
            (generation,),
        )
        if row is None:
            return None
        fingerprint, steps, rows, layers, codebook_size, dim, expected = row
        if fingerprint != expected:
            raise StoreError(
                f"{self._path}: the candidate of generation {generation} started from {fingerprint}, not {expected};"
                " stop the daemon and restore a backup"
            )
        centroids_LKD = np.empty((layers, codebook_size, dim), np.float32)
        counts_LK = np.empty((layers, codebook_size), np.float64)
        for layer, centroids, counts in self._read(
            "SELECT layer, centroids, counts FROM _candidate_layers WHERE generation = ?", (generation,)
        ):
            centroids_LKD[layer] = np.frombuffer(centroids, "<f4").reshape(codebook_size, dim)
            counts_LK[layer] = np.frombuffer(counts, "<f8")
        return Candidate(fingerprint, centroids_LKD, counts_LK, steps, rows)

    def waiting_rows(self, generation: int, dim: int) -> list[FloatArray]:
        """The rows (N×dim float32 each) that wait for the candidate's next step, chunk by chunk."""
        return [
            np.frombuffer(embeddings, "<f4").reshape(-1, dim).astype(np.float32)
            for (embeddings,) in self._read(
                "SELECT embeddings FROM _candidate_rows WHERE generation = ? ORDER BY chunk_id", (generation,)
            )
        ]

    def drift(self, generation: int) -> bytes | None:
        """The state of a generation's drift, as it was last committed."""
        row = self._read_one("SELECT state FROM _drift WHERE generation = ?", (generation,))
        return None if row is None else bytes(row[0])

    def _write_learned(self, generation: int, chunk_id: int, learned: Learned, now: str) -> None:
        if learned.candidate is not None:
            self._write_candidate(generation, learned.candidate)
        elif learned.waiting_ND is not None:
            self._connection.execute(
                "INSERT INTO _candidate_rows (generation, chunk_id, embeddings) VALUES (?, ?, ?)",
                (generation, chunk_id, np.ascontiguousarray(learned.waiting_ND, "<f4").tobytes()),
            )
        self._insert_losses(f"candidate-{generation}", learned.losses, now)
        if learned.drift is not None:
            self._connection.execute(
                "INSERT OR REPLACE INTO _drift (generation, state) VALUES (?, ?)", (generation, learned.drift)
            )
        for run, metrics in learned.metrics.items():
            self._insert_metrics(run, chunk_id, metrics, now)
        self._connection.executemany(
            "INSERT INTO _events (at, level, message) VALUES (?, ?, ?)",
            [(now, level, message) for level, message in learned.events],
        )

    def _write_candidate(self, generation: int, candidate: Candidate) -> None:
        """Keep a candidate; the rows that waited for this step are in it."""
        self._connection.execute("DELETE FROM _candidate_rows WHERE generation = ?", (generation,))
        self._connection.execute(
            "INSERT INTO _candidates (generation, fingerprint, steps, rows) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
            " SET fingerprint = excluded.fingerprint, steps = excluded.steps, rows = excluded.rows",
            (generation, candidate.fingerprint, candidate.steps, candidate.rows),
        )
        self._connection.executemany(
            "INSERT OR REPLACE INTO _candidate_layers (generation, layer, centroids, counts) VALUES (?, ?, ?, ?)",
            [
                (
                    generation,
                    layer,
                    np.ascontiguousarray(centroids_KD, "<f4").tobytes(),
                    np.ascontiguousarray(counts_K, "<f8").tobytes(),
                )
                for layer, (centroids_KD, counts_K) in enumerate(
                    zip(candidate.centroids_LKD, candidate.counts_LK, strict=True)
                )
            ],
        )

    def _insert_metrics(self, run: str, step: int, metrics: Sequence[Metric], now: str) -> None:
        self._connection.executemany(
            "INSERT INTO _metrics (run, step, layer, name, value, at) VALUES (?, ?, ?, ?, ?, ?)",
            [(run, step, metric.layer, metric.name, metric.value, now) for metric in metrics],
        )

    def _insert_losses(self, run: str, steps: Sequence[TrainingStep], now: str) -> None:
        """The loss of training steps, and its rollups."""
        self._connection.executemany(
            _ROLL_UP,
            [
                (run, step.layer, span, (step.step - 1) // span * span + 1, step.loss, step.loss, step.loss)
                for span in LOSS_SPANS
                for step in steps
            ],
        )
        self._connection.executemany(
            "INSERT INTO _metrics (run, step, layer, name, value, at) VALUES (?, ?, ?, 'loss', ?, ?)",
            [(run, step.step, step.layer, step.loss, now) for step in steps],
        )
