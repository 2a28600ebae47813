"""The daemon: look, train once there are rows enough, encode, wait. Over and over."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

from semid_daemon import ingest
from semid_daemon.config import Config
from semid_daemon.console import Progress
from semid_daemon.drop.reading import FileChangedError
from semid_daemon.drop.wakeups import Wakeups
from semid_daemon.errors import BadFileError
from semid_daemon.generations.codebook_files import collect_orphans, load_codebooks, save_codebooks
from semid_daemon.generations.sampling import max_sample_rows, sample_rows
from semid_daemon.generations.training import make_trainer, training_settings
from semid_daemon.ingest import Waiting
from semid_daemon.intake import Intake
from semid_daemon.journal import Journal
from semid_daemon.quantizer import Encoder, describe_device, resolve_device
from semid_daemon.records import Codebooks, TrainingStep
from semid_daemon.store.writer import Generation, Writer


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `semid run --once` leaves behind. `missing_rows`: how many more are needed before the first training."""

    rejected: int
    deferred: int
    missing_rows: int


class Service:
    """One daemon over one state directory, whose lock the caller holds.

    `stop` ends it at the next chunk or training step; nothing is lost, and the next run goes on there.
    """

    def __init__(
        self,
        config: Config,
        writer: Writer,
        progress: Progress,
        stop: threading.Event,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._writer = writer
        self._progress = progress
        self._stop = stop
        self._now = now
        self._device = resolve_device(config.quantizer.device)
        self._journal = Journal(writer, now)
        self._intake = Intake(config, writer, self._journal, progress, now)
        self._encoders: dict[int, Encoder] = {}
        self._changed = threading.Event()

    # -- the loop ------------------------------------------------------------------------------------

    def run(self, *, once: bool = False) -> Outcome:
        """Work until stopped; with `once`, until everything in the drop directory is handled."""
        self._writer.daemon_started(os.getpid(), describe_device(self._device), version("semid"))
        orphans = collect_orphans(self._config.codebooks_dir, self._writer.fingerprints())
        for orphan in orphans:
            self._journal.info(f"{orphan.name}: removed: written by a training that never finished")
        with Wakeups(self._config.drop_dir, self._changed):
            while not self._stop.is_set():
                self._changed.clear()
                self._intake.look()
                self._survey()
                self._train_when_enough()
                self._encode_waiting()
                if once and not self._intake.unsettled:
                    break
                self._idle()
        self._journal.beat("stopped")
        return Outcome(self._intake.rejected, self._intake.deferred, self._missing_rows())

    def _idle(self) -> None:
        """Wait for something to change, for files to settle, or for the next periodic scan."""
        pause_s = self._config.drop.settle_ms / 1000 if self._intake.unsettled else self._config.drop.rescan_s
        until = self._now() + pause_s
        missing = self._missing_rows()
        while not self._stop.is_set() and not self._changed.is_set() and self._now() < until:
            if missing and self._intake.waiting:
                self._journal.beat("gathering", f"{missing} rows missing before the first training")
            else:
                self._journal.beat("idle")
            self._changed.wait(min(1.0, max(0.0, until - self._now())))
        if self._intake.unsettled:  # an event came before the files had time to settle
            self._stop.wait(self._config.drop.settle_ms / 1000)

    # -- before the first generation -----------------------------------------------------------------

    def _waiting(self) -> list[Waiting]:
        return [self._intake.waiting[file_id] for file_id in sorted(self._intake.waiting)]

    def _missing_rows(self) -> int:
        if self._writer.active_generation() is not None:
            return 0
        gathered = sum(waiting.ledger.rows_usable or 0 for waiting in self._waiting())
        return max(0, self._config.training.min_rows - gathered)

    def _survey(self) -> None:
        """While there are no codebooks: read every new file through, to know what is gathered."""
        if self._writer.active_generation() is not None:
            return
        for waiting in self._waiting():
            if waiting.ledger.rows_usable is None and not self._stop.is_set():
                self._with(waiting, self._survey_one)

    def _survey_one(self, waiting: Waiting) -> None:
        self._journal.beat("gathering", waiting.file.name)
        surveyed = ingest.survey(self._writer, waiting, self._config.ingest.chunk_rows, self._check_dim)
        self._intake.waiting[waiting.ledger.id] = surveyed

    def _check_dim(self, dim: int) -> None:
        """The catalogue's dimension is the configured one, else that of the first file gathered."""
        first = next((w for w in self._waiting() if w.ledger.dim is not None), None)
        if self._config.quantizer.dim is not None:
            expected, whose = self._config.quantizer.dim, "quantizer.dim in semid.toml"
        elif first is not None and first.ledger.dim is not None:
            expected, whose = (
                first.ledger.dim,
                f"learnt from {first.file.name}; set quantizer.dim to choose another",
            )
        else:
            return
        if dim != expected:
            raise ingest.wrong_dimension(dim, expected, whose)

    def _train_when_enough(self) -> None:
        """Publish generation 1 from the gathered rows, once there are enough of them."""
        waiting = self._waiting()
        if self._stop.is_set() or not waiting or self._writer.active_generation() or self._missing_rows():
            return
        if any(each.ledger.rows_usable is None for each in waiting):
            return
        quantizer, training = self._config.quantizer, self._config.training
        dim = waiting[0].ledger.dim
        assert dim is not None
        total_rows = sum(each.ledger.rows_usable or 0 for each in waiting)
        try:
            sample_ND = sample_rows(
                ingest.rows_of(waiting, self._config.ingest.chunk_rows),
                total_rows=total_rows,
                max_rows=max_sample_rows(dim, training.max_memory_mb),
                dim=dim,
                seed=quantizer.seed,
            )
        except (FileChangedError, BadFileError):
            self._changed.set()  # a gathered file is no longer what it was: look again
            return
        trained_rows = sample_ND.shape[0]
        self._journal.info(
            f"training generation 1 on {trained_rows:,} of {total_rows:,} rows × {dim}: {quantizer.layers} layers of"
            f" {quantizer.codebook_size} codes, {training.trainer}, on {describe_device(self._device)}"
        )
        trainer = make_trainer(quantizer, training, self._device)
        started = self._now()
        run = self._writer.next_training_run()
        most = training.grid_steps if training.trainer == "grid" else quantizer.layers * training.iterations
        with self._progress.task("training", most, "steps") as advance:
            for step in trainer.train(sample_ND):
                self._record(run, step)
                advance(1)
                if self._stop.is_set():
                    self._journal.info("training interrupted; it starts anew with the next run")
                    return
        self._publish(trainer.codebooks, trained_rows, self._now() - started)

    def _record(self, run: str, step: TrainingStep) -> None:
        self._writer.add_training_steps(run, [step])
        self._journal.beat("training", f"layer {step.layer} step {step.layer_step} loss {step.loss:.6g}")

    def _publish(self, codebooks: Codebooks, trained_rows: int, elapsed_s: float) -> None:
        """The file first, durably; then the row that names it. A crash between leaves an orphan, collected at start."""
        settings = training_settings(self._config.quantizer, self._config.training, trained_rows)
        fingerprint = save_codebooks(self._config.codebooks_dir, codebooks, settings)
        generation = self._writer.publish_generation(fingerprint, codebooks, trained_rows=trained_rows)
        self._journal.info(f"generation {generation.generation} published after {elapsed_s:.1f} s: {fingerprint}")

    # -- encoding ------------------------------------------------------------------------------------

    def _encode_waiting(self) -> None:
        """Encode what waits, in the order in which it came."""
        generation = self._writer.active_generation()
        if generation is None:
            return
        for waiting in self._waiting():
            if not self._stop.is_set():
                self._with(waiting, lambda each: self._encode(each, generation))

    def _encode(self, waiting: Waiting, generation: Generation) -> None:
        name = waiting.file.name
        started = self._now()
        with self._progress.task(name, waiting.ledger.rows or 0) as advance:

            def on_rows(rows: int) -> None:
                advance(rows)
                self._journal.beat("encoding", name)

            ledger = ingest.encode_file(
                self._writer,
                waiting,
                generation=generation.generation,
                encoder=self._encoder,
                chunk_rows=self._config.ingest.chunk_rows,
                on_rows=on_rows,
                stopping=self._stop.is_set,
            )
        if ledger.status != "done":
            return
        done = self._writer.tally(ledger.id)
        left_out = f", {done.rejected:,} left out ({done.reason})" if done.rejected else ""
        kept = f", {done.kept:,} had an ID already" if done.kept else ""
        self._journal.info(f"{name}: {done.assigned:,} new IDs{kept}{left_out}, {self._now() - started:.1f} s")
        self._intake.finish(waiting.file, ledger)

    def _encoder(self, generation: int) -> Encoder:
        """The generation's codebooks on the device, checked against their fingerprint when first used."""
        if generation not in self._encoders:
            fingerprint = self._writer.fingerprint(generation)
            self._encoders[generation] = Encoder(load_codebooks(self._config.codebooks_dir, fingerprint), self._device)
        return self._encoders[generation]

    # -- a file's fault, a moving file, or the machine's fault ------------------------------------------

    def _with(self, waiting: Waiting, work: Callable[[Waiting], None]) -> None:
        try:
            work(waiting)
        except BadFileError as error:
            self._intake.reject(waiting, str(error))
        except FileChangedError as error:
            # What it holds now is another content: it settles, and is registered, anew.
            self._intake.waiting.pop(waiting.ledger.id, None)
            self._intake.unsettled = True
            self._writer.defer(waiting.ledger.id, str(error))
        except OSError as error:
            self._intake.postpone(waiting.file, waiting.ledger, f"cannot be read: {error.strerror or error}")
