"""From the drop directory to the ledger: which stable files wait for their rows to be committed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator

from semid_daemon.base.drop_file import DropFile
from semid_daemon.base.errors import error_text
from semid_daemon.base.steps import finish
from semid_daemon.config import Config
from semid_daemon.drop.open_file import FileChangedError, signature_text
from semid_daemon.drop.scan import Scan
from semid_daemon.drop.settle import StableFiles
from semid_daemon.ingest.disposal import Disposal
from semid_daemon.ingest.file_queue import FileQueue
from semid_daemon.ingest.pending import PendingFile, PendingFiles
from semid_daemon.ingest.quarantine import Quarantine
from semid_daemon.ingest.register import CHANGED, Register
from semid_daemon.ingest.retry import GONE, retry
from semid_daemon.ingest.source import DropDirectory
from semid_daemon.runtime.context import WorkContext
from semid_daemon.runtime.events import EventLog
from semid_daemon.runtime.progress import Progress
from semid_daemon.store.write.files import LedgerFile
from semid_daemon.store.write.store import Store

_SMALL_BYTES = 1 << 20
_SCAN_SHARE = 5  # a scan that takes a second is not repeated for five, however often something changes


class Intake:
    """The queue of stable files, and the files that wait to be encoded.

    `pending` holds, by ledger ID, the files still to be worked on; it is changed by methods of this class only.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        events: EventLog,
        progress: Progress,
        quarantine: Quarantine,
        context: WorkContext,
    ) -> None:
        self._config = config
        self._store = store
        self._quarantine = quarantine
        self._context = context
        self._stable = StableFiles(config.drop.settle_ms / 1000)
        self._source = DropDirectory(config, events)
        self._found: Scan | None = None
        self._queue = FileQueue()
        self._is_unstable = False
        self._scan_again = 0.0
        self.pending = PendingFiles()
        self._register = Register(store, events, progress, self.pending)
        self._disposal = Disposal(config, store, events, quarantine, self.pending, context)

    @property
    def unstable(self) -> bool:
        """Whether files were seen to change, so that the directory should be looked at again soon."""
        return self._is_unstable or self._disposal.has_met_changes

    @property
    def source_missing(self) -> str | None:
        """Why the drop directory could not be scanned; None while it can be."""
        return self._source.missing

    @property
    def rejected(self) -> int:
        """How many files were rejected so far."""
        return self._disposal.rejected

    @property
    def deferred(self) -> int:
        """How many times files were put off so far."""
        return self._disposal.deferred

    # -- the scan ------------------------------------------------------------------------------------

    def look(self) -> Generator[None, None, None]:
        """Scan the drop directory, queue the stable files, forget those that have gone."""
        started = self._context.now()
        if started < self._scan_again:
            self._is_unstable = True
            return
        found = yield from self._source.look(self._found)
        if found is None:
            self._miss_source()
            return
        if self._found is not None and self._found.root != found.root:
            self.pending.clear()
        self._found, self._register.root = found, found.root
        stable, self._is_unstable = self._stable.look(found.files, self._context.now())
        self._disposal.has_met_changes = False
        self._disposal.keep_only(found.files)
        self._register.keep_only(found.files)
        self._withdraw_changed(found)
        self._queue.fill(self._to_register(stable))
        self._withdraw_gone(found)
        self._account()
        self._scan_again = self._context.now() + _SCAN_SHARE * (self._context.now() - started)

    def _to_register(self, stable: list[DropFile]) -> Iterator[DropFile]:
        in_work = {pending.file.name: signature_text(pending.file) for pending in self.pending.values()}
        for file in stable:
            if not self._disposal.is_due(file.name) or self._disposal.is_handled(file):
                continue
            if in_work.get(file.name) != signature_text(file):
                yield file

    def _withdraw_changed(self, found: Scan) -> None:
        """Names that hold something else by now: that is registered once it is stable."""
        for pending in list(self.pending.values()):
            file = found.files.get(pending.file.name)
            if file is not None and signature_text(file) != signature_text(pending.file):
                self._register.withdraw(pending.ledger.id, CHANGED)

    def _withdraw_gone(self, found: Scan) -> None:
        for pending in [pending for pending in self.pending.values() if pending.file.name not in found.files]:
            self._register.withdraw(pending.ledger.id, GONE)

    def _miss_source(self) -> None:
        """The source is missing: what is there when it is back may be another directory."""
        self._register.skip_account()
        self._is_unstable = self._disposal.has_met_changes = False
        self._queue.clear()
        self.pending.clear()
        self._found, self._register.root = None, ""

    def _account(self) -> None:
        if self._found is not None and not (self.unstable or len(self._queue)):
            self._register.account(self._found, self._config.drop_dir)

    def next_due_s(self) -> float:
        """How long until some file that was put off is due again; infinite when there is none."""
        return self._disposal.next_due_s()

    # -- registering ---------------------------------------------------------------------------------

    @property
    def queued(self) -> int:
        """How many stable files are still to be registered."""
        return len(self._queue)

    def queued_bytes(self) -> int:
        """The size of the files still to be registered."""
        return self._queue.size_bytes

    def take_up(self, *, gathering: bool) -> Generator[None, None, bool]:
        """Register queued files for about a second. Returns whether there were any.

        Without `gathering` no more than `Limits.most_pending` wait at a time.
        """
        until = self._context.now() + self._context.limits.slice_s
        worked = False
        while (file := self._next(gathering)) is not None and self._context.now() < until:
            if self.is_small(file):
                self._take_up_small(gathering)
            else:
                yield from self._take_up(self._queue.take())
            worked = True
            yield
        if worked:
            self._account()
        return worked

    def _next(self, gathering: bool) -> DropFile | None:
        """The queued file that is next; None where no more may wait."""
        may_wait = gathering or len(self.pending) < self._context.limits.most_pending
        return self._queue.first() if may_wait else None

    def is_small(self, file: DropFile) -> bool:
        """Whether so little is to be done with a file that many of them are better done together."""
        return file.signature.size_bytes <= _SMALL_BYTES and file not in self._quarantine

    def _take_up_small(self, gathering: bool) -> None:
        with self.together() as in_time:
            while (file := self._next(gathering)) is not None and self.is_small(file):
                finish(self._take_up(self._queue.take()))
                if not in_time():
                    break

    @contextlib.contextmanager
    def together(self) -> Iterator[Callable[[], bool]]:
        """Small files that end with one commit, which are moved after it; gives whether there is time for more.

        If it raises, the transaction is rolled back and the files are registered again.
        """
        until = self._context.now() + self._context.limits.together_s
        with self._disposal.together():
            try:
                with self._store.database.batch(savepoints=True):
                    yield lambda: self._context.now() < until
            except BaseException:
                self._queue.clear()
                self.pending.clear()
                self._register.forget()
                self._is_unstable = True
                raise

    def _take_up(self, file: DropFile) -> Generator[None, None, None]:
        """Register a stable file, unless it changes meanwhile or the machine does not let us."""
        with self._quarantine.marked(file, 0):
            try:
                reason = yield from self._quarantine.why_quarantined(file)
                if reason is None:
                    yield from self._enter(file)
                else:
                    yield from self._reject_unopened(file, reason)
            except FileChangedError:
                self._is_unstable = True
            except (OSError, MemoryError) as error:
                why = f"cannot be read or moved: {error_text(error)}"
                self._disposal.postpone_unread(file, self._register.root, why)

    def _enter(self, file: DropFile) -> Generator[None, None, None]:
        """The file waits, or ends here because of what the ledger knows of its content."""
        registered = yield from self._register.enter(file, lambda: self._is_stable_long(file))
        ledger = registered.ledger
        if ledger is None:
            self._is_unstable = True
        elif ledger.status == "done":
            self._disposal.finish(file, ledger)
        elif ledger.status == "rejected":
            self._disposal.reject_known(file, ledger, ledger.reason or "rejected before")
        elif registered.problem is not None:
            self._disposal.reject(PendingFile(file, ledger), str(registered.problem))
        elif not self._disposal.heeds_earlier_pause(file, ledger):
            self.pending.setdefault(ledger.id, PendingFile(file, ledger))

    def _reject_unopened(self, file: DropFile, reason: str) -> Generator[None, None, None]:
        """Reject a file without ever parsing it."""
        ledger = yield from self._register.enter_unopened(file)
        why = f"{reason}; look at it, then `semid retry` tries it again"
        self._disposal.reject(PendingFile(file, ledger), why)

    def _is_stable_long(self, file: DropFile) -> bool:
        """Whether an incomplete file has looked the same for so long that nobody can be writing it."""
        grace_s = self._config.drop.incomplete_grace_s
        stable_for_s = self._stable.stable_for_s(file.name, self._context.now())
        # The wall clock only shortens the wait for files that are plainly old; it is never relied on.
        age_s = time.time() - file.signature.mtime_ns / 1e9
        return stable_for_s >= grace_s or age_s >= max(grace_s, 1.0)

    # -- pending files ---------------------------------------------------------------------------------

    def update(self, pending: PendingFile) -> None:
        """More is known of a pending file now, such as the number of its usable rows."""
        self.pending[pending.ledger.id] = pending

    def finish(self, file: DropFile, ledger: LedgerFile) -> None:
        """All rows of a file are committed."""
        self._disposal.finish(file, ledger)

    def reject(self, pending: PendingFile, reason: str) -> None:
        """A pending file can never be used."""
        self._disposal.reject(pending, reason)

    def postpone(self, pending: PendingFile, reason: str) -> None:
        """The machine does not let a pending file be worked on: it is tried again later."""
        self._disposal.postpone(pending, reason)

    def withdraw(self, pending: PendingFile, reason: str) -> None:
        """A pending file is not what it was: what lies there now is registered once it is stable."""
        self._register.withdraw(pending.ledger.id, reason)
        self._is_unstable = True

    # -- commands --------------------------------------------------------------------------------------

    def retry(self, names: list[str] | None) -> str:
        """Take deferred and rejected files up again, those of `names` or all; what came of it, in words."""
        return retry(self._store, self._config, names, self._disposal.forget)

    def rescan(self) -> None:
        """Forget what is only remembered: the next look takes everything that lies there up anew."""
        self._disposal.rescan()
        self._source.tell_again()
        self._scan_again = 0.0
        self._register.account_again()
