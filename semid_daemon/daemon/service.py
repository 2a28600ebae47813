"""The daemon: look, train once there are rows enough, encode, wait. Over and over, in bounded turns."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from importlib.metadata import version

from semid_daemon.base.backoff import pause_s
from semid_daemon.base.errors import BadFileError, CommandError, DeviceError, MachineError, error_text
from semid_daemon.codebooks.files import collect_orphans
from semid_daemon.codebooks.spool import Spool
from semid_daemon.command_client import Arguments
from semid_daemon.config import Config
from semid_daemon.daemon.heartbeat import COMMANDS_S, Heartbeat
from semid_daemon.daemon.outcome import Outcome
from semid_daemon.daemon.state_lock import Lock
from semid_daemon.daemon.systemd_notify import Notifier
from semid_daemon.daemon.wal_guard import WAL_FULL, WalLimit
from semid_daemon.drop.open_file import FileChangedError, signature_text
from semid_daemon.drop.watch import Wakeups
from semid_daemon.generations.encoder_cache import EncoderCache
from semid_daemon.generations.first_training import FirstTraining
from semid_daemon.generations.imports import CodebookImports
from semid_daemon.generations.lifecycle import GenerationLifecycle
from semid_daemon.generations.prepare import GenerationBuilder
from semid_daemon.generations.source_rows import SourceRows
from semid_daemon.generations.training import CodebookTraining
from semid_daemon.ingest.crash_marker import CrashMarker
from semid_daemon.ingest.file_encoder import encode_steps
from semid_daemon.ingest.intake import Intake
from semid_daemon.ingest.learner import Learner
from semid_daemon.ingest.pending import PendingFile
from semid_daemon.ingest.scheduler import FileScheduler
from semid_daemon.quantizer import describe_device, resolve_device
from semid_daemon.runtime.context import WorkContext
from semid_daemon.runtime.device_watchdog import Watchdog
from semid_daemon.runtime.events import EventLog
from semid_daemon.runtime.host_metrics import Host
from semid_daemon.runtime.progress import Progress
from semid_daemon.runtime.stage_timing import Stages
from semid_daemon.runtime.throughput import StepsTold, Throughput
from semid_daemon.store.write.generations import Generation
from semid_daemon.store.write.store import Store

_log = logging.getLogger("semid")

_SLICE_S = 1.0  # of one kind of work, before the others have their turn
_FIRST_PAUSE_S = 1.0


class Service:
    """One daemon over one state directory, whose lock the caller holds.

    `stop` ends it at the next chunk or training step; nothing is lost, and the next run goes on there.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        progress: Progress,
        stop: threading.Event,
        lock: Lock | None = None,
        *,
        once: bool = False,
        notifier: Notifier | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._notifier = notifier or Notifier(environment={})
        self._config = config
        self._store = store
        self._stop = stop
        self._once = once
        self._now = now
        self._device = resolve_device(config.quantizer.device)
        self._changed = threading.Event()
        self._events = EventLog(store, now)
        self._heartbeat = Heartbeat(
            config,
            store,
            self._events,
            self._notifier,
            lock,
            stop,
            handlers={"retry": self._retry, "rescan": self._rescan},
            long_handlers={
                "train": lambda name, arguments: self._lifecycle.train(name, arguments),
                "promote": lambda name, arguments: self._lifecycle.promote(name, arguments),
                "rollback": lambda name, arguments: self._lifecycle.rollback(name, arguments),
                "import-codebooks": lambda name, arguments: self._imports.handle(name, arguments),
            },
            summary=self._summary,
            now=now,
        )
        self._wal = WalLimit(store, self._events, config.database, config.ingest.max_wal_mb << 20)
        self._throughput = Throughput(lambda: store.files.backlog_bytes() + self._intake.queued_bytes(), now)
        self._progress = progress = StepsTold(progress, self._throughput)
        self._scheduler = FileScheduler()
        self._stages = Stages(now)
        self._crash_marker = CrashMarker(config.crash_marker)
        self._watchdog = Watchdog(config.ingest.watchdog_s, before_end=self._crash_marker.clear)
        self._intake = Intake(
            config,
            store,
            self._events,
            progress,
            self._crash_marker,
            self._heartbeat.beat,
            stop,
            heed_retry_times=not once,
            now=now,
        )
        gpu = (self._device.index or 0) if self._device.type == "cuda" else None
        self._events.gauges += [self._throughput.gauges, self._stages.gauges, Host(config.state_dir, gpu).gauges]
        context = WorkContext(stop, now, self._heartbeat.beat, self._heartbeat.doing)
        training = CodebookTraining(config, store, self._device, self._watchdog, context)
        self._first_training = FirstTraining(config, store, self._events, progress, self._intake, training, context)
        self._encoders = EncoderCache(store, config.codebooks_dir, self._device, self._watchdog)
        self._learner = Learner(config, store, self._device, self._encoders.get)
        self._spool = Spool(config.spool_dir, store.spool.end())
        source_rows = SourceRows(config, store, self._spool)
        builder = GenerationBuilder(config, store, training, self._encoders, self._learner, source_rows, context)
        self._lifecycle = GenerationLifecycle(
            config,
            store,
            self._events,
            self._learner,
            builder,
            context,
            before_switch=self._scheduler.close,
            wake=self._changed.set,
        )
        self._imports = CodebookImports(config, store, self._first_training, self._lifecycle, context)
        self._done = 0  # files

    # -- the loop ------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Work until stopped; with `once`, until everything in the drop directory is handled."""
        try:
            self._store.daemon.started(os.getpid(), describe_device(self._device), version("semid"))
            self._intake.quarantine.note_death()
            self._heartbeat.poll()
            if self._once and self._heartbeat.paused is not None:
                raise MachineError(f"{self._config.state_dir}: paused {self._heartbeat.paused}")
            for orphan in collect_orphans(self._config.codebooks_dir, self._store.generations.fingerprints()):
                self._events.info(f"{orphan.name}: removed: written by a training that never finished")
            with Wakeups(self._config.drop_dir, self._changed):
                self._loop()
            self._notifier.stopping()
            self._heartbeat.poll()
            self._crash_marker.clear()
            self._heartbeat.stopped()
            return Outcome(
                self._intake.rejected,
                self._intake.deferred,
                self._first_training.missing_rows(),
                self._intake.source.missing,
                stopped=self._stop.is_set(),
            )
        finally:
            self._scheduler.close()
            self._lifecycle.close()
            self._imports.close()
            self._first_training.close()
            self._crash_marker.close()

    def _loop(self) -> None:
        failures = 0
        worked = False
        while not self._stop.is_set():
            try:
                self._heartbeat.beat()
                if not worked or self._changed.is_set():
                    self._changed.clear()
                    self._intake.look()
                    self._notifier.ready()
                worked = self._work()
                failures = 0
                if self._once and not (worked or self._intake.unstable or self._changed.is_set()):
                    return
                if not worked:
                    self._idle()
            except MachineError as error:
                # Not even the ledger can be written: everything waits, and nothing is lost meanwhile.
                self._scheduler.close()
                self._store.invalidate()
                with contextlib.suppress(MachineError):
                    self._forget()
                with contextlib.suppress(MachineError):
                    self._crash_marker.clear()
                if self._once:
                    raise
                failures += 1
                pause = pause_s(_FIRST_PAUSE_S, min(failures, 6))
                _log.warning("%s; everything waits, tried again in %.0f s", error, pause)
                self._notifier.alive(f"waiting: {error}")
                self._stop.wait(pause)
                worked = False

    def _work(self) -> bool:
        """One bounded turn of everything there is to do; whether there was anything."""
        if self._store.database.written_by_others():
            self._events.warning(f"{self._config.database}: another program wrote to it; only the daemon may")
            self._store.invalidate()
            self._forget()
        if self._wal.is_full():
            if self._once:
                raise MachineError(f"{self._config.database}: {WAL_FULL}")
            self._heartbeat.doing("waiting", WAL_FULL)
            self._heartbeat.beat()
            self._stop.wait(COMMANDS_S)
            return True
        generation = self._store.generations.active()
        encodes = self._intake.pending or not self._lifecycle.busy
        if encodes and not self._first_training.busy:
            self._heartbeat.doing("gathering" if generation is None else "encoding")
        worked = self._intake.take_up(_SLICE_S, gathering=generation is None)
        if self._stop.is_set():
            return worked
        if generation is not None:
            worked = self._encode_some(generation) or worked
            return self._lifecycle.work(idle=not worked) or worked
        if not self._first_training.busy and (self._survey_some() or self._intake.queued > 0):
            return True
        return self._imports.work(self._intake.unstable) or self._first_training.work() or worked

    def _forget(self) -> None:
        """What is remembered of the database may not be so any more."""
        self._learner.forget()
        self._spool.reset(self._store.spool.end())

    def _idle(self) -> None:
        """Wait for something to change, for files to settle, for what was put off, or for the next periodic scan."""
        settle_s = self._config.drop.settle_ms / 1000
        pause = settle_s if self._intake.unstable else self._config.drop.rescan_s
        until = self._now() + min(
            pause, *(max(0.0, each.next_due_s()) for each in (self._intake, self._first_training))
        )
        missing = self._first_training.missing_rows()
        if self._intake.source.missing is not None:
            self._heartbeat.doing("source missing", self._intake.source.missing)
        elif missing and self._intake.pending:
            self._heartbeat.doing("gathering", f"{missing} rows missing before the first training")
        else:
            self._heartbeat.doing("idle")
        self._heartbeat.beat()
        while not (self._stop.is_set() or self._changed.is_set() or self._lifecycle.asked) and self._now() < until:
            self._changed.wait(min(COMMANDS_S, max(0.0, until - self._now())))
            self._heartbeat.beat()
        if self._lifecycle.asked:
            return
        if self._intake.unstable and self._now() < until:
            # An event came before the files had time to settle: further ones do not wake us meanwhile.
            until = self._now() + settle_s
            while not self._stop.is_set() and self._now() < until:
                self._stop.wait(min(COMMANDS_S, max(0.0, until - self._now())))
                self._heartbeat.beat()

    def _summary(self) -> str:
        """How far the work is, for people who ask the service manager."""
        waiting = len(self._intake.pending) + self._intake.queued
        rows_per_s = float(self._events.figures.get("rows_per_s") or 0)
        parts = [f"{waiting:,} files wait, {self._done:,} done"]
        parts += [f"{self._intake.rejected:,} rejected"] if self._intake.rejected else []
        parts += [f"{rows_per_s:,.0f} rows/s"] if rows_per_s else []
        return ", ".join(parts)

    # -- commands ------------------------------------------------------------------------------------

    def _retry(self, arguments: Arguments) -> str:
        names = arguments.get("files")
        if arguments.get("all") is not True and not (
            isinstance(names, list) and names and all(isinstance(name, str) for name in names)
        ):
            raise CommandError('give {"files": [name, ...]} or {"all": true}')
        answer = self._intake.retry(None if arguments.get("all") is True else names)
        self._changed.set()
        return answer

    def _rescan(self, arguments: Arguments) -> str:
        self._intake.rescan()
        self._changed.set()
        return "scanning"

    # -- files ---------------------------------------------------------------------------------------

    def _survey_some(self) -> bool:
        """Count rows of gathered files for a while; whether there was a file to count."""
        until = self._now() + _SLICE_S
        worked = False
        while not self._stop.is_set() and self._now() < until:
            pending = self._first_training.next_to_survey()
            if pending is None:
                break
            self._with(pending, self._first_training.survey)
            worked = True
        return worked

    def _encode_some(self, generation: Generation) -> bool:
        """Encode pending files for about a second. Returns True if there were any."""
        until = self._now() + _SLICE_S
        worked = False
        while not (self._stop.is_set() or self._wal.told) and (not worked or self._now() < until):
            chosen = self._scheduler.choose(self._intake.pending)
            if chosen is None:
                break
            if self._scheduler.is_new(chosen) and self._intake.is_small(self._intake.pending[chosen].file):
                self._encode_together(chosen, generation)
            else:
                self._with(self._intake.pending[chosen], lambda each: self._encode(each, generation))
            worked = True
        return worked

    def _encode_together(self, chosen: int | None, generation: Generation) -> None:
        """A small file and those that follow it, for a moment, with one commit for all of them."""
        failed: DeviceError | None = None
        with self._intake.together() as in_time, self._heartbeat.without_heartbeat():
            try:
                while chosen is not None and self._intake.is_small(self._intake.pending[chosen].file):
                    self._with(self._intake.pending[chosen], lambda each: self._encode(each, generation))
                    if self._stop.is_set() or not in_time():
                        break
                    chosen = self._scheduler.next_new(self._intake.pending)
            except DeviceError as error:
                failed = error  # it ends the process, once what was done before it is committed
        if failed is not None:
            raise failed
        self._heartbeat.beat()

    def _encode(self, pending: PendingFile, generation: Generation) -> None:
        """Give a file its turn: to its end, or until the slice is over and others wait."""
        file, file_id = pending.file, pending.ledger.id
        started = self._now()
        self._heartbeat.doing("encoding", file.name)
        job = self._scheduler.resume(file_id) or encode_steps(
            self._store,
            pending,
            generation=generation.number,
            encoder=self._encoders.get,
            learner=self._learner,
            spool=self._spool if self._config.spools else None,
            settings=self._config.ingest,
            crash_marker=self._crash_marker,
            watchdog=self._watchdog,
            stages=self._stages,
        )
        done_before = self._store.files.get(file_id).rows_done
        with self._throughput.turn(), self._progress.task(file.name, pending.ledger.rows or 0) as advance:
            self._throughput.file_at(file.name, pending.ledger.rows or 0, done_before, file.signature.size_bytes)
            advance(done_before)
            for rows in job:
                advance(rows)
                begun = self._store.files.get(file_id)
                self._throughput.file_at(file.name, begun.rows or 0, begun.rows_done, file.signature.size_bytes)
                self._heartbeat.beat()
                others = len(self._intake.pending) > 1 or self._intake.queued or self._changed.is_set()
                slice_over = self._now() - started >= _SLICE_S and (others or self._intake.next_due_s() <= 0)
                if self._stop.is_set() or slice_over or (not self._heartbeat.is_undisturbed and self._wal.is_full()):
                    self._scheduler.suspend(file_id, job)
                    return
        ledger = self._store.files.get(file_id)
        if ledger.status == "done":
            self._tell_done(file.name, file_id, self._now() - started)
            self._intake.finish(file, ledger)
            self._done += 1

    def _tell_done(self, name: str, file_id: int, elapsed_s: float) -> None:
        done = self._store.files.tally(file_id)
        parts = [f"{done.assigned:,} new IDs"]
        parts += [f"{done.kept:,} had an ID already"] if done.kept else []
        parts += [f"{done.replaced:,} replaced"] if done.replaced else []
        parts += [f"{done.rejected:,} left out ({done.reason})"] if done.rejected else []
        self._events.info(f"{name}: {', '.join(parts)}, {elapsed_s:.1f} s")

    def _with(self, pending: PendingFile, work: Callable[[PendingFile], None]) -> None:
        """Work on a file; a file's fault, a moving file and the machine's fault each have their own end."""
        ledger = pending.ledger
        self._crash_marker.set(
            pending.file.name, signature_text(pending.file), self._store.files.get(ledger.id).rows_done
        )
        try:
            work(pending)
        except BadFileError as error:
            self._intake.reject(pending, str(error))
        except FileChangedError as error:
            # What it holds now is another content: it settles, and is registered, anew.
            self._intake.pending.pop(ledger.id, None)
            self._intake.unstable = True
            self._store.files.defer(ledger.id, str(error))
        except (OSError, MemoryError, MachineError) as error:
            self._intake.postpone(pending.file, ledger, f"cannot be worked on: {error_text(error)}")
        except DeviceError as error:
            self._intake.postpone(pending.file, ledger, str(error))
            with contextlib.suppress(MachineError):
                self._crash_marker.clear()
            raise
        self._crash_marker.clear()
