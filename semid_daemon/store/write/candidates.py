"""A generation's candidate and drift: state that new rows change and that is committed with them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from semid_daemon.base.errors import StoreError
from semid_daemon.base.types import CountArray, FloatArray, TrainingStep
from semid_daemon.store.write.database import Database
from semid_daemon.store.write.telemetry import Metric, Telemetry

_TABLES = ("_candidate_layers", "_candidate_rows", "_candidates", "_drift")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A candidate as it is kept: centroids and the number of rows that each stands for."""

    fingerprint: str  # of the generation that it started from
    centroids_LKD: FloatArray  # float32
    counts_LK: CountArray  # float64
    steps: int
    rows: int


@dataclass(frozen=True, slots=True)
class CandidateUpdate:
    """A chunk's changes to its generation's candidate and drift: committed with its rows, or not at all."""

    # The candidate after a step, which used up all waiting rows; None when there was no step.
    candidate: Candidate | None = None
    # Without a step: the chunk's rows (N×D float32) that wait for the next one.
    waiting_ND: FloatArray | None = None
    # The losses of the step, layer by layer.
    losses: list[TrainingStep] = field(default_factory=list)
    # The new state of the drift; None leaves it as it was.
    drift: bytes | None = None
    # Metrics by the name of their run.
    metrics: dict[str, list[Metric]] = field(default_factory=dict)
    # Events as (level, message).
    events: list[tuple[str, str]] = field(default_factory=list)


class Candidates:
    """Candidates, the rows that wait for their next step, and drift, by generation."""

    def __init__(self, database: Database, telemetry: Telemetry) -> None:
        self._database = database
        self._telemetry = telemetry

    def get(self, generation: int) -> Candidate | None:
        """A generation's candidate. Raises StoreError when it started from other codebooks."""
        row = self._database.read_one(
            "SELECT c.fingerprint, c.steps, c.rows, g.layers, g.codebook_size, g.dim, g.fingerprint"
            " FROM _candidates c JOIN _generations g USING (generation) WHERE generation = ?",
            generation,
        )
        if row is None:
            return None
        fingerprint, steps, rows, layers, codebook_size, dim, expected = row
        if fingerprint != expected:
            raise StoreError(
                f"{self._database.path}: the candidate of generation {generation} started from {fingerprint},"
                f" not {expected}; stop the daemon and restore a backup"
            )
        centroids_LKD = np.empty((layers, codebook_size, dim), np.float32)
        counts_LK = np.empty((layers, codebook_size), np.float64)
        for layer, centroids, counts in self._database.read(
            "SELECT layer, centroids, counts FROM _candidate_layers WHERE generation = ?", generation
        ):
            centroids_LKD[layer] = np.frombuffer(centroids, "<f4").reshape(codebook_size, dim)
            counts_LK[layer] = np.frombuffer(counts, "<f8")
        return Candidate(fingerprint, centroids_LKD, counts_LK, steps, rows)

    def waiting_rows(self, generation: int, dim: int) -> list[FloatArray]:
        """The rows (N×dim float32 per chunk) that wait for the candidate's next step, chunk by chunk."""
        return [
            np.frombuffer(embeddings, "<f4").reshape(-1, dim).astype(np.float32)
            for (embeddings,) in self._database.read(
                "SELECT embeddings FROM _candidate_rows WHERE generation = ? ORDER BY chunk_id", generation
            )
        ]

    def drift(self, generation: int) -> bytes | None:
        """The state of a generation's drift, as it was last committed."""
        row = self._database.read_one("SELECT state FROM _drift WHERE generation = ?", generation)
        return None if row is None else bytes(row[0])

    def write(self, generation: int, chunk_id: int, update: CandidateUpdate) -> None:
        """Write a chunk's update of its generation's candidate and drift."""
        with self._database.transaction() as connection:
            if update.candidate is not None:
                self._write_candidate(generation, update.candidate)
            elif update.waiting_ND is not None:
                connection.execute(
                    "INSERT INTO _candidate_rows (generation, chunk_id, embeddings) VALUES (?, ?, ?)",
                    (generation, chunk_id, np.ascontiguousarray(update.waiting_ND, "<f4").tobytes()),
                )
            if update.drift is not None:
                connection.execute(
                    "INSERT OR REPLACE INTO _drift (generation, state) VALUES (?, ?)", (generation, update.drift)
                )
            self._telemetry.add_training_steps(f"candidate-{generation}", update.losses)
            for run, metrics in update.metrics.items():
                self._telemetry.add_metrics(run, chunk_id, metrics)
            self._telemetry.add_events(update.events)

    def delete(self, generation: int) -> None:
        """Delete a generation's candidate and drift."""
        with self._database.transaction() as connection:
            for table in _TABLES:
                connection.execute(f"DELETE FROM {table} WHERE generation = ?", (generation,))

    def _write_candidate(self, generation: int, candidate: Candidate) -> None:
        """Write a candidate, and delete the rows that waited for its step."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM _candidate_rows WHERE generation = ?", (generation,))
            connection.execute(
                "INSERT INTO _candidates (generation, fingerprint, steps, rows) VALUES (?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET fingerprint = excluded.fingerprint, steps = excluded.steps,"
                " rows = excluded.rows",
                (generation, candidate.fingerprint, candidate.steps, candidate.rows),
            )
            connection.executemany(
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
