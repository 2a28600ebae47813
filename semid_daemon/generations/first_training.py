"""Before the first generation: rows gather until there are enough, then codebooks are trained and published."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, replace

from semid_daemon.base.backoff import pause_s
from semid_daemon.base.errors import BadFileError, CodebookError, error_text
from semid_daemon.base.types import Baseline, Codebooks, FloatArray
from semid_daemon.codebooks.files import save_codebooks
from semid_daemon.codebooks.sampling import RowSample, RowsChangedError
from semid_daemon.codebooks.trainers import training_settings
from semid_daemon.config import Config
from semid_daemon.drop.open_file import FileChangedError
from semid_daemon.generations.steps import Steps, run_slice
from semid_daemon.generations.training import BASELINE_ROWS, CodebookTraining
from semid_daemon.ingest.intake import Intake
from semid_daemon.ingest.open_embeddings import rows_of, survey, wrong_dimension
from semid_daemon.ingest.pending import PendingFile
from semid_daemon.quantizer import describe_device
from semid_daemon.runtime.context import WorkContext
from semid_daemon.runtime.events import EventLog
from semid_daemon.runtime.progress import Progress
from semid_daemon.store.write.generations import NewGeneration, Origin
from semid_daemon.store.write.store import Store

_IMPORTED = "training ended: generation 1 is imported"


@dataclass(frozen=True, slots=True)
class _Unpublished:
    """Trained codebooks. `rows` are the rows trained on, `files` the ledger IDs of the files that hold them."""

    codebooks: Codebooks
    rows: int
    baseline: Baseline | None
    files: list[int]
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class _Job:
    """A training under way, and the gathered files that it reads."""

    files: list[PendingFile]
    steps: Steps


class FirstTraining:
    """Counts the usable rows of pending files, and publishes generation 1 once there are `training.min_rows`."""

    def __init__(
        self,
        config: Config,
        store: Store,
        events: EventLog,
        progress: Progress,
        intake: Intake,
        training: CodebookTraining,
        context: WorkContext,
    ) -> None:
        self._config = config
        self._store = store
        self._events = events
        self._progress = progress
        self._intake = intake
        self._training = training
        self._context = context
        self._job: _Job | None = None
        self._suspended = False
        self._unpublished: _Unpublished | None = None
        self._failures = 0
        self._not_before = 0.0

    def missing_rows(self) -> int:
        """How many more rows are needed before the first training; 0 once there is a generation."""
        if self._store.generations.active() is not None:
            return 0
        return max(0, self._config.training.min_rows - self._intake.pending.rows_usable)

    def next_due_s(self) -> float:
        """Seconds until a training that failed for want of resources is tried again; infinite when there is none."""
        return self._not_before - self._context.now() if self._failures else float("inf")

    # -- counting ----------------------------------------------------------------------------------

    def next_to_survey(self) -> PendingFile | None:
        """A file whose usable rows are not counted yet."""
        return self._intake.pending.first_uncounted()

    def survey(self, pending: PendingFile) -> Steps:
        """Read one file through and count its usable rows.

        Raises BadFileError, FileChangedError or OSError, as reading a drop file does.
        """
        self._context.say("gathering", pending.file.name)
        surveyed = yield from survey(self._store, pending, self._config.ingest, self._check_dim, self._expected_dim())
        self._intake.update(surveyed)

    def _expected_dim(self) -> int | None:
        first = self._intake.pending.first_usable()
        return self._config.quantizer.dim or (first.ledger.dim if first is not None else None)

    def _check_dim(self, dim: int) -> None:
        """The catalogue's dimension is the configured one, else that of the first gathered file with usable rows."""
        first = self._intake.pending.first_usable()
        if self._config.quantizer.dim is not None:
            expected, source = self._config.quantizer.dim, "quantizer.dim in semid.toml"
        elif first is not None and first.ledger.dim is not None:
            expected = first.ledger.dim
            source = f"learnt from {first.file.name}; set quantizer.dim to choose another"
        else:
            return
        if dim and dim != expected:
            raise wrong_dimension(dim, expected, source)

    def _usable_files(self) -> list[PendingFile]:
        """The counted files that hold usable rows, in the order of their registration."""
        pending = self._intake.pending
        return [pending[file_id] for file_id in sorted(pending) if pending[file_id].ledger.rows_usable]

    def _read(self, files: list[PendingFile]) -> Iterable[FloatArray]:
        return (batch.embeddings_ND for batch in rows_of(files, self._config.ingest))

    # -- training ------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a training is under way."""
        return self._job is not None

    def suspend(self) -> None:
        """Train and publish nothing for now: generation 1 is to be imported."""
        self._suspended = True

    def resume(self) -> None:
        """The import came to nothing: generation 1 is trained after all."""
        self._suspended = False

    def work(self) -> bool:
        """Train for about half a second, once all pending files are counted and there are enough rows.

        Returns whether there was something to do. A fault of the machine puts the training off.
        """
        if self._suspended:
            self._give_up(_IMPORTED)
            return False
        if self._job is None:
            self._job = self._next_job()
        if self._job is None:
            return False
        files = self._job.files
        try:
            if run_slice(self._job.steps, self._context):
                self._job, self._failures = None, 0
            elif self._context.stop.is_set():
                self._give_up("training interrupted; it starts anew with the next run")
        except (FileChangedError, BadFileError):
            self.close()
            self._intake.rescan()  # a gathered file is no longer what it was
            self._not_before = self._context.now() + 1.0
        except RowsChangedError as error:
            self.close()
            self._events.info(f"counting the gathered rows anew: {error}")
            for pending in files:
                unknown = replace(pending.ledger, rows_usable=None)
                self._intake.update(PendingFile(pending.file, unknown))
        except (OSError, MemoryError) as error:
            self.close()
            self._put_off(error)
        except BaseException:
            self.close()
            raise
        return True

    def close(self) -> None:
        """End a training that is under way: it starts anew."""
        if self._job is not None:
            self._job.steps.close()
            self._job = None

    def _give_up(self, why: str) -> None:
        if self.busy:
            self._events.info(why)
        self.close()

    def _put_off(self, error: Exception) -> None:
        self._failures += 1
        pause = pause_s(self._config.ingest.retry_s, self._failures)
        self._not_before = self._context.now() + pause
        self._events.warning(f"training put off: {error_text(error)}; tried again in {pause:,.0f} s")

    def _next_job(self) -> _Job | None:
        if self._context.now() < self._not_before or self.missing_rows() or self.next_to_survey() is not None:
            return None
        files = self._usable_files()
        return _Job(files, self._steps(files)) if files else None

    def _steps(self, files: list[PendingFile]) -> Steps:
        """Train unless that is done already, and publish."""
        if self._unpublished is None:
            self._unpublished = yield from self._trained(files)
        if not self._suspended:
            trained = self._unpublished
            settings = training_settings(self._config.quantizer, self._config.training, trained.rows)
            self._publish(trained, settings, origin="first")

    def _trained(self, files: list[PendingFile]) -> Generator[None, None, _Unpublished]:
        quantizer = self._config.quantizer
        dim = next(pending.ledger.dim for pending in files if pending.ledger.dim)
        total_rows = sum(pending.ledger.rows_usable or 0 for pending in files)
        self._context.say("gathering", "sampling the rows to train on")
        sample_ND = yield from self._sample(files, total_rows, self._training.max_rows(dim), dim)
        self._events.info(
            f"training generation 1 on {len(sample_ND):,} of {total_rows:,} rows × {dim}: {quantizer.layers} layers"
            f" of {quantizer.codebook_size} codes, {self._config.training.trainer},"
            f" on {describe_device(self._training.device)}"
        )
        started = self._context.now()
        trainer = self._training.trainer()
        read_all = (lambda: self._read(files)) if len(sample_ND) < total_rows else None
        with self._progress.task("training", trainer.max_steps, "steps") as advance:
            for step in self._training.run(trainer, sample_ND, read_all):
                advance(int(step is not None))
                yield
        baseline = yield from self._training.baseline(trainer.codebooks, sample_ND, total_rows)
        elapsed_s = self._context.now() - started
        return _Unpublished(trainer.codebooks, len(sample_ND), baseline, _ids(files), elapsed_s)

    def _sample(
        self, files: list[PendingFile], total_rows: int, max_rows: int, dim: int
    ) -> Generator[None, None, FloatArray]:
        """Rows of the files. Raises RowsChangedError where they do not hold `total_rows` usable rows."""
        seed = self._config.quantizer.seed
        sample = RowSample(total_rows=total_rows, max_rows=max_rows, dim=dim, seed=seed)
        for embeddings_ND in self._read(files):
            sample.add(embeddings_ND)
            yield
        if sample.rows_seen != total_rows:
            raise RowsChangedError(f"{total_rows} rows were counted before, {sample.rows_seen} now")
        return sample.rows()

    # -- publishing ----------------------------------------------------------------------------------

    def publish_imported(self, codebooks: Codebooks, settings: Mapping[str, str]) -> Steps:
        """Publish codebooks that were trained elsewhere as generation 1; new rows will be compared with those gathered.

        Raises CodebookError where gathered files have another dimension, since all of them would be rejected;
        RowsChangedError, BadFileError, FileChangedError or OSError where they cannot be read as they were counted.
        """
        self._give_up(_IMPORTED)
        started = self._context.now()
        files = self._usable_files()
        for pending in files:
            if pending.ledger.dim != codebooks.dim:
                raise CodebookError(
                    f"{pending.file.name} has dim {pending.ledger.dim}, the codebooks {codebooks.dim};"
                    " nothing was published"
                )
        total_rows = sum(pending.ledger.rows_usable or 0 for pending in files)
        baseline = None
        if files:
            self._context.say("gathering", "sampling the rows that new ones are compared with")
            max_rows = min(BASELINE_ROWS, self._training.max_rows(codebooks.dim))
            sample_ND = yield from self._sample(files, total_rows, max_rows, codebooks.dim)
            baseline = yield from self._training.baseline(codebooks, sample_ND, total_rows)
        elapsed_s = self._context.now() - started
        trained = _Unpublished(codebooks, total_rows, baseline, _ids(files), elapsed_s)
        self._publish(trained, settings, origin="imported")

    def _publish(self, trained: _Unpublished, settings: Mapping[str, str], origin: Origin) -> None:
        """The file first, durably; then the row that names it. A crash between leaves an orphan, deleted at start."""
        fingerprint = save_codebooks(self._config.codebooks_dir, trained.codebooks, settings)
        new = NewGeneration(
            fingerprint,
            trained.codebooks,
            trained.rows,
            trained.baseline,
            origin,
            self._config.generations.collisions,
            self._config.generations.bucket_capacity,
        )
        generation = self._store.generations.publish(new, trained.files)
        self._unpublished = None
        self._events.info(f"generation {generation.number} published after {trained.elapsed_s:.1f} s: {fingerprint}")


def _ids(files: list[PendingFile]) -> list[int]:
    return [pending.ledger.id for pending in files]
