"""Before the first generation: rows gather until there are enough, then codebooks are trained and published."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from semid_daemon.base.backoff import pause_s
from semid_daemon.base.errors import BadFileError, CodebookError, error_text
from semid_daemon.base.types import Baseline, Codebooks, FloatArray, Tick, TrainingStep
from semid_daemon.codebooks.baseline import measure_baseline
from semid_daemon.codebooks.files import save_codebooks
from semid_daemon.codebooks.sampling import RowsChangedError, max_sample_rows, sample_rows
from semid_daemon.codebooks.trainers import make_trainer, training_settings
from semid_daemon.config import Config
from semid_daemon.drop.open_file import FileChangedError
from semid_daemon.ingest.intake import Intake
from semid_daemon.ingest.open_embeddings import rows_of, survey, wrong_dimension
from semid_daemon.ingest.pending import PendingFile
from semid_daemon.quantizer import Device, Encoder, describe_device
from semid_daemon.runtime.background import iterate_in_background
from semid_daemon.runtime.device_watchdog import Watchdog
from semid_daemon.runtime.events import EventLog
from semid_daemon.runtime.progress import Progress
from semid_daemon.store.write.generations import Origin
from semid_daemon.store.write.store import Store

_FIRST_PAUSE_S = 10.0
_BASELINE_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class _Trained:
    """What a training gave, and the ledger IDs of the files it went over."""

    codebooks: Codebooks
    rows: int
    baseline: Baseline | None
    files: list[int]
    elapsed_s: float


class FirstTraining:
    """Counts what waits in the intake, and publishes generation 1 once that is enough.

    `doing` sets what the heartbeat says, `tick` lets it be said.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        events: EventLog,
        progress: Progress,
        intake: Intake,
        device: Device,
        *,
        watchdog: Watchdog,
        stop: threading.Event,
        doing: Callable[[str, str], None],
        tick: Tick,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._store = store
        self._events = events
        self._progress = progress
        self._intake = intake
        self._device = device
        self._watchdog = watchdog
        self._stop = stop
        self._doing = doing
        self._tick = tick
        self._now = now
        self._unpublished: _Trained | None = None
        self._failures = 0
        self._not_before = 0.0
        self.superseded: Callable[[], bool] = lambda: False  # whether generation 1 comes from elsewhere

    def missing_rows(self) -> int:
        """How many more rows are needed before the first training; 0 once there is a generation."""
        if self._store.generations.active() is not None:
            return 0
        return max(0, self._config.training.min_rows - self._intake.pending.rows_usable)

    def next_due_s(self) -> float:
        """How long until a training that the machine refused is tried again; infinite when there is none."""
        return self._not_before - self._now() if self._failures else float("inf")

    # -- counting ----------------------------------------------------------------------------------

    def next_to_survey(self) -> PendingFile | None:
        """A file whose usable rows are not counted yet."""
        return self._intake.pending.first_uncounted()

    def survey(self, waiting: PendingFile) -> None:
        """Read one file through, to know what is gathered."""
        self._doing("gathering", waiting.file.name)
        surveyed = survey(self._store, waiting, self._config.ingest, self._check_dim, self._tick)
        self._intake.pending[waiting.ledger.id] = surveyed

    def _check_dim(self, dim: int) -> None:
        """The catalogue's dimension is the configured one, else that of the first gathered file with rows to use."""
        first = self._intake.pending.first_usable()
        if self._config.quantizer.dim is not None:
            expected, whose = self._config.quantizer.dim, "quantizer.dim in semid.toml"
        elif first is not None and first.ledger.dim is not None:
            expected, whose = (
                first.ledger.dim,
                f"learnt from {first.file.name}; set quantizer.dim to choose another",
            )
        else:
            return
        if dim and dim != expected:
            raise wrong_dimension(dim, expected, whose)

    # -- training ------------------------------------------------------------------------------------

    def train_when_enough(self) -> bool:
        """Publish generation 1 once all that lies there is counted, and enough; whether that was tried."""
        gathered = self._intake.pending
        if self._now() < self._not_before or not gathered or self.missing_rows() or self.superseded():
            return False
        if gathered.first_uncounted() is not None:
            return False
        # A file without usable rows says nothing, not even of the dimension.
        waiting = [gathered[file_id] for file_id in sorted(gathered) if gathered[file_id].ledger.rows_usable]
        if not waiting:
            return False
        try:
            if self._unpublished is None:
                self._train(waiting)
            if self._unpublished is not None and not self.superseded():
                settings = training_settings(self._config.quantizer, self._config.training, self._unpublished.rows)
                self._publish(self._unpublished, settings)
            self._failures = 0
        except (FileChangedError, BadFileError):
            self._intake.rescan()  # a gathered file is no longer what it was
            self._not_before = self._now() + 1.0
        except RowsChangedError as error:
            self._events.info(f"counting the gathered rows anew: {error}")
            for each in waiting:
                unknown = replace(each.ledger, rows_usable=None)
                self._intake.pending[each.ledger.id] = PendingFile(each.file, unknown)
        except (OSError, MemoryError) as error:
            self._failures += 1
            pause = pause_s(_FIRST_PAUSE_S, self._failures)
            self._not_before = self._now() + pause
            self._events.warning(f"training put off: {error_text(error)}; tried again in {pause:,.0f} s")
        return True

    def _train(self, waiting: list[PendingFile]) -> None:
        quantizer, training = self._config.quantizer, self._config.training
        dim = next(each.ledger.dim for each in waiting if each.ledger.dim)
        total_rows = sum(each.ledger.rows_usable or 0 for each in waiting)
        self._doing("gathering", "sampling the rows to train on")
        sample_ND = sample_rows(
            rows_of(waiting, self._config.ingest, self._tick),
            total_rows=total_rows,
            max_rows=max_sample_rows(dim, training.max_memory_mb, quantizer.beam_width),
            dim=dim,
            seed=quantizer.seed,
        )
        self._events.info(
            f"training generation 1 on {sample_ND.shape[0]:,} of {total_rows:,} rows × {dim}: {quantizer.layers} layers"
            f" of {quantizer.codebook_size} codes, {training.trainer}, on {describe_device(self._device)}"
        )
        started = self._now()
        rest: Callable[[], Iterable[FloatArray]] | None = None
        if sample_ND.shape[0] < total_rows:

            def rest() -> Iterable[FloatArray]:
                return (batch.embeddings_ND for batch in rows_of(waiting, self._config.ingest, self._tick))

        codebooks = self._run(sample_ND, rest)
        if codebooks is not None:
            baseline = measure_baseline(Encoder(codebooks, self._device), sample_ND, total_rows, self._tick)
            files = [each.ledger.id for each in waiting]
            self._unpublished = _Trained(codebooks, sample_ND.shape[0], baseline, files, self._now() - started)

    def _run(self, sample_ND: FloatArray, rest: Callable[[], Iterable[FloatArray]] | None) -> Codebooks | None:
        """Train on the sample, and where it is not all of the rows go over all of them; None when interrupted."""
        quantizer, training = self._config.quantizer, self._config.training
        trainer = make_trainer(quantizer, training, self._device)
        run = self._store.telemetry.next_training_run()
        with self._progress.task("training", trainer.max_steps, "steps") as advance:
            steps = iterate_in_background(trainer.train(sample_ND), self._tick)
            if rest is not None:
                # Here the reading of files sees to the heartbeat.
                steps = itertools.chain(steps, trainer.refine(rest, training.epochs))
            for step in self._watchdog.each(steps, "training: one step"):
                self._record(run, step)
                advance(1)
                if self._stop.is_set():
                    self._events.info("training interrupted; it starts anew with the next run")
                    return None
                if self.superseded():
                    self._events.info("training ended: generation 1 is imported")
                    return None
        return trainer.codebooks

    def _record(self, run: str, step: TrainingStep) -> None:
        self._store.telemetry.add_training_steps(run, [step])
        self._doing("training", f"layer {step.layer} step {step.layer_step} loss {step.loss:.6g}")
        self._tick()

    def begin_with(self, codebooks: Codebooks, settings: Mapping[str, str]) -> None:
        """Publish codebooks that were trained elsewhere as generation 1; new rows are judged by those gathered.

        Raises CodebookError where gathered files are of another dimension: all of them would be rejected.
        """
        started = self._now()
        gathered = self._intake.pending
        waiting = [gathered[file_id] for file_id in sorted(gathered) if gathered[file_id].ledger.rows_usable]
        for each in waiting:
            if each.ledger.dim != codebooks.dim:
                raise CodebookError(
                    f"{each.file.name} has dim {each.ledger.dim}, the codebooks {codebooks.dim}; nothing was published"
                )
        total_rows = sum(each.ledger.rows_usable or 0 for each in waiting)
        baseline = None
        if waiting:
            self._doing("gathering", "sampling the rows to judge new ones by")
            memory_mb = self._config.training.max_memory_mb
            sample_ND = sample_rows(
                rows_of(waiting, self._config.ingest, self._tick),
                total_rows=total_rows,
                max_rows=min(_BASELINE_ROWS, max_sample_rows(codebooks.dim, memory_mb, codebooks.beam_width)),
                dim=codebooks.dim,
                seed=self._config.quantizer.seed,
            )
            baseline = measure_baseline(Encoder(codebooks, self._device), sample_ND, total_rows, self._tick)
        files = [each.ledger.id for each in waiting]
        trained = _Trained(codebooks, total_rows, baseline, files, self._now() - started)
        self._publish(trained, settings, origin="imported")

    def _publish(self, trained: _Trained, settings: Mapping[str, str], origin: Origin = "first") -> None:
        """The file first, durably; then the row that names it. A crash between leaves an orphan, collected at start."""
        fingerprint = save_codebooks(self._config.codebooks_dir, trained.codebooks, settings)
        generation = self._store.generations.publish(
            fingerprint,
            trained.codebooks,
            trained_rows=trained.rows,
            baseline=trained.baseline,
            trained_files=trained.files,
            collisions=self._config.generations.collisions,
            bucket_capacity=self._config.generations.bucket_capacity,
            origin=origin,
        )
        self._unpublished = None
        self._events.info(f"generation {generation.number} published after {trained.elapsed_s:.1f} s: {fingerprint}")
