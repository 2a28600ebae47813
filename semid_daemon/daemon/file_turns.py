"""Pending files in turns: surveyed before there are codebooks, encoded once there are."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from dataclasses import dataclass

from semid_daemon.base.errors import BadFileError, DeviceError, MachineError, error_text
from semid_daemon.base.steps import finish
from semid_daemon.daemon.wal_guard import WalLimit
from semid_daemon.drop.open_file import FileChangedError, signature_text
from semid_daemon.ingest.crash_marker import CrashMarker
from semid_daemon.ingest.file_encoder import FileEncoder
from semid_daemon.ingest.intake import Intake
from semid_daemon.ingest.pending import PendingFile
from semid_daemon.ingest.scheduler import FileScheduler
from semid_daemon.runtime.context import WorkContext
from semid_daemon.runtime.events import EventLog
from semid_daemon.runtime.progress import Progress
from semid_daemon.runtime.throughput import Throughput
from semid_daemon.store.write.generations import Generation
from semid_daemon.store.write.store import Store

Steps = Generator[None, None, None]


@dataclass(frozen=True, slots=True)
class Reporting:
    """Who is told how far a file is."""

    events: EventLog
    progress: Progress
    throughput: Throughput


class FileTurns:
    """Gives pending files their turns, about a second each while others wait, in steps of a chunk."""

    def __init__(
        self,
        context: WorkContext,
        store: Store,
        intake: Intake,
        encoder: FileEncoder,
        marker: CrashMarker,
        wal: WalLimit,
        reporting: Reporting,
    ) -> None:
        self._context = context
        self._store = store
        self._intake = intake
        self._encoder = encoder
        self._marker = marker
        self._wal = wal
        self._events = reporting.events
        self._progress = reporting.progress
        self._throughput = reporting.throughput
        self._scheduler = FileScheduler()
        self.done = 0  # files

    def close(self) -> None:
        """Close the files that are open: each is left as after a stop."""
        self._scheduler.close()

    # -- surveying -----------------------------------------------------------------------------------

    def survey(
        self, next_file: Callable[[], PendingFile | None], survey: Callable[[PendingFile], Steps]
    ) -> Generator[None, None, bool]:
        """Survey files for about a second. Returns whether there were any."""
        until = self._context.now() + self._context.limits.slice_s
        worked = False
        while self._context.now() < until and (pending := next_file()) is not None:
            yield from self._guarded(pending, survey(pending))
            worked = True
            yield
        return worked

    # -- encoding ------------------------------------------------------------------------------------

    def encode(self, generation: Generation, others_wait: Callable[[], bool]) -> Generator[None, None, bool]:
        """Encode pending files for about a second. Returns whether there were any.

        A single file goes on for longer, until `others_wait`.
        """
        until = self._context.now() + self._context.limits.slice_s
        worked = False
        while not self._wal.told and (not worked or self._context.now() < until):
            chosen = self._scheduler.choose(self._intake.pending)
            if chosen is None:
                break
            pending = self._intake.pending[chosen]
            if self._scheduler.is_new(chosen) and self._intake.is_small(pending.file):
                self._encode_together(chosen, generation)
            else:
                yield from self._guarded(pending, self._encode(pending, generation, others_wait))
            worked = True
            yield
        return worked

    def _encode_together(self, chosen: int | None, generation: Generation) -> None:
        """A small file and those that follow it, for a moment, with one commit for all of them."""
        failed: DeviceError | None = None
        with self._intake.together() as in_time:
            try:
                while chosen is not None and self._intake.is_small(self._intake.pending[chosen].file):
                    pending = self._intake.pending[chosen]
                    finish(self._guarded(pending, self._encode(pending, generation, None)))
                    if self._context.stop.is_set() or not in_time():
                        break
                    chosen = self._scheduler.next_new(self._intake.pending)
            except DeviceError as error:
                failed = error  # it ends the process, once what was done before it is committed
        if failed is not None:
            raise failed

    def _encode(
        self, pending: PendingFile, generation: Generation, others_wait: Callable[[], bool] | None
    ) -> Generator[None, None, None]:
        """Give a file its turn: to its end, or until the slice is over and others wait."""
        file, file_id = pending.file, pending.ledger.id
        started = self._context.now()
        self._context.say("encoding", file.name)
        job = self._scheduler.resume(file_id) or self._encoder.run(pending, generation.number)
        done_before = self._store.files.get(file_id).rows_done
        with self._throughput.turn(), self._progress.task(file.name, pending.ledger.rows or 0) as advance:
            self._throughput.file_at(file.name, pending.ledger.rows or 0, done_before, file.signature.size_bytes)
            advance(done_before)
            for rows in job:
                advance(rows)
                begun = self._store.files.get(file_id)
                self._throughput.file_at(file.name, begun.rows or 0, begun.rows_done, file.signature.size_bytes)
                try:
                    yield
                except GeneratorExit:
                    self._scheduler.suspend(file_id, job)
                    raise
                if self._is_over(started, others_wait):
                    self._scheduler.suspend(file_id, job)
                    return
        ledger = self._store.files.get(file_id)
        if ledger.status == "done":
            self._report(file.name, file_id, self._context.now() - started)
            self._intake.finish(file, ledger)
            self.done += 1

    def _is_over(self, started: float, others_wait: Callable[[], bool] | None) -> bool:
        """Whether a file's turn is over. `others_wait` is None within a transaction of small files."""
        if self._context.stop.is_set():
            return True
        others = len(self._intake.pending) > 1 or self._intake.queued > 0 or (others_wait is not None and others_wait())
        slice_over = self._context.now() - started >= self._context.limits.slice_s
        if slice_over and (others or self._intake.next_due_s() <= 0):
            return True
        return others_wait is not None and self._wal.is_full()

    def _report(self, name: str, file_id: int, elapsed_s: float) -> None:
        done = self._store.files.tally(file_id)
        parts = [f"{done.assigned:,} new IDs"]
        parts += [f"{done.kept:,} had an ID already"] if done.kept else []
        parts += [f"{done.replaced:,} replaced"] if done.replaced else []
        parts += [f"{done.rejected:,} left out ({done.reason})"] if done.rejected else []
        self._events.info(f"{name}: {', '.join(parts)}, {elapsed_s:.1f} s")

    # -- faults --------------------------------------------------------------------------------------

    def _guarded(self, pending: PendingFile, steps: Steps) -> Steps:
        """Work on a file; a file's fault, a moving file and the machine's fault each have their own end."""
        file = pending.file
        rows_done = self._store.files.get(pending.ledger.id).rows_done
        self._marker.set(file.name, signature_text(file), rows_done)
        try:
            yield from steps
        except BadFileError as error:
            self._intake.reject(pending, str(error))
        except FileChangedError as error:
            self._intake.withdraw(pending, str(error))
        except (OSError, MemoryError, MachineError) as error:
            self._intake.postpone(pending, f"cannot be worked on: {error_text(error)}")
        except DeviceError as error:
            self._intake.postpone(pending, str(error))
            with contextlib.suppress(MachineError):
                self._marker.clear()
            raise
        self._marker.clear()
