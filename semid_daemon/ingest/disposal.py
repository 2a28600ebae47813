"""Where files end: done, rejected, or put off until the machine lets them be read or moved."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Iterator

from semid_daemon.base.backoff import pause_s
from semid_daemon.base.clock import seconds_until, utc_in
from semid_daemon.base.drop_file import DropFile
from semid_daemon.base.errors import error_text
from semid_daemon.config import Config
from semid_daemon.drop.dispose import delete, move_away, reject
from semid_daemon.drop.open_file import FileChangedError, signature_text
from semid_daemon.ingest.pending import PendingFile, PendingFiles
from semid_daemon.ingest.quarantine import Quarantine
from semid_daemon.runtime.context import WorkContext
from semid_daemon.runtime.events import EventLog
from semid_daemon.store.write.files import LedgerFile
from semid_daemon.store.write.store import Store


class Disposal:
    """Takes files out of `pending`, records where they end, and moves them. A move that fails is done later."""

    def __init__(
        self,
        config: Config,
        store: Store,
        events: EventLog,
        quarantine: Quarantine,
        pending: PendingFiles,
        context: WorkContext,
    ) -> None:
        self._config = config
        self._store = store
        self._events = events
        self._quarantine = quarantine
        self._pending = pending
        self._context = context
        self._handled: dict[str, str] = {}  # name -> signature of files that need nothing more
        self._not_before: dict[str, float] = {}  # name -> when it is tried again
        self._failures: dict[str, int] = {}  # of files that cannot be read or moved, by name
        self._moves: list[Callable[[], None]] | None = None  # of files that end together
        self.has_met_changes = False  # a file to be moved was another one by then
        self.rejected = 0
        self.deferred = 0

    # -- ends ----------------------------------------------------------------------------------------

    def finish(self, file: DropFile, ledger: LedgerFile) -> None:
        """All rows are committed: move, keep or delete the file, as configured."""
        self._pending.pop(ledger.id, None)
        self._quarantine.clear(file.name)
        self._once_committed(lambda: self._put_away(file, ledger))

    def reject(self, pending: PendingFile, reason: str) -> None:
        """The file can never be used: the ledger says why, and the file goes to the rejected ones."""
        self._store.files.reject(pending.ledger.id, reason)
        self.reject_known(pending.file, pending.ledger, reason)

    def reject_known(self, file: DropFile, ledger: LedgerFile, reason: str) -> None:
        """The ledger has the file's content as rejected already."""
        self._pending.pop(ledger.id, None)
        self._quarantine.clear(file.name)
        if file.name not in self._failures:
            self.rejected += 1
            self._events.warning(f"{file.name}: rejected: {reason}")
        self._once_committed(lambda: self._put_to_rejected(file, ledger, reason))

    def postpone(self, pending: PendingFile, reason: str) -> None:
        """Not the file's fault: tried again after a pause that doubles every time."""
        file, ledger = pending.file, pending.ledger
        self._pending.pop(ledger.id, None)
        pause = pause_s(self._config.ingest.retry_s, self._store.files.get(ledger.id).failures + 1)
        self._not_before[file.name] = self._context.now() + pause
        self.deferred += 1
        # The ledger first: where even that fails, everything waits, and says so itself.
        self._store.files.defer(ledger.id, reason, utc_in(pause))
        self._events.warning(f"{file.name}: deferred: {reason}; tried again in {pause:,.0f} s")

    def postpone_unread(self, file: DropFile, root: str, reason: str) -> None:
        """Likewise for a file that is not registered because it cannot be read."""
        pause = self._put_off(file, f"deferred: {reason}")
        self._store.files.record_unread(file.name, file.signature.size_bytes, root, reason, utc_in(pause))

    def _put_off(self, file: DropFile, why: str) -> float:
        """Try this name again later; for how long it is put off."""
        failures = self._failures[file.name] = self._failures.get(file.name, 0) + 1
        pause = pause_s(self._config.ingest.retry_s, failures)
        self._not_before[file.name] = self._context.now() + pause
        self.deferred += 1
        self._events.warning(f"{file.name}: {why}; tried again in {pause:,.0f} s")
        return pause

    # -- moving --------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Files that end in the block are moved after it, and not at all if it raises."""
        moves = self._moves = []
        try:
            yield
        finally:
            self._moves = None
        for move in moves:
            move()

    def _once_committed(self, move: Callable[[], None]) -> None:
        """Files are moved only when the ledger has what is behind it."""
        if self._moves is None:
            move()
        else:
            self._moves.append(move)

    def _put_away(self, file: DropFile, ledger: LedgerFile) -> None:
        on_done = self._config.drop.on_done
        if on_done == "keep":
            self._handled[file.name] = signature_text(file)
            return

        def put_away() -> None:
            if on_done == "move":
                move_away(file, self._config.drop_dir, self._config.done_dir, ledger.digest)
            else:
                delete(file)

        self._try_to(put_away, file, "done, but cannot be moved or deleted")

    def _put_to_rejected(self, file: DropFile, ledger: LedgerFile, reason: str) -> None:
        drop_dir, rejected_dir = self._config.drop_dir, self._config.rejected_dir
        self._try_to(
            lambda: reject(file, drop_dir, rejected_dir, ledger.digest, reason), file, "rejected, but cannot be moved"
        )

    def _try_to(self, move: Callable[[], object], file: DropFile, fault: str) -> None:
        """Move a file; what fails is done later."""
        try:
            move()
        except FileChangedError:
            self.has_met_changes = True
        except OSError as error:
            self._put_off(file, f"{fault}: {error_text(error)}")
        else:
            self._failures.pop(file.name, None)

    # -- what is remembered of names -------------------------------------------------------------------

    def is_handled(self, file: DropFile) -> bool:
        """Whether this very file needs nothing more."""
        return self._handled.get(file.name) == signature_text(file)

    def is_due(self, name: str) -> bool:
        """Whether a file of this name may be tried now."""
        return self._context.now() >= self._not_before.get(name, 0.0)

    def next_due_s(self) -> float:
        """How long until some file that was put off is due again; infinite when there is none."""
        return min(self._not_before.values(), default=float("inf")) - self._context.now()

    def heeds_earlier_pause(self, file: DropFile, ledger: LedgerFile) -> bool:
        """Whether the file waits for the rest of a pause that an earlier run began; otherwise it is due."""
        if self._context.once or not ledger.retry_at or file.name in self._not_before:
            self._not_before.pop(file.name, None)
            return False
        # The wall clock may have been set since: never wait longer than meant.
        longest_s = pause_s(self._config.ingest.retry_s, ledger.failures)
        rest_s = min(longest_s, max(0.0, seconds_until(ledger.retry_at)))
        self._not_before[file.name] = self._context.now() + rest_s
        return True

    def keep_only(self, names: Container[str]) -> None:
        """Nothing is known of other names."""
        self._handled = {name: signature for name, signature in self._handled.items() if name in names}
        self._not_before = {name: at for name, at in self._not_before.items() if name in names}

    def forget(self, name: str) -> None:
        """The name is tried again as if nothing had happened."""
        for memory in (self._not_before, self._failures, self._handled):
            memory.pop(name, None)
        self._quarantine.clear(name)

    def rescan(self) -> None:
        """Everything that lies there is taken up anew."""
        self._handled.clear()
        self._not_before.clear()
