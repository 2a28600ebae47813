"""The daemon: look, train once there are rows enough, encode, wait. Over and over, in bounded turns."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import threading
from collections.abc import Generator
from importlib.metadata import version

from semid_daemon.base.backoff import pause_s
from semid_daemon.base.errors import CommandError, MachineError
from semid_daemon.codebooks.files import collect_orphans
from semid_daemon.codebooks.spool import Spool
from semid_daemon.command_client import Arguments
from semid_daemon.config import Config
from semid_daemon.daemon.command_server import CommandFiles, CommandServer
from semid_daemon.daemon.file_turns import FileTurns, Reporting
from semid_daemon.daemon.heartbeat import COMMANDS_S, Heartbeat
from semid_daemon.daemon.outcome import Outcome
from semid_daemon.daemon.pause import Pause
from semid_daemon.daemon.prometheus import MetricsFile
from semid_daemon.daemon.state_lock import Lock
from semid_daemon.daemon.systemd_notify import Notifier
from semid_daemon.daemon.wal_guard import WAL_FULL, WalLimit
from semid_daemon.drop.watch import Wakeups
from semid_daemon.generations.encoder_cache import EncoderCache
from semid_daemon.generations.first_training import FirstTraining
from semid_daemon.generations.imports import CodebookImports
from semid_daemon.generations.lifecycle import GenerationLifecycle
from semid_daemon.generations.prepare import GenerationBuilder
from semid_daemon.generations.source_rows import SourceRows
from semid_daemon.generations.training import CodebookTraining
from semid_daemon.ingest.chunk_stages import ChunkStages
from semid_daemon.ingest.crash_marker import CrashMarker
from semid_daemon.ingest.file_encoder import FileEncoder
from semid_daemon.ingest.intake import Intake
from semid_daemon.ingest.learner import Learner
from semid_daemon.ingest.quarantine import Quarantine
from semid_daemon.published_settings import REMEDY, ignored_settings
from semid_daemon.quantizer import describe_device, resolve_device
from semid_daemon.runtime.context import WorkContext
from semid_daemon.runtime.device_watchdog import Watchdog
from semid_daemon.runtime.events import EventLog
from semid_daemon.runtime.host_metrics import Host
from semid_daemon.runtime.progress import Progress
from semid_daemon.runtime.stage_timing import Stages
from semid_daemon.runtime.throughput import StepsTold, Throughput
from semid_daemon.store.write.store import Store

_log = logging.getLogger("semid")

_OTHER_WORK_SHARE = 3  # seconds of other work after a second of answering commands


class Service:
    """One daemon over one state directory, whose lock the caller holds.

    All long work is done in steps, which this loop drives. Between two of them it beats, answers commands, and
    idles while it is paused. `context.stop` ends it after the current step; nothing is lost, and the next run goes on
    there.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        progress: Progress,
        context: WorkContext,
        lock: Lock | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        self._config = config
        self._store = store
        self._notifier = notifier or Notifier(environment={})
        self._stop = context.stop
        self._now = context.now
        self._device = resolve_device(config.quantizer.device)
        self._changed = threading.Event()
        self._answer_again = 0.0
        self._events = EventLog(store, context.now)
        self._pause = Pause(store, self._events)
        self._command_files = CommandFiles(config.commands_dir)
        self._metrics_file = MetricsFile(config, version("semid"), self._events, context.now)
        self._heartbeat = self._make_heartbeat(lock)
        self._context = dataclasses.replace(context, say=self._heartbeat.say)
        self._wal = WalLimit(store, self._events, config.database, config.ingest.max_wal_mb << 20)
        self._marker = CrashMarker(config.crash_marker)
        self._watchdog = Watchdog(config.ingest.watchdog_s, before_end=self._marker.clear)
        self._throughput = Throughput(self._bytes_left, context.now)
        self._progress = StepsTold(progress, self._throughput)
        self._stages = Stages(context.now)
        self._encoders = EncoderCache(store, config.codebooks_dir, self._device, self._watchdog)
        self._learner = Learner(config, store, self._device, self._encoders.get)
        self._spool = Spool(config.spool_dir, store.spool.end())
        self._make_ingest()
        self._make_generations()
        self._commands = self._make_command_server()

    def _make_heartbeat(self, lock: Lock | None) -> Heartbeat:
        checks = [self._tell_stop, self._metrics_file.keep]
        if lock is not None:
            checks.insert(0, lock.check)
        return Heartbeat(self._events, self._notifier, self._command_files, checks, self._summary, self._now)

    def _make_ingest(self) -> None:
        config, context = self._config, self._context
        self._quarantine = Quarantine(self._store, self._events, self._marker, config.ingest.chunk_rows)
        self._intake = Intake(config, self._store, self._events, self._progress, self._quarantine, context)
        stages = ChunkStages(config.ingest, self._watchdog, self._stages, context.limits.patience_s)
        spool = self._spool if config.spools else None
        encoder = FileEncoder(context, self._store, self._learner, spool, self._encoders.get, stages, self._marker)
        reporting = Reporting(self._events, self._progress, self._throughput)
        self._files = FileTurns(context, self._store, self._intake, encoder, self._marker, self._wal, reporting)
        gpu = (self._device.index or 0) if self._device.type == "cuda" else None
        self._events.gauges += [self._throughput.gauges, self._stages.gauges, Host(config.state_dir, gpu).gauges]

    def _make_generations(self) -> None:
        config, context = self._config, self._context
        training = CodebookTraining(config, self._store, self._device, self._watchdog, context)
        self._first_training = FirstTraining(
            config, self._store, self._events, self._progress, self._intake, training, context
        )
        source_rows = SourceRows(config, self._store, self._spool)
        builder = GenerationBuilder(config, self._store, training, self._encoders, self._learner, source_rows, context)
        self._lifecycle = GenerationLifecycle(
            config,
            self._store,
            self._events,
            self._learner,
            builder,
            context,
            before_switch=self._files.close,
            wake=self._changed.set,
        )
        self._imports = CodebookImports(config, self._store, self._first_training, self._lifecycle, context)

    def _make_command_server(self) -> CommandServer:
        handlers = {
            "retry": self._retry,
            "rescan": self._rescan,
            "pause": self._pause.pause,
            "resume": self._pause.resume,
        }
        long_handlers = {
            "train": self._lifecycle.train,
            "promote": self._lifecycle.promote,
            "rollback": self._lifecycle.rollback,
            "import-codebooks": self._imports.handle,
        }
        return CommandServer(self._command_files, self._store, handlers, long_handlers)

    # -- the loop ------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Work until stopped; with `context.once`, until everything in the drop directory is handled."""
        try:
            self._store.daemon.started(os.getpid(), describe_device(self._device), version("semid"))
            self._quarantine.note_death()
            self._commands.poll()
            if self._context.once and self._pause.reason is not None:
                raise MachineError(f"{self._config.state_dir}: paused {self._pause.reason}")
            for orphan in collect_orphans(self._config.codebooks_dir, self._store.generations.fingerprints()):
                self._events.info(f"{orphan.name}: removed: written by a training that never finished")
            for text in ignored_settings(self._config, self._store.generations.active()):
                self._events.warning(f"{text}; {REMEDY}")
            with Wakeups(self._config.drop_dir, self._changed):
                self._loop()
            self._notifier.stopping()
            self._commands.poll()
            self._marker.clear()
            self._heartbeat.stopped()
            self._metrics_file.keep(at_once=True)
            return Outcome(
                self._intake.rejected,
                self._intake.deferred,
                self._first_training.missing_rows(),
                self._intake.source_missing,
                stopped=self._stop.is_set(),
            )
        finally:
            self._files.close()
            self._lifecycle.close()
            self._imports.close()
            self._first_training.close()
            self._marker.close()

    def _loop(self) -> None:
        failures = 0
        worked = False
        while not self._stop.is_set():
            try:
                worked = self._drive(self._turn(look=not worked))
                failures = 0
                if self._context.once and not (worked or self._intake.unstable or self._changed.is_set()):
                    return
                if not worked:
                    self._idle()
            except MachineError as error:
                # Not even the ledger can be written: everything waits, and nothing is lost meanwhile.
                self._forget_unwritten()
                if self._context.once:
                    raise
                failures += 1
                pause = pause_s(self._context.limits.first_pause_s, min(failures, 6))
                _log.warning("%s; everything waits, tried again in %.0f s", error, pause)
                self._notifier.alive(f"waiting: {error}")
                self._stop.wait(pause)
                worked = False

    def _drive(self, steps: Generator[None, None, bool]) -> bool:
        """Run steps to their end, and attend to the daemon between them. A stop ends them early."""
        while self._attend():
            try:
                next(steps)
            except StopIteration as end:
                return bool(end.value)
        steps.close()
        return False

    def _attend(self) -> bool:
        """Beat and answer commands; while paused, nothing else is done. Returns False when the daemon is to end."""
        self._heartbeat.beat()
        self._answer()
        while (reason := self._pause.reason) is not None and not self._stop.is_set():
            self._notifier.ready()
            with self._heartbeat.saying("paused", reason):
                self._heartbeat.beat()
            self._stop.wait(COMMANDS_S)
            self._answer()
        return not self._stop.is_set()

    def _answer(self) -> None:
        if self._now() >= self._answer_again:
            began = self._now()
            self._commands.answer()
            self._answer_again = self._now() + max(COMMANDS_S, _OTHER_WORK_SHARE * (self._now() - began))

    def _turn(self, *, look: bool) -> Generator[None, None, bool]:
        """One bounded turn of everything there is to do. Returns whether there was anything."""
        if look or self._changed.is_set():
            self._changed.clear()
            yield from self._intake.look()
            self._notifier.ready()
        if self._store.database.written_by_others():
            self._events.warning(f"{self._config.database}: another program wrote to it; only the daemon may")
            self._store.invalidate()
            self._forget()
        if self._wal.is_full():
            if self._context.once:
                raise MachineError(f"{self._config.database}: {WAL_FULL}")
            self._heartbeat.say("waiting", WAL_FULL)
            yield
            self._stop.wait(COMMANDS_S)
            return True
        return (yield from self._work())

    def _work(self) -> Generator[None, None, bool]:
        generation = self._store.generations.active()
        first = self._first_training
        if (self._intake.pending or not self._lifecycle.busy) and not first.busy:
            self._heartbeat.say("gathering" if generation is None else "encoding")
        worked = yield from self._intake.take_up(gathering=generation is None)
        if generation is not None:
            worked = (yield from self._files.encode(generation, self._changed.is_set)) or worked
            return self._lifecycle.work(idle=not worked) or worked
        if not first.busy:
            surveyed = yield from self._files.survey(first.next_to_survey, first.survey)
            if surveyed or self._intake.queued > 0:
                return True
        return self._imports.work(self._intake.unstable) or first.work() or worked

    def _idle(self) -> None:
        """Wait for something to change, for files to be stable, for what was put off, or for the next periodic scan."""
        settle_s = self._config.drop.settle_ms / 1000
        pause = settle_s if self._intake.unstable else self._config.drop.rescan_s
        due_s = min(self._intake.next_due_s(), self._first_training.next_due_s())
        until = self._now() + min(pause, max(0.0, due_s))
        missing = self._first_training.missing_rows()
        if self._intake.source_missing is not None:
            self._heartbeat.say("source missing", self._intake.source_missing)
        elif missing and self._intake.pending:
            self._heartbeat.say("gathering", f"{missing} rows missing before the first training")
        else:
            self._heartbeat.say("idle")
        while self._attend() and not (self._changed.is_set() or self._lifecycle.asked) and self._now() < until:
            self._changed.wait(min(COMMANDS_S, max(0.0, until - self._now())))
        if self._lifecycle.asked:
            return
        if self._intake.unstable and self._now() < until:
            # An event came before the files had time to be stable: further ones do not wake us meanwhile.
            until = self._now() + settle_s
            while self._now() < until and self._attend():
                self._stop.wait(min(COMMANDS_S, max(0.0, until - self._now())))

    # -- what is remembered ----------------------------------------------------------------------------

    def _forget_unwritten(self) -> None:
        """A transaction failed: what is remembered of it may not be in the database."""
        self._files.close()
        self._store.invalidate()
        with contextlib.suppress(MachineError):
            self._forget()
        with contextlib.suppress(MachineError):
            self._marker.clear()

    def _forget(self) -> None:
        """What is remembered of the database may not be so any more."""
        self._learner.forget()
        self._spool.reset(self._store.spool.end())

    # -- the heartbeat ---------------------------------------------------------------------------------

    def _tell_stop(self) -> None:
        if self._stop.is_set():
            self._notifier.stopping()

    def _bytes_left(self) -> float:
        return self._store.files.backlog_bytes() + self._intake.queued_bytes()

    def _summary(self) -> str:
        """How far the work is, for people who ask the service manager."""
        waiting = len(self._intake.pending) + self._intake.queued
        rows_per_s = float(self._events.figures.get("rows_per_s") or 0)
        parts = [f"{waiting:,} files wait, {self._files.done:,} done"]
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
