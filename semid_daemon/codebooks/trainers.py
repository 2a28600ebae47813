"""Training the codebooks of a generation: which trainer, with which settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from semid_daemon.base.types import Codebooks, FloatArray, TrainingStep
from semid_daemon.config import Quantizer, Training
from semid_daemon.quantizer import Device, GridTrainer, LloydTrainer


class Trainer(Protocol):
    """Iterate `train(...)` to its end, and `refine(...)` where that was a sample; then read `codebooks`."""

    @property
    def max_steps(self) -> int: ...

    @property
    def codebooks(self) -> Codebooks: ...

    def train(self, embeddings_ND: FloatArray) -> Iterator[TrainingStep]: ...

    def refine(self, batches: Callable[[], Iterable[FloatArray]], epochs: int) -> Iterator[TrainingStep | None]: ...


def make_trainer(quantizer: Quantizer, training: Training, device: Device) -> Trainer:
    """The trainer that the configuration asks for."""
    if training.trainer == "grid":
        return GridTrainer(
            n_layers=quantizer.layers,
            n_clusters=quantizer.codebook_size,
            normalize_residuals=quantizer.normalize_residuals,
            seed=quantizer.seed,
            device=device,
        )
    return LloydTrainer(
        n_layers=quantizer.layers,
        n_clusters=quantizer.codebook_size,
        normalize_residuals=quantizer.normalize_residuals,
        seed=quantizer.seed,
        device=device,
        iterations=training.iterations,
        tolerance=training.tolerance,
        balanced=quantizer.balanced,
        beam_width=quantizer.beam_width,
    )


def training_settings(quantizer: Quantizer, training: Training, trained_rows: int) -> dict[str, str]:
    """How codebooks came about, for the metadata of their file."""
    settings: dict[str, object] = {"trainer": training.trainer, "seed": quantizer.seed, "trained_rows": trained_rows}
    if training.trainer == "lloyd":
        settings |= {"iterations": training.iterations, "tolerance": training.tolerance}
    return {key: str(value) for key, value in settings.items()}
