"""From the drop directory to the ledger: which files wait for their rows to be committed, and where each ends."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from semid_daemon.base.backoff import pause_s
from semid_daemon.base.clock import seconds_until, utc_in
from semid_daemon.base.drop_file import DropFile
from semid_daemon.base.errors import error_text
from semid_daemon.base.types import Tick
from semid_daemon.config import Config
from semid_daemon.drop.dispose import delete, move_away, reject
from semid_daemon.drop.open_file import FileChangedError, signature_text
from semid_daemon.drop.scan import Scan
from semid_daemon.drop.settle import StableFiles
from semid_daemon.ingest.crash_marker import CrashMarker
from semid_daemon.ingest.pending import PendingFile, PendingFiles
from semid_daemon.ingest.quarantine import Quarantine
from semid_daemon.ingest.register import register, register_unopened
from semid_daemon.ingest.retry import GONE, retry
from semid_daemon.ingest.source import DropDirectory
from semid_daemon.runtime.events import EventLog
from semid_daemon.runtime.progress import Progress
from semid_daemon.store.write.files import LedgerFile, Sighting
from semid_daemon.store.write.store import Store

MOST_WAITING = 1_000
_SMALL_BYTES = 1 << 20
_TOGETHER_S = 0.2  # of small files that end with one commit
_CHANGED = "changed before it was read; taken up again when it is back"
_SCAN_SHARE = 5  # a scan that takes a second is not repeated for five, however often something changes


class Intake:
    """Knows what lies in the drop directory. `waiting` holds, by ledger ID, the files still to be worked on.

    `tick` is called often while something takes long; `stop` says that the daemon is to end.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        events: EventLog,
        progress: Progress,
        crash_marker: CrashMarker,
        tick: Tick,
        stop: threading.Event,
        *,
        heed_retry_times: bool = True,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._store = store
        self._events = events
        self._progress = progress
        self._crash_marker = crash_marker
        self._tick = tick
        self._heed_retry_times = heed_retry_times
        self._now = now
        self._settling = StableFiles(config.drop.settle_ms / 1000)
        self._found: Scan | None = None
        self._queue: dict[str, DropFile] = {}  # settled, to be taken up
        self._queue_sized = (0, 0)  # files, bytes
        self._handled: dict[str, str] = {}  # name -> signature of files that need nothing more
        self._contents: dict[str, int] = {}  # name -> ledger ID of what was last found under it
        self._not_before: dict[str, float] = {}  # name -> when it is tried again
        self._failures: dict[str, int] = {}  # of files that cannot be read or moved, by name
        self._accounted = False
        self._moves: list[Callable[[], None]] | None = None  # of files that end together
        self._scan_again = 0.0
        self.source = DropDirectory(config, events, tick)
        self.pending = PendingFiles()
        self.quarantine = Quarantine(store, events, crash_marker, config.ingest.chunk_rows, tick, stop.is_set)
        self.unstable = False
        self.rejected = 0
        self.deferred = 0

    # -- the scan ------------------------------------------------------------------------------------

    def look(self) -> None:
        """Scan the drop directory, queue what has settled, forget what has gone."""
        started = self._now()
        if started < self._scan_again:
            self.unstable = True
            return
        found = self.source.look(self._found)
        if found is None:
            self._give_up_waiting()
            return
        if self._found is not None and self._found.root != found.root:
            self.pending.clear()
        now = self._now()
        stable, self.unstable = self._settling.look(found.files, now)
        self._handled = {name: sig for name, sig in self._handled.items() if name in found.files}
        self._not_before = {name: at for name, at in self._not_before.items() if name in found.files}
        self._contents = {name: file_id for name, file_id in self._contents.items() if name in found.files}
        self._drop_changed(found)
        in_work = {pending.file.name: signature_text(pending.file) for pending in self.pending.values()}
        self._queue = {
            file.name: file
            for file in stable
            if now >= self._not_before.get(file.name, 0.0)
            and not (
                (file.name in self._handled or file.name in in_work)
                and signature_text(file) in (self._handled.get(file.name), in_work.get(file.name))
            )
        }
        self._forget_gone(found)
        self._account(found)
        self._found = found
        self._scan_again = self._now() + _SCAN_SHARE * (self._now() - started)

    def _drop_changed(self, found: Scan) -> None:
        """What waited under a name that holds something else by now: that is registered once it has settled."""
        for pending in list(self.pending.values()):
            file = found.files.get(pending.file.name)
            if file is not None and signature_text(file) != signature_text(pending.file):
                del self.pending[pending.ledger.id]
                self._store.files.defer(pending.ledger.id, _CHANGED)

    def _give_up_waiting(self) -> None:
        """The source is missing: what is there when it is back may be another directory."""
        self._accounted = True
        self.unstable = False
        self._queue.clear()
        self.pending.clear()
        self._found = None

    def _forget_gone(self, found: Scan) -> None:
        """What waited and is not there any more."""
        gone = [pending for pending in self.pending.values() if pending.file.name not in found.files]
        for pending in gone:
            del self.pending[pending.ledger.id]
            self._store.files.defer(pending.ledger.id, GONE)

    def _account(self, found: Scan) -> None:
        """Once, when all is taken up: what the ledger still waits for and is not there any more."""
        if self._accounted or self.unstable or self._queue:
            return
        self._accounted = True
        elsewhere = 0
        for sighting in self._store.files.unfinished():
            ledger = sighting.ledger
            if ledger.id in self.pending or self._is_there(sighting, found):
                continue
            if sighting.root != found.root:
                elsewhere += 1
            elif ledger.digest.startswith("unread:"):
                self._store.files.forget_unread(sighting.name)
            elif ledger.status != "deferred" or ledger.retry_at:
                self._store.files.defer(ledger.id, GONE)
        if elsewhere:
            self._events.warning(
                f"source missing: {elsewhere:,} unfinished files were seen in another directory than what is now"
                f" {self._config.drop_dir} (made anew, or not mounted); they stay as they are in the ledger"
            )

    def _is_there(self, sighting: Sighting, found: Scan) -> bool:
        """Whether the name still holds that content, as far as is known."""
        file = found.files.get(sighting.name)
        if file is None:
            return False
        known = self._store.files.known_digest(file.name, signature_text(file))
        return known is None or known.id == sighting.ledger.id

    def next_due_s(self) -> float:
        """How long until some file that was put off is due again."""
        return min(self._not_before.values(), default=float("inf")) - self._now()

    # -- taking up -----------------------------------------------------------------------------------

    @property
    def queued(self) -> int:
        """How many settled files are still to be taken up."""
        return len(self._queue)

    def queued_bytes(self) -> int:
        """The size of the files still to be taken up."""
        if self._queue_sized[0] != len(self._queue):
            size_bytes = sum(file.signature.size_bytes for file in self._queue.values())
            self._queue_sized = (len(self._queue), size_bytes)
        return self._queue_sized[1]

    def take_up(self, slice_s: float, *, gathering: bool) -> bool:
        """Register queued files for a while; whether there was any. Once codebooks exist, no more than can wait."""
        until = self._now() + slice_s
        worked = False

        def is_next(small: bool) -> bool:
            if not self._queue or not (gathering or len(self.pending) < MOST_WAITING):
                return False
            return self.is_small(next(iter(self._queue.values()))) or not small

        while is_next(small=False) and self._now() < until:
            if is_next(small=True):
                with self.together() as in_time:
                    self._take_up_next()
                    while is_next(small=True) and in_time():
                        self._take_up_next()
            else:
                self._take_up_next()
            self._tick()
            worked = True
        if worked and self._found is not None:
            self._account(self._found)
        return worked

    def is_small(self, file: DropFile) -> bool:
        """Whether so little is to be done with a file that many of them are better done together."""
        return file.signature.size_bytes <= _SMALL_BYTES and file not in self.quarantine

    @contextlib.contextmanager
    def together(self) -> Iterator[Callable[[], bool]]:
        """Small files that end with one commit, which are moved after it; gives whether there is time for more.

        Nothing else is attended to meanwhile. If it raises, the transaction is rolled back and the files are
        registered again.
        """
        until = self._now() + _TOGETHER_S
        self._moves = []
        try:
            with self._store.database.batch(savepoints=True):
                yield lambda: self._now() < until
        except BaseException:
            self._moves = None
            self._queue.clear()
            self.pending.clear()
            self._contents.clear()
            self.unstable = True
            raise
        moves, self._moves = self._moves, None
        for move in moves:
            move()

    def _once_committed(self, move: Callable[[], None]) -> None:
        """Files are moved only when the ledger has what is behind it."""
        if self._moves is None:
            move()
        else:
            self._moves.append(move)

    def _take_up_next(self) -> None:
        file = self._queue.pop(next(iter(self._queue)))
        self._crash_marker.set(file.name, signature_text(file), 0)
        self._take_up(file)
        self._crash_marker.clear()

    def _take_up(self, file: DropFile) -> None:
        """Register one settled file, unless it moves on meanwhile or the machine does not let us."""
        try:
            how = self.quarantine.why_quarantined(file)
            if how is None:
                self._register(file)
            else:
                self._quarantine(file, how)
        except FileChangedError:
            self.unstable = True
        except (OSError, MemoryError) as error:
            self.postpone(file, None, f"cannot be read or moved: {error_text(error)}")

    def _register(self, file: DropFile) -> None:
        """The file waits, or ends here because of what the ledger knows of its content."""
        with self._progress.task(f"hashing {file.name}", file.signature.size_bytes, "bytes") as advance:

            def on_hashed(size_bytes: int) -> None:
                advance(size_bytes)
                if self._moves is None:
                    self._tick()

            registered = register(self._store, file, self._root, on_hashed, lambda: self._is_stable(file))
        ledger = registered.ledger
        if ledger is not None:
            former = self._contents.get(file.name, ledger.id)
            self._contents[file.name] = ledger.id
            if former != ledger.id and former not in self.pending:
                self._store.files.defer(former, _CHANGED)
        if ledger is None:
            self.unstable = True
        elif ledger.status == "done":
            self.finish(file, ledger)
        elif ledger.status == "rejected":
            self._reject_known(file, ledger, ledger.reason or "rejected before")
        elif registered.problem is not None:
            self.reject(PendingFile(file, ledger), str(registered.problem))
        elif self._heed_retry_times and ledger.retry_at and file.name not in self._not_before:
            # Put off by an earlier run. The wall clock may have been set since: never wait longer than meant.
            longest_s = pause_s(self._config.ingest.retry_s, ledger.failures)
            self._not_before[file.name] = self._now() + min(longest_s, max(0.0, seconds_until(ledger.retry_at)))
        else:
            self._not_before.pop(file.name, None)
            self.pending.setdefault(ledger.id, PendingFile(file, ledger))

    @property
    def _root(self) -> str:
        return self._found.root if self._found else ""

    def _is_stable(self, file: DropFile) -> bool:
        """Whether an incomplete file has looked the same for so long that nobody can be writing it."""
        grace_s = self._config.drop.incomplete_grace_s
        stable_for_s = self._settling.stable_for_s(file.name, self._now())
        # The wall clock only shortens the wait for files that are plainly old; it is never relied on.
        age_s = time.time() - file.signature.mtime_ns / 1e9
        return stable_for_s >= grace_s or age_s >= max(grace_s, 1.0)

    def _quarantine(self, file: DropFile, how: str) -> None:
        """Reject a file without ever parsing it."""
        with self._progress.task(f"hashing {file.name}", file.signature.size_bytes, "bytes") as advance:
            ledger = register_unopened(self._store, file, self._root, advance)
        self.reject(PendingFile(file, ledger), f"{how}; look at it, then `semid retry` tries it again")

    # -- where files end ---------------------------------------------------------------------------

    def finish(self, file: DropFile, ledger: LedgerFile) -> None:
        """All rows are committed: move, keep or delete the file, as configured. What fails is done later."""
        self.pending.pop(ledger.id, None)
        self.quarantine.clear(file.name)
        self._once_committed(lambda: self._put_away(file, ledger))

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

    def reject(self, pending: PendingFile, reason: str) -> None:
        """The file can never be used: the ledger says why, and the file goes to the rejected ones."""
        self._store.files.reject(pending.ledger.id, reason)
        self._reject_known(pending.file, pending.ledger, reason)

    def _reject_known(self, file: DropFile, ledger: LedgerFile, reason: str) -> None:
        self.pending.pop(ledger.id, None)
        self.quarantine.clear(file.name)
        if file.name not in self._failures:
            self.rejected += 1
            self._events.warning(f"{file.name}: rejected: {reason}")
        self._once_committed(lambda: self._put_to_rejected(file, ledger, reason))

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
            self.unstable = True  # what lies there now is another content: it settles, and is registered, anew
        except OSError as error:
            self._put_off(file, f"{fault}: {error_text(error)}")
        else:
            self._failures.pop(file.name, None)

    def _put_off(self, file: DropFile, why: str) -> float:
        """Try this name again later; for how long it is put off."""
        failures = self._failures[file.name] = self._failures.get(file.name, 0) + 1
        pause = pause_s(self._config.ingest.retry_s, failures)
        self._not_before[file.name] = self._now() + pause
        self.deferred += 1
        self._events.warning(f"{file.name}: {why}; tried again in {pause:,.0f} s")
        return pause

    def postpone(self, file: DropFile, ledger: LedgerFile | None, reason: str) -> None:
        """Not the file's fault: tried again after a pause that doubles every time."""
        if ledger is None:
            pause = self._put_off(file, f"deferred: {reason}")
            size_bytes = file.signature.size_bytes
            self._store.files.record_unread(file.name, size_bytes, self._root, reason, utc_in(pause))
            return
        self.pending.pop(ledger.id, None)
        pause = pause_s(self._config.ingest.retry_s, self._store.files.get(ledger.id).failures + 1)
        self._not_before[file.name] = self._now() + pause
        self.deferred += 1
        # The ledger first: where even that fails, everything waits, and says so itself.
        self._store.files.defer(ledger.id, reason, utc_in(pause))
        self._events.warning(f"{file.name}: deferred: {reason}; tried again in {pause:,.0f} s")

    # -- commands ----------------------------------------------------------------------------------

    def retry(self, names: list[str] | None) -> str:
        """Take deferred and rejected files up again, those of `names` or all; what came of it, in words."""
        return retry(self._store, self._config, names, self._forget)

    def _forget(self, name: str) -> None:
        for memory in (self._not_before, self._failures, self._handled):
            memory.pop(name, None)
        self.quarantine.clear(name)

    def rescan(self) -> None:
        """Forget what is only remembered: the next look takes everything that lies there up anew."""
        self._handled.clear()
        self._not_before.clear()
        self.source.tell_again()
        self._scan_again = 0.0
        self._accounted = False
