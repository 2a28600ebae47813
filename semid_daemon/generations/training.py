"""Trains the codebooks of a generation on rows in memory, and measures them by these rows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator

from semid_daemon.base.types import Baseline, Codebooks, FloatArray, TrainingStep
from semid_daemon.codebooks.baseline import measure_baseline
from semid_daemon.codebooks.sampling import max_sample_rows
from semid_daemon.codebooks.trainers import Trainer, make_trainer
from semid_daemon.config import Config
from semid_daemon.quantizer import Device, Encoder
from semid_daemon.runtime.background import iterate_in_background, run_in_background
from semid_daemon.runtime.context import WorkContext
from semid_daemon.runtime.device_watchdog import Watchdog
from semid_daemon.store.write.store import Store

BASELINE_ROWS = 65_536  # rows that codebooks are measured by where more are not needed for a training

_STEP = "training: one step"

ReadRows = Callable[[], Iterable[FloatArray]]
TrainingSteps = Generator[TrainingStep | None, None, None]


class CodebookTraining:
    """Trains as semid.toml says, on `device`. Every step is recorded in the database and watched by the watchdog."""

    def __init__(self, config: Config, store: Store, device: Device, watchdog: Watchdog, context: WorkContext) -> None:
        self._quantizer = config.quantizer
        self._settings = config.training
        self._store = store
        self._watchdog = watchdog
        self._context = context
        self.device = device

    def trainer(self) -> Trainer:
        """A new trainer, as the settings ask for."""
        return make_trainer(self._quantizer, self._settings, self.device)

    def max_rows(self, dim: int) -> int:
        """How many rows of `dim` values a training may hold in memory."""
        return max_sample_rows(dim, self._settings.max_memory_mb, self._quantizer.beam_width)

    def run(self, trainer: Trainer, sample_ND: FloatArray, read_all: ReadRows | None) -> TrainingSteps:
        """Train on a sample (N×D float32); afterwards the trainer has the codebooks. Yields None within a step.

        Where the sample is not all of the rows, `read_all` reads all of them (batches of M×D float32), and the
        codebooks are refined over them, `training.epochs` times.
        """
        run = self._store.telemetry.next_training_run()
        # The thread that makes a step watches it: a pause between two steps is no hang.
        steps: Iterator[TrainingStep | None] = iterate_in_background(
            self._watchdog.each(trainer.train(sample_ND), _STEP)
        )
        if read_all is not None:
            refining = self._watchdog.each(trainer.refine(read_all, self._settings.epochs), _STEP)
            steps = itertools.chain(steps, refining)
        for step in steps:
            if step is not None:
                self._store.telemetry.add_training_steps(run, [step])
                self._context.say("training", f"layer {step.layer} step {step.layer_step} loss {step.loss:.6g}")
            yield step

    def baseline(self, codebooks: Codebooks, sample_ND: FloatArray, total_rows: int) -> Generator[None, None, Baseline]:
        """What new rows will be compared with: the sample (N×D float32, not empty) stands for `total_rows` rows."""
        encoder = Encoder(codebooks, self.device)
        return (yield from run_in_background(lambda: measure_baseline(encoder, sample_ND, total_rows)))
